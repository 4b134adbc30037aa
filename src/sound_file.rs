//! Reads a sound file of the user's own, in any of the usual formats, mixed to mono.
//!
//! "Whole or not at all" applies here too: the length of a sound is counted from what was decoded, and compared with what the
//! file itself says. Damaged, truncated and unknown files are refused. The containers are read here, because their delays, ends
//! and joins affect the length; the codecs in them are decoded by symphonia and opus-pure.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clip::MAX_LENGTH;
use crate::sample::Sound;

mod adts;
mod aiff;
mod bytes;
mod decoder;
mod flac;
mod matroska;
mod mp4;
mod mpeg;
mod ogg;
mod opus;
mod part;
mod pcm;
mod tags;
mod wav;

use bytes::Bytes;
use part::{Fault, Part};

/// The endings of files that can be read, in lower case.
pub const ENDINGS: [&str; 21] = [
    "wav", "flac", "mp3", "mp2", "ogg", "oga", "opus", "m4a", "m4b", "mp4", "mov", "3gp", "aac", "webm",
    "mkv", "mka", "aif", "aiff", "aifc", "au", "snd",
];
/// This path means standard input.
pub const STANDARD_INPUT: &str = "-";
/// The formats that can be read.
const KINDS: &str = "WAV, AIFF, AU, FLAC, MP3, AAC, Ogg, WebM or M4A";
/// No file is read beyond this: two minutes of 24-bit stereo at 192 kHz are half of it.
const MAX_BYTES: u64 = 256 * 1_024 * 1_024;

/// What can be wrong with a sound file.
#[derive(Debug, thiserror::Error)]
pub enum SoundFileError {
    /// It could not be opened.
    #[error("cannot read the sound file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is not in a format that can be read.
    #[error("{} is no sound that bullhorn can read: give a file of {KINDS}", path.display())]
    NotSound {
        /// The file.
        path: PathBuf,
    },
    /// It is sound in a format that nothing here decodes.
    #[error("{} is {kind}, which bullhorn cannot play; convert it first: ffmpeg -i {} sound.wav", path.display(), quoted(path))]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Its format.
        kind: String,
    },
    /// It is damaged, or claims something impossible.
    #[error("{}: {problem}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// It is longer than [`MAX_LENGTH`].
    #[error(
        "{} is over {} s long, and a clip has {} s at most: choose a shorter one",
        path.display(), .length.as_secs(), MAX_LENGTH.as_secs()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The least length that it has.
        length: Duration,
    },
    /// It is larger than 256 MiB.
    #[error(
        "{} has over {} MiB; take the sound out of it first: ffmpeg -i {} -vn -ac 1 -ar 48000 sound.wav",
        path.display(), MAX_BYTES >> 20, quoted(path)
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// A sound, and the warnings from reading it.
#[derive(Debug)]
pub struct Heard {
    /// The whole sound.
    pub sound: Sound,
    /// One sentence each, with the file's name.
    pub warnings: Vec<String>,
}

/// Reads a whole file, whatever its ending: its content determines its format. [`STANDARD_INPUT`] is read to its end. A 16-bit
/// mono WAV comes back to the bit through [`crate::clip::Clip::encode`]. No header is trusted, and at most 256 MiB are read into
/// memory. Warnings are logged.
///
/// # Errors
/// [`SoundFileError`].
pub fn read(path: &Path) -> Result<Sound, SoundFileError> {
    let heard = hear(path)?;
    for warning in &heard.warnings {
        tracing::warn!("{warning}");
    }
    Ok(heard.sound)
}

/// Reads a whole file like [`read`], and returns the warnings.
///
/// # Errors
/// [`SoundFileError`].
pub fn hear(path: &Path) -> Result<Heard, SoundFileError> {
    let path_buf = || path.to_path_buf();
    let (bytes, left) = load(path)
        .map_err(|source| SoundFileError::Open { path: path_buf(), source })?
        .ok_or_else(|| SoundFileError::Bad {
            path: path_buf(),
            problem: "it is no file: name one that holds sound".into(),
        })?;
    let is_cut = left > bytes.len() as u64;
    let part = match decode(Bytes::new(&bytes, left)) {
        Ok(Some(part)) if !is_cut => part,
        Err(Fault::TooLong(length)) => return Err(SoundFileError::TooLong { path: path_buf(), length }),
        Err(Fault::Unsupported(kind)) => return Err(SoundFileError::Unsupported { path: path_buf(), kind }),
        Ok(None) => return Err(SoundFileError::NotSound { path: path_buf() }),
        _ if is_cut => return Err(SoundFileError::TooLarge { path: path_buf() }),
        Ok(Some(part)) => part,
        Err(Fault::Bad(problem)) => return Err(SoundFileError::Bad { path: path_buf(), problem }),
    };
    let Part { sound, warnings } = part;
    let bad = |problem: &str| SoundFileError::Bad { path: path_buf(), problem: problem.into() };
    if sound.samples.is_empty() {
        return Err(bad("it holds no sound: there is a header, and nothing behind it"));
    }
    if sound.length() > MAX_LENGTH {
        return Err(SoundFileError::TooLong { path: path_buf(), length: sound.length() });
    }
    let name = |warning: String| format!("{}: {warning}", path.display());
    Ok(Heard { sound, warnings: warnings.into_iter().map(name).collect() })
}

