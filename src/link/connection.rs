//! The carrier of a link: a TCP connection, or anything else that carries bytes both ways.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::SILENCE_DEADLINE;
use super::frames::BlockFrames;

/// How sockets share a line (`tcp(7)`, `TCP_CONGESTION`): the default of most systems. Where a system's default paces
/// sockets instead (BBR), a thousand timers cost more than sending a clip's bytes, and some stations get the clip a
/// third later than others.
#[cfg(target_os = "linux")]
const EVEN_SHARES: &[u8] = b"cubic";

/// A stream of bytes both ways, in order.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The incoming half.
    type Incoming: AsyncRead + Unpin + Send + 'static;
    /// The outgoing half.
    type Outgoing: Outgoing + 'static;

    /// Sets the options that a link needs.
    ///
    /// # Errors
    /// The system's error.
    fn prepare(&self) -> io::Result<()>;

    /// Sends a few last bytes if that needs no waiting. It does not check whether the peer reads them.
    fn part_with(&self, words: &[u8]);

    /// Splits it into its two directions.
    fn into_halves(self) -> (Self::Incoming, Self::Outgoing);
}

/// The outgoing half of a connection.
pub trait Outgoing: AsyncWrite + Unpin + Send {
    /// Writes at most `bytes` bytes of a clip's frames, starting at `from`, and returns how many the connection
    /// accepted.
    ///
    /// # Errors
    /// The system's error.
    fn write_frames(
        &mut self,
        frames: &BlockFrames,
        from: usize,
        bytes: usize,
    ) -> impl Future<Output = io::Result<usize>> + Send {
        async move { self.write(&frames.piece(from, bytes)?).await }
    }
}

impl Connection for TcpStream {
    type Incoming = OwnedReadHalf;
    type Outgoing = OwnedWriteHalf;

    fn prepare(&self) -> io::Result<()> {
        prepare(self)
    }

    fn part_with(&self, words: &[u8]) {
        let _ = self.try_write(words);
    }

    fn into_halves(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        self.into_split()
    }
}

impl Outgoing for OwnedWriteHalf {
    #[cfg(target_os = "linux")]
    async fn write_frames(&mut self, frames: &BlockFrames, from: usize, bytes: usize) -> io::Result<usize> {
        let Some(file) = frames.file() else { return self.write(&frames.piece(from, bytes)?).await };
        let stream: &TcpStream = self.as_ref();
        let sending = || {
            let mut offset = from as u64;
            Ok(rustix::fs::sendfile(stream, file, Some(&mut offset), bytes)?)
        };
        stream.async_io(tokio::io::Interest::WRITABLE, sending).await
    }
}

/// A half that cannot send from a file copies the bytes.
impl<C: Connection> Outgoing for WriteHalf<C> {}

/// Sets the options of every socket: no delay for small messages, a timeout when sent data is not acknowledged for
/// [`SILENCE_DEADLINE`], and even shares of the line.
///
/// # Errors
/// The system's error.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(Some(SILENCE_DEADLINE))?;
        // Where the system does not have it, its default will do.
        let _ = socket.set_tcp_congestion(EVEN_SHARES);
    }
    let _ = socket;
    Ok(())
}

#[cfg(test)]
impl Connection for tokio::io::DuplexStream {
    type Incoming = tokio::io::ReadHalf<Self>;
    type Outgoing = WriteHalf<Self>;

    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    fn part_with(&self, _: &[u8]) {}

    fn into_halves(self) -> (Self::Incoming, Self::Outgoing) {
        tokio::io::split(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_clip_arrives_alike_from_a_file_and_from_own_memory() {
        let bytes: Vec<u8> =
            (0..3_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for frames in [BlockFrames::from(bytes.clone()), BlockFrames::in_own_memory(bytes.clone())] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut station = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (_, mut outgoing) = listener.accept().await.unwrap().0.into_halves();
            let sending = async {
                let mut sent = 0;
                while sent < frames.len() {
                    sent += outgoing.write_frames(&frames, sent, 64 * 1024).await.unwrap();
                }
                outgoing.shutdown().await.unwrap();
            };
            let mut heard = Vec::new();
            let (_, read) = tokio::join!(sending, station.read_to_end(&mut heard));
            read.unwrap();
            assert!(heard == bytes);
        }
    }
}
