//! Loudspeakers that do not work. A clip waits for one as it does for a station that is away, and is played again from
//! its start if it broke off.

use tokio::time::Instant;

use super::announcement::Progress;
use super::{Presence, Station, Stations};
use crate::event::Event;
use crate::priority::Priority;
use crate::wire::{ClipId, UNMUTED_BY_EMERGENCIES};

impl Station {
    /// Why nothing can be played there now.
    pub(super) fn trouble(&self) -> Option<String> {
        match (&self.presence, &self.fault) {
            (Presence::Lost { reason, .. }, _) => Some(format!("not connected: {reason}")),
            (_, Some(fault)) => Some(format!("its loudspeaker does not work: {fault}")),
            (_, None) => None,
        }
    }

    /// The lowest priority that its loudspeaker can play; `None` if it can play nothing.
    pub(super) fn least_urgent(&self) -> Option<Priority> {
        match &self.fault {
            None => Some(Priority::Low),
            Some(fault) => fault.ends_with(UNMUTED_BY_EMERGENCIES).then_some(Priority::Emergency),
        }
    }

    /// Like [`Self::trouble`], but for a page of this priority.
    pub(super) fn trouble_for(&self, priority: Priority) -> Option<String> {
        let is_lost = matches!(self.presence, Presence::Lost { .. });
        let can_play = self.least_urgent().is_some_and(|least| priority >= least);
        self.trouble().filter(|_| is_lost || !can_play)
    }
}

impl Stations {
    /// Records whether a station's loudspeaker works, and holds its clips back or sends them.
    pub(super) fn has_fault(&mut self, name: &str, fault: Option<String>, now: Instant) {
        let Some(station) = self.roster.get_mut(name) else { return };
        station.mended_at = None;
        if station.fault == fault {
            return;
        }
        station.fault = fault.clone();
        let is_lost = matches!(station.presence, Presence::Lost { .. });
        let station = name.to_owned();
        match fault {
            Some(reason) => {
                self.tell_news(Event::StationFaulty { station, reason }, now);
                for id in self.clips_where(|progress| *progress == Progress::Owed, name) {
                    if self.can_play(id, name) {
                        continue;
                    }
                    self.hold(id, name, now);
                    if !self.keeps {
                        self.miss(id, name);
                    }
                }
            }
            None => {
                self.tell_news(Event::StationHealthy { station }, now);
                if !is_lost {
                    self.take_up_what_waited(name, now);
                }
            }
        }
        self.settle(now);
    }

    /// Queues the clips that have waited for a station, and sends it the first.
    pub(super) fn take_up_what_waited(&mut self, name: &str, now: Instant) {
        for id in self.clips_where(|progress| matches!(progress, Progress::Away { .. }), name) {
            self.is_back(id, name, now);
        }
        self.settle(now);
        self.serve(name, now);
    }

    /// Holds a clip back for a station that cannot play it now; the verdict does not wait.
    pub(super) fn hold(&mut self, id: ClipId, name: &str, now: Instant) {
        let trouble = self.roster.get(name).and_then(Station::trouble);
        let Some(announcement) = self.announcements.get_mut(&id) else { return };
        if let Some(trouble) = trouble {
            announcement.trouble(name, &trouble);
        }
        announcement.set(name, Progress::Away { held_until: now });
    }

    /// Whether a station's loudspeaker does not work.
    pub(super) fn is_faulty(&self, name: &str) -> bool {
        self.roster.get(name).is_some_and(|station| station.fault.is_some())
    }

    /// Whether the station's loudspeaker can play a clip.
    pub(super) fn can_play(&self, id: ClipId, name: &str) -> bool {
        let least = self.roster.get(name).map_or(Some(Priority::Low), Station::least_urgent);
        let priority = self.announcements.get(&id).map(|it| it.delivery.priority);
        priority.zip(least).is_some_and(|(priority, least)| priority >= least)
    }

    fn clips_where(&self, test: impl Fn(&Progress) -> bool, name: &str) -> Vec<ClipId> {
        let is_one = |it: &super::Announcement| it.progress(name).is_some_and(&test);
        self.announcements.iter().filter(|(_, it)| is_one(it)).map(|(id, _)| *id).collect()
    }
}
