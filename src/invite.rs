//! The invite: one line that a station needs to join, and the announcer's record of it.
//!
//! ```text
//! bh1 base32( version 1 │ announcer's X25519 key 32 │ secret 16 │ expiry 5 │ checksum 4 )
//!      lower case, no padding, RFC 4648 alphabet; 58 bytes, 93 letters
//! version   1; the upper four bits are flags, all 0
//! expiry    seconds since 1970 by the announcer's clock, big-endian
//! checksum  the first 4 bytes of SHA-256("bullhorn invite checksum v1" ‖ all before it)
//! ```
//!
//! The key lets a station recognise the announcer before it reveals anything about itself; the secret proves to the
//! announcer that the station was invited. The expiry in the invite is for people to read: only the announcer's record
//! and clock decide whether it is valid.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::keys::{KeysError, KnownStations, NoisePublicKey, StateFolder, Station, random};

mod book;

pub use book::InviteBook;

/// How long an invite is valid unless a validity is given.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// The shortest validity: time to walk to a station.
pub const MIN_VALIDITY: Duration = Duration::from_secs(60);
/// The longest validity: a year. An invite is a key to the building.
pub const MAX_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

const PREFIX: &str = "bh1";
const VERSION: u8 = 1;
const BYTES: usize = 1 + 32 + 16 + 5 + 4;
const CHECKED_BYTES: usize = BYTES - 4;
/// Letters after the prefix: 58 bytes at 5 bits a letter.
const LETTERS: usize = (BYTES * 8).div_ceil(5);
/// The latest expiry that 5 bytes hold.
const MAX_EXPIRY: u64 = (1 << 40) - 1;

/// An error in an invite. No message quotes the invite.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// It does not begin like an invite.
    #[error("this is no invite: one begins with {PREFIX}; `bullhorn invite` at the announcer prints it")]
    NotAnInvite,
    /// It has a character that no invite has.
    #[error("the invite has a character that none has ({found:?} at place {place}): copy it again, whole")]
    Character {
        /// The character.
        found: char,
        /// Its place, counting from 1.
        place: usize,
    },
    /// Some of it is missing.
    #[error("the invite is cut short ({letters} of {} characters): copy it again, whole", PREFIX.len() + LETTERS)]
    CutShort {
        /// How many characters there are.
        letters: usize,
    },
    /// There is more of it than there should be.
    #[error("the invite is too long ({letters} instead of {} characters): copy it again, alone", PREFIX.len() + LETTERS)]
    TooLong {
        /// How many characters there are.
        letters: usize,
    },
    /// Its checksum does not match.
    #[error("the invite has a typing error in it: copy it again, or print it again with `bullhorn invite`")]
    Typo,
    /// A newer announcer made it.
    #[error("the invite is from a newer bullhorn (version {0}): update this station")]
    FromTheFuture(u8),
    /// The validity is not a time such as `30m`, `12h` or `7d`.
    #[error("{0:?} is no validity: write a number and m, h or d, such as 30m, 12h or 7d, from 1m to 365d")]
    Validity(String),
    /// The record of invites could not be read or written.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// The proof to the announcer that a station was invited. Wiped when dropped; never shown.
#[derive(Clone)]
pub struct InviteSecret(Zeroizing<[u8; 16]>);

impl InviteSecret {
    /// Generates a new secret.
    ///
    /// # Errors
    /// [`KeysError::Random`].
    pub fn generate() -> Result<Self, KeysError> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    /// The public name of the invite, sent in clear before the handshake: the first 8 bytes of SHA-256("bullhorn invite
    /// id v1" ‖ secret).
    pub fn id(&self) -> InviteId {
        let digest = Sha256::new().chain_update("bullhorn invite id v1").chain_update(*self.0).finalize();
        let mut id = [0; 8];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        InviteId(id)
    }

    /// The handshake's pre-shared key: SHA-256("bullhorn invite psk v1" ‖ secret).
    pub(crate) fn psk(&self) -> Zeroizing<[u8; 32]> {
        let digest = Sha256::new().chain_update("bullhorn invite psk v1").chain_update(*self.0).finalize();
        Zeroizing::new(digest.into())
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(…)")
    }
}

/// The public name of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InviteId(pub [u8; 8]);

/// An invite. [`Invite::to_line`] is the only way to see its secret.
#[derive(Debug, Clone)]
pub struct Invite {
    announcer: NoisePublicKey,
    secret: InviteSecret,
    expires_unix_s: u64,
}

impl Invite {
    /// The key of the announcer that made it.
    pub fn announcer(&self) -> NoisePublicKey {
        self.announcer
    }

    /// The secret that proves the invitation.
    pub fn secret(&self) -> &InviteSecret {
        &self.secret
    }

