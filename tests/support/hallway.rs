//! The real program as it runs in a building: an announcer, and a station in every hallway.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::DEADLINE;
use super::pulse::Recording;
use tempfile::TempDir;

/// The program under test.
pub const BULLHORN: &str = env!("CARGO_BIN_EXE_bullhorn");

/// How long sound may still be emitted after the verdict.
pub const AFTERWARDS: Duration = Duration::from_millis(700);
/// The variable for the folder where keys are kept, unless `--state` says otherwise.
pub const STATE: &str = "XDG_STATE_HOME";

/// Environment variables for a program.
pub type Environment = Vec<(String, String)>;

/// One running `bullhorn … --events json`. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Events that were not taken yet, oldest first.
    waiting: VecDeque<Value>,
    /// Every line of standard output.
    said: Vec<String>,
    complaints: Arc<(Mutex<String>, Condvar)>,
    listener: Option<JoinHandle<()>>,
    _state: Option<TempDir>,
}

/// How large a process is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Memory that is resident, in KiB.
    pub resident_kib: u64,
    /// Open files, sockets among them.
    pub files: usize,
    /// Threads.
    pub threads: u64,
}

impl Program {
    /// Starts it with `--events json` added.
    pub fn start<S: Into<OsString>>(
        name: &str,
        arguments: impl IntoIterator<Item = S>,
        environment: &[(String, String)],
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).chain(["--events".into(), "json".into()]);
        Self::start_prose(name, arguments, environment)
    }

    /// Starts it as it is. If the environment does not set [`STATE`], it has a state folder of its own.
    pub fn start_prose<S: Into<OsString>>(
        name: &str,
        arguments: impl IntoIterator<Item = S>,
        environment: &[(String, String)],
    ) -> Self {
        // Whoever runs the tests under `nohup` ignores SIGHUP; the program would too.
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP", BULLHORN]).args(arguments.into_iter().map(Into::into));
        Self::start_command(name, command, environment)
    }

    /// Starts any command that becomes the program.
    pub fn start_command(name: &str, mut command: Command, environment: &[(String, String)]) -> Self {
        let has_state = environment.iter().any(|(name, _)| name == STATE);
        let state = (!has_state).then(|| tempfile::tempdir().unwrap());
        let mut child = command
            .env_remove("RUST_LOG")
            .envs(environment.iter().cloned())
            .envs(state.iter().map(|folder| (STATE, folder.path())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut errors = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let complaints = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let writer = Arc::clone(&complaints);
        let listener = std::thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = errors.read(&mut block) {
                writer.0.lock().unwrap().push_str(&String::from_utf8_lossy(&block[..count]));
                writer.1.notify_all();
            }
        });
        Self {
            name: name.into(),
            child,
            input,
            lines,
            waiting: VecDeque::new(),
            said: Vec::new(),
            complaints,
            listener: Some(listener),
            _state: state,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its memory, files and threads now, according to the kernel.
    pub fn size(&self) -> Size {
        let folder = std::path::PathBuf::from(format!("/proc/{}", self.id()));
        let status = std::fs::read_to_string(folder.join("status")).unwrap();
        let number = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Size {
            resident_kib: number("VmRSS:"),
            files: std::fs::read_dir(folder.join("fd")).unwrap().count(),
            threads: number("Threads:"),
        }
    }

    /// The processor time it has used so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // After the name, which may hold spaces: utime and stime are fields 14 and 15, in ticks of 10 ms (proc(5)).
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Takes the first event of this name that was not taken yet, waiting for it if necessary.
    pub fn wait_for(&mut self, event: &str) -> Value {
        self.wait_where(event, |_| true)
    }

    /// Does the same for an event with this value in a field, such as a clip or a station.
    pub fn wait_for_one(&mut self, event: &str, field: &str, value: &str) -> Value {
        self.wait_where(&format!("{event} with {field} {value}"), |event| event[field] == value)
    }

    /// Takes the first wanted event whose name is the first word of `what`.
    pub fn wait_where(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let name = what.split(' ').next().unwrap_or(what);
        let fits = |event: &Value| event["event"] == name && wanted(event);
        if let Some(index) = self.waiting.iter().position(fits) {
            return self.waiting.remove(index).unwrap();
        }
        let give_up = Instant::now() + DEADLINE;
        loop {
            match self.next_event(give_up) {
                Ok(event) if fits(&event) => return event,
                Ok(event) => self.waiting.push_back(event),
                Err(why) => panic!("{} never said {what}: {why}", self.name),
            }
        }
    }

    fn next_event(&mut self, give_up: Instant) -> Result<Value, &'static str> {
        let line = self.next_line(give_up)?;
        let event: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{} printed no JSON: {error}: {line}", self.name));
        assert!(event["event"].is_string() && event["unix_ms"].is_u64(), "{}: {line}", self.name);
        Ok(event)
    }

    fn next_line(&mut self, give_up: Instant) -> Result<String, &'static str> {
        match self.lines.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.said.push(line.clone());
                Ok(line)
            }
            Err(RecvTimeoutError::Timeout) => Err("the deadline passed"),
            Err(RecvTimeoutError::Disconnected) => Err("it ended"),
        }
    }

    /// Waits for a line of prose that contains `part`.
    pub fn wait_for_line(&mut self, part: &str) -> String {
        let give_up = Instant::now() + DEADLINE;
        loop {
            match self.next_line(give_up) {
                Ok(line) if line.contains(part) => return line,
                Ok(_) => {}
                Err(why) => panic!("{} never said {part:?}: {why}", self.name),
            }
        }
    }

    /// How many events of this name have arrived and were not taken yet.
    pub fn untaken(&mut self, event: &str) -> usize {
        while let Ok(event) = self.next_event(Instant::now()) {
            self.waiting.push_back(event);
        }
        self.waiting.iter().filter(|waiting| waiting["event"] == event).count()
    }

    /// Every event that it printed so far.
    pub fn printed(&mut self) -> Vec<Value> {
        while let Ok(event) = self.next_event(Instant::now()) {
            self.waiting.push_back(event);
        }
        self.said.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Every event that it printed before it was killed, without a line that was cut short by that.
    pub fn printed_to_the_end(&mut self) -> Vec<Value> {
        self.rest().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until it has exited or closed its output, and returns everything it printed.
    pub fn rest(&mut self) -> Vec<String> {
        let give_up = Instant::now() + DEADLINE;
        while self.next_line(give_up).is_ok() {}
        self.said.clone()
    }

    /// Presses Enter.
    pub fn enter(&mut self) {
        self.input.as_mut().expect("the input is closed").write_all(b"\n").unwrap();
    }

    /// Closes its standard input.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// Waits until it exits by itself.
    pub fn exit_code(&mut self) -> i32 {
        let give_up = Instant::now() + DEADLINE;
        // Its output closes when it exits; waiting there needs no polling.
        while let Ok(line) = self.next_line(give_up) {
            self.waiting.extend(serde_json::from_str(&line).ok().filter(Value::is_object));
        }
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| panic!("{}: {status}", self.name));
            }
            assert!(Instant::now() < give_up, "{} does not end", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to leave, as a service manager does.
    pub fn terminate(&mut self) {
        self.signal("TERM");
    }

    /// Sends it a signal.
    pub fn signal(&mut self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Kills it at once, as a power cut does.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// What it has written to standard error so far; everything, once it has exited.
    pub fn complaints(&mut self) -> String {
        if self.child.try_wait().unwrap().is_some()
            && let Some(listener) = self.listener.take()
        {
            listener.join().unwrap();
        }
        self.complaints.0.lock().unwrap().clone()
    }

    /// Waits until standard error contains `part`.
    pub fn wait_for_complaint(&self, part: &str) {
        let (text, grown) = &*self.complaints;
        let lacks = |text: &mut String| !text.contains(part);
        let (text, waited) = grown.wait_timeout_while(text.lock().unwrap(), DEADLINE, lacks).unwrap();
        assert!(!waited.timed_out(), "{} never complained of {part:?}: {text}", self.name);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(1)) {
                self.said.push(line);
            }
            eprintln!("--- {} printed:\n{}", self.name, self.said.join("\n"));
            let complaints = self.complaints();
            eprintln!("--- {} complained:\n{complaints}", self.name);
        }
    }
}

