//! What bad stations cost the others: pages to the same crowd with and without them, in turns, in one run.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bullhorn::handshake::Contact;
use bullhorn::keys::NoiseKeys;
use bullhorn::link::{self, Connection, Frame, PING_INTERVAL};
use bullhorn::wire::{ClipId, FromAnnouncer, FromStation};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::crowd::{self, News, Office};
use super::measure::{Crowd, Page, SECONDS, announcer_with, site};
use super::process::Process;

/// In what way a station is bad.
#[derive(Debug, Clone, Copy)]
enum Bad {
    /// Reads nothing of a clip, but keeps sending signs of life.
    Stalled,
    /// Reads one byte of it per second.
    Slow,
    /// Is welcomed, and then never heard from again.
    HalfOpen,
    /// Sends messages out of turn as fast as it can, and dials again whenever it is thrown out.
    Hostile,
}

/// How long a page waits for a bad station.
const KEEP_SECONDS: u32 = 3;

const ALL: [Bad; 4] = [Bad::Stalled, Bad::Slow, Bad::HalfOpen, Bad::Hostile];

/// Misbehaves in this way, again and again.
async fn misbehave(
    index: usize,
    bad: Bad,
    keys: NoiseKeys,
    office: Arc<Office>,
    joined: mpsc::UnboundedSender<()>,
) {
    loop {
        let _ = misbehave_once(index, bad, &keys, &office, &joined).await;
        sleep(Duration::from_millis(50)).await;
    }
}

async fn misbehave_once(
    index: usize,
    bad: Bad,
    keys: &NoiseKeys,
    office: &Office,
    joined: &mpsc::UnboundedSender<()>,
) -> Option<()> {
    let announcer = SocketAddr::from((office.address, office.port.load(Ordering::Relaxed)));
    let stream = crowd::connect(office, index, announcer).await.ok()?;
    socket2::SockRef::from(&stream).set_recv_buffer_size(4_096).ok()?;
    let is_slow = Arc::new(AtomicBool::new(false));
    let stream = Dripping { stream, is_slow: is_slow.clone(), next: Box::pin(sleep(Duration::ZERO)) };
    let introduction = Some((keys, Contact::Pinned(office.noise), "office"));
    let ((mut receiver, mut sender), _) = Box::pin(link::dial(stream, introduction)).await.ok()?;
    let hello = FromStation::Hello {
        begun: None,
        name: crowd::name(index),
        zones: Vec::new(),
        instance: index as u64,
        last: None,
        nonce: Some([7; 16]),
    };
    sender.send(&hello).await.ok()?;
    while !matches!(receiver.next().await.ok()??, Frame::Message(FromAnnouncer::Welcome { .. })) {}
    let _ = joined.send(());
    match bad {
        Bad::HalfOpen => std::future::pending().await,
        Bad::Hostile => loop {
            sender
                .send(&FromStation::Verified { clip: ClipId { epoch: 1, sequence: 1 }, lead_us: u32::MAX })
                .await
                .ok()?;
        },
        Bad::Stalled | Bad::Slow => {
            let is_clip = |frame: &Frame<_>| matches!(frame, Frame::Message(FromAnnouncer::Clip { .. }));
            loop {
                match timeout(PING_INTERVAL, receiver.next()).await {
                    Ok(frame) => {
                        if is_clip(&frame.ok()??) {
                            break;
                        }
                    }
                    Err(_) => sender.send(&FromStation::Ping { t1_us: 1 }).await.ok()?,
                }
            }
            receiver.expect_blocks(true);
            is_slow.store(true, Ordering::Relaxed);
            loop {
                sender.send(&FromStation::Ping { t1_us: 1 }).await.ok()?;
                match bad {
                    Bad::Slow => drop(timeout(PING_INTERVAL, receiver.next()).await),
                    _ => sleep(PING_INTERVAL).await,
                }
            }
        }
    }
}

/// A stream that can be slowed to one byte per second.
struct Dripping {
    stream: TcpStream,
    is_slow: Arc<AtomicBool>,
    next: Pin<Box<Sleep>>,
}

