//! The connection of one talkback on the announcer's side: an offer, its blocks, and the answer.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, timeout};

use super::super::connection::{Host, hung_up};
use super::super::door;
use super::{Job, refused};
use crate::clip::{Clip, ClipError, Incoming};
use crate::clip_cipher::{ClipCipherError, ClipKey, ClipOpener};
use crate::link::{AnnouncerLink, Connection, Frame, LinkError, PING_INTERVAL, Peer, Receiver, Sender};
use crate::wire::{Answer, FromAnnouncer, FromStation, Offer, TalkbackHeader, WireError};

/// The time that every transfer has, however short the talkback.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(10);
/// The least bytes a second beyond that.
const TRANSFER_MIN_RATE: u64 = 8 * 1024;

/// Why the body of a talkback is rejected.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("it is not sealed with the key that came with it")]
    Key,
    #[error("the station was removed meanwhile")]
    Removed,
    #[error(transparent)]
    Cipher(#[from] ClipCipherError),
    #[error(transparent)]
    Clip(#[from] ClipError),
}

type Incomings<C> = Receiver<<C as Connection>::Incoming, FromStation>;
type Outgoings<C> = Sender<<C as Connection>::Outgoing, FromAnnouncer>;

/// Serves a connection whose first message was an offer. It keeps its place in the door until the talkback has one of
/// its own.
pub(in crate::announcer) async fn serve<C: Connection>(
    (mut receiver, mut sender): AnnouncerLink<C>,
    peer: Option<Peer>,
    offer: Offer,
    place: door::Place,
    host: &Host,
) -> Result<&'static str, LinkError> {
    let judging = async {
        match &host.talkback {
            None => Ok(Err(refused("this announcer takes no talkback: it was started without --talkback"))),
            // The station only asks whether a talkback would be accepted.
            Some(_) if offer.header.is_empty() => Ok(Err(Answer::Send)),
            Some(talkback) => {
                let judged = talkback.judge(&offer, peer).await?;
                Ok::<_, LinkError>(judged.map(|taken| (talkback, taken)))
            }
        }
    };
    let judged = tokio::select! {
        biased;
        judged = judging => judged?,
        () = place.pushed() => return Ok("others needed its place"),
    };
    let (talkback, (header, its_place)) = match judged {
        Ok(taken) => taken,
        Err(answer) => {
            return tokio::select! {
                biased;
                said = say_last::<C>(receiver, sender, answer) => said,
                () = place.pushed() => Ok("others needed its place"),
            };
        }
    };
    drop(place);
    sender.send(&FromAnnouncer::Talkback(Answer::Send)).await?;
    let mut life = tokio::time::interval(PING_INTERVAL);
    life.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let allowed =
        TRANSFER_DEADLINE + Duration::from_secs(u64::from(header.format.wav_bytes) / TRANSFER_MIN_RATE);
    let is_sealed = talkback.site.is_some();
    let body = receive::<C>(&mut receiver, &mut sender, &mut life, &header, &offer, is_sealed);
    let body = timeout(allowed, body).await.map_err(|_| LinkError::Silent(allowed))??;
    let clip = match body {
        Ok(clip) if talkback.knows(peer, &header.name) => clip,
        other => {
            let error = other.err().unwrap_or(BodyError::Removed);
            let answer = talkback.refuse(&header, header.name.clone(), &crate::error_chain(&error));
            drop(its_place);
            receiver.expect_blocks(true);
            return say_last::<C>(receiver, sender, answer).await;
        }
    };
    let (done, mut outcome) = oneshot::channel();
    let Offer { header: encoded, signature, .. } = offer;
    let job = Job { header, encoded, signature, clip, place: its_place, is_kept: false, done };
    tokio::spawn(talkback.clone().take(job));
    loop {
        tokio::select! {
            biased;
            outcome = &mut outcome => match outcome {
                Ok(answer) => return say_last::<C>(receiver, sender, answer).await,
                Err(_) => return Ok("the announcer leaves"),
            },
            _ = life.tick() => sender.send(&FromAnnouncer::Talkback(Answer::Wait)).await?,
            frame = receiver.next() => match frame? {
                Some(Frame::Message(FromStation::Ping { .. })) => (),
                Some(_) => return Err(WireError::Field("talkback").into()),
                None => return Ok("it closed the connection"),
            },
        }
    }
}

/// Receives the body and checks it against its header. The inner error is for the station.
async fn receive<C: Connection>(
    receiver: &mut Incomings<C>,
    sender: &mut Outgoings<C>,
    life: &mut Interval,
    header: &TalkbackHeader,
    offer: &Offer,
    is_sealed: bool,
) -> Result<Result<Clip, BodyError>, LinkError> {
    let opened = || {
        let opener = match (is_sealed, <[u8; 32]>::try_from(offer.key.as_slice())) {
            (true, Ok(key)) => Some(ClipOpener::new(&ClipKey::from_bytes(key))?),
            (false, Err(_)) => None,
            _ => return Err(BodyError::Key),
        };
        Ok((opener, Incoming::new(header.format, header.sha256)?))
    };
    let (opener, mut incoming) = match opened() {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error)),
    };
    let mut index = 0;
    receiver.expect_blocks(true);
    while incoming.missing_bytes() > 0 {
        let mut block = tokio::select! {
            biased;
            _ = life.tick() => {
                sender.send(&FromAnnouncer::Talkback(Answer::Wait)).await?;
                continue;
            }
            frame = receiver.next() => match frame? {
                Some(Frame::Block(block)) => block,
                Some(Frame::Message(FromStation::Ping { .. })) => continue,
                Some(Frame::Message(_)) => return Err(WireError::Field("talkback").into()),
                None => return Err(LinkError::CutShort),
            },
        };
        let taken = match &opener {
            Some(opener) => match opener.open_block(index, &mut block) {
                Ok(plain) => incoming.push(plain).map_err(BodyError::from),
                Err(error) => Err(error.into()),
            },
            None => incoming.push(&block).map_err(BodyError::from),
        };
        if let Err(error) = taken {
            return Ok(Err(error));
        }
        index += 1;
    }
    receiver.expect_blocks(false);
    Ok(incoming.finish().map_err(BodyError::from))
}

async fn say_last<C: Connection>(
    receiver: Incomings<C>,
    mut sender: Outgoings<C>,
    answer: Answer,
) -> Result<&'static str, LinkError> {
    sender.send(&FromAnnouncer::Talkback(answer)).await?;
    sender.close().await?;
    hung_up(receiver, "it closed the connection").await
}
