//! How far each station has talked back: `talkback` in the announcer's state folder. What was heard is never played
//! again, not even after the power failed; what was only begun may come once more.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::checked::Kind;
use super::{KeysError, StateFolder};
use crate::wire::ClipId;

const TALKED: Kind = Kind {
    file: "talkback",
    word: "talkback",
    remedy: "restore it from a backup; or delete it, after which talkback that has not expired may be heard again",
};

/// How a talkback ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The loudspeaker played it to its last sample.
    Heard,
    /// It was kept, and could not be heard.
    Kept,
}

/// The last talkback of a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TalkedMark {
    /// Which: a later run of the station has a higher epoch, a later talkback of a run a higher sequence.
    pub id: ClipId,
    /// What became of it; `None` until that is known.
    pub end: Option<End>,
}

impl TalkedMark {
    /// Whether a talkback may be heard after this one: a later one always, the same one until its end.
    pub fn admits(&self, id: ClipId) -> bool {
        id > self.id || (id == self.id && self.end.is_none())
    }
}

/// The marks of all stations that have talked back, by their key in hex; in open mode by name, and in memory only.
#[derive(Debug)]
pub struct Talked {
    folder: Option<StateFolder>,
    marks: BTreeMap<String, TalkedMark>,
}

impl Talked {
    /// Reads the file, if there is a folder; there may be none yet.
    ///
    /// # Errors
    /// Those of reading; a damaged file is refused and never taken for an empty one.
    pub fn open(folder: Option<&StateFolder>) -> Result<Self, KeysError> {
        let body = folder.map(|folder| TALKED.read(folder)).transpose()?.flatten();
        let lines = body.iter().flat_map(|body| body.lines());
        let marks: Option<BTreeMap<_, _>> = lines.map(parse).collect();
        let marks = match (marks, folder) {
            (Some(marks), _) => marks,
            (None, Some(folder)) => return Err(TALKED.damaged(folder, "a line is not a mark")),
            (None, None) => BTreeMap::new(),
        };
        Ok(Self { folder: folder.cloned(), marks })
    }

    /// The last talkback of a station.
    pub fn mark(&self, station: &str) -> Option<TalkedMark> {
        self.marks.get(station).copied()
    }

    /// Moves a station's mark, in memory only; never back. Whether it was moved: [`Self::draft`] is to be written then.
    pub fn advance(&mut self, station: &str, mark: TalkedMark) -> bool {
        if self.mark(station).is_some_and(|was| was == mark || !was.admits(mark.id)) {
            return false;
        }
        self.marks.insert(station.to_owned(), mark);
        true
    }

    /// The next content of the file; none in open mode.
    pub fn draft(&self) -> Option<TalkedDraft> {
        let folder = self.folder.clone()?;
        Some(TalkedDraft { folder, body: self.body() })
    }

    fn body(&self) -> String {
        let mut body = String::with_capacity(self.marks.len() * 112);
        for (station, TalkedMark { id: ClipId { epoch, sequence }, end }) in &self.marks {
            let end = match end {
                None => "begun",
                Some(End::Heard) => "heard",
                Some(End::Kept) => "kept",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(body, "{station} {epoch} {sequence} {end}");
        }
        body
    }
}

/// The next content of the file. Writing it may take as long as the disk likes.
#[derive(Debug)]
pub struct TalkedDraft {
    folder: StateFolder,
    body: String,
}

impl TalkedDraft {
    /// Puts it on the disk.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self) -> Result<(), KeysError> {
        TALKED.write(&self.folder.lock()?, &self.body)
    }
}

fn parse(line: &str) -> Option<(String, TalkedMark)> {
    let mut words = line.split(' ');
    let station = super::StationId::from_hex(words.next()?)?.to_hex();
    let id = ClipId { epoch: words.next()?.parse().ok()?, sequence: words.next()?.parse().ok()? };
    let end = match words.next()? {
        "begun" => None,
        "heard" => Some(End::Heard),
        "kept" => Some(End::Kept),
        _ => return None,
    };
    words.next().is_none().then_some((station, TalkedMark { id, end }))
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
