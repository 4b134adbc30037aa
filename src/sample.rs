//! Samples: convert, mix and resample. Pure arithmetic, no I/O.

use std::borrow::Cow;
use std::time::Duration;

/// Mono sound: samples of −1.0 to 1.0 at a fixed rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Samples a second.
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

/// A 16-bit sample as ±1.0; exact.
pub fn from_i16(sample: i16) -> f32 {
    f32::from(sample) / 32_768.0
}

/// The nearest 16-bit sample, clipped at full scale; NaN becomes silence. Undoes [`from_i16`] exactly.
pub fn to_i16(sample: f32) -> i16 {
    (sample * 32_768.0).round() as i16
}

/// The mean of a frame's channels. `channels` of 0 counts as 1.
pub fn to_mono(interleaved: &[f32], channels: usize) -> Vec<f32> {
    let channels = channels.max(1);
    interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect()
}

/// Sound at another rate; borrowed as it is where the rate is right already. STUB
pub fn resample(sound: &Sound, rate_hz: u32) -> Result<Cow<'_, Sound>, ResampleError> {
    if sound.rate_hz == rate_hz {
        return Ok(Cow::Borrowed(sound));
    }
    Err(ResampleError { from_hz: sound.rate_hz, to_hz: rate_hz, problem: "not yet".into() })
}
