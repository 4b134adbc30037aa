//! A site: the announcer's identity, whom it has invited, and who has joined.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::batches::on_a_thread;
use crate::invite::{Invite, InviteBook, InviteId, InviteSecret};
use crate::keys::identity::{begin_epoch, next_epoch};
use crate::keys::{
    Admitted, AnnouncerKeys, Changes, Claimed, Draft, KeysError, KnownStations, NoiseKeys, NoisePublicKey,
    StateFolder, Station, StationId,
};
use crate::link::{Gate, Peer};
use crate::seal::{self, TimeNonce, TimeStatement};
use crate::volume::Volume;
use crate::wall::{Wall, WallClock};
use crate::wire::{AnnouncerKey, Nonce, Statement};

/// How long an invite is valid unless `--valid` says otherwise.
pub const INVITE_VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// So many changes of its name or zones are taken from a station at once, …
pub const CHANGE_BURST: u32 = 12;
/// … and then one each such time, so that none has more written in a minute than another may.
pub const CHANGE_INTERVAL: Duration = Duration::from_secs(5);

/// A running announcer's site.
#[derive(Debug)]
pub struct Site {
    folder: StateFolder,
    keys: AnnouncerKeys,
    book: InviteBook,
    known: Mutex<KnownStations>,
    writing: Arc<Semaphore>,
    /// When each station that has changed its entry may change it [`CHANGE_BURST`] times again.
    changing: Mutex<HashMap<NoisePublicKey, Instant>>,
    clock: WallClock,
    epoch: u64,
    fault: Option<KeysError>,
    _claimed: Claimed,
}

impl Site {
    /// Opens the site in a state folder, and makes its identity if there is none. Begins a new epoch. A disk that
    /// cannot be written is no reason not to start, once the identity is there; see [`Site::fault`].
    ///
    /// # Errors
    /// Those of the state folder; [`KeysError::InUse`].
    pub fn open(folder: &StateFolder) -> Result<Self, KeysError> {
        Self::open_by(folder, Wall::system())
    }

