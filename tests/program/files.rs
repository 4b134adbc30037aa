//! A WAV goes in at the announcer, and every station writes a WAV of what it played.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::hallway::{Hallway, Program, file, start_station, wavs};
use crate::support::wav::{SPOKEN_HZ, Spec, read_i16, speech, tones, write_i16};
use serde_json::Value;
use tempfile::TempDir;

/// Announces a WAV once to one station, and returns the samples that the station wrote, and their rate.
fn announced(wav: &Path) -> (Vec<i16>, u32) {
    let output = tempfile::tempdir().unwrap();
    let mut hallway = Hallway::plan()
        .announce(["--once", "--wait-for", "1"])
        .says(wav)
        .station("hall-1", file(output.path()))
        .open();
    let done = hallway.announcer.wait_for("done");
    assert_eq!((&done["played"], &done["expected"]), (&1.into(), &1.into()), "{}: {done}", wav.display());
    assert_eq!(hallway.announcer.exit_code(), 0, "{}", wav.display());
    let played = hallway.stations[0].wait_for("played");
    let written = wavs(output.path());
    assert_eq!(written.len(), 1, "{written:?}");
    let (samples, rate_hz) = read_i16(&written[0]);
    assert_eq!(played["frames"], samples.len(), "{played}");
    let name = format!("hall-1-{}.wav", played["clip"].as_str().unwrap());
    assert_eq!(written[0].file_name().unwrap().to_str(), Some(name.as_str()));
    (samples, rate_hz)
}

/// Announces a fixture of a format.
fn announced_as(spec: Spec, frames: usize) -> (Vec<i16>, u32) {
    let folder = tempfile::tempdir().unwrap();
    announced(&spec.write(folder.path(), frames))
}

/// The tones as 16 bits represent them.
fn tones_i16(frame: usize, rate_hz: u32) -> f64 {
    tones(frame, rate_hz) * 32_768.0
}

#[test]
fn sixteen_bit_mono_is_exact_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    for rate_hz in [8_000, 16_000, 22_050, 44_100, 48_000] {
        let wav = Spec::mono(16, rate_hz).write(folder.path(), rate_hz as usize / 4);
        let (played, played_hz) = announced(&wav);
        assert_eq!(played_hz, rate_hz);
        assert!(played == read_i16(&wav).0, "{} came out changed", wav.display());
    }
}

#[test]
fn both_ends_of_the_scale_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let wav = folder.path().join("extremes-16bit-8000Hz-mono.wav");
    let samples: Vec<i16> = [i16::MIN, i16::MAX, -1, 0, 1, i16::MIN + 1].repeat(100);
    write_i16(&wav, &samples, 8_000);
    assert!(announced(&wav).0 == samples);
}

#[test]
fn one_sample_is_a_clip() {
    let folder = tempfile::tempdir().unwrap();
    let wav = folder.path().join("one-sample.wav");
    write_i16(&wav, &[12_345], 8_000);
    assert_eq!(announced(&wav).0, [12_345]);
}

#[test]
fn other_formats_are_right_within_rounding() {
    let cases = [
        // How many steps of 16 bits a sample may be off: half of its own step, and half of ours.
        (Spec::mono(8, 16_000), 128.5),
        (Spec::mono(24, 48_000), 0.51),
        (Spec::mono(32, 44_100), 0.51),
        (Spec::float(48_000, 1), 0.51),
        (Spec::stereo(16, 44_100), 1.01),
        (Spec::stereo(24, 22_050), 0.51),
        (Spec::float(16_000, 2), 0.51),
    ];
    for (spec, tolerance) in cases {
        let frames = spec.rate_hz as usize / 5;
        let (played, rate_hz) = announced_as(spec, frames);
        assert_eq!((played.len(), rate_hz), (frames, spec.rate_hz), "{}", spec.file_name());
        for (frame, &sample) in played.iter().enumerate() {
            let wrong = (f64::from(sample) - tones_i16(frame, rate_hz)).abs();
            assert!(wrong <= tolerance, "{}: frame {frame} is off by {wrong} steps", spec.file_name());
        }
    }
}

