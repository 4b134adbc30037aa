//! One connection between a station and an announcer: opening, frames, deadlines. Sockets are read and written only
//! here.
//!
//! A [`Receiver`] and a [`Sender`] exist only after both prefaces have been exchanged and, unless the link is open, the
//! handshake is complete: a name or a clip cannot be sent to a peer that has not proven its identity.

mod allowance;
mod connection;
mod frames;

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::handshake::{
    Contact, HandshakeError, Initiator, MESSAGE1_BYTES, MESSAGE2_BYTES, MESSAGE3_BYTES, Opener, Responder,
    Sealer, Transport,
};
use crate::invite::{InviteId, InviteSecret};
use crate::keys::{NoiseKeys, NoisePublicKey};
use crate::wire::{
    self, FRAME_HEADER_BYTES, FrameHeader, FrameKind, FromAnnouncer, FromStation, MAX_MESSAGE_BYTES, Message,
    Mode, PREFACE_BYTES, Preface, Status, TAG_BYTES, TAKES_BEHIND, VERSION, WireError,
};

use allowance::Allowance;
pub use allowance::{MESSAGE_BURST, MESSAGE_INTERVAL};
pub use connection::{Connection, Outgoing, prepare};
pub use frames::BlockFrames;

/// The deadline for exchanging prefaces, from the start of the connection. A secured link completes its handshake
/// within it too.
pub const OPENING_DEADLINE: Duration = Duration::from_secs(3);
/// A link on which no whole frame arrives for this long is lost. With one Ping a second, two may be late.
pub const SILENCE_DEADLINE: Duration = Duration::from_millis(2_800);
/// How often a station sends a Ping.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);
/// A peer that accepts nothing of what is written for this long is lost.
const STALL_DEADLINE: Duration = Duration::from_secs(3);
/// How much of a clip is passed to the socket at once.
const WRITE_BYTES: usize = 64 * 1024;
/// The minimum room for a read while only messages are due; a Ping is 6 to 13 bytes.
const MESSAGE_READ_BYTES: usize = 256;
/// The room for a read while blocks are due.
const BLOCK_READ_BYTES: usize = 64 * 1024;
/// How long a refused peer has to read the reason before the socket is closed.
const LINGER: Duration = Duration::from_millis(500);

/// Why a link could not be opened or is lost.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket failed.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// Nothing, or no whole frame, arrived for too long.
    #[error("nothing was heard of it for {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// The peer does not accept what is sent to it.
    #[error("it does not take what is sent to it")]
    Stalled,
    /// The connection closed inside a frame.
    #[error("the connection ended in the middle of a frame")]
    CutShort,
    /// The peer's bytes are not what they should be.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The peer speaks another version.
    #[error(
        "it speaks version {theirs} of the protocol, here version {VERSION} is spoken: update the older one"
    )]
    OtherVersion {
        /// The version in its preface.
        theirs: u16,
    },
    /// The peer uses another mode.
    #[error("the two sides are not set up alike: one of them runs open, the other secured")]
    OtherMode,
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The announcer has too many connections.
    #[error("the announcer has as many connections as it can bear")]
    Busy,
}

/// A station's end of an open link.
pub type StationLink<C> = Link<C, FromAnnouncer, FromStation>;
/// The announcer's end of an open link.
pub type AnnouncerLink<C> = Link<C, FromStation, FromAnnouncer>;

/// A connection that the announcer has let in.
pub struct Accepted<C: Connection> {
    /// Both directions.
    pub link: AnnouncerLink<C>,
    /// The peer at the other end; `None` on an open link.
    pub peer: Option<Peer>,
    /// Whether the station accepts [`FromAnnouncer::Behind`].
    pub takes_behind: bool,
}

/// Both directions of an open link.
pub type Link<C, In, Out> =
    (Receiver<<C as Connection>::Incoming, In>, Sender<<C as Connection>::Outgoing, Out>);

/// The means by which an announcer decides whom to let in.
pub trait Gate {
    /// The announcer's own keys.
    fn keys(&self) -> &NoiseKeys;
    /// The secret of a valid invite.
    fn invite(&self, id: InviteId) -> Option<InviteSecret>;
    /// Whether a station has joined.
    fn knows(&self, station: &NoisePublicKey) -> bool;
}

