//! How many connections the system allows this process.

use super::memory;

/// The most connections that have not yet proven who they are.
const MAX_STRANGERS: usize = 1_024;
/// File descriptors for everything except connections, …
const OWN_FILES: usize = 64;
/// … but if there are few, at most one in this many …
const OWN_ONE_IN: usize = 2;
/// … and at most one in this many for strangers; the rest is for stations.
const STRANGERS_ONE_IN: usize = 4;

/// Memory for everything except connections: the longest clip while it is made and sent, its samples, and data that
/// waits for the disk; if there is little memory, a part of it.
const OWN_BYTES: u64 = 96 << 20;
/// Memory for each connection: the amount measured per station with a thousand stations, and a little more.
const CONNECTION_BYTES: u64 = 20 << 10;

/// How many connections there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Stations.
    pub stations: usize,
    /// Connections that have not yet proven who they are.
    pub strangers: usize,
}

impl Room {
    /// Raises this process's limit of open files to what `max_stations` stations need. Also returns a warning if the
    /// system does not allow that, or does not have the memory in addition to what is reserved; there is then room for
    /// fewer stations. Running out of memory would kill the announcer, so stations are refused before that.
    pub fn make(max_stations: usize, reserved_bytes: u64) -> (Self, Vec<String>) {
        let wanted = max_stations.saturating_add(MAX_STRANGERS + OWN_FILES);
        let mut warnings = Vec::new();
        let files = match rlimit::increase_nofile_limit(wanted as u64) {
            Ok(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
            Err(error) => {
                warnings.push(format!("cannot tell how many files may be open: {error}"));
                wanted
            }
        };
        let by_files = Self::within(files, max_stations);
        let memory = memory::available_bytes().saturating_sub(reserved_bytes);
        let room = Self::within(files.min(Self::connections_in(memory)), max_stations);
        tracing::info!(
            "{files} files may be open, and {} MiB of memory are free: room for {} stations",
            memory >> 20,
            room.stations
        );
        if by_files.stations < max_stations {
            warnings.push(format!(
                "the system allows {files} open files, which is room for {} stations, not for {max_stations}: raise \
                 the hard limit (`ulimit -Hn`, LimitNOFILE= in a systemd unit) to {wanted}",
                by_files.stations
            ));
        }
        if room.stations < by_files.stations {
            warnings.push(format!(
                "{} MiB of memory are free, which is room for {} stations, not for {}: free some, or raise the limit \
                 (`ulimit -v`, MemoryMax= in a systemd unit)",
                memory >> 20,
                room.stations,
                by_files.stations
            ));
        }
        (room, warnings)
    }

    /// How many connections this much memory is enough for.
    fn connections_in(bytes: u64) -> usize {
        let own = OWN_BYTES.min(bytes / OWN_ONE_IN as u64);
        usize::try_from((bytes - own) / CONNECTION_BYTES).unwrap_or(usize::MAX)
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

    #[test]
    fn memory_for_a_clip_comes_first() {
        assert_eq!(Room::connections_in(0), 0);
        assert_eq!(Room::connections_in((96 << 20) + 11_088 * (20 << 10)), 11_088);
        assert_eq!(Room::connections_in(40 << 20), 1_024);
        assert!(Room::connections_in(u64::MAX) > 1 << 40);
    }
}
