//! The door: limits how many connections may be open that have not yet proven who they are.
//!
//! Stations on the roster are not counted, so strangers can never use up the places of stations that have joined. Until
//! it is on the roster, a connection that has said hello keeps its place and is never pushed out. When the door is
//! full, the other connections make room, the oldest first, but not before they have had time for an honest handshake.
//! Those that have not yet sent anything make room much sooner; and if a few addresses crowd the door, their
//! connections make room at once.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long a connection that is not silent keeps its place at least, unless its address crowds the door; a handshake
/// takes two round trips and a millisecond.
const MIN_STAY: Duration = Duration::from_millis(250);
/// How long a silent connection keeps it: a station speaks first, and at once.
const SILENT_STAY: Duration = Duration::from_millis(50);

/// How long a connection, and those queued behind it, wait for a place: until all silent connections have had their
/// time.
const WAIT: Duration = SILENT_STAY;

/// Counts the connections in the door.
#[derive(Debug, Clone)]
pub(super) struct Door {
    inside: Arc<Mutex<Inside>>,
    freed: Arc<Notify>,
    room: usize,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    standing: BTreeMap<u64, Standing>,
    origins: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Standing {
    origin: IpAddr,
    since: Instant,
    is_silent: bool,
    /// It has said hello, and is not on the roster yet.
    is_through: bool,
    pushed: CancellationToken,
}

/// A place in the door; returned when dropped.
#[derive(Debug)]
pub(super) struct Place {
    door: Door,
    number: u64,
    pushed: CancellationToken,
}

impl Door {
    /// Creates a door with room for `room` connections, half of that for each address.
    pub fn new(room: usize) -> Self {
        Self { inside: Arc::default(), freed: Arc::default(), room }
    }

    /// Like [`Self::enter`], but if the whole door is full, the first connection from an address waits a moment for a
    /// place. When all stations come at once, those in front are through in no time, and turning the others away would
    /// only make them dial again and again. A crowd from one address gets no such patience: everybody behind it in the
    /// system's queue would wait with it.
    pub async fn enter_soon(&self, address: IpAddr) -> Option<Place> {
        let until = Instant::now() + WAIT;
        loop {
            let place = self.enter(address, Instant::now());
            if place.is_some() || !self.is_worth_waiting(address) {
                return place;
            }
            if timeout_at(until, self.freed.notified()).await.is_err() {
                return self.enter(address, Instant::now());
            }
        }
    }

    fn is_worth_waiting(&self, address: IpAddr) -> bool {
        let inside = self.lock();
        inside.standing.len() >= self.room && inside.from(origin(address)) == 0
    }

