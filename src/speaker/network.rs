//! How a station reaches its announcer: over TCP, or over any other network.

use std::io;

use tokio::net::TcpStream;

use super::directory::Directory;
use crate::link::Connection;

/// The network as a station uses it.
pub trait Network: Send {
    /// The connection that a dial makes.
    type Connection: Connection;

    /// Finds the announcer's machine, before the first dial.
    ///
    /// # Errors
    /// The system's error.
    fn find(&mut self, host: &str, port: u16) -> impl Future<Output = io::Result<()>> + Send;

    /// Connects to the announcer's machine.
    ///
    /// # Errors
    /// The system's error.
    fn connect(&mut self) -> impl Future<Output = io::Result<Self::Connection>> + Send;

    /// Records whether the announcer was at the other end of the last connection, for the next dial.
    fn learn(&mut self, _is_announcer: bool) {}

    /// Returns a random number, which spreads out stations that would all dial at once.
    fn random(&mut self) -> u32;
}

/// The system's TCP.
#[derive(Debug, Default)]
pub(super) struct Tcp(Option<Directory>);

impl Network for Tcp {
    type Connection = TcpStream;

    async fn find(&mut self, host: &str, port: u16) -> io::Result<()> {
        self.0 = Some(Directory::find(host, port).await?);
        Ok(())
    }

    async fn connect(&mut self) -> io::Result<TcpStream> {
        match &mut self.0 {
            Some(directory) => directory.connect().await,
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    fn learn(&mut self, is_announcer: bool) {
        if let Some(directory) = &mut self.0 {
            directory.learn(is_announcer);
        }
    }

    fn random(&mut self) -> u32 {
        getrandom::u32().unwrap_or(u32::MAX / 2)
    }
}
