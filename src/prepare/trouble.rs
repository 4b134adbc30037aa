//! What is wrong with a recording, in words for somebody who can fix it. Pure, and decided by numbers: a soft voice, a chime and
//! a piece of music are all right.

use std::f64::consts::TAU;

use super::dc::{Polarity, dc_offset};
use super::level::{DEFAULT_LEVEL_LUFS, MAX_GAIN_DB, loudness_lufs};
use crate::clip::{SILENCE_DB, peak_db};
use crate::sample::Sound;

/// Speech softer than this, in LUFS, stays 10 LU under its level even with the most gain: half as loud to the ear.
pub const TOO_SOFT_LUFS: f64 = DEFAULT_LEVEL_LUFS - MAX_GAIN_DB - 10.0;

/// The lowest peak of a wave that is judged. A converter clips near its full scale, which may be somewhat lower in the recording
/// after a wrong gain; in quieter recordings, the steps of 16 bits would look like flat tops.
const LOWEST_CLIPPING: f32 = 0.25;
/// A clipped wave stays within this fraction of its highest value, …
const FLAT: f32 = 0.001;
/// … and any wave comes this near to it. A sine is 4 times as dense in the upper band as in the lower, since it turns there;
/// speech that is cut off by 1 dB, 80 times.
const NEAR: f32 = 0.01;
/// How much denser a clipped wave is in the upper band.
const CLIPPED_DENSITY: f64 = 20.0;
/// The share of flat samples from which distortion is heard: some 10 of each second at 48,000 Hz, and never fewer than
/// [`FEWEST_FLAT`]. Only adjacent ones count: a tone that repeats with the samples reaches its top often, but does not stay
/// there.
const CLIPPED_SHARE: f64 = 2e-4;
const FEWEST_FLAT: usize = 12;

/// The mains frequencies of the world.
const MAINS_HZ: [f64; 2] = [50.0, 60.0];
/// A whole number of periods of both mains frequencies: their harmonics fall on bins of 5 Hz.
const HUM_BLOCK_S: f64 = 0.2;
const BIN_HZ: f64 = 5.0;
/// The number of mains harmonics that count as hum; rectifiers and transformers make little above.
const HARMONICS: usize = 10;
/// The number of those that contain most of the hum: a tone of 600 Hz is not hum.
const LOW_HARMONICS: usize = 6;
/// The share of a block's power that hum has if there is nothing else; speech over hum leaves no such block.
const HUM_SHARE: f64 = 0.8;
const LOW_SHARE: f64 = 0.5;
/// The share of blocks that must be nothing but hum. A steady voice is on the mains' harmonics for a block or two.
const HUM_BLOCKS: f64 = 0.9;
/// Shorter recordings are not judged: a hummed word is not mains hum.
const SHORTEST_HUM_BLOCKS: usize = 5;
/// Samples are averaged down to about this rate first, which keeps all harmonics and costs little.
const HUM_RATE_HZ: u32 = 4_000;

/// What is wrong with a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing but silence.
    Silent,
    /// A constant voltage, and no sound.
    Constant,
    /// The tops of the wave are cut off.
    Clipped,
    /// Mains hum of this many Hz, and nothing else.
    Hum(u32),
    /// Too soft to be brought to its level.
    TooSoft,
}

impl Trouble {
    /// Checks what a microphone recorded. Of several troubles, returns the one to fix first.
    pub fn of(sound: &Sound) -> Option<Self> {
        let offset = dc_offset(&sound.samples);
        let moved: Vec<f32> = sound.samples.iter().map(|sample| sample - offset as f32).collect();
        if peak_db(&moved) <= SILENCE_DB {
            return Some(if offset == 0.0 { Self::Silent } else { Self::Constant });
        }
        if is_clipped(&sound.samples) {
            return Some(Self::Clipped);
        }
        if let Some(mains_hz) = hum_hz(&moved, sound.rate_hz) {
            return Some(Self::Hum(mains_hz));
        }
        let loudness = loudness_lufs(&Sound { rate_hz: sound.rate_hz, samples: moved }).ok()?;
        loudness.is_none_or(|lufs| lufs < TOO_SOFT_LUFS).then_some(Self::TooSoft)
    }

    /// Checks a sound file, which somebody made on purpose: only silence is a trouble.
    pub fn of_file(sound: &Sound) -> Option<Self> {
        (peak_db(&sound.samples) <= SILENCE_DB).then_some(Self::Silent)
    }

