//! The wire: messages, clip headers, frames; encode, decode and their caps. Pure, no I/O.
//!
//! `docs/protocol.md` is the specification. Messages are postcard (its varints, UTF-8 strings with a
//! length before them); everything that is not a message has a fixed layout, big-endian.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clip::{Format, Hash};

/// The first bytes of both directions, in every version of the protocol.
pub const MAGIC: [u8; 8] = *b"BULLHORN";
/// The version spoken here.
pub const VERSION: u16 = 1;
/// Magic, version, mode, status.
pub const PREFACE_BYTES: usize = 12;
/// Kind and length before every frame.
pub const FRAME_HEADER_BYTES: usize = 3;
/// The largest message, either way: a Hello with all its zones stays under 1,300.
pub const MAX_MESSAGE_BYTES: usize = 2_048;
/// What sealing adds to a message or a block.
pub const TAG_BYTES: usize = 16;
/// What a block of a clip holds, save the last. Small, so that a slow line completes one within the
/// silence deadline: 16 KiB in 3 s is 5.5 kB/s.
pub const BLOCK_BYTES: usize = 16 * 1024;
/// The longest name of a station, zone or announcer, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 64;
/// The most zones of a station or a clip.
pub const MAX_ZONES: usize = 16;
/// The longest reason in words, in bytes of UTF-8.
pub const MAX_REASON_BYTES: usize = 256;
/// A clip header without its zones.
const HEADER_FIXED_BYTES: usize = 76;
/// The layout of clip header that is spoken here.
const HEADER_VERSION: u8 = 1;

/// What can be wrong with bytes from a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The peer's first bytes are not ours.
    #[error("the peer does not speak bullhorn's protocol: is this the right port?")]
    NotBullhorn,
    /// A frame of a kind that does not exist, or not here.
    #[error("a frame of kind {0} has no place here")]
    FrameKind(u8),
    /// A frame over the cap for its kind.
    #[error("a frame of {bytes} bytes is over the limit of {limit}")]
    FrameSize {
        /// Its announced length.
        bytes: usize,
        /// The cap for its kind.
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
    /// Not at all: no encryption, no authentication.
    Open = 0,
    /// A Noise handshake follows the prefaces.
    Secured = 1,
}

impl Mode {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Open, Self::Secured].into_iter().find(|mode| *mode as u8 == byte)
    }
}

/// The announcer's answer in its preface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Go on.
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
    /// 0 from a station.
    pub status: u8,
}

impl Preface {
    /// What a station sends.
    pub fn of_station(mode: Mode) -> Self {
        Self { version: VERSION, mode: mode as u8, status: 0 }
    }

    /// What an announcer answers.
    pub fn of_announcer(mode: Mode, status: Status) -> Self {
        Self { version: VERSION, mode: mode as u8, status: status as u8 }
    }

    /// Bytes for the socket.
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
    /// [`WireError::NotBullhorn`] when the magic is another.
    pub fn decode(bytes: &[u8; PREFACE_BYTES]) -> Result<Self, WireError> {
        let [m @ .., v0, v1, mode, status] = *bytes;
        if m != MAGIC {
            return Err(WireError::NotBullhorn);
        }
        Ok(Self { version: u16::from_be_bytes([v0, v1]), mode, status })
    }

    /// The mode, if it is one of ours.
    pub fn known_mode(&self) -> Option<Mode> {
        Mode::from_byte(self.mode)
    }
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// One message.
    Message = 1,
    /// The next block of the clip whose header came before.
    Block = 2,
}

impl FrameKind {
    /// The most bytes a frame of this kind holds.
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
    /// What follows.
    pub kind: FrameKind,
    /// How many bytes of it; 1 to the kind's limit.
    pub length: u16,
}

impl FrameHeader {
    /// Bytes for the socket.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let [high, low] = self.length.to_be_bytes();
        [self.kind as u8, high, low]
    }

    /// Reads a frame header and holds its length against the cap, before anything is allocated.
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

/// Puts blocks into frames, ready to be written as they are to every station.
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

