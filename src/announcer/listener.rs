//! The source of connections: a TCP socket, or anything else that stations can dial.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::link::Connection;

/// Too many open files, in this process or in the whole system (errno(3)).
const NO_DESCRIPTOR: [i32; 2] = [24, 23];
/// How long to wait for a connection that is known to be pending.
const PENDING: Duration = Duration::from_millis(10);

/// A source of connections.
pub trait Listen: Send + 'static {
    /// The type of its connections.
    type Connection: Connection;

    /// The address it listens on.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Waits for the next connection, and returns it with its address. Cancelling loses none.
    ///
    /// # Errors
    /// Whatever the system reports; the next call may succeed.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Connection, SocketAddr)>> + Send;

    /// After an error: accepts the connection that could not be accepted before, passes it to `turn_away`, and closes
    /// it. Returns false if that cannot be done.
    fn relieve(
        &mut self,
        error: &io::Error,
        turn_away: impl FnOnce(&Self::Connection) + Send,
    ) -> impl Future<Output = bool> + Send;
}

/// A listening TCP socket, and a file descriptor held in reserve for the moment when there are no more: with it, a
/// connection that would otherwise wait unanswered can still be accepted and asked to try again later.
#[derive(Debug)]
pub(super) struct TcpDoor {
    listener: TcpListener,
    spare: Option<File>,
}

impl TcpDoor {
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, spare: hold_back() }
    }
}

impl Listen for TcpDoor {
    type Connection = TcpStream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = self.listener.accept().await?;
        Ok((stream, canonical(address)))
    }

    async fn relieve(&mut self, error: &io::Error, turn_away: impl FnOnce(&TcpStream) + Send) -> bool {
        if !error.raw_os_error().is_some_and(|number| NO_DESCRIPTOR.contains(&number)) {
            return false;
        }
        drop(self.spare.take());
        let taken = match timeout(PENDING, self.listener.accept()).await {
            Ok(Ok((stream, _))) => {
                turn_away(&stream);
                true
            }
            _ => false,
        };
        self.spare = hold_back();
        taken
    }
}

fn hold_back() -> Option<File> {
    File::open("/dev/null").ok()
}

/// An address as people know it: a socket for both families shows IPv4 addresses inside IPv6 ones (RFC 4291, section
/// 2.5.5.2).
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}
