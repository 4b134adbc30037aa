//! What must hold, whatever happened: judged by what the announcer reported, in all its runs, and by what sounded at
//! each station.

use std::collections::{BTreeMap, BTreeSet};

use bullhorn::event::Outcome;

use crate::network::Machine;

/// How far apart the announcer's and a station's readings of the time may be: a round trip, and a tick of the timer.
const SLACK_MS: u64 = 2_500;
/// A wall clock that was set by less than this is not followed.
const SMALL_STEP_MS: i64 = 1_000;
/// How long an announcer takes to notice that its wall clock was set, and to correct the dates of what is on the disk.
const REDATING_MS: u64 = 2_000;
/// If a run of the announcer ended longer ago than this, no station still waits for an instant that it named.
const LONGEST_AHEAD_MS: u64 = 300_000;

/// Something that happened on a machine.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// The announcer begins a run, with this on its wall clock.
    Starts { wall_ms: u64 },
    /// The wall clock is set, whether the announcer runs or not.
    Steps { by_ms: i64 },
    /// The run ends without a warning.
    Crashes,
    /// The announcer has accepted a clip.
    Recorded { clip: String, sha256: String, zones: Vec<String> },
    /// The announcer names the stations that the clip is for.
    Sending { clip: String, stations: Vec<String> },
    /// The announcer reports the outcome at a station.
    Ended { clip: String, station: String, outcome: Outcome, again: bool },
    /// The announcer reports the verdict.
    Verdict { clip: String, played: usize, expected: usize },
    /// A station's loudspeaker begins to play.
    Begins { clip: String },
    /// A station's loudspeaker has come to the end; with the hash of what it played, if there is anything.
    Sounded { clip: String, sha256: Option<String> },
}

/// What happened, when and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub at_ms: u64,
    pub machine: Machine,
    pub fact: Fact,
}

/// How the simulation was set up.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Names of the stations, which are machines 1, 2, …
    pub stations: Vec<String>,
    /// The zones of each station.
    pub zones: Vec<Vec<String>>,
    /// How long a clip lives.
    pub life_ms: u64,
}

impl Setting {
    /// The stations that a clip for these zones is for.
    pub fn meant(&self, zones: &[String]) -> BTreeSet<&str> {
        let is_meant = |of: &[String]| zones.is_empty() || zones.iter().any(|zone| of.contains(zone));
        let both = self.stations.iter().zip(&self.zones);
        both.filter(|(_, of)| is_meant(of)).map(|(station, _)| station.as_str()).collect()
    }

    /// The same if only the stations that the announcer named are known: they must be exactly those of a zone, or all.
    fn meant_by(&self, named: &BTreeSet<&str>) -> Option<BTreeSet<&str>> {
        let zones = self.zones.iter().flatten().map(|zone| vec![zone.clone()]);
        zones.chain([vec![]]).map(|zones| self.meant(&zones)).find(|meant| meant == named)
    }
}

#[derive(Default)]
struct Played {
    begun_ms: Vec<u64>,
    ends_ms: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Run {
    from_ms: u64,
    until_ms: u64,
    /// How far its wall clock was ahead of the simulation's, at the start and after each time that it was set.
    ahead_ms: Vec<(u64, i64)>,
}

impl Run {
    /// How far ahead the clips that it left are dated, at most: it might have ended before it could correct their dates.
    fn left_ahead_ms(&self) -> i64 {
        let last = self.ahead_ms.partition_point(|(since, _)| *since + REDATING_MS < self.until_ms).max(1);
        let most = self.ahead_ms.iter().skip(last - 1).map(|(_, ahead)| *ahead).max().unwrap_or_default();
        if self.ahead_ms.len() > 1 { most + SMALL_STEP_MS } else { most }
    }
}

/// Everything that is wrong; empty if all is well.
pub fn judge(setting: &Setting, entries: &[Entry]) -> Vec<String> {
    let mut wrong = Vec::new();
    let runs = runs(entries);
    let mut clips: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        if let Some(clip) = clip_of(&entry.fact) {
            clips.entry(clip).or_default().push(entry);
        }
    }
    for (clip, about) in &clips {
        judge_clip(setting, clip, about, entries, &runs, &mut wrong);
    }
    for (index, station) in setting.stations.iter().enumerate() {
        judge_order(index + 1, station, entries, &mut wrong);
    }
    wrong
}

