//! Sound files made to measure, and speech over constant room noise.

use std::path::{Path, PathBuf};
use std::process::Command;

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

/// A WAV's format; its file name states it.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    pub bits: u16,
    pub float: bool,
    pub rate_hz: u32,
    pub channels: u16,
}

impl Spec {
    /// Integer samples of one channel.
    pub const fn mono(bits: u16, rate_hz: u32) -> Self {
        Self { bits, float: false, rate_hz, channels: 1 }
    }

    /// Integer samples of two channels.
    pub const fn stereo(bits: u16, rate_hz: u32) -> Self {
        Self { channels: 2, ..Self::mono(bits, rate_hz) }
    }

    /// Samples of 32-bit floats.
    pub const fn float(rate_hz: u32, channels: u16) -> Self {
        Self { bits: 32, float: true, rate_hz, channels }
    }

    /// The name of the file, such as `tones-24bit-48000Hz-stereo.wav`.
    pub fn file_name(&self) -> String {
        let kind = if self.float { "float" } else { "bit" };
        let channels = if self.channels == 1 { "mono" } else { "stereo" };
        format!("tones-{}{kind}-{}Hz-{channels}.wav", self.bits, self.rate_hz)
    }

    fn hound(&self) -> WavSpec {
        WavSpec {
            channels: self.channels,
            sample_rate: self.rate_hz,
            bits_per_sample: self.bits,
            sample_format: if self.float { SampleFormat::Float } else { SampleFormat::Int },
        }
    }

    /// Writes `frames` of [`tones`] into `folder`; every channel holds a different share of them.
    pub fn write(&self, folder: &Path, frames: usize) -> PathBuf {
        let path = folder.join(self.file_name());
        let mut writer = WavWriter::create(&path, self.hound()).unwrap();
        let full_scale = (1_i64 << (self.bits - 1)) as f64;
        for frame in 0..frames {
            for channel in 0..self.channels {
                let sample = tones(frame, self.rate_hz) * share(channel, self.channels);
                if self.float {
                    writer.write_sample(sample as f32).unwrap();
                } else {
                    writer.write_sample((sample * full_scale).round() as i32).unwrap();
                }
            }
        }
        writer.finalize().unwrap();
        path
    }
}

/// The share of [`tones`] in a channel. The mean over the channels is exactly [`tones`].
fn share(channel: u16, channels: u16) -> f64 {
    match (channels, channel) {
        (2, 0) => 1.25,
        (2, 1) => 0.75,
        _ => 1.0,
    }
}

/// Three tones under 4 kHz that together stay under 0.7, so that a share of 1.25 does not clip.
pub fn tones(frame: usize, rate_hz: u32) -> f64 {
    let seconds = frame as f64 / f64::from(rate_hz);
    let tone = |hz: f64| (seconds * hz * std::f64::consts::TAU).sin();
    0.3 * tone(311.0) + 0.25 * tone(1733.0) + 0.15 * tone(3119.0)
}

/// Reads the first channel's 16-bit samples, and the rate.
pub fn read_i16(path: &Path) -> (Vec<i16>, u32) {
    let mut reader = WavReader::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let spec = reader.spec();
    assert_eq!((spec.bits_per_sample, spec.sample_format), (16, SampleFormat::Int), "{}", path.display());
    let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
    (samples.into_iter().step_by(spec.channels.into()).collect(), spec.sample_rate)
}

/// Writes 16-bit mono.
pub fn write_i16(path: &Path, samples: &[i16], rate_hz: u32) {
    let mut writer = WavWriter::create(path, Spec::mono(16, rate_hz).hound()).unwrap();
    for &sample in samples {
        writer.write_sample(sample).unwrap();
    }
    writer.finalize().unwrap();
}

/// The samples as ±1.0.
pub fn to_f32(samples: &[i16]) -> Vec<f32> {
    samples.iter().map(|&sample| f32::from(sample) / 32_768.0).collect()
}

/// White noise with a peak of ±1.0, always the same for a seed.
pub fn noise(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    std::iter::repeat_with(move || {
        // Constants of Knuth's MMIX.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// The rate at which eSpeak NG speaks: speech at this rate is exactly as it was spoken.
pub const SPOKEN_HZ: u32 = 22_050;

const TEXT: &str = "Attention please. This is a test of the hallway announcement system. \
    Platform nine: the night train to Vienna leaves in twenty minutes. Doctor Okafor, please call the ward. \
    Would the owner of a small grey bicycle kindly move it away from the loading gate. \
    The library closes at half past six, the reading room an hour later. Lunch today is vegetable soup. \
    Lift number four is out of order; use the stairs beside the east window. Thank you for your patience.";

/// Speech by eSpeak NG, repeated to the wanted length, over quiet room noise, so that every millisecond contains
/// something that can be missed.
pub fn speech(folder: &Path, seconds: usize, rate_hz: u32) -> PathBuf {
    let spoken = folder.join("espeak.wav");
    let status = Command::new("espeak-ng")
        .args(["-v", "en-gb", "-s", "160", "-w"])
        .arg(&spoken)
        .arg(TEXT)
        .status()
        .expect("espeak-ng is missing: run script/setup tests");
    assert!(status.success(), "espeak-ng: {status}");
    let (samples, spoken_hz) = read_i16(&spoken);
    let peak = samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(1);
    let scale = 0.6 * 32_767.0 / f32::from(peak.max(1));
    // Straight lines between samples: a little brighter than the original, and as good a voice as any.
    let voice = |frame: usize| {
        let at = frame as f64 * f64::from(spoken_hz) / f64::from(rate_hz);
        let [from, to] = [0, 1].map(|next| f32::from(samples[(at as usize + next) % samples.len()]));
        from + (to - from) * at.fract() as f32
    };
    // Below about 2 kHz, as rooms sound: white noise would differ wherever a sample falls between two.
    let smoothing = (12_000.0 / rate_hz as f32).min(1.0);
    let room = noise(7).scan(0.0, |level, noise| {
        *level += smoothing * (noise - *level);
        Some(*level)
    });
    let long: Vec<i16> = room
        .take(seconds * rate_hz as usize)
        .enumerate()
        .map(|(frame, noise)| (voice(frame) * scale + noise * 2_000.0) as i16)
        .collect();
    let path = folder.join("speech.wav");
    write_i16(&path, &long, rate_hz);
    path
}
