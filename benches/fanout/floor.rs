//! The floor: the same bytes to the same number of sockets, read and acknowledged, and nothing else; and the
//! floor for stations that check what they read: the same, opened with ring and hashed with sha2.

use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bullhorn::clip_cipher::{ClipKey, ClipOpener, SealedClip};
use bullhorn::wire::{BLOCK_BYTES, TAG_BYTES};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::crowd::source;
use super::process::Process;

const READ_BYTES: usize = 64 * 1024;

/// The writing side, in a process of its own: takes `sockets` connections, and for each line on its
/// standard input writes a file's bytes to all of them and reads a byte back from each.
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

/// The clip that is sent, sealed as bullhorn seals it.
pub struct Load {
    file: tempfile::NamedTempFile,
    bytes: usize,
    key: ClipKey,
}

impl Load {
    /// A clip of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let sealed = SealedClip::seal(&vec![0x5a; bytes], BLOCK_BYTES).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(sealed.sealed()).unwrap();
        Self { file, bytes: sealed.sealed().len(), key: sealed.key().clone() }
    }
}

/// Times from the word to go to each station's acknowledgement, and processor time of both sides.
pub struct Floor {
    server: Process,
    streams: Vec<TcpStream>,
    bytes: usize,
    key: ClipKey,
}

impl Floor {
    pub async fn open(stations: usize, load: &Load) -> Self {
        let exe = std::env::current_exe().unwrap();
        let file = load.file.path().display().to_string();
        let mut server = Process::start(exe, &["floor-server".into(), stations.to_string(), file]);
        let port: u16 = server.line().await.parse().unwrap();
        let mut streams = Vec::new();
        for index in 0..stations {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from((source(index), 0))).unwrap();
            let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.unwrap();
            stream.set_nodelay(true).unwrap();
            streams.push(stream);
        }
        assert_eq!(server.line().await, "all are here");
        Self { server, streams, bytes: load.bytes, key: load.key.clone() }
    }

    /// With `check`, each station opens every block and hashes it.
    pub async fn run(&mut self, check: bool) -> (Vec<Duration>, Duration) {
        let bytes = self.bytes;
        let cpu = self.server.cpu() + super::process::own_cpu();
        let begun = Instant::now();
        let mut reading = JoinSet::new();
        for mut stream in self.streams.drain(..) {
            let key = self.key.clone();
            reading.spawn(async move {
                let mut missing = bytes;
                if check {
                    let (opener, mut hash, mut index) = (ClipOpener::new(&key).unwrap(), Sha256::new(), 0);
                    let mut buffer = vec![0; BLOCK_BYTES + TAG_BYTES];
                    while missing > 0 {
                        let block = &mut buffer[..missing.min(BLOCK_BYTES + TAG_BYTES)];
                        stream.read_exact(block).await.unwrap();
                        missing -= block.len();
                        hash.update(opener.open_block(index, block).unwrap());
                        index += 1;
                    }
                    std::hint::black_box(hash.finalize());
                } else {
                    let mut buffer = vec![0; READ_BYTES];
                    while missing > 0 {
                        let read = stream.read(&mut buffer).await.unwrap();
                        assert!(read > 0);
                        missing -= read;
                    }
                }
                stream.write_u8(1).await.unwrap();
                (stream, begun.elapsed())
            });
        }
        self.server.say("go").await;
        let (streams, mut times): (Vec<_>, Vec<_>) = reading.join_all().await.into_iter().unzip();
        assert_eq!(self.server.line().await, "done");
        self.streams = streams;
        times.sort();
        (times, self.server.cpu() + super::process::own_cpu() - cpu)
    }
}
