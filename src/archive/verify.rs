//! Checks whether an archived file is what was announced or said, and by whom.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Line, log_of};
use crate::clip::{self, ClipError, Format, Hash, Incoming, MAX_WAV_BYTES, WAV_HEADER_BYTES, hex};
use crate::keys::{AnnouncerId, Fingerprint, StationId};
use crate::seal;
use crate::wire::{ClipHeader, LIVE_LAYOUT, LiveHeader, TalkbackHeader, WireError};

/// Why a file could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file or its log cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The log has no line for it.
    #[error("it is not in {}: keep a file beside its log, under its name", .0.display())]
    NotInLog(PathBuf),
    /// Its line in the log is not valid.
    #[error("its line in the log is damaged")]
    Line,
    /// The header in the log is not valid.
    #[error("its header in the log is damaged")]
    Header(#[source] WireError),
    /// The file is not what was announced.
    #[error("it is not what was announced")]
    Clip(#[source] ClipError),
    /// It is not signed.
    #[error("it is whole, and nobody signed it: it was said in open mode, or its signature was removed")]
    Unsigned,
    /// The signature is wrong.
    #[error("the signature is not that of {0}, who is in the log")]
    Signature(Fingerprint),
    /// It was signed by an announcer or station other than the one asked for.
    #[error("it was signed by {0}, not by who was asked for")]
    Signer(Fingerprint),
    /// It is signed, but this machine does not know the signer.
    #[error(
        "it is whole and signed by {signer}, whom this machine does not know: compare that with the fingerprint you \
         were given, or give it with {option}"
    )]
    Stranger {
        /// The signer.
        signer: Fingerprint,
        /// The option that accepts a fingerprint of that kind.
        option: &'static str,
    },
}

/// The proven facts about a file.
#[derive(Debug)]
pub struct Verified {
    /// When it was said, in ms since 1970 by the announcer's clock.
    pub created_unix_ms: u64,
    /// Who signed it: the announcer, or a station that talked back.
    pub signer: Fingerprint,
    /// That station's name.
    pub station: Option<String>,
    /// When it was filed, also in ms since 1970, by the clock of the machine that filed it. This is not signed.
    pub filed_unix_ms: u64,
}

/// Like [`verify`] if a signer is given; otherwise the signer must be one of `known`.
///
/// # Errors
/// The same errors as [`verify`], and [`VerifyError::Stranger`].
pub fn verify_known(
    path: &Path,
    signer: Option<&str>,
    known: &[Fingerprint],
) -> Result<Verified, VerifyError> {
    let verified = verify(path, signer)?;
    if signer.is_none() && !known.contains(&verified.signer) {
        let option = if verified.station.is_some() { "--station" } else { "--announcer" };
        return Err(VerifyError::Stranger { signer: verified.signer, option });
    }
    Ok(verified)
}

