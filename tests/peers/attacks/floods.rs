//! Floods by a station that has joined, with its own keys, next to three honest ones: everything that it can make the
//! announcer write, sign and emit stays within the table of bounds, and no page waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bullhorn::event::Event;
use bullhorn::handshake::Contact;
use bullhorn::keys::StationKeys;
use bullhorn::link::{Frame, StationLink};
use bullhorn::site::{CHANGE_BURST, CHANGE_INTERVAL};
use bullhorn::wire::{FromAnnouncer, FromStation};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::attacks::building::{Building, Disk, dial};
use crate::bounds::{FLOOD, three_hear_a_page};
use crate::peer::{Hall, Office};

/// The number of connections that flood at the same time.
const CONNECTIONS: usize = 32;
/// Pages that are timed during a flood, and as many without one.
const PAGES: usize = 5;
/// How often a station is sent the time at most.
const TIME_INTERVAL: Duration = Duration::from_secs(5);

/// A site with three honest stations and one that has joined to flood it.
struct Scene {
    building: Building,
    halls: Vec<Hall>,
    keys: Arc<StationKeys>,
    _disks: Vec<Disk>,
    begun: Instant,
}

/// The announcer's answers to the station that floods.
#[derive(Default)]
struct Answers {
    welcomed: AtomicUsize,
    refused: AtomicUsize,
    times: AtomicUsize,
}

impl Scene {
    async fn open() -> Self {
        let (mut building, begun) = (Building::open().await, Instant::now());
        let (mut halls, mut disks) = (Vec::new(), Vec::new());
        for number in 1..=3 {
            let disk = Disk::new();
            halls.push(building.hall(&disk, &format!("hall-{number}")).await);
            disks.push(disk);
        }
        let disk = Disk::new();
        building.hall(&disk, "bad").await.close().await;
        let keys = Arc::new(disk.keys("bad"));
        disks.push(disk);
        Self { building, halls, keys, _disks: disks, begun }
    }

    /// Says hello over and over on many connections, each time with the message that `hello` makes of its number.
    fn hellos(&self, hello: fn(usize) -> FromStation) -> (JoinSet<()>, Arc<Answers>) {
        let (answers, next) = (Arc::new(Answers::default()), Arc::new(AtomicUsize::new(0)));
        let mut flood = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (keys, answers, next) = (self.keys.clone(), answers.clone(), next.clone());
            let (address, known) = (self.building.office.address, self.building.keys().noise().public());
            flood.spawn(async move {
                loop {
                    let Ok(mut link) = dial(address, &keys, Contact::Pinned(known)).await else { continue };
                    if link.1.send(&hello(next.fetch_add(1, Relaxed))).await.is_ok() {
                        answers.hear(&mut link).await;
                    }
                }
            });
        }
        (flood, answers)
    }

    /// Opens one connection that is welcomed, and then sends the same two messages over and over.
    async fn pours(&self, messages: [FromStation; 2]) -> (JoinSet<()>, Arc<Answers>) {
        let known = self.building.keys().noise().public();
        let mut link = dial(self.building.office.address, &self.keys, Contact::Pinned(known)).await.unwrap();
        link.1.send(&hello("bad", vec![])).await.unwrap();
        let answers = Arc::new(Answers::default());
        answers.hear(&mut link).await;
        assert_eq!(answers.welcomed.load(Relaxed), 1);
        let (mut receiver, mut sender) = link;
        let mut flood = JoinSet::new();
        flood.spawn(async move {
            loop {
                for message in &messages {
                    if sender.send(message).await.is_err() {
                        return;
                    }
                }
            }
        });
        let heard = answers.clone();
        flood.spawn(async move {
            while let Ok(Some(frame)) = receiver.next().await {
                heard.note(&frame);
            }
        });
        (flood, answers)
    }
}

impl Answers {
    async fn hear(&self, link: &mut StationLink<TcpStream>) {
        if let Ok(Some(frame)) = link.0.next().await {
            self.note(&frame);
        }
    }

    fn note(&self, frame: &Frame<FromAnnouncer>) {
        match frame {
            Frame::Message(FromAnnouncer::Welcome { .. }) => self.welcomed.fetch_add(1, Relaxed),
            Frame::Message(FromAnnouncer::Time(_)) => self.times.fetch_add(1, Relaxed),
            Frame::Message(FromAnnouncer::Refused { reason }) => {
                // Another of its connections might have changed its name meanwhile.
                let is_overtaken = reason.contains("no station named");
                assert!(is_overtaken || reason.contains("12 times within a minute"), "{reason}");
                self.refused.fetch_add(usize::from(!is_overtaken), Relaxed)
            }
            _ => 0,
        };
    }

