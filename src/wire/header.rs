//! The header of a clip: everything a station checks it against, in a fixed layout.

use super::WireError;
use super::message::{ClipId, check_zones};
use crate::clip::{Format, Hash};
use crate::priority::Priority;

/// The size of a clip header without its zones.
const HEADER_FIXED_BYTES: usize = 77;
/// The layout of a clip header in this version.
const HEADER_VERSION: u8 = 2;

/// The header that is sent before a clip's bytes: everything a station checks the clip against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipHeader {
    /// Which clip.
    pub id: ClipId,
    /// When it was recorded, in ms since 1970 by the announcer's clock.
    pub created_unix_ms: u64,
    /// From when on it must not be played, in ms since 1970 by the same clock.
    pub expires_unix_ms: u64,
    /// Size and rate of the WAV.
    pub format: Format,
    /// SHA-256 of the WAV.
    pub sha256: Hash,
    /// How urgent it is.
    pub priority: Priority,
    /// The zones it is for; none means all.
    pub zones: Vec<String>,
}

impl ClipHeader {
    /// Moves both dates, so that it expires at the given time.
    pub fn dated_to_expire(&mut self, expires_unix_ms: u64) {
        let life_ms = self.expires_unix_ms.saturating_sub(self.created_unix_ms);
        self.created_unix_ms = expires_unix_ms.saturating_sub(life_ms);
        self.expires_unix_ms = expires_unix_ms;
    }

    /// Encodes it in the fixed layout of `docs/protocol.md`.
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
        bytes.push(self.priority as u8);
        put_zones(&mut bytes, &self.zones);
        bytes
    }

    /// Reads which clip a header is for, even if the rest of it is wrong; `None` when not even that can be read.
    pub fn id_of(bytes: &[u8]) -> Option<ClipId> {
        let mut rest = Fields(bytes);
        let [HEADER_VERSION] = rest.take()? else { return None };
        let (epoch, sequence) = (u64::from_be_bytes(rest.take()?), u64::from_be_bytes(rest.take()?));
        Some(ClipId { epoch, sequence })
    }

    /// Reads a header; its [`Format`] is not yet checked.
    ///
    /// # Errors
    /// [`WireError::Header`] for bytes that are not a header, [`WireError::Field`] for a field out of bounds.
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
        let [priority] = rest.take().ok_or(malformed.clone())?;
        let priority = Priority::from_byte(priority).ok_or(WireError::Field("priority"))?;
        let zones = take_zones(&mut rest, &|| malformed.clone())?;
        Ok(Self { id, created_unix_ms, expires_unix_ms, format, sha256, priority, zones })
    }
}

/// Writes zones at the end of a fixed layout.
pub(super) fn put_zones(bytes: &mut Vec<u8>, zones: &[String]) {
    bytes.push(zones.len() as u8);
    for zone in zones {
        bytes.push(zone.len() as u8);
        bytes.extend_from_slice(zone.as_bytes());
    }
}

/// Reads the zones that end a fixed layout.
pub(super) fn take_zones(
    rest: &mut Fields<'_>,
    malformed: &impl Fn() -> WireError,
) -> Result<Vec<String>, WireError> {
    let [count] = rest.take().ok_or_else(malformed)?;
    let mut zones = Vec::new();
    for _ in 0..count {
        let [length] = rest.take().ok_or_else(malformed)?;
        let zone = rest.slice(length.into()).ok_or_else(malformed)?;
        let zone = std::str::from_utf8(zone).map_err(|_| WireError::Field("zones"))?;
        zones.push(zone.to_owned());
    }
    if !rest.0.is_empty() {
        return Err(malformed());
    }
    check_zones(&zones)?;
    Ok(zones)
}

/// The unread rest of a fixed layout.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }
}
