//! A station's membership: its own key, the announcer it trusts, and how far it has heard that announcer.

use std::net::ToSocketAddrs;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::diary::{Diary, Note, Noting};
use crate::event::Events;
use crate::handshake::Contact;
use crate::invite::Invite;
use crate::keys::identity::{begin_epoch, fresh_epoch, next_epoch};
use crate::keys::{
    AnnouncerChanged, AnnouncerId, Heard, KeysError, NoiseKeys, NoisePublicKey, Pin, Pins, StateFolder,
    StationKeys, introduce_locally,
};
use crate::priority::Priority;
use crate::seal::{Admission, AnnouncerTime, TimeError, TimeNonce, TimeStatement};
use crate::wire::{AnnouncerKey, ClipId, Receipt, Statement, WireError};

/// The file that names the loudspeaker that last worked.
const OUTPUT: &str = "output";

/// Why a station cannot be a member.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// It was not invited.
    #[error(
        "this station has not joined {address}: run `bullhorn invite` there, and here the line that it prints"
    )]
    NotJoined {
        /// The announcer's address as dialled.
        address: String,
    },
    /// There is one invite, and several announcers that it could be from.
    #[error(
        "an invite is of one announcer, and {0} are all new here: join them one after the other, each with its own \
         invite (`bullhorn speaker HOST --invite bh1…`), and then start with all of them and without an invite"
    )]
    WhichInvited(String),
    /// There is one invite, and no announcer that it could be from.
    #[error(
        "{0} have all been joined, and the invite is of another announcer: leave it out, or join the one that it is \
         of by itself (`bullhorn speaker HOST --invite bh1…`)"
    )]
    NoneInvited(String),
    /// Two addresses belong to one announcer.
    #[error(
        "{address} and {other} are one announcer: name it once. If they are two, join {address} with an invite of \
         its own"
    )]
    SameAnnouncer {
        /// The announcer's address as dialled.
        address: String,
        /// The address where it is served already.
        other: String,
    },
    /// The state folder cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The announcer is not the pinned one.
    #[error(transparent)]
    Changed(#[from] Box<AnnouncerChanged>),
    /// The announcer's statement of time is not valid.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// Something that the announcer sent is out of bounds.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// What a station presents to an announcer that has welcomed it, when it talks back.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The keys with which it proves its identity and signs.
    pub keys: StationKeys,
    /// The pinned announcer that it expects.
    pub pin: Pin,
    /// The announcer's time.
    pub time: AnnouncerTime,
    address: String,
}

impl Credentials {
    /// What to present, which announcer to expect, and its address.
    pub fn introduction(&self) -> (&NoiseKeys, Contact<'_>, &str) {
        (self.keys.noise(), Contact::Pinned(self.pin.noise), &self.address)
    }
}

/// A station of a site, or one that is about to join.
#[derive(Debug)]
pub struct Membership {
    /// The folder where an announcer of the same user keeps its state.
    folder: StateFolder,
    /// This station's own part of it.
    own: StateFolder,
    keys: StationKeys,
    pins: Pins,
    diary: Diary,
    invite: Option<Invite>,
    address: String,
    /// The addresses at which this station serves other announcers.
    others: Vec<String>,
    name: String,
    zones: Vec<String>,
    /// Whether the announcer is on this machine.
    is_local: bool,
    /// With an invite from the pinned announcer, both ways in are tried in turn: the invite may have been used
    /// already, or be there because this station was removed.
    invite_next: bool,
    time: Option<AnnouncerTime>,
}

