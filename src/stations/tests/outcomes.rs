//! Every clip has exactly one outcome for every station.

use std::collections::BTreeMap;

use super::super::*;
use super::office::{KEEP, LENGTH, Office, clip, receipt};
use crate::event::Outcome;

#[test]
fn a_station_that_was_away_plays_late_and_once() {
    let mut office = Office::with(&["a", "b"]);
    office.leave("b");
    let id = office.announce(1);
    office.verifies("a", id);
    office.pass(LENGTH);
    office.plays("a", id);
    assert_eq!(office.verdict(id).0, 1);
    office.pass(Duration::from_secs(20));
    office.join("b").unwrap();
    office.verifies("b", id);
    office.pass(LENGTH);
    office.plays("b", id);
    office.pass(KEEP);
    assert_eq!(office.outcomes("a", id), [(Outcome::Played, false)]);
    assert_eq!(office.outcomes("b", id), [(Outcome::PlayedLate, false)]);
    assert_eq!(office.closed, [id]);
}

#[test]
fn whoever_hears_it_after_the_verdict_is_late_even_if_it_is_the_first() {
    let mut office = Office::with(&["a"]);
    office.leave("a");
    let id = office.announce(1);
    office.pass(Duration::from_secs(20));
    office.join("a").unwrap();
    office.verifies("a", id);
    office.pass(LENGTH);
    office.plays("a", id);
    assert_eq!(office.outcomes("a", id), [(Outcome::PlayedLate, false)]);
    let late = office.events.iter().find_map(|event| match event {
        Event::Played { late_ms, .. } => Some(*late_ms),
        _ => None,
    });
    assert!(late.is_some_and(|ms| (20_000..21_000).contains(&ms)), "{late:?}");
}

#[test]
fn a_crash_in_the_middle_is_played_again_and_marked() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.says("a", FromStation::Playing { clip: id });
    office.leave("a");
    office.pass(Duration::from_secs(1));
    office.join_as("a", &[], 2, None).unwrap();
    assert_eq!(office.all_deliveries(id), 2);
    office.verifies("a", id);
    office.pass(LENGTH);
    office.plays("a", id);
    let [(outcome, again)] = office.outcomes("a", id)[..] else { panic!("{:?}", office.events) };
    assert!(outcome.is_played() && again);
}

#[test]
fn a_station_says_itself_that_it_was_cut_off_where_its_word_of_the_start_was_lost() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.leave("a");
    office.join_cut_off("a", id);
    office.verifies("a", id);
    office.pass(LENGTH);
    office.plays("a", id);
    assert!(matches!(office.outcomes("a", id)[..], [(outcome, true)] if outcome.is_played()));

    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.leave("a");
    office.pass(KEEP);
    office.join_cut_off("a", id);
    assert_eq!(office.outcomes("a", id), [(Outcome::Interrupted, false)]);
}

#[test]
fn a_station_cannot_have_begun_what_it_was_never_told_to_play() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.leave("a");
    office.join_cut_off("a", id);
    office.leave("a");
    office.pass(KEEP * 2);
    assert_eq!(office.outcomes("a", id), [(Outcome::Missed, false)]);
}

#[test]
fn what_had_begun_and_is_too_late_to_begin_again_is_interrupted() {
    let mut office = Office::with(&["a"]);
    let (id, expires) = (office.announce(1), office.now + KEEP);
    office.verifies("a", id);
    office.pass(Duration::from_millis(100));
    office.says("a", FromStation::Playing { clip: id });
    office.leave("a");
    office.now = expires - Duration::from_millis(5);
    office.join("a").unwrap();
    assert_eq!(office.deliveries("a", id), 1);
    office.verifies("a", id);
    assert_eq!(office.outcomes("a", id), [(Outcome::Interrupted, false)]);
}

#[test]
fn begun_and_never_heard_of_again_is_interrupted_in_the_end() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.says("a", FromStation::Playing { clip: id });
    office.leave("a");
    office.pass(KEEP + Duration::from_secs(30));
    assert_eq!(office.outcomes("a", id), [], "it may have played it to its end, and may still say so");
    office.pass(RECEIPT_PATIENCE);
    assert_eq!(office.outcomes("a", id), [(Outcome::Interrupted, false)]);
    assert_eq!(office.closed, [id]);
}

