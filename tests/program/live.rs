//! Live speech: heard while it is said, in step, complete if everything arrives in time, and concealed where it does not.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::hallway::{BULLHORN, Hallway, Program, STATE, file, start_station, wavs};
use crate::support::wav::{Spec, read_i16, speech};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Long enough that a busy machine keeps up.
const LATENCY: [&str; 2] = ["--latency", "1000"];

fn live(wav: &Path) -> Vec<OsString> {
    let words = ["--live", LATENCY[0], LATENCY[1], "--input"].map(OsString::from);
    words.into_iter().chain([file(wav)]).collect()
}

fn number(event: &Value, field: &str) -> u64 {
    event[field].as_u64().unwrap_or_else(|| panic!("{field} in {event}"))
}

fn only(folder: &Path) -> PathBuf {
    let [one] = &wavs(folder)[..] else { panic!("{:?}", wavs(folder)) };
    one.clone()
}

#[test]
fn what_is_said_is_heard_to_the_bit_in_step_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let wav = speech(folder.path(), 2, 16_000);
    let [one, two, office, clips] = ["one", "two", "office", "clips"].map(|name| folder.path().join(name));
    let mut hallway = Hallway::plan()
        .announce(live(&wav))
        .announce(["--archive", office.to_str().unwrap()])
        .station("hall-1", file(&one))
        .open();
    let more: [OsString; 8] = [
        "speaker".into(),
        hallway.address.clone().into(),
        "--name".into(),
        "hall-2".into(),
        "--output".into(),
        file(&two),
        "--keep-clips".into(),
        clips.clone().into(),
    ];
    let mut second = Program::start("hall-2", more, &hallway.environment);
    hallway.announcer.wait_for_one("station-joined", "station", "hall-2");
    hallway.announcer.enter();
    let started = hallway.announcer.wait_for("live-started");
    assert_eq!(started["stations"], serde_json::json!(["hall-1", "hall-2"]));
    assert_eq!((number(&started, "latency_ms"), number(&started, "rate_hz")), (1_000, 16_000));
    let ended = hallway.announcer.wait_for("live-ended");
    let done = hallway.announcer.wait_for("done");
    assert_eq!((&done["played"], &done["expected"]), (&2.into(), &2.into()), "{done}");
    assert_eq!((&done["concealed"], &done["out_of_step"]), (&serde_json::json!([]), &serde_json::json!([])));
    // Both count from one instant; the reported spread is what they measured.
    assert!(number(&done, "spread_us") < 100_000, "{done}");
    let said = read_i16(&wav);
    let bytes: Vec<u8> = said.0.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ended["sha256"], sha256.as_str());
    assert_eq!((number(&ended, "blocks"), number(&ended, "length_ms")), (100, 2_000));
    for name in ["hall-1", "hall-2"] {
        let played = hallway.announcer.wait_for_one("live-played", "station", name);
        let counts = ["blocks", "played", "concealed", "late"].map(|field| number(&played, field));
        assert_eq!(counts, [100, 100, 0, 0], "{played}");
    }
    hallway.announcer.end_input();
    assert_eq!(hallway.announcer.exit_code(), 0);
    second.terminate();
    assert_eq!(second.exit_code(), 0);
    let kept = [only(&office), only(&clips)];
    for heard in [&only(&one), &only(&two), &kept[0], &kept[1]] {
        assert!(read_i16(heard) == said, "{} is not what was said", heard.display());
    }
    let verify = |path: &PathBuf| {
        let mut verify = Command::new(BULLHORN);
        verify.arg("verify").arg(path).envs(hallway.environment.iter().cloned()).output().unwrap()
    };
    for path in &kept {
        let checked = verify(path);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        let mut bent = std::fs::read(path).unwrap();
        bent[1_000] ^= 1;
        std::fs::write(path, bent).unwrap();
        assert!(!verify(path).status.success());
    }
    let log = std::fs::read_dir(&office).unwrap().map(|entry| entry.unwrap().path());
    let log = log.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "jsonl")).unwrap();
    let lines = std::fs::read_to_string(log).unwrap();
    assert_eq!(lines.matches(r#""what":"outcome""#).count(), 2, "{lines}");
}

#[test]
fn enter_ends_it_and_the_next_enter_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let wav = speech(folder.path(), 60, 8_000);
    let mut hallway =
        Hallway::plan().announce(live(&wav)).station("hall-1", file(&folder.path().join("heard"))).open();
    for _ in 0..2 {
        hallway.announcer.enter();
        hallway.announcer.wait_for("playing");
        hallway.announcer.enter();
        let ended = hallway.announcer.wait_for("live-ended");
        let length_ms = number(&ended, "length_ms");
        assert!((900..55_000).contains(&length_ms), "it is heard {length_ms} ms after it began");
        let done = hallway.announcer.wait_for("done");
        assert_eq!(done["played"], 1, "{done}");
    }
    assert_eq!(wavs(&folder.path().join("heard")).len(), 2);
}

