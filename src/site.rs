//! A site: the announcer's identity, the stations it has invited, and the stations that have joined.

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
/// How many changes of its name or zones are accepted from a station in a burst.
pub const CHANGE_BURST: u32 = 12;
/// After a burst, one more change is accepted per this time, so that all stations have the same limit of writes per
/// minute.
pub const CHANGE_INTERVAL: Duration = Duration::from_secs(5);

/// A running announcer's site.
#[derive(Debug)]
pub struct Site {
    folder: StateFolder,
    keys: AnnouncerKeys,
    book: InviteBook,
    known: Mutex<KnownStations>,
    writing: Arc<Semaphore>,
    /// For each station that has changed its entry, when it may change it [`CHANGE_BURST`] times again.
    changing: Mutex<HashMap<NoisePublicKey, Instant>>,
    clock: WallClock,
    epoch: u64,
    fault: Option<KeysError>,
    _claimed: Claimed,
}

impl Site {
    /// Opens the site in a state folder, creates its identity if there is none, and begins a new epoch. Once the
    /// identity exists, the site opens even if the disk cannot be written; see [`Site::fault`].
    ///
    /// # Errors
    /// Errors of the state folder; [`KeysError::InUse`].
    pub fn open(folder: &StateFolder) -> Result<Self, KeysError> {
        Self::open_by(folder, Wall::system())
    }

    /// Like [`Self::open`], with the time that the wall clock shows now. The wall clock is not read again.
    ///
    /// # Errors
    /// The same errors as [`Self::open`].
    pub fn open_at(folder: &StateFolder, wall: SystemTime) -> Result<Self, KeysError> {
        let started = Instant::now();
        Self::open_by(folder, Wall::new(move || wall + started.elapsed()))
    }

    /// Like [`Self::open`], with another wall clock than the system's.
    ///
    /// # Errors
    /// The same errors as [`Self::open`].
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

    /// The folder that holds its state.
    pub fn folder(&self) -> &StateFolder {
        &self.folder
    }

    /// Why this run could not be recorded on the disk, if it could not.
    pub fn fault(&self) -> Option<&KeysError> {
        self.fault.as_ref()
    }

    /// The epoch of this run.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The key by which stations know this announcer.
    pub fn announcer(&self) -> AnnouncerKey {
        *self.keys.id().as_bytes()
    }

    /// The clock with which the announcer dates clips and states the time to its stations.
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
    /// Errors of the state folder.
    pub fn invite(&self) -> Result<Invite, KeysError> {
        let now = self.now_unix_s();
        match self.book.current(&self.keys, now)? {
            Some(invite) => Ok(invite),
            None => self.book.issue(&self.keys, INVITE_VALIDITY, now),
        }
    }

    /// Runs work that writes the site's lists: one job at a time, in the order of the calls. Whatever stations do, it
    /// occupies at most one thread of the pool, and all other threads are left to pages. Work that has begun is
    /// finished and keeps its turn, even if its caller no longer waits.
    pub async fn write_in_turn<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        // The semaphore is never closed.
        let turn = self.writing.clone().acquire_owned().await.ok();
        let site = self.clone();
        on_a_thread(move || {
            let done = work(&site);
            drop(turn);
            done
        })
        .await
    }

    /// Whether a station is known under its name, so that letting it in costs no write now. If its zones have changed,
    /// they are written later.
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

    /// Lets a station in under its name: a known one, or one that came with an invite. Blocks only the caller while the
    /// disk hangs.
    ///
    /// # Errors
    /// [`KeysError::NoSuchStation`] for a station that was removed meanwhile, [`KeysError::TooManyChanges`], and the
    /// errors of [`KnownStations::admit`].
    pub fn admit(&self, peer: &Peer, name: &str, zones: &[String]) -> Result<Admitted, KeysError> {
        let now = self.now_unix_s();
        let admitted = self.write(|known| {
            if peer.invite.is_none() && !known.knows(&peer.key)? {
                return Err(KeysError::NoSuchStation(name.to_owned()));
            }
            let (admitted, draft) = known.draft_admission(&peer.key, name, zones, now)?;
            if draft.is_some() {
                // Other connections of the same station may have waited for the turn as well.
                self.may_change(&peer.key)?;
                self.changes_entry(&peer.key);
            }
            Ok((admitted, draft))
        })?;
        // The invite may have been retired since the handshake, which means that the station is shut out. Check this
        // after the station was written, because shutting out first retires the invite and then removes the station.
        if admitted == Admitted::Joined
            && let Some(invite) = peer.invite
            && self.book.accept(invite, now)?.is_none()
        {
            self.write(|known| known.draft_removal(&peer.key))?;
            return Err(KeysError::NoSuchStation(name.to_owned()));
        }
        Ok(admitted)
    }

    /// Whether a station that was let in has been shut out since, as of the last call of [`Self::changes`].
    pub fn has_shut_out(&self, peer: &Peer, name: &str) -> bool {
        self.known().station(&peer.key).is_none_or(|station| station.name != name)
    }

    /// The name that a station has joined under.
    pub fn name_of(&self, peer: &Peer) -> Option<String> {
        self.known().station(&peer.key).map(|station| station.name.clone())
    }

    /// Pins the key that signs a station's talkback, or compares it with the key that is pinned. Blocks only the caller
    /// while the disk hangs.
    ///
    /// # Errors
    /// The same errors as [`KnownStations::draft_signer`], and errors from writing.
    pub fn pin_signer(&self, peer: &Peer, name: &str, signer: StationId) -> Result<(), KeysError> {
        if self.known().station(&peer.key).is_some_and(|it| it.name == name && it.signer == Some(signer)) {
            return Ok(());
        }
        self.write(|known| known.draft_signer(&peer.key, name, signer))
    }

    /// Writes with only the folder locked. The folder is always locked before the list.
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

    /// The volume at which a station must play; `None` where the station decides.
    pub fn volume(&self, name: &str) -> Option<Volume> {
        self.known().named(name).and_then(|station| station.volume)
    }

    /// Returns the changes that another process has made since the last call.
    ///
    /// # Errors
    /// Errors from reading the state folder.
    pub fn changes(&self) -> Result<Changes, KeysError> {
        self.known().refresh()
    }

    /// Whether some stations are in other zones than the file says.
    pub fn has_unwritten_zones(&self) -> bool {
        self.known().has_unwritten_zones()
    }

    /// Writes down that these stations are here, by name, and the zones that they are in now. Blocks only the caller
    /// while the disk hangs.
    ///
    /// # Errors
    /// Errors from writing the state folder.
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
