//! A private sound server: PulseAudio with one software sink, whose channels are a mouth, the hallways' loudspeakers,
//! and a marker. So one recording contains what was said and what each hallway heard, on one clock, and shows by the
//! marker whether it is whole itself.

use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::DEADLINE;
use super::marker;

/// The sink's rate.
pub const RATE_HZ: u32 = 40_000;
/// The sink into which a voice is played.
pub const MOUTH: &str = "mouth";
/// The source that hears only the mouth; the server's default.
pub const MICROPHONE: &str = "microphone";

/// The sink into which a tone is played, see [`super::marker`].
const MARKER: &str = "marker";
/// How often a test is repeated at most because the rig lost sound.
const REPEATS: usize = 2;

const COOKIE: &str = "home/cookie";

/// The server and its devices: source [`MICROPHONE`], sink [`MOUTH`], and sinks `hall-1`, `hall-2` …. `hall-1` is the
/// default sink. Stops when dropped.
#[derive(Debug)]
pub struct PulseRig {
    /// Sound is made in real time: on a small machine two rigs at once would starve each other.
    _alone: MutexGuard<'static, ()>,
    folder: TempDir,
    server: Child,
    halls: usize,
}

impl PulseRig {
    /// Starts a server with sinks for `halls` hallways.
    pub fn start(halls: usize) -> Self {
        Self::start_with(halls, &script(halls))
    }

    /// Starts a server without a single device.
    pub fn start_empty() -> Self {
        Self::start_with(0, "load-module module-native-protocol-unix auth-anonymous=1\n")
    }

    fn start_with(halls: usize, script: &str) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rig.pa");
        std::fs::write(&path, script).unwrap();
        for name in ["run", "home"] {
            std::fs::DirBuilder::new().mode(0o700).create(folder.path().join(name)).unwrap();
        }
        // cpal's client is turned away without a cookie, whatever the server requires.
        std::fs::write(folder.path().join(COOKIE), [7; 256]).unwrap();
        std::fs::write(
            folder.path().join("home/.asoundrc"),
            "pcm.!default { type pulse }\nctl.!default { type pulse }\n",
        )
        .unwrap();
        let server = serve(folder.path());
        let mut rig = Self { _alone: alone, folder, server, halls };
        rig.wait_until_ready();
        rig
    }

    /// Kills the server at once.
    pub fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// Starts a killed server again, in the same place.
    pub fn restart(&mut self) {
        for left in ["run/pulse/pid", "run/pulse/native"] {
            drop(std::fs::remove_file(self.folder.path().join(left)));
        }
        self.server = serve(self.folder.path());
        self.wait_until_ready();
    }

    /// The socket's module is the last to load: once it answers, every device is there.
    fn wait_until_ready(&mut self) {
        let give_up = Instant::now() + DEADLINE;
        let socket = self.folder.path().join("run/pulse/native");
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let ended = self.server.try_wait().unwrap();
            assert!(ended.is_none(), "pulseaudio ended with {ended:?}:\n{}", self.log());
            assert!(Instant::now() < give_up, "pulseaudio does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// The environment in which a program finds this server and no other.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(self.folder.path())
    }

    /// The output of `pactl list` for a kind, in English.
    pub fn list(&self, kind: &str) -> String {
        let listed = Command::new("pactl")
            .args(["list", kind])
            .envs(self.environment())
            .env("LC_ALL", "C")
            .output()
            .expect("pactl is missing: run script/setup tests");
        String::from_utf8_lossy(&listed.stdout).into_owned()
    }

    /// Runs a command of `pactl`.
    pub fn control(&self, command: &[&str]) {
        let done = Command::new("pactl").args(command).envs(self.environment()).status();
        assert!(done.expect("pactl is missing: run script/setup tests").success(), "pactl {command:?}");
    }

    /// A folder that is deleted with the rig.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Plays a WAV into a sink.
    pub fn play(&self, sink: &str, wav: &Path) -> Player {
        let player = Command::new("paplay")
            .args(["--device", sink, "--latency-msec=1000"])
            .arg(wav)
            .envs(self.environment())
            .stdin(Stdio::null())
            .spawn()
            .expect("paplay is missing: run script/setup tests");
        Player(player)
    }

    /// Records every channel from now on; returns once sound flows.
    pub fn record(&self) -> Recording {
        let channels = channels(self.halls);
        let mut recorder = Command::new("parec")
            .args(["--device=all.monitor", "--raw", "--format=s16le", "--latency-msec=20"])
            .arg(format!("--rate={RATE_HZ}"))
            .arg(format!("--channels={channels}"))
            .arg(format!("--channel-map={}", channel_map(channels)))
            .envs(self.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("parec is missing: run script/setup tests");
        let mut pipe = recorder.stdout.take().unwrap();
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut block = [0; 16 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut block) {
                writer.bytes.lock().unwrap().extend_from_slice(&block[..count]);
                writer.grown.notify_all();
            }
        });
        let marker = self.play(MARKER, &marker::wav(self.folder(), RATE_HZ));
        let recording = Recording { recorder, shared, channels, _marker: marker };
        recording.wait_until_heard(channels - 1);
        recording
    }
}

impl Drop for PulseRig {
    fn drop(&mut self) {
        end(&mut self.server);
        if std::thread::panicking() {
            eprintln!("--- pulseaudio said:\n{}", self.log());
        }
    }
}

/// A voice that speaks until it is dropped.
#[derive(Debug)]
pub struct Player(Child);

