//! How far a station has heard each announcer: `heard` in the station's state folder. A clip below the mark is never
//! played again, not even after a power failure. Each priority has a mark of its own, because a page that an emergency
//! has interrupted is played after it although it comes before it in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::checked::Kind;
use super::{AnnouncerId, KeysError, StateFolder};
use crate::priority::Priority;
use crate::wire::{ClipId, Receipt};

const HEARD: Kind = Kind {
    file: "heard",
    word: "heard",
    remedy: "restore it from a backup; or delete it, after which pages that have not expired may be heard again",
};

/// The last clip that a station began to play. Later clips have a higher epoch, or the same epoch and a higher
/// sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The announcer's run.
    pub epoch: u64,
    /// The clip's number in that run.
    pub sequence: u64,
    /// Whether it was played to its end.
    pub finished: bool,
}

impl Mark {
    /// Whether a clip may be played after this one: a later one always, the same one until it has been played to its
    /// end.
    pub fn admits(&self, epoch: u64, sequence: u64) -> bool {
        let order = (epoch, sequence).cmp(&(self.epoch, self.sequence));
        order.is_gt() || (order.is_eq() && !self.finished)
    }
}

/// The marks of all announcers that this station has heard.
#[derive(Debug)]
pub struct Heard {
    folder: StateFolder,
    marks: BTreeMap<Voice, Mark>,
    /// For each announcer, the receipt of the clip that was played to its end last.
    receipts: BTreeMap<Voice, Receipt>,
    /// The voices whose last clip has sounded but is not finished.
    sounded: BTreeSet<Voice>,
}

/// An announcer and the priority of its clips.
pub type Voice = (AnnouncerId, Priority);

impl Heard {
    /// Reads the file, which might not exist yet.
    ///
    /// # Errors
    /// Errors from reading; a damaged file is refused and never taken for an empty one.
    pub fn open(folder: &StateFolder) -> Result<Self, KeysError> {
        let mut heard = Self {
            folder: folder.clone(),
            marks: BTreeMap::new(),
            receipts: BTreeMap::new(),
            sounded: BTreeSet::new(),
        };
        heard.read()?;
        Ok(heard)
    }

    /// The last clip of that priority heard from an announcer.
    pub fn mark(&self, announcer: &AnnouncerId, priority: Priority) -> Option<Mark> {
        self.marks.get(&(*announcer, priority)).copied()
    }

    /// The last clip of each priority heard from each announcer.
    pub fn marks(&self) -> &BTreeMap<Voice, Mark> {
        &self.marks
    }

    /// The receipt of the announcer's clip that was played to its end last, unless another clip of that priority has
    /// begun since.
    pub fn receipt(&self, announcer: &AnnouncerId) -> Option<Receipt> {
        self.receipts.iter().find(|((of, _), _)| of == announcer).map(|(_, receipt)| *receipt)
    }

    /// The last clip heard from the announcer that sounded but did not reach its end.
    pub fn cut_off(&self, announcer: &AnnouncerId) -> Option<ClipId> {
        let sounded = self.sounded.iter().filter(|(of, _)| of == announcer);
        let marks = sounded.filter_map(|voice| self.marks.get(voice)).filter(|mark| !mark.finished);
        marks.map(|&Mark { epoch, sequence, .. }| ClipId { epoch, sequence }).max()
    }

    /// Records that the clip at the mark has sounded. The record is on the disk before this returns.
    ///
    /// # Errors
    /// [`KeysError::HeardLater`] if the mark is at another clip, and errors from reading and writing.
    pub fn sounds(
        &mut self,
        announcer: &AnnouncerId,
        priority: Priority,
        clip: ClipId,
    ) -> Result<(), KeysError> {
        let voice = (*announcer, priority);
        let folder = self.folder.clone();
        let locked = folder.lock()?;
        self.read()?;
        let ClipId { epoch, sequence } = clip;
        if self.marks.get(&voice) != Some(&Mark { epoch, sequence, finished: false }) {
            return Err(KeysError::HeardLater);
        }
        if !self.sounded.insert(voice) {
            return Ok(());
        }
        HEARD.write(&locked, &self.body()).inspect_err(|_| {
            self.sounded.remove(&voice);
        })
    }

    /// Moves an announcer's mark to the clip of a receipt, played to its end. The mark is on the disk before this
    /// returns.
    ///
    /// # Errors
    /// The same errors as [`Heard::advance`].
    pub fn finish(
        &mut self,
        announcer: &AnnouncerId,
        priority: Priority,
        receipt: Receipt,
    ) -> Result<(), KeysError> {
        let ClipId { epoch, sequence } = receipt.clip;
        self.write((*announcer, priority), Mark { epoch, sequence, finished: true }, Some(receipt))
    }

