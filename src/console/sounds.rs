//! The folder of sounds from which the operator chooses.

use std::io;
use std::path::{Path, PathBuf};

use crate::advice::about_folder;
use crate::sound_file::is_named_like_one;

/// The most sounds that are listed: more than anybody would look through.
const MAX_LISTED: usize = 1_000;

/// The folder cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the sounds in {}: {}", folder.display(), about_folder(source))]
pub struct SoundsError {
    folder: PathBuf,
    source: io::Error,
}

/// A folder of sounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sounds {
    folder: PathBuf,
}

impl Sounds {
    /// Opens a folder, which must be readable.
    ///
    /// # Errors
    /// [`SoundsError`].
    pub fn open(folder: &Path) -> Result<Self, SoundsError> {
        let sounds = Self { folder: folder.into() };
        sounds.list().map(|_| sounds)
    }

    /// The sound files that are in it now, sorted by name; hidden files and folders are left out.
    ///
    /// # Errors
    /// [`SoundsError`].
    pub fn list(&self) -> Result<Vec<PathBuf>, SoundsError> {
        let failed = |source| SoundsError { folder: self.folder.clone(), source };
        let entries = std::fs::read_dir(&self.folder).map_err(failed)?;
        let is_hidden =
            |path: &Path| path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| is_named_like_one(path) && !is_hidden(path) && path.is_file())
            .collect();
        paths.sort();
        paths.truncate(MAX_LISTED);
        Ok(paths)
    }
}

/// The list from which the operator chooses; it is drawn with [`Choice::names`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    paths: Vec<PathBuf>,
    /// The index of the sound that Enter sends.
    pub at: usize,
    /// Why there are no sounds, if there are none.
    pub trouble: Option<String>,
}

impl Choice {
    /// Lists the sounds that the folder holds now.
    pub fn among(sounds: &Sounds) -> Self {
        match sounds.list() {
            Ok(paths) if paths.is_empty() => {
                let trouble = Some(format!("no sounds in {}", sounds.folder.display()));
                Self { trouble, ..Self::default() }
            }
            Ok(paths) => Self { paths, ..Self::default() },
            Err(error) => Self { trouble: Some(crate::error_chain(&error)), ..Self::default() },
        }
    }

    /// Moves up (negative) or down, no further than to the first or last.
    pub fn move_by(&mut self, steps: isize) {
        self.at = self.at.saturating_add_signed(steps).min(self.paths.len().saturating_sub(1));
    }

    /// The names to show.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.paths.iter().map(name)
    }

    /// The number of sounds.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// The sound that Enter sends.
    pub fn chosen(&self) -> Option<PathBuf> {
        self.paths.get(self.at).cloned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn sounds_are_listed_by_name_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.wav", "A.flac", "c.MP3", ".hidden.wav", "notes.txt", "d.wav.part"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("folder.wav")).unwrap();
        let sounds = Sounds::open(folder.path()).unwrap();
        let mut choice = Choice::among(&sounds);
        assert_eq!(choice.names().collect::<Vec<_>>(), ["A.flac", "b.wav", "c.MP3"]);
        for (steps, at) in [(-1, 0), (1, 1), (5, 2), (-1, 1)] {
            choice.move_by(steps);
            assert_eq!(choice.chosen(), choice.paths.get(at).cloned());
        }
    }

    #[test]
    fn an_empty_folder_and_none_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let sounds = Sounds::open(folder.path()).unwrap();
        let choice = Choice::among(&sounds);
        assert!(choice.chosen().is_none() && choice.trouble.unwrap().starts_with("no sounds in "));
        folder.close().unwrap();
        assert!(Choice::among(&sounds).trouble.unwrap().starts_with("cannot list the sounds in "));
        let said = crate::error_chain(&Sounds::open(Path::new("/nowhere/sounds")).unwrap_err());
        assert!(said.contains("/nowhere/sounds"), "{said}");
    }
}
