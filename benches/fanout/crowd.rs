//! A crowd of light stations in one process: real keys, real secured links, no loudspeaker.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use bullhorn::clip_cipher::{ClipKey, ClipOpener};
use bullhorn::handshake::Contact;
use bullhorn::keys::{AnnouncerId, NoiseKeys, NoisePublicKey};
use bullhorn::link::{self, Frame, PING_INTERVAL};
use bullhorn::seal;
use bullhorn::speaker::STANDING;
use bullhorn::speaker::redial::{DIAL_DEADLINE, Redial};
use bullhorn::wire::{ClipHeader, FromAnnouncer, FromStation, Receipt, TAG_BYTES};
use sha2::{Digest, Sha256};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The same pings as a real station sends when the announcer's clock is new to it.
const FIRST_PINGS: u32 = 8;
const FIRST_PING_INTERVAL: Duration = Duration::from_millis(25);
const NEXT_PINGS: u32 = 16;
const NEXT_PING_INTERVAL: Duration = Duration::from_millis(100);
const LEAD_US: u32 = 20_000;

/// The work a station does on a clip before it reports the clip as verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// All that a real station does: checks the signature, opens every block, computes SHA-256.
    Whole,
    /// Counts the bytes only, which leaves the cost of the announcer and of the network.
    Framing,
}

/// Something that happened to a station.
#[derive(Debug)]
pub enum News {
    Joined(Instant),
    Header(Instant),
    /// The station, and when.
    Verified(usize, Instant),
    Told,
    Noted,
    /// A connection that had joined was lost.
    Lost(Instant, String),
    /// A dial that failed.
    Failed,
}

/// Where the stations dial, and which announcer they trust.
#[derive(Debug)]
pub struct Office {
    pub address: Ipv4Addr,
    pub port: AtomicU16,
    pub noise: NoisePublicKey,
    pub announcer: AnnouncerId,
    pub whole: AtomicBool,
    /// How long a station pretends to play.
    pub plays: Duration,
    pub bytes_heard: AtomicU64,
    /// The first two bytes of the stations' own addresses, if they have any.
    pub sources: Option<[u8; 2]>,
}

impl Office {
    pub fn check(&self) -> Check {
        if self.whole.load(Ordering::Relaxed) { Check::Whole } else { Check::Framing }
    }
}

pub fn name(index: usize) -> String {
    format!("station-{index:05}")
}

/// The address of one station. Each has its own, as in a building, where the network has enough addresses.
pub fn source([first, second]: [u8; 2], index: usize) -> Ipv4Addr {
    Ipv4Addr::new(first, second, (index / 250) as u8, (index % 250 + 1) as u8)
}

/// The first two bytes of addresses on the loopback network.
pub const LOOPBACK: [u8; 2] = [127, 1];

/// Runs a station until it is dropped: dials, waits, receives clips, dials again.
pub async fn station(index: usize, keys: NoiseKeys, office: Arc<Office>, news: mpsc::UnboundedSender<News>) {
    let mut redial = Redial::default();
    let mut memory = Memory::default();
    loop {
        let mut joined = None;
        match session(index, &keys, &office, &news, &mut memory, &mut joined).await {
            Ok(()) => {
                redial = Redial::default();
                continue;
            }
            Err(error) => {
                let lost = joined.map_or(News::Failed, |_| News::Lost(Instant::now(), error));
                let _ = news.send(lost);
            }
        }
        if joined.is_some_and(|at: Instant| at.elapsed() >= STANDING) {
            redial = Redial::default();
        }
        sleep(redial.pause(false, getrandom::u32().unwrap(), Instant::now())).await;
    }
}

#[derive(Default)]
struct Memory {
    last: Option<Receipt>,
    clock: Option<u64>,
}

