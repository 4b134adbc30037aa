//! What a station has learnt about its announcer's clock outlives its connections, and it claims no more than that.

use std::time::Duration;

use crate::peer::{Hall, Heard, PATIENCE, RawAnnouncer, clip_of, wav};
use bullhorn::clip::Format;
use bullhorn::wire::{self, ClipHeader, ClipId, FromAnnouncer, FromStation, Mode, Preface, Receipt, Status};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

/// An announcer that the test plays.
struct Announcer {
    listener: TcpListener,
    started: Instant,
    sequence: u64,
}

impl Announcer {
    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Accepts the station's connection and welcomes it.
    async fn welcome(&self, clock: u64) -> RawAnnouncer {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("it does not dial").unwrap();
        let mut peer = RawAnnouncer::over(stream);
        peer.preface().await;
        peer.bytes(&Preface::of_announcer(Mode::Open, Status::Ready).encode()).await;
        assert!(matches!(peer.hear().await, Heard::Message(FromStation::Hello { .. })));
        peer.say(&FromAnnouncer::Welcome { clock, site: None }).await;
        peer
    }

    /// Answers `pings` pings, and returns how long that took.
    async fn answer(&self, peer: &mut RawAnnouncer, pings: usize) -> Duration {
        let began = Instant::now();
        for _ in 0..pings {
            let Heard::Message(FromStation::Ping { t1_us }) = peer.hear().await else { panic!("no ping") };
            let t2_us = self.now_us();
            peer.say(&FromAnnouncer::Pong { t1_us, t2_us, t3_us: t2_us }).await;
        }
        began.elapsed()
    }

    /// Has the station play a short clip, and answers no ping meanwhile.
    async fn announce(&mut self, mut peer: RawAnnouncer) -> Receipt {
        self.sequence += 1;
        let wav = wav(16_000, &clip_of(400));
        let header = ClipHeader {
            id: ClipId { epoch: 9, sequence: self.sequence },
            created_unix_ms: 0,
            expires_unix_ms: u64::MAX,
            format: Format { wav_bytes: wav.len() as u32, rate_hz: 16_000 },
            sha256: Sha256::digest(&wav).into(),
            priority: Default::default(),
            zones: vec![],
        };
        peer.say(&FromAnnouncer::Clip { header: header.encode(), signature: vec![], key: vec![] }).await;
        peer.bytes(&wire::block_frames(wav.chunks(wire::BLOCK_BYTES))).await;
        loop {
            match peer.hear().await {
                Heard::Message(FromStation::Verified { clip, .. }) => {
                    let instant_us = self.now_us() + 50_000;
                    peer.say(&FromAnnouncer::PlayAt { clip, instant_us }).await;
                }
                Heard::Message(FromStation::Played(receipt)) => {
                    peer.say(&FromAnnouncer::Noted { clip: receipt.clip }).await;
                    peer.end().await;
                    return receipt;
                }
                Heard::Message(FromStation::Ping { .. } | FromStation::Playing { .. }) => (),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_once_learnt_is_known_on_every_connection_and_a_new_one_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hall = Hall::open(listener.local_addr().unwrap(), "hall-1");
    let mut announcer = Announcer { listener, started: Instant::now(), sequence: 0 };

    let mut peer = announcer.welcome(5).await;
    let quick = announcer.answer(&mut peer, 8).await;
    assert!(
        quick < Duration::from_millis(900),
        "eight pings at once when the clock is new, not in {quick:?}"
    );
    let first = announcer.announce(peer).await;
    assert!(first.uncertainty_us < 10_000, "{first:?}");

    let peer = announcer.welcome(5).await;
    let second = announcer.announce(peer).await;
    assert!(second.uncertainty_us < 10_000, "it was known already: {second:?}");
    assert!(second.start_error_us.abs() < 50_000, "{second:?}");

    let mut peer = announcer.welcome(5).await;
    let slow = announcer.answer(&mut peer, 3).await;
    assert!(
        slow > Duration::from_millis(1_500),
        "a known clock is asked once a second, not 3 times in {slow:?}"
    );
    drop(peer);

    let peer = announcer.welcome(6).await;
    let stranger = announcer.announce(peer).await;
    assert_eq!(stranger.uncertainty_us, u32::MAX, "it knows nothing of this clock: {stranger:?}");
    hall.close().await;
}
