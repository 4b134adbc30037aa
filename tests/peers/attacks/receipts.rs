//! A station that has joined lies: it can lie only about itself.

use bullhorn::event::Event;
use bullhorn::handshake::Contact;
use bullhorn::link::{Frame, StationLink};
use bullhorn::wire::{ClipId, FromAnnouncer, FromStation, Receipt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::attacks::building::{Building, Disk, dial};
use crate::peer::PATIENCE;

fn receipt(clip: ClipId) -> Receipt {
    Receipt { clip, frames: 1, start_error_us: 0, max_error_us: 0, underruns: 0, uncertainty_us: 0 }
}

async fn hear(link: &mut StationLink<TcpStream>) -> Option<FromAnnouncer> {
    loop {
        match timeout(PATIENCE, link.0.next()).await.expect("nothing was heard in time") {
            Ok(Some(Frame::Message(message))) => return Some(message),
            Ok(Some(Frame::Block(_))) => (),
            Ok(None) | Err(_) => return None,
        }
    }
}

async fn say_hello(link: &mut StationLink<TcpStream>, name: &str, last: Option<Receipt>) {
    let hello = FromStation::Hello {
        name: name.into(),
        zones: vec![],
        instance: 1,
        last,
        nonce: Some([1; 16]),
        begun: None,
    };
    link.1.send(&hello).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reports_for_another() {
    let mut building = Building::open().await;
    let (disk, liars) = (Disk::new(), Disk::new());
    let hall = building.hall(&disk, "hall-1").await;
    let (keys, address) = (liars.keys("liar"), building.office.address);
    let known = Contact::Pinned(building.keys().noise().public());
    let mut liar = dial(address, &keys, Contact::Invite(&building.invite())).await.unwrap();
    say_hello(&mut liar, "liar", None).await;
    assert!(matches!(hear(&mut liar).await, Some(FromAnnouncer::Welcome { .. })));
    drop(liar);
    building.office.left("liar").await;
    // The honest station is cut off, so that the page stays open for it.
    hall.close().await;
    building.office.left("hall-1").await;
    building.office.announce().await;
    let clip = ClipId { epoch: building.site.epoch(), sequence: 1 };

    // Under the other station's name.
    let mut thief = dial(address, &keys, known).await.unwrap();
    say_hello(&mut thief, "hall-1", Some(receipt(clip))).await;
    let Some(FromAnnouncer::Refused { reason }) = hear(&mut thief).await else { panic!("not refused") };
    assert!(reason.contains("belongs to another station's key"), "{reason}");
    assert_eq!(hear(&mut thief).await, None);

    // Under its own name, for a clip that it was never told to play, in its Hello and later.
    let lies = [
        FromStation::Played(receipt(clip)),
        FromStation::Playing { clip },
        FromStation::Failed { clip, reason: "no".into() },
        FromStation::Played(receipt(ClipId { epoch: clip.epoch, sequence: 2 })),
        FromStation::Verified { clip: ClipId { epoch: 1, sequence: 1 }, lead_us: 0 },
    ];
    for lie in lies {
        let mut link = dial(address, &keys, known).await.unwrap();
        say_hello(&mut link, "liar", Some(receipt(clip))).await;
        assert!(matches!(hear(&mut link).await, Some(FromAnnouncer::Welcome { .. })));
        // It is offered the clip, as it should be, but does not verify it.
        assert!(matches!(hear(&mut link).await, Some(FromAnnouncer::Clip { .. })));
        link.1.send(&lie).await.unwrap();
        assert_eq!(hear(&mut link).await, None, "{lie:?}");
    }
    building.office.log.mark();
    building.office.log.mark = 0;
    assert_eq!(building.office.log.count(|event| matches!(event, Event::Played { .. })), 0);

    // The honest station comes back, and its receipt is the only one.
    let mut hall = disk.hall(address, "hall-1", None);
    let played = |event: &Event| match event {
        Event::Played { station, .. } => Some(station.clone()),
        _ => None,
    };
    assert_eq!(building.office.log.until("a receipt", played).await, "hall-1");
    hall.played().await;
    hall.heard_only(&building.office.wav);
    hall.close().await;
    building.office.close().await;
}
