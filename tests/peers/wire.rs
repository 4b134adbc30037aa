//! The wire's encodings: they round-trip, keep to their bounds, and no bytes make a decoder panic.

use bullhorn::clip::Format;
use bullhorn::priority::Priority;
use bullhorn::volume::Volume;
use bullhorn::wire::{
    self, Answer, BLOCK_BYTES, CLIP_KEY_BYTES, ClipHeader, ClipId, FrameHeader, FrameKind, FromAnnouncer,
    FromStation, MAX_MESSAGE_BYTES, MAX_NAME_BYTES, MAX_REASON_BYTES, MAX_ZONES, Message, Mode, Offer,
    PREFACE_BYTES, Preface, Receipt, SIGNATURE_BYTES, Statement, Status, TAG_BYTES, WireError,
};
use proptest::collection::vec;
use proptest::prelude::*;

pub fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9äß_][a-z0-9 äß_.-]{0,20}[a-z0-9é]".prop_filter("a legal name", |name| wire::is_name(name))
}

pub fn clip_id() -> impl Strategy<Value = ClipId> {
    (any::<u64>(), any::<u64>()).prop_map(|(epoch, sequence)| ClipId { epoch, sequence })
}

fn receipt() -> impl Strategy<Value = Receipt> {
    (clip_id(), any::<u64>(), any::<i64>(), any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
        |(clip, frames, start_error_us, max_error_us, underruns, uncertainty_us)| Receipt {
            clip,
            frames,
            start_error_us,
            max_error_us,
            underruns,
            uncertainty_us,
        },
    )
}

fn reason() -> impl Strategy<Value = String> {
    ".{0,300}".prop_map(wire::reason)
}

fn from_station() -> impl Strategy<Value = FromStation> {
    prop_oneof![
        (
            name(),
            vec(name(), 0..=MAX_ZONES),
            any::<u64>(),
            proptest::option::of(receipt()),
            proptest::option::of(any::<[u8; 16]>()),
            proptest::option::of(clip_id())
        )
            .prop_map(|(name, zones, instance, last, nonce, begun)| FromStation::Hello {
                name,
                zones,
                instance,
                last,
                nonce,
                begun
            }),
        any::<u64>().prop_map(|t1_us| FromStation::Ping { t1_us }),
        (clip_id(), any::<u32>()).prop_map(|(clip, lead_us)| FromStation::Verified { clip, lead_us }),
        (clip_id(), reason()).prop_map(|(clip, reason)| FromStation::Rejected { clip, reason }),
        clip_id().prop_map(|clip| FromStation::Playing { clip }),
        receipt().prop_map(FromStation::Played),
        (clip_id(), reason()).prop_map(|(clip, reason)| FromStation::Failed { clip, reason }),
        Just(FromStation::Goodbye),
        any::<[u8; 16]>().prop_map(|nonce| FromStation::AskTime { nonce }),
        proptest::option::of(reason()).prop_map(|fault| FromStation::Health { fault }),
        clip_id().prop_map(|clip| FromStation::Queued { clip }),
        (vec(any::<u8>(), 0..300), any::<bool>()).prop_map(|(header, secured)| {
            let signature = vec![7; if secured { SIGNATURE_BYTES } else { 0 }];
            FromStation::Talkback(Offer {
                header,
                signature,
                key: vec![8; if secured { CLIP_KEY_BYTES } else { 0 }],
            })
        }),
        crate::live::live_receipt().prop_map(FromStation::LivePlayed),
    ]
}

fn statement() -> impl Strategy<Value = Statement> {
    (any::<u64>(), any::<u8>())
        .prop_map(|(unix_ms, byte)| Statement { unix_ms, signature: vec![byte; SIGNATURE_BYTES] })
}