/// Names one clip of one announcer, in the order they were spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClipId {
    /// Which run of the announcer; a later run has a greater one.
    pub epoch: u64,
    /// Which clip of that run, from 1.
    pub sequence: u64,
}

impl std::fmt::Display for ClipId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}-{}", self.epoch, self.sequence)
    }
}

/// How well a station played a clip to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which clip.
    pub clip: ClipId,
    /// Frames played, at the clip's rate.
    pub frames: u64,
    /// How far the first sample was from the instant that was asked for, in µs; later is positive.
    pub start_error_us: i64,
    /// The largest distance from step while it played, in µs.
    pub max_error_us: u64,
    /// Times the sound device ran dry.
    pub underruns: u32,
    /// How far the station's notion of the instant may be off from the announcer's, in µs: no error
    /// is known better than this. [`u32::MAX`] when it knows nothing of the announcer's clock.
    pub uncertainty_us: u32,
}

/// What a station asks the announcer's time with: random, and never used again.
pub type Nonce = [u8; 16];
/// An announcer's public Ed25519 key.
pub type AnnouncerKey = [u8; 32];
/// An Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;
/// The key of one clip.
pub const CLIP_KEY_BYTES: usize = 32;

/// An announcer's time, signed for one [`Nonce`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// In ms since 1970.
    pub unix_ms: u64,
    /// [`SIGNATURE_BYTES`] long.
    pub signature: Vec<u8>,
}

/// From a station to its announcer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromStation {
    /// The first message.
    Hello {
        /// The station's name; a page's outcome is reported under it.
        name: String,
        /// The zones it belongs to.
        zones: Vec<String>,
        /// Random, one a run of the station: tells a reconnect from a second station of that name.
        instance: u64,
        /// The receipt of the clip it played last, should the first one have been lost.
        last: Option<Receipt>,
        /// Asks for the announcer's time; see [`Statement`].
        nonce: Option<Nonce>,
    },
    /// A sign of life, once a second; asks the time.
    Ping {
        /// The station's clock at sending, in µs.
        t1_us: u64,
    },
    /// The clip is here whole, and it is the one that was announced.
    Verified {
        /// Which clip.
        clip: ClipId,
        /// How long before an instant the station must be told of it, in µs.
        lead_us: u32,
    },
    /// The clip was refused; nothing of it was played.
    Rejected {
        /// Which clip.
        clip: ClipId,
        /// Why, in words.
        reason: String,
    },
    /// The loudspeaker has begun.
    Playing {
        /// Which clip.
        clip: ClipId,
    },
    /// The clip was played to its last sample.
    Played(Receipt),
    /// The clip was not played to its end.
    Failed {
        /// Which clip.
        clip: ClipId,
        /// Why, in words.
        reason: String,
    },
    /// The station is being shut down by its user: it is not to be missed.
    Goodbye,
    /// Asks for the announcer's time once more.
    AskTime {
        /// Random, and never used again.
        nonce: Nonce,
    },
    /// Whether the loudspeaker works: sent after Welcome by a station whose does not, and whenever it changes.
    Health {
        /// Why it does not, in words.
        fault: Option<String>,
    },
}

/// From the announcer to a station.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAnnouncer {
    /// The station is on the roster.
    Welcome {
        /// Random, one a run of the announcer: another one means another clock.
        clock: u64,
        /// Who the announcer is, and its time; not in open mode.
        site: Option<(AnnouncerKey, Statement)>,
    },
    /// The station is not, and why. The announcer closes after it.
    Refused {
        /// Why, in words.
        reason: String,
    },
    /// Answers a Ping.
    Pong {
        /// The Ping's time.
        t1_us: u64,
        /// The announcer's clock when the Ping came, in µs.
        t2_us: u64,
        /// The announcer's clock when this was sent, in µs.
        t3_us: u64,
    },
    /// A clip follows in block frames.
    Clip {
        /// An encoded [`ClipHeader`].
        header: Vec<u8>,
        /// The announcer's signature over it, [`SIGNATURE_BYTES`] long; empty in open mode.
        signature: Vec<u8>,
        /// What opens the clip's blocks, [`CLIP_KEY_BYTES`] long; empty in open mode.
        key: Vec<u8>,
    },
    /// When to play the verified clip.
    PlayAt {
        /// Which clip.
        clip: ClipId,
        /// The announcer's clock at the first sample, in µs.
        instant_us: u64,
    },
    /// Answers AskTime.
    Time(Statement),
    /// Answers Played, Rejected and Failed: it is written down. The announcer closes after it.
    Noted {
        /// Which clip.
        clip: ClipId,
    },
}

