//! A station's options for talkback.

use std::time::Duration;

use clap::Args;

use super::values::clip_length;
use crate::microphone::Input;

/// Talking back.
#[derive(Debug, Args)]
#[command(next_help_heading = "Talkback")]
pub struct TalkbackOptions {
    /// Talk back: Enter records, and sends it to each announcer that was started with --talkback too. Without it
    /// nothing is ever recorded here
    #[arg(long)]
    pub talkback: bool,

    /// The microphone, as `bullhorn devices` names it, or file:PATH for a sound file [default: the system's]
    #[arg(long, value_name = "DEVICE|file:PATH", requires = "talkback")]
    pub input: Option<Input>,

    /// How long to record, in seconds: over 0, at most 120 [default: 5, or the whole file]
    #[arg(long, value_name = "SECONDS", requires = "talkback", allow_negative_numbers = true, value_parser = clip_length)]
    pub seconds: Option<Duration>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Role};

    fn options(line: &str) -> Result<TalkbackOptions, String> {
        let line = format!("bullhorn speaker office-pc {line}");
        match Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.role) {
            Ok(Role::Speaker(speaker)) => Ok(speaker.talkback),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert_eq!(error.exit_code(), 2, "{error}");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn it_is_off_unless_asked_for_and_what_it_takes_needs_it() {
        assert!(!options("").unwrap().talkback);
        let asked = options("--talkback --input file:a.wav --seconds 2.5").unwrap();
        assert_eq!(asked.input, Some(Input::File("a.wav".into())));
        assert_eq!((asked.talkback, asked.seconds), (true, Some(Duration::from_millis(2_500))));
        for (line, words) in [
            ("--input hall", "--talkback"),
            ("--seconds 3", "--talkback"),
            ("--talkback --seconds 121", "at most 120 seconds"),
            ("--talkback --seconds 0", "more than 0"),
        ] {
            let said = options(line).map(|_| ()).unwrap_err();
            assert!(said.contains(words), "{line}: {said}");
        }
    }
}
