//! Talking back: Enter at the station records a clip, and each of its announcers is sent it over a connection of its
//! own, so that no page waits for it and it waits for no page.

use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::redial::{DIAL_DEADLINE, Redial};
use super::{Network, all};
use crate::batches::on_a_thread;
use crate::clip::{self, Clip, ClipError};
use crate::clip_cipher::{ClipCipherError, SealedClip};
use crate::event::{Command, Event, Events};
use crate::link::{self, Connection, Frame, LinkError, PING_INTERVAL};
use crate::membership::Credentials;
use crate::microphone::{Microphone, MicrophoneError};
use crate::seal;
use crate::wire::{self, Answer, BLOCK_BYTES, ClipId, FromAnnouncer, FromStation, Offer, TalkbackHeader};

/// How long is recorded where neither the user nor a file says.
pub const DEFAULT_LENGTH: Duration = Duration::from_secs(5);
/// How long a talkback waits for an announcer that is away or busy.
const LIFE: Duration = Duration::from_secs(60);
/// How long after that its receipt is waited for, once the announcer has it.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(600);

/// What a station needs to talk back.
#[derive(Debug)]
pub struct Talkback {
    /// What it records.
    pub microphone: Microphone,
    /// For how long; without it a file's own length, or [`DEFAULT_LENGTH`].
    pub length: Option<Duration>,
    /// Each [`Command::Announce`] records once. When there are no more, nothing is recorded any more.
    pub commands: mpsc::Receiver<Command>,
    /// Commands wait for the one before. Otherwise one that comes too soon does nothing.
    pub lines: bool,
    /// This run's number; a later run has a greater one.
    pub epoch: u64,
}

/// How an announcer has welcomed the station last.
#[derive(Debug, Clone)]
pub(super) enum Welcome {
    /// In open mode.
    Open,
    /// As a member of its site.
    Member(Credentials),
}

