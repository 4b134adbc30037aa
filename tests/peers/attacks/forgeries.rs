//! Forged headers: 10,000 through a station's own admission, and as many over a socket.

use bullhorn::event::Event;
use bullhorn::invite::{DEFAULT_VALIDITY, InviteBook};
use bullhorn::keys::AnnouncerKeys;
use bullhorn::priority::Priority;
use bullhorn::seal::{self, Claim, TimeNonce, TimeStatement};
use bullhorn::wire::{ClipHeader, FromAnnouncer, FromStation, Statement};
use tokio::time::Instant;

use crate::attacks::building::Disk;
use crate::attacks::mask::{Mask, header_of};
use crate::peer::{Hall, clip_of, wav};

const NOW_MS: u64 = 1_790_000_000_000;
const FORGERIES: usize = 10_000;

/// xorshift64; the same bytes every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    /// A header and a signature that the announcer never gave to it.
    fn forge(&mut self, keys: &AnnouncerKeys, page: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let genuine = header_of((9, 1 + self.roll(1_000) as u64), NOW_MS, page).encode();
        let (mut header, mut signature) = (genuine.clone(), seal::sign(keys, &genuine));
        match self.roll(4) {
            0 => {
                let other = AnnouncerKeys::generate().unwrap();
                signature = seal::sign(&other, &header);
            }
            1 => signature.iter_mut().for_each(|byte| *byte = self.roll(256) as u8),
            kind => {
                for _ in 0..=self.roll(3) {
                    let (bits, place) = (1 << self.roll(8), self.roll(1 << 20));
                    if kind == 2 {
                        // Its layout and its name stay intact, so that it is judged at all.
                        let at = 17 + place % (header.len() - 17);
                        header[at] ^= bits;
                    } else {
                        signature[place % 64] ^= bits;
                    }
                }
                if (&header, signature) == (&genuine, seal::sign(keys, &genuine)) {
                    signature[0] ^= 1;
                }
            }
        }
        (header, signature.to_vec())
    }
}

#[test]
fn ten_thousand_are_not_admitted() {
    let (keys, office, disk) = (AnnouncerKeys::generate().unwrap(), Disk::new(), Disk::new());
    let invite = InviteBook::new(&office.folder).issue(&keys, DEFAULT_VALIDITY, 0).unwrap();
    let mut member = disk.member("127.0.0.1:7766".parse().unwrap(), "hall-1", &[], Some(invite));
    let nonce = TimeNonce::generate().unwrap();
    let signed = TimeStatement::sign(&keys, nonce, NOW_MS);
    let statement = Statement { unix_ms: NOW_MS, signature: signed.signature.to_vec() };
    let asked = Instant::now();
    member.welcomed(keys.noise().public(), *keys.id().as_bytes(), nonce, &statement, asked).unwrap();
    let admission = member.admission(Priority::Normal).unwrap();
    let admitted = |header: &[u8], signature: &[u8]| {
        ClipHeader::decode(header).is_ok_and(|parsed| {
            let claim = Claim {
                header,
                signature: signature.try_into().unwrap(),
                announcer: keys.id(),
                epoch: parsed.id.epoch,
                sequence: parsed.id.sequence,
                created_unix_ms: parsed.created_unix_ms,
                expires_unix_ms: parsed.expires_unix_ms,
                zones: &parsed.zones,
                format: Some(parsed.format),
            };
            admission.judge(&claim, asked).is_ok()
        })
    };
    let page = wav(8_000, &clip_of(400));
    let genuine = header_of((9, 1), NOW_MS, &page).encode();
    assert!(admitted(&genuine, &seal::sign(&keys, &genuine)), "it would be if it were genuine");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let admitted = (0..FORGERIES)
        .filter(|_| {
            let (header, signature) = dice.forge(&keys, &page);
            admitted(&header, &signature)
        })
        .count();
    assert_eq!(admitted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_over_a_socket_play_nothing() {
    let (keys, office, disk) = (AnnouncerKeys::generate().unwrap(), Disk::new(), Disk::new());
    let invite = InviteBook::new(&office.folder).issue(&keys, DEFAULT_VALIDITY, 0).unwrap();
    let mut mask = Mask::of(&keys).await;
    mask.secret = Some(invite.secret().clone());
    let mut hall: Hall = disk.hall(mask.address(), "hall-1", Some(invite));
    let page = wav(8_000, &clip_of(400));
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for _ in 0..FORGERIES {
        let (header, signature) = dice.forge(&keys, &page);
        let mut talk = mask.greet(NOW_MS).await;
        talk.offer(header, signature, &page).await;
        match talk.next().await {
            Some(FromStation::Rejected { clip, .. }) => talk.say(FromAnnouncer::Noted { clip }).await,
            other => panic!("not refused but {other:?}"),
        }
        hall.log.mark();
    }
    let genuine = header_of((9, 1_001), NOW_MS, &page);
    let mut talk = mask.greet(NOW_MS).await;
    talk.offer_signed(&genuine, &page).await;
    talk.plays(genuine.id).await;
    hall.played().await;
    hall.log.mark();
    hall.log.mark = 0;
    let told = |wanted: fn(&Event) -> bool| hall.log.seen.iter().filter(|event| wanted(event)).count();
    assert_eq!(told(|event| matches!(event, Event::Rejected { .. })), FORGERIES);
    assert_eq!(told(|event| matches!(event, Event::Verified { .. })), 1);
    assert_eq!(told(|event| matches!(event, Event::Played { .. })), 1);
    assert_eq!(hall.files().len(), 1);
    hall.close().await;
}