    /// Like [`Self::about`], for a recording that was sent all the same.
    pub fn about_sent(self, input: &str) -> String {
        let words = self.about(input);
        let end = if words.ends_with('?') { "" } else { "." };
        format!("{words}{end} It is sent all the same")
    }

    /// Returns a sentence about a recording from `input`, with advice.
    pub fn about(self, input: &str) -> String {
        match self {
            Self::Silent => {
                format!("the recording is pure silence: is {input} muted, or the wrong microphone?")
            }
            Self::Constant => format!(
                "{input} gave a constant voltage and no sound: is it plugged in all the way, switched on, and the right \
                 microphone?"
            ),
            Self::Clipped => format!(
                "the recording is clipped, which sounds distorted: turn {input} down in the sound settings, or speak \
                 from further away"
            ),
            Self::Hum(mains_hz) => format!(
                "{input} gave {mains_hz} Hz mains hum and no speech: check its plug and cable, keep them away from \
                 power supplies, and see that it is not muted"
            ),
            Self::TooSoft => format!(
                "the recording is too soft to be brought to level: speak closer to {input}, or turn it up in the sound \
                 settings"
            ),
        }
    }
}

/// Whether the wave stays at its highest or lowest value as no wave does by itself.
fn is_clipped(samples: &[f32]) -> bool {
    let least = (samples.len() as f64 * CLIPPED_SHARE).max(FEWEST_FLAT as f64);
    [Polarity::Positive, Polarity::Negative].into_iter().any(|polarity| {
        let peak = samples.iter().map(|sample| polarity.of(*sample)).fold(0.0, f32::max);
        let is_within = |sample: &f32, share: f32| polarity.of(*sample) >= peak * (1.0 - share);
        let near = samples.iter().filter(|sample| is_within(sample, NEAR)).count();
        let flat = samples.iter().filter(|sample| is_within(sample, FLAT)).count();
        let pairs =
            samples.windows(2).filter(|pair| pair.iter().all(|sample| is_within(sample, FLAT))).count();
        let below = (near - flat).max(1) as f64 / f64::from(NEAR - FLAT);
        let density = flat as f64 / f64::from(FLAT) / below;
        peak >= LOWEST_CLIPPING && pairs as f64 >= least && density >= CLIPPED_DENSITY
    })
}

/// Returns the mains frequency whose hum is all that there is.
fn hum_hz(samples: &[f32], rate_hz: u32) -> Option<u32> {
    let step = (rate_hz / HUM_RATE_HZ).max(1) as usize;
    let block = (f64::from(rate_hz) * HUM_BLOCK_S).round() as usize;
    let blocks: Vec<&[f32]> = samples.chunks_exact(block.max(1)).collect();
    if blocks.len() < SHORTEST_HUM_BLOCKS {
        return None;
    }
    let wanted = (blocks.len() as f64 * HUM_BLOCKS).ceil() as usize;
    let is_all = |mains_hz: &f64| {
        let hums = |block: &&&[f32]| is_hum(block, step, f64::from(rate_hz) / step as f64, *mains_hz);
        blocks.iter().filter(hums).count() >= wanted
    };
    MAINS_HZ.into_iter().find(is_all).map(|mains_hz| mains_hz as u32)
}

fn is_hum(block: &[f32], step: usize, rate_hz: f64, mains_hz: f64) -> bool {
    let total = block.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / block.len() as f64;
    let mean =
        |chunk: &[f32]| chunk.iter().map(|sample| f64::from(*sample)).sum::<f64>() / chunk.len() as f64;
    let slow: Vec<f64> = block.chunks_exact(step).map(mean).collect();
    // The mains are not exactly at their frequency, so their power is in the neighbouring bins too.
    let around = |harmonic: usize| -> f64 {
        let centre_hz = mains_hz * harmonic as f64;
        [-BIN_HZ, 0.0, BIN_HZ].into_iter().map(|off_hz| power_at(&slow, (centre_hz + off_hz) / rate_hz)).sum()
    };
    let powers: Vec<f64> = (1..=HARMONICS).map(around).collect();
    let low: f64 = powers[..LOW_HARMONICS].iter().sum();
    total > 0.0 && powers.iter().sum::<f64>() >= HUM_SHARE * total && low >= LOW_SHARE * total
}

/// Returns the power at a frequency, in periods per sample, by Goertzel's algorithm.
fn power_at(samples: &[f64], frequency: f64) -> f64 {
    let twice_cosine = 2.0 * (TAU * frequency).cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in samples {
        (last, before) = (sample + twice_cosine * last - before, last);
    }
    let frames = samples.len() as f64;
    2.0 * (last * last + before * before - twice_cosine * last * before) / (frames * frames)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