impl AsyncRead for Dripping {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_slow.load(Ordering::Relaxed) {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        ready!(self.next.as_mut().poll(context));
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut one))?;
        into.put_slice(one.filled());
        self.next.as_mut().reset(Instant::now() + Duration::from_secs(1));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dripping {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connection for Dripping {
    type Incoming = ReadHalf<Self>;
    type Outgoing = WriteHalf<Self>;

    fn prepare(&self) -> io::Result<()> {
        self.stream.prepare()
    }

    fn part_with(&self, words: &[u8]) {
        self.stream.part_with(words);
    }

    fn into_halves(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        tokio::io::split(self)
    }
}

/// The delivery times of one page to the honest stations, in seconds.
async fn page(process: &mut Process, crowd: &mut Crowd) -> Vec<f64> {
    let stations = crowd.stations;
    process.say("").await;
    let mut page = Page::default();
    let recorded = loop {
        let (at, line) = process.stamped_line().await;
        if line.contains("\"event\":\"recorded\"") {
            break at;
        }
    };
    crowd.until(&mut page, "the clip", |page| page.verified.len() >= stations).await;
    let begun = page.first_header.map_or(recorded, |first| first.min(recorded));
    let times = page.verified.values().map(|at| (*at - begun).as_secs_f64()).collect();
    crowd.until(&mut page, "all to be back", |page| page.joined >= stations && page.noted >= stations).await;
    loop {
        let event: Value = serde_json::from_str(&process.line().await).unwrap();
        if event["event"] == "done" {
            return times;
        }
    }
}

fn p99(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() as f64 * share).ceil() as usize).saturating_sub(1)];
    (at(0.5), at(0.99))
}

pub async fn measure(stations: usize, repeat: usize) {
    let (folder, keys, mut station_keys) = site(stations + ALL.len());
    let bad_keys = station_keys.split_off(stations);
    // A page is done once the bad stations have missed it.
    let (mut process, port, _) =
        announcer_with(folder.path(), "127.0.0.1:0", "", &[format!("--keep={KEEP_SECONDS}")]).await;
    let office = Arc::new(Office {
        address: Ipv4Addr::LOCALHOST,
        port: AtomicU16::new(port),
        noise: keys.noise().public(),
        announcer: keys.id(),
        whole: AtomicBool::new(true),
        plays: Duration::from_secs(SECONDS.into()) / 10,
        bytes_heard: AtomicU64::new(0),
        sources: Some(crowd::LOOPBACK),
    });
    let (sender, news) = mpsc::unbounded_channel::<News>();
    let mut tasks = JoinSet::new();
    for (index, keys) in station_keys.into_iter().enumerate() {
        tasks.spawn(crowd::station(index, keys, office.clone(), sender.clone()));
    }
    let mut crowd = Crowd { stations, news, lost: Vec::new(), failed: 0 };
    crowd.until(&mut Page::default(), "all to join", |page| page.joined >= stations).await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    // The first page pays for things that later pages find ready.
    page(&mut process, &mut crowd).await;
    let began = Instant::now();
    for _ in 0..repeat {
        without.extend(page(&mut process, &mut crowd).await);
        let (joined, mut bad_joined) = mpsc::unbounded_channel();
        let mut bad = JoinSet::new();
        for (number, (kind, keys)) in ALL.into_iter().zip(&bad_keys).enumerate() {
            bad.spawn(misbehave(stations + number, kind, keys.clone(), office.clone(), joined.clone()));
        }
        for _ in ALL {
            bad_joined.recv().await;
        }
        with.extend(page(&mut process, &mut crowd).await);
        bad.shutdown().await;
        sleep(Duration::from_millis(500)).await;
    }
    let ((p50, p99_without), (p50_with, p99_with)) = (p99(without), p99(with));
    println!(
        "{stations} stations, {repeat} pages each way in {:.0} s: without bad stations p50 {p50:.3} s, p99 {p99_without:.3} s; with a \
         stalled, a slow, a half-open and a hostile one p50 {p50_with:.3} s, p99 {p99_with:.3} s: {:+.1} % at p99; \
         honest links lost: {}",
        began.elapsed().as_secs_f64(),
        (p99_with / p99_without - 1.0) * 100.0,
        crowd.lost.len()
    );
    process.kill().await;
}