#[test]
fn a_receipt_counts_after_the_clip_has_expired_and_its_lack_too() {
    for (last, outcome) in [(true, Outcome::Played), (false, Outcome::Interrupted)] {
        let mut office = Office::with(&["a"]);
        let id = office.announce(1);
        office.verifies("a", id);
        office.says("a", FromStation::Playing { clip: id });
        office.leave("a");
        office.pass(KEEP + Duration::from_secs(30));
        office.join_as("a", &[], 1, last.then(|| receipt(id))).unwrap();
        assert_eq!(office.outcomes("a", id), [(outcome, false)]);
        assert_eq!(office.all_deliveries(id), 1, "an expired clip is not sent");
    }
}

#[test]
fn without_keeping_a_lost_player_may_bring_its_receipt_but_plays_nothing_again() {
    for (last, outcome) in [(true, Outcome::Played), (false, Outcome::Interrupted)] {
        let mut office = Office::new(false);
        office.join("a").unwrap();
        let id = office.announce(1);
        office.verifies("a", id);
        office.says("a", FromStation::Playing { clip: id });
        office.leave("a");
        office.pass(Duration::from_secs(2));
        office.join_as("a", &[], 1, last.then(|| receipt(id))).unwrap();
        assert_eq!(office.outcomes("a", id), [(outcome, false)]);
        assert_eq!((office.all_deliveries(id), office.verdicts(id).len()), (1, 1));
    }
}

#[test]
fn a_receipt_of_other_length_is_no_proof() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.says("a", FromStation::Played(Receipt { frames: 15_999, ..receipt(id) }));
    let reason = "its receipt says 15999 of 16000 frames";
    assert_eq!(office.verdict(id), (0, 1, vec![("a".into(), reason.into())]));
    assert_eq!(office.outcomes("a", id), [(Outcome::Interrupted, false)]);
}

#[test]
fn taking_it_again_and_again_comes_to_an_end() {
    let mut office = Office::with(&["a", "b"]);
    let id = office.announce(1);
    for _ in 0..2 * MAX_SENDINGS {
        office.verifies("a", id);
        office.leave("a");
        office.pass(Duration::from_millis(100));
        office.join("a").unwrap();
    }
    assert_eq!(office.all_deliveries(id), 1 + MAX_SENDINGS as usize);
    office.verifies("b", id);
    office.plays("b", id);
    assert_eq!(office.verdict(id).0, 1);
    assert_eq!(office.outcomes("a", id), [(Outcome::Missed, false)]);
}

#[test]
fn whoever_flaps_does_not_hold_the_verdict() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.leave("a");
    let started = office.now;
    while office.verdicts(id).is_empty() {
        office.pass(Duration::from_secs(4));
        office.join("a").unwrap();
        office.leave("a");
        assert!(office.now - started < Duration::from_secs(30));
    }
}

#[test]
fn a_refused_clip_is_rejected_once() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    for _ in 0..2 {
        office.says("a", FromStation::Rejected { clip: id, reason: "torn".into() });
        office.leave("a");
        office.join("a").unwrap();
    }
    assert_eq!(office.outcomes("a", id), [(Outcome::Rejected, false)]);
}

#[test]
fn failing_before_the_first_sample_is_missing_it() {
    for (begun, outcome) in [(false, Outcome::Missed), (true, Outcome::Interrupted)] {
        let mut office = Office::with(&["a"]);
        let id = office.announce(1);
        office.verifies("a", id);
        if begun {
            office.says("a", FromStation::Playing { clip: id });
        }
        office.says("a", FromStation::Failed { clip: id, reason: "no device".into() });
        assert_eq!(office.outcomes("a", id), [(outcome, false)]);
    }
}

#[test]
fn what_would_begin_after_its_expiry_is_missed() {
    let mut office = Office::with(&["a", "b"]);
    let id = office.announce(1);
    office.verifies("b", id);
    office.pass(STRAGGLER_WAIT);
    office.plays("b", id);
    office.leave("a");
    office.pass(KEEP - Duration::from_secs(1));
    office.join("a").unwrap();
    assert_eq!(office.deliveries("a", id), 1);
    office.pass(Duration::from_secs(2));
    office.verifies("a", id);
    assert_eq!(office.told("a", id), None);
    assert_eq!(office.outcomes("a", id), [(Outcome::Missed, false)]);
}

#[test]
fn a_late_play_does_not_sound_across_another_page() {
    let mut office = Office::with(&["a", "b", "c"]);
    let first = office.announce(1);
    office.verifies("b", first);
    office.verifies("c", first);
    office.pass(STRAGGLER_WAIT);
    office.pass(LENGTH);
    office.plays("b", first);
    office.plays("c", first);
    let second = office.announce(2);
    office.verifies("b", second);
    office.verifies("c", second);
    office.pass(STRAGGLER_WAIT);
    let from = office.told("b", second).unwrap().1;
    office.verifies("a", first);
    let late = office.told("a", first).unwrap().1;
    assert!(late >= from + LENGTH, "{:?} after the page began", late - from);
}

