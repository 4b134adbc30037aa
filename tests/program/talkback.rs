//! Talkback, end to end: what is said at a station is heard and kept at the announcer, and it is proven who said it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::desks::{Desk, join};
use crate::support::hallway::{BULLHORN, Environment, Program, STATE, file, wavs};
use crate::support::pulse::deaf_environment;
use crate::support::terminal::Terminal;
use crate::support::wav::Spec;
use serde_json::Value;
use tempfile::TempDir;

/// An announcer that plays talkback into a folder, and a station that speaks from a file.
struct Building {
    home: TempDir,
    environment: Environment,
    said: PathBuf,
    address: String,
    announcer: Program,
}

fn announcer(home: &Path, listen: &str, more: &[&str], environment: &Environment) -> Program {
    let page = Spec::mono(16, 8_000).write(home, 1_600);
    let arguments: [OsString; 5] =
        ["announce".into(), "--listen".into(), listen.into(), "--input".into(), file(&page)];
    let arguments = arguments.into_iter().chain(more.iter().map(OsString::from));
    Program::start("the announcer", arguments, environment)
}

impl Building {
    /// Opens a building with further arguments for the announcer, in which `HOME` stands for its folder.
    fn open(more: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let environment = vec![(STATE.to_owned(), home.path().join("state").display().to_string())];
        let said = Spec::mono(16, 16_000).write(home.path(), 8_000);
        let more = at_home(home.path(), more);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let mut announcer = announcer(home.path(), "127.0.0.1:0", &more, &environment);
        let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
        Self { home, environment, said, address, announcer }
    }

    fn restart(&mut self, more: &[&str]) {
        self.announcer.kill();
        let more = at_home(self.home.path(), more);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        self.announcer = announcer(self.home.path(), &self.address, &more, &self.environment);
        self.announcer.wait_for("listening");
    }

    fn station(&self, name: &str, more: &[&str]) -> Program {
        let mut arguments: Vec<OsString> = vec!["speaker".into(), self.address.clone().into()];
        arguments.extend(["--name", name, "--output"].map(OsString::from));
        arguments.push(file(&self.home.path().join(name)));
        arguments.extend(more.iter().map(OsString::from));
        Program::start(name, arguments, &self.environment)
    }

    /// Starts a station that talks back, and waits until it is welcomed.
    fn talker(&mut self, name: &str, more: &[&str]) -> Program {
        let input = format!("file:{}", self.said.display());
        let mut station = self.station(name, &[&["--talkback", "--input", &input], more].concat());
        self.announcer.wait_for_one("station-joined", "station", name);
        station.wait_for("connected");
        station
    }

    fn heard(&self) -> Vec<PathBuf> {
        let folder = self.home.path().join("heard");
        if folder.exists() { wavs(&folder) } else { Vec::new() }
    }

    /// The files where talkback is kept without an archive.
    fn kept(&self) -> Vec<PathBuf> {
        wavs(&self.home.path().join("state/bullhorn/talkback-clips"))
    }

    fn is_said(&self, path: &Path) -> bool {
        std::fs::read(path).unwrap() == std::fs::read(&self.said).unwrap()
    }
}

fn at_home(home: &Path, words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.replace("HOME", &home.display().to_string())).collect()
}

