//! Identities and where they are kept: the state folder, the keys, the known stations, the pinned announcers, and how
//! far each announcer has been heard.
//!
//! Everything here is synchronous and only touches files. Each write replaces the whole file (temporary file, fsync,
//! rename, fsync of the folder), under the folder's lock.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub mod folder;
pub mod heard;
pub mod identity;
pub mod known;
pub mod pins;
pub mod talked;
pub mod zones;

pub(crate) mod checked;

pub use folder::{Claimed, StateFolder};
pub use heard::{Heard, Mark, Voice};
pub use identity::{
    AnnouncerId, AnnouncerKeys, Fingerprint, NoiseKeys, NoisePublicKey, StationId, StationKeys,
};
pub use known::{Admitted, Changes, Draft, KnownStations, MAX_STATIONS, Station};
pub use pins::{AnnouncerChanged, Pin, Pins};
pub use talked::{End, Talked, TalkedMark};
pub use zones::{ZoneDraft, ZoneOrder};

/// An error of the state folder or of a file in it.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Neither `XDG_STATE_HOME` nor a home folder is known.
    #[error("there is no home folder to keep keys in: name a folder with --state")]
    NoHome(#[source] etcetera::HomeDirError),
    /// Other users could read or write something that must be private.
    #[error("{} is open to other users (mode {mode:03o}): run `{mend}`", path.display())]
    Exposed {
        /// The folder or file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The command that fixes it.
        mend: String,
    },
    /// It belongs to another user.
    #[error(
        "{} belongs to another user (uid {owner}, this is uid {user}), who could put anything into it: choose a folder \
         of your own with --state, or run bullhorn as that user",
        path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user who runs this program.
        user: u32,
    },
    /// The new content would be too large to read back.
    #[error(
        "{} would have {bytes} bytes, more than can be read again; nothing was changed: remove stations that are gone \
         (`bullhorn stations remove`)",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The size that it would have.
        bytes: u64,
    },
    /// An announcer already runs with this folder. Two announcers with one identity would give their clips the same
    /// numbers.
    #[error("an announcer runs with {} already: leave it, or choose another folder with --state", .0.display())]
    InUse(PathBuf),
    /// There is something other than a folder at its path.
    #[error("{} is not a folder: move it away or choose another with --state", .0.display())]
    NotAFolder(PathBuf),
    /// The system denies access.
    #[error("cannot {doing} {}: permission denied; its owner must be the user who runs bullhorn", path.display())]
    Denied {
        /// The action that failed.
        doing: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file system is full.
    #[error("cannot {doing} {}: the disk is full; nothing was changed, make room and try again", path.display())]
    Full {
        /// The action that failed.
        doing: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file system is mounted read-only.
    #[error("cannot {doing} {}: the file system is read-only; choose a writable folder with --state", path.display())]
    ReadOnly {
        /// The action that failed.
        doing: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Any other fault of the file system.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// The action that failed.
        doing: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file ends before its checksum.
    #[error("{} is cut short: {remedy}", path.display())]
    CutShort {
        /// The file.
        path: PathBuf,
        /// Advice for the user.
        remedy: &'static str,
    },
    /// The file is whole but is not what was written.
    #[error("{} is damaged ({problem}): {remedy}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The problem with it; never quotes the file.
        problem: String,
        /// Advice for the user.
        remedy: &'static str,
    },
    /// A newer bullhorn wrote the file.
    #[error("{} was written by a newer bullhorn: use that one, or another folder with --state", .0.display())]
    FromTheFuture(PathBuf),
    /// Another key joined with the name first.
    #[error(
        "the name {name} belongs to another station's key ({holder}): choose another name, \
         or run `bullhorn stations remove {name}` first if that station is gone"
    )]
    NameTaken {
        /// The name that was asked for.
        name: String,
        /// The key that has it.
        holder: Fingerprint,
    },
    /// A new name looks like an existing one.
    #[error(
        "the {what} {new} looks like the {what} {known}, and is written with other letters: choose another name, or \
         write it as that one is"
    )]
    LooksAlike {
        /// `station` or `zone`.
        what: &'static str,
        /// The name that was asked for.
        new: String,
        /// The existing name.
        known: String,
    },
    /// It is not a legal name for a station.
    #[error("a station's name has 1 to {} bytes and no control characters", crate::wire::MAX_NAME_BYTES)]
    BadName,
    /// No station of that name has joined.
    #[error("no station named {0} has joined: `bullhorn stations` lists those that have")]
    NoSuchStation(String),
    /// A station's talkback is signed with a different key than before.
    #[error(
        "the talkback of {name} is signed by another key ({found}) than before ({pinned}): if that station was set up \
         anew, run `bullhorn stations remove {name}` and invite it again"
    )]
    SignerChanged {
        /// The station.
        name: String,
        /// The key that was pinned.
        pinned: Fingerprint,
        /// The key that signed it.
        found: Fingerprint,
    },
    /// The site already has the maximum number of stations.
    #[error("{} stations have joined, which is the limit: remove one first", known::MAX_STATIONS)]
    TooManyStations,
    /// A station changes its entry more often than is allowed.
    #[error(
        "it has changed its name or its zones {most} times within a minute: the next change is taken in {} s, and until \
         then what is written stands",
        .wait.as_millis().div_ceil(1_000)
    )]
    TooManyChanges {
        /// How many changes are accepted in a burst.
        most: u32,
        /// How long it has to wait.
        wait: Duration,
    },
    /// The announcer's key is not the pinned one.
    #[error(transparent)]
    AnnouncerChanged(#[from] Box<AnnouncerChanged>),
    /// Another process of this station began a later clip.
    #[error("another process has played a later page already: run one station in each --state folder")]
    HeardLater,
    /// A table could not be encoded as TOML.
    #[error("cannot encode {file}")]
    Encode {
        /// The file's name.
        file: &'static str,
        /// The encoder's error.
        source: toml::ser::Error,
    },
    /// The system provides no random numbers.
    #[error("the system gives no random numbers, without which no key can be made")]
    Random(#[source] getrandom::Error),
    /// The X25519 implementation is missing.
    #[error("X25519 is not available in this build")]
    NoX25519,
}

impl KeysError {
    /// Sorts a file-system error by what the user has to do about it.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { doing, path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { doing, path, source },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { doing, path, source },
            _ => Self::Io { doing, path, source },
        }
    }
}

