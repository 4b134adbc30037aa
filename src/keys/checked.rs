//! The format of small files that must never be misread: a first line that names the kind and version, lines of words,
//! and the SHA-256 of everything before it.
//!
//! ```text
//! bullhorn epoch 1
//! 1790000000
//! sha256 0f3c…
//! ```

use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::KeysError;
use super::folder::{Locked, StateFolder};

/// One kind of file.
pub(crate) struct Kind {
    /// Its name in the folder.
    pub file: &'static str,
    /// The word in its first line.
    pub word: &'static str,
    /// The advice for when it cannot be read.
    pub remedy: &'static str,
}

impl Kind {
    /// Reads the lines between the first and the checksum; `None` when there is no such file.
    pub fn read(&self, folder: &StateFolder) -> Result<Option<Zeroizing<String>>, KeysError> {
        let Some(content) = folder.read(self.file)? else {
            return Ok(None);
        };
        self.parse(&content, &folder.path().join(self.file)).map(Some)
    }

    /// Replaces the file.
    pub fn write(&self, folder: &Locked<'_>, body: &str) -> Result<(), KeysError> {
        // Reserve all the room at once: growing would leave copies that are never wiped.
        let mut content = Zeroizing::new(String::with_capacity(self.word.len() + body.len() + 96));
        for part in ["bullhorn ", self.word, " 1\n", body] {
            content.push_str(part);
        }
        let sum = crate::clip::hex(&Sha256::digest(content.as_bytes()));
        for part in ["sha256 ", &sum, "\n"] {
            content.push_str(part);
        }
        folder.write(self.file, content.as_bytes())
    }

    /// Makes an error that says what is wrong with the file.
    pub fn damaged(&self, folder: &StateFolder, problem: impl Into<String>) -> KeysError {
        KeysError::Damaged {
            path: folder.path().join(self.file),
            problem: problem.into(),
            remedy: self.remedy,
        }
    }

    fn parse(&self, content: &[u8], path: &Path) -> Result<Zeroizing<String>, KeysError> {
        let damaged = |problem: &str| KeysError::Damaged {
            path: path.into(),
            problem: problem.into(),
            remedy: self.remedy,
        };
        let cut_short = || KeysError::CutShort { path: path.into(), remedy: self.remedy };
        let text = std::str::from_utf8(content).map_err(|_| damaged("it is not text"))?;
        let head = format!("bullhorn {} ", self.word);
        let Some(rest) = text.strip_prefix(&head) else {
            return Err(if head.starts_with(text) { cut_short() } else { damaged("another kind of file") });
        };
        let (version, rest) = rest.split_once('\n').ok_or_else(cut_short)?;
        if version != "1" {
            let newer = version.parse::<u32>().is_ok_and(|version| version > 1);
            return Err(match newer {
                true => KeysError::FromTheFuture(path.into()),
                false => damaged("its version"),
            });
        }
        let (body, sum) = rest
            .strip_suffix('\n')
            .and_then(|lines| match lines.rsplit_once('\n') {
                Some((body, last)) => last.strip_prefix("sha256 ").map(|sum| (body.len() + 1, sum)),
                None => lines.strip_prefix("sha256 ").map(|sum| (0, sum)),
            })
            .filter(|(_, sum)| sum.len() == 64)
            .ok_or_else(cut_short)?;
        let hashed = text.len() - "sha256 \n".len() - sum.len();
        let right = text.get(..hashed).is_some_and(|all| crate::clip::hex(&Sha256::digest(all)) == sum);
        match rest.get(..body) {
            Some(body) if right => Ok(Zeroizing::new(body.to_owned())),
            _ => Err(damaged("its checksum does not match")),
        }
    }
}