fn clip_of(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::Starts { .. } | Fact::Steps { .. } | Fact::Crashes => None,
        Fact::Recorded { clip, .. }
        | Fact::Sending { clip, .. }
        | Fact::Ended { clip, .. }
        | Fact::Verdict { clip, .. }
        | Fact::Begins { clip }
        | Fact::Sounded { clip, .. } => Some(clip),
    }
}

fn runs(entries: &[Entry]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.machine == 0) {
        if let Fact::Starts { wall_ms } = entry.fact {
            if let Some(last) = runs.last_mut() {
                last.until_ms = entry.at_ms;
            }
            let ahead_ms = vec![(entry.at_ms, wall_ms as i64 - entry.at_ms as i64)];
            runs.push(Run { from_ms: entry.at_ms, until_ms: u64::MAX, ahead_ms });
        }
        if let (Fact::Steps { by_ms }, Some(run)) = (&entry.fact, runs.last_mut()) {
            let ahead = run.ahead_ms.last().map_or(0, |(_, ahead)| *ahead);
            run.ahead_ms.push((entry.at_ms, ahead + by_ms));
        }
    }
    runs
}

fn judge_clip(
    setting: &Setting,
    clip: &str,
    about: &[&Entry],
    entries: &[Entry],
    runs: &[Run],
    wrong: &mut Vec<String>,
) {
    let made = about.iter().find(|it| matches!(it.fact, Fact::Recorded { .. } | Fact::Sending { .. }));
    let Some(made_ms) = made.map(|it| it.at_ms) else {
        return wrong.push(format!("{clip} came from nowhere"));
    };
    let sha256 = about.iter().find_map(|it| match &it.fact {
        Fact::Recorded { sha256, .. } => Some(sha256.as_str()),
        _ => None,
    });
    let zones = about.iter().find_map(|it| match &it.fact {
        Fact::Recorded { zones, .. } => Some(zones),
        _ => None,
    });
    let asked: BTreeSet<&str> = about
        .iter()
        .filter_map(|it| match &it.fact {
            Fact::Sending { stations, .. } => Some(stations),
            _ => None,
        })
        .flatten()
        .map(String::as_str)
        .collect();
    let meant = match zones {
        Some(zones) => setting.meant(zones),
        // The announcer crashed before it could report the recording.
        None => setting.meant_by(&asked).unwrap_or_default(),
    };
    if asked != meant {
        wrong.push(format!("{clip} is for {asked:?}, not for {meant:?}"));
    }
    for entry in about {
        if let Fact::Verdict { expected, .. } = &entry.fact
            && *expected != meant.len()
        {
            wrong.push(format!("{clip}: the verdict is on {expected} stations, and it is for {meant:?}"));
        }
    }
    let verdicts: Vec<u64> =
        about.iter().filter(|it| matches!(it.fact, Fact::Verdict { .. })).map(|it| it.at_ms).collect();
    once(&format!("{clip}: the verdict"), &verdicts, entries, wrong);
    for (index, station) in setting.stations.iter().enumerate() {
        let name = format!("{clip} at {station}");
        let mut played = Played::default();
        for entry in about.iter().filter(|entry| entry.machine == index + 1) {
            match &entry.fact {
                Fact::Begins { .. } => played.begun_ms.push(entry.at_ms),
                Fact::Sounded { sha256: sounded, .. } => {
                    played.ends_ms.push(entry.at_ms);
                    if sounded.is_none() || sha256.is_some() && sounded.as_deref() != sha256 {
                        wrong.push(format!("{name}: what sounded is not what was recorded: {sounded:?}"));
                    }
                }
                _ => (),
            }
        }
        if !meant.contains(station.as_str()) {
            let is_of_it =
                |it: &&&Entry| matches!(&it.fact, Fact::Ended { station: of, .. } if of == station);
            if !played.begun_ms.is_empty()
                || !played.ends_ms.is_empty()
                || about.iter().any(|it| is_of_it(&it))
            {
                wrong.push(format!("{name}: it is for {meant:?}"));
            }
            continue;
        }
        judge_playing(&name, &played, made_ms, setting.life_ms, runs, wrong);
        let ended = about.iter().filter_map(|it| match &it.fact {
            Fact::Ended { station: of, outcome, again, .. } if of == station => {
                Some((it.at_ms, *outcome, *again))
            }
            _ => None,
        });
        let ended: Vec<_> = ended.collect();
        judge_outcome(&name, &ended, &played, entries, wrong);
    }
}

