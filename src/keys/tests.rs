#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::identity::begin_epoch;
use super::*;
use crate::invite::{DEFAULT_VALIDITY, InviteBook};
use crate::priority::Priority;

mod disk;
mod stations;

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
    KnownStations::open(&folder).unwrap().admit(&key(1), "hall-1", &[], 5).unwrap();
    let pin = Pin { noise: key(2), announcer: announcer.id() };
    Pins::open(&folder).unwrap().pin("host:1", pin).unwrap();
    let mark = Mark { epoch: 1, sequence: 1, finished: false };
    Heard::open(&folder).unwrap().advance(&announcer.id(), Priority::Normal, mark).unwrap();
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
    assert_eq!(heard.mark(&announcer, Priority::Normal), None);
    for forward in
        [mark(1, 1, false), mark(1, 1, false), mark(1, 1, true), mark(1, 5, false), mark(2, 0, true)]
    {
        heard.advance(&announcer, Priority::Normal, forward).unwrap();
        heard = Heard::open(&folder).unwrap();
        assert_eq!(heard.mark(&announcer, Priority::Normal), Some(forward));
    }
    for back in [mark(2, 0, false), mark(1, 9, true), mark(0, 0, false)] {
        assert!(matches!(heard.advance(&announcer, Priority::Normal, back), Err(KeysError::HeardLater)));
        assert_eq!(Heard::open(&folder).unwrap().mark(&announcer, Priority::Normal), Some(mark(2, 0, true)));
    }
    let other = AnnouncerKeys::generate().unwrap().id();
    heard.advance(&other, Priority::Normal, mark(0, 0, false)).unwrap();
    assert_eq!(Heard::open(&folder).unwrap().mark(&announcer, Priority::Normal), Some(mark(2, 0, true)));
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
