//! The command line: what can be asked for, in words, and its conversion to the roles' types.

mod site;
mod speaking;
mod talkback;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::announcer::{DEFAULT_LENGTH, DEFAULT_MAX_STATIONS};
use crate::archive::Retention;
use crate::clip::{MAX_RATE_HZ, MIN_RATE_HZ};
use crate::loudspeaker::Output;
use crate::microphone::Input;
use crate::priority::Priority;
use crate::volume::Volume;

pub use self::site::{InviteOptions, StationsAction, StationsOptions, VolumeOrOwn};
pub use self::speaking::{Before, HOLD_LENGTH, Speaking};
pub use self::talkback::TalkbackOptions;
pub use self::values::{ArgumentError, DEFAULT_PORT, MAX_KEEP, Target, name};
use self::values::{clip_length, delay_us, keep, legal_name, listen_address, max_stations, wait};

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
    /// Where stations can reach this announcer: ADDR:PORT, or a PORT alone for every network
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7766", value_parser = listen_address)]
    pub listen: SocketAddr,

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

    // Last, since their headings go for all that follows.
    /// Where the sound comes from.
    #[command(flatten)]
    pub speaking: Speaking,

    /// What is done to it.
    #[command(flatten)]
    pub before: Before,
}

impl Announce {
    /// How long a clip is to be; `None` means as long as the file is.
    pub fn length(&self) -> Option<Duration> {
        let default = if self.speaking.hold { HOLD_LENGTH } else { DEFAULT_LENGTH };
        match (self.seconds, self.input()) {
            (None, Input::File(_)) => None,
            (seconds, _) => Some(seconds.unwrap_or(default)),
        }
    }

    /// Where clips come from.
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

    // Last, since its heading goes for all that follows.
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
    /// What they say.
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
}

/// Where keys are kept.
#[derive(Debug, Args)]
pub struct State {
    /// The folder for keys and what must outlive a reboot [default: ~/.local/state/bullhorn]
    #[arg(long = "state", value_name = "DIR", global = true)]
    pub folder: Option<PathBuf>,
}

/// The most announcers of one station.
pub const MAX_ANNOUNCERS: usize = 16;

impl Speaker {
    /// That no announcer is named twice.
    ///
    /// # Errors
    /// [`ArgumentError::Twice`].
    pub fn check_announcers(&self) -> Result<(), ArgumentError> {
        let twice = |(at, target): (usize, &Target)| self.announcers[..at].contains(target);
        let named = self.announcers.iter().enumerate().find(|it| twice(*it));
        named.map_or(Ok(()), |(_, target)| Err(ArgumentError::Twice(target.to_string())))
    }

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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::clip;

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
        assert_eq!((plain.rate_hz, plain.max_stations), (None, 10_000));
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
    fn a_rate_and_a_limit_are_held_to_their_bounds() {
        let asked = announce("--rate 16000 --max-stations 250");
        assert_eq!((asked.rate_hz, asked.max_stations), (Some(16_000), 250));
        for words in
            ["--rate 7999", "--rate 48001", "--rate slow", "--max-stations 0", "--max-stations 65537"]
        {
            refusal(&format!("bullhorn announce {words}"));
        }
    }

    #[test]
    fn wait_is_10_seconds_at_most() {
        assert_eq!(announce("").wait, crate::stations::STRAGGLER_WAIT);
        assert_eq!(announce("--wait 0").wait, Duration::ZERO);
        assert_eq!(announce("--wait 10000").wait, crate::stations::LONGEST_WAIT);
        for text in ["-1", "10001", "0.5", "nan", "1s"] {
            let message = refusal(&format!("bullhorn announce --wait {text}"));
            assert!(message.contains("whole milliseconds from 0 to 10000"), "{text}: {message}");
        }
    }

    #[test]
    fn delay_is_half_a_second_at_most_either_way() {
        let delay_us = |text: &str| match parse(&format!("bullhorn speaker office{text}")) {
            Ok(Role::Speaker(speaker)) => speaker.delay,
            other => panic!("{other:?}"),
        };
        let read = ["", " --delay 6.5", " --delay -20", " --delay 500", " --delay -500", " --delay 0.0004"]
            .map(delay_us);
        assert_eq!(read, [0, 6_500, -20_000, 500_000, -500_000, 0]);
        for text in ["501", "-500.1", "nan", "inf", "6m"] {
            let message = refusal(&format!("bullhorn speaker office --delay {text}"));
            assert!(message.contains("milliseconds from -500 to 500"), "{text}: {message}");
        }
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
        assert!(matches!(speaker.output, Some(Output::File(_))));
        assert!(refusal("bullhorn speaker").contains("HOST"));
    }

    #[test]
    fn a_station_has_one_announcer_or_several_each_named_once() {
        let announcers = |line: &str| match parse(&format!("bullhorn speaker {line}")) {
            Ok(Role::Speaker(speaker)) => speaker,
            other => panic!("{other:?}"),
        };
        let two = announcers("desk-a desk-b:7767 --name hall-1");
        assert_eq!(
            two.announcers.iter().map(Target::to_string).collect::<Vec<_>>(),
            ["desk-a:7766", "desk-b:7767"]
        );
        assert_eq!(two.check_announcers(), Ok(()));
        let twice = announcers("desk-a desk-b desk-a:7766").check_announcers().unwrap_err();
        assert!(twice.to_string().contains("desk-a:7766 is named twice"), "{twice}");
        let many = vec!["a"; MAX_ANNOUNCERS + 1].join(" ");
        refusal(&format!("bullhorn speaker {many}"));
        assert_eq!(announce("").priority, Priority::Normal);
        assert_eq!(announce("--priority emergency").priority, Priority::Emergency);
        assert!(refusal("bullhorn announce --priority urgent").contains("low, normal, high, emergency"));
    }
}