/// A message that can be held against its bounds after decoding.
pub trait Message: Serialize + DeserializeOwned {
    /// Refuses fields beyond their bounds.
    ///
    /// # Errors
    /// [`WireError::Field`] names the field.
    fn check(&self) -> Result<(), WireError>;
}

/// Whether a character could steer a terminal or disguise the text around it: control characters
/// (C0, DEL, C1), line separators, and invisible or direction-changing format characters.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether a name may be shown, compared and used in a file's name: 1 to [`MAX_NAME_BYTES`] bytes, all
/// printable, no slash, no white space at either end, no dot or hyphen first.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.trim() == name
        && !name.starts_with(['.', '-'])
        && !name.contains(is_illegal_in_name)
}

/// Whether no name may hold the character.
pub fn is_illegal_in_name(c: char) -> bool {
    is_unprintable(c) || matches!(c, '/' | '\\')
}

fn check_zones(zones: &[String]) -> Result<(), WireError> {
    if zones.len() > MAX_ZONES || !zones.iter().all(|zone| is_name(zone)) {
        return Err(WireError::Field("zones"));
    }
    Ok(())
}

fn check_reason(reason: &str) -> Result<(), WireError> {
    if reason.len() > MAX_REASON_BYTES { Err(WireError::Field("reason")) } else { Ok(()) }
}

fn check_length(field: &'static str, length: usize, legal: &[usize]) -> Result<(), WireError> {
    if legal.contains(&length) { Ok(()) } else { Err(WireError::Field(field)) }
}

/// Shortens a reason to what a message may carry.
pub fn reason(words: impl std::fmt::Display) -> String {
    let mut words = words.to_string();
    let mut end = words.len().min(MAX_REASON_BYTES);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    words.truncate(end);
    words
}

impl Message for FromStation {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Hello { name, zones, .. } => {
                if !is_name(name) {
                    return Err(WireError::Field("name"));
                }
                check_zones(zones)
            }
            Self::Rejected { reason, .. }
            | Self::Failed { reason, .. }
            | Self::Health { fault: Some(reason) } => check_reason(reason),
            Self::Health { fault: None }
            | Self::Ping { .. }
            | Self::Verified { .. }
            | Self::Playing { .. }
            | Self::Played(_)
            | Self::Goodbye
            | Self::AskTime { .. } => Ok(()),
        }
    }
}

impl Message for FromAnnouncer {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Refused { reason } => check_reason(reason),
            Self::Welcome { site: Some((_, statement)), .. } | Self::Time(statement) => {
                check_length("signature", statement.signature.len(), &[SIGNATURE_BYTES])
            }
            Self::Clip { signature, key, .. } => {
                check_length("signature", signature.len(), &[0, SIGNATURE_BYTES])?;
                check_length("key", key.len(), &[0, CLIP_KEY_BYTES])
            }
            Self::Welcome { site: None, .. }
            | Self::Pong { .. }
            | Self::PlayAt { .. }
            | Self::Noted { .. } => Ok(()),
        }
    }
}

/// A message as bytes, without a frame header.
///
/// # Errors
/// [`WireError::FrameSize`] when it is over [`MAX_MESSAGE_BYTES`]: its fields are over their bounds.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, WireError> {
    let bytes = postcard::to_stdvec(message).map_err(|_| WireError::Malformed(0))?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(WireError::FrameSize { bytes: bytes.len(), limit: MAX_MESSAGE_BYTES });
    }
    Ok(bytes)
}