/// The peer at the other end of a secured link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The key that it has proven to hold.
    pub key: NoisePublicKey,
    /// The invite that it came with.
    pub invite: Option<InviteId>,
}

/// The station's keys, the announcer it expects and the address dialled; `None` for an open link.
pub type Introduction<'a> = Option<(&'a NoiseKeys, Contact<'a>, &'a str)>;

/// Opens a link as a station, on a connection that it dialled. Also returns the key that the announcer has proven to
/// hold; `None` on an open link.
///
/// # Errors
/// Any [`LinkError`], after which the connection is unusable.
pub async fn dial<C: Connection>(
    mut stream: C,
    introduction: Introduction<'_>,
) -> Result<(StationLink<C>, Option<NoisePublicKey>), LinkError> {
    let deadline = Instant::now() + OPENING_DEADLINE;
    let mode = if introduction.is_some() { Mode::Secured } else { Mode::Open };
    let answer = by(deadline, async {
        stream.write_all(&Preface::of_station(mode).encode()).await?;
        read_preface(&mut stream).await
    })
    .await?;
    let is = |status: Status| answer.status == status as u8;
    if is(Status::Busy) {
        return Err(LinkError::Busy);
    }
    if is(Status::NotBullhorn) {
        return Err(WireError::NotBullhorn.into());
    }
    if answer.version != VERSION {
        return Err(LinkError::OtherVersion { theirs: answer.version });
    }
    if answer.mode != mode as u8 || !is(Status::Ready) {
        return Err(LinkError::OtherMode);
    }
    let Some((keys, contact, address)) = introduction else { return Ok((halves(stream, None), None)) };
    let (state, message1) = Initiator::start(keys, contact, address)?;
    let transport = by(deadline, async {
        stream.write_all(&message1).await?;
        let mut message2 = [0; MESSAGE2_BYTES];
        stream.read_exact(&mut message2).await?;
        let (message3, transport) = state.answer(&message2)?;
        stream.write_all(&message3).await?;
        Ok(transport)
    })
    .await?;
    let announcer = transport.peer;
    Ok((halves(stream, Some(transport)), Some(announcer)))
}

/// Opens a link as the announcer, on a connection that it accepted; without a gate, an open link. Also returns the peer
/// at the other end. A peer with another protocol, version or mode receives the reason in the preface; one that fails
/// the handshake receives none. `spoke` is called when the peer's preface is good.
///
/// # Errors
/// Any [`LinkError`], after which the connection is unusable.
pub async fn accept<C: Connection>(
    mut stream: C,
    gate: Option<&impl Gate>,
    spoke: impl FnOnce(),
) -> Result<Accepted<C>, LinkError> {
    let deadline = Instant::now() + OPENING_DEADLINE;
    let mode = if gate.is_some() { Mode::Secured } else { Mode::Open };
    let preface = by(deadline, read_preface(&mut stream)).await;
    let takes_behind = preface.as_ref().is_ok_and(|preface| preface.status & TAKES_BEHIND != 0);
    let (status, refusal) = match preface {
        Ok(preface) if preface.version != VERSION => {
            (Status::OtherVersion, Some(LinkError::OtherVersion { theirs: preface.version }))
        }
        Ok(preface) if preface.known_mode() != Some(mode) => (Status::OtherMode, Some(LinkError::OtherMode)),
        Ok(_) => (Status::Ready, None),
        Err(LinkError::Wire(error)) => (Status::NotBullhorn, Some(error.into())),
        Err(error) => return Err(error),
    };
    let answer = Preface::of_announcer(mode, status).encode();
    by(deadline, async { Ok(stream.write_all(&answer).await?) }).await?;
    if let Some(error) = refusal {
        linger(&mut stream).await;
        return Err(error);
    }
    spoke();
    let Some(gate) = gate else {
        return Ok(Accepted { link: halves(stream, None), peer: None, takes_behind });
    };
    let transport = by(deadline, shake_hands(&mut stream, gate)).await?;
    let peer = Peer { key: transport.peer, invite: transport.mode.invite() };
    Ok(Accepted { link: halves(stream, Some(transport)), peer: Some(peer), takes_behind })
}

