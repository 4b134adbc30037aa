//! Live speech of liars: announcers with a wrong start, wrong blocks or a wrong end, and stations with wrong receipts.

use std::time::Duration;

use bullhorn::event::{Event, Outcome};
use bullhorn::keys::AnnouncerKeys;
use bullhorn::seal;
use bullhorn::wire::{ClipId, FromAnnouncer, FromStation, LiveHeader, LiveReceipt};
use sha2::{Digest, Sha256};

use crate::attacks::building::Disk;
use crate::attacks::mask::{Mask, Talk};
use crate::peer::{Hall, Heard, Office, RawStation, clip_of};

/// The time according to the announcer.
const NOW_MS: u64 = 1_790_000_000_000;
const RATE_HZ: u32 = 8_000;
const BLOCKS: usize = 10;

/// A header and a signature.
type Signed = (Vec<u8>, Vec<u8>);

/// A station that has pinned an announcer played by the test.
async fn scene() -> (Mask, Hall, Disk) {
    let keys = AnnouncerKeys::generate().unwrap();
    let mut mask = Mask::of(&keys).await;
    let (disk, office) = (Disk::new(), Disk::new());
    let book = bullhorn::invite::InviteBook::new(&office.folder);
    let invite = book.issue(&keys, bullhorn::invite::DEFAULT_VALIDITY, 0).unwrap();
    mask.secret = Some(invite.secret().clone());
    let hall = disk.hall(mask.address(), "hall-1", Some(invite));
    (mask, hall, disk)
}

/// The header of live speech that starts in half a second.
fn header(mask: &Mask, sequence: u64) -> LiveHeader {
    LiveHeader {
        id: ClipId { epoch: 7, sequence },
        created_unix_ms: NOW_MS,
        expires_unix_ms: NOW_MS + 60_000,
        rate_hz: RATE_HZ,
        block_frames: LiveHeader::block_frames_at(RATE_HZ),
        instant_us: mask.now_us() + 500_000,
        frames: 0,
        sha256: [0; 32],
        priority: Default::default(),
        zones: vec![],
    }
}

