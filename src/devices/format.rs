//! The format to open a device with: a pure choice among what it offers.

use std::time::Duration;

use cpal::traits::DeviceTrait;
use cpal::{BufferSize, HostId, SampleFormat, StreamConfig, SupportedBufferSize, SupportedStreamConfigRange};

use super::{DevicesError, Direction, Found, is_pcm};

/// The rate of most clips: requested if the device has it.
const USUAL_RATE_HZ: u32 = 48_000;
/// The most formats that are tried: a device may refuse what it offered.
const MAX_TRIES: usize = 6;

/// A format to try.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Format {
    pub(crate) config: StreamConfig,
    pub(crate) sample: SampleFormat,
}

/// Returns the formats to try, the best first. `period` is how much sound each callback should take.
///
/// A period is a whole number of milliseconds on purpose: PulseAudio counts its buffers in microseconds, and
/// a null sink whose buffer was not a whole number of them was measured to run 0.1 % fast.
///
/// # Errors
/// [`DevicesError::Format`] if there is none, [`DevicesError::Failed`] if the device does not report any.
pub(crate) fn formats(
    found: &Found,
    direction: Direction,
    period: Duration,
) -> Result<Vec<Format>, DevicesError> {
    let failed = |source| DevicesError::Failed { device: found.name.clone(), source };
    // A PulseAudio device accepts anything and converts it; its own format costs nothing.
    let own = if found.host == HostId::PulseAudio {
        match direction {
            Direction::Input => found.device.default_input_config().ok(),
            Direction::Output => found.device.default_output_config().ok(),
        }
    } else {
        None
    };
    if let Some(own) = own.filter(|own| is_pcm(own.sample_format())) {
        let buffer_size = buffer(own.sample_rate(), period, own.buffer_size());
        let config = StreamConfig { buffer_size, ..own.config() };
        return Ok(vec![Format { config, sample: own.sample_format() }]);
    }
    let ranges: Vec<SupportedStreamConfigRange> = match direction {
        Direction::Input => found.device.supported_input_configs().map_err(failed)?.collect(),
        Direction::Output => found.device.supported_output_configs().map_err(failed)?.collect(),
    };
    let chosen = choose(&ranges, period);
    if chosen.is_empty() { Err(DevicesError::Format { device: found.name.clone() }) } else { Ok(chosen) }
}

/// Returns the formats, the best first: the usual rate or the nearest above, otherwise the highest; then stereo, mono, few
/// channels; then the sample formats nearest to a clip's 16 bits, from above.
fn choose(ranges: &[SupportedStreamConfigRange], period: Duration) -> Vec<Format> {
    let mut usable: Vec<(u32, &SupportedStreamConfigRange)> = ranges
        .iter()
        .filter(|range| is_pcm(range.sample_format()) && range.channels() > 0 && range.max_sample_rate() > 0)
        .map(|range| (USUAL_RATE_HZ.clamp(range.min_sample_rate(), range.max_sample_rate()), range))
        .collect();
    let rank = |&(rate_hz, range): &(u32, &SupportedStreamConfigRange)| {
        let rate_rank = match rate_hz {
            USUAL_RATE_HZ => 0,
            rate_hz if rate_hz > USUAL_RATE_HZ => rate_hz - USUAL_RATE_HZ,
            rate_hz => u32::MAX - rate_hz,
        };
        let channel_rank = if range.channels() == 2 { 0 } else { range.channels() };
        (rate_rank, channel_rank, sample_rank(range.sample_format()))
    };
    usable.sort_by_key(rank);
    let format = |(rate_hz, range): (u32, &SupportedStreamConfigRange)| Format {
        config: StreamConfig {
            channels: range.channels(),
            sample_rate: rate_hz,
            buffer_size: buffer(rate_hz, period, range.buffer_size()),
        },
        sample: range.sample_format(),
    };
    usable.into_iter().take(MAX_TRIES).map(format).collect()
}