    /// The same, with what the wall clock shows now. It is not looked at again.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_at(folder: &StateFolder, wall: SystemTime) -> Result<Self, KeysError> {
        let started = Instant::now();
        Self::open_by(folder, Wall::new(move || wall + started.elapsed()))
    }

    /// The same, by another wall clock than the system's.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_by(folder: &StateFolder, wall: Wall) -> Result<Self, KeysError> {
        let claimed = folder.claim()?;
        let keys = AnnouncerKeys::load_or_create(folder)?;
        let clock = WallClock::start(wall);
        let now_unix_s = clock.unix_ms(Instant::now()) / 1_000;
        let (epoch, fault) = match begin_epoch(folder, now_unix_s) {
            Ok(epoch) => (epoch, None),
            Err(fault) => (next_epoch(folder, now_unix_s)?, Some(fault)),
        };
        let known = Mutex::new(KnownStations::open(folder)?);
        Ok(Self {
            folder: folder.clone(),
            keys,
            book: InviteBook::new(folder),
            known,
            writing: Arc::new(Semaphore::new(1)),
            changing: Mutex::default(),
            clock,
            epoch,
            fault,
            _claimed: claimed,
        })
    }

    /// Where its state is kept.
    pub fn folder(&self) -> &StateFolder {
        &self.folder
    }

    /// Why this run could not be written down, if so.
    pub fn fault(&self) -> Option<&KeysError> {
        self.fault.as_ref()
    }

    /// This run's number.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Who this announcer is, for its stations.
    pub fn announcer(&self) -> AnnouncerKey {
        *self.keys.id().as_bytes()
    }

    /// What the announcer dates with, and states to its stations.
    pub fn clock(&self) -> &WallClock {
        &self.clock
    }

    /// The announcer's time in ms since 1970, by [`Self::clock`].
    pub fn unix_ms(&self, at: Instant) -> u64 {
        self.clock.unix_ms(at)
    }

    /// States the time to a station that asked.
    pub fn state_time(&self, nonce: Nonce) -> Statement {
        let statement = TimeStatement::sign(&self.keys, TimeNonce(nonce), self.unix_ms(Instant::now()));
        Statement { unix_ms: statement.unix_ms, signature: statement.signature.to_vec() }
    }

    /// Signs a clip's header.
    pub fn sign(&self, header: &[u8]) -> Vec<u8> {
        seal::sign(&self.keys, header).to_vec()
    }

    /// Signs a header of live speech.
    pub fn sign_live(&self, header: &[u8]) -> Vec<u8> {
        seal::sign_live(&self.keys, header).to_vec()
    }

    /// The current invite, or a new one where none is valid.
    ///
    /// # Errors
    /// Those of the state folder.
    pub fn invite(&self) -> Result<Invite, KeysError> {
        let now = self.now_unix_s();
        match self.book.current(&self.keys, now)? {
            Some(invite) => Ok(invite),
            None => self.book.issue(&self.keys, INVITE_VALIDITY, now),
        }
    }

    /// Has work done that writes the site's lists: one at a time, in the order in which it was asked for. Whatever
    /// stations do, it takes one thread of the pool at most, and all others are left to pages. Work that has begun is
    /// done, and keeps its turn, though nobody waits for it any more.
    pub async fn write_in_turn<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        // Never closed.
        let turn = self.writing.clone().acquire_owned().await.ok();
        let site = self.clone();
        on_a_thread(move || {
            let done = work(&site);
            drop(turn);
            done
        })
        .await
    }

    /// Whether a station is known under its name, so that letting it in costs no write now: its zones, if they are
    /// others, are written later.
    ///
    /// # Errors
    /// [`KeysError::TooManyChanges`].
    pub fn welcomes_back(&self, peer: &Peer, name: &str, zones: &[String]) -> Result<bool, KeysError> {
        let now = self.now_unix_s();
        let mut known = self.known();
        if known.welcomes_back(&peer.key, name, zones, now).unwrap_or(false) {
            return Ok(true);
        }
        self.may_change(&peer.key)?;
        let is_taken = known.takes_zones(&peer.key, name, zones);
        if is_taken {
            self.changes_entry(&peer.key);
        }
        Ok(is_taken)
    }

    fn may_change(&self, key: &NoisePublicKey) -> Result<(), KeysError> {
        let full_in =
            self.changing().get(key).map(|full_at| full_at.saturating_duration_since(Instant::now()));
        let wait = full_in.unwrap_or_default().saturating_sub(CHANGE_INTERVAL * (CHANGE_BURST - 1));
        if wait.is_zero() { Ok(()) } else { Err(KeysError::TooManyChanges { most: CHANGE_BURST, wait }) }
    }

    fn changes_entry(&self, key: &NoisePublicKey) {
        let (mut changing, now) = (self.changing(), Instant::now());
        changing.retain(|_, full_at| *full_at > now);
        *changing.entry(*key).or_insert(now) += CHANGE_INTERVAL;
    }

    /// Lets a station in under its name: a known one, or one that came with an invite. Blocks while the disk hangs, and
    /// nobody else meanwhile.
    ///
    /// # Errors
    /// [`KeysError::NoSuchStation`] for one that was removed meanwhile, [`KeysError::TooManyChanges`], and those of
    /// [`KnownStations::admit`].
    pub fn admit(&self, peer: &Peer, name: &str, zones: &[String]) -> Result<Admitted, KeysError> {
        let now = self.now_unix_s();
        let admitted = self.write(|known| {
            if peer.invite.is_none() && !known.knows(&peer.key)? {
                return Err(KeysError::NoSuchStation(name.to_owned()));
            }
            let (admitted, draft) = known.draft_admission(&peer.key, name, zones, now)?;
            if draft.is_some() {
                // Others of its connections may have waited for the turn as well.
                self.may_change(&peer.key)?;
                self.changes_entry(&peer.key);
            }
            Ok((admitted, draft))
        })?;
        // The invite may have been retired since the handshake, so that the station is shut out. Asked
        // after the station was written down, as whoever shuts it out retires first and removes then.
        if admitted == Admitted::Joined
            && let Some(invite) = peer.invite
            && self.book.accept(invite, now)?.is_none()
        {
            self.write(|known| known.draft_removal(&peer.key))?;
            return Err(KeysError::NoSuchStation(name.to_owned()));
        }
        Ok(admitted)
    }

    /// Whether a station that was let in has been shut out since, as [`Self::changes`] found it last.
    pub fn has_shut_out(&self, peer: &Peer, name: &str) -> bool {
        self.known().station(&peer.key).is_none_or(|station| station.name != name)
    }

    /// The name that a station has joined under.
    pub fn name_of(&self, peer: &Peer) -> Option<String> {
        self.known().station(&peer.key).map(|station| station.name.clone())
    }

    /// Pins the key that signs a station's talkback, or holds it against the one that is pinned. Blocks while the disk
    /// hangs, and nobody else meanwhile.
    ///
    /// # Errors
    /// Those of [`KnownStations::draft_signer`], and those of writing.
    pub fn pin_signer(&self, peer: &Peer, name: &str, signer: StationId) -> Result<(), KeysError> {
        if self.known().station(&peer.key).is_some_and(|it| it.name == name && it.signer == Some(signer)) {
            return Ok(());
        }
        self.write(|known| known.draft_signer(&peer.key, name, signer))
    }

    /// Writes with nothing locked but the folder, which comes before the list.
    fn write<T>(
        &self,
        draft: impl FnOnce(&mut KnownStations) -> Result<(T, Option<Draft>), KeysError>,
    ) -> Result<T, KeysError> {
        let locked = self.folder.lock()?;
        let (made, draft) = draft(&mut self.known())?;
        if let Some(draft) = draft {
            draft.write(&locked)?;
            self.known().adopt(draft)?;
        }
        Ok(made)
    }

    /// The stations that have joined.
    pub fn stations(&self) -> Vec<Station> {
        self.known().all().into_iter().cloned().collect()
    }

    /// How loud a station is to play; `None` where that is left to it.
    pub fn volume(&self, name: &str) -> Option<Volume> {
        self.known().named(name).and_then(|station| station.volume)
    }

    /// What another process changed since the last call.
    ///
    /// # Errors
    /// Those of reading the state folder.
    pub fn changes(&self) -> Result<Changes, KeysError> {
        self.known().refresh()
    }

    /// Whether stations are in other zones than is written down.
    pub fn has_unwritten_zones(&self) -> bool {
        self.known().has_unwritten_zones()
    }

    /// Writes down that these stations are here, by name, and the zones that they are in now. Blocks while the disk hangs, and nobody else meanwhile.
    ///
    /// # Errors
    /// Those of writing the state folder.
    pub fn save_seen(&self, here: &[String]) -> Result<(), KeysError> {
        let now = self.now_unix_s();
        here.iter().for_each(|name| self.known().saw(name, now));
        self.write(KnownStations::draft_seen)
    }

    fn now_unix_s(&self) -> u64 {
        self.unix_ms(Instant::now()) / 1_000
    }

    fn changing(&self) -> MutexGuard<'_, HashMap<NoisePublicKey, Instant>> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, KnownStations> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for Site {
    fn keys(&self) -> &NoiseKeys {
        self.keys.noise()
    }

    fn invite(&self, id: InviteId) -> Option<InviteSecret> {
        self.book.accept(id, self.now_unix_s()).unwrap_or_else(|error| {
            tracing::warn!("cannot look for an invite: {}", crate::error_chain(&error));
            None
        })
    }

    fn knows(&self, station: &NoisePublicKey) -> bool {
        let mut known = self.known();
        known.knows(station).unwrap_or_else(|error| {
            tracing::warn!("cannot read who has joined: {}", crate::error_chain(&error));
            known.station(station).is_some()
        })
    }
}
