//! One connection of a station: its Hello, at most one clip or live speech, and the receipt.

mod intake;
mod live;
mod playing;
mod turns;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::arbiter::Arbiter;
use super::talkback::Welcome;
use super::{Config, End, clock_us};
use crate::clip::MAX_WAV_BYTES;
use crate::clock::{Clock, Exchange};
use crate::devices::HealthWatch;
use crate::event::{Event, Events};
use crate::keys::{KeysError, NoisePublicKey};
use crate::link::{Connection, Frame, LinkError, PING_INTERVAL, StationLink};
use crate::membership::{Membership, MembershipError};
use crate::seal::{ASK_AGAIN_AFTER, TimeNonce};
use crate::volume::Volume;
use crate::wire::{self, ClipHeader, ClipId, FromAnnouncer, FromStation, Receipt, WireError};
use intake::{Refusal, Sent};
use zeroize::Zeroizing;

/// Pings in quick succession when the announcer's clock is new, to learn it at once, …
const FIRST_PINGS: u32 = 8;
const FIRST_PING_INTERVAL: Duration = Duration::from_millis(25);
/// … and some more after them, to measure it well over a network with jitter.
const NEXT_PINGS: u32 = 16;
const NEXT_PING_INTERVAL: Duration = Duration::from_millis(100);
/// The shortest time between two reports that the announcer wants another volume.
const VOLUME_INTERVAL: Duration = Duration::from_secs(1);
/// The time that every transfer may take, however short the clip.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(10);
/// The lowest rate after that, in bytes per second.
const TRANSFER_MIN_RATE: u64 = 8 * 1024;
/// How long to wait for the announcer to write an outcome down, counted from the last block of a refused clip.
const NOTE_DEADLINE: Duration = Duration::from_secs(3);
/// The number of clips remembered, so that none is played twice.
const REMEMBERED_CLIPS: usize = 64;
/// The number of cut-off clips remembered, so that playing one of them again is marked.
const REMEMBERED_CUT_OFF: usize = 4;

/// What a station keeps from one connection to the next.
pub(super) struct Memory {
    base: Instant,
    instance: u64,
    clock: Clock,
    /// The announcer clock that `clock` has measured.
    clock_of: Option<u64>,
    played: VecDeque<Receipt>,
    /// The clips that began to sound last and have not ended: there may be several, as an emergency can cut another off.
    begun: Vec<ClipId>,
    /// Whether the loudspeaker works.
    health: HealthWatch,
    /// The fault last reported to the announcer.
    told_fault: Option<String>,
    /// The volume that the announcer wants, if it sets one.
    volume: Option<Volume>,
    /// What was heard of live speech before the link broke.
    live: Option<live::Heard>,
    /// The volume last reported to the operator.
    told_volume: Option<Volume>,
    volume_told_at: Option<Instant>,
    /// Publishes how the announcer welcomed the station, for talkback.
    pub welcome: watch::Sender<Option<Welcome>>,
    /// `None` for an open link.
    pub membership: Option<Membership>,
}

impl Memory {
    pub fn new(instance: u64, membership: Option<Membership>, health: HealthWatch) -> Self {
        Self {
            base: Instant::now(),
            instance,
            clock: Clock::default(),
            clock_of: None,
            health,
            told_fault: None,
            volume: None,
            live: None,
            told_volume: None,
            volume_told_at: None,
            welcome: watch::Sender::new(None),
            // A receipt that this station's last run wrote down and perhaps could not deliver.
            played: membership.as_ref().and_then(Membership::last_receipt).into_iter().collect(),
            begun: membership.as_ref().and_then(Membership::last_cut_off).into_iter().collect(),
            membership,
        }
    }

    fn remember(&mut self, receipt: Receipt) {
        if self.played.len() == REMEMBERED_CLIPS {
            self.played.pop_front();
        }
        self.played.push_back(receipt);
        self.begun.retain(|clip| *clip != receipt.clip);
    }

    fn tell_welcome(&self) {
        let welcome = match &self.membership {
            None => Some(Welcome::Open),
            Some(member) => member.credentials().map(Welcome::Member),
        };
        self.welcome.send_replace(welcome);
    }

    fn note_begun(&mut self, clip: ClipId) {
        self.begun.retain(|begun| *begun != clip);
        if self.begun.len() == REMEMBERED_CUT_OFF {
            self.begun.remove(0);
        }
        self.begun.push(clip);
    }
}

/// A nonce, and when it was sent.
type Question = (TimeNonce, Instant);

