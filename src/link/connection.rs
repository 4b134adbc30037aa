//! What carries a link: a TCP connection, or whatever else takes bytes there and back.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::SILENCE_DEADLINE;

/// Bytes there and back, in order.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Sets what a link needs of it.
    ///
    /// # Errors
    /// What the system says.
    fn prepare(&self) -> io::Result<()>;

    /// Sends a few last bytes, if that takes no waiting. Whether they are read is the other's affair.
    fn part_with(&self, words: &[u8]);
}

impl Connection for TcpStream {
    fn prepare(&self) -> io::Result<()> {
        prepare(self)
    }

    fn part_with(&self, words: &[u8]) {
        let _ = self.try_write(words);
    }
}

/// Sets what every socket of ours has: no delay for small messages, and an end when what was sent is not
/// acknowledged for [`SILENCE_DEADLINE`].
///
/// # Errors
/// What the system says.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENCE_DEADLINE))?;
    let _ = socket;
    Ok(())
}
