//! Talking back: Enter at the station records a clip, which goes to each of its announcers over a connection of its own, so that
//! no page waits for it and it waits for no page.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::dial::{self, DialError};
use super::redial::Redial;
use super::{Network, all};
use crate::batches::on_a_thread;
use crate::clip::{self, Clip, ClipError};
use crate::clip_cipher::{ClipCipherError, SealedClip};
use crate::event::{Command, Event, Events};
use crate::link::{Frame, LinkError, PING_INTERVAL};
use crate::membership::Credentials;
use crate::microphone::{Captured, Lost, Microphone, MicrophoneError};
use crate::prepare::Trouble;
use crate::seal;
use crate::wire::{self, Answer, BLOCK_BYTES, ClipId, FromAnnouncer, FromStation, Offer, TalkbackHeader};

/// How long to record if neither the user nor a file determines the length.
pub const DEFAULT_LENGTH: Duration = Duration::from_secs(5);
/// How long a talkback waits for an announcer that is away or busy.
const LIFE: Duration = Duration::from_secs(60);
/// How long an announcer has to say whether it accepts talkback; after that the station records all the same.
const ASK_PATIENCE: Duration = Duration::from_millis(500);
/// How much longer to wait for the receipt once the announcer has the talkback.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(600);

/// What a station needs to talk back.
#[derive(Debug)]
pub struct Talkback {
    /// The microphone.
    pub microphone: Microphone,
    /// How long to record; without it, a file's own length, or [`DEFAULT_LENGTH`].
    pub length: Option<Duration>,
    /// Each [`Command::Announce`] records once. When the commands end, nothing more is recorded.
    pub commands: mpsc::Receiver<Command>,
    /// Whether each command waits for the one before. Otherwise a command that comes too soon does nothing.
    pub lines: bool,
    /// This run's number; a later run has a greater one.
    pub epoch: u64,
}

/// How an announcer last welcomed the station.
#[derive(Debug, Clone)]
pub(super) enum Welcome {
    /// In open mode.
    Open,
    /// As a member of its site.
    Member(Credentials),
}

