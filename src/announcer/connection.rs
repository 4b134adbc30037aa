//! One station's connection, as the announcer sees it: a task that carries messages between the
//! socket and the desk, and answers pings on its own.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::link::{self, AnnouncerLink, Frame, LinkError};
use crate::stations::{ConnectionId, Hello, Order};
use crate::wire::{FromAnnouncer, FromStation, Mode, WireError};

/// Orders that may wait for one connection; a clip needs three.
pub(super) const MAX_WAITING_ORDERS: usize = 8;

/// What a connection tells the desk.
#[derive(Debug)]
pub(super) enum Report {
    /// A station said hello; the desk answers with a welcome or a reason against it.
    Joined {
        connection: ConnectionId,
        hello: Hello,
        orders: mpsc::Sender<Order>,
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Any other message but a ping.
    Heard { connection: ConnectionId, message: FromStation },
    /// The connection is over.
    Left { connection: ConnectionId, reason: String },
    /// A peer never got as far as a hello.
    Stranger { address: SocketAddr, error: LinkError },
}

/// The announcer's clock, as its stations read it.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnnouncerClock {
    /// Where it counts from.
    pub base: Instant,
    /// Names this clock among those of other runs.
    pub id: u64,
}

impl AnnouncerClock {
    pub fn at_us(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Serves one accepted socket until it ends, and reports how it ended.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    connection: ConnectionId,
    clock: AnnouncerClock,
    desk: mpsc::Sender<Report>,
) {
    let opened = async {
        link::prepare(&stream)?;
        link::accept(stream, Mode::Open).await
    };
    let report = match opened.await {
        Err(error) => Report::Stranger { address, error },
        Ok(link) => match converse(link, address, connection, clock, &desk).await {
            Ok(reason) => Report::Left { connection, reason: reason.to_owned() },
            Err(error) => Report::Left { connection, reason: crate::error_chain(&error) },
        },
    };
    // The desk hangs up only when the whole program leaves.
    let _ = desk.send(report).await;
}

async fn converse(
    (mut receiver, mut sender): AnnouncerLink<TcpStream>,
    address: SocketAddr,
    connection: ConnectionId,
    clock: AnnouncerClock,
    desk: &mpsc::Sender<Report>,
) -> Result<&'static str, LinkError> {
    let hello = match receiver.next().await? {
        Some(Frame::Message(FromStation::Hello { name, zones, instance, last })) => {
            Hello { name, zones, instance, last, address: address.to_string() }
        }
        Some(_) => return Err(WireError::Field("hello").into()),
        None => return Ok("it closed the connection"),
    };
    let (orders, mut mailbox) = mpsc::channel(MAX_WAITING_ORDERS);
    let (answer, verdict) = oneshot::channel();
    let joined = Report::Joined { connection, hello, orders, answer };
    let (Ok(()), Ok(verdict)) = (desk.send(joined).await, verdict.await) else {
        return Ok("the announcer leaves");
    };
    if let Err(reason) = verdict {
        sender.send(&FromAnnouncer::Refused { reason }).await?;
        sender.close().await?;
        // A refused station closes when it has read why.
        while receiver.next().await?.is_some() {}
        return Ok("it was refused");
    }
    sender.send(&FromAnnouncer::Welcome { clock: clock.id }).await?;
    loop {
        tokio::select! {
            frame = receiver.next() => match frame? {
                Some(Frame::Message(FromStation::Ping { t1_us })) => {
                    let now_us = clock.at_us(Instant::now());
                    sender.send(&FromAnnouncer::Pong { t1_us, t2_us: now_us, t3_us: now_us }).await?;
                }
                Some(Frame::Message(message)) => {
                    let report = Report::Heard { connection, message };
                    if desk.send(report).await.is_err() {
                        return Ok("the announcer leaves");
                    }
                }
                Some(Frame::Block(_)) => return Err(WireError::FrameKind(2).into()),
                None => return Ok("it closed the connection"),
            },
            order = mailbox.recv() => match order {
                Some(Order::Deliver(delivery)) => {
                    sender.send(&FromAnnouncer::Clip { header: delivery.header.clone() }).await?;
                    sender.send_blocks(&delivery.frames).await?;
                }
                Some(Order::PlayAt { clip, at }) => {
                    let instant_us = clock.at_us(at);
                    sender.send(&FromAnnouncer::PlayAt { clip, instant_us }).await?;
                }
                Some(Order::Note(clip)) => {
                    sender.send(&FromAnnouncer::Noted { clip }).await?;
                    sender.close().await?;
                    while receiver.next().await?.is_some() {}
                    return Ok("it closed the connection");
                }
                Some(Order::Drop) | None => return Ok("the announcer closed the connection"),
            },
        }
    }
}
