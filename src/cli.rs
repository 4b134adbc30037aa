//! The command line: commands and options, and their conversion to the types of the roles.

mod site;
mod speaking;
mod talkback;
mod values;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::announcer::{DEFAULT_LENGTH, DEFAULT_MAX_STATIONS, ListenOn};
use crate::archive::Retention;
use crate::clip::{MAX_RATE_HZ, MIN_RATE_HZ};
use crate::loudspeaker::Output;
use crate::microphone::Input;
use crate::priority::Priority;
use crate::volume::Volume;

pub use self::site::{
    InviteOptions, StationsAction, StationsOptions, VolumeOrOwn, ZonesAction, ZonesOptions,
};
pub use self::speaking::{Before, HOLD_LENGTH, Speaking};
pub use self::talkback::TalkbackOptions;
pub use self::values::{ArgumentError, DEFAULT_PORT, MAX_KEEP, Target, name};
use self::values::{clip_length, delay_us, keep, legal_name, listen_on, max_stations, wait};

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
  bullhorn speaker office-pc --name hall-1 --invite bh1…
                                           on the computer in the first hallway;
                                           `bullhorn announce` prints the invite
  bullhorn devices                         list microphones and loudspeakers
  bullhorn demo                            try it out on this computer alone

`bullhorn announce --help` and `bullhorn speaker --help` tell more."
)]
pub struct Cli {
    /// What to be.
    #[command(subcommand)]
    pub role: Role,
}

impl Cli {
    /// Parses the arguments of this program. Exits with a message if they are wrong, or with the help that was asked
    /// for; unprintable characters of the arguments are escaped in the message.
    pub fn from_arguments() -> Self {
        let error = match Self::try_parse() {
            Ok(cli) => return cli,
            Err(error) => error,
        };
        let is_unprintable = |it: OsString| it.to_string_lossy().contains(crate::wire::is_unprintable);
        if !error.use_stderr() || !std::env::args_os().any(is_unprintable) {
            error.exit();
        }
        let words = error.render().to_string();
        let words: String = words.lines().map(|line| format!("{}\n", crate::report::escaped(line))).collect();
        // If standard error is closed, there is nowhere left to report this.
        let _ = std::io::stderr().write_all(words.as_bytes());
        std::process::exit(error.exit_code())
    }
}

/// What this computer is to be.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Record announcements and send them to every listening station
    Announce(Announce),
    /// Be a station: play every announcement on this computer's loudspeaker
    Speaker(Speaker),
    /// Print the line that lets a station join this announcer
    Invite(InviteOptions),
    /// List the stations that have joined this announcer, shut one out, or say how loud one plays
    Stations(StationsOptions),
    /// List the zones with the digits that speak to them, or change their order
    Zones(ZonesOptions),
    /// Check that archived announcements and talkback are what was said, and by whom
    Verify(Verify),
    /// List the microphones and loudspeakers of this computer
    Devices,
    /// Try it out: an announcer and two stations, hall-1 and hall-2, on this computer
    Demo(Demo),
}

/// Record announcements and send them to every listening station.
#[derive(Debug, Args)]
#[command(after_help = "\
At the keyboard: Enter announces, Esc cancels a recording, q or Ctrl-C leaves;
a digit speaks to one zone from then on, 0 to all; e makes the next announcement an
emergency; l speaks live until Enter; with --sounds, f opens the list.
Without a terminal: every line on standard input announces once; at its end
bullhorn waits for the last verdict and leaves.

Exit status: 0 if every station that should have played did, 1 if not,
2 for a wrong command line.

Examples:
  bullhorn announce                        press Enter, speak for 5 seconds
  bullhorn announce --seconds 12           record 12 seconds
  bullhorn announce --zone gym             only stations with --zone gym
  bullhorn announce --priority emergency   interrupt what is playing
  bullhorn announce --file bell.wav --once --wait-for 3
                                           play bell.wav in 3 hallways and leave
  bullhorn announce --chime two-tone --repeat 1
                                           ding-dong, and everything twice")]
pub struct Announce {
    /// Where stations can reach this announcer: a PORT alone is for every network, IPv6 and IPv4;
    /// ADDR:PORT is for that address and nothing else
    #[arg(long, value_name = "ADDR:PORT", default_value = "7766", value_parser = listen_on)]
    pub listen: ListenOn,

    /// How long to record, in seconds: over 0, at most 120 [default: 5, or the whole file]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = clip_length)]
    pub seconds: Option<Duration>,

    /// The microphone, as `bullhorn devices` names it, or file:PATH for a sound file [default: the system's]
    #[arg(long, value_name = "DEVICE|file:PATH")]
    pub input: Option<Input>,

