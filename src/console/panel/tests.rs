use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::event::{Event, Missing, OutOfStep};

const CLIP: &str = "5f3a9c21-1";

fn screen(view: &View, columns: u16, rows: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, view)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |row| (0..columns).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..rows).map(|y| row(y).trim_end().to_owned()).collect()
}

fn joined(name: &str, zones: &[&str]) -> Event {
    let zones = zones.iter().map(|zone| zone.to_string()).collect();
    Event::StationJoined { station: name.into(), address: "10.0.0.1:5000".into(), zones }
}

fn view_after(events: impl IntoIterator<Item = Event>) -> View {
    let mut view = View::new(true);
    view.apply(&Event::Listening { address: "0.0.0.0:7766".into() });
    events.into_iter().for_each(|event| view.apply(&event));
    view
}

fn two_halls() -> Vec<Event> {
    vec![joined("hall-1", &["ground", "gym"]), joined("hall-2", &[])]
}

fn sent(names: &[&str]) -> Vec<Event> {
    vec![
        Event::Recorded {
            clip: CLIP.into(),
            length_ms: 4000,
            rate_hz: 48_000,
            bytes: 1,
            sha256: String::new(),
            peak_db: -3.0,
            loudness_lufs: Some(-16.0),
            gain_db: 0.0,
            input: "microphone".into(),
            priority: Priority::Normal,
            lost: None,
        },
        Event::Sending { clip: CLIP.into(), stations: names.iter().map(|name| name.to_string()).collect() },
    ]
}

fn played(name: &str, off_us: i64) -> Event {
    Event::Played {
        clip: CLIP.into(),
        station: name.into(),
        outcome: crate::event::Outcome::Played,
        again: false,
        frames: 1,
        late_ms: off_us.max(0) as u64 / 1_000,
        start_error_us: 0,
        max_error_us: 0,
        underruns: 0,
        uncertainty_us: 80,
        off_us,
    }
}

fn failed(name: &str) -> Event {
    Event::Failed {
        clip: CLIP.into(),
        station: name.into(),
        outcome: crate::event::Outcome::Missed,
        reason: "no sound device".into(),
    }
}

#[test]
fn stations_that_wait() {
    assert_eq!(
        screen(&view_after(two_halls()), 44, 6),
        [
            " bullhorn · 2 listening · 0.0.0.0:7766 ─────",
            "  hall-1  waiting",
            "  hall-2  waiting",
            "ready: press Enter and speak",
            "",
            "Enter announces  Esc cancels  q leaves",
        ]
    );
    assert_eq!(screen(&view_after(two_halls()), 60, 6)[1], "  hall-1  ground, gym  waiting");
}

#[test]
fn nobody_listens() {
    let screen = screen(&view_after([]), 80, 5);
    assert_eq!(screen[1], "  no station yet: run `bullhorn speaker THIS-COMPUTER` in a hallway");
    assert_eq!(screen[2], "ready, but nobody is listening");
}

#[test]
fn zones_are_shown_with_their_digits() {
    let mut view = view_after(two_halls());
    let known: Vec<String> = ["ground", "gym"].map(String::from).to_vec();
    view.apply(&Event::Zones { known: known.clone(), addressed: Vec::new() });
    assert_eq!(screen(&view, 60, 7)[3], "to all   0 all  1 ground  2 gym");
    view.apply(&Event::Zones { known, addressed: vec!["gym".into()] });
    assert_eq!(screen(&view, 60, 7)[3], "to gym   0 all  1 ground  2 gym");
    assert_eq!(wanted_rows(&view, 24), 7);
    assert_eq!(
        screen(&view, 60, 4)[1],
        "ready: press Enter and speak",
        "little room goes to what matters more"
    );
}

#[test]
fn the_list_of_sounds_takes_the_place_of_the_stations() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["bell.wav", "fire.mp3", "gong.flac"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let sounds = crate::console::Sounds::open(folder.path()).unwrap();
    let mut view = view_after(two_halls());
    view.has_sounds = true;
    assert_eq!(screen(&view, 64, 6)[5], "Enter announces  Esc cancels  f sounds  e emergency  q leaves");
    let mut choice = Choice::among(&sounds);
    choice.move_by(2);
    view.choice = Some(choice);
    let shown = screen(&view, 60, 6);
    assert_eq!(shown[1..4], ["  fire.mp3", "> gong.flac", "choose a sound"]);
    assert_eq!(wanted_rows(&view, 24), 7);
    folder.close().unwrap();
    view.choice = Some(Choice::among(&sounds));
    assert!(screen(&view, 60, 6)[1].starts_with("  cannot list the sounds in "));
}

