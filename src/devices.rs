//! Sound devices: list them, find one by name, agree with it on a format, keep its stream open.
//!
//! PulseAudio (or PipeWire in its place) is preferred where a server answers, ALSA otherwise.

use std::fmt;
use std::time::Duration;

use cpal::traits::{DeviceTrait, HostTrait};
use cpal::{HostId, SampleFormat};

pub(crate) mod format;
mod health;
pub(crate) mod keeper;
pub(crate) mod line;
pub(crate) mod stamps;

pub use health::HealthWatch;

/// Which way the sound goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A microphone, or what another program plays.
    Input,
    /// A loudspeaker.
    Output,
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

/// A device that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What `--input` and `--output` take: `HOST:ID`.
    pub id: String,
    /// What a person calls it.
    pub name: String,
    /// Microphone or loudspeaker; a device that is both is listed twice.
    pub direction: Direction,
    /// Used when none is named.
    pub is_default: bool,
    /// `pulseaudio` or `alsa`.
    pub host: String,
}

/// What can go wrong with a sound device.
#[derive(Debug, thiserror::Error)]
pub enum DevicesError {
    /// No sound system answers, or none that has a device.
    #[error(
        "there is no {direction} device: plug one in or start the sound server, see `bullhorn devices`, \
         or use a file: {}", file_hint(*direction)
    )]
    None {
        /// What was wanted.
        direction: Direction,
        /// What the sound system said.
        #[source]
        source: Option<cpal::Error>,
    },
    /// No device has that name.
    #[error("there is no {direction} device {wanted:?}: {}; `bullhorn devices` lists all", near_hint(near))]
    Unknown {
        /// What was wanted.
        direction: Direction,
        /// The name.
        wanted: String,
        /// Ids that look like it.
        near: Vec<String>,
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
        /// What the sound system said.
        #[source]
        source: cpal::Error,
    },
    /// The device did not answer, or stopped calling back.
    #[error("{device} does not answer, waited {} s: check the sound server and the device", waited.as_secs_f32())]
    Silent {
        /// The device's name.
        device: String,
        /// For so long.
        waited: Duration,
    },
}

fn file_hint(direction: Direction) -> &'static str {
    match direction {
        Direction::Input => "`--input file:PATH`",
        Direction::Output => "`--output file:DIR`",
    }
}

fn near_hint(near: &[String]) -> String {
    if near.is_empty() { "none is like it".into() } else { format!("did you mean {}?", near.join(" or ")) }
}

/// Every device of every sound system that answers; opens none of them.
pub fn list() -> Vec<Device> {
    silence_alsa();
    let mut hosts = Hosts::default();
    let mut devices: Vec<Device> = Vec::new();
    for direction in [Direction::Input, Direction::Output] {
        let mut default_id = None;
        for id in HOSTS {
            let Some(host) = hosts.host(id) else { continue };
            default_id = default_id.or_else(|| default(host, direction).map(|found| found.id));
            let found = candidates(host, direction).into_iter().filter(|found| !found.is_plugin());
            devices.extend(found.map(|found| Device {
                is_default: default_id.as_ref() == Some(&found.id),
                id: found.id,
                name: found.name,
                direction,
                host: id.to_string(),
            }));
        }
    }
    devices
}

/// The sound systems, the preferred one first.
const HOSTS: [HostId; 2] = [HostId::PulseAudio, HostId::Alsa];

/// The connections to the sound systems. A connection to PulseAudio has a thread and a place among the
/// server's few clients for as long as the server lives, so it is kept and used again.
#[derive(Default)]
pub(crate) struct Hosts {
    pulse: Option<cpal::Host>,
    alsa: Option<cpal::Host>,
}

/// A device that was found by name.
pub(crate) struct Found {
    pub(crate) device: cpal::Device,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) host: HostId,
}

/// What Debian's ALSA configuration lists besides devices: converters that need a device behind them,
/// and bridges to other sound systems. They can be named all the same.
const ALSA_PLUGINS: [&str; 10] =
    ["null", "lavrate", "samplerate", "speexrate", "speex", "upmix", "vdownmix", "jack", "oss", "pulse"];

impl Found {
    fn is_plugin(&self) -> bool {
        self.host == HostId::Alsa
            && self.id.split_once(':').is_some_and(|(_, bare)| ALSA_PLUGINS.contains(&bare))
    }
}

impl Hosts {
    /// The connection to a sound system, made anew if there is none or it broke.
    ///
    /// ALSA is only loaded when it is asked for: its configuration takes megabytes.
    fn host(&mut self, id: HostId) -> Option<&cpal::Host> {
        let host = if id == HostId::PulseAudio { &mut self.pulse } else { &mut self.alsa };
        let alive = match host {
            Some(host) => id == HostId::Alsa || host.devices().is_ok(),
            None => false,
        };
        if !alive {
            *host = cpal::host_from_id(id).ok();
        }
        host.as_ref()
    }