impl Drop for Player {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

#[derive(Debug, Default)]
struct Shared {
    bytes: Mutex<Vec<u8>>,
    grown: Condvar,
}

/// A recording in progress.
#[derive(Debug)]
pub struct Recording {
    recorder: Child,
    shared: Arc<Shared>,
    channels: usize,
    _marker: Player,
}

impl Recording {
    /// The number of frames so far.
    pub fn frames(&self) -> usize {
        self.shared.bytes.lock().unwrap().len() / (2 * self.channels)
    }

    /// One channel so far, from a frame on, as ±1.0. Channel 0 is the mouth, channel 1 is `hall-1`.
    pub fn channel(&self, channel: usize, from: usize) -> Vec<f32> {
        let bytes = self.shared.bytes.lock().unwrap();
        bytes
            .chunks_exact(2 * self.channels)
            .skip(from)
            .map(|frame| {
                f32::from(i16::from_le_bytes([frame[2 * channel], frame[2 * channel + 1]])) / 32_768.0
            })
            .collect()
    }

    /// Whether the rig itself lost no sound from a frame on. If it did, other missing sound might not be the program's
    /// fault, which is a reason to try again, [`REPEATS`] times at most, as `torn` counts.
    pub fn is_whole(&self, from: usize, torn: &mut usize) -> bool {
        let tears = marker::tears(&self.channel(self.channels - 1, from), RATE_HZ);
        if tears.is_empty() {
            return true;
        }
        *torn += 1;
        eprintln!("the rig lost sound of its own, {tears:?} frames after {from}");
        assert!(
            *torn <= REPEATS,
            "the rig loses sound of its own, the last time {tears:?} frames after {from}"
        );
        false
    }

    /// Waits until this much more sound is recorded, counted from now.
    pub fn wait_for(&self, length: Duration) {
        let goal = self.frames() + (length.as_secs_f64() * f64::from(RATE_HZ)) as usize;
        self.wait_until("the recording grows", |recording| (recording.frames() >= goal).then_some(()));
    }

    /// Waits until a channel sounds.
    pub fn wait_until_heard(&self, channel: usize) {
        let from = self.frames();
        self.wait_until("a channel sounds", |recording| {
            recording.channel(channel, from).iter().any(|sample| sample.abs() > 0.01).then_some(())
        });
    }

    fn wait_until<T>(&self, what: &str, ready: impl Fn(&Self) -> Option<T>) -> T {
        let give_up = Instant::now() + DEADLINE;
        loop {
            if let Some(result) = ready(self) {
                return result;
            }
            let left = give_up.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited {DEADLINE:?} until {what}");
            let bytes = self.shared.bytes.lock().unwrap();
            drop(self.shared.grown.wait_timeout(bytes, left.min(Duration::from_millis(100))).unwrap());
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        end(&mut self.recorder);
    }
}

fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

fn environment(folder: &Path) -> Vec<(String, String)> {
    let inside = |name: &str| folder.join(name).display().to_string();
    vec![
        ("XDG_RUNTIME_DIR".into(), inside("run")),
        ("PULSE_RUNTIME_PATH".into(), inside("run/pulse")),
        ("PULSE_SERVER".into(), format!("unix:{}", inside("run/pulse/native"))),
        ("PULSE_COOKIE".into(), inside(COOKIE)),
        ("XDG_CONFIG_HOME".into(), inside("home")),
        ("HOME".into(), inside("home")),
        ("XDG_STATE_HOME".into(), inside("state")),
        ("DBUS_SESSION_BUS_ADDRESS".into(), "disabled:".into()),
    ]
}

/// The number of channels: the mouth, `halls` hallways, and the marker.
fn channels(halls: usize) -> usize {
    halls + 2
}

fn channel_map(channels: usize) -> String {
    (0..channels).map(|channel| format!("aux{channel}")).collect::<Vec<_>>().join(",")
}

fn script(halls: usize) -> String {
    let channels = channels(halls);
    let mut script = format!(
        "load-module module-null-sink sink_name=all rate={RATE_HZ} format=s16le channels={channels} channel_map={} norewinds=1\n",
        channel_map(channels)
    );
    let halls = (1..=halls).map(|hall| format!("hall-{hall}"));
    let names = [MOUTH.to_owned()].into_iter().chain(halls).chain([MARKER.to_owned()]);
    for (channel, name) in names.enumerate() {
        writeln!(
            script,
            "load-module module-remap-sink sink_name={name} master=all channels=1 channel_map=mono \
             master_channel_map=aux{channel} remix=no"
        )
        .unwrap();
    }
    script
        + &format!(
            "load-module module-remap-source source_name={MICROPHONE} master=all.monitor channels=1 \
             channel_map=mono master_channel_map=aux0 remix=no\n\
             set-default-source {MICROPHONE}\nset-default-sink hall-1\n\
             load-module module-native-protocol-unix auth-anonymous=1\n"
        )
}

/// Starts the server in a folder.
fn serve(folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("server.log")).unwrap();
    Command::new("pulseaudio")
        .args([
            "-n",
            "--daemonize=no",
            "--exit-idle-time=-1",
            "--use-pid-file=no",
            "--log-target=stderr",
            "-F",
        ])
        .arg(folder.join("rig.pa"))
        .envs(environment(folder))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("pulseaudio is missing: run script/setup tests")
}

/// An environment in which nothing sounds: no server, and ALSA without a single device.
pub fn deaf_environment(folder: &Path) -> Vec<(String, String)> {
    let empty: PathBuf = folder.join("no-devices.conf");
    std::fs::write(&empty, "").unwrap();
    let mut environment = environment(&folder.join("nowhere"));
    environment.push(("ALSA_CONFIG_PATH".into(), empty.display().to_string()));
    environment
}
