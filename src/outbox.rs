//! The outbox: clips that must outlive the announcer. Each is on the disk from before it is reported as recorded until
//! its outcome is known for every station.
//!
//! Each clip has two files in the folder `outbox` of the state folder: `ID.clip`, always written as a whole (header,
//! signature, WAV), and `ID.log`, to which a line is added for everything that becomes known about a station. One task
//! does all the writing, in order and on a thread for such work, so that a disk that hangs delays no announcement.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

use crate::batches::work_through;
use crate::clip::{Clip, ClipError, Incoming, hex};
use crate::event::{Event, Events, Outcome, WeakEvents};
use crate::keys::{KeysError, StateFolder};
use crate::stations::Restored;
use crate::wire::{ClipHeader, WireError};

/// The name of the outbox inside the state folder.
const FOLDER: &str = "outbox";
/// The first bytes of a clip's file.
const MAGIC: &str = "bullhorn clip 1\n";
/// The most jobs that wait for the disk; beyond that, notes are dropped, and the stations' receipts make up for them.
const MAX_WAITING_JOBS: usize = 16_384;
/// The most notes that are written before waiting for the disk.
const MAX_BATCH: usize = 1_024;

/// Why a clip is not in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] KeysError),
    /// The content of a file is not what was written.
    #[error("{} is damaged, and was removed", .0.display())]
    Damaged(PathBuf),
    /// A clip's own header cannot be read.
    #[error("{} holds no clip", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WireError,
    },
    /// A clip is not the one in its header.
    #[error("{} does not hold what its header says", path.display())]
    Clip {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ClipError,
    },
    /// The disk did not store the clip in time.
    #[error("the disk took longer than {} ms", .0.as_millis())]
    Slow(Duration),
    /// The writing task is gone.
    #[error("nothing more can be written to the outbox")]
    Gone,
}

/// What is known about one station and one clip; each note is a line in the clip's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Note {
    /// The stations it is for.
    Stations(Vec<String>),
    /// A station has the whole clip.
    Has(String),
    /// A station has begun to play it.
    Begun(String),
    /// The outcome at a station.
    Ended(String, Outcome),
    /// The verdict was reported.
    Settled,
}

impl Note {
    /// Returns the note that an event is worth, and the clip that it is about.
    fn of(event: &Event) -> Option<(&str, Self)> {
        Some(match event {
            Event::Sending { clip, stations } => (clip, Self::Stations(stations.clone())),
            Event::Verified { clip, station } => (clip, Self::Has(station.clone())),
            Event::Playing { clip, station } => (clip, Self::Begun(station.clone())),
            // It is played again from its start, as if it had been sent again.
            Event::Queued { clip, station, interrupted: true } => (clip, Self::Has(station.clone())),
            Event::Played { clip, station, outcome, .. } | Event::Failed { clip, station, outcome, .. } => {
                (clip, Self::Ended(station.clone(), *outcome))
            }
            Event::Done { clip, .. } => (clip, Self::Settled),
            _ => return None,
        })
    }
}

/// A clip that an earlier run left in the outbox.
#[derive(Debug)]
pub struct Kept {
    /// Its header.
    pub header: ClipHeader,
    /// The header as it was signed.
    pub encoded: Vec<u8>,
    /// The announcer's signature.
    pub signature: Vec<u8>,
    /// The clip, whole and intact.
    pub clip: Clip,
    /// How far each station was; `None` if not even the stations were recorded.
    pub known: Option<BTreeMap<String, Restored>>,
    /// Whether the verdict was reported.
    pub settled: bool,
}

#[derive(Serialize, Deserialize)]
struct Head {
    header: String,
    signature: String,
}

enum Job {
    Put { name: String, content: Vec<u8>, done: oneshot::Sender<Result<(), KeysError>> },
    Note { name: String, note: Note },
    Redate { name: String, head: String },
    Remove { name: String },
    Close { done: oneshot::Sender<()> },
}

/// Where clips are stored.
#[derive(Debug)]
pub struct Outbox {
    jobs: mpsc::Sender<Job>,
}

impl Outbox {
    /// Opens the outbox in an announcer's state folder, and reads what an earlier run left in it. Clips that cannot be
    /// read are reported, and do not stop the announcer. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Errors of the folder.
    pub fn open(state: &StateFolder, events: Events) -> Result<(Self, Vec<Kept>), OutboxError> {
        let folder = StateFolder::open(Some(&state.path().join(FOLDER)))?;
        let kept = load(&folder, &events)?;
        let present = kept.iter().map(|kept| kept.header.id.to_string()).collect();
        let (jobs, inbox) = mpsc::channel(MAX_WAITING_JOBS);
        let writer = Writer { folder, present, events: events.weak(), is_troubled: false };
        tokio::spawn(work_through(writer, inbox, MAX_BATCH, Writer::work));
        Ok((Self { jobs }, kept))
    }