/// What happens next on the connection.
enum Turn {
    PingDue,
    HealthChanged,
    Message(FromAnnouncer),
    Block(BytesMut),
    Closed,
    Shutdown,
}

/// Why a session ends before its clip is done.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the announcer closed the connection: it is leaving, or has shut this station out")]
    Closed,
    #[error("the announcer refused this station: {0}")]
    Refused(String),
    #[error(
        "the announcer closed the connection without a word: this station was removed there, or its \
         invite has expired or was replaced; `bullhorn invite` there prints a good one"
    )]
    TurnedAway,
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("the announcer spoke out of turn")]
    OutOfTurn,
    #[error("the end of live speech is not its announcer's")]
    Falsified,
    #[error("the announcer did not go on for {} s", .0.as_secs())]
    Overdue(Duration),
    #[error("the announcer has something more urgent")]
    Yielded,
    #[error("the station is shut down by its user")]
    Shutdown,
}

fn transfer_deadline(wav_bytes: u32) -> Duration {
    TRANSFER_DEADLINE + Duration::from_secs(u64::from(wav_bytes) / TRANSFER_MIN_RATE)
}

pub(super) struct Session<'a, C: Connection> {
    link: StationLink<C>,
    /// The key that the announcer has proven to hold; `None` on an open link.
    announcer: Option<NoisePublicKey>,
    config: &'a Config,
    arbiter: &'a Arbiter,
    memory: &'a mut Memory,
    events: &'a Events,
    shutdown: &'a CancellationToken,
    next_ping: Instant,
    quick_pings: u32,
    /// When the station last asked for the announcer's time.
    time_asked: Instant,
    question: Option<Question>,
}

impl<'a, C: Connection> Session<'a, C> {
    pub fn new(
        (link, announcer): (StationLink<C>, Option<NoisePublicKey>),
        (config, arbiter): (&'a Config, &'a Arbiter),
        memory: &'a mut Memory,
        events: &'a Events,
        shutdown: &'a CancellationToken,
    ) -> Self {
        Self {
            link,
            announcer,
            config,
            arbiter,
            memory,
            events,
            shutdown,
            next_ping: Instant::now(),
            quick_pings: 0,
            time_asked: Instant::now(),
            question: None,
        }
    }

    /// Runs from Hello to the end of the connection; `joined` is called when the announcer has sent Welcome.
    pub async fn run(mut self, joined: impl FnOnce()) -> End {
        match self.serve(joined).await {
            Ok(()) | Err(SessionError::Yielded) => End::Served,
            Err(SessionError::Shutdown) => {
                // The announcer gets a goodbye if possible; if not, it will notice.
                let _ = self.link.1.send(&FromStation::Goodbye).await;
                let _ = self.link.1.close().await;
                End::Shutdown
            }
            Err(error @ (SessionError::Refused(_) | SessionError::TurnedAway)) => {
                End::Refused(crate::error_chain(&error))
            }
            Err(error) => End::Lost(crate::error_chain(&error)),
        }
    }

    async fn serve(&mut self, joined: impl FnOnce()) -> Result<(), SessionError> {
        self.join().await?;
        joined();
        self.tell_health().await?;
        let (header, signature, key) = match self.next_message(None).await? {
            FromAnnouncer::Clip { header, signature, key } => (header, signature, key),
            FromAnnouncer::LiveStart { header, signature, next } => {
                let id = self.live(&header, &signature, next).await?;
                return self.noted(id).await;
            }
            _ => return Err(SessionError::OutOfTurn),
        };
        let sent = Sent { header: &header, signature: &signature, key: Zeroizing::new(key) };
        let (id, received) = match ClipHeader::decode(&header) {
            Ok(parsed) => (parsed.id, self.receive(&parsed, &sent).await?.map(|clip| (parsed, clip))),
            Err(error) => {
                // A header that does not even name its clip cannot be answered.
                let id = ClipHeader::id_of(&header).ok_or(LinkError::Wire(error.clone()))?;
                (id, Err(Refusal::Header(error)))
            }
        };
        match received {
            Err(refusal) => {
                let reason = crate::error_chain(&refusal);
                self.tell(|clip, station| Event::Rejected { clip, station, reason: reason.clone() }, id);
                self.send(FromStation::Rejected { clip: id, reason: wire::reason(&reason) }).await?;
            }
            Ok((header, clip)) => {
                if let Some(archive) = &self.config.archive {
                    let announcer = self.memory.membership.as_ref().and_then(Membership::announcer);
                    archive.keep(&header, sent.header, sent.signature, announcer, &clip);
                }
                self.play(&header, &clip).await?;
            }
        }
        self.noted(id).await
    }