#[test]
fn ninety_six_kilohertz_come_down_to_forty_eight() {
    for spec in [Spec::mono(24, 96_000), Spec::stereo(16, 96_000)] {
        let (played, rate_hz) = announced_as(spec, 96_000);
        assert_eq!((played.len(), rate_hz), (48_000, 48_000), "{}", spec.file_name());
        // A resampler rings at the edges, where the sound begins out of nothing.
        for (frame, &sample) in played.iter().enumerate().skip(2_400).take(43_200) {
            let wrong = (f64::from(sample) - tones_i16(frame, 48_000)).abs();
            assert!(wrong <= 60.0, "{}: frame {frame} is off by {wrong} steps", spec.file_name());
        }
    }
}

#[test]
fn four_kilohertz_come_up_to_eight() {
    let folder = tempfile::tempdir().unwrap();
    let wav = folder.path().join("low-16bit-4000Hz-mono.wav");
    let tone =
        |frame: usize, rate: f64| (frame as f64 / rate * 440.0 * std::f64::consts::TAU).sin() * 16_000.0;
    let samples: Vec<i16> = (0..4_000).map(|frame| tone(frame, 4_000.0) as i16).collect();
    write_i16(&wav, &samples, 4_000);
    let (played, rate_hz) = announced(&wav);
    assert_eq!((played.len(), rate_hz), (8_000, 8_000));
    for (frame, &sample) in played.iter().enumerate().skip(800).take(6_400) {
        assert!((f64::from(sample) - tone(frame, 8_000.0)).abs() < 100.0, "frame {frame}: {sample}");
    }
}

#[test]
fn seconds_cut_a_file_or_pad_it_with_silence() {
    let folder = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(folder.path(), 8_000);
    let whole = read_i16(&wav).0;
    for (seconds, frames) in [("0.25", 2_000), ("1.5", 12_000)] {
        let output = tempfile::tempdir().unwrap();
        let mut hallway = Hallway::plan()
            .announce(["--seconds", seconds])
            .says(&wav)
            .station("hall-1", file(output.path()))
            .open();
        assert_eq!(hallway.announce()["played"], 1);
        let (played, _) = read_i16(&wavs(output.path())[0]);
        let expected: Vec<i16> = whole.iter().copied().chain(std::iter::repeat(0)).take(frames).collect();
        assert!(played == expected, "{seconds} s: {} frames", played.len());
    }
}

