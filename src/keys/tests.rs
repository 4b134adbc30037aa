#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

use super::identity::begin_epoch;
use super::*;
use crate::invite::{DEFAULT_VALIDITY, InviteBook};

struct Fixture {
    _home: tempfile::TempDir,
    folder: StateFolder,
}

fn fixture() -> Fixture {
    let home = tempfile::tempdir().unwrap();
    let folder = StateFolder::open(Some(&home.path().join("it's state"))).unwrap();
    Fixture { _home: home, folder }
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn key(number: u64) -> NoisePublicKey {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    NoisePublicKey::from_bytes(bytes)
}

#[test]
fn whatever_is_written_is_private() {
    let Fixture { _home, folder } = fixture();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap();
    StationKeys::load_or_create(&folder).unwrap();
    KnownStations::open(&folder).unwrap().admit(&key(1), "hall-1", 5).unwrap();
    let pin = Pin { noise: key(2), announcer: announcer.id() };
    Pins::open(&folder).unwrap().pin("host:1", pin).unwrap();
    let mark = Mark { epoch: 1, sequence: 1, finished: false };
    Heard::open(&folder).unwrap().advance(&announcer.id(), mark).unwrap();
    begin_epoch(&folder, 9).unwrap();
    InviteBook::new(&folder).issue(&announcer, DEFAULT_VALIDITY, 9).unwrap();
    assert_eq!(mode(folder.path()), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    let all = [
        "announcer.key",
        "announcers.toml",
        "epoch",
        "heard",
        "invite",
        "lock",
        "stations.toml",
        "station.key",
    ];
    let mut all = all.to_vec();
    all.sort_unstable();
    assert_eq!(names, all);
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

#[test]
fn a_second_station_of_one_user_has_its_own_folder() {
    let Fixture { _home, folder } = fixture();
    let one = folder.within("hall 1/../x").unwrap();
    let other = folder.within("hall-1").unwrap();
    assert_eq!(one.path().parent(), Some(folder.path()));
    assert_ne!(one.path(), other.path());
    assert_eq!(mode(one.path()), 0o700);
}

#[test]
fn keys_stay_the_same_over_a_restart() {
    let Fixture { _home, folder } = fixture();
    assert!(AnnouncerKeys::load(&folder).unwrap().is_none());
    assert!(StationKeys::load(&folder).unwrap().is_none());
    let (announcer, station) =
        (AnnouncerKeys::load_or_create(&folder).unwrap(), StationKeys::load_or_create(&folder).unwrap());
    let again = AnnouncerKeys::load(&folder).unwrap().unwrap();
    assert_eq!((announcer.id(), announcer.noise().public()), (again.id(), again.noise().public()));
    assert_eq!(StationKeys::load(&folder).unwrap().unwrap().noise().public(), station.noise().public());
}

#[test]
fn two_processes_that_start_at_once_make_one_identity() {
    let Fixture { _home, folder } = fixture();
    let start = std::sync::Barrier::new(8);
    let ids: std::collections::HashSet<_> = std::thread::scope(|scope| {
        let make = || {
            start.wait();
            AnnouncerKeys::load_or_create(&folder).unwrap().id()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), 1);
}

/// Cuts a file at every length and flips every bit of it: each time `read` must refuse, and leave
/// the file as it is.
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
    Heard::open(&folder).unwrap().advance(&announcer.id(), mark).unwrap();
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

#[test]
fn nothing_shows_a_secret() {
    let Fixture { _home, folder } = fixture();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap();
    let station = StationKeys::load_or_create(&folder).unwrap();
    let invite = InviteBook::new(&folder).issue(&announcer, DEFAULT_VALIDITY, 9).unwrap();
    let clip_key = crate::clip_cipher::ClipKey::from_bytes(*station.noise().secret());
    let (initiator, message1) = crate::handshake::Initiator::start(
        station.noise(),
        crate::handshake::Contact::Invite(&invite),
        "host:1",
    )
    .unwrap();
    let shown = format!("{announcer:?} {announcer:#?} {station:?} {invite:?} {clip_key:?} {initiator:?}");
    let (responder, message2) =
        crate::handshake::Responder::answer(announcer.noise(), &message1, |_| Some(invite.secret().clone()))
            .unwrap();
    let shown = shown + &format!("{responder:?}");
    let (_, transport) = initiator.answer(&message2).unwrap();
    let shown = shown + &format!("{transport:?}");
    let files =
        ["announcer.key", "station.key", "invite"].map(|name| fs::read_to_string(folder.path().join(name)));
    let hex: Vec<String> = files
        .iter()
        .flat_map(|file| file.as_ref().unwrap().split_whitespace())
        .filter(|word| word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map(Into::into)
        .collect();
    assert_eq!(hex.len(), 7, "three keys, a secret and three checksums");
    for secret in &hex {
        let bytes = data_encoding::HEXLOWER.decode(secret.as_bytes()).unwrap();
        let listed = format!("{bytes:?}");
        let start = listed.trim_start_matches('[').split(", ").take(6).collect::<Vec<_>>().join(", ");
        assert!(!shown.to_lowercase().contains(&secret[..12]), "{shown}");
        assert!(!shown.contains(&start), "{shown}");
    }
    assert!(!shown.contains("bh1"), "{shown}");
}

#[test]
fn a_name_belongs_to_the_key_that_joined_with_it() {
    let Fixture { _home, folder } = fixture();
    let mut known = KnownStations::open(&folder).unwrap();
    assert_eq!(known.admit(&key(1), "hall-1", 10).unwrap(), Admitted::Joined);
    let before = fs::read(folder.path().join("stations.toml")).unwrap();
    let refused = known.admit(&key(2), "hall-1", 11).unwrap_err();
    assert!(matches!(&refused, KeysError::NameTaken { name, .. } if name == "hall-1"), "{refused}");
    assert_eq!(fs::read(folder.path().join("stations.toml")).unwrap(), before);
    assert!(known.station(&key(2)).is_none());
    assert_eq!(known.admit(&key(1), "hall-1", 12).unwrap(), Admitted::Back);
    assert_eq!(known.admit(&key(1), "hall-2", 13).unwrap(), Admitted::Renamed { from: "hall-1".into() });
    assert_eq!(known.admit(&key(2), "hall-1", 14).unwrap(), Admitted::Joined);
    let again = KnownStations::open(&folder).unwrap();
    let names: Vec<_> =
        again.all().iter().map(|station| (station.name.as_str(), station.joined_unix_s)).collect();
    assert_eq!(names, [("hall-1", 14), ("hall-2", 10)]);
    for bad in ["", "a\nb", &"x".repeat(65)] {
        assert!(matches!(known.admit(&key(3), bad, 1), Err(KeysError::BadName)));
    }
}

#[test]
fn a_removed_station_is_gone_from_a_running_announcer_and_stays_gone() {
    let Fixture { _home, folder } = fixture();
    let mut running = KnownStations::open(&folder).unwrap();
    running.admit(&key(1), "hall-1", 10).unwrap();
    running.admit(&key(2), "hall-2", 10).unwrap();
    running.saw(&key(1), 20);
    running.saw(&key(2), 20);
    assert!(running.refresh().unwrap().is_empty());
    let removed = KnownStations::open(&folder).unwrap().remove("hall-1").unwrap();
    assert_eq!(removed.key, key(1));
    let gone = running.refresh().unwrap();
    assert_eq!(gone.iter().map(|station| station.name.as_str()).collect::<Vec<_>>(), ["hall-1"]);
    assert!(running.station(&key(1)).is_none());
    running.saw(&key(1), 30);
    running.save_seen().unwrap();
    let again = KnownStations::open(&folder).unwrap();
    assert!(again.station(&key(1)).is_none());
    assert_eq!(again.station(&key(2)).unwrap().last_seen_unix_s, 20);
    assert!(matches!(running.remove("hall-1"), Err(KeysError::NoSuchStation(_))));
    assert_eq!(running.admit(&key(3), "hall-1", 40).unwrap(), Admitted::Joined);
}

#[test]
fn shutting_out_retires_the_invite_too() {
    let Fixture { _home, folder } = fixture();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap();
    let book = InviteBook::new(&folder);
    let invite = book.issue(&announcer, DEFAULT_VALIDITY, 100).unwrap();
    KnownStations::open(&folder).unwrap().admit(&key(1), "hall-1", 100).unwrap();
    assert!(matches!(crate::invite::shut_out(&folder, "hall-9"), Err(KeysError::NoSuchStation(_))));
    assert!(book.accept(invite.secret().id(), 101).unwrap().is_some(), "a wrong name changes nothing");
    crate::invite::shut_out(&folder, "hall-1").unwrap();
    assert!(book.accept(invite.secret().id(), 101).unwrap().is_none());
    assert!(KnownStations::open(&folder).unwrap().station(&key(1)).is_none());
}

#[test]
fn stations_that_join_through_many_processes_at_once_are_all_kept() {
    let Fixture { _home, folder } = fixture();
    std::thread::scope(|scope| {
        for process in 0..4 {
            let folder = &folder;
            scope.spawn(move || {
                let mut known = KnownStations::open(folder).unwrap();
                for number in 0..25 {
                    let number = process * 25 + number;
                    known.admit(&key(number), &format!("hall-{number}"), number).unwrap();
                }
            });
        }
    });
    assert_eq!(KnownStations::open(&folder).unwrap().all().len(), 100);
}

#[test]
fn ten_thousand_stations_are_read_found_and_added_to_quickly() {
    let Fixture { _home, folder } = fixture();
    let mut text = String::new();
    for number in 0..10_000 {
        let key = key(number).to_hex();
        text += &format!(
            "[[station]]\nname = \"hall-{number}\"\nnoise_key = \"{key}\"\njoined_unix = 1\nlast_seen_unix = 2\n"
        );
    }
    folder.lock().unwrap().write("stations.toml", text.as_bytes()).unwrap();
    let begun = Instant::now();
    let mut known = KnownStations::open(&folder).unwrap();
    let opened = begun.elapsed();
    let begun = Instant::now();
    for number in 0..10_000 {
        assert!(known.station(&key(number)).is_some());
        known.saw(&key(number), 3);
    }
    let found = begun.elapsed();
    let begun = Instant::now();
    known.admit(&key(10_000), "hall-10000", 3).unwrap();
    let joined = begun.elapsed();
    println!("10,000 stations: open {opened:?}, find and note all {found:?}, one more joins {joined:?}");
    assert!(
        opened < Duration::from_secs(5) && found < Duration::from_secs(1) && joined < Duration::from_secs(5)
    );
    assert_eq!(KnownStations::open(&folder).unwrap().all().len(), 10_001);
}

#[test]
fn damaged_tables_are_refused_and_left_alone() {
    let Fixture { _home, folder } = fixture();
    KnownStations::open(&folder).unwrap().admit(&key(1), "hall-1", 10).unwrap();
    let good = fs::read_to_string(folder.path().join("stations.toml")).unwrap();
    for bad in
        [good.clone() + &good, good.replace("07", "zz"), "[[station]]\nname = 3".into(), "\u{0}".into()]
    {
        folder.lock().unwrap().write("stations.toml", bad.as_bytes()).unwrap();
        let refused = KnownStations::open(&folder).unwrap_err();
        assert!(matches!(refused, KeysError::Damaged { .. }), "{refused}");
        assert_eq!(fs::read_to_string(folder.path().join("stations.toml")).unwrap(), bad);
    }
    for bad in ["[\"h:1\"]\nnoise_key = \"a\"\nannouncer_id = \"b\"", "x", "[a]\nb = 1"] {
        folder.lock().unwrap().write("announcers.toml", bad.as_bytes()).unwrap();
        assert!(matches!(Pins::open(&folder), Err(KeysError::Damaged { .. })));
    }
}

#[test]
fn a_running_announcer_keeps_its_stations_when_the_table_is_damaged() {
    let Fixture { _home, folder } = fixture();
    let mut known = KnownStations::open(&folder).unwrap();
    known.admit(&key(1), "hall-1", 10).unwrap();
    folder.lock().unwrap().write("stations.toml", b"torn").unwrap();
    assert!(matches!(known.refresh(), Err(KeysError::Damaged { .. })));
    assert!(known.station(&key(1)).is_some());
    assert!(matches!(known.admit(&key(2), "hall-2", 11), Err(KeysError::Damaged { .. })));
    assert_eq!(fs::read(folder.path().join("stations.toml")).unwrap(), b"torn");
}

#[test]
fn a_changed_announcer_is_refused_loudly_until_invited_again() {
    let Fixture { _home, folder } = fixture();
    let (old, new) = (AnnouncerKeys::generate().unwrap(), AnnouncerKeys::generate().unwrap());
    let pin = |keys: &AnnouncerKeys| Pin { noise: keys.noise().public(), announcer: keys.id() };
    let mut pins = Pins::open(&folder).unwrap();
    assert!(pins.check("host:7000", &pin(&old)).is_ok(), "nothing is pinned yet");
    pins.pin("host:7000", pin(&old)).unwrap();
    let mut pins = Pins::open(&folder).unwrap();
    assert_eq!(pins.get("host:7000"), Some(&pin(&old)));
    assert!(pins.check("host:7000", &pin(&old)).is_ok());
    for found in [
        pin(&new),
        Pin { announcer: new.id(), ..pin(&old) },
        Pin { noise: new.noise().public(), ..pin(&old) },
    ] {
        let said = pins.check("host:7000", &found).unwrap_err().to_string();
        assert!(
            said.contains("HAS CHANGED") && said.contains("bullhorn speaker host:7000 --invite"),
            "{said}"
        );
    }
    assert!(pins.check("other:7000", &pin(&new)).is_ok());
    pins.pin("host:7000", pin(&new)).unwrap();
    assert_eq!(Pins::open(&folder).unwrap().get("host:7000"), Some(&pin(&new)));
}

#[test]
fn the_mark_moves_forward_only_and_outlives_a_restart() {
    let Fixture { _home, folder } = fixture();
    let announcer = AnnouncerKeys::generate().unwrap().id();
    let mark = |epoch, sequence, finished| Mark { epoch, sequence, finished };
    let mut heard = Heard::open(&folder).unwrap();
    assert_eq!(heard.mark(&announcer), None);
    for forward in
        [mark(1, 1, false), mark(1, 1, false), mark(1, 1, true), mark(1, 5, false), mark(2, 0, true)]
    {
        heard.advance(&announcer, forward).unwrap();
        heard = Heard::open(&folder).unwrap();
        assert_eq!(heard.mark(&announcer), Some(forward));
    }
    for back in [mark(2, 0, false), mark(1, 9, true), mark(0, 0, false)] {
        assert!(matches!(heard.advance(&announcer, back), Err(KeysError::HeardLater)));
        assert_eq!(Heard::open(&folder).unwrap().mark(&announcer), Some(mark(2, 0, true)));
    }
    let other = AnnouncerKeys::generate().unwrap().id();
    heard.advance(&other, mark(0, 0, false)).unwrap();
    assert_eq!(Heard::open(&folder).unwrap().mark(&announcer), Some(mark(2, 0, true)));
}

#[test]
fn the_epoch_increases_at_every_start_whatever_the_clock_says() {
    let Fixture { _home, folder } = fixture();
    let year_s = 31_557_600;
    let mut last = 0;
    for now in [1_800_000_000, 1_800_000_000, 1_800_000_000 - 10 * year_s, 0, 1_800_000_000 + 10 * year_s, 5]
    {
        let epoch = begin_epoch(&folder, now).unwrap();
        assert!(epoch > last && epoch >= now);
        last = epoch;
    }
}

#[test]
fn a_station_of_the_announcers_own_user_needs_no_invite() {
    let Fixture { _home, folder } = fixture();
    let station = StationKeys::load_or_create(&folder).unwrap();
    assert!(introduce_locally(&folder, &station, "hall-1", 7).unwrap().is_none(), "no announcer here");
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap();
    let mut running = KnownStations::open(&folder).unwrap();
    let pin = introduce_locally(&folder, &station, "hall-1", 7).unwrap().unwrap();
    assert_eq!(pin, Pin { noise: announcer.noise().public(), announcer: announcer.id() });
    running.refresh().unwrap();
    assert_eq!(running.station(&station.noise().public()).unwrap().name, "hall-1");
}

/// Runs one test of this program again, in a mount namespace where `folder` is a file system of its
/// own, prepared by `script` (which finds its path in `$D`).
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

/// That the one test which a command runs did run, reached its end, and passed.
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
        let test = "keys::tests::a_full_disk_is_named_and_changes_nothing";
        return on_its_own_file_system(test, &folder, "");
    };
    let folder = StateFolder::open(Some(path.as_ref())).unwrap();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap().id();
    let mut known = KnownStations::open(&folder).unwrap();
    known.admit(&key(1), "hall-1", 10).unwrap();
    let mut heard = Heard::open(&folder).unwrap();
    let mark = Mark { epoch: 1, sequence: 1, finished: true };
    heard.advance(&announcer, mark).unwrap();
    let epoch = begin_epoch(&folder, 9).unwrap();
    let filled = fs::write(folder.path().join("filler"), vec![0; 1 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    assert!(matches!(StationKeys::load_or_create(&folder), Err(KeysError::Full { .. })));
    assert!(!folder.path().join("station.key").exists() && !folder.path().join("station.key.new").exists());
    assert!(matches!(known.admit(&key(2), "hall-2", 10), Err(KeysError::Full { .. })));
    assert!(known.station(&key(2)).is_none() && known.station(&key(1)).is_some());
    assert_eq!(KnownStations::open(&folder).unwrap().all().len(), 1);
    let refused = heard.advance(&announcer, Mark { sequence: 2, ..mark }).unwrap_err();
    assert!(refused.to_string().contains("the disk is full"), "{refused}");
    assert_eq!(heard.mark(&announcer), Some(mark));
    assert_eq!(Heard::open(&folder).unwrap().mark(&announcer), Some(mark));
    assert!(matches!(begin_epoch(&folder, epoch + 5), Err(KeysError::Full { .. })));
    println!("a full disk was refused");
}

#[test]
fn a_read_only_disk_is_named_and_changes_nothing() {
    let Some(path) = std::env::var_os("BULLHORN_TEST_FOLDER") else {
        let Fixture { _home, folder } = fixture();
        let test = "keys::tests::a_read_only_disk_is_named_and_changes_nothing";
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

/// Root may read everything; without two capabilities it may not.
#[test]
fn what_the_system_forbids_is_named() {
    let Some(path) = std::env::var_os("BULLHORN_TEST_FOLDER") else {
        let Fixture { _home, folder } = fixture();
        AnnouncerKeys::load_or_create(&folder).unwrap();
        let test = "keys::tests::what_the_system_forbids_is_named";
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
