//! The stations: which ones are on the roster, which get a clip, and what each still owes. This module has no sockets
//! and no clock of its own: the announcer reports what happened and when, and carries out the returned actions.

mod announcement;
mod ending;
mod faults;
mod instant;
mod joining;
mod leaving;
mod live;
mod news;
mod pace;
#[cfg(test)]
mod tests;
mod urgency;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Event;
use crate::volume::Volume;
use crate::wire::{ClipId, FromStation, Receipt};
use announcement::{Announcement, Progress, out_of_step, spread};
use joining::Twins;
use live::Live;
use news::News;

pub use announcement::Delivery;
pub use ending::Restored;
pub use live::{LiveOffer, LivePart, MAX_WAITING_LIVE_BLOCKS};
pub use pace::{Pace, Transfer};

/// How long the verdict waits for a station that is between two connections: the longest pause between two dials (5 s)
/// and a handshake.
pub const REJOIN_GRACE: Duration = Duration::from_secs(6);
/// The least time that the other stations get once half of them have verified. They get as long as the slowest transfer
/// of that half took: if stations are sent the clip one after the other, the last has it after twice the time of the
/// middle one.
pub const STRAGGLER_WAIT: Duration = Duration::from_millis(150);
/// The longest time that the first station to verify waits for the others. Well under the time after which a station
/// gives up, so that a majority of slow ones cannot silence the rest.
pub const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The longest lead that is granted: one station cannot hold up a page for all.
const MAX_LEAD: Duration = Duration::from_secs(1);
/// Added to the longest lead of the stations when the instant is set: the time the announcer itself needs from deciding
/// to the last socket write.
const NAMING_MARGIN: Duration = Duration::from_millis(10);
/// The longest wait for silence: a page over another is better than none, and a station refuses an instant 300 s ahead.
const LONGEST_QUEUE: Duration = Duration::from_secs(240);
/// How long after a clip has expired a station that was ordered to play it, and lost its connection, may still bring
/// its receipt.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(600);
/// How long after the last sample a receipt may arrive.
const RECEIPT_DEADLINE: Duration = Duration::from_secs(5);
/// The time that every transfer has, however short the clip.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(10);
/// The least bytes a second beyond that: a thousand stations behind 64 Mbit/s.
const TRANSFER_MIN_RATE: u64 = 8 * 1024;
/// How often a clip is sent to a station that refuses it.
const MAX_REFUSALS: u32 = 2;
/// The most times that a clip is sent to a station that accepts it and is lost before sending its receipt.
const MAX_SENDINGS: u32 = 5;
/// The most bytes of clips that are kept: beyond that, the oldest that have their verdict are given up.
const MAX_KEPT_BYTES: usize = 256 << 20;
/// A fault that a station does not report again within this time after it is back counts as mended.
const FAULT_MEMORY: Duration = Duration::from_secs(1);
/// How often the deadlines are checked while something is on its way; [`SLOW_TICK`] applies while clips are only kept.
const TICK: Duration = Duration::from_millis(100);
const SLOW_TICK: Duration = Duration::from_secs(1);

/// Identifies one connection of one station, for as long as the process runs.
pub type ConnectionId = u64;

/// What a connection should do.
#[derive(Debug, Clone)]
pub enum Order {
    /// Send this clip.
    Deliver(Arc<Delivery>),
    /// Let it join live speech.
    Live(Arc<LiveOffer>),
    /// Send the instant at which to play it.
    PlayAt {
        /// The clip.
        clip: ClipId,
        /// The first sample's instant.
        at: Instant,
        /// How much later that is than the page's own instant.
        behind: Duration,
    },
    /// Send the volume to play at from now on; none means the station's own volume.
    Volume(Option<Volume>),
    /// Confirm that the outcome is recorded, and close.
    Note(ClipId),
    /// Ask the station to make way for something more urgent, and close.
    Yield,
    /// Close at once.
    Drop,
}

/// What the announcer must do after something has happened.
#[derive(Debug)]
pub enum Action {
    /// Pass an order to one connection.
    Order(ConnectionId, Order),
    /// Emit an event.
    Tell(Event),
    /// Every station's outcome of a clip is known: nothing more needs to be kept of it.
    Closed(ClipId),
}

#[derive(Debug)]
enum Presence {
    /// Connected; `served` once this connection has been sent its clip.
    Here { connection: ConnectionId, served: bool },
    /// Closed as agreed after a clip, and expected back.
    Between { since: Instant },
    /// Not connected, for this reason.
    Lost { reason: String, since: Option<Instant> },
}

#[derive(Debug)]
struct Station {
    zones: Vec<String>,
    instance: u64,
    presence: Presence,
    /// Why its loudspeaker does not work.
    fault: Option<String>,
    /// When the fault, reported on an earlier connection, counts as mended.
    mended_at: Option<Instant>,
    twins: Twins,
}

