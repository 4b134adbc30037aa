//! The way that a stream's sound takes through the sound server: which devices it passes, and how much of it is left. Pure.
//!
//! A virtual device (remapped, filtered, combined) plays on other devices through streams of its own, which the same module owns.

use std::fmt;

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As far as the server knows, sound goes in or out there. A virtual device counts as real too, even over a null sink: a user
    /// who stacks devices wants them used.
    Real,
    /// A null sink that somebody created: sound ends there.
    Null,
    /// The null sink that the server creates if there is no device ("Dummy Output").
    Dummy,
    /// A source that records what a sink plays.
    Monitor,
}

impl Kind {
    /// Returns what to call it where a loudspeaker or a microphone is wanted.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Real => "a device",
            Self::Null => "a null sink",
            Self::Dummy => "what the sound server shows where there is no device",
            Self::Monitor => "the monitor of a loudspeaker",
        }
    }
}

/// Whether a step of the way is muted, and its volume for each channel position.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Level {
    pub(crate) is_muted: bool,
    /// The number of the position, and its volume in dB; −∞ for silence.
    pub(crate) channels: Vec<(u8, f32)>,
}

impl Level {
    /// Returns the loudest of the channels at those positions, or of all channels if none is there.
    fn db(&self, positions: &[u8]) -> f32 {
        let loudest = |channels: &mut dyn Iterator<Item = f32>| channels.reduce(f32::max);
        let mut reached =
            self.channels.iter().filter(|(position, _)| positions.contains(position)).map(|it| it.1);
        let mut all = self.channels.iter().map(|it| it.1);
        loudest(&mut reached).or_else(|| loudest(&mut all)).unwrap_or(0.0)
    }

    fn positions(&self) -> Vec<u8> {
        self.channels.iter().map(|it| it.0).collect()
    }
}

/// A sink or source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Device {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// The name that people know it by.
    pub(crate) label: String,
    pub(crate) kind: Kind,
    /// The module that made it.
    pub(crate) module: Option<u32>,
    pub(crate) level: Level,
    /// Whether its volume is that of its loudest stream and includes the streams' own.
    pub(crate) is_flat: bool,
}

/// A stream that plays to a sink or records from a source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stream {
    pub(crate) index: u32,
    pub(crate) device: u32,
    pub(crate) module: Option<u32>,
    pub(crate) level: Level,
}

/// All sinks and their streams, or all sources and their streams.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) devices: Vec<Device>,
    pub(crate) streams: Vec<Stream>,
    /// The name of the default device.
    pub(crate) default: Option<String>,
}

/// A part of the way where sound can be lost.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// Whether it is a stream rather than a device.
    pub(crate) is_stream: bool,
    pub(crate) index: u32,
    pub(crate) channels: usize,
    /// The name that people know the device by; for a stream, the name of its device.
    pub(crate) label: String,
    pub(crate) is_muted: bool,
    pub(crate) db: f32,
}

/// The way of one stream; where it branches, the branch that lets the most through.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Way {
    pub(crate) steps: Vec<Step>,
    /// Names of the devices, the stream's own first, up to where the way branches.
    pub(crate) devices: Vec<String>,
    /// The kind of the stream's own device.
    pub(crate) kind: Kind,
    /// Whether the way ends at the server's dummy, if only behind virtual devices.
    pub(crate) ends_at_dummy: bool,
}

/// Below this nothing is left of 16-bit samples.
const SILENT_DB: f32 = -90.0;
/// Below this a page is hardly heard.
pub(crate) const LOW_DB: f32 = -40.0;
/// The most devices in a row that are followed.
const MAX_DEPTH: usize = 8;

/// Where all the sound is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Whether it is the stream rather than the device.
    is_stream: bool,
    /// Whether it is muted; otherwise it is turned down.
    is_muted: bool,
    label: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_stream { "the stream to " } else { "" };
        let how = if self.is_muted { "muted" } else { "turned down to silence" };
        write!(formatter, "{what}{} is {how}", self.label)
    }
}

