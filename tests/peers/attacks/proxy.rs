//! A man in the middle: it relays, records, and tampers with the bytes as the test asks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::peer::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The side whose bytes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Station,
    Announcer,
}

/// One of a side's pieces, which are its preface, its handshake messages, then its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// The piece with this number, counting all from 0.
    Any(usize),
    /// The block with this number, counting a clip's blocks from 0.
    Block(usize),
    /// The first frame other than a block after this many blocks.
    AfterBlocks(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Flips these bits of the byte that is this many thousandths into the piece.
    Flip(usize, u8),
    Drop,
    Duplicate,
    /// Sends the piece after the one that follows it.
    Reorder,
    /// Leaves out the last byte.
    Shorten,
    /// Ends the piece and the connection in the middle of the piece.
    Cut,
}

#[derive(Debug, Clone, Copy)]
pub struct Tampering {
    pub side: Side,
    pub piece: Piece,
    pub deed: Deed,
    /// The number of connections to tamper with.
    pub times: usize,
}

struct Inner {
    target: Mutex<SocketAddr>,
    tampering: Mutex<Option<Tampering>>,
    done: AtomicUsize,
    /// The bytes of the station and of the announcer, by connection.
    recorded: Mutex<Vec<[Vec<u8>; 2]>>,
    connections: watch::Sender<usize>,
    /// Answers stations with this instead of relaying.
    replay: Mutex<Option<Vec<u8>>>,
    cut: Mutex<CancellationToken>,
}

#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            target: Mutex::new(target),
            tampering: Mutex::new(None),
            done: AtomicUsize::new(0),
            recorded: Mutex::default(),
            connections: watch::Sender::new(0),
            replay: Mutex::default(),
            cut: Mutex::default(),
        });
        let shared = inner.clone();
        tokio::spawn(async move {
            while let Ok((station, _)) = listener.accept().await {
                tokio::spawn(relay(station, shared.clone()));
            }
        });
        Self { address, inner }
    }

    pub fn lead_to(&self, target: SocketAddr) {
        *self.inner.target.lock().unwrap() = target;
    }

    pub fn tamper(&self, tampering: Tampering) {
        self.inner.done.store(0, Ordering::SeqCst);
        *self.inner.tampering.lock().unwrap() = Some(tampering);
    }

    /// How often it has tampered.
    pub fn done(&self) -> usize {
        self.inner.done.load(Ordering::SeqCst)
    }

    pub fn replay(&self, bytes: Option<Vec<u8>>) {
        *self.inner.replay.lock().unwrap() = bytes;
    }

    /// Ends every open connection.
    pub fn cut(&self) {
        std::mem::take(&mut *self.inner.cut.lock().unwrap()).cancel();
    }

    /// The bytes of one side, connection by connection.
    pub fn recorded(&self, side: Side) -> Vec<Vec<u8>> {
        self.inner.recorded.lock().unwrap().iter().map(|both| both[side as usize].clone()).collect()
    }

    /// Waits until it has been dialled `times` more times.
    pub async fn dialled(&self, times: usize) {
        let mut connections = self.inner.connections.subscribe();
        let wanted = *connections.borrow_and_update() + times;
        let dialled = connections.wait_for(|count| *count >= wanted);
        timeout(PATIENCE, dialled).await.expect("it does not dial").unwrap();
    }

    pub fn forget(&self) {
        for both in self.inner.recorded.lock().unwrap().iter_mut() {
            both.iter_mut().for_each(Vec::clear);
        }
    }
}

async fn relay(station: TcpStream, inner: Arc<Inner>) {
    let connection = {
        let mut recorded = inner.recorded.lock().unwrap();
        recorded.push(Default::default());
        inner.connections.send_modify(|count| *count += 1);
        recorded.len() - 1
    };
    let cut = inner.cut.lock().unwrap().clone();
    station.set_nodelay(true).unwrap();
    let replay = inner.replay.lock().unwrap().clone();
    let (from_station, mut to_station) = station.into_split();
    if let Some(bytes) = replay {
        let mut pump = Pump::new(Side::Station, connection, inner);
        let (sink, _kept) = sink().await;
        let play = async {
            let _ = to_station.write_all(&bytes).await;
            pump.run(from_station, sink).await;
        };
        tokio::select! { () = play => (), () = cut.cancelled() => () }
        return;
    }
    let target = *inner.target.lock().unwrap();
    let Ok(announcer) = TcpStream::connect(target).await else { return };
    announcer.set_nodelay(true).unwrap();
    let (from_announcer, to_announcer) = announcer.into_split();
    let mut up = Pump::new(Side::Station, connection, inner.clone());
    let mut down = Pump::new(Side::Announcer, connection, inner);
    let ended = CancellationToken::new();
    let both = async {
        // The end of one direction is passed on as just that, unless the attacker ends the whole connection.
        tokio::join!(
            watched(up.run(from_station, to_announcer), &ended),
            watched(down.run(from_announcer, to_station), &ended),
        );
    };
    tokio::select! { () = both => (), () = cut.cancelled() => (), () = ended.cancelled() => () }
}

