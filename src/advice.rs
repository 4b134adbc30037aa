//! Advice for the user when the system refuses something.

use std::io::{Error, ErrorKind};

/// What to do about a folder that cannot be created, read or written.
pub fn about_folder(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => "it is, or lies in, a file: name a folder",
        ErrorKind::NotFound => "there is no such folder: check the name",
        ErrorKind::PermissionDenied => {
            "this user may not: choose another folder, or give it to the user who runs bullhorn"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "the disk is full: make room",
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only: choose another folder",
        _ => "choose another folder, or look at the disk",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_place_of_a_folder_is_told_as_such_by_every_way_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let errors = [
            std::fs::DirBuilder::new().recursive(true).create(&file).unwrap_err(),
            std::fs::create_dir_all(file.join("below")).unwrap_err(),
            std::fs::read_dir(&file).unwrap_err(),
        ];
        for error in errors {
            assert!(about_folder(&error).contains("name a folder"), "{error}");
        }
        let missing = std::fs::read_dir(folder.path().join("missing")).unwrap_err();
        assert!(about_folder(&missing).contains("no such folder"), "{missing}");
    }
}
