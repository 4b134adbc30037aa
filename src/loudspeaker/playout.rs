//! What an output callback plays: silence, or a sound steered to be at the right place at the right time.
//! Pure logic; nothing here allocates, frees, locks or waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::interpolate::{Interpolator, REACH};

/// Where in the sound the device should be at each frame: at `frame` it should be at `position`, going on by
/// `ratio` samples a frame. Frames are counted since the stream was opened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    /// A frame of the device.
    pub frame: f64,
    /// The sample that it should play, negative before the start.
    pub position: f64,
    /// Samples a frame; 1 where the device's clock agrees with the system's.
    pub ratio: f64,
}

impl Course {
    fn at(&self, frame: u64) -> f64 {
        self.position + (frame as f64 - self.frame) * self.ratio
    }
}

/// One sound to be played.
#[derive(Debug)]
pub struct Job {
    /// Samples at the device's rate.
    pub samples: Vec<f32>,
    /// When.
    pub course: Course,
    /// Where it is told how it goes.
    pub progress: Arc<Progress>,
}

/// What the device's keeper asks of the callback.
#[derive(Debug)]
pub enum Command {
    /// Plays this next; ends what is played now.
    Play(Job),
    /// Goes on by a better course.
    Steer(Course),
}

/// How a sound goes; written by the callback.
#[derive(Debug)]
pub struct Progress {
    cancelled: AtomicBool,
    started: AtomicU64,
    ended: AtomicU64,
    worst_error: AtomicU32,
}

impl Default for Progress {
    fn default() -> Self {
        let never = f64::NAN.to_bits();
        Self {
            cancelled: AtomicBool::new(false),
            started: AtomicU64::new(never),
            ended: AtomicU64::new(never),
            worst_error: AtomicU32::new(0),
        }
    }
}

impl Progress {
    /// Has the callback silence the sound.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// The frame, to a fraction, at which the first sample was handed to the device.
    pub fn started(&self) -> Option<f64> {
        Some(f64::from_bits(self.started.load(Ordering::Acquire))).filter(|frame| !frame.is_nan())
    }

    /// The frame, to a fraction, before which the last sample was handed to the device.
    pub fn ended(&self) -> Option<f64> {
        Some(f64::from_bits(self.ended.load(Ordering::Acquire))).filter(|frame| !frame.is_nan())
    }

    /// The farthest that the sound was from its course after it began, in samples.
    pub fn worst_error(&self) -> f32 {
        f32::from_bits(self.worst_error.load(Ordering::Acquire))
    }
}

/// Frames over which an error is taken back, as a time constant: 0.1 s at 48 kHz.
const STEERING_FRAMES: f64 = 4_800.0;
/// The most that steering bends the pitch: 3.5 cents, below what an ear tells from speech.
const MAX_STEERING: f64 = 0.002;
/// Frames in which a cancelled sound fades, so that it does not click: 5 ms at 48 kHz.
const FADE_FRAMES: u32 = 240;
/// A start this many samples late or more begins with the first sample all the same.
const LATE_SAMPLES: f64 = 1.0;

/// The output callback's state.
#[derive(Debug)]
pub struct Playout {
    frame: u64,
    commands: rtrb::Consumer<Command>,
    finished: rtrb::Producer<Job>,
    interpolator: Interpolator,
    playing: Option<Playing>,
}

#[derive(Debug)]
struct Playing {
    job: Job,
    /// Samples that the whole course was moved by, because it began late.
    late: f64,
    /// The next sample, once begun.
    position: Option<f64>,
    fade: Option<u32>,
    over: bool,
}

impl Playout {
    /// Takes its orders from `commands` and gives back each job, to be freed elsewhere, through `finished`.
    pub fn new(commands: rtrb::Consumer<Command>, finished: rtrb::Producer<Job>) -> Self {
        Self { frame: 0, commands, finished, interpolator: Interpolator::new(), playing: None }
    }

    /// The index of the next frame.
    pub fn frame(&self) -> u64 {
        self.frame
    }

    /// Gives the next `frames` samples, each with its index from 0.
    pub fn fill(&mut self, frames: usize, mut put: impl FnMut(usize, f32)) {
        self.take_commands();
        match &mut self.playing {
            Some(playing) => playing.fill(self.frame, frames, &self.interpolator, put),
            None => (0..frames).for_each(|index| put(index, 0.0)),
        }
        self.frame += frames as u64;
    }

