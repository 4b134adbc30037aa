//! A station of several announcers: none acts for another, and none is confused with another.

use bullhorn::keys::AnnouncerKeys;
use bullhorn::link::Frame;
use bullhorn::priority::Priority;
use bullhorn::seal;
use bullhorn::wire::{ClipHeader, ClipId, FromAnnouncer, FromStation};

use crate::attacks::building::Disk;
use crate::attacks::mask::{Mask, Talk, header_of};
use crate::peer::{Hall, clip_of, wav};

/// The time according to both announcers.
const NOW_MS: u64 = 1_790_000_000_000;

/// Two announcers that the test plays, and a station that has joined both.
struct Scene {
    desks: [Mask; 2],
    disk: Disk,
    hall: Option<Hall>,
    page: Vec<u8>,
}

impl Scene {
    async fn open() -> Self {
        let mut desks = Vec::new();
        let disk = Disk::new();
        let mut announcers = Vec::new();
        for _ in 0..2 {
            let keys = AnnouncerKeys::generate().unwrap();
            let mut mask = Mask::of(&keys).await;
            let office = Disk::new();
            let book = bullhorn::invite::InviteBook::new(&office.folder);
            let invite = book.issue(&keys, bullhorn::invite::DEFAULT_VALIDITY, 0).unwrap();
            mask.secret = Some(invite.secret().clone());
            let member = disk.member(mask.address(), "hall-1", &[], Some(invite));
            announcers.push((mask.address(), Some(member)));
            desks.push(mask);
        }
        let hall = Hall::open_with("hall-1", vec![], announcers);
        let desks = desks.try_into().unwrap_or_else(|_| panic!("two"));
        Self { desks, disk, hall: Some(hall), page: wav(8_000, &clip_of(4_000)) }
    }

