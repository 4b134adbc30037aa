//! The model of what the operator sees: built from events alone, and drawn by the panel.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sounds::Choice;
use crate::announcer::MAX_LIVE;
use crate::event::Event;
use crate::priority::Priority;
use crate::report;

/// How Space records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// For as long as it is held: the terminal reports its release.
    Held,
    /// From one press to the next: the terminal does not report its release.
    Pressed,
}

impl Space {
    /// Explains this to the operator.
    pub fn explained(self) -> &'static str {
        match self {
            Self::Held => "hold Space while you speak: it is sent when you let go",
            Self::Pressed => {
                "this terminal does not tell when a key is let go: Space starts, and Space again ends and sends it"
            }
        }
    }
}

/// Below this peak, in dB below full scale, nobody is speaking into a working microphone.
const QUIET_DB: f32 = -60.0;
/// At this peak and above, samples are cut off at full scale.
const CLIPPING_DB: f32 = -0.1;
/// How long a recording is quiet before the operator is warned, and how long a warning of clipping stays.
const WARNING_MS: u64 = 1_000;
/// A recording without a report for this long after its end counts as over.
const RECORDING_GRACE: Duration = Duration::from_secs(2);
/// The most lost stations that are remembered, so that an endless series of new names cannot fill the memory.
const MAX_LOST: usize = 200;

/// A station that has been seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Station {
    /// The zones it declared.
    pub zones: Vec<String>,
    /// Why its loudspeaker does not work, if it does not.
    fault: Option<String>,
    /// Why it is gone, and its number in the order of losses, if it is.
    lost: Option<(String, u64)>,
}

/// The progress of the announcement at one station.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// The clip is on its way.
    Receiving,
    /// It has the whole clip.
    Verified,
    /// It has the clip, but another page goes first there.
    Queued,
    /// Its loudspeaker has begun.
    Playing,
    /// It played the clip to the end.
    Played,
    /// It played the clip too far out of step to sound as one with the others, and how far.
    OutOfStep(String),
    /// It refused the clip or did not play it to the end, and why.
    Failed(String),
}

/// A station's state, as shown.
#[derive(Debug, Clone, PartialEq)]
pub enum State<'a> {
    /// It is listening, and is not part of the latest announcement.
    Waiting,
    /// It is part of the latest announcement, at this stage.
    Announced(&'a Stage),
    /// It is listening but cannot play, and why.
    Faulty(&'a str),
    /// It is gone, and why.
    Lost(&'a str),
}

impl State<'_> {
    /// The state in short.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Announced(Stage::Receiving) => "receiving",
            Self::Announced(Stage::Verified) => "verified",
            Self::Announced(Stage::Queued) => "queued",
            Self::Announced(Stage::Playing) => "playing",
            Self::Announced(Stage::Played) => "played",
            Self::Announced(Stage::OutOfStep(_)) => "out of step",
            Self::Announced(Stage::Failed(_)) => "failed",
            Self::Faulty(_) => "faulty",
            Self::Lost(_) => "lost",
        }
    }

    /// What went wrong, if anything did.
    pub fn trouble(&self) -> Option<&str> {
        match self {
            Self::Announced(Stage::Failed(reason) | Stage::OutOfStep(reason)) => Some(reason),
            Self::Faulty(reason) | Self::Lost(reason) => Some(reason),
            _ => None,
        }
    }
}

/// The recording in progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// Whether it is live speech, which stations play while it is spoken.
    pub is_live: bool,
    /// How long it can be, in milliseconds.
    pub length_ms: u64,
    /// The time left to record, in milliseconds.
    pub remaining_ms: u64,
    /// The loudest sample lately, in dB below full scale; `None` before the first.
    pub peak_db: Option<f32>,
    heard_at_ms: u64,
    clipped_at_ms: Option<u64>,
    silent_for: Duration,
}

