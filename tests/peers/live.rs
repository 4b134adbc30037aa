//! Live speech on the wire: its header and messages as `docs/protocol.md` describes them, and their bounds.

use bullhorn::priority::Priority;
use bullhorn::wire::{
    self, ClipHeader, ClipId, FromAnnouncer, FromStation, LIVE_BLOCK_MS, LiveHeader, LiveReceipt,
    MAX_LIVE_BLOCK_BYTES, MAX_LIVE_BLOCKS, MAX_ZONES, SIGNATURE_BYTES, WireError,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::wire::{clip_id, name};

const PAGE: &str = include_str!("../../docs/protocol.md");

pub fn live_receipt() -> impl Strategy<Value = LiveReceipt> {
    (clip_id(), any::<[u32; 5]>(), any::<i64>(), any::<u64>()).prop_map(
        |(clip, [played, concealed, late, underruns, uncertainty_us], start_error_us, max_error_us)| {
            LiveReceipt {
                clip,
                played,
                concealed,
                late,
                start_error_us,
                max_error_us,
                underruns,
                uncertainty_us,
            }
        },
    )
}

/// Any message of live speech.
pub fn message() -> impl Strategy<Value = FromAnnouncer> {
    let signature = |secured| vec![7; if secured { SIGNATURE_BYTES } else { 0 }];
    prop_oneof![
        (vec(any::<u8>(), 0..1_200), any::<bool>(), any::<u32>()).prop_map(move |(header, secured, next)| {
            FromAnnouncer::LiveStart { header, signature: signature(secured), next }
        }),
        (clip_id(), any::<u32>(), vec(any::<[u8; 2]>(), 1..=MAX_LIVE_BLOCK_BYTES / 2)).prop_map(
            |(clip, number, samples)| FromAnnouncer::LiveBlock { clip, number, samples: samples.concat() }
        ),
        (vec(any::<u8>(), 0..1_200), any::<bool>()).prop_map(move |(header, secured)| {
            FromAnnouncer::LiveEnd { header, signature: signature(secured) }
        }),
    ]
}

fn live_header() -> impl Strategy<Value = LiveHeader> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), 0..=u64::from(MAX_LIVE_BLOCKS) * 160);
    let priority = prop::sample::select(&Priority::ALL[..]);
    (clip_id(), numbers, 8_000_u32..=48_000, any::<[u8; 32]>(), priority, vec(name(), 0..=MAX_ZONES))
        .prop_map(|(id, numbers, rate_hz, sha256, priority, zones)| LiveHeader {
            id,
            created_unix_ms: numbers.0,
            expires_unix_ms: numbers.1,
            rate_hz,
            block_frames: LiveHeader::block_frames_at(rate_hz),
            instant_us: numbers.2,
            frames: numbers.3,
            sha256,
            priority,
            zones,
        })
}

proptest! {
    #[test]
    fn headers_round_trip_and_no_bytes_panic(header in live_header(), cut in any::<prop::sample::Index>(), bytes in vec(any::<u8>(), 0..200)) {
        let encoded = header.encode();
        prop_assert_eq!(LiveHeader::decode(&encoded), Ok(header));
        prop_assert!(LiveHeader::decode(&encoded[..cut.index(encoded.len())]).is_err());
        prop_assert!(LiveHeader::decode(&[&encoded[..], &[0]].concat()).is_err());
        prop_assert!(ClipHeader::decode(&encoded).is_err(), "one is taken for the other");
        let _ = LiveHeader::decode(&[&[3][..], &bytes].concat());
    }
}

fn header() -> LiveHeader {
    LiveHeader {
        id: ClipId { epoch: 1, sequence: 2 },
        created_unix_ms: 3,
        expires_unix_ms: 4,
        rate_hz: 16_000,
        block_frames: 320,
        instant_us: 5,
        frames: 641,
        sha256: [6; 32],
        priority: Priority::High,
        zones: vec!["gym".into()],
    }
}

