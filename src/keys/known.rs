//! The stations that have joined: `stations.toml` in the announcer's state folder.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::folder::{Locked, Stamp};
use super::{KeysError, NoisePublicKey, StateFolder, StationId};
use crate::volume::Volume;
use crate::wire::{look, normalized};

/// The most stations that can join one announcer.
pub const MAX_STATIONS: usize = 65_536;

const FILE: &str = "stations.toml";
const REMEDY: &str = "restore it from a backup; or move it away and invite the stations again";

/// A station that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Station {
    /// Its name, which belongs to its key.
    pub name: String,
    /// The key that it shows in the handshake.
    pub key: NoisePublicKey,
    /// The zones it declared last.
    pub zones: Vec<String>,
    /// When it joined, in seconds since 1970 by the announcer's clock.
    pub joined_unix_s: u64,
    /// When it was last here, in seconds since 1970 by the announcer's clock.
    pub last_seen_unix_s: u64,
    /// The volume at which it must play; `None` where the station decides.
    pub volume: Option<Volume>,
    /// The key that signs its talkback; `None` before its first talkback.
    pub signer: Option<StationId>,
}

/// Changes made by another process.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Stations that were removed: their connections must be closed.
    pub removed: Vec<Station>,
    /// Stations whose volume has changed, as they are now.
    pub volumes: Vec<Station>,
}

/// How a station got in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// It joined now.
    Joined,
    /// It had joined before.
    Back,
    /// It had joined under another name, which is now free.
    Renamed {
        /// That name.
        from: String,
    },
}

/// The stations that have joined, in memory, with their file. Another process can change the file at any time
/// (`bullhorn stations remove`): [`KnownStations::refresh`] notices it, and no write here brings back an entry that was
/// removed there.
#[derive(Debug)]
pub struct KnownStations {
    folder: StateFolder,
    read: Stamp,
    roster: Roster,
    /// Stations seen since the file was last written.
    seen: HashMap<NoisePublicKey, u64>,
    /// Zones that stations have moved to since the file was last written: one pending change per station, the newest.
    zones: HashMap<NoisePublicKey, Vec<String>>,
    /// Changes made by another process that [`KnownStations::refresh`] has not returned yet.
    changes: Changes,
}

/// Stations by key, and keys by name.
#[derive(Debug, Default)]
struct Roster {
    by_key: HashMap<NoisePublicKey, Station>,
    keys: HashMap<String, NoisePublicKey>,
    /// For each look, the key of the station whose name has it.
    looks: HashMap<String, NoisePublicKey>,
    /// For each look, the zone that has it and how many stations are in that zone.
    zones: HashMap<String, (String, usize)>,
}

impl Roster {
    fn insert(&mut self, station: Station) {
        self.forget(&station.key);
        self.looks.entry(look(&station.name)).or_insert(station.key);
        for zone in &station.zones {
            let (known, stations) = self.zones.entry(look(zone)).or_insert_with(|| (zone.clone(), 0));
            *stations += usize::from(known == zone);
        }
        self.keys.insert(station.name.clone(), station.key);
        self.by_key.insert(station.key, station);
    }

    fn forget(&mut self, key: &NoisePublicKey) -> Option<Station> {
        let station = self.by_key.remove(key)?;
        self.keys.remove(&station.name);
        let name = look(&station.name);
        if self.looks.get(&name) == Some(key) {
            self.looks.remove(&name);
        }
        for zone in &station.zones {
            let zone_look = look(zone);
            if let Some((known, stations)) = self.zones.get_mut(&zone_look)
                && known == zone
            {
                *stations = stations.saturating_sub(1);
                if *stations == 0 {
                    self.zones.remove(&zone_look);
                }
            }
        }
        Some(station)
    }

    /// Returns the other station whose name looks like this one.
    fn lookalike(&self, key: &NoisePublicKey, name: &str) -> Option<&Station> {
        let holder = self.looks.get(&look(name)).filter(|holder| *holder != key)?;
        self.by_key.get(holder)
    }

