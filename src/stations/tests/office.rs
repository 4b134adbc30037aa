//! A roster with a clock of its own, and everything it ever ordered and reported.

use std::collections::BTreeMap;

use super::super::*;
use crate::event::{Missing, Outcome};
use crate::priority::Priority;

pub(super) const LENGTH: Duration = Duration::from_secs(2);
pub(super) const LEAD: Duration = Duration::from_millis(5);
pub(super) const KEEP: Duration = Duration::from_secs(60);

/// A clip of the only announcer in these tests.
pub(super) fn clip(sequence: u64) -> ClipId {
    ClipId { epoch: 7, sequence }
}

pub(super) fn receipt(clip: ClipId) -> Receipt {
    Receipt { clip, frames: 16_000, start_error_us: 0, max_error_us: 0, underruns: 0, uncertainty_us: 0 }
}

/// The roster with a clock of its own, and everything it ever ordered and reported.
pub(super) struct Office {
    pub(super) stations: Stations,
    pub(super) now: Instant,
    pub(super) connections: ConnectionId,
    pub(super) online: BTreeMap<String, ConnectionId>,
    pub(super) orders: Vec<(ConnectionId, Order, Instant)>,
    pub(super) events: Vec<Event>,
    pub(super) closed: Vec<ClipId>,
    /// The orders to play that are for late stations, by index.
    late: BTreeSet<usize>,
}

impl Office {
    pub(super) fn new(keeps: bool) -> Self {
        Self {
            stations: Stations::new(100, keeps, false),
            now: Instant::now() + Duration::from_secs(1_000),
            connections: 0,
            online: BTreeMap::new(),
            orders: Vec::new(),
            events: Vec::new(),
            closed: Vec::new(),
            late: BTreeSet::new(),
        }
    }

    pub(super) fn with(names: &[&str]) -> Self {
        let mut office = Self::new(true);
        for name in names {
            office.join(name).unwrap();
        }
        office
    }

    pub(super) fn collect(&mut self) {
        for action in self.stations.take_actions() {
            match action {
                Action::Order(connection, order) => {
                    if matches!(order, Order::Drop | Order::Yield) {
                        self.online.retain(|_, other| *other != connection);
                    }
                    if let Order::PlayAt { clip, at, .. } = &order
                        && self.is_late(*clip, *at)
                    {
                        self.late.insert(self.orders.len());
                    }
                    self.orders.push((connection, order, self.now));
                }
                Action::Closed(clip) => self.closed.push(clip),
                Action::Tell(event) => self.events.push(event),
            }
        }
        self.stations.check_tallies();
    }

    pub(super) fn join_as(
        &mut self,
        name: &str,
        zones: &[&str],
        instance: u64,
        last: Option<Receipt>,
    ) -> Result<ConnectionId, String> {
        self.join_after(name, zones, instance, last, None)
    }

    /// A station that was cut off in the middle of a clip joins again.
    pub(super) fn join_cut_off(&mut self, name: &str, begun: ClipId) {
        self.join_after(name, &[], 1, None, Some(begun)).unwrap();
    }

    fn join_after(
        &mut self,
        name: &str,
        zones: &[&str],
        instance: u64,
        last: Option<Receipt>,
        begun: Option<ClipId>,
    ) -> Result<ConnectionId, String> {
        self.connections += 1;
        let connection = self.connections;
        let zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        let hello = Hello { name: name.into(), zones, instance, last, begun, address: "192.0.2.1:5".into() };
        let result = self.stations.join(connection, hello, self.now);
        self.collect();
        result?;
        self.online.insert(name.into(), connection);
        Ok(connection)
    }

    pub(super) fn join(&mut self, name: &str) -> Result<ConnectionId, String> {
        self.join_as(name, &[], 1, None)
    }

    pub(super) fn leave(&mut self, name: &str) {
        let Some(connection) = self.online.remove(name) else { return };
        self.stations.left(connection, "the cable was pulled", self.now);
        self.collect();
    }

    pub(super) fn announce(&mut self, sequence: u64) -> ClipId {
        self.announce_to(sequence, &[])
    }

    pub(super) fn announce_to(&mut self, sequence: u64, zones: &[&str]) -> ClipId {
        self.announce_as(sequence, zones, Priority::Normal)
    }

    pub(super) fn announce_as(&mut self, sequence: u64, zones: &[&str], priority: Priority) -> ClipId {
        let id = clip(sequence);
        let zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        let delivery = Delivery {
            id,
            header: vec![1],
            signature: vec![],
            key: None,
            frames: Arc::new(vec![2; 64].into()),
            pace: Default::default(),
            length: LENGTH,
            sound_frames: 16_000,
            priority,
            zones,
        };
        self.stations.announce(delivery, self.now + KEEP, self.now);
        self.collect();
        id
    }

    pub(super) fn says(&mut self, name: &str, message: FromStation) {
        let Some(connection) = self.online.get(name).copied() else { return };
        self.stations.heard(connection, message, self.now);
        self.collect();
    }

    /// Whether an instant is later than the clip's first, or was set after its verdict.
    fn is_late(&self, clip: ClipId, at: Instant) -> bool {
        let is_other = |(_, order, _): &(_, Order, _)| matches!(order, Order::PlayAt { clip: told, at: other, .. } if *told == clip && *other != at);
        !self.verdicts(clip).is_empty() || self.orders.iter().any(is_other)
    }

