//! The keys that identify an announcer or a station.
//!
//! Secret halves are wiped when dropped, and have no `Debug`, `Display` or `Serialize` that shows them.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroizing;

use super::checked::Kind;
use super::{KeysError, StateFolder, random};

const ANNOUNCER: Kind = Kind {
    file: "announcer.key",
    word: "announcer-key",
    remedy: "restore it from a backup; or move it away, and every station needs a new invite",
};
const STATION: Kind = Kind {
    file: "station.key",
    word: "station-key",
    remedy: "restore it from a backup; or move it away and join again with an invite",
};
const EPOCH: Kind = Kind {
    file: "epoch",
    word: "epoch",
    remedy: "restore it from a backup; or set the clock right and delete it",
};

/// A short name of a public key for people: 80 bits of a SHA-256, written as `abcd-efgh-ijkl-mnop`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 10]);

impl Fingerprint {
    fn of(domain: &str, key: &[u8; 32]) -> Self {
        let digest = Sha256::new().chain_update(domain).chain_update(key).finalize();
        let mut short = [0; 10];
        short.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(short)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = BASE32_NOPAD.encode(&self.0).to_ascii_lowercase();
        for (index, letter) in letters.chars().enumerate() {
            if index > 0 && index.is_multiple_of(4) {
                f.write_str("-")?;
            }
            write!(f, "{letter}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! public_key {
    ($(#[$doc:meta])* $name:ident, $domain:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Makes a key from its bytes.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The key in lower-case hex.
            pub fn to_hex(&self) -> String {
                HEXLOWER_PERMISSIVE.encode(&self.0)
            }

            /// Reads a key from 64 hex digits.
            pub fn from_hex(hex: &str) -> Option<Self> {
                unhex(hex).map(|bytes| Self(*bytes))
            }

            /// A short name for people.
            pub fn fingerprint(&self) -> Fingerprint {
                Fingerprint::of($domain, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.fingerprint())
            }
        }
    };
}

public_key!(
    /// An announcer's public Ed25519 key: who spoke.
    AnnouncerId,
    "bullhorn announcer id v1"
);
public_key!(
    /// A station's public Ed25519 key: who talked back.
    StationId,
    "bullhorn station id v1"
);
public_key!(
    /// The public X25519 key that a machine shows in the Noise handshake.
    NoisePublicKey,
    "bullhorn noise key v1"
);

/// Decodes 32 bytes from 64 hex digits.
fn unhex(hex: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    if hex.len() != 64 {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode_mut(hex.as_bytes(), bytes.as_mut_slice()).ok()?;
    Some(bytes)
}

/// A static X25519 key pair for the Noise handshake.
#[derive(Clone)]
pub struct NoiseKeys {
    secret: Zeroizing<[u8; 32]>,
    public: NoisePublicKey,
}

impl NoiseKeys {
    /// Generates a new pair.
    ///
    /// # Errors
    /// [`KeysError::Random`], [`KeysError::NoX25519`].
    pub fn generate() -> Result<Self, KeysError> {
        Self::from_secret(Zeroizing::new(random()?))
    }

    pub(crate) fn from_secret(secret: Zeroizing<[u8; 32]>) -> Result<Self, KeysError> {
        let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).ok_or(KeysError::NoX25519)?;
        dh.set(secret.as_slice());
        let public = dh.pubkey().try_into().map_err(|_| KeysError::NoX25519)?;
        Ok(Self { secret, public: NoisePublicKey(public) })
    }

    /// The public half.
    pub fn public(&self) -> NoisePublicKey {
        self.public
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for NoiseKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoiseKeys({})", self.public.fingerprint())
    }
}

/// An announcer's identity: the key that signs its clips, and the keys that it shows in the handshake.
#[derive(Clone)]
pub struct AnnouncerKeys {
    signing: SigningKey,
    noise: NoiseKeys,
}

impl AnnouncerKeys {
    /// Generates a new identity and stores it nowhere.
    ///
    /// # Errors
    /// [`KeysError::Random`], [`KeysError::NoX25519`].
    pub fn generate() -> Result<Self, KeysError> {
        let seed = Zeroizing::new(random()?);
        Ok(Self { signing: SigningKey::from_bytes(&seed), noise: NoiseKeys::generate()? })
    }

    /// Loads the identity in `announcer.key`; `None` when there is none yet.
    ///
    /// # Errors
    /// The same errors as [`StateFolder::read`]; [`KeysError::CutShort`], [`KeysError::Damaged`].
    pub fn load(folder: &StateFolder) -> Result<Option<Self>, KeysError> {
        let Some(body) = ANNOUNCER.read(folder)? else {
            return Ok(None);
        };
        let mut lines = body.lines();
        let seed = lines.next().and_then(|line| line.strip_prefix("ed25519 ")).and_then(unhex);
        let noise = lines.next().and_then(|line| line.strip_prefix("x25519 ")).and_then(unhex);
        match (seed, noise, lines.next()) {
            (Some(seed), Some(noise), None) => Ok(Some(Self {
                signing: SigningKey::from_bytes(&seed),
                noise: NoiseKeys::from_secret(noise)?,
            })),
            _ => Err(ANNOUNCER.damaged(folder, "it does not hold the two keys")),
        }
    }

    /// Loads the identity in `announcer.key`, or creates it if there is none.
    ///
    /// # Errors
    /// The same errors as [`AnnouncerKeys::load`] and [`AnnouncerKeys::generate`], and errors from writing.
    pub fn load_or_create(folder: &StateFolder) -> Result<Self, KeysError> {
        if let Some(keys) = Self::load(folder)? {
            return Ok(keys);
        }
        let locked = folder.lock()?;
        if let Some(keys) = Self::load(folder)? {
            return Ok(keys);
        }
        let keys = Self::generate()?;
        let seed = Zeroizing::new(keys.signing.to_bytes());
        ANNOUNCER.write(&locked, &lines(&[("ed25519 ", &seed), ("x25519 ", keys.noise.secret())]))?;
        Ok(keys)
    }

    /// The public signing key.
    pub fn id(&self) -> AnnouncerId {
        AnnouncerId(self.signing.verifying_key().to_bytes())
    }

    /// The keys that it shows in the handshake.
    pub fn noise(&self) -> &NoiseKeys {
        &self.noise
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }
}

impl fmt::Debug for AnnouncerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnnouncerKeys({})", self.id().fingerprint())
    }
}

/// The domain string for deriving the key that signs a station's talkback.
const TALKBACK_KEY_DOMAIN: &[u8] = b"bullhorn talkback key v1\0";

/// A station's identity: the keys that it shows in the handshake, and the key that signs its talkback and nothing else.
#[derive(Debug, Clone)]
pub struct StationKeys {
    noise: NoiseKeys,
}

impl StationKeys {
    /// Generates a new identity and stores it nowhere.
    ///
    /// # Errors
    /// [`KeysError::Random`], [`KeysError::NoX25519`].
    pub fn generate() -> Result<Self, KeysError> {
        Ok(Self { noise: NoiseKeys::generate()? })
    }

