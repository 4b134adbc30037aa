//! The microphone: a real device or a file that provides the sound of a clip.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::clip::peak_db;
use crate::devices::{DevicesError, HealthWatch};
use crate::sample::{ResampleError, Sound};
use crate::sound_file::{self, Heard, SoundFileError};

mod device;
mod holes;
mod live;

pub use live::Speech;

/// Where clips come from: `--input`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Input {
    /// The default device.
    #[default]
    Default,
    /// The device with this id or name.
    Device(String),
    /// A sound file: `file:PATH`.
    File(PathBuf),
}

impl FromStr for Input {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.strip_prefix("file:") {
            Some(path) => Self::File(path.into()),
            None if text.is_empty() || text == "default" => Self::Default,
            None => Self::Device(text.into()),
        })
    }
}

impl fmt::Display for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Device(device) => formatter.write_str(device),
            Self::File(path) => write!(formatter, "file:{}", path.display()),
        }
    }
}

/// What can go wrong with a microphone.
#[derive(Debug, thiserror::Error)]
pub enum MicrophoneError {
    /// The device is missing or does not work; it is opened again when the next clip is recorded.
    #[error("the microphone cannot record")]
    Device(#[source] Arc<DevicesError>),
    /// The device is open but delivers no sound.
    #[error("the microphone gives no sound: check the sound server and the device")]
    Stalled,
    /// The sound cannot be resampled to the rate that is sent.
    #[error("what the microphone gives cannot be sent")]
    Resample(#[from] ResampleError),
    /// Sound was lost because it was not taken in time.
    #[error("sound was lost while recording, because this machine is too busy: record again")]
    Overrun,
    /// The sound file cannot be used.
    #[error("the sound file cannot be used")]
    File(#[from] SoundFileError),
}

/// The state of a running recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// How much has been recorded.
    pub recorded: Duration,
    /// The loudest sample since the last report, in dB below full scale, −100 at least.
    pub peak_db: f32,
}

/// Sound that a microphone lost because its driver, the sound server or this machine was too busy, or its cable was loose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Lost {
    /// The number of holes; those shorter than 10 ms count only if the driver reports them.
    pub holes: u32,
    /// The total length of the holes, in milliseconds.
    pub ms: u64,
}

impl Lost {
    /// Returns itself, unless nothing was lost.
    pub fn some(self) -> Option<Self> {
        (self.holes > 0).then_some(self)
    }

    /// Returns a sentence about it, with advice.
    pub fn about(self, input: &str) -> String {
        let much = match self.ms {
            0 => "a moment".to_owned(),
            ms if ms < 1_000 => format!("{ms} ms"),
            ms => format!("{:.1} s", ms as f64 / 1e3),
        };
        let places = match self.holes {
            0 | 1 => "one place".to_owned(),
            holes => format!("{holes} places"),
        };
        format!(
            "part of what you said is missing: {input} lost {much} of it, in {places}, and listeners hear silence there. \
             Say it again if a word was lost. If this happens often, close other programs on this computer, and plug \
             the microphone in anew"
        )
    }
}

/// A recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Captured {
    /// Silent where sound was lost, so that everything else is at its time.
    pub sound: Sound,
    /// What was lost.
    pub lost: Lost,
}

/// A microphone that is open.
#[derive(Debug)]
pub struct Microphone(Kind);

#[derive(Debug)]
enum Kind {
    Device(device::DeviceMicrophone),
    File { name: String, sound: Sound, warnings: Vec<String> },
}

impl Microphone {
    /// Opens a device, which runs from now on, or reads a file. Blocks until it is open, 8 s at most.
    ///
    /// # Errors
    /// An unknown, missing or broken device; a file that is not usable sound.
    pub fn open(input: &Input) -> Result<Self, MicrophoneError> {
        Ok(Self(match input {
            Input::Default => Kind::Device(device::DeviceMicrophone::open(None)?),
            Input::Device(wanted) => Kind::Device(device::DeviceMicrophone::open(Some(wanted.clone()))?),
            Input::File(path) => Self::read(path)?,
        }))
    }

    /// Waits for a device that could not be opened, for as long as it takes: its health says why it is missing, and recordings
    /// fail until it is there.
    ///
    /// # Errors
    /// The error passed in, if there is nothing to wait for.
    pub fn await_device(input: &Input, error: MicrophoneError) -> Result<Self, MicrophoneError> {
        let wanted = match input {
            Input::Default => None,
            Input::Device(wanted) => Some(wanted.clone()),
            Input::File(_) => return Err(error),
        };
        let MicrophoneError::Device(cause) = error else { return Err(error) };
        Ok(Self(Kind::Device(device::DeviceMicrophone::await_device(wanted, cause)?)))
    }

