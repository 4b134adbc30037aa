//! One announcement: the clip, and how far each station is with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::REJOIN_GRACE;
use super::pace::Pace;
use crate::clip_cipher::ClipKey;
use crate::event::{self, Event, Missing, OutOfStep, Outcome, is_in_step};
use crate::link::BlockFrames;
use crate::priority::Priority;
use crate::wire::{ClipId, FromAnnouncer, LiveReceipt};

/// The gap between the end of a page and the start for stations that verified too late to be in step.
pub(super) const LATE_GAP: Duration = Duration::from_millis(250);
/// How often the progress of a slow clip is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// A clip ready for the wire, made once and shared by every connection that sends it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The clip's id.
    pub id: ClipId,
    /// Its encoded header.
    pub header: Vec<u8>,
    /// The announcer's signature over it; empty in open mode.
    pub signature: Vec<u8>,
    /// The key that opens the blocks; none in open mode.
    pub key: Option<ClipKey>,
    /// Its block frames.
    pub frames: Arc<BlockFrames>,
    /// How far the transfers have come.
    pub pace: Arc<Pace>,
    /// The length of its sound.
    pub length: Duration,
    /// Its frames of sound, as a receipt must count them.
    pub sound_frames: u64,
    /// How urgent it is.
    pub priority: Priority,
    /// The zones it is for; none means all.
    pub zones: Vec<String>,
}

impl Delivery {
    /// The message that precedes the blocks.
    pub fn message(&self) -> FromAnnouncer {
        let key = self.key.as_ref().map(|key| key.as_bytes().to_vec()).unwrap_or_default();
        FromAnnouncer::Clip { header: self.header.clone(), signature: self.signature.clone(), key }
    }

    /// Whether a station in these zones should play it.
    pub fn is_for(&self, zones: &[String]) -> bool {
        self.zones.is_empty() || self.zones.iter().any(|zone| zones.contains(zone))
    }

    /// Whether some station may be addressed by both.
    pub(super) fn may_meet(&self, other: &Self) -> bool {
        self.zones.is_empty() || other.zones.is_empty() || self.is_for(&other.zones)
    }
}

/// How far one station is with one clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// The station is not connected, or cannot play now; the verdict waits for it until `held_until`.
    Away { held_until: Instant },
    /// The station is connected or about to be, and has not been sent the clip.
    Owed,
    /// The clip is on its way; the transfer is given up at `until`.
    Sent { until: Instant },
    /// The station has the clip and waits to be sent the instant.
    Verified,
    /// The station was ordered to play; a receipt is due by `until`.
    Told { until: Instant },
    /// The outcome, with the reason if the clip was not played.
    Ended(Outcome, String),
}

/// The number of stations at each stage.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub away: usize,
    pub awaited: usize,
    pub verified: usize,
    pub told: usize,
    pub played: usize,
    pub failed: usize,
}

impl Tally {
    fn slot(&mut self, progress: &Progress) -> &mut usize {
        match progress {
            Progress::Away { .. } => &mut self.away,
            Progress::Owed | Progress::Sent { .. } => &mut self.awaited,
            Progress::Verified => &mut self.verified,
            Progress::Told { .. } => &mut self.told,
            Progress::Ended(outcome, _) if outcome.is_played() => &mut self.played,
            Progress::Ended(..) => &mut self.failed,
        }
    }
}

/// One station's part in an announcement.
#[derive(Debug)]
pub(super) struct Recipient {
    pub progress: Progress,
    /// How often it refused the clip.
    pub refusals: u32,
    /// How often it was sent the clip.
    pub sendings: u32,
    /// It began to play once before, and was cut off.
    pub again: bool,
    /// It was ordered to play, and has not been heard from since: it may have played the clip to the end.
    pub unresolved: bool,
    /// Until when the verdict waits for it, once it was lost.
    pub held_until: Option<Instant>,
    /// What last went wrong, for the verdict.
    pub trouble: Option<String>,
    /// When it was last sent the clip.
    pub sent: Option<Instant>,
    /// How long before an instant it must receive that instant.
    pub lead: Duration,
    /// The instant that was last assigned to it; without one, no receipt from it can be true.
    pub told: Option<Instant>,
    /// It has reported, since it was ordered to play, that its loudspeaker has begun.
    pub begun: bool,
    /// It has reported that another page goes first there, and has not begun since.
    pub queued: bool,
    /// It was asked to break the clip off for an emergency, and has not been back since.
    pub yielded: bool,
}

/// How well one station kept time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// The time from the page's instant to its first sample.
    pub late_us: i64,
    /// The farthest that it was out of step.
    pub off_us: i64,
    pub uncertainty_us: u32,
}

impl Timing {
    /// The timing of live speech.
    pub fn of_live(receipt: &LiveReceipt) -> Self {
        let off_us = event::worst_off_us(receipt.start_error_us, receipt.max_error_us);
        Self { late_us: receipt.start_error_us, off_us, uncertainty_us: receipt.uncertainty_us }
    }
}

