//! The command line: what can be asked for, in words, and its conversion to the roles' types.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::clip;
use crate::loudspeaker::Output;
use crate::microphone::Input;
use crate::report;

/// The port that announcers listen on and stations dial unless told otherwise.
pub const DEFAULT_PORT: u16 = 7766;
/// How long a clip from a microphone is unless `--seconds` says otherwise.
pub const DEFAULT_LENGTH: Duration = Duration::from_secs(5);
/// The longest that a clip may wait for a station: one day.
pub const MAX_KEEP: Duration = Duration::from_secs(86_400);
/// The longest name of a station or a zone, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 64;

/// Push-to-talk announcements for buildings, with proof that every hallway played them.
///
/// One computer is the announcer: it has the microphone. Every hallway has a station: a
/// computer with a loudspeaker. Start the announcer first, then a station in each hallway.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  bullhorn announce                        on the office computer
  bullhorn speaker office-pc --name hall-1 on the computer in the first hallway
  bullhorn devices                         which microphones and loudspeakers there are
  bullhorn demo                            try it out on this computer alone

`bullhorn announce --help` and `bullhorn speaker --help` tell more."
)]
pub struct Cli {
    /// What to be.
    #[command(subcommand)]
    pub role: Role,
}

/// What this computer is to be.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Record announcements and send them to every listening station
    Announce(Announce),
    /// Be a station: play every announcement on this computer's loudspeaker
    Speaker(Speaker),
    /// List the microphones and loudspeakers of this computer
    Devices,
    /// Try it out: an announcer and two stations, hall-1 and hall-2, on this computer
    Demo(Demo),
}

/// Record announcements and send them to every listening station.
#[derive(Debug, Args)]
#[command(after_help = "\
At the keyboard: Enter announces, Esc cancels a recording, q or Ctrl-C leaves.
Without a terminal every line on standard input announces once; at its end bullhorn waits for the
last verdict and leaves.

Exit status: 0 if every station that should have played did, 1 if not, 2 for a wrong command line.

Examples:
  bullhorn announce                        speak for 5 seconds after pressing Enter
  bullhorn announce --seconds 12           speak for 12 seconds
  bullhorn announce --zone gym             only stations that were started with --zone gym
  bullhorn announce --input file:bell.wav --once --wait-for 3
                                           play bell.wav in 3 hallways and leave")]
pub struct Announce {
    /// Where stations can reach this announcer: ADDR:PORT, or a PORT alone for every network
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7766", value_parser = listen_address)]
    pub listen: SocketAddr,

    /// How long to record, in seconds: over 0, at most 120 [default: 5, or the whole file]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clip_length)]
    pub seconds: Option<Duration>,

    /// The microphone, as `bullhorn devices` names it, or file:PATH for a WAV file [default: the system's]
    #[arg(long, value_name = "DEVICE|file:PATH")]
    pub input: Option<Input>,

    /// Announce only to stations of this zone; may be given several times [default: every station]
    #[arg(long = "zone", value_name = "ZONE", value_parser = name)]
    pub zones: Vec<String>,

    /// How long an announcement waits for a station that is away, in seconds: 0 to 86400
    #[arg(long, value_name = "SECONDS", default_value = "60", allow_negative_numbers = true, value_parser = keep)]
    pub keep: Duration,

    /// Announce once and leave
    #[arg(long)]
    pub once: bool,

    /// With --once: announce as soon as this many stations listen
    #[arg(long, value_name = "N", requires = "once", value_parser = clap::value_parser!(u32).range(1..))]
    pub wait_for: Option<u32>,

    /// Print what happens as JSON, one object a line, for scripts
    #[arg(long, value_name = "FORMAT")]
    pub events: Option<EventFormat>,
}

impl Announce {
    /// How long a clip is to be; `None` means as long as the file is.
    pub fn length(&self) -> Option<Duration> {
        match (self.seconds, &self.input) {
            (None, Some(Input::File(_))) => None,
            (seconds, _) => Some(seconds.unwrap_or(DEFAULT_LENGTH)),
        }
    }

    /// How many stations to wait for before the one announcement of `--once`.
    pub fn stations_to_wait_for(&self) -> usize {
        self.wait_for.unwrap_or(0) as usize
    }
}

/// Be a station.
#[derive(Debug, Args)]
#[command(after_help = "\
A station waits for its announcer for as long as it takes, and comes back by itself after a power cut
or a network fault. Stop it with Ctrl-C.

Examples:
  bullhorn speaker office-pc               dial the announcer on the computer office-pc
  bullhorn speaker 192.168.1.20:7766 --name hall-2 --zone gym
  bullhorn speaker office-pc --output file:recordings
                                           keep announcements as WAV files instead of playing them")]
pub struct Speaker {
    /// The announcer's computer: a name or an address, with :PORT if it is not 7766
    #[arg(value_name = "HOST[:PORT]")]
    pub announcer: Target,

