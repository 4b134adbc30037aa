//! What a station has heard: known at once, and written down on a thread for such work, so that no disk delays the
//! station. Waiting notes are written in order, by one thread.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::event::{Event, Events, WeakEvents};
use crate::keys::{Heard, KeysError, Mark, Voice};
use crate::wire::{ClipId, Receipt};

/// How long the disk has for a note before it is reported as hanging.
pub const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// The most notes that wait for one announcer and priority: those of one clip.
const MAX_WAITING_NOTES: usize = 3;

/// What is written down about a clip, in this order.
#[derive(Debug, Clone, Copy)]
pub enum Note {
    /// It is about to be played; noted so that no later run accepts an earlier clip.
    Begun(ClipId),
    /// It sounds; noted so that the announcer learns of it if it is cut off.
    Sounds(ClipId),
    /// It was played to the end; noted so that no later run plays it again, and so that the receipt outlives this run.
    Finished(Receipt),
}

/// What became of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It is on the disk; or it cannot be written, and that was reported.
    Done,
    /// It is not on the disk yet.
    NotYet,
    /// Another process of this station has moved past the clip.
    Overtaken,
}

/// A note on its way to the disk.
#[derive(Debug)]
pub struct Noting(Option<oneshot::Receiver<Noted>>);

impl Noting {
    /// Creates the noting of a station that keeps no diary.
    pub fn nowhere() -> Self {
        Self(None)
    }

    /// Waits for the disk, but not beyond `until`. Cancelling loses nothing.
    pub async fn by(&mut self, until: Instant) -> Noted {
        let Some(noted) = &mut self.0 else { return Noted::Done };
        match timeout_at(until, noted).await {
            Ok(noted) => {
                self.0 = None;
                noted.unwrap_or(Noted::Done)
            }
            Err(_) => Noted::NotYet,
        }
    }
}

/// The diary of a station.
#[derive(Debug)]
pub struct Diary {
    marks: BTreeMap<Voice, Mark>,
    pages: Arc<Pages>,
}

#[derive(Debug)]
struct Pages {
    heard: Mutex<Heard>,
    waiting: Mutex<Waiting>,
    /// The trouble that was last reported, until the disk accepts a note again.
    trouble: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    is_written: bool,
}

#[derive(Debug)]
struct Entry {
    voice: Voice,
    note: Note,
    done: oneshot::Sender<Result<(), KeysError>>,
}

impl Diary {
    /// Creates a diary with what earlier runs wrote into it.
    pub fn new(heard: Heard) -> Self {
        let marks = heard.marks().clone();
        let pages = Pages { heard: Mutex::new(heard), waiting: Mutex::default(), trouble: Mutex::default() };
        Self { marks, pages: Arc::new(pages) }
    }

    /// The last clip of that priority heard from an announcer, whether that is on the disk or not.
    pub fn mark(&self, voice: &Voice) -> Option<Mark> {
        self.marks.get(voice).copied()
    }

    /// Reads what the disk holds. Waits while it is being written.
    pub fn on_disk<T>(&self, read: impl FnOnce(&Heard) -> T) -> T {
        read(&lock(&self.pages.heard))
    }

    /// Starts writing a note. A disk that cannot do it, or takes longer than [`DISK_PATIENCE`], is reported once until
    /// it accepts notes again. Must be called on a tokio runtime.
    pub fn note(&mut self, voice: Voice, note: Note, events: &Events) -> Noting {
        if let Some(mark) = note.mark()
            && self.mark(&voice).is_none_or(|was| was.admits(mark.epoch, mark.sequence))
        {
            self.marks.insert(voice, mark);
        }
        let (done, written) = oneshot::channel();
        self.pages.enter(Entry { voice, note, done });
        let (tell, noted) = oneshot::channel();
        tokio::spawn(self.pages.clone().follow(written, tell, events.weak()));
        Noting(Some(noted))
    }

    /// Adopts what another process has heard meanwhile.
    pub fn catch_up(&mut self) {
        if let Ok(heard) = self.pages.heard.try_lock() {
            self.marks.clone_from(heard.marks());
        }
    }
}

impl Note {
    fn mark(self) -> Option<Mark> {
        let (ClipId { epoch, sequence }, finished) = match self {
            Self::Begun(clip) => (clip, false),
            Self::Sounds(_) => return None,
            Self::Finished(receipt) => (receipt.clip, true),
        };
        Some(Mark { epoch, sequence, finished })
    }

    fn write(self, heard: &mut Heard, (announcer, priority): &Voice) -> Result<(), KeysError> {
        let priority = *priority;
        match self {
            Self::Begun(ClipId { epoch, sequence }) => {
                heard.advance(announcer, priority, Mark { epoch, sequence, finished: false })
            }
            Self::Sounds(clip) => heard.sounds(announcer, priority, clip),
            Self::Finished(receipt) => heard.finish(announcer, priority, receipt),
        }
    }
}

impl Pages {
    /// Queues an entry, and drops waiting entries of earlier clips of the same announcer and priority, which are no
    /// longer needed.
    fn enter(self: &Arc<Self>, entry: Entry) {
        let mut waiting = lock(&self.waiting);
        let (is_new, mut kept) = (matches!(entry.note, Note::Begun(_)), 0);
        waiting.entries.retain(|waits| {
            let keeps = waits.voice != entry.voice || (!is_new && kept < MAX_WAITING_NOTES - 1);
            kept += usize::from(waits.voice == entry.voice);
            keeps
        });
        waiting.entries.push_back(entry);
        if !std::mem::replace(&mut waiting.is_written, true) {
            let pages = self.clone();
            tokio::task::spawn_blocking(move || pages.write());
        }
    }

