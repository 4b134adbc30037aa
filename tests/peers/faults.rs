//! Whatever the network does to a station, and whenever in an announcement: every clip has exactly one outcome at that
//! station, which is the true one, and the other stations notice nothing. Real announcer, real stations, real sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::attacks::building::{Building, Disk};
use crate::peer::{Hall, Log, PATIENCE};
use crate::support::network::{Fault, Network, Trigger, Way};
use crate::support::oracle;
use bullhorn::event::Event;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How many buildings are hit at once.
const AT_ONCE: usize = 16;
/// The least time that a lasting fault lasts: longer than a station or an announcer takes to notice.
const LASTING: Duration = Duration::from_millis(3_500);
/// A ping is shorter, and so is anything else that a station sends after it has begun to play, except its receipt.
const RECEIPT_BYTES: usize = 30;

/// The point in an announcement at which the fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Sending,
    Verified,
    Playing,
    Reporting,
}

const PHASES: [Phase; 5] =
    [Phase::Waiting, Phase::Sending, Phase::Verified, Phase::Playing, Phase::Reporting];

/// Makes one announcement to three stations while the network of the first fails, and another after it has recovered.
async fn announced(fault: Fault, phase: Phase) {
    let mut building = Building::open().await;
    let network = Network::to(building.office.address).await;
    let disks = [Disk::new(), Disk::new(), Disk::new()];
    let mut halls = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        let address = if number == 0 { network.address } else { building.office.address };
        let name = format!("hall-{}", number + 1);
        halls.push(disk.hall(address, &name, Some(building.invite())));
        building.office.joined(&name).await;
    }
    let mut borrowed: Vec<&mut Hall> = halls.iter_mut().collect();
    building.page(&mut borrowed).await;
    building.office.log.mark();
    match phase {
        Phase::Waiting => {
            network.strike(fault);
            building.office.announce().await;
        }
        Phase::Sending => {
            network.arm(fault, Trigger::BytesDown(20_000));
            building.office.announce().await;
        }
        Phase::Verified | Phase::Playing | Phase::Reporting => {
            building.office.announce().await;
            let wanted = |event: &Event| match event {
                Event::Verified { station, .. } => phase == Phase::Verified && station == "hall-1",
                Event::Playing { station, .. } => phase != Phase::Verified && station == "hall-1",
                _ => false,
            };
            building.office.log.until("the phase", |event| wanted(event).then_some(())).await;
            match phase {
                Phase::Reporting => network.arm(fault, Trigger::LongPieceUp(RECEIPT_BYTES)),
                _ => network.strike(fault),
            }
        }
    }
    timeout(PATIENCE, network.struck()).await.expect("the fault was not called for");
    sleep(LASTING).await;
    network.heal();
    for name in ["hall-1", "hall-2", "hall-3"] {
        outcome(&mut building.office.log, name).await;
    }
    building.office.log.mark();
    building.office.announce().await;
    for name in ["hall-1", "hall-2", "hall-3"] {
        let last = outcome(&mut building.office.log, name).await;
        assert!(matches!(last, Event::Played { .. }), "after the fault: {last:?}");
    }
    // Events that the stations cause by leaving are not part of it.
    building.office.log.mark();
    let announcer = vec![told(&building.office.log)];
    let mut stories = BTreeMap::new();
    for mut hall in halls {
        hall.heard_only(&building.office.wav);
        assert_eq!(hall.files().len(), 3, "{}", hall.name);
        hall.log.mark();
        stories.insert(hall.name.clone(), vec![told(&hall.log)]);
        hall.close().await;
    }
    let judged = oracle::judge(&announcer, &stories);
    assert_eq!(judged.faults, [] as [String; 0]);
    assert_eq!(judged.clips, 3);
    for other in ["hall-2", "hall-3"] {
        let disturbed = |event: &&Value| {
            event["station"] == other
                && (["station-left", "failed", "rejected"].iter().any(|name| event["event"] == *name)
                    || event["again"] == true)
        };
        let disturbed: Vec<_> = announcer[0].iter().filter(disturbed).collect();
        assert!(disturbed.is_empty(), "{disturbed:?}");
    }
    building.office.close().await;
}

/// Waits for the outcome of a clip at a station, since the mark.
async fn outcome(log: &mut Log, name: &str) -> Event {
    let last = |event: &Event| match event {
        Event::Played { station, .. } | Event::Failed { station, .. } if station == name => {
            Some(event.clone())
        }
        _ => None,
    };
    log.until(&format!("the outcome for {name}"), last).await
}

/// All emitted events, as they are printed.
fn told(log: &Log) -> Vec<Value> {
    log.seen
        .iter()
        .filter_map(|event| bullhorn::report::json(event, 0))
        .map(|it| serde_json::from_str(&it).unwrap())
        .collect()
}

async fn in_every_phase(faults: &[Fault]) {
    let (room, mut announcements) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for (fault, phase) in faults.iter().flat_map(|fault| PHASES.map(|phase| (*fault, phase))) {
        let room = room.clone();
        announcements.spawn(async move {
            let _place = room.acquire().await.unwrap();
            tokio::spawn(announced(fault, phase)).await.map_err(|panic| {
                let words = panic.into_panic();
                let words = words.downcast_ref::<String>().cloned().unwrap_or_default();
                (fault, phase, words.chars().take(2_000).collect::<String>())
            })
        });
    }
    let mut failed = Vec::new();
    while let Some(result) = announcements.join_next().await {
        failed.extend(result.unwrap().err());
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end() {
    in_every_phase(&[Fault::Cut, Fault::Reset, Fault::HalfOpen(Way::Up), Fault::HalfOpen(Way::Down)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_what_was_sent() {
    let deeds = [Fault::Flip, Fault::Truncate, Fault::Duplicate];
    let faults: Vec<Fault> = deeds.iter().flat_map(|deed| [deed(Way::Up), deed(Way::Down)]).collect();
    in_every_phase(&faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn black_holes() {
    in_every_phase(&[Fault::BlackHole(Way::Up), Fault::BlackHole(Way::Down)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_networks() {
    in_every_phase(&[
        Fault::Delay(Duration::from_millis(300)),
        Fault::Jitter(Duration::from_millis(400)),
        Fault::Bandwidth(30_000),
        Fault::OneByte,
        Fault::SlowClose(Duration::from_secs(2)),
    ])
    .await;
}
