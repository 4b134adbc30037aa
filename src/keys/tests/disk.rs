use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use super::*;
use crate::priority::Priority;

fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_exposed_folder_or_file_is_refused_until_the_command_in_the_message_is_run() {
    let Fixture { _home, folder } = fixture();
    AnnouncerKeys::load_or_create(&folder).unwrap();
    let mend = |error: KeysError| match error {
        KeysError::Exposed { mend, .. } => {
            assert!(Command::new("sh").args(["-c", &mend]).status().unwrap().success(), "{mend}");
        }
        other => panic!("{other}"),
    };
    for exposed in [0o604, 0o640, 0o620, 0o602, 0o666] {
        let path = folder.path().join("announcer.key");
        set_mode(&path, exposed);
        mend(AnnouncerKeys::load(&folder).unwrap_err());
        assert_eq!(mode(&path), 0o600);
        assert!(AnnouncerKeys::load(&folder).unwrap().is_some());
    }
    for exposed in [0o755, 0o750, 0o777, 0o701] {
        set_mode(folder.path(), exposed);
        mend(StateFolder::open(Some(folder.path())).unwrap_err());
        assert_eq!(mode(folder.path()), 0o700);
        StateFolder::open(Some(folder.path())).unwrap();
    }
    set_mode(folder.path(), 0o755);
    let said = StateFolder::open(Some(folder.path())).unwrap_err().to_string();
    assert!(said.contains("mode 755") && said.contains("chmod 700 '"), "{said}");
}

#[test]
fn a_file_in_place_of_the_folder_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(StateFolder::open(Some(file.path())), Err(KeysError::NotAFolder(_))));
    assert!(matches!(StateFolder::open(Some(&file.path().join("below"))), Err(KeysError::Io { .. })));
}

/// Cuts a file at every length and flips every bit of it. Each time `read` must refuse it and leave the file as it is.
fn every_damage_is_refused(folder: &StateFolder, name: &str, read: impl Fn() -> Option<KeysError>) {
    let path = folder.path().join(name);
    let whole = fs::read(&path).unwrap();
    assert!(read().is_none());
    let refuse = |damaged: &[u8], cut: bool| {
        fs::write(&path, damaged).unwrap();
        match read() {
            Some(KeysError::CutShort { .. }) => {}
            Some(KeysError::Damaged { .. } | KeysError::FromTheFuture(_)) if !cut => {}
            other => panic!("{name} with {} bytes: {other:?}", damaged.len()),
        }
        assert_eq!(fs::read(&path).unwrap(), damaged);
    };
    for length in 0..whole.len() {
        refuse(&whole[..length], true);
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refuse(&flipped, false);
    }
    fs::write(&path, whole).unwrap();
    assert!(read().is_none());
}

#[test]
fn a_damaged_file_is_refused_and_never_replaced() {
    let Fixture { _home, folder } = fixture();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap();
    StationKeys::load_or_create(&folder).unwrap();
    begin_epoch(&folder, 9).unwrap();
    let mark = Mark { epoch: 1, sequence: 1, finished: true };
    Heard::open(&folder).unwrap().advance(&announcer.id(), Priority::Normal, mark).unwrap();
    let book = InviteBook::new(&folder);
    book.issue(&announcer, DEFAULT_VALIDITY, 9).unwrap();
    every_damage_is_refused(&folder, "announcer.key", || AnnouncerKeys::load_or_create(&folder).err());
    every_damage_is_refused(&folder, "station.key", || StationKeys::load_or_create(&folder).err());
    every_damage_is_refused(&folder, "heard", || Heard::open(&folder).err());
    every_damage_is_refused(&folder, "invite", || book.current(&announcer, 10).err());
    let epoch = fs::read(folder.path().join("epoch")).unwrap();
    for length in 0..epoch.len() {
        fs::write(folder.path().join("epoch"), &epoch[..length]).unwrap();
        assert!(matches!(begin_epoch(&folder, 99), Err(KeysError::CutShort { .. })));
    }
}

/// Runs one test of this program again, in a mount namespace where `folder` is a file system of its own, prepared by
/// `script` (which finds its path in `$D`).
fn on_its_own_file_system(test: &str, folder: &StateFolder, script: &str) {
    let program = std::env::current_exe().unwrap();
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let script = format!(
        "mount -t tmpfs -o size=16k,mode=0700 tmpfs \"$D\"; {script}\nexec \"$0\" --exact \"$1\" --nocapture"
    );
    passes_elsewhere(
        Command::new("unshare")
            .args([if root { "-m" } else { "-rm" }, "sh", "-ec", &script])
            .arg(program)
            .arg(test)
            .env("D", folder.path())
            .env("BULLHORN_TEST_FOLDER", folder.path()),
    );
}

/// Checks that the one test that a command runs did run, reached its end, and passed.
fn passes_elsewhere(command: &mut Command) {
    let result = command.output().unwrap();
    let said = String::from_utf8_lossy(&result.stdout);
    assert!(result.status.success(), "{said}{}", String::from_utf8_lossy(&result.stderr));
    assert!(said.contains("1 passed") && said.contains("was refused"), "{said}");
}

