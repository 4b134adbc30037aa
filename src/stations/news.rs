//! What is told of stations that come, go, fail and heal: at most one change of a kind a second for each, and the latest
//! in the end. A station that flaps, or lies, does not drown the others.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Event;

/// The least time between two changes of one kind that are told of one station.
pub(super) const NEWS_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a station is here, or whether its loudspeaker works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Presence,
    Health,
}

/// One subject of one station.
#[derive(Debug)]
struct Told {
    /// The last of each kind, the latest at the end.
    said: Vec<(Instant, Event)>,
    /// What is to be told when its kind is due again.
    pending: Option<Event>,
}

impl Told {
    fn due(&self, event: &Event) -> Option<Instant> {
        let last = self.said.iter().find(|(_, said)| is_same_kind(said, event));
        last.map(|(at, _)| *at + NEWS_INTERVAL)
    }

    fn say(&mut self, event: Event, now: Instant) -> Event {
        self.said.retain(|(_, said)| !is_same_kind(said, &event));
        self.said.push((now, event.clone()));
        self.pending = None;
        event
    }
}

/// Of all stations of which something was told within the last second.
#[derive(Debug, Default)]
pub(super) struct News(BTreeMap<(String, Subject), Told>);

impl News {
    /// Takes a change; gives it back if it is to be told now.
    pub fn change(&mut self, event: Event, now: Instant) -> Option<Event> {
        let (station, subject) = match &event {
            Event::StationJoined { station, .. } | Event::StationLeft { station, .. } => {
                (station.clone(), Subject::Presence)
            }
            Event::StationFaulty { station, .. } | Event::StationHealthy { station } => {
                (station.clone(), Subject::Health)
            }
            _ => return Some(event),
        };
        let told = self.0.entry((station, subject)).or_insert(Told { said: Vec::new(), pending: None });
        if told.said.last().is_some_and(|(_, said)| says_the_same(said, &event)) && told.pending.is_some() {
            // Back to what was told last.
            told.pending = None;
            return None;
        }
        if told.due(&event).is_some_and(|due| now < due) {
            told.pending = Some(event);
            return None;
        }
        Some(told.say(event, now))
    }

    /// What is due to be told by now. Stations of which there is no news are forgotten.
    pub fn take_due(&mut self, now: Instant) -> Vec<Event> {
        let mut due = Vec::new();
        self.0.retain(|_, told| {
            if let Some(event) = told.pending.take_if(|_| true) {
                match told.due(&event) {
                    Some(at) if now < at => told.pending = Some(event),
                    _ => due.push(told.say(event, now)),
                }
            }
            told.pending.is_some() || told.said.iter().any(|(at, _)| now < *at + NEWS_INTERVAL)
        });
        due
    }

    /// When [`Self::take_due`] has something to tell.
    pub fn next_due(&self) -> Option<Instant> {
        self.0.values().filter_map(|told| told.due(told.pending.as_ref()?)).min()
    }
}

fn is_same_kind(one: &Event, other: &Event) -> bool {
    discriminant(one) == discriminant(other)
}

fn says_the_same(one: &Event, other: &Event) -> bool {
    match (one, other) {
        // Each connection has an address of its own.
        (Event::StationJoined { zones: one, .. }, Event::StationJoined { zones: other, .. }) => one == other,
        (Event::StationFaulty { reason: one, .. }, Event::StationFaulty { reason: other, .. }) => {
            one == other
        }
        _ => is_same_kind(one, other),
    }
}
