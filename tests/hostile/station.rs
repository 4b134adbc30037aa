//! Announcers that misbehave towards a real station. Whatever they do, nothing wrong is ever played, and
//! the same station then takes a proper clip from a proper announcer and plays it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bullhorn::clip::Format;
use bullhorn::event::Event;
use bullhorn::wire::{
    self, BLOCK_BYTES, ClipHeader, ClipId, FromAnnouncer, FromStation, Mode, Preface, Receipt, Status,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::peer::{Hall, Heard, PATIENCE, RawAnnouncer, clip_of, wav};
use crate::{Cases, MARGIN};

const SILENCE: Duration = Duration::from_secs(3);
const SECOND: Duration = Duration::from_secs(1);

/// The announcer that the test plays, and the station that dials it.
pub struct Scene {
    listener: TcpListener,
    pub hall: Hall,
    started: Instant,
    /// Files that the station should have written by now.
    pub heard: Vec<PathBuf>,
}

/// A header that says what is true of this WAV.
pub fn header_of(sequence: u64, rate_hz: u32, wav: &[u8]) -> ClipHeader {
    ClipHeader {
        id: ClipId { epoch: 9, sequence },
        created_unix_ms: 0,
        expires_unix_ms: u64::MAX,
        format: Format { wav_bytes: wav.len() as u32, rate_hz },
        sha256: Sha256::digest(wav).into(),
        zones: vec![],
    }
}

impl Scene {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        Self { listener, hall: Hall::open(address, "hall-1"), started: Instant::now(), heard: vec![] }
    }

    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// The station dials; its preface is read, none is sent.
    pub async fn dialled(&self) -> RawAnnouncer {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("it does not dial").unwrap();
        let mut peer = RawAnnouncer::over(stream);
        assert_eq!(peer.preface().await, Preface::of_station(Mode::Open));
        peer
    }

    pub async fn greeted(&self) -> (RawAnnouncer, Option<Receipt>) {
        let mut peer = self.dialled().await;
        peer.bytes(&Preface::of_announcer(Mode::Open, Status::Ready).encode()).await;
        match peer.hear().await {
            Heard::Message(FromStation::Hello { last, .. }) => (peer, last),
            other => panic!("no Hello but {other:?}"),
        }
    }

    pub async fn joined(&self) -> RawAnnouncer {
        let (mut peer, _) = self.greeted().await;
        peer.say(&FromAnnouncer::Welcome { clock: 5 }).await;
        peer
    }

    /// The next from the station but its pings, which are answered.
    pub async fn next(&self, peer: &mut RawAnnouncer) -> Heard<FromStation> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match peer.hear_by(deadline).await {
                Heard::Message(FromStation::Ping { t1_us }) => {
                    let t2_us = self.now_us();
                    peer.say(&FromAnnouncer::Pong { t1_us, t2_us, t3_us: t2_us }).await;
                }
                heard => return heard,
            }
        }
    }

    pub async fn offers(&self, header: &ClipHeader, wav: &[u8]) -> RawAnnouncer {
        let mut peer = self.joined().await;
        peer.say(&FromAnnouncer::Clip { header: header.encode() }).await;
        peer.bytes(&wire::block_frames(wav)).await;
        peer
    }

    pub async fn verified(&self, peer: &mut RawAnnouncer, id: ClipId) {
        let heard = self.next(peer).await;
        assert!(
            matches!(heard, Heard::Message(FromStation::Verified { clip, .. }) if clip == id),
            "{heard:?}"
        );
    }

    /// The station refuses the clip, with this in its reason; it is noted, and the station hangs up.
    pub async fn rejected(&mut self, mut peer: RawAnnouncer, id: ClipId, why: &str) {
        match self.next(&mut peer).await {
            Heard::Message(FromStation::Rejected { clip, reason }) => {
                assert_eq!(clip, id);
                assert!(reason.contains(why), "{reason:?} does not say {why:?}");
            }
            other => panic!("not rejected but {other:?}"),
        }
        peer.say(&FromAnnouncer::Noted { clip: id }).await;
        assert_eq!(self.next(&mut peer).await, Heard::End);
    }

    /// The station hangs up and waits, with this for a reason.
    pub async fn hung_up(&mut self, mut peer: RawAnnouncer, why: &str) {
        while self.next(&mut peer).await != Heard::End {}
        self.waits(why).await;
    }

    pub async fn waits(&mut self, why: &str) {
        let waiting = |event: &Event| match event {
            Event::Waiting { reason, .. } if reason.contains(why) => Some(()),
            _ => None,
        };
        self.hall.log.until(&format!("the station to wait: {why}"), waiting).await;
    }

    /// Plays a clip from the instant to the note.
    pub async fn plays(&mut self, mut peer: RawAnnouncer, id: ClipId, instant_us: u64) -> Receipt {
        self.verified(&mut peer, id).await;
        peer.say(&FromAnnouncer::PlayAt { clip: id, instant_us }).await;
        assert_eq!(self.next(&mut peer).await, Heard::Message(FromStation::Playing { clip: id }));
        let Heard::Message(FromStation::Played(receipt)) = self.next(&mut peer).await else {
            panic!("not played")
        };
        peer.say(&FromAnnouncer::Noted { clip: id }).await;
        assert_eq!(self.next(&mut peer).await, Heard::End);
        self.heard.push(self.hall.dir().join(format!("hall-1-{id}.wav")));
        receipt
    }

    /// A proper clip is played, and nothing else ever was.
    pub async fn ends_well(mut self) {
        let wav = wav(16_000, &clip_of(400));
        let header = header_of(1_000, 16_000, &wav);
        let peer = self.offers(&header, &wav).await;
        let soon = self.now_us() + 20_000;
        let receipt = self.plays(peer, header.id, soon).await;
        assert_eq!((receipt.clip, receipt.frames), (header.id, 400));
        assert_eq!(std::fs::read(self.heard.last().unwrap()).unwrap(), wav);
        self.heard.sort();
        assert_eq!(self.hall.files(), self.heard, "nothing else may have been played");
        self.hall.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none() {
    let mut cases = Cases::default();
    let answers: [(&str, &[u8], &str); 7] = [
        (
            "HTTP",
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
            "does not speak bullhorn's protocol",
        ),
        ("a wrong byte", b"X", "does not speak bullhorn's protocol"),
        ("it is told that it is none", b"BULLHORN\x00\x01\x00\x03", "does not speak bullhorn's protocol"),
        ("another version", b"BULLHORN\x00\x02\x00\x01", "version 2"),
        ("another mode", b"BULLHORN\x00\x01\x01\x02", "open, the other secured"),
        ("too many", b"BULLHORN\x00\x01\x00\x04", "as many connections as it can bear"),
        ("an unknown status", b"BULLHORN\x00\x01\x00\x63", "open, the other secured"),
    ];
    for (what, answer, why) in answers {
        cases.add(what, async move {
            let mut scene = Scene::new().await;
            let mut peer = scene.dialled().await;
            peer.bytes(answer).await;
            scene.hung_up(peer, why).await;
            scene.ends_well().await;
        });
    }
    cases.add("an end inside the preface", async {
        let mut scene = Scene::new().await;
        let mut peer = scene.dialled().await;
        peer.bytes(b"BULL").await;
        drop(peer);
        scene.waits("").await;
        scene.ends_well().await;
    });
    cases.add("a refusal", async {
        let mut scene = Scene::new().await;
        let (mut peer, _) = scene.greeted().await;
        peer.say(&FromAnnouncer::Refused { reason: "the roof is on fire".into() }).await;
        scene.hung_up(peer, "the roof is on fire").await;
        scene.ends_well().await;
    });
    cases.all().await;
}

/// Says nothing more but `drip` once a second; the station must be gone within its deadline.
async fn starves(scene: &mut Scene, mut peer: RawAnnouncer, drip: &[u8], why: &str) {
    let since = Instant::now();
    for byte in drip.iter().cycle() {
        if !drip.is_empty() {
            peer.bytes(&[*byte]).await;
        }
        if timeout(SECOND, peer.end()).await.is_ok() {
            break;
        }
        assert!(since.elapsed() < SILENCE + MARGIN);
    }
    if drip.is_empty() {
        peer.end().await;
    }
    let took = since.elapsed();
    assert!(took > SILENCE - Duration::from_millis(300) && took < SILENCE + MARGIN, "gone after {took:?}");
    scene.waits(why).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_a_byte_a_second() {
    let mut cases = Cases::default();
    let why = "nothing was heard of it for 3 s";
    for drip in [&b""[..], b"BULLHORN"] {
        cases.add(format!("no preface, {drip:?}"), async move {
            let mut scene = Scene::new().await;
            let peer = scene.dialled().await;
            starves(&mut scene, peer, drip, why).await;
            scene.ends_well().await;
        });
    }
    for drip in [&[][..], &[1, 8, 0]] {
        cases.add(format!("no welcome, {drip:?}"), async move {
            let mut scene = Scene::new().await;
            let (peer, _) = scene.greeted().await;
            starves(&mut scene, peer, drip, why).await;
            scene.ends_well().await;
        });
        cases.add(format!("no pongs, {drip:?}"), async move {
            let mut scene = Scene::new().await;
            let peer = scene.joined().await;
            starves(&mut scene, peer, drip, why).await;
            scene.ends_well().await;
        });
    }
    for drip in [&[][..], &[2, 8, 0]] {
        cases.add(format!("no blocks, {drip:?}"), async move {
            let mut scene = Scene::new().await;
            let wav = wav(8_000, &clip_of(4_000));
            let peer = scene.offers(&header_of(1, 8_000, &wav), &[]).await;
            starves(&mut scene, peer, drip, why).await;
            scene.ends_well().await;
        });
    }
    for drip in [&[][..], &[1, 8, 0]] {
        cases.add(format!("no instant, {drip:?}"), async move {
            let mut scene = Scene::new().await;
            let wav = wav(8_000, &clip_of(4_000));
            let peer = scene.offers(&header_of(1, 8_000, &wav), &wav).await;
            starves(&mut scene, peer, drip, why).await;
            scene.ends_well().await;
        });
    }
    cases.all().await;
}

/// Frames that end a link wherever they come.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none() {
    let mut cases = Cases::default();
    let frames: [(&str, &[u8], &str); 10] = [
        ("kind 0", &[0, 0, 1, 0], "has no place here"),
        ("kind 255", &[255, 0, 1, 0], "has no place here"),
        ("a block without a clip", &[2, 0, 1, 0], "has no place here"),
        ("no bytes", &[1, 0, 0], "over the limit"),
        ("over the cap", &[1, 0x08, 0x01], "over the limit"),
        ("an unknown message", &[1, 0, 1, 6], "malformed"),
        ("a message cut short", &[1, 0, 2, 2, 0], "malformed"),
        ("a byte too many", &[1, 0, 3, 0, 5, 0], "malformed"),
        ("PlayAt without a clip", &[1, 0, 4, 4, 1, 1, 1], "out of turn"),
        ("Noted without a clip", &[1, 0, 3, 5, 1, 1], "out of turn"),
    ];
    for (what, bytes, why) in frames {
        cases.add(what, async move {
            let mut scene = Scene::new().await;
            let mut peer = scene.joined().await;
            peer.bytes(bytes).await;
            scene.hung_up(peer, why).await;
            scene.ends_well().await;
        });
    }
    cases.add("a Pong from the future", async {
        let mut scene = Scene::new().await;
        let mut peer = scene.joined().await;
        peer.say(&FromAnnouncer::Pong { t1_us: u64::MAX, t2_us: 0, t3_us: 0 }).await;
        scene.hung_up(peer, "t1 is out of bounds").await;
        scene.ends_well().await;
    });
    cases.all().await;
}

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
        // Sent again, and whole this time.
        let peer = scene.offers(&header, &bytes).await;
        scene.plays(peer, header.id, 0).await;
        scene.ends_well().await;
    });
    // Each byte of the WAV's own header, changed and hashed as it is.
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
        peer.say(&FromAnnouncer::Clip { header: header.encode() }).await;
        scene.hung_up(peer, "out of turn").await;
        scene.ends_well().await;
    });
    let bytes = good.clone();
    cases.add("two clips on one connection", async move {
        let mut scene = Scene::new().await;
        let header = header_of(1, 8_000, &bytes);
        let mut peer = scene.offers(&header, &bytes).await;
        scene.verified(&mut peer, header.id).await;
        peer.say(&FromAnnouncer::Clip { header: header_of(2, 8_000, &bytes).encode() }).await;
        scene.hung_up(peer, "out of turn").await;
        scene.ends_well().await;
    });
    cases.add("eleven megabytes for another zone are skipped", async move {
        let mut scene = Scene::new().await;
        let bytes = wav(48_000, &clip_of(48_000 * 119));
        let header = ClipHeader { zones: vec!["cellar".into()], ..header_of(1, 48_000, &bytes) };
        let peer = scene.offers(&header, &bytes).await;
        scene.rejected(peer, header.id, "it is for other zones").await;
        scene.ends_well().await;
    });
    cases.add("a refused clip that comes slowly is skipped all the same", async move {
        let mut scene = Scene::new().await;
        let bytes = wav(8_000, &clip_of(20_000));
        let header = ClipHeader { zones: vec!["cellar".into()], ..header_of(1, 8_000, &bytes) };
        let mut peer = scene.offers(&header, &bytes[..100]).await;
        let rejected = scene.next(&mut peer).await;
        assert!(matches!(rejected, Heard::Message(FromStation::Rejected { .. })), "{rejected:?}");
        // Longer than the note may take, a block at a time: time is what is tested here.
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
            let mut scene = Scene::new().await;
            let header = header_of(1, 8_000, &bytes);
            let mut peer = scene.offers(&header, &bytes).await;
            scene.verified(&mut peer, header.id).await;
            // Its pings must be answered first, or it has no clock to hold the instant against.
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
            peer.say(&FromAnnouncer::Welcome { clock: 5 }).await;
            peer.say(&FromAnnouncer::Clip { header: header.encode() }).await;
            peer.bytes(&wire::block_frames(&bytes)).await;
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
