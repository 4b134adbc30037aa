//! One station is on a slow line, which is not its fault: it may be late itself, but makes no other station late.

use std::time::Duration;

use bullhorn::event::{Event, Outcome};

use crate::peer::{Hall, Log, Office, clip_of};
use crate::support::network::{Fault, Network};

const RATE_HZ: u32 = 8_000;
/// The length of a page.
const LENGTH: Duration = Duration::from_secs(8);
/// A page is kept while the one before it plays, but not while that one plays once more for the late station.
const KEEP: Duration = Duration::from_secs(10);
/// The bytes per second of the slow line: a page of 128 kB takes three seconds.
const SLOW_BYTES: u64 = 40_000;

async fn announced(office: &mut Office) -> String {
    office.log.mark();
    office.announce().await;
    let recorded = |event: &Event| match event {
        Event::Recorded { clip, .. } => Some(clip.clone()),
        _ => None,
    };
    office.log.until("the recording", recorded).await
}

/// Waits for the outcome of a clip at a station, and returns it with its lateness in ms.
async fn outcome(log: &mut Log, of: &str, at: &str) -> (Outcome, u64) {
    let ended = |event: &Event| match event {
        Event::Played { clip, station, outcome, late_ms, .. } if clip == of && station == at => {
            Some((*outcome, *late_ms))
        }
        Event::Failed { clip, station, outcome, .. } if clip == of && station == at => Some((*outcome, 0)),
        _ => None,
    };
    log.until("the outcome", ended).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_is_late_makes_nobody_miss_the_next_page() {
    let frames = RATE_HZ * LENGTH.as_secs() as u32;
    let mut office = Office::open(RATE_HZ, &clip_of(frames), KEEP).await;
    let network = Network::to(office.address).await;
    let mut halls = Vec::new();
    for (name, address) in
        [("slow", network.address), ("quick-1", office.address), ("quick-2", office.address)]
    {
        halls.push(Hall::open(address, name));
        office.joined(name).await;
    }
    network.strike(Fault::Bandwidth(SLOW_BYTES));

    let first = announced(&mut office).await;
    let has_it =
        |event: &Event| matches!(event, Event::Verified { station, .. } if station == "slow").then_some(());
    office.log.until("the slow one to have it", has_it).await;
    let second = announced(&mut office).await;
    for station in ["quick-1", "quick-2"] {
        for page in [&first, &second] {
            assert_eq!(
                outcome(&mut office.log, page, station).await.0,
                Outcome::Played,
                "{page} at {station}"
            );
        }
    }
    let (late, late_ms) = outcome(&mut office.log, &first, "slow").await;
    assert_eq!(late, Outcome::PlayedLate);
    assert!(late_ms >= LENGTH.as_millis() as u64, "{late_ms} ms");
    // By the time the slow station is free, the second page has expired.
    assert_eq!(outcome(&mut office.log, &second, "slow").await.0, Outcome::Missed);
    for (hall, pages) in halls.iter_mut().zip([1, 2, 2]) {
        for _ in 0..pages {
            hall.played().await;
        }
        assert_eq!(hall.files().len(), pages, "{}", hall.name);
    }
    for hall in halls {
        hall.close().await;
    }
    assert!(!office.close().await);
}
