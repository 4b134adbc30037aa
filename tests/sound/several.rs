//! Two announcers and one loudspeaker, judged by what is heard: one page at a time, and an emergency at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::correlate::{assert_whole, extent};
use crate::support::desks::{Desk, join};
use crate::support::hallway::{AFTERWARDS, Environment, Program, STATE};
use crate::support::pulse::{PulseRig, RATE_HZ, Recording};
use crate::support::wav::{read_i16, speech, to_f32, write_i16};
use serde_json::Value;

/// The required correlation with the original.
const ALIKE: f64 = 0.98;
/// How often a machine that is too busy for sound is tried.
const TRIES: usize = 5;
const SECOND: usize = RATE_HZ as usize;

/// A part of the one speech that there is, in seconds, so that two pages say different things.
fn words(folder: &Path, from: usize, to: usize) -> PathBuf {
    let (samples, _) = read_i16(&speech(folder, to, RATE_HZ));
    let path = folder.join("words.wav");
    write_i16(&path, &samples[from * SECOND..], RATE_HZ);
    path
}

struct Scene {
    first: Desk,
    second: Desk,
    hall: Program,
    recording: Recording,
    // Dropped after the fields that use it.
    _rig: PulseRig,
}

impl Scene {
    /// The first desk announces eight seconds of speech, the second two other seconds.
    fn open(second: &[&str]) -> Self {
        let rig = PulseRig::start(1);
        let environment: Environment = rig.environment();
        let first = Desk::open(|folder| words(folder, 0, 8), &[], &environment);
        let second = Desk::open(|folder| words(folder, 8, 10), second, &environment);
        let mut own = environment;
        own.push((STATE.into(), rig.folder().join("hall").display().to_string()));
        let hall = join(&[&first, &second], &"hall-1".into(), &[], &own);
        let recording = rig.record();
        Self { first, second, hall, recording, _rig: rig }
    }

    fn said(&self) -> [Vec<f32>; 2] {
        [&self.first, &self.second].map(|desk| to_f32(&read_i16(&desk.wav).0))
    }

    /// Announces both pages, the second while the first sounds, until no device ran dry. Returns what was heard of
    /// them, and both outcomes.
    fn both(&mut self) -> (Vec<f32>, [Value; 2]) {
        for _ in 0..TRIES {
            let from_frame = self.recording.frames();
            let clip = self.first.announce();
            self.hall.wait_for_one("playing", "clip", &clip);
            self.recording.wait_for(Duration::from_millis(1_500));
            self.second.announce();
            let outcomes = [self.first.played(), self.second.played()];
            self.recording.wait_for(AFTERWARDS);
            if outcomes.iter().all(|outcome| outcome["underruns"] == 0) {
                return (self.recording.channel(1, from_frame), outcomes);
            }
            eprintln!("this machine is busy, so it is announced again: {outcomes:?}");
        }
        panic!("this machine is too busy for sound: devices ran dry each time");
    }
}

#[test]
fn two_announcers_are_heard_whole_and_one_after_the_other() {
    let mut scene = Scene::open(&[]);
    let (heard, [first, second]) = scene.both();
    assert_eq!((&first["again"], &second["again"]), (&false.into(), &false.into()));
    assert_eq!(second["outcome"], "played-late", "it came while the first had seconds to go: {second}");
    let said = scene.said();
    let before = assert_whole("the first page", &said[0], &heard, RATE_HZ, ALIKE);
    let after = assert_whole("the second page", &said[1], &heard, RATE_HZ, ALIKE);
    let pause_ms =
        (after.delay_frames - before.delay_frames - said[0].len() as f64) * 1e3 / f64::from(RATE_HZ);
    println!("{pause_ms:.0} ms between the two");
    // A sink's clock may differ from the system's by up to a thousandth.
    assert!((-10.0..3_000.0).contains(&pause_ms), "{pause_ms} ms between the two");
}

#[test]
fn an_emergency_cuts_a_page_off_and_the_page_is_heard_again_whole() {
    let mut scene = Scene::open(&["--priority", "emergency"]);
    let (heard, [page, emergency]) = scene.both();
    assert_eq!((&page["outcome"], &page["again"]), (&"played-late".into(), &true.into()), "{page}");
    assert_eq!(emergency["again"], false, "{emergency}");
    let [said, alarm] = scene.said();
    let at = assert_whole("the emergency", &alarm, &heard, RATE_HZ, ALIKE).delay_frames.round() as usize;
    // 5 ms less: the emergency's first samples ring before it.
    let (before, after) = (&heard[..at - SECOND / 200], &heard[at + alarm.len()..]);
    // The part of the page that was heard before is its beginning, and not all of it.
    let (first, last) = extent(before, 0).expect("the page had begun");
    let begun = (last - first).saturating_sub(SECOND / 20).min(said.len());
    assert!((SECOND..said.len()).contains(&begun), "{begun} frames were heard before");
    assert_whole("the beginning of the page", &said[..begun], before, RATE_HZ, ALIKE);
    let again = assert_whole("the page again", &said, after, RATE_HZ, ALIKE);
    let (silence_ms, pause_ms) = (at - last, again.delay_frames.max(0.0) as usize);
    let [silence_ms, pause_ms] = [silence_ms, pause_ms].map(|frames| frames * 1_000 / SECOND);
    println!(
        "{begun} frames heard, {silence_ms} ms of silence, the emergency, {pause_ms} ms, the page again"
    );
}