#[test]
fn a_full_disk_is_named_and_changes_nothing() {
    let Some(path) = std::env::var_os("BULLHORN_TEST_FOLDER") else {
        let Fixture { _home, folder } = fixture();
        let test = "keys::tests::disk::a_full_disk_is_named_and_changes_nothing";
        return on_its_own_file_system(test, &folder, "");
    };
    let folder = StateFolder::open(Some(path.as_ref())).unwrap();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap().id();
    let mut known = KnownStations::open(&folder).unwrap();
    known.admit(&key(1), "hall-1", &[], 10).unwrap();
    let mut heard = Heard::open(&folder).unwrap();
    let mark = Mark { epoch: 1, sequence: 1, finished: true };
    heard.advance(&announcer, Priority::Normal, mark).unwrap();
    let epoch = begin_epoch(&folder, 9).unwrap();
    let filled = fs::write(folder.path().join("filler"), vec![0; 1 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    assert!(matches!(StationKeys::load_or_create(&folder), Err(KeysError::Full { .. })));
    assert!(!folder.path().join("station.key").exists() && !folder.path().join("station.key.new").exists());
    assert!(matches!(known.admit(&key(2), "hall-2", &[], 10), Err(KeysError::Full { .. })));
    assert!(known.station(&key(2)).is_none() && known.station(&key(1)).is_some());
    assert_eq!(KnownStations::open(&folder).unwrap().all().len(), 1);
    let refused = heard.advance(&announcer, Priority::Normal, Mark { sequence: 2, ..mark }).unwrap_err();
    assert!(refused.to_string().contains("the disk is full"), "{refused}");
    assert_eq!(heard.mark(&announcer, Priority::Normal), Some(mark));
    assert_eq!(Heard::open(&folder).unwrap().mark(&announcer, Priority::Normal), Some(mark));
    assert!(matches!(begin_epoch(&folder, epoch + 5), Err(KeysError::Full { .. })));
    println!("a full disk was refused");
}

#[test]
fn a_read_only_disk_is_named_and_changes_nothing() {
    let Some(path) = std::env::var_os("BULLHORN_TEST_FOLDER") else {
        let Fixture { _home, folder } = fixture();
        let test = "keys::tests::disk::a_read_only_disk_is_named_and_changes_nothing";
        return on_its_own_file_system(test, &folder, "mount -o remount,ro \"$D\"");
    };
    let folder = StateFolder::open(Some(path.as_ref())).unwrap();
    let refused = AnnouncerKeys::load_or_create(&folder).unwrap_err();
    assert!(matches!(refused, KeysError::ReadOnly { .. }), "{refused}");
    assert!(matches!(begin_epoch(&folder, 1), Err(KeysError::ReadOnly { .. })));
    let below = StateFolder::open(Some(&folder.path().join("below"))).unwrap_err();
    assert!(matches!(below, KeysError::ReadOnly { .. }), "{below}");
    println!("a read-only disk was refused");
}

/// Root can read everything, but not without two capabilities.
#[test]
fn what_the_system_forbids_is_named() {
    let Some(path) = std::env::var_os("BULLHORN_TEST_FOLDER") else {
        let Fixture { _home, folder } = fixture();
        AnnouncerKeys::load_or_create(&folder).unwrap();
        let test = "keys::tests::disk::what_the_system_forbids_is_named";
        let program = std::env::current_exe().unwrap();
        let mut command = match fs::metadata("/proc/self").unwrap().uid() {
            0 => Command::new("setpriv"),
            _ => Command::new("env"),
        };
        if command.get_program() == "setpriv" {
            command.arg("--bounding-set=-dac_override,-dac_read_search");
        }
        command.arg(program).args(["--exact", test, "--nocapture"]);
        return passes_elsewhere(command.env("BULLHORN_TEST_FOLDER", folder.path()));
    };
    let folder = StateFolder::open(Some(path.as_ref())).unwrap();
    set_mode(&folder.path().join("announcer.key"), 0o000);
    let refused = AnnouncerKeys::load_or_create(&folder).unwrap_err();
    assert!(matches!(refused, KeysError::Denied { doing: "read", .. }), "{refused}");
    set_mode(folder.path(), 0o500);
    let refused = StationKeys::load_or_create(&folder).unwrap_err();
    assert!(matches!(refused, KeysError::Denied { .. }), "{refused}");
    set_mode(folder.path(), 0o000);
    assert!(matches!(AnnouncerKeys::load(&folder), Err(KeysError::Denied { .. })));
    set_mode(folder.path(), 0o700);
    println!("an unreadable file was refused");
}

/// Root may use any user's folder; no other user may.
#[test]
fn a_folder_of_another_user_is_refused() {
    let Some(path) = std::env::var_os("BULLHORN_TEST_FOLDER") else {
        let Fixture { _home, folder } = fixture();
        let test = "keys::tests::disk::a_folder_of_another_user_is_refused";
        let program = std::env::current_exe().unwrap();
        let command = match fs::metadata("/proc/self").unwrap().uid() {
            // The folder then belongs to root, and the test runs as another user who can still look into it.
            0 => {
                let mut command = Command::new("setpriv");
                command.args([
                    "--reuid=12345",
                    "--clear-groups",
                    "--inh-caps=+dac_override",
                    "--ambient-caps=+dac_override",
                ]);
                command.arg("--").arg(program);
                command
            }
            // Only root can give a folder away, so the test uses one of root's own folders.
            _ => {
                let mut command = Command::new(program);
                command.env("BULLHORN_TEST_FOREIGN", "/root");
                command
            }
        };
        let mut command = command;
        command.args(["--exact", test, "--nocapture"]);
        return passes_elsewhere(command.env("BULLHORN_TEST_FOLDER", folder.path()));
    };
    let foreign = std::env::var_os("BULLHORN_TEST_FOREIGN").unwrap_or(path);
    let refused = StateFolder::open(Some(foreign.as_ref())).unwrap_err();
    assert!(matches!(refused, KeysError::Foreign { owner: 0, .. }), "{refused}");
    assert!(refused.to_string().contains("belongs to another user (uid 0, this is uid"), "{refused}");
    println!("a foreign folder was refused");
}