    /// Every play of a clip that was ordered: the order that first set its instant, the connection, the start and the
    /// end, and whether it is late. A play ends when its station was asked to yield.
    pub(super) fn plays_of(&self, clip: ClipId) -> Vec<(usize, ConnectionId, Instant, Instant, bool)> {
        let yielded = |to: ConnectionId| {
            self.orders.iter().find_map(|(other, order, when)| {
                (*other == to && matches!(order, Order::Yield)).then_some(*when)
            })
        };
        let first = |at: &Instant| {
            let names = |(_, order, _): &(_, Order, _)| matches!(order, Order::PlayAt { clip: told, at: other, .. } if *told == clip && other == at);
            self.orders.iter().position(names)
        };
        let play = |(to, order, _): &(ConnectionId, Order, Instant)| match order {
            Order::PlayAt { clip: told, at, .. } if *told == clip => {
                let number = first(at)?;
                let until = yielded(*to).map_or(*at + LENGTH, |when| when.min(*at + LENGTH));
                Some((number, *to, *at, until, self.late.contains(&number))).filter(|_| *at < until)
            }
            _ => None,
        };
        self.orders.iter().filter_map(play).collect()
    }

    pub(super) fn verifies(&mut self, name: &str, clip: ClipId) {
        self.says(name, FromStation::Verified { clip, lead_us: LEAD.as_micros() as u32 });
    }

    /// The station plays, its receipt is confirmed, it hangs up and dials again.
    pub(super) fn plays(&mut self, name: &str, clip: ClipId) {
        self.says(name, FromStation::Playing { clip });
        self.says(name, FromStation::Played(receipt(clip)));
        self.leave(name);
        self.join(name).unwrap();
    }

    /// Lets time pass, ticking whenever it is due, and never twice at one instant.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut due = self.stations.next_tick(self.now);
        while let Some(at) = due.filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.stations.tick(self.now);
            self.collect();
            due = self.stations.next_tick(self.now);
            assert!(due.is_none_or(|due| due > self.now), "a tick that leaves itself due spins");
        }
        self.now = end;
    }

    pub(super) fn deliveries(&self, name: &str, clip: ClipId) -> usize {
        let mine = self.online.get(name);
        self.orders
            .iter()
            .filter(|(to, order, _)| Some(to) == mine && matches!(order, Order::Deliver(it) if it.id == clip))
            .count()
    }

    pub(super) fn all_deliveries(&self, clip: ClipId) -> usize {
        self.orders
            .iter()
            .filter(|(_, order, _)| matches!(order, Order::Deliver(it) if it.id == clip))
            .count()
    }

    /// When a station was ordered to play, and for which instant.
    pub(super) fn told(&self, name: &str, clip: ClipId) -> Option<(Instant, Instant)> {
        let mine = *self.online.get(name)?;
        self.orders.iter().find_map(|(to, order, when)| match order {
            Order::PlayAt { clip: told, at, .. } if *told == clip && *to == mine => Some((*when, *at)),
            _ => None,
        })
    }

    pub(super) fn verdicts(&self, clip: ClipId) -> Vec<(usize, usize, Vec<Missing>)> {
        let id = clip.to_string();
        let verdict = |event: &Event| match event {
            Event::Done { clip, played, expected, missing, .. } if *clip == id => {
                Some((*played, *expected, missing.clone()))
            }
            _ => None,
        };
        self.events.iter().filter_map(verdict).collect()
    }

    /// The only verdict: how many stations played it, how many should have, and which did not and why.
    pub(super) fn verdict(&self, clip: ClipId) -> (usize, usize, Vec<(String, String)>) {
        let [(played, expected, missing)] = &self.verdicts(clip)[..] else {
            panic!("not one verdict: {:?}", self.events)
        };
        let missing = missing.iter().map(|it| (it.station.clone(), it.reason.clone())).collect();
        (*played, *expected, missing)
    }

    pub(super) fn receipts(&self, name: &str, clip: ClipId) -> usize {
        let id = clip.to_string();
        let mine = |event: &&Event| matches!(event, Event::Played { clip, station, .. } if *clip == id && station == name);
        self.events.iter().filter(mine).count()
    }

    /// The outcomes of a clip at a station, in the order in which they were reported: one, if all is well.
    pub(super) fn outcomes(&self, name: &str, clip: ClipId) -> Vec<(Outcome, bool)> {
        let id = clip.to_string();
        let mine = |event: &Event| match event {
            Event::Played { clip, station, outcome, again, .. } if *clip == id && station == name => {
                Some((*outcome, *again))
            }
            Event::Failed { clip, station, outcome, .. } if *clip == id && station == name => {
                Some((*outcome, false))
            }
            _ => None,
        };
        self.events.iter().filter_map(mine).collect()
    }

    pub(super) fn failures(&self, name: &str) -> Vec<String> {
        let mine = |event: &Event| match event {
            Event::Failed { station, reason, .. } if station == name => Some(reason.clone()),
            _ => None,
        };
        self.events.iter().filter_map(mine).collect()
    }
}

impl Stations {
    /// Checks the tallies against a count from scratch.
    fn check_tallies(&self) {
        for announcement in self.announcements.values() {
            let mut counted = announcement::Tally::default();
            for recipient in announcement.recipients.values() {
                match recipient.progress {
                    Progress::Away { .. } => counted.away += 1,
                    Progress::Owed | Progress::Sent { .. } => counted.awaited += 1,
                    Progress::Verified => counted.verified += 1,
                    Progress::Told { .. } => counted.told += 1,
                    Progress::Ended(outcome, _) if outcome.is_played() => counted.played += 1,
                    Progress::Ended(..) => counted.failed += 1,
                }
            }
            assert_eq!(counted, announcement.tally);
        }
    }
}
