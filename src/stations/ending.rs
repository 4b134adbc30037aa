//! How a clip ends for each station: exactly one outcome, reported once.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::announcement::{Announcement, Delivery, Progress, Timing};
use super::{
    Action, MAX_KEPT_BYTES, MAX_REFUSALS, MAX_SENDINGS, Order, Presence, REJOIN_GRACE, Station, Stations,
};
use crate::event::{self, Event, Outcome};
use crate::wire::{ClipId, Receipt};

/// What an earlier run of the announcer knew about one station and one clip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// It had the whole clip, so it may have been ordered to play it.
    pub has_it: bool,
    /// Its loudspeaker had begun.
    pub begun: bool,
    /// It had begun once before it was last sent the clip.
    pub again: bool,
    /// The outcome, if there was one.
    pub outcome: Option<Outcome>,
}

impl Stations {
    /// Accepts a receipt, if one is still due.
    pub(super) fn played(&mut self, name: &str, receipt: Receipt, now: Instant) {
        let Some(announcement) = self.announcements.get_mut(&receipt.clip) else { return };
        let Some(recipient) = announcement.recipients.get(name) else { return };
        let (told, due) = match (recipient.told, announcement.due) {
            (Some(told), Some(due)) => (told, due),
            // An earlier run ordered it to play, and set the instant that the receipt counts from.
            _ if announcement.is_restored => (now, now),
            _ => return,
        };
        let again = recipient.again;
        if !announcement.is_open(name) {
            return;
        }
        let due_frames = announcement.delivery.sound_frames;
        if receipt.frames != due_frames {
            let reason = format!("its receipt says {} of {due_frames} frames", receipt.frames);
            self.end(receipt.clip, name, Outcome::Interrupted, reason);
            return self.settle(now);
        }
        let late_us = receipt.late_us(told.saturating_duration_since(due));
        let off_us = event::worst_off_us(late_us, receipt.max_error_us);
        let late = Duration::from_micros(late_us.max(0) as u64);
        let outcome = Outcome::played(late);
        announcement.set(name, Progress::Ended(outcome, String::new()));
        announcement
            .timings
            .insert(name.to_owned(), Timing { late_us, off_us, uncertainty_us: receipt.uncertainty_us });
        self.tell(Event::Played {
            clip: receipt.clip.to_string(),
            station: name.to_owned(),
            outcome,
            again,
            frames: receipt.frames,
            late_ms: late.as_millis() as u64,
            start_error_us: receipt.start_error_us,
            max_error_us: receipt.max_error_us,
            underruns: receipt.underruns,
            uncertainty_us: receipt.uncertainty_us,
            off_us,
        });
        self.settle(now);
    }

    pub(super) fn rejected(&mut self, name: &str, clip: ClipId, reason: String, now: Instant) -> bool {
        let Some(announcement) = self.announcements.get_mut(&clip) else { return false };
        if !matches!(announcement.progress(name), Some(Progress::Sent { .. })) {
            return false;
        }
        announcement.trouble(name, &reason);
        let refusals = announcement.recipients.get_mut(name).map_or(MAX_REFUSALS, |recipient| {
            recipient.refusals += 1;
            recipient.refusals
        });
        self.tell(Event::Rejected {
            clip: clip.to_string(),
            station: name.to_owned(),
            reason: reason.clone(),
        });
        match refusals {
            MAX_REFUSALS.. => {
                self.end(clip, name, Outcome::Rejected, format!("it refused the clip: {reason}"))
            }
            _ => self.owe(clip, name),
        }
        self.order(name, Order::Note(clip));
        self.settle(now);
        true
    }

    pub(super) fn failed(&mut self, name: &str, clip: ClipId, reason: String, now: Instant) -> bool {
        let Some(announcement) = self.announcements.get_mut(&clip) else { return false };
        if !matches!(announcement.progress(name), Some(Progress::Verified | Progress::Told { .. })) {
            return false;
        }
        let (outcome, is_fresh) = (announcement.unheard(name), now < announcement.expires);
        if self.keeps && is_fresh && self.is_faulty(name) {
            self.hold(clip, name, now);
        } else {
            self.end(clip, name, outcome, reason);
        }
        self.order(name, Order::Note(clip));
        self.settle(now);
        true
    }

    /// Records the outcome of a station that did not play a clip; does nothing if there is one already.
    pub(super) fn end(&mut self, id: ClipId, name: &str, outcome: Outcome, reason: String) {
        let Some(announcement) = self.announcements.get_mut(&id) else { return };
        if announcement.is_open(name) {
            announcement.set(name, Progress::Ended(outcome, reason.clone()));
            self.tell(Event::Failed { clip: id.to_string(), station: name.to_owned(), outcome, reason });
        }
    }