#[test]
fn a_clip_that_is_heard_first_says_what_to_do() {
    let review = Event::Reviewing { clip: CLIP.into(), length_ms: 5_000, monitor: "headphones".into() };
    let view = view_after(two_halls().into_iter().chain([review]));
    assert_eq!(screen(&view, 60, 6)[3], "5.0 s on headphones: Enter sends it, Esc drops it");
}

#[test]
fn how_space_records_is_said() {
    let mut view = view_after(two_halls());
    view.space = Some(Space::Held);
    let shown = screen(&view, 60, 6);
    assert_eq!(shown[3], "ready: hold Space and speak");
    assert_eq!(shown[5], "hold Space to speak  Esc cancels  q leaves");
    view.space = Some(Space::Pressed);
    let shown = screen(&view, 100, 6);
    assert_eq!(shown[3], "ready: press Space, speak, press Space again");
    assert_eq!(shown[5], "Space starts, Space ends  Esc cancels  l live  e emergency  q leaves");
}

#[test]
fn a_recording_counts_down_and_shows_its_level() {
    let recording = Event::Recording { length_ms: 5000, input: "microphone".into() };
    let mut view = view_after(two_halls().into_iter().chain([recording]));
    assert_eq!(screen(&view, 40, 6)[3], "● recording  5.0 s [···········]   -- dB");
    view.apply(&Event::Level { remaining_ms: 4950, peak_db: -30.0 });
    assert_eq!(screen(&view, 40, 6)[3..5], ["● recording  5.0 s [██████·····]  -30 dB", ""]);
    view.apply(&Event::Level { remaining_ms: 3900, peak_db: 0.0 });
    assert_eq!(screen(&view, 40, 6)[4], "too loud: it is cut off; step back a lit");
    view.apply(&Event::Level { remaining_ms: 2800, peak_db: -70.0 });
    assert_eq!(screen(&view, 40, 6)[4], "hearing nothing: is the microphone on?");
    view.apply(&Event::Level { remaining_ms: 2700, peak_db: f32::NAN });
    assert_eq!(screen(&view, 40, 6)[4], "hearing nothing: is the microphone on?");
    view.apply(&Event::Cancelled);
    assert_eq!(screen(&view, 40, 6)[3], "ready: press Enter and speak");
}

#[test]
fn an_announcement_moves_on_station_by_station() {
    let mut view = view_after(two_halls().into_iter().chain(sent(&["hall-1", "hall-2"])));
    view.apply(&Event::Verified { clip: CLIP.into(), station: "hall-1".into() });
    let shown = screen(&view, 44, 6);
    assert_eq!(shown[1..3], ["  hall-1  verified", "  hall-2  receiving"]);
    assert_eq!(shown[3], "sending, 1 of 2 have it [█████████·········]");
    view.apply(&Event::Verified { clip: CLIP.into(), station: "hall-2".into() });
    view.apply(&Event::Playing { clip: CLIP.into(), station: "hall-1".into() });
    view.tick(Duration::from_secs(1));
    let shown = screen(&view, 44, 6);
    assert_eq!(shown[1..3], ["  hall-1  playing", "  hall-2  verified"]);
    assert_eq!(shown[3], "1 of 2 playing [█████·············] 1 of 4 s");
    view.apply(&played("hall-1", 20));
    let missing = vec![Missing { station: "hall-2".into(), reason: "connection lost".into() }];
    let (clip, spread_us, uncertainty_us, out_of_step) = (CLIP.into(), None, None, Vec::new());
    view.apply(&Event::Done {
        clip,
        played: 1,
        expected: 2,
        missing,
        spread_us,
        uncertainty_us,
        out_of_step,
        concealed: Vec::new(),
    });
    let shown = screen(&view, 80, 6);
    assert_eq!(shown[1], "  hall-1  ground, gym  played");
    assert_eq!(shown[2], "  hall-2               failed: connection lost");
    assert_eq!(shown[3], "ready: press Enter and speak");
    assert_eq!(shown[4], "last: 1 of 2 stations played it; hall-2 did not: connection lost");
}

