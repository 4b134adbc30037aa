//! A man in the middle: whatever it does, nothing wrong is played, and when it stops the page arrives.

use std::sync::Arc;

use bullhorn::event::Event;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::attacks::building::{Building, Disk};
use crate::attacks::proxy::{Deed, Piece, Proxy, Side, Tampering};

/// How many buildings are attacked at once.
const AT_ONCE: usize = 24;

/// Announces a page while the attacker is at work.
async fn attacked(tampering: Tampering) {
    let mut building = Building::open().await;
    let disk = Disk::new();
    let proxy = Proxy::to(building.office.address).await;
    let mut hall = disk.hall(proxy.address, "hall-1", Some(building.invite()));
    building.office.joined("hall-1").await;
    // An attacker that only relays sees a page pass and learns nothing: that is the best it can do.
    building.page(&mut [&mut hall]).await;

    hall.log.mark();
    proxy.tamper(tampering);
    proxy.cut();
    building.office.announce().await;
    // The verdict may come before the station is back. The page is kept for it.
    let played = |event: &Event| matches!(event, Event::Played { .. }).then_some(());
    building.office.log.until("the receipt", played).await;
    assert_eq!(proxy.done(), tampering.times, "{tampering:?} was not tried");
    hall.played().await;
    assert_eq!(hall.log.count(|event| matches!(event, Event::Played { .. })), 1, "{tampering:?}");
    building.page(&mut [&mut hall]).await;
    assert_eq!(hall.files().len(), 3);
    hall.heard_only(&building.office.wav);
    hall.close().await;
    building.office.close().await;
}

async fn all(tamperings: Vec<Tampering>) {
    let (room, mut attacks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for tampering in tamperings {
        let room = room.clone();
        attacks.spawn(async move {
            let _place = room.acquire().await.unwrap();
            tokio::spawn(attacked(tampering)).await.map_err(|_| tampering)
        });
    }
    let mut failed = Vec::new();
    while let Some(result) = attacks.join_next().await {
        failed.extend(result.unwrap().err());
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The pieces of one side: its opening, and the frames that follow.
fn pieces(side: Side) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = (0..6).map(Piece::Any).collect();
    if side == Side::Announcer {
        pieces.extend([Piece::Block(0), Piece::Block(1), Piece::Block(2), Piece::AfterBlocks(3)]);
    }
    pieces
}

fn each(deeds: &[Deed]) -> Vec<Tampering> {
    let mut all = Vec::new();
    for side in [Side::Station, Side::Announcer] {
        for piece in pieces(side) {
            all.extend(deeds.iter().map(|&deed| Tampering { side, piece, deed, times: 1 }));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn that_flips_bits_anywhere() {
    all(each(&[Deed::Flip(0, 1), Deed::Flip(300, 0x10), Deed::Flip(700, 4), Deed::Flip(999, 0x80)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_reorders_and_duplicates() {
    all(each(&[Deed::Reorder, Deed::Duplicate])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_drops_and_truncates() {
    all(each(&[Deed::Drop, Deed::Shorten, Deed::Cut])).await;
}