/// Checks that something was reported once. Only in the instant of a crash may it be reported without being written
/// down; it is then reported once more.
fn once(what: &str, said_ms: &[u64], entries: &[Entry], wrong: &mut Vec<String>) {
    let Some((_, before)) = said_ms.split_last() else {
        return wrong.push(format!("{what} was never given"));
    };
    let crashed = |at_ms: u64| {
        entries.iter().any(|it| it.machine == 0 && it.fact == Fact::Crashes && it.at_ms.abs_diff(at_ms) <= 1)
    };
    if !before.iter().all(|at_ms| crashed(*at_ms)) {
        wrong.push(format!("{what} was given more than once, at {said_ms:?}"));
    }
}

fn judge_playing(
    name: &str,
    played: &Played,
    made_ms: u64,
    life_ms: u64,
    runs: &[Run],
    wrong: &mut Vec<String>,
) {
    if played.ends_ms.len() > 1 {
        wrong.push(format!(
            "{name}: played to its end {} times, at {:?}",
            played.ends_ms.len(),
            played.ends_ms
        ));
    }
    if let Some(end) = played.ends_ms.first()
        && played.begun_ms.iter().any(|begun| begun > end)
    {
        wrong
            .push(format!("{name}: begun at {:?}, and had been played to its end at {end}", played.begun_ms));
    }
    let Some(made_in) = runs.iter().rposition(|run| run.from_ms <= made_ms) else {
        return wrong.push(format!("{name}: made when no announcer ran"));
    };
    // Setting the clock neither shortens nor prolongs a life, unless it is set between two runs: a run knows only from
    // their dates how long the clips that it finds have left.
    let mut expires_ms = (made_ms + life_ms) as i64;
    let mut runs = runs[made_in..].iter().peekable();
    let mut lives = Vec::new();
    while let Some(run) = runs.next() {
        lives.push((run, expires_ms));
        if let Some((_, ahead_ms)) = runs.peek().and_then(|next| next.ahead_ms.first()) {
            expires_ms += run.left_ahead_ms() - ahead_ms;
        }
    }
    for begun in &played.begun_ms {
        // A station follows the clock of the run that sent it the clip, which might be over by now.
        let mut lately = lives.iter().filter(|(run, _)| {
            run.from_ms <= *begun && run.until_ms.saturating_add(LONGEST_AHEAD_MS) >= *begun
        });
        let begun_ms = *begun as i64;
        if !lately.any(|(_, expires_ms)| begun_ms < expires_ms + SLACK_MS as i64) {
            wrong.push(format!("{name}: begun at {begun}, made at {made_ms}, and had expired"));
        }
    }
}

fn judge_outcome(
    name: &str,
    ended: &[(u64, Outcome, bool)],
    played: &Played,
    entries: &[Entry],
    wrong: &mut Vec<String>,
) {
    let said_ms: Vec<u64> = ended.iter().map(|(at_ms, ..)| *at_ms).collect();
    once(&format!("{name}: the outcome"), &said_ms, entries, wrong);
    for (at_ms, outcome, again) in ended {
        let sounded = played.ends_ms.first().is_some_and(|end| end <= at_ms);
        if outcome.is_played() != sounded {
            let what = if sounded { "was" } else { "was not" };
            wrong.push(format!("{name}: it ended as {}, but {what} played to its end", outcome.words()));
        }
        let tries = played.begun_ms.iter().filter(|begun| *begun <= at_ms).count();
        if outcome.is_played() && tries > 1 && !again {
            wrong.push(format!("{name}: played at try {tries}, and not marked as heard before"));
        }
        if *outcome == Outcome::Interrupted && tries == 0 {
            wrong.push(format!("{name}: it ended as interrupted, and had never begun"));
        }
        if matches!(outcome, Outcome::Missed | Outcome::Rejected) && tries > 0 {
            wrong.push(format!("{name}: it ended as {}, but had begun", outcome.words()));
        }
    }
    if ended.windows(2).any(|two| two[0].1.is_played() != two[1].1.is_played()) {
        wrong.push(format!("{name}: two outcomes that contradict each other: {ended:?}"));
    }
}