fn verify(environment: &Environment, arguments: &[&str], files: &[PathBuf]) -> (Option<i32>, String) {
    let mut verify = std::process::Command::new(BULLHORN);
    verify.arg("verify").args(arguments).args(files).envs(environment.iter().cloned());
    let output = verify.output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

const HEARS: [&str; 3] = ["--talkback", "--monitor", "file:HOME/heard"];

#[test]
fn what_is_said_at_a_station_is_heard_kept_and_proven_to_the_bit() {
    let mut building = Building::open(&HEARS);
    let mut hall = building.talker("hall-1", &[]);
    hall.enter();
    let sending = hall.wait_for("talkback-sending");
    let received = building.announcer.wait_for("talkback-received");
    for field in ["talkback", "station", "length_ms", "sha256"] {
        assert_eq!(sending[field], received[field], "{field}");
    }
    assert_eq!((&received["station"], &received["length_ms"]), (&"hall-1".into(), &500.into()));
    for program in [&mut building.announcer, &mut hall] {
        assert_eq!(program.wait_for("talkback-heard")["talkback"], sending["talkback"]);
    }
    let (heard, kept) = (building.heard(), building.kept());
    assert_eq!((heard.len(), kept.len()), (1, 1));
    assert!(building.is_said(&heard[0]) && building.is_said(&kept[0]));
    assert_eq!(received["file"], kept[0].display().to_string());

    let (code, said) = verify(&building.environment, &[], &kept);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(": good: said by hall-1 "), "{said}");
    let fingerprint = said.trim().rsplit(' ').next().unwrap().to_owned();
    let mut stations = std::process::Command::new(BULLHORN);
    let stations = stations.arg("stations").envs(building.environment.iter().cloned()).output().unwrap();
    assert!(String::from_utf8_lossy(&stations.stdout).contains(&fingerprint));
    assert_eq!(verify(&building.environment, &["--station", &fingerprint], &kept).0, Some(0));
    let elsewhere = vec![(STATE.to_owned(), building.home.path().join("elsewhere").display().to_string())];
    let (code, said) = verify(&elsewhere, &[], &kept);
    assert!(
        code == Some(1) && said.contains(&format!("signed by {fingerprint}, whom this machine does not")),
        "{said}"
    );
    assert_eq!(verify(&elsewhere, &["--station", &fingerprint], &kept).0, Some(0));
    assert!(!building.home.path().join("elsewhere").exists());
    let (code, said) = verify(&building.environment, &["--announcer", &fingerprint[1..]], &kept);
    assert!(code == Some(1) && said.contains("NOT GOOD: it was signed by"), "{said}");
    let mut torn = std::fs::read(&kept[0]).unwrap();
    *torn.last_mut().unwrap() ^= 1;
    std::fs::write(&kept[0], torn).unwrap();
    let (code, said) = verify(&building.environment, &[], &kept);
    assert!(code == Some(1) && said.contains("NOT GOOD: it is not what was announced"), "{said}");

    // Each line sends it once, one after the other; the end of the input does not stop the station.
    hall.enter();
    hall.enter();
    hall.end_input();
    for _ in 0..2 {
        hall.wait_for("talkback-heard");
    }
    assert_eq!(building.heard().len(), 3);
    building.announcer.enter();
    assert_eq!(building.announcer.wait_for("done")["played"], 1);
    hall.terminate();
    assert_eq!(hall.exit_code(), 0);
}

#[test]
fn it_is_off_unless_both_sides_ask_for_it() {
    let mut building = Building::open(&[]);
    let mut hall = building.talker("hall-1", &[]);
    hall.enter();
    let refused = hall.wait_for("talkback-refused");
    assert!(refused["reason"].as_str().unwrap().contains("takes no talkback"), "{refused}");
    assert_eq!(hall.untaken("recording"), 0, "nobody would hear it");
    assert!(!building.home.path().join("state/bullhorn/talkback-clips").exists());

    building.restart(&HEARS);
    let mut silent = building.station("hall-2", &[]);
    building.announcer.wait_for_one("station-joined", "station", "hall-2");
    silent.enter();
    building.announcer.enter();
    silent.wait_for("played");
    assert_eq!(silent.untaken("recording") + silent.untaken("talkback-sending"), 0);
    assert_eq!(building.announcer.untaken("talkback-received"), 0);
    assert_eq!(building.heard().len() + building.kept().len(), 0);
}

