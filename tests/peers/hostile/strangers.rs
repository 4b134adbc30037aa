//! Peers of the announcer that never get onto the roster, or do not stay on it.

use std::net::SocketAddr;
use std::time::Duration;

use bullhorn::link::{OPENING_DEADLINE, SILENCE_DEADLINE};
use bullhorn::wire::{ClipId, FromAnnouncer, FromStation, MAX_MESSAGE_BYTES, Receipt, TAG_BYTES, encode};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::hostile::{Cases, MARGIN, good_one_plays, office_and_hall};
use crate::peer::{Hall, Heard, Office, RawStation, clip_of, hello};

const OPENING: Duration = OPENING_DEADLINE;
const SILENCE: Duration = SILENCE_DEADLINE;
const SECOND: Duration = Duration::from_secs(1);

/// Checks that the announcer hangs up, no sooner and not much later than it should.
async fn dropped(peer: &mut RawStation, since: Instant, after: Duration) {
    peer.end().await;
    let took = since.elapsed();
    assert!(took + Duration::from_millis(50) >= after, "hung up after {took:?}");
    assert!(took < after + MARGIN, "hung up after {took:?} only");
}

/// Sends a byte a second until the announcer hangs up.
async fn drip(peer: &mut RawStation, bytes: &[u8], since: Instant) {
    for byte in bytes.iter().cycle() {
        peer.bytes(&[*byte]).await;
        if timeout(SECOND, peer.end()).await.is_ok() {
            break;
        }
        assert!(since.elapsed() < OPENING + MARGIN, "a byte a second keeps it alive");
    }
}

async fn answered(address: SocketAddr, bytes: &[u8], status: u8) {
    let mut peer = RawStation::dial(address).await;
    peer.bytes(bytes).await;
    let preface = peer.preface().await;
    assert_eq!((preface.version, preface.mode, preface.status), (1, 0, status), "{bytes:?}");
    dropped(&mut peer, Instant::now(), Duration::ZERO).await;
}

/// Sends bytes as the first after the prefaces; the announcer must hang up at once.
async fn first_bytes(address: SocketAddr, bytes: Vec<u8>) {
    let mut peer = RawStation::open(address).await;
    peer.bytes(&bytes).await;
    dropped(&mut peer, Instant::now(), Duration::ZERO).await;
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    [&[kind, high, low], payload].concat()
}

fn message(message: &FromStation) -> Vec<u8> {
    frame(1, &encode(message).unwrap())
}

fn unknown() -> ClipId {
    ClipId { epoch: 1, sequence: 1 }
}

fn receipt() -> Receipt {
    Receipt {
        clip: unknown(),
        frames: 1,
        start_error_us: 0,
        max_error_us: 0,
        underruns: 0,
        uncertainty_us: 0,
    }
}

/// Frames that end a link wherever they arrive.
fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("kind 0", frame(0, b"x")),
        ("kind 3", frame(3, b"x")),
        ("kind 255", frame(255, b"x")),
        ("a message of no bytes", frame(1, b"")),
        ("a block of no bytes", frame(2, b"")),
        ("a block", frame(2, b"x")),
        ("a message over the cap", frame(1, &[0; MAX_MESSAGE_BYTES + TAG_BYTES + 1])),
        ("the head of a message over the cap", vec![1, 0xff, 0xff]),
        ("the head of a block over the cap", vec![2, 0x40, 0x11]),
        ("a message of an unknown number", frame(1, &[9])),
        ("a message that is cut short", frame(1, &[0, 10, b'a'])),
        ("a byte too many", frame(1, &[1, 5, 0])),
        ("a name that is no UTF-8", frame(1, &[0, 1, 0xff, 0, 1, 0, 0])),
    ]
}

