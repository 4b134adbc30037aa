//! From the verified clip to the receipt.

use std::time::Duration;

use tokio::time::Instant;

use super::turns::{Ending, Turns};
use super::{Session, SessionError};
use crate::clip::Clip;
use crate::diary::{DISK_PATIENCE, Note, Noting};
use crate::event::{self, Event, Outcome};
use crate::keys::KeysError;
use crate::link::Connection;
use crate::loudspeaker::LoudspeakerError;
use crate::priority::Priority;
use crate::wire::{self, ClipHeader, ClipId, FromAnnouncer, FromStation, Receipt};

/// How long to wait for the instant once the clip is verified. The other stations may take as long as a slow transfer.
const INSTANT_DEADLINE: Duration = Duration::from_secs(30);
/// The least time that the disk has, before the first sample, to record that a clip has begun. It has until the station must
/// start for the instant, if that is later.
const BEGUN_PATIENCE: Duration = Duration::from_millis(50);
/// The longest that a clip may live; see `announce --keep`.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);
/// How far ahead an instant can be: a previous page of the greatest length, and a transfer.
pub(super) const MAX_AHEAD: Duration = Duration::from_secs(300);

impl<C: Connection> Session<'_, C> {
    /// Reports that the clip is verified, waits for the instant, plays, and sends the receipt.
    pub(super) async fn play(&mut self, header: &ClipHeader, clip: &Clip) -> Result<(), SessionError> {
        let id = header.id;
        let way = Duration::from_micros(self.memory.clock.round_trip_us().unwrap_or_default() as u64);
        let early = Duration::from_micros(self.config.delay_us.min(0).unsigned_abs());
        let lead = self.arbiter.lead() + way + early;
        let lead_us = u32::try_from(lead.as_micros()).unwrap_or(u32::MAX);
        self.send(FromStation::Verified { clip: id, lead_us }).await?;
        self.tell(|clip, station| Event::Verified { clip, station }, id);
        // Recorded on disk before the first sample, while the other stations are still verifying.
        let (noting, asked) = (self.note(header.priority, Note::Begun(id)), Instant::now());
        let mut behind = None;
        let instant_us = loop {
            match self.next_message(Some(INSTANT_DEADLINE)).await? {
                FromAnnouncer::PlayAt { clip, instant_us } if clip == id => break instant_us,
                FromAnnouncer::Behind { clip, behind_us } if clip == id && behind.is_none() => {
                    behind = Some(behind_us);
                }
                _ => return Err(SessionError::OutOfTurn),
            }
        };
        let now = Instant::now();
        let at = self.station_instant(instant_us).unwrap_or(now + lead);
        let uncertainty_us =
            self.memory.clock.uncertainty_us(instant_us).map_or(u32::MAX, |us| us.ceil() as u32);
        if at > now + MAX_AHEAD {
            return self.fail(id, Outcome::Missed, "the instant to play it is out of reach").await;
        }
        if self.is_expired(header, at) {
            return self.fail(id, Outcome::Missed, "it expires before it could be played").await;
        }
        let until = at.checked_sub(lead).unwrap_or(asked).max(asked + BEGUN_PATIENCE);
        let mut turns = Turns { again: self.memory.begun.contains(&id), ..Turns::default() };
        let window = (at, self.expiry(header));
        let ending = self.take_turns(header, clip, window, (noting, until), &mut turns).await;
        let begun = turns.begun;
        let cut_short = if begun || turns.again { Outcome::Interrupted } else { Outcome::Missed };
        let failure = match ending {
            Ending::Yielded => {
                self.tell(|clip, station| Event::Queued { clip, station, interrupted: begun }, id);
                return Err(SessionError::Yielded);
            }
            Ending::Shutdown => {
                self.fail(id, cut_short, "the station is shut down by its user").await?;
                return Err(SessionError::Shutdown);
            }
            Ending::HeardLater => {
                if let Some(member) = &mut self.memory.membership {
                    member.was_overtaken();
                }
                crate::error_chain(&KeysError::HeardLater)
            }
            Ending::Expired => "other pages went first until it expired".to_owned(),
            Ending::Failed(error @ LoudspeakerError::Device(_)) => {
                return match turns.link_error {
                    Some(link_error) => Err(link_error),
                    None => self.fault(id, &error).await,
                };
            }
            Ending::Failed(error) => crate::error_chain(&error),
            Ending::Played(report, _place) => {
                let receipt = Receipt {
                    clip: id,
                    frames: report.frames,
                    start_error_us: report.start_error_us,
                    max_error_us: report.max_error_us,
                    underruns: report.underruns,
                    uncertainty_us,
                };
                self.memory.remember(receipt);
                let mut finished = self.note(header.priority, Note::Finished(receipt));
                let until = Instant::now() + DISK_PATIENCE;
                // Nothing is left to break off, but the station comes back at once for a more urgent page; on shutdown it sends
                // the receipt first.
                while let Err(Ending::Yielded) = self.attend(finished.by(until), &mut turns).await {
                    turns.link_error = Some(SessionError::Yielded);
                }
                let late_us = receipt.late_us(Duration::from_micros(behind.unwrap_or_default()));
                let late = Duration::from_micros(late_us.max(0) as u64);
                self.tell_and_archive(Event::Played {
                    clip: id.to_string(),
                    station: self.config.name.clone(),
                    outcome: Outcome::played(late),
                    again: turns.again,
                    frames: receipt.frames,
                    late_ms: late.as_millis() as u64,
                    start_error_us: receipt.start_error_us,
                    max_error_us: receipt.max_error_us,
                    underruns: receipt.underruns,
                    uncertainty_us,
                    off_us: event::worst_off_us(late_us, receipt.max_error_us),
                });
                return match turns.link_error {
                    Some(error) => Err(error),
                    None => self.send(FromStation::Played(receipt)).await,
                };
            }
        };
        match turns.link_error {
            Some(link_error) => Err(link_error),
            None => self.fail(id, cut_short, &failure).await,
        }
    }

    /// Converts an instant of the announcer's clock to a local one, moved by `--delay`; `None` before the first exchange of
    /// times.
    pub(super) fn station_instant(&self, instant_us: u64) -> Option<Instant> {
        let local_us = self.memory.clock.to_station_us(instant_us)? + self.config.delay_us as f64;
        // Far beyond any possible wait, one instant is as good as a later one.
        let local_us = local_us.clamp(0.0, 1e15);
        Some(self.memory.base + Duration::from_nanos((local_us * 1_000.0) as u64))
    }

    /// The loudspeaker is lost: there is no outcome yet, because the announcer sends the clip again when the loudspeaker works,
    /// if the clip is still fresh.
    pub(super) async fn fault(&mut self, id: ClipId, error: &LoudspeakerError) -> Result<(), SessionError> {
        let reason = crate::error_chain(error);
        let message = format!("{id} was not played to its end, and is when there is time left: {reason}");
        self.events.tell(Event::Warning { message });
        // Reported even if it works again by now; the recovery is reported on the next connection.
        let fault = Some(wire::reason(self.memory.health.fault().unwrap_or_else(|| reason.clone())));
        if self.memory.told_fault != fault {
            self.memory.told_fault.clone_from(&fault);
            self.send(FromStation::Health { fault }).await?;
        }
        self.send(FromStation::Failed { clip: id, reason: wire::reason(&reason) }).await
    }

    pub(super) async fn fail(
        &mut self,
        id: ClipId,
        outcome: Outcome,
        reason: &str,
    ) -> Result<(), SessionError> {
        self.tell(|clip, station| Event::Failed { clip, station, outcome, reason: reason.to_owned() }, id);
        self.send(FromStation::Failed { clip: id, reason: wire::reason(reason) }).await
    }

    /// When a clip becomes too old. On an open link the exact time is not known, only that it is no later than this.
    fn expiry(&self, header: &ClipHeader) -> Instant {
        let now = Instant::now();
        let admission = self.memory.membership.as_ref().and_then(|member| member.admission(header.priority));
        let since_unix_ms = admission.map_or(header.created_unix_ms, |it| it.time.latest_unix_ms(now));
        let left = Duration::from_millis(header.expires_unix_ms.saturating_sub(since_unix_ms));
        now + left.min(LONGEST_LIFE)
    }

    /// Whether a clip is too old by the time it would begin, according to the announcer's clock.
    pub(super) fn is_expired(&self, header: &ClipHeader, at: Instant) -> bool {
        let admission = self.memory.membership.as_ref().and_then(|member| member.admission(header.priority));
        let late = Instant::now().max(at);
        admission.is_some_and(|it| it.time.latest_unix_ms(late) >= header.expires_unix_ms)
    }

    pub(super) fn note(&mut self, priority: Priority, note: Note) -> Noting {
        let events = self.events;
        let member = self.memory.membership.as_mut();
        member.map_or_else(Noting::nowhere, |member| member.note(priority, note, events))
    }
}
