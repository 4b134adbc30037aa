use super::*;

fn left(name: &str) -> Event {
    Event::StationLeft { station: name.into(), reason: "connection lost".into() }
}

fn joined(name: &str) -> Event {
    Event::StationJoined { station: name.into(), address: String::new(), zones: Vec::new() }
}

fn word(view: &View, name: &str) -> &'static str {
    view.state(name, &view.stations[name]).word()
}

#[test]
fn a_lost_station_is_shown_until_it_comes_back() {
    let mut view = View::default();
    view.apply(&joined("hall-1"));
    view.apply(&left("hall-1"));
    assert_eq!((word(&view, "hall-1"), view.listening()), ("lost", 0));
    view.apply(&joined("hall-1"));
    assert_eq!((word(&view, "hall-1"), view.listening()), ("waiting", 1));
}

#[test]
fn ever_new_names_do_not_fill_the_memory() {
    let mut view = View::default();
    view.apply(&joined("faithful"));
    for n in 0..3 * MAX_LOST {
        view.apply(&joined(&format!("hall-{n}")));
        view.apply(&left(&format!("hall-{n}")));
    }
    assert_eq!(view.stations.len(), MAX_LOST + 1);
    assert_eq!(word(&view, "faithful"), "waiting");
    assert!(view.stations.contains_key(&format!("hall-{}", 3 * MAX_LOST - 1)));
}

#[test]
fn receipts_of_an_earlier_clip_do_not_touch_the_latest() {
    let mut view = View::default();
    view.apply(&joined("hall-1"));
    view.apply(&Event::Sending { clip: "a-1".into(), stations: vec!["hall-1".into()] });
    view.apply(&Event::Sending { clip: "a-2".into(), stations: vec!["hall-1".into()] });
    view.apply(&Event::Verified { clip: "a-1".into(), station: "hall-1".into() });
    assert_eq!(word(&view, "hall-1"), "receiving");
    view.apply(&Event::Verified { clip: "a-2".into(), station: "hall-1".into() });
    assert_eq!(word(&view, "hall-1"), "verified");
}

#[test]
fn played_is_played_in_whatever_order_receipts_come() {
    let (clip, station) = (String::from("a-1"), String::from("hall-1"));
    let mut view = View::default();
    view.apply(&joined("hall-1"));
    view.apply(&Event::Sending { clip: clip.clone(), stations: vec![station.clone()] });
    let (frames, late_ms, underruns) = (1, 0, 0);
    let (c, s) = (clip.clone(), station.clone());
    view.apply(&Event::Played {
        clip: c,
        station: s,
        outcome: crate::event::Outcome::Played,
        again: false,
        frames,
        late_ms,
        start_error_us: 0,
        max_error_us: 0,
        underruns,
        uncertainty_us: 0,
        off_us: 0,
    });
    view.apply(&Event::Playing { clip, station });
    assert_eq!(word(&view, "hall-1"), "played");
}

#[test]
fn a_recording_that_falls_silent_does_not_stay_for_ever() {
    let mut view = View::default();
    view.apply(&Event::Recording { length_ms: 5000, input: String::new() });
    view.tick(Duration::from_secs(6));
    assert!(view.recording.is_some());
    view.tick(Duration::from_secs(2));
    assert!(view.recording.is_none() && !view.is_moving());
}

#[test]
fn zones_have_the_digits_that_the_announcer_gives_them() {
    let mut view = View::default();
    let mut zones = |known: &[&str]| {
        let known = known.iter().map(|zone| zone.to_string()).collect();
        view.apply(&Event::Zones { known, addressed: Vec::new() });
        view.zones.join(" ")
    };
    assert_eq!(zones(&["gym", "yard"]), "gym yard");
    assert_eq!(zones(&["gym", "yard", "attic"]), "gym yard attic");
    assert_eq!(zones(&["yard", "gym", "attic"]), "yard gym attic", "the operator has said so");
}

#[test]
fn a_clip_is_heard_until_it_is_sent_or_dropped() {
    let mut view = View::default();
    let review = Event::Reviewing { clip: "a-1".into(), length_ms: 5_000, monitor: "desk".into() };
    view.apply(&Event::Recording { length_ms: 5_000, input: String::new() });
    view.apply(&review);
    assert!(view.recording.is_none() && view.review.is_some());
    view.apply(&Event::Cancelled);
    assert_eq!(view.review, None);
}

#[test]
fn a_verdict_with_nobody_listening_is_not_good() {
    let mut view = View::default();
    view.apply(&Event::Done {
        clip: "a-1".into(),
        played: 0,
        expected: 0,
        missing: Vec::new(),
        spread_us: None,
        uncertainty_us: None,
        out_of_step: Vec::new(),
        concealed: Vec::new(),
    });
    let verdict = view.verdict.unwrap();
    assert_eq!(verdict.sentence, "0 of 0 stations played it: nobody is listening");
    assert!(!verdict.is_good);
}