/// Fills an array with random bytes from the system.
///
/// # Errors
/// [`KeysError::Random`].
pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeysError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(KeysError::Random)?;
    Ok(bytes)
}

/// Lets a station of the same user on the same machine join without an invite: anyone who can read and write the
/// announcer's state folder is the announcer's user. Returns the announcer to pin, or `None` when the folder holds no
/// announcer.
///
/// # Errors
/// Errors from reading the announcer's keys, and those from [`KnownStations::admit`].
pub fn introduce_locally(
    folder: &StateFolder,
    station: &StationKeys,
    name: &str,
    zones: &[String],
    now_unix_s: u64,
) -> Result<Option<Pin>, KeysError> {
    let Some(announcer) = AnnouncerKeys::load(folder)? else {
        return Ok(None);
    };
    KnownStations::open(folder)?.admit(&station.noise().public(), name, zones, now_unix_s)?;
    Ok(Some(Pin { noise: announcer.noise().public(), announcer: announcer.id() }))
}

/// The fingerprints of the keys whose signatures this machine can judge: its own announcer's, those of the announcers
/// that its stations have pinned, and those of the stations that have talked back to it.
///
/// # Errors
/// Errors from reading the files.
pub fn known_signers(folder: &StateFolder) -> Result<Vec<Fingerprint>, KeysError> {
    let mut known: Vec<Fingerprint> =
        AnnouncerKeys::load(folder)?.iter().map(|keys| keys.id().fingerprint()).collect();
    known.extend(KnownStations::open(folder)?.all().iter().filter_map(|it| Some(it.signer?.fingerprint())));
    for folder in folder.inner()?.iter().chain([folder]) {
        known.extend(Pins::open(folder)?.all().map(|pin| pin.announcer.fingerprint()));
    }
    Ok(known)
}

#[cfg(test)]
mod tests;
