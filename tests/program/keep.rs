//! Nothing is lost when either side is killed at chosen instants of an announcement.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::support::hallway::{BULLHORN, Environment, Program, STATE, file, start_station, wavs};
use serde_json::Value;
use tempfile::TempDir;

/// A building whose parts can be killed and started again.
struct Building {
    home: TempDir,
    environment: Environment,
    address: String,
    announcer: Program,
}

fn page(folder: &Path, seconds: f32) -> PathBuf {
    let path = folder.join("page.wav");
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(&path, spec).unwrap();
    for n in 0..(seconds * 16_000.0) as u32 {
        writer.write_sample((n.wrapping_mul(7_919) >> 3) as i16 / 2).unwrap();
    }
    writer.finalize().unwrap();
    path
}

fn announcer(listen: &str, wav: &Path, environment: &Environment) -> Program {
    let arguments: [OsString; 6] = [
        "announce".into(),
        "--listen".into(),
        listen.into(),
        "--no-level".into(),
        "--input".into(),
        file(wav),
    ];
    Program::start("the announcer", arguments, environment)
}

impl Building {
    fn open(seconds: f32) -> Self {
        let home = tempfile::tempdir().unwrap();
        let wav = page(home.path(), seconds);
        let environment = vec![(STATE.to_owned(), home.path().join("state").display().to_string())];
        let mut announcer = announcer("127.0.0.1:0", &wav, &environment);
        let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
        Self { home, environment, address, announcer }
    }

    fn station(&self, name: &str) -> Program {
        let output = file(&self.home.path().join(name));
        start_station(&self.address, name, &output, &self.environment)
    }

    fn joined(&mut self, name: &str) -> Program {
        let station = self.station(name);
        self.announcer.wait_for_one("station-joined", "station", name);
        station
    }

    fn kill_and_restart(&mut self) {
        self.announcer.kill();
        self.announcer = announcer(&self.address, &self.home.path().join("page.wav"), &self.environment);
        self.announcer.wait_for("listening");
    }

    /// Checks that a station's folder holds the page once, whole.
    fn heard(&self, name: &str) {
        let files = wavs(&self.home.path().join(name));
        assert_eq!(files.len(), 1, "{files:?}");
        let page = std::fs::read(self.home.path().join("page.wav")).unwrap();
        assert!(std::fs::read(&files[0]).unwrap() == page);
    }

    fn outbox(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.home.path().join("state/bullhorn/outbox")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|kind| kind == "clip" || kind == "log")).collect()
    }
}

fn outcome(event: &Value) -> &str {
    event["outcome"].as_str().unwrap()
}

#[test]
fn a_page_outlives_the_announcer_s_death_while_its_station_is_away() {
    let mut building = Building::open(0.5);
    building.joined("hall-1").kill();
    building.announcer.wait_for("station-left");
    building.announcer.enter();
    let clip = building.announcer.wait_for("recorded")["clip"].clone();
    assert_eq!(building.outbox().iter().filter(|path| path.extension().unwrap() == "clip").count(), 1);
    building.kill_and_restart();
    let mut hall = building.station("hall-1");
    let played = building.announcer.wait_for("played");
    assert_eq!((&played["clip"], &played["again"]), (&clip, &Value::Bool(false)));
    hall.wait_for("played");
    building.heard("hall-1");
    building.announcer.end_input();
    assert_eq!(building.announcer.exit_code(), 0);
    assert_eq!(building.outbox(), [] as [PathBuf; 0], "its outcome is known: nothing is kept");
}

#[test]
fn an_announcer_killed_at_any_stage_has_the_page_heard_once() {
    for stage in ["recorded", "verified", "playing", "played"] {
        let mut building = Building::open(1.0);
        let mut hall = building.joined("hall-1");
        building.announcer.enter();
        let clip = building.announcer.wait_for(stage)["clip"].clone();
        building.kill_and_restart();
        building.announcer.wait_for_one("station-joined", "station", "hall-1");
        if stage != "played" {
            let event = building.announcer.wait_for("played");
            assert_eq!(event["clip"], clip, "{stage}");
            assert!(outcome(&event).starts_with("played"), "{stage}");
        }
        building.announcer.end_input();
        assert_eq!(building.announcer.exit_code(), 0, "{stage}");
        // An outcome emitted in the instant of the crash is emitted once more.
        let again = building.announcer.untaken("played");
        assert!(again <= usize::from(stage == "played"), "{stage}: {again}");
        assert_eq!(building.announcer.untaken("failed"), 0, "{stage}");
        hall.wait_for("played");
        assert_eq!((hall.untaken("played"), hall.untaken("failed")), (0, 0), "{stage}: heard once");
        building.heard("hall-1");
        assert!(building.outbox().is_empty(), "{stage}");
    }
}

