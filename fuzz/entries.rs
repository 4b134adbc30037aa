//! What the fuzz targets do with their bytes; `tests/fuzz_corpus.rs` does the same with the corpus.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::LazyLock;
use std::time::Instant;

use bullhorn::clip::Format;
use bullhorn::handshake::{Contact, Initiator, MESSAGE1_BYTES, MESSAGE2_BYTES, MESSAGE3_BYTES, Responder};
use bullhorn::invite::{Invite, parse_validity};
use bullhorn::keys::{AnnouncerKeys, NoiseKeys};
use bullhorn::seal::{self, Admission, AnnouncerTime, Claim, TimeNonce, TimeStatement};
use bullhorn::wire::{
    self, ClipHeader, FRAME_HEADER_BYTES, FrameHeader, FromAnnouncer, FromStation, Message, PREFACE_BYTES,
    Preface,
};

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
    let time = AnnouncerTime::from_statement(&announcer.id(), nonce, &statement, asked, asked).unwrap();
    Site { announcer, station: NoiseKeys::generate().unwrap(), invite: INVITE.parse().unwrap(), time, asked }
});

/// An invite that is read is printed as it was read.
pub fn invite(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(invite) = text.parse::<Invite>() {
        assert_eq!(*invite.to_line(), text.trim().to_ascii_lowercase());
    }
    let _ = parse_validity(text);
}

/// Bytes as each message of each role, and as a message of a finished link: nothing is taken for genuine.
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

/// A header with a signature that its announcer never made: it is never admitted.
pub fn header(bytes: &[u8]) {
    let site = &*SITE;
    let Some((signature, header)) = bytes.split_first_chunk::<64>() else { return };
    assert!(!seal::verify(&site.announcer.id(), header, signature));
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
        format: Format { wav_bytes: number() as u32, rate_hz: number() as u32 },
    };
    let admission = Admission { announcer: site.announcer.id(), zones: &zones, time: site.time, heard: None };
    admission.judge(&claim, site.asked).unwrap_err();
    let _ = admission.judge_freshness(&claim, site.asked);
    let _ = seal::verify(
        &bullhorn::keys::AnnouncerId::from_bytes(*signature.first_chunk().unwrap()),
        header,
        signature,
    );
}

/// A message that is read is within its bounds, and is sent as it was read or shorter.
fn message<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = wire::decode::<M>(bytes) {
        message.check().unwrap();
        let again = wire::encode(&message).unwrap();
        assert!(again.len() <= bytes.len());
        assert_eq!(wire::decode::<M>(&again).unwrap(), message);
    }
}

/// What a station may say.
pub fn station_message(bytes: &[u8]) {
    message::<FromStation>(bytes);
}

/// What an announcer may say.
pub fn announcer_message(bytes: &[u8]) {
    message::<FromAnnouncer>(bytes);
}

/// A clip header that is read is written as it was read, and names its clip either way.
pub fn clip_header(bytes: &[u8]) {
    let id = ClipHeader::id_of(bytes);
    if let Ok(header) = ClipHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes);
        assert_eq!(id, Some(header.id));
        let _ = header.format.check();
    }
}

/// A preface, then frames to the end of the bytes.
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