    /// Ends a clip that can no longer be sent to a station.
    pub(super) fn miss(&mut self, id: ClipId, name: &str) {
        let Some(announcement) = self.announcements.get(&id) else { return };
        let trouble = announcement.recipients.get(name).and_then(|recipient| recipient.trouble.clone());
        let reason = trouble.unwrap_or_else(|| "it was not free before the clip expired".to_owned());
        let outcome = announcement.unheard(name);
        self.end(id, name, outcome, reason);
    }

    /// Ends every clip that is still open for a station.
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

    /// Gives up every clip that has no outcome yet and is not kept elsewhere: for an announcer that leaves.
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

    /// Handles a station's report that it once began a clip and has not played it to the end; its earlier report of
    /// that may have been lost.
    pub(super) fn was_cut_off(&mut self, id: ClipId, name: &str) {
        let Some(announcement) = self.announcements.get_mut(&id).filter(|it| it.is_open(name)) else {
            return;
        };
        let is_restored = announcement.is_restored;
        let Some(recipient) = announcement.recipients.get_mut(name) else { return };
        let was_told = recipient.told.is_some() || is_restored;
        if was_told && !recipient.again && !std::mem::replace(&mut recipient.begun, true) {
            self.tell(Event::Playing { clip: id.to_string(), station: name.to_owned() });
        }
    }

    /// Handles a station that is back, or whose loudspeaker works again, without a receipt for a clip that is due.
    pub(super) fn is_back(&mut self, id: ClipId, name: &str, now: Instant) {
        let keeps = self.keeps;
        let Some(announcement) = self.announcements.get_mut(&id) else { return };
        let expired = now >= announcement.expires;
        let Some(recipient) = announcement.recipients.get_mut(name) else { return };
        let was_told = std::mem::take(&mut recipient.unresolved);
        let has_yielded = std::mem::take(&mut recipient.yielded);
        if !was_told || ((keeps || has_yielded) && !expired) {
            return if self.can_play(id, name) { self.owe(id, name) } else { self.hold(id, name, now) };
        }
        let outcome = announcement.unheard(name);
        let reason = "it was told to play, and came back without a receipt".to_owned();
        self.end(id, name, outcome, reason);
    }

    /// Queues a clip for a station, unless it was sent there too often.
    pub(super) fn owe(&mut self, id: ClipId, name: &str) {
        let Some(announcement) = self.announcements.get_mut(&id) else { return };
        let sendings = announcement.recipients.get(name).map_or(0, |recipient| recipient.sendings);
        if sendings < MAX_SENDINGS {
            return announcement.set(name, Progress::Owed);
        }
        let outcome = announcement.unheard(name);
        self.end(id, name, outcome, format!("it took the clip {sendings} times and gave no receipt"));
    }

    /// Ends a clip for stations that have it but could only play it after it has expired, and makes them dial again.
    pub(super) fn too_late(&mut self, id: ClipId, names: &[String], now: Instant) {
        for name in names {
            let Some(announcement) = self.announcements.get(&id) else { return };
            let outcome = announcement.unheard(name);
            self.end(id, name, outcome, "it could not have played before the clip expired".to_owned());
            if let Some(Station { presence: Presence::Here { connection, .. }, .. }) = self.roster.get(name) {
                let connection = *connection;
                self.actions.push(Action::Order(connection, Order::Drop));
                self.left(connection, "it was not needed any more", now);
            }
        }
    }

    /// Makes room on a full roster for a new name. False if no station is lost, or stations are not forgotten.
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

    /// Keeps the clips within their memory limit.
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

    /// Resumes a clip of an earlier run; `known` says how far each station was. Without `expires` the clip has expired:
    /// the announcer then waits only for stations that may have played it. With `settled`, its verdict was already
    /// reported.
    pub fn restore(
        &mut self,
        delivery: Delivery,
        expires: Option<Instant>,
        known: BTreeMap<String, Restored>,
        settled: bool,
        now: Instant,
    ) {
        let id = delivery.id;
        let mut announcement = Announcement::new(delivery, known.len(), expires.unwrap_or(now), now);
        announcement.is_restored = true;
        announcement.settled = settled;
        let (mut open, keeps) = (Vec::new(), self.keeps);
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
                recipient.again = was.again;
                // Without keeping, the clip waits for no station, and what was reported about those that were away
                // remains true.
                recipient.unresolved = was.has_it || !keeps;
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
