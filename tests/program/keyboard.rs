//! What else the keyboard does: a list of sounds, zones by their digits, a clip heard before it is sent, and Space held
//! or pressed.

use std::path::Path;
use std::time::Duration;

use crate::support::hallway::{BULLHORN, Environment, Program, STATE, file, start_station, wavs};
use crate::support::pty::KittyTerminal;
use crate::support::pulse::{MOUTH, PulseRig};
use crate::support::terminal::Terminal;
use crate::support::wav::{SPOKEN_HZ, Spec, read_i16, speech};
use tempfile::TempDir;

/// An announcer at a terminal whose microphone is a file, and a station that writes files.
struct Desk {
    terminal: Terminal,
    stations: Vec<Program>,
    folder: TempDir,
    address: String,
    environment: Environment,
}

impl Desk {
    fn open(options: &str) -> Self {
        Self::open_with(options, 4_000)
    }

    /// Opens a desk with `frames` frames to say.
    fn open_with(options: &str, frames: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let page = Spec::mono(16, 8_000).write(folder.path(), frames);
        let environment = vec![(STATE.to_owned(), folder.path().join("state").display().to_string())];
        let terminal = Terminal::open(100, 30, &environment);
        terminal.type_line(&format!("cd {}; clear", folder.path().display()));
        let input = file(&page);
        terminal.type_line(&format!(
            "clear; {BULLHORN} announce --listen 127.0.0.1:0 --no-level --input {} {options}; echo left=$?",
            input.display()
        ));
        let address = address_in(&terminal.wait_until("the console", |screen| address_in(screen).is_some()));
        let mut desk =
            Self { terminal, stations: Vec::new(), folder, address: address.unwrap(), environment };
        desk.station("hall-1", &[]);
        desk
    }

    fn station(&mut self, name: &str, more: &[&str]) {
        let output = file(&self.output(name));
        let own = ["speaker", &self.address, "--name", name, "--output", output.to_str().unwrap()];
        let mut station = Program::start(name, own.iter().chain(more).copied(), &self.environment);
        station.wait_for("connected");
        self.terminal.wait_for(name);
        self.stations.push(station);
    }

