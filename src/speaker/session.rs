//! One connection of a station: hello, at most one clip, its receipt.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Config, End, clock_us};
use crate::clip::{Clip, ClipError, Incoming, MAX_WAV_BYTES};
use crate::clock::{Clock, Exchange};
use crate::event::{self, Event, Events};
use crate::link::{Frame, LinkError, PING_INTERVAL, StationLink};
use crate::loudspeaker::Loudspeaker;
use crate::wire::{self, ClipHeader, ClipId, FromAnnouncer, FromStation, Receipt, WireError};

/// Pings in quick succession when the announcer's clock is new, to know it at once.
const FIRST_PINGS: u32 = 8;
/// Between those.
const FIRST_PING_INTERVAL: Duration = Duration::from_millis(25);
/// The time every transfer has, however short the clip.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(10);
/// The least bytes a second beyond that.
const TRANSFER_MIN_RATE: u64 = 32 * 1024;
/// How long to wait for the instant, once verified. The others may take as long as a slow transfer.
const INSTANT_DEADLINE: Duration = Duration::from_secs(30);
/// The furthest instant: an earlier page of the greatest length, and a transfer.
const MAX_AHEAD: Duration = Duration::from_secs(300);
/// How long to wait for the announcer to write an outcome down, after the last block of a refused clip.
const NOTE_DEADLINE: Duration = Duration::from_secs(3);
/// Clips remembered, so that none is played twice.
const REMEMBERED_CLIPS: usize = 64;

/// What a station keeps from one connection to the next.
pub(super) struct Memory {
    base: Instant,
    instance: u64,
    clock: Clock,
    /// Which announcer clock that is.
    clock_of: Option<u64>,
    played: VecDeque<Receipt>,
}

impl Memory {
    pub fn new(instance: u64) -> Self {
        let (clock, played) = (Clock::default(), VecDeque::new());
        Self { base: Instant::now(), instance, clock, clock_of: None, played }
    }

    fn remember(&mut self, receipt: Receipt) {
        if self.played.len() == REMEMBERED_CLIPS {
            self.played.pop_front();
        }
        self.played.push_back(receipt);
    }
}

/// What the connection brings next.
enum Turn {
    PingDue,
    Message(FromAnnouncer),
    Block(Bytes),
    Closed,
    Shutdown,
}

/// Why a session ends before its clip is done.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the announcer closed the connection")]
    Closed,
    #[error("the announcer refused this station: {0}")]
    Refused(String),
    #[error("the announcer spoke out of turn")]
    OutOfTurn,
    #[error("the announcer did not go on for {} s", .0.as_secs())]
    Overdue(Duration),
    #[error("the station is shut down by its user")]
    Shutdown,
}

/// Why a clip is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("its header is not valid")]
    Header(#[source] WireError),
    #[error(transparent)]
    Clip(#[from] ClipError),
    #[error("it was played already")]
    Repeated,
    #[error("it is for other zones")]
    Zone,
}

fn transfer_deadline(wav_bytes: u32) -> Duration {
    TRANSFER_DEADLINE + Duration::from_secs(u64::from(wav_bytes) / TRANSFER_MIN_RATE)
}

pub(super) struct Session<'a> {
    link: StationLink<TcpStream>,
    config: &'a Config,
    memory: &'a mut Memory,
    events: &'a Events,
    shutdown: &'a CancellationToken,
    next_ping: Instant,
    quick_pings: u32,
}

impl<'a> Session<'a> {
    pub fn new(
        link: StationLink<TcpStream>,
        config: &'a Config,
        memory: &'a mut Memory,
        events: &'a Events,
        shutdown: &'a CancellationToken,
    ) -> Self {
        Self { link, config, memory, events, shutdown, next_ping: Instant::now(), quick_pings: 0 }
    }

    /// From hello to the end of the connection; `joined` is called when the announcer has said welcome.
    pub async fn run(mut self, loudspeaker: &mut Loudspeaker, joined: impl FnOnce()) -> End {
        match self.serve(loudspeaker, joined).await {
            Ok(()) => End::Served,
            Err(SessionError::Shutdown) => {
                // The announcer is told if it can be; if not, it will notice.
                let _ = self.link.1.send(&FromStation::Goodbye).await;
                let _ = self.link.1.close().await;
                End::Shutdown
            }
            Err(error) => End::Lost(crate::error_chain(&error)),
        }
    }

