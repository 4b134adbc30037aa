//! The archive: every announcement, and every talkback, as a WAV file, and what became of it in an append-only log.
//!
//! A folder of the user's, with files named `TIME-WHO-HASH.wav` (UTC, the announcer's fingerprint or `open`, the
//! start of the SHA-256) and a log of JSON lines a month. One task does all the writing, on a thread for such
//! work, so that no disk delays an announcement; what it cannot write, it tells.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

use crate::batches::work_through;
use crate::clip::{self, Clip, Hash, hex};
use crate::event::{Event, Events, Outcome, WeakEvents};
use crate::keys::{AnnouncerId, Fingerprint};
use crate::wire::{AnnouncerKey, ClipHeader, LiveHeader};

mod talkback;
mod verify;

pub use verify::{Verified, VerifyError, verify};

/// The most that may wait for the disk; beyond it announcements are not archived, and that is told.
const MAX_WAITING_JOBS: usize = 4_096;
/// Jobs that are taken up at once.
const MAX_BATCH: usize = 256;
/// Announcements whose file is remembered, to name it beside their outcomes.
const MAX_REMEMBERED: usize = 1_024;
/// Files that one new announcement may remove.
const MAX_REMOVED: usize = 8;
/// How far back the end of the last whole line is looked for; no line is longer.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// 9999-12-31 23:59:59 UTC: the formatter knows years of four digits only.
const LAST_FORMATTED_UNIX_MS: u64 = 253_402_300_799_000;

/// What can go wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The folder cannot be made or read.
    #[error("cannot use {} as an archive", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How much is kept: what is older or beyond is removed, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// For so long.
    pub age: Duration,
    /// And so many bytes of files.
    pub bytes: u64,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Line {
    /// A clip was announced, or came to a station.
    Announcement {
        unix_ms: u64,
        clip: String,
        file: String,
        /// The announcer's Ed25519 key in hex; none in open mode.
        announcer: Option<String>,
        created_unix_ms: u64,
        expires_unix_ms: u64,
        zones: Vec<String>,
        sha256: String,
        /// As it was signed, in hex.
        header: String,
        /// In hex; empty in open mode.
        signature: String,
    },
    /// What became of it at one station.
    Outcome {
        unix_ms: u64,
        clip: String,
        file: Option<String>,
        station: String,
        outcome: Outcome,
        reason: String,
    },
    /// A station talked back.
    Talkback {
        unix_ms: u64,
        talkback: String,
        file: String,
        station: String,
        /// The station's Ed25519 key in hex; none in open mode.
        signer: Option<String>,
        created_unix_ms: u64,
        sha256: String,
        /// As it was signed, in hex.
        header: String,
        /// In hex; empty in open mode.
        signature: String,
    },
}

enum Job {
    Keep(Box<Kept>),
    Outcome { clip: String, station: String, outcome: Outcome, reason: String },
    Talkback(Box<talkback::Said>),
    Close { done: oneshot::Sender<()> },
}

/// What is kept of an announcement.
struct Kept {
    clip: String,
    created_unix_ms: u64,
    expires_unix_ms: u64,
    zones: Vec<String>,
    sha256: Hash,
    /// Its header as signed.
    encoded: Vec<u8>,
    signature: Vec<u8>,
    announcer: Option<AnnouncerKey>,
    wav: Bytes,
}

/// An open archive. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Archive {
    jobs: mpsc::Sender<Job>,
    events: Events,
}