    /// When it expires, in seconds since 1970 by the announcer's clock. For messages only: a station does not check it.
    pub fn expires_unix_s(&self) -> u64 {
        self.expires_unix_s
    }

    /// The line to give to a station, `bh1…`. Wiped from memory when dropped.
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES));
        bytes.push(VERSION);
        bytes.extend_from_slice(self.announcer.as_bytes());
        bytes.extend_from_slice(self.secret.0.as_slice());
        bytes.extend(self.expires_unix_s.min(MAX_EXPIRY).to_be_bytes().into_iter().skip(3));
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let mut line = Zeroizing::new(String::with_capacity(PREFIX.len() + LETTERS));
        line.push_str(PREFIX);
        BASE32_NOPAD.encode_append(&bytes, &mut line);
        line.make_ascii_lowercase();
        line
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    /// Reads an invite, in any case and with white space around it.
    fn from_str(text: &str) -> Result<Self, InviteError> {
        let text = text.trim();
        let letters = text.chars().count();
        let head = text.get(..PREFIX.len()).filter(|head| head.eq_ignore_ascii_case(PREFIX));
        let newer = text.get(..2).filter(|head| head.eq_ignore_ascii_case("bh")).and(text.chars().nth(2));
        if let Some(version @ '2'..='9') = newer {
            return Err(InviteError::FromTheFuture(version as u8 - b'0'));
        }
        let code = head.and_then(|_| text.get(PREFIX.len()..)).ok_or(InviteError::NotAnInvite)?;
        let wrong = |letter: &char| !matches!(letter, 'a'..='z' | 'A'..='Z' | '2'..='7');
        if let Some((index, found)) = code.chars().enumerate().find(|(_, letter)| wrong(letter)) {
            return Err(InviteError::Character { found, place: PREFIX.len() + index + 1 });
        }
        if code.len() > LETTERS {
            return Err(InviteError::TooLong { letters });
        }
        if code.len() < LETTERS {
            return Err(InviteError::CutShort { letters });
        }
        let code = Zeroizing::new(code.to_ascii_uppercase());
        let bytes =
            BASE32_NOPAD.decode(code.as_bytes()).map(Zeroizing::new).map_err(|_| InviteError::Typo)?;
        let (checked, sum) = bytes.split_at_checked(CHECKED_BYTES).ok_or(InviteError::Typo)?;
        if checksum(checked) != *sum {
            return Err(InviteError::Typo);
        }
        let mut rest = checked;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(InviteError::FromTheFuture(version));
        }
        let announcer = NoisePublicKey::from_bytes(take(&mut rest)?);
        let secret = InviteSecret(Zeroizing::new(take(&mut rest)?));
        let [a, b, c, d, e] = take(&mut rest)?;
        Ok(Self { announcer, secret, expires_unix_s: u64::from_be_bytes([0, 0, 0, a, b, c, d, e]) })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], InviteError> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(InviteError::Typo)?;
    *rest = left;
    Ok(*taken)
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let digest = Sha256::new().chain_update("bullhorn invite checksum v1").chain_update(bytes).finalize();
    let mut sum = [0; 4];
    sum.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    sum
}

/// Reads a validity such as `30m`, `12h` or `7d`, from [`MIN_VALIDITY`] to [`MAX_VALIDITY`].
///
/// # Errors
/// [`InviteError::Validity`].
pub fn parse_validity(text: &str) -> Result<Duration, InviteError> {
    let wrong = || InviteError::Validity(text.into());
    let trimmed = text.trim();
    let unit_s = match trimmed.chars().last() {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number = trimmed.get(..trimmed.len() - 1).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let number: u64 = number.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    let validity = number.checked_mul(unit_s).map(Duration::from_secs).ok_or_else(wrong)?;
    if (MIN_VALIDITY..=MAX_VALIDITY).contains(&validity) { Ok(validity) } else { Err(wrong()) }
}

/// Shuts out for good the station with this name, or with the key that has this fingerprint: its key is unknown from
/// now on. The current invite is retired too, as a stolen station may still have the line in its shell's history. A
/// running announcer notices both at its next [`KnownStations::refresh`] and [`InviteBook::accept`].
///
/// # Errors
/// [`KeysError::NoSuchStation`], and errors from reading and writing.
pub fn shut_out(folder: &StateFolder, name: &str) -> Result<Station, KeysError> {
    let mut known = KnownStations::open(folder)?;
    let station = known.find(name)?.clone();
    InviteBook::new(folder).retire()?;
    // The station may have changed its name meanwhile.
    known.remove_key(&station.key)?;
    Ok(station)
}

#[cfg(test)]
mod tests;
