//! The announcers that a station trusts: `announcers.toml` in the station's state folder.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AnnouncerId, Fingerprint, KeysError, NoisePublicKey, StateFolder};

const FILE: &str = "announcers.toml";
const REMEDY: &str = "restore it from a backup; or move it away and join again with an invite";

/// The two public keys of an announcer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The key that it shows in the handshake.
    pub noise: NoisePublicKey,
    /// The key that verifies its clips.
    pub announcer: AnnouncerId,
}

/// An announcer other than the pinned one answers at an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "THE ANNOUNCER AT {address} HAS CHANGED ITS KEY. It was {pinned}, now {found} answers. \
     Either it was set up anew, or somebody poses as it; nothing was played. If its operator says it is new, \
     accept it with an invite from there: `bullhorn speaker {address} --invite bh1…`"
)]
pub struct AnnouncerChanged {
    /// The address as dialled.
    pub address: String,
    /// The key that was pinned.
    pub pinned: Fingerprint,
    /// The key that answered.
    pub found: Fingerprint,
}

/// The announcers that this station has pinned, by address as dialled (`host:port`).
#[derive(Debug)]
pub struct Pins {
    folder: StateFolder,
    pins: BTreeMap<String, Pin>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    noise_key: String,
    announcer_id: String,
}

impl Pins {
    /// Reads `announcers.toml`, which might not exist yet.
    ///
    /// # Errors
    /// Errors from reading the file; [`KeysError::Damaged`].
    pub fn open(folder: &StateFolder) -> Result<Self, KeysError> {
        let mut pins = Self { folder: folder.clone(), pins: BTreeMap::new() };
        pins.read()?;
        Ok(pins)
    }

    /// The announcer pinned at an address.
    pub fn get(&self, address: &str) -> Option<&Pin> {
        self.pins.get(address)
    }

    /// All pinned announcers.
    pub fn all(&self) -> impl Iterator<Item = &Pin> {
        self.pins.values()
    }

    /// Checks that the announcer at an address is the pinned one. Passes if none is pinned there.
    ///
    /// # Errors
    /// [`AnnouncerChanged`].
    pub fn check(&self, address: &str, found: &Pin) -> Result<(), AnnouncerChanged> {
        let changed = |pinned, found| AnnouncerChanged { address: address.into(), pinned, found };
        match self.pins.get(address) {
            Some(pinned) if pinned.noise != found.noise => {
                Err(changed(pinned.noise.fingerprint(), found.noise.fingerprint()))
            }
            Some(pinned) if pinned.announcer != found.announcer => {
                Err(changed(pinned.announcer.fingerprint(), found.announcer.fingerprint()))
            }
            _ => Ok(()),
        }
    }

    /// Trusts an announcer at an address from now on, in place of any other. Call this only on the strength of an
    /// invite or of the announcer's own state folder. The pin is on the disk before this returns.
    ///
    /// # Errors
    /// Errors from reading and writing the file.
    pub fn pin(&mut self, address: &str, pin: Pin) -> Result<(), KeysError> {
        let folder = self.folder.clone();
        let locked = folder.lock()?;
        self.read()?;
        let was = self.pins.insert(address.into(), pin);
        if was == Some(pin) {
            return Ok(());
        }
        let row = |pin: &Pin| Row { noise_key: pin.noise.to_hex(), announcer_id: pin.announcer.to_hex() };
        let table: BTreeMap<_, _> = self.pins.iter().map(|(address, pin)| (address, row(pin))).collect();
        let written = toml::to_string(&table)
            .map_err(|source| KeysError::Encode { file: FILE, source })
            .and_then(|text| locked.write(FILE, text.as_bytes()));
        if written.is_err() {
            match was {
                Some(was) => self.pins.insert(address.into(), was),
                None => self.pins.remove(address),
            };
        }
        written
    }

    fn read(&mut self) -> Result<(), KeysError> {
        let damaged = |problem: String| KeysError::Damaged {
            path: self.folder.path().join(FILE),
            problem,
            remedy: REMEDY,
        };
        let content = self.folder.read(FILE)?.unwrap_or_default();
        let text = std::str::from_utf8(&content).map_err(|_| damaged("it is not text".into()))?;
        let table: BTreeMap<String, Row> =
            toml::from_str(text).map_err(|error| damaged(error.message().into()))?;
        let pin = |(address, row): (String, Row)| match (
            NoisePublicKey::from_hex(&row.noise_key),
            AnnouncerId::from_hex(&row.announcer_id),
        ) {
            (Some(noise), Some(announcer)) => Ok((address, Pin { noise, announcer })),
            _ => Err(damaged(format!("the keys of {address} are not keys"))),
        };
        self.pins = table.into_iter().map(pin).collect::<Result<_, _>>()?;
        Ok(())
    }
}
