//! Samples: conversion, mixing and resampling. Pure arithmetic, no I/O.

use std::borrow::Cow;
use std::time::Duration;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, Fft, FixedAsync, FixedSync, Resampler, ResamplerConstructionError, SincInterpolationParameters,
    WindowFunction,
};

/// Mono sound: samples of −1.0 to 1.0 at a fixed rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Samples per second.
    pub rate_hz: u32,
    /// One channel, full scale is ±1.0.
    pub samples: Vec<f32>,
}

impl Sound {
    /// How long it sounds.
    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.samples.len() as u64 * 1_000_000_000 / u64::from(self.rate_hz.max(1)))
    }
}

/// A resampler could not be made or run.
#[derive(Debug, thiserror::Error)]
#[error("cannot resample from {from_hz} to {to_hz} Hz: {problem}")]
pub struct ResampleError {
    from_hz: u32,
    to_hz: u32,
    problem: String,
}

impl ResampleError {
    /// Creates the error from what a resampler reported.
    pub(crate) fn new(from_hz: u32, to_hz: u32, problem: &dyn std::fmt::Display) -> Self {
        Self { from_hz, to_hz, problem: problem.to_string() }
    }
}

/// Converts a 16-bit sample to ±1.0, exactly.
pub fn from_i16(sample: i16) -> f32 {
    f32::from(sample) / 32_768.0
}

/// Converts to the nearest 16-bit sample, ties to even, clipped at full scale; NaN becomes silence. Undoes [`from_i16`] exactly.
pub fn to_i16(sample: f32) -> i16 {
    /// 1.5 × 2²³: a float this large has steps of 1, so adding it rounds, and the sum's bits count up from this number's.
    const ROUNDS: f32 = 12_582_912.0;
    let scaled = if sample.is_nan() { 0.0 } else { sample * 32_768.0 };
    let clipped = scaled.clamp(f32::from(i16::MIN), f32::from(i16::MAX));
    let rounded = (clipped + ROUNDS).to_bits() as i32 - ROUNDS.to_bits() as i32;
    // The value is in range, which the compiler does not know: with this clamp, it packs eight at once.
    rounded.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// Returns the mean of each frame's channels. `channels` of 0 counts as 1.
pub fn to_mono(interleaved: &[f32], channels: usize) -> Vec<f32> {
    let channels = channels.max(1);
    interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect()
}

/// The largest number in a reduced ratio that is resampled by FFT: the transforms are that long. 44.1 to 48 kHz is 147 : 160.
const MAX_FFT_RATIO: u32 = 8_192;
/// Rates further apart than this are refused.
const MAX_RATE_RATIO: f64 = 256.0;
/// The number of frames that a resampler takes at a time.
const RESAMPLER_CHUNK_FRAMES: usize = 1_024;

/// Returns the sound at another rate; borrowed as it is if the rate is right already. The result has ⌈frames · `rate_hz` / rate⌉
/// frames, without the resampler's delay.
///
/// # Errors
/// A rate of 0, rates more than a factor of 256 apart, or a failure of the resampler.
pub fn resample(sound: &Sound, rate_hz: u32) -> Result<Cow<'_, Sound>, ResampleError> {
    if sound.rate_hz == rate_hz {
        return Ok(Cow::Borrowed(sound));
    }
    let (from_hz, to_hz) = (sound.rate_hz, rate_hz);
    let error = |problem: String| ResampleError { from_hz, to_hz, problem };
    let ratio = f64::from(to_hz) / f64::from(from_hz);
    if !(1.0 / MAX_RATE_RATIO..=MAX_RATE_RATIO).contains(&ratio) {
        return Err(error("the rates are too far apart".into()));
    }
    if sound.samples.is_empty() {
        return Ok(Cow::Owned(Sound { rate_hz, samples: Vec::new() }));
    }
    let mut resampler = resampler(from_hz, to_hz).map_err(|source| error(source.to_string()))?;
    let frames = sound.samples.len();
    let input =
        InterleavedSlice::new(&sound.samples, 1, frames).map_err(|source| error(source.to_string()))?;
    let output = resampler.process_all(&input, frames, None).map_err(|source| error(source.to_string()))?;
    let mut samples = output.take_data();
    // The resampler calculates in floating point, and may return one frame more.
    samples.truncate((frames as u64 * u64::from(to_hz)).div_ceil(from_hz.into()) as usize);
    Ok(Cow::Owned(Sound { rate_hz, samples }))
}

