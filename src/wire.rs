//! The wire format: messages, clip headers and frames, how they are encoded and decoded, and their limits. Pure, no
//! I/O.
//!
//! `docs/protocol.md` is the specification. Messages are in postcard (with its varints, and UTF-8 strings preceded by
//! their length); everything else has a fixed layout, big-endian.

mod header;
mod live;
mod message;
mod name;
mod talkback;

pub use header::ClipHeader;
pub use live::{LIVE_BLOCK_MS, LIVE_LAYOUT, LiveHeader, LiveReceipt, MAX_LIVE_BLOCK_BYTES, MAX_LIVE_BLOCKS};
pub use message::{
    AnnouncerKey, CLIP_KEY_BYTES, ClipId, FromAnnouncer, FromStation, Message, Nonce, Receipt,
    SIGNATURE_BYTES, Statement, UNMUTED_BY_EMERGENCIES, decode, encode, reason,
};
pub use name::{NameError, check_name, is_illegal_in_name, is_name, is_unprintable, look, normalized};
pub use talkback::{Answer, Offer, TALKBACK_LIFE, TalkbackHeader};

/// The first bytes of both directions, in every version of the protocol.
pub const MAGIC: [u8; 8] = *b"BULLHORN";
/// The protocol version of this program.
pub const VERSION: u16 = 1;
/// The size of a preface: magic, version, mode, status.
pub const PREFACE_BYTES: usize = 12;
/// The size of the kind and length before every frame.
pub const FRAME_HEADER_BYTES: usize = 3;
/// The largest message in either direction: a Hello with all its zones stays under 1,300 bytes.
pub const MAX_MESSAGE_BYTES: usize = 2_048;
/// The number of bytes that sealing adds to a message or a block.
pub const TAG_BYTES: usize = 16;
/// The number of bytes in each block of a clip except the last. Small, so that a slow line completes one within the
/// silence deadline: 16 KiB in 3 s is 5.5 kB/s.
pub const BLOCK_BYTES: usize = 16 * 1024;
/// The longest name of a station, zone or announcer, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 64;
/// The most zones of a station or a clip.
pub const MAX_ZONES: usize = 16;
/// The longest reason in words, in bytes of UTF-8.
pub const MAX_REASON_BYTES: usize = 256;

/// An error in bytes from a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The peer's first bytes are not bullhorn's.
    #[error("the peer does not speak bullhorn's protocol: is this the right port?")]
    NotBullhorn,
    /// A frame of a kind that does not exist, or is not allowed here.
    #[error("a frame of kind {0} has no place here")]
    FrameKind(u8),
    /// A frame over the limit for its kind.
    #[error("a frame of {bytes} bytes is over the limit of {limit}")]
    FrameSize {
        /// Its announced length.
        bytes: usize,
        /// The limit for its kind.
        limit: usize,
    },
    /// A message that postcard cannot read, or with bytes left over.
    #[error("a message of {0} bytes is malformed")]
    Malformed(usize),
    /// A field beyond its bounds.
    #[error("the field {0} is out of bounds")]
    Field(&'static str),
    /// A clip header that is cut short, too long, or of another version.
    #[error("a clip header of {0} bytes is malformed")]
    Header(usize),
}

/// How the two sides prove themselves to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// They do not: no encryption, no authentication.
    Open = 0,
    /// A Noise handshake follows the prefaces.
    Secured = 1,
}

impl Mode {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Open, Self::Secured].into_iter().find(|mode| *mode as u8 == byte)
    }
}

/// A station's status: it accepts [`FromAnnouncer::Behind`]. An older announcer ignores it.
pub const TAKES_BEHIND: u8 = 1;

/// The announcer's answer in its preface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Continue.
    Ready = 0,
    /// The version in this preface is the one to speak.
    OtherVersion = 1,
    /// The mode in this preface is the one to use.
    OtherMode = 2,
    /// The first bytes were not bullhorn's.
    NotBullhorn = 3,
    /// Too many connections; try again later.
    Busy = 4,
}

/// The first twelve bytes each way; their layout never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preface {
    /// The sender's version.
    pub version: u16,
    /// The sender's mode as a byte, since another version may have others.
    pub mode: u8,
    /// From a station, [`TAKES_BEHIND`], or 0 from an older one; from an announcer, a [`Status`].
    pub status: u8,
}

impl Preface {
    /// The preface that a station sends.
    pub fn of_station(mode: Mode) -> Self {
        Self { version: VERSION, mode: mode as u8, status: TAKES_BEHIND }
    }

    /// The preface with which an announcer answers.
    pub fn of_announcer(mode: Mode, status: Status) -> Self {
        Self { version: VERSION, mode: mode as u8, status: status as u8 }
    }

    /// Encodes it for the socket.
    pub fn encode(&self) -> [u8; PREFACE_BYTES] {
        let mut bytes = [0; PREFACE_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version.to_be_bytes());
        bytes[10] = self.mode;
        bytes[11] = self.status;
        bytes
    }

    /// Reads a preface.
    ///
    /// # Errors
    /// [`WireError::NotBullhorn`] when the magic is different.
    pub fn decode(bytes: &[u8; PREFACE_BYTES]) -> Result<Self, WireError> {
        let [m @ .., v0, v1, mode, status] = *bytes;
        if m != MAGIC {
            return Err(WireError::NotBullhorn);
        }
        Ok(Self { version: u16::from_be_bytes([v0, v1]), mode, status })
    }

    /// The mode, if this version knows it.
    pub fn known_mode(&self) -> Option<Mode> {
        Mode::from_byte(self.mode)
    }
}

/// The content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// One message.
    Message = 1,
    /// The next block of the clip whose header came before.
    Block = 2,
}

impl FrameKind {
    /// The most bytes that a frame of this kind can hold.
    pub fn limit(self) -> usize {
        match self {
            Self::Message => MAX_MESSAGE_BYTES + TAG_BYTES,
            Self::Block => BLOCK_BYTES + TAG_BYTES,
        }
    }
}

/// The three bytes before a frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The kind of the payload.
    pub kind: FrameKind,
    /// The number of payload bytes; 1 to the kind's limit.
    pub length: u16,
}

impl FrameHeader {
    /// Encodes it for the socket.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let [high, low] = self.length.to_be_bytes();
        [self.kind as u8, high, low]
    }

    /// Reads a frame header and checks its length against the limit, before anything is allocated.
    ///
    /// # Errors
    /// [`WireError::FrameKind`], [`WireError::FrameSize`].
    pub fn decode(bytes: [u8; FRAME_HEADER_BYTES]) -> Result<Self, WireError> {
        let kind = match bytes[0] {
            1 => FrameKind::Message,
            2 => FrameKind::Block,
            other => return Err(WireError::FrameKind(other)),
        };
        let length = u16::from_be_bytes([bytes[1], bytes[2]]);
        if length == 0 || usize::from(length) > kind.limit() {
            return Err(WireError::FrameSize { bytes: length.into(), limit: kind.limit() });
        }
        Ok(Self { kind, length })
    }
}

/// Puts blocks into frames, ready to be sent unchanged to every station.
pub fn block_frames(blocks: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut frames = Vec::new();
    for block in blocks {
        let block = block.as_ref();
        let header = FrameHeader { kind: FrameKind::Block, length: block.len() as u16 };
        frames.extend_from_slice(&header.encode());
        frames.extend_from_slice(block);
    }
    frames
}
