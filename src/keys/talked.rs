//! How far each station has talked back: `talkback` in the announcer's state folder. Talkback that was heard is never
//! played again, not even after a power failure; talkback that only began may be played once more.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use std::time::Duration;

use super::checked::Kind;
use super::{KeysError, StateFolder};
use crate::wire::{ClipId, TALKBACK_LIFE};

const TALKED: Kind = Kind {
    file: "talkback",
    word: "talkback",
    remedy: "restore it from a backup; or delete it, after which talkback that has not expired may be heard again",
};

/// How long a mark is needed: the longest life of a talkback, and an hour more for clocks that differ.
const MARK_LIFE: Duration = Duration::from_secs(TALKBACK_LIFE.as_secs() + 3_600);

/// How a talkback ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The loudspeaker played it to its last sample.
    Heard,
    /// It was kept, but could not be heard.
    Kept,
}

/// The last talkback of a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TalkedMark {
    /// Which one: a later run of the station has a higher epoch, and a later talkback in one run a higher sequence.
    pub id: ClipId,
    /// How it ended; `None` until that is known.
    pub end: Option<End>,
}

impl TalkedMark {
    /// Whether a talkback may be heard after this one: a later one always, the same one until it has ended.
    pub fn admits(&self, id: ClipId) -> bool {
        id > self.id || (id == self.id && self.end.is_none())
    }
}

/// The most stations whose marks are kept: as many as can join.
pub const MAX_MARKS: usize = crate::keys::MAX_STATIONS;

/// The marks of all stations that have talked back, by key in hex; in open mode by name, and in memory only.
///
/// When there are too many, marks whose talkback has certainly expired are dropped, so that no talkback is heard twice.
/// In open mode nothing expires, and new stations are turned away.
#[derive(Debug)]
pub struct Talked {
    folder: Option<StateFolder>,
    marks: BTreeMap<String, Noted>,
    most: usize,
    /// The announcer's clock at the last call of [`Talked::make_room`].
    now_unix_s: u64,
}

#[derive(Debug, Clone, Copy)]
struct Noted {
    mark: TalkedMark,
    /// When it was noted, by the announcer's clock; 0 where unknown.
    unix_s: u64,
}

impl Talked {
    /// Reads the file if there is a folder; the file might not exist yet.
    ///
    /// # Errors
    /// Errors from reading; a damaged file is refused and never taken for an empty one.
    pub fn open(folder: Option<&StateFolder>) -> Result<Self, KeysError> {
        let body = folder.map(|folder| TALKED.read(folder)).transpose()?.flatten();
        let lines = body.iter().flat_map(|body| body.lines());
        let marks: Option<BTreeMap<_, _>> = lines.map(parse).collect();
        let marks = match (marks, folder) {
            (Some(marks), _) => marks,
            (None, Some(folder)) => return Err(TALKED.damaged(folder, "a line is not a mark")),
            (None, None) => BTreeMap::new(),
        };
        Ok(Self { folder: folder.cloned(), marks, most: MAX_MARKS, now_unix_s: 0 })
    }

    /// The last talkback of a station.
    pub fn mark(&self, station: &str) -> Option<TalkedMark> {
        self.marks.get(station).map(|noted| noted.mark)
    }

    /// Moves a station's mark in memory, and never back. Returns whether it moved; if so, write [`Self::draft`].
    pub fn advance(&mut self, station: &str, mark: TalkedMark) -> bool {
        if self.mark(station).is_some_and(|was| was == mark || !was.admits(mark.id)) {
            return false;
        }
        self.marks.insert(station.to_owned(), Noted { mark, unix_s: self.now_unix_s });
        true
    }

    /// Makes room for the mark of a station that has none yet. Returns whether there is room for it.
    pub fn make_room(&mut self, station: &str, now_unix_s: u64) -> bool {
        self.now_unix_s = now_unix_s;
        if self.marks.len() >= self.most && !self.marks.contains_key(station) && self.folder.is_some() {
            let expired = |noted: &Noted| now_unix_s.saturating_sub(noted.unix_s) > MARK_LIFE.as_secs();
            self.marks.retain(|_, noted| !expired(noted));
        }
        self.marks.len() < self.most || self.marks.contains_key(station)
    }

    /// The next content of the file; `None` in open mode.
    pub fn draft(&self) -> Option<TalkedDraft> {
        let folder = self.folder.clone()?;
        Some(TalkedDraft { folder, body: self.body() })
    }

