//! A fault is shown within 3 s, and so is the recovery, without anybody's help.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use crate::support::hallway::{Environment, Program, STATE, file, start_station};
use crate::support::pulse::{PulseRig, deaf_environment};
use crate::support::wav::Spec;

/// The longest time that may pass until a fault, or its end, is shown.
const SHOWN: Duration = Duration::from_secs(3);

fn announcer(environment: &Environment, input: Option<OsString>) -> (Program, String) {
    let mut arguments: Vec<OsString> = vec!["announce".into(), "--listen".into(), "127.0.0.1:0".into()];
    arguments.extend(input.into_iter().flat_map(|input| ["--input".into(), input]));
    let mut announcer = Program::start("the announcer", arguments, environment);
    let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
    (announcer, address)
}

#[test]
fn a_station_without_a_sound_device_joins_and_is_shown_faulty() {
    let home = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(home.path(), 800);
    let mut environment = deaf_environment(home.path());
    environment.push((STATE.into(), home.path().join("state").display().to_string()));
    let (mut announcer, address) = announcer(&environment, Some(file(&wav)));
    let started = Instant::now();
    let mut hall = start_station(&address, "hall-1", &"default".into(), &environment);
    announcer.wait_for_one("station-joined", "station", "hall-1");
    let fault = announcer.wait_for_one("station-faulty", "station", "hall-1");
    assert!(started.elapsed() < SHOWN, "{:?}", started.elapsed());
    assert!(fault["reason"].as_str().unwrap().contains("no output device"), "{fault}");
    hall.wait_for("station-faulty");
    announcer.enter();
    let done = announcer.wait_for("done");
    assert_eq!((&done["played"], &done["expected"]), (&0.into(), &1.into()));
    let reason = done["missing"][0]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("its loudspeaker does not work") && reason.contains("no output device"),
        "{done}"
    );
}

#[test]
fn a_service_waits_for_a_loudspeaker_that_never_worked() {
    let home = tempfile::tempdir().unwrap();
    let mut environment = deaf_environment(home.path());
    environment.push((STATE.into(), home.path().join("state").display().to_string()));
    let (mut announcer, address) =
        announcer(&environment, Some(file(&Spec::mono(16, 8_000).write(home.path(), 8))));
    let started = Instant::now();
    let _hall = start_station(&address, "hall-1", &"hal-1".into(), &environment);
    let fault = announcer.wait_for_one("station-faulty", "station", "hall-1");
    assert!(started.elapsed() < SHOWN, "{:?}", started.elapsed());
    assert!(fault["reason"].as_str().unwrap().contains("hal-1"), "{fault}");
}

#[test]
fn a_sound_server_that_dies_is_shown_on_both_sides_and_so_is_its_return() {
    let mut rig = PulseRig::start(1);
    let mut environment = rig.environment();
    environment.push((STATE.into(), rig.folder().join("state").display().to_string()));
    let (mut announcer, address) = announcer(&environment, None);
    let hall_1 = OsString::from("hall-1");
    let mut hall = start_station(&address, "hall-1", &hall_1, &environment);
    announcer.wait_for_one("station-joined", "station", "hall-1");
    // A device that has never run is given more time.
    announcer.enter();
    announcer.wait_for("done");
    let killed = Instant::now();
    rig.kill();
    announcer.wait_for_one("station-faulty", "station", "hall-1");
    announcer.wait_for("microphone-faulty");
    assert!(killed.elapsed() < SHOWN, "{:?}", killed.elapsed());
    // A loudspeaker that worked here before is waited for, even by a station that starts without it.
    hall.kill();
    let mut hall = start_station(&address, "hall-1", &hall_1, &environment);
    hall.wait_for("station-faulty");
    announcer.wait_for_one("station-joined", "station", "hall-1");
    rig.restart();
    let returned = Instant::now();
    announcer.wait_for_one("station-healthy", "station", "hall-1");
    announcer.wait_for("microphone-healthy");
    println!("shown healthy after {:?}", returned.elapsed());
    assert!(returned.elapsed() < SHOWN, "{:?}", returned.elapsed());
    announcer.enter();
    assert_eq!(announcer.wait_for("done")["played"], 1);
}
