//! The content of the archives, compared with what was reported and what sounded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bullhorn::clip::hex;
use bullhorn::event::Outcome;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::oracle::{Entry, Fact};

/// The content of an archive.
#[derive(Debug, Default)]
pub struct Papers {
    /// The clips that were archived, and the hash of each one's file if it is right.
    clips: BTreeMap<String, Option<String>>,
    /// Clip, station and outcome of each line.
    pub outcomes: Vec<(String, String, Outcome)>,
    /// The number of lines that are not valid.
    torn: usize,
}

impl Papers {
    pub fn read(folder: &Path) -> Self {
        let mut papers = Self::default();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|kind| kind == "jsonl") {
                for line in fs::read_to_string(&path).unwrap().lines() {
                    papers.take(folder, line);
                }
            }
        }
        papers
    }

    fn take(&mut self, folder: &Path, line: &str) {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            self.torn += 1;
            return;
        };
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        match line["what"].as_str() {
            Some("announcement") => {
                let file = fs::read(folder.join(text("file"))).ok();
                let sha256 =
                    file.map(|file| hex(&Sha256::digest(file))).filter(|found| *found == text("sha256"));
                self.clips.insert(text("clip"), sha256);
            }
            Some("outcome") => {
                let outcome = serde_json::from_value(line["outcome"].clone()).unwrap();
                self.outcomes.push((text("clip"), text("station"), outcome));
            }
            _ => self.torn += 1,
        }
    }
}

/// Everything that is wrong with the archives of the announcer and of each station, in that order.
pub fn judge(archives: &[Papers], entries: &[Entry]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (machine, papers) in archives.iter().enumerate() {
        if papers.torn > 0 {
            wrong.push(format!("the archive of {machine} has {} torn lines", papers.torn));
        }
        let files = papers.clips.iter().filter(|(_, sha256)| sha256.is_none());
        files.for_each(|(clip, _)| {
            wrong.push(format!("the archive of {machine} has {clip} without its sound"))
        });
        // In the instant of a crash, something may be reported and not be written down.
        let crashed = |entry: &Entry| {
            let is_near = |it: &&Entry| it.machine == machine && it.at_ms.abs_diff(entry.at_ms) <= 1;
            entries.iter().filter(is_near).any(|it| it.fact == Fact::Crashes)
        };
        let own = || entries.iter().filter(|entry| entry.machine == machine);
        let mut said = BTreeSet::new();
        for entry in own() {
            let (clip, outcome) = match &entry.fact {
                Fact::Ended { clip, station, outcome, .. } => (clip, Some((station.as_str(), *outcome))),
                Fact::Sounded { clip, .. } => (clip, None),
                Fact::Recorded { clip, .. } | Fact::Begins { clip } => {
                    if !papers.clips.contains_key(clip) && !crashed(entry) {
                        wrong.push(format!("the archive of {machine} lacks {clip}"));
                    }
                    continue;
                }
                _ => continue,
            };
            said.insert((clip.as_str(), outcome.map(|(station, outcome)| (station, outcome.words()))));
            let is_it = |(of, at, found): &(String, String, Outcome)| match outcome {
                Some((station, outcome)) => of == clip && at == station && *found == outcome,
                None => of == clip && found.is_played(),
            };
            if !papers.outcomes.iter().any(is_it) && !crashed(entry) {
                wrong.push(format!("the archive of {machine} lacks what became of {clip}: {:?}", entry.fact));
            }
        }
        for (clip, station, outcome) in &papers.outcomes {
            let key = match machine {
                0 => Some((station.as_str(), outcome.words())),
                _ => None,
            };
            if (machine == 0 || outcome.is_played()) && !said.contains(&(clip.as_str(), key)) {
                wrong.push(format!(
                    "the archive of {machine} says of {clip} at {station} {outcome:?}: who said so?"
                ));
            }
        }
    }
    wrong
}

mod tests {
    use super::*;

    fn at(machine: usize, fact: Fact) -> Entry {
        Entry { at_ms: 1_000, machine, fact }
    }

    fn said() -> Vec<Entry> {
        let (clip, station) = ("6b-1".to_owned(), "a".to_owned());
        vec![
            at(0, Fact::Recorded { clip: clip.clone(), sha256: "aa".into(), zones: vec![] }),
            at(1, Fact::Begins { clip: clip.clone() }),
            at(1, Fact::Sounded { clip: clip.clone(), sha256: Some("aa".into()) }),
            at(0, Fact::Ended { clip, station, outcome: Outcome::Played, again: false }),
        ]
    }

    fn papers() -> Papers {
        Papers {
            clips: [("6b-1".to_owned(), Some("aa".to_owned()))].into(),
            outcomes: vec![("6b-1".into(), "a".into(), Outcome::Played)],
            torn: 0,
        }
    }

    #[test]
    fn what_is_missing_or_too_much_on_paper_is_found() {
        assert_eq!(judge(&[papers(), papers()], &said()), Vec::<String>::new());
        type Change = fn(&mut Papers);
        let changes: [(&str, Change); 5] = [
            ("lacks what became of", |it| it.outcomes.clear()),
            ("lacks 6b-1", |it| it.clips.clear()),
            ("who said so", |it| it.outcomes.push(("6b-2".into(), "a".into(), Outcome::Played))),
            ("without its sound", |it| drop(it.clips.insert("6b-1".into(), None))),
            ("torn", |it| it.torn = 1),
        ];
        for (words, change) in changes {
            for machine in [0, 1] {
                let mut archives = [papers(), papers()];
                change(&mut archives[machine]);
                let found = judge(&archives, &said());
                assert!(found.iter().any(|wrong| wrong.contains(words)), "{words}: {found:?}");
            }
        }
    }

    #[test]
    fn only_in_the_instant_of_a_crash_something_may_be_missing() {
        let mut entries = said();
        entries.push(at(0, Fact::Crashes));
        let archives = [Papers::default(), papers()];
        assert_eq!(judge(&archives, &entries), Vec::<String>::new());
        entries[4].at_ms = 1_002;
        assert_eq!(judge(&archives, &entries).len(), 2);
    }
}
