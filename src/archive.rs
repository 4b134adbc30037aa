//! The archive: every announcement and every talkback as a WAV file, and what became of it in an append-only log.
//!
//! It is a folder of the user's choice, with files named `TIME-WHO-HASH.wav` (UTC, the announcer's fingerprint or
//! `open`, the start of the SHA-256) and one log of JSON lines a month. One task does all the writing, on a thread for
//! such work, so that no disk delays an announcement; it reports what it cannot write.
//!
//! A file is named by the time of its arrival, by this machine's clock at that moment. A date that came from elsewhere
//! is written to the log, and names the file only if the two agree: nobody else's clock decides what is removed.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

use crate::advice::about_folder;
use crate::batches::work_through;
use crate::clip::{self, Clip, Hash, hex};
use crate::event::{Event, Events, Outcome, WeakEvents};
use crate::keys::{AnnouncerId, Fingerprint};
use crate::shared_folder::refuse_foreign_link;
use crate::wall::Wall;
use crate::wire::{AnnouncerKey, ClipHeader, LiveHeader};
use files::{append, is_clip, is_log, log_of, repair, stamp, write_whole};

mod files;
mod talkback;
mod verify;

pub use verify::{Verified, VerifyError, verify, verify_known};

/// The most jobs that wait for the disk; beyond that, announcements are not archived, and that is reported.
const MAX_WAITING_JOBS: usize = 4_096;
/// The most jobs that are handled in one go.
const MAX_BATCH: usize = 256;
/// The most announcements whose file is remembered, to name it in the lines of their outcomes.
const MAX_REMEMBERED: usize = 1_024;
/// The most files that one new announcement may remove.
const MAX_REMOVED: usize = 8;
/// How far a date from elsewhere may be from the time of arrival for a file to be named by it.
const MAX_ASTRAY: Duration = Duration::from_secs(300);
/// A file named by an earlier year was filed by a clock that was not set: its age is unknown.
const FIRST_YEAR: &str = "2026";

/// What can go wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The folder cannot be created or read.
    #[error("cannot use {} as an archive: {}", path.display(), about_folder(source))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
}

/// How much is kept: anything older or beyond that is removed, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The longest time that a file is kept.
    pub age: Duration,
    /// The most bytes of files that are kept.
    pub bytes: u64,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Line {
    /// A clip was announced, or arrived at a station.
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
    /// The outcome at one station.
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

/// The parts of an announcement that are kept.
struct Kept {
    clip: String,
    created_unix_ms: u64,
    expires_unix_ms: u64,
    zones: Vec<String>,
    sha256: Hash,
    /// Its header as it was signed.
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
    /// Opens a folder as an archive, creates it if it does not exist, and repairs what a crash may have left: a torn
    /// last line, and unfinished files. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`ArchiveError`] if the folder cannot be created or read.
    pub fn open(folder: &Path, retention: Retention, events: Events) -> Result<Self, ArchiveError> {
        Self::open_by(folder, retention, events, Wall::system())
    }

    /// Like [`Self::open`], but with a clock other than the system's.
    ///
    /// # Errors
    /// The same errors as [`Self::open`].
    pub fn open_by(
        folder: &Path,
        retention: Retention,
        events: Events,
        wall: Wall,
    ) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Folder { path: folder.into(), source };
        refuse_foreign_link(folder).map_err(failed)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        repair(folder).map_err(failed)?;
        let (jobs, inbox) = mpsc::channel(MAX_WAITING_JOBS);
        let writer = Writer {
            folder: folder.to_owned(),
            retention,
            wall,
            events: events.weak(),
            files: HashMap::new(),
            is_troubled: false,
        };
        tokio::spawn(work_through(writer, inbox, MAX_BATCH, Writer::work));
        Ok(Self { jobs, events })
    }

    /// Keeps a clip. `encoded` is its header as it was signed; `announcer` and `signature` are empty in open mode.
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

    /// Keeps the whole of live speech as a WAV. `encoded` is its header as signed at its end; `samples` are the bytes
    /// that were hashed.
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

    /// Records the outcome of a clip that an event reports.
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
        // A disk that hangs does not keep the program from leaving.
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
    wall: Wall,
    events: WeakEvents,
    /// The file of each clip.
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
                    let unix_ms = self.wall.unix_ms();
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
        let arrived_unix_ms = self.wall.unix_ms();
        let dates_unix_ms = (arrived_unix_ms, it.created_unix_ms);
        let (file, kept) = self.write(dates_unix_ms, who, &it.sha256, &it.wav)?;
        if self.files.len() >= MAX_REMEMBERED {
            self.files.clear();
        }
        self.files.insert(it.clip.clone(), file.clone());
        self.line(&Line::Announcement {
            unix_ms: arrived_unix_ms,
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

    /// Writes a clip to a file, named by its time of arrival or its date. Returns the file's name, and whether room was
    /// made for it.
    fn write(
        &self,
        (arrived_unix_ms, created_unix_ms): (u64, u64),
        who: Option<Fingerprint>,
        sha256: &Hash,
        wav: &[u8],
    ) -> Result<(String, Result<(), ArchiveError>), ArchiveError> {
        let kept = self.retain(wav.len() as u64, arrived_unix_ms);
        let is_near = arrived_unix_ms.abs_diff(created_unix_ms) <= MAX_ASTRAY.as_millis() as u64;
        let filed_unix_ms = if is_near { created_unix_ms } else { arrived_unix_ms };
        let who = who.map_or_else(|| "open".to_owned(), |who| who.to_string().replace('-', ""));
        let stem = format!("{}-{who}-{}", stamp(filed_unix_ms), hex(&sha256[..4]));
        let file = write_whole(&self.folder, &stem, wav).map_err(|source| ArchiveError::Write {
            path: self.folder.join(format!("{stem}.wav")),
            source,
        })?;
        Ok((file, kept))
    }

    fn line(&self, line: &Line) -> Result<(), ArchiveError> {
        let (unix_ms, file) = match line {
            Line::Announcement { unix_ms, file, .. } | Line::Talkback { unix_ms, file, .. } => {
                (*unix_ms, Some(file))
            }
            Line::Outcome { unix_ms, file, .. } => (*unix_ms, file.as_ref()),
        };
        let month = file.map_or_else(|| stamp(unix_ms), Clone::clone);
        let path = self.folder.join(log_of(&month));
        let text = serde_json::to_string(line).map_err(io::Error::other);
        text.and_then(|text| append(&path, text + "\n"))
            .map_err(|source| ArchiveError::Write { path, source })
    }

    /// Removes files that are too old, or that take too much space once `more` bytes are added. Only a few files at a
    /// time, so that a clock that is wrong by years does not empty the archive.
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
            let year = name.trim_start_matches("announcements-").get(..FIRST_YEAR.len());
            let is_dated = year.is_some_and(|year| year >= FIRST_YEAR);
            let is_old = is_dated && if is_log(&name) { name < oldest_log } else { name < oldest };
            if removable > 0 && (is_old || (total > self.retention.bytes && !is_log(&name))) {
                removable -= 1;
                let path = self.folder.join(name);
                fs::remove_file(&path).map_err(|source| ArchiveError::Write { path, source })?;
                total -= bytes;
            }
        }
        Ok(())
    }

    /// Reports that nothing can be archived: once, until it can be again.
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

#[cfg(test)]
mod tests;