impl Archive {
    /// Opens a folder as an archive, makes it if it is not there, and repairs what a crash may have left: a last
    /// line that is torn, and files that were not finished. To be called on a tokio runtime.
    ///
    /// # Errors
    /// [`ArchiveError`], for a folder that cannot be made or read.
    pub fn open(folder: &Path, retention: Retention, events: Events) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Folder { path: folder.into(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        repair(folder).map_err(failed)?;
        let (jobs, inbox) = mpsc::channel(MAX_WAITING_JOBS);
        let writer = Writer {
            folder: folder.to_owned(),
            retention,
            events: events.weak(),
            files: HashMap::new(),
            is_troubled: false,
        };
        tokio::spawn(work_through(writer, inbox, MAX_BATCH, Writer::work));
        Ok(Self { jobs, events })
    }

    /// Keeps a clip. `encoded` is its header as signed; `announcer` and `signature` are empty in open mode.
    pub fn keep(
        &self,
        header: &ClipHeader,
        encoded: &[u8],
        signature: &[u8],
        announcer: Option<AnnouncerKey>,
        clip: &Clip,
    ) {
        self.send(Job::Keep(Box::new(Kept {
            clip: header.id.to_string(),
            created_unix_ms: header.created_unix_ms,
            expires_unix_ms: header.expires_unix_ms,
            zones: header.zones.clone(),
            sha256: header.sha256,
            encoded: encoded.to_vec(),
            signature: signature.to_vec(),
            announcer,
            wav: clip.wav().clone(),
        })));
    }

    /// Keeps live speech, whole, as a WAV. `encoded` is its header as signed at its end, and `samples` what was hashed.
    pub fn keep_live(
        &self,
        header: &LiveHeader,
        encoded: &[u8],
        signature: &[u8],
        announcer: Option<AnnouncerKey>,
        samples: &[u8],
    ) {
        self.send(Job::Keep(Box::new(Kept {
            clip: header.id.to_string(),
            created_unix_ms: header.created_unix_ms,
            expires_unix_ms: header.expires_unix_ms,
            zones: header.zones.clone(),
            sha256: header.sha256,
            encoded: encoded.to_vec(),
            signature: signature.to_vec(),
            announcer,
            wav: clip::wav(header.rate_hz, samples).into(),
        })));
    }

    /// Writes down what an event says of a clip's outcome.
    pub fn note(&self, event: &Event) {
        let (clip, station, outcome, reason) = match event {
            Event::Played { clip, station, outcome, .. } => (clip, station, outcome, String::new()),
            Event::Failed { clip, station, outcome, reason } => (clip, station, outcome, reason.clone()),
            Event::LivePlayed { clip, station, outcome, blocks, concealed, .. } => {
                let reason = match concealed {
                    0 => String::new(),
                    concealed => format!("concealed {concealed} of {blocks} blocks"),
                };
                (clip, station, outcome, reason)
            }
            _ => return,
        };
        self.send(Job::Outcome { clip: clip.clone(), station: station.clone(), outcome: *outcome, reason });
    }

    /// Waits until everything is written, but not for longer than `patience`.
    pub async fn close(&self, patience: Duration) {
        let (done, closed) = oneshot::channel();
        self.send(Job::Close { done });
        // A disk that hangs is no reason to stay.
        let _ = tokio::time::timeout(patience, closed).await;
    }

    fn send(&self, job: Job) {
        if let Err(TrySendError::Full(_)) = self.jobs.try_send(job) {
            let message = "the archive's disk is too slow: something was not archived".to_owned();
            self.events.tell(Event::Warning { message });
        }
    }
}

struct Writer {
    folder: PathBuf,
    retention: Retention,
    events: WeakEvents,
    /// Which file holds a clip.
    files: HashMap<String, String>,
    is_troubled: bool,
}

impl Writer {
    fn work(&mut self, jobs: Vec<Job>) {
        for job in jobs {
            let written = match job {
                Job::Keep(kept) => self.keep(&kept),
                Job::Outcome { clip, station, outcome, reason } => {
                    let file = self.files.get(&clip).cloned();
                    let unix_ms = now_unix_ms();
                    self.line(&Line::Outcome { unix_ms, clip, file, station, outcome, reason })
                }
                Job::Talkback(said) => self.talkback(*said),
                Job::Close { done } => {
                    let _ = done.send(());
                    continue;
                }
            };
            self.report(written);
        }
    }

    fn keep(&mut self, it: &Kept) -> Result<(), ArchiveError> {
        let who = it.announcer.map(|key| AnnouncerId::from_bytes(key).fingerprint());
        let (file, kept) = self.write(it.created_unix_ms, who, &it.sha256, &it.wav)?;
        if self.files.len() >= MAX_REMEMBERED {
            self.files.clear();
        }
        self.files.insert(it.clip.clone(), file.clone());
        self.line(&Line::Announcement {
            unix_ms: now_unix_ms(),
            clip: it.clip.clone(),
            file,
            announcer: it.announcer.map(|key| hex(&key)),
            created_unix_ms: it.created_unix_ms,
            expires_unix_ms: it.expires_unix_ms,
            zones: it.zones.clone(),
            sha256: hex(&it.sha256),
            header: hex(&it.encoded),
            signature: hex(&it.signature),
        })?;
        kept
    }

    /// Writes a clip to a file; its name, and whether there was room made for it.
    fn write(
        &self,
        created_unix_ms: u64,
        who: Option<Fingerprint>,
        sha256: &Hash,
        wav: &[u8],
    ) -> Result<(String, Result<(), ArchiveError>), ArchiveError> {
        let kept = self.retain(wav.len() as u64, created_unix_ms);
        let who = who.map_or_else(|| "open".to_owned(), |who| who.to_string().replace('-', ""));
        let file = format!("{}-{who}-{}.wav", stamp(created_unix_ms), hex(&sha256[..4]));
        write_whole(&self.folder, &file, wav)
            .map_err(|source| ArchiveError::Write { path: self.folder.join(&file), source })?;
        Ok((file, kept))
    }