fn from_announcer() -> impl Strategy<Value = FromAnnouncer> {
    prop_oneof![
        (any::<u64>(), proptest::option::of((any::<[u8; 32]>(), statement())))
            .prop_map(|(clock, site)| FromAnnouncer::Welcome { clock, site }),
        statement().prop_map(FromAnnouncer::Time),
        reason().prop_map(|reason| FromAnnouncer::Refused { reason }),
        any::<[u64; 3]>().prop_map(|[t1_us, t2_us, t3_us]| FromAnnouncer::Pong { t1_us, t2_us, t3_us }),
        (vec(any::<u8>(), 0..1_200), any::<bool>()).prop_map(|(header, secured)| FromAnnouncer::Clip {
            header,
            signature: vec![7; if secured { SIGNATURE_BYTES } else { 0 }],
            key: vec![8; if secured { CLIP_KEY_BYTES } else { 0 }],
        }),
        (clip_id(), any::<u64>()).prop_map(|(clip, instant_us)| FromAnnouncer::PlayAt { clip, instant_us }),
        (clip_id(), any::<u64>()).prop_map(|(clip, behind_us)| FromAnnouncer::Behind { clip, behind_us }),
        clip_id().prop_map(|clip| FromAnnouncer::Noted { clip }),
        proptest::option::of(-60.0..=0.0_f64)
            .prop_map(|db| FromAnnouncer::Volume { volume: db.and_then(Volume::from_db) }),
        Just(FromAnnouncer::Yield),
        Just(FromAnnouncer::Talkback(Answer::Send)),
        Just(FromAnnouncer::Talkback(Answer::Wait)),
        Just(FromAnnouncer::Talkback(Answer::Heard)),
        reason().prop_map(|reason| FromAnnouncer::Talkback(Answer::Later { reason })),
        reason().prop_map(|reason| FromAnnouncer::Talkback(Answer::Kept { reason })),
        reason().prop_map(|reason| FromAnnouncer::Talkback(Answer::Refused { reason })),
        crate::live::message(),
    ]
}

fn clip_header() -> impl Strategy<Value = ClipHeader> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>());
    let priority = prop::sample::select(&Priority::ALL[..]);
    (clip_id(), numbers, any::<[u8; 32]>(), priority, vec(name(), 0..=MAX_ZONES)).prop_map(
        |(id, (created_unix_ms, expires_unix_ms, wav_bytes, rate_hz), sha256, priority, zones)| ClipHeader {
            id,
            created_unix_ms,
            expires_unix_ms,
            format: Format { wav_bytes, rate_hz },
            sha256,
            priority,
            zones,
        },
    )
}

/// Flipped bits, a cut, or extra bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let index = any::<prop::sample::Index>;
    vec(
        prop_oneof![
            4 => (index(), 1_u8..).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
            1 => index().prop_map(Mutation::Cut),
            1 => (index(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        ],
        1..5,
    )
}

fn mutated(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        match mutation {
            Mutation::Flip(at, bits) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Mutation::Flip(..) => (),
            Mutation::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
            Mutation::Insert(at, more) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, more.iter().copied());
            }
        }
    }
    bytes
}

/// Checks that the bytes decode without a panic, and that whatever decodes is stable.
fn stable<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = wire::decode::<M>(bytes) {
        message.check().unwrap();
        let again = wire::encode(&message).unwrap();
        assert!(again.len() <= bytes.len(), "the shortest form is the one that is sent");
        assert_eq!(wire::decode::<M>(&again).unwrap(), message);
    }
}

fn stable_header(bytes: &[u8]) {
    let id = ClipHeader::id_of(bytes);
    assert_eq!(id.is_some(), bytes.len() >= 17 && bytes[0] == 2);
    if let Ok(header) = ClipHeader::decode(bytes) {
        assert_eq!(header.encode(), bytes, "a header has one form");
        assert_eq!(id, Some(header.id));
    }
}

