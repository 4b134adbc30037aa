//! The mixer of an ALSA card: whether it lets anything through.

use alsa::mixer::{Mixer, Selem, SelemChannelId};

use super::Direction;

/// Elements that all sound of a card passes through.
const MAIN: [&str; 3] = ["Master", "PCM", "Digital"];
/// Sockets of a card; one that is open is enough.
const SOCKETS: [&str; 6] = ["Speaker", "Headphone", "Front", "Line Out", "Lineout", "Bass Speaker"];
/// Elements that all recorded sound passes through.
const CAPTURE: [&str; 1] = ["Capture"];
/// Below this nothing is left of 16-bit samples.
const SILENT_DB: f32 = -90.0;

/// One control of a mixer, in one direction.
#[derive(Debug, Clone, PartialEq)]
struct Element {
    name: String,
    /// Switched off.
    is_muted: bool,
    /// Turned down to nothing.
    is_silent: bool,
    /// Its volume, if the card reports it in dB.
    db: Option<f32>,
}

impl Element {
    fn is_closed(&self) -> bool {
        self.is_muted || self.is_silent
    }
}

/// What a mixer does to the sound.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// Sound gets through, changed by this many dB as far as the card reports it.
    Open(f32),
    /// Sound does not get through; the control that stops it, and whether that is muted or else turned down.
    Closed { control: String, is_muted: bool },
}

/// Decides whether sound gets past everything that it must pass.
fn verdict(elements: &[Element], direction: Direction) -> Verdict {
    let main: &[&str] = if direction == Direction::Output { &MAIN } else { &CAPTURE };
    let passed: Vec<&Element> = match elements {
        [only] => vec![only],
        _ => elements.iter().filter(|element| main.contains(&element.name.as_str())).collect(),
    };
    let sockets = elements.iter().filter(|element| SOCKETS.contains(&element.name.as_str()));
    let sockets: Vec<&Element> = sockets.filter(|_| direction == Direction::Output).collect();
    let all_closed = sockets.iter().all(|element| element.is_closed());
    let closed = passed.iter().find(|element| element.is_closed());
    match closed.or_else(|| sockets.first().filter(|_| all_closed)) {
        Some(element) => Verdict::Closed { control: element.name.clone(), is_muted: element.is_muted },
        None => Verdict::Open(passed.iter().filter_map(|element| element.db).sum()),
    }
}

/// Returns the control device of a PCM, by the PCM's id without the host.
fn control(pcm: &str) -> String {
    let parameters = pcm.split_once(':').map_or("", |(_, parameters)| parameters);
    match parameters.split(',').find(|it| it.starts_with("CARD=")) {
        Some(card) => format!("hw:{card}"),
        None => match parameters.split(',').next().filter(|card| !card.is_empty()) {
            Some(card) => format!("hw:{card}"),
            None => pcm.to_owned(),
        },
    }
}

/// The mixer of one device, for one direction.
pub(crate) struct CardMixer {
    mixer: Mixer,
    direction: Direction,
}

impl CardMixer {
    /// Opens the mixer of a device, if it has one. Whether ALSA writes errors of its own depends on the calling thread.
    pub(crate) fn open(pcm: &str, direction: Direction) -> Option<Self> {
        let mixer = Mixer::new(&control(pcm), true).ok()?;
        let mixer = Self { mixer, direction };
        (!mixer.elements().is_empty()).then_some(mixer)
    }

    /// Returns what the mixer does to the sound now.
    pub(crate) fn look(&self) -> Verdict {
        if let Err(error) = self.mixer.handle_events() {
            tracing::debug!(%error, "the mixer tells no changes");
        }
        verdict(&self.elements(), self.direction)
    }

    /// Opens every closed control that may stop the sound, to 0 dB, or all the way if the card has no dB scale.
    ///
    /// # Errors
    /// The card refuses.
    pub(crate) fn open_up(&self) -> Result<(), alsa::Error> {
        for selem in self.mixer.iter().filter_map(Selem::new) {
            let Some(element) = playback(&selem).filter(Element::is_closed) else { continue };
            let name = element.name.as_str();
            if !MAIN.contains(&name) && !SOCKETS.contains(&name) && self.elements().len() > 1 {
                continue;
            }
            if selem.has_playback_switch() {
                selem.set_playback_switch_all(1)?;
            }
            if element.is_silent {
                let (_, most) = selem.get_playback_volume_range();
                match element.db {
                    Some(_) => selem.set_playback_db_all(alsa::mixer::MilliBel(0), alsa::Round::Floor)?,
                    None => selem.set_playback_volume_all(most)?,
                }
            }
        }
        Ok(())
    }

    fn elements(&self) -> Vec<Element> {
        let of = |selem: Selem<'_>| match self.direction {
            Direction::Output => playback(&selem),
            Direction::Input => capture(&selem),
        };
        self.mixer.iter().filter_map(Selem::new).filter_map(of).collect()
    }
}

