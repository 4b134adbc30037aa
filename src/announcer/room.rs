//! How many connections the system lets this process have.

/// The most connections that have not yet proven who they are.
const MAX_STRANGERS: usize = 1_024;
/// File descriptors for everything that is no connection, …
const OWN_FILES: usize = 64;
/// … and where there are few, this part of them …
const OWN_ONE_IN: usize = 2;
/// … and this part for strangers: the rest is for stations.
const STRANGERS_ONE_IN: usize = 4;

/// How many connections there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Stations.
    pub stations: usize,
    /// Connections that have not yet proven who they are.
    pub strangers: usize,
}

impl Room {
    /// Raises this process's limit of open files to what so many stations need. Also gives a warning
    /// where the system does not allow it; there is room for fewer then.
    pub fn make(max_stations: usize) -> (Self, Option<String>) {
        let wanted = max_stations.saturating_add(MAX_STRANGERS + OWN_FILES);
        let limit = match rlimit::increase_nofile_limit(wanted as u64) {
            Ok(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
            Err(error) => {
                return (
                    Self::within(wanted, max_stations),
                    Some(format!("cannot tell how many files may be open: {error}")),
                );
            }
        };
        let room = Self::within(limit, max_stations);
        tracing::info!("{limit} files may be open: room for {} stations", room.stations);
        let warning = (room.stations < max_stations).then(|| {
            format!(
                "the system allows {limit} open files, which is room for {} stations, not for {max_stations}: raise \
                 the hard limit (`ulimit -Hn`, LimitNOFILE= in a systemd unit) to {wanted}",
                room.stations
            )
        });
        (room, warning)
    }

    fn within(limit: usize, max_stations: usize) -> Self {
        let strangers = MAX_STRANGERS.min(limit / STRANGERS_ONE_IN);
        let own = OWN_FILES.min(limit / OWN_ONE_IN);
        Self { stations: max_stations.min(limit - strangers - own), strangers }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn stations_come_first_but_the_door_stays_open() {
        assert_eq!(Room::within(20_000, 10_000), Room { stations: 10_000, strangers: 1_024 });
        assert_eq!(Room::within(1_024, 10_000), Room { stations: 704, strangers: 256 });
        assert_eq!(Room::within(40, 10_000), Room { stations: 10, strangers: 10 });
        assert_eq!(Room::within(0, 10_000), Room { stations: 0, strangers: 0 });
    }
}