#[test]
fn two_late_ones_play_together() {
    let mut office = Office::with(&["a", "b", "c", "d"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.verifies("b", id);
    office.pass(STRAGGLER_WAIT * 2);
    office.verifies("c", id);
    office.pass(Duration::from_millis(100));
    office.verifies("d", id);
    assert_eq!(office.told("c", id).unwrap().1, office.told("d", id).unwrap().1);
}

#[test]
fn a_full_roster_forgets_the_longest_lost() {
    let mut office = Office::new(true);
    office.stations.max_stations = 3;
    for name in ["a", "b", "c"] {
        office.join(name).unwrap();
    }
    assert!(office.join("d").is_err(), "whoever is here stays");
    office.leave("b");
    office.pass(Duration::from_secs(1));
    office.leave("a");
    let id = office.announce(1);
    office.join("d").unwrap();
    assert_eq!(office.outcomes("b", id), [(Outcome::Missed, false)]);
    assert_eq!(office.outcomes("a", id), []);
    office.join("e").unwrap();
    assert!(office.join("f").is_err());
}

#[test]
fn kept_clips_have_their_room() {
    let mut office = Office::with(&["a"]);
    office.leave("a");
    let big = |sequence| Delivery {
        id: clip(sequence),
        header: vec![1],
        signature: vec![],
        key: None,
        frames: Arc::new(vec![0; MAX_KEPT_BYTES / 4].into()),
        length: LENGTH,
        pace: Default::default(),
        sound_frames: 16_000,
        priority: Default::default(),
        zones: vec![],
    };
    for sequence in 1..=5 {
        office.stations.announce(big(sequence), office.now + KEEP, office.now);
        office.collect();
    }
    assert_eq!(office.outcomes("a", clip(1)), [(Outcome::Missed, false)]);
    assert_eq!(office.closed, [clip(1)]);
    assert_eq!(office.outcomes("a", clip(2)), []);
}

fn restored(office: &mut Office, expires: Option<Instant>, known: &[(&str, Restored)], settled: bool) {
    let delivery = Delivery {
        id: clip(1),
        header: vec![1],
        signature: vec![],
        key: None,
        frames: Arc::new(vec![2; 64].into()),
        length: LENGTH,
        pace: Default::default(),
        sound_frames: 16_000,
        priority: Default::default(),
        zones: vec![],
    };
    for (name, _) in known {
        office.stations.expect((*name).into(), vec![]);
    }
    let known: BTreeMap<_, _> = known.iter().map(|(name, was)| ((*name).to_owned(), *was)).collect();
    office.stations.restore(delivery, expires, known, settled, office.now);
    office.collect();
}

#[test]
fn after_a_restart_each_gets_what_it_is_owed_and_no_more() {
    let mut office = Office::new(true);
    let has_it = Restored { has_it: true, ..Restored::default() };
    let known = [
        ("done", Restored { outcome: Some(Outcome::Played), ..has_it }),
        ("played", Restored { begun: true, ..has_it }),
        ("crashed", Restored { begun: true, ..has_it }),
        ("played-again", Restored { again: true, ..has_it }),
        ("waiting", has_it),
        ("away", Restored::default()),
    ];
    let fresh = office.now + KEEP;
    restored(&mut office, Some(fresh), &known, false);
    for (name, _) in known {
        let last = name.starts_with("played").then(|| receipt(clip(1)));
        office.join_as(name, &[], 1, last).unwrap();
    }
    let owed: Vec<&str> =
        known.iter().map(|(name, _)| *name).filter(|name| office.deliveries(name, clip(1)) == 1).collect();
    assert_eq!(owed, ["crashed", "waiting", "away"]);
    for name in &owed {
        office.verifies(name, clip(1));
    }
    office.pass(LENGTH);
    owed.iter().for_each(|name| office.plays(name, clip(1)));
    office.pass(KEEP);
    assert_eq!(office.verdict(clip(1)), (6, 6, vec![]));
    assert_eq!(office.outcomes("played-again", clip(1)), [(Outcome::Played, true)]);
    assert_eq!(office.outcomes("done", clip(1)), [], "that was told before the restart");
    assert_eq!(office.outcomes("crashed", clip(1)), [(Outcome::Played, true)]);
    for name in ["played", "waiting", "away"] {
        assert_eq!(office.outcomes(name, clip(1)).len(), 1, "{name}");
    }
    assert_eq!(office.closed, [clip(1)]);
}

#[test]
fn without_keeping_nothing_is_offered_after_a_restart_but_receipts_count() {
    let mut office = Office::new(false);
    let fresh = office.now + KEEP;
    restored(
        &mut office,
        Some(fresh),
        &[("played", Restored::default()), ("away", Restored::default())],
        false,
    );
    office.join_as("played", &[], 1, Some(receipt(clip(1)))).unwrap();
    office.join("away").unwrap();
    assert_eq!(office.all_deliveries(clip(1)), 0);
    assert!(matches!(office.outcomes("played", clip(1))[..], [(outcome, _)] if outcome.is_played()));
    assert_eq!(office.outcomes("away", clip(1)), [(Outcome::Missed, false)]);
}

#[test]
fn what_expired_during_the_restart_is_missed_unless_a_receipt_comes() {
    let mut office = Office::new(true);
    let has_it = Restored { has_it: true, ..Restored::default() };
    let known = [("played", has_it), ("idle", has_it), ("away", Restored::default())];
    restored(&mut office, None, &known, true);
    office.pass(Duration::from_secs(2));
    assert_eq!(office.outcomes("away", clip(1)), [(Outcome::Missed, false)]);
    office.join_as("played", &[], 1, Some(receipt(clip(1)))).unwrap();
    office.join("idle").unwrap();
    office.pass(Duration::from_secs(2));
    assert!(office.outcomes("played", clip(1))[0].0.is_played());
    assert_eq!(office.outcomes("idle", clip(1)), [(Outcome::Missed, false)]);
    assert_eq!((office.all_deliveries(clip(1)), office.verdicts(clip(1)).len()), (0, 0));
    assert_eq!(office.closed, [clip(1)]);
}

#[test]
fn an_announcer_that_keeps_nothing_gives_its_last_words_when_it_leaves() {
    let mut office = Office::with(&["a"]);
    office.leave("a");
    let id = office.announce(1);
    office.stations.give_up("the announcer left", |_| false);
    office.collect();
    assert_eq!(office.outcomes("a", id), [(Outcome::Missed, false)]);
}

fn health(office: &Office) -> Vec<(String, bool)> {
    let mine = |event: &Event| match event {
        Event::StationFaulty { station, .. } => Some((station.clone(), false)),
        Event::StationHealthy { station } => Some((station.clone(), true)),
        _ => None,
    };
    office.events.iter().filter_map(mine).collect()
}

#[test]
fn a_fault_is_told_once_and_outlives_a_reconnect_that_repeats_it() {
    let mut office = Office::with(&["a"]);
    let fault = || FromStation::Health { fault: Some("there is no output device".into()) };
    office.says("a", fault());
    office.says("a", fault());
    office.leave("a");
    office.join("a").unwrap();
    office.says("a", fault());
    office.pass(FAULT_MEMORY * 3);
    assert_eq!(health(&office), [("a".into(), false)]);
    office.says("a", FromStation::Health { fault: None });
    assert_eq!(health(&office), [("a".into(), false), ("a".into(), true)]);
}

#[test]
fn a_fault_that_is_not_repeated_is_mended() {
    let mut office = Office::with(&["a"]);
    office.says("a", FromStation::Health { fault: Some("unplugged".into()) });
    office.leave("a");
    office.join_as("a", &[], 2, None).unwrap();
    assert_eq!(health(&office), [("a".into(), false)]);
    office.pass(FAULT_MEMORY * 2);
    assert_eq!(health(&office), [("a".into(), false), ("a".into(), true)]);
    assert_eq!(office.stations.next_tick(office.now), None);
}

fn is_broken(office: &mut Office, name: &str) {
    office.says(name, FromStation::Health { fault: Some("unplugged".into()) });
}

fn is_well(office: &mut Office, name: &str) {
    office.says(name, FromStation::Health { fault: None });
}

#[test]
fn what_a_fault_breaks_off_is_played_again_when_the_loudspeaker_works_and_marked() {
    let mut office = Office::with(&["a", "b"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.verifies("b", id);
    office.says("a", FromStation::Playing { clip: id });
    is_broken(&mut office, "a");
    office.says("a", FromStation::Failed { clip: id, reason: "the loudspeaker cannot play".into() });
    assert!(matches!(office.orders.last(), Some((_, Order::Note(noted), _)) if *noted == id));
    office.leave("a");
    office.join("a").unwrap();
    is_broken(&mut office, "a");
    office.pass(LENGTH);
    office.plays("b", id);
    let (played, expected, missing) = office.verdict(id);
    assert_eq!((played, expected), (1, 2), "the verdict waits for no loudspeaker");
    assert_eq!(missing, [("a".to_owned(), "its loudspeaker does not work: unplugged".to_owned())]);
    office.pass(Duration::from_secs(10));
    assert_eq!(office.all_deliveries(id), 2, "it is not given what it cannot play");
    is_well(&mut office, "a");
    assert_eq!(office.all_deliveries(id), 3);
    office.verifies("a", id);
    office.pass(LENGTH);
    office.plays("a", id);
    office.pass(KEEP);
    assert_eq!(office.outcomes("a", id), [(Outcome::PlayedLate, true)]);
    assert_eq!(office.outcomes("b", id), [(Outcome::Played, false)]);
}

#[test]
fn a_clip_waits_for_a_loudspeaker_that_does_not_work_until_it_expires() {
    let mut office = Office::with(&["a", "b"]);
    is_broken(&mut office, "a");
    is_broken(&mut office, "b");
    let id = office.announce(1);
    assert_eq!((office.verdict(id).0, office.all_deliveries(id)), (0, 0));
    office.pass(Duration::from_secs(1));
    is_well(&mut office, "a");
    office.verifies("a", id);
    office.pass(LENGTH);
    office.plays("a", id);
    office.pass(KEEP);
    assert_eq!(office.outcomes("a", id), [(Outcome::PlayedLate, false)]);
    assert_eq!(office.outcomes("b", id), [(Outcome::Missed, false)]);
}

#[test]
fn what_a_fault_breaks_off_for_good_was_interrupted() {
    let mut office = Office::with(&["a"]);
    let id = office.announce(1);
    office.verifies("a", id);
    office.says("a", FromStation::Playing { clip: id });
    is_broken(&mut office, "a");
    office.says("a", FromStation::Failed { clip: id, reason: "the loudspeaker cannot play".into() });
    office.pass(KEEP);
    assert_eq!(office.outcomes("a", id), [(Outcome::Interrupted, false)]);
}

#[test]
fn several_clips_wait_for_a_loudspeaker_in_their_order() {
    let mut office = Office::with(&["a"]);
    let first = office.announce(1);
    office.verifies("a", first);
    let second = office.announce(2);
    is_broken(&mut office, "a");
    office.says("a", FromStation::Failed { clip: first, reason: "the loudspeaker cannot play".into() });
    is_well(&mut office, "a");
    for id in [first, second] {
        office.leave("a");
        office.join("a").unwrap();
        office.verifies("a", id);
        office.pass(LENGTH);
        office.plays("a", id);
        assert_eq!(office.outcomes("a", id).len(), 1);
    }
}

#[test]
fn what_flaps_is_told_once_a_second_of_a_kind_and_the_latest_in_the_end() {
    let mut office = Office::with(&["a", "b"]);
    office.events.clear();
    // Ten flips a second for three seconds; the connection is lost after each.
    for flip in 0..30 {
        let fault = (flip % 2 == 0).then(|| format!("fault {flip}"));
        office.says("a", FromStation::Health { fault });
        office.leave("a");
        office.join("a").unwrap();
        office.pass(Duration::from_millis(100));
    }
    office.says("a", FromStation::Health { fault: Some("unplugged".into()) });
    office.leave("a");
    office.pass(Duration::from_secs(2));
    let count = |test: fn(&Event) -> bool| office.events.iter().filter(|event| test(event)).count();
    for (what, told) in [
        ("faulty", count(|event| matches!(event, Event::StationFaulty { .. }))),
        ("healthy", count(|event| matches!(event, Event::StationHealthy { .. }))),
        ("joined", count(|event| matches!(event, Event::StationJoined { .. }))),
        ("left", count(|event| matches!(event, Event::StationLeft { .. }))),
    ] {
        assert!((1..=5).contains(&told), "{what} was told {told} times in five seconds");
    }
    let last = |of: fn(&Event) -> bool| office.events.iter().rfind(|event| of(event)).unwrap().clone();
    let health = last(|event| matches!(event, Event::StationFaulty { .. } | Event::StationHealthy { .. }));
    assert_eq!(health, Event::StationFaulty { station: "a".into(), reason: "unplugged".into() });
    let presence = last(|event| matches!(event, Event::StationJoined { .. } | Event::StationLeft { .. }));
    assert!(matches!(presence, Event::StationLeft { .. }), "{presence:?}");
    // Nothing is left to report.
    assert_eq!(office.stations.next_tick(office.now), None);
}
