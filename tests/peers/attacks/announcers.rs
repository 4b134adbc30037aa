//! Rogue announcers: whatever keys they hold other than the announcer's own, no station says its name to them.

use bullhorn::keys::AnnouncerKeys;
use bullhorn::link::Frame;
use bullhorn::wire::{FromAnnouncer, FromStation};

use crate::attacks::building::{Building, Disk};
use crate::attacks::mask::{Mask, header_of};
use crate::attacks::proxy::{Proxy, Side};
use crate::peer::{clip_of, wav};

/// What a station says before it knows who answers: its preface and message 1.
const BEFORE_IT_KNOWS: usize = 12 + 66;

/// Leads a station of a real site to this announcer, where it connects three times, and then back home.
async fn nothing_is_said_to(rogue: impl Fn(&Building, &Disk) -> AnnouncerKeys, with_invite: bool) {
    let mut building = Building::open().await;
    let disk = Disk::new();
    let proxy = Proxy::to(building.office.address).await;
    let keys = if with_invite {
        rogue(&building, &disk)
    } else {
        let mut hall = disk.hall(proxy.address, "hall-1", Some(building.invite()));
        building.office.joined("hall-1").await;
        building.page(&mut [&mut hall]).await;
        let keys = rogue(&building, &disk);
        hall.close().await;
        keys
    };
    let mut mask = Mask::of(&keys).await;
    mask.secret = Some(building.invite().secret().clone());
    proxy.lead_to(mask.address());
    proxy.forget();
    let invite = with_invite.then(|| building.invite());
    let mut hall = disk.hall(proxy.address, "hall-1", invite);
    for _ in 0..3 {
        assert!(mask.accept().await.is_err());
    }
    let reason = hall.waits().await;
    let expected =
        if with_invite { "is not the announcer that made the invite" } else { "HAS CHANGED ITS KEY" };
    assert!(reason.contains(expected), "{reason}");
    for said in proxy.recorded(Side::Station) {
        assert!(said.len() <= BEFORE_IT_KNOWS, "it said {} bytes", said.len());
    }
    assert!(hall.files().is_empty());

    hall.log.mark();
    proxy.lead_to(building.office.address);
    hall.connected().await;
    building.page(&mut [&mut hall]).await;
    hall.close().await;
    building.office.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_with_keys_of_its_own() {
    nothing_is_said_to(|_, _| AnnouncerKeys::generate().unwrap(), false).await;
}

/// Holds the stolen station's key in place of the announcer's.
#[tokio::test(flavor = "multi_thread")]
async fn one_with_a_stolen_stations_keys() {
    let stolen = |_: &Building, disk: &Disk| {
        let station = disk.folder.within("hall-1").unwrap();
        let key = std::fs::read_to_string(station.path().join("station.key")).unwrap();
        let noise = key.lines().find(|line| line.starts_with("x25519 ")).unwrap().to_owned();
        let body = format!("bullhorn announcer-key 1\ned25519 {}\n{noise}\n", "5a".repeat(32));
        let sum: String = {
            use sha2::{Digest, Sha256};
            Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let thief = Disk::new();
        thief
            .folder
            .lock()
            .unwrap()
            .write("announcer.key", format!("{body}sha256 {sum}\n").as_bytes())
            .unwrap();
        let keys = AnnouncerKeys::load(&thief.folder).unwrap().unwrap();
        assert_eq!(keys.noise().public(), disk.keys("hall-1").noise().public());
        keys
    };
    nothing_is_said_to(stolen, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_the_invite() {
    nothing_is_said_to(|_, _| AnnouncerKeys::generate().unwrap(), true).await;
}

/// Even an announcer that has the handshake key but not the signing key cannot speak.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_sign() {
    let mut building = Building::open().await;
    let disk = Disk::new();
    let proxy = Proxy::to(building.office.address).await;
    let mut hall = disk.hall(proxy.address, "hall-1", Some(building.invite()));
    building.office.joined("hall-1").await;
    building.page(&mut [&mut hall]).await;
    hall.log.mark();
    let mut mask = Mask::of(&building.keys()).await;
    mask.signer = AnnouncerKeys::generate().unwrap();
    proxy.lead_to(mask.address());
    proxy.cut();
    let page = wav(8_000, &clip_of(100));
    // Under a name of its own …
    let mut talk = mask.greet(1_000_000).await;
    talk.offer_signed(&header_of((u64::MAX, 1), 1_000_000, &page), &page).await;
    assert_eq!(talk.next().await, None);
    // … and under the announcer's, with a time that it cannot have signed.
    let mut link = mask.accept().await.unwrap();
    let Some(Frame::Message(FromStation::Hello { nonce: Some(nonce), .. })) = link.0.next().await.unwrap()
    else {
        panic!("no Hello with a nonce")
    };
    let site = Some((building.site.announcer(), mask.states(nonce, 1_000_000)));
    link.1.send(&FromAnnouncer::Welcome { clock: 5, site }).await.unwrap();
    while let Ok(Some(_)) = link.0.next().await {}
    assert!(hall.waits().await.len() > 10);

    hall.log.mark();
    proxy.lead_to(building.office.address);
    hall.connected().await;
    building.page(&mut [&mut hall]).await;
    hall.close().await;
    building.office.close().await;
}