impl Recording {
    fn begun(length_ms: u64) -> Self {
        Self {
            is_live: false,
            length_ms,
            remaining_ms: length_ms,
            peak_db: None,
            heard_at_ms: length_ms,
            clipped_at_ms: None,
            silent_for: Duration::ZERO,
        }
    }

    /// Whether the sound was cut off at full scale within the last second.
    pub fn is_clipping(&self) -> bool {
        self.clipped_at_ms.is_some_and(|at_ms| at_ms.saturating_sub(self.remaining_ms) < WARNING_MS)
    }

    /// Whether nothing has been heard for a second.
    pub fn is_quiet(&self) -> bool {
        self.heard_at_ms.saturating_sub(self.remaining_ms) >= WARNING_MS
    }
}

/// The latest announcement.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    clip: String,
    /// The clip's length; zero when it is unknown.
    pub length: Duration,
    /// Its stage at each station.
    pub stages: BTreeMap<String, Stage>,
    /// The fraction that is sent, up to 1.0, and the time until all stations have it; `None` while sending is quick.
    pub sent: Option<(f64, Duration)>,
    /// How long it has been playing at any station.
    pub playing_for: Duration,
    /// Whether the verdict is known.
    pub is_done: bool,
}

impl Page {
    /// The number of stations that play or have played, and the number that have the clip.
    pub fn counts(&self) -> (usize, usize) {
        let plays = |stage: &&Stage| matches!(stage, Stage::Playing | Stage::Played | Stage::OutOfStep(_));
        let playing = self.stages.values().filter(plays);
        let verified = self.stages.values().filter(|stage| matches!(stage, Stage::Verified | Stage::Queued));
        let playing = playing.count();
        (playing, playing + verified.count())
    }
}

/// The last verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The verdict in words.
    pub sentence: String,
    /// Whether there was a station that should have played, and all such stations played in step.
    pub is_good: bool,
}

/// A clip that is reviewed before it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// How long it is.
    pub length: Duration,
    /// The loudspeaker on which it is heard.
    pub monitor: String,
}

/// Everything the panel shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// The address that the announcer listens on.
    pub address: Option<String>,
    /// Every station that was seen, by name.
    pub stations: BTreeMap<String, Station>,
    /// The recording in progress.
    pub recording: Option<Recording>,
    /// The clip that is reviewed before it is sent.
    pub review: Option<Review>,
    /// The known zones, in the order of their digits.
    pub zones: Vec<String>,
    /// The zones that are addressed; empty for every station.
    pub addressed: Vec<String>,
    /// The priority of the next announcement.
    pub priority: Priority,
    /// How Space records, if it does.
    pub space: Option<Space>,
    /// Whether there are sounds to choose from.
    pub has_sounds: bool,
    /// The list of sounds, while it is open.
    pub choice: Option<Choice>,
    /// The latest announcement.
    pub page: Option<Page>,
    /// The last verdict.
    pub verdict: Option<Verdict>,
    /// Whether the operator has asked to leave.
    pub is_leaving: bool,
    /// Whether colour may be used.
    pub has_colour: bool,
    recorded: Option<(String, Duration)>,
    times_lost: u64,
}

impl View {
    /// Creates a view in which nothing has happened yet.
    pub fn new(has_colour: bool) -> Self {
        Self { has_colour, ..Self::default() }
    }

