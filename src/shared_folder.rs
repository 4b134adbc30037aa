//! Folders to which other users can write as well.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// Refuses a folder that is reached through a link made by neither this user nor root: somebody else chooses where it
/// leads.
///
/// # Errors
/// Why the folder is refused.
pub(crate) fn refuse_foreign_link(folder: &Path) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_symlink() && found.uid() != geteuid().as_raw() && found.uid() != 0 => {
            let words = "it is a link that another user made: name the folder itself";
            Err(io::Error::new(io::ErrorKind::PermissionDenied, words))
        }
        _ => Ok(()),
    }
}

/// The flags that keep `open` from following a link.
pub(crate) fn no_links() -> i32 {
    OFlags::NOFOLLOW.bits() as i32
}
