//! The loudspeaker: a real device or a folder that plays a clip at an instant.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::advice::about_folder;
use crate::clip::{Clip, ClipError};
use crate::devices::{DevicesError, HealthWatch};
use crate::priority::Priority;
use crate::sample::ResampleError;
use live::{Anchor, Feed};

mod device;
mod file;
mod interpolate;
pub mod live;
mod playout;

/// Where clips are played: `--output`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Output {
    /// The default device.
    #[default]
    Default,
    /// The device with this id or name.
    Device(String),
    /// A folder that gets one WAV file per clip: `file:DIR`.
    File(PathBuf),
}

impl FromStr for Output {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.strip_prefix("file:") {
            Some(folder) => Self::File(folder.into()),
            None if text.is_empty() || text == "default" => Self::Default,
            None => Self::Device(text.into()),
        })
    }
}

impl fmt::Display for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::Device(device) => formatter.write_str(device),
            Self::File(folder) => write!(formatter, "file:{}", folder.display()),
        }
    }
}

/// What can go wrong with a loudspeaker.
#[derive(Debug, thiserror::Error)]
pub enum LoudspeakerError {
    /// The device is missing or does not work; it is opened again when the next clip is played.
    #[error("the loudspeaker cannot play")]
    Device(#[source] Arc<DevicesError>),
    /// The device is open but accepts no sound.
    #[error("the loudspeaker takes no sound: check the sound server and the device")]
    Stalled,
    /// The clip cannot be resampled to the device's rate.
    #[error("the clip does not suit the loudspeaker")]
    Resample(#[from] ResampleError),
    /// The clip cannot be made quieter.
    #[error("the clip cannot be brought to this station's volume")]
    Volume(#[from] ClipError),
    /// The output folder cannot be written.
    #[error("cannot write sound to the folder {}: {}", folder.display(), about_folder(source))]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// How a clip was played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayReport {
    /// Frames of the clip that were played: all of them, at the clip's rate.
    pub frames: u64,
    /// How far from its instant it began, in microseconds; later is positive.
    pub start_error_us: i64,
    /// The greatest distance from its course once begun, in microseconds, by the device's timestamps.
    pub max_error_us: u64,
    /// How often the device ran dry meanwhile.
    pub underruns: u32,
}

/// A loudspeaker that several users share, one at a time.
pub type SharedLoudspeaker = Arc<tokio::sync::Mutex<Loudspeaker>>;

/// A loudspeaker that is open and silent.
#[derive(Debug)]
pub struct Loudspeaker(Kind);

#[derive(Debug)]
enum Kind {
    Device(device::DeviceLoudspeaker),
    Folder(file::FolderLoudspeaker),
}

impl Loudspeaker {
    /// Makes it a loudspeaker that several users can share, one at a time.
    pub fn shared(self) -> SharedLoudspeaker {
        Arc::new(tokio::sync::Mutex::new(self))
    }

    /// Opens a device, which plays silence from now on, or a folder. Blocks until it is open, 8 s at most.
    ///
    /// # Errors
    /// An unknown, missing or broken device; a folder that cannot be written.
    pub fn open(output: &Output) -> Result<Self, LoudspeakerError> {
        Ok(Self(match output {
            Output::Default => Kind::Device(device::DeviceLoudspeaker::open(None, false)?),
            Output::Device(wanted) => {
                Kind::Device(device::DeviceLoudspeaker::open(Some(wanted.clone()), false)?)
            }
            Output::File(folder) => return Self::open_folder(folder, HealthWatch::sound()),
        }))
    }

    /// Opens an output for a station. If `waits` returns true for the error of a device that does not open, the device is waited
    /// for like one that was lost; its health says why it is missing. With `unmutes`, [`Self::let_through`] unmutes the device.
    ///
    /// # Errors
    /// The same errors as [`Self::open`].
    pub fn open_for_station(
        output: &Output,
        unmutes: bool,
        waits: impl FnOnce(&DevicesError) -> bool,
    ) -> Result<Self, LoudspeakerError> {
        let wanted = match output {
            Output::Default => None,
            Output::Device(wanted) => Some(wanted.clone()),
            Output::File(_) => return Self::open(output),
        };
        let device = match device::DeviceLoudspeaker::open(wanted.clone(), unmutes) {
            Err(LoudspeakerError::Device(error)) if waits(&error) => {
                device::DeviceLoudspeaker::await_device(wanted, unmutes, error)
            }
            opened => opened,
        };
        Ok(Self(Kind::Device(device?)))
    }

    /// Opens a folder that, like a device, works only while `health` says so.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn open_folder(folder: &Path, health: HealthWatch) -> Result<Self, LoudspeakerError> {
        Ok(Self(Kind::Folder(file::FolderLoudspeaker::open(folder, health)?)))
    }

    /// Returns a watch on whether it works.
    pub fn health(&self) -> HealthWatch {
        match &self.0 {
            Kind::Device(device) => device.health(),
            Kind::Folder(folder) => folder.health(),
        }
    }

    /// Returns the name that people know it by.
    pub fn name(&self) -> &str {
        match &self.0 {
            Kind::Device(device) => device.name(),
            Kind::Folder(folder) => folder.name(),
        }
    }

    /// Call this before a page of this priority, and again if it fails: an emergency unmutes the device if allowed, so that the
    /// page is heard, or will be when the device returns.
    pub fn let_through(&self, priority: Priority) {
        match &self.0 {
            Kind::Device(device) if priority == Priority::Emergency => device.unmute(),
            Kind::Device(_) | Kind::Folder(_) => (),
        }
    }

    /// How far ahead an instant must be for a start at exactly that instant: the device's latency, one callback and a margin. It
    /// changes a little while the device runs.
    pub fn lead(&self) -> Duration {
        match &self.0 {
            Kind::Device(device) => device.lead(),
            Kind::Folder(_) => Duration::ZERO,
        }
    }

    /// Plays a clip so that its first sample sounds at `at`, and returns when its last sample has sounded. If `at` has passed or
    /// is too near, the clip begins as soon as it can, and the report says how late. `on_start` is called when the first sample
    /// has sounded. Dropping the future silences the clip at once, except for what is in the device's buffer. Samples are
    /// multiplied by `gain`; at 1 they are those of the clip. A folder names the file after `label`.
    ///
    /// # Errors
    /// A device that is lost: the clip was not heard, or not to its end. A file that cannot be written.
    pub async fn play(
        &mut self,
        clip: &Clip,
        gain: f32,
        label: &str,
        at: Instant,
        on_start: impl FnOnce(),
    ) -> Result<PlayReport, LoudspeakerError> {
        match &mut self.0 {
            Kind::Device(device) => device.play(clip, gain, at, on_start).await,
            Kind::Folder(folder) => folder.play(clip, gain, label, at, on_start).await,
        }
    }

    /// Plays live speech of a rate while it arrives, each sample at its instant, and returns when the last one has sounded;
    /// samples that have not arrived by then are concealed. Otherwise like [`Self::play`]; the report does not count frames.
    ///
    /// # Errors
    /// The same errors as [`Self::play`].
    pub async fn play_live(
        &mut self,
        (feed, rate_hz): (Feed, u32),
        label: &str,
        anchor: watch::Receiver<Anchor>,
        on_start: impl FnOnce(),
    ) -> Result<PlayReport, LoudspeakerError> {
        match &mut self.0 {
            Kind::Device(device) => device.play_live((feed, rate_hz), anchor, on_start).await,
            Kind::Folder(folder) => folder.play_live((feed, rate_hz), label, anchor, on_start).await,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn outputs_read_as_they_are_written() {
        for (text, output) in [
            ("default", Output::Default),
            ("hallA", Output::Device("hallA".into())),
            ("alsa:hw:CARD=0,DEV=0", Output::Device("alsa:hw:CARD=0,DEV=0".into())),
            ("file:/tmp/out", Output::File("/tmp/out".into())),
        ] {
            assert_eq!(text.parse(), Ok(output.clone()));
            assert_eq!(output.to_string(), text);
        }
    }
}