/// The run of the announcer to which a clip belongs, and its number there.
fn place(clip: &str) -> Option<(u64, u64)> {
    let (epoch, sequence) = clip.split_once('-')?;
    Some((u64::from_str_radix(epoch, 16).ok()?, sequence.parse().ok()?))
}

fn judge_order(machine: Machine, station: &str, entries: &[Entry], wrong: &mut Vec<String>) {
    let mut last = None;
    for entry in entries.iter().filter(|entry| entry.machine == machine) {
        let Fact::Begins { clip } = &entry.fact else { continue };
        let place = place(clip);
        if place.is_none() || place < last {
            wrong.push(format!("{clip} at {station}: out of order, after {last:?}"));
        }
        last = last.max(place);
    }
}

mod tests {
    use super::*;

    const CLIP: &str = "6b011df0-1";

    fn setting() -> Setting {
        let zones = vec![vec!["east".into()], vec!["east".into(), "west".into()], vec!["west".into()]];
        Setting { stations: vec!["a".into(), "b".into(), "c".into()], zones, life_ms: 20_000 }
    }

    fn at(at_ms: u64, machine: Machine, fact: Fact) -> Entry {
        Entry { at_ms, machine, fact }
    }

    fn ended(at_ms: u64, station: &str, outcome: Outcome, again: bool) -> Entry {
        at(at_ms, 0, Fact::Ended { clip: CLIP.into(), station: station.into(), outcome, again })
    }

    fn begins(at_ms: u64, machine: Machine) -> Entry {
        at(at_ms, machine, Fact::Begins { clip: CLIP.into() })
    }

    fn sounded(at_ms: u64, machine: Machine) -> Entry {
        at(at_ms, machine, Fact::Sounded { clip: CLIP.into(), sha256: Some("aa".into()) })
    }

    /// One clip to the zone east, played at a, and missed at b.
    fn good() -> Vec<Entry> {
        vec![
            at(0, 0, Fact::Starts { wall_ms: 1_000_000 }),
            at(
                1_000,
                0,
                Fact::Recorded { clip: CLIP.into(), sha256: "aa".into(), zones: vec!["east".into()] },
            ),
            at(1_000, 0, Fact::Sending { clip: CLIP.into(), stations: vec!["a".into(), "b".into()] }),
            begins(2_000, 1),
            sounded(3_000, 1),
            ended(3_010, "a", Outcome::Played, false),
            at(9_000, 0, Fact::Verdict { clip: CLIP.into(), played: 1, expected: 2 }),
            ended(21_000, "b", Outcome::Missed, false),
        ]
    }

    /// The faults found when a good history is changed.
    fn found(change: impl FnOnce(&mut Vec<Entry>)) -> Vec<String> {
        let mut entries = good();
        change(&mut entries);
        entries.sort_by_key(|entry| entry.at_ms);
        judge(&setting(), &entries)
    }

    fn finds(words: &str, change: impl FnOnce(&mut Vec<Entry>)) {
        let found = found(change);
        assert!(found.iter().any(|wrong| wrong.contains(words)), "{words}: {found:?}");
    }

