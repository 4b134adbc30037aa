//! Which page goes first.

use super::super::*;
use super::office::{KEEP, LENGTH, Office, clip};
use crate::event::Outcome;
use crate::priority::Priority;
use crate::wire::UNMUTED_BY_EMERGENCIES;

fn queued(office: &Office, name: &str) -> Vec<bool> {
    let mine = |event: &Event| match event {
        Event::Queued { station, interrupted, .. } if station == name => Some(*interrupted),
        _ => None,
    };
    office.events.iter().filter_map(mine).collect()
}

fn yields(office: &Office) -> usize {
    office.orders.iter().filter(|(_, order, _)| matches!(order, Order::Yield)).count()
}

#[test]
fn a_station_that_plays_another_page_first_is_waited_for_and_its_page_is_late() {
    let mut office = Office::with(&["a", "b"]);
    let id = office.announce(1);
    for name in ["a", "b"] {
        office.verifies(name, id);
    }
    office.says("a", FromStation::Queued { clip: id });
    office.plays("b", id);
    office.pass(LENGTH + RECEIPT_DEADLINE * 4);
    assert!(office.verdicts(id).is_empty(), "it waits truly, and is not given up");
    office.says("a", FromStation::Playing { clip: id });
    office.pass(LENGTH);
    office.says("a", FromStation::Queued { clip: id });
    assert_eq!(queued(&office, "a"), [false, true]);
    office.pass(LENGTH);
    office.says("a", FromStation::Playing { clip: id });
    let late = Receipt { start_error_us: 26_000_000, ..super::receipt(id) };
    office.says("a", FromStation::Played(late));
    assert_eq!(office.outcomes("a", id), [(Outcome::PlayedLate, true)]);
    assert_eq!(office.outcomes("b", id), [(Outcome::Played, false)]);
    assert_eq!(office.verdict(id), (2, 2, vec![]));
}

#[test]
fn nobody_waits_for_ever_for_a_station_that_says_it_waits() {
    for begins in [false, true] {
        let mut office = Office::with(&["a"]);
        let id = office.announce(1);
        office.verifies("a", id);
        office.says("a", FromStation::Queued { clip: id });
        if begins {
            office.says("a", FromStation::Playing { clip: id });
        }
        office.pass(KEEP + LENGTH + RECEIPT_DEADLINE + REJOIN_GRACE * 2);
        assert_eq!(office.verdicts(id).len(), 1, "begins: {begins}");
        // Beginning and waiting again and again does not help either.
        let mut office = Office::with(&["a"]);
        let id = office.announce(1);
        office.verifies("a", id);
        for _ in 0..KEEP.as_secs() + 10 {
            office.says("a", FromStation::Queued { clip: id });
            office.says("a", FromStation::Playing { clip: id });
            office.pass(Duration::from_secs(1));
        }
        office.pass(REJOIN_GRACE);
        assert_eq!(office.verdicts(id).len(), 1);
        // A station that reports it before the order to play speaks out of turn.
        let mut office = Office::with(&["a"]);
        let id = office.announce(1);
        office.says("a", FromStation::Queued { clip: id });
        assert!(office.online.is_empty(), "it was not told to play");
    }
}

#[test]
fn an_emergency_interrupts_and_the_page_is_played_again_together() {
    let mut office = Office::with(&["a", "b", "c"]);
    let page = office.announce(1);
    for name in ["a", "b", "c"] {
        office.verifies(name, page);
    }
    for name in ["a", "b"] {
        office.says(name, FromStation::Playing { clip: page });
    }
    office.pass(LENGTH / 2);
    let emergency = office.announce_as(2, &[], Priority::Emergency);
    assert_eq!(yields(&office), 3);
    assert_eq!([queued(&office, "a"), queued(&office, "c")], [[true], [false]]);
    for name in ["a", "b"] {
        office.join_cut_off(name, page);
    }
    office.join("c").unwrap();
    assert_eq!(["a", "b", "c"].map(|name| office.deliveries(name, emergency)), [1, 1, 1]);
    for name in ["a", "b", "c"] {
        office.verifies(name, emergency);
    }
    let (told, at) = office.told("a", emergency).unwrap();
    assert!(at - told < LENGTH / 4, "it waits for nothing that it has interrupted");
    for name in ["a", "b", "c"] {
        office.plays(name, emergency);
    }
    office.pass(LENGTH);
    assert_eq!(["a", "b", "c"].map(|name| office.deliveries(name, page)), [1, 1, 1]);
    for name in ["a", "b", "c"] {
        office.verifies(name, page);
    }
    let starts = ["a", "b", "c"].map(|name| office.told(name, page).unwrap().1);
    assert!(starts[0] == starts[1] && starts[1] == starts[2] && starts[0] >= at + LENGTH, "{starts:?}");
    for name in ["a", "b", "c"] {
        office.plays(name, page);
    }
    for (name, again) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(office.outcomes(name, page), [(Outcome::PlayedLate, again)], "{name}");
        assert_eq!(office.outcomes(name, emergency), [(Outcome::Played, false)], "{name}");
    }
    assert_eq!((office.verdict(page), office.verdict(emergency)), ((3, 3, vec![]), (3, 3, vec![])));
}

