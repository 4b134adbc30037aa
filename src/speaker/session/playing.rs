//! From the verified clip to the receipt.

use std::time::Duration;

use tokio::time::Instant;

use super::{Session, SessionError, Turn};
use crate::clip::Clip;
use crate::event::{self, Event, Outcome};
use crate::keys::{KeysError, Mark};
use crate::link::Connection;
use crate::loudspeaker::Loudspeaker;
use crate::wire::{self, ClipHeader, ClipId, FromAnnouncer, FromStation, Receipt};

/// How long to wait for the instant, once verified. The others may take as long as a slow transfer.
const INSTANT_DEADLINE: Duration = Duration::from_secs(30);
/// The furthest instant: an earlier page of the greatest length, and a transfer.
const MAX_AHEAD: Duration = Duration::from_secs(300);

impl<C: Connection> Session<'_, C> {
    /// Says that the clip is here, waits for the instant, plays, and reports.
    pub(super) async fn play(
        &mut self,
        header: &ClipHeader,
        clip: &Clip,
        loudspeaker: &mut Loudspeaker,
    ) -> Result<(), SessionError> {
        let id = header.id;
        let again = self.memory.begun == Some(id);
        let way = Duration::from_micros(self.memory.clock.round_trip_us().unwrap_or_default() as u64);
        let early = Duration::from_micros(self.config.delay_us.min(0).unsigned_abs());
        let lead = loudspeaker.lead() + way + early;
        let lead_us = u32::try_from(lead.as_micros()).unwrap_or(u32::MAX);
        self.send(FromStation::Verified { clip: id, lead_us }).await?;
        self.tell(|clip, station| Event::Verified { clip, station }, id);
        // On the disk before the first sample, and while the others are still verifying.
        if let Err(error) = self.note_begun(id) {
            return self.fail(id, Outcome::Missed, &crate::error_chain(&error)).await;
        }
        let instant_us = match self.next_message(Some(INSTANT_DEADLINE)).await? {
            FromAnnouncer::PlayAt { clip, instant_us } if clip == id => instant_us,
            _ => return Err(SessionError::OutOfTurn),
        };
        let now = Instant::now();
        let at = match self.memory.clock.to_station_us(instant_us) {
            Some(local_us) => {
                let local_us = local_us + self.config.delay_us as f64;
                self.memory.base + Duration::from_nanos((local_us.max(0.0) * 1_000.0) as u64)
            }
            None => now + lead,
        };
        let uncertainty_us =
            self.memory.clock.uncertainty_us(instant_us).map_or(u32::MAX, |us| us.ceil() as u32);
        if at > now + MAX_AHEAD {
            return self.fail(id, Outcome::Missed, "the instant to play it is out of reach").await;
        }
        if self.is_expired(header, at) {
            return self.fail(id, Outcome::Missed, "it expires before it could be played").await;
        }
        let label = format!("{}-{id}", self.config.name);
        let (mut link_error, mut shut_down, mut announced) = (None, false, false);
        let shutdown = self.shutdown;
        let result = {
            let (started, mut has_started) = tokio::sync::oneshot::channel();
            // Some pages may come to have a floor: whoever is in danger must hear them.
            let gain = self.memory.volume.unwrap_or(self.config.volume).gain(None);
            let play = loudspeaker.play(clip, gain, &label, at, || {
                // Nobody may wait for it any more.
                let _ = started.send(());
            });
            tokio::pin!(play);
            loop {
                tokio::select! {
                    // That it began is told before that it ended.
                    biased;
                    Ok(()) = &mut has_started, if !announced => {
                        announced = true;
                        self.note_sounding(id);
                        self.tell(|clip, station| Event::Playing { clip, station }, id);
                        if link_error.is_none() {
                            link_error = self.send(FromStation::Playing { clip: id }).await.err();
                        }
                    }
                    result = &mut play => break Some(result),
                    turn = self.turn(), if link_error.is_none() => match self.act(turn).await {
                        // A page that has begun is played to its end, whatever becomes of the link.
                        Ok(None) => (),
                        Ok(Some(Turn::Shutdown)) | Err(SessionError::Shutdown) => {
                            shut_down = true;
                            break None;
                        }
                        Ok(Some(_)) => link_error = Some(SessionError::OutOfTurn),
                        Err(error) => link_error = Some(error),
                    },
                    () = shutdown.cancelled(), if link_error.is_some() => {
                        shut_down = true;
                        break None;
                    }
                }
            }
        };
        let cut_short = if announced { Outcome::Interrupted } else { Outcome::Missed };
        if shut_down {
            self.fail(id, cut_short, "the station is shut down by its user").await?;
            return Err(SessionError::Shutdown);
        }
        match result {
            Some(Ok(report)) => {
                let receipt = Receipt {
                    clip: id,
                    frames: report.frames,
                    start_error_us: report.start_error_us,
                    max_error_us: report.max_error_us,
                    underruns: report.underruns,
                    uncertainty_us,
                };
                self.note_finished(receipt);
                self.tell_and_archive(Event::Played {
                    clip: id.to_string(),
                    station: self.config.name.clone(),
                    outcome: Outcome::played(Duration::from_micros(receipt.start_error_us.max(0) as u64)),
                    again,
                    frames: receipt.frames,
                    late_ms: receipt.start_error_us.max(0) as u64 / 1_000,
                    start_error_us: receipt.start_error_us,
                    max_error_us: receipt.max_error_us,
                    underruns: receipt.underruns,
                    uncertainty_us,
                    off_us: event::worst_off_us(receipt.start_error_us, receipt.max_error_us),
                });
                match link_error {
                    Some(error) => Err(error),
                    None => self.send(FromStation::Played(receipt)).await,
                }
            }
            Some(Err(error)) => match link_error {
                Some(link_error) => Err(link_error),
                None => self.fail(id, cut_short, &crate::error_chain(&error)).await,
            },
            None => Ok(()),
        }
    }

    async fn fail(&mut self, id: ClipId, outcome: Outcome, reason: &str) -> Result<(), SessionError> {
        self.tell(|clip, station| Event::Failed { clip, station, outcome, reason: reason.to_owned() }, id);
        self.send(FromStation::Failed { clip: id, reason: wire::reason(reason) }).await
    }

    /// Whether a clip is too old by the time it would begin, by the announcer's clock.
    fn is_expired(&self, header: &ClipHeader, at: Instant) -> bool {
        let admission = self.memory.membership.as_ref().and_then(|member| member.admission());
        let late = Instant::now().max(at);
        admission.is_some_and(|it| it.time.latest_unix_ms(late) >= header.expires_unix_ms)
    }

    /// Writes down that a clip is about to be played, so that no later run takes an earlier one.
    ///
    /// # Errors
    /// [`KeysError::HeardLater`]: another process of this station has gone past the clip.
    fn note_begun(&mut self, id: ClipId) -> Result<(), KeysError> {
        let mark = Mark { epoch: id.epoch, sequence: id.sequence, finished: false };
        match self.memory.membership.as_mut().map(|member| member.advance(mark)) {
            Some(Err(error @ KeysError::HeardLater)) => Err(error),
            noted => {
                self.warn_unwritten(noted);
                Ok(())
            }
        }
    }

    /// Writes down that a clip sounds, so that the announcer learns of it should it be cut off.
    fn note_sounding(&mut self, id: ClipId) {
        self.memory.begun = Some(id);
        let noted = self.memory.membership.as_mut().map(|member| member.note_sounding(id));
        self.warn_unwritten(noted.filter(|noted| !matches!(noted, Err(KeysError::HeardLater))));
    }

    /// Writes down that a clip was played to its end, so that no later run plays it again, and so that the
    /// receipt outlives this run.
    fn note_finished(&mut self, receipt: Receipt) {
        self.memory.remember(receipt);
        // It was played; that another process went on meanwhile changes nothing about that.
        let noted = self.memory.membership.as_mut().map(|member| member.finish(receipt));
        self.warn_unwritten(noted.filter(|noted| !matches!(noted, Err(KeysError::HeardLater))));
    }

    /// A disk that cannot be written does not silence the station: this run remembers by itself, and it is told.
    fn warn_unwritten(&self, noted: Option<Result<(), KeysError>>) {
        if let Some(Err(error)) = noted {
            let message = format!("cannot write down what was heard: {}", crate::error_chain(&error));
            self.events.tell(Event::Warning { message });
        }
    }
}
