//! What the fuzz targets do with their bytes. `tests/peers/fuzz_corpus.rs` does the same with the corpus.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Instant;

use bullhorn::archive::{self, Archive, Retention};
use bullhorn::clip::Format;
use bullhorn::event::Events;
use bullhorn::handshake::{Contact, Initiator, MESSAGE1_BYTES, MESSAGE2_BYTES, MESSAGE3_BYTES, Responder};
use bullhorn::invite::{Invite, parse_validity};
use bullhorn::keys::identity::begin_epoch;
use bullhorn::keys::{
    AnnouncerId, AnnouncerKeys, End, Heard, KnownStations, NoiseKeys, Pins, StateFolder, StationKeys, Talked,
    TalkedMark,
};
use bullhorn::outbox::Outbox;
use bullhorn::priority::Priority;
use bullhorn::seal::{self, Admission, AnnouncerTime, Claim, TimeNonce, TimeStatement};
use bullhorn::wire::{
    self, ClipHeader, FRAME_HEADER_BYTES, FrameHeader, FromAnnouncer, FromStation, LiveHeader, Message,
    PREFACE_BYTES, Preface, TalkbackHeader,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const INVITE: &str = include_str!("../tests/vectors/invite.txt");

struct Site {
    announcer: AnnouncerKeys,
    station: NoiseKeys,
    invite: Invite,
    time: AnnouncerTime,
    asked: Instant,
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let announcer = AnnouncerKeys::generate().unwrap();
    let (nonce, asked) = (TimeNonce::generate().unwrap(), Instant::now());
    let statement = TimeStatement::sign(&announcer, nonce, 1_000_000);
    let time = AnnouncerTime::from_statement(&announcer.id(), nonce, &statement, asked.into(), asked.into())
        .unwrap();
    Site { announcer, station: NoiseKeys::generate().unwrap(), invite: INVITE.parse().unwrap(), time, asked }
});

/// An invite that is read is printed exactly as it was read.
pub fn invite(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(invite) = text.parse::<Invite>() {
        assert_eq!(*invite.to_line(), text.trim().to_ascii_lowercase());
    }
    let _ = parse_validity(text);
}

/// Tries the bytes as each message of each role, and as a message of a finished link: nothing is accepted as genuine.
pub fn handshake(bytes: &[u8]) {
    let site = &*SITE;
    let pinned = Contact::Pinned(site.announcer.noise().public());
    if let Ok(message2) = <&[u8; MESSAGE2_BYTES]>::try_from(bytes) {
        for contact in [pinned, Contact::Invite(&site.invite)] {
            let (initiator, _) = Initiator::start(&site.station, contact, "host:1").unwrap();
            initiator.answer(message2).unwrap_err();
        }
    }
    let secret = |_| Some(site.invite.secret().clone());
    let (initiator, message1) = Initiator::start(&site.station, pinned, "host:1").unwrap();
    let (responder, message2) = Responder::answer(site.announcer.noise(), &message1, secret).unwrap();
    if let Ok(message3) = <&[u8; MESSAGE3_BYTES]>::try_from(bytes) {
        responder.finish(message3, |_| true).unwrap_err();
    }
    if let Some((message1, rest)) = bytes.split_first_chunk::<MESSAGE1_BYTES>() {
        let answered = Responder::answer(site.announcer.noise(), message1, secret);
        if let (Ok((responder, _)), Some(message3)) = (answered, rest.first_chunk::<MESSAGE3_BYTES>()) {
            responder.finish(message3, |_| false).unwrap_err();
        }
    }
    let (_, mut link) = initiator.answer(&message2).unwrap();
    link.opener.open(bytes, &mut vec![0; bytes.len()]).unwrap_err();
}

/// A header with a signature that its announcer never made is never admitted.
pub fn header(bytes: &[u8]) {
    let site = &*SITE;
    let Some((signature, header)) = bytes.split_first_chunk::<64>() else { return };
    assert!(!seal::verify(&site.announcer.id(), header, signature));
    assert!(!seal::verify_live(&site.announcer.id(), header, signature));
    let mut numbers = header.chunks_exact(8).map(|chunk| chunk.iter().fold(0, |n, b| n << 8 | u64::from(*b)));
    let mut number = || numbers.next().unwrap_or_default();
    let zones = [String::from_utf8_lossy(header).into_owned()];
    let claim = Claim {
        header,
        signature,
        announcer: site.announcer.id(),
        epoch: number(),
        sequence: number(),
        created_unix_ms: number(),
        expires_unix_ms: number(),
        zones: &zones,
        format: Some(Format { wav_bytes: number() as u32, rate_hz: number() as u32 }),
    };
    let admission = Admission { announcer: site.announcer.id(), zones: &zones, time: site.time, heard: None };
    admission.judge(&claim, site.asked.into()).unwrap_err();
    admission.judge(&Claim { format: None, ..claim }, site.asked.into()).unwrap_err();
    let _ = admission.judge_freshness(&claim, site.asked.into());
    let _ = seal::verify(
        &bullhorn::keys::AnnouncerId::from_bytes(*signature.first_chunk().unwrap()),
        header,
        signature,
    );
}

