#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod office;
mod outcomes;
mod random;

use super::*;
use office::{KEEP, LEAD, LENGTH, Office, clip, receipt};

#[test]
fn all_who_verified_get_one_instant() {
    let mut office = Office::with(&["a", "b", "c"]);
    let id = office.announce(1);
    for name in ["a", "b", "c"] {
        assert_eq!(office.deliveries(name, id), 1);
        assert_eq!(office.told(name, id), None);
        office.verifies(name, id);
    }
    let at = office.now + LEAD + NAMING_MARGIN;
    for name in ["a", "b", "c"] {
        assert_eq!(office.told(name, id), Some((office.now, at)), "{name}");
    }
    office.pass(LENGTH);
    for name in ["a", "b", "c"] {
        assert!(office.verdicts(id).is_empty());
        office.plays(name, id);
    }
    assert_eq!(office.verdict(id), (3, 3, vec![]));
    office.pass(KEEP * 2);
    assert!(office.stations.is_settled() && office.stations.announcements.is_empty());
    assert_eq!(office.stations.next_tick(office.now), None, "nothing to do, nothing due");
}

#[test]
fn after_a_quick_half_the_rest_has_a_moment() {
    let mut office = Office::with(&["a", "b"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.pass(STRAGGLER_WAIT);
    assert_eq!(office.told("a", id).unwrap().0, office.now);
}

#[test]
fn the_longest_lead_counts_up_to_a_limit() {
    let mut office = Office::with(&["a", "b"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.says("b", FromStation::Verified { clip: id, lead_us: u32::MAX });
    assert_eq!(office.told("a", id).unwrap().1, office.now + MAX_LEAD + NAMING_MARGIN);
}

#[test]
fn half_and_a_moment_is_enough_and_the_late_play_after() {
    let mut office = Office::with(&["a", "b", "c", "d"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.pass(Duration::from_secs(1));
    assert_eq!(office.told("a", id), None, "one of four is no half");
    office.verifies("b", id);
    let half = office.now;
    office.pass(Duration::from_secs(2));
    let (when, at) = office.told("a", id).unwrap();
    assert_eq!(when, half + Duration::from_secs(1), "the half took a second, so may the rest");
    assert_eq!(at, when + LEAD + NAMING_MARGIN);
    assert_eq!(office.told("b", id).unwrap().1, at);
    office.verifies("c", id);
    assert_eq!(office.told("c", id).unwrap().1, at + LENGTH + LATE_GAP);
    office.pass(LENGTH);
    office.plays("a", id);
    office.plays("b", id);
    office.pass(LENGTH * 2);
    office.verifies("d", id);
    assert_eq!(office.told("d", id).unwrap().1, office.now + LEAD + NAMING_MARGIN);
    office.plays("c", id);
    assert!(office.verdicts(id).is_empty(), "d is still due");
    office.plays("d", id);
    assert_eq!(office.verdict(id), (4, 4, vec![]));
    let late = office.events.iter().find_map(|event| match event {
        Event::Played { station, late_ms, .. } if station == "c" => Some(*late_ms),
        _ => None,
    });
    assert_eq!(late, Some((LENGTH + LATE_GAP).as_millis() as u64));
}

#[test]
fn the_wait_for_stragglers_is_as_given() {
    for (wanted_ms, kept_ms) in [(0, 0), (40, 40), (10_000, 10_000), (60_000, 10_000)] {
        let mut office = Office::new(true);
        office.stations = Stations::new(9, true, false).with_straggler_wait(Duration::from_millis(wanted_ms));
        office.join("a").unwrap();
        office.join("b").unwrap();
        let id = office.announce(1);
        office.verifies("a", id);
        let half = office.now;
        office.pass(Duration::from_millis(kept_ms));
        assert_eq!(office.told("a", id).unwrap().0, half + Duration::from_millis(kept_ms));
    }
}

#[test]
fn late_ones_play_when_no_other_page_sounds_and_together() {
    let mut office = Office::with(&["a", "b", "c", "d", "e"]);
    let first = office.announce(1);
    for name in ["a", "b", "c"] {
        office.verifies(name, first);
    }
    office.pass(STRAGGLER_WAIT);
    let at = office.told("a", first).unwrap().1;
    office.now = at + LENGTH;
    for name in ["a", "b", "c"] {
        office.plays(name, first);
    }
    // A second page goes out to all; two still owe the first.
    let second = office.announce(2);
    for name in ["a", "b", "c"] {
        office.verifies(name, second);
    }
    office.pass(STRAGGLER_WAIT);
    let second_at = office.told("a", second).unwrap().1;
    office.verifies("d", first);
    let late_at = office.told("d", first).unwrap().1;
    assert_eq!(late_at, second_at + LENGTH, "not across the page that sounds already");
    office.pass(Duration::from_secs(1));
    office.verifies("e", first);
    assert_eq!(office.told("e", first).unwrap().1, late_at, "the late ones are in step with each other");
    // A third page waits for the late play of the first.
    office.now = second_at + LENGTH;
    for name in ["a", "b", "c"] {
        office.plays(name, second);
    }
    let third = office.announce(3);
    for name in ["a", "b", "c"] {
        office.verifies(name, third);
    }
    office.pass(STRAGGLER_WAIT);
    assert_eq!(office.told("a", third).unwrap().1, late_at + LENGTH);
}

#[test]
fn a_station_late_for_the_late_play_does_not_echo_it() {
    let mut office = Office::with(&["a", "b", "c", "d"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.verifies("b", id);
    office.pass(STRAGGLER_WAIT);
    office.verifies("c", id);
    let late_at = office.told("c", id).unwrap().1;
    office.now = late_at + LENGTH / 2;
    office.verifies("d", id);
    assert_eq!(office.told("d", id).unwrap().1, late_at + LENGTH + LATE_GAP);
}

#[test]
fn a_queue_of_pages_has_an_end() {
    let mut office = Office::new(true);
    let (minute, now) = (Duration::from_secs(60), office.now);
    for number in 0..10_u64 {
        let (name, zone) = (format!("s{number}"), "x");
        office.join_as(&name, &[zone], 1, None).unwrap();
        let delivery = Delivery {
            id: clip(number + 1),
            signature: vec![],
            key: None,
            header: vec![1],
            frames: vec![2],
            pace: Default::default(),
            sound_frames: 16_000,
            length: minute,
            zones: vec!["x".into()],
        };
        office.stations.announce(delivery, now + KEEP, now);
        office.collect();
        office.verifies(&name, clip(number + 1));
        for earlier in 0..number {
            // Everybody else is gone by now: each page is for the newest station alone.
            assert!(office.told(&format!("s{earlier}"), clip(number + 1)).is_none());
        }
        office.leave(&name);
    }
    let furthest = office.orders.iter().filter_map(|(_, order, _)| match order {
        Order::PlayAt { at, .. } => Some(*at),
        _ => None,
    });
    assert!(furthest.max().unwrap() <= now + LONGEST_QUEUE + Duration::from_secs(1));
}

#[test]
fn the_verdict_tells_the_spread_and_who_was_out_of_step() {
    let mut office = Office::with(&["a", "b", "c", "d", "e"]);
    let id = office.announce(1);
    for name in ["a", "b", "c", "d"] {
        office.verifies(name, id);
    }
    office.pass(STRAGGLER_WAIT);
    office.verifies("e", id);
    office.pass(LENGTH * 3);
    let plays = [
        ("a", -12, 30, 80),
        ("b", 30, 12, 100),
        ("c", 40, 10_500, 90),
        ("d", 0, 0, 9_999_999),
        ("e", 5, 5, 90),
    ];
    for (name, start_error_us, max_error_us, uncertainty_us) in plays {
        let receipt = Receipt { start_error_us, max_error_us, uncertainty_us, ..receipt(id) };
        office.says(name, FromStation::Played(receipt));
    }
    let done = office.events.iter().find_map(|event| match event {
        Event::Done { spread_us, uncertainty_us, out_of_step, .. } => {
            Some((*spread_us, *uncertainty_us, out_of_step.clone()))
        }
        _ => None,
    });
    let (spread_us, uncertainty_us, out_of_step) = done.unwrap();
    assert_eq!((spread_us, uncertainty_us), (Some(42), Some(180)));
    let out: Vec<_> = out_of_step.iter().map(|it| (it.station.as_str(), it.off_us)).collect();
    let late_us = (LENGTH + LATE_GAP).as_micros() as i64 + 5;
    assert_eq!(out, [("c", 10_500), ("d", 0), ("e", late_us)]);
}

#[test]
fn a_slow_majority_does_not_silence_the_first() {
    let mut office = Office::with(&["a", "slow-1", "slow-2", "slow-3"]);
    let id = office.announce(1);
    office.verifies("a", id);
    let first = office.now;
    office.pass(LONGEST_WAIT);
    assert_eq!(office.told("a", id).unwrap().0, first + LONGEST_WAIT);
}

#[test]
fn whoever_drops_out_holds_up_nobody() {
    type Ending = fn(&mut Office, ClipId);
    let endings: [(&str, Ending); 3] = [
        ("goodbye", |office, _| {
            office.says("b", FromStation::Goodbye);
            office.says("c", FromStation::Goodbye);
        }),
        ("rejects twice", |office, id| {
            for name in ["b", "c", "b", "c"] {
                office.says(name, FromStation::Rejected { clip: id, reason: "torn".into() });
                office.leave(name);
                office.join(name).unwrap();
            }
        }),
        ("lost", |office, _| {
            office.leave("b");
            office.leave("c");
        }),
    ];
    for (what, ending) in endings {
        let mut office = Office::with(&["a", "b", "c"]);
        let id = office.announce(1);
        office.verifies("a", id);
        assert_eq!(office.told("a", id), None);
        ending(&mut office, id);
        assert!(office.told("a", id).is_some(), "{what}");
        // One of the two is enough to make a half.
        let mut office = Office::with(&["a", "b", "c"]);
        let id = office.announce(1);
        office.verifies("a", id);
        office.leave("c");
        office.pass(STRAGGLER_WAIT);
        assert!(office.told("a", id).is_some());
    }
}

#[test]
fn a_verified_station_that_vanishes_leaves_no_spinning_tick() {
    let mut office = Office::with(&["a", "b"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.leave("a");
    office.pass(Duration::from_secs(5));
    office.verifies("b", id);
    assert!(office.told("b", id).is_some());
    office.plays("b", id);
    office.pass(KEEP);
    assert_eq!(office.verdict(id), (1, 2, vec![("a".into(), "the cable was pulled".into())]));
}

#[test]
fn a_refusal_is_answered_with_the_clip_once_more() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    for round in 1..=2 {
        assert_eq!(office.all_deliveries(id), round);
        office.says("a", FromStation::Rejected { clip: id, reason: "torn".into() });
        assert!(matches!(office.orders.last(), Some((_, Order::Note(noted), _)) if *noted == id));
        office.leave("a");
        office.join("a").unwrap();
    }
    assert_eq!(office.all_deliveries(id), 2);
    assert_eq!(office.verdict(id), (0, 1, vec![("a".into(), "it refused the clip: torn".into())]));
}

#[test]
fn a_station_lost_while_it_receives_is_waited_for_and_served_again() {
    let mut office = Office::with(&["a", "b"]);
    let id = office.announce(1);
    office.verifies("b", id);
    office.leave("a");
    office.plays("b", id);
    office.pass(REJOIN_GRACE - Duration::from_millis(200));
    assert!(office.verdicts(id).is_empty());
    office.join("a").unwrap();
    assert_eq!(office.deliveries("a", id), 1);
    office.verifies("a", id);
    office.pass(LENGTH);
    office.plays("a", id);
    assert_eq!(office.verdict(id), (2, 2, vec![]));

    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.leave("a");
    office.pass(REJOIN_GRACE - Duration::from_millis(200));
    assert!(office.verdicts(id).is_empty());
    office.pass(Duration::from_millis(400));
    assert_eq!(office.verdict(id), (0, 1, vec![("a".into(), "the cable was pulled".into())]));
    office.join("a").unwrap();
    office.verifies("a", id);
    office.pass(LENGTH);
    office.plays("a", id);
    assert_eq!(office.receipts("a", id), 1, "it hears it late, and the operator learns that it did");
    assert_eq!(office.verdicts(id).len(), 1, "and there is no second verdict");
}

#[test]
fn a_station_that_does_not_redial_is_waited_for_once() {
    let mut office = Office::with(&["a"]);
    let first = office.announce(1);
    office.verifies("a", first);
    office.pass(LENGTH);
    office.says("a", FromStation::Played(receipt(first)));
    office.leave("a");
    let second = office.announce(2);
    office.pass(REJOIN_GRACE - Duration::from_millis(200));
    assert!(office.verdicts(second).is_empty());
    office.pass(Duration::from_millis(400));
    assert_eq!(office.verdict(second), (0, 1, vec![("a".into(), "it did not come back".into())]));
}

#[test]
fn a_receipt_lost_with_its_connection_is_taken_from_the_next_hello() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.pass(Duration::from_secs(1));
    office.leave("a");
    office.pass(Duration::from_secs(2));
    office.join_as("a", &[], 1, Some(receipt(id))).unwrap();
    assert_eq!(office.verdict(id), (1, 1, vec![]));
    assert_eq!((office.receipts("a", id), office.all_deliveries(id)), (1, 1));
    office.leave("a");
    office.join_as("a", &[], 1, Some(receipt(id))).unwrap();
    assert_eq!(office.receipts("a", id), 1, "an old receipt counts once");
}

#[test]
fn a_receipt_for_what_was_never_told_is_worth_nothing() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.leave("a");
    office.join_as("a", &[], 1, Some(receipt(id))).unwrap();
    assert_eq!((office.receipts("a", id), office.deliveries("a", id)), (0, 1));
    for forged in [
        FromStation::Played(receipt(id)),
        FromStation::Playing { clip: id },
        FromStation::Failed { clip: id, reason: String::new() },
        FromStation::Played(receipt(clip(99))),
        FromStation::Verified { clip: clip(99), lead_us: 0 },
        FromStation::Rejected { clip: clip(99), reason: String::new() },
        FromStation::Ping { t1_us: 0 },
        FromStation::Hello { name: "a".into(), zones: vec![], instance: 1, last: None, nonce: None },
    ] {
        let words = format!("{forged:?}");
        office.says("a", forged);
        assert!(!office.online.contains_key("a"), "{words} is out of turn");
        office.join("a").unwrap();
        assert_eq!(office.receipts("a", id), 0, "{words}");
    }
    office.pass(KEEP);
    assert_eq!(office.verdict(id).0, 0);
}

#[test]
fn playing_is_told_once() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.says("a", FromStation::Playing { clip: id });
    office.says("a", FromStation::Playing { clip: id });
    assert!(!office.online.contains_key("a"));
    assert_eq!(office.events.iter().filter(|event| matches!(event, Event::Playing { .. })).count(), 1);
}

#[test]
fn without_keeping_whoever_is_away_has_missed_it() {
    let mut office = Office::new(false);
    for name in ["a", "b", "c"] {
        office.join(name).unwrap();
    }
    office.leave("a");
    let id = office.announce(1);
    assert_eq!(office.verdicts(id).len(), 0);
    office.leave("b");
    office.verifies("c", id);
    office.pass(LENGTH);
    office.plays("c", id);
    let missing = vec![
        ("a".into(), "not connected: the cable was pulled".into()),
        ("b".into(), "the cable was pulled".into()),
    ];
    assert_eq!(office.verdict(id), (1, 3, missing));
    office.join("a").unwrap();
    office.join("b").unwrap();
    assert_eq!(office.all_deliveries(id), 2, "it was sent to b and c, and to nobody since");
}

#[test]
fn what_expires_fails_with_its_reason() {
    let mut office = Office::with(&["a"]);
    office.leave("a");
    let id = office.announce(1);
    assert_eq!(office.verdict(id), (0, 1, vec![("a".into(), "not connected: the cable was pulled".into())]));
    office.pass(KEEP - Duration::from_secs(1));
    assert!(office.failures("a").is_empty());
    office.pass(Duration::from_secs(2));
    assert_eq!(office.failures("a"), ["not connected: the cable was pulled"]);
    office.join("a").unwrap();
    assert_eq!(office.all_deliveries(id), 0);
    assert_eq!(office.stations.next_tick(office.now), None);
}

#[test]
fn names_instances_and_the_limit() {
    let mut office = Office::with(&["a"]);
    let refused = office.join_as("a", &[], 2, None).unwrap_err();
    assert!(refused.contains("under the name a"), "{refused}");
    assert!(office.online.contains_key("a"), "the first one stays");
    let old = office.online["a"];
    office.join_as("a", &[], 1, None).unwrap();
    assert!(office.orders.iter().any(|(to, order, _)| *to == old && matches!(order, Order::Drop)));
    assert_eq!(office.stations.present(), 1);
    office.stations.left(old, "late news of the old connection", office.now);
    assert_eq!(office.stations.present(), 1);
    for number in 1..100 {
        office.join(&format!("x{number}")).unwrap();
    }
    assert!(office.join("one-too-many").is_err());
}

#[test]
fn a_reconnect_in_the_middle_takes_the_clip_along() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.join("a").unwrap();
    assert_eq!(office.deliveries("a", id), 1);
    office.verifies("a", id);
    office.plays("a", id);
    assert_eq!(office.verdict(id), (1, 1, vec![]));
}

#[test]
fn zones_choose_who_gets_it() {
    let mut office = Office::new(true);
    office.join_as("gym", &["sport"], 1, None).unwrap();
    office.join_as("hall", &["floor", "north"], 1, None).unwrap();
    office.join_as("yard", &[], 1, None).unwrap();
    let id = office.announce_to(1, &["north", "sport"]);
    let count = ["gym", "hall", "yard"].map(|name| office.deliveries(name, id));
    assert_eq!(count, [1, 1, 0]);
    let nobody = office.announce_to(2, &["cellar"]);
    assert_eq!(office.verdict(nobody), (0, 0, vec![]));
}

#[test]
fn two_clips_for_a_busy_station_come_in_order() {
    let mut office = Office::with(&["a", "b"]);
    let first = office.announce(1);
    let second = office.announce(2);
    let third = office.announce(3);
    for id in [first, second, third] {
        for name in ["a", "b"] {
            assert_eq!(office.deliveries(name, id), 1);
            assert_eq!(office.told(name, id), None);
            office.verifies(name, id);
        }
        let (_, at) = office.told("a", id).unwrap();
        office.now = at + LENGTH;
        office.plays("a", id);
        office.plays("b", id);
        assert_eq!(office.verdict(id), (2, 2, vec![]));
    }
}

#[test]
fn a_page_does_not_begin_before_an_earlier_one_has_ended() {
    let mut office = Office::new(true);
    office.join_as("a", &["x"], 1, None).unwrap();
    office.join_as("b", &["x"], 1, None).unwrap();
    let first = office.announce(1);
    office.verifies("a", first);
    office.says("b", FromStation::Rejected { clip: first, reason: "torn".into() });
    office.leave("b");
    office.pass(STRAGGLER_WAIT);
    let ends = office.told("a", first).unwrap().1 + LENGTH;
    office.join_as("c", &["y"], 1, None).unwrap();
    let second = office.announce_to(2, &["y"]);
    office.verifies("c", second);
    assert_eq!(office.told("c", second), Some((office.now, ends)));
}

#[test]
fn goodbye_is_not_missed_from_then_on() {
    let mut office = Office::with(&["a", "b"]);
    let first = office.announce(1);
    office.says("a", FromStation::Goodbye);
    office.verifies("b", first);
    office.plays("b", first);
    assert_eq!(office.verdict(first), (1, 2, vec![("a".into(), "it was shut down by its user".into())]));
    let second = office.announce(2);
    office.verifies("b", second);
    office.plays("b", second);
    assert_eq!(office.verdict(second), (1, 1, vec![]));
}

#[test]
fn a_silent_player_is_given_up() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.pass(LENGTH + RECEIPT_DEADLINE + Duration::from_millis(200));
    assert!(!office.online.contains_key("a"));
    office.pass(REJOIN_GRACE);
    assert_eq!(office.verdict(id), (0, 1, vec![("a".into(), "it sent no receipt".into())]));
}

#[test]
fn a_transfer_that_takes_too_long_is_broken_off() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.pass(TRANSFER_DEADLINE + Duration::from_millis(200));
    assert!(!office.online.contains_key("a"));
    office.pass(REJOIN_GRACE);
    let reason = "the clip did not get through in time";
    assert_eq!(office.verdict(id), (0, 1, vec![("a".into(), reason.into())]));
}

#[test]
fn many_stations_are_quick() {
    let started = std::time::Instant::now();
    let mut office = Office::new(true);
    office.stations.max_stations = 10_000;
    let mut connections = Vec::new();
    for number in 0..10_000_u64 {
        let name = format!("station-{number}");
        let hello =
            Hello { name, zones: vec![], instance: number, last: None, address: "192.0.2.1:5".into() };
        office.stations.join(number, hello, office.now).unwrap();
        connections.push(number);
    }
    let id = office.announce(1);
    for &connection in &connections {
        let verified = FromStation::Verified { clip: id, lead_us: 0 };
        office.stations.heard(connection, verified, office.now);
        if connection == 5_000 {
            office.pass(STRAGGLER_WAIT);
        }
    }
    for &connection in &connections {
        office.stations.heard(connection, FromStation::Played(receipt(id)), office.now);
    }
    office.collect();
    assert_eq!(office.verdict(id), (10_000, 10_000, vec![]));
    for &connection in &connections {
        office.stations.heard(connection, FromStation::Goodbye, office.now);
    }
    assert_eq!(office.stations.present(), 0);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