    async fn serve(
        &mut self,
        loudspeaker: &mut Loudspeaker,
        joined: impl FnOnce(),
    ) -> Result<(), SessionError> {
        self.join().await?;
        joined();
        let FromAnnouncer::Clip { header } = self.next_message(None).await? else {
            return Err(SessionError::OutOfTurn);
        };
        let (id, received) = match ClipHeader::decode(&header) {
            Ok(header) => (header.id, self.receive(&header).await?),
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
            Ok(clip) => self.play(id, &clip, loudspeaker).await?,
        }
        self.noted(id).await
    }

    /// Waits until the outcome is written down. The rest of a refused clip may still be on its way: it is
    /// skipped for as long as a whole one may take.
    async fn noted(&mut self, id: ClipId) -> Result<(), SessionError> {
        self.link.0.expect_blocks(true);
        let last = Instant::now() + transfer_deadline(MAX_WAV_BYTES as u32);
        let mut until = Instant::now() + NOTE_DEADLINE;
        loop {
            match self.turn_until(until, NOTE_DEADLINE).await? {
                Turn::Message(FromAnnouncer::Noted { clip }) if clip == id => return Ok(()),
                Turn::Message(FromAnnouncer::PlayAt { .. }) => (),
                Turn::Block(_) => until = last.min(Instant::now() + NOTE_DEADLINE),
                _ => return Err(SessionError::OutOfTurn),
            }
        }
    }

    async fn join(&mut self) -> Result<(), SessionError> {
        self.send(FromStation::Hello {
            name: self.config.name.clone(),
            zones: self.config.zones.clone(),
            instance: self.memory.instance,
            last: self.memory.played.back().copied(),
        })
        .await?;
        self.next_ping = Instant::now() + PING_INTERVAL;
        match self.next_message(None).await? {
            FromAnnouncer::Welcome { clock } => {
                if self.memory.clock_of.replace(clock) != Some(clock) {
                    self.memory.clock = Clock::default();
                    self.quick_pings = FIRST_PINGS;
                }
                self.next_ping = Instant::now();
                Ok(())
            }
            FromAnnouncer::Refused { reason } => Err(SessionError::Refused(reason)),
            _ => Err(SessionError::OutOfTurn),
        }
    }

    /// Takes the clip in and checks it against its header. The inner error is for the announcer.
    async fn receive(&mut self, header: &ClipHeader) -> Result<Result<Clip, Refusal>, SessionError> {
        let ours = &self.config.zones;
        if self.memory.played.iter().any(|receipt| receipt.clip == header.id) {
            return Ok(Err(Refusal::Repeated));
        }
        if !header.zones.is_empty() && !header.zones.iter().any(|zone| ours.contains(zone)) {
            return Ok(Err(Refusal::Zone));
        }
        let mut incoming = match Incoming::new(header.format, header.sha256) {
            Ok(incoming) => incoming,
            Err(error) => return Ok(Err(error.into())),
        };
        let allowed = transfer_deadline(header.format.wav_bytes);
        let until = Instant::now() + allowed;
        self.link.0.expect_blocks(true);
        while incoming.missing_bytes() > 0 {
            match self.turn_until(until, allowed).await? {
                Turn::Block(block) => {
                    if let Err(error) = incoming.push(&block) {
                        return Ok(Err(error.into()));
                    }
                }
                _ => return Err(SessionError::OutOfTurn),
            }
        }
        self.link.0.expect_blocks(false);
        Ok(incoming.finish().map_err(Refusal::from))
    }

