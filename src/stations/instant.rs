//! The instant: when a clip is played, which stations play it together, and that no other clip overlaps it.

use std::time::Duration;

use tokio::time::Instant;

use super::announcement::{Announcement, LATE_GAP, Progress};
use super::{LONGEST_QUEUE, MAX_LEAD, NAMING_MARGIN, Order, RECEIPT_DEADLINE, Stations};
use crate::event::Event;
use crate::wire::ClipId;

impl Stations {
    pub(super) fn verified(&mut self, name: &str, clip: ClipId, lead: Duration, now: Instant) -> bool {
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
        let is_late = announcement.agreed().is_some();
        self.tell(Event::Verified { clip: clip.to_string(), station: name.to_owned() });
        if is_late {
            self.name_instant(clip, vec![name.to_owned()], now);
        }
        self.settle(now);
        true
    }

    pub(super) fn playing(&mut self, name: &str, clip: ClipId, now: Instant) -> bool {
        let Some(announcement) = self.announcements.get_mut(&clip) else { return false };
        let until = now.min(announcement.expires) + announcement.delivery.length + RECEIPT_DEADLINE;
        let Some(recipient) = announcement.recipients.get_mut(name) else { return false };
        let begins = matches!(recipient.progress, Progress::Told { .. })
            && !std::mem::replace(&mut recipient.begun, true);
        if begins {
            if std::mem::take(&mut recipient.queued) {
                announcement.set(name, Progress::Told { until });
            }
            self.tell(Event::Playing { clip: clip.to_string(), station: name.to_owned() });
        }
        begins
    }

    /// Sets the instant for all stations that have verified.
    pub(super) fn agree(&mut self, clip: ClipId, now: Instant) {
        let Some(announcement) = self.announcements.get(&clip) else { return };
        let names = announcement.names(|progress| *progress == Progress::Verified);
        self.name_instant(clip, names, now);
    }

    /// Sets the instant for some stations that have verified. The first time it is the page's own; later stations play
    /// the clip as soon as the others are done.
    pub(super) fn name_instant(&mut self, clip: ClipId, names: Vec<String>, now: Instant) {
        let Some(announcement) = self.announcements.get(&clip) else { return };
        if names.is_empty() {
            return;
        }
        let soonest = now + announcement.lead(&names) + NAMING_MARGIN;
        let at = self.quiet_from(clip, announcement, soonest);
        let Some(announcement) = self.announcements.get_mut(&clip) else { return };
        announcement.agree_by = None;
        if at >= announcement.expires {
            return self.too_late(clip, &names, now);
        }
        announcement.book(at);
        let is_late = announcement.joint_start() != [at];
        // Once the verdict was reported, a station that plays the clip is late, even if none played it before.
        let page_instant = if announcement.settled { announcement.made } else { at };
        let behind = at.saturating_duration_since(*announcement.due.get_or_insert(page_instant));
        let until = at + announcement.delivery.length + RECEIPT_DEADLINE;
        for name in &names {
            announcement.set(name, Progress::Told { until });
            if is_late {
                announcement.late.insert(name.clone());
            }
            if let Some(recipient) = announcement.recipients.get_mut(name) {
                recipient.told = Some(at);
                recipient.queued = false;
                recipient.again |= std::mem::take(&mut recipient.begun);
            }
        }
        for name in &names {
            self.order(name, Order::PlayAt { clip, at, behind });
        }
    }

    /// Returns the first instant, not before `soonest`, from which a clip overlaps no other page's own play wherever
    /// both may be heard; `soonest` itself if that would be more than [`LONGEST_QUEUE`] later. Pages that this one
    /// interrupts do not count. The late stations of a page play together if they can. The late play of another page
    /// holds nobody back: the stations ordered to play it are busy with it, and the rest need not miss what comes next.
    pub(super) fn quiet_from(&self, clip: ClipId, announcement: &Announcement, soonest: Instant) -> Instant {
        if let Some(joined) = announcement.starts.iter().copied().skip(1).find(|start| *start >= soonest) {
            return joined;
        }
        let length = announcement.delivery.length;
        let mut busy: Vec<(Instant, Instant)> = Vec::new();
        for (other_clip, other) in &self.announcements {
            let gap = if *other_clip == clip { LATE_GAP } else { Duration::ZERO };
            let gives_way = announcement.delivery.priority.interrupts(other.delivery.priority);
            if other.delivery.may_meet(&announcement.delivery) && !gives_way {
                let starts = if *other_clip == clip { other.starts.as_slice() } else { other.joint_start() };
                busy.extend(starts.iter().map(|start| (*start, *start + other.delivery.length + gap)));
            }
        }
        busy.sort();
        let quiet = busy.into_iter().fold(
            soonest,
            |at, (from, until)| {
                if at < until && from < at + length { until } else { at }
            },
        );
        if quiet <= soonest + LONGEST_QUEUE { quiet } else { soonest }
    }
}