#[test]
fn an_archive_holds_pages_and_talkback_alike() {
    let mut building = Building::open(&[&HEARS[..], &["--archive", "HOME/pages"]].concat());
    let mut hall = building.talker("hall-1", &["--seconds", "0.25"]);
    building.announcer.enter();
    building.announcer.wait_for("done");
    hall.enter();
    hall.wait_for("talkback-heard");
    let files = wavs(&building.home.path().join("pages"));
    assert_eq!(files.len(), 2);
    let (code, said) = verify(&building.environment, &[], &files);
    let count = |words: &str| said.matches(words).count();
    assert_eq!(
        (code, count(": good: announced "), count(": good: said by hall-1 ")),
        (Some(0), 1, 1),
        "{said}"
    );
    assert!(!building.home.path().join("state/bullhorn/talkback-clips").exists());
}

#[test]
fn a_restart_of_either_side_keeps_what_was_heard_from_being_heard_again() {
    let mut building = Building::open(&HEARS);
    let mut hall = building.talker("hall-1", &[]);
    hall.enter();
    hall.wait_for("talkback-heard");
    let marks = building.home.path().join("state/bullhorn/talkback");
    let mark = |words: &str| std::fs::read_to_string(&marks).unwrap().contains(words);
    assert!(mark(" 1 heard\n"));
    building.restart(&HEARS);
    building.announcer.wait_for_one("station-joined", "station", "hall-1");
    hall.enter();
    hall.wait_for("talkback-heard");
    assert!(mark(" 2 heard\n"));
    hall.kill();
    // A new run of the station starts counting again, and counts as later.
    let mut hall = building.talker("hall-1", &[]);
    hall.enter();
    hall.wait_for("talkback-heard");
    assert!(mark(" 1 heard\n"));
    assert_eq!((building.heard().len(), building.kept().len()), (3, 3));
}

#[test]
fn what_is_said_while_the_announcer_is_away_comes_when_it_is_back_and_once() {
    let mut building = Building::open(&HEARS);
    let mut hall = building.talker("hall-1", &[]);
    building.announcer.kill();
    hall.wait_for("waiting");
    hall.enter();
    hall.wait_for("talkback-sending");
    building.restart(&HEARS);
    hall.wait_for("talkback-heard");
    // The announcer dies between receiving the talkback and playing it: it is heard when the announcer is back.
    hall.enter();
    building.announcer.wait_for("talkback-received");
    building.announcer.wait_for("talkback-heard");
    building.announcer.wait_for("talkback-received");
    building.restart(&HEARS);
    hall.wait_for("talkback-heard");
    assert_eq!((building.heard().len(), building.kept().len()), (2, 2));
    assert!(building.heard().iter().chain(&building.kept()).all(|path| building.is_said(path)));
    assert_eq!(hall.untaken("talkback-refused"), 0);
}

#[test]
fn in_open_mode_nobody_signs_and_it_says_so() {
    let mut building = Building::open(&[&HEARS[..], &["--open", "--archive", "HOME/pages"]].concat());
    let mut hall = building.talker("hall-1", &["--open"]);
    hall.enter();
    hall.wait_for("talkback-heard");
    for program in [&mut building.announcer, &mut hall] {
        assert!(program.wait_for("warning")["message"].as_str().unwrap().contains("OPEN MODE"));
    }
    let kept = wavs(&building.home.path().join("pages"));
    assert!(building.is_said(&kept[0]) && building.is_said(&building.heard()[0]));
    let (code, said) = verify(&building.environment, &[], &kept);
    assert!(code == Some(1) && said.contains("nobody signed it"), "{said}");
}

/// Runs a program to its end, which must come before anything is recorded or sent.
fn refused(arguments: &[&str]) -> (i32, String) {
    let mut program = Program::start("bullhorn", arguments.iter().copied(), &[]);
    program.end_input();
    let code = program.exit_code();
    assert_eq!(program.untaken("recording") + program.untaken("listening"), 0, "{arguments:?}");
    (code, program.complaints())
}