#[test]
fn three_stations_play_it_at_once() {
    let fixtures = tempfile::tempdir().unwrap();
    let wav = speech(fixtures.path(), 2, SPOKEN_HZ);
    let folders: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut plan = Hallway::plan().says(&wav);
    for (folder, name) in folders.iter().zip(["hall-1", "hall-2", "hall-3"]) {
        plan = plan.station(name, file(folder.path()));
    }
    let mut hallway = plan.open();
    let done = hallway.announce();
    assert_eq!(done["played"], 3, "{done}");
    assert_eq!(done["missing"], Value::Array(vec![]));
    let sending = hallway.announcer.wait_for("sending");
    let stations: BTreeSet<&str> =
        sending["stations"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(stations, BTreeSet::from(["hall-1", "hall-2", "hall-3"]));
    // Each played for two seconds: had they taken turns, the last would have begun after the first ended.
    let began: Vec<u64> =
        (0..3).map(|_| hallway.announcer.wait_for("playing")["unix_ms"].as_u64().unwrap()).collect();
    let ended: Vec<u64> =
        (0..3).map(|_| hallway.announcer.wait_for("played")["unix_ms"].as_u64().unwrap()).collect();
    assert!(began.iter().max() < ended.iter().min(), "began {began:?}, ended {ended:?}");
    for folder in &folders {
        assert!(read_i16(&wavs(folder.path())[0]).0 == read_i16(&wav).0);
    }
}

#[test]
fn a_second_announcement_waits_for_the_first_and_both_are_played_in_order() {
    let fixtures = tempfile::tempdir().unwrap();
    let output = tempfile::tempdir().unwrap();
    let wav = speech(fixtures.path(), 2, 16_000);
    let mut hallway = Hallway::plan().says(&wav).station("hall-1", file(output.path())).open();
    hallway.announcer.enter();
    let first = hallway.stations[0].wait_for("playing")["clip"].clone();
    hallway.announcer.enter();
    let second = loop {
        let clip = hallway.announcer.wait_for("recorded")["clip"].clone();
        if clip != first {
            break clip;
        }
    };
    for expected in [&first, &second] {
        let done = hallway.announcer.wait_for("done");
        assert_eq!(
            (&done["clip"], &done["played"], &done["expected"]),
            (expected, &1.into(), &1.into()),
            "{done}"
        );
    }
    for expected in [&first, &second] {
        assert_eq!(&hallway.stations[0].wait_for("played")["clip"], expected);
    }
    let written = wavs(output.path());
    assert_eq!(written.len(), 2, "each exactly once: {written:?}");
    for path in written {
        assert!(read_i16(&path).0 == read_i16(&wav).0);
    }
}

#[test]
fn stations_come_back_when_the_announcer_was_restarted() {
    let fixtures = tempfile::tempdir().unwrap();
    let output = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(fixtures.path(), 800);
    let mut hallway = Hallway::plan().says(&wav).station("hall-1", file(output.path())).open();
    assert_eq!(hallway.announce()["played"], 1);
    hallway.stations[0].wait_for("connected");
    hallway.announcer.kill();
    hallway.stations[0].wait_for("waiting");

    let address = hallway.address.clone();
    let arguments = [
        "announce".into(),
        "--listen".into(),
        address.into(),
        "--no-level".into(),
        "--input".into(),
        file(&wav),
    ];
    let mut restarted = Program::start("the announcer, restarted,", arguments, &hallway.environment);
    restarted.wait_for_one("station-joined", "station", "hall-1");
    restarted.enter();
    // The verdict on the first page may be emitted again: the announcer was killed before it could write it down.
    let recorded = restarted.wait_for("recorded");
    let clip = recorded["clip"].as_str().unwrap();
    assert_eq!(restarted.wait_for_one("done", "clip", clip)["played"], 1);
    assert_eq!(wavs(output.path()).len(), 2);
    let waits = hallway.stations[0].untaken("waiting");
    assert!(waits == 0, "an outage is said once, not {} times", waits + 1);
}

#[test]
fn a_station_that_dies_is_named_and_the_others_play() {
    let fixtures = tempfile::tempdir().unwrap();
    let output = tempfile::tempdir().unwrap();
    let wav = speech(fixtures.path(), 3, 16_000);
    let mut hallway = Hallway::plan()
        .says(&wav)
        .announce(["--keep", "2"])
        .station("hall-1", file(output.path()))
        .station("hall-2", file(output.path()))
        .open();
    hallway.announcer.enter();
    hallway.stations[1].wait_for("playing");
    hallway.stations[1].kill();
    let done = hallway.announcer.wait_for("done");
    assert_eq!((&done["played"], &done["expected"]), (&1.into(), &2.into()), "{done}");
    assert_eq!(done["missing"][0]["station"], "hall-2", "{done}");
    assert_ne!(done["missing"][0]["reason"], "", "{done}");
    let written = wavs(output.path());
    assert_eq!(written.len(), 1, "half a clip leaves no WAV: {written:?}");
    hallway.announcer.end_input();
    assert_eq!(hallway.announcer.exit_code(), 1);
}

#[test]
fn a_folder_that_vanishes_fails_the_station_with_a_reason() {
    let fixtures = tempfile::tempdir().unwrap();
    let output = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(fixtures.path(), 800);
    let mut hallway =
        Hallway::plan().says(&wav).announce(["--keep", "2"]).station("hall-1", file(output.path())).open();
    output.close().unwrap();
    let done = hallway.announce();
    assert_eq!((&done["played"], &done["expected"]), (&0.into(), &1.into()), "{done}");
    assert_eq!(done["missing"][0]["station"], "hall-1", "{done}");
}

#[test]
fn a_station_that_reboots_hears_what_was_kept_for_it() {
    let fixtures = tempfile::tempdir().unwrap();
    let outputs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let wav = Spec::mono(16, 8_000).write(fixtures.path(), 800);
    let mut hallway = Hallway::plan()
        .says(&wav)
        .station("hall-1", file(outputs[0].path()))
        .station("hall-2", file(outputs[1].path()))
        .open();
    hallway.stations[1].kill();
    hallway.announcer.wait_for_one("station-left", "station", "hall-2");
    hallway.announcer.enter();
    hallway.stations[0].wait_for("played");
    let mut rebooted =
        start_station(&hallway.address, "hall-2", &file(outputs[1].path()), &hallway.environment);
    rebooted.wait_for("played");
    assert!(read_i16(&wavs(outputs[1].path())[0]).0 == read_i16(&wav).0);
}
