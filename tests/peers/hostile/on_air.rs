//! Stations on the roster that misbehave while a page is on its way.

use std::time::Duration;

use bullhorn::wire::{ClipId, FromAnnouncer, FromStation, Receipt};
use tokio::time::{Instant, timeout};

use crate::hostile::{Cases, MARGIN, good_one_plays, office_and_hall};
use crate::peer::{Heard, Office, PATIENCE, RawStation, clip_of, hello};

const KEEP: Duration = Duration::from_secs(60);

fn receipt(clip: ClipId, frames: u64) -> Receipt {
    Receipt { clip, frames, start_error_us: 0, max_error_us: 0, underruns: 0, uncertainty_us: 0 }
}

fn verified(clip: ClipId) -> FromStation {
    FromStation::Verified { clip, lead_us: 1_000 }
}

async fn told(peer: &mut RawStation, id: ClipId) {
    let heard = peer.next().await;
    assert!(matches!(heard, Heard::Message(FromAnnouncer::PlayAt { clip, .. }) if clip == id), "{heard:?}");
}

/// Does all that a good station does, from the clip to the Noted.
async fn behaves(peer: &mut RawStation, wav: &[u8]) {
    let (header, received) = peer.whole_clip().await;
    assert!(received == wav);
    peer.say(&verified(header.id)).await;
    told(peer, header.id).await;
    peer.say(&FromStation::Playing { clip: header.id }).await;
    peer.say(&FromStation::Played(receipt(header.id, header.format.frames().into()))).await;
    assert_eq!(peer.next().await, Heard::Message(FromAnnouncer::Noted { clip: header.id }));
}

/// How far an exchange goes before its connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Stage {
    Header,
    Block,
    Whole,
    Verified,
    Told,
    Playing,
    Played,
}

const STAGES: [Stage; 7] =
    [Stage::Header, Stage::Block, Stage::Whole, Stage::Verified, Stage::Told, Stage::Playing, Stage::Played];

/// Takes the exchange to this stage, and drops the connection.
async fn goes_as_far_as(mut peer: RawStation, stage: Stage) -> ClipId {
    let header = peer.clip().await;
    if stage == Stage::Header {
        return header.id;
    }
    let mut bytes = 0;
    while bytes < header.format.wav_bytes as usize {
        match peer.next().await {
            Heard::Block(block) => bytes += block.len(),
            other => panic!("no block but {other:?}"),
        }
        if stage == Stage::Block {
            return header.id;
        }
    }
    if stage >= Stage::Verified {
        peer.say(&verified(header.id)).await;
    }
    if stage >= Stage::Told {
        told(&mut peer, header.id).await;
    }
    if stage >= Stage::Playing {
        peer.say(&FromStation::Playing { clip: header.id }).await;
    }
    if stage >= Stage::Played {
        peer.say(&FromStation::Played(receipt(header.id, 20_000))).await;
        // Waits until it has surely arrived, since a cut might overtake it.
        assert_eq!(peer.next().await, Heard::Message(FromAnnouncer::Noted { clip: header.id }));
    }
    header.id
}

/// Opens an announcer with a page of 20,000 frames, which are three blocks and take 1.25 s, and a good station.
async fn long_page(keep: Duration) -> (Office, crate::peer::Hall) {
    let mut office = Office::open(16_000, &clip_of(20_000), keep).await;
    let hall = crate::peer::Hall::open(office.address, "good");
    office.joined("good").await;
    (office, hall)
}

async fn cut_and_gone(stage: Stage) {
    let (mut office, mut hall) = long_page(Duration::ZERO).await;
    let peer = RawStation::join(office.address, "bad", 1).await;
    let bad = tokio::spawn(goes_as_far_as(peer, stage));
    good_one_plays(&mut office, &mut hall).await;
    bad.await.unwrap();
    let (played, expected, missing) = office.verdict().await;
    assert_eq!(expected, 2);
    if stage == Stage::Played {
        assert_eq!((played, &missing[..]), (2, &[][..]), "its receipt was there");
    } else {
        let [(name, reason)] = &missing[..] else { panic!("{missing:?}") };
        let cut = ["it closed the connection", "the connection broke"].iter().any(|it| reason.contains(it));
        assert!(played == 1 && name == "bad" && cut, "{stage:?}: {reason}");
    }
    office.close().await;
    hall.close().await;
}

