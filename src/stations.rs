//! The stations: who is on the roster, who gets a clip, and what each still owes. No sockets and no
//! clock of its own: the announcer tells it what happened and when, and carries out what it answers.

mod announcement;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Event;
use crate::wire::{ClipId, FromStation, Receipt};
use announcement::{Announcement, Progress};

pub use announcement::Delivery;
pub use pace::{Pace, Transfer};

/// How long the verdict waits for a station that is between two connections: the longest pause
/// between two dials (5 s) and a handshake.
pub const REJOIN_GRACE: Duration = Duration::from_secs(6);
/// How long the others are waited for at least once half of the stations have verified. They are waited
/// for as long as the slowest transfer of that half took: where stations are given the clip one after
/// the other, the last has it after twice the time of the middle one.
pub const STRAGGLER_WAIT: Duration = Duration::from_millis(150);
/// How long the first station to verify waits for the others at most. Well under the time after which a
/// station gives up, so that a majority of slow ones cannot silence the rest.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The longest lead that is granted: one station cannot hold up a page for all.
const MAX_LEAD: Duration = Duration::from_secs(1);
/// Added to the longest lead of the stations when the instant is named: the announcer's own way from
/// deciding to the last socket write.
const NAMING_MARGIN: Duration = Duration::from_millis(10);
/// Between the end of a page and the start for those that verified too late to be in step.
const LATE_GAP: Duration = Duration::from_millis(250);
/// How long after the last sample a receipt is waited for.
const RECEIPT_DEADLINE: Duration = Duration::from_secs(5);
/// The time every transfer has, however short the clip.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(10);
/// The least bytes a second beyond that: a thousand stations behind 64 Mbit/s.
const TRANSFER_MIN_RATE: u64 = 8 * 1024;
/// How often a clip is sent to a station that refuses it.
const MAX_REFUSALS: u32 = 2;

/// Names one connection of one station, for as long as the process runs.
pub type ConnectionId = u64;

/// What a connection is to do.
#[derive(Debug, Clone)]
pub enum Order {
    /// Send this clip.
    Deliver(Arc<Delivery>),
    /// Send the instant to play it.
    PlayAt {
        /// Which clip.
        clip: ClipId,
        /// The first sample's instant.
        at: Instant,
    },
    /// Say that the outcome is written down, and close.
    Note(ClipId),
    /// Close at once.
    Drop,
}

/// What follows from what happened.
#[derive(Debug)]
pub enum Action {
    /// For one connection.
    Order(ConnectionId, Order),
    /// For whoever watches.
    Tell(Event),
}

#[derive(Debug)]
enum Presence {
    /// Connected; `served` once this connection has been given its clip.
    Here { connection: ConnectionId, served: bool },
    /// Closed as agreed after a clip, and expected back.
    Between { since: Instant },
    /// Gone without a word.
    Lost { reason: String },
}

#[derive(Debug)]
struct Station {
    zones: Vec<String>,
    instance: u64,
    presence: Presence,
}

/// What a station says of itself when it joins.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Its name.
    pub name: String,
    /// Its zones.
    pub zones: Vec<String>,
    /// Which run of the station.
    pub instance: u64,
    /// What it played last.
    pub last: Option<Receipt>,
    /// Where it dials from, `IP:PORT`.
    pub address: String,
}

/// The roster and the announcements on their way.
#[derive(Debug)]
pub struct Stations {
    roster: BTreeMap<String, Station>,
    names: HashMap<ConnectionId, String>,
    /// Those who went between two connections, in order; some are back meanwhile.
    between: VecDeque<(Instant, String)>,
    announcements: BTreeMap<ClipId, Announcement>,
    actions: Vec<Action>,
    max_stations: usize,
    keeps: bool,
    lasting: bool,
}

impl Stations {
    /// An empty roster for so many stations that are connected. With `keeps`, a clip waits until it expires for
    /// stations that are away; without, they have missed it. With `lasting`, a station stays on the
    /// roster until it is removed; without, one that says goodbye is forgotten.
    pub fn new(max_stations: usize, keeps: bool, lasting: bool) -> Self {
        Self {
            roster: BTreeMap::new(),
            names: HashMap::new(),
            between: VecDeque::new(),
            announcements: BTreeMap::new(),
            actions: Vec::new(),
            max_stations,
            keeps,
            lasting,
        }
    }

    /// Takes what is to be done, in order.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// How many stations are connected.
    pub fn present(&self) -> usize {
        self.names.len()
    }

