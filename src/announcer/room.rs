//! How many connections the system lets this process have, and what to do when there are no more.

use std::fs::File;
use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The most connections that have not yet proven who they are.
const MAX_STRANGERS: usize = 1_024;
/// File descriptors for everything that is no connection.
const OWN_FILES: usize = 64;
/// Too many open files, in this process or in the whole system (errno(3)).
const NO_DESCRIPTOR: [i32; 2] = [24, 23];
/// How long to wait for a connection that is known to be there.
const PENDING: Duration = Duration::from_millis(10);

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
        let strangers = MAX_STRANGERS.min(limit / 4);
        Self { stations: max_stations.min(limit.saturating_sub(strangers + OWN_FILES)), strangers }
    }
}

/// A file descriptor held back for the moment when there are no more: with it a connection can still be
/// taken and be told to come again, where it would otherwise wait unanswered.
#[derive(Debug)]
pub(super) struct Spare(Option<File>);

impl Spare {
    pub fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Takes the connection for which there was no descriptor; `None` when the error is another.
    pub async fn accept(&mut self, listener: &TcpListener, error: &io::Error) -> Option<Refused<'_>> {
        if !error.raw_os_error().is_some_and(|number| NO_DESCRIPTOR.contains(&number)) {
            return None;
        }
        drop(self.0.take());
        match timeout(PENDING, listener.accept()).await {
            Ok(Ok((stream, _))) => Some(Refused { stream: Some(stream), spare: self }),
            _ => {
                *self = Self::new();
                None
            }
        }
    }
}

/// A connection on the spare descriptor, which is held back again when this is dropped.
#[derive(Debug)]
pub(super) struct Refused<'a> {
    stream: Option<TcpStream>,
    spare: &'a mut Spare,
}

impl Refused<'_> {
    pub fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }
}

impl Drop for Refused<'_> {
    fn drop(&mut self) {
        drop(self.stream.take());
        *self.spare = Spare::new();
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
        assert_eq!(Room::within(0, 10_000), Room { stations: 0, strangers: 0 });
    }
}