    /// Applies one event. Events may come in any order.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Listening { address } => self.address = Some(address.clone()),
            Event::StationJoined { station, zones, .. } => {
                let fault = self.stations.remove(station).and_then(|station| station.fault);
                self.stations.insert(station.clone(), Station { zones: zones.clone(), fault, lost: None });
            }
            Event::StationLeft { station, reason } => self.lose(station, reason),
            Event::StationFaulty { station, reason } => {
                if let Some(station) = self.stations.get_mut(station) {
                    station.fault = Some(reason.clone());
                }
            }
            Event::StationHealthy { station } => {
                if let Some(station) = self.stations.get_mut(station) {
                    station.fault = None;
                }
            }
            Event::Recording { length_ms, .. } => {
                self.recording = Some(Recording::begun(*length_ms));
            }
            Event::LiveStarted { clip, stations, .. } => {
                let remaining_ms = MAX_LIVE.as_millis() as u64;
                self.recording = Some(Recording { is_live: true, ..Recording::begun(remaining_ms) });
                for station in stations {
                    self.page(clip).stages.entry(station.clone()).or_insert(Stage::Receiving);
                }
            }
            Event::LiveEnded { .. } => self.recording = None,
            Event::LivePlayed { clip, station, outcome, blocks, played, off_us, uncertainty_us, .. } => {
                let out_of_step = report::out_of_step(*off_us, *uncertainty_us);
                let stage = match out_of_step {
                    _ if !outcome.is_played() => {
                        Stage::Failed(format!("it heard {played} of {blocks} blocks"))
                    }
                    Some(words) => Stage::OutOfStep(words),
                    None => Stage::Played,
                };
                self.advance(clip, station, stage);
            }
            Event::Level { remaining_ms, peak_db } => self.measure(*remaining_ms, *peak_db),
            Event::Cancelled => (self.recording, self.review) = (None, None),
            Event::Reviewing { length_ms, monitor, .. } => {
                self.recording = None;
                let length = Duration::from_millis(*length_ms);
                self.review = Some(Review { length, monitor: monitor.clone() });
            }
            Event::Zones { known, addressed } => {
                self.zones.clone_from(known);
                self.addressed.clone_from(addressed);
            }
            Event::Recorded { clip, length_ms, .. } => {
                (self.recording, self.review) = (None, None);
                self.recorded = Some((clip.clone(), Duration::from_millis(*length_ms)));
            }
            Event::Sending { clip, stations } => {
                for station in stations {
                    self.page(clip).stages.entry(station.clone()).or_insert(Stage::Receiving);
                }
            }
            Event::Progress { clip, sent_bytes, total_bytes, left_ms, .. } => {
                if let Some(page) = self.page.as_mut().filter(|page| page.clip == *clip) {
                    let share = *sent_bytes as f64 / (*total_bytes).max(1) as f64;
                    page.sent = Some((share, Duration::from_millis(*left_ms)));
                }
            }
            Event::Verified { clip, station } => self.advance(clip, station, Stage::Verified),
            Event::Playing { clip, station } => self.advance(clip, station, Stage::Playing),
            Event::Queued { clip, station, .. } => self.advance(clip, station, Stage::Queued),
            Event::Priority { priority } => self.priority = *priority,
            Event::Played { clip, station, off_us, uncertainty_us, .. } => {
                let out_of_step = report::out_of_step(*off_us, *uncertainty_us);
                self.advance(clip, station, out_of_step.map_or(Stage::Played, Stage::OutOfStep));
            }
            Event::Rejected { clip, station, reason } | Event::Failed { clip, station, reason, .. } => {
                self.advance(clip, station, Stage::Failed(reason.clone()));
            }
            Event::Done { clip, played, expected, missing, out_of_step, .. } => {
                self.verdict = Some(Verdict {
                    sentence: report::verdict(event).unwrap_or_default(),
                    is_good: *expected > 0 && played >= expected && out_of_step.is_empty(),
                });
                if let Some(page) = self.page.as_mut().filter(|page| page.clip == *clip) {
                    page.is_done = true;
                    for missing in missing {
                        page.stages.insert(missing.station.clone(), Stage::Failed(missing.reason.clone()));
                    }
                }
            }
            Event::Connected { .. }
            | Event::Waiting { .. }
            | Event::Warning { .. }
            | Event::Volume { .. }
            | Event::MicrophoneFaulty { .. }
            | Event::MicrophoneHealthy { .. }
            | Event::TalkbackSending { .. }
            | Event::TalkbackReceived { .. }
            | Event::TalkbackHeard { .. }
            | Event::TalkbackKept { .. }
            | Event::TalkbackRefused { .. } => {}
        }
    }

    /// Lets time pass: advances the page that is playing, and drops a recording that no longer reports.
    pub fn tick(&mut self, elapsed: Duration) {
        if let Some(page) = &mut self.page
            && page.stages.values().any(|stage| *stage == Stage::Playing)
        {
            page.playing_for = (page.playing_for + elapsed).min(page.length);
        }
        if let Some(recording) = &mut self.recording {
            recording.silent_for += elapsed;
            let end = Duration::from_millis(recording.remaining_ms) + RECORDING_GRACE;
            if recording.silent_for > end {
                self.recording = None;
            }
        }
    }

    /// Whether the panel changes with time alone.
    pub fn is_moving(&self) -> bool {
        self.recording.is_some()
            || self
                .page
                .as_ref()
                .is_some_and(|page| page.stages.values().any(|stage| *stage == Stage::Playing))
    }

    /// The state of a station.
    pub fn state<'a>(&'a self, name: &str, station: &'a Station) -> State<'a> {
        if let Some((reason, _)) = &station.lost {
            return State::Lost(reason);
        }
        let stage = self.page.as_ref().and_then(|page| page.stages.get(name));
        let is_busy =
            matches!(stage, Some(Stage::Receiving | Stage::Verified | Stage::Queued | Stage::Playing));
        if let (Some(fault), false) = (&station.fault, is_busy) {
            return State::Faulty(fault);
        }
        match stage {
            Some(stage) => State::Announced(stage),
            None => State::Waiting,
        }
    }

    /// The number of stations that are listening.
    pub fn listening(&self) -> usize {
        self.stations.values().filter(|station| station.lost.is_none()).count()
    }

    fn lose(&mut self, name: &str, reason: &str) {
        self.times_lost += 1;
        let lost = Some((reason.to_owned(), self.times_lost));
        match self.stations.get_mut(name) {
            Some(station) => station.lost = lost,
            None => {
                self.stations.insert(name.to_owned(), Station { zones: Vec::new(), fault: None, lost });
            }
        }
        if self.stations.len() - self.listening() > MAX_LOST {
            let lost =
                self.stations.iter().filter_map(|(name, station)| Some((station.lost.as_ref()?.1, name)));
            if let Some(name) = lost.min().map(|(_, name)| name.clone()) {
                self.stations.remove(&name);
            }
        }
    }

    fn measure(&mut self, remaining_ms: u64, peak_db: f32) {
        let Some(recording) = &mut self.recording else { return };
        recording.remaining_ms = remaining_ms;
        recording.peak_db = Some(peak_db);
        recording.silent_for = Duration::ZERO;
        if peak_db > QUIET_DB {
            recording.heard_at_ms = remaining_ms;
        }
        if peak_db >= CLIPPING_DB {
            recording.clipped_at_ms = Some(remaining_ms);
        }
    }

    /// Returns the page of a clip, which replaces the page of an earlier clip.
    fn page(&mut self, clip: &str) -> &mut Page {
        if self.page.as_ref().is_some_and(|page| page.clip != clip) {
            self.page = None;
        }
        let recorded = self.recorded.as_ref().filter(|(recorded, _)| recorded == clip);
        let length = recorded.map_or(Duration::ZERO, |&(_, length)| length);
        self.page.get_or_insert_with(|| Page {
            clip: clip.to_owned(),
            length,
            stages: BTreeMap::new(),
            sent: None,
            playing_for: Duration::ZERO,
            is_done: false,
        })
    }

    /// Moves a station to a new stage, unless it has played. Events of an earlier clip appear only in the history.
    fn advance(&mut self, clip: &str, station: &str, stage: Stage) {
        if let Some(page) = self.page.as_mut().filter(|page| page.clip == clip)
            && !matches!(page.stages.get(station), Some(Stage::Played | Stage::OutOfStep(_)))
        {
            page.stages.insert(station.to_owned(), stage);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
