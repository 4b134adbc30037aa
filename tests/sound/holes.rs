//! A hole is sound of a microphone that the sound server loses. It is noticed: reported, counted, and silent in its place.

use std::path::Path;
use std::time::Duration;

use crate::support::correlate::assert_whole;
use crate::support::hallway::{Hallway, wavs};
use crate::support::pulse::{MICROPHONE, MOUTH, Player, PulseRig, RATE_HZ, Recording};
use crate::support::wav::{SPOKEN_HZ, read_i16, speech, to_f32};
use serde_json::Value;

/// How long the source is suspended; it takes some time to stop and to resume.
const SUSPENDED: Duration = Duration::from_millis(300);
/// How much sound may be lost by that.
const LOST_MS: std::ops::Range<u64> = 200..600;
/// How long somebody speaks before the hole, and after it.
const SPOKEN: Duration = Duration::from_millis(1_500);
/// How much of each can be compared, leaving room for the hole in between.
const COMPARED: usize = RATE_HZ as usize;
/// The required correlation with what was said.
const ALIKE: f64 = 0.98;
/// In four seconds, the sound server's clock and the system's may drift apart this far, so a hole may be measured wrongly.
const MOST_SHIFT_MS: f64 = 10.0;

/// Waits, suspends the microphone, and waits again.
fn speak_with_a_hole(rig: &PulseRig, recording: &Recording) {
    recording.wait_for(SPOKEN);
    rig.control(&["suspend-source", MICROPHONE, "1"]);
    recording.wait_for(SUSPENDED);
    rig.control(&["suspend-source", MICROPHONE, "0"]);
    recording.wait_for(SPOKEN);
}

fn is_told(event: &Value, warning: &Value) {
    let lost = &event["lost"];
    assert_eq!(lost["holes"], 1, "{event}");
    assert!(LOST_MS.contains(&lost["ms"].as_u64().unwrap()), "{event}");
    let warning = warning["message"].as_str().unwrap();
    assert!(
        warning.contains("part of what you said is missing") && warning.contains(MICROPHONE),
        "{warning}"
    );
}

/// Checks that the sound before the hole is at the same distance from the sound after it as in the mouth.
fn stands_at_its_time(clip: &Path, mouth: &[f32]) {
    let clip = to_f32(&read_i16(clip).0);
    let (before, behind) = (&clip[..COMPARED], &clip[clip.len() - COMPARED..]);
    let [before, behind] = [("before the hole", before), ("behind it", behind)]
        .map(|(what, part)| assert_whole(&format!("what was said {what}"), part, mouth, RATE_HZ, ALIKE));
    let apart = behind.delay_frames - before.delay_frames;
    let shift_ms = (apart - (clip.len() - COMPARED) as f64) * 1e3 / f64::from(RATE_HZ);
    println!("what follows the hole stands {shift_ms:.2} ms beside its time");
    assert!(shift_ms.abs() < MOST_SHIFT_MS, "{shift_ms} ms beside its time");
}

/// Has somebody speak into the microphone, for longer than the test lasts.
fn somebody_speaks(rig: &PulseRig) -> (Recording, Player) {
    let recording = rig.record();
    let voice = rig.play(MOUTH, &speech(rig.folder(), 90, SPOKEN_HZ));
    recording.wait_until_heard(0);
    recording.wait_for(SPOKEN);
    (recording, voice)
}

fn is_warning(event: &Value) -> bool {
    event["message"].as_str().unwrap().contains("is missing")
}

#[test]
fn a_hole_in_a_recording_is_told_and_what_follows_stands_at_its_time() {
    let rig = PulseRig::start(1);
    let kept = tempfile::tempdir().unwrap();
    let archive = kept.path().to_str().unwrap();
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--no-level", "--seconds", "4", "--input", MICROPHONE, "--archive", archive])
        .station("hall-1", "hall-1")
        .open();
    let (recording, _voice) = somebody_speaks(&rig);
    let from_frame = recording.frames();
    hallway.announcer.enter();
    hallway.announcer.wait_for("recording");
    speak_with_a_hole(&rig, &recording);
    let recorded = hallway.announcer.wait_for("recorded");
    is_told(&recorded, &hallway.announcer.wait_where("warning of it", is_warning));
    assert_eq!(recorded["length_ms"], 4_000, "{recorded}");
    hallway.announcer.wait_for("done");
    stands_at_its_time(&wavs(kept.path())[0], &recording.channel(0, from_frame));
    // The same without a hole.
    hallway.announcer.enter();
    let recorded = hallway.announcer.wait_for("recorded");
    assert!(recorded.get("lost").is_none(), "{recorded}");
}

#[test]
fn a_hole_in_live_speech_is_told_and_what_follows_stands_at_its_time() {
    let rig = PulseRig::start(1);
    let kept = tempfile::tempdir().unwrap();
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--live", "--input", MICROPHONE, "--archive", kept.path().to_str().unwrap()])
        .station("hall-1", "hall-1")
        .open();
    let (recording, _voice) = somebody_speaks(&rig);
    let from_frame = recording.frames();
    hallway.announcer.enter();
    hallway.announcer.wait_for("live-started");
    speak_with_a_hole(&rig, &recording);
    recording.wait_for(SPOKEN);
    hallway.announcer.enter();
    let ended = hallway.announcer.wait_for("live-ended");
    is_told(&ended, &hallway.announcer.wait_where("warning of it", is_warning));
    hallway.announcer.wait_for("done");
    stands_at_its_time(&wavs(kept.path())[0], &recording.channel(0, from_frame));
}