    fn output(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// How many clips a station has played.
    fn played(&self, name: &str) -> usize {
        wavs(&self.output(name)).len()
    }

    fn leave(&self, status: i32) {
        self.terminal.press("q");
        self.terminal.wait_for(&format!("left={status}"));
    }
}

/// The address on which an announcer listens, as its screen shows it.
fn address_in(screen: &str) -> Option<String> {
    let (_, after) = screen.split_once("listening on ")?;
    let address: String = after.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
    Some(address).filter(|address| address.contains(':'))
}

#[test]
fn a_sound_is_chosen_from_the_list() {
    let sounds = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sounds");
    for (from, to) in [("tones.flac", "bell.flac"), ("tones.ogg", "gong.ogg"), ("README.md", "notes.txt")] {
        std::fs::copy(shipped.join(from), sounds.path().join(to)).unwrap();
    }
    std::fs::write(sounds.path().join("torn.mp3"), "no sound").unwrap();
    let mut desk = Desk::open(&format!("--sounds {}", sounds.path().display()));
    desk.terminal.wait_for("f sounds");
    desk.terminal.press("f");
    let list = desk.terminal.wait_for("> bell.flac");
    assert!(list.contains("gong.ogg") && !list.contains("notes.txt"), "{list}");
    desk.terminal.press("Escape");
    desk.terminal.wait_for("ready: press Enter");
    desk.terminal.press("f");
    desk.terminal.wait_for("> bell.flac");
    desk.terminal.press("Down");
    desk.terminal.wait_for("> gong.ogg");
    desk.terminal.press("Enter");
    assert_eq!(desk.stations[0].wait_for("played")["frames"], 44_100);
    desk.terminal.wait_for("1 of 1 stations played it");
    // A file that is not a sound is reported, and nothing is sent.
    desk.terminal.press("f");
    desk.terminal.wait_for("> bell.flac");
    desk.terminal.press("Down");
    desk.terminal.press("Down");
    desk.terminal.wait_for("> torn.mp3");
    desk.terminal.press("Enter");
    // Its path is long, and lines are broken between words.
    let unbroken = |screen: &str| screen.split_whitespace().collect::<Vec<_>>().join(" ");
    desk.terminal.wait_until("why not", |screen| {
        unbroken(screen).contains("torn.mp3 is no sound that bullhorn can read")
    });
    // Without the list, Enter still announces from the microphone. (Any sooner, it would be a held key's repeat.)
    std::thread::sleep(Duration::from_millis(400));
    desk.terminal.press("Enter");
    assert_eq!(desk.stations[0].wait_for("played")["frames"], 4_000);
    assert_eq!(desk.played("hall-1"), 2);
    desk.leave(1);
}

#[test]
fn a_digit_speaks_to_a_zone() {
    let mut desk = Desk::open("");
    desk.station("hall-2", &["--zone", "gym"]);
    desk.station("hall-3", &["--zone", "east"]);
    // A zone keeps the digit with which it first appeared, whichever station was first.
    let digits = |screen: &str| screen.lines().find(|line| line.contains("0 all")).map(str::to_owned);
    let both = |line: String| line.contains("gym") && line.contains("east");
    let screen = desk.terminal.wait_until("both zones", |screen| digits(screen).is_some_and(both));
    let line = digits(&screen).unwrap();
    assert!(line.starts_with("to all   0 all  1 "), "{line}");
    let gym = if line.contains("1 gym") { "1" } else { "2" };
    assert!(line.contains(&format!("{gym} gym")), "{line}");
    desk.terminal.press(gym);
    desk.terminal.wait_for("to gym   0 all");
    desk.terminal.press("Enter");
    desk.stations[1].wait_for("played");
    desk.terminal.wait_for("1 of 1 stations played it");
    assert_eq!([desk.played("hall-1"), desk.played("hall-2"), desk.played("hall-3")], [0, 1, 0]);
    desk.terminal.press("0");
    desk.terminal.wait_for("to all   0 all");
    // Late enough not to be a held key's repeat of the previous Enter.
    std::thread::sleep(Duration::from_millis(400));
    desk.terminal.press("Enter");
    desk.terminal.wait_for("3 of 3 stations played it");
    assert_eq!([desk.played("hall-1"), desk.played("hall-2"), desk.played("hall-3")], [1, 2, 1]);
    desk.leave(0);
}

#[test]
fn a_clip_is_heard_first_and_sent_or_dropped() {
    let mut desk = Desk::open("--review --monitor file:heard");
    let asked = "Enter sends it, Esc drops it";
    desk.terminal.press("Enter");
    desk.terminal.wait_until("the question", |screen| screen.matches(asked).count() == 2);
    desk.terminal.press("Escape");
    desk.terminal.wait_for("cancelled: nothing was sent");
    desk.terminal.wait_for("ready: press Enter");
    assert_eq!(desk.played("hall-1"), 0);
    desk.terminal.press("Enter");
    desk.terminal.wait_until("the question again", |screen| screen.matches(asked).count() == 3);
    // It is heard to its end: half a second, exactly as it would be sent.
    let heard = desk.folder.path().join("heard");
    let give_up = std::time::Instant::now() + crate::support::DEADLINE;
    while wavs(&heard).is_empty() {
        assert!(std::time::Instant::now() < give_up, "nothing was heard");
        std::thread::sleep(Duration::from_millis(20));
    }
    desk.terminal.press("Enter");
    desk.terminal.wait_for("1 of 1 stations played it");
    desk.stations[0].wait_for("played");
    assert!(read_i16(&wavs(&heard)[0]) == read_i16(&wavs(&desk.output("hall-1"))[0]));
    // Leaving drops a clip that was not sent.
    std::thread::sleep(Duration::from_millis(400));
    desk.terminal.press("Enter");
    desk.terminal.wait_until("the question once more", |screen| screen.matches(asked).count() >= 4);
    desk.leave(0);
    assert_eq!(desk.played("hall-1"), 1);
}

/// The length in seconds of a clip that a station wrote.
fn seconds(path: &Path) -> f64 {
    let (samples, rate_hz) = read_i16(path);
    samples.len() as f64 / f64::from(rate_hz)
}

#[test]
fn space_starts_and_ends_where_its_release_is_not_told() {
    let rig = PulseRig::start(1);
    let _voice = rig.play(MOUTH, &speech(rig.folder(), 60, SPOKEN_HZ));
    let output = tempfile::tempdir().unwrap();
    let terminal = Terminal::open(100, 30, &rig.environment());
    terminal.type_line(&format!("clear; {BULLHORN} announce --listen 127.0.0.1:0 --hold; echo left=$?"));
    let screen = terminal.wait_for("ready, but nobody is listening");
    assert!(
        screen.contains("does not tell when a key is let go: Space starts, and Space again ends"),
        "{screen}"
    );
    let address = address_in(&screen).unwrap();
    let mut station = start_station(&address, "hall-1", &file(output.path()), &rig.environment());
    terminal.wait_for("ready: press Space, speak, press Space again");
    terminal.press("Space");
    terminal.wait_for("● recording");
    std::thread::sleep(Duration::from_millis(1_500));
    terminal.press("Space");
    terminal.wait_for("1 of 1 stations played it");
    station.wait_for("played");
    let length = seconds(&wavs(output.path())[0]);
    // It might have been up to sixty.
    assert!((1.5..20.0).contains(&length), "{length} s");
    // Esc drops a recording, and Enter does not start one here.
    terminal.press("Enter");
    terminal.press("Space");
    terminal.wait_for("● recording");
    terminal.press("Escape");
    terminal.wait_for("cancelled: nothing was sent");
    terminal.press("q");
    terminal.wait_for("left=0");
    assert_eq!(wavs(output.path()).len(), 1);
}

#[test]
fn space_is_held_where_its_release_is_told() {
    const PRESS: &[u8] = b"\x1b[32;1:1u";
    const REPEAT: &[u8] = b"\x1b[32;1:2u";
    const RELEASE: &[u8] = b"\x1b[32;1:3u";
    let rig = PulseRig::start(1);
    let _voice = rig.play(MOUTH, &speech(rig.folder(), 60, SPOKEN_HZ));
    let output = tempfile::tempdir().unwrap();
    let arguments = ["announce", "--listen", "127.0.0.1:0", "--hold", "--seconds", "30"];
    let mut terminal = KittyTerminal::start(BULLHORN, &arguments, &rig.environment());
    // Flags of the keyboard protocol: disambiguate, report releases, and send every key as a sequence.
    terminal.wait_for_raw("\x1b[>11u");
    let screen = terminal.wait_for("ready, but nobody is listening");
    assert!(screen.contains("hold Space while you speak"), "{screen:?}");
    let mut station =
        start_station(&address_in(&screen).unwrap(), "hall-1", &file(output.path()), &rig.environment());
    terminal.wait_for("hall-1 listens");
    station.wait_for("connected");
    terminal.send(PRESS);
    terminal.wait_for("recording 30 s from");
    for _ in 0..15 {
        std::thread::sleep(Duration::from_millis(100));
        terminal.send(REPEAT);
    }
    terminal.send(RELEASE);
    station.wait_for("played");
    let length = seconds(&wavs(output.path())[0]);
    assert!((1.5..20.0).contains(&length), "{length} s");
    terminal.wait_for("1 of 1 stations played it");
    terminal.send(b"\x1b[113;1:1u");
    assert_eq!(terminal.exit_code(), Some(0));
    // The keyboard mode is restored.
    terminal.wait_for_raw("\x1b[<1u");
}

#[test]
fn e_makes_the_next_page_an_emergency_which_interrupts() {
    let mut desk = Desk::open("--repeat 10");
    let page = |desk: &mut Desk| desk.stations[0].wait_for("playing")["clip"].as_str().unwrap().to_owned();
    desk.terminal.press("Enter");
    let first = page(&mut desk);
    desk.terminal.press("e");
    desk.terminal.wait_for("the next announcement has priority emergency");
    desk.terminal.press("e");
    desk.terminal.wait_for("the next announcement has priority normal");
    desk.terminal.press("e");
    desk.terminal.press("Enter");
    desk.terminal.wait_for("priority emergency");
    assert_eq!(desk.stations[0].wait_for("queued")["interrupted"], true);
    let second = page(&mut desk);
    assert_ne!(first, second);
    assert_eq!(desk.stations[0].wait_for("played")["clip"], second.as_str());
    assert_eq!(page(&mut desk), first);
    let again = desk.stations[0].wait_for("played");
    assert_eq!((&again["clip"], &again["again"]), (&first.as_str().into(), &true.into()));
    desk.terminal.wait_for("again, from its start");
    desk.leave(0);
}

/// l starts live speech; l, Enter and Esc all end it: Esc cannot cancel speech that was already heard.
#[test]
fn live_speech_begins_with_l_and_ends_with_any_of_three_keys() {
    let desk = Desk::open_with("--latency 1000", 60 * 8_000);
    for (spoken, end) in ["l", "Enter", "Escape"].into_iter().enumerate() {
        desk.terminal.wait_for("ready: press Enter");
        // Any sooner, a second Enter would be a held key's repeat.
        std::thread::sleep(Duration::from_millis(400));
        desk.terminal.press("l");
        desk.terminal.wait_for("LIVE");
        desk.terminal.wait_for("Enter ends it");
        desk.terminal.wait_until("the station to play", |screen| {
            screen
                .lines()
                .any(|line| line.trim_start().starts_with("hall-1") && line.trim_end().ends_with("playing"))
        });
        desk.terminal.press(end);
        desk.terminal.wait_until("the verdict", |screen| {
            screen.matches("hall-1 played ").count() > spoken && screen.contains("ready: press Enter")
        });
    }
    assert_eq!(desk.played("hall-1"), 3);
    desk.leave(0);
}
