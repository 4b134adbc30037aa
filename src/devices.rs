//! Sound devices: lists them, finds one by name, agrees with it on a format, keeps its stream open.
//!
//! PulseAudio (or PipeWire in its place) is preferred if a server answers, ALSA otherwise.

use std::fmt;

use cpal::traits::{DeviceTrait, HostTrait};
use cpal::{HostId, SampleFormat};

mod error;
pub(crate) mod format;
pub(crate) mod health;
pub(crate) mod keeper;
pub(crate) mod line;
mod mixer;
mod route;
mod server;
pub(crate) mod stamps;
mod standing;

pub use error::{DevicesError, Onlooker};
pub use health::HealthWatch;
pub use route::Obstacle;

/// Which way the sound goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A microphone, or the sound that another program plays.
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
    /// The value for `--input` and `--output`: `HOST:ID`.
    pub id: String,
    /// The name that people know it by.
    pub name: String,
    /// Microphone or loudspeaker; a device that is both is listed twice.
    pub direction: Direction,
    /// Whether it is used when none is named.
    pub is_default: bool,
    /// `pulseaudio` or `alsa`.
    pub host: String,
}

/// Lists every device of every sound system that answers. Opens none of them, except ALSA's default for a moment if there is no
/// other.
pub fn list() -> Vec<Device> {
    silence_alsa();
    let mut hosts = Hosts::default();
    let mut devices: Vec<Device> = Vec::new();
    for direction in [Direction::Input, Direction::Output] {
        let mut default_id = None;
        for id in HOSTS {
            let Some(host) = hosts.host(id) else { continue };
            default_id = default_id.or_else(|| {
                default(host, direction).filter(|it| vet(it, direction, false).is_ok()).map(|it| it.id)
            });
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

/// The connections to the sound systems. A connection to PulseAudio occupies a thread and one of the few clients that the server
/// allows, for as long as the server lives, so it is kept and reused.
#[derive(Default)]
pub(crate) struct Hosts {
    pulse: Option<cpal::Host>,
    alsa: Option<cpal::Host>,
}

/// A device that was found.
pub(crate) struct Found {
    pub(crate) device: cpal::Device,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) host: HostId,
}

/// Entries of Debian's ALSA configuration that are not devices: converters that need a device behind them, and bridges to other
/// sound systems. They can still be named.
const ALSA_PLUGINS: [&str; 10] =
    ["null", "lavrate", "samplerate", "speexrate", "speex", "upmix", "vdownmix", "jack", "oss", "pulse"];

impl Found {
    fn is_plugin(&self) -> bool {
        self.host == HostId::Alsa && ALSA_PLUGINS.contains(&self.bare())
    }

    /// The id without its host.
    fn bare(&self) -> &str {
        self.id.split_once(':').map_or(self.id.as_str(), |(_, bare)| bare)
    }
}

impl Hosts {
    /// Returns the connection to a sound system, and makes a new one if there is none or it broke.
    ///
    /// ALSA is only loaded on demand: its configuration takes megabytes.
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

    /// Returns the device with this id (with or without its host) or name, or the default one. If a sound server answers, its
    /// default is the default, even if nobody can hear it: ALSA's would lead back to it.
    ///
    /// # Errors
    /// [`DevicesError::None`], [`DevicesError::Unknown`], [`DevicesError::NoServer`] and [`DevicesError::Hollow`].
    pub(crate) fn find(&mut self, direction: Direction, wanted: Option<&str>) -> Result<Found, DevicesError> {
        let found = match wanted {
            Some(wanted) => self.named(direction, wanted)?,
            None => {
                let mut defaults = HOSTS.iter().filter_map(|&id| default(self.host(id)?, direction));
                defaults.next().ok_or(DevicesError::None { direction, source: None })?
            }
        };
        vet(&found, direction, wanted.is_some())?;
        Ok(found)
    }

    fn named(&mut self, direction: Direction, wanted: &str) -> Result<Found, DevicesError> {
        let tests: [&dyn Fn(&Found) -> bool; 4] = [
            &|found| found.id == wanted,
            &|found| found.bare() == wanted,
            &|found| found.name == wanted,
            &|found| found.name.eq_ignore_ascii_case(wanted),
        ];
        let mut known = Vec::new();
        for id in HOSTS {
            let host = self.host(id);
            if host.is_none() && id == HostId::PulseAudio && wanted.starts_with("pulseaudio:") {
                return Err(DevicesError::NoServer { wanted: wanted.into() });
            }
            let mut all = host.map(|host| candidates(host, direction)).unwrap_or_default();
            if let Some(place) = tests.iter().find_map(|test| all.iter().position(test)) {
                return Ok(all.swap_remove(place));
            }
            let likely = all.into_iter().filter(|found| !found.is_plugin());
            known.extend(likely.map(|found| (found.id, found.name)));
        }
        let near = near(wanted, &known);
        // It might be a device of a server that has not started yet.
        if self.pulse.is_none() && near.is_empty() && !wanted.starts_with("alsa:") {
            return Err(DevicesError::NoServer { wanted: wanted.into() });
        }
        Err(DevicesError::Unknown { direction, wanted: wanted.into(), near })
    }
}

/// Checks that a device carries sound to somebody, or from somebody.
fn vet(found: &Found, direction: Direction, is_named: bool) -> Result<(), DevicesError> {
    if found.host == HostId::PulseAudio {
        let way = server::snapshot(direction).and_then(|snapshot| snapshot.way_to(found.bare()));
        return way.map_or(Ok(()), |way| standing::vet(&way, &found.name, direction, is_named));
    }
    match !is_named && is_null_pcm(found.bare(), direction) {
        true => {
            Err(DevicesError::Hollow { direction, device: found.name.clone(), kind: "ALSA's null device" })
        }
        false => Ok(()),
    }
}

/// Whether an ALSA device is, or ends at, a device that drops all sound.
fn is_null_pcm(name: &str, direction: Direction) -> bool {
    let direction = match direction {
        Direction::Input => alsa::Direction::Capture,
        Direction::Output => alsa::Direction::Playback,
    };
    let dump = || {
        let pcm = alsa::PCM::new(name, direction, true)?;
        let mut text = alsa::Output::buffer_open()?;
        pcm.dump(&mut text)?;
        Ok::<_, alsa::Error>(text.to_string())
    };
    dump().is_ok_and(|text| text.contains("Null PCM"))
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
        // The default does not report its direction before it is opened.
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

/// The most names that are suggested.
const MAX_SUGGESTIONS: usize = 4;

/// Returns the ids most similar to a name, from pairs of id and name.
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

/// Returns the least number of characters to insert, delete or replace (Levenshtein distance).
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

/// Keeps ALSA's library from writing to standard error by itself, for the calling thread.
pub(crate) fn silence_alsa() {
    if let Err(error) = alsa::Output::local_error_handler() {
        tracing::debug!(%error, "ALSA keeps writing to standard error");
    }
}

/// Whether samples of this format can be converted.
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
}
