//! The messages each side sends, and the bounds of their fields.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::volume::Volume;

use super::live::{LiveReceipt, MAX_LIVE_BLOCK_BYTES};
use super::name::is_name;
use super::talkback::{Answer, Offer};
use super::{MAX_MESSAGE_BYTES, MAX_REASON_BYTES, MAX_ZONES, WireError};

/// Identifies one clip of one announcer. Ids are in the order in which the announcer made the clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClipId {
    /// The run of the announcer; a later run has a greater number.
    pub epoch: u64,
    /// The number of the clip in that run, from 1.
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
    /// How far the first sample was from the requested instant, in µs; later is positive.
    pub start_error_us: i64,
    /// The largest distance from step during playback, in µs.
    pub max_error_us: u64,
    /// How often the sound device ran dry.
    pub underruns: u32,
    /// How far the station's estimate of the instant may be off from the announcer's, in µs: no error is known more
    /// accurately than this. [`u32::MAX`] when it does not know the announcer's clock at all.
    pub uncertainty_us: u32,
}

impl Receipt {
    /// How long after the page's own instant playback began, in µs, when it was requested `behind` after that instant.
    /// Station and announcer both report this as its lateness. Negative when it began before.
    pub fn late_us(&self, behind: Duration) -> i64 {
        i64::try_from(behind.as_micros()).unwrap_or(i64::MAX).saturating_add(self.start_error_us)
    }
}

/// The nonce with which a station asks for the announcer's time: random, and never used again.
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
    /// The time in ms since 1970.
    pub unix_ms: u64,
    /// The signature, [`SIGNATURE_BYTES`] long.
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
        /// A random number per run of the station: distinguishes a reconnect from a second station of that name.
        instance: u64,
        /// The receipt of the clip that it played last, in case the first receipt was lost.
        last: Option<Receipt>,
        /// Asks for the announcer's time; see [`Statement`].
        nonce: Option<Nonce>,
        /// The clip that it began to play last, if it was cut off before the end.
        begun: Option<ClipId>,
    },
    /// Sent once a second, to show that the station is alive; asks for the time.
    Ping {
        /// The station's clock at sending, in µs.
        t1_us: u64,
    },
    /// The clip is complete, and it is the one that was announced.
    Verified {
        /// Which clip.
        clip: ClipId,
        /// How long before an instant the station must receive it, in µs.
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
    /// The station is being shut down by its user, so the announcer must not report it as missing.
    Goodbye,
    /// Asks for the announcer's time once more.
    AskTime {
        /// Random, and never used again.
        nonce: Nonce,
    },
    /// Whether the loudspeaker works: sent after Welcome if it does not, and whenever this changes.
    Health {
        /// Why it does not work, in words.
        fault: Option<String>,
    },
    /// Another page goes first here: the clip is played after it. Sent after PlayAt, and again when the clip is cut off
    /// after Playing; then it is played again from its start.
    Queued {
        /// Which clip.
        clip: ClipId,
    },
    /// The first message of a talkback connection.
    Talkback(Offer),
    /// Live speech is over, and this is what was heard of it.
    LivePlayed(LiveReceipt),
}

