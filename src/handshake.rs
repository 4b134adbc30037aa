//! The handshake that makes a link private and mutual: Noise, revision 34 (<https://noiseprotocol.org>), as a pure
//! typestate machine over byte arrays of fixed size. It reads neither a socket nor a clock.
//!
//! ```text
//!  station (initiator)                                        announcer (responder)
//!  Initiator::start ── message 1: opening, e ──────────────────▶ Responder::answer
//!  Initiator::answer ◀────────────────── message 2: e, ee, s, es ──┘
//!     announcer's key checked here, before anything of the station is sent
//!     └─────────────── message 3: s, se (psk) ─────────────────▶ Responder::finish
//!                                                                   station's key checked here
//! ```
//!
//! Peers that know each other's keys use `Noise_XX_25519_ChaChaPoly_SHA256`; on first contact the invite's secret is
//! mixed in: `Noise_XXpsk3_25519_ChaChaPoly_SHA256`. The cipher is ChaCha20-Poly1305 because the small boards that
//! stations run on have no AES instructions. The opening, sent in clear, is the prologue:
//!
//! ```text
//! "bullhorn" 8 │ version 1: 1 │ mode 1: 0 known, 1 invited │ invite's id 8, or zeros
//! ```
//!
//! A failure is never reported to the other end: the connection is closed, whatever the reason. A named invite that is
//! unknown or has expired fails like a wrong secret, in message 3.

use std::sync::Arc;

use snow::{Builder, HandshakeState};

use crate::invite::{Invite, InviteId, InviteSecret};
use crate::keys::{AnnouncerChanged, NoiseKeys, NoisePublicKey};

mod transport;

pub use transport::{MAX_MESSAGE_BYTES, Opener, Sealer, TAG_BYTES};

/// Message 1: the opening, a key, and 16 bytes that are a tag on first contact and zeros otherwise.
pub const MESSAGE1_BYTES: usize = OPENING_BYTES + 32 + TAG_BYTES;
/// Message 2: a key, a sealed key, and a tag.
pub const MESSAGE2_BYTES: usize = 32 + (32 + TAG_BYTES) + TAG_BYTES;
/// Message 3: a sealed key, and a tag.
pub const MESSAGE3_BYTES: usize = (32 + TAG_BYTES) + TAG_BYTES;

const OPENING_BYTES: usize = 18;
const MAGIC: &[u8; 8] = b"bullhorn";
const VERSION: u8 = 1;
const KNOWN: &str = "Noise_XX_25519_ChaChaPoly_SHA256";
const INVITED: &str = "Noise_XXpsk3_25519_ChaChaPoly_SHA256";
/// The position of the psk: `psk3`.
const PSK_PLACE: u8 = 3;

/// Why no link was set up. Only this side sees it.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer does not speak bullhorn.
    #[error("the other end does not speak bullhorn")]
    NotBullhorn,
    /// The peer speaks another version.
    #[error(
        "the other end speaks version {0} of the protocol, this one speaks {VERSION}: bring both to one release"
    )]
    Version(u8),
    /// A message did not open: it was not meant for this side, was altered on the way, or the secrets differ.
    #[error("the secured connection could not be set up: a message was not genuine")]
    NotGenuine(#[source] snow::Error),
    /// The pinned announcer did not answer.
    #[error(transparent)]
    AnnouncerChanged(#[from] Box<AnnouncerChanged>),
    /// An announcer other than the one that made the invite answered.
    #[error(
        "{address} is not the announcer that made the invite: check the address, or ask for a new invite"
    )]
    NotTheInviter {
        /// The address as dialled.
        address: String,
    },
    /// The station's key is not known, or no longer known.
    #[error("a station with an unknown key ({}) was turned away", .0.fingerprint())]
    UnknownStation(NoisePublicKey),
    /// A message is longer than allowed, or does not fit.
    #[error("a message of {0} bytes cannot be: at most {MAX_MESSAGE_BYTES} fit")]
    MessageSize(usize),
    /// The link has carried the most messages allowed.
    #[error("the secured connection is used up: connect again")]
    Exhausted,
    /// An earlier message was not genuine, so no later one is accepted.
    #[error("the secured connection is broken: connect again")]
    Broken,
    /// The cryptographic library refused.
    #[error("the secured connection could not be prepared")]
    Noise(#[source] snow::Error),
    /// The system provides no random numbers.
    #[error(transparent)]
    Random(#[from] crate::keys::KeysError),
}

/// How the two ends know each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They have met before.
    Known,
    /// By an invite, on first contact.
    Invited(InviteId),
}

impl Mode {
    /// The invite that the station came with.
    pub fn invite(self) -> Option<InviteId> {
        match self {
            Self::Known => None,
            Self::Invited(invite) => Some(invite),
        }
    }

    fn opening(self) -> [u8; OPENING_BYTES] {
        let (mode, id) = match self {
            Self::Known => (0, [0; 8]),
            Self::Invited(InviteId(id)) => (1, id),
        };
        let mut opening = [0; OPENING_BYTES];
        let bytes = MAGIC.iter().copied().chain([VERSION, mode]).chain(id);
        opening.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        opening
    }