    /// Offers a page of one announcer, signed.
    async fn offer(&self, desk: usize, header: &ClipHeader) -> Talk<'_> {
        let mut talk = self.desks[desk].greet(NOW_MS).await;
        talk.offer_signed(header, &self.page).await;
        talk
    }

    async fn plays(&self, desk: usize, header: &ClipHeader) {
        self.offer(desk, header).await.plays(header.id).await;
    }

    async fn refuses(&self, desk: usize, header: &ClipHeader, why: &str) {
        let reason = self.offer(desk, header).await.refusal().await;
        assert!(reason.contains(why), "{reason:?} does not say {why:?}");
    }

    /// Restarts the station on the same disk.
    async fn restart(&mut self) {
        self.hall.take().unwrap().close().await;
        let member =
            |mask: &Mask| (mask.address(), Some(self.disk.member(mask.address(), "hall-1", &[], None)));
        let announcers = self.desks.iter().map(member).collect();
        self.hall = Some(Hall::open_with("hall-1", vec![], announcers));
    }

    fn header(&self, id: (u64, u64), priority: Priority) -> ClipHeader {
        ClipHeader { priority, ..header_of(id, NOW_MS, &self.page) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn none_replays_anothers_clips_or_uses_up_its_sequence() {
    let mut scene = Scene::open().await;
    for run in 0..2 {
        let first = scene.header((7, 1 + 10 * run), Priority::Normal);
        scene.plays(0, &first).await;
        if run == 0 {
            // An announcer is not sent the receipt of another announcer's page either.
            let mut link = scene.desks[1].accept().await.unwrap();
            let Ok(Some(Frame::Message(FromStation::Hello { last, begun, .. }))) = link.0.next().await else {
                panic!("no Hello")
            };
            assert_eq!((last, begun), (None, None));
        }
        // A genuine clip of the first announcer, heard or not, on the second's connection.
        for id in [(7, 1 + 10 * run), (7, 2 + 10 * run)] {
            let header = scene.header(id, Priority::Emergency).encode();
            let signature = seal::sign(&scene.desks[0].signer, &header).to_vec();
            let mut talk = scene.desks[1].greet(NOW_MS).await;
            talk.offer(header, signature, &scene.page).await;
            let reason = talk.refusal().await;
            assert!(reason.contains("signature is not its announcer's"), "{reason}");
        }
        // The second's own clip, with the highest numbers possible: the first's sequence continues where it was.
        scene.plays(1, &scene.header((u64::MAX, u64::MAX - 1 + run), Priority::Normal)).await;
        scene.plays(0, &scene.header((7, 2 + 10 * run), Priority::Normal)).await;
        scene.refuses(0, &first, "was heard before").await;
        scene.restart().await;
        scene.refuses(0, &first, "was heard before").await;
        scene.refuses(1, &scene.header((u64::MAX, 1), Priority::Normal), "was heard before").await;
    }
    scene.hall.unwrap().close().await;
}

/// Sends the instant, and checks that the page then sounds and nothing else is reported.
async fn begins(talk: &mut Talk<'_>, id: ClipId) {
    verifies(talk, id).await;
    talk.play_soon(id).await;
    assert_eq!(talk.next().await, Some(FromStation::Playing { clip: id }));
}

async fn verifies(talk: &mut Talk<'_>, id: ClipId) {
    let heard = talk.next().await;
    assert!(matches!(&heard, Some(FromStation::Verified { clip, .. }) if *clip == id), "{heard:?}");
}

/// Returns how late a page that plays to its end began, in µs.
async fn ends(mut talk: Talk<'_>, id: ClipId) -> i64 {
    let Some(FromStation::Played(receipt)) = talk.next().await else { panic!("no receipt") };
    assert_eq!(receipt.clip, id);
    talk.say(FromAnnouncer::Noted { clip: id }).await;
    assert_eq!(talk.next().await, None);
    receipt.start_error_us
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_cuts_in_and_the_other_begins_again() {
    let mut scene = Scene::open().await;
    scene.page = wav(8_000, &clip_of(80_000));
    let page = scene.header((7, 1), Priority::Normal);
    let mut first = scene.offer(0, &page).await;
    begins(&mut first, page.id).await;

    let short = wav(8_000, &clip_of(4_000));
    let emergency = ClipHeader { priority: Priority::Emergency, ..header_of((3, 1), NOW_MS, &short) };
    let mut second = scene.desks[1].greet(NOW_MS).await;
    second.offer_signed(&emergency, &short).await;
    verifies(&mut second, emergency.id).await;
    second.play_soon(emergency.id).await;
    assert_eq!(first.next().await, Some(FromStation::Queued { clip: page.id }));
    assert_eq!(second.next().await, Some(FromStation::Playing { clip: emergency.id }));
    assert!(ends(second, emergency.id).await < 5_000_000);
    assert_eq!(first.next().await, Some(FromStation::Playing { clip: page.id }));
    assert!(ends(first, page.id).await >= 500_000, "it is late by the emergency at least");
    let hall = scene.hall.unwrap();
    let heard = |id: ClipId| std::fs::read(hall.dir().join(format!("hall-1-{id}.wav"))).unwrap();
    assert!(heard(page.id) == scene.page && heard(emergency.id) == short);
    hall.close().await;
}

/// The same announcer makes the station break off its page, and sends it again after the emergency.
#[tokio::test(flavor = "multi_thread")]
async fn what_its_own_announcer_has_broken_off_may_come_again_and_only_until_it_is_heard() {
    let scene = Scene::open().await;
    let page = scene.header((7, 1), Priority::Normal);
    let mut talk = scene.offer(0, &page).await;
    begins(&mut talk, page.id).await;
    talk.say(FromAnnouncer::Yield).await;
    assert_eq!(talk.next().await, None, "it hangs up");
    let emergency = scene.header((7, 2), Priority::Emergency);
    scene.plays(0, &emergency).await;
    scene.plays(0, &page).await;
    for header in [&page, &emergency] {
        scene.refuses(0, header, "was heard before").await;
    }
    // Nor can it come again as something else: the priority is signed.
    let disguised = ClipHeader { priority: Priority::High, ..page.clone() };
    let mut talk = scene.desks[0].greet(NOW_MS).await;
    let signature = seal::sign(&scene.desks[0].signer, &page.encode()).to_vec();
    talk.offer(disguised.encode(), signature, &scene.page).await;
    assert!(talk.refusal().await.contains("signature is not its announcer's"));
    // The station yields, whatever it is busy with.
    let mut talk = scene.offer(0, &scene.header((7, 3), Priority::Normal)).await;
    verifies(&mut talk, ClipId { epoch: 7, sequence: 3 }).await;
    talk.say(FromAnnouncer::Yield).await;
    assert_eq!(talk.next().await, None);
    scene.plays(0, &scene.header((7, 3), Priority::Normal)).await;
    let mut talk = scene.desks[0].greet(NOW_MS).await;
    talk.say(FromAnnouncer::Yield).await;
    assert_eq!(talk.next().await, None);
    scene.plays(0, &scene.header((7, 4), Priority::Normal)).await;
    scene.hall.unwrap().close().await;
}