impl Way {
    /// Returns the step at which nothing gets through, if there is one.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        let of = |step: &Step| Obstacle {
            is_stream: step.is_stream,
            is_muted: step.is_muted,
            label: step.label.clone(),
        };
        let muted = self.steps.iter().find(|step| step.is_muted);
        muted.or_else(|| self.quietest().filter(|_| self.gain_db() <= SILENT_DB)).map(of)
    }

    /// Returns what all steps together do to the sound.
    pub(crate) fn gain_db(&self) -> f32 {
        self.steps.iter().map(|step| step.db).sum()
    }

    /// Returns the step that takes the most away.
    pub(crate) fn quietest(&self) -> Option<&Step> {
        self.steps.iter().min_by(|one, other| one.db.total_cmp(&other.db))
    }

    fn is_louder_than(&self, other: &Self) -> bool {
        let rank = |way: &Self| (!way.ends_at_dummy, way.obstacle().is_none());
        match rank(self).cmp(&rank(other)) {
            std::cmp::Ordering::Equal => self.gain_db() > other.gain_db(),
            rank => rank.is_gt(),
        }
    }
}

impl Snapshot {
    /// Returns the default device, whatever it is.
    pub(crate) fn default_device(&self) -> Option<&Device> {
        self.devices.iter().find(|device| Some(&device.name) == self.default.as_ref())
    }

    /// Returns the way of a stream; `None` if the stream is gone.
    pub(crate) fn way(&self, stream: u32) -> Option<Way> {
        self.way_of(self.streams.iter().find(|it| it.index == stream)?, MAX_DEPTH)
    }

    /// Returns the way that a stream to a device would take; `None` if there is no such device.
    pub(crate) fn way_to(&self, device: &str) -> Option<Way> {
        let device = self.devices.iter().find(|it| it.name == device)?;
        let level = Level { is_muted: false, channels: Vec::new() };
        self.way_of(&Stream { index: u32::MAX, device: device.index, module: None, level }, MAX_DEPTH)
    }