async fn session(
    index: usize,
    keys: &NoiseKeys,
    office: &Office,
    news: &mpsc::UnboundedSender<News>,
    memory: &mut Memory,
    joined: &mut Option<Instant>,
) -> Result<(), String> {
    let words = |error: link::LinkError| bullhorn::error_chain(&error);
    let announcer = SocketAddr::from((office.address, office.port.load(Ordering::Relaxed)));
    let stream =
        timeout(DIAL_DEADLINE, connect(office, index, announcer)).await.map_err(|_| "nobody answers")?;
    let stream = stream.map_err(|error| error.to_string())?;
    let introduction = Some((keys, Contact::Pinned(office.noise), "office"));
    // Boxed, so that a waiting station does not keep the memory of a handshake.
    let ((mut receiver, mut sender), _) = Box::pin(link::dial(stream, introduction)).await.map_err(words)?;
    let hello = FromStation::Hello {
        name: name(index),
        zones: Vec::new(),
        instance: index as u64,
        last: memory.last,
        nonce: Some([7; 16]),
        begun: None,
    };
    sender.send(&hello).await.map_err(words)?;
    let begun = Instant::now();
    let mut quick_pings: u32 = 0;
    let mut next_ping = begun + PING_INTERVAL;
    let mut clip: Option<Taking> = None;
    let mut end_of_playing: Option<Instant> = None;
    loop {
        let due = end_of_playing.map_or(next_ping, |end| end.min(next_ping));
        let frame = tokio::select! {
            biased;
            frame = receiver.next() => frame.map_err(words)?,
            () = sleep_until(due) => {
                if end_of_playing.is_some_and(|end| end <= Instant::now())
                    && let Some(receipt) = memory.last
                {
                    end_of_playing = None;
                    sender.send(&FromStation::Played(receipt)).await.map_err(words)?;
                } else {
                    let pause = match quick_pings {
                        0 => PING_INTERVAL,
                        1..=NEXT_PINGS => NEXT_PING_INTERVAL,
                        _ => FIRST_PING_INTERVAL,
                    };
                    quick_pings = quick_pings.saturating_sub(1);
                    next_ping = Instant::now() + pause;
                    let t1_us = begun.elapsed().as_micros() as u64;
                    sender.send(&FromStation::Ping { t1_us }).await.map_err(words)?;
                }
                continue;
            }
        };
        match frame.ok_or("the announcer closed the connection")? {
            Frame::Message(FromAnnouncer::Welcome { clock, .. }) => {
                let now = Instant::now();
                *joined = Some(now);
                let _ = news.send(News::Joined(now));
                if memory.clock.replace(clock) != Some(clock) {
                    quick_pings = FIRST_PINGS + NEXT_PINGS;
                    next_ping = Instant::now();
                }
            }
            Frame::Message(FromAnnouncer::Refused { reason }) => return Err(reason),
            Frame::Message(
                FromAnnouncer::LiveStart { .. }
                | FromAnnouncer::LiveBlock { .. }
                | FromAnnouncer::LiveEnd { .. },
            ) => return Err("nobody was to speak live".into()),
            Frame::Message(FromAnnouncer::Clip { header, signature, key }) => {
                let _ = news.send(News::Header(Instant::now()));
                clip = Some(Taking::new(office, &header, &signature, &key)?);
                receiver.expect_blocks(true);
            }
            Frame::Block(mut block) => {
                let taking = clip.as_mut().ok_or("a block without a clip")?;
                office.bytes_heard.fetch_add(block.len() as u64, Ordering::Relaxed);
                if taking.take(&mut block)? {
                    receiver.expect_blocks(false);
                    let clip = taking.header.id;
                    sender.send(&FromStation::Verified { clip, lead_us: LEAD_US }).await.map_err(words)?;
                    let _ = news.send(News::Verified(index, Instant::now()));
                }
            }
            // The station does not report its own lateness: only the announcer's figures are used.
            Frame::Message(FromAnnouncer::Behind { .. }) => (),
            Frame::Message(FromAnnouncer::PlayAt { clip: id, .. }) => {
                let taking = clip.as_ref().ok_or("an instant without a clip")?;
                let _ = news.send(News::Told);
                memory.last = Some(Receipt {
                    clip: id,
                    frames: taking.header.format.frames().into(),
                    start_error_us: 0,
                    max_error_us: 0,
                    underruns: 0,
                    uncertainty_us: 0,
                });
                sender.send(&FromStation::Playing { clip: id }).await.map_err(words)?;
                end_of_playing = Some(Instant::now() + office.plays);
            }
            Frame::Message(FromAnnouncer::Noted { .. }) => {
                let _ = news.send(News::Noted);
                return Ok(());
            }
            Frame::Message(FromAnnouncer::Yield) => return Err("nothing here is urgent".into()),
            Frame::Message(FromAnnouncer::Talkback(_)) => return Err("nobody here talks back".into()),
            Frame::Message(
                FromAnnouncer::Pong { .. } | FromAnnouncer::Time(_) | FromAnnouncer::Volume { .. },
            ) => (),
        }
    }
}

pub async fn connect(office: &Office, index: usize, announcer: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(network) = office.sources {
        socket.bind(SocketAddr::from((source(network, index), 0)))?;
    }
    let stream = socket.connect(announcer).await?;
    link::prepare(&stream)?;
    Ok(stream)
}

/// A clip that is being received.
struct Taking {
    header: ClipHeader,
    missing: usize,
    index: u32,
    opener: Option<(ClipOpener, Sha256)>,
}

impl Taking {
    fn new(office: &Office, header: &[u8], signature: &[u8], key: &[u8]) -> Result<Self, String> {
        let opener = match office.check() {
            Check::Framing => None,
            Check::Whole => {
                let signature = signature.try_into().map_err(|_| "no signature")?;
                if !seal::verify(&office.announcer, header, signature) {
                    return Err("the signature is wrong".into());
                }
                let key = ClipKey::from_bytes(key.try_into().map_err(|_| "no key")?);
                Some((ClipOpener::new(&key).map_err(|error| error.to_string())?, Sha256::new()))
            }
        };
        let header = ClipHeader::decode(header).map_err(|error| error.to_string())?;
        Ok(Self { missing: header.format.wav_bytes as usize, header, index: 0, opener })
    }

    /// Returns whether the clip is complete. An error means that it is not the clip of its header.
    fn take(&mut self, block: &mut [u8]) -> Result<bool, String> {
        let plain = block.len().saturating_sub(TAG_BYTES);
        if let Some((opener, hash)) = &mut self.opener {
            hash.update(opener.open_block(self.index, block).map_err(|error| error.to_string())?);
        }
        self.index += 1;
        self.missing = self.missing.checked_sub(plain).ok_or("more than the clip came")?;
        if self.missing > 0 {
            return Ok(false);
        }
        let is_right = self.opener.take().is_none_or(|(_, hash)| hash.finalize()[..] == self.header.sha256);
        if is_right { Ok(true) } else { Err("another hash".into()) }
    }
}
