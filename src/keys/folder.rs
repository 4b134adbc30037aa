//! The state folder: private, locked during writes, and every file replaced whole.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use super::KeysError;

/// The maximum size of a file here: 65,536 stations of 200 bytes each fit easily.
const MAX_FILE_BYTES: u64 = 32 << 20;
/// The prefix of the name of a station's own folder.
const STATION_PREFIX: &str = "station-";
/// Permission bits of the group and of others.
const OTHERS: u32 = 0o077;

/// A folder of mode 0700 that holds keys and everything else that must survive a reboot.
#[derive(Debug, Clone)]
pub struct StateFolder {
    path: PathBuf,
}

/// The folder while no other process changes it. Only a locked folder can be written. The lock is advisory (`flock`).
/// It is released when the value is dropped, or by the system if the process dies.
#[derive(Debug)]
pub struct Locked<'a> {
    folder: &'a StateFolder,
    _lock: File,
}

/// Identifies one content of a file: every write makes a new inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp(Option<(u64, i64, i64, u64)>);

/// A folder in use by one announcer. It is released when the value is dropped, or by the system if the process dies.
#[derive(Debug)]
pub struct Claimed {
    _lock: File,
}

impl StateFolder {
    /// Opens `chosen`, or else `$XDG_STATE_HOME/bullhorn` (`~/.local/state/bullhorn`), and creates it if it does not
    /// exist.
    ///
    /// # Errors
    /// [`KeysError::Exposed`] when group or others have any right to it, [`KeysError::Foreign`] when it belongs to
    /// another user (root may use anybody's), [`KeysError::NotAFolder`], [`KeysError::NoHome`], and file-system errors.
    pub fn open(chosen: Option<&Path>) -> Result<Self, KeysError> {
        Self::open_at(Self::place(chosen)?)
    }

    /// Like [`StateFolder::open`], but does not create the folder: returns `None` when it does not exist.
    ///
    /// # Errors
    /// The same errors as [`StateFolder::open`].
    pub fn find(chosen: Option<&Path>) -> Result<Option<Self>, KeysError> {
        let path = Self::place(chosen)?;
        if path.exists() { Self::open_at(path).map(Some) } else { Ok(None) }
    }

    fn place(chosen: Option<&Path>) -> Result<PathBuf, KeysError> {
        if let Some(path) = chosen {
            return Ok(path.to_path_buf());
        }
        let xdg = etcetera::base_strategy::Xdg::new().map_err(KeysError::NoHome)?;
        Ok(xdg.state_dir().unwrap_or_else(|| xdg.home_dir().join(".local/state")).join("bullhorn"))
    }