fn everything_is_stable(bytes: &[u8]) {
    stable::<FromStation>(bytes);
    stable::<FromAnnouncer>(bytes);
    stable_header(bytes);
    if let Some(preface) = bytes.first_chunk::<PREFACE_BYTES>()
        && let Ok(decoded) = Preface::decode(preface)
    {
        assert_eq!(&decoded.encode(), preface);
        let _ = decoded.known_mode();
    }
    if let Some(header) = bytes.first_chunk::<3>()
        && let Ok(decoded) = FrameHeader::decode(*header)
    {
        assert_eq!(&decoded.encode(), header);
        assert!((1..=decoded.kind.limit()).contains(&usize::from(decoded.length)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, ..ProptestConfig::default() })]

    #[test]
    fn station_messages_round_trip(message in from_station(), mutations in mutations()) {
        let bytes = wire::encode(&message).unwrap();
        prop_assert!(bytes.len() <= MAX_MESSAGE_BYTES);
        prop_assert_eq!(&wire::decode::<FromStation>(&bytes).unwrap(), &message);
        for cut in 0..bytes.len() {
            prop_assert!(wire::decode::<FromStation>(&bytes[..cut]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(wire::decode::<FromStation>(&longer), Err(WireError::Malformed(longer.len())));
        everything_is_stable(&mutated(bytes, &mutations));
    }

    #[test]
    fn announcer_messages_round_trip(message in from_announcer(), mutations in mutations()) {
        let bytes = wire::encode(&message).unwrap();
        prop_assert!(bytes.len() <= MAX_MESSAGE_BYTES);
        prop_assert_eq!(&wire::decode::<FromAnnouncer>(&bytes).unwrap(), &message);
        for cut in 0..bytes.len() {
            prop_assert!(wire::decode::<FromAnnouncer>(&bytes[..cut]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(wire::decode::<FromAnnouncer>(&longer), Err(WireError::Malformed(longer.len())));
        everything_is_stable(&mutated(bytes, &mutations));
    }

    #[test]
    fn clip_headers_round_trip(header in clip_header(), mutations in mutations()) {
        let bytes = header.encode();
        prop_assert_eq!(&ClipHeader::decode(&bytes).unwrap(), &header);
        prop_assert_eq!(ClipHeader::id_of(&bytes), Some(header.id));
        for cut in 0..bytes.len() {
            prop_assert!(ClipHeader::decode(&bytes[..cut]).is_err());
        }
        prop_assert!(ClipHeader::decode(&[&bytes[..], &[0]].concat()).is_err());
        let message = FromAnnouncer::Clip {
            header: bytes.clone(),
            signature: vec![1; SIGNATURE_BYTES],
            key: vec![2; CLIP_KEY_BYTES],
        };
        prop_assert!(wire::encode(&message).unwrap().len() <= MAX_MESSAGE_BYTES);
        everything_is_stable(&mutated(bytes, &mutations));
    }

    #[test]
    fn prefaces_round_trip(version: u16, mode: u8, status: u8) {
        let preface = Preface { version, mode, status };
        prop_assert_eq!(Preface::decode(&preface.encode()), Ok(preface));
        prop_assert_eq!(preface.known_mode(), match mode {
            0 => Some(Mode::Open),
            1 => Some(Mode::Secured),
            _ => None,
        });
    }

    #[test]
    fn every_frame_header_is_held_against_its_limit(bytes: [u8; 3]) {
        let length = usize::from(u16::from_be_bytes([bytes[1], bytes[2]]));
        let limit = match bytes[0] {
            1 => MAX_MESSAGE_BYTES + TAG_BYTES,
            2 => BLOCK_BYTES + TAG_BYTES,
            kind => {
                prop_assert_eq!(FrameHeader::decode(bytes), Err(WireError::FrameKind(kind)));
                return Ok(());
            }
        };
        match FrameHeader::decode(bytes) {
            Ok(header) => {
                prop_assert!((1..=limit).contains(&length));
                prop_assert_eq!(header.encode(), bytes);
            }
            Err(error) => {
                prop_assert!(length == 0 || length > limit);
                prop_assert_eq!(error, WireError::FrameSize { bytes: length, limit });
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..MAX_MESSAGE_BYTES)) {
        everything_is_stable(&bytes);
    }

    /// The first byte chooses the message; this test always gets past it.
    #[test]
    fn arbitrary_fields_never_panic(variant in 0_u8..12, bytes in vec(any::<u8>(), 0..200)) {
        everything_is_stable(&[&[variant][..], &bytes].concat());
        everything_is_stable(&[&wire::MAGIC[..], &bytes].concat());
    }

    #[test]
    fn blocks_hold_the_clip_whole(wav in vec(any::<u8>(), 0..70_000)) {
        let frames = wire::block_frames(wav.chunks(BLOCK_BYTES));
        let (mut rest, mut whole, mut blocks) = (&frames[..], Vec::new(), 0);
        while let Some((header, more)) = rest.split_first_chunk::<3>() {
            let header = FrameHeader::decode(*header).unwrap();
            prop_assert_eq!(header.kind, FrameKind::Block);
            let (block, more) = more.split_at(header.length.into());
            prop_assert!(block.len() == BLOCK_BYTES || more.is_empty(), "only the last is shorter");
            whole.extend_from_slice(block);
            rest = more;
            blocks += 1;
        }
        prop_assert!(rest.is_empty() && whole == wav);
        prop_assert_eq!(blocks, wav.len().div_ceil(BLOCK_BYTES));
    }

    #[test]
    fn a_shortened_reason_fits_and_is_a_beginning(words in ".{0,400}") {
        let short = wire::reason(&words);
        prop_assert!(short.len() <= MAX_REASON_BYTES && words.starts_with(&short));
        prop_assert!(short == words || short.len() > MAX_REASON_BYTES - 4);
    }
}

fn hello(name: &str, zones: Vec<String>) -> FromStation {
    FromStation::Hello { name: name.into(), zones, instance: 1, last: None, nonce: None, begun: None }
}

/// Decodes a message that was encoded without regard to its bounds.
fn decoded<M: Message>(message: &M) -> Result<M, WireError> {
    wire::decode(&wire::encode(message).unwrap())
}

#[test]
fn names_are_held_to_their_bounds() {
    let longest = "x".repeat(MAX_NAME_BYTES);
    for legal in ["a", "hall-1", "Flur 3", "été", "a.b", "1", &longest, "👂"] {
        assert!(wire::is_name(legal), "{legal}");
        decoded(&hello(legal, vec![legal.into()])).unwrap();
    }
    let too_long = format!("{longest}x");
    let too_many_bytes = "é".repeat(33);
    let illegal = [
        "",
        " a",
        "a ",
        "\u{a0}a",
        "a\nb",
        "a\0",
        "\u{7f}",
        "a\u{85}b",
        "a/b",
        "..",
        ".a",
        "-a",
        "a\\b",
        &too_long,
        &too_many_bytes,
    ];
    for illegal in illegal {
        assert!(!wire::is_name(illegal), "{illegal:?}");
        assert_eq!(decoded(&hello(illegal, vec![])), Err(WireError::Field("name")), "{illegal:?}");
        assert_eq!(decoded(&hello("a", vec![illegal.into()])), Err(WireError::Field("zones")), "{illegal:?}");
    }
}

#[test]
fn zones_and_reasons_are_held_to_their_bounds() {
    let zones = |count| vec!["z".repeat(MAX_NAME_BYTES); count];
    decoded(&hello("a", zones(MAX_ZONES))).unwrap();
    assert_eq!(decoded(&hello("a", zones(MAX_ZONES + 1))), Err(WireError::Field("zones")));
    let clip = ClipId { epoch: 1, sequence: 1 };
    for (bytes, legal) in [(0, true), (MAX_REASON_BYTES, true), (MAX_REASON_BYTES + 1, false)] {
        let reason = "r".repeat(bytes);
        assert_eq!(decoded(&FromStation::Rejected { clip, reason: reason.clone() }).is_ok(), legal);
        assert_eq!(decoded(&FromStation::Failed { clip, reason: reason.clone() }).is_ok(), legal);
        assert_eq!(decoded(&FromAnnouncer::Refused { reason }).is_ok(), legal);
    }
    let over = FromAnnouncer::Clip { header: vec![0; MAX_MESSAGE_BYTES], signature: vec![], key: vec![] };
    assert!(matches!(wire::encode(&over), Err(WireError::FrameSize { .. })));
}

#[test]
fn a_length_that_lies_allocates_nothing_and_fails() {
    // Hello with a name, zones and a header, each of 2^64 - 1 items.
    let endless = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for start in [&[0][..], &[0, 1, b'a'], &[3]] {
        let bytes = [start, &endless, &[b'x'; 100]].concat();
        assert_eq!(wire::decode::<FromStation>(&bytes), Err(WireError::Malformed(bytes.len())));
        assert_eq!(wire::decode::<FromAnnouncer>(&bytes), Err(WireError::Malformed(bytes.len())));
    }
}

#[test]
fn header_fields_are_held_to_their_bounds() {
    let header = ClipHeader {
        id: ClipId { epoch: 1, sequence: 2 },
        created_unix_ms: 3,
        expires_unix_ms: 4,
        format: Format { wav_bytes: 46, rate_hz: 8_000 },
        sha256: [5; 32],
        priority: Priority::High,
        zones: vec!["north".into()],
    };
    let good = header.encode();
    assert_eq!((good.len(), good[75]), (77 + 6, 2));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        ClipHeader::decode(&bytes)
    };
    assert_eq!(with(0, 1), Err(WireError::Header(good.len())));
    for beyond in [4, 255] {
        assert_eq!(with(75, beyond), Err(WireError::Field("priority")));
    }
    for channels in [0, 2, 255] {
        assert_eq!(with(41, channels), Err(WireError::Field("channels")));
    }
    for bits in [0, 8, 24] {
        assert_eq!(with(42, bits), Err(WireError::Field("bits a sample")));
    }
    assert!(with(76, 2).is_err() && with(76, 0).is_err() && with(77, 200).is_err() && with(77, 4).is_err());
    assert_eq!(with(78, 0xff), Err(WireError::Field("zones")), "no UTF-8");
    assert_eq!(with(78, b'/'), Err(WireError::Field("zones")));
    let crowded = ClipHeader { zones: vec!["z".into(); MAX_ZONES + 1], ..header };
    assert_eq!(ClipHeader::decode(&crowded.encode()), Err(WireError::Field("zones")));
}

#[test]
fn golden_vectors() {
    let clip = ClipId { epoch: 300, sequence: 2 };
    let receipt =
        Receipt { clip, frames: 128, start_error_us: -2, max_error_us: 3, underruns: 1, uncertainty_us: 200 };
    let nonce = std::array::from_fn(|at| at as u8);
    let offer = |bytes| Offer { header: vec![9], signature: vec![7; bytes], key: vec![8; bytes / 2] };
    let from_station: [(FromStation, &[u8]); 15] = [
        (
            FromStation::Hello {
                name: "é".into(),
                zones: vec!["z".into()],
                instance: 127,
                last: Some(receipt),
                nonce: None,
                begun: None,
            },
            &[0, 2, 0xc3, 0xa9, 1, 1, b'z', 127, 1, 0xac, 2, 2, 0x80, 1, 3, 3, 1, 0xc8, 1, 0, 0],
        ),
        (
            FromStation::Hello {
                name: "a".into(),
                zones: vec![],
                instance: 0,
                last: None,
                nonce: Some(nonce),
                begun: Some(clip),
            },
            &[&[0, 1, b'a', 0, 0, 0, 1][..], &nonce, &[1, 0xac, 2, 2]].concat(),
        ),
        (FromStation::Ping { t1_us: 16_384 }, &[1, 0x80, 0x80, 1]),
        (FromStation::Verified { clip, lead_us: 1 }, &[2, 0xac, 2, 2, 1]),
        (FromStation::Rejected { clip, reason: "no".into() }, &[3, 0xac, 2, 2, 2, b'n', b'o']),
        (FromStation::Playing { clip }, &[4, 0xac, 2, 2]),
        (FromStation::Played(receipt), &[5, 0xac, 2, 2, 0x80, 1, 3, 3, 1, 0xc8, 1]),
        (FromStation::Failed { clip, reason: String::new() }, &[6, 0xac, 2, 2, 0]),
        (FromStation::Goodbye, &[7]),
        (FromStation::AskTime { nonce }, &[&[8][..], &nonce].concat()),
        (FromStation::Queued { clip }, &[10, 0xac, 2, 2]),
        (FromStation::Talkback(offer(0)), &[11, 1, 9, 0, 0]),
        (
            FromStation::Talkback(offer(SIGNATURE_BYTES)),
            &[&[11, 1, 9, 64][..], &[7; 64], &[32], &[8; 32]].concat(),
        ),
        (FromStation::Health { fault: None }, &[9, 0]),
        (FromStation::Health { fault: Some("no".into()) }, &[9, 1, 2, b'n', b'o']),
    ];
    for (message, bytes) in from_station {
        assert_eq!(wire::encode(&message).unwrap(), bytes, "{message:?}");
        assert_eq!(wire::decode::<FromStation>(bytes).unwrap(), message);
    }
    let signature = vec![0x5a; SIGNATURE_BYTES];
    let statement = Statement { unix_ms: 300, signature: signature.clone() };
    let key = vec![0xa5; CLIP_KEY_BYTES];
    for beyond in [&[11, 1, 9, 1, 7, 0][..], &[11, 1, 9, 0, 1, 8]] {
        assert!(matches!(wire::decode::<FromStation>(beyond), Err(WireError::Field(_))));
    }
    let no = || "no".to_owned();
    let from_announcer: [(FromAnnouncer, &[u8]); 19] = [
        (
            FromAnnouncer::Welcome { clock: u64::MAX, site: None },
            &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0],
        ),
        (
            FromAnnouncer::Welcome { clock: 1, site: Some(([7; 32], statement.clone())) },
            &[&[0, 1, 1][..], &[7; 32], &[0xac, 2, 64], &signature].concat(),
        ),
        (FromAnnouncer::Refused { reason: "a".into() }, &[1, 1, b'a']),
        (FromAnnouncer::Pong { t1_us: 0, t2_us: 1, t3_us: 300 }, &[2, 0, 1, 0xac, 2]),
        (FromAnnouncer::Clip { header: vec![9, 8], signature: vec![], key: vec![] }, &[3, 2, 9, 8, 0, 0]),
        (
            FromAnnouncer::Clip { header: vec![9], signature: signature.clone(), key: key.clone() },
            &[&[3, 1, 9, 64][..], &signature, &[32], &key].concat(),
        ),
        (FromAnnouncer::Time(statement), &[&[5, 0xac, 2, 64][..], &signature].concat()),
        (FromAnnouncer::PlayAt { clip, instant_us: 5 }, &[4, 0xac, 2, 2, 5]),
        (FromAnnouncer::Behind { clip, behind_us: 300 }, &[13, 0xac, 2, 2, 0xac, 2]),
        (FromAnnouncer::Noted { clip }, &[6, 0xac, 2, 2]),
        (FromAnnouncer::Yield, &[8]),
        (FromAnnouncer::Talkback(Answer::Send), &[9, 0]),
        (FromAnnouncer::Talkback(Answer::Wait), &[9, 1]),
        (FromAnnouncer::Talkback(Answer::Later { reason: no() }), &[9, 2, 2, b'n', b'o']),
        (FromAnnouncer::Talkback(Answer::Heard), &[9, 3]),
        (FromAnnouncer::Talkback(Answer::Kept { reason: no() }), &[9, 4, 2, b'n', b'o']),
        (FromAnnouncer::Talkback(Answer::Refused { reason: no() }), &[9, 5, 2, b'n', b'o']),
        (FromAnnouncer::Volume { volume: None }, &[7, 0]),
        (FromAnnouncer::Volume { volume: Volume::from_db(-6.5) }, &[7, 1, 0x93, 0x0a]),
    ];
    // +0.01 dB, and 0.01 dB below the lowest volume.
    for beyond in [&[7, 1, 2][..], &[7, 1, 0xe1, 0x5d]] {
        assert_eq!(wire::decode::<FromAnnouncer>(beyond), Err(WireError::Field("volume")));
    }
    for (message, bytes) in from_announcer {
        assert_eq!(wire::encode(&message).unwrap(), bytes, "{message:?}");
        assert_eq!(wire::decode::<FromAnnouncer>(bytes).unwrap(), message);
    }
    assert_eq!(&Preface::of_station(Mode::Open).encode(), b"BULLHORN\x00\x01\x00\x01");
    for (status, byte) in [
        (Status::Ready, 0),
        (Status::OtherVersion, 1),
        (Status::OtherMode, 2),
        (Status::NotBullhorn, 3),
        (Status::Busy, 4),
    ] {
        let bytes = Preface::of_announcer(Mode::Open, status).encode();
        assert_eq!(bytes[..], [b"BULLHORN\x00\x01\x00", &[byte][..]].concat());
    }
    assert_eq!(FrameHeader { kind: FrameKind::Block, length: 16_384 }.encode(), [2, 0x40, 0]);
    assert_eq!(Preface::decode(b"BULLHORM\x00\x01\x00\x00"), Err(WireError::NotBullhorn));
    assert_eq!(clip.to_string(), "0000012c-2");
}