#[test]
fn a_station_killed_while_it_plays_plays_again_from_the_start_and_says_so() {
    let mut building = Building::open(2.0);
    let mut hall = building.joined("hall-1");
    building.announcer.enter();
    building.announcer.wait_for("playing");
    hall.kill();
    let mut hall = building.station("hall-1");
    let played = building.announcer.wait_for("played");
    assert_eq!(played["again"], true);
    let heard = hall.wait_for("played");
    assert!(played["late_ms"].as_u64() > Some(100), "{played}");
    for field in ["outcome", "again", "late_ms", "start_error_us", "off_us"] {
        assert_eq!(played[field], heard[field], "{field}: announcer and station differ");
    }
    building.heard("hall-1");
    building.announcer.end_input();
    assert_eq!(building.announcer.exit_code(), 0);
    assert_eq!(building.announcer.untaken("played") + building.announcer.untaken("failed"), 0);
}

#[test]
fn a_station_killed_right_after_the_end_does_not_play_again() {
    let mut building = Building::open(0.5);
    let mut hall = building.joined("hall-1");
    building.announcer.enter();
    hall.wait_for("played");
    hall.kill();
    let mut hall = building.station("hall-1");
    building.announcer.wait_for("played");
    hall.wait_for("connected");
    building.announcer.end_input();
    assert_eq!(building.announcer.exit_code(), 0);
    assert_eq!(hall.untaken("playing"), 0);
    building.heard("hall-1");
}

#[test]
fn a_receipt_outlives_both_sides() {
    let mut building = Building::open(1.0);
    let mut hall = building.joined("hall-1");
    building.announcer.enter();
    building.announcer.wait_for("playing");
    building.announcer.kill();
    // It continues to play without its announcer, and writes down the receipt.
    hall.wait_for("played");
    hall.kill();
    building.kill_and_restart();
    let mut hall = building.station("hall-1");
    assert!(outcome(&building.announcer.wait_for("played")).starts_with("played"));
    building.announcer.end_input();
    assert_eq!(building.announcer.exit_code(), 0);
    assert_eq!(hall.untaken("playing"), 0);
}

#[test]
fn both_sides_archive_and_what_they_archive_can_be_verified() {
    let home = tempfile::tempdir().unwrap();
    let wav = page(home.path(), 0.3);
    let environment = vec![(STATE.to_owned(), home.path().join("state").display().to_string())];
    let (office, hall) = (home.path().join("office"), home.path().join("hall"));
    let arguments: [OsString; 7] = [
        "announce".into(),
        "--listen".into(),
        "127.0.0.1:0".into(),
        "--input".into(),
        file(&wav),
        "--archive".into(),
        office.clone().into(),
    ];
    let mut announcer = Program::start("the announcer", arguments, &environment);
    let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
    let arguments: [OsString; 8] = [
        "speaker".into(),
        address.into(),
        "--name".into(),
        "hall-1".into(),
        "--output".into(),
        file(&home.path().join("played")),
        "--keep-clips".into(),
        hall.clone().into(),
    ];
    let mut station = Program::start("hall-1", arguments, &environment);
    announcer.wait_for("station-joined");
    announcer.enter();
    announcer.wait_for("done");
    announcer.end_input();
    assert_eq!(announcer.exit_code(), 0);
    station.wait_for("waiting");
    station.terminate();
    assert_eq!(station.exit_code(), 0);
    let files: Vec<PathBuf> = [&office, &hall].into_iter().flat_map(|folder| wavs(folder)).collect();
    assert_eq!((files.len(), files[0].file_name()), (2, files[1].file_name()));
    for folder in [&office, &hall] {
        let mut log = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let log = log.find(|path| path.extension().unwrap() == "jsonl").unwrap();
        let lines = std::fs::read_to_string(log).unwrap();
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["what"]), (2, &"announcement".into()), "{lines:?}");
        assert_eq!((&lines[1]["station"], &lines[1]["outcome"]), (&"hall-1".into(), &"played".into()));
    }
    let verify = |files: &[PathBuf]| {
        let output = std::process::Command::new(BULLHORN)
            .arg("verify")
            .args(files)
            .envs(environment.iter().cloned())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = verify(&files);
    assert_eq!((code, said.matches(": good: ").count()), (Some(0), 2), "{said}");
    let mut torn = std::fs::read(&files[1]).unwrap();
    *torn.last_mut().unwrap() ^= 1;
    std::fs::write(&files[1], torn).unwrap();
    let (code, said) = verify(&files);
    assert_eq!((code, said.matches(": good: ").count()), (Some(1), 1), "{said}");
    assert!(said.contains("NOT GOOD: it is not what was announced"), "{said}");
}
