//! The checks that make a clip authentic: its header's signature, its freshness, and its place in the order of clips.
//! Pure; the only clock is the one passed in.
//!
//! ```text
//! header signature = Ed25519( "bullhorn clip header v1" ‖ 0 ‖ announcer's id 32 ‖ header as sent )
//! live signature   = Ed25519( "bullhorn live header v1" ‖ 0 ‖ announcer's id 32 ‖ header as sent )
//! time statement   = Ed25519( "bullhorn announcer time v1" ‖ 0 ‖ announcer's id 32 ‖ nonce 16 ‖ Unix ms 8, big-endian )
//! ```
//!
//! Signatures are verified strictly (`verify_strict` of ed25519-dalek): no weak keys, one form each.
//!
//! **Time.** A station might have no clock that it can trust. At each connection it sends a random nonce, and the
//! announcer answers with a signed statement of its own time; from then on the station counts with its monotonic clock.
//! The statement was made some time between the question and the arrival of the answer, so the station knows the
//! announcer's time to within one round trip. It uses the strict end of that span: a clip must certainly not have
//! expired.

use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use tokio::time::Instant;

use crate::clip::{ClipError, Format};
use crate::keys::{AnnouncerId, AnnouncerKeys, KeysError, Mark, random};

pub mod talkback;

const HEADER_DOMAIN: &[u8] = b"bullhorn clip header v1\0";
const LIVE_DOMAIN: &[u8] = b"bullhorn live header v1\0";
const TIME_DOMAIN: &[u8] = b"bullhorn announcer time v1\0";
/// An announcer that takes longer than this to state its time is not believed. The same as the handshake's deadline.
pub const MAX_ROUND_TRIP: Duration = Duration::from_secs(3);
/// The longest header that is read.
pub const MAX_HEADER_BYTES: usize = 4096;
/// After this long a station should ask for the time again: two cheap crystals, each 100 ppm off, are then 120 ms
/// apart.
pub const ASK_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// How far ahead of the announcer's stated time a clip may be dated, to allow for rounding …
const CREATED_SLACK: Duration = Duration::from_secs(2);
/// … and for drift: one part in this number of the time since the statement.
const DRIFT_ONE_IN: u32 = 1_000;

/// An Ed25519 signature.
pub type SignatureBytes = [u8; 64];

/// Signs a clip's header, exactly as it is sent.
pub fn sign(announcer: &AnnouncerKeys, header: &[u8]) -> SignatureBytes {
    announcer.sign(&message(HEADER_DOMAIN, announcer.id().as_bytes(), &[header]))
}

/// Whether an announcer signed these bytes as a clip's header.
pub fn verify(announcer: &AnnouncerId, header: &[u8], signature: &SignatureBytes) -> bool {
    let message = message(HEADER_DOMAIN, announcer.as_bytes(), &[header]);
    verify_message(announcer.as_bytes(), &message, signature)
}

/// Signs a header of live speech, exactly as it is sent.
pub fn sign_live(announcer: &AnnouncerKeys, header: &[u8]) -> SignatureBytes {
    announcer.sign(&message(LIVE_DOMAIN, announcer.id().as_bytes(), &[header]))
}

/// Whether an announcer signed these bytes as a header of live speech.
pub fn verify_live(announcer: &AnnouncerId, header: &[u8], signature: &SignatureBytes) -> bool {
    let message = message(LIVE_DOMAIN, announcer.as_bytes(), &[header]);
    verify_message(announcer.as_bytes(), &message, signature)
}

fn message(domain: &[u8], signer: &[u8; 32], parts: &[&[u8]]) -> Vec<u8> {
    [&[domain, signer.as_slice()], parts].concat().concat()
}

fn verify_message(signer: &[u8; 32], message: &[u8], signature: &SignatureBytes) -> bool {
    VerifyingKey::from_bytes(signer)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// The nonce with which a station asks for the announcer's time. Random, and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeNonce(pub [u8; 16]);

impl TimeNonce {
    /// Generates a new nonce.
    ///
    /// # Errors
    /// [`KeysError::Random`].
    pub fn generate() -> Result<Self, KeysError> {
        random().map(Self)
    }
}

/// An announcer's answer to a [`TimeNonce`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeStatement {
    /// The announcer's time, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Its signature over the nonce and the time.
    pub signature: SignatureBytes,
}

impl TimeStatement {
    /// States the announcer's time.
    pub fn sign(announcer: &AnnouncerKeys, nonce: TimeNonce, unix_ms: u64) -> Self {
        let parts: [&[u8]; 2] = [&nonce.0, &unix_ms.to_be_bytes()];
        let signature = announcer.sign(&message(TIME_DOMAIN, announcer.id().as_bytes(), &parts));
        Self { unix_ms, signature }
    }

