//! The loudspeaker seam: a real device or a folder takes a clip and an instant.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

/// Where sound goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A device by its id or name.
    Device(String),
    /// A folder that takes a WAV file a clip.
    Folder(PathBuf),
}

impl FromStr for Output {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix("file:") {
            Some(path) => Self::Folder(path.into()),
            None => Self::Device(text.into()),
        })
    }
}
