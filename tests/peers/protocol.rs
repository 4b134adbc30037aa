//! `docs/protocol.md` describes what the code does: its exchange decodes, encodes, and is replayed to a station.

use crate::peer::{Hall, Heard, PATIENCE, RawAnnouncer};
use bullhorn::wire::{
    self, BLOCK_BYTES, ClipHeader, FrameHeader, FrameKind, FromAnnouncer, FromStation, Message,
};
use bullhorn::wire::{PREFACE_BYTES, Preface};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

const PAGE: &str = include_str!("../../docs/protocol.md");

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sender {
    Station,
    Announcer,
}

#[derive(Debug)]
struct Line {
    sender: Sender,
    what: &'static str,
    bytes: Vec<u8>,
}

fn exchange() -> Vec<Line> {
    let block = PAGE.split("```hex\n").nth(1).expect("the page has a hex block");
    let block = block.split("```").next().unwrap();
    let lines: Vec<Line> = block
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let sender = match words.next() {
                Some(">") => Sender::Station,
                Some("<") => Sender::Announcer,
                other => panic!("neither > nor < but {other:?}"),
            };
            let what = words.next().unwrap();
            let hex: String = words.collect();
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            Line { sender, what, bytes: (0..hex.len()).step_by(2).map(byte).collect() }
        })
        .collect();
    assert_eq!(lines.len(), 13);
    lines
}

fn line(what: &str) -> Line {
    exchange().into_iter().find(|line| line.what == what).unwrap()
}

fn payload(bytes: &[u8]) -> (FrameKind, &[u8]) {
    let (header, payload) = bytes.split_first_chunk::<3>().unwrap();
    let header = FrameHeader::decode(*header).unwrap();
    assert_eq!(usize::from(header.length), payload.len());
    assert_eq!(&header.encode(), &bytes[..3]);
    (header.kind, payload)
}

/// The message in a line. Checks that it has the name that the page gives it and that it encodes to the same bytes.
fn message<M: Message + std::fmt::Debug>(line: &Line) -> M {
    let (kind, payload) = payload(&line.bytes);
    assert_eq!(kind, FrameKind::Message, "{}", line.what);
    let message: M = wire::decode(payload).unwrap();
    assert!(format!("{message:?}").starts_with(line.what), "{message:?} is called {}", line.what);
    assert_eq!(wire::encode(&message).unwrap(), payload, "{}", line.what);
    message
}

fn documented_clip() -> (ClipHeader, Vec<u8>) {
    let FromAnnouncer::Clip { header, .. } = message(&line("Clip")) else { panic!("no Clip") };
    let block = line("block").bytes;
    (ClipHeader::decode(&header).unwrap(), payload(&block).1.to_vec())
}

#[test]
fn every_line_decodes_and_encodes_to_the_same_bytes() {
    for line in exchange() {
        match (line.what, line.sender) {
            ("preface", _) => {
                let bytes: &[u8; PREFACE_BYTES] = line.bytes.as_slice().try_into().unwrap();
                assert_eq!(&Preface::decode(bytes).unwrap().encode(), bytes);
            }
            ("block", sender) => {
                assert_eq!(sender, Sender::Announcer);
                let (kind, wav) = payload(&line.bytes);
                assert_eq!(kind, FrameKind::Block);
                assert_eq!(wire::block_frames(wav.chunks(BLOCK_BYTES)), line.bytes);
            }
            (_, Sender::Station) => drop(message::<FromStation>(&line)),
            (_, Sender::Announcer) => drop(message::<FromAnnouncer>(&line)),
        }
    }
}

#[test]
fn the_documented_clip_is_one() {
    let (header, wav) = documented_clip();
    assert_eq!(wav, crate::peer::wav(8_000, &[1, -1]));
    assert_eq!(header.format.wav_bytes as usize, wav.len());
    header.format.check().unwrap();
    let mut incoming = bullhorn::clip::Incoming::new(header.format, header.sha256).unwrap();
    incoming.push(&wav).unwrap();
    assert_eq!(incoming.finish().unwrap().wav(), &wav[..]);
    let FromAnnouncer::Clip { header: bytes, .. } = message(&line("Clip")) else { panic!("no Clip") };
    assert_eq!(header.encode(), bytes);
}

