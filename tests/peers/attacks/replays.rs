//! All recorded traffic is replayed: to the same station, to the same station after a restart, and to the announcer.

use bullhorn::event::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::attacks::building::{Building, Disk};
use crate::attacks::proxy::{Proxy, Side};
use crate::peer::PATIENCE;

/// The number of bytes that an announcer sends to a stranger: its preface and message 2.
const TO_A_STRANGER: usize = 12 + 96;

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_connection_is_played_by_nobody() {
    let mut building = Building::open().await;
    let disk = Disk::new();
    let proxy = Proxy::to(building.office.address).await;
    let mut hall = disk.hall(proxy.address, "hall-1", Some(building.invite()));
    building.office.joined("hall-1").await;
    for _ in 0..2 {
        building.page(&mut [&mut hall]).await;
    }
    let longest = |side| proxy.recorded(side).into_iter().max_by_key(Vec::len).unwrap();
    let (announcer, station) = (longest(Side::Announcer), longest(Side::Station));
    assert!(announcer.len() > building.office.wav.len(), "a whole page is in it");

    for restarted in [false, true] {
        if restarted {
            hall.close().await;
            hall = disk.hall(proxy.address, "hall-1", None);
        }
        hall.log.mark();
        building.office.log.mark();
        proxy.replay(Some(announcer.clone()));
        proxy.cut();
        let reason = hall.waits().await;
        assert!(!reason.is_empty());
        // By its third dial, it has doubled its pause a few times.
        proxy.dialled(3).await;
        hall.log.mark();
        proxy.replay(None);
        proxy.cut();
        hall.connected().await;
        hall.log.mark();
        let mark = std::mem::take(&mut hall.log.mark);
        let played = hall.log.count(|event| matches!(event, Event::Played { .. }));
        assert_eq!(played, if restarted { 0 } else { 2 });
        hall.log.mark = mark;
        building.page(&mut [&mut hall]).await;
        hall.heard_only(&building.office.wav);
    }

    // To the announcer: the station's bytes up to its preface, message 1 and message 3, and all of them.
    building.office.log.mark();
    for cut in [12, 12 + 66, 12 + 66 + 64, station.len()] {
        let mut stream = TcpStream::connect(building.office.address).await.unwrap();
        stream.write_all(&station[..cut]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A reset counts as an end too.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is left in doubt");
        assert!(answer.len() <= TO_A_STRANGER, "{} bytes", answer.len());
    }
    building.page(&mut [&mut hall]).await;
    let mut told = building.office.log.seen.iter();
    let joined = told.rfind(|event| matches!(event, Event::StationJoined { .. })).unwrap();
    assert!(matches!(joined, Event::StationJoined { station, .. } if station == "hall-1"));
    hall.close().await;
    building.office.close().await;
}