    fn is_by(&self, announcer: &AnnouncerId, nonce: TimeNonce) -> bool {
        let parts: [&[u8]; 2] = [&nonce.0, &self.unix_ms.to_be_bytes()];
        let announcer = announcer.as_bytes();
        verify_message(announcer, &message(TIME_DOMAIN, announcer, &parts), &self.signature)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Why a station does not know the announcer's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// It is not the announcer's signature over this nonce.
    #[error("the announcer's statement of its time is not genuine")]
    NotGenuine,
    /// The answer took too long to be of use.
    #[error("the announcer took {} ms to state its time, over {} ms", .0.as_millis(), MAX_ROUND_TRIP.as_millis())]
    TooSlow(Duration),
}

/// The announcer's time as a station knows it.
#[derive(Debug, Clone, Copy)]
pub struct AnnouncerTime {
    stated_unix_ms: u64,
    asked: Instant,
}

impl AnnouncerTime {
    /// Accepts the answer to `nonce`, which was sent at `asked` and answered at `heard`.
    ///
    /// # Errors
    /// [`TimeError`].
    pub fn from_statement(
        announcer: &AnnouncerId,
        nonce: TimeNonce,
        statement: &TimeStatement,
        asked: Instant,
        heard: Instant,
    ) -> Result<Self, TimeError> {
        let round_trip = heard.saturating_duration_since(asked);
        if round_trip > MAX_ROUND_TRIP {
            return Err(TimeError::TooSlow(round_trip));
        }
        if !statement.is_by(announcer, nonce) {
            return Err(TimeError::NotGenuine);
        }
        Ok(Self { stated_unix_ms: statement.unix_ms, asked })
    }

    /// The latest time that the announcer's clock can show now, in milliseconds since 1970: at most one round trip
    /// ahead of that clock, never behind it.
    pub fn latest_unix_ms(&self, now: Instant) -> u64 {
        self.stated_unix_ms.saturating_add(millis(now.saturating_duration_since(self.asked)))
    }
}

/// The claims of a clip's header, parsed from the very bytes that are signed.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The header as sent: the bytes that are signed.
    pub header: &'a [u8],
    /// The signature that came with it.
    pub signature: &'a SignatureBytes,
    /// The announcer who signed it.
    pub announcer: AnnouncerId,
    /// The announcer's run.
    pub epoch: u64,
    /// The clip's number in that run.
    pub sequence: u64,
    /// When it was made, by the announcer's clock, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// From when on it must not be played, by the announcer's clock, in milliseconds since 1970.
    pub expires_unix_ms: u64,
    /// The zones where it must be heard; none means everywhere.
    pub zones: &'a [String],
    /// The WAV's size and rate; `None` for live speech, which has no length in advance and is signed with its own
    /// domain.
    pub format: Option<Format>,
}

/// Why a station does not accept a clip.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The header is larger than any header may be.
    #[error("the clip's header has {0} bytes, over the limit of {MAX_HEADER_BYTES}")]
    HeaderSize(usize),
    /// No clip has this size or rate.
    #[error(transparent)]
    Format(#[from] ClipError),
    /// It is not from the announcer that this station trusts.
    #[error("the clip is of an announcer that this station does not trust")]
    Announcer,
    /// The signature is not the announcer's.
    #[error("the clip's signature is not its announcer's")]
    Signature,
    /// The station is in none of its zones.
    #[error("the clip is for other zones")]
    Zone,
    /// It has expired, or expires before its own date.
    #[error("the clip expired {late_ms} ms ago")]
    Expired {
        /// How long ago, by the announcer's clock.
        late_ms: u64,
    },
    /// It is dated later than the announcer's clock.
    #[error("the clip is dated {early_ms} ms ahead of its announcer's own clock")]
    NotYet {
        /// How far ahead.
        early_ms: u64,
    },
    /// It, or a later one, was heard already.
    #[error("the clip was heard before, or is older than one that was")]
    Replay,
}

/// The facts by which a station judges whether to admit a clip.
#[derive(Debug, Clone, Copy)]
pub struct Admission<'a> {
    /// The announcer that the station has pinned.
    pub announcer: AnnouncerId,
    /// The zones that the station is in.
    pub zones: &'a [String],
    /// The announcer's time.
    pub time: AnnouncerTime,
    /// The last clip heard from the announcer.
    pub heard: Option<Mark>,
}

impl Admission<'_> {
    /// Whether a clip may be received. Checks in this order: size, announcer, signature, zone, freshness, sequence. The
    /// hash of its body is checked after the body has arrived.
    ///
    /// # Errors
    /// The first [`Refusal`].
    pub fn judge(&self, claim: &Claim<'_>, now: Instant) -> Result<(), Refusal> {
        if claim.header.len() > MAX_HEADER_BYTES {
            return Err(Refusal::HeaderSize(claim.header.len()));
        }
        claim.format.map_or(Ok(()), |format| format.check())?;
        if claim.announcer != self.announcer {
            return Err(Refusal::Announcer);
        }
        let is_genuine = if claim.format.is_some() { verify } else { verify_live };
        if !is_genuine(&self.announcer, claim.header, claim.signature) {
            return Err(Refusal::Signature);
        }
        let here = claim.zones.is_empty() || claim.zones.iter().any(|zone| self.zones.contains(zone));
        if !here {
            return Err(Refusal::Zone);
        }
        self.judge_freshness(claim, now)?;
        match self.heard {
            Some(mark) if !mark.admits(claim.epoch, claim.sequence) => Err(Refusal::Replay),
            _ => Ok(()),
        }
    }

    /// Whether a clip may still be played.
    ///
    /// # Errors
    /// [`Refusal::Expired`], [`Refusal::NotYet`].
    pub fn judge_freshness(&self, claim: &Claim<'_>, now: Instant) -> Result<(), Refusal> {
        let latest = self.time.latest_unix_ms(now);
        let early_ms = claim.created_unix_ms.saturating_sub(latest);
        let drift = now.saturating_duration_since(self.time.asked) / DRIFT_ONE_IN;
        if early_ms > millis(CREATED_SLACK + drift) {
            return Err(Refusal::NotYet { early_ms });
        }
        if latest >= claim.expires_unix_ms || claim.expires_unix_ms < claim.created_unix_ms {
            return Err(Refusal::Expired { late_ms: latest.saturating_sub(claim.expires_unix_ms) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