    /// Writes until nothing waits.
    fn write(&self) {
        loop {
            let Some(Entry { voice, note, done }) = self.next() else { return };
            let written = note.write(&mut lock(&self.heard), &voice);
            // Perhaps nobody waits for it any more.
            let _ = done.send(written);
        }
    }

    fn next(&self) -> Option<Entry> {
        let mut waiting = lock(&self.waiting);
        let next = waiting.entries.pop_front();
        waiting.is_written = next.is_some();
        next
    }

    /// Reports what becomes of an entry.
    async fn follow(
        self: Arc<Self>,
        mut written: oneshot::Receiver<Result<(), KeysError>>,
        tell: oneshot::Sender<Noted>,
        events: WeakEvents,
    ) {
        let in_time = timeout(DISK_PATIENCE, &mut written).await;
        let result = match in_time {
            Ok(result) => result,
            Err(_) => {
                let words = format!("the disk took longer than {} ms", DISK_PATIENCE.as_millis());
                self.report(Some(words), &events);
                written.await
            }
        };
        let noted = match result {
            // A later clip is written instead.
            Err(_) => Noted::Done,
            Ok(Ok(())) => {
                self.report(None, &events);
                Noted::Done
            }
            Ok(Err(KeysError::HeardLater)) => Noted::Overtaken,
            Ok(Err(error)) => {
                self.report(Some(crate::error_chain(&error)), &events);
                Noted::Done
            }
        };
        // The receiver may have lost patience.
        let _ = tell.send(noted);
    }

    /// A disk that cannot be written does not silence the station: this run remembers by itself, and the trouble is
    /// reported.
    fn report(&self, words: Option<String>, events: &WeakEvents) {
        let mut trouble = lock(&self.trouble);
        if *trouble == words {
            return;
        }
        if let Some(words) = &words {
            let message = format!("cannot write down what was heard: {words}");
            events.tell(Event::Warning { message });
        }
        *trouble = words;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::keys::{AnnouncerId, StateFolder};
    use crate::priority::Priority;

    fn announcer() -> AnnouncerId {
        AnnouncerId::from_bytes([7; 32])
    }

    fn voice() -> Voice {
        (announcer(), Priority::Normal)
    }

    fn clip(sequence: u64) -> ClipId {
        ClipId { epoch: 1, sequence }
    }

    fn receipt(sequence: u64) -> Receipt {
        Receipt {
            clip: clip(sequence),
            frames: 5,
            start_error_us: 0,
            max_error_us: 0,
            underruns: 0,
            uncertainty_us: 0,
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Counts the warnings that are waiting to be read.
    fn told(heard: &mut tokio::sync::mpsc::Receiver<Event>) -> usize {
        std::iter::from_fn(|| heard.try_recv().ok()).count()
    }

    #[tokio::test]
    async fn what_is_noted_is_on_the_disk_when_it_says_so_and_known_at_once() {
        let home = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
        let (events, mut heard) = Events::channel();
        let mut diary = Diary::new(Heard::open(&folder).unwrap());
        let mut begun = diary.note(voice(), Note::Begun(clip(1)), &events);
        let mark = Mark { epoch: 1, sequence: 1, finished: false };
        assert_eq!(diary.mark(&voice()), Some(mark));
        assert_eq!(begun.by(soon()).await, Noted::Done);
        assert_eq!(Heard::open(&folder).unwrap().mark(&announcer(), Priority::Normal), Some(mark));
        diary.note(voice(), Note::Sounds(clip(1)), &events).by(soon()).await;
        assert_eq!(Heard::open(&folder).unwrap().cut_off(&announcer()), Some(clip(1)));
        diary.note(voice(), Note::Finished(receipt(1)), &events).by(soon()).await;
        assert_eq!(Heard::open(&folder).unwrap().receipt(&announcer()), Some(receipt(1)));
        // Another process of the same station is further ahead.
        Heard::open(&folder).unwrap().finish(&announcer(), Priority::Normal, receipt(9)).unwrap();
        let mut begun = diary.note(voice(), Note::Begun(clip(2)), &events);
        assert_eq!(begun.by(soon()).await, Noted::Overtaken);
        diary.catch_up();
        assert_eq!(diary.mark(&voice()).unwrap().sequence, 9);
        assert_eq!(told(&mut heard), 0);
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_up_nobody_is_told_once_and_catches_up() {
        let home = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
        let (events, mut heard) = Events::channel();
        let mut diary = Diary::new(Heard::open(&folder).unwrap());
        // Whoever holds the lock of the folder keeps everybody else from writing, as a disk that hangs does.
        let hangs = folder.lock().unwrap();
        let mut begun = diary.note(voice(), Note::Begun(clip(1)), &events);
        assert_eq!(begun.by(Instant::now()).await, Noted::NotYet);
        for sequence in 2..100 {
            diary.note(voice(), Note::Begun(clip(sequence)), &events);
            diary.note(voice(), Note::Sounds(clip(sequence)), &events);
        }
        let mut last = diary.note(voice(), Note::Finished(receipt(99)), &events);
        let Some(Event::Warning { message }) = heard.recv().await else { panic!("nothing is told") };
        assert!(message.contains("longer than 1000 ms"), "{message}");
        assert!(lock(&diary.pages.waiting).entries.len() <= MAX_WAITING_NOTES);
        assert_eq!(told(&mut heard), 0);
        drop(hangs);
        assert_eq!(last.by(soon()).await, Noted::Done);
        assert_eq!(Heard::open(&folder).unwrap().receipt(&announcer()), Some(receipt(99)));
        assert_eq!(*lock(&diary.pages.trouble), None);
    }
}
