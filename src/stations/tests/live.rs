//! Live speech on the roster: which stations join when, what receipts are worth, and how clips and live speech make
//! room for each other.

use super::super::live::LiveOffer;
use super::super::*;
use super::office::{LENGTH, Office, clip};
use crate::event::Outcome;
use crate::priority::Priority;
use crate::wire::LiveReceipt;

const LATENCY: Duration = Duration::from_millis(140);
const BLOCKS: u32 = 100;

impl Office {
    fn speak(&mut self, sequence: u64, priority: Priority, zones: &[&str]) -> (ClipId, Vec<String>) {
        let zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
        let offer = LiveOffer::new(clip(sequence), (vec![3], vec![]), priority, zones, LATENCY);
        let names = self.stations.begin_live(Arc::new(offer), self.now);
        self.collect();
        (clip(sequence), names)
    }

    fn stop(&mut self) {
        self.stations.end_live(BLOCKS, self.now);
        self.collect();
    }

    /// How often a station was let in on its current connection.
    fn lets_in(&self, name: &str) -> usize {
        let mine = self.online.get(name);
        let lets = |(to, order, _): &&(ConnectionId, Order, Instant)| {
            Some(to) == mine && matches!(order, Order::Live(_))
        };
        self.orders.iter().filter(lets).count()
    }

    fn tells(&mut self, name: &str, id: ClipId, played: u32) {
        self.says(name, FromStation::LivePlayed(receipt(id, played, BLOCKS - played)));
    }

    fn concealed(&self) -> Vec<(String, u32)> {
        let concealed = self.events.iter().rev().find_map(|event| match event {
            Event::Done { concealed, .. } => Some(concealed.clone()),
            _ => None,
        });
        concealed.expect("a verdict").into_iter().map(|it| (it.station, it.concealed)).collect()
    }
}

fn receipt(clip: ClipId, played: u32, concealed: u32) -> LiveReceipt {
    LiveReceipt {
        clip,
        played,
        concealed,
        late: 0,
        start_error_us: 0,
        max_error_us: 0,
        underruns: 0,
        uncertainty_us: 0,
    }
}

#[test]
fn those_that_are_here_hear_it_and_each_outcome_is_named() {
    let mut office = Office::with(&["a", "b", "c", "d"]);
    office.leave("d");
    let (id, names) = office.speak(1, Priority::Normal, &[]);
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert_eq!(["a", "b", "c"].map(|name| office.lets_in(name)), [1, 1, 1]);
    for name in ["a", "b", "c"] {
        office.says(name, FromStation::Playing { clip: id });
    }
    office.pass(Duration::from_secs(300));
    assert!(office.verdicts(id).is_empty(), "nobody is given up while somebody speaks");
    office.stop();
    office.tells("a", id, BLOCKS);
    office.tells("b", id, BLOCKS - 5);
    assert!(office.verdicts(id).is_empty());
    assert!(!office.stations.is_settled());
    office.tells("c", id, BLOCKS - 6);
    let missing = vec![
        ("c".into(), "it heard 94 of 100 blocks".into()),
        ("d".into(), "not connected: the cable was pulled".into()),
    ];
    assert_eq!(office.verdict(id), (2, 4, missing));
    assert_eq!(office.concealed(), [("b".to_owned(), 5), ("c".to_owned(), 6)]);
    assert_eq!(office.outcomes("d", id), [(Outcome::Missed, false)]);
    assert!(office.stations.is_settled());
    // Each station hangs up when its receipt is confirmed, and is not missed.
    office.leave("a");
    office.join("a").unwrap();
    assert_eq!(office.lets_in("a"), 0);
}

#[test]
fn who_comes_back_joins_again_and_who_comes_afterwards_does_not() {
    let mut office = Office::with(&["a", "b"]);
    let (id, _) = office.speak(1, Priority::Normal, &[]);
    office.leave("a");
    office.join("a").unwrap();
    office.join_as("new", &[], 9, None).unwrap();
    assert_eq!((office.lets_in("a"), office.lets_in("new")), (1, 1));
    office.leave("b");
    office.stop();
    office.join("b").unwrap();
    assert_eq!(office.lets_in("b"), 0);
    office.tells("a", id, BLOCKS);
    office.tells("new", id, BLOCKS);
    assert_eq!(office.verdict(id), (2, 3, vec![("b".into(), "the cable was pulled".into())]));
}

#[test]
fn zones_faults_and_refusals() {
    let mut office = Office::new(true);
    office.join_as("gym", &["sport"], 1, None).unwrap();
    office.join_as("hall", &["floor"], 2, None).unwrap();
    let (_, names) = office.speak(1, Priority::Normal, &["sport"]);
    assert_eq!((names, office.lets_in("hall")), (vec!["gym".to_owned()], 0));

    let mut office = Office::with(&["a", "b"]);
    office.says("a", FromStation::Health { fault: Some("no device".into()) });
    let (id, _) = office.speak(1, Priority::Normal, &[]);
    assert_eq!(office.lets_in("a"), 0);
    office.says("a", FromStation::Health { fault: None });
    assert_eq!(office.lets_in("a"), 1, "it joins when its loudspeaker works");
    for _ in 0..MAX_REFUSALS {
        office.says("b", FromStation::Rejected { clip: id, reason: "no".into() });
        office.leave("b");
        office.join("b").unwrap();
    }
    assert_eq!(office.lets_in("b"), 0, "it is not asked for ever");
    office.stop();
    office.tells("a", id, BLOCKS);
    assert_eq!(office.verdict(id), (1, 2, vec![("b".into(), "no".into())]));
    assert_eq!(office.outcomes("b", id), [(Outcome::Rejected, false)]);
}

