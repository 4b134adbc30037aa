//! The sound from a microphone, and the warnings about it, through a real sound server.

use std::f64::consts::TAU;

use crate::support::hallway::{Program, file, wavs};
use crate::support::pulse::{MICROPHONE, MOUTH, PulseRig, RATE_HZ};
use crate::support::wav::{read_i16, speech, write_i16};

/// The warnings about the recording of one microphone, and the station's WAV of it.
fn said(rig: &PulseRig, name: &str, samples: &[i16], more: &[&str]) -> (Vec<String>, Vec<i16>) {
    let path = rig.folder().join(format!("{name}.wav"));
    write_i16(&path, samples, RATE_HZ);
    let _voice = rig.play(MOUTH, &path);
    let arguments =
        ["announce", "--open", "--listen", "127.0.0.1:0", "--seconds", "2", "--input", MICROPHONE];
    let mut announcer = Program::start(name, arguments.iter().chain(more).copied(), &rig.environment());
    let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
    let output = rig.folder().join(format!("{name}-played"));
    let mut station = Program::start(
        "hall-1",
        ["speaker".into(), address.into(), "--open".into(), "--output".into(), file(&output)],
        &rig.environment(),
    );
    station.wait_for("connected");
    announcer.wait_for("station-joined");
    announcer.enter();
    announcer.wait_for("done");
    let events = announcer.printed();
    let warnings = events.iter().filter(|event| event["event"] == "warning");
    let words =
        warnings.filter_map(|event| event["message"].as_str()).filter(|words| !words.contains("OPEN MODE"));
    (words.map(str::to_owned).collect(), read_i16(&wavs(&output)[0]).0)
}

/// 20 seconds of a wave, from −1 to 1.
fn wave(at: impl Fn(f64) -> f64) -> Vec<i16> {
    let frames = 20 * RATE_HZ;
    (0..frames).map(|frame| (at(f64::from(frame) / f64::from(RATE_HZ)) * 32_767.0) as i16).collect()
}

#[test]
fn a_microphone_that_needs_mending_is_told_and_a_good_one_is_not() {
    let rig = PulseRig::start(1);
    let speech = read_i16(&speech(rig.folder(), 20, RATE_HZ)).0;
    let peak = f64::from(speech.iter().map(|sample| sample.unsigned_abs()).max().unwrap());
    let at_peak = |peak_wanted: f64| -> Vec<i16> {
        let gain = peak_wanted * 32_767.0 / peak;
        speech.iter().map(|sample| (f64::from(*sample) * gain).clamp(-32_768.0, 32_767.0) as i16).collect()
    };
    for (name, peak) in [("loud", 0.95), ("usual", 0.3), ("soft", 0.06)] {
        assert_eq!(said(&rig, name, &at_peak(peak), &[]).0, [""; 0], "{name}");
    }
    for (name, samples, part) in [
        ("clipped", at_peak(4.0), "clipped"),
        ("hum", wave(|s| 0.2 * (TAU * 50.0 * s).sin() + 0.1 * (TAU * 150.0 * s).sin()), "50 Hz mains hum"),
        ("whisper", at_peak(0.003), "too soft"),
        ("voltage", wave(|_| 0.3), "constant voltage"),
    ] {
        let (warnings, played) = said(&rig, name, &samples, &[]);
        assert!(matches!(&warnings[..], [one] if one.contains(part)), "{name}: {warnings:?}");
        if name == "voltage" {
            let loudest = played.iter().map(|sample| sample.unsigned_abs()).max();
            assert!(loudest < Some(100), "a voltage of 0.3 is played as {loudest:?}");
        }
    }
    // A warning for live speech too, once it is over.
    let path = rig.folder().join("live.wav");
    write_i16(&path, &at_peak(4.0), RATE_HZ);
    let _voice = rig.play(MOUTH, &path);
    let arguments = ["announce", "--open", "--live", "--listen", "127.0.0.1:0", "--input", MICROPHONE];
    let mut announcer = Program::start("live", arguments, &rig.environment());
    announcer.wait_for("listening");
    announcer.enter();
    announcer.wait_for("live-started");
    std::thread::sleep(std::time::Duration::from_secs(2));
    announcer.enter();
    announcer.wait_for("live-ended");
    let clipped =
        |event: &serde_json::Value| event["message"].as_str().is_some_and(|words| words.contains("clipped"));
    announcer.wait_where("warning that it was clipped", clipped);
}
