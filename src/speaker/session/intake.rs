//! Receiving a clip: everything that is checked before a sample of it is played.

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Session, SessionError, Turn, transfer_deadline};
use crate::clip::{Clip, ClipError, Format, Incoming};
use crate::clip_cipher::{ClipCipherError, ClipKey, ClipOpener};
use crate::link::Connection;
use crate::priority::Priority;
use crate::seal::{self, Claim};
use crate::wire::{ClipHeader, ClipId, WireError};

/// A clip's header, signature and key as received.
pub(super) struct Sent<'a> {
    pub header: &'a [u8],
    pub signature: &'a [u8],
    pub key: Zeroizing<Vec<u8>>,
}

/// What a page is judged by: a clip, or live speech, which has no format.
pub(super) struct Paper<'a> {
    pub id: ClipId,
    pub created_unix_ms: u64,
    pub expires_unix_ms: u64,
    pub priority: Priority,
    pub zones: &'a [String],
    pub format: Option<Format>,
    /// The header as it was signed.
    pub encoded: &'a [u8],
    pub signature: &'a [u8],
}

/// Why a clip is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("its header is not valid")]
    Header(#[source] WireError),
    #[error(transparent)]
    Seal(#[from] seal::Refusal),
    #[error(transparent)]
    Clip(#[from] ClipError),
    #[error(transparent)]
    Cipher(#[from] ClipCipherError),
    #[error("it was played already")]
    Repeated,
    #[error("it is not signed, or its announcer has not said who it is")]
    Unsigned,
}

impl<C: Connection> Session<'_, C> {
    /// Receives the clip and checks it against its header. The inner error is for the announcer.
    pub(super) async fn receive(
        &mut self,
        header: &ClipHeader,
        sent: &Sent<'_>,
    ) -> Result<Result<Clip, Refusal>, SessionError> {
        let admitted = self
            .admit(header, sent)
            .and_then(|opener| Ok((opener, Incoming::new(header.format, header.sha256)?)));
        let (opener, mut incoming) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let allowed = transfer_deadline(header.format.wav_bytes);
        let until = Instant::now() + allowed;
        let mut index = 0;
        self.link.0.expect_blocks(true);
        while incoming.missing_bytes() > 0 {
            let Turn::Block(mut block) = self.turn_until(until, allowed).await? else {
                return Err(SessionError::OutOfTurn);
            };
            let taken = match &opener {
                Some(opener) => {
                    let plain = opener.open_block(index, &mut block).map_err(Refusal::from);
                    plain.and_then(|plain| Ok(incoming.push(plain)?))
                }
                None => incoming.push(&block).map_err(Refusal::from),
            };
            if let Err(refusal) = taken {
                return Ok(Err(refusal));
            }
            index += 1;
        }
        self.link.0.expect_blocks(false);
        Ok(incoming.finish().map_err(Refusal::from))
    }

    /// Decides whether a clip may be received at all. Returns the opener of its blocks; `None` on an open link.
    fn admit(&self, header: &ClipHeader, sent: &Sent<'_>) -> Result<Option<ClipOpener>, Refusal> {
        self.judge(&Paper {
            id: header.id,
            created_unix_ms: header.created_unix_ms,
            expires_unix_ms: header.expires_unix_ms,
            priority: header.priority,
            zones: &header.zones,
            format: Some(header.format),
            encoded: sent.header,
            signature: sent.signature,
        })?;
        if self.memory.membership.is_none() {
            return Ok(None);
        }
        let key = sent.key.as_slice().try_into().map_err(|_| Refusal::Unsigned)?;
        Ok(Some(ClipOpener::new(&ClipKey::from_bytes(key))?))
    }

    /// Decides whether a page may be heard here and now.
    pub(super) fn judge(&self, paper: &Paper<'_>) -> Result<(), Refusal> {
        match &self.memory.membership {
            None => {
                paper.format.map_or(Ok(()), |format| format.check())?;
                let zones = &self.config.zones;
                if !paper.zones.is_empty() && !paper.zones.iter().any(|zone| zones.contains(zone)) {
                    return Err(seal::Refusal::Zone.into());
                }
            }
            Some(member) => {
                let admission = member.admission(paper.priority).ok_or(Refusal::Unsigned)?;
                let claim = Claim {
                    header: paper.encoded,
                    signature: paper.signature.try_into().map_err(|_| Refusal::Unsigned)?,
                    announcer: admission.announcer,
                    epoch: paper.id.epoch,
                    sequence: paper.id.sequence,
                    created_unix_ms: paper.created_unix_ms,
                    expires_unix_ms: paper.expires_unix_ms,
                    zones: paper.zones,
                    format: paper.format,
                };
                admission.judge(&claim, Instant::now())?;
            }
        }
        if self.memory.played.iter().any(|receipt| receipt.clip == paper.id) {
            return Err(Refusal::Repeated);
        }
        Ok(())
    }
}
