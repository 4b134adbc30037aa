//! Walks the table of bounds in `docs/protocol.md`: every message of both sides has a row, and for each row a peer
//! sends the message as fast as it can, while three honest stations still hear a page.

use std::time::Duration;

use bullhorn::event::Event;
use bullhorn::wire::{
    self, Answer, ClipId, FromAnnouncer, FromStation, LiveReceipt, MAX_LIVE_BLOCK_BYTES, MAX_REASON_BYTES,
    Message, Mode, Offer, Preface, Receipt, Statement, Status,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::hostile::Cases;
use crate::peer::{Hall, Office, RawStation, clip_of, hello};

const PAGE: &str = include_str!("../../docs/protocol.md");
/// How long a peer floods before a page is announced: long enough to use up what it may send at once.
pub const FLOOD: Duration = Duration::from_secs(3);
const CLIP: ClipId = ClipId { epoch: u64::MAX, sequence: u64::MAX };

/// The cells of the rows of the first table after a heading.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = PAGE.split(&format!("{heading}\n")).nth(1).unwrap();
    let table =
        text.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.skip(2).map(cells).collect()
}

fn longest_reason() -> String {
    "x".repeat(MAX_REASON_BYTES)
}

/// The largest example of each message of a station. A message without an arm has none, and fails the test below.
fn of_station(name: &str) -> Option<FromStation> {
    let receipt = Receipt {
        clip: CLIP,
        frames: u64::MAX,
        start_error_us: i64::MIN,
        max_error_us: u64::MAX,
        underruns: u32::MAX,
        uncertainty_us: u32::MAX,
    };
    Some(match name {
        "Hello" => FromStation::Hello {
            name: "n".repeat(wire::MAX_NAME_BYTES),
            zones: vec!["z".repeat(wire::MAX_NAME_BYTES); wire::MAX_ZONES],
            instance: u64::MAX,
            last: Some(receipt),
            nonce: Some([255; 16]),
            begun: Some(CLIP),
        },
        "Ping" => FromStation::Ping { t1_us: u64::MAX },
        "Verified" => FromStation::Verified { clip: CLIP, lead_us: u32::MAX },
        "Rejected" => FromStation::Rejected { clip: CLIP, reason: longest_reason() },
        "Playing" => FromStation::Playing { clip: CLIP },
        "Played" => FromStation::Played(receipt),
        "Failed" => FromStation::Failed { clip: CLIP, reason: longest_reason() },
        "Goodbye" => FromStation::Goodbye,
        "AskTime" => FromStation::AskTime { nonce: [255; 16] },
        "Health" => FromStation::Health { fault: Some(longest_reason()) },
        "Queued" => FromStation::Queued { clip: CLIP },
        "Talkback" => FromStation::Talkback(Offer {
            header: vec![255; 204],
            signature: vec![255; wire::SIGNATURE_BYTES],
            key: vec![255; wire::CLIP_KEY_BYTES],
        }),
        "LivePlayed" => FromStation::LivePlayed(LiveReceipt {
            clip: CLIP,
            played: u32::MAX,
            concealed: u32::MAX,
            late: u32::MAX,
            start_error_us: i64::MIN,
            max_error_us: u64::MAX,
            underruns: u32::MAX,
            uncertainty_us: u32::MAX,
        }),
        _ => return None,
    })
}