    /// Returns the first of a station's `zones` that looks like a different zone, and that other zone, which is a zone
    /// of another station or in the same list.
    fn zone_lookalike<'a>(&'a self, key: &NoisePublicKey, zones: &'a [String]) -> Option<(&'a str, &'a str)> {
        let own = self.by_key.get(key).map_or(&[][..], |station| &station.zones);
        let mut looks: HashMap<String, &str> = HashMap::new();
        for zone in zones {
            let zone_look = look(zone);
            if let Some((known, stations)) = self.zones.get(&zone_look)
                && known != zone
                && *stations > usize::from(own.contains(known))
            {
                return Some((zone, known));
            }
            if let Some(other) = looks.insert(zone_look, zone)
                && other != zone
            {
                return Some((zone, other));
            }
        }
        None
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Table {
    #[serde(default, rename = "station")]
    stations: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    name: String,
    noise_key: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    zones: Vec<String>,
    joined_unix: u64,
    last_seen_unix: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume_db: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    talkback_key: Option<String>,
}

impl KnownStations {
    /// Reads `stations.toml`, which might not exist yet.
    ///
    /// # Errors
    /// Errors from reading the file; [`KeysError::Damaged`].
    pub fn open(folder: &StateFolder) -> Result<Self, KeysError> {
        let mut known = Self {
            folder: folder.clone(),
            read: Stamp::default(),
            roster: Roster::default(),
            seen: HashMap::new(),
            zones: HashMap::new(),
            changes: Changes::default(),
        };
        known.reload()?;
        Ok(known)
    }

    /// The station with this key, from memory.
    pub fn station(&self, key: &NoisePublicKey) -> Option<&Station> {
        self.roster.by_key.get(key)
    }

