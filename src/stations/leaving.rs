//! Stations that leave: between two connections, lost, shut down or removed.

use tokio::time::Instant;

use super::announcement::Progress;
use super::{Action, ConnectionId, Order, Presence, REJOIN_GRACE, Station, Stations};
use crate::event::Event;

impl Stations {
    /// Handles a closed connection; `reason` is for the operator.
    pub fn left(&mut self, connection: ConnectionId, reason: &str, now: Instant) {
        let Some(name) = self.names.remove(&connection) else { return };
        let owing = self.announcements.values().any(|announcement| {
            matches!(
                announcement.progress(&name),
                Some(Progress::Sent { .. } | Progress::Verified | Progress::Told { .. })
            )
        });
        let owing = owing || self.hears_live(&name);
        let Some(station) = self.roster.get_mut(&name) else { return };
        let as_agreed = matches!(station.presence, Presence::Here { served: true, .. }) && !owing;
        if as_agreed {
            station.presence = Presence::Between { since: now };
            self.between.push_back((now, name));
            return;
        }
        station.presence = Presence::Lost { reason: reason.to_owned(), since: Some(now) };
        self.lose(&name, reason, now, now + REJOIN_GRACE);
    }

    pub(super) fn forget(&mut self, name: &str, reason: &str, now: Instant) {
        let Some(station) = self.roster.remove(name) else { return };
        if let Presence::Here { connection, .. } = station.presence {
            self.names.remove(&connection);
            self.actions.push(Action::Order(connection, Order::Drop));
        }
        self.tell_news(Event::StationLeft { station: name.to_owned(), reason: reason.to_owned() }, now);
        self.end_all(name, reason);
        self.forget_live(name, reason, now);
        self.settle(now);
    }

    /// Handles a station that was shut down: it does not count as missing, unless it has joined for good.
    pub(super) fn goodbye(&mut self, name: &str, now: Instant) {
        let reason = "it was shut down by its user";
        if !self.lasting {
            return self.forget(name, reason, now);
        }
        let Some(station) = self.roster.get_mut(name) else { return };
        let was = std::mem::replace(
            &mut station.presence,
            Presence::Lost { reason: reason.to_owned(), since: Some(now) },
        );
        if let Presence::Here { connection, .. } = was {
            self.names.remove(&connection);
            self.actions.push(Action::Order(connection, Order::Drop));
        }
        self.lose(name, reason, now, now);
    }

    pub(super) fn break_off(&mut self, name: &str, reason: &str, now: Instant) {
        if let Some(Station { presence: Presence::Here { connection, .. }, .. }) = self.roster.get(name) {
            let connection = *connection;
            self.actions.push(Action::Order(connection, Order::Drop));
            self.left(connection, reason, now);
        }
    }

    /// Records that a station is gone. Clips due there wait for it; if clips are not kept, those that it cannot have
    /// played are missed. The verdict waits for the station until `held_until`.
    pub(super) fn lose(&mut self, name: &str, reason: &str, now: Instant, held_until: Instant) {
        let mut gone = Vec::new();
        for (id, announcement) in &mut self.announcements {
            if announcement.lose(name, reason, held_until) && !self.keeps {
                gone.push(*id);
            }
        }
        self.tell_news(Event::StationLeft { station: name.to_owned(), reason: reason.to_owned() }, now);
        self.leave_live(name, reason, now);
        gone.iter().for_each(|id| self.miss(*id, name));
        self.settle(now);
    }
}
