//! Whatever the sound server does to a stream is noticed: a receipt never reports better sound than the ear hears.

use std::time::Duration;

use crate::support::hallway::Hallway;
use crate::support::pulse::{MICROPHONE, PulseRig, RATE_HZ};
use crate::support::wav::speech;

/// The server must have at least this long from one look at its streams to the next.
const LEAST_LATENCY_US: u32 = 4_000;

/// A station that is stopped shortly before the end makes its loudspeaker run dry, too late for the timestamps to show it.
#[test]
fn a_dropout_near_the_end_is_in_the_receipt() {
    const SECONDS: usize = 3;
    let rig = PulseRig::start(1);
    let clip = speech(rig.folder(), SECONDS, RATE_HZ);
    let mut hallway =
        Hallway::plan().environment(rig.environment()).says(&clip).station("hall-1", "hall-1").open();
    hallway.announcer.enter();
    hallway.announcer.wait_for("playing");
    let station = &mut hallway.stations[0];
    std::thread::sleep(Duration::from_secs(SECONDS as u64) - Duration::from_millis(350));
    station.signal("STOP");
    std::thread::sleep(Duration::from_millis(120));
    station.signal("CONT");
    let played = hallway.announcer.wait_for("played");
    assert!(played["underruns"].as_u64().unwrap() > 0, "{played}");
}

/// An open microphone is one stream, and a loudspeaker does not drive its sink at the shortest latency there is.
#[test]
fn open_devices_leave_the_sound_server_in_peace() {
    let rig = PulseRig::start(1);
    let _hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--input", MICROPHONE])
        .station("hall-1", "hall-1")
        .open();
    let recording = rig.record();
    recording.wait_for(Duration::from_secs(1));
    drop(recording);
    let streams = rig.list("source-outputs");
    assert_eq!(streams.matches("application.name = \"cpal").count(), 1, "{streams}");
    let sinks = rig.list("sinks");
    let latency_us: Vec<u32> = sinks
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("Latency:")?.split_once("configured ")?.1.strip_suffix(" usec")
        })
        .map(|number| number.parse().unwrap())
        .collect();
    assert!(
        !latency_us.is_empty() && latency_us.iter().all(|us| *us >= LEAST_LATENCY_US),
        "{latency_us:?} µs"
    );
}
