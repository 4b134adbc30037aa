//! The oracle of the fault tests finds every fault that it is there to find.

use std::collections::BTreeMap;

use crate::support::oracle::{Runs, judge};
use serde_json::{Value, json};

fn stations(events: Value) -> BTreeMap<String, Runs> {
    BTreeMap::from([("a".to_owned(), vec![events.as_array().unwrap().clone()])])
}

fn announcer(last: &[Value]) -> Runs {
    let mut run = vec![
        json!({"event": "recorded", "clip": "1-1"}),
        json!({"event": "sending", "clip": "1-1", "stations": ["a"]}),
    ];
    run.extend_from_slice(last);
    vec![run]
}

fn played() -> Value {
    json!({"event": "played", "clip": "1-1", "station": "a", "outcome": "played", "again": false})
}

fn failed() -> Value {
    json!({"event": "failed", "clip": "1-1", "station": "a", "outcome": "missed"})
}

#[test]
fn what_is_right_passes() {
    let judged =
        judge(&announcer(&[played()]), &stations(json!([{"event": "playing", "clip": "1-1"}, played()])));
    assert!(judged.faults.is_empty(), "{:?}", judged.faults);
    assert_eq!((judged.clips, judged.outcomes["played"]), (1, 1));
}

#[test]
fn every_wrong_is_found() {
    let begun = json!({"event": "playing", "clip": "1-1"});
    let wrongs = [
        (announcer(&[]), json!([])),
        (announcer(&[]), json!([begun, played()])),
        (announcer(&[played(), played()]), json!([begun, played()])),
        (announcer(&[played(), failed()]), json!([begun, played()])),
        (announcer(&[failed()]), json!([begun, played()])),
        (announcer(&[played()]), json!([])),
        (announcer(&[played()]), json!([begun, begun, played()])),
        (announcer(&[played()]), json!([begun, played(), played()])),
        (
            announcer(&[played()]),
            json!([begun, played(), {"event": "played", "clip": "0-9", "again": false}]),
        ),
        (vec![vec![json!({"event": "recorded", "clip": "1-1"})]], json!([])),
    ];
    for (announcer, events) in wrongs {
        let judged = judge(&announcer, &stations(events.clone()));
        assert!(!judged.faults.is_empty(), "{announcer:?} {events}");
    }
}

#[test]
fn a_part_that_was_killed_may_leave_a_line_unprinted() {
    let mut runs = announcer(&[]);
    runs.push(vec![]);
    let judged = judge(&runs, &stations(json!([played()])));
    assert!(judged.faults.is_empty() && judged.unprinted == 1, "{judged:?}");
    let mut killed = stations(json!([]));
    killed.get_mut("a").unwrap().push(vec![]);
    assert!(judge(&announcer(&[played()]), &killed).faults.is_empty());
    assert!(!judge(&runs, &stations(json!([]))).faults.is_empty());
}
