//! The loudspeaker seam: a real device or a folder takes a clip and an instant.

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
    /// The device of that id or name.
    Device(String),
    /// A folder that gets a WAV file a clip: `file:DIR`.
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
    /// The device is not there, or does not work; it is opened again when the next clip is played.
    #[error("the loudspeaker cannot play")]
    Device(#[source] Arc<DevicesError>),
    /// The device is open and takes no sound.
    #[error("the loudspeaker takes no sound: check the sound server and the device")]
    Stalled,
    /// The clip cannot be brought to the device's rate.
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
        /// What the system said.
        source: std::io::Error,
    },
}

/// How a clip was played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlayReport {
    /// Frames of the clip that came out: all, at the clip's rate.
    pub frames: u64,
    /// How far from its instant it began, in microseconds; later is positive.
    pub start_error_us: i64,
    /// The farthest that it was from its course once begun, in microseconds, by the device's timestamps.
    pub max_error_us: u64,
    /// Times the device ran dry meanwhile.
    pub underruns: u32,
}

/// A loudspeaker that several use, one at a time.
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
    /// For several to use, one at a time.
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

    /// Opens the same for a station: a device that does not open is waited for if `waits` says so, as for one that was
    /// lost; its health says why it is not there. With `unmutes` it is one that [`Self::let_through`] unmutes.
    ///
    /// # Errors
    /// Those of [`Self::open`].
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

    /// Opens a folder that works, as a device does, only while `health` says so.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn open_folder(folder: &Path, health: HealthWatch) -> Result<Self, LoudspeakerError> {
        Ok(Self(Kind::Folder(file::FolderLoudspeaker::open(folder, health)?)))
    }

    /// Whether it works, from now on.
    pub fn health(&self) -> HealthWatch {
        match &self.0 {
            Kind::Device(device) => device.health(),
            Kind::Folder(folder) => folder.health(),
        }
    }

    /// What a person calls it.
    pub fn name(&self) -> &str {
        match &self.0 {
            Kind::Device(device) => device.name(),
            Kind::Folder(folder) => folder.name(),
        }
    }

    /// Before and after a page of that priority: an emergency unmutes the device where it may, so that it is heard, or is
    /// when it comes again.
    pub fn let_through(&self, priority: Priority) {
        match &self.0 {
            Kind::Device(device) if priority == Priority::Emergency => device.unmute(),
            Kind::Device(_) | Kind::Folder(_) => (),
        }
    }

    /// How far ahead an instant must lie for a start at that instant: the device's latency, one callback and
    /// a margin. It changes a little while the device runs.
    pub fn lead(&self) -> Duration {
        match &self.0 {
            Kind::Device(device) => device.lead(),
            Kind::Folder(_) => Duration::ZERO,
        }
    }

    /// Plays a clip so that its first sample sounds at `at`, and returns when its last sample has sounded.
    /// When `at` is past or too near, it begins as soon as it can, and the report says how late. `on_start`
    /// is called when the first sample has sounded. Dropping the future silences the clip at once, save for
    /// what is in the device's buffer. Samples are multiplied by `gain`; at 1 they are what the clip holds. A folder
    /// names the file after `label`.
    ///
    /// # Errors
    /// A device that is lost; the clip was not, or not wholly, heard. A file that cannot be written.
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

    /// Plays speech of a rate while it comes, each sample at its instant, and returns when the last one has sounded; what
    /// has not come by then is concealed. Otherwise like [`Self::play`]; the report does not count frames.
    ///
    /// # Errors
    /// Those of [`Self::play`].
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