    /// Whether every announcement has its verdict.
    pub fn is_settled(&self) -> bool {
        self.announcements.values().all(|announcement| announcement.settled)
    }

    /// Puts a station on the roster that has joined earlier and is not here.
    pub fn expect(&mut self, name: String, zones: Vec<String>) {
        let reason = "it has not been here since the announcer started".to_owned();
        self.roster.entry(name).or_insert(Station {
            zones,
            instance: 0,
            presence: Presence::Lost { reason },
        });
    }

    /// Takes a station off the roster, and ends its connection.
    pub fn remove(&mut self, name: &str, reason: &str, now: Instant) {
        self.forget(name, reason, now);
    }

    /// The names of the stations that are connected.
    pub fn present_names(&self) -> impl Iterator<Item = &str> {
        self.names.values().map(String::as_str)
    }

    /// A station said hello.
    ///
    /// # Errors
    /// Why it is refused, in words for the station.
    pub fn join(&mut self, connection: ConnectionId, hello: Hello, now: Instant) -> Result<(), String> {
        let name = hello.name;
        let known = self.roster.get(&name);
        let is_here = known.is_some_and(|station| matches!(station.presence, Presence::Here { .. }));
        if !is_here && self.names.len() >= self.max_stations {
            return Err(format!("{} stations are here already, which is the limit", self.max_stations));
        }
        if let Some(Station { presence: Presence::Here { connection: old, .. }, instance, .. }) = known {
            if *instance != hello.instance {
                return Err(format!("another station is here under the name {name}: choose another --name"));
            }
            let old = *old;
            self.actions.push(Action::Order(old, Order::Drop));
            self.left(old, "it connected anew", now);
        }
        let news = !matches!(
            self.roster.get(&name),
            Some(Station { presence: Presence::Between { .. } | Presence::Here { .. }, .. })
        );
        let presence = Presence::Here { connection, served: false };
        if news {
            self.tell(Event::StationJoined {
                station: name.clone(),
                address: hello.address,
                zones: hello.zones.clone(),
            });
        }
        self.roster.insert(name.clone(), Station { zones: hello.zones, instance: hello.instance, presence });
        self.names.insert(connection, name.clone());
        if let Some(receipt) = hello.last {
            self.played(&name, receipt, now);
        }
        for announcement in self.announcements.values_mut() {
            if matches!(announcement.progress(&name), Some(Progress::Away { .. })) {
                announcement.set(&name, Progress::Owed);
            }
        }
        self.serve(&name, now);
        Ok(())
    }

    /// A connection ended; `reason` is for the operator.
    pub fn left(&mut self, connection: ConnectionId, reason: &str, now: Instant) {
        let Some(name) = self.names.remove(&connection) else { return };
        let owing = self.announcements.values().any(|announcement| {
            matches!(
                announcement.progress(&name),
                Some(Progress::Sent { .. } | Progress::Verified | Progress::Told { .. })
            )
        });
        let Some(station) = self.roster.get_mut(&name) else { return };
        let as_agreed = matches!(station.presence, Presence::Here { served: true, .. }) && !owing;
        if as_agreed {
            station.presence = Presence::Between { since: now };
            self.between.push_back((now, name));
            return;
        }
        station.presence = Presence::Lost { reason: reason.to_owned() };
        self.lose(&name, reason, now, now + REJOIN_GRACE);
    }

    /// A message from a station, other than Hello and Ping.
    pub fn heard(&mut self, connection: ConnectionId, message: FromStation, now: Instant) {
        let Some(name) = self.names.get(&connection).cloned() else { return };
        let in_turn = match message {
            FromStation::Verified { clip, lead_us } => {
                self.verified(&name, clip, Duration::from_micros(lead_us.into()), now)
            }
            FromStation::Playing { clip } => self.playing(&name, clip),
            FromStation::Played(receipt) => {
                let told = matches!(self.progress(receipt.clip, &name), Some(Progress::Told { .. }));
                if told {
                    self.order(&name, Order::Note(receipt.clip));
                    self.played(&name, receipt, now);
                }
                told
            }
            FromStation::Rejected { clip, reason } => self.rejected(&name, clip, reason, now),
            FromStation::Failed { clip, reason } => self.failed(&name, clip, reason, now),
            FromStation::Goodbye => {
                self.goodbye(&name, now);
                true
            }
            FromStation::Hello { .. } | FromStation::Ping { .. } | FromStation::AskTime { .. } => false,
        };
        if !in_turn {
            self.order(&name, Order::Drop);
            self.left(connection, "it spoke out of turn", now);
        }
    }

