//! A peer that is played by the test, byte for byte, and both roles, run in this process.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bullhorn::announcer::{self, Summary};
use bullhorn::archive::{Archive, Retention};
use bullhorn::event::{Command, Event, Events, Missing};
use bullhorn::loudspeaker::{Loudspeaker, Output};
use bullhorn::membership::Membership;
use bullhorn::microphone::{Input, Microphone};
use bullhorn::site::Site;
use bullhorn::speaker;
use bullhorn::stations::STRAGGLER_WAIT;
use bullhorn::wire::{
    self, FrameHeader, FrameKind, FromAnnouncer, FromStation, Message, Mode, PREFACE_BYTES, Preface,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes; whatever exceeds it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn clip_of(frames: u32) -> Vec<i16> {
    (0..frames).map(|frame| (frame.wrapping_mul(7_919) >> 3) as i16).collect()
}

/// Encodes samples in the one form that a clip's WAV has.
pub fn wav(rate_hz: u32, samples: &[i16]) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: rate_hz,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    samples.iter().for_each(|&sample| writer.write_sample(sample).unwrap());
    writer.finalize().unwrap();
    bytes.into_inner()
}

/// The message that announces a clip in open mode.
pub fn clip_message(header: Vec<u8>) -> FromAnnouncer {
    FromAnnouncer::Clip { header, signature: vec![], key: vec![] }
}

/// A clip's block frames in open mode.
pub fn blocks(wav: &[u8]) -> Vec<u8> {
    wire::block_frames(wav.chunks(wire::BLOCK_BYTES))
}

/// The test's end of a connection; it reads messages of type `In`.
pub struct Raw<In> {
    pub stream: TcpStream,
    messages: PhantomData<In>,
}

pub type RawStation = Raw<FromAnnouncer>;
pub type RawAnnouncer = Raw<FromStation>;

/// Something that a raw peer reads: a message, a block, or the end of the connection, however it ended.
#[derive(Debug, PartialEq)]
pub enum Heard<In> {
    Message(In),
    Block(Vec<u8>),
    End,
}

impl<In: Message + std::fmt::Debug + PartialEq> Raw<In> {
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, messages: PhantomData }
    }

    /// Sends bytes. It is not a failure if the peer has hung up already.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the peer takes nothing");
    }

    pub async fn frame(&mut self, kind: u8, payload: &[u8]) {
        let [high, low] = (payload.len() as u16).to_be_bytes();
        self.bytes(&[&[kind, high, low], payload].concat()).await;
    }

    pub async fn say(&mut self, message: &impl Message) {
        let payload = wire::encode(message).unwrap();
        self.frame(1, &payload).await;
    }

    pub async fn preface(&mut self) -> Preface {
        let mut bytes = [0; PREFACE_BYTES];
        timeout(PATIENCE, self.stream.read_exact(&mut bytes)).await.expect("no preface").unwrap();
        Preface::decode(&bytes).unwrap()
    }

    pub async fn hear(&mut self) -> Heard<In> {
        self.hear_by(Instant::now() + PATIENCE).await
    }

    pub async fn hear_by(&mut self, deadline: Instant) -> Heard<In> {
        let read = async {
            let mut header = [0; 3];
            self.stream.read_exact(&mut header).await.ok()?;
            let header = FrameHeader::decode(header).unwrap();
            let mut payload = vec![0; header.length.into()];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(match header.kind {
                FrameKind::Message => Heard::Message(wire::decode(&payload).unwrap()),
                FrameKind::Block => Heard::Block(payload),
            })
        };
        timeout_at(deadline, read).await.expect("nothing was heard in time").unwrap_or(Heard::End)
    }

    /// Reads until the peer hangs up.
    pub async fn end(&mut self) {
        while self.hear().await != Heard::End {}
    }
}

impl RawStation {
    pub async fn dial(address: SocketAddr) -> Self {
        Self::over(timeout(PATIENCE, TcpStream::connect(address)).await.unwrap().unwrap())
    }

    /// Dials and exchanges prefaces, as a station that does not accept Behind does.
    pub async fn open(address: SocketAddr) -> Self {
        let mut peer = Self::dial(address).await;
        peer.bytes(&Preface { status: 0, ..Preface::of_station(Mode::Open) }.encode()).await;
        assert_eq!(peer.preface().await.status, 0);
        peer
    }

    /// Dials and joins the roster.
    pub async fn join(address: SocketAddr, name: &str, instance: u64) -> Self {
        let mut peer = Self::open(address).await;
        peer.say(&hello(name, instance)).await;
        let heard = peer.hear().await;
        assert!(matches!(heard, Heard::Message(FromAnnouncer::Welcome { .. })), "{heard:?}");
        peer
    }

