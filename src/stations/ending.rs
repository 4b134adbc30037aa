//! How a clip ends for each station: exactly one outcome, told once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::announcement::{Announcement, Delivery, Progress};
use super::{Action, MAX_KEPT_BYTES, MAX_SENDINGS, Order, Presence, REJOIN_GRACE, Station, Stations};
use crate::event::{Event, Outcome};
use crate::wire::ClipId;

/// What an earlier run of the announcer knew of one station and one clip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// It had the clip whole, so that it may have been told to play it.
    pub has_it: bool,
    /// Its loudspeaker had begun.
    pub begun: bool,
    /// The last word.
    pub outcome: Option<Outcome>,
}

impl Stations {
    /// The last word on a station that did not play a clip; nothing if it was spoken already.
    pub(super) fn end(&mut self, id: ClipId, name: &str, outcome: Outcome, reason: String) {
        let Some(announcement) = self.announcements.get_mut(&id) else { return };
        if announcement.is_open(name) {
            announcement.set(name, Progress::Ended(outcome, reason.clone()));
            self.tell(Event::Failed { clip: id.to_string(), station: name.to_owned(), outcome, reason });
        }
    }

    /// A clip that a station cannot be given any more.
    pub(super) fn miss(&mut self, id: ClipId, name: &str) {
        let Some(announcement) = self.announcements.get(&id) else { return };
        let trouble = announcement.recipients.get(name).and_then(|recipient| recipient.trouble.clone());
        let reason = trouble.unwrap_or_else(|| "it was not free before the clip expired".to_owned());
        let outcome = announcement.unheard(name);
        self.end(id, name, outcome, reason);
    }

    /// Ends every clip that a station still owes.
    pub(super) fn end_all(&mut self, name: &str, reason: &str) {
        let open: Vec<(ClipId, Outcome)> = self
            .announcements
            .iter()
            .filter(|(_, announcement)| announcement.is_open(name))
            .map(|(id, announcement)| (*id, announcement.unheard(name)))
            .collect();
        for (id, outcome) in open {
            self.end(id, name, outcome, reason.to_owned());
        }
    }

    /// Gives up whatever has no outcome yet and is not kept elsewhere: for an announcer that leaves.
    pub fn give_up(&mut self, reason: &str, is_kept: impl Fn(&ClipId) -> bool) {
        let open: Vec<(ClipId, Vec<String>)> = self
            .announcements
            .iter()
            .filter(|(id, _)| !is_kept(id))
            .map(|(id, announcement)| (*id, announcement.names(|p| !matches!(p, Progress::Ended(..)))))
            .collect();
        for (id, names) in open {
            for name in names {
                let Some(announcement) = self.announcements.get(&id) else { continue };
                let outcome = announcement.unheard(&name);
                self.end(id, &name, outcome, reason.to_owned());
            }
        }
    }

    /// A station is back without a receipt of a clip that it is due.
    pub(super) fn is_back(&mut self, id: ClipId, name: &str, now: Instant) {
        let keeps = self.keeps;
        let Some(announcement) = self.announcements.get_mut(&id) else { return };
        let expired = now >= announcement.expires;
        let Some(recipient) = announcement.recipients.get_mut(name) else { return };
        let was_told = std::mem::take(&mut recipient.unresolved);
        if !was_told || (keeps && !expired) {
            return self.owe(id, name);
        }
        let outcome = announcement.unheard(name);
        let reason = "it was told to play, and came back without a receipt".to_owned();
        self.end(id, name, outcome, reason);
    }

    /// Puts a clip in line for a station, unless it took it too often.
    pub(super) fn owe(&mut self, id: ClipId, name: &str) {
        let Some(announcement) = self.announcements.get_mut(&id) else { return };
        let sendings = announcement.recipients.get(name).map_or(0, |recipient| recipient.sendings);
        if sendings < MAX_SENDINGS {
            return announcement.set(name, Progress::Owed);
        }
        let outcome = announcement.unheard(name);
        self.end(id, name, outcome, format!("it took the clip {sendings} times and gave no receipt"));
    }

    /// Ends a clip for stations that have it and could only play it when it has expired, and has them dial anew.
    pub(super) fn too_late(&mut self, id: ClipId, names: &[String], now: Instant) {
        for name in names {
            self.end(
                id,
                name,
                Outcome::Missed,
                "it could not have played before the clip expired".to_owned(),
            );
            if let Some(Station { presence: Presence::Here { connection, .. }, .. }) = self.roster.get(name) {
                let connection = *connection;
                self.actions.push(Action::Order(connection, Order::Drop));
                self.left(connection, "it was not needed any more", now);
            }
        }
    }

    /// Makes room on a full roster for a new name. False if nobody is lost, or stations are not forgotten.
    pub(super) fn forget_longest_lost(&mut self, now: Instant) -> bool {
        let lost = self.roster.iter().filter_map(|(name, station)| match station.presence {
            Presence::Lost { since, .. } => Some((since, name)),
            _ => None,
        });
        let Some(name) = lost.min().map(|(_, name)| name.clone()).filter(|_| !self.lasting) else {
            return false;
        };
        self.roster.remove(&name);
        self.end_all(&name, "it was forgotten, because too many others came");
        self.settle(now);
        true
    }

    /// Keeps the clips within their room.
    pub(super) fn make_room(&mut self, bytes: usize, now: Instant) {
        let kept = |(_, it): (&ClipId, &Announcement)| it.delivery.frames.len();
        let mut total = self.announcements.iter().map(kept).sum::<usize>() + bytes;
        while total > MAX_KEPT_BYTES {
            let oldest = self.announcements.iter().find(|(_, it)| it.settled && !it.is_busy());
            let Some((id, announcement)) = oldest.map(|(id, it)| (*id, it)) else { return };
            total -= announcement.delivery.frames.len();
            for name in announcement.names(|p| !matches!(p, Progress::Ended(..))) {
                self.miss(id, &name);
            }
            self.announcements.remove(&id);
            self.actions.push(Action::Closed(id));
        }
        self.settle(now);
    }

    /// Takes up a clip of an earlier run, of which `known` tells how far each station was. Without `expires` it
    /// has expired: then only those that may have played it are waited for. With `settled`, its verdict was given.
    pub fn restore(
        &mut self,
        delivery: Delivery,
        expires: Option<Instant>,
        known: BTreeMap<String, Restored>,
        settled: bool,
        now: Instant,
    ) {
        let id = delivery.id;
        let mut announcement = Announcement::new(Arc::new(delivery), expires.unwrap_or(now), now);
        announcement.is_restored = true;
        announcement.settled = settled;
        let mut open = Vec::new();
        for (name, was) in known {
            let progress = match was.outcome {
                Some(outcome) => {
                    Progress::Ended(outcome, format!("{} before the announcer ended", outcome.words()))
                }
                None => Progress::Away { held_until: now + REJOIN_GRACE },
            };
            if was.outcome.is_none() {
                open.push(name.clone());
            }
            announcement.add(
                name.clone(),
                progress,
                Some("it did not come back to the announcer".to_owned()),
            );
            if let Some(recipient) = announcement.recipients.get_mut(&name) {
                recipient.begun = was.begun;
                recipient.unresolved = was.has_it;
            }
        }
        self.announcements.insert(id, announcement);
        if !open.is_empty() {
            self.tell(Event::Sending { clip: id.to_string(), stations: open.clone() });
        }
        for name in open {
            if !self.roster.contains_key(&name) {
                self.end(id, &name, Outcome::Missed, "it was removed".to_owned());
            }
        }
    }
}