/// Uses FFT if the ratio consists of small numbers, otherwise windowed sinc: both filter what would alias.
fn resampler(from_hz: u32, to_hz: u32) -> Result<Box<dyn Resampler<f32>>, ResamplerConstructionError> {
    let divisor = greatest_common_divisor(from_hz, to_hz);
    if from_hz.max(to_hz) / divisor <= MAX_FFT_RATIO {
        // The delay to cut off is half a transform: a whole number of frames only if that is even.
        let unit = 2 * (from_hz / divisor) as usize;
        let chunk = unit * RESAMPLER_CHUNK_FRAMES.div_ceil(unit);
        let (from, to, window) = (from_hz as usize, to_hz as usize, WindowFunction::BlackmanHarris2);
        return Ok(Box::new(Fft::new_custom(from, to, chunk, 1, 1, window, FixedSync::Both)?));
    }
    let ratio = f64::from(to_hz) / f64::from(from_hz);
    let sinc = SincInterpolationParameters::new(128, WindowFunction::BlackmanHarris2);
    Ok(Box::new(Async::new_sinc(ratio, 1.0, &sinc, RESAMPLER_CHUNK_FRAMES, 1, FixedAsync::Input)?))
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn sine(rate_hz: u32, tone_hz: f64, frames: usize) -> Sound {
        let step = tone_hz * std::f64::consts::TAU / f64::from(rate_hz);
        Sound {
            rate_hz,
            samples: (0..frames).map(|frame| (0.5 * (step * frame as f64).sin()) as f32).collect(),
        }
    }

    /// Returns the worst difference from the same tone made at the target rate, in the middle half of one second.
    fn worst_error(from_hz: u32, to_hz: u32, tone_hz: f64) -> f32 {
        let sound = sine(from_hz, tone_hz, from_hz as usize);
        let resampled = resample(&sound, to_hz).expect("resampled");
        assert!(resampled.samples.len().abs_diff(to_hz as usize) <= 1, "{from_hz} to {to_hz}");
        let wanted = sine(to_hz, tone_hz, to_hz as usize);
        (to_hz as usize / 4..to_hz as usize * 3 / 4)
            .map(|frame| (resampled.samples[frame] - wanted.samples[frame]).abs())
            .fold(0.0, f32::max)
    }

    #[test]
    fn a_tone_keeps_pitch_phase_and_length_between_usual_rates() {
        for (from_hz, to_hz) in
            [(44_100, 48_000), (48_000, 44_100), (8_000, 48_000), (96_000, 48_000), (22_050, 48_000)]
        {
            let worst = worst_error(from_hz, to_hz, 700.0);
            assert!(worst < 1e-4, "{from_hz} to {to_hz}: off by {worst}");
        }
    }

    #[test]
    fn odd_pairs_of_rates_are_right_to_two_frames() {
        for (from_hz, to_hz) in [(11_025, 44_101), (47_999, 48_000), (44_101, 8_000)] {
            let two_frames = 2.0 * 0.5 * 100.0 * std::f32::consts::TAU / from_hz.min(to_hz) as f32;
            let worst = worst_error(from_hz, to_hz, 100.0);
            assert!(worst < two_frames, "{from_hz} to {to_hz}: off by {worst}");
        }
    }

    #[test]
    fn the_longest_clip_stays_the_longest() {
        let sound = Sound { rate_hz: 44_100, samples: vec![0.0; 4 * 44_100] };
        assert_eq!(resample(&sound, 48_000).expect("resampled").samples.len(), 4 * 48_000);
    }

    #[test]
    fn the_same_rate_is_not_touched() {
        let sound = sine(48_000, 700.0, 100);
        assert!(matches!(resample(&sound, 48_000), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn impossible_rates_are_refused_and_short_sounds_survive() {
        for rate_hz in [0, 1, u32::MAX] {
            let sound = Sound { rate_hz, samples: vec![0.0; 10] };
            assert!(resample(&sound, 48_000).is_err(), "{rate_hz} Hz");
        }
        let one = Sound { rate_hz: 44_100, samples: vec![0.5] };
        assert_eq!(resample(&one, 48_000).expect("resampled").samples.len(), 2);
        let none = Sound { rate_hz: 44_100, samples: vec![] };
        assert!(resample(&none, 48_000).expect("resampled").samples.is_empty());
    }

    #[test]
    fn sixteen_bit_samples_come_back_exactly() {
        for sample in i16::MIN..=i16::MAX {
            assert_eq!(to_i16(from_i16(sample)), sample);
        }
    }
}