/// An announcer, and stations that dial it.
#[derive(Debug)]
pub struct Hallway {
    /// The announcer.
    pub announcer: Program,
    /// The stations, in the order they were added.
    pub stations: Vec<Program>,
    /// The address on which the announcer listens, `IP:PORT`.
    pub address: String,
    /// The environment of all of them; a station that shares it needs no invite.
    pub environment: Environment,
    _state: TempDir,
}

/// One announcement on real sound.
#[derive(Debug)]
pub struct Announced {
    /// The clip's id.
    pub clip: String,
    /// Its rate.
    pub rate_hz: u64,
    /// The recording's frame at which Enter was pressed.
    pub from_frame: usize,
    /// What each station reported when it had played.
    pub receipts: Vec<Value>,
}

/// The programs to run in a [`Hallway`].
#[derive(Debug, Default)]
pub struct Plan {
    announce: Vec<OsString>,
    stations: Vec<(String, OsString)>,
    environment: Environment,
    home: Option<PathBuf>,
}

impl Plan {
    /// Adds arguments for `bullhorn announce`.
    pub fn announce<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.announce.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Announces a WAV as it is, to the bit.
    pub fn says(self, wav: &std::path::Path) -> Self {
        self.announce([OsString::from("--no-level"), "--input".into(), file(wav)])
    }

