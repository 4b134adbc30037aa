//! Live speech on real sound: how long after it was said it is heard, and how alike it is, from one recording of both.

use std::path::Path;
use std::time::Duration;

use crate::support::correlate::{assert_whole, extent, skews_frames};
use crate::support::hallway::{AFTERWARDS, Hallway};
use crate::support::pulse::{MICROPHONE, MOUTH, PulseRig, RATE_HZ, Recording};
use crate::support::wav::{SPOKEN_HZ, read_i16, speech, to_f32};
use serde_json::Value;

/// The required correlation with what was said.
const ALIKE: f64 = 0.98;
/// The longest time allowed from mouth to ear.
const MOST_DELAY_MS: f64 = 150.0;
/// As for a clip: three times the measured value, so that a busy machine does not fail a correct program.
const MOST_SKEW_MS: f64 = 0.6;
/// How long each speech is.
const LENGTH: Duration = Duration::from_secs(4);

/// One speech, and what both stations report of it.
struct Spoken {
    from_frame: usize,
    receipts: Vec<Value>,
    /// What was sent, to the bit.
    sent: Vec<f32>,
}

/// Speaks until nothing was concealed and no device ran dry, five times at most: sound is made in real time, and a
/// machine that is too busy for it proves nothing. Sound that is reported as undisturbed must then be undisturbed.
fn speak_undisturbed(hallway: &mut Hallway, recording: &Recording, archive: &Path) -> Spoken {
    let mut torn = 0;
    for _ in 0..5 {
        let from_frame = recording.frames();
        hallway.announcer.enter();
        hallway.announcer.wait_for("live-started");
        recording.wait_for(LENGTH);
        hallway.announcer.enter();
        let ended = hallway.announcer.wait_for("live-ended");
        let done = hallway.announcer.wait_for("done");
        recording.wait_for(AFTERWARDS);
        let receipts: Vec<Value> = ["hall-1", "hall-2"]
            .map(|name| hallway.announcer.wait_for_one("live-played", "station", name))
            .into();
        let disturbed = |receipt: &Value| receipt["concealed"] != 0 || receipt["underruns"] != 0;
        if receipts.iter().any(disturbed) || ended.get("lost").is_some() {
            eprintln!("this machine is busy, so it is said again: {ended}, {receipts:?}");
            continue;
        }
        if !recording.is_whole(from_frame, &mut torn) {
            continue;
        }
        assert!(done["played"] == 2 && done["expected"] == 2, "{done}");
        let start = ended["sha256"].as_str().unwrap()[..8].to_owned();
        let files = crate::support::hallway::wavs(archive);
        let wav = files.iter().find(|path| path.display().to_string().contains(&start)).expect("it is kept");
        return Spoken { from_frame, receipts, sent: to_f32(&read_i16(wav).0) };
    }
    panic!("this machine is too busy for sound: each of five speeches was disturbed");
}

#[test]
fn what_is_said_is_heard_soon_whole_and_in_step() {
    let rig = PulseRig::start(2);
    let kept = tempfile::tempdir().unwrap();
    let mut hallway = Hallway::plan()
        .environment(rig.environment())
        .announce(["--live", "--input", MICROPHONE, "--archive", kept.path().to_str().unwrap()])
        .station("hall-1", "hall-1")
        .station("hall-2", "hall-2")
        .open();
    let recording = rig.record();
    let _voice = rig.play(MOUTH, &speech(rig.folder(), 90, SPOKEN_HZ));
    recording.wait_until_heard(0);
    recording.wait_for(Duration::from_secs(2));
    let mut delays_ms = Vec::new();
    for _ in 0..2 {
        let spoken = speak_undisturbed(&mut hallway, &recording, kept.path());
        let length = spoken.sent.len() as f64 / f64::from(RATE_HZ);
        assert!((3.5..20.0).contains(&length), "{length} s were sent");
        let mouth = recording.channel(0, spoken.from_frame);
        let halls = [1, 2].map(|hall| recording.channel(hall, spoken.from_frame));
        let mut first_frames = Vec::new();
        for (hall, heard) in halls.iter().enumerate() {
            let what = format!("what hall-{} emitted, in what was said,", hall + 1);
            let (first, last) = extent(heard, 0).expect("something was heard");
            let emitted = last + 1 - first;
            // The sound server's clock drifts from the system's, by which blocks are counted.
            assert!(
                emitted.abs_diff(spoken.sent.len()) < spoken.sent.len() / 300,
                "{what}: {emitted} frames"
            );
            let at = assert_whole(&what, &heard[first..=last], &mouth, RATE_HZ, ALIKE);
            let delay_ms = (first as f64 - at.delay_frames) * 1e3 / f64::from(RATE_HZ);
            println!(
                "hall-{}: {delay_ms:.1} ms after the mouth, correlation {:.4}",
                hall + 1,
                at.correlation
            );
            assert!(delay_ms > 0.0, "heard before it was said: {delay_ms} ms");
            delays_ms.push(delay_ms);
            first_frames.push(first);
        }
        let skews: Vec<f64> = skews_frames(
            &halls[0],
            &halls[1],
            first_frames[0],
            spoken.sent.len() - 4_800,
            RATE_HZ as usize / 2,
        )
        .into_iter()
        .map(|skew| skew * 1e3 / f64::from(RATE_HZ))
        .collect();
        println!("skew {skews:.3?} ms; {:?}", spoken.receipts);
        assert!(skews.iter().all(|skew| skew.abs() <= MOST_SKEW_MS), "{skews:?} ms");
    }
    assert!(delays_ms.iter().all(|delay_ms| *delay_ms <= MOST_DELAY_MS), "heard late: {delays_ms:?} ms");
    let warning = hallway.announcer.wait_for("warning")["message"].as_str().unwrap().to_owned();
    assert!(warning.contains("howl"), "{warning}");
    assert_eq!(hallway.announcer.untaken("warning"), 0, "it is said once");
}
