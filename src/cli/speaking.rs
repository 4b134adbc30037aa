//! Ways to speak: where the sound comes from, how it is held and reviewed, and how it is processed.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::announcer::{MAX_LATENCY, MIN_LATENCY};
use crate::loudspeaker::Output;
use crate::prepare::{Chime, DEFAULT_LEVEL_LUFS, MAX_LEVEL_LUFS, MAX_REPEATS, MIN_LEVEL_LUFS, Preparation};

/// The longest recording with `--hold`, unless `--seconds` sets another.
pub const HOLD_LENGTH: Duration = Duration::from_secs(60);

/// Where the sound comes from, and who hears it first.
#[derive(Debug, Args)]
#[command(next_help_heading = "Ways to speak")]
#[command(group = clap::ArgGroup::new("hears").args(["review", "talkback"]).multiple(true))]
pub struct Speaking {
    /// Announce this sound file instead of speaking: WAV, AIFF, AU, FLAC, MP3, AAC, Ogg, WebM or M4A. With --once,
    /// - is standard input
    #[arg(long, value_name = "PATH", conflicts_with_all = ["input", "seconds", "hold"])]
    pub file: Option<PathBuf>,

    /// Choose from the sounds in this folder with f
    #[arg(long, value_name = "DIR", conflicts_with = "once")]
    pub sounds: Option<PathBuf>,

    /// Record while Space is held, up to --seconds [default: 60]; where the terminal does not tell when it is let
    /// go, Space starts and Space again ends
    #[arg(long, conflicts_with = "once")]
    pub hold: bool,

    /// Speak live: Enter, or a line, begins, and ends it; what is said is heard while it is said
    #[arg(
        long,
        conflicts_with_all = ["file", "seconds", "hold", "review", "sounds", "chime", "trim", "repeat", "keep", "wait"]
    )]
    pub live: bool,

    /// How long after it was said live speech is heard, in milliseconds: 40 to 1000. Less is lost where the network or
    /// a loudspeaker takes longer
    #[arg(long, value_name = "MS", default_value = "140", allow_negative_numbers = true, value_parser = latency)]
    pub latency: Duration,

    /// Hear each recording here first: Enter sends it, Esc drops it
    #[arg(long, conflicts_with = "once")]
    pub review: bool,

    /// Let stations talk back: what they say is heard here when nothing is recorded, and kept in the --archive, or
    /// else in the folder talkback-clips beside the keys
    #[arg(long, conflicts_with = "once")]
    pub talkback: bool,

    /// The loudspeaker for --review and --talkback, as `bullhorn devices` names it [default: the system's]
    #[arg(long, value_name = "DEVICE", requires = "hears")]
    pub monitor: Option<Output>,
}

/// What is done before it is sent.
#[derive(Debug, Args)]
#[command(next_help_heading = "Before the words")]
pub struct Before {
    /// A chime first: single, two-tone, three-tone, or a sound file
    #[arg(long, value_name = "CHIME", value_parser = chime)]
    pub chime: Option<Chime>,

    /// The loudness that chime and words are brought to, in LUFS (EBU R 128): −40 to −10
    #[arg(
        long, value_name = "LUFS", default_value_t = DEFAULT_LEVEL_LUFS, allow_negative_numbers = true,
        value_parser = level, conflicts_with = "no_level"
    )]
    pub level: f64,

    /// Send the sound as it is, to the bit
    #[arg(long)]
    pub no_level: bool,

    /// Leave out silence at both ends
    #[arg(long)]
    pub trim: bool,

    /// Say it so many times more, 0 to 10
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_REPEATS)))]
    pub repeat: u32,
}

impl Before {
    /// The preparation that the options ask for.
    pub fn preparation(&self) -> Preparation {
        Preparation {
            trims: self.trim,
            level_lufs: (!self.no_level).then_some(self.level),
            chime: self.chime.clone(),
            repeats: self.repeat,
        }
    }
}

/// Parses a chime by name or path; the error says what is wrong with the file.
fn chime(text: &str) -> Result<Chime, String> {
    text.parse().map_err(|error| crate::error_chain(&error))
}

/// Parses the milliseconds of `--latency`.
fn latency(text: &str) -> Result<Duration, String> {
    let least_ms = MIN_LATENCY.as_millis();
    let most_ms = MAX_LATENCY.as_millis();
    let latency = text.trim().parse().ok().map(Duration::from_millis);
    let legal = latency.filter(|latency| (MIN_LATENCY..=MAX_LATENCY).contains(latency));
    legal.ok_or_else(|| format!("give milliseconds from {least_ms} to {most_ms}"))
}

fn level(text: &str) -> Result<f64, String> {
    let level = text.trim().replace('\u{2212}', "-").parse().ok();
    let legal = level.filter(|level| (MIN_LEVEL_LUFS..=MAX_LEVEL_LUFS).contains(level));
    legal.ok_or_else(|| {
        format!("give LUFS from {MIN_LEVEL_LUFS} to {MAX_LEVEL_LUFS}, such as {DEFAULT_LEVEL_LUFS}")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Announce, Cli, Role};

    fn announce(line: &str) -> Result<Announce, String> {
        let line = format!("bullhorn announce {line}");
        match Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.role) {
            Ok(Role::Announce(announce)) => Ok(announce),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.exit_code(), 2, "{error}");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn a_sound_is_brought_to_a_level_unless_told_otherwise() {
        let plain = announce("").unwrap().before.preparation();
        assert_eq!(plain, Preparation { level_lufs: Some(-16.0), ..Preparation::default() });
        assert_eq!(announce("--no-level").unwrap().before.preparation(), Preparation::default());
        let much = announce("--level -23 --trim --repeat 2 --chime two-tone").unwrap().before.preparation();
        assert_eq!((much.level_lufs, much.trims, much.repeats), (Some(-23.0), true, 2));
        assert_eq!(much.chime, Some("two-tone".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        for (line, words) in [
            ("--level 0", "LUFS from -40 to -10"),
            ("--level loud", "LUFS from -40 to -10"),
            ("--level nan", "LUFS from -40 to -10"),
            ("--level -20 --no-level", "--no-level"),
            ("--repeat 11", "11"),
            ("--repeat -1", "-1"),
            ("--chime gong", "single, two-tone, three-tone or the path of a sound file"),
            ("--chime /nowhere/bell.wav", "/nowhere/bell.wav"),
            ("--file a.wav --input b", "--input"),
            ("--file a.wav --seconds 3", "--seconds"),
            ("--file a.wav --hold", "--hold"),
            ("--hold --once", "--once"),
            ("--review --once", "--once"),
            ("--sounds /tmp --once", "--once"),
            ("--talkback --once", "--once"),
            ("--monitor hall", "--review"),
        ] {
            let said = announce(line).map(|_| ()).unwrap_err();
            assert!(said.contains(words), "{line}: {said}");
        }
    }

    #[test]
    fn a_file_is_sent_whole_and_holding_has_a_bound() {
        assert_eq!(announce("--file a.wav").unwrap().length(), None);
        assert_eq!(announce("--hold").unwrap().length(), Some(HOLD_LENGTH));
        assert_eq!(announce("--hold --seconds 9").unwrap().length(), Some(Duration::from_secs(9)));
    }
}