/// The message that these bytes are, to the last of them.
///
/// # Errors
/// [`WireError::Malformed`], [`WireError::Field`].
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, WireError> {
    match postcard::take_from_bytes::<M>(bytes) {
        Ok((message, [])) => {
            message.check()?;
            Ok(message)
        }
        _ => Err(WireError::Malformed(bytes.len())),
    }
}

/// What is announced of a clip before its bytes: everything a station checks it against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipHeader {
    /// Which clip.
    pub id: ClipId,
    /// When it was recorded, in ms since 1970 by the announcer's clock.
    pub created_unix_ms: u64,
    /// From when on it must not be played, by the same clock.
    pub expires_unix_ms: u64,
    /// Size and rate of the WAV.
    pub format: Format,
    /// SHA-256 of the WAV.
    pub sha256: Hash,
    /// The zones it is for; none means all.
    pub zones: Vec<String>,
}

impl ClipHeader {
    /// The fixed layout of `docs/protocol.md`.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_FIXED_BYTES + self.zones.len() * 16);
        bytes.push(HEADER_VERSION);
        bytes.extend_from_slice(&self.id.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.id.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.created_unix_ms.to_be_bytes());
        bytes.extend_from_slice(&self.expires_unix_ms.to_be_bytes());
        bytes.extend_from_slice(&self.format.wav_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.format.rate_hz.to_be_bytes());
        bytes.extend_from_slice(&[1, 16]);
        bytes.extend_from_slice(&self.sha256);
        bytes.push(self.zones.len() as u8);
        for zone in &self.zones {
            bytes.push(zone.len() as u8);
            bytes.extend_from_slice(zone.as_bytes());
        }
        bytes
    }

    /// Which clip a header is of, even if the rest of it is wrong; `None` when not even that can be read.
    pub fn id_of(bytes: &[u8]) -> Option<ClipId> {
        let mut rest = Fields(bytes);
        let [HEADER_VERSION] = rest.take()? else { return None };
        let (epoch, sequence) = (u64::from_be_bytes(rest.take()?), u64::from_be_bytes(rest.take()?));
        Some(ClipId { epoch, sequence })
    }

    /// Reads a header; its [`Format`] is not yet checked.
    ///
    /// # Errors
    /// [`WireError::Header`] for bytes that are no header, [`WireError::Field`] for a field.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let malformed = WireError::Header(bytes.len());
        let mut rest = Fields(bytes);
        let [version] = rest.take().ok_or(malformed.clone())?;
        if version != HEADER_VERSION {
            return Err(malformed);
        }
        let mut next_u64 = || rest.take().map(u64::from_be_bytes).ok_or(malformed.clone());
        let id = ClipId { epoch: next_u64()?, sequence: next_u64()? };
        let (created_unix_ms, expires_unix_ms) = (next_u64()?, next_u64()?);
        let mut next_u32 = || rest.take().map(u32::from_be_bytes).ok_or(malformed.clone());
        let format = Format { wav_bytes: next_u32()?, rate_hz: next_u32()? };
        let [channels, bits] = rest.take().ok_or(malformed.clone())?;
        if channels != 1 {
            return Err(WireError::Field("channels"));
        }
        if bits != 16 {
            return Err(WireError::Field("bits a sample"));
        }
        let sha256: Hash = rest.take().ok_or(malformed.clone())?;
        let [count] = rest.take().ok_or(malformed.clone())?;
        let mut zones = Vec::new();
        for _ in 0..count {
            let [length] = rest.take().ok_or(malformed.clone())?;
            let zone = rest.slice(length.into()).ok_or(malformed.clone())?;
            let zone = std::str::from_utf8(zone).map_err(|_| WireError::Field("zones"))?;
            zones.push(zone.to_owned());
        }
        if !rest.0.is_empty() {
            return Err(malformed);
        }
        check_zones(&zones)?;
        Ok(Self { id, created_unix_ms, expires_unix_ms, format, sha256, zones })
    }
}

/// What is left of a fixed layout.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }
}
