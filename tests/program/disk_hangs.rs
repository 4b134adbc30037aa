//! A disk that hangs for seconds under both sides, as an SD card or a network file system might: no station is lost,
//! pages are heard as always, the fault is reported, and everything is written in the end.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::hallway::{BULLHORN, Environment, Program, STATE, file, wavs};
use crate::support::small_disk::SmallDisk;
use crate::support::wav::Spec;
use serde_json::Value;

/// Twice the time after which a station that sends nothing is lost.
const HANGS: Duration = Duration::from_secs(6);

fn station(disk: &SmallDisk, home: &Path, address: &str, name: &str, environment: &Environment) -> Program {
    let mut command = disk.bullhorn();
    command.args(["speaker", address, "--events", "json", "--name", name, "--output"]);
    command.arg(file(&home.join(name))).arg("--keep-clips").arg(disk.path().join(name));
    Program::start_command(name, command, environment)
}

/// Announces a page that all stations hear.
fn page(announcer: &mut Program, stations: usize) {
    announcer.enter();
    let done = announcer.wait_for("done");
    assert_eq!((&done["played"], &done["expected"]), (&stations.into(), &stations.into()), "{done}");
}

fn warned(program: &mut Program, words: &str) {
    loop {
        let warning = program.wait_for("warning");
        if warning["message"].as_str().unwrap().contains(words) {
            return;
        }
    }
}

#[test]
fn a_disk_that_hangs_loses_no_station_and_holds_up_no_page() {
    let (disk, home) = (SmallDisk::that_hangs(), tempfile::tempdir().unwrap());
    let wav = Spec::mono(16, 16_000).write(home.path(), 4_800);
    let environment = vec![(STATE.to_owned(), disk.path().join("state").display().to_string())];
    let mut command = disk.bullhorn();
    command.args(["announce", "--no-level", "--events", "json", "--listen", "127.0.0.1:0", "--input"]);
    command.arg(file(&wav)).arg("--archive").arg(disk.path().join("office"));
    let mut announcer = Program::start_command("the announcer", command, &environment);
    let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
    let mut halls: Vec<Program> =
        ["hall-1", "hall-2"].map(|name| station(&disk, home.path(), &address, name, &environment)).into();
    for name in ["hall-1", "hall-2"] {
        announcer.wait_for_one("station-joined", "station", name);
    }
    page(&mut announcer, 2);
    let invited = disk.bullhorn().arg("invite").envs(environment.iter().cloned()).output().unwrap();
    let line = String::from_utf8(invited.stdout).unwrap();
    let invite = line.split_whitespace().last().unwrap().to_owned();

    let (hanging, began) = (disk.hang(), Instant::now());
    for _ in 0..2 {
        page(&mut announcer, 2);
    }
    warned(&mut announcer, "not on the disk");
    for hall in &mut halls {
        warned(hall, "cannot write down what was heard: the disk took longer than 1000 ms");
    }
    // A new station must be stored first, which holds up nobody else. Its own state is on another disk.
    let arguments: [OsString; 10] = [
        "speaker".into(),
        address.clone().into(),
        "--name".into(),
        "hall-3".into(),
        "--invite".into(),
        invite.into(),
        "--events".into(),
        "json".into(),
        "--output".into(),
        file(&home.path().join("hall-3")),
    ];
    let mut command = Command::new(BULLHORN);
    command.args(arguments);
    let own = vec![(STATE.to_owned(), home.path().join("state").display().to_string())];
    halls.push(Program::start_command("hall-3", command, &own));
    // It loses patience, and dials again: the connection that it gave up does not join when the disk is back.
    let waiting = halls[2].wait_for("waiting");
    assert!(waiting["reason"].as_str().unwrap().contains("nothing was heard of it for 2.8 s"), "{waiting}");
    std::thread::sleep(HANGS.saturating_sub(began.elapsed()));
    assert_eq!(announcer.untaken("station-left"), 0, "a station is lost");
    assert_eq!(halls[0].untaken("waiting") + halls[1].untaken("waiting"), 0, "the announcer is lost");
    drop(hanging);

    halls[2].wait_for("connected");
    announcer.wait_for_one("station-joined", "station", "hall-3");
    page(&mut announcer, 3);
    let is_lost = |event: &Value| event["event"] == "station-left";
    let printed = announcer.printed();
    assert!(!printed.iter().any(|event| is_lost(event) || event["event"] == "failed"));
    // Everything heard is on the disk, including what was heard while it hung: a new run of the station plays none of it again.
    let heard = std::fs::read_to_string(disk.outside("state/bullhorn/station-hall-1/heard")).unwrap();
    assert!(heard.contains("-4 finished") || heard.contains(" 4 finished"), "{heard}");
    halls[0].kill();
    halls[0] = station(&disk, home.path(), &address, "hall-1", &environment);
    halls[0].wait_for("connected");
    page(&mut announcer, 3);
    for (name, pages) in [("hall-1", 5), ("hall-2", 5), ("hall-3", 2)] {
        assert_eq!(wavs(&home.path().join(name)).len(), pages, "{name}");
    }
    let played = announcer.printed().into_iter().filter(|event| event["event"] == "played");
    let again = played.filter(|event| event["again"] == true).count();
    assert_eq!(again, 0);
}
