//! Live speech: received block by block, and heard in step with every other station for as long as its turn lasts.
//!
//! It waits for nothing. Speech that comes before the announcer's clock is known, while another page sounds here, or while the
//! link is down is not heard, and counts as concealed; the station joins in step as soon as it can.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::intake::{Paper, Refusal};
use super::playing::MAX_AHEAD;
use super::{Session, SessionError, Turn};
use crate::clip::Hash;
use crate::diary::{DISK_PATIENCE, Note, Noted};
use crate::event::{self, Event, Outcome};
use crate::keys::KeysError;
use crate::link::{Connection, LinkError};
use crate::loudspeaker::live::{Anchor, Feed, Tap};
use crate::loudspeaker::{LoudspeakerError, PlayReport};
use crate::membership::Membership;
use crate::seal;
use crate::speaker::arbiter::Place;
use crate::wire::{
    self, ClipId, FromAnnouncer, FromStation, LiveHeader, LiveReceipt, MAX_LIVE_BLOCKS, Receipt, WireError,
};

/// The number of blocks kept until the loudspeaker is free: as much speech as may be on its way.
const BACKLOG: usize = 64;
/// The uncertainty of the announcer's clock at which playing starts at once, in µs.
const CLOCK_DOUBT_US: f64 = 1_000.0;
/// How long the disk has, before the first block, to record that the speech has begun.
const BEGUN_PATIENCE: Duration = Duration::from_millis(50);

/// What has been heard of live speech so far, kept across connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    clip: ClipId,
    played: u32,
    late: u32,
    /// From the first time that it sounded.
    start_error_us: Option<i64>,
    max_error_us: u64,
    underruns: u32,
}

/// Live speech while it arrives.
struct Speech {
    header: LiveHeader,
    /// The number of the next block, if none is lost.
    next: u32,
    /// The hash over all blocks so far; `None` unless they all came on this connection.
    hash: Option<Sha256>,
    /// The samples kept for the archive; `None` without an archive, or unless all blocks came on this connection.
    samples: Option<Vec<u8>>,
    backlog: VecDeque<(u32, Vec<u8>)>,
    playing: Option<Voice>,
    /// Whether the loudspeaker has begun, in the current or last turn.
    sounds: bool,
    /// The header with length and hash, decoded and as sent, and its signature, once the speech is over.
    end: Option<(LiveHeader, Vec<u8>, Vec<u8>)>,
}

/// Live speech that has the loudspeaker.
struct Voice {
    tap: Tap,
    /// The number of the first block that is heard.
    from: u32,
    gain: f32,
    anchor: watch::Sender<Anchor>,
}

impl Speech {
    fn new(header: LiveHeader, next: u32, keeps: bool) -> Self {
        let is_whole = next == 0;
        Self {
            header,
            next,
            hash: is_whole.then(Sha256::new),
            samples: (is_whole && keeps).then(Vec::new),
            backlog: VecDeque::new(),
            playing: None,
            sounds: false,
            end: None,
        }
    }

    fn frames(&self, from: u32, to: u32) -> u64 {
        u64::from(to.saturating_sub(from)) * u64::from(self.header.block_frames)
    }

    /// Accepts a block: the next, or a later one if some were lost.
    fn take(&mut self, clip: ClipId, number: u32, samples: Vec<u8>) -> Result<(), SessionError> {
        let is_due = clip == self.header.id && number >= self.next && self.end.is_none();
        if !is_due || number >= MAX_LIVE_BLOCKS || samples.len() > usize::from(self.header.block_frames) * 2 {
            return Err(SessionError::OutOfTurn);
        }
        if number == self.next {
            if let Some(hash) = &mut self.hash {
                hash.update(&samples);
            }
            if let Some(kept) = &mut self.samples {
                kept.extend_from_slice(&samples);
            }
        } else {
            (self.hash, self.samples) = (None, None);
        }
        self.next = number.checked_add(1).ok_or(SessionError::OutOfTurn)?;
        match &mut self.playing {
            Some(Voice { tap, from, gain, .. }) if number >= *from => {
                let first = u64::from(number - *from) * u64::from(self.header.block_frames);
                tap.push(first, &samples, *gain);
            }
            Some(_) => (),
            None => {
                if self.backlog.len() == BACKLOG {
                    self.backlog.pop_front();
                }
                self.backlog.push_back((number, samples));
            }
        }
        Ok(())
    }

