//! Clips and instants that are not what was announced, sent to a real station.

use std::time::Duration;

use bullhorn::wire::{BLOCK_BYTES, ClipHeader, ClipId, FromAnnouncer, FromStation};

use crate::hostile::Cases;
use crate::hostile::station::{Scene, header_of};
use crate::peer::{Heard, blocks, clip_message, clip_of, wav};

#[tokio::test(flavor = "multi_thread")]
async fn clips_that_are_not_what_was_announced() {
    let good = wav(8_000, &clip_of(20_000));
    let mut cases = Cases::default();

    let bytes = good.clone();
    cases.add("a wrong hash", async move {
        let mut scene = Scene::new().await;
        let header = ClipHeader { sha256: [7; 32], ..header_of(1, 8_000, &bytes) };
        let peer = scene.offers(&header, &bytes).await;
        scene.rejected(peer, header.id, "the SHA-256 does not match").await;
        scene.ends_well().await;
    });
    let bytes = good.clone();
    cases.add("a bit that fell over", async move {
        let mut scene = Scene::new().await;
        let header = header_of(1, 8_000, &bytes);
        let mut torn = bytes.clone();
        torn[20_000] ^= 1;
        let peer = scene.offers(&header, &torn).await;
        scene.rejected(peer, header.id, "the SHA-256 does not match").await;
        // Sent again, and intact this time.
        let peer = scene.offers(&header, &bytes).await;
        scene.plays(peer, header.id, 0).await;
        scene.ends_well().await;
    });
    // Each byte of the WAV's own header, changed, with the hash of the changed file.
    for at in [0, 4, 8, 12, 16, 20, 22, 24, 28, 32, 34, 36, 40] {
        let mut bytes = good.clone();
        bytes[at] ^= 3;
        cases.add(format!("byte {at} of the WAV's header"), async move {
            let mut scene = Scene::new().await;
            let header = header_of(1, 8_000, &bytes);
            let peer = scene.offers(&header, &bytes).await;
            scene.rejected(peer, header.id, "the WAV's own header disagrees").await;
            scene.ends_well().await;
        });
    }
    let bytes = good.clone();
    cases.add("a last block that is too long", async move {
        let mut scene = Scene::new().await;
        let header = header_of(1, 8_000, &bytes);
        let longer = [&bytes[..], &[0; 2]].concat();
        let peer = scene.offers(&header, &longer).await;
        scene.rejected(peer, header.id, "40046 bytes came of a clip that was announced as 40044").await;
        scene.ends_well().await;
    });
    let bytes = good.clone();
    cases.add("a block too many", async move {
        let mut scene = Scene::new().await;
        let mut peer = scene.offers(&header_of(1, 8_000, &bytes), &bytes).await;
        peer.frame(2, &[0; 100]).await;
        scene.hung_up(peer, "has no place here").await;
        scene.ends_well().await;
    });
    let bytes = good.clone();
    cases.add("an end before the last block", async move {
        let mut scene = Scene::new().await;
        let peer = scene.offers(&header_of(1, 8_000, &bytes), &bytes[..2 * BLOCK_BYTES]).await;
        drop(peer);
        scene.waits("").await;
        scene.ends_well().await;
    });
    let bytes = good.clone();
    cases.add("another clip inside the clip", async move {
        let mut scene = Scene::new().await;
        let header = header_of(1, 8_000, &bytes);
        let mut peer = scene.offers(&header, &bytes[..BLOCK_BYTES]).await;
        peer.say(&clip_message(header.encode())).await;
        scene.hung_up(peer, "out of turn").await;
        scene.ends_well().await;
    });
    let bytes = good.clone();
    cases.add("two clips on one connection", async move {
        let mut scene = Scene::new().await;
        let header = header_of(1, 8_000, &bytes);
        let mut peer = scene.offers(&header, &bytes).await;
        scene.verified(&mut peer, header.id).await;
        peer.say(&clip_message(header_of(2, 8_000, &bytes).encode())).await;
        scene.hung_up(peer, "out of turn").await;
        scene.ends_well().await;
    });
    cases.add("eleven megabytes for another zone are skipped", async move {
        let mut scene = Scene::new().await;
        let bytes = wav(48_000, &clip_of(48_000 * 119));
        let header = ClipHeader { zones: vec!["cellar".into()], ..header_of(1, 48_000, &bytes) };
        let peer = scene.offers(&header, &bytes).await;
        scene.rejected(peer, header.id, "the clip is for other zones").await;
        scene.ends_well().await;
    });
    cases.add("a refused clip that comes slowly is skipped all the same", async move {
        let scene = Scene::new().await;
        let bytes = wav(8_000, &clip_of(20_000));
        let header = ClipHeader { zones: vec!["cellar".into()], ..header_of(1, 8_000, &bytes) };
        let mut peer = scene.offers(&header, &bytes[..100]).await;
        let rejected = scene.next(&mut peer).await;
        assert!(matches!(rejected, Heard::Message(FromStation::Rejected { .. })), "{rejected:?}");
        // Longer than the Noted may take, a block at a time: this tests the time.
        let mut pulse = tokio::time::interval(Duration::from_millis(800));
        for _ in 0..6 {
            pulse.tick().await;
            peer.frame(2, &[0; 1_000]).await;
        }
        peer.say(&FromAnnouncer::Noted { clip: header.id }).await;
        assert_eq!(scene.next(&mut peer).await, Heard::End);
        scene.ends_well().await;
    });
    cases.all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instants_and_repetitions() {
    let good = wav(8_000, &clip_of(800));
    let mut cases = Cases::default();
    let bytes = good.clone();
    cases.add("the instant of another clip", async move {
        let mut scene = Scene::new().await;
        let header = header_of(1, 8_000, &bytes);
        let mut peer = scene.offers(&header, &bytes).await;
        scene.verified(&mut peer, header.id).await;
        let clip = ClipId { sequence: 2, ..header.id };
        peer.say(&FromAnnouncer::PlayAt { clip, instant_us: 0 }).await;
        scene.hung_up(peer, "out of turn").await;
        scene.ends_well().await;
    });
    for instant_us in [u64::MAX, u64::MAX / 2, 3_600_000_000] {
        let bytes = good.clone();
        cases.add(format!("the instant {instant_us}"), async move {
            let scene = Scene::new().await;
            let header = header_of(1, 8_000, &bytes);
            let mut peer = scene.offers(&header, &bytes).await;
            scene.verified(&mut peer, header.id).await;
            // Its pings must be answered first; otherwise it has no clock by which to judge the instant.
            let Heard::Message(FromStation::Ping { t1_us }) = peer.hear().await else { panic!("no ping") };
            let t2_us = scene.now_us();
            peer.say(&FromAnnouncer::Pong { t1_us, t2_us, t3_us: t2_us }).await;
            peer.say(&FromAnnouncer::PlayAt { clip: header.id, instant_us }).await;
            match scene.next(&mut peer).await {
                Heard::Message(FromStation::Failed { clip, reason }) => {
                    assert!(clip == header.id && reason.contains("out of reach"), "{reason}");
                }
                other => panic!("not failed but {other:?}"),
            }
            peer.say(&FromAnnouncer::Noted { clip: header.id }).await;
            assert_eq!(scene.next(&mut peer).await, Heard::End);
            scene.ends_well().await;
        });
    }
    let bytes = good.clone();
    cases.add("an instant that has passed, and then the clip again", async move {
        let mut scene = Scene::new().await;
        let header = header_of(1, 8_000, &bytes);
        let peer = scene.offers(&header, &bytes).await;
        let receipt = scene.plays(peer, header.id, 0).await;
        assert!(receipt.start_error_us > 0, "it is late and says so: {receipt:?}");
        let before = std::fs::metadata(&scene.heard[0]).unwrap().modified().unwrap();
        for _ in 0..2 {
            let (mut peer, last) = scene.greeted().await;
            assert_eq!(last, Some(receipt));
            peer.say(&FromAnnouncer::Welcome { clock: 5, site: None }).await;
            peer.say(&clip_message(header.encode())).await;
            peer.bytes(&blocks(&bytes)).await;
            scene.rejected(peer, header.id, "it was played already").await;
        }
        assert_eq!(std::fs::metadata(&scene.heard[0]).unwrap().modified().unwrap(), before);
        scene.ends_well().await;
    });
    let bytes = good.clone();
    cases.add("a note for another clip", async move {
        let mut scene = Scene::new().await;
        let header = header_of(1, 8_000, &bytes);
        let mut peer = scene.offers(&header, &bytes).await;
        scene.verified(&mut peer, header.id).await;
        peer.say(&FromAnnouncer::PlayAt { clip: header.id, instant_us: 0 }).await;
        while !matches!(scene.next(&mut peer).await, Heard::Message(FromStation::Played(_))) {}
        peer.say(&FromAnnouncer::Noted { clip: ClipId { epoch: 0, sequence: 0 } }).await;
        scene.heard.push(scene.hall.dir().join(format!("hall-1-{}.wav", header.id)));
        scene.hung_up(peer, "out of turn").await;
        scene.ends_well().await;
    });
    let bytes = good.clone();
    cases.add("a link that breaks while it plays", async move {
        let mut scene = Scene::new().await;
        let header = header_of(1, 8_000, &bytes);
        let mut peer = scene.offers(&header, &bytes).await;
        scene.verified(&mut peer, header.id).await;
        peer.say(&FromAnnouncer::PlayAt { clip: header.id, instant_us: 0 }).await;
        while !matches!(scene.next(&mut peer).await, Heard::Message(FromStation::Playing { .. })) {}
        drop(peer);
        scene.heard.push(scene.hall.dir().join(format!("hall-1-{}.wav", header.id)));
        let (peer, last) = scene.greeted().await;
        assert_eq!(last.map(|receipt| (receipt.clip, receipt.frames)), Some((header.id, 800)));
        drop(peer);
        scene.ends_well().await;
    });
    cases.all().await;
}