    fn line(&self, line: &Line) -> Result<(), ArchiveError> {
        let (unix_ms, file) = match line {
            Line::Announcement { created_unix_ms, file, .. }
            | Line::Talkback { created_unix_ms, file, .. } => (*created_unix_ms, Some(file)),
            Line::Outcome { unix_ms, file, .. } => (*unix_ms, file.as_ref()),
        };
        let month = file.map_or_else(|| stamp(unix_ms), Clone::clone);
        let path = self.folder.join(log_of(&month));
        let failed = |source| ArchiveError::Write { path: path.clone(), source };
        let mut text = serde_json::to_string(line).map_err(io::Error::other).map_err(failed)?;
        text.push('\n');
        let mut options = OpenOptions::new();
        let mut log = options.append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
        let whole = log.metadata().map_err(failed)?.len();
        log.write_all(text.as_bytes()).and_then(|()| log.sync_data()).map_err(|error| {
            // Half a line would spoil the next one.
            let _ = log.set_len(whole);
            failed(error)
        })
    }

    /// Removes what is too old or too much, so that there is room for so many bytes more. A few files at a time, so
    /// that a clock that is wrong by years does not empty the archive.
    fn retain(&self, more: u64, now_unix_ms: u64) -> Result<(), ArchiveError> {
        let failed = |source| ArchiveError::Folder { path: self.folder.clone(), source };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_clip(&name) || is_log(&name) {
                files.push((name, entry.metadata().map_err(failed)?.len()));
            }
        }
        files.sort();
        let oldest_unix_ms = now_unix_ms.saturating_sub(self.retention.age.as_millis() as u64);
        let (oldest, oldest_log) = (stamp(oldest_unix_ms), log_of(&stamp(oldest_unix_ms)));
        let mut total = files.iter().map(|(_, bytes)| bytes).sum::<u64>() + more;
        let mut removable = MAX_REMOVED;
        for (name, bytes) in files {
            let is_old = if is_log(&name) { name < oldest_log } else { name < oldest };
            if removable > 0 && (is_old || (total > self.retention.bytes && !is_log(&name))) {
                removable -= 1;
                let path = self.folder.join(name);
                fs::remove_file(&path).map_err(|source| ArchiveError::Write { path, source })?;
                total -= bytes;
            }
        }
        Ok(())
    }

    /// Says once that nothing can be archived, until it can be again.
    fn report(&mut self, written: Result<(), ArchiveError>) {
        let Err(error) = written else {
            self.is_troubled = false;
            return;
        };
        if !std::mem::replace(&mut self.is_troubled, true) {
            let message =
                format!("what is said is not archived, and all else goes on: {}", crate::error_chain(&error));
            self.events.tell(Event::Warning { message });
        }
    }
}

fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// `20261121T051643.123Z`: names sort by time.
fn stamp(unix_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms.min(LAST_FORMATTED_UNIX_MS));
    humantime::format_rfc3339_millis(time).to_string().replace(['-', ':'], "")
}

/// The log for a file or a time: one a month.
pub(crate) fn log_of(stamp: &str) -> String {
    let month: String = stamp.chars().take(6).collect();
    format!("announcements-{month}.jsonl")
}

/// Whether a name is one that [`stamp`] begins: other files in the folder are not ours.
fn is_clip(name: &str) -> bool {
    let shape = "dddddddd.dddddd.ddd..";
    let fits = |(byte, shape): (u8, u8)| byte.is_ascii_digit() == (shape == b'd');
    name.len() > shape.len() && name.ends_with(".wav") && name.bytes().zip(shape.bytes()).all(fits)
}

fn is_log(name: &str) -> bool {
    name.starts_with("announcements-") && name.ends_with(".jsonl")
}

/// A file is there whole, or not at all.
fn write_whole(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let part = folder.join(format!("{name}.part"));
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, folder.join(name))?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // Best effort: what stays is removed at the next start.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Cuts off torn last lines, and removes files that were not finished. A disk that cannot be written is no error here.
fn repair(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mended = match name.as_str() {
            name if name.strip_suffix(".part").is_some_and(is_clip) => fs::remove_file(entry.path()),
            name if is_log(name) => cut_torn_line(&entry.path()),
            _ => Ok(()),
        };
        if let Err(error) = mended {
            tracing::warn!("cannot repair {}: {error}", entry.path().display());
        }
    }
    Ok(())
}

fn cut_torn_line(path: &Path) -> io::Result<()> {
    let mut log = File::open(path)?;
    let length = log.metadata()?.len();
    let from = length.saturating_sub(MAX_LINE_BYTES);
    log.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    log.read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    if whole == tail.len() as u64 {
        return Ok(());
    }
    tracing::warn!("{} ended in half a line, which was cut off", path.display());
    let log = OpenOptions::new().write(true).open(path)?;
    log.set_len(from + whole)?;
    log.sync_all()
}

#[cfg(test)]
mod tests;