    /// Loads the identity in `station.key`; `None` when there is none yet.
    ///
    /// # Errors
    /// The same errors as [`StateFolder::read`]; [`KeysError::CutShort`], [`KeysError::Damaged`].
    pub fn load(folder: &StateFolder) -> Result<Option<Self>, KeysError> {
        let Some(body) = STATION.read(folder)? else {
            return Ok(None);
        };
        let mut lines = body.lines();
        let noise = lines.next().and_then(|line| line.strip_prefix("x25519 ")).and_then(unhex);
        match (noise, lines.next()) {
            (Some(noise), None) => Ok(Some(Self { noise: NoiseKeys::from_secret(noise)? })),
            _ => Err(STATION.damaged(folder, "it does not hold the key")),
        }
    }

    /// Loads the identity in `station.key`, or creates it if there is none.
    ///
    /// # Errors
    /// The same errors as [`StationKeys::load`] and [`StationKeys::generate`], and errors from writing.
    pub fn load_or_create(folder: &StateFolder) -> Result<Self, KeysError> {
        if let Some(keys) = Self::load(folder)? {
            return Ok(keys);
        }
        let locked = folder.lock()?;
        if let Some(keys) = Self::load(folder)? {
            return Ok(keys);
        }
        let keys = Self::generate()?;
        STATION.write(&locked, &lines(&[("x25519 ", keys.noise.secret())]))?;
        Ok(keys)
    }

    /// The keys that it shows in the handshake.
    pub fn noise(&self) -> &NoiseKeys {
        &self.noise
    }

    /// The public key that verifies its talkback.
    pub fn id(&self) -> StationId {
        StationId(self.signing().verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing().sign(message).to_bytes()
    }

    /// The signing key is derived from the station's only key, so that there is no second one to keep, lose or mix up.
    fn signing(&self) -> SigningKey {
        let digest =
            Sha256::new().chain_update(TALKBACK_KEY_DOMAIN).chain_update(self.noise.secret()).finalize();
        SigningKey::from_bytes(&Zeroizing::new(digest.into()))
    }
}

fn lines(keys: &[(&str, &[u8; 32])]) -> Zeroizing<String> {
    // Reserve all the room at once: growing would leave copies that are never wiped.
    let mut text = Zeroizing::new(String::with_capacity(keys.len() * 80));
    for (word, secret) in keys {
        text.push_str(word);
        text.push_str(&Zeroizing::new(HEXLOWER_PERMISSIVE.encode(secret.as_slice())));
        text.push('\n');
    }
    text
}

/// Begins a run of an announcer and returns its number, which is above the number of every run before and is on the
/// disk before this returns. It is the last number plus 1, or the clock's seconds and 32 random bits if those are more.
/// So an announcer restored from an old backup is still ahead of what its stations have heard, and two announcers that
/// start within a second do not give their clips the same numbers.
///
/// # Errors
/// Errors from reading and writing; a damaged file is refused, as a lower number would mute the site.
pub fn begin_epoch(folder: &StateFolder, now_unix_s: u64) -> Result<u64, KeysError> {
    let locked = folder.lock()?;
    let epoch = next_epoch(folder, now_unix_s)?;
    EPOCH.write(&locked, &format!("{epoch}\n"))?;
    Ok(epoch)
}

/// Returns the number of the run that [`begin_epoch`] would begin. Where it cannot be written to the disk, it is above
/// the number of every run before as long as the clock goes forward.
///
/// # Errors
/// Errors from reading the file.
pub fn next_epoch(folder: &StateFolder, now_unix_s: u64) -> Result<u64, KeysError> {
    let last = match EPOCH.read(folder)? {
        None => 0,
        Some(body) => match body.strip_suffix('\n').and_then(|line| line.parse::<u64>().ok()) {
            Some(last) => last,
            None => return Err(EPOCH.damaged(folder, "it does not hold a number")),
        },
    };
    let epoch = last.saturating_add(1).max(fresh_epoch(now_unix_s)?);
    if epoch == last {
        return Err(EPOCH.damaged(folder, "it is at its end"));
    }
    Ok(epoch)
}

/// The clock's seconds and 32 random bits.
///
/// # Errors
/// [`KeysError::Random`].
pub fn fresh_epoch(now_unix_s: u64) -> Result<u64, KeysError> {
    let random = getrandom::u32().map_err(KeysError::Random)?;
    Ok(now_unix_s.min(u32::MAX.into()) << 32 | u64::from(random))
}