    fn body(&self) -> String {
        let mut body = String::with_capacity(self.marks.len() * 112);
        for (station, Noted { mark, unix_s }) in &self.marks {
            let TalkedMark { id: ClipId { epoch, sequence }, end } = mark;
            let end = match end {
                None => "begun",
                Some(End::Heard) => "heard",
                Some(End::Kept) => "kept",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(body, "{station} {unix_s} {epoch} {sequence} {end}");
        }
        body
    }
}

/// The next content of the file. Writing it can take as long as the disk likes.
#[derive(Debug)]
pub struct TalkedDraft {
    folder: StateFolder,
    body: String,
}

impl TalkedDraft {
    /// Writes it to the disk.
    ///
    /// # Errors
    /// Errors from writing.
    pub fn write(&self) -> Result<(), KeysError> {
        TALKED.write(&self.folder.lock()?, &self.body)
    }
}

fn parse(line: &str) -> Option<(String, Noted)> {
    let words: Vec<&str> = line.split(' ').collect();
    let (station, unix_s, epoch, sequence, end) = match *words.as_slice() {
        [station, unix_s, epoch, sequence, end] => (station, unix_s.parse().ok()?, epoch, sequence, end),
        // Earlier versions did not write the time.
        [station, epoch, sequence, end] => (station, 0, epoch, sequence, end),
        _ => return None,
    };
    let station = super::StationId::from_hex(station)?.to_hex();
    let id = ClipId { epoch: epoch.parse().ok()?, sequence: sequence.parse().ok()? };
    let end = match end {
        "begun" => None,
        "heard" => Some(End::Heard),
        "kept" => Some(End::Kept),
        _ => return None,
    };
    Some((station, Noted { mark: TalkedMark { id, end }, unix_s }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn mark(epoch: u64, sequence: u64, end: Option<End>) -> TalkedMark {
        TalkedMark { id: ClipId { epoch, sequence }, end }
    }

    #[test]
    fn marks_outlive_a_restart_and_never_go_back() {
        let home = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
        let (one, other) = ("ab".repeat(32), "cd".repeat(32));
        let mut talked = Talked::open(Some(&folder)).unwrap();
        assert_eq!(talked.mark(&one), None);
        assert!(talked.advance(&one, mark(7, 2, None)));
        assert!(talked.advance(&other, mark(1, 1, Some(End::Kept))));
        assert!(talked.advance(&one, mark(7, 2, Some(End::Heard))));
        for back in [mark(7, 1, None), mark(6, 9, None), mark(7, 2, None), mark(7, 2, Some(End::Kept))] {
            assert!(!talked.mark(&one).unwrap().admits(back.id));
            assert!(!talked.advance(&one, back));
        }
        talked.draft().unwrap().write().unwrap();
        let again = Talked::open(Some(&folder)).unwrap();
        assert_eq!(again.mark(&one), Some(mark(7, 2, Some(End::Heard))));
        assert_eq!(again.mark(&other), Some(mark(1, 1, Some(End::Kept))));
        assert!(mark(7, 2, None).admits(ClipId { epoch: 7, sequence: 2 }), "it was not heard to its end");
        assert!(mark(7, 2, Some(End::Heard)).admits(ClipId { epoch: 8, sequence: 1 }));
    }

    #[test]
    fn there_is_an_end_to_the_marks_and_what_was_heard_stays_refused() {
        let home = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
        let key = |number: u8| crate::clip::hex(&[number; 32]);
        let day = 86_400;
        let mut talked = Talked { most: 3, ..Talked::open(Some(&folder)).unwrap() };
        for (number, at) in [(1, 0), (2, day), (3, day + 7_000)] {
            assert!(talked.make_room(&key(number), at));
            assert!(talked.advance(&key(number), mark(1, 1, Some(End::Heard))));
        }
        assert!(!talked.make_room(&key(4), day), "nothing has surely expired");
        assert!(talked.make_room(&key(3), day), "it has a mark");
        assert!(talked.make_room(&key(4), day + 7_200));
        assert_eq!(talked.mark(&key(1)), None, "its talkback expired an hour ago at least");
        assert!(talked.mark(&key(2)).is_some() && talked.mark(&key(3)).is_some());
        talked.draft().unwrap().write().unwrap();
        assert_eq!(Talked::open(Some(&folder)).unwrap().marks[&key(2)].unix_s, day);
        let before = format!("{} 7 2 heard\n", key(9));
        TALKED.write(&folder.lock().unwrap(), &before).unwrap();
        assert_eq!(Talked::open(Some(&folder)).unwrap().marks[&key(9)].unix_s, 0);
        let mut open = Talked { most: 1, ..Talked::open(None).unwrap() };
        assert!(open.make_room("hall-1", 0));
        open.advance("hall-1", mark(1, 1, Some(End::Heard)));
        assert!(open.make_room("hall-1", day * 9) && !open.make_room("hall-2", day * 9));
    }

    #[test]
    fn a_damaged_file_is_refused_and_open_mode_has_none() {
        let home = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
        let mut talked = Talked::open(Some(&folder)).unwrap();
        talked.advance(&"ab".repeat(32), mark(7, 2, None));
        talked.draft().unwrap().write().unwrap();
        let path = folder.path().join("talkback");
        let good = std::fs::read_to_string(&path).unwrap();
        for bad in [good.replace(" 7 2 ", " 7 1 "), good[..good.len() / 2].to_owned()] {
            std::fs::write(&path, bad).unwrap();
            assert!(Talked::open(Some(&folder)).unwrap_err().to_string().contains("talkback"));
        }
        TALKED.write(&folder.lock().unwrap(), "somebody 7 2 heard\n").unwrap();
        assert!(Talked::open(Some(&folder)).unwrap_err().to_string().contains("not a mark"));
        let mut open = Talked::open(None).unwrap();
        assert!(open.advance("hall-1", mark(1, 1, None)) && open.draft().is_none());
        assert_eq!(open.mark("hall-1"), Some(mark(1, 1, None)));
    }
}
