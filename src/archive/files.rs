//! The files of an archive: their names, and how they are written. Others may write to the folder as well: no link that
//! somebody put there is followed, and no existing file is overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::shared_folder::no_links;

/// How far back the end of the last whole line is searched for; no line is longer.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// 9999-12-31 23:59:59 UTC: the formatter only handles years of four digits.
const LAST_FORMATTED_UNIX_MS: u64 = 253_402_300_799_000;
/// The most files with the same stamp, signer and start of a hash.
const MAX_NAMESAKES: u32 = 10_000;

/// Formats a time like `20261121T051643.123Z`, so that names sort by time.
pub(super) fn stamp(unix_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms.min(LAST_FORMATTED_UNIX_MS));
    humantime::format_rfc3339_millis(time).to_string().replace(['-', ':'], "")
}

/// The log for a file or a time: one for each month.
pub(super) fn log_of(stamp: &str) -> String {
    let month: String = stamp.chars().take(6).collect();
    format!("announcements-{month}.jsonl")
}

/// Whether a name begins with a [`stamp`]: other files in the folder are not ours.
pub(super) fn is_clip(name: &str) -> bool {
    let shape = "dddddddd.dddddd.ddd..";
    let fits = |(byte, shape): (u8, u8)| byte.is_ascii_digit() == (shape == b'd');
    name.len() > shape.len() && name.ends_with(".wav") && name.bytes().zip(shape.bytes()).all(fits)
}

pub(super) fn is_log(name: &str) -> bool {
    name.starts_with("announcements-") && name.ends_with(".jsonl")
}

/// Writes a file whole or not at all, and returns its name: `STEM.wav`, or `STEM-2.wav` and so on if another file has
/// that name. Identical content is not written twice.
pub(super) fn write_whole(folder: &Path, stem: &str, content: &[u8]) -> io::Result<String> {
    for namesake in 1..=MAX_NAMESAKES {
        let name = if namesake == 1 { format!("{stem}.wav") } else { format!("{stem}-{namesake}.wav") };
        let part = folder.join(format!("{name}.part"));
        // Whoever has created this file may create the other: nobody else does so meanwhile.
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => opened?,
        };
        let written = match holds(&folder.join(&name), content) {
            Ok(None) => (|| {
                file.write_all(content)?;
                file.sync_all()?;
                fs::rename(&part, folder.join(&name))?;
                File::open(folder)?.sync_all()?;
                Ok(Some(name))
            })(),
            Ok(Some(is_same)) => Ok(is_same.then_some(name)),
            Err(error) => Err(error),
        };
        // Best effort: a file that remains is removed at the next start.
        let _ = fs::remove_file(&part);
        if let Some(name) = written? {
            return Ok(name);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Whether a file holds exactly this content; `None` if no file has that name.
fn holds(path: &Path, content: &[u8]) -> io::Result<Option<bool>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(found) if found.is_file() && found.len() == content.len() as u64 => {
            Ok(Some(fs::read(path)? == content))
        }
        found => found.map(|_| Some(false)),
    }
}

/// Appends a line to a log, whole or not at all.
pub(super) fn append(path: &Path, line: String) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut log = options.append(true).create(true).mode(0o600).custom_flags(no_links()).open(path)?;
    let whole = log.metadata()?.len();
    log.write_all(line.as_bytes()).and_then(|()| log.sync_data()).inspect_err(|_| {
        // Half a line would spoil the next one.
        let _ = log.set_len(whole);
    })
}

/// Cuts off torn last lines, and removes unfinished files. A disk that cannot be written is not an error here.
pub(super) fn repair(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mended = match name.as_str() {
            name if name.strip_suffix(".part").is_some_and(is_clip) => fs::remove_file(entry.path()),
            name if is_log(name) => cut_torn_line(&entry.path()),
            _ => Ok(()),
        };
        if let Err(error) = mended {
            tracing::warn!("cannot repair {}: {error}", entry.path().display());
        }
    }
    Ok(())
}

fn cut_torn_line(path: &Path) -> io::Result<()> {
    let mut log = OpenOptions::new().read(true).custom_flags(no_links()).open(path)?;
    let length = log.metadata()?.len();
    let from = length.saturating_sub(MAX_LINE_BYTES);
    log.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    log.read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    if whole == tail.len() as u64 {
        return Ok(());
    }
    tracing::warn!("{} ended in half a line, which was cut off", path.display());
    let log = OpenOptions::new().write(true).custom_flags(no_links()).open(path)?;
    log.set_len(from + whole)?;
    log.sync_all()
}