/// From the announcer to a station.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAnnouncer {
    /// The station is on the roster.
    Welcome {
        /// A random number per run of the announcer: another number means another clock.
        clock: u64,
        /// The announcer's key and its time; `None` in open mode.
        site: Option<(AnnouncerKey, Statement)>,
    },
    /// The station is not on the roster. The announcer closes the connection after this.
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
        /// An encoded [`ClipHeader`](super::ClipHeader).
        header: Vec<u8>,
        /// The announcer's signature over it, [`SIGNATURE_BYTES`] long; empty in open mode.
        signature: Vec<u8>,
        /// The key that opens the clip's blocks, [`CLIP_KEY_BYTES`] long; empty in open mode.
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
    /// Answers Played, Rejected and Failed: the announcer has recorded it, and closes the connection after this.
    Noted {
        /// Which clip.
        clip: ClipId,
    },
    /// The volume of everything played from now on: sent after Welcome where the announcer's list sets one, and when
    /// that changes.
    Volume {
        /// The volume in place of the station's own; `None` for the station's own.
        volume: Option<Volume>,
    },
    /// Something more urgent is coming: the station breaks off whatever it receives, holds or plays on this connection.
    /// The announcer closes the connection after this, and sends the clip again when the urgent page is over.
    Yield,
    /// Answers a talkback, on the talkback's own connection.
    Talkback(Answer),
    /// Somebody speaks live from now on: blocks follow at the pace of speech.
    LiveStart {
        /// An encoded [`LiveHeader`](super::LiveHeader) without length and hash.
        header: Vec<u8>,
        /// The announcer's signature over it, [`SIGNATURE_BYTES`] long; empty in open mode.
        signature: Vec<u8>,
        /// The first block that follows: 0, or a later one where the station joins in the middle.
        next: u32,
    },
    /// One block of live speech.
    LiveBlock {
        /// Which announcement it belongs to.
        clip: ClipId,
        /// The number of the block, from 0, in order. Numbers are left out for a station that does not accept them in
        /// time.
        number: u32,
        /// 16-bit samples, little-endian.
        samples: Vec<u8>,
    },
    /// The speech is over; the station answers with LivePlayed.
    LiveEnd {
        /// The header of LiveStart, with length and hash.
        header: Vec<u8>,
        /// The announcer's signature over it, [`SIGNATURE_BYTES`] long; empty in open mode.
        signature: Vec<u8>,
    },
    /// Precedes a PlayAt that is later than the page's own instant. Sent only to stations whose preface says that they
    /// accept it.
    Behind {
        /// Which clip.
        clip: ClipId,
        /// How much later it is, in µs.
        behind_us: u64,
    },
}

/// A message that can be checked against its bounds after decoding.
pub trait Message: Serialize + DeserializeOwned {
    /// Refuses fields beyond their bounds.
    ///
    /// # Errors
    /// [`WireError::Field`] names the field.
    fn check(&self) -> Result<(), WireError>;
}

pub(super) fn check_zones(zones: &[String]) -> Result<(), WireError> {
    if zones.len() > MAX_ZONES || !zones.iter().all(|zone| is_name(zone)) {
        return Err(WireError::Field("zones"));
    }
    Ok(())
}

pub(super) fn check_reason(reason: &str) -> Result<(), WireError> {
    if reason.len() > MAX_REASON_BYTES { Err(WireError::Field("reason")) } else { Ok(()) }
}

pub(super) fn check_length(field: &'static str, length: usize, legal: &[usize]) -> Result<(), WireError> {
    if legal.contains(&length) { Ok(()) } else { Err(WireError::Field(field)) }
}

/// The end of the reason for a fault that an emergency page undoes: the loudspeaker is only muted, and its station may
/// unmute it. Emergency pages are still sent to such a station.
pub const UNMUTED_BY_EMERGENCIES: &str = "; an emergency page unmutes it";

/// Shortens a reason to the length that a message can carry.
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
            Self::Talkback(offer) => offer.check(),
            Self::Health { fault: None }
            | Self::Ping { .. }
            | Self::Verified { .. }
            | Self::Playing { .. }
            | Self::Queued { .. }
            | Self::Played(_)
            | Self::LivePlayed(_)
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
            Self::Talkback(answer) => answer.check(),
            Self::LiveStart { signature, .. } | Self::LiveEnd { signature, .. } => {
                check_length("signature", signature.len(), &[0, SIGNATURE_BYTES])
            }
            Self::LiveBlock { samples, .. } => {
                let is_whole = !samples.is_empty() && samples.len().is_multiple_of(2);
                if is_whole && samples.len() <= MAX_LIVE_BLOCK_BYTES {
                    Ok(())
                } else {
                    Err(WireError::Field("samples"))
                }
            }
            Self::Volume { volume: Some(volume) } if !volume.is_valid() => Err(WireError::Field("volume")),
            Self::Welcome { site: None, .. }
            | Self::Volume { .. }
            | Self::Yield
            | Self::Pong { .. }
            | Self::PlayAt { .. }
            | Self::Behind { .. }
            | Self::Noted { .. } => Ok(()),
        }
    }
}

/// Encodes a message, without a frame header.
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

/// Decodes a message, which must use all the bytes.
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
