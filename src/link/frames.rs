//! The frames of a clip, stored where the system can send them to every station without copying them first.

use std::borrow::Cow;
#[cfg(target_os = "linux")]
use std::fs::File;
use std::io;

#[cfg(target_os = "linux")]
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many clips can be in files at once: as a rule only one is being sent, and file descriptors are needed for
/// stations.
#[cfg(target_os = "linux")]
static FILES: Semaphore = Semaphore::const_new(MAX_FILES);
#[cfg(target_os = "linux")]
const MAX_FILES: usize = 32;

/// The block frames of one clip, one after the other, as they are sent to every station.
///
/// On Linux they are in a file that exists only in memory, whose pages every connection sends directly
/// (`memfd_create(2)`, `sendfile(2)`). Where such a file cannot be created, or there are enough of them, the frames are
/// in this program's own memory.
#[derive(Debug)]
pub struct BlockFrames {
    bytes: usize,
    store: Store,
}

#[derive(Debug)]
enum Store {
    #[cfg(target_os = "linux")]
    System {
        file: File,
        _place: SemaphorePermit<'static>,
    },
    Own(Vec<u8>),
}

impl From<Vec<u8>> for BlockFrames {
    fn from(frames: Vec<u8>) -> Self {
        let bytes = frames.len();
        #[cfg(target_os = "linux")]
        if let Ok(place) = FILES.try_acquire()
            && let Ok(file) = in_the_system(&frames)
        {
            return Self { bytes, store: Store::System { file, _place: place } };
        }
        Self { bytes, store: Store::Own(frames) }
    }
}

#[cfg(target_os = "linux")]
fn in_the_system(frames: &[u8]) -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::os::unix::fs::FileExt;

    let file = File::from(memfd_create("clip", MemfdFlags::CLOEXEC)?);
    file.write_all_at(frames, 0)?;
    Ok(file)
}

impl BlockFrames {
    /// Their size in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether they are empty.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Returns at most `bytes` bytes, starting at `from`; none after the end.
    ///
    /// # Errors
    /// The system's error.
    pub fn piece(&self, from: usize, bytes: usize) -> io::Result<Cow<'_, [u8]>> {
        let end = from.saturating_add(bytes).min(self.bytes);
        match &self.store {
            #[cfg(target_os = "linux")]
            Store::System { file, .. } => {
                use std::os::unix::fs::FileExt;
                let mut piece = vec![0; end.saturating_sub(from)];
                file.read_exact_at(&mut piece, from as u64)?;
                Ok(piece.into())
            }
            Store::Own(frames) => Ok(frames.get(from..end).unwrap_or_default().into()),
        }
    }

    /// The file that holds them, if there is one.
    #[cfg(target_os = "linux")]
    pub(super) fn file(&self) -> Option<&File> {
        match &self.store {
            Store::System { file, .. } => Some(file),
            Store::Own(_) => None,
        }
    }
}

#[cfg(test)]
impl BlockFrames {
    pub(super) fn in_own_memory(frames: Vec<u8>) -> Self {
        Self { bytes: frames.len(), store: Store::Own(frames) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn clips_that_are_kept_do_not_use_up_the_files() {
        let kept: Vec<_> = (0..2 * MAX_FILES).map(|_| BlockFrames::from(vec![7; 3])).collect();
        assert!(kept.iter().filter(|frames| frames.file().is_some()).count() <= MAX_FILES);
        assert!(kept.iter().all(|frames| *frames.piece(1, 2).unwrap() == [7, 7]));
    }

    #[test]
    fn a_piece_is_the_same_from_either_store() {
        let bytes: Vec<u8> = (0..=255).collect();
        for frames in [BlockFrames::in_own_memory(bytes.clone()), BlockFrames::from(bytes.clone())] {
            assert_eq!(frames.len(), 256);
            assert!(!frames.is_empty());
            for (from, most) in [(0, 256), (0, 1_000), (3, 7), (255, 1), (256, 1), (300, 5)] {
                let end = (from + most).min(256);
                assert_eq!(*frames.piece(from, most).unwrap(), bytes[from.min(end)..end], "{from} {most}");
            }
        }
    }
}