fn sample_rank(format: SampleFormat) -> u8 {
    match format {
        SampleFormat::I16 => 0,
        SampleFormat::I32 => 1,
        SampleFormat::F32 => 2,
        SampleFormat::I24 => 3,
        SampleFormat::U8 | SampleFormat::I8 => 9,
        _ => 5,
    }
}

/// Returns one period of sound, limited to the range that the device reports.
fn buffer(rate_hz: u32, period: Duration, range: &SupportedBufferSize) -> BufferSize {
    let frames = (f64::from(rate_hz) * period.as_secs_f64()).round() as u32;
    match *range {
        SupportedBufferSize::Range { min, max } if min <= max => {
            BufferSize::Fixed(frames.clamp(min, max).max(1))
        }
        _ => BufferSize::Fixed(frames.max(1)),
    }
}

/// Calls a function that is generic over the sample type, for a format known only at run time. Evaluates to the function's
/// `Result<_, cpal::Error>`.
macro_rules! with_sample_type {
    ($format:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $format {
            cpal::SampleFormat::I8 => $function::<i8>($($argument),*),
            cpal::SampleFormat::I16 => $function::<i16>($($argument),*),
            cpal::SampleFormat::I24 => $function::<cpal::I24>($($argument),*),
            cpal::SampleFormat::I32 => $function::<i32>($($argument),*),
            cpal::SampleFormat::I64 => $function::<i64>($($argument),*),
            cpal::SampleFormat::U8 => $function::<u8>($($argument),*),
            cpal::SampleFormat::U16 => $function::<u16>($($argument),*),
            cpal::SampleFormat::U24 => $function::<cpal::U24>($($argument),*),
            cpal::SampleFormat::U32 => $function::<u32>($($argument),*),
            cpal::SampleFormat::U64 => $function::<u64>($($argument),*),
            cpal::SampleFormat::F32 => $function::<f32>($($argument),*),
            cpal::SampleFormat::F64 => $function::<f64>($($argument),*),
            _ => Err(cpal::Error::new(cpal::ErrorKind::UnsupportedConfig)),
        }
    };
}
pub(crate) use with_sample_type;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn range(channels: u16, rates: (u32, u32), sample: SampleFormat) -> SupportedStreamConfigRange {
        let buffer = SupportedBufferSize::Range { min: 32, max: 500 };
        SupportedStreamConfigRange::new(channels, rates.0, rates.1, buffer, sample)
    }

    fn first(ranges: &[SupportedStreamConfigRange]) -> (u16, u32, SampleFormat) {
        let best = choose(ranges, Duration::from_millis(20))[0];
        (best.config.channels, best.config.sample_rate, best.sample)
    }

    #[test]
    fn the_usual_rate_comes_first_then_stereo_then_sixteen_bits() {
        use SampleFormat::{F32, I16, U8};
        let all = [
            range(2, (44_100, 44_100), I16),
            range(8, (8_000, 192_000), I16),
            range(2, (48_000, 96_000), U8),
            range(2, (48_000, 96_000), F32),
        ];
        assert_eq!(first(&all), (2, 48_000, F32));
        assert_eq!(first(&all[..2]), (8, 48_000, I16));
        assert_eq!(first(&all[..1]), (2, 44_100, I16));
        let slow_or_fast = [range(1, (8_000, 44_100), I16), range(1, (96_000, 192_000), I16)];
        assert_eq!(first(&slow_or_fast), (1, 96_000, I16));
    }

    #[test]
    fn what_cannot_be_played_is_not_chosen_and_buffers_fit_the_device() {
        let dsd = [range(2, (48_000, 48_000), SampleFormat::DsdU8)];
        assert!(choose(&dsd, Duration::from_millis(20)).is_empty());
        let best = choose(&[range(2, (48_000, 48_000), SampleFormat::U32)], Duration::from_millis(20));
        assert_eq!(best[0].config.buffer_size, BufferSize::Fixed(500));
    }
}