    /// Adds a station that plays to a device, or to `file:DIR`.
    pub fn station(mut self, name: &str, output: impl Into<OsString>) -> Self {
        self.stations.push((name.into(), output.into()));
        self
    }

    /// Adds environment variables for all programs.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment.extend(environment);
        self
    }

    /// Keeps the state of all programs in this folder until they are closed, and not with other temporary files.
    pub fn home(mut self, folder: &std::path::Path) -> Self {
        self.home = Some(folder.into());
        self
    }

    /// Starts everything; returns once every station has joined.
    pub fn open(mut self) -> Hallway {
        let state = self.home.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
        self.environment.push((STATE.into(), state.path().display().to_string()));
        let arguments =
            ["announce".into(), "--listen".into(), "127.0.0.1:0".into()].into_iter().chain(self.announce);
        let mut announcer = Program::start("the announcer", arguments, &self.environment);
        let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
        let mut stations = Vec::new();
        for (name, output) in &self.stations {
            stations.push(start_station(&address, name, output, &self.environment));
        }
        for (name, _) in &self.stations {
            announcer.wait_for_one("station-joined", "station", name);
        }
        Hallway { announcer, stations, address, environment: self.environment, _state: state }
    }
}

impl Hallway {
    /// An empty plan.
    pub fn plan() -> Plan {
        Plan::default()
    }

    /// Announces once, and waits for the verdict.
    pub fn announce(&mut self) -> Value {
        self.announcer.enter();
        self.announcer.wait_for("done")
    }

    /// Announces until no microphone lost sound and no station's device ran dry, five times at most: sound is made in
    /// real time, and a machine that is too busy for it proves nothing. A page that is reported as undisturbed must
    /// then be whole. If the rig itself lost sound, the announcement is repeated too. Returns once all sound that may
    /// still come is recorded.
    pub fn announce_undisturbed(&mut self, recording: &Recording) -> Announced {
        let mut torn = 0;
        for _ in 0..5 {
            let from_frame = recording.frames();
            let done = self.announce();
            let recorded = self.announcer.wait_for("recorded");
            assert!(done["played"] == done["expected"] && done["played"] != 0, "{done}");
            recording.wait_for(AFTERWARDS);
            let stations = done["played"].as_u64().unwrap_or_default();
            let receipts: Vec<Value> = (0..stations).map(|_| self.announcer.wait_for("played")).collect();
            let underruns: u64 = receipts.iter().map(|receipt| receipt["underruns"].as_u64().unwrap()).sum();
            let is_undisturbed = underruns == 0 && recorded.get("lost").is_none();
            if recording.is_whole(from_frame, &mut torn) && is_undisturbed {
                let clip = recorded["clip"].as_str().unwrap().to_owned();
                return Announced {
                    clip,
                    rate_hz: recorded["rate_hz"].as_u64().unwrap(),
                    from_frame,
                    receipts,
                };
            }
            if !is_undisturbed {
                eprintln!(
                    "this machine is busy, so it is announced again: {recorded}, {underruns} underruns"
                );
            }
        }
        panic!("this machine is too busy for sound: devices ran dry in each of five announcements");
    }
}

/// Starts one station.
pub fn start_station(
    address: &str,
    name: &str,
    output: &OsString,
    environment: &[(String, String)],
) -> Program {
    let arguments: [OsString; 6] =
        ["speaker".into(), address.into(), "--name".into(), name.into(), "--output".into(), output.clone()];
    Program::start(name, arguments, environment)
}

/// The argument `file:PATH`.
pub fn file(path: &std::path::Path) -> OsString {
    let mut argument = OsString::from("file:");
    argument.push(path);
    argument
}

/// The WAVs in a folder, sorted by name.
pub fn wavs(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|kind| kind == "wav")).collect();
    paths.sort();
    paths
}
