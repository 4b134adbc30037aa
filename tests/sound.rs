//! Real sound: speech goes into the microphone, and what each hallway's loudspeaker emits is recorded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use support::correlate::{assert_whole, extent};
use support::hallway::{Hallway, Program, file};
use support::pulse::{MICROPHONE, MOUTH, PulseRig, RATE_HZ};
use support::wav::{SPOKEN_HZ, read_i16, speech, to_f32};

/// What must agree with the original, whatever the way.
const ALIKE: f64 = 0.98;

/// The rig without the program: what is played into two sinks is recorded whole on both channels.
#[test]
fn the_rig_itself_loses_nothing() {
    let rig = PulseRig::start(2);
    let voice = speech(rig.folder(), 2, RATE_HZ);
    let recording = rig.record();
    let _left = rig.play("hall-1", &voice);
    let _right = rig.play("hall-2", &voice);
    recording.wait_until_heard(1);
    recording.wait_for(Duration::from_secs(4));
    let (left, right) = (recording.channel(1, 0), recording.channel(2, 0));
    let (first, last) = extent(&left, 0).unwrap();
    let (voice, _) = read_i16(&voice);
    assert!(
        left[first..=last] == to_f32(&voice),
        "{} of {} frames are as played",
        last + 1 - first,
        voice.len()
    );
    assert_whole("the right channel", &left[first..=last], &right, RATE_HZ, 0.999);
}

#[test]
fn two_hallways_hear_the_speech_whole() {
    const CLIP_SECONDS: usize = 4;
    let rig = PulseRig::start(2);
    let kept = tempfile::tempdir().unwrap();
    // A third station writes the clip to the bit, so that each leg is judged by itself too.
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--seconds", "4", "--input", MICROPHONE])
        .station("hall-1", "hall-1")
        .station("hall-2", "hall-2")
        .station("archive", file(kept.path()))
        .open();
    let recording = rig.record();
    let voice = speech(rig.folder(), 90, SPOKEN_HZ);
    let _voice = rig.play(MOUTH, &voice);
    recording.wait_until_heard(0);

    let announced = hallway.announce_undisturbed(&recording);
    let (clip, rate_hz) = read_i16(&kept.path().join(format!("archive-{}.wav", announced.clip)));
    assert_eq!(announced.rate_hz, u64::from(RATE_HZ), "the sink's own rate needs no resampling");
    assert_eq!((clip.len(), rate_hz), (CLIP_SECONDS * RATE_HZ as usize, RATE_HZ));
    let clip = to_f32(&clip);
    let mouth = recording.channel(0, announced.from_frame);
    let said = assert_whole("the clip, in what was said,", &clip, &mouth, RATE_HZ, ALIKE);
    for hall in [1, 2] {
        let what = format!("hall-{hall}");
        let heard = recording.channel(hall, announced.from_frame);
        let (first, last) = extent(&heard, 0).expect("something was heard");
        let emitted = last + 1 - first;
        assert!(
            emitted.abs_diff(clip.len()) < clip.len() / 300,
            "{what}: {emitted} of {} frames sounded",
            clip.len()
        );
        let at = assert_whole(&format!("the clip, in {what},"), &clip, &heard, RATE_HZ, ALIKE);
        assert!(at.delay_frames > said.delay_frames + clip.len() as f64, "{what}: heard before it was said");
        let said = &mouth[said.delay_frames.round() as usize..][..clip.len()];
        assert_whole(&format!("what was said, in {what},"), said, &heard, RATE_HZ, ALIKE);
        println!("{what}: {at:?}");
    }
}

/// A device that runs at another rate than the clip: the station converts, and loses nothing.
#[test]
fn a_clip_at_another_rate_is_heard_whole() {
    let rig = PulseRig::start(1);
    let clip = speech(rig.folder(), 3, SPOKEN_HZ);
    let (samples, rate_hz) = read_i16(&clip);
    assert_ne!(rate_hz, RATE_HZ);
    let mut hallway =
        Hallway::plan().environment(rig.environment()).says(&clip).station("hall-1", "hall-1").open();
    let recording = rig.record();
    let announced = hallway.announce_undisturbed(&recording);
    let heard = recording.channel(1, announced.from_frame);
    drop(recording);

    // The clip against the recording at the recording's rate: paplay's own way through the same server.
    let reference = rig.record();
    let _player = rig.play("hall-1", &clip);
    reference.wait_until_heard(1);
    reference.wait_for(Duration::from_secs(4));
    let reference = reference.channel(1, 0);
    let (first, last) = extent(&reference, 0).unwrap();
    let frames = samples.len() * RATE_HZ as usize / rate_hz as usize;
    assert!((last - first).abs_diff(frames) < 200, "paplay: {} of {frames} frames", last - first);
    assert_whole("hall-1", &reference[first..=last], &heard, RATE_HZ, ALIKE);
}

#[test]
fn silence_is_sent_with_a_warning_that_names_the_microphone() {
    let rig = PulseRig::start(1);
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--seconds", "1", "--input", MICROPHONE])
        .station("hall-1", "hall-1")
        .open();
    hallway.announcer.enter();
    let warning = hallway.announcer.wait_for("warning")["message"].as_str().unwrap().to_owned();
    assert!(warning.contains(MICROPHONE), "{warning}");
    let done = hallway.announcer.wait_for("done");
    assert_eq!(done["played"], 1, "{done}");
}

/// The defaults are used where no device is named.
#[test]
fn defaults_are_the_servers() {
    let rig = PulseRig::start(1);
    let kept = tempfile::tempdir().unwrap();
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--seconds", "1"])
        .station("archive", file(kept.path()))
        .open();
    let mut station =
        Program::start("hall-1", ["speaker", &hallway.address, "--name", "hall-1"], &hallway.environment);
    hallway.announcer.wait_for_one("station-joined", "station", "hall-1");
    let recording = rig.record();
    let _voice = rig.play(MOUTH, &speech(rig.folder(), 40, SPOKEN_HZ));
    recording.wait_until_heard(0);
    let announced = hallway.announce_undisturbed(&recording);
    station.wait_for("played");
    let clip = to_f32(&read_i16(&kept.path().join(format!("archive-{}.wav", announced.clip))).0);
    let [mouth, hall] = [0, 1].map(|channel| recording.channel(channel, announced.from_frame));
    assert_whole("the clip, in what was said,", &clip, &mouth, RATE_HZ, ALIKE);
    assert_whole("the clip, in hall-1,", &clip, &hall, RATE_HZ, ALIKE);
}