/// What a station reports about itself when it joins.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Its name.
    pub name: String,
    /// Its zones.
    pub zones: Vec<String>,
    /// Identifies the run of the station.
    pub instance: u64,
    /// What it played last.
    pub last: Option<Receipt>,
    /// What it began last, if it was cut off before the end.
    pub begun: Option<ClipId>,
    /// The address it dials from, `IP:PORT`.
    pub address: String,
}

/// The roster and the announcements on their way.
#[derive(Debug)]
pub struct Stations {
    roster: BTreeMap<String, Station>,
    names: BTreeMap<ConnectionId, String>,
    /// Stations that closed as agreed after a clip, in order; some may be back already.
    between: VecDeque<(Instant, String)>,
    announcements: BTreeMap<ClipId, Announcement>,
    live: Option<Live>,
    actions: Vec<Action>,
    news: News,
    max_stations: usize,
    straggler_wait: Duration,
    keeps: bool,
    lasting: bool,
}

impl Stations {
    /// Creates an empty roster for at most `max_stations` connected stations. With `keeps`, a clip waits until it
    /// expires for stations that are away; without, they have missed it. With `lasting`, a station stays on the roster
    /// until it is removed; without, one that says goodbye is forgotten.
    pub fn new(max_stations: usize, keeps: bool, lasting: bool) -> Self {
        Self {
            roster: BTreeMap::new(),
            names: BTreeMap::new(),
            between: VecDeque::new(),
            announcements: BTreeMap::new(),
            live: None,
            actions: Vec::new(),
            news: News::default(),
            max_stations,
            straggler_wait: STRAGGLER_WAIT,
            keeps,
            lasting,
        }
    }

    /// Sets how long to wait for the others once half of the stations have verified, [`LONGEST_WAIT`] at most.
    pub fn with_straggler_wait(self, straggler_wait: Duration) -> Self {
        Self { straggler_wait: straggler_wait.min(LONGEST_WAIT), ..self }
    }

    /// Returns the pending actions, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// How many stations are connected.
    pub fn present(&self) -> usize {
        self.names.len()
    }

    /// Whether every announcement has its verdict.
    pub fn is_settled(&self) -> bool {
        self.live.is_none() && self.announcements.values().all(|announcement| announcement.settled)
    }

    /// Takes a station off the roster, and closes its connection.
    pub fn remove(&mut self, name: &str, reason: &str, now: Instant) {
        self.forget(name, reason, now);
    }

    /// The zones that stations of the roster belong to, in order.
    pub fn zones(&self) -> BTreeSet<&str> {
        self.roster.values().flat_map(|station| &station.zones).map(String::as_str).collect()
    }

    /// Sends a connected station the volume to play at from now on.
    pub fn set_volume(&mut self, name: &str, volume: Option<Volume>) {
        self.order(name, Order::Volume(volume));
        let volume_db = volume.map(Volume::db);
        self.tell(Event::Volume { station: name.to_owned(), volume_db });
    }

    /// The name under which a connection's station has joined.
    pub fn name_of(&self, connection: ConnectionId) -> Option<&str> {
        self.names.get(&connection).map(String::as_str)
    }

    /// The names of the stations that are connected.
    pub fn present_names(&self) -> impl Iterator<Item = &str> {
        self.names.values().map(String::as_str)
    }

    /// Handles a message from a station, other than Hello and Ping.
    pub fn heard(&mut self, connection: ConnectionId, message: FromStation, now: Instant) {
        let Some(name) = self.names.get(&connection).cloned() else { return };
        let in_turn = match message {
            FromStation::Verified { clip, lead_us } => {
                self.verified(&name, clip, Duration::from_micros(lead_us.into()), now)
            }
            FromStation::Playing { clip } if self.is_live(clip, &name) => self.live_playing(&name, clip),
            FromStation::Playing { clip } => self.playing(&name, clip, now),
            FromStation::Queued { clip } if self.is_live(clip, &name) => self.live_queued(&name, clip),
            FromStation::Queued { clip } => self.queued(&name, clip, now),
            FromStation::Played(receipt) => {
                let told = matches!(self.progress(receipt.clip, &name), Some(Progress::Told { .. }));
                if told {
                    self.order(&name, Order::Note(receipt.clip));
                    self.played(&name, receipt, now);
                }
                told
            }
            FromStation::Rejected { clip, reason } if self.is_live(clip, &name) => {
                self.live_failed(&name, clip, reason, true, now)
            }
            FromStation::Failed { clip, reason } if self.is_live(clip, &name) => {
                self.live_failed(&name, clip, reason, false, now)
            }
            FromStation::LivePlayed(receipt) => {
                self.is_live(receipt.clip, &name) && self.live_played(&name, receipt, now)
            }
            FromStation::Rejected { clip, reason } => self.rejected(&name, clip, reason, now),
            FromStation::Failed { clip, reason } => self.failed(&name, clip, reason, now),
            FromStation::Goodbye => {
                self.goodbye(&name, now);
                true
            }
            FromStation::Health { fault } => {
                self.has_fault(&name, fault, now);
                true
            }
            FromStation::Hello { .. }
            | FromStation::Ping { .. }
            | FromStation::AskTime { .. }
            | FromStation::Talkback(_) => false,
        };
        if !in_turn {
            self.order(&name, Order::Drop);
            self.left(connection, "it spoke out of turn", now);
        }
    }

