//! Reports of stations that join, leave, fail and recover: at most one change of each kind a second for each station,
//! and the latest state in the end. A station that flaps, or lies, does not drown out the others.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::time::Duration;

use tokio::time::Instant;

use crate::event::Event;

/// The least time between two reported changes of one kind at one station.
pub(super) const NEWS_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a station is here, or whether its loudspeaker works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Presence,
    Health,
}

/// The reports on one subject of one station.
#[derive(Debug)]
struct Told {
    /// The last report of each kind, the latest at the end.
    said: Vec<(Instant, Event)>,
    /// The change to report when its kind is due again.
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

/// The stations with a report that is pending or was made within the last second.
#[derive(Debug, Default)]
pub(super) struct News(BTreeMap<(String, Subject), Told>);

impl News {
    /// Accepts a change; returns it if it should be reported now.
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
            // The state is again the one reported last.
            told.pending = None;
            return None;
        }
        if told.due(&event).is_some_and(|due| now < due) {
            told.pending = Some(event);
            return None;
        }
        Some(told.say(event, now))
    }

    /// The changes that are due now. Stations without news are forgotten.
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

    /// When [`Self::take_due`] next has something to report.
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