    /// Waits until the announcer has written the outcome down. The rest of a refused clip might still be on its way: it is
    /// skipped, for as long as a whole clip may take.
    async fn noted(&mut self, id: ClipId) -> Result<(), SessionError> {
        self.link.0.expect_blocks(true);
        let last = Instant::now() + transfer_deadline(MAX_WAV_BYTES as u32);
        let mut until = Instant::now() + NOTE_DEADLINE;
        loop {
            match self.turn_until(until, NOTE_DEADLINE).await? {
                Turn::Message(FromAnnouncer::Noted { clip }) if clip == id => return Ok(()),
                Turn::Message(FromAnnouncer::Behind { .. } | FromAnnouncer::PlayAt { .. }) => (),
                Turn::Message(FromAnnouncer::LiveBlock { .. } | FromAnnouncer::LiveEnd { .. })
                | Turn::Block(_) => until = last.min(Instant::now() + NOTE_DEADLINE),
                _ => return Err(SessionError::OutOfTurn),
            }
        }
    }

    async fn join(&mut self) -> Result<(), SessionError> {
        let question = self.ask_time()?;
        self.send(FromStation::Hello {
            name: self.config.name.clone(),
            zones: self.config.zones.clone(),
            instance: self.memory.instance,
            last: self.memory.played.back().copied(),
            nonce: question.map(|(nonce, _)| nonce.0),
            begun: self.memory.begun.last().copied(),
        })
        .await?;
        self.next_ping = Instant::now() + PING_INTERVAL;
        let welcome = match self.next_message(None).await {
            // The announcer sends nothing to a key that it does not know. It may have closed before it read the Hello, which
            // resets the connection.
            Err(SessionError::Closed | SessionError::Link(LinkError::Io(_))) if self.announcer.is_some() => {
                return Err(SessionError::TurnedAway);
            }
            welcome => welcome?,
        };
        match welcome {
            FromAnnouncer::Welcome { clock, site } => {
                match (&mut self.memory.membership, self.announcer, site, question) {
                    (None, None, None, None) => (),
                    (Some(member), Some(noise), Some((announcer, statement)), Some((nonce, asked))) => {
                        member.welcomed(noise, announcer, nonce, &statement, asked)?;
                        self.time_asked = asked;
                    }
                    _ => return Err(SessionError::OutOfTurn),
                }
                if self.memory.clock_of.replace(clock) != Some(clock) {
                    self.memory.clock = Clock::default();
                    self.quick_pings = FIRST_PINGS + NEXT_PINGS;
                }
                self.next_ping = Instant::now();
                // An announcer that sets a volume does so on each connection.
                self.memory.volume = None;
                self.memory.tell_welcome();
                Ok(())
            }
            FromAnnouncer::Refused { reason } => Err(SessionError::Refused(reason)),
            _ => Err(SessionError::OutOfTurn),
        }
    }

    /// Creates a question for the announcer's time, with the moment of asking; `None` on an open link.
    fn ask_time(&self) -> Result<Option<Question>, SessionError> {
        let asks = self.memory.membership.is_some();
        Ok(if asks { Some((TimeNonce::generate()?, Instant::now())) } else { None })
    }

    /// Reports to the announcer whether the loudspeaker works, if the announcer would assume otherwise. A fault is reported on
    /// every connection, because an unreported one counts as fixed.
    async fn tell_health(&mut self) -> Result<(), SessionError> {
        let fault = self.memory.health.fault().map(wire::reason);
        if fault.is_some() || self.memory.told_fault.is_some() {
            self.memory.told_fault.clone_from(&fault);
            self.send(FromStation::Health { fault }).await?;
        }
        Ok(())
    }

    async fn send(&mut self, message: FromStation) -> Result<(), SessionError> {
        Ok(self.link.1.send(&message).await?)
    }

    fn tell(&self, event: impl FnOnce(String, String) -> Event, id: ClipId) {
        self.tell_and_archive(event(id.to_string(), self.config.name.clone()));
    }

    fn tell_and_archive(&self, event: Event) {
        if let Some(archive) = &self.config.archive {
            archive.note(&event);
        }
        self.events.tell(event);
    }