    /// Accepts the end: the same header as at the start, with the length and the hash added.
    fn finish(&mut self, encoded: Vec<u8>, signature: Vec<u8>) -> Result<(), SessionError> {
        let end = LiveHeader::decode(&encoded).map_err(LinkError::from)?;
        let start = LiveHeader { frames: 0, sha256: Hash::default(), ..end.clone() };
        if start != self.header || end.blocks() < self.next || self.end.is_some() {
            return Err(SessionError::OutOfTurn);
        }
        if end.blocks() > self.next {
            (self.hash, self.samples) = (None, None);
        }
        if let Some(Voice { tap, from, .. }) = &self.playing {
            tap.end(end.frames.saturating_sub(self.frames(0, *from)));
        }
        self.end = Some((end, encoded, signature));
        Ok(())
    }

    /// Whether every block came, yet they are not what the announcer says it sent.
    fn is_falsified(&self) -> bool {
        let (Some(hash), Some((end, ..))) = (&self.hash, &self.end) else { return false };
        Hash::from(hash.clone().finalize()) != end.sha256
    }
}

/// How a turn at the loudspeaker ended.
enum Ending {
    /// It was played to the last sample.
    Played(PlayReport),
    /// It was over before the loudspeaker was free.
    Over,
    /// The loudspeaker failed.
    Failed(LoudspeakerError),
    /// Another process of this station has already heard a later page.
    HeardLater,
}

enum Next {
    Begun,
    Ended(Result<PlayReport, LoudspeakerError>),
    Overtaken,
}

