//! One sound within a file, as it is decoded: most files hold exactly one, joined files hold several.

use std::time::Duration;

use crate::clip::MAX_LENGTH;
use crate::sample::{self, Sound};

/// The most sound that may be decoded but not heard: encoders' delays, and what an edit list cuts away.
const MAX_UNHEARD: Duration = Duration::from_secs(10);
/// The highest rate of any sound; it limits how much memory a small file can fill.
const MAX_RATE_HZ: u32 = 384_000;

/// Why a sound is not read.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is damaged, truncated, or claims something impossible: what is wrong, and what to do.
    Bad(String),
    /// Nothing here decodes this format: its name.
    Unsupported(String),
    /// It is longer than [`MAX_LENGTH`]: the least length that it has.
    TooLong(Duration),
}

impl Fault {
    /// The file ends before its sound does.
    pub(super) fn truncated() -> Self {
        Self::Bad("it ends before its sound does: it is truncated, copy it again".into())
    }
}

/// Interleaved frames from a decoder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// Full scale is ±1.0.
    pub interleaved: &'a [f32],
    pub channels: usize,
    pub rate_hz: u32,
}

/// The sound decoded so far, in mono.
#[derive(Debug)]
pub(super) struct Part {
    /// Its rate is 0 until a block has come.
    pub sound: Sound,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

impl Part {
    pub(super) fn new() -> Self {
        Self { sound: Sound { rate_hz: 0, samples: Vec::new() }, warnings: Vec::new() }
    }

    pub(super) fn frames(&self) -> u64 {
        self.sound.samples.len() as u64
    }

    pub(super) fn seconds(&self) -> f64 {
        self.sound.length().as_secs_f64()
    }

    pub(super) fn push(&mut self, block: Block<'_>) -> Result<(), Fault> {
        let Block { interleaved, channels, rate_hz } = block;
        check(channels, rate_hz)?;
        self.take_rate(rate_hz)?;
        self.sound.samples.extend(sample::to_mono(interleaved, channels));
        let length = self.sound.length();
        if length > MAX_LENGTH + MAX_UNHEARD { Err(Fault::TooLong(length)) } else { Ok(()) }
    }

    /// Refuses a sound whose header says that it is longer than a clip, before it is decoded.
    pub(super) fn expect(frames: u64, rate_hz: u32) -> Result<(), Fault> {
        let length = Duration::from_secs(frames / u64::from(rate_hz.max(1)));
        if frames > MAX_LENGTH.as_secs() * u64::from(rate_hz) { Err(Fault::TooLong(length)) } else { Ok(()) }
    }

    /// Appends another sound.
    pub(super) fn append(&mut self, other: Self) -> Result<(), Fault> {
        if other.sound.rate_hz != 0 {
            self.take_rate(other.sound.rate_hz)?;
        }
        self.sound.samples.extend(other.sound.samples);
        self.warnings.extend(other.warnings);
        Ok(())
    }

    fn take_rate(&mut self, rate_hz: u32) -> Result<(), Fault> {
        match self.sound.rate_hz {
            0 => self.sound.rate_hz = rate_hz,
            same if same == rate_hz => {}
            other => {
                return Err(Fault::Bad(format!(
                    "its rate changes from {other} to {rate_hz} Hz in the middle: export it again"
                )));
            }
        }
        Ok(())
    }

    /// Keeps only the frames from `start` on, up to `end`.
    pub(super) fn keep(&mut self, start: u64, end: u64) {
        let frames = self.sound.samples.len();
        let within = |frame: u64| usize::try_from(frame).unwrap_or(frames).min(frames);
        self.sound.samples.truncate(within(end));
        self.sound.samples.drain(..within(start).min(self.sound.samples.len()));
    }

    /// Returns the fault for data that cannot be decoded after this sound.
    pub(super) fn damaged(&self, what: &str) -> Fault {
        if self.sound.samples.is_empty() {
            return Fault::Bad(format!(
                "its sound is damaged from its start on ({what}): copy or export it again"
            ));
        }
        let at = self.seconds();
        Fault::Bad(format!("it is damaged {at:.1} s from its start ({what}): copy or export it again"))
    }
}

/// Refuses channels or a rate that no sound can have.
pub(super) fn check(channels: usize, rate_hz: u32) -> Result<(), Fault> {
    if channels > 0 && (1..=MAX_RATE_HZ).contains(&rate_hz) {
        return Ok(());
    }
    Err(Fault::Bad(format!("its header says {channels} channels at {rate_hz} Hz: export it again")))
}