/// Among the stations in step, the time between the first and the last to begin, and its uncertainty, in µs; `None` for
/// fewer than two.
pub(super) fn spread(timings: &BTreeMap<String, Timing>) -> Option<(u64, u64)> {
    let in_step: Vec<&Timing> =
        timings.values().filter(|timing| is_in_step(timing.off_us, timing.uncertainty_us)).collect();
    let (first, last) =
        (in_step.iter().map(|it| it.late_us).min()?, in_step.iter().map(|it| it.late_us).max()?);
    let mut doubts: Vec<u32> = in_step.iter().map(|timing| timing.uncertainty_us).collect();
    doubts.sort_unstable();
    let doubt = doubts.iter().rev().take(2).copied().map(u64::from).sum();
    (in_step.len() > 1).then(|| (last.abs_diff(first), doubt))
}

/// The stations that played it out of step; sorted by name.
pub(super) fn out_of_step(timings: &BTreeMap<String, Timing>) -> Vec<OutOfStep> {
    let out = timings.iter().filter(|(_, timing)| !is_in_step(timing.off_us, timing.uncertainty_us));
    let out = out.map(|(station, &Timing { off_us, uncertainty_us, .. })| OutOfStep {
        station: station.clone(),
        off_us,
        uncertainty_us,
    });
    out.collect()
}

/// A clip on its way to every station that should play it.
#[derive(Debug)]
pub(super) struct Announcement {
    pub delivery: Arc<Delivery>,
    pub expires: Instant,
    pub recipients: BTreeMap<String, Recipient>,
    pub tally: Tally,
    /// When it was announced, by this run of the announcer.
    pub made: Instant,
    /// An earlier run of the announcer announced it, and may have ordered stations to play it.
    pub is_restored: bool,
    /// When stations play: the first is the page's instant, the others are for stations that were late.
    pub starts: Vec<Instant>,
    /// The first of `starts` was set after the verdict, and is for stations that were away.
    pub begins_late: bool,
    /// Stations that were ordered to play after the others, and have not been heard from since.
    pub late: BTreeSet<String>,
    /// The instant that lateness is counted from, once one was set.
    pub due: Option<Instant>,
    /// The timings of the stations that have played it.
    pub timings: BTreeMap<String, Timing>,
    /// When its progress is checked next. `looked_first` is the time of the first check and the bytes sent by then,
    /// when the sockets' own buffers, which fill in no time, are full.
    pub look_next: Instant,
    pub looked_first: Option<(Instant, u64)>,
    /// How long the slowest transfer took so far.
    pub slowest: Duration,
    /// When the instant is set even if some stations have not verified.
    pub agree_by: Option<Instant>,
    /// The verdict was reported.
    pub settled: bool,
    /// Every outcome is known, and this was reported.
    pub closed: bool,
}

impl Announcement {
    /// Creates the announcement for this number of stations.
    pub fn new(delivery: Delivery, stations: usize, expires: Instant, made: Instant) -> Self {
        Self {
            delivery: Arc::new(Delivery { pace: Pace::among(stations).into(), ..delivery }),
            expires,
            recipients: BTreeMap::new(),
            tally: Tally::default(),
            made,
            is_restored: false,
            starts: Vec::new(),
            begins_late: false,
            late: BTreeSet::new(),
            due: None,
            timings: BTreeMap::new(),
            look_next: made + PROGRESS_INTERVAL,
            looked_first: None,
            slowest: Duration::ZERO,
            agree_by: None,
            settled: false,
            closed: false,
        }
    }

    pub fn add(&mut self, station: String, progress: Progress, trouble: Option<String>) {
        *self.tally.slot(&progress) += 1;
        let recipient = Recipient {
            progress,
            refusals: 0,
            sendings: 0,
            again: false,
            unresolved: false,
            held_until: None,
            trouble,
            sent: None,
            lead: Duration::ZERO,
            told: None,
            begun: false,
            queued: false,
            yielded: false,
        };
        self.recipients.insert(station, recipient);
    }

    pub fn progress(&self, station: &str) -> Option<&Progress> {
        self.recipients.get(station).map(|recipient| &recipient.progress)
    }

    /// Every change of progress goes through here, so that the tally is always right.
    pub fn set(&mut self, station: &str, progress: Progress) {
        if let Some(recipient) = self.recipients.get_mut(station) {
            *self.tally.slot(&recipient.progress) -= 1;
            *self.tally.slot(&progress) += 1;
            if !matches!(progress, Progress::Told { .. }) {
                self.late.remove(station);
            }
            recipient.progress = progress;
        }
    }

    pub fn trouble(&mut self, station: &str, words: &str) {
        if let Some(recipient) = self.recipients.get_mut(station) {
            recipient.trouble = Some(words.to_owned());
        }
    }

    pub fn is_open(&self, station: &str) -> bool {
        self.progress(station).is_some_and(|progress| !matches!(progress, Progress::Ended(..)))
    }

