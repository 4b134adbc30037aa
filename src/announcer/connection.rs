//! One station's connection, as the announcer sees it: a task that carries messages between the
//! socket and the desk, and answers pings on its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::door::Place;
use crate::link::{self, AnnouncerLink, Frame, LinkError, Peer, Receiver, Sender};
use crate::site::Site;
use crate::stations::{ConnectionId, Delivery, Hello, Order};
use crate::wire::{FromAnnouncer, FromStation, Mode, Preface, Status, WireError};

/// Orders that may wait for one connection; a clip needs three.
pub(super) const MAX_WAITING_ORDERS: usize = 8;

/// How much of a clip is handed over before looking how far the others are.
const PIECE_BYTES: usize = 64 * 1024;
/// How long a station has to hang up once it was told the last word.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// What a connection tells the desk.
#[derive(Debug)]
pub(super) enum Report {
    /// A station said hello; the desk answers with a welcome or a reason against it.
    Joined {
        connection: ConnectionId,
        hello: Hello,
        peer: Option<Peer>,
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

/// What every connection needs of its announcer.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub clock: AnnouncerClock,
    pub site: Option<Arc<Site>>,
    pub desk: mpsc::Sender<Report>,
}

/// Serves one accepted socket until it ends, and reports how it ended.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    connection: ConnectionId,
    place: Place,
    host: Host,
) {
    let opened = async {
        link::prepare(&stream)?;
        link::accept(stream, host.site.as_deref()).await
    };
    let opened = tokio::select! {
        opened = opened => opened,
        () = place.pushed() => return,
    };
    let report = match opened {
        Err(error) => Report::Stranger { address, error },
        // Boxed, so that strangers do not hold the memory of a conversation.
        Ok((link, peer)) => match Box::pin(converse(link, peer, address, connection, place, &host)).await {
            Ok(reason) => Report::Left { connection, reason: reason.to_owned() },
            Err(error) => Report::Left { connection, reason: crate::error_chain(&error) },
        },
    };
    // The desk hangs up only when the whole program leaves.
    let _ = host.desk.send(report).await;
}

/// Tells a connection for which there is no room to come again, if that costs nothing.
pub(super) fn turn_away(stream: &TcpStream, is_secured: bool) {
    let mode = if is_secured { Mode::Secured } else { Mode::Open };
    // Whether it is read is the other's affair.
    let _ = stream.try_write(&Preface::of_announcer(mode, Status::Busy).encode());
}

async fn converse(
    (mut receiver, mut sender): AnnouncerLink<TcpStream>,
    peer: Option<Peer>,
    address: SocketAddr,
    connection: ConnectionId,
    place: Place,
    host: &Host,
) -> Result<&'static str, LinkError> {
    let Host { clock, site, desk } = host;
    let site = site.as_deref();
    let first = tokio::select! {
        first = receiver.next() => first?,
        () = place.pushed() => return Ok("others needed its place"),
    };
    let (hello, nonce) = match first {
        Some(Frame::Message(FromStation::Hello { name, zones, instance, last, nonce })) => {
            (Hello { name, zones, instance, last, address: address.to_string() }, nonce)
        }
        Some(_) => return Err(WireError::Field("hello").into()),
        None => return Ok("it closed the connection"),
    };
    drop(place);
    let (orders, mut mailbox) = mpsc::channel(MAX_WAITING_ORDERS);
    let (answer, verdict) = oneshot::channel();
    let joined = Report::Joined { connection, hello, peer, orders, answer };
    let (Ok(()), Ok(verdict)) = (desk.send(joined).await, verdict.await) else {
        return Ok("the announcer leaves");
    };
    if let Err(reason) = verdict {
        sender.send(&FromAnnouncer::Refused { reason }).await?;
        sender.close().await?;
        return hung_up(receiver, "it was refused").await;
    }
    let site_and_time = site.zip(nonce).map(|(site, nonce)| (site.announcer(), site.state_time(nonce)));
    sender.send(&FromAnnouncer::Welcome { clock: clock.id, site: site_and_time }).await?;
    loop {
        tokio::select! {
            frame = receiver.next() => match frame? {
                Some(Frame::Message(FromStation::Ping { t1_us })) => {
                    let now_us = clock.at_us(Instant::now());
                    sender.send(&FromAnnouncer::Pong { t1_us, t2_us: now_us, t3_us: now_us }).await?;
                }
                Some(Frame::Message(FromStation::AskTime { nonce })) => match site {
                    Some(site) => sender.send(&FromAnnouncer::Time(site.state_time(nonce))).await?,
                    None => return Err(WireError::Field("time").into()),
                },
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
                    sender.send(&delivery.message()).await?;
                    tokio::select! {
                        sent = send_blocks(&mut sender, &delivery) => sent?,
                        // Before the last block is out, no order but to end it can come.
                        _ = mailbox.recv() => return Ok("the announcer closed the connection"),
                    }
                }
                Some(Order::PlayAt { clip, at }) => {
                    let instant_us = clock.at_us(at);
                    sender.send(&FromAnnouncer::PlayAt { clip, instant_us }).await?;
                }
                Some(Order::Note(clip)) => {
                    sender.send(&FromAnnouncer::Noted { clip }).await?;
                    sender.close().await?;
                    return hung_up(receiver, "it closed the connection").await;
                }
                Some(Order::Drop) | None => return Ok("the announcer closed the connection"),
            },
        }
    }
}

async fn send_blocks(
    sender: &mut Sender<WriteHalf<TcpStream>, FromAnnouncer>,
    delivery: &Delivery,
) -> Result<(), LinkError> {
    let mut transfer = delivery.pace.begin();
    for piece in delivery.frames.chunks(PIECE_BYTES) {
        transfer.turn().await;
        sender.send_blocks(piece).await?;
        transfer.sent(piece.len());
    }
    transfer.finish();
    Ok(())
}

/// Waits for the station to hang up, so that it has surely read the last word; not for ever.
async fn hung_up(
    mut receiver: Receiver<ReadHalf<TcpStream>, FromStation>,
    ending: &'static str,
) -> Result<&'static str, LinkError> {
    let until_closed = async {
        while receiver.next().await?.is_some() {}
        Ok(ending)
    };
    timeout(CLOSE_DEADLINE, until_closed).await.unwrap_or(Ok("it did not hang up when it was told to"))
}
