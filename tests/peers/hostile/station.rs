//! Announcers that misbehave towards a real station. Whatever they do, nothing wrong is ever played, and the same
//! station then accepts a proper clip from a proper announcer and plays it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bullhorn::clip::Format;
use bullhorn::event::Event;
use bullhorn::wire::{ClipHeader, ClipId, FromAnnouncer, FromStation, Mode, Preface, Receipt, Status};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::hostile::{Cases, MARGIN};
use crate::peer::{Hall, Heard, PATIENCE, RawAnnouncer, blocks, clip_message, clip_of, wav};

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

/// A truthful header of this WAV.
pub fn header_of(sequence: u64, rate_hz: u32, wav: &[u8]) -> ClipHeader {
    ClipHeader {
        id: ClipId { epoch: 9, sequence },
        created_unix_ms: 0,
        expires_unix_ms: u64::MAX,
        format: Format { wav_bytes: wav.len() as u32, rate_hz },
        sha256: Sha256::digest(wav).into(),
        priority: Default::default(),
        zones: vec![],
    }
}

impl Scene {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        Self { listener, hall: Hall::open(address, "hall-1"), started: Instant::now(), heard: vec![] }
    }

    pub fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Accepts the station's connection and reads its preface, but sends none.
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
        peer.say(&FromAnnouncer::Welcome { clock: 5, site: None }).await;
        peer
    }

    /// The next message from the station that is not a ping; pings are answered.
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
        peer.say(&clip_message(header.encode())).await;
        peer.bytes(&blocks(wav)).await;
        peer
    }

    pub async fn verified(&self, peer: &mut RawAnnouncer, id: ClipId) {
        let heard = self.next(peer).await;
        assert!(
            matches!(heard, Heard::Message(FromStation::Verified { clip, .. }) if clip == id),
            "{heard:?}"
        );
    }

    /// Checks that the station rejects the clip for a reason that contains `why`, and hangs up after the Noted.
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

    /// Checks that the station hangs up and waits, for a reason that contains `why`.
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

    /// Has the station play a clip, from its Verified to the Noted.
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

    /// Checks that a proper clip is played, and that nothing else ever was.
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

/// Sends nothing more except `drip`, one byte a second. The station must be gone within its deadline.
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
    let (opening, why) = ("nothing was heard of it for 3 s", "nothing was heard of it for 2.8 s");
    for drip in [&b""[..], b"BULLHORN"] {
        cases.add(format!("no preface, {drip:?}"), async move {
            let mut scene = Scene::new().await;
            let peer = scene.dialled().await;
            starves(&mut scene, peer, drip, opening).await;
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

/// Frames that end a link wherever they arrive.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none() {
    let mut cases = Cases::default();
    let frames: [(&str, &[u8], &str); 10] = [
        ("kind 0", &[0, 0, 1, 0], "has no place here"),
        ("kind 255", &[255, 0, 1, 0], "has no place here"),
        ("a block without a clip", &[2, 0, 1, 0], "has no place here"),
        ("no bytes", &[1, 0, 0], "over the limit"),
        ("over the cap", &[1, 0x08, 0x11], "over the limit"),
        ("an unknown message", &[1, 0, 1, 7], "malformed"),
        ("a message cut short", &[1, 0, 2, 2, 0], "malformed"),
        ("a byte too many", &[1, 0, 4, 0, 5, 0, 0], "malformed"),
        ("PlayAt without a clip", &[1, 0, 4, 4, 1, 1, 1], "out of turn"),
        ("Noted without a clip", &[1, 0, 3, 6, 1, 1], "out of turn"),
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