/// The largest example of each message of an announcer.
fn of_announcer(name: &str) -> Option<FromAnnouncer> {
    let statement = Statement { unix_ms: u64::MAX, signature: vec![255; wire::SIGNATURE_BYTES] };
    let (header, signature) = (vec![255; 77 + 16 * 65], vec![255; wire::SIGNATURE_BYTES]);
    Some(match name {
        "Welcome" => FromAnnouncer::Welcome { clock: u64::MAX, site: Some(([255; 32], statement)) },
        "Refused" => FromAnnouncer::Refused { reason: longest_reason() },
        "Pong" => FromAnnouncer::Pong { t1_us: 0, t2_us: u64::MAX, t3_us: u64::MAX },
        "Clip" => FromAnnouncer::Clip { header, signature, key: vec![255; wire::CLIP_KEY_BYTES] },
        "PlayAt" => FromAnnouncer::PlayAt { clip: CLIP, instant_us: u64::MAX },
        "Time" => FromAnnouncer::Time(statement),
        "Noted" => FromAnnouncer::Noted { clip: CLIP },
        "Volume" => FromAnnouncer::Volume { volume: bullhorn::volume::Volume::from_db(-60.0) },
        "Yield" => FromAnnouncer::Yield,
        "Talkback" => FromAnnouncer::Talkback(Answer::Later { reason: longest_reason() }),
        "LiveStart" => FromAnnouncer::LiveStart { header, signature, next: u32::MAX },
        "LiveBlock" => FromAnnouncer::LiveBlock {
            clip: CLIP,
            number: u32::MAX,
            samples: vec![255; MAX_LIVE_BLOCK_BYTES],
        },
        "LiveEnd" => FromAnnouncer::LiveEnd { header, signature },
        "Behind" => FromAnnouncer::Behind { clip: CLIP, behind_us: u64::MAX },
        _ => return None,
    })
}

fn is_within(row: &[String], message: &impl Message) {
    let most: usize = row[3].replace(',', "").parse().unwrap();
    let bytes = wire::encode(message).unwrap().len();
    assert!(bytes <= most, "{} has up to {bytes} bytes, not {most}", row[1]);
}

/// The name of every message of a side, from the table that defines them.
fn defined(heading: &str) -> Vec<String> {
    rows(heading).into_iter().map(|row| row[1].clone()).collect()
}

fn bounded(side: &str) -> Vec<Vec<String>> {
    let rows = rows("## 9. Bounds of messages");
    assert!(rows.iter().all(|row| row.len() == 7 && row.iter().all(|cell| !cell.is_empty())));
    rows.into_iter().filter(|row| row[0] == side).collect()
}

#[test]
fn every_message_of_both_sides_has_its_row_and_its_size() {
    let names = |rows: &[Vec<String>]| rows.iter().map(|row| row[1].clone()).collect::<Vec<_>>();
    let (stations, announcers) = (bounded("station"), bounded("announcer"));
    assert_eq!(names(&stations), defined("### From a station"));
    assert_eq!(names(&announcers), defined("### From the announcer"));
    for (number, row) in stations.iter().enumerate() {
        let message = of_station(&row[1]).unwrap();
        // The number of the variant comes first: no variant is left out, and the table is in their order.
        assert_eq!(wire::encode(&message).unwrap()[0] as usize, number, "{}", row[1]);
        is_within(row, &message);
    }
    for (number, row) in announcers.iter().enumerate() {
        let message = of_announcer(&row[1]).unwrap();
        assert_eq!(wire::encode(&message).unwrap()[0] as usize, number, "{}", row[1]);
        is_within(row, &message);
    }
    let next = [stations.len() as u8, 0];
    assert!(wire::decode::<FromStation>(&next).is_err(), "a message of a station stands in no table");
    let next = [announcers.len() as u8, 0];
    assert!(wire::decode::<FromAnnouncer>(&next).is_err(), "a message of an announcer stands in no table");
}

/// Sends two messages over and over, and reads whatever comes, until the peer hangs up.
async fn pour(stream: TcpStream, message: &impl Message, other: &impl Message) {
    let frame = |message: &[u8]| [&[1][..], &(message.len() as u16).to_be_bytes(), message].concat();
    let both = [frame(&wire::encode(message).unwrap()), frame(&wire::encode(other).unwrap())].concat();
    let (mut read, mut write) = stream.into_split();
    let drain = async { tokio::io::copy(&mut read, &mut tokio::io::sink()).await.is_ok() };
    let flood = async { while write.write_all(&both).await.is_ok() {} };
    tokio::select! { _ = drain => (), () = flood => () }
}

/// Stops the flood when the test ends.
struct Flooding(AbortHandle);