    /// The folders inside this one that [`StateFolder::within`] has created.
    ///
    /// # Errors
    /// The same errors as [`StateFolder::open`].
    pub fn inner(&self) -> Result<Vec<Self>, KeysError> {
        let failed = |source| KeysError::io("read the folder", &self.path, source);
        let entries = fs::read_dir(&self.path).map_err(failed)?;
        let mut inner = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(STATION_PREFIX) && path.is_dir() {
                inner.push(Self::open_at(path)?);
            }
        }
        Ok(inner)
    }

    /// Opens a folder inside this one, for a second station of the same user on one machine. Its name is made from
    /// `name`: every byte other than an ASCII letter, a digit or `-` becomes `%` and hex.
    ///
    /// # Errors
    /// The same errors as [`StateFolder::open`].
    pub fn within(&self, name: &str) -> Result<Self, KeysError> {
        let safe: String = name
            .bytes()
            .map(|byte| match byte {
                b'-' => "-".into(),
                _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                _ => format!("%{byte:02x}"),
            })
            .collect();
        Self::open_at(self.path.join(format!("{STATION_PREFIX}{safe}")))
    }

    fn open_at(path: PathBuf) -> Result<Self, KeysError> {
        let found = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&path)
                    .map_err(|source| KeysError::io("make the folder", &path, source))?;
                fs::metadata(&path)
            }
            found => found,
        }
        .map_err(|source| KeysError::io("look into", &path, source))?;
        if !found.is_dir() {
            return Err(KeysError::NotAFolder(path));
        }
        refuse_foreign(&path, found.uid())?;
        refuse_exposed(&path, found.mode(), "700")?;
        Ok(Self { path })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until no other process or thread changes the folder, and keeps all others from changing it.
    ///
    /// # Errors
    /// File-system errors.
    pub fn lock(&self) -> Result<Locked<'_>, KeysError> {
        let path = self.path.join("lock");
        let failed = |source| KeysError::io("lock", &path, source);
        let lock = open_lock(&path).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(Locked { folder: self, _lock: lock })
    }

    /// Reserves the folder for one announcer, for as long as the value lives.
    ///
    /// # Errors
    /// [`KeysError::InUse`] when another process has it, and file-system errors.
    pub fn claim(&self) -> Result<Claimed, KeysError> {
        let path = self.path.join("running");
        let failed = |source| KeysError::io("lock", &path, source);
        let lock = open_lock(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Claimed { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(KeysError::InUse(self.path.clone())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Reads a file. The content is wiped from memory when dropped; `None` when there is no such file.
    ///
    /// # Errors
    /// [`KeysError::Exposed`] when group or others have any right to it, and file-system errors.
    pub fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
        let path = self.path.join(name);
        let failed = |source| KeysError::io("read", &path, source);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let found = file.metadata().map_err(failed)?;
        refuse_exposed(&path, found.mode(), "600")?;
        if found.len() > MAX_FILE_BYTES {
            return Err(KeysError::Damaged {
                path,
                problem: format!("{} bytes are more than bullhorn ever writes", found.len()),
                remedy: "restore it from a backup",
            });
        }
        let mut content = Zeroizing::new(Vec::with_capacity(found.len() as usize + 1));
        file.take(MAX_FILE_BYTES).read_to_end(&mut content).map_err(failed)?;
        Ok(Some(content))
    }

    /// Whether a file holds exactly this text.
    pub fn holds(&self, name: &str, text: &str) -> bool {
        self.read(name).ok().flatten().is_some_and(|known| known.as_slice() == text.as_bytes())
    }

    /// Writes a file with exactly this text, unless it already holds it.
    ///
    /// # Errors
    /// File-system errors.
    pub fn note(&self, name: &str, text: &str) -> Result<(), KeysError> {
        if self.holds(name, text) { Ok(()) } else { self.lock()?.write(name, text.as_bytes()) }
    }

    /// Returns the stamp of a file's present content.
    ///
    /// # Errors
    /// File-system errors.
    pub fn stamp(&self, name: &str) -> Result<Stamp, KeysError> {
        let path = self.path.join(name);
        match fs::metadata(&path) {
            Ok(found) => Ok(Stamp(Some((found.ino(), found.ctime(), found.ctime_nsec(), found.len())))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Stamp(None)),
            Err(source) => Err(KeysError::io("look at", &path, source)),
        }
    }
}

impl Locked<'_> {
    /// Replaces a whole file and waits until it is on the disk. Mode 0600. After an error the old content is still
    /// there.
    ///
    /// # Errors
    /// [`KeysError::TooLarge`] for content that could not be read back, and file-system errors, including
    /// [`KeysError::Full`] and [`KeysError::ReadOnly`].
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), KeysError> {
        let path = self.folder.path.join(name);
        if content.len() as u64 > MAX_FILE_BYTES {
            return Err(KeysError::TooLarge { path, bytes: content.len() as u64 });
        }
        let temporary = self.folder.path.join(format!("{name}.new"));
        let written = self.write_through(&temporary, &path, content);
        if written.is_err() {
            // Best effort: the next write removes any leftover.
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(|source| KeysError::io("write", &path, source))
    }

    fn write_through(&self, temporary: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        File::open(&self.folder.path)?.sync_all()
    }
}

/// Opens a file to lock. An existing one is not opened for writing, so that it keeps two announcers apart even on a
/// disk that has become read-only.
fn open_lock(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600).open(path)
        }
        found => found,
    }
}

/// The owner of a folder can put anything into it. Root can do so anyway, and looks after the folders of services.
fn refuse_foreign(path: &Path, owner: u32) -> Result<(), KeysError> {
    let user = geteuid().as_raw();
    if owner == user || user == 0 {
        return Ok(());
    }
    Err(KeysError::Foreign { path: path.into(), owner, user })
}

fn refuse_exposed(path: &Path, mode: u32, right: &str) -> Result<(), KeysError> {
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let quoted = path.display().to_string().replace('\'', r"'\''");
    Err(KeysError::Exposed {
        path: path.into(),
        mode: mode & 0o777,
        mend: format!("chmod {right} '{quoted}'"),
    })
}
