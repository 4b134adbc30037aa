//! Whether an open stream is on the device where it should be, and whether sound gets through.

use std::time::{Duration, Instant};

use cpal::HostId;
use pulseaudio::StreamId;

use super::mixer::{CardMixer, Verdict};
use super::route::{Kind, LOW_DB, Snapshot, Way};
use super::server::{ServerError, Sight, View};
use super::{DevicesError, Direction, Found};

/// The shortest time between two looks at a sound server that changes all the time.
const SPACING: Duration = Duration::from_millis(50);

/// What a look found.
#[derive(Debug)]
pub(crate) enum Finding {
    /// Sound gets through; a warning if little is left of it.
    Open(Option<String>),
    /// Sound does not get through, for as long as somebody wants that; the stream may stay.
    Shut(DevicesError),
    /// The stream is not on the device where it should be.
    Astray(DevicesError),
}

/// Watches one open stream.
pub(crate) struct Standing {
    direction: Direction,
    is_named: bool,
    /// The name that people know the device by.
    name: String,
    through: Through,
}

enum Through {
    /// A stream of a sound server, known from its first callback on.
    Server {
        device: String,
        view: Option<View>,
        route: Option<Vec<String>>,
        looked: Option<Instant>,
    },
    Card(Option<CardMixer>),
}

impl Standing {
    pub(crate) fn new(found: &Found, direction: Direction, is_named: bool) -> Self {
        let through = match found.host {
            HostId::PulseAudio => {
                Through::Server { device: found.bare().to_owned(), view: None, route: None, looked: None }
            }
            _ => Through::Card(CardMixer::open(found.bare(), direction)),
        };
        Self { direction, is_named, name: found.name.clone(), through }
    }

    /// Returns the name that people know the device by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns how long the next look must wait, to spare the server.
    pub(crate) fn rest(&self) -> Option<Duration> {
        match &self.through {
            Through::Server { view: Some(view), looked: Some(looked), .. } if view.has_changed() => {
                Some(SPACING.saturating_sub(looked.elapsed()))
            }
            _ => None,
        }
    }

    /// Looks, if there might be something new; `stream` is known once it runs. A server that does not answer is not a finding:
    /// its streams fall silent as well.
    pub(crate) fn look(&mut self, stream: Option<StreamId>) -> Option<Finding> {
        let (direction, is_named, name) = (self.direction, self.is_named, &self.name);
        match &mut self.through {
            Through::Card(mixer) => {
                let verdict = mixer.as_ref().map_or(Verdict::Open(0.0), CardMixer::look);
                Some(of_card(verdict, name))
            }
            Through::Server { device, view, route, looked } => {
                if view.is_none() {
                    *view = View::of(stream?, direction);
                }
                let view = view.as_mut().filter(|view| view.has_changed())?;
                if looked.is_some_and(|looked| looked.elapsed() < SPACING) {
                    return None;
                }
                *looked = Some(Instant::now());
                let (snapshot, way) = match view.look() {
                    Ok(Sight::Clear(snapshot, way)) => (snapshot, way),
                    // It is being moved, or is not linked yet; the server reports when it is.
                    Ok(Sight::Adrift) | Err(ServerError::Silent) => return None,
                    Err(ServerError::Client(error)) => {
                        tracing::debug!(device = name, %error, "what mutes or moves it cannot be told");
                        return Some(Finding::Open(None));
                    }
                };
                Some(of_server(&snapshot, way.as_ref(), (device, name), direction, is_named, route))
            }
        }
    }

    /// Whether the stream's device is gone, as far as is known.
    pub(crate) fn is_gone(&self) -> bool {
        match &self.through {
            Through::Server { device, .. } => super::server::snapshot(self.direction)
                .is_some_and(|it| it.devices.iter().all(|known| known.name != *device)),
            Through::Card(_) => false,
        }
    }

    /// Opens everything that shuts the sound out; the next look shows whether that worked.
    pub(crate) fn open_up(&mut self) {
        let opened = match &mut self.through {
            Through::Server { view: Some(view), .. } => view.open_up().map_err(|error| error.to_string()),
            Through::Card(Some(mixer)) => mixer.open_up().map_err(|error| error.to_string()),
            _ => Ok(()),
        };
        if let Err(error) = opened {
            tracing::warn!(device = self.name, %error, "it cannot be unmuted");
        }
    }
}

fn of_card(verdict: Verdict, name: &str) -> Finding {
    match verdict {
        Verdict::Closed { control, is_muted } => {
            Finding::Shut(DevicesError::MixerShut { device: name.to_owned(), control, is_muted })
        }
        Verdict::Open(db) => Finding::Open((db < LOW_DB).then(|| low(name, db, "the mixer"))),
    }
}

fn low(label: &str, db: f32, place: &str) -> String {
    format!("{label} is turned down to {db:.0} dB in {place}: what passes it is hardly heard")
}

