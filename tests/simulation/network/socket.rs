//! The network as a program sees it: a listener, a dialler, and both ends of a connection.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bullhorn::announcer::Listen;
use bullhorn::link::Connection;
use bullhorn::speaker::Network;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::{EndId, Item, Machine, Net, PORT, WINDOW_BYTES, address_of};

/// Where the announcer's connections arrive.
pub struct Listener {
    pub(super) arrivals: mpsc::UnboundedReceiver<(Stream, SocketAddr)>,
}

impl Listen for Listener {
    type Connection = Stream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(address_of(0), PORT))
    }

    async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        match self.arrivals.recv().await {
            Some(arrival) => Ok(arrival),
            None => pending().await,
        }
    }

    async fn relieve(&mut self, _: &io::Error, _: impl FnOnce(&Stream) + Send) -> bool {
        false
    }
}

/// The network as one station sees it.
pub struct Uplink {
    pub net: Net,
    pub machine: Machine,
}

impl Network for Uplink {
    type Connection = Stream;

    async fn find(&mut self, _: &str, _: u16) -> io::Result<()> {
        Ok(())
    }

    async fn connect(&mut self) -> io::Result<Stream> {
        self.net.dial(self.machine, 0).await
    }

    fn random(&mut self) -> u32 {
        self.net.lock().dice.u32(..)
    }
}

/// A connection as one process sees it.
pub struct Stream {
    pub(super) net: Net,
    pub(super) end: EndId,
}

impl Stream {
    fn machine(&self) -> Machine {
        self.net.lock().ends[self.end].machine
    }
}

impl Connection for Stream {
    type Incoming = ReadHalf<Self>;
    type Outgoing = WriteHalf<Self>;

    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    fn part_with(&self, _: &[u8]) {}

    fn into_halves(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        tokio::io::split(self)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let machine = self.machine();
        {
            let mut world = self.net.lock();
            let end = &mut world.ends[self.end];
            if end.is_frozen {
                return Poll::Pending;
            }
            if end.incoming.is_empty() {
                if let Some(error) = end.error {
                    return Poll::Ready(Err(error.into()));
                }
                if end.is_finished {
                    return Poll::Ready(Ok(()));
                }
                end.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        if self.net.touch(machine) {
            return Poll::Pending;
        }
        {
            let mut world = self.net.lock();
            let incoming = &mut world.ends[self.end].incoming;
            let Some(mut first) = incoming.pop_front() else { return Poll::Pending };
            let count = buffer.remaining().min(first.len());
            buffer.put_slice(&first.split_to(count));
            if !first.is_empty() {
                incoming.push_front(first);
            }
        }
        self.net.touched(machine);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let machine = self.machine();
        {
            let mut world = self.net.lock();
            let end = &mut world.ends[self.end];
            if end.is_frozen {
                return Poll::Pending;
            }
            if let Some(error) = end.error {
                return Poll::Ready(Err(error.into()));
            }
            if end.unacknowledged >= WINDOW_BYTES {
                end.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        if self.net.touch(machine) {
            return Poll::Pending;
        }
        let count = {
            let mut world = self.net.lock();
            let end = &mut world.ends[self.end];
            let count = bytes.len().min(end.segment_bytes).min(WINDOW_BYTES - end.unacknowledged);
            end.outgoing.push_back(Item::Data(bytes[..count].into()));
            end.unacknowledged += count;
            end.news.notify_one();
            count
        };
        self.net.touched(machine);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut world = self.net.lock();
        let end = &mut world.ends[self.end];
        if !end.is_frozen && !std::mem::replace(&mut end.is_shut, true) {
            end.outgoing.push_back(Item::Fin);
            end.news.notify_one();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    /// A socket that is closed with unread bytes in it is reset, and whatever it had not sent yet is lost.
    fn drop(&mut self) {
        let Ok(mut world) = self.net.0.lock() else { return };
        let end = &mut world.ends[self.end];
        end.is_held = false;
        if end.error.is_none() && !end.incoming.is_empty() {
            end.outgoing.clear();
            end.outgoing.push_back(Item::Reset);
        } else if end.error.is_none() && !end.is_shut {
            end.outgoing.push_back(Item::Fin);
        }
        end.is_shut = true;
        end.news.notify_one();
    }
}
