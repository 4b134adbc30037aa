//! The floor: the same bytes to the same number of sockets, read and acknowledged, and nothing else. Also the floors
//! for stations that check what they read: the same bytes hashed with sha2, and the same opened with ring and then hashed.

use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bullhorn::clip_cipher::{ClipKey, ClipOpener, SealedClip};
use bullhorn::wire::{BLOCK_BYTES, TAG_BYTES};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::crowd::source;
use super::process::Process;

const READ_BYTES: usize = 64 * 1024;

/// What the reading side does with what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Counts it.
    Count,
    /// Hashes it.
    Hash,
    /// Opens (decrypts) it, and hashes the plaintext.
    OpenAndHash,
}

impl Work {
    const ALL: [(Self, &str); 3] =
        [(Self::Count, "count"), (Self::Hash, "hash"), (Self::OpenAndHash, "open-and-hash")];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(work, _)| *work == self).unwrap().1
    }

    fn of(word: &str) -> Self {
        Self::ALL.iter().find(|(_, other)| *other == word).unwrap().0
    }
}

/// The writing side, in a process of its own: accepts `sockets` connections, and for each line on its standard input
/// writes a file's bytes to all of them and reads a byte back from each.
pub fn serve(sockets: usize, file: &str) {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let listener = socket.listen(4096).unwrap();
        say(&listener.local_addr().unwrap().port().to_string());
        let mut streams = Vec::new();
        for _ in 0..sockets {
            streams.push(listener.accept().await.unwrap().0);
        }
        say("all are here");
        let data: Arc<[u8]> = std::fs::read(file).unwrap().into();
        while tokio::task::spawn_blocking(line).await.unwrap() {
            let mut writing = JoinSet::new();
            for mut stream in streams.drain(..) {
                let data = data.clone();
                writing.spawn(async move {
                    for piece in data.chunks(READ_BYTES) {
                        stream.write_all(piece).await.unwrap();
                    }
                    stream.read_u8().await.unwrap();
                    stream
                });
            }
            streams = writing.join_all().await;
            say("done");
        }
    });
}

fn line() -> bool {
    std::io::stdin().lock().read_line(&mut String::new()).is_ok_and(|bytes| bytes > 0)
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// The reading side, in a process of its own: makes `sockets` connections, and for each line on its standard input
/// reads the clip from all of them, acknowledges it, and prints after how many microseconds each had it.
pub fn read(sockets: usize, port: u16, bytes: usize, work: &str, key: &str) {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let work = Work::of(work);
    let key = ClipKey::from_bytes(HEXLOWER.decode(key.as_bytes()).unwrap().try_into().unwrap());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut streams = Vec::new();
        for index in 0..sockets {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from((source(super::crowd::LOOPBACK, index), 0))).unwrap();
            let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.unwrap();
            stream.set_nodelay(true).unwrap();
            streams.push(stream);
        }
        while tokio::task::spawn_blocking(line).await.unwrap() {
            let begun = Instant::now();
            let mut reading = JoinSet::new();
            for mut stream in streams.drain(..) {
                let key = key.clone();
                reading.spawn(async move {
                    take(&mut stream, bytes, work, &key).await;
                    stream.write_u8(1).await.unwrap();
                    (stream, begun.elapsed().as_micros().to_string())
                });
            }
            say("reading");
            let times: Vec<String>;
            (streams, times) = reading.join_all().await.into_iter().unzip();
            say(&times.join(" "));
        }
    });
}

async fn take(stream: &mut TcpStream, bytes: usize, work: Work, key: &ClipKey) {
    let mut missing = bytes;
    if work == Work::Count {
        let mut buffer = vec![0; READ_BYTES];
        while missing > 0 {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0);
            missing -= read;
        }
        return;
    }
    let (opener, mut hash, mut index) = (ClipOpener::new(key).unwrap(), Sha256::new(), 0);
    let mut buffer = vec![0; BLOCK_BYTES + TAG_BYTES];
    while missing > 0 {
        let block = &mut buffer[..missing.min(BLOCK_BYTES + TAG_BYTES)];
        stream.read_exact(block).await.unwrap();
        missing -= block.len();
        match work {
            Work::OpenAndHash => hash.update(opener.open_block(index, block).unwrap()),
            _ => hash.update(block),
        }
        index += 1;
    }
    std::hint::black_box(hash.finalize());
}

/// The clip that is sent, sealed as bullhorn seals it.
pub struct Load {
    file: tempfile::NamedTempFile,
    bytes: usize,
    key: String,
}

impl Load {
    /// Creates a clip of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        let sealed = SealedClip::seal(&vec![0x5a; bytes], BLOCK_BYTES).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(sealed.sealed()).unwrap();
        Self { file, bytes: sealed.sealed().len(), key: HEXLOWER.encode(sealed.key().as_bytes()) }
    }
}

/// Runs both sides once, and returns when each station had the clip, and the processor time of both sides.
pub async fn run(stations: usize, load: &Load, work: Work) -> (Vec<Duration>, Duration) {
    let exe = std::env::current_exe().unwrap();
    let file = load.file.path().display().to_string();
    let mut server = Process::start(&exe, &["floor-server".into(), stations.to_string(), file]);
    let port = server.line().await;
    let (numbers, bytes) = (stations.to_string(), load.bytes.to_string());
    let words = ["floor-reader".into(), numbers, port, bytes, work.word().into(), load.key.clone()];
    let mut reader = Process::start(&exe, &words);
    assert_eq!(server.line().await, "all are here");
    let cpu = server.cpu() + reader.cpu();
    reader.say("go").await;
    assert_eq!(reader.line().await, "reading");
    server.say("go").await;
    let told = reader.line().await;
    let mut times: Vec<Duration> =
        told.split(' ').map(|micros| Duration::from_micros(micros.parse().unwrap())).collect();
    assert_eq!(server.line().await, "done");
    times.sort();
    (times, server.cpu() + reader.cpu() - cpu)
}