fn out_of_place() -> Vec<(&'static str, Vec<u8>)> {
    let clip = unknown();
    vec![
        ("Verified", message(&FromStation::Verified { clip, lead_us: 0 })),
        ("Rejected", message(&FromStation::Rejected { clip, reason: "no".into() })),
        ("Playing", message(&FromStation::Playing { clip })),
        ("Played", message(&FromStation::Played(receipt()))),
        ("Failed", message(&FromStation::Failed { clip, reason: "no".into() })),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_told_dropped_and_disturb_nobody() {
    let (mut office, mut hall) = office_and_hall(SECOND * 60).await;
    let address = office.address;
    let mut cases = Cases::default();
    cases.add("HTTP", answered(address, b"GET / HTTP/1.1\r\nHost: office\r\n\r\n", 3));
    cases.add("a wrong byte", answered(address, b"X", 3));
    cases.add("a wrong last byte", answered(address, b"BULLHORM", 3));
    cases.add("another version", answered(address, b"BULLHORN\x00\x02\x00\x00", 1));
    cases.add("version 65535", answered(address, b"BULLHORN\xff\xff\x09\x00", 1));
    cases.add("another mode", answered(address, b"BULLHORN\x00\x01\x01\x00", 2));
    cases.add("silence", async move {
        let started = Instant::now();
        dropped(&mut RawStation::dial(address).await, started, OPENING).await;
    });
    cases.add("a byte a second", async move {
        let started = Instant::now();
        drip(&mut RawStation::dial(address).await, b"BULLHORN", started).await;
    });
    cases.add("silence after the preface", async move {
        let mut peer = RawStation::open(address).await;
        dropped(&mut peer, Instant::now(), SILENCE).await;
    });
    cases.add("a byte a second after the preface", async move {
        let mut peer = RawStation::open(address).await;
        drip(&mut peer, &[1, 8, 0], Instant::now()).await;
    });
    cases.add("an end inside the preface", async move {
        let mut peer = RawStation::dial(address).await;
        peer.bytes(b"BULL").await;
        peer.stream.shutdown().await.unwrap();
        dropped(&mut peer, Instant::now(), Duration::ZERO).await;
    });
    cases.add("an end inside a frame", async move {
        let mut peer = RawStation::open(address).await;
        peer.bytes(&[1, 0, 9, 0]).await;
        peer.stream.shutdown().await.unwrap();
        dropped(&mut peer, Instant::now(), Duration::ZERO).await;
    });
    for (what, bytes) in broken_frames().into_iter().chain(out_of_place()) {
        cases.add(format!("first of all {what}"), first_bytes(address, bytes));
    }
    cases.add("Ping before Hello", first_bytes(address, message(&FromStation::Ping { t1_us: 0 })));
    cases.add("Goodbye before Hello", first_bytes(address, message(&FromStation::Goodbye)));
    for name in ["", "..", "a/b", "a\\b", "a\n", " a", &"x".repeat(65)] {
        cases.add(format!("the name {name:?}"), first_bytes(address, message(&hello(name, 1))));
    }
    let zones = vec!["z".to_owned(); 17];
    let crowded =
        FromStation::Hello { name: "a".into(), zones, instance: 1, last: None, nonce: None, begun: None };
    cases.add("17 zones", first_bytes(address, message(&crowded)));
    cases.add("a name that is taken", async move {
        let mut peer = RawStation::open(address).await;
        peer.say(&hello("good", 77)).await;
        let Heard::Message(FromAnnouncer::Refused { reason }) = peer.hear().await else {
            panic!("not refused")
        };
        assert!(reason.contains("another station is here under the name good"), "{reason}");
        // However long it keeps pinging.
        let since = Instant::now();
        while since.elapsed() < SILENCE + MARGIN {
            peer.say(&FromStation::Ping { t1_us: 1 }).await;
            if timeout(SECOND / 2, peer.end()).await.is_ok() {
                break;
            }
        }
        assert!(since.elapsed() < SILENCE + MARGIN, "a refused station stays for ever");
        let mut again = RawStation::open(address).await;
        again.say(&hello("good", 78)).await;
        assert!(matches!(again.hear().await, Heard::Message(FromAnnouncer::Refused { .. })));
    });

    good_one_plays(&mut office, &mut hall).await;
    assert_eq!(office.verdict().await, (1, 1, vec![]));
    cases.all().await;
    good_one_plays(&mut office, &mut hall).await;
    assert_eq!(office.verdict().await, (1, 1, vec![]));
    assert!(office.close().await);
    hall.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_breaks_the_rules_is_off_the_roster() {
    let (mut office, mut hall) = office_and_hall(Duration::ZERO).await;
    let mut missing = Vec::new();
    let second_hello = message(&hello("bad", 1));
    let all = broken_frames().into_iter().chain(out_of_place()).chain([("a second Hello", second_hello)]);
    for (number, (what, bytes)) in all.enumerate() {
        let name = format!("bad-{number:02}");
        let mut peer = RawStation::join(office.address, &name, 1).await;
        peer.bytes(&bytes).await;
        dropped(&mut peer, Instant::now(), Duration::ZERO).await;
        let reason = office.left(&name).await;
        let expected = match what {
            "Verified" | "Rejected" | "Playing" | "Played" | "Failed" | "a second Hello" => "out of turn",
            _ if what.contains("kind") || what == "a block" => "has no place here",
            _ if what.contains("of no bytes") || what.contains("over the cap") => "over the limit",
            _ => "malformed",
        };
        assert!(reason.contains(expected), "{what}: {reason}");
        missing.push((name, format!("not connected: {reason}")));
    }
    good_one_plays(&mut office, &mut hall).await;
    assert_eq!(office.verdict().await, (1, missing.len() + 1, missing));
    assert!(!office.close().await, "not everybody heard it");
    hall.close().await;
}

/// xorshift64; the same bytes every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_random_blobs() {
    let mut office = Office::open(8_000, &clip_of(2_000), Duration::ZERO).await;
    let mut hall = Hall::open(office.address, "good");
    office.joined("good").await;
    let address = office.address;
    let mut cases = Cases::default();
    for lane in 0..4_u64 {
        cases.add(format!("lane {lane}"), async move {
            let mut dice = Dice(0x9e37_79b9_7f4a_7c15 + lane);
            for _ in 0..75 {
                let length = (dice.roll() % 400) as usize;
                let mut blob: Vec<u8> = (0..length).map(|_| dice.roll() as u8).collect();
                let mut peer = match dice.roll() % 3 {
                    0 => RawStation::dial(address).await,
                    1 => RawStation::open(address).await,
                    _ => RawStation::join(address, &format!("blob-{lane}"), lane).await,
                };
                // Half of them look like a message, so that its decoder is reached.
                if blob.len() > 3 && dice.roll().is_multiple_of(2) {
                    let [high, low] = ((blob.len() - 3) as u16).to_be_bytes();
                    blob[..4].copy_from_slice(&[1, high, low, (dice.roll() % 9) as u8]);
                }
                peer.bytes(&blob).await;
                let _ = peer.stream.shutdown().await;
                let mut sink = Vec::new();
                let read = tokio::io::AsyncReadExt::read_to_end(&mut peer.stream, &mut sink);
                let _ = timeout(SILENCE + MARGIN, read).await.expect("the announcer holds on");
            }
        });
    }
    good_one_plays(&mut office, &mut hall).await;
    cases.all().await;
    good_one_plays(&mut office, &mut hall).await;
    let (played, expected, missing) = office.verdict().await;
    assert_eq!((played, expected), (1, 1 + missing.len()));
    assert!(missing.iter().all(|(name, _)| name.starts_with("blob-")), "{missing:?}");
    office.close().await;
    hall.close().await;
}