fn playback(selem: &Selem<'_>) -> Option<Element> {
    let channels = SelemChannelId::all().iter().filter(|it| selem.has_playback_channel(**it));
    let channels: Vec<SelemChannelId> = channels.copied().collect();
    let switch = selem
        .has_playback_switch()
        .then(|| channels.iter().any(|it| selem.get_playback_switch(*it).is_ok_and(|on| on != 0)));
    let volume = selem.has_playback_volume().then(|| Volume {
        loudest: channels.iter().filter_map(|it| selem.get_playback_volume(*it).ok()).max(),
        least: selem.get_playback_volume_range().0,
        db: channels
            .iter()
            .filter_map(|it| Some(selem.get_playback_vol_db(*it).ok()?.to_db()))
            .reduce(f32::max),
    });
    element(selem, switch, volume)
}

fn capture(selem: &Selem<'_>) -> Option<Element> {
    let channels = SelemChannelId::all().iter().filter(|it| selem.has_capture_channel(**it));
    let channels: Vec<SelemChannelId> = channels.copied().collect();
    let switch = selem
        .has_capture_switch()
        .then(|| channels.iter().any(|it| selem.get_capture_switch(*it).is_ok_and(|on| on != 0)));
    let volume = selem.has_capture_volume().then(|| Volume {
        loudest: channels.iter().filter_map(|it| selem.get_capture_volume(*it).ok()).max(),
        least: selem.get_capture_volume_range().0,
        db: channels
            .iter()
            .filter_map(|it| Some(selem.get_capture_vol_db(*it).ok()?.to_db()))
            .reduce(f32::max),
    });
    element(selem, switch, volume)
}

/// The volume of a control's loudest channel.
struct Volume {
    loudest: Option<i64>,
    least: i64,
    db: Option<f32>,
}

/// Returns `None` for a control that has neither switch nor volume.
fn element(selem: &Selem<'_>, is_on: Option<bool>, volume: Option<Volume>) -> Option<Element> {
    if is_on.is_none() && volume.is_none() {
        return None;
    }
    let is_silent = volume.as_ref().is_some_and(|volume| match volume.db {
        Some(db) => db <= SILENT_DB,
        None => volume.loudest.is_some_and(|loudest| loudest <= volume.least),
    });
    let name = selem.get_id().get_name().ok()?.to_owned();
    Some(Element { name, is_muted: is_on == Some(false), is_silent, db: volume.and_then(|it| it.db) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn element(name: &str, is_muted: bool, db: f32) -> Element {
        Element { name: name.into(), is_muted, is_silent: db <= SILENT_DB, db: Some(db) }
    }

    fn closed(elements: &[Element], direction: Direction) -> Option<(String, bool)> {
        match verdict(elements, direction) {
            Verdict::Closed { control, is_muted } => Some((control, is_muted)),
            Verdict::Open(_) => None,
        }
    }

    #[test]
    fn what_all_sound_passes_must_be_open_and_one_of_the_sockets() {
        let open = |name| element(name, false, 0.0);
        let laptop = [open("Master"), open("Headphone"), open("Speaker"), open("PCM"), open("Beep")];
        assert_eq!(verdict(&laptop, Direction::Output), Verdict::Open(0.0));
        let with = |place: usize, changed: Element| {
            let mut elements = laptop.to_vec();
            elements[place] = changed;
            elements
        };
        let closed_by = |elements: &[Element]| closed(elements, Direction::Output);
        assert_eq!(closed_by(&with(0, element("Master", true, 0.0))), Some(("Master".into(), true)));
        assert_eq!(closed_by(&with(3, element("PCM", false, -99.0))), Some(("PCM".into(), false)));
        assert_eq!(closed_by(&with(1, element("Headphone", true, 0.0))), None, "the speaker is enough");
        assert_eq!(closed_by(&with(4, element("Beep", true, 0.0))), None);
        let mut no_socket = with(1, element("Headphone", true, 0.0));
        no_socket[2] = element("Speaker", true, 0.0);
        assert_eq!(closed_by(&no_socket), Some(("Headphone".into(), true)));
        let usb = [element("Anything", true, -10.0)];
        assert_eq!(closed_by(&usb), Some(("Anything".into(), true)), "the only control there is");
        assert_eq!(
            verdict(&with(0, element("Master", false, -45.0)), Direction::Output),
            Verdict::Open(-45.0)
        );
        assert_eq!(closed_by(&[]), None);
    }

    #[test]
    fn a_microphone_s_way_is_its_capture_control() {
        let elements = [element("Capture", true, 0.0), element("Mic Boost", false, 20.0)];
        assert_eq!(closed(&elements, Direction::Input), Some(("Capture".into(), true)));
        let elements = [element("Capture", false, 0.0), element("Internal Mic", true, 0.0)];
        assert_eq!(closed(&elements, Direction::Input), None);
    }

    #[test]
    fn the_control_device_is_that_of_the_card() {
        for (pcm, name) in [
            ("hw:CARD=PCH,DEV=0", "hw:CARD=PCH"),
            ("plughw:1,0", "hw:1"),
            ("sysdefault:CARD=PCH", "hw:CARD=PCH"),
            ("front:CARD=PCH,DEV=0", "hw:CARD=PCH"),
            ("default", "default"),
            ("pulse", "pulse"),
        ] {
            assert_eq!(control(pcm), name);
        }
    }
}