    fn parse(opening: &[u8; OPENING_BYTES]) -> Result<Self, HandshakeError> {
        let (magic, rest) = opening.split_first_chunk().ok_or(HandshakeError::NotBullhorn)?;
        let (&[version, mode], id) = rest.split_first_chunk().ok_or(HandshakeError::NotBullhorn)?;
        if magic != MAGIC {
            return Err(HandshakeError::NotBullhorn);
        }
        if version != VERSION {
            return Err(HandshakeError::Version(version));
        }
        match (mode, <[u8; 8]>::try_from(id)) {
            (0, Ok([0, 0, 0, 0, 0, 0, 0, 0])) => Ok(Self::Known),
            (1, Ok(id)) => Ok(Self::Invited(InviteId(id))),
            _ => Err(HandshakeError::NotBullhorn),
        }
    }
}

/// The announcer that a station wants to reach.
#[derive(Debug, Clone, Copy)]
pub enum Contact<'a> {
    /// The announcer pinned at an address.
    Pinned(NoisePublicKey),
    /// The announcer that made an invite.
    Invite(&'a Invite),
}

/// A complete handshake: the two halves of a link, and the key of the other end.
#[derive(Debug)]
pub struct Transport {
    /// Seals messages from this side.
    pub sealer: Sealer,
    /// Opens messages from the other side.
    pub opener: Opener,
    /// The key that the other side has proven to hold.
    pub peer: NoisePublicKey,
    /// How the two met.
    pub mode: Mode,
    /// A hash of the whole handshake: the same at both ends, and different for every other link.
    pub hash: [u8; 32],
}

/// A station that waits for message 2.
#[derive(Debug)]
pub struct Initiator {
    noise: HandshakeState,
    mode: Mode,
    expected: NoisePublicKey,
    address: String,
}

impl Initiator {
    /// Begins and returns message 1. `address` is the address dialled, for messages.
    ///
    /// # Errors
    /// [`HandshakeError::Noise`], only if the library fails.
    pub fn start(
        keys: &NoiseKeys,
        contact: Contact<'_>,
        address: &str,
    ) -> Result<(Self, [u8; MESSAGE1_BYTES]), HandshakeError> {
        Self::begin(keys, contact, address, None)
    }

    fn begin(
        keys: &NoiseKeys,
        contact: Contact<'_>,
        address: &str,
        ephemeral: Option<&[u8; 32]>,
    ) -> Result<(Self, [u8; MESSAGE1_BYTES]), HandshakeError> {
        let (mode, psk, expected) = match contact {
            Contact::Pinned(key) => (Mode::Known, None, key),
            Contact::Invite(invite) => {
                let secret = invite.secret();
                (Mode::Invited(secret.id()), Some(secret.psk()), invite.announcer())
            }
        };
        let opening = mode.opening();
        let mut noise = builder(mode, &opening, keys, psk.as_deref(), ephemeral)?
            .build_initiator()
            .map_err(HandshakeError::Noise)?;
        let mut message = [0; MESSAGE1_BYTES];
        let (head, tail) = message.split_at_mut(OPENING_BYTES);
        head.copy_from_slice(&opening);
        write(&mut noise, padding(mode), tail)?;
        Ok((Self { noise, mode, expected, address: address.into() }, message))
    }

    /// Accepts message 2, checks that the announcer is the expected one, and only then returns message 3.
    ///
    /// # Errors
    /// [`HandshakeError::AnnouncerChanged`], [`HandshakeError::NotTheInviter`],
    /// [`HandshakeError::NotGenuine`].
    pub fn answer(
        mut self,
        message2: &[u8; MESSAGE2_BYTES],
    ) -> Result<([u8; MESSAGE3_BYTES], Transport), HandshakeError> {
        read(&mut self.noise, message2)?;
        let found = remote(&self.noise)?;
        if found != self.expected {
            let Self { address, expected, mode, .. } = self;
            return Err(match mode {
                Mode::Invited(_) => HandshakeError::NotTheInviter { address },
                Mode::Known => Box::new(AnnouncerChanged {
                    address,
                    pinned: expected.fingerprint(),
                    found: found.fingerprint(),
                })
                .into(),
            });
        }
        let mut message3 = [0; MESSAGE3_BYTES];
        write(&mut self.noise, &[], &mut message3)?;
        Ok((message3, transport(self.noise, self.mode)?))
    }
}

/// An announcer that waits for message 3.
#[derive(Debug)]
pub struct Responder {
    noise: HandshakeState,
    mode: Mode,
}