/// A message that is read is within its bounds, and is encoded as it was read or shorter.
fn message<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = wire::decode::<M>(bytes) {
        message.check().unwrap();
        let again = wire::encode(&message).unwrap();
        assert!(again.len() <= bytes.len());
        assert_eq!(wire::decode::<M>(&again).unwrap(), message);
    }
}

/// Any message of a station.
pub fn station_message(bytes: &[u8]) {
    message::<FromStation>(bytes);
}

/// Any message of an announcer.
pub fn announcer_message(bytes: &[u8]) {
    message::<FromAnnouncer>(bytes);
}

/// A header of a clip or of live speech that is read is written as it was read. A clip's header names its clip either way.
pub fn clip_header(bytes: &[u8]) {
    let id = ClipHeader::id_of(bytes);
    if let Ok(header) = ClipHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes);
        assert_eq!(id, Some(header.id));
        let _ = header.format.check();
    }
    if let Ok(header) = LiveHeader::decode(bytes) {
        assert_eq!((header.encode(), id), (bytes.to_vec(), None));
        let _ = (header.blocks(), header.block_us(u32::MAX));
    }
}

/// A talkback header that is read is written as it was read. None is proven without its station's signature.
pub fn talkback_header(bytes: &[u8]) {
    let Ok(header) = TalkbackHeader::decode(bytes) else { return };
    assert_eq!(header.encode(), bytes);
    assert!(ClipHeader::decode(bytes).is_err(), "it is a clip's as well");
    let announcer = AnnouncerId::from_bytes(header.announcer);
    seal::talkback::prove(&header, bytes, &[7; 64], &header.name, &announcer).unwrap_err();
    let _ = seal::talkback::admit(&header, 1_000_000, None);
}

/// Reads a preface, then frames to the end of the bytes.
pub fn frames(bytes: &[u8]) {
    let Some((preface, mut rest)) = bytes.split_first_chunk::<PREFACE_BYTES>() else { return };
    if let Ok(read) = Preface::decode(preface) {
        assert_eq!(&read.encode(), preface);
        let _ = read.known_mode();
    }
    while let Some((head, more)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
        let Ok(header) = FrameHeader::decode(*head) else { return };
        assert_eq!(&header.encode(), head);
        let length = usize::from(header.length);
        assert!((1..=header.kind.limit()).contains(&length));
        let Some((payload, after)) = more.split_at_checked(length) else { return };
        message::<FromStation>(payload);
        message::<FromAnnouncer>(payload);
        rest = after;
    }
}

/// Creates a folder, in memory if possible, with these files in it and nothing else.
fn folder_with(files: &[(&str, &[u8])]) -> (TempDir, StateFolder) {
    let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
    for (name, content) in files {
        put(folder.path().join(name), content);
    }
    (home, folder)
}

fn put(path: PathBuf, content: &[u8]) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, content).unwrap();
}

/// Returns the bytes as they are, and as the body of a file whose first line and checksum are right.
fn with_and_without_checksum(word: &str, bytes: &[u8]) -> [Vec<u8>; 2] {
    let mut body = [b"bullhorn ", word.as_bytes(), b" 1\n", bytes].concat();
    if !body.ends_with(b"\n") {
        body.push(b'\n');
    }
    let sum = bullhorn::clip::hex(&Sha256::digest(&body));
    body.extend([b"sha256 ", sum.as_bytes(), b"\n"].concat());
    [bytes.to_vec(), body]
}

/// Files that hold keys and the number of the run: a file that is read once can be read again.
pub fn identity(bytes: &[u8]) {
    for content in with_and_without_checksum("announcer", bytes) {
        let (_home, folder) = folder_with(&[("announcer.key", &content)]);
        if let Ok(Some(keys)) = AnnouncerKeys::load(&folder) {
            assert_eq!(AnnouncerKeys::load_or_create(&folder).unwrap().id(), keys.id());
        }
    }
    for content in with_and_without_checksum("station", bytes) {
        let (_home, folder) = folder_with(&[("station.key", &content)]);
        if let Ok(Some(keys)) = StationKeys::load(&folder) {
            let again = StationKeys::load_or_create(&folder).unwrap();
            assert_eq!(again.noise().public(), keys.noise().public());
        }
    }
    for content in with_and_without_checksum("epoch", bytes) {
        let (_home, folder) = folder_with(&[("epoch", &content)]);
        if let Ok(first) = begin_epoch(&folder, 1) {
            assert!(begin_epoch(&folder, 1).map_or(first == u64::MAX, |next| next > first));
        }
    }
}