    /// Moves an announcer's mark. It is on the disk before this returns: call this before the first sample with
    /// `finished` false, and after the last with true.
    ///
    /// # Errors
    /// [`KeysError::HeardLater`] if the mark would go back, and errors from reading and writing. After an error the
    /// clip must not be played.
    pub fn advance(
        &mut self,
        announcer: &AnnouncerId,
        priority: Priority,
        mark: Mark,
    ) -> Result<(), KeysError> {
        self.write((*announcer, priority), mark, None)
    }

    fn write(&mut self, voice: Voice, mark: Mark, receipt: Option<Receipt>) -> Result<(), KeysError> {
        let folder = self.folder.clone();
        let locked = folder.lock()?;
        self.read()?;
        let was = self.marks.get(&voice).copied();
        if was == Some(mark) {
            return Ok(());
        }
        if was.is_some_and(|was| !was.admits(mark.epoch, mark.sequence)) {
            return Err(KeysError::HeardLater);
        }
        let before = (self.marks.clone(), self.receipts.clone(), self.sounded.clone());
        self.marks.insert(voice, mark);
        self.sounded.remove(&voice);
        match receipt {
            Some(receipt) => {
                self.receipts.retain(|(of, _), _| *of != voice.0);
                self.receipts.insert(voice, receipt);
            }
            None => drop(self.receipts.remove(&voice)),
        }
        HEARD.write(&locked, &self.body()).inspect_err(|_| (self.marks, self.receipts, self.sounded) = before)
    }

    fn body(&self) -> String {
        let mut body = String::with_capacity(self.marks.len() * 128);
        for (voice @ (announcer, priority), Mark { epoch, sequence, finished }) in &self.marks {
            let end = if *finished { "finished" } else { "begun" };
            // Writing to a String cannot fail.
            let _ = write!(body, "{} {} {epoch} {sequence} {end}", announcer.to_hex(), priority.word());
            if self.sounded.contains(voice) {
                body.push_str(" sounded");
            }
            if let Some(it) = self.receipts.get(voice) {
                let Receipt { frames, start_error_us, max_error_us, underruns, uncertainty_us, .. } = it;
                let _ =
                    write!(body, " {frames} {start_error_us} {max_error_us} {underruns} {uncertainty_us}");
            }
            body.push('\n');
        }
        body
    }

    fn read(&mut self) -> Result<(), KeysError> {
        let body = HEARD.read(&self.folder)?;
        let lines = body.iter().flat_map(|body| body.lines());
        let parsed: Option<Vec<_>> = lines.map(parse).collect();
        let parsed = parsed.ok_or_else(|| HEARD.damaged(&self.folder, "a line is not a mark"))?;
        self.receipts = parsed.iter().filter_map(|it| Some((it.voice, it.receipt?))).collect();
        self.sounded = parsed.iter().filter(|it| it.has_sounded).map(|it| it.voice).collect();
        self.marks = parsed.into_iter().map(|it| (it.voice, it.mark)).collect();
        Ok(())
    }
}

struct Line {
    voice: Voice,
    mark: Mark,
    /// Only set with a mark that is not finished.
    has_sounded: bool,
    /// Only set with a mark that is finished.
    receipt: Option<Receipt>,
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let announcer = AnnouncerId::from_hex(words.next()?)?;
    let priority = words.next()?;
    let priority = Priority::ALL.into_iter().find(|it| it.word() == priority)?;
    let epoch = words.next()?.parse().ok()?;
    let sequence = words.next()?.parse().ok()?;
    let finished = match words.next()? {
        "finished" => true,
        "begun" => false,
        _ => return None,
    };
    let mark = Mark { epoch, sequence, finished };
    let line = |has_sounded, receipt| Some(Line { voice: (announcer, priority), mark, has_sounded, receipt });
    let frames = match words.next() {
        None => return line(false, None),
        Some("sounded") if !finished && words.next().is_none() => return line(true, None),
        Some(frames) => frames,
    };
    let receipt = Receipt {
        clip: ClipId { epoch, sequence },
        frames: frames.parse().ok()?,
        start_error_us: words.next()?.parse().ok()?,
        max_error_us: words.next()?.parse().ok()?,
        underruns: words.next()?.parse().ok()?,
        uncertainty_us: words.next()?.parse().ok()?,
    };
    if finished && words.next().is_none() { line(false, Some(receipt)) } else { None }
}