    /// Sends a clip to everybody it is for: at once to those who are free, to the others when they are.
    pub fn announce(&mut self, delivery: Delivery, expires: Instant, now: Instant) {
        let id = delivery.id;
        let mut announcement = Announcement::new(Arc::new(delivery), expires, now);
        for (name, station) in &self.roster {
            if announcement.delivery.is_for(&station.zones) {
                match &station.presence {
                    Presence::Lost { reason } => {
                        let trouble = format!("not connected: {reason}");
                        let progress = if self.keeps {
                            Progress::Away { held_until: now }
                        } else {
                            Progress::Ended(Err(trouble.clone()))
                        };
                        announcement.add(name.clone(), progress, Some(trouble));
                    }
                    _ => announcement.add(name.clone(), Progress::Owed, None),
                }
            }
        }
        let mut stations = announcement.names(|_| true);
        stations.sort();
        self.announcements.insert(id, announcement);
        self.tell(Event::Sending { clip: id.to_string(), stations: stations.clone() });
        for name in &stations {
            self.serve(name, now);
        }
        self.settle(now);
    }

    /// Looks at every deadline; to be called by [`Self::next_tick`].
    pub fn tick(&mut self, now: Instant) {
        while self.between.front().is_some_and(|(since, _)| now >= *since + REJOIN_GRACE) {
            let Some((since, name)) = self.between.pop_front() else { break };
            let reason = "it did not come back";
            if let Some(station) = self.roster.get_mut(&name)
                && matches!(station.presence, Presence::Between { since: last } if last == since)
            {
                station.presence = Presence::Lost { reason: reason.to_owned() };
                self.lose(&name, reason, now, now);
            }
        }
        let ids: Vec<ClipId> = self.announcements.keys().copied().collect();
        for id in ids {
            self.tick_one(id, now);
        }
        self.settle(now);
        self.announcements.retain(|_, announcement| {
            let open = announcement.recipients.len() - announcement.tally.played - announcement.tally.failed;
            !announcement.settled || open > 0
        });
    }

    /// When [`Self::tick`] is due: soon while something is on its way, else not at all.
    pub fn next_tick(&self, now: Instant) -> Option<Instant> {
        let regular = (!self.announcements.is_empty()).then(|| now + Duration::from_millis(100));
        let agreeing = self.announcements.values().filter_map(|announcement| announcement.agree_by).min();
        let missed = self.between.front().map(|(since, _)| *since + REJOIN_GRACE);
        [regular, agreeing, missed].into_iter().flatten().min()
    }

