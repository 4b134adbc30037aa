//! The values of arguments: which are legal, and the errors for those that are not.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use crate::announcer::ListenOn;
use crate::clip;
use crate::stations::LONGEST_WAIT;
use crate::wire::{self, NameError, is_illegal_in_name};

/// The port that announcers listen on and stations dial by default.
pub const DEFAULT_PORT: u16 = 7766;
/// The longest time that a clip may wait for a station: one day.
pub const MAX_KEEP: Duration = Duration::from_secs(86_400);
/// The most that a loudspeaker can be delayed, in either direction: the time that sound takes for 170 m. Wireless
/// loudspeakers lag less, and this limit leaves half of the second of notice that a station may ask for.
pub const MAX_DELAY: Duration = Duration::from_millis(500);

/// A computer to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The TCP port, not 0.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why an argument was refused; clap puts the argument's name and value before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// It is not a decimal number.
    #[error("give a number of seconds such as 5 or 2.5")]
    NotSeconds,
    /// It is not a legal length of a clip.
    #[error("a clip lasts more than 0 and at most {} seconds", clip::MAX_LENGTH.as_secs())]
    Length,
    /// It is not a legal time for keeping a clip.
    #[error("a clip is kept for 0 to {} seconds", MAX_KEEP.as_secs())]
    Keep,
    /// It is not a legal time to wait for stragglers.
    #[error("give whole milliseconds from 0 to {}", LONGEST_WAIT.as_millis())]
    Wait,
    /// It is not a legal delay of a loudspeaker.
    #[error("give milliseconds from -{0} to {0}, such as 6.5 or -20", MAX_DELAY.as_millis())]
    Delay,
    /// It is not a legal number of stations.
    #[error("give a number of stations from 1 to {}", crate::announcer::MAX_STATIONS)]
    MaxStations,
    /// It is not an address to listen on.
    #[error("give an address and a port such as 192.168.1.20:7766, or a port alone such as 7766")]
    Listen,
    /// It is not a host.
    #[error("give a computer's name or address, such as office-pc, 192.168.1.20:7766 or [fe80::1]:7766")]
    Host,
    /// It is not a port to dial.
    #[error("the port after the colon is a number from 1 to 65535")]
    Port,
    /// The station already has this announcer.
    #[error("{0} is named twice: a station has each announcer once")]
    Twice(String),
    /// It is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
}

fn seconds(text: &str) -> Result<f64, ArgumentError> {
    text.trim().parse().map_err(|_| ArgumentError::NotSeconds)
}

/// Parses a clip's length: over 0, at most [`clip::MAX_LENGTH`].
pub(super) fn clip_length(text: &str) -> Result<Duration, ArgumentError> {
    match Duration::try_from_secs_f64(seconds(text)?) {
        Ok(length) if !length.is_zero() && length <= clip::MAX_LENGTH => Ok(length),
        _ => Err(ArgumentError::Length),
    }
}

/// Parses how long a clip waits for stations: 0 to [`MAX_KEEP`].
pub(super) fn keep(text: &str) -> Result<Duration, ArgumentError> {
    match Duration::try_from_secs_f64(seconds(text)?) {
        Ok(keep) if keep <= MAX_KEEP => Ok(keep),
        _ => Err(ArgumentError::Keep),
    }
}

/// Parses how long to wait for stragglers.
pub(super) fn wait(text: &str) -> Result<Duration, ArgumentError> {
    let wait = text.trim().parse().map(Duration::from_millis).ok();
    wait.filter(|wait| *wait <= LONGEST_WAIT).ok_or(ArgumentError::Wait)
}

/// Parses a loudspeaker's delay of up to [`MAX_DELAY`] in either direction, from milliseconds to µs.
pub(super) fn delay_us(text: &str) -> Result<i64, ArgumentError> {
    let us = text.trim().parse::<f64>().map_err(|_| ArgumentError::Delay)? * 1e3;
    let most_us = MAX_DELAY.as_micros() as f64;
    if us.abs() <= most_us { Ok(us.round() as i64) } else { Err(ArgumentError::Delay) }
}

/// Parses how many stations may listen: 1 to [`crate::announcer::MAX_STATIONS`].
pub(super) fn max_stations(text: &str) -> Result<usize, ArgumentError> {
    let number = text.trim().parse().ok();
    number
        .filter(|number| (1..=crate::announcer::MAX_STATIONS).contains(number))
        .ok_or(ArgumentError::MaxStations)
}

/// Parses `ADDR:PORT`, `:PORT` or `PORT`; without an address it means every network.
pub(super) fn listen_on(text: &str) -> Result<ListenOn, ArgumentError> {
    if let Ok(address) = text.parse() {
        return Ok(ListenOn::Address(address));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(ListenOn::Address(SocketAddr::new(address, DEFAULT_PORT)));
    }
    let port = digits(text.strip_prefix(':').unwrap_or(text)).ok_or(ArgumentError::Listen)?;
    Ok(ListenOn::Everywhere(port))
}

