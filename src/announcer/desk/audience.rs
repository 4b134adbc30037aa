//! Whom the next announcement is for, and how urgent it is.

use super::Desk;
use crate::event::Event;
use crate::keys::zones::natural;
use crate::priority::Priority;

impl Desk {
    /// Makes the next announcement an emergency, or undoes that. One that is being recorded keeps its priority.
    pub(super) fn toggle_emergency(&mut self) {
        let is_armed = self.priority != self.config.priority;
        self.set_priority(if is_armed { self.config.priority } else { Priority::Emergency });
    }

    pub(super) fn set_priority(&mut self, priority: Priority) {
        if std::mem::replace(&mut self.priority, priority) != priority {
            self.events.tell(Event::Priority { priority });
        }
    }

    /// Addresses a zone from now on, or every station.
    pub(super) fn address(&mut self, zone: Option<String>) {
        self.addressed = zone.into_iter().collect();
        self.are_zones_stale = true;
        self.tell_zones();
    }

    /// Reports which zones there are and which are addressed, if that has changed.
    pub(super) fn tell_zones(&mut self) {
        if !std::mem::take(&mut self.are_zones_stale) {
            return;
        }
        let known = self.zone_order.all(&self.stations.zones());
        let now = (known, self.addressed.clone());
        if now != self.told_zones {
            self.told_zones = now.clone();
            let (known, addressed) = now;
            self.events.tell(Event::Zones { known, addressed });
        }
    }

    /// Explains why the addressed zones cannot be announced to; `None` if they can.
    pub(super) fn unknown_zone(&self) -> Option<String> {
        if self.addressed.is_empty() {
            return None;
        }
        let known = self.stations.zones();
        let unknown = self.addressed.iter().find(|zone| !known.contains(zone.as_str()))?;
        let mut known: Vec<&str> = known.into_iter().collect();
        known.sort_by(|one, other| natural(one, other));
        let known = match known.as_slice() {
            [] => "no station has one".to_owned(),
            known => format!("there are {}", known.join(", ")),
        };
        Some(format!("nothing was recorded or sent: no station is in the zone {unknown}; {known}"))
    }
}
