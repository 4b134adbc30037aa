//! What can go wrong with a sound device, and whether to wait for it to pass.

use std::io::IsTerminal;
use std::time::Duration;

use super::{Direction, Obstacle};

/// What can go wrong with a sound device.
#[derive(Debug, thiserror::Error)]
pub enum DevicesError {
    /// No sound system answers, or none has a device.
    #[error(
        "there is no {direction} device: plug one in or start the sound server, see `bullhorn devices`, \
         or use a file: {}", file_hint(*direction)
    )]
    None {
        /// The direction that was wanted.
        direction: Direction,
        /// The sound system's error.
        #[source]
        source: Option<cpal::Error>,
    },
    /// No device has this name.
    #[error("there is no {direction} device {wanted:?}: {}; `bullhorn devices` lists all", near_hint(near))]
    Unknown {
        /// The direction that was wanted.
        direction: Direction,
        /// The name.
        wanted: String,
        /// Similar ids.
        near: Vec<String>,
    },
    /// The name could be that of a sound server's device, but no sound server answers.
    #[error("no sound server (PulseAudio or PipeWire) answers, where {wanted:?} could be: start it")]
    NoServer {
        /// The name.
        wanted: String,
    },
    /// The system's default is not something that anybody hears, or that hears anybody.
    #[error(
        "{device} is {kind}, not a {}: plug one in, or name it with {} to use it all the same",
        thing(*direction), option(*direction)
    )]
    Hollow {
        /// The direction that was wanted.
        direction: Direction,
        /// The device's name.
        device: String,
        /// What it is instead.
        kind: &'static str,
    },
    /// The device was there, but is not any more.
    #[error("{device} is no longer there: plug it in, or bring it back in the sound server")]
    Gone {
        /// The device's name.
        device: String,
    },
    /// The device is there, but the sound server took the stream away.
    #[error("the sound server has ended the stream to {device}: it is opened again")]
    Ended {
        /// The device's name.
        device: String,
    },
    /// The sound now goes to another device, or comes from another one.
    #[error(
        "the sound of {device} was moved to {to} in the sound server, by another program: it is opened again"
    )]
    Moved {
        /// The device's name.
        device: String,
        /// The device that has it now.
        to: String,
    },
    /// The default device is now another one.
    #[error("the default {direction} device is {to} now: it is used from now on")]
    DefaultChanged {
        /// What it is used for.
        direction: Direction,
        /// The new default.
        to: String,
    },
    /// The device works, but is muted or turned down to silence in the sound server.
    #[error("{obstacle} in the sound server, by another program: undo that there")]
    Shut {
        /// Where the sound is lost.
        obstacle: Obstacle,
    },
    /// The device works, but is muted or turned down to silence in its mixer.
    #[error(
        "{control} of {device} is {} in ALSA's mixer, by another program: undo that with alsamixer",
        if *is_muted { "muted" } else { "turned down to silence" }
    )]
    MixerShut {
        /// The device's name.
        device: String,
        /// The mixer's control.
        control: String,
        /// Whether it is muted; otherwise it is turned down.
        is_muted: bool,
    },
    /// The device has no format that can be used.
    #[error("{device} offers no sample format that bullhorn can use: choose another, see `bullhorn devices`")]
    Format {
        /// The device's name.
        device: String,
    },
    /// The device did not open, or stopped.
    #[error("{device} does not work: check that it is connected and not in use by another program")]
    Failed {
        /// The device's name.
        device: String,
        /// The sound system's error.
        #[source]
        source: cpal::Error,
    },
    /// The device did not answer, or stopped calling back.
    #[error("{device} does not answer, waited {} s: check the sound server and the device", waited.as_secs_f32())]
    Silent {
        /// The device's name.
        device: String,
        /// How long it was waited for.
        waited: Duration,
    },
}

fn file_hint(direction: Direction) -> &'static str {
    match direction {
        Direction::Input => "`--input file:PATH`",
        Direction::Output => "`--output file:DIR`",
    }
}

fn option(direction: Direction) -> &'static str {
    match direction {
        Direction::Input => "--input",
        Direction::Output => "--output",
    }
}

fn thing(direction: Direction) -> &'static str {
    match direction {
        Direction::Input => "microphone",
        Direction::Output => "loudspeaker",
    }
}

fn near_hint(near: &[String]) -> String {
    if near.is_empty() { "none is like it".into() } else { format!("did you mean {}?", near.join(" or ")) }
}

impl DevicesError {
    /// Whether the fault might pass without a change of the command line: a busy device is released, a missing one returns. A
    /// name that no device has might be a typing mistake.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Unknown { .. } | Self::None { .. } | Self::Format { .. } | Self::Hollow { .. })
    }
}

/// Who is there when a device does not open at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onlooker {
    /// Somebody at a terminal, who might have mistyped a name.
    Person,
    /// Nobody: a service.
    Nobody,
}

impl Onlooker {
    /// Returns who started this process: a person if standard input or standard error is a terminal.
    pub fn here() -> Self {
        match std::io::stdin().is_terminal() || std::io::stderr().is_terminal() {
            true => Self::Person,
            false => Self::Nobody,
        }
    }

    /// Whether to wait for a device that did not open. A service always waits; a person sees at once what they might have
    /// mistyped, unless the device has worked here before.
    pub fn waits(self, error: &DevicesError, has_worked: bool) -> bool {
        self == Self::Nobody || has_worked || error.may_pass()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let unknown = DevicesError::Unknown {
            direction: Direction::Output,
            wanted: "halA".into(),
            near: vec!["pulseaudio:hallA".into()],
        };
        assert_eq!(
            unknown.to_string(),
            "there is no output device \"halA\": did you mean pulseaudio:hallA?; `bullhorn devices` lists all"
        );
        let none = DevicesError::None { direction: Direction::Input, source: None };
        assert!(none.to_string().contains("--input file:PATH"), "{none}");
    }

    #[test]
    fn a_service_waits_and_a_person_is_told_of_a_slip() {
        let slip =
            DevicesError::Unknown { direction: Direction::Output, wanted: "halA".into(), near: vec![] };
        let away = DevicesError::NoServer { wanted: "hall-1".into() };
        let device = "USB".to_owned();
        let source = cpal::Error::new(cpal::ErrorKind::DeviceBusy);
        let busy = DevicesError::Failed { device, source };
        for (error, person_waits) in [(&slip, false), (&away, true), (&busy, true)] {
            assert_eq!(Onlooker::Person.waits(error, false), person_waits, "{error}");
            assert!(Onlooker::Person.waits(error, true) && Onlooker::Nobody.waits(error, false), "{error}");
        }
    }
}