#[test]
fn the_spread_is_shown_and_who_was_out_of_step_is_flagged() {
    let names = ["hall-1", "hall-2", "hall-3"];
    let mut view = view_after(names.map(|name| joined(name, &[])).into_iter().chain(sent(&names)));
    for (name, off_us) in [("hall-1", -10), ("hall-2", 32), ("hall-3", 4_250_000)] {
        view.apply(&played(name, off_us));
    }
    let out_of_step = vec![OutOfStep { station: "hall-3".into(), off_us: 4_250_000, uncertainty_us: 80 }];
    view.apply(&Event::Done {
        clip: CLIP.into(),
        played: 3,
        expected: 3,
        missing: Vec::new(),
        spread_us: Some(42),
        uncertainty_us: Some(160),
        out_of_step,
        concealed: Vec::new(),
    });
    let shown = screen(&view, 90, 7);
    assert_eq!(shown[1..4], ["  hall-1  played", "  hall-2  played", "  hall-3  out of step: 4250 ms late"]);
    let verdict = "last: 3 of 3 stations played it, 2 within 0.04 ms (± 0.16); hall-3 4250 ms late";
    assert_eq!(shown[5], verdict);
    let shown = screen(&view, 90, 6);
    assert_eq!(shown[1], "  3 stations: 1 out of step, 2 played");
}

#[test]
fn many_stations_become_counts_and_those_in_trouble() {
    let names: Vec<String> = (0..500).map(|n| format!("hall-{n:03}")).collect();
    let refs: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut view = view_after(names.iter().map(|name| joined(name, &[])).chain(sent(&refs)));
    view.apply(&failed("hall-007"));
    view.apply(&Event::StationLeft { station: "hall-020".into(), reason: "connection lost".into() });
    let shown = screen(&view, 60, 7);
    assert_eq!(shown[1], "  500 stations: 1 lost, 1 failed, 498 receiving");
    assert_eq!(shown[2..4], ["  hall-007 failed: no sound device", "  hall-020 lost: connection lost"]);
    view.apply(&failed("hall-400"));
    assert_eq!(screen(&view, 60, 7)[3], "  … and 2 more in trouble");
}

#[test]
fn every_size_is_drawn_without_a_panic() {
    let names: Vec<String> = (0..9).map(|n| format!("hall-{n}")).collect();
    let refs: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut view = view_after(names.iter().map(|name| joined(name, &["gym"])).chain(sent(&refs)));
    view.apply(&failed("hall-3"));
    let mut recording = view.clone();
    recording.apply(&Event::Recording { length_ms: u64::MAX, input: String::new() });
    recording.apply(&Event::Level { remaining_ms: u64::MAX, peak_db: f32::NEG_INFINITY });
    for (columns, rows) in (1..70).flat_map(|columns| (1..16).map(move |rows| (columns, rows))) {
        screen(&view, columns, rows);
        screen(&recording, columns, rows);
    }
}

#[test]
fn what_matters_most_stays_in_the_smallest_window() {
    let view = view_after(two_halls());
    assert_eq!(screen(&view, 40, 1), ["ready: press Enter and speak"]);
    assert_eq!(wanted_rows(&view, 24), 6);
    assert_eq!(wanted_rows(&view, 6), 4);
    assert_eq!(wanted_rows(&view, 1), 1);
    let many = view_after((0..500).map(|n| joined(&format!("hall-{n}"), &[])));
    assert_eq!((wanted_rows(&many, 10), wanted_rows(&many, 40)), (7, 20));
}

#[test]
fn colour_is_only_an_addition() {
    let mut view = view_after(two_halls().into_iter().chain(sent(&["hall-1"])).chain([failed("hall-1")]));
    let colours = |view: &View| {
        let mut terminal = Terminal::new(TestBackend::new(60, 6)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        terminal.backend().buffer().content.iter().filter(|cell| cell.fg != Color::Reset).count()
    };
    assert!(colours(&view) > 0);
    view.has_colour = false;
    assert_eq!(colours(&view), 0);
}

#[test]
fn a_peers_name_cannot_steer_the_terminal() {
    let view = view_after([joined("evil\u{1b}[2J\u{9b}", &["\u{202e}gym"])]);
    let shown = screen(&view, 80, 5)[1].clone();
    assert!(shown.contains(r"evil\u{1b}[2J"), "{shown}");
    assert!(!shown.contains(crate::wire::is_unprintable));
}