/// A station that comes in the middle is in step at once, and the part that it missed is reported.
#[test]
fn who_comes_in_the_middle_joins_in_step() {
    let folder = tempfile::tempdir().unwrap();
    let wav = speech(folder.path(), 60, 8_000);
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let mut hallway = Hallway::plan().announce(live(&wav)).station("hall-1", file(&one)).open();
    hallway.announcer.enter();
    hallway.announcer.wait_for_one("playing", "station", "hall-1");
    let _second = start_station(&hallway.address, "hall-2", &file(&two), &hallway.environment);
    hallway.announcer.wait_for_one("playing", "station", "hall-2");
    hallway.announcer.enter();
    let blocks = number(&hallway.announcer.wait_for("live-ended"), "blocks");
    let played = hallway.announcer.wait_for_one("live-played", "station", "hall-2");
    let heard = number(&played, "played");
    assert_eq!(heard + number(&played, "concealed"), blocks, "{played}");
    assert!(heard > 0 && heard < blocks, "{played}");
    let done = hallway.announcer.wait_for("done");
    assert_eq!(done["concealed"][0]["station"], "hall-2", "{done}");
    // It is the end of what was said, to the bit, except for the first 5 ms, in which it fades in.
    let (said, _) = read_i16(&wav);
    let (all, late) = (read_i16(&only(&one)).0, read_i16(&only(&two)).0);
    assert!(said[..all.len()] == all, "hall-1 did not hear what was said");
    assert!(
        late.len() < all.len() && late[40..] == all[all.len() - late.len() + 40..],
        "hall-2 is not in step"
    );
}

/// A station that stops reading live speech holds up nobody else, and is reported as missing.
#[test]
fn one_that_stalls_conceals_and_disturbs_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let wav = speech(folder.path(), 4, 8_000);
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let mut hallway = Hallway::plan()
        .announce(live(&wav))
        .station("hall-1", file(&one))
        .station("hall-2", file(&two))
        .open();
    hallway.announcer.enter();
    hallway.announcer.wait_for_one("playing", "station", "hall-2");
    hallway.stations[1].signal("STOP");
    std::thread::sleep(Duration::from_secs(12));
    hallway.stations[1].signal("CONT");
    let done = hallway.announcer.wait_for("done");
    assert_eq!((&done["played"], &done["expected"]), (&1.into(), &2.into()), "{done}");
    assert_eq!(done["missing"][0]["station"], "hall-2", "{done}");
    let played = hallway.announcer.wait_for_one("live-played", "station", "hall-1");
    assert_eq!(number(&played, "concealed"), 0, "{played}");
    assert!(read_i16(&only(&one)) == read_i16(&wav));
    hallway.announcer.end_input();
    assert_eq!(hallway.announcer.exit_code(), 1);
}

#[test]
fn once_begins_by_itself_and_ends_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let wav = speech(folder.path(), 2, 8_000);
    let heard = folder.path().join("heard");
    let mut hallway = Hallway::plan()
        .announce(live(&wav))
        .announce(["--once", "--wait-for", "1"])
        .station("hall-1", file(&heard))
        .open();
    hallway.announcer.end_input();
    let done = hallway.announcer.wait_for("done");
    assert_eq!(done["played"], 1, "{done}");
    assert_eq!(hallway.announcer.exit_code(), 0);
    assert!(read_i16(&only(&heard)) == read_i16(&wav));
}

#[test]
fn what_cannot_be_is_said_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(folder.path(), 800).display().to_string();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--live", "--latency", "39"], 2, "from 40 to 1000"),
        (&["--live", "--latency", "1001"], 2, "from 40 to 1000"),
        (&["--live", "--latency", "soon"], 2, "from 40 to 1000"),
        (&["--live", "--file", &wav], 2, "--file"),
        (&["--live", "--seconds", "5"], 2, "--seconds"),
        (&["--live", "--chime", "single"], 2, "--chime"),
        (&["--live", "--repeat", "1"], 2, "--repeat"),
        (&["--live", "--input", "file:/nowhere/speech.wav"], 1, "/nowhere/speech.wav"),
    ];
    for (arguments, status, part) in cases {
        let all = ["announce", "--listen", "127.0.0.1:0"].iter().chain(arguments);
        let mut program = Program::start_prose("bullhorn", all.copied(), &[]);
        program.end_input();
        assert_eq!(program.exit_code(), status, "{arguments:?}");
        assert_eq!(program.rest(), [] as [&str; 0], "{arguments:?}");
        let said = program.complaints();
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    let state = tempfile::tempdir().unwrap();
    let environment = vec![(STATE.to_owned(), state.path().display().to_string())];
    let input = format!("file:{wav}");
    let nowhere = ["announce", "--listen", "127.0.0.1:0", "--live", "--input", &input, "--zone", "esat"];
    let mut announcer = Program::start("the announcer", nowhere, &environment);
    announcer.enter();
    let warning = announcer.wait_for("warning");
    assert!(warning["message"].as_str().unwrap().contains("no station is in the zone esat"), "{warning}");
    announcer.end_input();
    assert_eq!(announcer.exit_code(), 1);
    assert_eq!(announcer.untaken("live-started"), 0);
}