    /// Puts a clip on the disk, and returns once it is there. Waits no longer than `patience`.
    ///
    /// # Errors
    /// Errors of the disk; [`OutboxError::Slow`], after which the clip may still get there.
    pub async fn put(
        &self,
        header: &ClipHeader,
        encoded: &[u8],
        signature: &[u8],
        clip: &Clip,
        patience: Duration,
    ) -> Result<(), OutboxError> {
        let head = head(encoded, signature);
        let content = [MAGIC.as_bytes(), head.as_bytes(), b"\n", clip.wav()].concat();
        let (done, stored) = oneshot::channel();
        let job = Job::Put { name: header.id.to_string(), content, done };
        self.jobs.try_send(job).map_err(|_| OutboxError::Gone)?;
        match tokio::time::timeout(patience, stored).await {
            Ok(Ok(stored)) => Ok(stored?),
            Ok(Err(_)) => Err(OutboxError::Gone),
            Err(_) => Err(OutboxError::Slow(patience)),
        }
    }

    /// Records what an event says about a clip in the outbox.
    pub fn note(&self, event: &Event) {
        if let Some((clip, note)) = Note::of(event) {
            self.send(Job::Note { name: clip.to_owned(), note });
        }
    }

    /// Replaces the header and the signature of a clip in the outbox.
    pub fn redate(&self, clip: &str, encoded: &[u8], signature: &[u8]) {
        self.send(Job::Redate { name: clip.to_owned(), head: head(encoded, signature) });
    }

    /// Removes a clip.
    pub fn remove(&self, clip: &str) {
        self.send(Job::Remove { name: clip.to_owned() });
    }

    /// Waits until everything is written, but not for longer than `patience`.
    pub async fn close(&self, patience: Duration) {
        let (done, closed) = oneshot::channel();
        self.send(Job::Close { done });
        // A disk that hangs does not keep the announcer from leaving.
        let _ = tokio::time::timeout(patience, closed).await;
    }

    fn send(&self, job: Job) {
        if let Err(TrySendError::Full(_)) = self.jobs.try_send(job) {
            tracing::warn!("the disk is too slow: what became of a clip was not written down");
        }
    }
}

struct Writer {
    folder: StateFolder,
    /// The clips that are on the disk.
    present: HashSet<String>,
    events: WeakEvents,
    is_troubled: bool,
}

impl Writer {
    fn work(&mut self, jobs: Vec<Job>) {
        let mut logs: HashMap<String, File> = HashMap::new();
        let mut waiting = Vec::new();
        let mut written = None;
        for job in jobs {
            match job {
                Job::Put { name, content, done } => {
                    let put = self.folder.lock().and_then(|it| it.write(&clip_file(&name), &content));
                    if put.is_ok() {
                        self.present.insert(name);
                    }
                    // The caller may have lost patience.
                    let _ = done.send(put);
                }
                Job::Note { name, note } if self.present.contains(&name) => {
                    let noted = self.note(&mut logs, &name, &note);
                    written = Some(written.unwrap_or(Ok(())).and(noted));
                }
                Job::Redate { name, head } if self.present.contains(&name) => {
                    let redated = self.redate(&name, &head);
                    written = Some(written.unwrap_or(Ok(())).and(redated));
                }
                Job::Note { .. } | Job::Redate { .. } => {}
                Job::Remove { name } => {
                    logs.remove(&name);
                    if self.present.remove(&name) {
                        let removed = self.remove(&name);
                        written = Some(written.unwrap_or(Ok(())).and(removed));
                    }
                }
                Job::Close { done } => waiting.push(done),
            }
        }
        for (name, log) in logs {
            let synced = log.sync_data().map_err(|source| self.failed(&name, source));
            written = Some(written.unwrap_or(Ok(())).and(synced));
        }
        if let Some(written) = written {
            self.report(written);
        }
        for done in waiting {
            let _ = done.send(());
        }
    }

    fn note(&self, logs: &mut HashMap<String, File>, name: &str, note: &Note) -> Result<(), KeysError> {
        let failed = |source| self.failed(name, source);
        if !logs.contains_key(name) {
            let path = self.folder.path().join(log_file(name));
            let log = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
            logs.insert(name.to_owned(), log);
        }
        let mut line = serde_json::to_string(note).unwrap_or_default();
        line.push('\n');
        let Some(log) = logs.get_mut(name) else { return Ok(()) };
        let whole = log.metadata().map_err(failed)?.len();
        log.write_all(line.as_bytes()).map_err(|error| {
            // Half a line would spoil the next one.
            let _ = log.set_len(whole);
            failed(error)
        })
    }

    /// Removes the clip first: a log without its clip means nothing.
    fn remove(&self, name: &str) -> Result<(), KeysError> {
        let failed = |source| self.failed(name, source);
        let path = self.folder.path();
        fs::remove_file(path.join(clip_file(name))).map_err(failed)?;
        File::open(path).and_then(|folder| folder.sync_all()).map_err(failed)?;
        // There is no log if nothing was noted.
        let _ = fs::remove_file(path.join(log_file(name)));
        Ok(())
    }

