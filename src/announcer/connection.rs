//! One station's connection on the announcer's side: a task that carries messages between the socket and the desk, and
//! answers pings on its own.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::PollSemaphore;

use super::door::Place;
use super::talkback::{self, Talkback};
use crate::keys::{Admitted, KeysError};
use crate::link::{self, Accepted, Connection, Frame, LinkError, Outgoing, Peer, Receiver, Sender};
use crate::site::Site;
use crate::stations::{ConnectionId, Delivery, Hello, LivePart, Order};
use crate::wire::{self, FromAnnouncer, FromStation, Mode, Preface, Status, WireError};

/// The most orders that wait for one connection; a clip needs three.
pub(super) const MAX_WAITING_ORDERS: usize = 8;

/// The most bytes of a clip that are sent before checking how far the other stations are.
const PIECE_BYTES: usize = 64 * 1024;
/// A transfer that has not moved for this long no longer counts as on its way, …
const STANDSTILL: Duration = Duration::from_millis(500);
/// … nor does one that is slower than this: a station that accepts nothing, or little at a time, does not delay the
/// others for long.
const SLOW_TRANSFER_BYTES_A_SECOND: u64 = 32 * 1024;
/// The shortest interval between two statements of the time, each of which needs a signature; a station that asks
/// sooner gets no answer.
const TIME_INTERVAL: Duration = Duration::from_secs(5);
/// How long a station has to hang up once it has been sent the last message.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// What a connection reports to the desk.
#[derive(Debug)]
pub(super) enum Report {
    /// A station said hello; the desk answers with a welcome or a reason against it.
    Joined {
        connection: ConnectionId,
        hello: Hello,
        /// Which station it is, and whether it may be on the list under its name; none in open mode.
        admission: Option<Admission>,
        orders: mpsc::Sender<Order>,
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Any other message except a ping.
    Heard { connection: ConnectionId, message: FromStation },
    /// The connection is over.
    Left { connection: ConnectionId, reason: String },
    /// A peer that never got as far as a hello.
    Stranger { address: SocketAddr, error: LinkError },
}

/// The site's decision on a station.
#[derive(Debug)]
pub(super) struct Admission {
    pub peer: Peer,
    pub admitted: Result<Admitted, KeysError>,
}

/// The announcer's clock, as its stations read it.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnnouncerClock {
    /// The instant it counts from.
    pub base: Instant,
    /// Distinguishes this clock from those of other runs.
    pub id: u64,
}

impl AnnouncerClock {
    pub fn at_us(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX)
    }
}

/// What every connection needs from its announcer.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub clock: AnnouncerClock,
    pub site: Option<Arc<Site>>,
    pub desk: mpsc::Sender<Report>,
    /// Receives talkback, if anything does.
    pub talkback: Option<Arc<Talkback>>,
}

/// The reason sent to a station that connects while the announcer is leaving.
const LEAVING: &str = "it is leaving, and takes this station again when it is back";

/// Serves one accepted socket until it closes, and reports why it closed.
pub(super) async fn serve<C: Connection>(
    stream: C,
    address: SocketAddr,
    connection: ConnectionId,
    place: Place,
    host: Host,
) {
    let opened = async {
        stream.prepare()?;
        link::accept(stream, host.site.as_deref(), || place.spoke()).await
    };
    let opened = tokio::select! {
        biased;
        opened = opened => opened,
        () = place.pushed() => return,
    };
    let report = match opened {
        Err(error) => Report::Stranger { address, error },
        // Boxed, so that strangers do not hold the memory of a whole conversation.
        Ok(accepted) => match Box::pin(converse::<C>(accepted, address, connection, place, &host)).await {
            Ok(reason) => Report::Left { connection, reason: reason.to_owned() },
            Err(error) => Report::Left { connection, reason: crate::error_chain(&error) },
        },
    };
    // The desk closes its channel only when the whole program leaves.
    let _ = host.desk.send(report).await;
}