#[test]
fn the_header_is_laid_out_as_the_page_says() {
    let number = |number: u64| number.to_be_bytes().to_vec();
    let fields: [(usize, &str, Vec<u8>); 12] = [
        (0, "layout", vec![3]),
        (1, "epoch", number(1)),
        (9, "sequence", number(2)),
        (17, "created", number(3)),
        (25, "expires", number(4)),
        (33, "rate", vec![0, 0, 0x3e, 0x80]),
        (37, "block", vec![1, 0x40]),
        (39, "instant", number(5)),
        (47, "frames", number(641)),
        (55, "SHA-256", vec![6; 32]),
        (87, "priority", vec![2]),
        (88, "number of zones", vec![1]),
    ];
    let encoded = header().encode();
    for (offset, name, bytes) in fields {
        assert_eq!(encoded[offset..][..bytes.len()], bytes, "{name}");
        let row = format!("| {offset} | {} | {name} |", bytes.len());
        let section = PAGE.split("## 8. Live speech").nth(1).unwrap();
        assert!(section.contains(&row), "the page does not say: {row}");
    }
    assert_eq!(encoded[89..], *b"\x03gym");
    assert_eq!((header().blocks(), header().block_us(2)), (3, 40_005));
}

#[test]
fn fields_keep_their_bounds() {
    let with = |at: usize, byte: u8| {
        let mut bytes = header().encode();
        bytes[at] = byte;
        LiveHeader::decode(&bytes)
    };
    assert_eq!(with(0, 2), Err(WireError::Header(93)), "a clip's");
    assert_eq!(with(33, 1), Err(WireError::Field("rate")));
    assert_eq!(with(38, 0x41), Err(WireError::Field("block frames")));
    assert_eq!(with(47, 1), Err(WireError::Field("frames")));
    assert_eq!(with(87, 4), Err(WireError::Field("priority")));
    assert_eq!(with(90, b'/'), Err(WireError::Field("zones")));
    assert_eq!(MAX_LIVE_BLOCK_BYTES, 48_000 * LIVE_BLOCK_MS as usize / 1_000 * 2);
    for bytes in [0, 1, MAX_LIVE_BLOCK_BYTES + 2] {
        let block = FromAnnouncer::LiveBlock { clip: header().id, number: 0, samples: vec![0; bytes] };
        let encoded = wire::encode(&block).unwrap();
        assert_eq!(wire::decode::<FromAnnouncer>(&encoded), Err(WireError::Field("samples")), "{bytes}");
    }
    let largest = FromAnnouncer::LiveBlock {
        clip: ClipId { epoch: u64::MAX, sequence: u64::MAX },
        number: u32::MAX,
        samples: vec![0xff; MAX_LIVE_BLOCK_BYTES],
    };
    wire::encode(&largest).unwrap();
}

#[test]
fn golden_vectors() {
    let clip = ClipId { epoch: 300, sequence: 2 };
    let signature = vec![0x5a; SIGNATURE_BYTES];
    let from_announcer: [(FromAnnouncer, &[u8]); 3] = [
        (
            FromAnnouncer::LiveStart { header: vec![9, 8], signature: vec![], next: 300 },
            &[10, 2, 9, 8, 0, 0xac, 2],
        ),
        (
            FromAnnouncer::LiveBlock { clip, number: 1, samples: vec![1, 0, 0xff, 0xff] },
            &[11, 0xac, 2, 2, 1, 4, 1, 0, 0xff, 0xff],
        ),
        (
            FromAnnouncer::LiveEnd { header: vec![9], signature: signature.clone() },
            &[&[12, 1, 9, 64][..], &signature].concat(),
        ),
    ];
    for (message, bytes) in from_announcer {
        assert_eq!(wire::encode(&message).unwrap(), bytes, "{message:?}");
        assert_eq!(wire::decode::<FromAnnouncer>(bytes).unwrap(), message);
    }
    let receipt = LiveReceipt {
        clip,
        played: 128,
        concealed: 3,
        late: 1,
        start_error_us: -2,
        max_error_us: 3,
        underruns: 1,
        uncertainty_us: 200,
    };
    let bytes = [12, 0xac, 2, 2, 0x80, 1, 3, 1, 3, 3, 1, 0xc8, 1];
    assert_eq!(wire::encode(&FromStation::LivePlayed(receipt)).unwrap(), bytes);
    assert_eq!(wire::decode::<FromStation>(&bytes).unwrap(), FromStation::LivePlayed(receipt));
}