#[test]
fn what_was_on_its_way_goes_after_an_emergency_and_what_ended_just_then_counts() {
    let mut office = Office::with(&["a", "b"]);
    let page = office.announce_to(1, &[]);
    office.verifies("a", page);
    let emergency = office.announce_as(2, &[], Priority::Emergency);
    assert_eq!((yields(&office), queued(&office, "a")), (2, vec![]));
    for name in ["a", "b"] {
        office.join(name).unwrap();
    }
    assert_eq!((office.deliveries("a", emergency), office.deliveries("b", page)), (1, 0));
    // Nothing interrupts an emergency.
    office.announce_as(3, &[], Priority::Emergency);
    assert_eq!(yields(&office), 2);

    let mut office = Office::with(&["a"]);
    let page = office.announce(1);
    office.verifies("a", page);
    office.says("a", FromStation::Playing { clip: page });
    office.announce_as(2, &[], Priority::Emergency);
    office.join_as("a", &[], 1, Some(super::receipt(page))).unwrap();
    assert_eq!(office.outcomes("a", page), [(Outcome::Played, false)]);
    office.pass(KEEP);
    assert_eq!(office.all_deliveries(page), 1);
}

#[test]
fn the_most_urgent_of_those_that_wait_is_sent_first() {
    let mut office = Office::with(&["a"]);
    let playing = office.announce(1);
    office.verifies("a", playing);
    for (sequence, priority) in
        [(2, Priority::Low), (3, Priority::Normal), (4, Priority::High), (5, Priority::High)]
    {
        office.announce_as(sequence, &[], priority);
    }
    assert_eq!(yields(&office), 0);
    office.plays("a", playing);
    let mut order = Vec::new();
    for _ in 2..=5 {
        let next = (2..=5).map(clip).find(|id| office.deliveries("a", *id) == 1).unwrap();
        order.push(next.sequence);
        office.verifies("a", next);
        office.pass(LENGTH);
        office.plays("a", next);
    }
    assert_eq!(order, [4, 5, 3, 2]);
}

#[test]
fn an_emergency_for_another_zone_interrupts_nobody() {
    let mut office = Office::new(true);
    office.join_as("a", &["east"], 1, None).unwrap();
    office.join_as("b", &["west"], 1, None).unwrap();
    let page = office.announce_to(1, &["east"]);
    office.verifies("a", page);
    office.announce_as(2, &["west"], Priority::Emergency);
    assert_eq!((yields(&office), office.deliveries("b", clip(2))), (0, 1));
}

#[test]
fn who_is_cut_off_sounds_on_though_another_breaks_off() {
    let mut office = Office::with(&["a", "b"]);
    let first = office.announce_as(1, &[], Priority::Low);
    for name in ["a", "b"] {
        office.verifies(name, first);
    }
    let (_, at) = office.told("a", first).unwrap();
    office.leave("a");
    office.announce_as(2, &[], Priority::Emergency);
    assert_eq!(yields(&office), 1);
    office.join("c").unwrap();
    let last = office.announce_as(3, &[], Priority::Low);
    office.verifies("c", last);
    office.pass(LENGTH / 2);
    assert!(office.told("c", last).unwrap().1 >= at + LENGTH, "not across what a plays still");
}

#[test]
fn only_an_emergency_goes_to_a_station_that_is_muted_and_may_be_unmuted() {
    let muted = || FromStation::Health { fault: Some(format!("it is muted{UNMUTED_BY_EMERGENCIES}")) };
    let mut office = Office::with(&["a"]);
    office.says("a", muted());
    let page = office.announce(1);
    assert_eq!(office.verdict(page).0, 0);
    let emergency = office.announce_as(2, &[], Priority::Emergency);
    assert_eq!((office.all_deliveries(page), office.all_deliveries(emergency)), (0, 1));
    office.verifies("a", emergency);
    office.says("a", FromStation::Health { fault: None });
    office.pass(LENGTH);
    office.plays("a", emergency);
    assert_eq!(office.verdict(emergency), (1, 1, vec![]));
    // The page that waited is played too, now that it can be.
    assert_eq!(office.all_deliveries(page), 1);
    office.verifies("a", page);
    office.pass(LENGTH);
    office.plays("a", page);
    // Muting in the middle of an emergency breaks it off; it is sent again once the station is unmuted.
    office.leave("a");
    office.join("a").unwrap();
    let emergency = office.announce_as(3, &[], Priority::Emergency);
    office.verifies("a", emergency);
    office.says("a", muted());
    office.says("a", FromStation::Failed { clip: emergency, reason: "it is muted".into() });
    office.leave("a");
    office.join("a").unwrap();
    office.says("a", FromStation::Health { fault: None });
    assert_eq!(office.all_deliveries(emergency), 2);
    // Any other fault keeps it away.
    let mut office = Office::with(&["a"]);
    office.says("a", FromStation::Health { fault: Some("it is muted".into()) });
    let emergency = office.announce_as(1, &[], Priority::Emergency);
    assert_eq!((office.verdict(emergency).0, office.all_deliveries(emergency)), (0, 0));
}
