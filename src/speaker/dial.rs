//! One dial: a connection to the announcer's machine, and a link with the announcer there.

use std::io;
use std::io::ErrorKind;

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::network::Network;
use super::redial::DIAL_DEADLINE;
use crate::keys::NoisePublicKey;
use crate::link::{self, Connection, Introduction, LinkError, StationLink};
use crate::membership::MembershipError;

/// Why no link was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("cannot find the announcer's machine: check its name and this computer's network")]
    Lookup(#[source] io::Error),
    #[error("{}", advice(.0))]
    Connect(#[source] io::Error),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
}

/// What to check when a machine cannot be connected to.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            "no announcer listens there: is `bullhorn announce` running on that computer, and on this port?"
        }
        ErrorKind::TimedOut => {
            "that computer does not answer: is it on, and does its firewall let this port through?"
        }
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            "there is no way to that computer: check the network on both sides"
        }
        _ => "cannot connect to that computer",
    }
}

impl DialError {
    /// Whether an announcer answered and refused this station.
    pub fn is_refusal(&self) -> bool {
        use LinkError::{Busy, OtherMode, OtherVersion, Wire};
        matches!(self, Self::Link(Busy | OtherMode | OtherVersion { .. } | Wire(_)))
    }
}

/// Finds the announcer's machine.
///
/// # Errors
/// [`DialError::Lookup`].
pub(super) async fn find<N: Network>(network: &Mutex<N>, host: &str, port: u16) -> Result<(), DialError> {
    let find = async { network.lock().await.find(host, port).await };
    let found = timeout(DIAL_DEADLINE, find).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    found.map_err(DialError::Lookup)
}

/// Dials the announcer's machine and opens a link there. Also returns the key that the announcer has proven to hold; `None` on an
/// open link.
///
/// # Errors
/// [`DialError`].
pub(super) async fn dial<N: Network>(
    network: &Mutex<N>,
    introduction: Introduction<'_>,
) -> Result<(StationLink<N::Connection>, Option<NoisePublicKey>), DialError> {
    let connect = async { network.lock().await.connect().await };
    let stream = timeout(DIAL_DEADLINE, connect).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    let stream = stream.map_err(DialError::Connect)?;
    stream.prepare().map_err(DialError::Connect)?;
    let dialled = link::dial(stream, introduction).await;
    // Only an announcer says that it is busy.
    let is_announcer = matches!(dialled, Ok(_) | Err(LinkError::Busy));
    network.lock().await.learn(is_announcer);
    Ok(dialled?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_says_what_to_look_at() {
        for (kind, words) in [
            (ErrorKind::ConnectionRefused, "`bullhorn announce` running"),
            (ErrorKind::TimedOut, "firewall"),
            (ErrorKind::NetworkUnreachable, "check the network"),
            (ErrorKind::PermissionDenied, "cannot connect"),
        ] {
            let error = DialError::Connect(kind.into());
            assert!(error.to_string().contains(words), "{error}");
            assert!(crate::error_chain(&error).ends_with(&io::Error::from(kind).to_string()), "{error}");
        }
    }
}