    /// The device of that id (with or without its host) or name, or the default one.
    ///
    /// # Errors
    /// [`DevicesError::None`] and [`DevicesError::Unknown`].
    pub(crate) fn find(&mut self, direction: Direction, wanted: Option<&str>) -> Result<Found, DevicesError> {
        let Some(wanted) = wanted else {
            let mut defaults = HOSTS.iter().filter_map(|&id| default(self.host(id)?, direction));
            return defaults.next().ok_or(DevicesError::None { direction, source: None });
        };
        let tests: [&dyn Fn(&Found) -> bool; 4] = [
            &|found| found.id == wanted,
            &|found| found.id.split_once(':').is_some_and(|(_, bare)| bare == wanted),
            &|found| found.name == wanted,
            &|found| found.name.eq_ignore_ascii_case(wanted),
        ];
        let mut known = Vec::new();
        for id in HOSTS {
            let mut all = self.host(id).map(|host| candidates(host, direction)).unwrap_or_default();
            if let Some(place) = tests.iter().find_map(|test| all.iter().position(test)) {
                return Ok(all.swap_remove(place));
            }
            known.extend(all.into_iter().map(|found| (found.id, found.name)));
        }
        Err(DevicesError::Unknown { direction, wanted: wanted.into(), near: near(wanted, &known) })
    }
}

fn default(host: &cpal::Host, direction: Direction) -> Option<Found> {
    let device = match direction {
        Direction::Input => host.default_input_device(),
        Direction::Output => host.default_output_device(),
    };
    device.and_then(|device| found(host.id(), device))
}

fn candidates(host: &cpal::Host, direction: Direction) -> Vec<Found> {
    let devices = host.devices().into_iter().flatten();
    let usable = devices.filter(|device| match (host.id(), direction) {
        // The default says nothing of its direction before it is opened.
        (HostId::Alsa, _) if device.id().is_ok_and(|id| id.id() == "default") => true,
        (_, Direction::Input) => device.supports_input(),
        (_, Direction::Output) => device.supports_output(),
    });
    usable.filter_map(|device| found(host.id(), device)).collect()
}

fn found(host: HostId, device: cpal::Device) -> Option<Found> {
    let id = device.id().ok()?.to_string();
    let name = device.description().map_or_else(|_| id.clone(), |description| description.name().to_owned());
    Some(Found { device, id, name, host })
}

/// At most this many names are suggested.
const MAX_SUGGESTIONS: usize = 4;

/// The ids most like a name, of pairs of id and name.
fn near(wanted: &str, known: &[(String, String)]) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let distance = |text: &str| {
        let text = text.to_lowercase();
        if text.contains(&wanted) || (text.len() > 3 && wanted.contains(&text)) {
            return 0;
        }
        edits(&text, &wanted)
    };
    let limit = (wanted.chars().count() / 2).max(2);
    let mut ranked: Vec<(usize, &String)> = known
        .iter()
        .map(|(id, name)| {
            let bare = id.split_once(':').map_or(id.as_str(), |(_, bare)| bare);
            (distance(bare).min(distance(name)), id)
        })
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    ranked.sort_by_key(|(distance, _)| *distance);
    ranked.into_iter().take(MAX_SUGGESTIONS).map(|(_, id)| id.clone()).collect()
}

/// The least number of characters to insert, delete or replace (Levenshtein distance).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, from) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, to) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Keeps ALSA's library from writing on standard error on its own, for the calling thread.
pub(crate) fn silence_alsa() {
    if let Err(error) = alsa::Output::local_error_handler() {
        tracing::debug!(%error, "ALSA keeps writing to standard error");
    }
}

/// Whether samples of that format can be converted.
fn is_pcm(format: SampleFormat) -> bool {
    !format.is_dsd()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn known(ids: &[&str]) -> Vec<(String, String)> {
        ids.iter().map(|id| (id.to_string(), format!("Device {id}"))).collect()
    }

    #[test]
    fn a_slip_of_the_key_is_guessed() {
        let known = known(&["pulseaudio:hallA", "pulseaudio:hallB", "alsa:hw:CARD=0,DEV=0"]);
        assert_eq!(near("halA", &known), ["pulseaudio:hallA", "pulseaudio:hallB"]);
        assert_eq!(near("card=0", &known), ["alsa:hw:CARD=0,DEV=0"]);
        assert!(near("bassoon-section", &known).is_empty());
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", ""), 3);
        assert_eq!(edits("same", "same"), 0);
    }

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
}
