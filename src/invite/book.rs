//! The announcer's record of its current invite: `invite` in its state folder. There is at most one.

use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use zeroize::Zeroizing;

use super::{Invite, InviteId, InviteSecret, MAX_EXPIRY};
use crate::keys::checked::Kind;
use crate::keys::{AnnouncerKeys, KeysError, StateFolder};

const INVITE: Kind = Kind {
    file: "invite",
    word: "invite",
    remedy: "delete it, and make a new invite with `bullhorn invite --new`",
};
/// How far the clock may go back before an invite that it dated counts as one from the future.
const CLOCK_SLACK_S: u64 = 300;

/// The record. It is read from the file at every use, so that a running announcer notices at once a `bullhorn invite
/// --new` in another process.
#[derive(Debug, Clone)]
pub struct InviteBook {
    folder: StateFolder,
}

struct Entry {
    secret: InviteSecret,
    made_unix_s: u64,
    expires_unix_s: u64,
}

impl Entry {
    fn is_valid(&self, now_unix_s: u64) -> bool {
        now_unix_s < self.expires_unix_s && now_unix_s.saturating_add(CLOCK_SLACK_S) >= self.made_unix_s
    }
}

impl InviteBook {
    /// The record in an announcer's state folder.
    pub fn new(folder: &StateFolder) -> Self {
        Self { folder: folder.clone() }
    }

    /// The current invite, if it is valid at `now_unix_s` by the announcer's clock.
    ///
    /// # Errors
    /// Errors from reading; [`KeysError::CutShort`], [`KeysError::Damaged`].
    pub fn current(&self, announcer: &AnnouncerKeys, now_unix_s: u64) -> Result<Option<Invite>, KeysError> {
        let entry = self.read()?.filter(|entry| entry.is_valid(now_unix_s));
        Ok(entry.map(|entry| Invite {
            announcer: announcer.noise().public(),
            secret: entry.secret,
            expires_unix_s: entry.expires_unix_s,
        }))
    }

    /// Makes a new invite, valid from now on, and retires the one before. The invite is on the disk before this
    /// returns.
    ///
    /// # Errors
    /// [`KeysError::Random`], and errors from writing.
    pub fn issue(
        &self,
        announcer: &AnnouncerKeys,
        validity: Duration,
        now_unix_s: u64,
    ) -> Result<Invite, KeysError> {
        let expires_unix_s = now_unix_s.saturating_add(validity.as_secs()).min(MAX_EXPIRY);
        let secret = InviteSecret::generate()?;
        let hex = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(secret.0.as_slice()));
        let body = Zeroizing::new(format!("{} {now_unix_s} {expires_unix_s}\n", *hex));
        INVITE.write(&self.folder.lock()?, &body)?;
        Ok(Invite { announcer: announcer.noise().public(), secret, expires_unix_s })
    }

    /// The secret of the invite that a station names, if that invite is current and valid.
    ///
    /// # Errors
    /// Errors from reading; [`KeysError::CutShort`], [`KeysError::Damaged`].
    pub fn accept(&self, id: InviteId, now_unix_s: u64) -> Result<Option<InviteSecret>, KeysError> {
        let entry = self.read()?.filter(|entry| entry.is_valid(now_unix_s));
        Ok(entry.map(|entry| entry.secret).filter(|secret| secret.id() == id))
    }

    /// Retires the current invite, if there is one.
    ///
    /// # Errors
    /// Errors from writing.
    pub fn retire(&self) -> Result<(), KeysError> {
        INVITE.write(&self.folder.lock()?, "")
    }

    fn read(&self) -> Result<Option<Entry>, KeysError> {
        let Some(body) = INVITE.read(&self.folder)?.filter(|body| !body.is_empty()) else {
            return Ok(None);
        };
        parse(&body).map(Some).ok_or_else(|| INVITE.damaged(&self.folder, "it does not hold an invite"))
    }
}

fn parse(body: &str) -> Option<Entry> {
    let mut words = body.strip_suffix('\n')?.split(' ');
    let hex = words.next().filter(|hex| hex.len() == 32)?;
    let mut secret = Zeroizing::new([0; 16]);
    HEXLOWER_PERMISSIVE.decode_mut(hex.as_bytes(), secret.as_mut_slice()).ok()?;
    let made_unix_s = words.next()?.parse().ok()?;
    let expires_unix_s = words.next()?.parse().ok()?;
    words.next().is_none().then_some(Entry { secret: InviteSecret(secret), made_unix_s, expires_unix_s })
}