/// How to reach one announcer.
pub(super) struct Uplink<'a, N> {
    /// The address as dialled.
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
    Dial(#[from] DialError),
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
    /// The blocks as frames, in the clear and sealed.
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

/// Records once, and sends the recording to every announcer that accepts it. If none does, nothing is recorded.
async fn talk<N: Network>(
    microphone: &mut Microphone,
    length: Duration,
    uplinks: &[Uplink<'_, N>],
    id: &mut ClipId,
    name: &str,
    events: &Events,
) {
    let refusals: Vec<OnceLock<String>> = uplinks.iter().map(|_| OnceLock::new()).collect();
    let asked = uplinks.iter().zip(&refusals).map(|(uplink, refusal)| Box::pin(uplink.ask(refusal)));
    all(asked.collect()).await;
    let mut willing = Vec::new();
    for (uplink, refusal) in uplinks.iter().zip(refusals) {
        match refusal.into_inner() {
            None => willing.push(uplink),
            Some(reason) => {
                id.sequence += 1;
                let (talkback, station) = (id.to_string(), name.to_owned());
                events.tell(Event::TalkbackRefused { talkback, station, reason });
            }
        }
    }
    if willing.is_empty() {
        return;
    }
    let input = microphone.name().to_owned();
    events.tell(Event::Recording { length_ms: length.as_millis() as u64, input: input.clone() });
    let (said, trouble, lost) = match record(microphone, length).await {
        Ok(recorded) => recorded,
        Err(error) => {
            let message = format!("nothing was sent from {input}: {}", crate::error_chain(&error));
            return events.tell(Event::Warning { message });
        }
    };
    if let Some(trouble) = trouble {
        let message = trouble.about_sent(&input);
        events.tell(Event::Warning { message });
    }
    if let Some(lost) = lost.some() {
        events.tell(Event::Warning { message: lost.about(&input) });
    }
    let mut sending = Vec::new();
    for uplink in willing {
        id.sequence += 1;
        sending.push(Box::pin(uplink.send(&said, *id, name, events)));
    }
    all(sending).await;
}

async fn record(
    microphone: &mut Microphone,
    length: Duration,
) -> Result<(Said, Option<Trouble>, Lost), RecordError> {
    let is_from_file = microphone.whole_length().is_some();
    let Captured { sound, lost } = microphone.record(length, std::future::pending(), |_| ()).await?;
    let at = Instant::now();
    on_a_thread(move || {
        let trouble = if is_from_file { Trouble::of_file(&sound) } else { Trouble::of(&sound) };
        Ok((Said::new(Clip::encode(&sound)?, at)?, trouble, lost))
    })
    .await
}

impl<N: Network> Uplink<'_, N> {
    /// Asks whether the announcer would accept a talkback, with an empty offer. Sets `refusal` to the reason if it refuses at
    /// once.
    async fn ask(&self, refusal: &OnceLock<String>) {
        let Some(welcome) = self.welcome.borrow().clone() else { return };
        let nothing = Offer { header: Vec::new(), signature: Vec::new(), key: Vec::new() };
        let asked = timeout(ASK_PATIENCE, self.attempt(&welcome, &nothing, &[], &mut false)).await;
        if let Ok(Ok(Answer::Refused { reason })) = asked {
            let _ = refusal.set(reason);
        }
    }

    /// Sends the recording until the announcer answers or it is too old, and reports what became of it.
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
            let (patience, what) = match is_there {
                true => (LIFE + RECEIPT_PATIENCE, "was sent it and did not say what became of it"),
                false => (LIFE, "did not take it"),
            };
            let until = said.at + patience;
            let welcomed = timeout_at(until, welcome.wait_for(Option::is_some)).await;
            let welcomed = welcomed.ok().and_then(Result::ok).and_then(|welcome| welcome.clone());
            let Some(welcome) = welcomed.filter(|_| Instant::now() < until) else {
                let reason = format!("{} {what} within {} s: {reason}", self.address, patience.as_secs());
                return Answer::Refused { reason };
            };
            let offer: &Offer = offer.get_or_insert_with(|| welcome.offer(said, id, name));
            let blocks = match &welcome {
                Welcome::Open => &said.open,
                Welcome::Member(_) => &said.sealed,
            };
            let attempt = self.attempt(&welcome, offer, blocks, &mut is_there);
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

    /// Offers the recording once, over a connection of its own.
    async fn attempt(
        &self,
        welcome: &Welcome,
        offer: &Offer,
        blocks: &[Vec<u8>],
        is_there: &mut bool,
    ) -> Result<Answer, UplinkError> {
        let introduction = match welcome {
            Welcome::Open => None,
            Welcome::Member(credentials) => Some(credentials.introduction()),
        };
        let ((mut receiver, mut sender), _) = dial::dial(self.network, introduction).await?;
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
    /// Creates the offer of a talkback to this announcer, dated by the announcer's clock, or in open mode by this machine's.
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::io;

    use tokio::net::TcpStream;

    use super::*;
    use crate::microphone::Input;
    use crate::sample::Sound;

    /// A network without an announcer.
    struct Nowhere;

    impl Network for Nowhere {
        type Connection = TcpStream;

        async fn find(&mut self, _: &str, _: u16) -> io::Result<()> {
            Ok(())
        }

        async fn connect(&mut self) -> io::Result<TcpStream> {
            Err(io::ErrorKind::ConnectionRefused.into())
        }

        fn random(&mut self) -> u32 {
            0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_given_up_when_it_is_too_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("said.wav");
        let sound = Sound { rate_hz: 8_000, samples: vec![0.5; 800] };
        std::fs::write(&path, Clip::encode(&sound).unwrap().wav()).unwrap();
        for welcome in [None, Some(Welcome::Open)] {
            let is_welcome = welcome.is_some();
            let microphone = Microphone::open(&Input::File(path.clone())).unwrap();
            let (commands, asked) = mpsc::channel(4);
            let talkback = Talkback { microphone, length: None, commands: asked, lines: false, epoch: 7 };
            let (_welcomes, welcome) = watch::channel(welcome);
            let network = Mutex::new(Nowhere);
            let uplinks = vec![Uplink { address: "office:7766".into(), network: &network, welcome }];
            let (events, mut told) = Events::channel();
            let begun = Instant::now();
            // The second command comes too soon.
            commands.send(Command::Announce).await.unwrap();
            commands.send(Command::Announce).await.unwrap();
            let listening = async {
                let mut all = Vec::new();
                while !matches!(all.last(), Some(Event::TalkbackRefused { .. })) {
                    all.push(told.recv().await.unwrap());
                }
                all
            };
            let all = tokio::select! {
                all = listening => all,
                never = serve(talkback, uplinks, "hall-1", &events) => match never {},
            };
            let names: Vec<_> = all.iter().map(|event| crate::report::sentence(event).unwrap()).collect();
            let has = |words: &str| names.iter().filter(|name| name.contains(words)).count();
            assert_eq!(
                (has("recording 0.1 s"), has("still on its way"), has("sending")),
                (1, 1, 1),
                "{names:?}"
            );
            assert_eq!(has("office:7766 did not take it within 60 s"), 1, "{names:?}");
            assert_eq!(
                has(if is_welcome { "no announcer listens there" } else { "has not welcomed" }),
                1,
                "{names:?}"
            );
            assert!(
                (LIFE..LIFE + Duration::from_secs(3)).contains(&begun.elapsed()),
                "{:?}",
                begun.elapsed()
            );
        }
    }
}