/// Asks a connection for which there is no room to try again later, if that takes no waiting.
pub(super) fn turn_away(stream: &impl Connection, is_secured: bool) {
    let mode = if is_secured { Mode::Secured } else { Mode::Open };
    stream.part_with(&Preface::of_announcer(mode, Status::Busy).encode());
}

async fn converse<C: Connection>(
    accepted: Accepted<C>,
    address: SocketAddr,
    connection: ConnectionId,
    place: Place,
    host: &Host,
) -> Result<&'static str, LinkError> {
    let Accepted { link: (mut receiver, mut sender), peer, takes_behind } = accepted;
    let Host { clock, site, desk, .. } = host;
    let site = site.as_deref();
    let first = tokio::select! {
        biased;
        first = receiver.next() => first?,
        () = place.pushed() => return Ok("others needed its place"),
    };
    let (hello, nonce) = match first {
        Some(Frame::Message(FromStation::Hello { name, zones, instance, last, nonce, begun })) => {
            // Normalized, however it is typed at the station.
            let (name, zones) =
                (normalized(&name)?, zones.iter().map(|it| normalized(it)).collect::<Result<_, _>>()?);
            (Hello { name, zones, instance, last, begun, address: address.to_string() }, nonce)
        }
        Some(Frame::Message(FromStation::Talkback(offer))) => {
            // Boxed, so that stations do not hold the memory of a talkback.
            return Box::pin(talkback::serve::<C>((receiver, sender), peer, offer, place, host)).await;
        }
        Some(_) => return Err(WireError::Field("hello").into()),
        None => return Ok("it closed the connection"),
    };
    place.is_through();
    let admission = match host.site.clone().zip(peer) {
        Some((site, peer)) => {
            let mut admitted = pin!(admit(site, peer, &hello));
            // This may take long: a station that hangs up meanwhile does not join only to be lost at once.
            loop {
                tokio::select! {
                    biased;
                    admission = &mut admitted => break Some(admission),
                    frame = receiver.next() => match frame? {
                        Some(Frame::Message(FromStation::Ping { .. })) => (),
                        Some(_) => return Err(WireError::Field("hello").into()),
                        None => return Ok("it closed the connection"),
                    },
                }
            }
        }
        None => None,
    };
    let (orders, mut mailbox) = mpsc::channel(MAX_WAITING_ORDERS);
    let (answer, verdict) = oneshot::channel();
    let joined = Report::Joined { connection, hello, admission, orders, answer };
    // The desk is gone when the announcer leaves.
    let verdict = match desk.send(joined).await {
        Ok(()) => verdict.await.unwrap_or_else(|_| Err(LEAVING.to_owned())),
        Err(_) => Err(LEAVING.to_owned()),
    };
    if let Err(reason) = verdict {
        place.is_refused();
        let refuse = async {
            sender.send(&FromAnnouncer::Refused { reason }).await?;
            sender.close().await?;
            hung_up(receiver, "it was refused").await
        };
        return tokio::select! {
            biased;
            refused = refuse => refused,
            () = place.pushed() => Ok("others needed its place"),
        };
    }
    drop(place);
    let site_and_time = site.zip(nonce).map(|(site, nonce)| (site.announcer(), site.state_time(nonce)));
    sender.send(&FromAnnouncer::Welcome { clock: clock.id, site: site_and_time }).await?;
    let mut to_send = None;
    let mut live = None;
    let mut time_told: Option<Instant> = None;
    loop {
        tokio::select! {
            // An order is never held up by a station's messages.
            biased;
            order = mailbox.recv() => match order {
                Some(Order::Deliver(delivery)) => {
                    to_send = Some((PollSemaphore::new(delivery.pace.turns()), delivery));
                }
                Some(Order::Live(offer)) => {
                    let (parts, next) = offer.join();
                    let (header, signature) = (offer.header.clone(), offer.signature.clone());
                    sender.send(&FromAnnouncer::LiveStart { header, signature, next }).await?;
                    live = Some((parts, next));
                }
                Some(Order::Volume(volume)) => sender.send(&FromAnnouncer::Volume { volume }).await?,
                Some(Order::PlayAt { clip, at, behind }) => {
                    let instant_us = clock.at_us(at);
                    if takes_behind && !behind.is_zero() {
                        let behind_us = u64::try_from(behind.as_micros()).unwrap_or(u64::MAX);
                        sender.send(&FromAnnouncer::Behind { clip, behind_us }).await?;
                    }
                    sender.send(&FromAnnouncer::PlayAt { clip, instant_us }).await?;
                }
                Some(Order::Note(clip)) => {
                    sender.send(&FromAnnouncer::Noted { clip }).await?;
                    sender.close().await?;
                    return hung_up(receiver, "it closed the connection").await;
                }
                Some(Order::Yield) => {
                    sender.send(&FromAnnouncer::Yield).await?;
                    sender.close().await?;
                    return hung_up(receiver, "it closed the connection").await;
                }
                Some(Order::Drop) | None => return Ok("the announcer closed the connection"),
            },
            turn = next_turn(&mut to_send) => {
                let Some((turn, (_, delivery))) = turn.zip(to_send.take()) else { continue };
                sender.send(&delivery.message()).await?;
                let mut volume = None;
                {
                    let mut sending = pin!(send_blocks(&mut sender, &delivery, turn));
                    loop {
                        tokio::select! {
                            biased;
                            order = mailbox.recv() => match order {
                                Some(Order::Volume(told)) => volume = Some(told),
                                // Until the last block is out, the only other order that can come is to close the
                                // connection.
                                _ => return Ok("the announcer closed the connection"),
                            },
                            sent = &mut sending => break sent?,
                        }
                    }
                }
                if let Some(volume) = volume {
                    sender.send(&FromAnnouncer::Volume { volume }).await?;
                }
            }
            message = next_part(&mut live) => sender.send_encoded(&message).await?,
            frame = receiver.next() => match frame? {
                Some(Frame::Message(FromStation::Ping { t1_us })) => {
                    let now_us = clock.at_us(Instant::now());
                    sender.send(&FromAnnouncer::Pong { t1_us, t2_us: now_us, t3_us: now_us }).await?;
                }
                Some(Frame::Message(FromStation::AskTime { nonce })) => match site {
                    Some(_) if time_told.is_some_and(|at| at.elapsed() < TIME_INTERVAL) => (),
                    Some(site) => {
                        time_told = Some(Instant::now());
                        sender.send(&FromAnnouncer::Time(site.state_time(nonce))).await?;
                    }
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
        }
    }
}

/// Returns the next part, encoded, of the live speech that a station has joined; never returns if there is none. Parts
/// that the station did not accept in time are left out.
async fn next_part(live: &mut Option<(broadcast::Receiver<LivePart>, u32)>) -> Bytes {
    let Some((parts, next)) = live else { return std::future::pending().await };
    loop {
        match parts.recv().await {
            Ok(LivePart::Block { number, .. }) if number < *next => (),
            Ok(LivePart::Block { message, .. } | LivePart::End(message)) => return message,
            Err(RecvError::Lagged(_)) => (),
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Waits for a station's turn to be sent its clip; never returns if there is none to send. Cancelling does not lose the
/// station's place.
async fn next_turn(to_send: &mut Option<(PollSemaphore, Arc<Delivery>)>) -> Option<OwnedSemaphorePermit> {
    let Some((turns, _)) = to_send else { return std::future::pending().await };
    poll_fn(|context| turns.poll_acquire(context)).await
}

/// Normalizes a name for comparison. The result may be too long.
fn normalized(name: &str) -> Result<String, WireError> {
    let name = wire::normalized(name);
    if wire::is_name(&name) { Ok(name) } else { Err(WireError::Field("name")) }
}

/// Admits a station. A new one is written to the disk first, which may take as long as the disk needs.
async fn admit(site: Arc<Site>, peer: Peer, hello: &Hello) -> Admission {
    let admitted = match site.welcomes_back(&peer, &hello.name, &hello.zones) {
        Ok(true) => Ok(Admitted::Back),
        Ok(false) => {
            let (name, zones) = (hello.name.clone(), hello.zones.clone());
            site.write_in_turn(move |site| site.admit(&peer, &name, &zones)).await
        }
        Err(error) => Err(error),
    };
    Admission { peer, admitted }
}

async fn send_blocks<W: Outgoing>(
    sender: &mut Sender<W, FromAnnouncer>,
    delivery: &Delivery,
    turn: OwnedSemaphorePermit,
) -> Result<(), LinkError> {
    let mut turn = Some(turn);
    let enough = Duration::from_secs(1 + delivery.frames.len() as u64 / SLOW_TRANSFER_BYTES_A_SECOND);
    let enough = Instant::now() + enough;
    let mut transfer = delivery.pace.begin();
    let mut sent = 0;
    while sent < delivery.frames.len() {
        transfer.turn().await;
        let mut sending = pin!(sender.send_frames(&delivery.frames, sent, PIECE_BYTES));
        let until = enough.min(Instant::now() + STANDSTILL);
        let piece = match timeout_at(until, &mut sending).await {
            Ok(piece) => piece?,
            Err(_) => {
                turn.take();
                sending.await?
            }
        };
        transfer.sent(piece);
        sent += piece;
    }
    transfer.finish();
    Ok(())
}

/// Waits until the station hangs up, which shows that it has read the last message; for a limited time only.
pub(super) async fn hung_up<R: AsyncRead + Unpin>(
    mut receiver: Receiver<R, FromStation>,
    ending: &'static str,
) -> Result<&'static str, LinkError> {
    let until_closed = async {
        while receiver.next().await?.is_some() {}
        Ok(ending)
    };
    timeout(CLOSE_DEADLINE, until_closed).await.unwrap_or(Ok("it did not hang up when it was told to"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::Semaphore;
    use tokio::time::sleep;

    use super::*;
    use crate::priority::Priority;
    use crate::wire::ClipId;

    const CLIP_BYTES: usize = 320 * 1024;

    async fn takes(mut station: DuplexStream, bytes: usize, each: Duration) {
        station.write_all(&Preface::of_station(Mode::Open).encode()).await.unwrap();
        station.read_exact(&mut [0; 12]).await.unwrap();
        let mut taken = vec![0; bytes];
        loop {
            sleep(each).await;
            station.read_exact(&mut taken).await.unwrap();
        }
    }

    /// How long it takes until the turn is free again, and whether the clip is still on its way then.
    async fn holds(bytes: usize, each: Duration) -> (Duration, bool) {
        let (near, far) = duplex(1_024);
        tokio::spawn(takes(far, bytes, each));
        let (_receiver, mut sender) = link::accept(near, None::<&Site>, || ()).await.unwrap().link;
        let delivery = Delivery {
            id: ClipId { epoch: 1, sequence: 1 },
            header: vec![1],
            signature: vec![],
            key: None,
            frames: Arc::new(vec![0; CLIP_BYTES].into()),
            pace: Arc::default(),
            length: Duration::from_secs(1),
            sound_frames: 16_000,
            priority: Priority::Normal,
            zones: vec![],
        };
        let turns = Arc::new(Semaphore::new(1));
        let turn = turns.clone().acquire_owned().await.unwrap();
        let begun = Instant::now();
        let sending = tokio::spawn(async move { send_blocks(&mut sender, &delivery, turn).await });
        drop(turns.acquire().await.unwrap());
        (begun.elapsed(), !sending.is_finished())
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_or_little_at_a_time_keeps_its_turn_for_a_bounded_time() {
        let close = |(took, is_sending): (Duration, bool), seconds: f64| {
            assert!(is_sending);
            assert!((took.as_secs_f64() - seconds).abs() < 0.3, "{took:?} instead of {seconds} s");
        };
        close(holds(1_024, Duration::from_secs(60)).await, 0.5);
        close(holds(1_024, Duration::from_millis(200)).await, 11.0);
        let (took, _) = holds(1_024, Duration::from_millis(10)).await;
        assert!((Duration::from_secs(3)..Duration::from_secs(4)).contains(&took), "{took:?}");
    }
}