impl Drop for Flooding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Checks that three stations hear the page while somebody floods, and that the operator sees each outcome and the verdict.
pub async fn three_hear_a_page(office: &mut Office, halls: &mut [Hall], begun: Instant) {
    office.announce().await;
    for hall in halls.iter_mut() {
        hall.played().await;
        let newest = hall.files().pop().unwrap();
        assert_eq!(std::fs::read(newest).unwrap(), office.wav);
        let is_outcome = |event: &Event| {
            matches!(event, Event::Played { station, .. } if *station == hall.name).then_some(())
        };
        office.log.until("the outcome", is_outcome).await;
    }
    let (played, _, missing) = office.verdict().await;
    assert!(played >= halls.len(), "{missing:?}");
    assert!(missing.iter().all(|(name, _)| name.starts_with("bad")), "{missing:?}");
    // Events about the flooding station are limited to one a second of each kind: joined, left, faulty, healthy. The
    // clip's own events come on top, a few for each connection to which it was sent.
    let of_bad = office.log.seen.iter().filter(|event| format!("{event:?}").contains("\"bad")).count();
    let most = 4 * (begun.elapsed().as_secs() as usize + 2) + 20;
    assert!(of_bad <= most, "{of_bad} events in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_any_message_of_a_station_disturbs_nobody() {
    let mut cases = Cases::default();
    for row in bounded("station") {
        let name = row[1].clone();
        cases.add(name.clone(), async move {
            let begun = Instant::now();
            let mut office = Office::open(8_000, &clip_of(2_000), Duration::from_secs(60)).await;
            let address = office.address;
            let mut halls: Vec<Hall> =
                (1..=3).map(|number| Hall::open(address, &format!("hall-{number}"))).collect();
            for number in 1..=3 {
                office.joined(&format!("hall-{number}")).await;
            }
            let message = of_station(&name).unwrap();
            // For faults, the flood is a fault that comes and goes; for every other message, it is the same message again.
            let other = match &message {
                FromStation::Health { .. } => FromStation::Health { fault: None },
                _ => message.clone(),
            };
            let flood = tokio::spawn(async move {
                loop {
                    let mut peer = RawStation::open(address).await;
                    if !matches!(message, FromStation::Talkback(_)) {
                        peer.say(&hello("bad", 7)).await;
                    }
                    pour(peer.stream, &message, &other).await;
                }
            });
            let _flood = Flooding(flood.abort_handle());
            sleep(FLOOD).await;
            three_hear_a_page(&mut office, &mut halls, begun).await;
        });
    }
    assert_eq!(cases.count(), 13);
    cases.all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_any_message_of_an_announcer_disturbs_no_page_of_another() {
    let mut cases = Cases::default();
    for row in bounded("announcer") {
        let name = row[1].clone();
        cases.add(name.clone(), async move {
            let begun = Instant::now();
            let mut office = Office::open(8_000, &clip_of(2_000), Duration::from_secs(60)).await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let bad = listener.local_addr().unwrap();
            let message = of_announcer(&name).unwrap();
            let other = match &message {
                FromAnnouncer::Volume { .. } => FromAnnouncer::Volume { volume: None },
                _ => message.clone(),
            };
            let flood = tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let (message, other) = (message.clone(), other.clone());
                    tokio::spawn(async move {
                        let preface = Preface::of_announcer(Mode::Open, Status::Ready).encode();
                        let welcome = wire::encode(&FromAnnouncer::Welcome { clock: 5, site: None }).unwrap();
                        let welcome = [&[1, 0, welcome.len() as u8][..], &welcome].concat();
                        let _ = stream.write_all(&[&preface[..], &welcome].concat()).await;
                        pour(stream, &message, &other).await;
                    });
                }
            });
            let _flood = Flooding(flood.abort_handle());
            let mut halls: Vec<Hall> = (1..=3)
                .map(|number| {
                    let announcers = vec![(bad, None), (office.address, None)];
                    Hall::open_with(&format!("hall-{number}"), vec![], announcers)
                })
                .collect();
            for number in 1..=3 {
                office.joined(&format!("hall-{number}")).await;
            }
            sleep(FLOOD).await;
            three_hear_a_page(&mut office, &mut halls, begun).await;
            for hall in &halls {
                let volumes =
                    hall.log.seen.iter().filter(|event| matches!(event, Event::Volume { .. })).count();
                let most = begun.elapsed().as_secs() as usize + 2;
                assert!(volumes <= most, "{volumes} volumes in {:?}", begun.elapsed());
            }
        });
    }
    assert_eq!(cases.count(), 14);
    cases.all().await;
}