#[test]
fn the_tables_name_every_message_by_its_number() {
    let clip = wire::ClipId { epoch: 1, sequence: 1 };
    let reason = String::new();
    let receipt = wire::Receipt {
        clip,
        frames: 0,
        start_error_us: 0,
        max_error_us: 0,
        underruns: 0,
        uncertainty_us: 0,
    };
    let station = [
        crate::peer::hello("a", 1),
        FromStation::Ping { t1_us: 0 },
        FromStation::Verified { clip, lead_us: 0 },
        FromStation::Rejected { clip, reason: reason.clone() },
        FromStation::Playing { clip },
        FromStation::Played(receipt),
        FromStation::Failed { clip, reason: reason.clone() },
        FromStation::Goodbye,
        FromStation::AskTime { nonce: [0; 16] },
        FromStation::Health { fault: None },
        FromStation::Queued { clip },
        FromStation::Talkback(wire::Offer { header: vec![], signature: vec![], key: vec![] }),
        FromStation::LivePlayed(wire::LiveReceipt {
            clip,
            played: 0,
            concealed: 0,
            late: 0,
            start_error_us: 0,
            max_error_us: 0,
            underruns: 0,
            uncertainty_us: 0,
        }),
    ];
    let announcer = [
        FromAnnouncer::Welcome { clock: 0, site: None },
        FromAnnouncer::Refused { reason },
        FromAnnouncer::Pong { t1_us: 0, t2_us: 0, t3_us: 0 },
        FromAnnouncer::Clip { header: vec![], signature: vec![], key: vec![] },
        FromAnnouncer::PlayAt { clip, instant_us: 0 },
        FromAnnouncer::Time(wire::Statement { unix_ms: 0, signature: vec![0; wire::SIGNATURE_BYTES] }),
        FromAnnouncer::Noted { clip },
        FromAnnouncer::Volume { volume: None },
        FromAnnouncer::Yield,
        FromAnnouncer::Talkback(wire::Answer::Send),
        FromAnnouncer::LiveStart { header: vec![], signature: vec![], next: 0 },
        FromAnnouncer::LiveBlock { clip, number: 0, samples: vec![0; 2] },
        FromAnnouncer::LiveEnd { header: vec![], signature: vec![] },
        FromAnnouncer::Behind { clip, behind_us: 0 },
    ];
    let rows = |section: &str| -> Vec<String> {
        let section = PAGE.split(section).nth(1).unwrap().split("\n\n").nth(1).unwrap();
        section.lines().skip(2).map(str::to_owned).collect()
    };
    let check = |rows: Vec<String>, names: Vec<(u8, String)>| {
        assert_eq!(rows.len(), names.len());
        for (row, (number, debug)) in rows.iter().zip(names) {
            let name: String = debug.chars().take_while(|c| c.is_alphanumeric()).collect();
            assert!(row.starts_with(&format!("| {number} | {name} |")), "{row} is not {number} {name}");
        }
    };
    let numbered = |bytes: Vec<u8>, debug: String| (bytes[0], debug);
    check(
        rows("### From a station"),
        station.iter().map(|it| numbered(wire::encode(it).unwrap(), format!("{it:?}"))).collect(),
    );
    check(
        rows("### From the announcer"),
        announcer.iter().map(|it| numbered(wire::encode(it).unwrap(), format!("{it:?}"))).collect(),
    );
}

#[test]
fn the_limits_on_the_page_are_those_of_the_code() {
    for limit in [
        format!("1 to {} for a message", thousands(wire::MAX_MESSAGE_BYTES + wire::TAG_BYTES)),
        format!("1 to {} for a block", thousands(BLOCK_BYTES + wire::TAG_BYTES)),
        format!("1 to {} bytes, printable", wire::MAX_NAME_BYTES),
        format!("| zones of a station or a clip | {} at most |", wire::MAX_ZONES),
        format!("| reasons | {} bytes at most |", wire::MAX_REASON_BYTES),
        format!("46 to {}, even", thousands(bullhorn::clip::MAX_WAV_BYTES)),
        format!("| opening, each side | {} s |", bullhorn::link::OPENING_DEADLINE.as_secs()),
        format!("| a whole frame | {} s |", bullhorn::link::SILENCE_DEADLINE.as_secs_f64()),
        format!("given without it | {} s |", bullhorn::stations::REJOIN_GRACE.as_secs()),
        format!("took, {} ms at least", bullhorn::stations::STRAGGLER_WAIT.as_millis()),
    ] {
        assert!(PAGE.contains(&limit), "the page does not say: {limit}");
    }
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut words = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            words.push(',');
        }
        words.push(digit);
    }
    words
}