    /// Returns a place for a connection from an address, or `None` if there is no room.
    pub fn enter(&self, address: IpAddr, now: Instant) -> Option<Place> {
        let origin = origin(address);
        let mut inside = self.lock();
        let from_here = inside.from(origin);
        let number = if inside.standing.len() >= self.room {
            Some(inside.outstayed(now, |_| true).or_else(|| inside.crowded_out_by(from_here))?)
        } else if from_here >= self.room / 2 {
            Some(inside.outstayed(now, |standing| standing.origin == origin)?)
        } else {
            None
        };
        if let Some(standing) = number.and_then(|number| inside.remove(number)) {
            standing.pushed.cancel();
        }
        inside.next += 1;
        let number = inside.next;
        let pushed = CancellationToken::new();
        *inside.origins.entry(origin).or_default() += 1;
        inside.standing.insert(
            number,
            Standing { origin, since: now, is_silent: true, is_through: false, pushed: pushed.clone() },
        );
        Some(Place { door: self.clone(), number, pushed })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address that a connection is counted under: its own, or the /64 network in which an IPv6 host picks its
/// addresses freely.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

impl Inside {
    /// How many connections here come from an origin.
    fn from(&self, origin: IpAddr) -> usize {
        self.origins.get(&origin).copied().unwrap_or_default()
    }

    /// The oldest of the connections that match and have had their time.
    fn outstayed(&self, now: Instant, of: impl Fn(&Standing) -> bool) -> Option<u64> {
        // They are stored in the order in which they came.
        let since_a_while =
            self.standing.iter().take_while(|(_, standing)| now >= standing.since + SILENT_STAY);
        let mut outstayed = since_a_while.filter(|(_, standing)| {
            !standing.is_through && (standing.is_silent || now >= standing.since + MIN_STAY)
        });
        outstayed.find(|(_, standing)| of(standing)).map(|(number, _)| *number)
    }

    /// The oldest connection of the most crowded origin, if that origin has more connections than this one would have
    /// with one more.
    fn crowded_out_by(&self, from_here: usize) -> Option<u64> {
        let (crowded, _) = self
            .origins
            .iter()
            .filter(|(_, count)| **count > from_here + 1)
            .max_by_key(|(_, count)| **count)?;
        let is_one = |standing: &Standing| standing.origin == *crowded && !standing.is_through;
        self.standing.iter().find(|(_, standing)| is_one(standing)).map(|(number, _)| *number)
    }

    fn remove(&mut self, number: u64) -> Option<Standing> {
        let standing = self.standing.remove(&number)?;
        if let Some(count) = self.origins.get_mut(&standing.origin) {
            *count -= 1;
            if *count == 0 {
                self.origins.remove(&standing.origin);
            }
        }
        Some(standing)
    }
}

impl Place {
    /// Records that the peer has sent what a station sends first.
    pub fn spoke(&self) {
        self.change(|standing| standing.is_silent = false);
    }

    /// Records that the peer has said hello and waits to be let in: it keeps its place until it is on the roster.
    pub fn is_through(&self) {
        self.change(|standing| standing.is_through = true);
    }

    /// Records that the peer was refused and should hang up: from now on it makes room as others do.
    pub fn is_refused(&self) {
        self.change(|standing| standing.is_through = false);
    }

    fn change(&self, change: impl FnOnce(&mut Standing)) {
        if let Some(standing) = self.door.lock().standing.get_mut(&self.number) {
            change(standing);
        }
    }

    /// Returns when somebody else needs the place more.
    pub async fn pushed(&self) {
        self.pushed.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.lock().remove(self.number);
        self.door.freed.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ROOM: usize = 1_024;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[test]
    fn a_flood_from_one_address_leaves_room_for_another() {
        let (door, now) = (Door::new(ROOM), Instant::now());
        let flood: Vec<_> = (0..2_000).map_while(|_| door.enter(address(1), now)).collect();
        assert_eq!(flood.len(), ROOM / 2);
        assert!(door.enter(address(2), now).is_some());
    }

    #[test]
    fn who_has_outstayed_makes_room_and_nobody_else() {
        let (door, now) = (Door::new(ROOM), Instant::now());
        let first = door.enter(address(1), now).unwrap();
        let rest: Vec<_> = (1..ROOM / 2).map(|_| door.enter(address(1), now).unwrap()).collect();
        rest.iter().chain([&first]).for_each(Place::spoke);
        assert!(door.enter(address(1), now + MIN_STAY / 2).is_none());
        let later = now + MIN_STAY;
        let new = door.enter(address(1), later).unwrap();
        assert!(first.pushed.is_cancelled() && rest.iter().all(|place| !place.pushed.is_cancelled()));
        drop((first, new));
        assert!(door.enter(address(1), now).is_some(), "a place that is left is free");
    }

    #[test]
    fn who_is_silent_makes_room_before_who_speaks() {
        let (door, now) = (Door::new(3), Instant::now());
        let inside: Vec<_> = (1..=3).map(|last| door.enter(address(last), now).unwrap()).collect();
        inside[0].spoke();
        assert!(door.enter(address(4), now + SILENT_STAY / 2).is_none());
        let _new = door.enter(address(4), now + SILENT_STAY).unwrap();
        let pushed: Vec<bool> = inside.iter().map(|place| place.pushed.is_cancelled()).collect();
        assert_eq!(pushed, [false, true, false]);
    }

    #[test]
    fn a_crowd_from_few_addresses_makes_room_for_another_at_once() {
        let (door, now) = (Door::new(100), Instant::now());
        let crowd: Vec<_> = (0..100).map(|number| door.enter(address(number % 25), now).unwrap()).collect();
        crowd.iter().for_each(Place::spoke);
        let news: Vec<_> = (0..3).map(|_| door.enter(address(100), now).unwrap()).collect();
        assert!(door.enter(address(100), now).is_none(), "no address pushes others from as few places");
        assert!(door.enter(address(1), now).is_none());
        assert_eq!(crowd.iter().filter(|place| place.pushed.is_cancelled()).count(), news.len());
        assert!(news.iter().all(|place| !place.pushed.is_cancelled()));
    }

    #[test]
    fn who_is_through_counts_and_is_not_pushed_until_it_is_refused() {
        let (door, now) = (Door::new(4), Instant::now());
        let inside: Vec<_> = (1..=4).map(|last| door.enter(address(last), now).unwrap()).collect();
        inside.iter().for_each(Place::spoke);
        inside.iter().for_each(Place::is_through);
        let later = now + MIN_STAY * 100;
        assert!(door.enter(address(5), later).is_none(), "four wait to be let in, and that is all the room");
        inside[2].is_refused();
        assert!(door.enter(address(5), later).is_some());
        let pushed: Vec<bool> = inside.iter().map(|place| place.pushed.is_cancelled()).collect();
        assert_eq!(pushed, [false, false, true, false]);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let (door, now) = (Door::new(ROOM), Instant::now());
        let host = |network: u16, host: u16| IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]);
        let flood: Vec<_> = (0..2_000).map_while(|number| door.enter(host(1, number), now)).collect();
        assert_eq!(flood.len(), ROOM / 2);
        assert!(door.enter(host(2, 1), now).is_some());
        let mapped = |last: u8| IpAddr::from(Ipv4Addr::new(192, 0, 2, last).to_ipv6_mapped());
        assert_eq!(origin(mapped(7)), address(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_door_keeps_no_crowd_waiting() {
        let (door, now) = (Door::new(2), Instant::now());
        let _inside: Vec<_> = (1..=2).map(|last| door.enter(address(last), now).unwrap()).collect();
        assert!(door.enter_soon(address(1)).await.is_none());
        assert_eq!(now.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn at_a_full_door_the_next_waits_for_a_place_but_not_for_long() {
        let (door, now) = (Door::new(2), Instant::now());
        let mut inside: Vec<_> = (1..=2).map(|last| door.enter(address(last), now).unwrap()).collect();
        inside.iter().for_each(Place::spoke);
        assert!(door.enter_soon(address(3)).await.is_none());
        assert_eq!(now.elapsed(), WAIT);
        let (place, ()) = tokio::join!(door.enter_soon(address(3)), async {
            tokio::time::sleep(WAIT / 2).await;
            drop(inside.pop());
        });
        assert!(place.is_some());
    }

    #[test]
    fn an_empty_door_remembers_nobody() {
        let door = Door::new(ROOM);
        drop((door.enter(address(1), Instant::now()), door.enter(address(2), Instant::now())));
        let inside = door.lock();
        assert!(inside.standing.is_empty() && inside.origins.is_empty());
    }
}
