//! From the verified clip to the receipt.

use std::time::Duration;

use tokio::time::Instant;

use super::{Session, SessionError, Turn};
use crate::clip::Clip;
use crate::diary::{DISK_PATIENCE, Note, Noted, Noting};
use crate::event::{self, Event, Outcome};
use crate::keys::KeysError;
use crate::link::Connection;
use crate::loudspeaker::{Loudspeaker, LoudspeakerError};
use crate::wire::{self, ClipHeader, ClipId, FromAnnouncer, FromStation, Receipt};

/// How long to wait for the instant, once verified. The others may take as long as a slow transfer.
const INSTANT_DEADLINE: Duration = Duration::from_secs(30);
/// How long the disk has at least, before the first sample, to take that a clip is begun. It has until the instant.
const BEGUN_PATIENCE: Duration = Duration::from_millis(50);
/// How long it has to take that a clip sounds, before that is told.
const SOUNDS_PATIENCE: Duration = Duration::from_millis(50);
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
        let (mut begun, asked) = (self.note(Note::Begun(id)), Instant::now());
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
        let (shutdown, mut sounds) = (self.shutdown, None);
        let result = {
            let (started, mut has_started) = tokio::sync::oneshot::channel();
            // Some pages may come to have a floor: whoever is in danger must hear them.
            let gain = self.memory.volume.unwrap_or(self.config.volume).gain(None);
            let play = async {
                let until = at.checked_sub(lead).unwrap_or(asked).max(asked + BEGUN_PATIENCE);
                if begun.by(until).await == Noted::Overtaken {
                    return Ok(None);
                }
                let on_start = || {
                    // Nobody may wait for it any more.
                    let _ = started.send(());
                };
                loudspeaker.play(clip, gain, &label, at, on_start).await.map(Some)
            };
            tokio::pin!(play);
            loop {
                tokio::select! {
                    // That it began is told before that it ended.
                    biased;
                    Ok(()) = &mut has_started, if !announced => {
                        announced = true;
                        self.memory.begun = Some(id);
                        sounds = Some((self.note(Note::Sounds(id)), Instant::now() + SOUNDS_PATIENCE));
                    }
                    () = taken(&mut sounds) => {
                        sounds = None;
                        link_error = self.tell_playing(id, link_error).await;
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
        if sounds.is_some() {
            link_error = self.tell_playing(id, link_error).await;
        }
        let cut_short = if announced { Outcome::Interrupted } else { Outcome::Missed };
        if shut_down {
            self.fail(id, cut_short, "the station is shut down by its user").await?;
            return Err(SessionError::Shutdown);
        }
        match result {
            Some(Ok(None)) => {
                if let Some(member) = &mut self.memory.membership {
                    member.was_overtaken();
                }
                let reason = crate::error_chain(&KeysError::HeardLater);
                link_error.map_or(Ok(()), Err)?;
                self.fail(id, cut_short, &reason).await
            }
            Some(Ok(Some(report))) => {
                let receipt = Receipt {
                    clip: id,
                    frames: report.frames,
                    start_error_us: report.start_error_us,
                    max_error_us: report.max_error_us,
                    underruns: report.underruns,
                    uncertainty_us,
                };
                self.memory.remember(receipt);
                let finished = self.note(Note::Finished(receipt));
                let link_error = self.written(finished, link_error).await;
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
                None if matches!(error, LoudspeakerError::Device(_)) => self.fault(id, &error).await,
                None => self.fail(id, cut_short, &crate::error_chain(&error)).await,
            },
            None => Ok(()),
        }
    }

    /// The loudspeaker is lost: no outcome yet, as the announcer sends the clip again when it works, if it is fresh.
    async fn fault(&mut self, id: ClipId, error: &LoudspeakerError) -> Result<(), SessionError> {
        let reason = crate::error_chain(error);
        let message = format!("{id} was not played to its end, and is when there is time left: {reason}");
        self.events.tell(Event::Warning { message });
        // Told also if it is well again by now, which is told on the next connection.
        let fault = Some(wire::reason(self.memory.health.fault().unwrap_or_else(|| reason.clone())));
        if self.memory.told_fault != fault {
            self.memory.told_fault.clone_from(&fault);
            self.send(FromStation::Health { fault }).await?;
        }
        self.send(FromStation::Failed { clip: id, reason: wire::reason(&reason) }).await
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

    async fn tell_playing(&mut self, id: ClipId, link_error: Option<SessionError>) -> Option<SessionError> {
        self.tell(|clip, station| Event::Playing { clip, station }, id);
        match link_error {
            None => self.send(FromStation::Playing { clip: id }).await.err(),
            error => error,
        }
    }

    fn note(&mut self, note: Note) -> Noting {
        let events = self.events;
        self.memory.membership.as_mut().map_or_else(Noting::nowhere, |member| member.note(note, events))
    }

    /// Waits for the disk, which has a while, and answers the announcer meanwhile, if it is there. Gives what became of
    /// the link.
    async fn written(
        &mut self,
        mut noting: Noting,
        mut link_error: Option<SessionError>,
    ) -> Option<SessionError> {
        let noted = noting.by(Instant::now() + DISK_PATIENCE);
        tokio::pin!(noted);
        loop {
            tokio::select! {
                biased;
                _ = &mut noted => return link_error,
                turn = self.turn(), if link_error.is_none() => match self.act(turn).await {
                    Ok(None) => (),
                    // The receipt goes first.
                    Ok(Some(Turn::Shutdown)) => return None,
                    Ok(Some(_)) => link_error = Some(SessionError::OutOfTurn),
                    Err(error) => link_error = Some(error),
                }
            }
        }
    }
}

/// Waits for the disk to take that a clip sounds; for ever where none does.
async fn taken(sounds: &mut Option<(Noting, Instant)>) {
    match sounds {
        Some((noting, until)) => {
            noting.by(*until).await;
        }
        None => std::future::pending().await,
    }
}
