//! Sound devices: list them, find one by name, agree with it on a format, keep its stream open.
//!
//! PulseAudio (or PipeWire in its place) is preferred where a server answers, ALSA otherwise.

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

/// Every device of every sound system that answers; opens none of them, save ALSA's default for a moment where there is no
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
        self.host == HostId::Alsa && ALSA_PLUGINS.contains(&self.bare())
    }

    /// The id without its host.
    fn bare(&self) -> &str {
        self.id.split_once(':').map_or(self.id.as_str(), |(_, bare)| bare)
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

    /// The device of that id (with or without its host) or name, or the default one. The default of a sound server that
    /// answers is the default, also where it is nothing that anybody hears: ALSA's would lead back to it.
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
        // It may well be one of a server that is yet to start.
        if self.pulse.is_none() && near.is_empty() && !wanted.starts_with("alsa:") {
            return Err(DevicesError::NoServer { wanted: wanted.into() });
        }
        Err(DevicesError::Unknown { direction, wanted: wanted.into(), near })
    }
}

/// Whether sound gets to somebody by a device, or from somebody.
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

/// Whether an ALSA device is, or ends at, one that drops all sound.
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
}