impl<C: Connection> Session<'_, C> {
    /// Receives live speech to its end, and reports what was heard of it.
    pub(super) async fn live(
        &mut self,
        encoded: &[u8],
        signature: &[u8],
        next: u32,
    ) -> Result<ClipId, SessionError> {
        let header = LiveHeader::decode(encoded).map_err(LinkError::from)?;
        let id = header.id;
        if let Err(refusal) = self.judge_live(&header, encoded, signature) {
            let reason = crate::error_chain(&refusal);
            self.tell(|clip, station| Event::Rejected { clip, station, reason: reason.clone() }, id);
            self.send(FromStation::Rejected { clip: id, reason: wire::reason(&reason) }).await?;
            return Ok(id);
        }
        let mut heard = match self.memory.live.take() {
            Some(heard) if heard.clip == id => heard,
            _ => Heard { clip: id, played: 0, late: 0, start_error_us: None, max_error_us: 0, underruns: 0 },
        };
        let mut speech = Speech::new(header, next, self.config.archive.is_some());
        let result = self.hear(&mut speech, &mut heard).await;
        heard.count(&mut speech);
        match result {
            Ok(true) => self.report(&mut speech, &heard).await?,
            Ok(false) => self.memory.live = Some(heard),
            Err(SessionError::Shutdown) => {
                let outcome = if heard.played > 0 { Outcome::Interrupted } else { Outcome::Missed };
                self.fail(id, outcome, "the station is shut down by its user").await?;
                return Err(SessionError::Shutdown);
            }
            Err(error) => {
                self.memory.live = Some(heard);
                return Err(error);
            }
        }
        Ok(id)
    }

    fn judge_live(&self, header: &LiveHeader, encoded: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        if header.frames > 0 || header.sha256 != Hash::default() {
            return Err(Refusal::Header(WireError::Field("frames")));
        }
        self.judge(&Paper {
            id: header.id,
            created_unix_ms: header.created_unix_ms,
            expires_unix_ms: header.expires_unix_ms,
            priority: header.priority,
            zones: &header.zones,
            format: None,
            encoded,
            signature,
        })
    }

    /// Plays it, turn by turn, until it is over; returns false if it cannot be heard here, which has then been reported.
    async fn hear(&mut self, speech: &mut Speech, heard: &mut Heard) -> Result<bool, SessionError> {
        let id = speech.header.id;
        self.link.0.expect_blocks(true);
        let mut noting = self.note(speech.header.priority, Note::Begun(id));
        let begun_by = Instant::now() + BEGUN_PATIENCE;
        while !self.knows_clock_for(&speech.header)
            && (self.quick_pings > 0 || self.station_instant(speech.header.instant_us).is_none())
        {
            self.go_on(speech).await?;
        }
        let far = Instant::now() + MAX_AHEAD;
        if self.station_instant(speech.header.block_us(speech.next)).is_none_or(|at| at > far) {
            return Err(SessionError::OutOfTurn);
        }
        match self.attend_live(speech, noting.by(begun_by)).await? {
            Noted::Overtaken => {
                self.fail_live(id, Ending::HeardLater, heard).await?;
                return Ok(false);
            }
            Noted::Done | Noted::NotYet => (),
        }
        let arbiter = self.arbiter;
        let place = arbiter.enter(speech.header.priority);
        loop {
            if !place.is_first() {
                let interrupted = std::mem::take(&mut speech.sounds);
                self.tell(|clip, station| Event::Queued { clip, station, interrupted }, id);
                self.send(FromStation::Queued { clip: id }).await?;
            }
            match self.speak(speech, heard, &place).await? {
                Some(Ending::Over) => return Ok(true),
                Some(Ending::Played(report)) => {
                    heard.learn(&report);
                    return Ok(true);
                }
                Some(failed) => {
                    heard.count(speech);
                    self.fail_live(id, failed, heard).await?;
                    return Ok(false);
                }
                None => {
                    place.sounds(false);
                    heard.count(speech);
                }
            }
        }
    }

    /// Whether the announcer's clock is known well enough to begin; the estimate improves while the speech is heard.
    fn knows_clock_for(&self, header: &LiveHeader) -> bool {
        self.memory.clock.uncertainty_us(header.instant_us).is_some_and(|us| us <= CLOCK_DOUBT_US)
    }

    /// Takes one turn at the loudspeaker; returns `None` when another page goes first.
    async fn speak(
        &mut self,
        speech: &mut Speech,
        heard: &mut Heard,
        place: &Place<'_>,
    ) -> Result<Option<Ending>, SessionError> {
        let mut turn = pin!(place.turn());
        let mut loudspeaker = loop {
            tokio::select! {
                biased;
                loudspeaker = &mut turn => break loudspeaker,
                went_on = self.go_on(speech) => went_on?,
            }
            if speech.end.is_some() && speech.backlog.is_empty() {
                return Ok(Some(Ending::Over));
            }
            self.drop_what_is_past(speech);
        };
        self.drop_what_is_past(speech);
        let rate_hz = speech.header.rate_hz;
        let from = speech.backlog.front().map_or(speech.next, |(number, _)| *number);
        let Some(at) = self.station_instant(speech.header.block_us(from)) else {
            return Err(SessionError::OutOfTurn);
        };
        let (mut tap, feed) = Feed::open(rate_hz, from > 0);
        let gain = self.memory.volume.unwrap_or(self.config.volume).gain(speech.header.priority.floor());
        for (number, samples) in std::mem::take(&mut speech.backlog) {
            tap.push(speech.frames(from, number), &samples, gain);
        }
        if let Some((end, ..)) = &speech.end {
            tap.end(end.frames.saturating_sub(speech.frames(0, from)));
        }
        let (anchor, anchored) = watch::channel(Anchor { index: 0, at });
        speech.playing = Some(Voice { tap, from, gain, anchor });
        let label = format!("{}-{}", self.config.name, speech.header.id);
        let (started, mut has_started) = oneshot::channel();
        let on_start = || {
            // Perhaps nobody waits for it any more.
            let _ = started.send(());
        };
        let priority = speech.header.priority;
        let mut play = pin!(async {
            loudspeaker.let_through(priority);
            let played = loudspeaker.play_live((feed, rate_hz), &label, anchored, on_start).await;
            if played.is_err() {
                loudspeaker.let_through(priority);
            }
            played
        });
        let mut begun = false;
        loop {
            let next = async {
                tokio::select! {
                    // The start is reported before the end.
                    biased;
                    Ok(()) = &mut has_started, if !begun => Next::Begun,
                    result = &mut play => Next::Ended(result),
                    () = place.overtaken() => Next::Overtaken,
                }
            };
            match self.attend_live(speech, next).await? {
                Next::Begun => {
                    begun = true;
                    speech.sounds = true;
                    place.sounds(true);
                    let id = speech.header.id;
                    self.tell(|clip, station| Event::Playing { clip, station }, id);
                    if heard.start_error_us.is_none() {
                        self.send(FromStation::Playing { clip: id }).await?;
                    }
                }
                Next::Ended(Ok(report)) => return Ok(Some(Ending::Played(report))),
                Next::Ended(Err(error)) => return Ok(Some(Ending::Failed(error))),
                Next::Overtaken => return Ok(None),
            }
        }
    }

    /// Drops blocks that can no longer be heard at their time.
    fn drop_what_is_past(&self, speech: &mut Speech) {
        let now = Instant::now();
        let is_past = |number: u32| {
            let at = self.station_instant(speech.header.block_us(number));
            at.is_none_or(|at| at < now)
        };
        while speech.backlog.front().is_some_and(|(number, _)| is_past(*number)) {
            speech.backlog.pop_front();
        }
    }

    /// Receives blocks while waiting for something else.
    async fn attend_live<T>(
        &mut self,
        speech: &mut Speech,
        awaited: impl Future<Output = T>,
    ) -> Result<T, SessionError> {
        let mut awaited = pin!(awaited);
        loop {
            tokio::select! {
                biased;
                result = &mut awaited => return Ok(result),
                went_on = self.go_on(speech) => went_on?,
            }
        }
    }

    /// Handles the next thing that the link brings. Cancelling loses nothing.
    async fn go_on(&mut self, speech: &mut Speech) -> Result<(), SessionError> {
        let turn = self.turn().await;
        match self.act(turn).await? {
            None => (),
            Some(Turn::Shutdown) => return Err(SessionError::Shutdown),
            Some(Turn::Message(FromAnnouncer::LiveBlock { clip, number, samples })) => {
                speech.take(clip, number, samples)?;
                // The clocks drift apart while somebody speaks.
                if let Some(Voice { from, anchor, .. }) = &speech.playing
                    && let Some(at) = self.station_instant(speech.header.block_us(number))
                {
                    let index = speech.frames(*from, number);
                    anchor.send_replace(Anchor { index, at });
                }
            }
            Some(Turn::Message(FromAnnouncer::LiveEnd { header, signature })) => {
                let announcer = self.memory.membership.as_ref().and_then(Membership::announcer);
                if let Some(announcer) = announcer {
                    let id = crate::keys::AnnouncerId::from_bytes(announcer);
                    let is_genuine = <&[u8; 64]>::try_from(signature.as_slice())
                        .is_ok_and(|signature| seal::verify_live(&id, &header, signature));
                    if !is_genuine {
                        return Err(SessionError::Falsified);
                    }
                }
                speech.finish(header, signature)?;
            }
            Some(_) => return Err(SessionError::OutOfTurn),
        }
        Ok(())
    }

    async fn report(&mut self, speech: &mut Speech, heard: &Heard) -> Result<(), SessionError> {
        let Some((end, encoded, signature)) = &speech.end else { return Ok(()) };
        let (id, blocks) = (end.id, end.blocks());
        if speech.is_falsified() {
            let outcome = if heard.played > 0 { Outcome::Interrupted } else { Outcome::Missed };
            return self.fail(id, outcome, "what came is not what the announcer says it sent").await;
        }
        if let (Some(archive), Some(samples)) = (&self.config.archive, &speech.samples) {
            let announcer = self.memory.membership.as_ref().and_then(Membership::announcer);
            archive.keep_live(end, encoded, signature, announcer, samples);
        }
        let uncertainty_us =
            self.memory.clock.uncertainty_us(end.block_us(blocks)).map_or(u32::MAX, |us| us.ceil() as u32);
        let played = heard.played.min(blocks);
        let receipt = LiveReceipt {
            clip: id,
            played,
            concealed: blocks - played,
            late: heard.late.min(blocks - played),
            start_error_us: heard.start_error_us.unwrap_or(0),
            max_error_us: heard.max_error_us,
            underruns: heard.underruns,
            uncertainty_us,
        };
        let note = Receipt {
            clip: id,
            frames: u64::from(played) * u64::from(end.block_frames),
            start_error_us: receipt.start_error_us,
            max_error_us: receipt.max_error_us,
            underruns: receipt.underruns,
            uncertainty_us,
        };
        self.memory.remember(note);
        let mut finished = self.note(end.priority, Note::Finished(note));
        finished.by(Instant::now() + DISK_PATIENCE).await;
        self.tell_and_archive(event::live_played(&receipt, self.config.name.clone()));
        self.send(FromStation::LivePlayed(receipt)).await
    }

    /// Reports to the announcer why the speech cannot be heard here any more.
    async fn fail_live(&mut self, id: ClipId, ending: Ending, heard: &Heard) -> Result<(), SessionError> {
        let outcome = if heard.played > 0 { Outcome::Interrupted } else { Outcome::Missed };
        match ending {
            Ending::Failed(error @ LoudspeakerError::Device(_)) => self.fault(id, &error).await,
            Ending::Failed(error) => self.fail(id, outcome, &crate::error_chain(&error)).await,
            _ => {
                if let Some(member) = &mut self.memory.membership {
                    member.was_overtaken();
                }
                self.fail(id, outcome, &crate::error_chain(&KeysError::HeardLater)).await
            }
        }
    }
}

impl Heard {
    /// Adds what was heard in the turn that has ended.
    fn count(&mut self, speech: &mut Speech) {
        if let Some(Voice { tap, .. }) = speech.playing.take() {
            let (played, late) = tap.counts();
            self.played += played;
            self.late += late;
        }
    }

    fn learn(&mut self, report: &PlayReport) {
        self.start_error_us.get_or_insert(report.start_error_us);
        self.max_error_us = self.max_error_us.max(report.max_error_us);
        self.underruns += report.underruns;
    }
}