#[test]
fn what_cannot_be_is_said_before_anything_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let words = folder.path().join("words.txt");
    std::fs::write(&words, "not a sound").unwrap();
    let words = format!("file:{}", words.display());
    let long = format!("file:{}/tests/sounds/silence-121s.flac", env!("CARGO_MANIFEST_DIR"));
    let speaker = ["speaker", "127.0.0.1:9", "--name", "hall-1", "--output", "file:/nowhere/heard"];
    let output = format!("file:{}", folder.path().join("out").display());
    let station: Vec<&str> = speaker[..5].iter().copied().chain([output.as_str()]).collect();
    let announce = ["announce", "--listen", "127.0.0.1:0", "--input", "file:/nowhere/bell.wav"];
    let talks = |more: &[&'static str]| [&station[..], more].concat();
    let cases: [(Vec<&str>, i32, &[&str]); 8] = [
        (talks(&["--seconds", "3"]), 2, &["--talkback"]),
        (talks(&["--input", "hall"]), 2, &["--talkback"]),
        (talks(&["--talkback", "--seconds", "121"]), 2, &["at most 120 seconds"]),
        (
            talks(&["--talkback", "--input", "file:/nowhere/said.wav"]),
            1,
            &["/nowhere/said.wav", "No such file"],
        ),
        ([&station[..], &["--talkback", "--input", &words]].concat(), 1, &["words.txt"]),
        ([&station[..], &["--talkback", "--input", &long]].concat(), 1, &["121 s", "120 s"]),
        ([&announce[..], &["--talkback", "--open"]].concat(), 2, &["--archive"]),
        ([&announce[..], &["--talkback", "--once"]].concat(), 2, &["--once"]),
    ];
    for (arguments, status, parts) in cases {
        let (code, said) = refused(&arguments);
        assert_eq!(code, status, "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: nothing of {part:?} in {said}");
        }
    }
}

/// Without a working loudspeaker it is kept all the same, and the station learns that it was not heard.
#[test]
fn what_cannot_be_heard_is_kept_and_said_to_be() {
    let mut building = Building::open(&[]);
    building.announcer.kill();
    building.environment.extend(deaf_environment(building.home.path()));
    building.environment.retain(|(name, _)| name != STATE);
    building.environment.push((STATE.into(), building.home.path().join("state").display().to_string()));
    building.restart(&["--talkback"]);
    let mut hall = building.talker("hall-1", &[]);
    hall.enter();
    for program in [&mut building.announcer, &mut hall] {
        let kept = program.wait_for("talkback-kept");
        assert!(kept["reason"].as_str().unwrap().contains("loudspeaker"), "{kept}");
    }
    let kept = building.kept();
    assert!(kept.len() == 1 && building.is_said(&kept[0]));
    assert_eq!(verify(&building.environment, &[], &kept).0, Some(0));

    // Without a folder to keep it in, nothing is left of it, and both sides report that.
    std::fs::remove_dir_all(kept[0].parent().unwrap()).unwrap();
    hall.enter();
    let received = building.announcer.wait_for("talkback-received");
    assert_eq!(building.announcer.wait_for("talkback-received")["file"], Value::Null, "{received}");
    for program in [&mut building.announcer, &mut hall] {
        let refused = program.wait_for("talkback-refused");
        assert!(refused["reason"].as_str().unwrap().contains("could not be kept"), "{refused}");
    }
}

#[test]
fn what_an_announcer_has_not_heard_when_it_leaves_is_kept_and_said_to_be() {
    let mut building = Building::open(&HEARS);
    building.said = Spec::mono(16, 16_000).write(building.home.path(), 16_000 * 30);
    let mut hall = building.talker("hall-1", &[]);
    hall.enter();
    let received = building.announcer.wait_for("talkback-received");
    building.announcer.end_input();
    let kept = building.announcer.wait_for("talkback-kept");
    assert_eq!(kept["talkback"], received["talkback"]);
    assert!(kept["reason"].as_str().unwrap().contains("left"), "{kept}");
    assert_eq!(building.announcer.exit_code(), 0);
    assert!(building.kept().len() == 1 && building.heard().is_empty());
    // The station asks again when the announcer is back, and receives the answer.
    building.restart(&HEARS);
    assert_eq!(hall.wait_for("talkback-kept")["talkback"], received["talkback"]);
    assert!(building.heard().is_empty());
}