    fn read(path: &Path) -> Result<Kind, MicrophoneError> {
        let Heard { sound, warnings } = sound_file::hear(path)?;
        Ok(Kind::File { name: format!("file:{}", path.display()), sound, warnings })
    }

    /// Returns a watch on whether it works.
    pub fn health(&self) -> HealthWatch {
        match &self.0 {
            Kind::Device(device) => device.health(),
            Kind::File { .. } => HealthWatch::sound(),
        }
    }

    /// Returns the name that people know it by.
    pub fn name(&self) -> &str {
        match &self.0 {
            Kind::Device(device) => device.name(),
            Kind::File { name, .. } => name,
        }
    }

    /// Returns what is odd about a file, one sentence each.
    pub fn warnings(&self) -> &[String] {
        match &self.0 {
            Kind::Device(_) => &[],
            Kind::File { warnings, .. } => warnings,
        }
    }

    /// Returns the length of a file; `None` for a device, which has no end.
    pub fn whole_length(&self) -> Option<Duration> {
        match &self.0 {
            Kind::Device(_) => None,
            Kind::File { sound, .. } => Some(sound.length()),
        }
    }

    /// Records exactly `length`, rounded to a sample, at the device's own rate, with silence for what the device loses. The first
    /// sample is the first that the device captured after the call. The recording stops early, with the sound so far, when
    /// `finish` completes. `on_level` is called some 20 times a second. Dropping the future stops the recording. A file is cut or
    /// padded with silence, and is returned at once.
    ///
    /// # Errors
    /// A device that is lost, or samples that are lost.
    pub async fn record(
        &mut self,
        length: Duration,
        finish: impl Future<Output = ()>,
        mut on_level: impl FnMut(Level),
    ) -> Result<Captured, MicrophoneError> {
        match &mut self.0 {
            Kind::Device(device) => device.record(length, finish, on_level).await,
            Kind::File { sound, .. } => {
                let mut sound = sound.clone();
                sound.samples.resize(frames_of(length, sound.rate_hz), 0.0);
                on_level(Level { recorded: sound.length(), peak_db: peak_db(&sound.samples) });
                Ok(Captured { sound, lost: Lost::default() })
            }
        }
    }
}

/// Returns the whole number of frames nearest to a length.
fn frames_of(length: Duration, rate_hz: u32) -> usize {
    (length.as_secs_f64() * f64::from(rate_hz)).round() as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::clip::Clip;

    #[tokio::test]
    async fn a_file_is_cut_or_padded_to_the_length_and_never_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("one-second-8kHz.wav");
        let clip = Clip::encode(&Sound { rate_hz: 8_000, samples: vec![0.5; 8_000] }).expect("a clip");
        std::fs::write(&path, clip.wav()).expect("written");
        let mut microphone = Microphone::open(&Input::File(path.clone())).expect("open");
        assert_eq!(microphone.name(), format!("file:{}", path.display()));
        assert_eq!(microphone.whole_length(), Some(Duration::from_secs(1)));
        for (length_ms, frames, heard) in [(250, 2_000, 2_000), (1_000, 8_000, 8_000), (1_500, 12_000, 8_000)]
        {
            let mut levels = Vec::new();
            let length = Duration::from_millis(length_ms);
            let sound = microphone
                .record(length, std::future::pending(), |level| levels.push(level))
                .await
                .expect("recorded")
                .sound;
            assert_eq!(sound.samples.len(), frames);
            assert_eq!(sound.samples.iter().filter(|&&sample| sample == 0.5).count(), heard);
            assert_eq!(levels.last().expect("a level").recorded, length);
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Microphone::open(&Input::File("/nowhere/speech.wav".into())).expect_err("no file");
        let source = std::error::Error::source(&error).expect("a source");
        assert!(source.to_string().contains("/nowhere/speech.wav"), "{source}");
    }

    #[test]
    fn inputs_read_as_they_are_written() {
        for (text, input) in [
            ("default", Input::Default),
            ("micsrc", Input::Device("micsrc".into())),
            ("file:speech.wav", Input::File("speech.wav".into())),
        ] {
            assert_eq!(text.parse(), Ok(input.clone()));
            assert_eq!(input.to_string(), text);
        }
    }
}