#[test]
fn a_station_that_sends_no_receipt_is_given_up() {
    let mut office = Office::with(&["a", "b"]);
    let (id, _) = office.speak(1, Priority::Normal, &[]);
    office.says("b", FromStation::Playing { clip: id });
    office.stop();
    office.tells("a", id, BLOCKS);
    office.pass(LATENCY + RECEIPT_DEADLINE - Duration::from_millis(200));
    assert!(office.verdicts(id).is_empty());
    office.pass(Duration::from_millis(400));
    assert_eq!(office.verdict(id), (1, 2, vec![("b".into(), "it sent no receipt".into())]));
    assert_eq!(office.outcomes("b", id), [(Outcome::Interrupted, false)]);
    assert!(!office.online.contains_key("b"), "it is dropped, to come back in order");
    office.pass(REJOIN_GRACE * 2);
    assert_eq!(office.stations.next_tick(office.now), None);
}

#[test]
fn receipts_out_of_turn_are_worth_nothing() {
    let mut office = Office::with(&["a"]);
    let (id, _) = office.speak(1, Priority::Normal, &[]);
    let late = LiveReceipt { late: 2, ..receipt(id, BLOCKS - 1, 1) };
    for (is_over, forged) in [
        (false, receipt(id, BLOCKS, 0)),
        (true, receipt(id, BLOCKS, 1)),
        (true, receipt(id, u32::MAX, BLOCKS + 1)),
        (true, receipt(clip(9), BLOCKS, 0)),
        (true, late),
    ] {
        let mut office = Office::with(&["a", "b"]);
        let (speaking, _) = office.speak(1, Priority::Normal, &[]);
        assert_eq!(speaking, id);
        if is_over {
            office.stop();
        }
        office.says("a", FromStation::LivePlayed(forged));
        assert!(!office.online.contains_key("a"), "{forged:?}");
        let told = office.events.iter().filter(|event| matches!(event, Event::LivePlayed { .. }));
        assert_eq!(told.count(), 0, "{forged:?}");
    }
}

/// Live speech goes before anything less urgent and after what came before it; an emergency clears its way.
#[test]
fn clips_and_live_speech_make_room_for_one_another() {
    let mut office = Office::with(&["a"]);
    let first = office.announce(1);
    let (live, _) = office.speak(2, Priority::Normal, &[]);
    let second = office.announce_as(3, &[], Priority::Low);
    assert_eq!((office.deliveries("a", first), office.lets_in("a")), (1, 0), "it has begun with the clip");
    office.verifies("a", first);
    office.pass(LENGTH);
    office.plays("a", first);
    assert_eq!((office.lets_in("a"), office.deliveries("a", second)), (1, 0), "then comes what cannot wait");
    office.stop();
    office.tells("a", live, BLOCKS);
    office.leave("a");
    office.join("a").unwrap();
    assert_eq!(office.deliveries("a", second), 1);

    let mut office = Office::with(&["a"]);
    office.leave("a");
    let missed = office.announce(1);
    office.speak(2, Priority::Normal, &[]);
    office.join("a").unwrap();
    assert_eq!(
        (office.deliveries("a", missed), office.lets_in("a")),
        (1, 0),
        "an earlier one of its priority"
    );

    let mut office = Office::with(&["a"]);
    let page = office.announce(1);
    office.verifies("a", page);
    office.says("a", FromStation::Playing { clip: page });
    let (alarm, _) = office.speak(2, Priority::Emergency, &[]);
    assert!(!office.online.contains_key("a"), "it is told to yield");
    office.join_cut_off("a", page);
    assert_eq!((office.lets_in("a"), office.deliveries("a", page)), (1, 0));
    office.stop();
    office.tells("a", alarm, BLOCKS);
    office.leave("a");
    office.join_cut_off("a", page);
    assert_eq!(office.deliveries("a", page), 1, "the page is played again");
}

#[test]
fn whoever_is_removed_or_leaves_is_named() {
    let mut office = Office::with(&["a", "b"]);
    let (id, _) = office.speak(1, Priority::Normal, &[]);
    office.stations.remove("a", "it was removed", office.now);
    office.collect();
    office.says("b", FromStation::Goodbye);
    office.stop();
    let missing =
        vec![("a".into(), "it was removed".into()), ("b".into(), "it was shut down by its user".into())];
    assert_eq!(office.verdict(id), (0, 2, missing));
}