    /// Says that the clip is here, waits for the instant, plays, and reports.
    async fn play(
        &mut self,
        id: ClipId,
        clip: &Clip,
        loudspeaker: &mut Loudspeaker,
    ) -> Result<(), SessionError> {
        let way = Duration::from_micros(self.memory.clock.round_trip_us().unwrap_or_default() as u64);
        let early = Duration::from_micros(self.config.delay_us.min(0).unsigned_abs());
        let lead = loudspeaker.lead() + way + early;
        let lead_us = u32::try_from(lead.as_micros()).unwrap_or(u32::MAX);
        self.send(FromStation::Verified { clip: id, lead_us }).await?;
        self.tell(|clip, station| Event::Verified { clip, station }, id);
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
            return self.fail(id, "the instant to play it is out of reach").await;
        }
        let label = format!("{}-{id}", self.config.name);
        let (mut link_error, mut shut_down) = (None, false);
        let shutdown = self.shutdown;
        let result = {
            let (started, mut has_started) = tokio::sync::oneshot::channel();
            let play = loudspeaker.play(clip, &label, at, || {
                // Nobody may wait for it any more.
                let _ = started.send(());
            });
            tokio::pin!(play);
            let mut announced = false;
            loop {
                tokio::select! {
                    result = &mut play => break Some(result),
                    Ok(()) = &mut has_started, if !announced => {
                        announced = true;
                        self.tell(|clip, station| Event::Playing { clip, station }, id);
                        if link_error.is_none() {
                            link_error = self.send(FromStation::Playing { clip: id }).await.err();
                        }
                    }
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
        if shut_down {
            self.fail(id, "the station is shut down by its user").await?;
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
                self.memory.remember(receipt);
                self.events.tell(Event::Played {
                    clip: id.to_string(),
                    station: self.config.name.clone(),
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
                None => self.fail(id, &crate::error_chain(&error)).await,
            },
            None => Ok(()),
        }
    }

    async fn fail(&mut self, id: ClipId, reason: &str) -> Result<(), SessionError> {
        self.tell(|clip, station| Event::Failed { clip, station, reason: reason.to_owned() }, id);
        self.send(FromStation::Failed { clip: id, reason: wire::reason(reason) }).await
    }

    async fn send(&mut self, message: FromStation) -> Result<(), SessionError> {
        Ok(self.link.1.send(&message).await?)
    }

    fn tell(&self, event: impl FnOnce(String, String) -> Event, id: ClipId) {
        self.events.tell(event(id.to_string(), self.config.name.clone()));
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
                turn = self.turn() => turn,
                () = sleep_until(until) => return Err(SessionError::Overdue(allowed)),
            };
            match self.act(turn).await? {
                Some(Turn::Shutdown) => return Err(SessionError::Shutdown),
                Some(turn) => return Ok(turn),
                None => (),
            }
        }
    }

    /// Waits for whatever comes first. Cancelling loses nothing.
    async fn turn(&mut self) -> Result<Turn, LinkError> {
        tokio::select! {
            frame = self.link.0.next() => Ok(match frame? {
                Some(Frame::Message(message)) => Turn::Message(message),
                Some(Frame::Block(block)) => Turn::Block(block),
                None => Turn::Closed,
            }),
            () = sleep_until(self.next_ping) => Ok(Turn::PingDue),
            () = self.shutdown.cancelled() => Ok(Turn::Shutdown),
        }
    }

    /// Sees to pings, pongs and the end of the connection; gives back everything else.
    async fn act(&mut self, turn: Result<Turn, LinkError>) -> Result<Option<Turn>, SessionError> {
        match turn? {
            Turn::PingDue => {
                let pause = match self.quick_pings.checked_sub(1) {
                    Some(left) => {
                        self.quick_pings = left;
                        FIRST_PING_INTERVAL
                    }
                    None => PING_INTERVAL,
                };
                let now = Instant::now();
                self.next_ping = now + pause;
                self.send(FromStation::Ping { t1_us: clock_us(self.memory.base, now) }).await?;
                Ok(None)
            }
            Turn::Message(FromAnnouncer::Pong { t1_us, t2_us, t3_us }) => {
                let t4_us = clock_us(self.memory.base, Instant::now());
                if t1_us > t4_us {
                    return Err(LinkError::Wire(WireError::Field("t1")).into());
                }
                self.memory.clock.learn(Exchange { t1_us, t2_us, t3_us, t4_us });
                Ok(None)
            }
            Turn::Closed => Err(SessionError::Closed),
            turn => Ok(Some(turn)),
        }
    }
}