/// At a terminal, Enter is all that is needed, and an Enter that comes too soon is reported as such.
#[test]
fn a_person_at_a_station_presses_enter() {
    let mut building = Building::open(&HEARS);
    let terminal = Terminal::open(120, 30, &building.environment);
    let (said, output) = (building.said.display(), building.home.path().join("hall-1"));
    let output = output.display();
    terminal.type_line(&format!(
        "clear; {BULLHORN} speaker {} --name hall-1 --output file:{output} --talkback --input file:{said} --seconds 3; echo left=$?",
        building.address
    ));
    terminal.wait_for("press Enter to talk back");
    terminal.wait_for("connected to");
    terminal.press("Enter");
    building.announcer.wait_for("talkback-received");
    // Any sooner, a second line would be taken for a held key's.
    std::thread::sleep(Duration::from_millis(1_200));
    terminal.press("Enter");
    terminal.wait_for("still on its way");
    let screen = terminal.wait_for("was heard");
    assert!(screen.contains("recording 3 s from file:"), "{screen}");
    building.announcer.wait_for("talkback-heard");
    assert_eq!(building.announcer.untaken("talkback-received"), 0, "the second was too soon");
    terminal.press("C-c");
    terminal.wait_for("left=0");
}

/// A recording of the announcer comes first: talkback is heard when the recording is done.
#[test]
fn a_recording_cuts_talkback_off_and_it_is_heard_from_its_start_afterwards() {
    let mut building = Building::open(&[&HEARS[..], &["--keep", "0"]].concat());
    let mut hall = building.talker("hall-1", &["--seconds", "2.5"]);
    hall.enter();
    building.announcer.wait_for("talkback-received");
    building.announcer.enter();
    building.announcer.wait_for("done");
    building.announcer.wait_for("talkback-heard");
    let order: Vec<Value> = building.announcer.printed();
    let at = |name: &str| order.iter().position(|event| event["event"] == name).unwrap();
    assert!(at("talkback-received") < at("recorded") && at("recorded") < at("talkback-heard"));
    let heard = std::fs::read(&building.heard()[0]).unwrap();
    assert_eq!(heard.len(), 44 + 2 * 40_000, "all of it");
    hall.wait_for("played");
    hall.wait_for("talkback-heard");
}

/// A station of several announcers talks back to each. One of them refuses it, which does not affect the others.
#[test]
fn a_station_talks_back_to_each_of_its_announcers() {
    let home = tempfile::tempdir().unwrap();
    let heard = ["porter", "lodge"].map(|name| home.path().join(name));
    let open = |folder: &Path| {
        let monitor = format!("file:{}", folder.display());
        let page = |folder: &Path| Spec::mono(16, 8_000).write(folder, 1_600);
        Desk::open(page, &["--talkback", "--monitor", &monitor], &vec![])
    };
    let page = |folder: &Path| Spec::mono(16, 8_000).write(folder, 1_600);
    let mut desks = [open(&heard[0]), Desk::open(page, &[], &vec![]), open(&heard[1])];
    let said = Spec::mono(16, 16_000).write(home.path(), 8_000);
    let environment = vec![(STATE.to_owned(), home.path().join("state").display().to_string())];
    let input = format!("file:{}", said.display());
    let talks = ["--talkback", "--input", &input];
    let output = file(&home.path().join("played"));
    let mut hall = join(&desks.iter().collect::<Vec<_>>(), &output, &talks, &environment);
    hall.enter();
    let refused = hall.wait_for("talkback-refused");
    assert!(refused["reason"].as_str().unwrap().contains("takes no talkback"), "{refused}");
    for _ in 0..2 {
        hall.wait_for("talkback-heard");
    }
    assert_eq!((hall.untaken("recording"), hall.untaken("talkback-sending")), (1, 2));
    for (desk, heard) in [0, 2].into_iter().zip(&heard) {
        desks[desk].announcer.wait_for("talkback-heard");
        let heard = wavs(heard);
        assert_eq!(heard.len(), 1);
        assert!(std::fs::read(&heard[0]).unwrap() == std::fs::read(&said).unwrap());
    }
}
