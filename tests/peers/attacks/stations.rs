//! Rogue stations: an announcer gives them nothing, not even a message.

use std::time::Duration;

use bullhorn::handshake::Contact;
use bullhorn::invite::{Invite, InviteBook};
use bullhorn::keys::{AnnouncerKeys, NoisePublicKey, StationKeys};
use bullhorn::link::Frame;
use bullhorn::wire::FromStation;
use tokio::time::timeout;

use crate::attacks::building::{Building, Disk, dial};
use crate::peer::PATIENCE;

/// Connects with these keys, says hello, and waits: the connection ends, and no message was received.
async fn gets_nothing(building: &Building, keys: &StationKeys, contact: Contact<'_>) {
    let mut link = dial(building.office.address, keys, contact).await.expect("the announcer is genuine");
    let hello = FromStation::Hello {
        name: "hall-9".into(),
        zones: vec![],
        instance: 1,
        last: None,
        nonce: Some([1; 16]),
        begun: None,
    };
    // It might be gone already.
    let _ = link.1.send(&hello).await;
    let heard = timeout(PATIENCE, link.0.next()).await.expect("it is left in doubt");
    assert!(!matches!(heard, Ok(Some(Frame::Message(_) | Frame::Block(_)))), "{heard:?}");
    assert!(building.site.stations().iter().all(|station| station.name != "hall-9"));
}

fn pinned(building: &Building) -> NoisePublicKey {
    building.keys().noise().public()
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_and_bad_invites_get_nothing() {
    let mut building = Building::open().await;
    let (disk, thief) = (Disk::new(), Disk::new());
    let mut hall = building.hall(&disk, "hall-1").await;
    let keys = thief.keys("hall-9");
    gets_nothing(&building, &keys, Contact::Pinned(pinned(&building))).await;

    let book = InviteBook::new(&building.folder);
    let issue =
        |seconds: u64, at: u64| book.issue(&building.keys(), Duration::from_secs(seconds), at).unwrap();
    let now = building.site.unix_ms(tokio::time::Instant::now()) / 1_000;
    let expired = issue(60, now - 61);
    gets_nothing(&building, &keys, Contact::Invite(&expired)).await;
    let replaced = issue(60, now);
    let current = issue(60, now);
    gets_nothing(&building, &keys, Contact::Invite(&replaced)).await;
    // Another site's announcer made it: the secret is not known here.
    let foreign = InviteBook::new(&Disk::new().folder).issue(&building.keys(), Duration::from_secs(60), now);
    gets_nothing(&building, &keys, Contact::Invite(&foreign.unwrap())).await;
    let elsewhere = AnnouncerKeys::generate().unwrap();
    let foreign: Invite =
        InviteBook::new(&Disk::new().folder).issue(&elsewhere, Duration::from_secs(60), now).unwrap();
    assert!(dial(building.office.address, &keys, Contact::Invite(&foreign)).await.is_err());
    book.retire().unwrap();
    gets_nothing(&building, &keys, Contact::Invite(&current)).await;

    building.page(&mut [&mut hall]).await;
    hall.close().await;
    building.office.close().await;
}

/// A name belongs to the key that joined with it, even while that station is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_cannot_be_taken() {
    let mut building = Building::open().await;
    let (disk, thief) = (Disk::new(), Disk::new());
    let mut hall = building.hall(&disk, "hall-1").await;
    let mut rogue = thief.hall(building.office.address, "hall-1", Some(building.invite()));
    let reason = rogue.waits().await;
    assert!(reason.contains("the name hall-1 belongs to another station's key"), "{reason}");
    building.page(&mut [&mut hall]).await;
    hall.close().await;
    building.office.left("hall-1").await;
    rogue.close().await;
    let mut rogue = thief.hall(building.office.address, "hall-1", Some(building.invite()));
    assert!(rogue.waits().await.contains("belongs to another station's key"));
    assert!(rogue.files().is_empty());
    rogue.close().await;
    building.office.close().await;
}