/// The way to one announcer.
pub(super) struct Uplink<'a, N> {
    /// As dialled.
    pub address: String,
    pub network: &'a Mutex<N>,
    pub welcome: watch::Receiver<Option<Welcome>>,
}

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error(transparent)]
    Microphone(#[from] MicrophoneError),
    #[error("the recording cannot be made a clip")]
    Clip(#[from] ClipError),
    #[error(transparent)]
    Seal(#[from] ClipCipherError),
}

/// Why an announcer did not answer.
#[derive(Debug, thiserror::Error)]
enum UplinkError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the announcer closed the connection")]
    Closed,
    #[error("the announcer spoke out of turn")]
    OutOfTurn,
}

/// A recording, ready to be sent.
struct Said {
    clip: Clip,
    at: Instant,
    /// Blocks in frames, in the clear and under seal.
    open: Vec<Vec<u8>>,
    sealed: Vec<Vec<u8>>,
    key: Vec<u8>,
}

impl Said {
    fn new(clip: Clip, at: Instant) -> Result<Self, ClipCipherError> {
        let frame = |block: &[u8]| wire::block_frames(std::iter::once(block));
        let sealed = SealedClip::seal(clip.wav(), BLOCK_BYTES)?;
        Ok(Self {
            open: clip.wav().chunks(BLOCK_BYTES).map(frame).collect(),
            sealed: sealed.blocks().map(|block| frame(&block)).collect(),
            key: sealed.key().as_bytes().to_vec(),
            clip,
            at,
        })
    }
}

/// Talks back for as long as the station runs.
pub(super) async fn serve<N: Network>(
    talkback: Talkback,
    uplinks: Vec<Uplink<'_, N>>,
    name: &str,
    events: &Events,
) -> Infallible {
    let Talkback { mut microphone, length, mut commands, lines, epoch } = talkback;
    let length = length.or(microphone.whole_length()).unwrap_or(DEFAULT_LENGTH);
    let mut id = ClipId { epoch, sequence: 0 };
    let mut is_asked = true;
    while is_asked {
        is_asked = commands.recv().await == Some(Command::Announce);
        if !is_asked {
            break;
        }
        let mut talking = pin!(talk(&mut microphone, length, &uplinks, &mut id, name, events));
        let mut is_told = lines;
        loop {
            tokio::select! {
                biased;
                () = &mut talking => break,
                command = commands.recv(), if !lines && is_asked => match command {
                    Some(Command::Announce) if !is_told => {
                        is_told = true;
                        let message = "the last talkback is still on its way: press Enter when it has arrived";
                        events.tell(Event::Warning { message: message.to_owned() });
                    }
                    Some(Command::Announce) => (),
                    _ => is_asked = false,
                },
            }
        }
    }
    std::future::pending().await
}

/// Records once, and sends it to everybody.
async fn talk<N: Network>(
    microphone: &mut Microphone,
    length: Duration,
    uplinks: &[Uplink<'_, N>],
    id: &mut ClipId,
    name: &str,
    events: &Events,
) {
    let input = microphone.name().to_owned();
    events.tell(Event::Recording { length_ms: length.as_millis() as u64, input: input.clone() });
    let said = match record(microphone, length).await {
        Ok(said) => said,
        Err(error) => {
            let message = format!("nothing was sent from {input}: {}", crate::error_chain(&error));
            return events.tell(Event::Warning { message });
        }
    };
    if clip::peak_db(&said.clip.sound().samples) <= clip::SILENCE_DB {
        let message = format!(
            "the recording is pure silence: is {input} muted, or the wrong microphone? It is sent all the same"
        );
        events.tell(Event::Warning { message });
    }
    let mut sending = Vec::new();
    for uplink in uplinks {
        id.sequence += 1;
        sending.push(Box::pin(uplink.send(&said, *id, name, events)));
    }
    all(sending).await;
}

async fn record(microphone: &mut Microphone, length: Duration) -> Result<Said, RecordError> {
    let sound = microphone.record(length, std::future::pending(), |_| ()).await?;
    let at = Instant::now();
    on_a_thread(move || Ok(Said::new(Clip::encode(&sound)?, at)?)).await
}

impl<N: Network> Uplink<'_, N> {
    /// Sends it until it is answered, or too old; and tells what became of it.
    async fn send(&self, said: &Said, id: ClipId, name: &str, events: &Events) {
        let (talkback, station) = (id.to_string(), name.to_owned());
        events.tell(Event::TalkbackSending {
            talkback: talkback.clone(),
            station: station.clone(),
            announcer: self.address.clone(),
            length_ms: said.clip.format().length().as_millis() as u64,
            sha256: clip::hex(said.clip.sha256()),
        });
        events.tell(match self.deliver(said, id, name).await {
            Answer::Kept { reason } => Event::TalkbackKept { talkback, station, reason },
            Answer::Refused { reason } => Event::TalkbackRefused { talkback, station, reason },
            _ => Event::TalkbackHeard { talkback, station },
        });
    }

    async fn deliver(&self, said: &Said, id: ClipId, name: &str) -> Answer {
        let (mut offer, mut is_there) = (None, false);
        let mut redial = Redial::default();
        let mut reason = "it has not welcomed this station".to_owned();
        let mut welcome = self.welcome.clone();
        loop {
            let begins_by = said.at + if is_there { LIFE + RECEIPT_PATIENCE } else { LIFE };
            let welcomed = timeout_at(begins_by, welcome.wait_for(Option::is_some)).await;
            let Some(welcome) = welcomed.ok().and_then(Result::ok).and_then(|welcome| welcome.clone()) else {
                let reason =
                    format!("{} did not take it within {} s: {reason}", self.address, LIFE.as_secs());
                return Answer::Refused { reason };
            };
            let offer: &Offer = offer.get_or_insert_with(|| welcome.offer(said, id, name));
            let attempt = self.attempt(&welcome, offer, said, &mut is_there);
            match timeout_at(said.at + LIFE + RECEIPT_PATIENCE, attempt).await {
                Ok(Ok(Answer::Later { reason: why })) => reason = why,
                Ok(Ok(answer)) => return answer,
                Ok(Err(error)) => reason = crate::error_chain(&error),
                Err(_) => reason = "its receipt did not come".to_owned(),
            }
            let random = self.network.lock().await.random();
            sleep(redial.pause(false, random, Instant::now())).await;
        }
    }

    /// Offers it once, over a connection of its own.
    async fn attempt(
        &self,
        welcome: &Welcome,
        offer: &Offer,
        said: &Said,
        is_there: &mut bool,
    ) -> Result<Answer, UplinkError> {
        let connect = async { self.network.lock().await.connect().await };
        let stream = timeout(DIAL_DEADLINE, connect).await.map_err(|_| LinkError::Silent(DIAL_DEADLINE))?;
        let stream = stream.map_err(LinkError::from)?;
        stream.prepare().map_err(LinkError::from)?;
        let (introduction, blocks) = match welcome {
            Welcome::Open => (None, &said.open),
            Welcome::Member(credentials) => (Some(credentials.introduction()), &said.sealed),
        };
        let ((mut receiver, mut sender), _) = link::dial(stream, introduction).await?;
        sender.send(&FromStation::Talkback(offer.clone())).await?;
        let mut next_ping = Instant::now() + PING_INTERVAL;
        let mut wanted = [].iter();
        loop {
            tokio::select! {
                biased;
                frame = receiver.next() => match frame? {
                    Some(Frame::Message(FromAnnouncer::Talkback(Answer::Send))) => wanted = blocks.iter(),
                    Some(Frame::Message(FromAnnouncer::Talkback(Answer::Wait))) => (),
                    Some(Frame::Message(FromAnnouncer::Talkback(answer))) => return Ok(answer),
                    Some(_) => return Err(UplinkError::OutOfTurn),
                    None => return Err(UplinkError::Closed),
                },
                () = sleep_until(next_ping) => {
                    next_ping = Instant::now() + PING_INTERVAL;
                    sender.send(&FromStation::Ping { t1_us: 0 }).await?;
                }
                () = std::future::ready(()), if wanted.len() > 0 => {
                    if let Some(block) = wanted.next() {
                        sender.send_blocks(block).await?;
                        *is_there |= wanted.len() == 0;
                    }
                }
            }
        }
    }
}

impl Welcome {
    /// The offer of a talkback to this announcer, dated by its own clock.
    fn offer(&self, said: &Said, id: ClipId, name: &str) -> Offer {
        let (station, announcer, created_unix_ms) = match self {
            Self::Open => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                ([0; 32], [0; 32], (now.saturating_sub(said.at.elapsed())).as_millis() as u64)
            }
            Self::Member(it) => {
                (*it.keys.id().as_bytes(), *it.pin.announcer.as_bytes(), it.time.latest_unix_ms(said.at))
            }
        };
        let header = TalkbackHeader {
            station,
            announcer,
            id,
            created_unix_ms,
            expires_unix_ms: created_unix_ms.saturating_add(LIFE.as_millis() as u64),
            format: said.clip.format(),
            sha256: *said.clip.sha256(),
            name: name.to_owned(),
        };
        let header = header.encode();
        match self {
            Self::Open => Offer { header, signature: Vec::new(), key: Vec::new() },
            Self::Member(it) => {
                let signature = seal::talkback::sign(&it.keys, &header).to_vec();
                Offer { header, signature, key: said.key.clone() }
            }
        }
    }
}
