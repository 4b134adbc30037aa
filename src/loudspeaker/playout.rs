//! What an output callback plays: silence, or a sound steered to be at the right place at the right time.
//! Pure logic; nothing here allocates, frees, locks or waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::interpolate::{Interpolator, REACH};
use super::live::Feed;

/// Where in the sound the device should be at each frame: at `frame` it should be at `position`, advancing by `ratio` samples per
/// frame. Frames are counted from the opening of the stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    /// A frame of the device.
    pub frame: f64,
    /// The sample that it should play, negative before the start.
    pub position: f64,
    /// Samples per frame: the rate of the sound divided by the true rate of the device.
    pub ratio: f64,
}

impl Course {
    fn at(&self, frame: u64) -> f64 {
        self.position + (frame as f64 - self.frame) * self.ratio
    }
}

/// The sound that a job plays.
#[derive(Debug)]
pub enum Sound {
    /// A clip, from its first sample to its last.
    Clip(Vec<f32>),
    /// Live speech, from the sample that is due.
    Live(Box<Feed>),
}

impl Sound {
    /// The number of samples, as far as it is known.
    fn end(&self) -> f64 {
        match self {
            Self::Clip(samples) => samples.len() as f64,
            Self::Live(feed) => feed.end() as f64,
        }
    }
}

/// One sound to be played.
#[derive(Debug)]
pub struct Job {
    /// Its samples.
    pub sound: Sound,
    /// When to play it.
    pub course: Course,
    /// Where the callback reports its progress.
    pub progress: Arc<Progress>,
}

/// An order from the device's keeper to the callback.
#[derive(Debug)]
pub enum Command {
    /// Plays this next, and stops what is playing now.
    Play(Job),
    /// Continues on a better course.
    Steer(Course),
}

/// The progress of a sound; written by the callback.
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
    /// Makes the callback silence the sound.
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

    /// The greatest distance of the sound from its course after it began, in samples.
    pub fn worst_error(&self) -> f32 {
        f32::from_bits(self.worst_error.load(Ordering::Acquire))
    }
}

/// Frames over which an error is corrected, as a time constant: 0.5 s at 48 kHz. A course that is off for a moment, as on a busy
/// machine, moves the sound only a little.
const STEERING_FRAMES: f64 = 24_000.0;
/// The most that steering bends the pitch: 3.5 cents, less than an ear notices in speech.
const MAX_STEERING: f64 = 0.002;
/// Frames over which a cancelled sound fades, so that it does not click: 5 ms at 48 kHz.
const FADE_FRAMES: u32 = 240;
/// A clip that starts this many samples late or more still begins with its first sample.
const LATE_SAMPLES: f64 = 1.0;
/// The number of frames of live speech that are read together.
const LIVE_STRETCH: usize = 256;

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
    /// Samples by which the whole course was moved, because the sound began late.
    late: f64,
    /// The next sample, once begun.
    position: Option<f64>,
    fade: Option<u32>,
    over: bool,
}

impl Playout {
    /// Takes its orders from `commands`, and returns each job through `finished`, to be freed elsewhere.
    pub fn new(commands: rtrb::Consumer<Command>, finished: rtrb::Producer<Job>) -> Self {
        Self { frame: 0, commands, finished, interpolator: Interpolator::new(), playing: None }
    }

    /// The index of the next frame.
    pub fn frame(&self) -> u64 {
        self.frame
    }

    /// Passes the next `frames` samples to `put`, each with its index from 0.
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

    /// Hands the job back; returns false while there is no room for it.
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
    fn fill(
        &mut self,
        first: u64,
        frames: usize,
        interpolator: &Interpolator,
        mut put: impl FnMut(usize, f32),
    ) {
        if self.over {
            return (0..frames).for_each(|index| put(index, 0.0));
        }
        let Job { sound, course, progress } = &mut self.job;
        let is_clip = matches!(sound, Sound::Clip(_));
        if self.fade.is_none() && progress.cancelled.load(Ordering::Acquire) {
            self.fade = Some(FADE_FRAMES);
        }
        let target = course.at(first) - self.late;
        let (mut position, ratio) = match self.position {
            None if target >= LATE_SAMPLES && is_clip => {
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
        let end = sound.end();
        let audible = -(REACH as f64)..end + REACH as f64;
        let mut index = 0;
        while index < frames {
            let stretch = (frames - index).min(LIVE_STRETCH);
            let (samples, from) = match sound {
                Sound::Clip(samples) => (&samples[..], 0.0),
                Sound::Live(feed) => feed.around(position, ratio * stretch as f64),
            };
            for index in index..index + stretch {
                let frame = first as f64 + index as f64;
                if position >= 0.0 && progress.started().is_none() {
                    progress.started.store((frame - position / ratio).to_bits(), Ordering::Release);
                }
                if position >= end && progress.ended().is_none() && self.fade.is_none() {
                    progress.ended.store((frame - (position - end) / ratio).to_bits(), Ordering::Release);
                }
                let is_audible = audible.contains(&position);
                let sample = if is_audible { interpolator.at(samples, position - from) } else { 0.0 };
                put(index, sample * fade(&mut self.fade));
                position += ratio;
            }
            index += stretch;
        }
        self.over = position >= audible.end || self.fade == Some(0);
        if progress.started().is_some() {
            self.position = Some(position);
        }
    }
}

/// Returns the gain of the next frame.
fn fade(left: &mut Option<u32>) -> f32 {
    left.as_mut().map_or(1.0, |left| {
        *left = left.saturating_sub(1);
        *left as f32 / FADE_FRAMES as f32
    })
}

#[cfg(test)]
mod tests;