impl Responder {
    /// Accepts message 1 and returns message 2. `invite` finds the secret of a valid invite; if it finds none, a random
    /// secret takes its place, so that a stranger learns nothing here.
    ///
    /// # Errors
    /// [`HandshakeError::NotBullhorn`], [`HandshakeError::Version`], [`HandshakeError::NotGenuine`].
    pub fn answer(
        keys: &NoiseKeys,
        message1: &[u8; MESSAGE1_BYTES],
        invite: impl FnOnce(InviteId) -> Option<InviteSecret>,
    ) -> Result<(Self, [u8; MESSAGE2_BYTES]), HandshakeError> {
        Self::begin(keys, message1, invite, None)
    }

    fn begin(
        keys: &NoiseKeys,
        message1: &[u8; MESSAGE1_BYTES],
        invite: impl FnOnce(InviteId) -> Option<InviteSecret>,
        ephemeral: Option<&[u8; 32]>,
    ) -> Result<(Self, [u8; MESSAGE2_BYTES]), HandshakeError> {
        let (opening, message) = message1.split_first_chunk().ok_or(HandshakeError::NotBullhorn)?;
        let mode = Mode::parse(opening)?;
        let psk = match mode {
            Mode::Known => None,
            Mode::Invited(id) => Some(invite(id).map_or_else(InviteSecret::generate, Ok)?.psk()),
        };
        let mut noise = builder(mode, opening, keys, psk.as_deref(), ephemeral)?
            .build_responder()
            .map_err(HandshakeError::Noise)?;
        read(&mut noise, message)?;
        let mut message2 = [0; MESSAGE2_BYTES];
        write(&mut noise, &[], &mut message2)?;
        Ok((Self { noise, mode }, message2))
    }

    /// Accepts message 3. `known` says whether a key has joined; it is called unless the station came with an invite.
    ///
    /// # Errors
    /// [`HandshakeError::UnknownStation`], [`HandshakeError::NotGenuine`].
    pub fn finish(
        mut self,
        message3: &[u8; MESSAGE3_BYTES],
        known: impl FnOnce(&NoisePublicKey) -> bool,
    ) -> Result<Transport, HandshakeError> {
        read(&mut self.noise, message3)?;
        let station = remote(&self.noise)?;
        if self.mode == Mode::Known && !known(&station) {
            return Err(HandshakeError::UnknownStation(station));
        }
        transport(self.noise, self.mode)
    }
}

fn builder<'a>(
    mode: Mode,
    opening: &'a [u8],
    keys: &'a NoiseKeys,
    psk: Option<&'a [u8; 32]>,
    ephemeral: Option<&'a [u8; 32]>,
) -> Result<Builder<'a>, HandshakeError> {
    let pattern = if mode == Mode::Known { KNOWN } else { INVITED };
    let params = pattern.parse().map_err(HandshakeError::Noise)?;
    let mut builder = Builder::new(params)
        .prologue(opening)
        .and_then(|builder| builder.local_private_key(keys.secret()))
        .map_err(HandshakeError::Noise)?;
    if let Some(psk) = psk {
        builder = builder.psk(PSK_PLACE, psk).map_err(HandshakeError::Noise)?;
    }
    if let Some(ephemeral) = ephemeral {
        builder = builder.fixed_ephemeral_key_for_testing_only(ephemeral);
    }
    Ok(builder)
}

/// The payload of message 1 that makes it the same length in both modes.
fn padding(mode: Mode) -> &'static [u8] {
    if mode == Mode::Known { &[0; TAG_BYTES] } else { &[] }
}

fn write(noise: &mut HandshakeState, payload: &[u8], message: &mut [u8]) -> Result<(), HandshakeError> {
    // The library asks for room for a tag even where it writes none.
    let mut room = [0; MESSAGE2_BYTES + TAG_BYTES];
    let written = noise.write_message(payload, &mut room).map_err(HandshakeError::Noise)?;
    match room.get(..written) {
        Some(written) if written.len() == message.len() => message.copy_from_slice(written),
        _ => return Err(HandshakeError::MessageSize(written)),
    }
    Ok(())
}

fn read(noise: &mut HandshakeState, message: &[u8]) -> Result<(), HandshakeError> {
    let mut payload = [0; MESSAGE2_BYTES];
    noise.read_message(message, &mut payload).map_err(HandshakeError::NotGenuine)?;
    Ok(())
}

fn remote(noise: &HandshakeState) -> Result<NoisePublicKey, HandshakeError> {
    noise
        .get_remote_static()
        .and_then(|key| key.try_into().ok())
        .map(NoisePublicKey::from_bytes)
        .ok_or(HandshakeError::NotGenuine(snow::Error::Input))
}

fn transport(noise: HandshakeState, mode: Mode) -> Result<Transport, HandshakeError> {
    let peer = remote(&noise)?;
    let hash =
        noise.get_handshake_hash().try_into().map_err(|_| HandshakeError::Noise(snow::Error::Input))?;
    let link = Arc::new(noise.into_stateless_transport_mode().map_err(HandshakeError::Noise)?);
    Ok(Transport { sealer: Sealer::new(link.clone()), opener: Opener::new(link), peer, mode, hash })
}

#[cfg(test)]
mod tests;
