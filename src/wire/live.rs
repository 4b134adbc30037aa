//! Live speech on the wire: the header that opens and closes it, in a fixed layout, and a station's report of it.

use serde::{Deserialize, Serialize};

use super::WireError;
use super::header::{Fields, put_zones, take_zones};
use super::message::ClipId;
use crate::clip::{Hash, MAX_RATE_HZ, MIN_RATE_HZ};
use crate::priority::Priority;

/// The size of a header without its zones.
const LIVE_FIXED_BYTES: usize = 89;
/// The layout of a live header; a clip header has another.
pub const LIVE_LAYOUT: u8 = 3;
/// The duration of a block, which is rounded down to whole samples.
pub const LIVE_BLOCK_MS: u32 = 20;
/// The most blocks of live speech: 10 minutes.
pub const MAX_LIVE_BLOCKS: u32 = 30_000;
/// The most bytes of one block: [`LIVE_BLOCK_MS`] of 16-bit samples at [`MAX_RATE_HZ`].
pub const MAX_LIVE_BLOCK_BYTES: usize = (MAX_RATE_HZ / (1_000 / LIVE_BLOCK_MS)) as usize * 2;

/// The header of live speech, sent before its first block and again, with length and hash, after its last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveHeader {
    /// Which announcement; it is in order with the clips of its announcer.
    pub id: ClipId,
    /// When it began, in ms since 1970 by the announcer's clock.
    pub created_unix_ms: u64,
    /// From when on it must not be played, in ms since 1970 by the same clock.
    pub expires_unix_ms: u64,
    /// Samples per second.
    pub rate_hz: u32,
    /// Samples per block; the last may have fewer.
    pub block_frames: u16,
    /// When the first sample of block 0 must sound, in µs of the announcer's clock.
    pub instant_us: u64,
    /// Samples in total; 0 until the speech is over.
    pub frames: u64,
    /// SHA-256 over all samples as they are sent; zeros until the speech is over.
    pub sha256: Hash,
    /// How urgent it is.
    pub priority: Priority,
    /// The zones it is for; none means all.
    pub zones: Vec<String>,
}

impl LiveHeader {
    /// The number of samples in a block at a rate.
    pub fn block_frames_at(rate_hz: u32) -> u16 {
        (rate_hz.clamp(MIN_RATE_HZ, MAX_RATE_HZ) * LIVE_BLOCK_MS / 1_000) as u16
    }

    /// The number of blocks, of which the last may be shorter.
    pub fn blocks(&self) -> u32 {
        u32::try_from(self.frames.div_ceil(u64::from(self.block_frames.max(1)))).unwrap_or(u32::MAX)
    }

    /// When a block must sound, in µs of the announcer's clock.
    pub fn block_us(&self, number: u32) -> u64 {
        let frame = u64::from(number) * u64::from(self.block_frames);
        self.instant_us.saturating_add(frame * 1_000_000 / u64::from(self.rate_hz.max(1)))
    }

    /// Encodes it in the fixed layout of `docs/protocol.md`.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LIVE_FIXED_BYTES + self.zones.len() * 16);
        bytes.push(LIVE_LAYOUT);
        for number in [self.id.epoch, self.id.sequence, self.created_unix_ms, self.expires_unix_ms] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.rate_hz.to_be_bytes());
        bytes.extend_from_slice(&self.block_frames.to_be_bytes());
        bytes.extend_from_slice(&self.instant_us.to_be_bytes());
        bytes.extend_from_slice(&self.frames.to_be_bytes());
        bytes.extend_from_slice(&self.sha256);
        bytes.push(self.priority as u8);
        put_zones(&mut bytes, &self.zones);
        bytes
    }

    /// Reads a header and checks it against its bounds.
    ///
    /// # Errors
    /// [`WireError::Header`] for bytes that are not a live header, [`WireError::Field`] for a field out of bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let malformed = || WireError::Header(bytes.len());
        let mut rest = Fields(bytes);
        let [LIVE_LAYOUT] = rest.take().ok_or_else(malformed)? else { return Err(malformed()) };
        let mut next_u64 = || rest.take().map(u64::from_be_bytes).ok_or_else(malformed);
        let id = ClipId { epoch: next_u64()?, sequence: next_u64()? };
        let (created_unix_ms, expires_unix_ms) = (next_u64()?, next_u64()?);
        let rate_hz = rest.take().map(u32::from_be_bytes).ok_or_else(malformed)?;
        let block_frames = rest.take().map(u16::from_be_bytes).ok_or_else(malformed)?;
        let mut next_u64 = || rest.take().map(u64::from_be_bytes).ok_or_else(malformed);
        let (instant_us, frames) = (next_u64()?, next_u64()?);
        let sha256: Hash = rest.take().ok_or_else(malformed)?;
        let [priority] = rest.take().ok_or_else(malformed)?;
        let priority = Priority::from_byte(priority).ok_or(WireError::Field("priority"))?;
        let zones = take_zones(&mut rest, &malformed)?;
        if !(MIN_RATE_HZ..=MAX_RATE_HZ).contains(&rate_hz) {
            return Err(WireError::Field("rate"));
        }
        if block_frames != Self::block_frames_at(rate_hz) {
            return Err(WireError::Field("block frames"));
        }
        if frames > u64::from(MAX_LIVE_BLOCKS) * u64::from(block_frames) {
            return Err(WireError::Field("frames"));
        }
        Ok(Self {
            id,
            created_unix_ms,
            expires_unix_ms,
            rate_hz,
            block_frames,
            instant_us,
            frames,
            sha256,
            priority,
            zones,
        })
    }
}

/// A station's report of the live speech that it heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveReceipt {
    /// Which announcement.
    pub clip: ClipId,
    /// Blocks that sounded whole and on time.
    pub played: u32,
    /// Blocks that did not: those before the station joined, those that were lost, and those that were late.
    pub concealed: u32,
    /// How many of the concealed blocks arrived after their time.
    pub late: u32,
    /// How far from its instant it began, in µs; later is positive.
    pub start_error_us: i64,
    /// The largest distance from step during playback, in µs.
    pub max_error_us: u64,
    /// How often the sound device ran dry.
    pub underruns: u32,
    /// How far the station's estimate of the instant may be off from the announcer's, in µs; [`u32::MAX`] when it does
    /// not know the announcer's clock at all.
    pub uncertainty_us: u32,
}