async fn cut_and_back(stage: Stage) {
    let (mut office, mut hall) = long_page(KEEP).await;
    let address = office.address;
    let peer = RawStation::join(address, "bad", 1).await;
    let wav = office.wav.clone();
    let bad = tokio::spawn(async move {
        let id = goes_as_far_as(peer, stage).await;
        let last = (stage >= Stage::Told).then(|| receipt(id, 20_000));
        let mut peer = RawStation::open(address).await;
        let hello = FromStation::Hello {
            name: "bad".into(),
            zones: vec![],
            instance: 1,
            last,
            nonce: None,
            begun: None,
        };
        peer.say(&hello).await;
        assert!(matches!(peer.next().await, Heard::Message(FromAnnouncer::Welcome { .. })));
        if last.is_none() {
            behaves(&mut peer, &wav).await;
            assert_eq!(peer.next().await, Heard::End);
        } else {
            // It is sent nothing more.
            let second = Duration::from_secs(1);
            assert!(timeout(second, peer.next()).await.is_err(), "its receipt was in its Hello");
        }
    });
    good_one_plays(&mut office, &mut hall).await;
    assert_eq!(office.verdict().await, (2, 2, vec![]), "{stage:?}");
    bad.await.unwrap();
    assert!(office.close().await);
    hall.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_at_every_stage() {
    let mut cases = Cases::default();
    for stage in STAGES {
        cases.add(format!("gone after {stage:?}"), cut_and_gone(stage));
        cases.add(format!("back after {stage:?}"), cut_and_back(stage));
    }
    cases.all().await;
}

/// The bad station is sent the page too and misbehaves, and the verdict reports it.
async fn worst<F>(reason: &'static str, bad: impl FnOnce(RawStation) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (mut office, mut hall) = office_and_hall(Duration::ZERO).await;
    let peer = RawStation::join(office.address, "bad", 1).await;
    let bad = tokio::spawn(bad(peer));
    good_one_plays(&mut office, &mut hall).await;
    let (played, expected, missing) = office.verdict().await;
    assert_eq!((played, expected), (1, 2), "{missing:?}");
    assert_eq!(missing.len(), 1);
    assert!(missing[0].0 == "bad" && missing[0].1.contains(reason), "{missing:?}");
    bad.await.unwrap();
    office.close().await;
    hall.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_that_a_station_can_do() {
    let mut cases = Cases::default();
    let turn = "it spoke out of turn";
    cases.add(
        "a receipt before the instant",
        worst(turn, async |mut peer: RawStation| {
            let id = peer.whole_clip().await.0.id;
            peer.say(&FromStation::Played(receipt(id, 2_000))).await;
            peer.end().await;
        }),
    );
    cases.add(
        "Playing before the instant",
        worst(turn, async |mut peer: RawStation| {
            let id = peer.whole_clip().await.0.id;
            peer.say(&FromStation::Playing { clip: id }).await;
            peer.end().await;
        }),
    );
    cases.add(
        "Failed before Verified",
        worst(turn, async |mut peer: RawStation| {
            let id = peer.whole_clip().await.0.id;
            peer.say(&FromStation::Failed { clip: id, reason: "so".into() }).await;
            peer.end().await;
        }),
    );
    cases.add(
        "Verified twice",
        worst(turn, async |mut peer: RawStation| {
            let id = peer.whole_clip().await.0.id;
            peer.say(&verified(id)).await;
            peer.say(&verified(id)).await;
            peer.end().await;
        }),
    );
    cases.add(
        "Playing twice",
        worst(turn, async |mut peer: RawStation| {
            let id = peer.whole_clip().await.0.id;
            peer.say(&verified(id)).await;
            told(&mut peer, id).await;
            peer.say(&FromStation::Playing { clip: id }).await;
            peer.say(&FromStation::Playing { clip: id }).await;
            peer.end().await;
        }),
    );
    cases.add(
        "the receipt of another clip",
        worst(turn, async |mut peer: RawStation| {
            let id = peer.whole_clip().await.0.id;
            peer.say(&verified(id)).await;
            told(&mut peer, id).await;
            let other = ClipId { sequence: id.sequence + 1, ..id };
            peer.say(&FromStation::Played(receipt(other, 2_000))).await;
            peer.end().await;
        }),
    );
    cases.add(
        "a receipt forged in the next Hello",
        worst("it closed the connection", async |mut peer: RawStation| {
            let address = peer.stream.peer_addr().unwrap();
            let id = peer.whole_clip().await.0.id;
            drop(peer);
            let mut peer = RawStation::open(address).await;
            let last = Some(receipt(id, 2_000));
            peer.say(&FromStation::Hello {
                name: "bad".into(),
                zones: vec![],
                instance: 1,
                last,
                nonce: None,
                begun: None,
            })
            .await;
            peer.next().await;
        }),
    );
    cases.add(
        "Failed",
        worst("the amplifier burns", async |mut peer: RawStation| {
            let id = peer.whole_clip().await.0.id;
            peer.say(&verified(id)).await;
            told(&mut peer, id).await;
            peer.say(&FromStation::Failed { clip: id, reason: "the amplifier burns".into() }).await;
            assert_eq!(peer.next().await, Heard::Message(FromAnnouncer::Noted { clip: id }));
        }),
    );
    cases.add(
        "Goodbye",
        worst("shut down by its user", async |mut peer: RawStation| {
            peer.clip().await;
            peer.say(&FromStation::Goodbye).await;
            peer.end().await;
        }),
    );
    cases.add(
        "no receipt",
        worst("it sent no receipt", async |mut peer: RawStation| {
            let id = peer.whole_clip().await.0.id;
            peer.say(&verified(id)).await;
            told(&mut peer, id).await;
            let since = Instant::now();
            assert_eq!(peer.next().await, Heard::End);
            assert!(since.elapsed() > Duration::from_secs(5), "{:?}", since.elapsed());
        }),
    );
    cases.add(
        "silence once it has the clip",
        worst("nothing was heard of it for 2.8 s", async |mut peer: RawStation| {
            peer.whole_clip().await;
            peer.end().await;
        }),
    );
    cases.add(
        "a byte a second once it has the clip",
        worst("nothing was heard of it for 2.8 s", async |mut peer: RawStation| {
            peer.whole_clip().await;
            let since = Instant::now();
            while timeout(Duration::from_secs(1), peer.stream.peek(&mut [0])).await.is_err() {
                peer.bytes(&[1]).await;
                assert!(since.elapsed() < Duration::from_secs(3) + MARGIN);
            }
        }),
    );
    cases.all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_that_is_rejected_is_sent_once_more() {
    let (mut office, mut hall) = office_and_hall(KEEP).await;
    let address = office.address;
    let mut peer = RawStation::join(address, "bad", 1).await;
    let bad = tokio::spawn(async move {
        for round in 0..2 {
            let id = peer.clip().await.id;
            // It need not have read the blocks to report this.
            peer.say(&FromStation::Rejected { clip: id, reason: format!("torn {round}") }).await;
            loop {
                match peer.next().await {
                    Heard::Block(_) => (),
                    heard => break assert_eq!(heard, Heard::Message(FromAnnouncer::Noted { clip: id })),
                }
            }
            drop(peer);
            peer = RawStation::join(address, "bad", 1).await;
        }
        peer
    });
    good_one_plays(&mut office, &mut hall).await;
    let missing = vec![("bad".to_owned(), "it refused the clip: torn 1".to_owned())];
    assert_eq!(office.verdict().await, (1, 2, missing));
    // The clip is not sent a third time: the next clip that the station receives is the next page.
    let mut peer = bad.await.unwrap();
    let bad = tokio::spawn(async move {
        let id = peer.clip().await.id;
        peer.say(&FromStation::Rejected { clip: id, reason: "torn".into() }).await;
        id.sequence
    });
    good_one_plays(&mut office, &mut hall).await;
    assert_eq!(bad.await.unwrap(), 2);
    hall.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_takes_nothing_stalls_only_itself() {
    // 110 s at 48,000 Hz: more than any socket buffer holds.
    let mut office = Office::open(48_000, &clip_of(48_000 * 110), Duration::ZERO).await;
    let mut good = RawStation::join(office.address, "good", 1).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    let stream = timeout(PATIENCE, socket.connect(office.address)).await.unwrap().unwrap();
    let mut bad = RawStation::over(stream);
    bad.bytes(b"BULLHORN\x00\x01\x00\x00").await;
    bad.preface().await;
    bad.say(&hello("bad", 2)).await;
    assert!(matches!(bad.hear().await, Heard::Message(FromAnnouncer::Welcome { .. })));
    let wav = office.wav.clone();
    office.announce().await;
    let sent = Instant::now();
    behaves(&mut good, &wav).await;
    assert!(sent.elapsed() < Duration::from_secs(10), "{:?}", sent.elapsed());
    let (played, expected, missing) = office.verdict().await;
    assert_eq!((played, expected), (1, 2));
    let stalled = ["it does not take what is sent to it", "timed out"];
    assert!(missing[0].0 == "bad" && stalled.iter().any(|it| missing[0].1.contains(it)), "{missing:?}");
    office.close().await;
}
