#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod instant;
mod live;
mod office;
mod outcomes;
mod random;
mod urgency;

use super::*;
use office::{KEEP, LENGTH, Office, clip, receipt};

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
        FromStation::Hello {
            name: "a".into(),
            zones: vec![],
            instance: 1,
            last: None,
            nonce: None,
            begun: None,
        },
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
fn a_restart_takes_the_place_and_a_twin_does_not_get_it_back() {
    let mut office = Office::new(true);
    office.stations = Stations::new(9, true, true);
    let warnings =
        |office: &Office| office.events.iter().filter(|event| matches!(event, Event::Warning { .. })).count();
    office.join_as("a", &[], 1, None).unwrap();
    office.join_as("a", &[], 2, None).unwrap();
    office.join_as("a", &[], 2, None).unwrap();
    assert_eq!(warnings(&office), 0);
    for _ in 0..3 {
        let reason = office.join_as("a", &[], 1, None).unwrap_err();
        assert!(reason.contains("another a is here with the same key") && reason.len() <= 256, "{reason}");
    }
    assert_eq!(warnings(&office), 1);
    // A third run, and then the first alone.
    office.join_as("a", &[], 3, None).unwrap();
    assert!(office.join_as("a", &[], 2, None).is_err() && office.join_as("a", &[], 1, None).is_err());
    assert_eq!(warnings(&office), 2);
    office.leave("a");
    office.join_as("a", &[], 1, None).unwrap();
    office.join_as("a", &[], 4, None).unwrap();
    for instance in 5..50 {
        office.join_as("a", &[], instance, None).unwrap();
    }
    // However many restarts there were, the last run to make way is known.
    for _ in 0..3 {
        assert!(office.join_as("a", &[], 48, None).is_err());
    }
}

#[test]
fn many_stations_are_quick() {
    let started = std::time::Instant::now();
    let mut office = Office::new(true);
    office.stations.max_stations = 10_000;
    let mut connections = Vec::new();
    for number in 0..10_000_u64 {
        let name = format!("station-{number}");
        let hello = Hello {
            name,
            zones: vec![],
            instance: number,
            last: None,
            begun: None,
            address: "192.0.2.1:5".into(),
        };
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