async fn watched(pump: impl Future<Output = bool>, ended: &CancellationToken) {
    if pump.await {
        ended.cancel();
    }
}

/// Somewhere to write bytes that nobody reads.
async fn sink() -> (OwnedWriteHalf, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut end, _) = listener.accept().await.unwrap();
    let drain = tokio::spawn(async move {
        let mut block = [0; 4096];
        while matches!(end.read(&mut block).await, Ok(1..)) {}
    });
    (stream.into_split().1, drain)
}

/// One direction of one connection, piece by piece.
struct Pump {
    side: Side,
    connection: usize,
    inner: Arc<Inner>,
    pending: Vec<u8>,
    pieces: usize,
    blocks: usize,
    held: Option<Vec<u8>>,
    tampered: bool,
}

impl Pump {
    fn new(side: Side, connection: usize, inner: Arc<Inner>) -> Self {
        Self { side, connection, inner, pending: vec![], pieces: 0, blocks: 0, held: None, tampered: false }
    }

    /// Relays until the end, and returns whether the attacker ended it.
    async fn run(&mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> bool {
        let mut block = vec![0; 65_536];
        loop {
            match from.read(&mut block).await {
                Ok(0) | Err(_) => return false,
                Ok(read) => self.pending.extend_from_slice(&block[..read]),
            }
            while let Some(piece) = self.take() {
                let (bytes, cut) = self.work_on(piece);
                self.inner.recorded.lock().unwrap()[self.connection][self.side as usize].extend(&bytes);
                if to.write_all(&bytes).await.is_err() || cut {
                    return cut;
                }
            }
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let opening: &[usize] = match self.side {
            Side::Station => &[12, 66, 64],
            Side::Announcer => &[12, 96],
        };
        let length = match opening.get(self.pieces) {
            Some(length) => *length,
            None => {
                let [_, high, low] = *self.pending.first_chunk::<3>()?;
                3 + usize::from(u16::from_be_bytes([high, low]))
            }
        };
        (self.pending.len() >= length).then(|| self.pending.drain(..length).collect())
    }

    fn is_due(&mut self, piece: &[u8]) -> Option<Deed> {
        let is_frame = self.pieces >= if self.side == Side::Station { 3 } else { 2 };
        let is_block = is_frame && piece[0] == 2;
        let tampering = *self.inner.tampering.lock().unwrap();
        let wanted = tampering.filter(|it| {
            it.side == self.side
                && !self.tampered
                && self.inner.done.load(Ordering::SeqCst) < it.times
                && match it.piece {
                    Piece::Any(at) => at == self.pieces,
                    Piece::Block(at) => is_block && at == self.blocks,
                    Piece::AfterBlocks(after) => is_frame && !is_block && self.blocks == after,
                }
        });
        self.pieces += 1;
        self.blocks += usize::from(is_block);
        let wanted = wanted?;
        self.tampered = true;
        self.inner.done.fetch_add(1, Ordering::SeqCst);
        Some(wanted.deed)
    }

    fn work_on(&mut self, mut piece: Vec<u8>) -> (Vec<u8>, bool) {
        let due = self.is_due(&piece);
        if let Some(held) = self.held.take() {
            piece.extend(held);
        }
        match due {
            None => (piece, false),
            Some(Deed::Flip(place, bits)) => {
                let at = (place * piece.len() / 1_000).min(piece.len() - 1);
                piece[at] ^= bits;
                (piece, false)
            }
            Some(Deed::Drop) => (vec![], false),
            Some(Deed::Duplicate) => (piece.repeat(2), false),
            Some(Deed::Reorder) => {
                self.held = Some(piece);
                (vec![], false)
            }
            Some(Deed::Shorten) => {
                piece.pop();
                (piece, false)
            }
            Some(Deed::Cut) => {
                piece.truncate(piece.len() / 2);
                (piece, true)
            }
        }
    }
}
