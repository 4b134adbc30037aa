#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::devices::line::{Line, Stamp};

struct Rig {
    commands: rtrb::Producer<Command>,
    finished: rtrb::Consumer<Job>,
    playout: Playout,
}

fn rig() -> Rig {
    let (commands, taken) = rtrb::RingBuffer::new(8);
    let (given, finished) = rtrb::RingBuffer::new(2);
    Rig { commands, finished, playout: Playout::new(taken, given) }
}

impl Rig {
    fn play(&mut self, samples: Vec<f32>, course: Course) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        let job = Job { sound: Sound::Clip(samples), course, progress: progress.clone() };
        self.commands.push(Command::Play(job)).expect("room");
        progress
    }

    fn hear(&mut self, blocks: &[usize]) -> Vec<f32> {
        let mut heard = Vec::new();
        for &frames in blocks {
            self.playout.fill(frames, |_, sample| heard.push(sample));
        }
        heard
    }
}

const STEADY: Course = Course { frame: 100.0, position: 0.0, ratio: 1.0 };

fn noise(frames: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 16) as i16) / 32_768.0
    };
    (0..frames).map(|_| next()).collect()
}

#[test]
fn a_whole_start_at_the_card_s_rate_is_exact_to_the_bit_whatever_the_blocks() {
    let sound = noise(1_000);
    for blocks in [vec![64; 30], vec![1; 1_500], vec![2_000], vec![37, 900, 3, 800]] {
        let mut rig = rig();
        let progress = rig.play(sound.clone(), STEADY);
        let heard = rig.hear(&blocks);
        assert!(heard[..100].iter().all(|&sample| sample == 0.0));
        assert_eq!(heard[100..1_100], sound);
        assert!(heard[1_100..].iter().all(|&sample| sample == 0.0));
        assert_eq!(progress.started(), Some(100.0));
        assert_eq!(progress.ended(), Some(1_100.0));
        assert_eq!(progress.worst_error(), 0.0);
    }
}

#[test]
fn a_late_order_plays_from_the_first_sample_and_says_how_late() {
    let mut rig = rig();
    rig.hear(&[500]);
    let sound = noise(300);
    let progress = rig.play(sound.clone(), STEADY);
    assert_eq!(rig.hear(&[64; 10])[..300], sound);
    assert_eq!(progress.started(), Some(500.0));
    assert_eq!(progress.ended(), Some(800.0));
}

#[test]
fn a_fractional_start_is_told_to_the_fraction() {
    let mut rig = rig();
    let progress = rig.play(noise(300), Course { frame: 100.25, ..STEADY });
    rig.hear(&[64; 10]);
    assert!((progress.started().expect("started") - 100.25).abs() < 1e-9);
    assert!((progress.ended().expect("ended") - 400.25).abs() < 1e-9);
}

#[test]
fn a_cancelled_sound_is_silent_within_a_block_and_comes_back_unfreed() {
    let mut rig = rig();
    let progress = rig.play(vec![0.5; 10_000], STEADY);
    assert!(rig.hear(&[512])[511] > 0.0);
    progress.cancel();
    let rest = rig.hear(&[512, 512]);
    assert!(rest[FADE_FRAMES as usize..].iter().all(|&sample| sample == 0.0));
    assert!(rest.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 0.01), "no click");
    assert_eq!(progress.ended(), None);
    let Sound::Clip(samples) = rig.finished.pop().expect("the job").sound else { panic!("no clip") };
    assert_eq!(samples.len(), 10_000);
}

#[test]
fn a_further_sound_follows_when_nobody_frees_the_first() {
    let mut rig = rig();
    for _ in 0..3 {
        rig.play(noise(10), STEADY);
        rig.hear(&[200]);
    }
    let progress = rig.play(noise(10), STEADY);
    rig.hear(&[200]);
    assert_eq!(progress.started(), None, "no room to give the third back");
    rig.finished.pop().expect("the first");
    rig.hear(&[200]);
    assert!(progress.ended().is_some());
}