    fn take_commands(&mut self) {
        if self.playing.as_ref().is_some_and(|playing| playing.over) {
            self.retire();
        }
        loop {
            let Ok(next) = self.commands.peek() else { return };
            if matches!(next, Command::Play(_)) && !self.retire() {
                return;
            }
            match self.commands.pop() {
                Ok(Command::Play(job)) => {
                    self.playing = Some(Playing { job, late: 0.0, position: None, fade: None, over: false });
                }
                Ok(Command::Steer(course)) => {
                    if let Some(playing) = &mut self.playing {
                        playing.job.course = course;
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// Hands the job back; false while there is no room for it.
    fn retire(&mut self) -> bool {
        let Some(mut playing) = self.playing.take() else { return true };
        playing.over = true;
        match self.finished.push(playing.job) {
            Ok(()) => true,
            Err(rtrb::PushError::Full(job)) => {
                self.playing = Some(Playing { job, ..playing });
                false
            }
        }
    }
}

impl Playing {
    fn fill(&mut self, first: u64, frames: usize, sound: &Interpolator, mut put: impl FnMut(usize, f32)) {
        if self.over {
            return (0..frames).for_each(|index| put(index, 0.0));
        }
        let Job { samples, course, progress } = &self.job;
        if self.fade.is_none() && progress.cancelled.load(Ordering::Acquire) {
            self.fade = Some(FADE_FRAMES);
        }
        let target = course.at(first) - self.late;
        let (mut position, ratio) = match self.position {
            None if target >= LATE_SAMPLES => {
                self.late = target;
                (0.0, course.ratio)
            }
            None => (target, course.ratio),
            Some(position) => {
                let error = target - position;
                let worst = progress.worst_error().max(error.abs() as f32);
                progress.worst_error.store(worst.to_bits(), Ordering::Release);
                let steering = (error / STEERING_FRAMES).clamp(-MAX_STEERING, MAX_STEERING);
                (position, course.ratio + steering)
            }
        };
        let end = samples.len() as f64;
        let audible = -(REACH as f64)..end + REACH as f64;
        for index in 0..frames {
            let frame = first as f64 + index as f64;
            if position >= 0.0 && progress.started().is_none() {
                progress.started.store((frame - position / ratio).to_bits(), Ordering::Release);
            }
            if position >= end && progress.ended().is_none() && self.fade.is_none() {
                progress.ended.store((frame - (position - end) / ratio).to_bits(), Ordering::Release);
            }
            let sample = if audible.contains(&position) { sound.at(samples, position) } else { 0.0 };
            put(index, sample * fade(&mut self.fade));
            position += ratio;
        }
        self.over = position >= audible.end || self.fade == Some(0);
        if progress.started().is_some() {
            self.position = Some(position);
        }
    }
}

/// The loudness of the next frame.
fn fade(left: &mut Option<u32>) -> f32 {
    left.as_mut().map_or(1.0, |left| {
        *left = left.saturating_sub(1);
        *left as f32 / FADE_FRAMES as f32
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::super::line::Stamp;
    use super::*;

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
            let job = Job { samples, course, progress: progress.clone() };
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
        assert_eq!(rig.finished.pop().expect("the job").samples.len(), 10_000);
    }

    #[test]
    fn a_callback_neither_allocates_nor_frees() {
        let (commands, taken) = rtrb::RingBuffer::new(8);
        let (given, finished) = rtrb::RingBuffer::new(1);
        let mut rig = Rig { commands, finished, playout: Playout::new(taken, given) };
        let (stamps, heard) = (super::super::stamps::Stamps::new(), std::cell::Cell::new(0.0));
        let called = |rig: &mut Rig| {
            let told = allocation_counter::measure(|| {
                let stamp = Stamp { frame: rig.playout.frame(), plays_ns: 1, told_ns: 0 };
                stamps.push(stamp);
                rig.playout.fill(480, |_, sample| heard.set(heard.get() + sample));
            });
            assert_eq!((told.count_total, told.count_current), (0, 0), "{told:?}");
        };
        called(&mut rig);
        // To its end, by a better course; then one that is cancelled, and one for which there is no room.
        rig.play(noise(2_000), Course { ratio: 1.000_1, ..STEADY });
        called(&mut rig);
        rig.commands.push(Command::Steer(Course { position: 0.5, ..STEADY })).expect("room");
        (0..6).for_each(|_| called(&mut rig));
        let cancelled = rig.play(noise(48_000), STEADY);
        called(&mut rig);
        cancelled.cancel();
        (0..4).for_each(|_| called(&mut rig));
        rig.play(noise(100), STEADY);
        (0..4).for_each(|_| called(&mut rig));
        assert!(heard.get() != 0.0 && rig.finished.pop().is_ok());
        called(&mut rig);
        // What it counts is counted: this is what would fail.
        assert!(allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 9]))).count_total > 0);
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
        /// On a card that is off by up to 0.1 %, with a course known to ±20 samples at first and ±1 later,
        /// the sound is where it should be, and stays there.
        #[test]
        fn steering_takes_errors_back(clock in -0.001..0.001, first in -20.0..20.0, later in -1.0..1.0) {
            let mut rig = rig();
            let ratio = 1.0 / (1.0 + clock);
            let course = |error: f64| Course { frame: 1_000.0, position: error, ratio };
            let progress = rig.play(vec![0.25; 96_000], course(first));
            rig.hear(&[960; 10]);
            rig.commands.push(Command::Steer(course(later))).expect("room");
            rig.hear(&[960; 40]);
            let position = rig.playout.playing.as_ref().and_then(|playing| playing.position).expect("playing");
            let wanted = course(later).at(rig.playout.frame());
            prop_assert!((position - wanted).abs() < 0.2, "{position}, not {wanted}");
            prop_assert!(f64::from(progress.worst_error()) <= (first - later).abs() + 1e-3);
        }
    }
}