async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    gate: &impl Gate,
) -> Result<Transport, LinkError> {
    let mut message1 = [0; MESSAGE1_BYTES];
    stream.read_exact(&mut message1).await?;
    let (state, message2) = Responder::answer(gate.keys(), &message1, |id| gate.invite(id))?;
    stream.write_all(&message2).await?;
    let mut message3 = [0; MESSAGE3_BYTES];
    stream.read_exact(&mut message3).await?;
    Ok(state.finish(&message3, |station| gate.knows(station))?)
}

/// Lets the peer read what was written last. A socket closed with unread bytes in it is reset, and a reset may overtake
/// the last bytes written.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let drain = async {
        stream.shutdown().await?;
        let mut sink = [0; 512];
        while stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    // Best effort: a peer that neither reads nor closes has had its time.
    let _ = timeout(LINGER, drain).await;
}

async fn by<T>(deadline: Instant, work: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    timeout_at(deadline, work).await.unwrap_or(Err(LinkError::Silent(OPENING_DEADLINE)))
}

async fn read_preface<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Preface, LinkError> {
    let mut bytes = [0; PREFACE_BYTES];
    let mut have = 0;
    while have < PREFACE_BYTES {
        match stream.read(&mut bytes[have..]).await? {
            0 => return Err(LinkError::CutShort),
            more => have += more,
        }
        // The first wrong byte is enough: a stranger that sends fewer than twelve bytes also gets an answer.
        let magic = have.min(wire::MAGIC.len());
        if bytes[..magic] != wire::MAGIC[..magic] {
            return Err(WireError::NotBullhorn.into());
        }
    }
    Ok(Preface::decode(&bytes)?)
}

fn halves<C: Connection, In: Message, Out: Message>(
    stream: C,
    transport: Option<Transport>,
) -> Link<C, In, Out> {
    let (read, write) = stream.into_halves();
    let (opener, sealer) = transport.map(|transport| (transport.opener, transport.sealer)).unzip();
    let receiver = Receiver {
        io: read,
        buffer: BytesMut::new(),
        opener,
        blocks_due: false,
        deadline: Instant::now() + SILENCE_DEADLINE,
        allowance: Allowance::new(),
        messages: PhantomData,
    };
    (receiver, Sender { io: write, sealer, messages: PhantomData })
}

/// One frame from the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<M> {
    /// A message, within its bounds.
    Message(M),
    /// The next block of the clip that is due.
    Block(BytesMut),
}

/// The incoming half of a link.
#[derive(Debug)]
pub struct Receiver<R, M> {
    io: R,
    buffer: BytesMut,
    opener: Option<Opener>,
    blocks_due: bool,
    deadline: Instant,
    allowance: Allowance,
    messages: PhantomData<M>,
}

impl<R: AsyncRead + Unpin, M: Message> Receiver<R, M> {
    /// Returns the next whole frame; `None` when the peer closed between frames. Cancelling loses nothing.
    ///
    /// # Errors
    /// [`LinkError::Silent`] when [`SILENCE_DEADLINE`] passes without a whole frame, even if single bytes keep
    /// arriving; [`LinkError::Wire`], [`LinkError::CutShort`], [`LinkError::Io`].
    pub async fn next(&mut self) -> Result<Option<Frame<M>>, LinkError> {
        self.allowance.ready().await;
        loop {
            if let Some(frame) = self.take_frame()? {
                if matches!(frame, Frame::Message(_)) {
                    self.allowance.take();
                }
                self.deadline = Instant::now() + SILENCE_DEADLINE;
                return Ok(Some(frame));
            }
            let room = if self.blocks_due { BLOCK_READ_BYTES } else { MESSAGE_READ_BYTES };
            self.buffer.reserve(room);
            let read = timeout_at(self.deadline, self.io.read_buf(&mut self.buffer))
                .await
                .map_err(|_| LinkError::Silent(SILENCE_DEADLINE))??;
            if read == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(LinkError::CutShort) };
            }
        }
    }

    /// Sets whether block frames are allowed from now on: after a clip's header, until its last block.
    pub fn expect_blocks(&mut self, due: bool) {
        self.blocks_due = due;
    }

    fn take_frame(&mut self) -> Result<Option<Frame<M>>, LinkError> {
        let Some(&header) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let header = FrameHeader::decode(header)?;
        if header.kind == FrameKind::Block && !self.blocks_due {
            return Err(WireError::FrameKind(header.kind as u8).into());
        }
        let length = usize::from(header.length);
        if self.buffer.len() < FRAME_HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(FRAME_HEADER_BYTES);
        let payload = self.buffer.split_to(length);
        Ok(Some(match header.kind {
            FrameKind::Message => {
                let mut plain = [0; MAX_MESSAGE_BYTES + TAG_BYTES];
                Frame::Message(match &mut self.opener {
                    Some(opener) => wire::decode(opener.open(&payload, &mut plain)?)?,
                    None => wire::decode(&payload)?,
                })
            }
            FrameKind::Block => Frame::Block(payload),
        }))
    }
}