    fn redate(&self, name: &str, head: &str) -> Result<(), KeysError> {
        let file = clip_file(name);
        let content = self.folder.read(&file)?.unwrap_or_default();
        let Some((_, wav)) = split(&content) else { return Ok(()) };
        let content = [MAGIC.as_bytes(), head.as_bytes(), b"\n", wav].concat();
        self.folder.lock()?.write(&file, &content)
    }

    fn failed(&self, name: &str, source: std::io::Error) -> KeysError {
        KeysError::io("write", &self.folder.path().join(log_file(name)), source)
    }

    /// Reports a disk that cannot be written: once, until it can be written again.
    fn report(&mut self, written: Result<(), KeysError>) {
        let Err(error) = written else {
            self.is_troubled = false;
            return;
        };
        if !std::mem::replace(&mut self.is_troubled, true) {
            let message = format!(
                "what becomes of announcements is not written down, and would be unknown after a restart: {}",
                crate::error_chain(&error)
            );
            self.events.tell(Event::Warning { message });
        }
    }
}

fn clip_file(name: &str) -> String {
    format!("{name}.clip")
}

fn log_file(name: &str) -> String {
    format!("{name}.log")
}

fn head(encoded: &[u8], signature: &[u8]) -> String {
    let head = Head { header: hex(encoded), signature: hex(signature) };
    serde_json::to_string(&head).unwrap_or_default()
}

/// Splits a clip's file into its head and its WAV.
fn split(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = content.strip_prefix(MAGIC.as_bytes())?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    Some((rest.get(..end)?, rest.get(end + 1..)?))
}

/// Loads every clip that is whole, and removes the remains of writes that were cut short.
fn load(folder: &StateFolder, events: &Events) -> Result<Vec<Kept>, OutboxError> {
    let failed = |source| KeysError::io("read the folder", folder.path(), source);
    let mut kept = Vec::new();
    let mut strays = Vec::new();
    for entry in fs::read_dir(folder.path()).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("clip") => match read(folder, &path, &name) {
                Ok(clip) => kept.push(clip),
                Err(error) => {
                    let message =
                        format!("an announcement of an earlier run is lost: {}", crate::error_chain(&error));
                    events.tell(Event::Warning { message });
                    if !matches!(error, OutboxError::Folder(_)) {
                        strays.push(path);
                    }
                }
            },
            Some("new") => strays.push(path),
            Some("log") if !path.with_extension("clip").exists() => strays.push(path),
            _ => {}
        }
    }
    for path in strays {
        // Best effort: the next run finds what remains.
        let _ = fs::remove_file(path);
    }
    kept.sort_by_key(|kept| kept.header.id);
    Ok(kept)
}

fn read(folder: &StateFolder, path: &Path, name: &str) -> Result<Kept, OutboxError> {
    let damaged = || OutboxError::Damaged(path.to_owned());
    let content = folder.read(&clip_file(name))?.ok_or_else(damaged)?;
    let (head, wav) = split(&content).ok_or_else(damaged)?;
    let head: Head = serde_json::from_slice(head).map_err(|_| damaged())?;
    let bytes = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).map_err(|_| damaged());
    let (encoded, signature) = (bytes(&head.header)?, bytes(&head.signature)?);
    let header =
        ClipHeader::decode(&encoded).map_err(|source| OutboxError::Header { path: path.into(), source })?;
    if header.id.to_string() != name {
        return Err(damaged());
    }
    let whole = Incoming::new(header.format, header.sha256).and_then(|mut incoming| {
        incoming.push(wav)?;
        incoming.finish()
    });
    let clip = whole.map_err(|source| OutboxError::Clip { path: path.into(), source })?;
    let (known, settled) = read_log(&folder.path().join(log_file(name)));
    Ok(Kept { header, encoded, signature, clip, known, settled })
}

/// Reads a log up to its first line that is not whole, and cuts off the rest, so that later lines begin cleanly.
fn read_log(path: &Path) -> (Option<BTreeMap<String, Restored>>, bool) {
    let Ok(content) = fs::read(path) else { return (None, false) };
    let (mut known, mut settled, mut good) = (None::<BTreeMap<String, Restored>>, false, 0);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if !line.ends_with(b"\n") {
            break;
        }
        let Ok(note) = serde_json::from_slice::<Note>(line) else { break };
        good += line.len() as u64;
        match note {
            Note::Stations(names) => {
                let known = known.get_or_insert_default();
                for name in names {
                    known.entry(name).or_default();
                }
            }
            Note::Settled => settled = true,
            Note::Has(name) => {
                let was = known.get_or_insert_default().entry(name).or_default();
                was.has_it = true;
                // A clip that a station has begun is sent there again only if it was cut off.
                was.again |= std::mem::take(&mut was.begun);
            }
            Note::Begun(name) => known.get_or_insert_default().entry(name).or_default().begun = true,
            Note::Ended(name, outcome) => {
                known.get_or_insert_default().entry(name).or_default().outcome.get_or_insert(outcome);
            }
        }
    }
    if good < content.len() as u64
        && let Ok(log) = OpenOptions::new().write(true).open(path)
    {
        // A disk that cannot be written is noticed at the next note.
        let _ = log.set_len(good);
    }
    (known, settled)
}

#[cfg(test)]
mod tests;