fn samples() -> Vec<u8> {
    clip_of(160 * BLOCKS as u32).iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

fn signed(keys: &AnnouncerKeys, header: &LiveHeader) -> Signed {
    let encoded = header.encode();
    let signature = seal::sign_live(keys, &encoded).to_vec();
    (encoded, signature)
}

async fn start(talk: &mut Talk<'_>, (header, signature): Signed) {
    talk.say(FromAnnouncer::LiveStart { header, signature, next: 0 }).await;
}

/// Sends all of the speech, and then claims at the end that it was `claimed`.
async fn speak(talk: &mut Talk<'_>, mask: &Mask, header: &LiveHeader, claimed: &[u8]) {
    start(talk, signed(&mask.signer, header)).await;
    for (number, block) in samples().chunks(320).enumerate() {
        let (clip, number, samples) = (header.id, number as u32, block.to_vec());
        talk.say(FromAnnouncer::LiveBlock { clip, number, samples }).await;
    }
    let sha256 = Sha256::digest(claimed).into();
    let (header, signature) =
        signed(&mask.signer, &LiveHeader { frames: 160 * BLOCKS as u64, sha256, ..header.clone() });
    talk.say(FromAnnouncer::LiveEnd { header, signature }).await;
}

async fn hears(talk: &mut Talk<'_>, id: ClipId) {
    assert_eq!(talk.next().await, Some(FromStation::Playing { clip: id }));
    let heard = talk.next().await;
    let Some(FromStation::LivePlayed(receipt)) = heard else { panic!("no receipt but {heard:?}") };
    let counts = (receipt.clip, receipt.played, receipt.concealed, receipt.late);
    assert_eq!(counts, (id, BLOCKS as u32, 0, 0));
    talk.say(FromAnnouncer::Noted { clip: id }).await;
    assert_eq!(talk.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_signed_as_it_is_is_not_heard() {
    let (mask, hall, _disk) = scene().await;
    let stranger = AnnouncerKeys::generate().unwrap();
    let good = |mask: &Mask| header(mask, 5);
    let refused: [(&str, Signed); 6] = [
        ("signature", signed(&stranger, &good(&mask))),
        ("signature", {
            // Signed like a clip, by the right announcer.
            let encoded = good(&mask).encode();
            let signature = seal::sign(&mask.signer, &encoded).to_vec();
            (encoded, signature)
        }),
        ("not signed", (good(&mask).encode(), vec![])),
        ("zones", signed(&mask.signer, &LiveHeader { zones: vec!["gym".into()], ..good(&mask) })),
        (
            "expired",
            signed(
                &mask.signer,
                &LiveHeader {
                    created_unix_ms: NOW_MS - 90_000,
                    expires_unix_ms: NOW_MS - 1_000,
                    ..good(&mask)
                },
            ),
        ),
        ("not valid", signed(&mask.signer, &LiveHeader { frames: 100, ..good(&mask) })),
    ];
    for (why, message) in refused {
        let mut talk = mask.greet(NOW_MS).await;
        start(&mut talk, message).await;
        for number in 0..3 {
            let samples = vec![1; 320];
            talk.say(FromAnnouncer::LiveBlock { clip: good(&mask).id, number, samples }).await;
        }
        let reason = talk.refusal().await;
        assert!(reason.contains(why), "{reason:?} does not say {why:?}");
    }
    // The same station plays genuine speech, and plays it once.
    let header = header(&mask, 5);
    let mut talk = mask.greet(NOW_MS).await;
    speak(&mut talk, &mask, &header, &samples()).await;
    hears(&mut talk, header.id).await;
    let mut talk = mask.greet(NOW_MS).await;
    start(&mut talk, signed(&mask.signer, &header)).await;
    let reason = talk.refusal().await;
    assert!(reason.contains("heard before"), "{reason}");
    assert_eq!(hall.files().len(), 1);
    hall.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_and_ends_without_their_start_end_the_connection() {
    let (mask, hall, _disk) = scene().await;
    let id = ClipId { epoch: 7, sequence: 5 };
    let block = |clip, number, bytes| FromAnnouncer::LiveBlock { clip, number, samples: vec![1; bytes] };
    let mut sequence = 5;
    for (begun, message) in [
        (false, block(id, 0, 320)),
        (false, FromAnnouncer::LiveEnd { header: header(&mask, 5).encode(), signature: vec![0; 64] }),
        (true, block(ClipId { epoch: 7, sequence: 99 }, 0, 320)),
        (true, block(id, 0, 322)),
        (true, FromAnnouncer::LiveEnd { header: header(&mask, 5).encode(), signature: vec![0; 64] }),
        (true, FromAnnouncer::LiveEnd { header: vec![3, 3, 3], signature: vec![0; 64] }),
        (true, FromAnnouncer::PlayAt { clip: id, instant_us: 5 }),
    ] {
        sequence += 1;
        let mut talk = mask.greet(NOW_MS).await;
        let header = header(&mask, sequence);
        if begun {
            start(&mut talk, signed(&mask.signer, &header)).await;
        }
        let message = match message {
            FromAnnouncer::LiveBlock { clip, number, samples } if clip == id => {
                FromAnnouncer::LiveBlock { clip: header.id, number, samples }
            }
            other => other,
        };
        let words = format!("{message:?}");
        talk.say(message).await;
        let answer = talk.next().await;
        assert!(matches!(answer, None | Some(FromStation::Playing { .. })), "{words}: {answer:?}");
        assert!(answer.is_none() || talk.next().await.is_none(), "{words}");
    }
    // Block numbers that go backwards, after good ones.
    let header = header(&mask, 50);
    let mut talk = mask.greet(NOW_MS).await;
    start(&mut talk, signed(&mask.signer, &header)).await;
    for number in [3, 2] {
        talk.say(block(header.id, number, 320)).await;
    }
    assert!(!matches!(talk.next().await, Some(FromStation::LivePlayed(_))));
    hall.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_whose_hash_is_another_is_not_reported_as_heard() {
    let (mask, mut hall, _disk) = scene().await;
    let header = header(&mask, 5);
    let mut talk = mask.greet(NOW_MS).await;
    speak(&mut talk, &mask, &header, b"something else").await;
    assert_eq!(talk.next().await, Some(FromStation::Playing { clip: header.id }));
    let heard = talk.next().await;
    let Some(FromStation::Failed { clip, reason }) = heard else { panic!("{heard:?}") };
    assert_eq!(clip, header.id);
    assert!(reason.contains("not what the announcer says it sent"), "{reason}");
    talk.say(FromAnnouncer::Noted { clip }).await;
    let failed = |event: &Event| match event {
        Event::Failed { outcome, .. } => Some(*outcome),
        _ => None,
    };
    assert_eq!(hall.log.until("the failure", failed).await, Outcome::Interrupted);
    hall.close().await;
}

/// A receipt counts only while it is due, once, and if it adds up.
#[tokio::test(flavor = "multi_thread")]
async fn receipts_that_cannot_be_are_worth_nothing() {
    let mut office = Office::open(RATE_HZ, &clip_of(160 * BLOCKS as u32), Duration::from_secs(60)).await;
    let receipt = |clip, played, concealed, late| {
        FromStation::LivePlayed(LiveReceipt {
            clip,
            played,
            concealed,
            late,
            start_error_us: 0,
            max_error_us: 0,
            underruns: 0,
            uncertainty_us: 0,
        })
    };
    let mut early = RawStation::join(office.address, "early", 1).await;
    early.say(&receipt(ClipId { epoch: 1, sequence: 1 }, 1, 0, 0)).await;
    early.end().await;
    let mut stations = Vec::new();
    for name in ["more", "less", "later", "other", "honest"] {
        stations.push(RawStation::join(office.address, name, 1).await);
        office.joined(name).await;
    }
    office.log.mark();
    office.speak().await;
    let blocks = BLOCKS as u32;
    for (station, (played, concealed, late)) in stations.iter_mut().zip([
        (blocks, 1, 0),
        (blocks - 1, 0, 0),
        (blocks - 1, 1, 2),
        (blocks, 0, 0),
        (blocks - 1, 1, 1),
    ]) {
        let mut id = None;
        loop {
            match station.next().await {
                Heard::Message(FromAnnouncer::LiveStart { header, next, .. }) => {
                    assert_eq!(next, 0);
                    id = Some(LiveHeader::decode(&header).unwrap().id);
                }
                Heard::Message(FromAnnouncer::LiveBlock { clip, .. }) => assert_eq!(Some(clip), id),
                Heard::Message(FromAnnouncer::LiveEnd { header, .. }) => {
                    assert_eq!(LiveHeader::decode(&header).unwrap().blocks(), blocks);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        let is_other = played == blocks && concealed == 0;
        let id = id.filter(|_| !is_other).unwrap_or(ClipId { epoch: 1, sequence: 1 });
        station.say(&receipt(id, played, concealed, late)).await;
    }
    let (played, expected, missing) = office.verdict().await;
    let missing: Vec<&str> = missing.iter().map(|(station, _)| station.as_str()).collect();
    // One block in ten is more than one in twenty: the honest station did not hear enough either.
    assert_eq!(
        (played, expected, missing),
        (0, 6, vec!["early", "honest", "later", "less", "more", "other"])
    );
    assert_eq!(
        office.log.count(|event| matches!(event, Event::LivePlayed { .. })),
        1,
        "{:?}",
        office.log.seen
    );
    drop(stations);
    assert!(!office.close().await);
}
