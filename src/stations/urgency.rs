//! Which page goes first: pages wait at a station while another is heard there, and the way is cleared for an
//! emergency.

use tokio::time::Instant;

use super::announcement::{Progress, Recipient};
use super::{Action, LONGEST_QUEUE, Order, Presence, RECEIPT_DEADLINE, REJOIN_GRACE, Station, Stations};
use crate::event::Event;
use crate::priority::Priority;
use crate::wire::ClipId;

impl Stations {
    /// Handles a station's report that another page goes first there. The verdict waits for the station until the clip
    /// expires, within reason.
    pub(super) fn queued(&mut self, name: &str, clip: ClipId, now: Instant) -> bool {
        let Some(announcement) = self.announcements.get_mut(&clip) else { return false };
        let latest = announcement.expires.min(now + LONGEST_QUEUE);
        let until = latest + announcement.delivery.length + RECEIPT_DEADLINE;
        let Some(recipient) = announcement.recipients.get_mut(name) else { return false };
        let is_told = matches!(recipient.progress, Progress::Told { .. });
        if !is_told || std::mem::replace(&mut recipient.queued, true) {
            return false;
        }
        let interrupted = std::mem::take(&mut recipient.begun);
        recipient.again |= interrupted;
        announcement.set(name, Progress::Told { until });
        self.tell(Event::Queued { clip: clip.to_string(), station: name.to_owned(), interrupted });
        true
    }

    /// Makes every station that an emergency is for break off anything less urgent that it is receiving or playing from
    /// this announcer. The station is sent that again when it comes back, after the emergency.
    pub(super) fn clear_the_way(&mut self, emergency: ClipId, now: Instant) {
        let Some(announcement) = self.announcements.get(&emergency) else { return };
        let priority = announcement.delivery.priority;
        let names = announcement.names(|progress| *progress == Progress::Owed);
        self.clear_the_way_for(emergency, priority, &names, now);
    }

    /// Like [`Self::clear_the_way`], for a page that these stations should hear at once.
    pub(super) fn clear_the_way_for(
        &mut self,
        urgent: ClipId,
        priority: Priority,
        names: &[String],
        now: Instant,
    ) {
        for name in names {
            let busy = self.announcements.iter().find(|(id, other)| {
                let is_here = **id != urgent
                    && matches!(
                        other.progress(name),
                        Some(Progress::Sent { .. } | Progress::Verified | Progress::Told { .. })
                    );
                is_here && priority.interrupts(other.delivery.priority)
            });
            let Some(clip) = busy.map(|(id, _)| *id) else { continue };
            if let Some(station) = self.roster.get_mut(name)
                && let Station { presence: Presence::Here { connection, .. }, .. } = station
            {
                self.names.remove(connection);
                self.actions.push(Action::Order(*connection, Order::Yield));
                station.presence = Presence::Between { since: now };
                self.between.push_back((now, name.clone()));
                self.break_off_for_now(clip, name, now);
            }
        }
    }

    /// Postpones a clip that a station has begun to receive or to play.
    fn break_off_for_now(&mut self, clip: ClipId, name: &str, now: Instant) {
        let Some(announcement) = self.announcements.get_mut(&clip) else { return };
        announcement.trouble(name, "an emergency went first");
        let Some(recipient) = announcement.recipients.get_mut(name) else { return };
        // It is not the station's fault that the clip is sent once more.
        recipient.sendings = recipient.sendings.saturating_sub(1);
        if !matches!(recipient.progress, Progress::Told { .. }) {
            return announcement.set(name, Progress::Owed);
        }
        // It may just have played to the end: its Hello says so.
        (recipient.unresolved, recipient.yielded) = (true, true);
        let interrupted = recipient.begun;
        announcement.set(name, Progress::Away { held_until: now + REJOIN_GRACE });
        let length = announcement.delivery.length;
        // A station that loses its connection plays to the end.
        let may_sound = |it: &Recipient| !it.yielded && it.told.is_some_and(|at| now < at + length);
        if announcement.tally.told == 0 && !announcement.recipients.values().any(may_sound) {
            // No station plays it any more: those that play it later begin together.
            announcement.starts.clear();
        }
        self.tell(Event::Queued { clip: clip.to_string(), station: name.to_owned(), interrupted });
    }
}