    /// The names whose progress passes the test, sorted.
    pub fn names(&self, test: impl Fn(&Progress) -> bool) -> Vec<String> {
        self.recipients
            .iter()
            .filter(|(_, recipient)| test(&recipient.progress))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether the verdict still waits for a station that is away.
    pub fn is_held(&self, now: Instant) -> bool {
        self.recipients
            .values()
            .any(|r| matches!(r.progress, Progress::Away { held_until } if now < held_until))
    }

    /// The longest lead among these stations.
    pub fn lead(&self, names: &[String]) -> Duration {
        let leads = names.iter().filter_map(|name| Some(self.recipients.get(name)?.lead));
        leads.max().unwrap_or_default()
    }

    /// The page's instant.
    pub fn agreed(&self) -> Option<Instant> {
        self.starts.first().copied()
    }

    /// When the stations in step play: the page's instant, unless it was set after the verdict.
    pub fn joint_start(&self) -> &[Instant] {
        match self.begins_late {
            true => &[],
            false => self.starts.get(..1).unwrap_or_default(),
        }
    }

    /// Records that some stations play at an instant.
    pub fn book(&mut self, at: Instant) {
        if self.starts.is_empty() {
            self.begins_late = self.settled;
        }
        if !self.starts.contains(&at) {
            self.starts.push(at);
        }
    }

    /// Whether it may sound somewhere at this instant or later.
    pub fn sounds_at(&self, instant: Instant) -> bool {
        self.starts.last().is_some_and(|start| instant < *start + self.delivery.length)
    }

    /// The outcome for a station that did not play it to the end.
    pub fn unheard(&self, station: &str) -> Outcome {
        let begun = self.recipients.get(station).is_some_and(|recipient| recipient.begun || recipient.again);
        if begun { Outcome::Interrupted } else { Outcome::Missed }
    }

    /// Whether a station that is lost may have played it nevertheless.
    pub fn is_unresolved(&self, station: &str) -> bool {
        self.recipients.get(station).is_some_and(|recipient| recipient.unresolved)
    }

    /// Records that a station is gone. True if it still had to play the clip and cannot have played it.
    pub fn lose(&mut self, station: &str, reason: &str, held_until: Instant) -> bool {
        if !self.is_open(station) {
            return false;
        }
        self.trouble(station, reason);
        let Some(recipient) = self.recipients.get_mut(station) else { return false };
        if matches!(recipient.progress, Progress::Away { .. }) {
            return false;
        }
        if matches!(recipient.progress, Progress::Told { .. }) {
            recipient.unresolved = true;
        }
        // A station that is lost again and again does not delay the verdict for ever.
        let held_until = held_until.min(*recipient.held_until.get_or_insert(held_until + REJOIN_GRACE));
        let unresolved = recipient.unresolved;
        self.set(station, Progress::Away { held_until });
        !unresolved
    }

    /// Whether any station may still act on it.
    pub fn is_busy(&self) -> bool {
        self.tally.awaited + self.tally.verified + self.tally.told > 0
    }

    /// How many stations have no outcome yet.
    pub fn open(&self) -> usize {
        self.recipients.len() - self.tally.played - self.tally.failed
    }

    /// How far it has come, if that is worth reporting: some stations still wait for it, and nothing was reported for a
    /// while.
    pub fn progress_to_tell(&mut self, now: Instant) -> Option<Event> {
        if self.tally.awaited == 0 || now < self.look_next {
            return None;
        }
        self.look_next = now + PROGRESS_INTERVAL;
        let stations = self.recipients.values().filter(|recipient| recipient.sent.is_some()).count();
        if stations == 0 {
            return None;
        }
        let total_bytes = stations as u64 * self.delivery.frames.len() as u64;
        // A clip that a station refused is sent, and counted, again.
        let sent_bytes = self.delivery.pace.sent_bytes().min(total_bytes);
        let (looked_first, had_bytes) = *self.looked_first.get_or_insert((now, sent_bytes));
        let took = now.saturating_duration_since(looked_first);
        if took.is_zero() || sent_bytes == 0 {
            return None;
        }
        // If nothing has moved since the first check, the estimate uses everything sent so far.
        let (took, since_bytes) = match sent_bytes.saturating_sub(had_bytes) {
            0 => (now.saturating_duration_since(self.made), sent_bytes),
            since_bytes => (took, since_bytes),
        };
        let left = took.as_secs_f64() * (total_bytes - sent_bytes) as f64 / since_bytes as f64;
        Some(Event::Progress {
            clip: self.delivery.id.to_string(),
            sent_bytes,
            total_bytes,
            verified: stations.saturating_sub(self.tally.awaited),
            stations,
            left_ms: (left * 1_000.0) as u64,
        })
    }

    /// The stations that have not played it, and why; sorted by name.
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing: Vec<Missing> = self
            .recipients
            .iter()
            .filter(|(_, recipient)| {
                !matches!(recipient.progress, Progress::Ended(outcome, _) if outcome.is_played())
            })
            .map(|(station, recipient)| Missing {
                station: station.clone(),
                reason: match (&recipient.progress, &recipient.trouble) {
                    (Progress::Ended(_, reason), _) => reason.clone(),
                    (_, Some(trouble)) => trouble.clone(),
                    (_, None) => "it gave no answer".to_owned(),
                },
            })
            .collect();
        missing.sort_by(|a, b| a.station.cmp(&b.station));
        missing
    }
}