    /// All stations, sorted by name.
    pub fn all(&self) -> Vec<&Station> {
        let mut all: Vec<_> = self.roster.by_key.values().collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// The zones that the stations declared.
    pub fn zones(&self) -> BTreeSet<&str> {
        self.roster.by_key.values().flat_map(|station| &station.zones).map(String::as_str).collect()
    }

    /// The station with this name, from memory.
    pub fn named(&self, name: &str) -> Option<&Station> {
        let key = self.roster.keys.get(name).or_else(|| self.roster.keys.get(&normalized(name)))?;
        self.roster.by_key.get(key)
    }

    /// The station with this name, or with the key that has this fingerprint.
    ///
    /// # Errors
    /// [`KeysError::NoSuchStation`].
    pub fn find(&self, name: &str) -> Result<&Station, KeysError> {
        let by_key = || self.roster.by_key.values().find(|it| it.key.fingerprint().to_string() == name);
        self.named(name).or_else(by_key).ok_or_else(|| KeysError::NoSuchStation(name.into()))
    }

    /// Reads the file again if another process changed it, and returns what has changed since the last call. Costs one
    /// `stat` when nothing changed.
    ///
    /// # Errors
    /// Errors from reading the file; the content in memory stays.
    pub fn refresh(&mut self) -> Result<Changes, KeysError> {
        self.reload()?;
        Ok(std::mem::take(&mut self.changes))
    }

    /// Whether a key has joined, by the file as it is now. A file that cannot be read changes nothing.
    ///
    /// # Errors
    /// Errors from reading the file; the content in memory stays.
    pub fn knows(&mut self, key: &NoisePublicKey) -> Result<bool, KeysError> {
        self.reload()?;
        Ok(self.roster.by_key.contains_key(key))
    }

    fn reload(&mut self) -> Result<(), KeysError> {
        let stamp = self.folder.stamp(FILE)?;
        if stamp == self.read {
            return Ok(());
        }
        let roster = self.parse()?;
        let stays = |was: &&Station| roster.by_key.contains_key(&was.key);
        self.changes.removed.extend(self.roster.by_key.values().filter(|was| !stays(was)).cloned());
        let is_changed =
            |now: &&Station| self.roster.by_key.get(&now.key).is_some_and(|was| was.volume != now.volume);
        self.changes.volumes.extend(roster.by_key.values().filter(is_changed).cloned());
        self.roster = roster;
        self.read = stamp;
        self.apply_seen();
        Ok(())
    }

    /// Lets a key in under a name. The caller has seen the key prove itself, and either knows it or has checked its
    /// invite. The entry is on the disk before this returns; a key and name that are already known cost no write.
    ///
    /// # Errors
    /// The same errors as [`Self::draft_admission`], and errors from writing.
    pub fn admit(
        &mut self,
        key: &NoisePublicKey,
        name: &str,
        zones: &[String],
        now_unix_s: u64,
    ) -> Result<Admitted, KeysError> {
        if self.welcomes_back(key, name, zones, now_unix_s)? {
            return Ok(Admitted::Back);
        }
        self.write(|known| known.draft_admission(key, name, zones, now_unix_s))
    }

    /// Whether a key is known under that name with those zones. If so, it is noted as being here now.
    ///
    /// # Errors
    /// Errors from reading the file.
    pub fn welcomes_back(
        &mut self,
        key: &NoisePublicKey,
        name: &str,
        zones: &[String],
        now_unix_s: u64,
    ) -> Result<bool, KeysError> {
        self.reload()?;
        let is_as_known = |station: &Station| station.name == name && station.zones == zones;
        let is_back = self.station(key).is_some_and(is_as_known);
        if is_back {
            self.saw(name, now_unix_s);
        }
        Ok(is_back)
    }

    /// Moves a station that is known under that name into these zones, in memory only; [`Self::save_seen`] writes them.
    /// So a station that changes its zones at every hello does not cost a write each time. Returns whether it was
    /// moved: not if the name is not its own, or a zone looks like another.
    pub fn takes_zones(&mut self, key: &NoisePublicKey, name: &str, zones: &[String]) -> bool {
        let Some(station) = self.station(key).filter(|station| station.name == name).cloned() else {
            return false;
        };
        if self.roster.zone_lookalike(key, zones).is_some() {
            return false;
        }
        self.roster.insert(Station { zones: zones.to_vec(), ..station });
        self.zones.insert(*key, zones.to_vec());
        true
    }

    /// Whether some stations are in other zones than the file says.
    pub fn has_unwritten_zones(&self) -> bool {
        !self.zones.is_empty()
    }

    /// Does the work of [`Self::admit`] except for the writing. The folder must be locked.
    ///
    /// # Errors
    /// [`KeysError::NameTaken`] when the name belongs to another key, [`KeysError::LooksAlike`],
    /// [`KeysError::BadName`], [`KeysError::TooManyStations`], and errors from reading.
    pub fn draft_admission(
        &mut self,
        key: &NoisePublicKey,
        name: &str,
        zones: &[String],
        now_unix_s: u64,
    ) -> Result<(Admitted, Option<Draft>), KeysError> {
        if !crate::wire::is_name(name) {
            return Err(KeysError::BadName);
        }
        if self.welcomes_back(key, name, zones, now_unix_s)? {
            return Ok((Admitted::Back, None));
        }
        if let Some(holder) = self.roster.keys.get(name).filter(|holder| *holder != key) {
            return Err(KeysError::NameTaken { name: name.into(), holder: holder.fingerprint() });
        }
        if let Some(other) = self.roster.lookalike(key, name) {
            return Err(KeysError::LooksAlike {
                what: "station",
                new: name.into(),
                known: other.name.clone(),
            });
        }
        if let Some((new, known)) = self.roster.zone_lookalike(key, zones) {
            return Err(KeysError::LooksAlike { what: "zone", new: new.into(), known: known.into() });
        }
        let was = self.station(key);
        let admitted = match was {
            Some(was) if was.name == name => Admitted::Back,
            Some(was) => Admitted::Renamed { from: was.name.clone() },
            None if self.roster.by_key.len() >= MAX_STATIONS => return Err(KeysError::TooManyStations),
            None => Admitted::Joined,
        };
        let station = Station {
            name: name.into(),
            key: *key,
            zones: zones.to_vec(),
            joined_unix_s: was.map_or(now_unix_s, |was| was.joined_unix_s),
            last_seen_unix_s: now_unix_s,
            volume: was.and_then(|was| was.volume),
            signer: was.and_then(|was| was.signer),
        };
        Ok((admitted, Some(self.draft(Change::Insert(station))?)))
    }

    /// Notes in memory that a station is here; [`KnownStations::save_seen`] writes it.
    pub fn saw(&mut self, name: &str, now_unix_s: u64) {
        if let Some(key) = self.roster.keys.get(name).copied()
            && let Some(station) = self.roster.by_key.get_mut(&key)
        {
            station.last_seen_unix_s = now_unix_s;
            self.seen.insert(key, now_unix_s);
        }
    }

    /// Writes which stations were seen since the last write, if any. Meant to be called once a minute and at the end.
    ///
    /// # Errors
    /// Errors from reading and writing; what was seen is kept for the next time.
    pub fn save_seen(&mut self) -> Result<(), KeysError> {
        if self.seen.is_empty() && self.zones.is_empty() {
            return Ok(());
        }
        self.write(Self::draft_seen)
    }

    /// Does the work of [`Self::save_seen`] except for the writing. The folder must be locked.
    ///
    /// # Errors
    /// Errors from reading the file.
    pub fn draft_seen(&mut self) -> Result<((), Option<Draft>), KeysError> {
        self.reload()?;
        let has_news = !self.seen.is_empty() || !self.zones.is_empty();
        Ok(((), if has_news { Some(self.draft(Change::None)?) } else { None }))
    }

    /// Shuts a station out: its key is unknown from now on, and its name is free. A current invite would still let it
    /// back in; [`crate::invite::shut_out`] retires that invite too.
    ///
    /// # Errors
    /// [`KeysError::NoSuchStation`], and errors from reading and writing.
    pub fn remove(&mut self, name: &str) -> Result<Station, KeysError> {
        self.reload()?;
        let station = self.find(name)?.clone();
        self.remove_key(&station.key)?;
        Ok(station)
    }

    /// Shuts out the station with this key, whatever its name is now, if it has joined at all.
    ///
    /// # Errors
    /// Errors from reading and writing.
    pub fn remove_key(&mut self, key: &NoisePublicKey) -> Result<(), KeysError> {
        self.write(|known| known.draft_removal(key))
    }

    /// Does the work of [`Self::remove_key`] except for the writing. The folder must be locked.
    ///
    /// # Errors
    /// Errors from reading the file.
    pub fn draft_removal(&mut self, key: &NoisePublicKey) -> Result<((), Option<Draft>), KeysError> {
        self.reload()?;
        let draft = self.station(key).is_some().then(|| self.draft(Change::Forget(*key)));
        Ok(((), draft.transpose()?))
    }

    /// Writes the volume at which a station must play; `None` lets the station decide.
    ///
    /// # Errors
    /// [`KeysError::NoSuchStation`], and errors from reading and writing.
    pub fn set_volume(&mut self, name: &str, volume: Option<Volume>) -> Result<(), KeysError> {
        self.write(|known| {
            known.reload()?;
            let Some(station) = known.named(name) else {
                return Err(KeysError::NoSuchStation(name.into()));
            };
            let station = Station { volume, ..station.clone() };
            Ok(((), Some(known.draft(Change::Insert(station))?)))
        })
    }

    /// Drafts the pin of the key that signs a station's talkback, unless it is already pinned. The folder must be
    /// locked.
    ///
    /// # Errors
    /// [`KeysError::NoSuchStation`] for a key that has not joined under that name, [`KeysError::SignerChanged`], and
    /// errors from reading.
    pub fn draft_signer(
        &mut self,
        key: &NoisePublicKey,
        name: &str,
        signer: StationId,
    ) -> Result<((), Option<Draft>), KeysError> {
        self.reload()?;
        let Some(station) = self.station(key).filter(|station| station.name == name) else {
            return Err(KeysError::NoSuchStation(name.into()));
        };
        match station.signer {
            Some(pinned) if pinned == signer => Ok(((), None)),
            Some(pinned) => Err(KeysError::SignerChanged {
                name: name.into(),
                pinned: pinned.fingerprint(),
                found: signer.fingerprint(),
            }),
            None => {
                let station = Station { signer: Some(signer), ..station.clone() };
                Ok(((), Some(self.draft(Change::Insert(station))?)))
            }
        }
    }

    fn write<T>(
        &mut self,
        draft: impl FnOnce(&mut Self) -> Result<(T, Option<Draft>), KeysError>,
    ) -> Result<T, KeysError> {
        let folder = self.folder.clone();
        let locked = folder.lock()?;
        let (made, draft) = draft(self)?;
        if let Some(draft) = draft {
            draft.write(&locked)?;
            self.adopt(draft)?;
        }
        Ok(made)
    }

    /// Takes over a draft that was written, before the folder is unlocked.
    ///
    /// # Errors
    /// Errors from the `stat` of the file.
    pub fn adopt(&mut self, draft: Draft) -> Result<(), KeysError> {
        self.read = self.folder.stamp(FILE)?;
        self.seen.retain(|key, seen| draft.seen.get(key) != Some(seen));
        self.zones.retain(|key, zones| draft.zones.get(key) != Some(zones));
        match draft.change {
            Change::None => {}
            Change::Insert(station) => self.roster.insert(station),
            Change::Forget(key) => drop(self.roster.forget(&key)),
        }
        Ok(())
    }

    fn apply_seen(&mut self) {
        self.seen.retain(|key, seen| match self.roster.by_key.get_mut(key) {
            Some(station) => {
                station.last_seen_unix_s = station.last_seen_unix_s.max(*seen);
                true
            }
            None => false,
        });
        self.zones.retain(|key, zones| match self.roster.by_key.get(key).cloned() {
            Some(station) => {
                self.roster.insert(Station { zones: zones.clone(), ..station });
                true
            }
            None => false,
        });
    }

    fn parse(&self) -> Result<Roster, KeysError> {
        let damaged = |problem: String| KeysError::Damaged {
            path: self.folder.path().join(FILE),
            problem,
            remedy: REMEDY,
        };
        let content = self.folder.read(FILE)?.unwrap_or_default();
        let text = std::str::from_utf8(&content).map_err(|_| damaged("it is not text".into()))?;
        let table: Table = toml::from_str(text).map_err(|error| damaged(error.message().into()))?;
        let mut roster = Roster::default();
        for row in table.stations {
            let Row { name, noise_key, zones, joined_unix, last_seen_unix, volume_db, talkback_key } = row;
            let signer = talkback_key
                .map(|hex| {
                    StationId::from_hex(&hex)
                        .ok_or_else(|| damaged(format!("the talkback key of {name} is not one")))
                })
                .transpose()?;
            let volume = volume_db
                .map(|db| {
                    Volume::from_db(db).ok_or_else(|| damaged(format!("the volume of {name} is not one")))
                })
                .transpose()?;
            let key = NoisePublicKey::from_hex(&noise_key)
                .ok_or_else(|| damaged(format!("the key of {name} is not one")))?;
            if roster.keys.contains_key(&name) || roster.by_key.contains_key(&key) {
                return Err(damaged(format!("{name} or its key stands in it twice")));
            }
            roster.insert(Station {
                name,
                key,
                zones,
                joined_unix_s: joined_unix,
                last_seen_unix_s: last_seen_unix,
                volume,
                signer,
            });
        }
        Ok(roster)
    }

    fn draft(&self, change: Change) -> Result<Draft, KeysError> {
        let (new, gone) = match &change {
            Change::None => (None, None),
            Change::Insert(station) => (Some(station), Some(station.key)),
            Change::Forget(key) => (None, Some(*key)),
        };
        let stay = self.roster.by_key.values().filter(|station| Some(station.key) != gone);
        let mut all: Vec<_> = stay.chain(new).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        let row = |station: &Station| Row {
            name: station.name.clone(),
            noise_key: station.key.to_hex(),
            zones: station.zones.clone(),
            joined_unix: station.joined_unix_s,
            last_seen_unix: station.last_seen_unix_s,
            volume_db: station.volume.map(Volume::db),
            talkback_key: station.signer.map(|signer| signer.to_hex()),
        };
        let table = Table { stations: all.into_iter().map(row).collect() };
        let text = toml::to_string(&table).map_err(|source| KeysError::Encode { file: FILE, source })?;
        Ok(Draft { change, text, seen: self.seen.clone(), zones: self.zones.clone() })
    }
}

#[derive(Debug)]
enum Change {
    None,
    Insert(Station),
    Forget(NoisePublicKey),
}

/// The next content of the file. Writing it can take as long as the disk likes, so only the folder is locked during the
/// write.
#[derive(Debug)]
pub struct Draft {
    change: Change,
    text: String,
    seen: HashMap<NoisePublicKey, u64>,
    zones: HashMap<NoisePublicKey, Vec<String>>,
}

impl Draft {
    /// Writes it to the disk; call [`KnownStations::adopt`] after it.
    ///
    /// # Errors
    /// Errors from writing.
    pub fn write(&self, locked: &Locked<'_>) -> Result<(), KeysError> {
        locked.write(FILE, self.text.as_bytes())
    }
}