    /// What this station is called in the announcer's list [default: this computer's name]
    #[arg(long, value_parser = name)]
    pub name: Option<String>,

    /// A zone that this station belongs to; may be given several times
    #[arg(long = "zone", value_name = "ZONE", value_parser = name)]
    pub zones: Vec<String>,

    /// The loudspeaker, as `bullhorn devices` names it, or file:DIR for WAV files [default: the system's]
    #[arg(long, value_name = "DEVICE|file:DIR")]
    pub output: Option<Output>,

    /// Print what happens as JSON, one object a line, for scripts
    #[arg(long, value_name = "FORMAT")]
    pub events: Option<EventFormat>,
}

impl Speaker {
    /// The name given, or else this computer's, made legal where it is not.
    pub fn station_name(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => legal_name(&gethostname::gethostname().to_string_lossy()),
        }
    }
}

/// An announcer and two stations in one process.
#[derive(Debug, Args)]
pub struct Demo {
    /// Announce once and leave
    #[arg(long)]
    pub once: bool,

    /// Print what happens as JSON, one object a line, for scripts
    #[arg(long, value_name = "FORMAT")]
    pub events: Option<EventFormat>,
}

/// How events are printed for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventFormat {
    /// One JSON object a line
    Json,
}

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
    /// Not a decimal number.
    #[error("give a number of seconds such as 5 or 2.5")]
    NotSeconds,
    /// A number no clip's length can be.
    #[error("a clip lasts more than 0 and at most {} seconds", clip::MAX_LENGTH.as_secs())]
    Length,
    /// A number outside what a clip may be kept.
    #[error("a clip is kept for 0 to {} seconds", MAX_KEEP.as_secs())]
    Keep,
    /// Not an address to listen on.
    #[error("give an address and a port such as 192.168.1.20:7766, or a port alone such as 7766")]
    Listen,
    /// Not a host.
    #[error("give a computer's name or address, such as office-pc, 192.168.1.20:7766 or [fe80::1]:7766")]
    Host,
    /// Not a port to dial.
    #[error("the port after the colon is a number from 1 to 65535")]
    Port,
    /// Not a name.
    #[error(
        "a name has 1 to {MAX_NAME_BYTES} bytes, starts with neither . nor -, and holds no slash, \
         backslash or control character"
    )]
    Name,
}

fn seconds(text: &str) -> Result<f64, ArgumentError> {
    text.trim().parse().map_err(|_| ArgumentError::NotSeconds)
}

/// A clip's length: over 0, at most [`clip::MAX_LENGTH`].
fn clip_length(text: &str) -> Result<Duration, ArgumentError> {
    match Duration::try_from_secs_f64(seconds(text)?) {
        Ok(length) if !length.is_zero() && length <= clip::MAX_LENGTH => Ok(length),
        _ => Err(ArgumentError::Length),
    }
}

/// How long a clip waits for stations: 0 to [`MAX_KEEP`].
fn keep(text: &str) -> Result<Duration, ArgumentError> {
    match Duration::try_from_secs_f64(seconds(text)?) {
        Ok(keep) if keep <= MAX_KEEP => Ok(keep),
        _ => Err(ArgumentError::Keep),
    }
}

/// `ADDR:PORT`, `:PORT` or `PORT`; without an address every IPv4 network is meant.
fn listen_address(text: &str) -> Result<SocketAddr, ArgumentError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, DEFAULT_PORT));
    }
    let port = digits(text.strip_prefix(':').unwrap_or(text)).ok_or(ArgumentError::Listen)?;
    Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
}

/// A port in plain digits: `parse` alone would take `+80`.
fn digits(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl FromStr for Target {
    type Err = ArgumentError;

    /// `HOST`, `HOST:PORT`, `IPV6` or `[IPV6]:PORT`.
    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let is_ipv6 = |host: &str| {
            let address = host.split_once('%').map_or(host, |(address, _interface)| address);
            address.parse::<Ipv6Addr>().is_ok()
        };
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
        let is_odd = |c: char| c.is_whitespace() || report::is_unprintable(c) || "/\\@[]".contains(c);
        if host.is_empty() || host.starts_with('-') || host.contains(is_odd) {
            return Err(ArgumentError::Host);
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => digits(port).filter(|&port| port > 0).ok_or(ArgumentError::Port)?,
        };
        Ok(Self { host: host.into(), port })
    }
}

fn is_illegal_in_name(c: char) -> bool {
    report::is_unprintable(c) || matches!(c, '/' | '\\')
}