    /// Announce only to stations of this zone; may be given several times [default: every station]
    #[arg(long = "zone", value_name = "ZONE", value_parser = name)]
    pub zones: Vec<String>,

    /// How urgent it is: a more urgent page goes first where several announcers are to be heard, and an emergency
    /// interrupts
    #[arg(long, value_name = "PRIORITY", default_value = "normal", value_enum)]
    pub priority: Priority,

    /// Samples a second to send, 8000 to 48000: fewer reach many stations sooner on a slow network
    /// [default: the microphone's own]
    #[arg(long = "rate", value_name = "HZ", value_parser = clap::value_parser!(u32).range(i64::from(MIN_RATE_HZ)..=i64::from(MAX_RATE_HZ)))]
    pub rate_hz: Option<u32>,

    /// How many stations may listen at once, 1 to 65536; further ones are refused
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_STATIONS, value_parser = max_stations)]
    pub max_stations: usize,

    /// How long an announcement waits for a station that is away, in seconds: 0 to 86400
    #[arg(long, value_name = "SECONDS", default_value = "60", allow_negative_numbers = true, value_parser = keep)]
    pub keep: Duration,

    /// How long those still receiving are waited for once half of the stations are ready, in milliseconds:
    /// 0 to 10000. Who comes later plays the whole announcement when the others are done
    #[arg(long, value_name = "MS", default_value = "150", allow_negative_numbers = true, value_parser = wait)]
    pub wait: Duration,

    /// Keep every announcement in this folder: a WAV file, and a line in a log
    #[arg(long, value_name = "DIR")]
    pub archive: Option<PathBuf>,

    /// How much is kept there.
    #[command(flatten)]
    pub retention: RetentionOptions,

    /// Announce once and leave
    #[arg(long)]
    pub once: bool,

    /// With --once: announce as soon as this many stations listen
    #[arg(long, value_name = "N", requires = "once", value_parser = clap::value_parser!(u32).range(1..))]
    pub wait_for: Option<u32>,

    /// Print what happens as JSON, one object a line, for scripts
    #[arg(long, value_name = "FORMAT")]
    pub events: Option<EventFormat>,

    /// Do without keys: anybody on the network can listen, and speak to open stations
    #[arg(long)]
    pub open: bool,

    /// Where keys are kept.
    #[command(flatten)]
    pub state: State,

    // Last, because their headings apply to everything that follows.
    /// Where the sound comes from.
    #[command(flatten)]
    pub speaking: Speaking,

    /// What is done to it.
    #[command(flatten)]
    pub before: Before,
}

impl Announce {
    /// How long a clip must be; `None` means as long as the file.
    pub fn length(&self) -> Option<Duration> {
        let default = if self.speaking.hold { HOLD_LENGTH } else { DEFAULT_LENGTH };
        match (self.seconds, self.input()) {
            (None, Input::File(_)) => None,
            (seconds, _) => Some(seconds.unwrap_or(default)),
        }
    }

