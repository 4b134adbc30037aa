//! Hostile stations that talk back: the only thing heard or kept is what a station of the site said itself, whole, in
//! time and once.

use std::time::Duration;

use bullhorn::clip::{Format, MAX_WAV_BYTES};
use bullhorn::clip_cipher::SealedClip;
use bullhorn::event::Event;
use bullhorn::handshake::Contact;
use bullhorn::invite::shut_out;
use bullhorn::keys::{AnnouncerKeys, StationKeys};
use bullhorn::link::{Frame, StationLink};
use bullhorn::seal;
use bullhorn::wire::{
    self, Answer, BLOCK_BYTES, ClipId, FromAnnouncer, FromStation, Offer, TAG_BYTES, TalkbackHeader,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::attacks::building::{Building, Disk, dial};
use crate::attacks::mask::{Mask, Talk};
use crate::peer::{Heard, PATIENCE, RawStation, clip_of, hello, wav};

/// A site that accepts talkback, and one of its stations, whose disk was stolen.
struct Scene {
    building: Building,
    disk: Disk,
    said: Vec<u8>,
}

/// A connection that the thief holds.
struct Line(StationLink<TcpStream>);

impl Scene {
    async fn open() -> Self {
        let mut building = Building::open_where(true).await;
        let disk = Disk::new();
        let mut hall = building.hall(&disk, "hall-1").await;
        hall.connected().await;
        hall.close().await;
        Self { building, disk, said: wav(8_000, &clip_of(10_000)) }
    }

    fn keys(&self) -> StationKeys {
        self.disk.keys("hall-1")
    }

    /// Adds a second station to the site.
    async fn another(&mut self, name: &str) -> StationKeys {
        let disk = Disk::new();
        self.building.hall(&disk, name).await.close().await;
        disk.keys(name)
    }

    fn now_ms(&self) -> u64 {
        self.building.site.unix_ms(tokio::time::Instant::now())
    }

    /// A truthful header of what the station says.
    fn header(&self, sequence: u64) -> TalkbackHeader {
        TalkbackHeader {
            station: *self.keys().id().as_bytes(),
            announcer: self.building.site.announcer(),
            id: ClipId { epoch: 7, sequence },
            created_unix_ms: self.now_ms(),
            expires_unix_ms: self.now_ms() + 60_000,
            format: Format { wav_bytes: self.said.len() as u32, rate_hz: 8_000 },
            sha256: Sha256::digest(&self.said).into(),
            name: "hall-1".into(),
        }
    }

    async fn line(&self, keys: &StationKeys) -> Line {
        let announcer = self.building.keys().noise().public();
        Line(dial(self.building.office.address, keys, Contact::Pinned(announcer)).await.unwrap())
    }

    /// Offers a header signed by the station, as the station.
    async fn offers(&self, header: &TalkbackHeader) -> (Line, Answer) {
        self.offers_as(&self.keys(), header, &self.keys()).await
    }

    /// Offers a header on the connection of one station, signed by another.
    async fn offers_as(
        &self,
        who: &StationKeys,
        header: &TalkbackHeader,
        signer: &StationKeys,
    ) -> (Line, Answer) {
        let mut line = self.line(who).await;
        let header = header.encode();
        let signature = seal::talkback::sign(signer, &header).to_vec();
        let answer = line.offer(header, signature).await;
        (line, answer)
    }

    /// Says it whole, as a station does.
    async fn says(&self, header: &TalkbackHeader) -> Answer {
        let (mut line, answer) = self.offers(header).await;
        assert_eq!(answer, Answer::Send);
        line.blocks(&self.said).await;
        line.last().await
    }

    /// Checks that what the station said was heard and kept `times` times, and nothing else.
    fn heard(&self, times: usize) {
        let (heard, kept) = self.building.office.heard();
        assert_eq!((heard.len(), kept.len()), (times, times));
        assert!(heard.iter().chain(&kept).all(|wav| *wav == self.said), "something else was heard");
    }

    async fn close(self) {
        self.building.office.close().await;
    }
}

impl Line {
    async fn offer(&mut self, header: Vec<u8>, signature: Vec<u8>) -> Answer {
        let offer = Offer { header, signature, key: vec![9; 32] };
        self.0.1.send(&FromStation::Talkback(offer)).await.unwrap();
        self.next().await.expect("an answer")
    }

    /// Seals a body with the key that was offered, and sends it.
    async fn blocks(&mut self, wav: &[u8]) {
        for frames in sealed(wav) {
            // An announcer that has hung up is noticed when reading.
            let _ = self.0.1.send_blocks(&frames).await;
        }
    }

    /// The next answer; `None` when the announcer hangs up.
    async fn next(&mut self) -> Option<Answer> {
        match timeout(PATIENCE, self.0.0.next()).await.expect("nothing was heard in time") {
            Ok(Some(Frame::Message(FromAnnouncer::Talkback(answer)))) => Some(answer),
            Ok(Some(other)) => panic!("no answer but {other:?}"),
            Ok(None) | Err(_) => None,
        }
    }

    /// The final answer; sends signs of life meanwhile.
    async fn last(&mut self) -> Answer {
        loop {
            match self.next().await.expect("an answer") {
                Answer::Wait => self.0.1.send(&FromStation::Ping { t1_us: 0 }).await.unwrap(),
                answer => return answer,
            }
        }
    }
}

/// Blocks in frames, sealed with a key of nines.
fn sealed(wav: &[u8]) -> Vec<Vec<u8>> {
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[9; 32]).unwrap());
    let seal = |(index, block): (usize, &[u8])| {
        let mut nonce = [0; 12];
        nonce[8..].copy_from_slice(&(index as u32).to_be_bytes());
        let mut block = block.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce, Aad::empty(), &mut block).unwrap();
        assert!(block.len() <= BLOCK_BYTES + TAG_BYTES);
        wire::block_frames(std::iter::once(block))
    };
    wav.chunks(BLOCK_BYTES).enumerate().map(seal).collect()
}

