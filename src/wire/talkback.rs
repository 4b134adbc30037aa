//! Talkback on the wire: a station's speech for its announcer, over a connection of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::header::Fields;
use super::message::{ClipId, check_length, check_reason};
use super::name::is_name;
use super::{AnnouncerKey, CLIP_KEY_BYTES, SIGNATURE_BYTES, WireError};
use crate::clip::{Format, Hash};

/// The size of a header without the station's name.
const FIXED_BYTES: usize = 140;
/// The layout of a talkback header in this version; no clip header begins with it.
const LAYOUT: u8 = 0x80;

/// A station's first message on a talkback connection, in place of Hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// An encoded [`TalkbackHeader`].
    pub header: Vec<u8>,
    /// The station's signature over it, [`SIGNATURE_BYTES`] long; empty in open mode.
    pub signature: Vec<u8>,
    /// The key that opens the blocks, [`CLIP_KEY_BYTES`] long; empty in open mode.
    pub key: Vec<u8>,
}

impl Offer {
    pub(super) fn check(&self) -> Result<(), WireError> {
        check_length("signature", self.signature.len(), &[0, SIGNATURE_BYTES])?;
        check_length("key", self.key.len(), &[0, CLIP_KEY_BYTES])
    }
}

/// The announcer's answers to a talkback. It closes the connection after any of the last four.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The blocks are wanted.
    Send,
    /// Sent once a second, to show that the announcer is alive.
    Wait,
    /// Not now: the station should offer it again.
    Later {
        /// Why, in words.
        reason: String,
    },
    /// The announcer's loudspeaker played it to its last sample.
    Heard,
    /// It was kept, but could not be heard.
    Kept {
        /// Why, in words.
        reason: String,
    },
    /// It is not accepted, and was neither heard nor kept.
    Refused {
        /// Why, in words.
        reason: String,
    },
}

impl Answer {
    pub(super) fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Send | Self::Wait | Self::Heard => Ok(()),
            Self::Later { reason } | Self::Kept { reason } | Self::Refused { reason } => check_reason(reason),
        }
    }
}

/// The longest that a talkback may be valid, from its date to its expiry.
pub const TALKBACK_LIFE: Duration = Duration::from_secs(86_400);

/// The header that is sent before a talkback's bytes: everything the announcer checks the talkback against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TalkbackHeader {
    /// The Ed25519 key of the station that speaks; zeros in open mode.
    pub station: [u8; 32],
    /// The Ed25519 key of the announcer that it is for; zeros in open mode.
    pub announcer: AnnouncerKey,
    /// Which talkback: the run of the station, and the number in that run.
    pub id: ClipId,
    /// When it was recorded, in ms since 1970 by the announcer's clock as the station knows it.
    pub created_unix_ms: u64,
    /// From when on it must not be accepted, in ms since 1970 by the same clock.
    pub expires_unix_ms: u64,
    /// Size and rate of the WAV.
    pub format: Format,
    /// SHA-256 of the WAV.
    pub sha256: Hash,
    /// The station's name.
    pub name: String,
}

impl TalkbackHeader {
    /// Encodes it in the fixed layout of `docs/protocol.md`.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.name.len());
        bytes.push(LAYOUT);
        bytes.extend_from_slice(&self.station);
        bytes.extend_from_slice(&self.announcer);
        for number in [self.id.epoch, self.id.sequence, self.created_unix_ms, self.expires_unix_ms] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.format.wav_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.format.rate_hz.to_be_bytes());
        bytes.extend_from_slice(&[1, 16]);
        bytes.extend_from_slice(&self.sha256);
        bytes.push(self.name.len() as u8);
        bytes.extend_from_slice(self.name.as_bytes());
        bytes
    }

    /// Reads a header; its [`Format`] is not yet checked.
    ///
    /// # Errors
    /// [`WireError::Header`] for bytes that are not a header, [`WireError::Field`] for a field out of bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let malformed = || WireError::Header(bytes.len());
        let mut rest = Fields(bytes);
        if rest.take() != Some([LAYOUT]) {
            return Err(malformed());
        }
        let station = rest.take().ok_or_else(malformed)?;
        let announcer = rest.take().ok_or_else(malformed)?;
        let mut next_u64 = || rest.take().map(u64::from_be_bytes).ok_or_else(malformed);
        let id = ClipId { epoch: next_u64()?, sequence: next_u64()? };
        let (created_unix_ms, expires_unix_ms) = (next_u64()?, next_u64()?);
        let mut next_u32 = || rest.take().map(u32::from_be_bytes).ok_or_else(malformed);
        let format = Format { wav_bytes: next_u32()?, rate_hz: next_u32()? };
        let [channels, bits] = rest.take().ok_or_else(malformed)?;
        if channels != 1 {
            return Err(WireError::Field("channels"));
        }
        if bits != 16 {
            return Err(WireError::Field("bits a sample"));
        }
        let sha256 = rest.take().ok_or_else(malformed)?;
        let [length] = rest.take().ok_or_else(malformed)?;
        let name = rest.slice(length.into()).filter(|_| rest.0.is_empty()).ok_or_else(malformed)?;
        let name = std::str::from_utf8(name).ok().filter(|name| is_name(name));
        let name = name.ok_or(WireError::Field("name"))?.to_owned();
        Ok(Self { station, announcer, id, created_unix_ms, expires_unix_ms, format, sha256, name })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::wire::ClipHeader;

    fn header() -> TalkbackHeader {
        TalkbackHeader {
            station: [3; 32],
            announcer: [4; 32],
            id: ClipId { epoch: 1 << 40, sequence: 2 },
            created_unix_ms: 1_790_000_000_000,
            expires_unix_ms: 1_790_000_060_000,
            format: Format { wav_bytes: 46, rate_hz: 8_000 },
            sha256: [5; 32],
            name: "hall-1".into(),
        }
    }

    #[test]
    fn a_header_has_one_form_and_none_that_a_clip_has() {
        let header = header();
        let bytes = header.encode();
        assert_eq!(bytes.len(), FIXED_BYTES + 6);
        assert_eq!(TalkbackHeader::decode(&bytes), Ok(header));
        assert!(ClipHeader::decode(&bytes).is_err() && ClipHeader::id_of(&bytes).is_none());
        for cut in 0..bytes.len() {
            assert!(TalkbackHeader::decode(&bytes[..cut]).is_err());
        }
        assert!(TalkbackHeader::decode(&[&bytes[..], &[0]].concat()).is_err());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x80;
            if let Ok(other) = TalkbackHeader::decode(&flipped) {
                assert_eq!(other.encode(), flipped);
            }
        }
    }

    #[test]
    fn fields_are_held_to_their_bounds() {
        let good = header().encode();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            TalkbackHeader::decode(&bytes)
        };
        assert_eq!(with(0, 2), Err(WireError::Header(good.len())), "a clip's layout");
        assert_eq!(with(105, 2), Err(WireError::Field("channels")));
        assert_eq!(with(106, 8), Err(WireError::Field("bits a sample")));
        assert_eq!(with(139, 7), Err(WireError::Header(good.len())));
        for illegal in [b'/', 0, 0xff, b'.'] {
            assert_eq!(with(140, illegal), Err(WireError::Field("name")));
        }
        let nameless = TalkbackHeader { name: String::new(), ..header() };
        assert_eq!(TalkbackHeader::decode(&nameless.encode()), Err(WireError::Field("name")));
    }
}
