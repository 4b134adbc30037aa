//! Peers that misbehave, over real sockets, while a good one does its work.

mod clips;
mod headers;
mod on_air;
mod station;
mod strangers;

use std::future::Future;
use std::time::Duration;

use crate::peer::{Hall, Office};
use bullhorn::event::Event;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Added to a deadline of the protocol, because a loaded machine might take longer.
const MARGIN: Duration = Duration::from_millis(2_500);

/// Runs cases in parallel. Each panics on its own, and the name of a case that panics is printed.
#[derive(Default)]
pub struct Cases(JoinSet<()>, usize);

impl Cases {
    pub fn add(&mut self, what: impl Into<String>, case: impl Future<Output = ()> + Send + 'static) {
        let what = what.into();
        self.1 += 1;
        self.0.spawn(async move {
            let told = Named(what);
            case.await;
            std::mem::forget(told);
        });
    }

    pub fn count(&self) -> usize {
        self.1
    }

    pub async fn all(mut self) {
        let mut failed = 0;
        while let Some(result) = self.0.join_next().await {
            failed += usize::from(result.is_err());
        }
        assert_eq!(failed, 0, "of {} cases", self.1);
    }
}

struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        eprintln!("the case that failed: {}", self.0);
    }
}

/// Opens an announcer with a short page, and a good station that waits for it.
async fn office_and_hall(keep: Duration) -> (Office, Hall) {
    let mut office = Office::open(8_000, &crate::peer::clip_of(2_000), keep).await;
    let hall = Hall::open(office.address, "good");
    office.joined("good").await;
    (office, hall)
}

/// Announces. The good station is undisturbed if it begins before any bad one can have run out of time.
async fn good_one_plays(office: &mut Office, hall: &mut Hall) {
    let announced = Instant::now();
    office.announce().await;
    let begins = |event: &Event| match event {
        Event::Playing { station, .. } if station == "good" => Some(()),
        _ => None,
    };
    office.log.until("the good station to begin", begins).await;
    assert!(announced.elapsed() < MARGIN, "it was held up for {:?}", announced.elapsed());
    let played = |event: &Event| match event {
        Event::Played { station, .. } if station == "good" => Some(()),
        _ => None,
    };
    office.log.until("the good station to have played", played).await;
    hall.played().await;
    hall.log.mark();
    let newest = hall.files().pop().unwrap();
    assert_eq!(std::fs::read(newest).unwrap(), office.wav);
}