/// Checks a file of an archive: its SHA-256 against the header, and the header's signature. With `signer`, the
/// signature must be by the key with that fingerprint, written as it is displayed.
///
/// # Errors
/// [`VerifyError`], which says what is wrong with it.
pub fn verify(path: &Path, signer: Option<&str>) -> Result<Verified, VerifyError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let log = path.with_file_name(log_of(&name));
    let line = find(&log, &name)?.ok_or(VerifyError::NotInLog(log))?;
    let bytes = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).map_err(|_| VerifyError::Line);
    match line {
        Line::Announcement { unix_ms: filed_unix_ms, announcer, header, signature, .. } => {
            let (encoded, signature) = (bytes(&header)?, bytes(&signature)?);
            let is_live = encoded.first() == Some(&LIVE_LAYOUT);
            let created_unix_ms = if is_live {
                let header = LiveHeader::decode(&encoded).map_err(VerifyError::Header)?;
                is_what_was_said(&header, &read(path, header.frames * 2 + WAV_HEADER_BYTES as u64)?)?;
                header.created_unix_ms
            } else {
                let header = ClipHeader::decode(&encoded).map_err(VerifyError::Header)?;
                check_body(path, header.format, header.sha256)?;
                header.created_unix_ms
            };
            let Some(key) = announcer.filter(|_| !signature.is_empty()) else {
                return Err(VerifyError::Unsigned);
            };
            let id = AnnouncerId::from_hex(&key).ok_or(VerifyError::Line)?;
            let signature = signature.as_slice().try_into().map_err(|_| VerifyError::Line)?;
            let is_genuine = if is_live { seal::verify_live } else { seal::verify };
            judge(id.fingerprint(), is_genuine(&id, &encoded, signature), signer)?;
            Ok(Verified { created_unix_ms, signer: id.fingerprint(), station: None, filed_unix_ms })
        }
        Line::Talkback { unix_ms: filed_unix_ms, header, signature, .. } => {
            let (encoded, signature) = (bytes(&header)?, bytes(&signature)?);
            let header = TalkbackHeader::decode(&encoded).map_err(VerifyError::Header)?;
            check_body(path, header.format, header.sha256)?;
            if signature.is_empty() {
                return Err(VerifyError::Unsigned);
            }
            let id = StationId::from_bytes(header.station);
            let signature = signature.as_slice().try_into().map_err(|_| VerifyError::Line)?;
            let is_genuine = seal::talkback::verify(&id, &encoded, signature);
            judge(id.fingerprint(), is_genuine, signer)?;
            let created_unix_ms = header.created_unix_ms;
            let (signer, station) = (id.fingerprint(), Some(header.name));
            Ok(Verified { created_unix_ms, signer, station, filed_unix_ms })
        }
        Line::Outcome { .. } => Err(VerifyError::Line),
    }
}

/// Reads a file, but at most one byte more than `longest`, which shows that it is too long.
fn read(path: &Path, longest: u64) -> Result<Vec<u8>, VerifyError> {
    let mut wav = Vec::new();
    let read = File::open(path).and_then(|file| file.take(longest + 1).read_to_end(&mut wav));
    read.map_err(|source| VerifyError::Read { path: path.into(), source })?;
    Ok(wav)
}

fn check_body(path: &Path, format: Format, sha256: Hash) -> Result<(), VerifyError> {
    let wav = read(path, MAX_WAV_BYTES as u64)?;
    let mut incoming = Incoming::new(format, sha256).map_err(VerifyError::Clip)?;
    incoming.push(&wav).and_then(|()| incoming.finish()).map_err(VerifyError::Clip)?;
    Ok(())
}

/// Checks that a WAV is the live speech, to the bit.
fn is_what_was_said(header: &LiveHeader, wav: &[u8]) -> Result<(), VerifyError> {
    let samples = wav.get(WAV_HEADER_BYTES..).unwrap_or_default();
    if samples.len() as u64 != header.frames * 2 {
        return Err(VerifyError::Clip(ClipError::Size { bytes: wav.len() as u64 }));
    }
    let sha256: Hash = Sha256::digest(samples).into();
    if sha256 != header.sha256 {
        let (announced, received) = (hex(&header.sha256[..4]), hex(&sha256[..4]));
        return Err(VerifyError::Clip(ClipError::Hash { announced, received }));
    }
    if clip::wav(header.rate_hz, samples) != wav {
        return Err(VerifyError::Clip(ClipError::HeaderDisagrees));
    }
    Ok(())
}

fn judge(found: Fingerprint, is_genuine: bool, wanted: Option<&str>) -> Result<(), VerifyError> {
    match wanted {
        _ if !is_genuine => Err(VerifyError::Signature(found)),
        Some(wanted) if wanted != found.to_string() => Err(VerifyError::Signer(found)),
        _ => Ok(()),
    }
}

/// The last line about a file in a log.
fn find(log: &Path, name: &str) -> Result<Option<Line>, VerifyError> {
    let failed = |source| VerifyError::Read { path: log.into(), source };
    let mut found = None;
    for line in BufReader::new(File::open(log).map_err(failed)?).split(b'\n') {
        let line = serde_json::from_slice(&line.map_err(failed)?).ok();
        if let Some(Line::Announcement { file, .. } | Line::Talkback { file, .. }) = &line
            && file == name
        {
            found = line;
        }
    }
    Ok(found)
}