/// Judges a stream by a snapshot. `route` holds the devices of the first snapshot.
fn of_server(
    snapshot: &Snapshot,
    way: Option<&Way>,
    (device, name): (&str, &str),
    direction: Direction,
    is_named: bool,
    route: &mut Option<Vec<String>>,
) -> Finding {
    let label = |name: &String| {
        snapshot
            .devices
            .iter()
            .find(|it| it.name == *name)
            .map_or_else(|| name.clone(), |it| it.label.clone())
    };
    let astray = |error| Finding::Astray(error);
    let Some(way) = way else {
        return match snapshot.devices.iter().any(|it| it.name == *device) {
            true => astray(DevicesError::Ended { device: name.to_owned() }),
            false => astray(DevicesError::Gone { device: name.to_owned() }),
        };
    };
    let first = route.get_or_insert_with(|| way.devices.clone());
    let is_at_home = way.devices.first().is_some_and(|it| it == device);
    if !is_at_home || way.devices != *first {
        let to = way.devices.iter().zip(first.iter()).find(|(now, then)| now != then);
        let to = to.map(|(now, _)| now).or(way.devices.last()).map(label).unwrap_or_default();
        return astray(DevicesError::Moved { device: name.to_owned(), to });
    }
    if let Err(error) = vet(way, name, direction, is_named) {
        return astray(error);
    }
    if let Some(default) = snapshot.default_device().filter(|it| !is_named && it.name != *device)
        && snapshot.way_to(&default.name).is_some_and(|way| vet(&way, name, direction, false).is_ok())
    {
        return astray(DevicesError::DefaultChanged { direction, to: default.label.clone() });
    }
    if let Some(obstacle) = way.obstacle() {
        return Finding::Shut(DevicesError::Shut { obstacle });
    }
    let quietest = way.quietest().filter(|_| way.gain_db() < LOW_DB);
    Finding::Open(quietest.map(|step| low(&step.label, way.gain_db(), "the sound server")))
}

/// Checks that a way leads to a loudspeaker, or comes from a microphone. A null sink or a monitor is accepted if it is named.
pub(crate) fn vet(way: &Way, name: &str, direction: Direction, is_named: bool) -> Result<(), DevicesError> {
    let hollow =
        |kind: Kind| Err(DevicesError::Hollow { direction, device: name.to_owned(), kind: kind.noun() });
    match way.kind {
        kind if !is_named && kind != Kind::Real => hollow(kind),
        kind if way.ends_at_dummy && kind != Kind::Dummy => hollow(Kind::Dummy),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::devices::route::{Device, Level, Stream};

    fn device(index: u32, name: &str, kind: Kind) -> Device {
        let level = Level { is_muted: false, channels: vec![(1, 0.0)] };
        Device {
            index,
            name: name.into(),
            label: name.to_uppercase(),
            kind,
            module: None,
            level,
            is_flat: false,
        }
    }

    fn snapshot(on: u32) -> Snapshot {
        let level = Level { is_muted: false, channels: vec![(1, 0.0)] };
        Snapshot {
            devices: vec![
                device(1, "hall", Kind::Real),
                device(2, "other", Kind::Real),
                device(3, "auto_null", Kind::Dummy),
                device(4, "null", Kind::Null),
            ],
            streams: vec![Stream { index: 7, device: on, module: None, level }],
            default: Some("hall".into()),
        }
    }

    fn finding(snapshot: &Snapshot, is_named: bool) -> String {
        let way = snapshot.way(7);
        let mut route = None;
        match of_server(snapshot, way.as_ref(), ("hall", "Hall"), Direction::Output, is_named, &mut route) {
            Finding::Open(warning) => format!("open {}", warning.unwrap_or_default()),
            Finding::Shut(error) => format!("shut: {error}"),
            Finding::Astray(error) => format!("astray: {error}"),
        }
    }

    #[test]
    fn a_stream_belongs_on_its_device() {
        for is_named in [true, false] {
            assert_eq!(finding(&snapshot(1), is_named), "open ");
            for elsewhere in [2, 3, 4] {
                let found = finding(&snapshot(elsewhere), is_named);
                assert!(found.starts_with("astray: ") && found.contains("moved"), "{found}");
            }
            let mut gone = snapshot(1);
            gone.streams.clear();
            assert!(finding(&gone, is_named).contains("has ended"));
            gone.devices.remove(0);
            assert!(finding(&gone, is_named).contains("is no longer there"));
        }
    }

    #[test]
    fn a_default_device_follows_the_default_only_to_a_real_one() {
        for (default, follows) in [("other", true), ("auto_null", false), ("null", false), ("missing", false)]
        {
            let mut changed = snapshot(1);
            changed.default = Some(default.into());
            assert_eq!(finding(&changed, true), "open ", "a named one stays");
            assert_eq!(finding(&changed, false).starts_with("astray"), follows, "{default}");
        }
    }

    #[test]
    fn a_null_sink_or_a_monitor_is_a_device_only_if_it_is_named() {
        for kind in [Kind::Null, Kind::Dummy, Kind::Monitor] {
            let mut hollow = snapshot(1);
            hollow.devices[0].kind = kind;
            assert_eq!(finding(&hollow, true), "open ");
            let found = finding(&hollow, false);
            assert!(found.starts_with("astray") && found.contains(kind.noun()), "{found}");
        }
    }

    #[test]
    fn silence_and_low_volumes_are_told_with_their_place() {
        let mut low = snapshot(1);
        low.devices[0].level.channels = vec![(1, -52.0)];
        assert_eq!(
            finding(&low, true),
            "open HALL is turned down to -52 dB in the sound server: what passes it is hardly heard"
        );
        low.devices[0].level.is_muted = true;
        let found = finding(&low, true);
        assert!(found.starts_with("shut: HALL is muted in the sound server, by another program"), "{found}");
    }
}
