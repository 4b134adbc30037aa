//! Stations that join: expected ones, new ones, those that connect again, and two that are really one.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Action, ConnectionId, Delivery, FAULT_MEMORY, Hello, Order, Presence, Station, Stations};
use crate::event::Event;

/// How many runs of a station that made way for another are remembered.
const MAX_TWINS: usize = 8;

/// Runs of a station that made way for another run with the same key. If one comes back while the other is here, it is
/// not a restart: both are alive, and would throw each other out for ever.
#[derive(Debug, Default)]
pub(super) struct Twins {
    instances: Vec<u64>,
    are_told: bool,
}

impl Twins {
    fn made_way(&mut self, instance: u64) {
        // Restarts count too: if no room were made, the ninth would end the watch for twins.
        if self.instances.len() >= MAX_TWINS {
            self.instances.remove(0);
        }
        self.instances.push(instance);
        self.are_told = false;
    }
}

impl Stations {
    /// Puts a station on the roster that joined in an earlier run and is not here.
    pub fn expect(&mut self, name: String, zones: Vec<String>) {
        let reason = "it has not been here since the announcer started".to_owned();
        self.roster.entry(name).or_insert(Station {
            zones,
            instance: 0,
            presence: Presence::Lost { reason, since: None },
            fault: None,
            mended_at: None,
            twins: Twins::default(),
        });
    }

    /// Handles a new setting of the announcer's clock. Clips on their way get the header and signature that `redate`
    /// makes for the instant at which they expire. Idle stations are asked to connect again, so that they receive the
    /// time before the next clip.
    pub fn renew(
        &mut self,
        mut redate: impl FnMut(&Delivery, Instant) -> Option<(Vec<u8>, Vec<u8>)>,
        now: Instant,
    ) {
        for announcement in self.announcements.values_mut().filter(|it| !it.closed && now < it.expires) {
            if let Some((header, signature)) = redate(&announcement.delivery, announcement.expires) {
                // A station that is just being sent the clip has the time by which it was dated before.
                let delivery = Delivery { header, signature, ..(*announcement.delivery).clone() };
                announcement.delivery = Arc::new(delivery);
            }
        }
        for (name, station) in &mut self.roster {
            if let Presence::Here { connection, served: false } = station.presence {
                self.names.remove(&connection);
                self.actions.push(Action::Order(connection, Order::Yield));
                station.presence = Presence::Between { since: now };
                self.between.push_back((now, name.clone()));
            }
        }
    }

    /// Handles a station's hello.
    ///
    /// # Errors
    /// Why it is refused, in words for the station.
    pub fn join(&mut self, connection: ConnectionId, hello: Hello, now: Instant) -> Result<(), String> {
        let name = hello.name.clone();
        let is_here = |station: &Station| matches!(station.presence, Presence::Here { .. });
        let is_new = !self.roster.get(&name).is_some_and(is_here);
        let too_many = self.names.len() >= self.max_stations
            || !self.lasting && !self.roster.contains_key(&name) && self.roster.len() >= self.max_stations;
        if is_new && too_many && (self.names.len() >= self.max_stations || !self.forget_longest_lost(now)) {
            return Err(format!("{} stations are here already, which is the limit", self.max_stations));
        }
        if let Some(old) = self.make_way(&hello)? {
            self.actions.push(Action::Order(old, Order::Drop));
            self.left(old, "it connected anew", now);
        }
        let known = self.roster.remove(&name);
        let is_news =
            !known.as_ref().is_some_and(|it| matches!(it.presence, Presence::Between { .. }) || is_here(it));
        if is_news {
            let zones = hello.zones.clone();
            let joined = Event::StationJoined { station: name.clone(), address: hello.address, zones };
            self.tell_news(joined, now);
        }
        let (fault, mut twins) = known.map(|station| (station.fault, station.twins)).unwrap_or_default();
        twins.instances.retain(|instance| *instance != hello.instance);
        self.roster.insert(
            name.clone(),
            Station {
                zones: hello.zones,
                instance: hello.instance,
                presence: Presence::Here { connection, served: false },
                mended_at: fault.is_some().then(|| now + FAULT_MEMORY),
                fault,
                twins,
            },
        );
        self.names.insert(connection, name.clone());
        if let Some(receipt) = hello.last {
            self.played(&name, receipt, now);
        }
        if let Some(clip) = hello.begun {
            self.was_cut_off(clip, &name);
        }
        self.take_up_what_waited(&name, now);
        Ok(())
    }

    /// The connection that makes way for a new one under the same name, if there is one.
    fn make_way(&mut self, hello: &Hello) -> Result<Option<ConnectionId>, String> {
        let Hello { name, instance, address, .. } = hello;
        let Some(station) = self.roster.get_mut(name) else { return Ok(None) };
        let Presence::Here { connection, .. } = station.presence else { return Ok(None) };
        if station.instance == *instance {
            return Ok(Some(connection));
        }
        if !self.lasting {
            return Err(format!("another station is here under the name {name}: choose another --name"));
        }
        if !station.twins.instances.contains(instance) {
            station.twins.made_way(station.instance);
            return Ok(Some(connection));
        }
        if !std::mem::replace(&mut station.twins.are_told, true) {
            let message = format!(
                "a second {name} at {address} was refused: it has the same key, so its state folder was copied or it \
                 runs twice; start it with a --name and a --state of its own and an invite"
            );
            self.tell(Event::Warning { message });
        }
        Err(format!(
            "another {name} is here with the same key: its state folder was copied, or it runs twice; start one of \
             them with a --name and a --state of its own and an invite"
        ))
    }
}