proptest! {
    /// On a card whose clock is off by up to 0.1 %, with a course known to ±20 samples at first and ±1 later, the sound is where
    /// it should be, and stays there.
    #[test]
    fn steering_takes_errors_back(clock in -0.001..0.001, first in -20.0..20.0, later in -1.0..1.0) {
        let mut rig = rig();
        let ratio = 1.0 / (1.0 + clock);
        let course = |error: f64| Course { frame: 1_000.0, position: error, ratio };
        let progress = rig.play(vec![0.25; 480_000], course(first));
        rig.hear(&[960; 10]);
        rig.commands.push(Command::Steer(course(later))).expect("room");
        rig.hear(&[960; 240]);
        let position = rig.playout.playing.as_ref().and_then(|playing| playing.position).expect("playing");
        let wanted = course(later).at(rig.playout.frame());
        prop_assert!((position - wanted).abs() < 0.2, "{position}, not {wanted}");
        prop_assert!(f64::from(progress.worst_error()) <= (first - later).abs() + 1e-3);
    }
}

/// A sound card whose clock is off, and whose timestamps are off by up to 60 µs, one in thirty by more.
struct Card {
    clock: f64,
    random: proptest::test_runner::TestRng,
}

impl Card {
    const BLOCK: u64 = 960;

    /// The true time of a frame, in seconds.
    fn time_s(&self, frame: f64) -> f64 {
        1.0 + frame / (48_000.0 * (1.0 + self.clock))
    }

    fn stamp(&mut self, frame: u64) -> Stamp {
        let mut unit = || f64::from(self.random.next_u32()) / f64::from(u32::MAX);
        let (jitter_ns, is_held_up) = ((unit() - 0.5) * 120e3, unit() < 1.0 / 30.0);
        let held_up_ns = if is_held_up { unit() * 10e6 } else { 0.0 };
        let plays_ns = (self.time_s(frame as f64) * 1e9 + jitter_ns + held_up_ns) as u64;
        Stamp { frame, plays_ns, told_ns: plays_ns.saturating_sub(20_000_000) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Three seconds after the stream was opened, plays a clip of five seconds as the loudspeaker does, fitting the line again
    /// every 100 ms. The clip is never 0.15 ms from where it should be, and its pitch never bends by more than a third of a per
    /// mille, half a cent, which nobody hears.
    #[test]
    fn a_clip_on_a_drifting_card_stays_in_step_inaudibly(clock in -0.001..0.001, seed in any::<[u8; 32]>()) {
        const CALLBACKS_BEFORE: u64 = 150;
        let random = proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &seed);
        let mut card = Card { clock, random };
        let mut rig = rig();
        let mut stamps: Vec<Stamp> = Vec::new();
        let at_s = card.time_s((CALLBACKS_BEFORE * Card::BLOCK) as f64) + 0.1;
        let course = |stamps: &[Stamp]| {
            let line = Line::fit(stamps, 48_000).expect("a line");
            Course { frame: line.frame(at_s * 1e9), position: 0.0, ratio: 48_000.0 / line.rate_hz() }
        };
        let mut progress = None;
        let (mut before, mut worst_us, mut worst_bend) = (None, 0.0_f64, 0.0_f64);
        for callback in 0..CALLBACKS_BEFORE + 265 {
            if callback == CALLBACKS_BEFORE {
                progress = Some(rig.play(vec![0.25; 240_000], course(&stamps)));
            } else if callback > CALLBACKS_BEFORE && callback % 5 == 0 {
                rig.commands.push(Command::Steer(course(&stamps))).expect("room");
            }
            stamps.push(card.stamp(rig.playout.frame()));
            rig.hear(&[Card::BLOCK as usize]);
            let position = rig.playout.playing.as_ref().and_then(|playing| playing.position);
            if let Some(position) = position.filter(|position| *position < 240_000.0) {
                let wanted = (card.time_s(rig.playout.frame() as f64) - at_s) * 48_000.0;
                worst_us = worst_us.max((position - wanted).abs() / 48e-3);
                if let Some(before) = before.replace(position) {
                    let ratio: f64 = (position - before) / Card::BLOCK as f64;
                    worst_bend = worst_bend.max((ratio * (1.0 + clock) - 1.0).abs());
                }
            }
        }
        let progress = progress.expect("played");
        let started_us = (card.time_s(progress.started().expect("started")) - at_s) * 1e6;
        prop_assert!(started_us.abs() < 50.0, "started {started_us} µs off");
        prop_assert!(progress.ended().is_some());
        prop_assert!(worst_us <= 150.0, "{worst_us} µs off");
        prop_assert!(worst_bend <= 1.0 / 2_000.0, "bent by {worst_bend}");
    }
}