/// How far announcers were heard: no damage moves a mark back, or allows a mark to overwrite an unreadable file.
pub fn heard(bytes: &[u8]) {
    let announcer = SITE.announcer.id();
    for content in with_and_without_checksum("heard", bytes) {
        let (_home, folder) = folder_with(&[("heard", &content)]);
        let Ok(mut heard) = Heard::open(&folder) else { continue };
        let mark = bullhorn::keys::Mark { epoch: 5, sequence: 5, finished: true };
        if heard.advance(&announcer, Priority::Emergency, mark).is_ok() {
            assert_eq!(Heard::open(&folder).unwrap().mark(&announcer, Priority::Emergency), Some(mark));
        }
    }
}

/// How far stations have talked back: a file that is read is written with one more mark, and read again.
pub fn talked(bytes: &[u8]) {
    for content in with_and_without_checksum("talkback", bytes) {
        let (_home, folder) = folder_with(&[("talkback", &content)]);
        let Ok(mut talked) = Talked::open(Some(&folder)) else { continue };
        let (station, id) = ("ab".repeat(32), wire::ClipId { epoch: 5, sequence: 5 });
        if talked.advance(&station, TalkedMark { id, end: Some(End::Heard) }) {
            talked.draft().unwrap().write().unwrap();
        }
        assert_eq!(Talked::open(Some(&folder)).unwrap().mark(&station), talked.mark(&station));
    }
}

/// The stations that have joined: a file that is read is written with one more station, and read again.
pub fn known(bytes: &[u8]) {
    let (_home, folder) = folder_with(&[("stations.toml", bytes)]);
    let Ok(mut known) = KnownStations::open(&folder) else { return };
    let before = known.all().len();
    if known.admit(&SITE.station.public(), "one-more", &[], 1).is_ok() {
        let after = KnownStations::open(&folder).unwrap().all().len();
        assert!(after == before || after == before + 1);
    }
}

/// The announcers that a station trusts: a file that is read is written with one more announcer, and read again.
pub fn pins(bytes: &[u8]) {
    let (_home, folder) = folder_with(&[("announcers.toml", bytes)]);
    let Ok(mut pins) = Pins::open(&folder) else { return };
    let pin = bullhorn::keys::Pin { noise: SITE.announcer.noise().public(), announcer: SITE.announcer.id() };
    pins.pin("office:7766", pin).unwrap();
    assert_eq!(Pins::open(&folder).unwrap().get("office:7766"), Some(&pin));
}

/// The name of the clip in the seeds of `outbox`.
const KEPT: &str = "6b49d200-7";

/// A clip that an earlier run left, and its log, separated by the bytes 0xFF 0x00: a clip that is read is complete, and
/// is read again.
pub fn outbox(bytes: &[u8]) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let apart = bytes.windows(2).rposition(|pair| pair == [0xff, 0]);
    let (clip, log) = apart.map_or((bytes, &[][..]), |at| (&bytes[..at], &bytes[at + 2..]));
    let (_home, folder) = folder_with(&[]);
    let inside = StateFolder::open(Some(&folder.path().join("outbox"))).unwrap();
    put(inside.path().join(format!("{KEPT}.clip")), clip);
    put(inside.path().join(format!("{KEPT}.log")), log);
    let open = || Outbox::open(&folder, Events::channel().0).unwrap().1;
    let (first, second) = (open(), open());
    assert_eq!(first.len(), second.len());
    for (one, other) in first.iter().zip(&second) {
        assert_eq!(one.header.encode(), one.encoded);
        assert_eq!(one.header.sha256, *one.clip.sha256());
        assert_eq!((&one.known, one.settled), (&other.known, other.settled));
    }
}

/// Creates the runtime of the tasks that write to the disk.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// The log of an archive: its end is repaired, and nothing in it proves a page that was never announced.
pub fn archive_log(bytes: &[u8]) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let (home, _) = folder_with(&[]);
    let folder = home.path().join("archive");
    std::fs::create_dir(&folder).unwrap();
    let log = folder.join("announcements-202611.jsonl");
    put(log.clone(), bytes);
    let wav = folder.join("20261118T110640.000Z-open-00000000.wav");
    put(wav.clone(), b"RIFF");
    assert!(archive::verify(&wav, None).is_err());
    let keep = Retention { age: std::time::Duration::from_secs(1), bytes: 1 };
    drop(Archive::open(&folder, keep, Events::channel().0).unwrap());
    let repaired = std::fs::read(&log).unwrap();
    assert!(bytes.starts_with(&repaired) && (repaired.is_empty() || repaired.ends_with(b"\n")));
}

/// A sound file of the user's own: a sound that is read has a length that a clip may have.
pub fn sound_file(bytes: &[u8]) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sound");
    put(path.clone(), bytes);
    if let Ok(sound) = bullhorn::sound_file::read(&path) {
        assert!(!sound.samples.is_empty() && sound.rate_hz > 0);
        assert!(sound.length() <= bullhorn::clip::MAX_LENGTH);
    }
}
