//! Live speech at the desk: started and finished by the operator, reported, and archived.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::live::{self, Ended, News, Outcome, Recipe};
use super::Desk;
use crate::clip::hex;
use crate::event::Event;
use crate::stations::LiveOffer;
use crate::wire::ClipId;

/// The warning before somebody speaks live into a microphone for the first time.
const HOWLS: &str = "live speech can howl where the microphone hears a loudspeaker that plays it: keep them in \
    different rooms, or turn that station down";

impl Desk {
    /// Starts live speech, or finishes it. Does nothing while a clip is being recorded.
    pub(super) fn toggle_live(&mut self) {
        if let Some(speaking) = &self.speaking {
            return speaking.finish.cancel();
        }
        if self.tools.is_none() {
            return;
        }
        if self.stations.has_live() {
            let message =
                "nothing was said: stations still tell what they heard of the last; try again at once"
                    .to_owned();
            return self.events.tell(Event::Warning { message });
        }
        if let Some(message) = self.unknown_zone() {
            self.all_heard = false;
            return self.events.tell(Event::Warning { message });
        }
        self.follow_wall();
        let Some(tools) = self.tools.take() else { return };
        if tools.microphone.whole_length().is_none()
            && !std::mem::replace(&mut self.has_warned_of_howling, true)
        {
            self.events.tell(Event::Warning { message: HOWLS.to_owned() });
        }
        self.last_sequence += 1;
        self.announced += 1;
        let recipe = Recipe {
            id: ClipId { epoch: self.epoch, sequence: self.last_sequence },
            priority: self.priority,
            zones: self.addressed.clone(),
            latency: self.config.latency,
            clock: self.clock,
            wall: self.wall.clone(),
            rate_hz: self.config.rate_hz,
            site: self.config.site.clone(),
        };
        self.speaking = Some(live::begin(tools, recipe, self.events.clone()));
    }

    /// Finishes live speech, if somebody speaks.
    pub(super) fn finish_live(&self) {
        if let Some(speaking) = &self.speaking {
            speaking.finish.cancel();
        }
    }

    pub(super) fn follow_live(&mut self, news: News) {
        match news {
            News::Begun(offer, rate_hz) => self.live_began(offer, rate_hz),
            News::Ended(ended) => self.live_ended(*ended),
            News::Over(outcome) => self.live_is_over(*outcome),
        }
    }

    fn live_began(&mut self, offer: Arc<LiveOffer>, rate_hz: u32) {
        let (clip, priority) = (offer.id.to_string(), offer.priority);
        let latency_ms = offer.latency.as_millis() as u64;
        let stations = self.stations.begin_live(offer, Instant::now());
        let input = self.input.clone();
        self.events.tell(Event::LiveStarted { clip, input, rate_hz, latency_ms, priority, stations });
    }

    fn live_ended(&mut self, ended: Ended) {
        let (header, blocks) = (&ended.header, ended.header.blocks());
        self.events.tell(Event::LiveEnded {
            clip: header.id.to_string(),
            length_ms: header.frames * 1_000 / u64::from(header.rate_hz),
            blocks,
            sha256: hex(&header.sha256),
            peak_db: ended.peak_db,
            lost: ended.lost.some(),
        });
        self.stations.end_live(blocks, Instant::now());
        ended.tell_stations();
    }

    fn live_is_over(&mut self, outcome: Outcome) {
        let Outcome { tools, spoken, trouble } = outcome;
        self.tools = Some(tools);
        self.set_priority(self.config.priority);
        if let Some(error) = &trouble {
            self.all_heard = false;
            let message = format!("live speech from {} ended: {}", self.input, crate::error_chain(error));
            self.events.tell(Event::Warning { message });
        }
        let Some(spoken) = spoken else {
            self.all_heard = false;
            return self.events.tell(Event::Cancelled);
        };
        if let Some(lost) = spoken.lost.some() {
            self.events.tell(Event::Warning { message: lost.about(&self.input) });
        }
        if let Some(flaw) = spoken.flaw {
            self.events.tell(Event::Warning { message: flaw.about(&self.input) });
        }
        if let Some(archive) = &self.config.archive {
            let announcer = self.config.site.as_ref().map(|site| site.announcer());
            archive.keep_live(&spoken.header, &spoken.encoded, &spoken.signature, announcer, &spoken.samples);
        }
    }
}