    fn tick_one(&mut self, id: ClipId, now: Instant) {
        let Some(announcement) = self.announcements.get_mut(&id) else { return };
        self.actions.extend(announcement.progress_to_tell(now).map(Action::Tell));
        let agree = announcement.agree_by.is_some_and(|by| now >= by);
        let expired = now >= announcement.expires;
        let slow = announcement.names(|p| matches!(p, Progress::Sent { until } if now >= *until));
        let silent = announcement.names(|p| matches!(p, Progress::Told { until } if now >= *until));
        let stale = announcement.names(|p| expired && matches!(p, Progress::Owed | Progress::Away { .. }));
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

    /// A clip that has expired before a station could be given it.
    fn miss(&mut self, id: ClipId, name: &str) {
        let Some(announcement) = self.announcements.get_mut(&id) else { return };
        let trouble = announcement.recipients.get(name).and_then(|recipient| recipient.trouble.clone());
        let reason = trouble.unwrap_or_else(|| "it was not free before the clip expired".to_owned());
        announcement.set(name, Progress::Ended(Err(reason.clone())));
        self.tell(Event::Failed { clip: id.to_string(), station: name.to_owned(), reason });
    }

    fn verified(&mut self, name: &str, clip: ClipId, lead: Duration, now: Instant) -> bool {
        let Some(announcement) = self.announcements.get_mut(&clip) else { return false };
        if !matches!(announcement.progress(name), Some(Progress::Sent { .. })) {
            return false;
        }
        announcement.set(name, Progress::Verified);
        if let Some(recipient) = announcement.recipients.get_mut(name) {
            recipient.lead = lead.min(MAX_LEAD);
            let took = recipient.sent.map_or(Duration::ZERO, |sent| now.saturating_duration_since(sent));
            announcement.slowest = announcement.slowest.max(took);
        }
        let is_late = announcement.agreed.is_some();
        self.tell(Event::Verified { clip: clip.to_string(), station: name.to_owned() });
        if is_late {
            self.name_instant(clip, vec![name.to_owned()], now);
        }
        self.settle(now);
        true
    }

    fn playing(&mut self, name: &str, clip: ClipId) -> bool {
        let recipient = self.announcements.get_mut(&clip).and_then(|it| it.recipients.get_mut(name));
        let begins = recipient.is_some_and(|recipient| {
            matches!(recipient.progress, Progress::Told { .. })
                && !std::mem::replace(&mut recipient.begun, true)
        });
        if begins {
            self.tell(Event::Playing { clip: clip.to_string(), station: name.to_owned() });
        }
        begins
    }

    /// Names the instant to all who have verified.
    fn agree(&mut self, clip: ClipId, now: Instant) {
        let Some(announcement) = self.announcements.get(&clip) else { return };
        let names = announcement.names(|progress| *progress == Progress::Verified);
        self.name_instant(clip, names, now);
    }

    /// Names the instant to some who have verified. The first time it is the page's own; later ones
    /// play it as soon as the others are done.
    fn name_instant(&mut self, clip: ClipId, names: Vec<String>, now: Instant) {
        let Some(announcement) = self.announcements.get(&clip) else { return };
        if names.is_empty() {
            return;
        }
        let soonest = now + announcement.lead(&names) + NAMING_MARGIN;
        let length = announcement.delivery.length;
        let at = match announcement.agreed {
            Some(agreed) => soonest.max(agreed + length + LATE_GAP),
            None => self
                .announcements
                .range(..clip)
                .filter_map(|(_, earlier)| earlier.sounds_until(&announcement.delivery))
                .fold(soonest, Instant::max),
        };
        let until = at + length + RECEIPT_DEADLINE;
        if let Some(announcement) = self.announcements.get_mut(&clip) {
            announcement.agreed.get_or_insert(at);
            announcement.agree_by = None;
            for name in &names {
                announcement.set(name, Progress::Told { until });
                if let Some(recipient) = announcement.recipients.get_mut(name) {
                    recipient.told = Some(at);
                    recipient.begun = false;
                }
            }
        }
        for name in &names {
            self.order(name, Order::PlayAt { clip, at });
        }
    }

    /// Takes a receipt, if one is still due.
    fn played(&mut self, name: &str, receipt: Receipt, now: Instant) {
        let Some(announcement) = self.announcements.get_mut(&receipt.clip) else { return };
        let told = announcement.recipients.get(name).and_then(|recipient| recipient.told);
        let (true, Some(told), Some(agreed)) = (announcement.is_open(name), told, announcement.agreed) else {
            return;
        };
        let behind = told.saturating_duration_since(agreed);
        let late_us =
            i64::try_from(behind.as_micros()).unwrap_or(i64::MAX).saturating_add(receipt.start_error_us);
        announcement.set(name, Progress::Ended(Ok(())));
        self.tell(Event::Played {
            clip: receipt.clip.to_string(),
            station: name.to_owned(),
            frames: receipt.frames,
            late_ms: late_us.max(0) as u64 / 1_000,
            start_error_us: receipt.start_error_us,
            max_error_us: receipt.max_error_us,
            underruns: receipt.underruns,
        });
        self.settle(now);
    }

    fn rejected(&mut self, name: &str, clip: ClipId, reason: String, now: Instant) -> bool {
        let Some(announcement) = self.announcements.get_mut(&clip) else { return false };
        if !matches!(announcement.progress(name), Some(Progress::Sent { .. })) {
            return false;
        }
        announcement.trouble(name, &reason);
        let refusals = announcement.recipients.get_mut(name).map_or(MAX_REFUSALS, |recipient| {
            recipient.refusals += 1;
            recipient.refusals
        });
        let next = match refusals {
            MAX_REFUSALS.. => Progress::Ended(Err(format!("it refused the clip: {reason}"))),
            _ => Progress::Owed,
        };
        announcement.set(name, next);
        self.tell(Event::Rejected { clip: clip.to_string(), station: name.to_owned(), reason });
        self.order(name, Order::Note(clip));
        self.settle(now);
        true
    }

    fn failed(&mut self, name: &str, clip: ClipId, reason: String, now: Instant) -> bool {
        let Some(announcement) = self.announcements.get_mut(&clip) else { return false };
        if !matches!(announcement.progress(name), Some(Progress::Verified | Progress::Told { .. })) {
            return false;
        }
        announcement.set(name, Progress::Ended(Err(reason.clone())));
        self.tell(Event::Failed { clip: clip.to_string(), station: name.to_owned(), reason });
        self.order(name, Order::Note(clip));
        self.settle(now);
        true
    }

    fn forget(&mut self, name: &str, reason: &str, now: Instant) {
        let Some(station) = self.roster.remove(name) else { return };
        if let Presence::Here { connection, .. } = station.presence {
            self.names.remove(&connection);
            self.actions.push(Action::Order(connection, Order::Drop));
        }
        let mut told = Vec::new();
        for (id, announcement) in &mut self.announcements {
            if announcement.is_open(name) {
                announcement.set(name, Progress::Ended(Err(reason.to_owned())));
                told.push(*id);
            }
        }
        self.tell(Event::StationLeft { station: name.to_owned(), reason: reason.to_owned() });
        for id in told {
            let (clip, station) = (id.to_string(), name.to_owned());
            self.tell(Event::Failed { clip, station, reason: reason.to_owned() });
        }
        self.settle(now);
    }

    /// A station that was shut down is not missed, unless it has joined for good.
    fn goodbye(&mut self, name: &str, now: Instant) {
        let reason = "it was shut down by its user";
        if !self.lasting {
            return self.forget(name, reason, now);
        }
        let Some(station) = self.roster.get_mut(name) else { return };
        let was = std::mem::replace(&mut station.presence, Presence::Lost { reason: reason.to_owned() });
        if let Presence::Here { connection, .. } = was {
            self.names.remove(&connection);
            self.actions.push(Action::Order(connection, Order::Drop));
        }
        self.lose(name, reason, now, now);
    }

    fn break_off(&mut self, name: &str, reason: &str, now: Instant) {
        if let Some(Station { presence: Presence::Here { connection, .. }, .. }) = self.roster.get(name) {
            let connection = *connection;
            self.actions.push(Action::Order(connection, Order::Drop));
            self.left(connection, reason, now);
        }
    }

    /// Writes down that a station is gone. What it was owed is kept for it; the verdict waits for it
    /// until the instant.
    fn lose(&mut self, name: &str, reason: &str, now: Instant, held_until: Instant) {
        for announcement in self.announcements.values_mut() {
            if !announcement.is_open(name) {
                continue;
            }
            let next = match announcement.progress(name) {
                _ if !self.keeps => Progress::Ended(Err(reason.to_owned())),
                Some(Progress::Away { held_until }) => Progress::Away { held_until: *held_until },
                _ => Progress::Away { held_until },
            };
            announcement.set(name, next);
            announcement.trouble(name, reason);
        }
        self.tell(Event::StationLeft { station: name.to_owned(), reason: reason.to_owned() });
        self.settle(now);
    }

    /// Gives a free station the earliest clip it is owed.
    fn serve(&mut self, name: &str, now: Instant) {
        let Some(Station { presence: Presence::Here { connection, served: served @ false }, .. }) =
            self.roster.get_mut(name)
        else {
            return;
        };
        let owed = self.announcements.values_mut().find(|announcement| {
            now < announcement.expires && announcement.progress(name) == Some(&Progress::Owed)
        });
        let Some(announcement) = owed else { return };
        *served = true;
        let delivery = announcement.delivery.clone();
        let until =
            now + TRANSFER_DEADLINE + Duration::from_secs(delivery.frames.len() as u64 / TRANSFER_MIN_RATE);
        announcement.set(name, Progress::Sent { until });
        if let Some(recipient) = announcement.recipients.get_mut(name) {
            recipient.sent = Some(now);
        }
        self.actions.push(Action::Order(*connection, Order::Deliver(delivery)));
    }

    /// To be called after every change: names an instant where nobody more is waited for, and gives the
    /// verdict on every announcement that has nothing more to wait for.
    fn settle(&mut self, now: Instant) {
        let mut ready = Vec::new();
        for (id, announcement) in &mut self.announcements {
            let tally = announcement.tally;
            if announcement.agreed.is_none() {
                if tally.verified > 0 && tally.awaited == 0 {
                    ready.push(*id);
                }
                let half = tally.verified >= tally.awaited;
                let wait = if half { announcement.slowest.max(STRAGGLER_WAIT) } else { LONGEST_WAIT };
                announcement.agree_by = (tally.verified > 0)
                    .then(|| announcement.agree_by.map_or(now + wait, |by| by.min(now + wait)));
            }
            let busy = tally.awaited + tally.verified + tally.told > 0;
            if announcement.settled || busy || (tally.away > 0 && announcement.is_held(now)) {
                continue;
            }
            announcement.settled = true;
            self.actions.push(Action::Tell(Event::Done {
                clip: id.to_string(),
                played: tally.played,
                expected: announcement.recipients.len(),
                missing: announcement.missing(),
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
}