/// A station's or a zone's name, trimmed. It becomes part of a file's name.
///
/// # Errors
/// [`ArgumentError::Name`].
pub fn name(text: &str) -> Result<String, ArgumentError> {
    let name = text.trim();
    let legal = (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && !name.contains(is_illegal_in_name);
    if legal { Ok(name.into()) } else { Err(ArgumentError::Name) }
}

/// The nearest legal name, `station` where nothing is left.
fn legal_name(text: &str) -> String {
    let mut legal = String::new();
    for c in text.trim_start_matches(['.', '-', ' ']).chars() {
        if legal.len() + c.len_utf8() > MAX_NAME_BYTES {
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

    fn parse(line: &str) -> Result<Role, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.role)
    }

    fn announce(line: &str) -> Announce {
        match parse(&format!("bullhorn announce {line}").trim_end().replace("  ", " ")) {
            Ok(Role::Announce(announce)) => announce,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(line: &str) -> String {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    }

    #[test]
    fn clap_finds_no_fault_in_the_definition() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn announce_has_the_documented_defaults() {
        let plain = announce("");
        assert_eq!(plain.listen, "0.0.0.0:7766".parse().unwrap());
        assert_eq!(plain.length(), Some(DEFAULT_LENGTH));
        assert_eq!(plain.keep, Duration::from_secs(60));
        assert_eq!((plain.input, plain.zones.len(), plain.once, plain.events), (None, 0, false, None));
    }

    #[test]
    fn a_file_is_sent_whole_unless_seconds_are_given() {
        assert_eq!(announce("--input file:a.wav").length(), None);
        assert_eq!(announce("--input file:a.wav --seconds 2.5").length(), Some(Duration::from_millis(2500)));
        assert_eq!(announce("--seconds 120").length(), Some(clip::MAX_LENGTH));
    }

    #[test]
    fn impossible_lengths_are_refused_in_words() {
        for text in ["0", "-3", "-0.5", "nan", "inf", "120.01", "1e400", "1e-30"] {
            let message = refusal(&format!("bullhorn announce --seconds {text}"));
            assert!(message.contains("more than 0 and at most 120 seconds"), "{text}: {message}");
        }
        for text in ["five", "2,5", "5s", ""] {
            let message = refusal(&format!("bullhorn announce --seconds {text}"));
            assert!(message.contains("such as 5 or 2.5"), "{text}: {message}");
        }
    }

    #[test]
    fn keep_is_a_day_at_most() {
        assert_eq!(announce("--keep 0").keep, Duration::ZERO);
        assert_eq!(announce("--keep 86400").keep, MAX_KEEP);
        for text in ["-1", "86401", "nan"] {
            assert!(refusal(&format!("bullhorn announce --keep {text}")).contains("0 to 86400"));
        }
    }

    #[test]
    fn listen_takes_an_address_a_port_or_both() {
        for (text, address) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            (":0", "0.0.0.0:0"),
            ("9000", "0.0.0.0:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("::1", "[::1]:7766"),
            ("10.0.0.1", "10.0.0.1:7766"),
        ] {
            assert_eq!(listen_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in ["", ":", "70000", "office:80", "+80", "1.2.3:80"] {
            assert_eq!(listen_address(text), Err(ArgumentError::Listen), "{text}");
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
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        for text in ["office:", "office:0", "office:65536", "office:+1", "office:80:90"] {
            assert_eq!(text.parse::<Target>(), Err(ArgumentError::Port), "{text}");
        }
    }

    #[test]
    fn names_can_be_file_names() {
        assert_eq!(name("  Hall 1 "), Ok("Hall 1".into()));
        assert_eq!(name("Flügel-Süd"), Ok("Flügel-Süd".into()));
        assert!(name(&"x".repeat(64)).is_ok());
        let long = "x".repeat(65);
        for text in
            ["", "  ", ".hidden", "..", "-x", "a/b", "a\\b", "a\nb", "a\u{1b}[2J", "a\u{202e}b", &long]
        {
            assert_eq!(name(text), Err(ArgumentError::Name), "{text:?}");
        }
    }

    #[test]
    fn a_hostname_becomes_a_legal_name() {
        assert_eq!(legal_name("hall-1.school"), "hall-1.school");
        assert_eq!(legal_name("..a/b"), "a-b");
        assert_eq!(legal_name(""), "station");
        assert_eq!(legal_name(&"ü".repeat(40)), "ü".repeat(32));
    }

    #[test]
    fn wait_for_needs_once() {
        assert!(refusal("bullhorn announce --wait-for 2").contains("--once"));
        assert_eq!(announce("--once --wait-for 2").stations_to_wait_for(), 2);
        assert_eq!(announce("--once").stations_to_wait_for(), 0);
    }

    #[test]
    fn a_speaker_takes_zones_a_name_and_an_output() {
        let Ok(Role::Speaker(speaker)) = parse(
            "bullhorn speaker office --name hall-1 --zone gym --zone all --output file:d --events json",
        ) else {
            panic!("refused");
        };
        assert_eq!(speaker.station_name(), "hall-1");
        assert_eq!(speaker.zones, ["gym", "all"]);
        assert_eq!(speaker.events, Some(EventFormat::Json));
        assert!(matches!(speaker.output, Some(Output::Folder(_))));
        assert!(refusal("bullhorn speaker").contains("HOST"));
    }
}