/// Parses a port in plain digits: `parse` alone would accept `+80`.
fn digits(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl FromStr for Target {
    type Err = ArgumentError;

    /// Parses `HOST`, `HOST:PORT`, `IPV6` or `[IPV6]:PORT`.
    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let is_ipv6 = |host: &str| {
            let address = host.split_once('%').map_or(host, |(address, _interface)| address);
            address.parse::<Ipv6Addr>().is_ok()
        };
        let is_odd = |c: char| c.is_whitespace() || wire::is_unprintable(c) || "/\\@".contains(c);
        if text.contains(is_odd) {
            return Err(ArgumentError::Host);
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or(ArgumentError::Host)?;
            let port = match rest {
                "" => None,
                _ => Some(rest.strip_prefix(':').ok_or(ArgumentError::Host)?),
            };
            if !is_ipv6(host) {
                return Err(ArgumentError::Host);
            }
            (host, port)
        } else if is_ipv6(text) {
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.is_empty() || host.starts_with('-') || host.contains(['[', ']']) {
            return Err(ArgumentError::Host);
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => digits(port).filter(|&port| port > 0).ok_or(ArgumentError::Port)?,
        };
        Ok(Self { host: host.into(), port })
    }
}

/// Parses a station's or a zone's name, trimmed and normalized. It becomes part of a file's name.
///
/// # Errors
/// [`ArgumentError::Name`].
pub fn name(text: &str) -> Result<String, ArgumentError> {
    let name = wire::normalized(text.trim());
    wire::check_name(&name)?;
    Ok(name)
}

/// The nearest legal name, or `station` if nothing is left.
pub(super) fn legal_name(text: &str) -> String {
    let mut legal = String::new();
    for c in text.trim_start_matches(['.', '-', ' ']).chars() {
        if legal.len() + c.len_utf8() > wire::MAX_NAME_BYTES {
            break;
        }
        legal.push(if is_illegal_in_name(c) { '-' } else { c });
    }
    name(&legal).unwrap_or_else(|_| "station".into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn listen_takes_an_address_a_port_or_both() {
        assert_eq!(listen_on(":0"), Ok(ListenOn::Everywhere(0)));
        assert_eq!(listen_on("9000"), Ok(ListenOn::Everywhere(9_000)));
        for (text, address) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::]:9000", "[::]:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("::1", "[::1]:7766"),
            ("10.0.0.1", "10.0.0.1:7766"),
        ] {
            assert_eq!(listen_on(text), Ok(ListenOn::Address(address.parse().unwrap())), "{text}");
        }
        for text in ["", ":", "70000", "office:80", "+80", "1.2.3:80"] {
            assert_eq!(listen_on(text), Err(ArgumentError::Listen), "{text}");
        }
    }

    #[test]
    fn a_target_is_a_host_and_maybe_a_port() {
        for (text, shown) in [
            ("office-pc", "office-pc:7766"),
            ("office-pc:80", "office-pc:80"),
            ("10.0.0.1", "10.0.0.1:7766"),
            ("::1", "[::1]:7766"),
            ("[::1]", "[::1]:7766"),
            ("[::1]:80", "[::1]:80"),
            ("fe80::1%eth0", "[fe80::1%eth0]:7766"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown, "{text}");
        }
        for text in
            ["", ":80", "[::1", "[::1]80", "[office]:80", "a b", "tcp://office", "http://office/", "a/b"]
        {
            assert_eq!(text.parse::<Target>(), Err(ArgumentError::Host), "{text}");
        }
        for text in ["office:", "office:0", "office:65536", "office:+1", "office:80:90"] {
            assert_eq!(text.parse::<Target>(), Err(ArgumentError::Port), "{text}");
        }
    }

    #[test]
    fn names_can_be_file_names() {
        assert_eq!(name("  Hall 1 "), Ok("Hall 1".into()));
        assert_eq!(name("Flügel-Süd"), Ok("Flügel-Süd".into()));
        assert_eq!(name("e\u{301}tage"), Ok("étage".into()), "however it is typed");
        assert!(name(&"x".repeat(64)).is_ok());
        let long = "x".repeat(65);
        for text in
            ["", "  ", ".hidden", "..", "-x", "a/b", "a\\b", "a\nb", "a\u{1b}[2J", "a\u{202e}b", &long]
        {
            assert!(matches!(name(text), Err(ArgumentError::Name(_))), "{text:?}");
        }
    }

    #[test]
    fn a_hostname_becomes_a_legal_name() {
        assert_eq!(legal_name("hall-1.school"), "hall-1.school");
        assert_eq!(legal_name("..a/b"), "a-b");
        assert_eq!(legal_name(""), "station");
        assert_eq!(legal_name(&"ü".repeat(40)), "ü".repeat(32));
    }
}
