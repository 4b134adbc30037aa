//! A tone that is played along with everything else, buffered far ahead: where its recording is torn, the rig lost
//! sound, and anything else that is missing there proves nothing against the program.

use std::path::{Path, PathBuf};

/// The frequency of the tone. It has no whole number of periods in less than a second, so a tear of any shorter length shows.
const MARKER_HZ: u32 = 997;
/// No recording is longer than this.
const LENGTH_S: u32 = 120;
/// How far a sample may differ from the value that the two before it predict: rounding to 16 bits.
const ROUNDING: f32 = 8.0 / 32_768.0;
/// Within this time the tone reaches its peak several times.
const LOOK_FRAMES: usize = 480;
/// A tone that is softer than this is missing.
const SOFTEST_PEAK: f32 = 0.02;

/// Tears that are closer together than this count as one.
const ONE_TEAR_FRAMES: usize = 480;

/// The tone as 16-bit samples.
fn tone(frames: usize, rate_hz: u32) -> Vec<i16> {
    let at = |frame: usize| {
        let turns = f64::from(MARKER_HZ) * frame as f64 / f64::from(rate_hz);
        ((turns * std::f64::consts::TAU).sin() * 16_384.0).round() as i16
    };
    (0..frames).map(at).collect()
}

/// Writes a file of the tone.
pub fn wav(folder: &Path, rate_hz: u32) -> PathBuf {
    let path = folder.join("marker.wav");
    if !path.exists() {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: rate_hz,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut file = hound::WavWriter::create(&path, spec).unwrap();
        let mut samples = file.get_i16_writer(rate_hz * LENGTH_S);
        tone((rate_hz * LENGTH_S) as usize, rate_hz)
            .into_iter()
            .for_each(|sample| samples.write_sample(sample));
        samples.flush().unwrap();
        file.finalize().unwrap();
    }
    path
}

/// Where a recording of the tone is torn, in frames.
pub fn tears(tone: &[f32], rate_hz: u32) -> Vec<usize> {
    let turn = std::f64::consts::TAU * f64::from(MARKER_HZ) / f64::from(rate_hz);
    let factor = (2.0 * turn.cos()) as f32;
    let is_torn = |samples: &[f32]| (samples[2] - factor * samples[1] + samples[0]).abs() > ROUNDING;
    let torn = tone.windows(3).enumerate().filter(|(_, samples)| is_torn(samples)).map(|(at, _)| at + 2);
    let is_silent = |part: &[f32]| part.iter().all(|sample| sample.abs() < SOFTEST_PEAK);
    let parts = tone.chunks_exact(LOOK_FRAMES).enumerate();
    let silent = parts.filter(|(_, part)| is_silent(part)).map(|(number, _)| number * LOOK_FRAMES);
    let mut all: Vec<usize> = torn.chain(silent).collect();
    all.sort_unstable();
    let mut tears: Vec<usize> = Vec::new();
    let mut last = None;
    for at in all {
        if last.is_none_or(|last| at > last + ONE_TEAR_FRAMES) {
            tears.push(at);
        }
        last = Some(at);
    }
    tears
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE_HZ: u32 = 48_000;

    fn tone(frames: usize) -> Vec<f32> {
        super::tone(frames, RATE_HZ).into_iter().map(|sample| f32::from(sample) / 32_768.0).collect()
    }

    #[test]
    fn a_whole_tone_has_no_tear() {
        assert_eq!(tears(&tone(100_000), RATE_HZ), [] as [usize; 0]);
    }

    #[test]
    fn a_frame_less_or_more_a_gap_and_silence_are_tears() {
        for (cut, silence) in [(1, 0), (3, 0), (504, 0), (4_800, 0), (0, 1), (0, 500), (48, 48), (960, 960)] {
            let whole = tone(60_000);
            let torn = [&whole[..30_000], &vec![0.0; silence][..], &whole[30_000 + cut..]].concat();
            let found = tears(&torn, RATE_HZ);
            assert!(
                found.first().is_some_and(|at| at.abs_diff(30_000) <= 480),
                "{cut}, {silence}: {found:?}"
            );
        }
    }

    #[test]
    fn a_tone_that_never_came_is_torn_throughout() {
        assert_eq!(tears(&vec![0.0; 48_000], RATE_HZ), [0]);
    }
}
