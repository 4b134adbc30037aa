//! The microphone seam: a real device or a file gives a clip's worth of sound.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

/// Where sound comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A device by its id or name.
    Device(String),
    /// A WAV file.
    File(PathBuf),
}

impl FromStr for Input {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix("file:") {
            Some(path) => Self::File(path.into()),
            None => Self::Device(text.into()),
        })
    }
}