impl Membership {
    /// Opens a station's part of the state folder, and creates its key if there is none.
    ///
    /// # Errors
    /// [`MembershipError::NotJoined`] if there is no way in; errors of the state folder.
    pub fn open(
        folder: &StateFolder,
        (host, port): (&str, u16),
        name: &str,
        zones: &[String],
        invite: Option<Invite>,
    ) -> Result<Self, MembershipError> {
        let own = folder.within(name)?;
        let is_local = is_local((host, port));
        let membership = Self {
            folder: folder.clone(),
            keys: StationKeys::load_or_create(&own)?,
            pins: Pins::open(&own)?,
            diary: Diary::new(Heard::open(&own)?),
            invite,
            address: address_of((host, port)),
            others: Vec::new(),
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

    /// Like [`Self::open`], but for several announcers, each with its host and port. The invite goes to the announcer
    /// that it is from, or else to the one that is new here.
    ///
    /// # Errors
    /// The same errors as [`Self::open`] for each; [`MembershipError::WhichInvited`], [`MembershipError::NoneInvited`],
    /// [`MembershipError::SameAnnouncer`].
    pub fn open_all(
        folder: &StateFolder,
        announcers: &[(&str, u16)],
        name: &str,
        zones: &[String],
        invite: Option<Invite>,
    ) -> Result<Vec<Self>, MembershipError> {
        let pins = Pins::open(&folder.within(name)?)?;
        let mut invites = vec![None; announcers.len()];
        if let Some(invite) = invite {
            let invited = invited(announcers, &pins, &invite)?;
            invites[invited] = Some(invite);
        }
        let addresses: Vec<String> = announcers.iter().map(|announcer| address_of(*announcer)).collect();
        for (at, address) in addresses.iter().enumerate() {
            let earlier = addresses[..at].iter();
            let mut same = earlier.filter(|it| *it == address || is_same(pins.get(it), pins.get(address)));
            if let Some(other) = same.next() {
                return Err(MembershipError::SameAnnouncer {
                    address: address.clone(),
                    other: other.clone(),
                });
            }
        }
        let open = |(announcer, invite): (&(&str, u16), Option<Invite>)| {
            let mut membership = Self::open(folder, *announcer, name, zones, invite)?;
            membership.others.clone_from(&addresses);
            membership.others.retain(|other| *other != membership.address);
            Ok(membership)
        };
        announcers.iter().zip(invites).map(open).collect()
    }

    /// What to present, which announcer to expect, and its address. A station of the announcer's own user on the
    /// announcer's own machine joins here, if it has not done so.
    ///
    /// # Errors
    /// [`MembershipError::NotJoined`] while there is no announcer; errors of the state folder.
    pub fn introduction(&mut self) -> Result<(&NoiseKeys, Contact<'_>, &str), MembershipError> {
        if self.pin().is_none() && self.invite.is_none() {
            let now_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let pin = match self.is_local {
                true => introduce_locally(&self.folder, &self.keys, &self.name, &self.zones, now_unix_s)?,
                false => None,
            };
            let pin = pin.ok_or_else(|| MembershipError::NotJoined { address: self.address.clone() })?;
            self.pin_new(pin)?;
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

    /// Handles the announcer's welcome: pins the announcer if it is new, forgets the invite, and records the time.
    /// `noise` is the key that it has proven in the handshake; `asked` is when the nonce was sent.
    ///
    /// # Errors
    /// [`MembershipError::Changed`], [`MembershipError::Time`], and errors of the state folder.
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
        // Only changes are written: a station whose disk fails later keeps working.
        if self.pin() != Some(&found) {
            self.pin_new(found)?;
        }
        self.invite = None;
        Ok(())
    }

    /// Handles the answer to a later request for the time.
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

    /// What it needs to talk back; `None` before the announcer's welcome.
    pub fn credentials(&self) -> Option<Credentials> {
        let (pin, time) = (*self.pin()?, self.time?);
        Some(Credentials { keys: self.keys.clone(), pin, time, address: self.address.clone() })
    }

    /// Begins a run in which it talks back. Returns a number above those of all such runs before; in open mode, without
    /// a membership, that holds only while the clock goes forward. A disk that cannot be written does not prevent it.
    ///
    /// # Errors
    /// Errors of reading the state folder.
    pub fn begin_talkback(member: Option<&Self>) -> Result<u64, KeysError> {
        let now_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match member {
            Some(Self { own, .. }) => begin_epoch(own, now_unix_s).or_else(|_| next_epoch(own, now_unix_s)),
            None => fresh_epoch(now_unix_s),
        }
    }

    /// This station's own part of the state folder.
    pub fn own_folder(&self) -> &StateFolder {
        &self.own
    }

    /// What clips of that priority are checked against; `None` before the announcer's welcome.
    pub fn admission(&self, priority: Priority) -> Option<Admission<'_>> {
        let announcer = self.pin()?.announcer;
        let heard = self.diary.mark(&(announcer, priority));
        Some(Admission { announcer, zones: &self.zones, time: self.time?, heard })
    }

    /// Starts writing down what becomes of a clip of that priority from the announcer. Must be called on a tokio
    /// runtime.
    pub(crate) fn note(&mut self, priority: Priority, note: Note, events: &Events) -> Noting {
        match self.pin().map(|pin| pin.announcer) {
            Some(announcer) => self.diary.note((announcer, priority), note, events),
            None => Noting::nowhere(),
        }
    }

    /// Called when another process of this station has moved past a clip of this one.
    pub(crate) fn was_overtaken(&mut self) {
        self.diary.catch_up();
    }

    /// The pinned announcer.
    pub fn announcer(&self) -> Option<AnnouncerKey> {
        self.pin().map(|pin| *pin.announcer.as_bytes())
    }

    /// The receipt for the last clip heard from the announcer, even if an earlier run of this station heard it.
    pub fn last_receipt(&self) -> Option<Receipt> {
        let announcer = self.pin()?.announcer;
        self.diary.on_disk(|heard| heard.receipt(&announcer))
    }

    /// The announcer's clip that last sounded here and was cut off before its end, even in an earlier run.
    pub fn last_cut_off(&self) -> Option<ClipId> {
        let announcer = self.pin()?.announcer;
        self.diary.on_disk(|heard| heard.cut_off(&announcer))
    }

    /// Whether a loudspeaker of that name has worked here before, so that its name is not a typing mistake.
    pub fn has_played_on(&self, output: &str) -> bool {
        self.own.holds(OUTPUT, output)
    }

    /// Records that a loudspeaker works here.
    ///
    /// # Errors
    /// Errors of the state folder.
    pub fn note_output(&self, output: &str) -> Result<(), KeysError> {
        self.own.note(OUTPUT, output)
    }

    fn pin(&self) -> Option<&Pin> {
        self.pins.get(&self.address)
    }

    /// Pins the announcer, unless this station serves it at another address.
    fn pin_new(&mut self, pin: Pin) -> Result<(), MembershipError> {
        let pins = Pins::open(&self.own)?;
        if let Some(other) = self.others.iter().find(|other| is_same(pins.get(other), Some(&pin))) {
            let address = self.address.clone();
            return Err(MembershipError::SameAnnouncer { address, other: other.clone() });
        }
        Ok(self.pins.pin(&self.address, pin)?)
    }
}

fn address_of((host, port): (&str, u16)) -> String {
    format!("{host}:{port}")
}

fn is_local(announcer: (&str, u16)) -> bool {
    let mut addresses = announcer.to_socket_addrs().into_iter().flatten().peekable();
    addresses.peek().is_some() && addresses.all(|address| address.ip().is_loopback())
}

fn is_same(one: Option<&Pin>, other: Option<&Pin>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one.announcer == other.announcer)
}

/// The index of the announcer that an invite is from.
fn invited(announcers: &[(&str, u16)], pins: &Pins, invite: &Invite) -> Result<usize, MembershipError> {
    let pin = |at: usize| pins.get(&address_of(announcers[at]));
    let all = 0..announcers.len();
    if let Some(known) = all.clone().find(|at| pin(*at).is_some_and(|pin| pin.noise == invite.announcer())) {
        return Ok(known);
    }
    let new: Vec<usize> = all.clone().filter(|at| announcers.len() == 1 || pin(*at).is_none()).collect();
    // An announcer on this machine needs no invite.
    let away = new.iter().copied().filter(|at| !is_local(announcers[*at]));
    let names = |which: &[usize]| {
        let names: Vec<String> = which.iter().map(|at| address_of(announcers[*at])).collect();
        names.join(" and ")
    };
    match (new.as_slice(), away.collect::<Vec<_>>().as_slice()) {
        ([one], _) | (_, [one]) => Ok(*one),
        ([], _) => Err(MembershipError::NoneInvited(names(&all.collect::<Vec<_>>()))),
        _ => Err(MembershipError::WhichInvited(names(&new))),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::invite::{DEFAULT_VALIDITY, InviteBook};
    use crate::keys::AnnouncerKeys;

    /// Addresses without an announcer: the network for documentation, and this machine.
    const DESKS: [(&str, u16); 3] = [("192.0.2.1", 7766), ("192.0.2.2", 7766), ("127.0.0.1", 7766)];

    struct Home {
        _home: tempfile::TempDir,
        station: StateFolder,
        announcer: AnnouncerKeys,
        invite: Invite,
    }

    fn home() -> Home {
        let home = tempfile::tempdir().unwrap();
        let folder = |name: &str| StateFolder::open(Some(&home.path().join(name))).unwrap();
        let (station, office) = (folder("station"), folder("office"));
        let announcer = AnnouncerKeys::load_or_create(&office).unwrap();
        let invite = InviteBook::new(&office).issue(&announcer, DEFAULT_VALIDITY, 0).unwrap();
        Home { _home: home, station, announcer, invite }
    }

    impl Home {
        fn pin(&self, desk: usize, keys: &AnnouncerKeys) {
            let mut pins = Pins::open(&self.station.within("hall-1").unwrap()).unwrap();
            let pin = Pin { noise: keys.noise().public(), announcer: keys.id() };
            pins.pin(&address_of(DESKS[desk]), pin).unwrap();
        }

        /// Which of the desks got the invite, or why none did.
        fn open(&self, desks: &[usize], with_invite: bool) -> Result<Vec<bool>, MembershipError> {
            let desks: Vec<_> = desks.iter().map(|at| DESKS[*at]).collect();
            let invite = with_invite.then(|| self.invite.clone());
            let all = Membership::open_all(&self.station, &desks, "hall-1", &[], invite)?;
            Ok(all.iter().map(|membership| membership.invite.is_some()).collect())
        }
    }

    #[test]
    fn an_invite_goes_to_the_announcer_that_it_is_of_or_the_one_that_is_new() {
        let home = home();
        assert_eq!(home.open(&[0], true).unwrap(), [true]);
        let said = home.open(&[0, 1], true).unwrap_err().to_string();
        assert!(said.contains("192.0.2.1:7766 and 192.0.2.2:7766 are all new here"), "{said}");
        assert!(said.contains("one after the other"), "{said}");
        assert!(matches!(home.open(&[0, 1], false), Err(MembershipError::NotJoined { .. })));
        assert_eq!(home.open(&[0, 2], true).unwrap(), [true, false], "this machine's own needs none");
        home.pin(0, &AnnouncerKeys::generate().unwrap());
        assert_eq!(home.open(&[0, 1], true).unwrap(), [false, true]);
        assert_eq!(home.open(&[0, 2], true).unwrap(), [false, true]);
        assert_eq!(home.open(&[0], true).unwrap(), [true], "one alone is joined anew");
        home.pin(1, &AnnouncerKeys::generate().unwrap());
        let said = home.open(&[0, 1], true).unwrap_err().to_string();
        assert!(said.contains("have all been joined"), "{said}");
        home.pin(0, &home.announcer);
        assert_eq!(home.open(&[1, 0], true).unwrap(), [false, true], "it is of this one");
        assert_eq!(home.open(&[0, 1], false).unwrap(), [false, false]);
    }

    #[test]
    fn one_announcer_is_served_once() {
        let home = home();
        home.pin(0, &home.announcer);
        home.pin(1, &home.announcer);
        let said = home.open(&[0, 1], false).unwrap_err().to_string();
        assert!(said.contains("192.0.2.2:7766 and 192.0.2.1:7766 are one announcer"), "{said}");
        assert_eq!(home.open(&[1], false).unwrap(), [false]);
        assert!(matches!(home.open(&[0, 0], false), Err(MembershipError::SameAnnouncer { .. })));
    }
}