    /// Checks that no more changes were accepted than the limit allows.
    fn are_bounded(&self, begun: Instant) {
        let (welcomed, refused) = (self.welcomed.load(Relaxed), self.refused.load(Relaxed));
        let most =
            CHANGE_BURST as usize + (begun.elapsed().as_secs() / CHANGE_INTERVAL.as_secs()) as usize + 1;
        assert!(
            refused > 0 && welcomed <= most,
            "{welcomed} of {} changes in {:?}",
            welcomed + refused,
            begun.elapsed()
        );
    }
}

/// Ends a flood. A fault that one of its connections found fails the test.
async fn end(mut flood: JoinSet<()>) {
    flood.abort_all();
    while let Some(ended) = flood.join_next().await {
        if let Err(error) = ended {
            assert!(error.is_cancelled(), "{error}");
        }
    }
}

fn hello(name: &str, zones: Vec<String>) -> FromStation {
    FromStation::Hello {
        name: name.into(),
        zones,
        instance: 1,
        last: None,
        nonce: Some([1; 16]),
        begun: None,
    }
}

/// The times from Enter until each page is recorded, in ms, sorted.
async fn recorded_ms(office: &mut Office) -> Vec<f64> {
    let mut times = Vec::new();
    for _ in 0..PAGES {
        let pressed = Instant::now();
        office.announce().await;
        let recorded = |event: &Event| matches!(event, Event::Recorded { .. }).then_some(());
        office.log.until("the page to be recorded", recorded).await;
        times.push(pressed.elapsed().as_secs_f64() * 1_000.0);
        office.verdict().await;
    }
    times.sort_by(f64::total_cmp);
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_zones_are_bounded_and_delay_no_page() {
    let mut scene = Scene::open().await;
    let quiet = recorded_ms(&mut scene.building.office).await;
    let begun = Instant::now();
    let (flood, answers) =
        scene.hellos(|number| hello("bad", (0..16).map(|zone| format!("zone {number} {zone}")).collect()));
    sleep(FLOOD).await;
    let flooded = recorded_ms(&mut scene.building.office).await;
    let hellos = answers.welcomed.load(Relaxed) + answers.refused.load(Relaxed);
    let a_second = hellos as f64 / begun.elapsed().as_secs_f64();
    let [quiet, flooded] =
        [quiet, flooded].map(|ms| format!("{:.1} ms (most {:.1} ms)", ms[PAGES / 2], ms[PAGES - 1]));
    println!("Enter to recorded: {quiet}; beside {a_second:.0} hellos a second with other zones: {flooded}");
    three_hear_a_page(&mut scene.building.office, &mut scene.halls, scene.begun).await;
    end(flood).await;
    answers.are_bounded(begun);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_name_are_bounded_and_disturb_nobody() {
    let mut scene = Scene::open().await;
    let begun = Instant::now();
    let (flood, answers) = scene.hellos(|number| hello(&format!("bad {number}"), vec![]));
    sleep(FLOOD).await;
    three_hear_a_page(&mut scene.building.office, &mut scene.halls, scene.begun).await;
    end(flood).await;
    answers.are_bounded(begun);
    // Exactly one of those names is stored, once.
    let bad = scene.building.site.stations().into_iter().filter(|it| it.name.starts_with("bad")).count();
    assert_eq!(bad, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_questions_for_the_time_costs_one_signature_each_five_seconds() {
    let mut scene = Scene::open().await;
    let begun = Instant::now();
    let ask = FromStation::AskTime { nonce: [2; 16] };
    let (flood, answers) = scene.pours([ask.clone(), ask]).await;
    sleep(FLOOD).await;
    three_hear_a_page(&mut scene.building.office, &mut scene.halls, scene.begun).await;
    end(flood).await;
    let (times, most) =
        (answers.times.load(Relaxed), 1 + begun.elapsed().as_secs() / TIME_INTERVAL.as_secs());
    assert!((1..=most as usize).contains(&times), "{times} in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_faults_disturbs_nobody() {
    let mut scene = Scene::open().await;
    let faulty = FromStation::Health { fault: Some("it crackles".into()) };
    let (flood, _) = scene.pours([faulty, FromStation::Health { fault: None }]).await;
    sleep(FLOOD).await;
    three_hear_a_page(&mut scene.building.office, &mut scene.halls, scene.begun).await;
    end(flood).await;
}
