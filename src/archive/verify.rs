//! Whether an archived file is what was announced, and who announced it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{Line, log_of};
use crate::clip::{ClipError, Incoming, MAX_WAV_BYTES};
use crate::keys::{AnnouncerId, Fingerprint};
use crate::seal;
use crate::wire::{ClipHeader, WireError};

/// Why a file is not proven.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file or its log cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing is known of it.
    #[error("it is not in {}: keep a file beside its log, under its name", .0.display())]
    NotInLog(PathBuf),
    /// Its line in the log is no such line.
    #[error("its line in the log is damaged")]
    Line,
    /// The header in the log is none.
    #[error("its header in the log is damaged")]
    Header(#[source] WireError),
    /// The file is not what was announced.
    #[error("it is not what was announced")]
    Clip(#[source] ClipError),
    /// Nobody signed it.
    #[error("it is whole, and nobody signed it: it was announced in open mode, or its signature was removed")]
    Unsigned,
    /// The signature is wrong.
    #[error("the signature is not that of the announcer in the log, {0}")]
    Signature(Fingerprint),
    /// Another announcer than was asked for.
    #[error("it was signed by {0}, not by the announcer asked for")]
    Announcer(Fingerprint),
}

/// What a good file proves.
#[derive(Debug)]
pub struct Verified {
    /// What was announced, and when.
    pub header: ClipHeader,
    /// Who did.
    pub announcer: Fingerprint,
}

/// Checks a file of an archive: its SHA-256 against the header, and the header's signature. With `announcer` it must
/// be that one's, as its fingerprint is shown.
///
/// # Errors
/// [`VerifyError`] says what is wrong with it.
pub fn verify(path: &Path, announcer: Option<&str>) -> Result<Verified, VerifyError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let log = path.with_file_name(log_of(&name));
    let line = find(&log, &name)?.ok_or(VerifyError::NotInLog(log))?;
    let Line::Announcement { announcer: key, header, signature, .. } = line else {
        return Err(VerifyError::Line);
    };
    let bytes = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).map_err(|_| VerifyError::Line);
    let encoded = bytes(&header)?;
    let header = ClipHeader::decode(&encoded).map_err(VerifyError::Header)?;
    let mut wav = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_WAV_BYTES as u64 + 1).read_to_end(&mut wav));
    read.map_err(|source| VerifyError::Read { path: path.into(), source })?;
    let mut incoming = Incoming::new(header.format, header.sha256).map_err(VerifyError::Clip)?;
    incoming.push(&wav).and_then(|()| incoming.finish()).map_err(VerifyError::Clip)?;
    let signature = bytes(&signature)?;
    let Some(key) = key.filter(|_| !signature.is_empty()) else { return Err(VerifyError::Unsigned) };
    let id = AnnouncerId::from_hex(&key).ok_or(VerifyError::Line)?;
    let signature = signature.as_slice().try_into().map_err(|_| VerifyError::Line)?;
    if !seal::verify(&id, &encoded, signature) {
        return Err(VerifyError::Signature(id.fingerprint()));
    }
    match announcer {
        Some(wanted) if wanted != id.fingerprint().to_string() => {
            Err(VerifyError::Announcer(id.fingerprint()))
        }
        _ => Ok(Verified { header, announcer: id.fingerprint() }),
    }
}

/// The last announcement of a file in a log.
fn find(log: &Path, name: &str) -> Result<Option<Line>, VerifyError> {
    let failed = |source| VerifyError::Read { path: log.into(), source };
    let mut found = None;
    for line in BufReader::new(File::open(log).map_err(failed)?).split(b'\n') {
        let line = serde_json::from_slice(&line.map_err(failed)?).ok();
        if let Some(Line::Announcement { file, .. }) = &line
            && file == name
        {
            found = line;
        }
    }
    Ok(found)
}