    /// Sends a clip to every station that it is for: at once to those that are free, to the others as soon as they are.
    pub fn announce(&mut self, delivery: Delivery, expires: Instant, now: Instant) {
        let id = delivery.id;
        self.make_room(delivery.frames.len(), now);
        let stations = self.roster.values().filter(|station| delivery.is_for(&station.zones)).count();
        let mut announcement = Announcement::new(delivery, stations, expires, now);
        let mut unreachable = Vec::new();
        for (name, station) in &self.roster {
            if announcement.delivery.is_for(&station.zones) {
                match station.trouble_for(announcement.delivery.priority) {
                    Some(trouble) => {
                        announcement.add(name.clone(), Progress::Away { held_until: now }, Some(trouble));
                        unreachable.push(name.clone());
                    }
                    None => announcement.add(name.clone(), Progress::Owed, None),
                }
            }
        }
        let mut stations = announcement.names(|_| true);
        stations.sort();
        self.announcements.insert(id, announcement);
        self.tell(Event::Sending { clip: id.to_string(), stations: stations.clone() });
        if !self.keeps {
            unreachable.iter().for_each(|name| self.miss(id, name));
        }
        self.clear_the_way(id, now);
        for name in &stations {
            self.serve(name, now);
        }
        self.settle(now);
    }

