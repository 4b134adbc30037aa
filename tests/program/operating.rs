//! Every example of `docs/operating.md` is run as it is printed there; only the address to listen on and the sound
//! devices are added.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::hallway::{BULLHORN, Environment, Program, STATE, file, wavs};
use crate::support::terminal::Terminal;
use crate::support::wav::Spec;
use tempfile::TempDir;

const PAGE: &str = include_str!("../../docs/operating.md");

/// The lines of its shell blocks.
fn examples() -> Vec<&'static str> {
    let blocks = PAGE.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines: Vec<_> = blocks.flat_map(str::lines).collect();
    assert!(
        lines.iter().all(|line| line.split(" | ").last().unwrap().starts_with("bullhorn ")),
        "{lines:#?}"
    );
    lines
}

/// The words after `bullhorn`, also where another program's output is piped into it.
fn arguments(line: &str) -> impl Iterator<Item = &str> {
    line.split(" | ").last().unwrap().split(' ').skip(1)
}

/// A folder with everything that the examples name, and with keys of its own.
struct Office {
    folder: TempDir,
    environment: Environment,
}

impl Office {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tones = Spec::stereo(16, 44_100).write(folder.path(), 11_025);
        std::fs::rename(tones, folder.path().join("bell.wav")).unwrap();
        std::fs::create_dir(folder.path().join("sounds")).unwrap();
        std::fs::copy(folder.path().join("bell.wav"), folder.path().join("sounds/bell.wav")).unwrap();
        let environment = vec![(STATE.to_owned(), folder.path().join("state").display().to_string())];
        Self { folder, environment }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The command of a line of the page, in this folder, with more arguments appended.
    fn command(&self, line: &str, more: &[&str]) -> Command {
        let mut command = match line.split_once(" | ") {
            Some((before, _)) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("{before} | {BULLHORN} \"$@\""), "sh"]);
                shell
            }
            None => Command::new(BULLHORN),
        };
        command.args(arguments(line)).args(more).current_dir(self.folder.path());
        command
    }

    fn start(&self, line: &str, more: &[&str]) -> Program {
        let more = [more, &["--events", "json"]].concat();
        Program::start_command(line, self.command(line, &more), &self.environment)
    }

    /// Starts a station of the page for this announcer, in zone east; it writes what it plays.
    fn station(&self, line: &str, address: &str) -> Program {
        let output = file(&self.path("played"));
        let line = line.replace("office-pc", address);
        self.start(&line, &["--zone", "east", "--output", output.to_str().unwrap()])
    }

    /// Runs an example that announces once, with the station of another example.
    fn announce(&self, line: &str, station: &str) {
        self.announce_as(line, station, "played");
    }

    /// Does the same for live speech.
    fn speak(&self, line: &str, station: &str) {
        self.announce_as(line, station, "live-played");
    }

    fn announce_as(&self, line: &str, station: &str, receipt: &str) {
        let mut announcer = self.start(line, &["--listen", "127.0.0.1:0"]);
        let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
        let mut station = self.station(station, &address);
        let done = announcer.wait_for("done");
        assert_eq!((&done["played"], &done["expected"]), (&1.into(), &1.into()), "{line}: {done}");
        assert_eq!(announcer.exit_code(), 0, "{line}");
        station.wait_for(receipt);
        // Its archive is written when it leaves.
        station.terminate();
        assert_eq!(station.exit_code(), 0, "{line}");
    }

    /// Runs an example of an announcer that accepts talkback, and one of a station that talks back to it.
    fn talk(&self, announcer: &str, station: &str) {
        let office = ["--listen", "127.0.0.1:0", "--input", "file:bell.wav", "--monitor", "file:answers"];
        let mut announcer = self.start(announcer, &office);
        let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
        let station = station.replace("office-pc", &address);
        let mut station = self.start(&station, &["--output", "file:played", "--input", "file:bell.wav"]);
        announcer.wait_for("station-joined");
        station.enter();
        let kept = announcer.wait_for("talkback-received")["file"].as_str().unwrap().to_owned();
        station.wait_for("talkback-heard");
        assert_eq!(wavs(&self.path("answers")).len(), 1);
        assert!(Path::new(&kept).starts_with(self.path("state/bullhorn/talkback-clips")), "{kept}");
        let mut verify = Command::new(BULLHORN);
        let verified =
            verify.arg("verify").arg(&kept).envs(self.environment.iter().cloned()).output().unwrap();
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(verified.status.success() && said.contains("said by hall-1"), "{said}");
    }

    /// Runs an example of a station that serves two announcers: the lodge is joined first, as the page says.
    fn announce_from_two(&self, line: &str, station: &str) {
        let lodge = vec![(STATE.to_owned(), self.path("lodge").display().to_string())];
        let arguments =
            ["announce", "--listen", "127.0.0.1:0", "--input", "file:bell.wav", "--events", "json"];
        let mut command = Command::new(BULLHORN);
        command.args(arguments).current_dir(self.folder.path());
        let mut porter = Program::start_command("the lodge", command, &lodge);
        let address = porter.wait_for("listening")["address"].as_str().unwrap().to_owned();
        let invite = Command::new(BULLHORN).arg("invite").envs(lodge.iter().cloned()).output().unwrap();
        let invite = String::from_utf8(invite.stdout).unwrap();
        let invite = invite.split_whitespace().last().unwrap();
        let joining = format!("bullhorn speaker {address} --name hall-1 --invite {invite}");
        let mut joins = self.station(&joining, &address);
        joins.wait_for("connected");
        joins.terminate();
        joins.exit_code();
        self.announce(line, &station.replace("lodge-pc", &address));
    }

    /// Runs an example that is operated with the keyboard.
    fn press(&self, line: &str, keys: &[(&str, &str)]) {
        self.press_as(line, keys, "bell.wav", "played");
    }

    /// Does the same for live speech, with a minute of speech.
    fn press_live(&self, line: &str, keys: &[(&str, &str)]) {
        crate::support::wav::speech(self.folder.path(), 60, 8_000);
        self.press_as(line, keys, "speech.wav --latency 1000", "live-played");
    }

    fn press_as(&self, line: &str, keys: &[(&str, &str)], voice: &str, receipt: &str) {
        let terminal = Terminal::open(100, 30, &self.environment);
        terminal.type_line(&format!("cd {}; clear", self.folder.path().display()));
        let own = line.strip_prefix("bullhorn").unwrap();
        let (listen, input) = ("--listen 127.0.0.1:0", format!("--input file:{voice}"));
        let monitor = if line.contains("--review") { "--monitor file:heard" } else { "" };
        terminal.type_line(&format!("clear; {BULLHORN}{own} {listen} {input} {monitor}; echo left=$?"));
        let address = |screen: &str| {
            let (_, after) = screen.split_once("listening on ")?;
            Some(after.lines().next()?.trim().to_owned())
        };
        let screen = terminal.wait_until("the console", |screen| address(screen).is_some());
        let mut station =
            self.station("bullhorn speaker office-pc --name hall-1", &address(&screen).unwrap());
        terminal.wait_for("hall-1 listens");
        for (words, key) in keys {
            terminal.wait_for(words);
            // Any sooner, a second Enter would be a held key's repeat.
            std::thread::sleep(Duration::from_millis(400));
            terminal.press(key);
        }
        station.wait_for(receipt);
        terminal.wait_for("1 of 1 stations played it");
        terminal.press("q");
        terminal.wait_for("left=0");
    }
}