    /// The source of the clips.
    pub fn input(&self) -> Input {
        match &self.speaking.file {
            Some(path) => Input::File(path.clone()),
            None => self.input.clone().unwrap_or_default(),
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
A station waits for its announcer for as long as it takes, and finds it again by
itself after a power cut or a network fault. Stop it with Ctrl-C.

With --talkback, Enter records and sends it to the announcer; without a terminal,
every line on standard input does so once.

Examples:
  bullhorn speaker office-pc               the announcer is office-pc
  bullhorn speaker desk-a desk-b           it has two, which have both been joined
  bullhorn speaker 192.168.1.20:7766 --name hall-2 --zone gym
  bullhorn speaker office-pc --delay -20   its amplifier takes 20 ms
  bullhorn speaker office-pc --volume -6   6 dB quieter than it was sent
  bullhorn speaker office-pc --output file:recordings
                                           keep WAV files instead of playing
  bullhorn speaker office-pc --talkback    press Enter, and speak to the announcer")]
pub struct Speaker {
    /// The announcer's computer: a name or an address, with :PORT if it is not 7766; up to 16 of them. Their pages
    /// never sound at once: the more urgent goes first, otherwise they are played in order
    #[arg(value_name = "HOST[:PORT]", required = true, num_args = 1..=MAX_ANNOUNCERS)]
    pub announcers: Vec<Target>,

    /// What this station is called in the announcer's list [default: this computer's name]
    #[arg(long, value_parser = name)]
    pub name: Option<String>,

    /// A zone that this station belongs to; may be given several times
    #[arg(long = "zone", value_name = "ZONE", value_parser = name)]
    pub zones: Vec<String>,

    /// The loudspeaker, as `bullhorn devices` names it, or file:DIR for WAV files [default: the system's]
    #[arg(long, value_name = "DEVICE|file:DIR")]
    pub output: Option<Output>,

    /// Play so much later than the others, in milliseconds: −500 to 500, earlier if negative. 3 for each
    /// metre that listeners are nearer to this loudspeaker than to the others; what an amplifier or a
    /// wireless loudspeaker adds of its own, with a minus
    #[arg(long, value_name = "MS", default_value = "0", allow_negative_numbers = true, value_parser = delay_us)]
    pub delay: i64,

    /// How loud to play, in dB: −60 to 0, which is as loud as it was sent. What `bullhorn stations volume` says at
    /// the announcer goes before, and an emergency is never below −12
    #[arg(long, value_name = "DB", default_value = "0", allow_negative_numbers = true)]
    pub volume: Volume,

    /// Let an emergency unmute the loudspeaker in the sound server or mixer, and turn it up if it is below −40 dB there; it
    /// stays so
    #[arg(long)]
    pub emergency_unmutes: bool,

    /// Print what happens as JSON, one object a line, for scripts
    #[arg(long, value_name = "FORMAT")]
    pub events: Option<EventFormat>,

    /// Keep every clip in this folder: a WAV file, and a line in a log
    #[arg(long, value_name = "DIR")]
    pub keep_clips: Option<PathBuf>,

    /// How much is kept there.
    #[command(flatten)]
    pub retention: RetentionOptions,

    /// What `bullhorn invite` prints at the announcer; needed once for each, for the one that is new here
    #[arg(long, value_name = "INVITE", conflicts_with = "open")]
    pub invite: Option<String>,

    /// Do without keys: anybody on the network can speak here
    #[arg(long)]
    pub open: bool,

    /// Where keys are kept.
    #[command(flatten)]
    pub state: State,

    // Last, because its heading applies to everything that follows.
    /// What is said back.
    #[command(flatten)]
    pub talkback: TalkbackOptions,
}

/// How much of an archive is kept.
#[derive(Debug, Args)]
pub struct RetentionOptions {
    /// Remove what is older than this many days from the archive
    #[arg(long, value_name = "DAYS", default_value = "365", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub archive_days: u32,

    /// Remove the oldest files when the archive has more bytes than this
    #[arg(long, value_name = "BYTES", default_value = "10737418240")]
    pub archive_bytes: u64,
}

impl RetentionOptions {
    /// The retention that the options ask for.
    pub fn retention(&self) -> Retention {
        Retention {
            age: Duration::from_secs(u64::from(self.archive_days) * 86_400),
            bytes: self.archive_bytes,
        }
    }
}

/// Check archived announcements and talkback.
#[derive(Debug, Args)]
#[command(after_help = "\
Each file must lie beside the log of its archive, under the name it was given.

Exit status: 0 if every file is what was announced or said, and signed, 1 if not.

Example:
  bullhorn verify /var/lib/bullhorn/archive/20261121T*.wav")]
pub struct Verify {
    /// Files of an archive
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// They must be signed by the announcer of this fingerprint
    #[arg(long, value_name = "FINGERPRINT")]
    pub announcer: Option<String>,

    /// They must be talkback, signed by the station of this fingerprint
    #[arg(long, value_name = "FINGERPRINT", conflicts_with = "announcer")]
    pub station: Option<String>,

    /// Where it stands whom this machine knows.
    #[command(flatten)]
    pub state: State,
}

/// Where keys are kept.
#[derive(Debug, Args)]
pub struct State {
    /// The folder for keys and what must outlive a reboot [default: ~/.local/state/bullhorn]
    #[arg(long = "state", value_name = "DIR", global = true)]
    pub folder: Option<PathBuf>,
}

/// The most announcers that one station can have.
pub const MAX_ANNOUNCERS: usize = 16;

impl Speaker {
    /// Checks that no announcer is named twice.
    ///
    /// # Errors
    /// [`ArgumentError::Twice`].
    pub fn check_announcers(&self) -> Result<(), ArgumentError> {
        let twice = |(at, target): (usize, &Target)| self.announcers[..at].contains(target);
        let named = self.announcers.iter().enumerate().find(|it| twice(*it));
        named.map_or(Ok(()), |(_, target)| Err(ArgumentError::Twice(target.to_string())))
    }

    /// The given name, or else this computer's name, made legal if it is not.
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

#[cfg(test)]
mod tests;