    /// Waits for a clip, sending a sign of life every second. Reads its header and none of its blocks.
    pub async fn clip(&mut self) -> wire::ClipHeader {
        loop {
            match self.next().await {
                Heard::Message(FromAnnouncer::Clip { header, .. }) => {
                    return wire::ClipHeader::decode(&header).unwrap();
                }
                Heard::Message(FromAnnouncer::Pong { .. }) => (),
                other => panic!("no clip but {other:?}"),
            }
        }
    }

    /// Reads a whole clip, and returns its header and WAV.
    pub async fn whole_clip(&mut self) -> (wire::ClipHeader, Vec<u8>) {
        let header = self.clip().await;
        let mut wav = Vec::new();
        while wav.len() < header.format.wav_bytes as usize {
            match self.hear().await {
                Heard::Block(block) => wav.extend(block),
                Heard::Message(FromAnnouncer::Pong { .. }) => (),
                other => panic!("no block but {other:?}"),
            }
        }
        (header, wav)
    }

    /// The next message or block that is not a Pong. Sends a sign of life every second.
    pub async fn next(&mut self) -> Heard<FromAnnouncer> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            // Peeking can be cancelled without losing a byte.
            match timeout(Duration::from_secs(1), self.stream.peek(&mut [0])).await {
                Err(_) => self.say(&FromStation::Ping { t1_us: 1 }).await,
                Ok(_) => match self.hear().await {
                    Heard::Message(FromAnnouncer::Pong { .. }) => (),
                    heard => return heard,
                },
            }
        }
        panic!("nothing was heard in time")
    }
}

pub fn hello(name: &str, instance: u64) -> FromStation {
    FromStation::Hello { name: name.into(), zones: vec![], instance, last: None, nonce: None, begun: None }
}

/// All events that a role has emitted, and the test's position in them.
pub struct Log {
    events: mpsc::Receiver<Event>,
    pub seen: Vec<Event>,
    pub mark: usize,
}

impl Log {
    fn new(events: mpsc::Receiver<Event>) -> Self {
        Self { events, seen: Vec::new(), mark: 0 }
    }

    /// Waits for the first event since the mark that the test picks.
    pub async fn until<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let mut at = self.mark;
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(event) = self.seen.get(at) {
                if let Some(picked) = pick(event) {
                    return picked;
                }
                at += 1;
            }
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) => self.seen.push(event),
                _ => panic!("waiting for {what}; saw {:#?}", &self.seen[self.mark..]),
            }
        }
    }

    pub fn mark(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event);
        }
        self.mark = self.seen.len();
    }

    /// The number of events since the mark that the test picks.
    pub fn count(&self, pick: impl Fn(&Event) -> bool) -> usize {
        self.seen[self.mark..].iter().filter(|event| pick(event)).count()
    }
}

/// A real announcer in this process, whose microphone is a file.
pub struct Office {
    pub address: SocketAddr,
    pub wav: Vec<u8>,
    pub log: Log,
    commands: mpsc::Sender<Command>,
    running: JoinHandle<Summary>,
    dir: TempDir,
}

impl Office {
    pub async fn open(rate_hz: u32, samples: &[i16], keep: Duration) -> Self {
        Self::open_as(None, rate_hz, samples, keep).await
    }

    /// Opens an announcer with a site, or in open mode without one.
    pub async fn open_as(site: Option<Arc<Site>>, rate_hz: u32, samples: &[i16], keep: Duration) -> Self {
        Self::open_on("127.0.0.1:0", site, rate_hz, samples, keep, false).await
    }

    /// Opens an announcer at an address. With `hears`, stations may talk back, and [`Self::heard`] returns what they said.
    pub async fn open_on(
        address: &str,
        site: Option<Arc<Site>>,
        rate_hz: u32,
        samples: &[i16],
        keep: Duration,
        hears: bool,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spoken.wav");
        let wav = wav(rate_hz, samples);
        std::fs::write(&path, &wav).unwrap();
        let microphone = Microphone::open(&Input::File(path)).unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (commands, orders) = mpsc::channel(8);
        let (events, log) = Events::channel();
        let retention = Retention { age: Duration::from_secs(86_400), bytes: 1 << 30 };
        let talkback = hears.then(|| announcer::Hearing {
            loudspeaker: Loudspeaker::open(&Output::File(dir.path().join("heard"))).unwrap().shared(),
            archive: Archive::open(&dir.path().join("kept"), retention, events.clone()).unwrap(),
        });
        let config = announcer::Config {
            live: false,
            latency: announcer::DEFAULT_LATENCY,
            length: None,
            rate_hz: None,
            preparation: Default::default(),
            monitor: None,
            max_stations: announcer::DEFAULT_MAX_STATIONS,
            zones: vec![],
            priority: Default::default(),
            keep,
            wait: STRAGGLER_WAIT,
            once: None,
            lines: true,
            site,
            archive: None,
            talkback,
        };
        let running = tokio::spawn(async move {
            announcer::run(listener, microphone, config, orders, events, CancellationToken::new())
                .await
                .unwrap()
        });
        Self { address, wav, log: Log::new(log), commands, running, dir }
    }