    fn way_of(&self, stream: &Stream, depth: usize) -> Option<Way> {
        let device = self.devices.iter().find(|device| device.index == stream.device)?;
        let positions = stream.level.positions();
        let stream_db = if device.is_flat { 0.0 } else { stream.level.db(&positions) };
        let step = |is_stream, index, level: &Level, db| Step {
            is_stream,
            index,
            channels: level.channels.len(),
            label: device.label.clone(),
            is_muted: level.is_muted,
            db,
        };
        let mut way = Way {
            steps: vec![
                step(true, stream.index, &stream.level, stream_db),
                step(false, device.index, &device.level, device.level.db(&positions)),
            ],
            devices: vec![device.name.clone()],
            kind: device.kind,
            ends_at_dummy: device.kind == Kind::Dummy,
        };
        let behind = self.streams.iter().filter(|it| device.module.is_some() && it.module == device.module);
        let mut ways: Vec<Way> = match depth.checked_sub(1) {
            Some(depth) => behind.filter_map(|stream| self.way_of(stream, depth)).collect(),
            None => Vec::new(),
        };
        if let [only] = &ways[..] {
            way.devices.extend(only.devices.iter().cloned());
        }
        let louder = |one: Way, other: Way| if other.is_louder_than(&one) { other } else { one };
        if let Some(rest) = ways.drain(..).reduce(louder) {
            way.ends_at_dummy = rest.ends_at_dummy;
            // A virtual device may share the volume of the one behind it, and report it as its own.
            let shared = rest.steps.get(1).map(|step| step.db);
            if let Some(own) = way.steps.get_mut(1).filter(|own| Some(own.db) == shared) {
                own.db = 0.0;
            }
            way.steps.extend(rest.steps);
        }
        Some(way)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn level(db: f32) -> Level {
        Level { is_muted: false, channels: vec![(1, db), (2, db)] }
    }

    fn device(index: u32, kind: Kind, db: f32) -> Device {
        let name = format!("sink-{index}");
        let label = format!("Sink {index}");
        Device { index, name, label, kind, module: Some(100 + index), level: level(db), is_flat: false }
    }

    fn stream(index: u32, device: u32, module: Option<u32>) -> Stream {
        Stream { index, device, module, level: level(0.0) }
    }

    /// Stream 1 plays to the virtual sink 2, whose own stream 20 plays to sink 3.
    fn remapped(behind: Kind) -> Snapshot {
        Snapshot {
            devices: vec![device(2, Kind::Real, 0.0), device(3, behind, 0.0)],
            streams: vec![stream(1, 2, None), stream(20, 3, Some(102)), stream(21, 3, None)],
            default: Some("sink-2".into()),
        }
    }

    #[test]
    fn what_is_muted_or_turned_down_anywhere_on_the_way_is_found() {
        let heard = remapped(Kind::Null);
        let way = heard.way(1).expect("a way");
        assert_eq!((way.obstacle(), way.gain_db()), (None, 0.0));
        assert_eq!(way.devices, ["sink-2", "sink-3"]);
        type Change = fn(&mut Snapshot);
        let cases: [(Change, &str); 6] = [
            (|it| it.devices[0].level.is_muted = true, "Sink 2 is muted"),
            (|it| it.devices[1].level.is_muted = true, "Sink 3 is muted"),
            (|it| it.streams[0].level.is_muted = true, "the stream to Sink 2 is muted"),
            (|it| it.streams[1].level.is_muted = true, "the stream to Sink 3 is muted"),
            (|it| it.devices[1].level = level(f32::NEG_INFINITY), "Sink 3 is turned down to silence"),
            (|it| it.devices[0].level = level(-120.0), "Sink 2 is turned down to silence"),
        ];
        for (change, said) in cases {
            let mut silent = heard.clone();
            change(&mut silent);
            assert_eq!(silent.way(1).unwrap().obstacle().expect(said).to_string(), said);
        }
        let mut other = heard.clone();
        other.streams[2].level.is_muted = true;
        assert_eq!(other.way(1).unwrap().obstacle(), None, "another program's stream");
        assert_eq!(heard.way(9), None);
    }

    #[test]
    fn volumes_add_up_unless_they_are_one_and_the_same() {
        let mut both = remapped(Kind::Real);
        both.devices[0].level = level(-30.0);
        both.devices[1].level = level(-25.0);
        assert_eq!(both.way(1).unwrap().gain_db(), -55.0);
        assert_eq!(both.way(1).unwrap().quietest().unwrap().label, "Sink 2");
        both.devices[1].level = level(-30.0);
        assert_eq!(both.way(1).unwrap().gain_db(), -30.0, "shared by the virtual sink");
        let mut flat = remapped(Kind::Real);
        flat.devices[0].is_flat = true;
        (flat.devices[0].level, flat.streams[0].level) = (level(-30.0), level(-30.0));
        assert_eq!(flat.way(1).unwrap().gain_db(), -30.0, "flat volumes");
        let mut one_side = remapped(Kind::Real);
        one_side.streams[0].level.channels = vec![(1, 0.0)];
        one_side.devices[0].level.channels = vec![(1, f32::NEG_INFINITY), (2, 0.0)];
        assert!(one_side.way(1).unwrap().obstacle().is_some(), "only the channel that it plays to counts");
    }

    #[test]
    fn the_dummy_is_seen_through_virtual_sinks_and_one_open_branch_is_enough() {
        let way = remapped(Kind::Dummy).way(1).unwrap();
        assert!(way.ends_at_dummy && way.kind == Kind::Real);
        assert!(!remapped(Kind::Null).way(1).unwrap().ends_at_dummy);
        let mut combined = remapped(Kind::Dummy);
        combined.devices.push(device(4, Kind::Real, 0.0));
        combined.streams.push(stream(22, 4, Some(102)));
        let way = combined.way(1).unwrap();
        assert!(!way.ends_at_dummy);
        assert_eq!(way.devices, ["sink-2"], "slaves of a combined sink come and go");
        combined.devices[2].level.is_muted = true;
        assert!(combined.way(1).unwrap().ends_at_dummy || combined.way(1).unwrap().obstacle().is_some());
    }

    #[test]
    fn a_loop_of_devices_ends() {
        let mut looped = remapped(Kind::Real);
        looped.streams.push(stream(23, 2, Some(103)));
        assert!(looped.way(1).is_some());
    }
}