    #[test]
    fn a_good_history_is_good() {
        assert_eq!(found(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn whoever_is_not_meant_must_not_have_it() {
        finds("it is for", |it| it.push(begins(2_000, 3)));
        finds("it is for", |it| it.push(ended(3_000, "c", Outcome::Missed, false)));
        finds("not for", |it| {
            it[2] = at(1_000, 0, Fact::Sending { clip: CLIP.into(), stations: vec!["a".into()] })
        });
        finds("the verdict is on 3 stations", |it| {
            it[6] = at(9_000, 0, Fact::Verdict { clip: CLIP.into(), played: 1, expected: 3 })
        });
        let unsaid = |it: &mut Vec<Entry>| it.retain(|it| !matches!(it.fact, Fact::Recorded { .. }));
        assert_eq!(found(unsaid), Vec::<String>::new());
    }

    #[test]
    fn a_doubled_outcome_is_found() {
        finds("outcome was given more than once", |it| it.push(ended(3_500, "a", Outcome::Played, false)));
        finds("verdict was given more than once", |it| {
            it.push(at(9_500, 0, Fact::Verdict { clip: CLIP.into(), played: 1, expected: 2 }))
        });
    }

    #[test]
    fn only_in_the_instant_of_a_crash_it_may_be_said_again_and_not_otherwise() {
        let crash = |at_ms| at(at_ms, 0, Fact::Crashes);
        let again = |it: &mut Vec<Entry>| it.push(ended(5_000, "a", Outcome::PlayedLate, false));
        let pardoned = found(|it| {
            it.push(crash(3_011));
            again(it);
        });
        assert_eq!(pardoned, Vec::<String>::new());
        finds("more than once", |it| {
            it.push(crash(3_100));
            again(it);
        });
        finds("contradict", |it| {
            it.push(crash(3_010));
            it.push(ended(5_000, "a", Outcome::Missed, false));
        });
    }

    #[test]
    fn a_lost_clip_is_found() {
        finds("outcome was never given", |it| it.retain(|entry| entry.at_ms != 21_000));
        finds("verdict was never given", |it| it.retain(|entry| entry.at_ms != 9_000));
        finds("not for", |it| it.retain(|entry| !matches!(entry.fact, Fact::Sending { .. })));
        finds("came from nowhere", |it| it.retain(|entry| entry.at_ms != 1_000));
    }

    #[test]
    fn what_is_said_to_be_played_and_was_not_is_found() {
        finds("was not played to its end", |it| it.retain(|entry| entry.at_ms != 3_000));
        finds("was not played to its end", |it| it[7] = ended(9_000, "b", Outcome::PlayedLate, false));
        finds("was played to its end", |it| it[5] = ended(3_010, "a", Outcome::Interrupted, false));
        finds("not what was recorded", |it| {
            it[4] = at(3_000, 1, Fact::Sounded { clip: CLIP.into(), sha256: Some("ab".into()) })
        });
        finds("not what was recorded", |it| {
            it[4] = at(3_000, 1, Fact::Sounded { clip: CLIP.into(), sha256: None })
        });
    }

    #[test]
    fn a_repeat_is_found() {
        finds("played to its end 2 times", |it| it.extend([begins(4_000, 1), sounded(5_000, 1)]));
        finds("had been played to its end", |it| it.push(begins(4_000, 1)));
    }

    #[test]
    fn an_unmarked_second_try_is_found() {
        finds("not marked", |it| it.push(begins(1_500, 1)));
        let marked = found(|it| {
            it.push(begins(1_500, 1));
            it[5] = ended(3_010, "a", Outcome::Played, true);
        });
        assert_eq!(marked, Vec::<String>::new());
        finds("had never begun", |it| it[7] = ended(21_000, "b", Outcome::Interrupted, false));
        finds("but had begun", |it| it.push(begins(1_500, 2)));
    }

    #[test]
    fn what_expired_must_not_begin() {
        let late = |it: &mut Vec<Entry>| {
            it.retain(|entry| !matches!(entry.at_ms, 2_000 | 3_000 | 3_010));
            it.extend([
                begins(25_000, 1),
                sounded(26_000, 1),
                ended(26_010, "a", Outcome::PlayedLate, false),
            ]);
        };
        finds("had expired", late);
        // An announcer whose clock was set back meanwhile cannot know that.
        let unknown = found(|it| {
            late(it);
            it.push(at(24_000, 0, Fact::Starts { wall_ms: 1_005_000 }));
        });
        assert_eq!(unknown, Vec::<String>::new());
    }

    #[test]
    fn another_order_is_found() {
        let other = "6b011df0-2";
        let second = |machine, at_ms| at(at_ms, machine, Fact::Begins { clip: other.into() });
        finds("out of order", |it| it.push(second(1, 1_500)));
        let found = found(|it| it.push(second(1, 4_000)));
        assert!(!found.iter().any(|wrong| wrong.contains("out of order")), "{found:?}");
    }
}