    /// The talkback that its loudspeaker has played, and the talkback that it has kept, one entry per file.
    pub fn heard(&self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let all = |folder: &str| {
            let entries = std::fs::read_dir(self.dir.path().join(folder)).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path());
            let wavs = paths.filter(|path| path.extension().is_some_and(|kind| kind == "wav"));
            wavs.map(|path| std::fs::read(path).unwrap()).collect()
        };
        (all("heard"), all("kept"))
    }

    pub async fn joined(&mut self, name: &str) {
        let here = |event: &Event| {
            matches!(event, Event::StationJoined { station, .. } if station == name).then_some(())
        };
        self.log.until(&format!("{name} to join"), here).await;
    }

    pub async fn left(&mut self, name: &str) -> String {
        let gone = |event: &Event| match event {
            Event::StationLeft { station, reason } if station == name => Some(reason.clone()),
            _ => None,
        };
        self.log.until(&format!("{name} to leave"), gone).await
    }

    pub async fn announce(&mut self) {
        self.log.mark();
        self.commands.send(Command::Announce).await.unwrap();
    }

    /// Begins or ends live speech.
    pub async fn speak(&mut self) {
        self.commands.send(Command::Live).await.unwrap();
    }

    /// Waits for the verdict: how many stations played, how many were expected, and which did not play and why.
    pub async fn verdict(&mut self) -> (usize, usize, Vec<(String, String)>) {
        let done = |event: &Event| match event {
            Event::Done { played, expected, missing, .. } => Some((*played, *expected, missing.clone())),
            _ => None,
        };
        let (played, expected, missing): (_, _, Vec<Missing>) = self.log.until("the verdict", done).await;
        (played, expected, missing.into_iter().map(|it| (it.station, it.reason)).collect())
    }

    /// Leaves, and checks that it does so by itself.
    pub async fn close(self) -> bool {
        self.commands.send(Command::Leave).await.unwrap();
        timeout(PATIENCE, self.running).await.expect("the announcer does not leave").unwrap().all_heard
    }
}

/// A real station in this process, whose loudspeaker is a folder.
pub struct Hall {
    pub name: String,
    pub log: Log,
    dir: TempDir,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Hall {
    pub fn open(address: SocketAddr, name: &str) -> Self {
        Self::open_as(address, name, vec![], None)
    }

    /// Opens a station as a member of a site, or in open mode without one.
    pub fn open_as(
        address: SocketAddr,
        name: &str,
        zones: Vec<String>,
        membership: Option<Membership>,
    ) -> Self {
        Self::open_with(name, zones, vec![(address, membership)])
    }

    /// Opens a station with several announcers.
    pub fn open_with(
        name: &str,
        zones: Vec<String>,
        announcers: Vec<(SocketAddr, Option<Membership>)>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let loudspeaker = Loudspeaker::open(&Output::File(dir.path().into())).unwrap();
        let config = speaker::Config {
            announcers: announcers
                .into_iter()
                .map(|(address, membership)| speaker::Announcer {
                    host: address.ip().to_string(),
                    port: address.port(),
                    membership,
                })
                .collect(),
            name: name.into(),
            delay_us: 0,
            volume: Default::default(),
            zones,
            archive: None,
            talkback: None,
            is_attended: true,
        };
        let (events, log) = Events::channel();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let running = tokio::spawn(async move {
            speaker::run(config, loudspeaker, events, token).await.unwrap();
        });
        Self { name: name.into(), log: Log::new(log), dir, shutdown, running }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The files it has written so far, sorted by name.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    pub async fn played(&mut self) {
        let played = |event: &Event| matches!(event, Event::Played { .. }).then_some(());
        self.log.until("the page to be played", played).await;
    }

    pub async fn close(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.running).await.expect("the station does not leave").unwrap();
    }
}