fn refusal(answer: Answer) -> String {
    match answer {
        Answer::Refused { reason } => reason,
        other => panic!("not refused but {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_station_itself_has_signed_for_this_announcer_now_is_taken() {
    let mut scene = Scene::open().await;
    let (own, other) = (scene.keys(), scene.another("hall-2").await);
    let stranger = StationKeys::generate().unwrap();
    let good = scene.header(1);
    let now_ms = good.created_unix_ms;
    let with = |change: fn(&mut TalkbackHeader)| {
        let mut header = good.clone();
        change(&mut header);
        header
    };
    let by = |keys: &StationKeys| TalkbackHeader { station: *keys.id().as_bytes(), ..good.clone() };
    let foreign = AnnouncerKeys::generate().unwrap().id();
    let cases = [
        (with(|it| it.format.wav_bytes = MAX_WAV_BYTES as u32 + 2), &own, "cannot be"),
        (with(|it| it.format.wav_bytes = 44), &own, "cannot be"),
        (with(|it| it.format.rate_hz = 1), &own, "1 Hz cannot be"),
        (with(|it| it.name = "hall-2".into()), &own, "another station's"),
        (TalkbackHeader { announcer: *foreign.as_bytes(), ..good.clone() }, &own, "for another announcer"),
        (good.clone(), &other, "signature is not the station's"),
        (good.clone(), &stranger, "signature is not the station's"),
        (TalkbackHeader { expires_unix_ms: now_ms - 1, ..good.clone() }, &own, "expired"),
        (
            TalkbackHeader { created_unix_ms: now_ms + 60_000, expires_unix_ms: u64::MAX, ..good.clone() },
            &own,
            "ahead",
        ),
    ];
    for (header, signer, why) in cases {
        let reason = refusal(scene.offers_as(&own, &header, signer).await.1);
        assert!(reason.contains(why), "{reason:?} does not say {why:?}");
    }
    scene.heard(0);
    assert_eq!(scene.says(&good).await, Answer::Heard);
    // From now on its key is known: a header by another key, however well signed, is not its own.
    for keys in [&stranger, &other] {
        let header = TalkbackHeader { id: ClipId { epoch: 7, sequence: 2 }, ..by(keys) };
        let reason = refusal(scene.offers_as(&own, &header, keys).await.1);
        assert!(reason.contains("signed by another key"), "{reason}");
    }
    // And a header that it has signed is worth nothing on another station's connection.
    let reason = refusal(scene.offers_as(&other, &scene.header(2), &own).await.1);
    assert!(reason.contains("another station's"), "{reason}");
    scene.heard(1);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_what_was_signed_is_neither_heard_nor_kept() {
    let scene = Scene::open().await;
    let mut flipped = scene.said.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let longer = [&scene.said[..], &[0; 2]].concat();
    for (sequence, body, why) in
        [(1, &flipped, "SHA-256 does not match"), (2, &longer, "bytes came of a clip")]
    {
        let (mut line, answer) = scene.offers(&scene.header(sequence)).await;
        assert_eq!(answer, Answer::Send);
        line.blocks(body).await;
        let reason = refusal(line.last().await);
        assert!(reason.contains(why), "{reason:?} does not say {why:?}");
    }
    // Blocks sealed with another key, and blocks in another order.
    let other = SealedClip::seal(&scene.said, BLOCK_BYTES).unwrap();
    let foreign: Vec<_> = other.blocks().map(|block| wire::block_frames(std::iter::once(block))).collect();
    let mut swapped = sealed(&scene.said);
    swapped.swap(0, 1);
    for (sequence, frames) in [(3, foreign), (4, swapped)] {
        let (mut line, _) = scene.offers(&scene.header(sequence)).await;
        for frame in frames {
            let _ = line.0.1.send_blocks(&frame).await;
        }
        assert!(refusal(line.last().await).contains("block 0 of the clip is not genuine"));
    }
    scene.heard(0);
    assert_eq!(
        scene.says(&scene.header(1)).await,
        Answer::Heard,
        "what was refused may come as it was signed"
    );
    scene.heard(1);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_heard_is_never_heard_again_also_after_a_restart() {
    let mut scene = Scene::open().await;
    let (first, second) = (scene.header(1), scene.header(2));
    assert_eq!(scene.says(&second).await, Answer::Heard);
    for run in 0..2 {
        // A station that asks again is sent the outcome, and nothing is played.
        assert_eq!(scene.offers(&second).await.1, Answer::Heard);
        let reason = refusal(scene.offers(&first).await.1);
        assert!(reason.contains("was heard before"), "{reason}");
        scene.heard(1 - run);
        if run == 0 {
            scene.building.restart().await;
        }
    }
    assert_eq!(scene.says(&scene.header(3)).await, Answer::Heard);
    scene.heard(1);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_talkback_begins_again_and_is_heard_once() {
    let scene = Scene::open().await;
    let header = scene.header(1);
    for _ in 0..3 {
        let (mut line, answer) = scene.offers(&header).await;
        assert_eq!(answer, Answer::Send);
        line.0.1.send_blocks(&sealed(&scene.said)[0]).await.unwrap();
        // Meanwhile, no other talkback of its station is accepted.
        assert!(matches!(scene.offers(&scene.header(2)).await.1, Answer::Later { .. }));
        drop(line);
        while matches!(scene.offers(&header).await.1, Answer::Later { .. }) {}
    }
    // The last of the connections just opened might still be there.
    let (mut line, mut answer) = scene.offers(&header).await;
    while matches!(answer, Answer::Later { .. }) {
        (line, answer) = scene.offers(&header).await;
    }
    line.blocks(&scene.said).await;
    assert_eq!(line.last().await, Answer::Heard);
    scene.heard(1);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_told_to_come_later_and_the_announcer_goes_on() {
    let mut scene = Scene::open().await;
    let longest = Format { wav_bytes: MAX_WAV_BYTES as u32, rate_hz: 48_000 };
    let mut lines = Vec::new();
    // There is room for only two of the longest, one from each station.
    for name in ["hall-2", "hall-3", "hall-4"] {
        let keys = scene.another(name).await;
        let header = TalkbackHeader {
            station: *keys.id().as_bytes(),
            name: name.into(),
            format: longest,
            ..scene.header(1)
        };
        for _ in 0..5 {
            lines.push(scene.offers_as(&keys, &header, &keys).await);
        }
    }
    let taken = lines.iter().filter(|(_, answer)| *answer == Answer::Send).count();
    let later = lines.iter().filter(|(_, answer)| matches!(answer, Answer::Later { .. })).count();
    assert_eq!((taken, later), (2, 13));
    // Another station's talkback is not held up, and neither are pages.
    assert_eq!(scene.says(&scene.header(1)).await, Answer::Heard);
    let hall = Disk::new();
    let mut hall = scene.building.hall(&hall, "hall-5").await;
    scene.building.office.announce().await;
    hall.played().await;
    hall.heard_only(&scene.building.office.wav);
    drop(lines);
    scene.heard(1);
    hall.close().await;
    scene.close().await;
}

/// A page comes while its station talks back: neither affects the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_does_not_wait_for_talkback_nor_talkback_for_a_page() {
    let mut scene = Scene::open().await;
    let mut hall = scene.disk.hall(scene.building.office.address, "hall-1", None);
    hall.connected().await;
    let (mut line, answer) = scene.offers(&scene.header(1)).await;
    assert_eq!(answer, Answer::Send);
    let frames = sealed(&scene.said);
    line.0.1.send_blocks(&frames[0]).await.unwrap();
    scene.building.page(&mut [&mut hall]).await;
    for frame in &frames[1..] {
        line.0.1.send_blocks(frame).await.unwrap();
    }
    assert_eq!(line.last().await, Answer::Heard);
    scene.heard(1);
    hall.close().await;
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_shut_out_or_says_anything_else_is_not_heard() {
    let scene = Scene::open().await;
    // Blocks before an offer, and other messages in the middle of one.
    let mut line = scene.line(&scene.keys()).await;
    line.blocks(&scene.said).await;
    assert_eq!(line.next().await, None);
    let (mut line, _) = scene.offers(&scene.header(1)).await;
    line.0.1.send(&hello("hall-1", 1)).await.unwrap();
    while let Some(answer) = line.next().await {
        assert_eq!(answer, Answer::Wait);
    }
    let mut line = scene.line(&scene.keys()).await;
    line.0
        .1
        .send(&FromStation::Talkback(Offer { header: vec![0; 150], signature: vec![], key: vec![] }))
        .await
        .unwrap();
    assert_eq!(line.next().await, None);

    // Removed in the middle of an offer, and refused from then on.
    let (mut line, answer) = loop {
        let (line, answer) = scene.offers(&scene.header(1)).await;
        if !matches!(answer, Answer::Later { .. }) {
            break (line, answer);
        }
    };
    assert_eq!(answer, Answer::Send);
    shut_out(&scene.building.folder, "hall-1").unwrap();
    scene.building.site.changes().unwrap();
    line.blocks(&scene.said).await;
    assert!(refusal(line.last().await).contains("removed"));
    let announcer = scene.building.keys().noise().public();
    let link = dial(scene.building.office.address, &scene.keys(), Contact::Pinned(announcer)).await;
    if let Ok(link) = link {
        let mut line = Line(link);
        let offer = Offer { header: scene.header(2).encode(), signature: vec![], key: vec![] };
        // It might have hung up already.
        let _ = line.0.1.send(&FromStation::Talkback(offer)).await;
        assert_eq!(line.next().await, None);
    }
    scene.heard(0);
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announcer_that_did_not_ask_for_it_takes_none() {
    let mut building = Building::open().await;
    let disk = Disk::new();
    building.hall(&disk, "hall-1").await.close().await;
    let mut scene = Scene { building, disk, said: wav(8_000, &clip_of(10_000)) };
    let (mut line, answer) = scene.offers(&scene.header(1)).await;
    assert!(refusal(answer).contains("takes no talkback"));
    line.blocks(&scene.said).await;
    assert_eq!(line.next().await, None);
    scene.building.office.log.mark();
    let received = |event: &Event| matches!(event, Event::TalkbackReceived { .. });
    assert_eq!(scene.building.office.log.count(received), 0);
    scene.close().await;
}

/// In open mode, no key ties talkback to a station, but it must be whole all the same.
#[tokio::test(flavor = "multi_thread")]
async fn in_open_mode_it_must_be_whole_and_is_heard_once() {
    let page = clip_of(2_000);
    let mut office =
        crate::peer::Office::open_on("127.0.0.1:0", None, 8_000, &page, Duration::ZERO, true).await;
    let said = wav(8_000, &clip_of(4_000));
    let header = TalkbackHeader {
        station: [0; 32],
        announcer: [0; 32],
        id: ClipId { epoch: 1, sequence: 1 },
        created_unix_ms: 0,
        expires_unix_ms: 60_000,
        format: Format { wav_bytes: said.len() as u32, rate_hz: 8_000 },
        sha256: Sha256::digest(&said).into(),
        name: "hall-1".into(),
    };
    let mut flipped = said.clone();
    flipped[100] ^= 1;
    for (body, is_heard) in [(&flipped, false), (&said, true), (&said, true)] {
        let mut peer = RawStation::open(office.address).await;
        let offer = Offer { header: header.encode(), signature: vec![], key: vec![] };
        peer.say(&FromStation::Talkback(offer)).await;
        peer.bytes(&crate::peer::blocks(body)).await;
        loop {
            match peer.hear().await {
                Heard::Message(FromAnnouncer::Talkback(Answer::Send | Answer::Wait)) => {
                    peer.say(&FromStation::Ping { t1_us: 0 }).await;
                }
                Heard::Message(FromAnnouncer::Talkback(answer)) => {
                    assert_eq!(answer == Answer::Heard, is_heard, "{answer:?}");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let (heard, kept) = office.heard();
    assert!(heard == [said.clone()] && kept == [said]);
    office.log.mark();
    office.close().await;
}

/// Nothing that a station can sign with its own key makes another station play.
#[tokio::test(flavor = "multi_thread")]
async fn no_talkback_is_ever_played_as_an_announcement() {
    const NOW_MS: u64 = 1_790_000_000_000;
    let announcer = AnnouncerKeys::generate().unwrap();
    let mut mask = Mask::of(&announcer).await;
    let office = Disk::new();
    let book = bullhorn::invite::InviteBook::new(&office.folder);
    let invite = book.issue(&announcer, bullhorn::invite::DEFAULT_VALIDITY, 0).unwrap();
    mask.secret = Some(invite.secret().clone());
    let disk = Disk::new();
    let hall = disk.hall(mask.address(), "hall-1", Some(invite));
    let said = wav(8_000, &clip_of(4_000));
    let thief = StationKeys::generate().unwrap();
    let header = TalkbackHeader {
        station: *thief.id().as_bytes(),
        announcer: *announcer.id().as_bytes(),
        id: ClipId { epoch: 7, sequence: 1 },
        created_unix_ms: NOW_MS,
        expires_unix_ms: NOW_MS + 60_000,
        format: Format { wav_bytes: said.len() as u32, rate_hz: 8_000 },
        sha256: Sha256::digest(&said).into(),
        name: "hall-1".into(),
    };
    // First the header that the thief signed as talkback, then a clip's header, signed with the key for talkback.
    let mut talk: Talk<'_> = mask.greet(NOW_MS).await;
    let encoded = header.encode();
    talk.offer(encoded.clone(), seal::talkback::sign(&thief, &encoded).to_vec(), &said).await;
    assert_eq!(talk.next().await, None, "it is no header of a clip");
    let clip = crate::attacks::mask::header_of((7, 1), NOW_MS, &said).encode();
    let mut talk = mask.greet(NOW_MS).await;
    talk.offer(clip.clone(), seal::talkback::sign(&thief, &clip).to_vec(), &said).await;
    assert!(talk.refusal().await.contains("signature is not its announcer's"));
    // An announcer's answer to talkback means nothing to a station that asked for none: it hangs up.
    let mut talk = mask.greet(NOW_MS).await;
    talk.say(FromAnnouncer::Talkback(Answer::Send)).await;
    assert_eq!(talk.next().await, None);
    assert!(hall.files().is_empty());
    hall.close().await;
}