/// The outgoing half of a link. A send that is cancelled or fails leaves the link unusable.
#[derive(Debug)]
pub struct Sender<W, M> {
    io: W,
    sealer: Option<Sealer>,
    messages: PhantomData<M>,
}

impl<W: AsyncWrite + Unpin, M: Message> Sender<W, M> {
    /// Sends one message.
    ///
    /// # Errors
    /// [`LinkError::Stalled`], [`LinkError::Io`]; [`LinkError::Wire`] for a message over its bounds.
    pub async fn send(&mut self, message: &M) -> Result<(), LinkError> {
        self.send_encoded(&wire::encode(message)?).await
    }

    /// Sends one message that [`wire::encode`] made, perhaps for several stations.
    ///
    /// # Errors
    /// [`LinkError::Stalled`], [`LinkError::Io`].
    pub async fn send_encoded(&mut self, message: &[u8]) -> Result<(), LinkError> {
        let frame = {
            let mut sealed = [0; MAX_MESSAGE_BYTES + TAG_BYTES];
            let payload = match &mut self.sealer {
                Some(sealer) => sealer.seal(message, &mut sealed)?,
                None => message,
            };
            let header = FrameHeader { kind: FrameKind::Message, length: payload.len() as u16 };
            [&header.encode()[..], payload].concat()
        };
        self.write(&frame).await
    }

    /// Sends block frames that [`wire::block_frames`] made.
    ///
    /// # Errors
    /// [`LinkError::Stalled`], [`LinkError::Io`].
    pub async fn send_blocks(&mut self, frames: &[u8]) -> Result<(), LinkError> {
        for piece in frames.chunks(WRITE_BYTES) {
            self.write(piece).await?;
        }
        Ok(())
    }

    /// Sends part of a clip's frames, starting at byte `from`: as many bytes as the connection accepts now, at most
    /// `most`. Returns how many. Where it accepts none, waits until it does.
    ///
    /// # Errors
    /// [`LinkError::Stalled`], [`LinkError::Io`].
    pub async fn send_frames(
        &mut self,
        frames: &BlockFrames,
        from: usize,
        most: usize,
    ) -> Result<usize, LinkError>
    where
        W: Outgoing,
    {
        let writing = timeout(STALL_DEADLINE, self.io.write_frames(frames, from, most));
        Ok(some(writing.await.map_err(|_| LinkError::Stalled)??)?)
    }

    /// Closes the outgoing half; the peer reads everything that was sent, then the end.
    ///
    /// # Errors
    /// [`LinkError::Stalled`], [`LinkError::Io`].
    pub async fn close(&mut self) -> Result<(), LinkError> {
        timeout(STALL_DEADLINE, self.io.shutdown()).await.map_err(|_| LinkError::Stalled)??;
        Ok(())
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            let writing = timeout(STALL_DEADLINE, self.io.write(bytes));
            bytes.advance(some(writing.await.map_err(|_| LinkError::Stalled)??)?);
        }
        Ok(())
    }
}

fn some(written: usize) -> io::Result<usize> {
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}