/// The next message that is not a Ping. Each Ping is answered by a clock that read `from_us` at the start of the replay.
async fn next(peer: &mut RawAnnouncer, start: Instant, from_us: u64, pings: &mut usize) -> FromStation {
    loop {
        match peer.hear().await {
            Heard::Message(FromStation::Ping { t1_us }) => {
                let now_us = from_us + start.elapsed().as_micros() as u64;
                peer.say(&FromAnnouncer::Pong { t1_us, t2_us: now_us, t3_us: now_us + 10 }).await;
                *pings += 1;
            }
            Heard::Message(message) => return message,
            other => panic!("no message but {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_plays_the_documented_exchange() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut hall = Hall::open(listener.local_addr().unwrap(), "hall-1");
    let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut peer = RawAnnouncer::over(stream);

    let [from_station, from_announcer, ..] = &exchange()[..] else { panic!("no prefaces") };
    assert_eq!((from_station.sender, from_announcer.sender), (Sender::Station, Sender::Announcer));
    let mut preface = [0; PREFACE_BYTES];
    peer.stream.read_exact(&mut preface).await.unwrap();
    assert_eq!(preface[..], from_station.bytes);
    peer.bytes(&from_announcer.bytes).await;

    let FromStation::Hello { name: said, zones: said_zones, last: said_last, .. } = message(&line("Hello"))
    else {
        panic!("no Hello")
    };
    let Heard::Message(FromStation::Hello { name, zones, last, .. }) = peer.hear().await else {
        panic!("no Hello")
    };
    assert_eq!((name, zones, last), (said, said_zones, said_last));
    peer.bytes(&line("Welcome").bytes).await;

    let FromAnnouncer::Pong { t2_us, t3_us, .. } = message(&line("Pong")) else { panic!("no Pong") };
    let (start, mut pings) = (Instant::now(), 0);
    // Only the station's own time differs from the page.
    let Heard::Message(FromStation::Ping { t1_us }) = peer.hear().await else { panic!("no Ping") };
    peer.say(&FromAnnouncer::Pong { t1_us, t2_us, t3_us }).await;
    peer.bytes(&line("Clip").bytes).await;
    peer.bytes(&line("block").bytes).await;

    let (header, wav) = documented_clip();
    let verified = next(&mut peer, start, t2_us, &mut pings).await;
    let FromStation::Verified { clip, .. } = verified else { panic!("no Verified but {verified:?}") };
    let FromStation::Verified { clip: documented, .. } = message(&line("Verified")) else { panic!() };
    assert_eq!((clip, clip), (documented, header.id));
    peer.bytes(&line("PlayAt").bytes).await;

    let playing = next(&mut peer, start, t2_us, &mut pings).await;
    assert_eq!(playing, message(&line("Playing")));
    // It played at the documented instant, which it knew from the exchange of times.
    let FromAnnouncer::PlayAt { instant_us, .. } = message(&line("PlayAt")) else { panic!() };
    let after_us = start.elapsed().as_micros() as u64;
    assert!(after_us >= instant_us - t2_us - 10, "{after_us} µs, due {} µs", instant_us - t2_us);

    let played = next(&mut peer, start, t2_us, &mut pings).await;
    let FromStation::Played(receipt) = played else { panic!("no Played but {played:?}") };
    let FromStation::Played(documented) = message(&line("Played")) else { panic!() };
    assert_eq!((receipt.clip, receipt.frames), (documented.clip, documented.frames));
    assert!(receipt.start_error_us > -1_000, "{receipt:?}");
    peer.bytes(&line("Noted").bytes).await;
    peer.end().await;

    hall.played().await;
    let files = hall.files();
    assert_eq!(files, [hall.dir().join(format!("hall-1-{clip}.wav"))]);
    assert_eq!(std::fs::read(&files[0]).unwrap(), wav);

    // It is back at once, and brings the receipt.
    let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut peer = RawAnnouncer::over(stream);
    assert_eq!(peer.preface().await.encode()[..], from_station.bytes);
    peer.bytes(&from_announcer.bytes).await;
    let Heard::Message(FromStation::Hello { last, .. }) = peer.hear().await else { panic!("no Hello") };
    assert_eq!(last, Some(receipt));
    drop(peer);
    hall.close().await;
}