#[test]
fn every_example_does_what_the_page_says() {
    let examples = examples();
    assert!(examples.len() >= 10, "{examples:#?}");
    let office = Office::new();
    let bell = "bullhorn announce --file bell.wav --once --wait-for 1";
    let hall = "bullhorn speaker office-pc --name hall-1";
    let (mut pages, mut answered) = (0, None);
    let archived = |folder: &Path| if folder.exists() { wavs(folder).len() } else { 0 };
    for line in examples {
        let before = archived(&office.path("played"));
        match arguments(line).next().unwrap() {
            "announce" if line.contains("--talkback") => {
                answered = Some(line);
                continue;
            }
            "speaker" if line.contains("--talkback") => {
                office.talk(answered.take().unwrap(), line);
                continue;
            }
            "announce" if line.contains("--live") && line.contains("--once") => office.speak(line, hall),
            "announce" if line.contains("--live") => {
                office.press_live(line, &[("ready: press Enter", "Enter"), ("LIVE", "Enter")]);
            }
            "announce" if line.contains("--once") => office.announce(line, hall),
            "announce" if line.contains("--sounds") => {
                office.press(line, &[("f sounds", "f"), ("> bell.wav", "Enter")]);
            }
            "announce" if line.contains("--hold") => office.press(line, &[("ready: press Space", "Space")]),
            "announce" if line.contains("--review") => {
                office.press(line, &[("ready: press Enter", "Enter"), ("Enter sends it", "Enter")]);
            }
            "speaker" if line.contains("lodge-pc") => office.announce_from_two(bell, line),
            "speaker" => office.announce(bell, line),
            "stations" => {
                let ran =
                    office.command(line, &[]).envs(office.environment.iter().cloned()).output().unwrap();
                assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
                continue;
            }
            _ => panic!("nobody runs {line}"),
        }
        pages += 1;
        assert_eq!(archived(&office.path("played")), before + 1, "{line}");
    }
    assert_eq!(archived(&office.path("played")), pages);
    assert_eq!((archived(&office.path("pages")), archived(&office.path("clips"))), (1, 1));
    assert!(archived(&office.path("heard")) <= 1, "the clip that was heard first");
}
