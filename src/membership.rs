//! A station's membership: its own key, the announcer it trusts, and how far it has heard it.

use std::net::ToSocketAddrs;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::diary::{Diary, Note, Noting};
use crate::event::Events;
use crate::handshake::Contact;
use crate::invite::Invite;
use crate::keys::{
    AnnouncerChanged, AnnouncerId, Heard, KeysError, NoiseKeys, NoisePublicKey, Pin, Pins, StateFolder,
    StationKeys, introduce_locally,
};
use crate::seal::{Admission, AnnouncerTime, TimeError, TimeNonce, TimeStatement};
use crate::wire::{AnnouncerKey, ClipId, Receipt, Statement, WireError};

/// The file that names the loudspeaker that worked last.
const OUTPUT: &str = "output";

/// Why a station cannot be a member.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// Nobody invited it.
    #[error(
        "this station has not joined {address}: run `bullhorn invite` there, and here the line that it prints"
    )]
    NotJoined {
        /// As dialled.
        address: String,
    },
    /// The state folder cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Another announcer than the pinned one.
    #[error(transparent)]
    Changed(#[from] Box<AnnouncerChanged>),
    /// Its statement of time is no good.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// What it says is out of bounds.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// A station of a site, or one that is about to join.
#[derive(Debug)]
pub struct Membership {
    /// Where an announcer of the same user keeps its state.
    folder: StateFolder,
    /// This station's own part of it.
    own: StateFolder,
    keys: StationKeys,
    pins: Pins,
    diary: Diary,
    invite: Option<Invite>,
    address: String,
    name: String,
    zones: Vec<String>,
    /// Whether the announcer is on this machine.
    is_local: bool,
    /// With an invite from the announcer that is pinned, both ways in are tried by turns: it may have
    /// been used already, or be there because this station was removed.
    invite_next: bool,
    time: Option<AnnouncerTime>,
}

impl Membership {
    /// Opens a station's part of the state folder, and makes its key if there is none.
    ///
    /// # Errors
    /// [`MembershipError::NotJoined`] when there is no way in; those of the state folder.
    pub fn open(
        folder: &StateFolder,
        (host, port): (&str, u16),
        name: &str,
        zones: &[String],
        invite: Option<Invite>,
    ) -> Result<Self, MembershipError> {
        let own = folder.within(name)?;
        let is_local = (host, port)
            .to_socket_addrs()
            .is_ok_and(|mut addresses| addresses.all(|address| address.ip().is_loopback()));
        let membership = Self {
            folder: folder.clone(),
            keys: StationKeys::load_or_create(&own)?,
            pins: Pins::open(&own)?,
            diary: Diary::new(Heard::open(&own)?),
            invite,
            address: format!("{host}:{port}"),
            name: name.to_owned(),
            zones: zones.to_vec(),
            is_local,
            invite_next: false,
            time: None,
            own,
        };
        if !is_local && membership.invite.is_none() && membership.pin().is_none() {
            return Err(MembershipError::NotJoined { address: membership.address });
        }
        Ok(membership)
    }

    /// A number that stands for that key.
    pub fn instance(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self.keys.noise().public().as_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// What to show, and whom to expect at the announcer's address. A station of the announcer's own user on the
    /// announcer's own machine joins here, if it has not.
    ///
    /// # Errors
    /// [`MembershipError::NotJoined`] while there is no announcer; those of the state folder.
    pub fn introduction(&mut self) -> Result<(&NoiseKeys, Contact<'_>, &str), MembershipError> {
        if self.pin().is_none() && self.invite.is_none() {
            let now_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let pin = match self.is_local {
                true => introduce_locally(&self.folder, &self.keys, &self.name, &self.zones, now_unix_s)?,
                false => None,
            };
            let pin = pin.ok_or_else(|| MembershipError::NotJoined { address: self.address.clone() })?;
            self.pins.pin(&self.address, pin)?;
        }
        let by_turns = std::mem::replace(&mut self.invite_next, true);
        let contact = match (self.pins.get(&self.address), &self.invite) {
            (Some(pin), Some(invite)) if pin.noise == invite.announcer() && !by_turns => {
                Contact::Pinned(pin.noise)
            }
            (_, Some(invite)) => {
                self.invite_next = false;
                Contact::Invite(invite)
            }
            (Some(pin), None) => Contact::Pinned(pin.noise),
            (None, None) => return Err(MembershipError::NotJoined { address: self.address.clone() }),
        };
        Ok((self.keys.noise(), contact, &self.address))
    }

    /// Takes the announcer's welcome: pins it if it is new, forgets the invite, and notes its time.
    /// `noise` is the key it has proven in the handshake; `asked` is when the nonce was sent.
    ///
    /// # Errors
    /// [`MembershipError::Changed`], [`MembershipError::Time`], and those of the state folder.
    pub fn welcomed(
        &mut self,
        noise: NoisePublicKey,
        announcer: AnnouncerKey,
        nonce: TimeNonce,
        statement: &Statement,
        asked: Instant,
    ) -> Result<(), MembershipError> {
        let found = Pin { noise, announcer: AnnouncerId::from_bytes(announcer) };
        if self.invite.as_ref().is_none_or(|invite| invite.announcer() != noise) {
            self.pins.check(&self.address, &found).map_err(Box::new)?;
        }
        self.time = Some(read_time(&found.announcer, nonce, statement, asked)?);
        // Only news is written: a station whose disk fails later goes on.
        if self.pin() != Some(&found) {
            self.pins.pin(&self.address, found)?;
        }
        self.invite = None;
        Ok(())
    }

    /// Takes the answer to a later question for the time.
    ///
    /// # Errors
    /// [`MembershipError::Time`].
    pub fn told_time(
        &mut self,
        nonce: TimeNonce,
        statement: &Statement,
        asked: Instant,
    ) -> Result<(), MembershipError> {
        if let Some(pin) = self.pin() {
            self.time = Some(read_time(&pin.announcer, nonce, statement, asked)?);
        }
        Ok(())
    }

    /// What a clip is admitted by; `None` before the announcer's welcome.
    pub fn admission(&self) -> Option<Admission<'_>> {
        let announcer = self.pin()?.announcer;
        let heard = self.diary.mark(&announcer);
        Some(Admission { announcer, zones: &self.zones, time: self.time?, heard })
    }

    /// Has it written down what becomes of a clip of the announcer. To be called on a tokio runtime.
    pub(crate) fn note(&mut self, note: Note, events: &Events) -> Noting {
        match self.pin().map(|pin| pin.announcer) {
            Some(announcer) => self.diary.note(announcer, note, events),
            None => Noting::nowhere(),
        }
    }

    /// Another process of this station has gone past a clip of this one.
    pub(crate) fn was_overtaken(&mut self) {
        self.diary.catch_up();
    }

    /// The announcer that is pinned.
    pub fn announcer(&self) -> Option<AnnouncerKey> {
        self.pin().map(|pin| *pin.announcer.as_bytes())
    }

    /// The receipt of the clip heard last of the announcer, also by an earlier run of this station.
    pub fn last_receipt(&self) -> Option<Receipt> {
        let announcer = self.pin()?.announcer;
        self.diary.on_disk(|heard| heard.receipt(&announcer))
    }

    /// The clip of the announcer that sounded here last and was cut off before its end, also in an earlier run.
    pub fn last_cut_off(&self) -> Option<ClipId> {
        let announcer = self.pin()?.announcer;
        self.diary.on_disk(|heard| heard.cut_off(&announcer))
    }

    /// Whether a loudspeaker of that name has worked here before, so that its name is no typing mistake.
    pub fn has_played_on(&self, output: &str) -> bool {
        self.own.holds(OUTPUT, output)
    }

    /// Writes down that a loudspeaker works here.
    ///
    /// # Errors
    /// Those of the state folder.
    pub fn note_output(&self, output: &str) -> Result<(), KeysError> {
        self.own.note(OUTPUT, output)
    }

    fn pin(&self) -> Option<&Pin> {
        self.pins.get(&self.address)
    }
}

fn read_time(
    announcer: &AnnouncerId,
    nonce: TimeNonce,
    statement: &Statement,
    asked: Instant,
) -> Result<AnnouncerTime, MembershipError> {
    let signature = statement.signature.as_slice().try_into().map_err(|_| WireError::Field("signature"))?;
    let statement = TimeStatement { unix_ms: statement.unix_ms, signature };
    Ok(AnnouncerTime::from_statement(announcer, nonce, &statement, asked, Instant::now())?)
}
