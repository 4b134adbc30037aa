//! Compares the outcomes that the announcer reports for its clips with what every station reports that it played.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Events of one part of a building, run after run: a part that was killed and started again has several.
pub type Runs = Vec<Vec<Value>>;

/// The result of judging.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Clips that were accepted.
    pub clips: usize,
    /// How often each outcome was reported.
    pub outcomes: BTreeMap<String, usize>,
    /// Outcomes that the announcer was killed too soon to print, of clips that the station reports as played.
    pub unprinted: usize,
    /// Clips that a station began more than once, and that were marked as such.
    pub again: usize,
    /// Everything that must not happen, in one sentence each.
    pub faults: Vec<String>,
}

/// Judges a whole run. The events are those that `--events json` prints. Only a part that has several runs can have
/// been killed between an act and the line that reports it.
pub fn judge(announcer: &Runs, stations: &BTreeMap<String, Runs>) -> Judgement {
    let mut judgement = Judgement::default();
    let accepted: BTreeSet<String> = texts(announcer, "recorded", "clip").collect();
    judgement.clips = accepted.len();
    for clip in &accepted {
        let meant = of(announcer, clip)
            .filter(|event| event["event"] == "sending")
            .flat_map(|event| event["stations"].as_array().cloned().unwrap_or_default())
            .filter_map(|name| name.as_str().map(str::to_owned));
        let meant: BTreeSet<String> = meant.collect();
        if meant.is_empty() && !stations.is_empty() {
            judgement.faults.push(format!("{clip} was accepted, and sent to nobody"));
        }
        for name in &meant {
            match stations.get(name) {
                Some(runs) => judgement.judge_one(announcer, runs, clip, name),
                None => judgement.faults.push(format!("{clip} is for {name}, of which nothing is known")),
            }
        }
    }
    for (name, runs) in stations {
        let ends: Vec<(u64, u64)> = texts(runs, "played", "clip").map(|clip| number(&clip)).collect();
        if !ends.is_sorted() {
            judgement.faults.push(format!("{name} played clips out of order: {ends:x?}"));
        }
        for clip in texts(runs, "played", "clip").filter(|clip| !accepted.contains(clip)) {
            // The announcer might be killed after a clip is on the disk and before it reports that.
            if announcer.len() == 1 {
                judgement.faults.push(format!("{name} played {clip}, which nobody announced"));
            }
        }
    }
    judgement
}

impl Judgement {
    fn judge_one(&mut self, announcer: &Runs, station: &Runs, clip: &str, name: &str) {
        let mut fault = |words: &str| self.faults.push(format!("{clip} at {name}: {words}"));
        let is_last_word = |event: &&Value| {
            matches!(event["event"].as_str(), Some("played" | "failed")) && event["station"] == name
        };
        for run in announcer {
            let told = run.iter().filter(|event| event["clip"] == clip).filter(is_last_word).count();
            if told > 1 {
                fault(&format!("{told} outcomes in one run"));
            }
        }
        let told: Vec<&Value> = of(announcer, clip).filter(is_last_word).collect();
        let heard_whole: Vec<&Value> = of(station, clip).filter(|event| event["event"] == "played").collect();
        let begun = of(station, clip).filter(|event| event["event"] == "playing").count();
        if heard_whole.len() > 1 {
            fault(&format!("played to its end {} times", heard_whole.len()));
        }
        let kinds: BTreeSet<&str> = told.iter().filter_map(|event| event["outcome"].as_str()).collect();
        let was_heard: BTreeSet<bool> = kinds.iter().map(|kind| kind.starts_with("played")).collect();
        if was_heard.len() > 1 {
            fault(&format!("contradicting outcomes {kinds:?}"));
        }
        match (told.first(), heard_whole.first()) {
            (None, Some(_)) if announcer.len() > 1 => self.unprinted += 1,
            (None, _) => fault("no outcome was told, and nothing proves that it was heard"),
            (Some(told), None) if told["event"] == "played" && station.len() == 1 => {
                fault("the announcer says that it was played, and the station does not");
            }
            (Some(told), Some(_)) if told["event"] == "failed" => {
                fault(&format!("it was played, and the announcer says {}", told["outcome"]));
            }
            _ => (),
        }
        let is_marked = told.iter().chain(&heard_whole).any(|event| event["again"] == true);
        let is_heard = told.iter().any(|event| event["event"] == "played") || !heard_whole.is_empty();
        if begun > 1 && is_heard {
            match is_marked {
                true => self.again += 1,
                false => {
                    self.faults.push(format!("{clip} at {name}: begun {begun} times, and not marked so"))
                }
            }
        }
        if let Some(kind) = told.first().and_then(|event| event["outcome"].as_str()) {
            *self.outcomes.entry(kind.to_owned()).or_default() += 1;
        }
    }
}

fn of<'a>(runs: &'a Runs, clip: &'a str) -> impl Iterator<Item = &'a Value> {
    runs.iter().flatten().filter(move |event| event["clip"] == clip)
}

fn texts<'a>(runs: &'a Runs, name: &'a str, field: &'a str) -> impl Iterator<Item = String> + 'a {
    let events = runs.iter().flatten().filter(move |event| event["event"] == name);
    events.filter_map(move |event| event[field].as_str().map(str::to_owned))
}

/// A clip's id as its two numbers, which sort in order.
fn number(clip: &str) -> (u64, u64) {
    let (epoch, sequence) = clip.split_once('-').unwrap();
    (u64::from_str_radix(epoch, 16).unwrap(), sequence.parse().unwrap())
}