/// Whether a name has one of the endings of files that can be read.
pub fn is_named_like_one(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// Returns the path quoted as one word for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-+,:@".contains(letter);
    if text.chars().all(is_plain) && !text.starts_with('-') {
        return text;
    }
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns the first [`MAX_BYTES`] of a file, and its size; `None` if it is not a file.
fn load(path: &Path) -> io::Result<Option<(Vec<u8>, u64)>> {
    let mut bytes = Vec::new();
    if path == Path::new(STANDARD_INPUT) {
        // One byte more shows that there are more.
        io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        let all = bytes.len() as u64;
        bytes.truncate(MAX_BYTES as usize);
        return Ok(Some((bytes, all)));
    }
    let found = std::fs::metadata(path)?;
    if !found.is_file() {
        return Ok(None);
    }
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let left = if (bytes.len() as u64) < MAX_BYTES { bytes.len() as u64 } else { found.len() };
    Ok(Some((bytes, left)))
}

/// Decodes everything in a file, even if several files were joined; `None` if it holds nothing that is known.
fn decode(file: Bytes<'_>) -> Result<Option<Part>, Fault> {
    if file.is_empty() {
        return Err(Fault::Bad(format!("it is empty, 0 bytes: give a file of {KINDS}")));
    }
    let mut whole = Part::new();
    let mut bytes = skip_tags(file);
    let mut are_more = false;
    while !bytes.is_empty() {
        let Some(read) = reader(bytes) else {
            if !are_more {
                return Ok(None);
            }
            // Trailing zeros may pad a file to whole blocks.
            if bytes.rest().iter().any(|&byte| byte != 0) {
                let surplus = bytes.left();
                whole.warnings.push(format!("{surplus} bytes behind its end are no sound, and are left out"));
            }
            break;
        };
        let (part, used) = read(bytes)?;
        whole.append(part)?;
        bytes = skip_tags(bytes.after(used.max(1)));
        are_more = true;
    }
    Ok(if are_more { Some(whole) } else { None })
}

fn skip_tags(mut bytes: Bytes<'_>) -> Bytes<'_> {
    while let Some(length) = tags::length(bytes.rest()).filter(|&length| length > 0) {
        bytes = bytes.after(length);
    }
    bytes
}

/// Reads one sound at the front; also returns how many bytes it occupies.
type Reader = fn(Bytes<'_>) -> Result<(Part, usize), Fault>;

/// Returns the reader of the sound at the front of `bytes`.
fn reader(bytes: Bytes<'_>) -> Option<Reader> {
    let front = bytes.rest();
    let at = |offset: usize, magic: &[u8]| front.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let is_riff = [&b"RIFF"[..], b"RF64", b"BW64"].iter().any(|magic| at(0, magic));
    Some(match front {
        _ if is_riff && at(8, b"WAVE") => wav::read,
        _ if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) => aiff::read_aiff,
        _ if at(0, b".snd") => aiff::read_au,
        _ if at(0, flac::MAGIC) => flac::read,
        _ if at(0, ogg::MAGIC) => ogg::read,
        _ if at(0, matroska::MAGIC) => matroska::read,
        _ if at(4, mp4::MAGIC) => mp4::read,
        _ if name_of_other(front).is_some() => other,
        _ if adts::is_one(front) => adts::read,
        _ if mpeg::is_one(front) => mpeg::read,
        _ => return None,
    })
}

/// Refuses a format that is known by name only.
fn other(bytes: Bytes<'_>) -> Result<(Part, usize), Fault> {
    Err(Fault::Unsupported(name_of_other(bytes.rest()).unwrap_or("a file").into()))
}

/// Returns the name of a common format that is not read.
fn name_of_other(front: &[u8]) -> Option<&'static str> {
    const OTHERS: [(usize, &[u8], &str); 19] = [
        (0, b"RIFX", "big-endian WAV"),
        (0, b"riff\x2e\x91\xcf\x11", "Sony Wave64"),
        (8, b"AVI ", "AVI"),
        (0, b"caff", "Apple CAF"),
        (0, b"\x0b\x77", "AC-3"),
        (0, b"wvpk", "WavPack"),
        (0, b"MAC ", "Monkey's Audio"),
        (0, b"#!AMR", "AMR"),
        (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
        (0, b"MThd", "MIDI"),
        (0, b"MPCK", "Musepack"),
        (0, b"MP+", "Musepack"),
        (0, b"TTA1", "True Audio"),
        (0, b"DSD ", "DSD"),
        (0, b"FRM8", "DSD"),
        (0, b"FLV", "Flash video"),
        (0, b"Creative Voice File", "Creative VOC"),
        (0, b"NIST_1A", "NIST SPHERE"),
        (4, b"moov", "QuickTime of before 2001"),
    ];
    let is_one = |&&(offset, magic, _): &&(usize, &[u8], &str)| {
        front.get(offset..).is_some_and(|rest| rest.starts_with(magic))
    };
    OTHERS.iter().find(is_one).map(|&(_, _, name)| name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