    /// Checks every deadline; must be called when [`Self::next_tick`] says.
    pub fn tick(&mut self, now: Instant) {
        let is_mended = |station: &Station| station.mended_at.is_some_and(|at| now >= at);
        let mended = self.roster.iter().filter(|(_, station)| is_mended(station));
        for name in mended.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.has_fault(&name, None, now);
        }
        self.actions.extend(self.news.take_due(now).into_iter().map(Action::Tell));
        while self.between.front().is_some_and(|(since, _)| now >= *since + REJOIN_GRACE) {
            let Some((since, name)) = self.between.pop_front() else { break };
            let reason = "it did not come back";
            if let Some(station) = self.roster.get_mut(&name)
                && matches!(station.presence, Presence::Between { since: last } if last == since)
            {
                station.presence = Presence::Lost { reason: reason.to_owned(), since: Some(now) };
                self.lose(&name, reason, now, now);
            }
        }
        let ids: Vec<ClipId> = self.announcements.keys().copied().collect();
        for id in ids {
            self.tick_one(id, now);
        }
        self.settle(now);
        self.settle_live(now);
        for (id, announcement) in &mut self.announcements {
            if announcement.settled && announcement.open() == 0 && !announcement.closed {
                announcement.closed = true;
                self.actions.push(Action::Closed(*id));
            }
        }
        // An announcement that still sounds is remembered, so that no other page overlaps it.
        self.announcements.retain(|_, announcement| !announcement.closed || announcement.sounds_at(now));
    }

    /// When [`Self::tick`] is due: soon while something is on its way, later while clips are only kept or another
    /// deadline is pending, otherwise not at all.
    pub fn next_tick(&self, now: Instant) -> Option<Instant> {
        let is_quiet = |it: &Announcement| it.settled && !it.is_busy();
        let is_busy = self.live.is_some() || !self.announcements.values().all(is_quiet);
        let pace = if is_busy { TICK } else { SLOW_TICK };
        let regular = (self.live.is_some() || !self.announcements.is_empty()).then(|| now + pace);
        let agreeing = self.announcements.values().filter_map(|announcement| announcement.agree_by).min();
        let missed = self.between.front().map(|(since, _)| *since + REJOIN_GRACE);
        let mended = self.roster.values().filter_map(|station| station.mended_at).min();
        [regular, agreeing, missed, mended, self.news.next_due()].into_iter().flatten().min()
    }

    fn tick_one(&mut self, id: ClipId, now: Instant) {
        let Some(announcement) = self.announcements.get_mut(&id) else { return };
        self.actions.extend(announcement.progress_to_tell(now).map(Action::Tell));
        let agree = announcement.agree_by.is_some_and(|by| now >= by);
        let expired = now >= announcement.expires;
        let slow = announcement.names(|p| matches!(p, Progress::Sent { until } if now >= *until));
        let silent = announcement.names(|p| matches!(p, Progress::Told { until } if now >= *until));
        let mut stale =
            announcement.names(|p| expired && matches!(p, Progress::Owed | Progress::Away { .. }));
        let patient = now < announcement.expires + RECEIPT_PATIENCE;
        stale.retain(|name| !(patient && announcement.is_unresolved(name)));
        for name in slow {
            self.break_off(&name, "the clip did not get through in time", now);
        }
        for name in silent {
            self.break_off(&name, "it sent no receipt", now);
        }
        for name in stale {
            self.miss(id, &name);
        }
        if agree {
            self.agree(id, now);
        }
    }

    /// Sends a station that is free, and whose loudspeaker works, the most urgent clip that it is owed, or the earliest
    /// of several equally urgent ones. Live speech goes before anything less urgent, but not before an earlier clip of
    /// its own priority, which the station would then take for one that it has already heard.
    fn serve(&mut self, name: &str, now: Instant) {
        let Some(least) = self.roster.get(name).and_then(Station::least_urgent) else { return };
        let live = self.live_for(name).filter(|live| *live >= least);
        let Some(Station { presence: Presence::Here { connection, served: served @ false }, .. }) =
            self.roster.get_mut(name)
        else {
            return;
        };
        let owed = self.announcements.iter_mut().filter(|(_, announcement)| {
            now < announcement.expires
                && announcement.progress(name) == Some(&Progress::Owed)
                && announcement.delivery.priority >= least
        });
        let first = owed.max_by_key(|(id, announcement)| (announcement.delivery.priority, Reverse(**id)));
        let goes_first = |it: &Announcement| live.is_none_or(|live| it.delivery.priority >= live);
        let Some((_, announcement)) = first.filter(|(_, it)| goes_first(it)) else {
            if live.is_some() {
                self.join_live(name);
            }
            return;
        };
        *served = true;
        let delivery = announcement.delivery.clone();
        let until =
            now + TRANSFER_DEADLINE + Duration::from_secs(delivery.frames.len() as u64 / TRANSFER_MIN_RATE);
        announcement.set(name, Progress::Sent { until });
        if let Some(recipient) = announcement.recipients.get_mut(name) {
            recipient.sendings += 1;
            recipient.sent = Some(now);
        }
        self.actions.push(Action::Order(*connection, Order::Deliver(delivery)));
    }

    /// Must be called after every change: sets an instant if there is no station left to wait for, and reports the
    /// verdict on every announcement that has nothing left to wait for.
    fn settle(&mut self, now: Instant) {
        let mut ready = Vec::new();
        // A station that plays an earlier page late is not free for the next one, and does not delay it for the others.
        let late: BTreeSet<String> = self.announcements.values().flat_map(|it| &it.late).cloned().collect();
        for (id, announcement) in &mut self.announcements {
            let tally = announcement.tally;
            if announcement.agreed().is_none() {
                let is_owed = |name: &&String| announcement.progress(name) == Some(&Progress::Owed);
                let awaited = tally.awaited - late.iter().filter(is_owed).count();
                if tally.verified > 0 && awaited == 0 {
                    ready.push(*id);
                }
                let half = tally.verified >= awaited;
                let wait = if half { announcement.slowest.max(self.straggler_wait) } else { LONGEST_WAIT };
                announcement.agree_by = (tally.verified > 0)
                    .then(|| announcement.agree_by.map_or(now + wait, |by| by.min(now + wait)));
            }
            if announcement.settled || announcement.is_busy() || (tally.away > 0 && announcement.is_held(now))
            {
                continue;
            }
            announcement.settled = true;
            let (spread_us, uncertainty_us) = spread(&announcement.timings).unzip();
            self.actions.push(Action::Tell(Event::Done {
                clip: id.to_string(),
                played: tally.played,
                expected: announcement.recipients.len(),
                missing: announcement.missing(),
                spread_us,
                uncertainty_us,
                out_of_step: out_of_step(&announcement.timings),
                concealed: Vec::new(),
            }));
        }
        for id in ready {
            self.agree(id, now);
        }
    }

    fn progress(&self, clip: ClipId, name: &str) -> Option<&Progress> {
        self.announcements.get(&clip)?.progress(name)
    }

    fn order(&mut self, name: &str, order: Order) {
        if let Some(Station { presence: Presence::Here { connection, .. }, .. }) = self.roster.get(name) {
            self.actions.push(Action::Order(*connection, order));
        }
    }

    fn tell(&mut self, event: Event) {
        self.actions.push(Action::Tell(event));
    }

    /// Reports that a station joined, left, failed or recovered; see [`News`].
    fn tell_news(&mut self, event: Event, now: Instant) {
        self.actions.extend(self.news.change(event, now).map(Action::Tell));
    }
}
