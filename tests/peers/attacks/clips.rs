//! Clips that were signed with an announcer's own keys, but that a station must not play all the same.

use bullhorn::clip::Format;
use bullhorn::keys::AnnouncerKeys;
use bullhorn::seal;
use bullhorn::wire::ClipHeader;

use crate::attacks::building::Disk;
use crate::attacks::mask::{Mask, header_of};
use crate::peer::{Hall, clip_of, wav};

/// The time according to the announcer.
const NOW_MS: u64 = 1_790_000_000_000;
const DAY_MS: u64 = 86_400_000;
const TEN_YEARS_MS: u64 = 3_652 * DAY_MS;

struct Scene {
    mask: Mask,
    disk: Disk,
    hall: Option<Hall>,
    page: Vec<u8>,
}

impl Scene {
    /// A station of zone gym that has heard clip 5 of epoch 7.
    async fn open() -> Self {
        let keys = AnnouncerKeys::generate().unwrap();
        let mut mask = Mask::of(&keys).await;
        let (disk, page) = (Disk::new(), wav(8_000, &clip_of(400)));
        let office = Disk::new();
        let book = bullhorn::invite::InviteBook::new(&office.folder);
        let invite = book.issue(&keys, bullhorn::invite::DEFAULT_VALIDITY, 0).unwrap();
        mask.secret = Some(invite.secret().clone());
        let zones = vec!["gym".to_owned()];
        let member = disk.member(mask.address(), "hall-1", &zones, Some(invite));
        let hall = Hall::open_as(mask.address(), "hall-1", zones, Some(member));
        let scene = Self { mask, disk, hall: Some(hall), page };
        scene.plays((7, 5), NOW_MS).await;
        scene
    }

    async fn plays(&self, id: (u64, u64), now_ms: u64) {
        let header = header_of(id, now_ms, &self.page);
        let mut talk = self.mask.greet(now_ms).await;
        talk.offer_signed(&header, &self.page).await;
        talk.plays(header.id).await;
    }

    async fn refuses(&self, header: &ClipHeader, now_ms: u64, why: &str) {
        let mut talk = self.mask.greet(now_ms).await;
        talk.offer_signed(header, &self.page).await;
        let reason = talk.refusal().await;
        assert!(reason.contains(why), "{reason:?} does not say {why:?}");
    }

    /// Restarts the station on the same disk.
    async fn restart(&mut self) {
        self.hall.take().unwrap().close().await;
        let zones = vec!["gym".to_owned()];
        let member = self.disk.member(self.mask.address(), "hall-1", &zones, None);
        self.hall = Some(Hall::open_as(self.mask.address(), "hall-1", zones, Some(member)));
    }

    fn files(&self) -> usize {
        self.hall.as_ref().unwrap().files().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_ones_are_refused_also_after_a_restart() {
    let mut scene = Scene::open().await;
    for _ in 0..2 {
        let played = scene.files();
        for old in [(7, 5), (7, 4), (7, 1), (6, 6), (0, u64::MAX), (6, u64::MAX)] {
            scene.refuses(&header_of(old, NOW_MS, &scene.page), NOW_MS, "was heard before").await;
        }
        assert_eq!(scene.files(), played, "nothing was played");
        scene.restart().await;
    }
    // None of this has moved the mark: the next clip in order is played.
    scene.plays((7, 6), NOW_MS).await;
    scene.hall.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_lives_by_the_announcers_clock_however_odd() {
    let scene = Scene::open().await;
    let header = |created_ms: u64| header_of((8, 1), created_ms, &scene.page);
    for (created_ms, now_ms, why) in [
        (NOW_MS, NOW_MS + DAY_MS, "expired"),
        (NOW_MS, NOW_MS + 60_000, "expired"),
        (NOW_MS, NOW_MS + TEN_YEARS_MS, "expired"),
        (NOW_MS, u64::MAX, "expired"),
        (NOW_MS + 10_000, NOW_MS, "ahead of its announcer's own clock"),
        (NOW_MS, NOW_MS - TEN_YEARS_MS, "ahead of its announcer's own clock"),
        (NOW_MS, 0, "ahead of its announcer's own clock"),
    ] {
        scene.refuses(&header(created_ms), now_ms, why).await;
    }
    let backwards = ClipHeader { expires_unix_ms: NOW_MS - 1, ..header(NOW_MS) };
    scene.refuses(&backwards, NOW_MS - 2_000, "expired").await;
    assert_eq!(scene.files(), 1);
    // By the announcer's clock, the station's own clock is ten years off, either way: the station plays.
    scene.plays((8, 1), NOW_MS + TEN_YEARS_MS).await;
    scene.plays((8, 2), NOW_MS - TEN_YEARS_MS).await;
    scene.plays((8, 3), 1_000).await;
    scene.hall.unwrap().close().await;
}

/// Each clip has the named fault and every later one.
#[tokio::test(flavor = "multi_thread")]
async fn faults_are_told_in_their_order() {
    let scene = Scene::open().await;
    let sequence = header_of((7, 5), NOW_MS - DAY_MS, &scene.page);
    let hash = ClipHeader { sha256: [7; 32], ..sequence.clone() };
    let zone = ClipHeader { zones: vec!["attic".into()], ..hash.clone() };
    let size = ClipHeader { format: Format { wav_bytes: 3, rate_hz: 8_000 }, ..zone.clone() };

    let impostor = AnnouncerKeys::generate().unwrap();
    let offer = async |header: &ClipHeader, signer: &AnnouncerKeys| {
        let encoded = header.encode();
        let mut talk = scene.mask.greet(NOW_MS).await;
        talk.offer(encoded.clone(), seal::sign(signer, &encoded).to_vec(), &scene.page).await;
        talk.refusal().await
    };
    let own = scene.mask.signer.clone();
    let signature = "signature is not its announcer's";
    for (header, signer, why) in [
        (&size, &impostor, "bytes"),
        (&zone, &impostor, signature),
        (&zone, &own, "for other zones"),
        (&hash, &own, "expired"),
        (&header_of((7, 5), NOW_MS, &scene.page), &own, "was heard before"),
        (&ClipHeader { sha256: [7; 32], ..header_of((7, 6), NOW_MS, &scene.page) }, &own, "SHA-256"),
        (&header_of((7, 6), NOW_MS, &scene.page), &impostor, signature),
    ] {
        let reason = offer(header, signer).await;
        assert!(reason.contains(why), "{reason:?} does not say {why:?}");
    }
    // Not signed at all.
    let mut talk = scene.mask.greet(NOW_MS).await;
    talk.offer(header_of((7, 6), NOW_MS, &scene.page).encode(), vec![], &scene.page).await;
    assert!(talk.refusal().await.contains("not signed"));
    assert_eq!(scene.files(), 1, "only the first page was ever played");
    scene.hall.unwrap().close().await;
}

/// A station shares the clip's key and could make blocks that open, but the hash is signed, so they are refused.
#[tokio::test(flavor = "multi_thread")]
async fn another_body_under_a_genuine_header_is_refused() {
    let scene = Scene::open().await;
    let header = header_of((7, 6), NOW_MS, &scene.page);
    let mut other = scene.page.clone();
    *other.last_mut().unwrap() ^= 1;
    let mut talk = scene.mask.greet(NOW_MS).await;
    talk.offer_signed(&header, &other).await;
    assert!(talk.refusal().await.contains("SHA-256"));
    assert_eq!(scene.files(), 1);
    scene.plays((7, 6), NOW_MS).await;
    scene.hall.unwrap().close().await;
}
