//! When a clip is played, and which stations play it together.

use super::super::announcement::LATE_GAP;
use super::super::*;
use super::office::{KEEP, LEAD, LENGTH, Office, clip, receipt};

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
    // A second page goes out to all; two stations still have to play the first.
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
    // A third page does not wait for the late play of the first.
    office.now = second_at + LENGTH;
    for name in ["a", "b", "c"] {
        office.plays(name, second);
    }
    let third = office.announce(3);
    for name in ["a", "b", "c"] {
        office.verifies(name, third);
    }
    let third_at = office.told("a", third).unwrap().1;
    assert!(third_at <= office.now + LEAD + NAMING_MARGIN, "{:?}", third_at - office.now);
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
            frames: Arc::new(vec![2].into()),
            pace: Default::default(),
            sound_frames: 16_000,
            length: minute,
            priority: Default::default(),
            zones: vec!["x".into()],
        };
        office.stations.announce(delivery, now + KEEP, now);
        office.collect();
        office.verifies(&name, clip(number + 1));
        for earlier in 0..number {
            // All other stations are gone by now: each page is for the newest station alone.
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
fn whoever_plays_late_holds_up_the_next_page_for_nobody_else() {
    // Most stations are late, so that those on time are fewer than half.
    let late = ["c", "d", "e"];
    let mut office = Office::with(&["a", "b", "c", "d", "e"]);
    let first = office.announce(1);
    office.verifies("a", first);
    office.verifies("b", first);
    late.iter().for_each(|name| office.leave(name));
    for name in late {
        office.join(name).unwrap();
        office.verifies(name, first);
    }
    let late_at = office.told("c", first).unwrap().1;
    office.now = office.told("a", first).unwrap().1 + LENGTH;
    ["a", "b"].iter().for_each(|name| office.plays(name, first));
    // The next page is for all: the two that are free hear it at once.
    let second = office.announce(2);
    ["a", "b"].iter().for_each(|name| office.verifies(name, second));
    let at = office.told("a", second).expect("nobody that plays late is waited for").1;
    assert_eq!(office.told("b", second).unwrap().1, at);
    assert!(at <= office.now + LEAD + NAMING_MARGIN && at < late_at + LENGTH);
    assert!(late.iter().all(|name| office.deliveries(name, second) == 0));
    // The late ones play it afterwards, in order, together, and not across the page.
    office.now = late_at + LENGTH;
    for name in late {
        office.plays(name, first);
        office.verifies(name, second);
    }
    let after = late.map(|name| office.told(name, second).unwrap().1);
    assert!(after.iter().all(|it| *it == after[0] && *it >= at + LENGTH && *it >= late_at + LENGTH));
    ["a", "b"].iter().for_each(|name| office.plays(name, second));
    office.now = after[0] + LENGTH;
    late.iter().for_each(|name| office.plays(name, second));
    assert_eq!(office.verdict(first), (5, 5, vec![]));
    assert_eq!(office.verdict(second), (5, 5, vec![]));
}

#[test]
fn what_one_station_missed_and_hears_afterwards_holds_up_nobody() {
    let mut office = Office::with(&["a", "b"]);
    office.leave("a");
    office.leave("b");
    office.pass(REJOIN_GRACE);
    let missed = office.announce(1);
    office.pass(REJOIN_GRACE);
    assert_eq!(office.verdict(missed).0, 0);
    office.join("a").unwrap();
    office.verifies("a", missed);
    let late_at = office.told("a", missed).unwrap().1;
    office.join("b").unwrap();
    office.verifies("b", missed);
    office.pass(Duration::from_millis(20));
    // A page that only b can hear now, since a is busy.
    office.join("c").unwrap();
    let next = office.announce(2);
    office.verifies("c", next);
    let at = office.told("c", next).unwrap().1;
    assert!(at < late_at + LENGTH, "{:?} after the late play began", at - late_at);
}