    /// The next message that is not part of the ping exchange.
    async fn next_message(&mut self, deadline: Option<Duration>) -> Result<FromAnnouncer, SessionError> {
        let allowed = deadline.unwrap_or(Duration::from_secs(86_400 * 365));
        match self.turn_until(Instant::now() + allowed, allowed).await? {
            Turn::Message(message) => Ok(message),
            _ => Err(SessionError::OutOfTurn),
        }
    }

    /// The next turn that is a message or a block.
    async fn turn_until(&mut self, until: Instant, allowed: Duration) -> Result<Turn, SessionError> {
        loop {
            let turn = tokio::select! {
                biased;
                () = sleep_until(until) => return Err(SessionError::Overdue(allowed)),
                turn = self.turn() => turn,
            };
            match self.act(turn).await? {
                Some(Turn::Shutdown) => return Err(SessionError::Shutdown),
                Some(turn) => return Ok(turn),
                None => (),
            }
        }
    }

    /// Waits for the next turn. Cancelling loses nothing.
    async fn turn(&mut self) -> Result<Turn, LinkError> {
        tokio::select! {
            // Rare turns come first, so that no flood of frames holds them up.
            biased;
            () = self.shutdown.cancelled() => Ok(Turn::Shutdown),
            () = self.memory.health.changed() => Ok(Turn::HealthChanged),
            () = sleep_until(self.next_ping) => Ok(Turn::PingDue),
            frame = self.link.0.next() => Ok(match frame? {
                Some(Frame::Message(message)) => Turn::Message(message),
                Some(Frame::Block(block)) => Turn::Block(block),
                None => Turn::Closed,
            }),
        }
    }

    /// Handles pings, pongs and the end of the connection; returns everything else.
    async fn act(&mut self, turn: Result<Turn, LinkError>) -> Result<Option<Turn>, SessionError> {
        match turn? {
            Turn::PingDue => {
                let pause = match self.quick_pings.checked_sub(1) {
                    Some(left) => {
                        self.quick_pings = left;
                        if left >= NEXT_PINGS { FIRST_PING_INTERVAL } else { NEXT_PING_INTERVAL }
                    }
                    None => PING_INTERVAL,
                };
                let now = Instant::now();
                self.next_ping = now + pause;
                self.send(FromStation::Ping { t1_us: clock_us(self.memory.base, now) }).await?;
                if self.time_asked.elapsed() >= ASK_AGAIN_AFTER {
                    self.question = self.ask_time()?;
                    self.time_asked = Instant::now();
                    if let Some((nonce, _)) = self.question {
                        self.send(FromStation::AskTime { nonce: nonce.0 }).await?;
                    }
                }
                Ok(None)
            }
            Turn::HealthChanged => {
                self.tell_health().await?;
                Ok(None)
            }
            Turn::Message(FromAnnouncer::Time(statement)) => {
                match (&mut self.memory.membership, self.question.take()) {
                    (Some(member), Some((nonce, asked))) => member.told_time(nonce, &statement, asked)?,
                    _ => return Err(SessionError::OutOfTurn),
                }
                self.memory.tell_welcome();
                Ok(None)
            }
            Turn::Message(FromAnnouncer::Volume { volume }) => {
                self.memory.volume = volume;
                self.tell_volume();
                Ok(None)
            }
            Turn::Message(FromAnnouncer::Pong { t1_us, t2_us, t3_us }) => {
                let t4_us = clock_us(self.memory.base, Instant::now());
                if t1_us > t4_us {
                    return Err(LinkError::Wire(WireError::Field("t1")).into());
                }
                self.memory.clock.learn(Exchange { t1_us, t2_us, t3_us, t4_us });
                // On a new connection, the announcer's volume arrives before this, if it still sets one.
                self.tell_volume();
                Ok(None)
            }
            Turn::Message(FromAnnouncer::Yield) => Err(SessionError::Yielded),
            Turn::Closed => Err(SessionError::Closed),
            turn => Ok(Some(turn)),
        }
    }

    /// Reports a new volume, at most once a second: the next answer to a Ping brings the latest.
    fn tell_volume(&mut self) {
        let volume = self.memory.volume;
        let is_too_soon = self.memory.volume_told_at.is_some_and(|at| at.elapsed() < VOLUME_INTERVAL);
        if is_too_soon || self.memory.told_volume == volume {
            return;
        }
        self.memory.volume_told_at = Some(Instant::now());
        self.memory.told_volume = volume;
        let station = self.config.name.clone();
        self.events.tell(Event::Volume { station, volume_db: volume.map(Volume::db) });
    }
}
