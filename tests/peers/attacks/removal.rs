//! A station that is shut out is out at once, hears nothing more, and does not come back.

use std::time::{Duration, Instant};

use bullhorn::event::Event;
use bullhorn::handshake::Contact;
use bullhorn::invite::shut_out;
use bullhorn::link::{Frame, StationLink};
use bullhorn::wire::{FromAnnouncer, FromStation};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::attacks::building::{Building, Disk, dial};
use crate::peer::PATIENCE;

const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_station_is_cut_off_within_a_second() {
    let mut building = Building::open().await;
    let (disk, other) = (Disk::new(), Disk::new());
    let line = building.invite();
    let mut stolen = building.hall(&disk, "hall-1").await;
    let mut good = building.hall(&other, "hall-2").await;
    building.page(&mut [&mut stolen, &mut good]).await;
    stolen.log.mark();
    let removed = Instant::now();
    shut_out(&building.folder, "hall-1").unwrap();
    assert_eq!(building.office.left("hall-1").await, "it was removed");
    assert!(removed.elapsed() < AT_ONCE, "{:?}", removed.elapsed());
    assert!(stolen.waits().await.contains("closed the connection"));
    assert!(removed.elapsed() < AT_ONCE, "{:?}", removed.elapsed());
    building.page(&mut [&mut good]).await;
    assert_eq!(stolen.files().len(), 1);
    stolen.close().await;

    // Started again, with the invite that its shell remembers, and without it.
    for invite in [None, Some(line)] {
        let mut again = disk.hall(building.office.address, "hall-1", invite);
        let reason = again.waits().await;
        assert!(reason.contains("this station was removed there"), "{reason}");
        building.page(&mut [&mut good]).await;
        assert!(again.files().is_empty());
        again.close().await;
    }
    // The name is free, and a new invite is valid.
    let fresh = Disk::new();
    let mut next = building.hall(&fresh, "hall-1").await;
    building.page(&mut [&mut next, &mut good]).await;
    next.close().await;
    good.close().await;
    building.office.close().await;
}

/// If a station's disk fails while it runs, it reports that, and continues to hear.
#[tokio::test(flavor = "multi_thread")]
async fn a_station_outlives_its_disk() {
    let mut building = Building::open().await;
    let disk = Disk::new();
    let mut hall = building.hall(&disk, "hall-1").await;
    building.page(&mut [&mut hall]).await;
    drop(disk);
    building.page(&mut [&mut hall]).await;
    hall.log
        .until("it to tell of its disk", |event| matches!(event, Event::Warning { .. }).then_some(()))
        .await;
    building.page(&mut [&mut hall]).await;
    hall.close().await;
    building.office.close().await;
}

/// A thief that has completed the handshake with a good invite waits, holding its name, until it is shut out.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_held_in_reserve_is_worth_nothing() {
    // The announcer sends no answer to the last message of a handshake: a connection shut out before the announcer has
    // read that message was never in reserve. Each try waits longer.
    for pause_ms in [50, 200, 800] {
        if are_both_refused(Duration::from_millis(pause_ms)).await {
            return;
        }
    }
    panic!("no connection was ever in reserve");
}

/// Returns whether both links had completed the handshake before the station was shut out. Those that had are refused
/// with a reason.
async fn are_both_refused(pause: Duration) -> bool {
    let mut building = Building::open().await;
    let disk = Disk::new();
    let line = building.invite();
    let stolen = building.hall(&disk, "hall-1").await;
    let (keys, address) = (disk.keys("hall-1"), building.office.address);
    let mut reserve = Vec::new();
    for contact in [Contact::Invite(&line), Contact::Pinned(building.keys().noise().public())] {
        reserve.push(dial(address, &keys, contact).await.unwrap());
    }
    sleep(pause).await;
    shut_out(&building.folder, "hall-1").unwrap();
    // Both at once: neither must wait in silence while the other is refused.
    let [one, other] = reserve.try_into().ok().unwrap();
    let refused = tokio::join!(is_refused(one), is_refused(other));
    building.office.left("hall-1").await;
    assert!(building.site.stations().is_empty());
    assert!(stolen.files().is_empty());
    stolen.close().await;
    building.office.close().await;
    refused == (true, true)
}

/// Says hello on a link of a station that was shut out: it is refused with a reason, or was closed in the handshake.
async fn is_refused((mut receiver, mut sender): StationLink<TcpStream>) -> bool {
    let hello = FromStation::Hello {
        name: "hall-1".into(),
        zones: vec![],
        instance: 1,
        last: None,
        nonce: Some([1; 16]),
        begun: None,
    };
    if sender.send(&hello).await.is_err() {
        return false;
    }
    match timeout(PATIENCE, receiver.next()).await.unwrap() {
        Ok(Some(Frame::Message(FromAnnouncer::Refused { reason }))) => {
            assert!(reason.contains("no station named hall-1 has joined"), "{reason}");
            true
        }
        Ok(None) | Err(_) => false,
        other => panic!("not refused but {other:?}"),
    }
}

/// Whatever else makes the announcer check its list meanwhile, no removed station is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn an_accomplice_that_keeps_the_announcer_busy_does_not_help() {
    let mut building = Building::open().await;
    let (disk, accomplice) = (Disk::new(), Disk::new());
    let stolen = building.hall(&disk, "hall-1").await;
    let helper = building.hall(&accomplice, "hall-2").await;
    helper.close().await;
    let (keys, address) = (accomplice.keys("hall-2"), building.office.address);
    let known = building.keys().noise().public();
    let busy = tokio::spawn(async move {
        loop {
            let Ok(mut link) = dial(address, &keys, Contact::Pinned(known)).await else { continue };
            let hello = FromStation::Hello {
                name: "hall-2".into(),
                zones: vec![],
                instance: 1,
                last: None,
                nonce: Some([1; 16]),
                begun: None,
            };
            if link.1.send(&hello).await.is_ok() {
                let _ = link.0.next().await;
            }
        }
    });
    for round in 0..5 {
        let removed = Instant::now();
        shut_out(&building.folder, "hall-1").unwrap();
        let gone = |event: &Event| {
            matches!(event, Event::StationLeft { station, reason } if station == "hall-1" && reason == "it was removed")
                .then_some(())
        };
        building.office.log.until("hall-1 to be out", gone).await;
        assert!(removed.elapsed() < AT_ONCE, "round {round}: {:?}", removed.elapsed());
        building.office.log.mark();
        if round == 4 {
            break;
        }
        let again = disk.hall(address, "hall-1", Some(building.invite()));
        building.office.joined("hall-1").await;
        building.office.log.mark();
        // Kept for the next round, in which its connection is the one to be cut.
        std::mem::forget(again);
    }
    busy.abort();
    stolen.close().await;
    building.office.close().await;
}
