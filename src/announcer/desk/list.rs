//! The list of the stations that have joined, which other processes change as well. Nothing here is written on the
//! desk's own task.

use std::time::Duration;

use tokio::time::Instant;

use super::super::connection::Admission;
use super::Desk;
use crate::keys::{Admitted, Changes, KeysError, Station};
use crate::site::Site;
use crate::wire;

/// How often the announcer writes down which stations are here.
const SAVE_SEEN_INTERVAL: Duration = Duration::from_secs(60);
/// How often it does so if stations have changed their zones.
const SAVE_ZONES_INTERVAL: Duration = Duration::from_secs(5);

impl Desk {
    /// Whether a station may be on the roster under its name.
    pub(super) fn admit(
        &mut self,
        name: &str,
        admission: Option<Admission>,
        now: Instant,
    ) -> Result<(), String> {
        let Some((site, Admission { peer, admitted })) = self.config.site.clone().zip(admission) else {
            return Ok(());
        };
        // Stations that were removed go before anybody takes their name.
        self.follow_list();
        let admitted = match admitted {
            Ok(_) if site.has_shut_out(&peer, name) => Err(KeysError::NoSuchStation(name.to_owned())),
            admitted => admitted,
        };
        match admitted {
            Ok(Admitted::Renamed { from }) => {
                self.stations.remove(&from, "it goes by another name now", now);
                Ok(())
            }
            Ok(Admitted::Joined | Admitted::Back) => Ok(()),
            Err(error) => Err(wire::reason(crate::error_chain(&error))),
        }
    }

    /// Checks whether the list of stations was changed, and from time to time writes down which stations are here.
    pub(super) fn keep_site(&mut self) {
        self.follow_wall();
        self.follow_list();
        let has_zones = self.config.site.as_ref().is_some_and(|site| site.has_unwritten_zones());
        let interval = if has_zones { SAVE_ZONES_INTERVAL } else { SAVE_SEEN_INTERVAL };
        if self.seen_saved.elapsed() >= interval {
            self.seen_saved = Instant::now();
            self.save_seen();
        }
        self.save_digits();
    }

    /// Applies what another process has written into the list of stations.
    fn follow_list(&mut self) {
        let Some(site) = self.config.site.clone() else { return };
        match site.changes() {
            Ok(Changes { removed, volumes }) => {
                self.are_zones_stale |= !removed.is_empty();
                for station in removed {
                    self.shut_out(&station);
                }
                for station in volumes {
                    self.stations.set_volume(&station.name, station.volume);
                }
            }
            Err(error) => tracing::warn!("cannot read who has joined: {}", crate::error_chain(&error)),
        }
        match self.zone_order.refresh() {
            Ok(is_changed) => self.are_zones_stale |= is_changed,
            Err(error) => tracing::warn!("cannot read the order of zones: {}", crate::error_chain(&error)),
        }
    }

    /// Closes every connection of a key that was removed, under any name; but not those of another station that may
    /// have taken its name since.
    fn shut_out(&mut self, removed: &Station) {
        let (reason, now) = ("it was removed", Instant::now());
        let connections: Vec<_> = self.keys.iter().map(|(id, key)| (*id, *key == removed.key)).collect();
        let mut is_anothers = false;
        for (connection, is_removed) in connections {
            let name = self.stations.name_of(connection).map(str::to_owned);
            is_anothers |= !is_removed && name.as_ref() == Some(&removed.name);
            if is_removed {
                self.orders.remove(&connection);
                name.iter().for_each(|name| self.stations.remove(name, reason, now));
            }
        }
        if !is_anothers {
            self.stations.remove(&removed.name, reason, now);
        }
    }

    /// Starts writing down which stations are here, unless something is still being written.
    pub(super) fn save_seen(&mut self) {
        if !self.is_saving() {
            let here: Vec<String> = self.stations.present_names().map(str::to_owned).collect();
            self.save("who is here", move |site| site.save_seen(&here));
        }
    }

    /// Starts writing down which digits zones were assigned, if any, unless something is still being written.
    pub(super) fn save_digits(&mut self) {
        if !self.is_saving()
            && let Some(digits) = self.unwritten_digits.take()
        {
            self.save("the digits of zones", move |_| digits.write());
        }
    }

    fn is_saving(&self) -> bool {
        self.saving.as_ref().is_some_and(|saving| !saving.is_finished())
    }

    fn save(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&Site) -> Result<(), KeysError> + Send + 'static,
    ) {
        let Some(site) = self.config.site.clone() else { return };
        self.saving = Some(tokio::spawn(async move {
            if let Err(error) = site.write_in_turn(work).await {
                tracing::warn!("cannot write down {what}: {}", crate::error_chain(&error));
            }
        }));
    }
}
