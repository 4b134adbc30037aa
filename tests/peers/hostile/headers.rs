//! Clip headers that are wrong: the station answers, plays nothing, and accepts the next clip.

use bullhorn::wire::MAX_ZONES;

use crate::hostile::Cases;
use crate::hostile::station::{Scene, header_of};
use crate::peer::{Heard, blocks, clip_message, clip_of, wav};

/// The name of a case, a change to an encoded header, and the reason that the station gives for its refusal.
type Wrong = (&'static str, fn(&mut Vec<u8>), &'static str);

const WRONG: [Wrong; 18] = [
    ("size 0", |bytes| bytes[33..37].copy_from_slice(&0_u32.to_be_bytes()), "a clip of 0 bytes cannot be"),
    ("size 44", |bytes| bytes[33..37].copy_from_slice(&44_u32.to_be_bytes()), "a clip of 44 bytes cannot be"),
    ("an odd size", |bytes| bytes[33..37].copy_from_slice(&1_645_u32.to_be_bytes()), "1645 bytes cannot be"),
    (
        "a size just over the cap",
        |bytes| bytes[33..37].copy_from_slice(&11_520_046_u32.to_be_bytes()),
        "11520046 bytes cannot be",
    ),
    ("the greatest size", |bytes| bytes[33..37].fill(0xff), "4294967295 bytes cannot be"),
    (
        "more than two minutes",
        |bytes| bytes[33..37].copy_from_slice(&11_520_044_u32.to_be_bytes()),
        "over the limit of 120 s",
    ),
    ("rate 0", |bytes| bytes[37..41].fill(0), "a clip at 0 Hz cannot be"),
    ("rate 7999", |bytes| bytes[37..41].copy_from_slice(&7_999_u32.to_be_bytes()), "7999 Hz cannot be"),
    ("rate 48001", |bytes| bytes[37..41].copy_from_slice(&48_001_u32.to_be_bytes()), "48001 Hz cannot be"),
    ("the greatest rate", |bytes| bytes[37..41].fill(0xff), "4294967295 Hz cannot be"),
    ("2 channels", |bytes| bytes[41] = 2, "the field channels is out of bounds"),
    ("8 bits", |bytes| bytes[42] = 8, "the field bits a sample is out of bounds"),
    (
        "17 zones",
        |bytes| {
            bytes[76] = MAX_ZONES as u8 + 1;
            bytes.extend([1, b'z'].repeat(MAX_ZONES + 1));
        },
        "the field zones is out of bounds",
    ),
    (
        "a zone with a slash",
        |bytes| {
            bytes[76] = 1;
            bytes.extend([1, b'/']);
        },
        "the field zones is out of bounds",
    ),
    ("a priority above all", |bytes| bytes[75] = 4, "the field priority is out of bounds"),
    ("the greatest priority", |bytes| bytes[75] = 0xff, "the field priority is out of bounds"),
    ("a header that is cut short", |bytes| bytes.truncate(50), "is malformed"),
    ("a header that is too long", |bytes| bytes.push(0), "is malformed"),
];

#[tokio::test(flavor = "multi_thread")]
async fn wrong_headers_are_rejected_with_the_reason() {
    let mut cases = Cases::default();
    for (what, change, why) in WRONG {
        cases.add(what, async move {
            let mut scene = Scene::new().await;
            let bytes = wav(8_000, &clip_of(800));
            let header = header_of(1, 8_000, &bytes);
            let mut encoded = header.encode();
            change(&mut encoded);
            let mut peer = scene.joined().await;
            peer.say(&clip_message(encoded)).await;
            peer.bytes(&blocks(&bytes)).await;
            scene.rejected(peer, header.id, why).await;
            scene.ends_well().await;
        });
    }
    cases.all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_name_no_clip_end_the_connection() {
    let mut cases = Cases::default();
    type Cut = fn(&mut Vec<u8>);
    let none: [(&str, Cut); 4] = [
        ("nothing", Vec::clear),
        ("16 bytes", |bytes| bytes.truncate(16)),
        ("layout 0", |bytes| bytes[0] = 0),
        ("layout 1", |bytes| bytes[0] = 1),
    ];
    for (what, change) in none {
        cases.add(what, async move {
            let mut scene = Scene::new().await;
            let mut encoded = header_of(1, 8_000, &wav(8_000, &[1])).encode();
            change(&mut encoded);
            let mut peer = scene.joined().await;
            peer.say(&clip_message(encoded)).await;
            assert_eq!(scene.next(&mut peer).await, Heard::End);
            scene.waits("is malformed").await;
            scene.ends_well().await;
        });
    }
    cases.all().await;
}
