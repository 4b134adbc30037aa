use super::*;
use crate::microphone::Lost;

const NOW_MS: u64 = 1_795_000_000_123;

/// One event of each kind, as `docs/events.md` shows them.
fn one_of_each() -> Vec<Event> {
    let clip = || String::from("5f3a9c21-3");
    let station = || String::from("hall-1");
    let talkback = || String::from("6b2f1d80-1");
    vec![
        Event::Listening { address: "[::]:7766".into() },
        Event::StationJoined {
            station: station(),
            address: "192.168.1.31:50112".into(),
            zones: vec!["ground floor".into(), "gym".into()],
        },
        Event::StationLeft { station: station(), reason: "connection lost".into() },
        Event::StationFaulty { station: station(), reason: "there is no output device".into() },
        Event::StationHealthy { station: station() },
        Event::MicrophoneFaulty { input: "USB microphone".into(), reason: "it does not answer".into() },
        Event::MicrophoneHealthy { input: "USB microphone".into() },
        Event::Recording { length_ms: 5000, input: "USB microphone".into() },
        Event::Cancelled,
        Event::Reviewing { clip: clip(), length_ms: 5000, monitor: "headphones".into() },
        Event::Zones { known: vec!["ground floor".into(), "gym".into()], addressed: vec!["gym".into()] },
        Event::Volume { station: station(), volume_db: Some(-6.5) },
        Event::Recorded {
            clip: clip(),
            length_ms: 5000,
            rate_hz: 48_000,
            bytes: 480_044,
            sha256: "9b74c9897bac770ffc029102a200c5de5c1f0d6b8f4b4d6c7e8a1f2b3c4d5e6f".into(),
            peak_db: -6.5,
            loudness_lufs: Some(-16.0),
            gain_db: 4.5,
            input: "USB microphone".into(),
            priority: Priority::Normal,
            lost: Some(Lost { holes: 1, ms: 300 }),
        },
        Event::Priority { priority: Priority::Emergency },
        Event::Sending { clip: clip(), stations: vec![station(), "hall-2".into()] },
        Event::Verified { clip: clip(), station: station() },
        Event::Rejected { clip: clip(), station: station(), reason: "the SHA-256 does not match".into() },
        Event::Playing { clip: clip(), station: station() },
        Event::Queued { clip: clip(), station: station(), interrupted: true },
        Event::Played {
            clip: clip(),
            station: station(),
            outcome: Outcome::Played,
            again: false,
            frames: 240_000,
            late_ms: 0,
            start_error_us: -12,
            max_error_us: 30,
            underruns: 0,
            uncertainty_us: 85,
            off_us: 30,
        },
        Event::Failed {
            clip: clip(),
            station: station(),
            outcome: Outcome::Missed,
            reason: "connection lost".into(),
        },
        Event::Done {
            clip: clip(),
            played: 3,
            expected: 4,
            missing: vec![Missing { station: "hall-2".into(), reason: "connection lost".into() }],
            spread_us: Some(42),
            uncertainty_us: Some(160),
            out_of_step: vec![OutOfStep { station: "hall-4".into(), off_us: 5_250_300, uncertainty_us: 85 }],
            concealed: vec![Concealed { station: "hall-3".into(), concealed: 2, blocks: 250 }],
        },
        Event::LiveStarted {
            clip: clip(),
            input: "USB microphone".into(),
            rate_hz: 48_000,
            latency_ms: 140,
            priority: Priority::Normal,
            stations: vec![station(), "hall-2".into()],
        },
        Event::LiveEnded {
            clip: clip(),
            length_ms: 5000,
            blocks: 250,
            sha256: "9b74c9897bac770ffc029102a200c5de5c1f0d6b8f4b4d6c7e8a1f2b3c4d5e6f".into(),
            peak_db: -6.5,
            lost: Some(Lost { holes: 2, ms: 85 }),
        },
        Event::LivePlayed {
            clip: clip(),
            station: station(),
            outcome: Outcome::Played,
            blocks: 250,
            played: 248,
            concealed: 2,
            late: 1,
            start_error_us: -12,
            max_error_us: 30,
            underruns: 0,
            uncertainty_us: 85,
            off_us: 30,
        },
        Event::Connected { announcer: "office-pc:7766".into() },
        Event::Waiting { announcer: "office-pc:7766".into(), reason: "connection refused".into() },
        Event::Warning { message: "the clip is silent: check the microphone USB microphone".into() },
        Event::TalkbackSending {
            talkback: talkback(),
            station: station(),
            announcer: "office-pc:7766".into(),
            length_ms: 5000,
            sha256: "9b74c9897bac770ffc029102a200c5de5c1f0d6b8f4b4d6c7e8a1f2b3c4d5e6f".into(),
        },
        Event::TalkbackReceived {
            talkback: talkback(),
            station: station(),
            length_ms: 5000,
            sha256: "9b74c9897bac770ffc029102a200c5de5c1f0d6b8f4b4d6c7e8a1f2b3c4d5e6f".into(),
            file: Some("pages/20261121T051643.123Z-abcdefghijklmnop-9b74c989.wav".into()),
        },
        Event::TalkbackHeard { talkback: talkback(), station: station() },
        Event::TalkbackKept { talkback: talkback(), station: station(), reason: "no sound".into() },
        Event::TalkbackRefused {
            talkback: talkback(),
            station: station(),
            reason: "this announcer takes no talkback".into(),
        },
    ]
}

#[test]
fn every_event_is_documented_by_the_line_it_prints() {
    let page = include_str!("../../docs/events.md");
    for event in one_of_each() {
        let line = json(&event, NOW_MS).unwrap();
        assert!(page.lines().any(|documented| documented == line), "not in docs/events.md: {line}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        let object = object.as_object().unwrap();
        let (name, fields) = (object["event"].as_str().unwrap(), object.keys());
        let (_, section) = page.split_once(&format!("## `{name}`\n")).unwrap_or_else(|| panic!("{name}"));
        let section = section.split("\n## ").next().unwrap();
        for field in fields.filter(|field| !["event", "unix_ms"].contains(&field.as_str())) {
            assert!(section.contains(&format!("| `{field}` |")), "{name}: {field}");
        }
    }
}

#[test]
fn json_begins_with_event_and_time_and_stays_json() {
    assert_eq!(json(&Event::Cancelled, NOW_MS).unwrap(), r#"{"event":"cancelled","unix_ms":1795000000123}"#);
    for event in one_of_each() {
        let mut expected = serde_json::to_value(&event).unwrap();
        expected["unix_ms"] = NOW_MS.into();
        let line = json(&event, NOW_MS).unwrap();
        assert!(line.contains(r#"","unix_ms":1795000000123"#), "{line}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), expected);
    }
}

#[test]
fn what_a_peer_sent_cannot_steer_the_terminal() {
    let hostile = "\u{1b}[2Jevil\u{9b}31m\r\n\u{202e}\u{e0041}\u{7f}\"".to_string();
    let event = Event::StationLeft { station: hostile.clone(), reason: hostile.clone() };
    let line = json(&event, NOW_MS).unwrap();
    let prose = sentence(&event).unwrap();
    for text in [&line, &prose] {
        assert!(!text.contains(is_unprintable), "{text:?}");
    }
    assert!(prose.contains(r"\u{1b}[2Jevil"), "{prose}");
    let read: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(read["reason"], hostile);
}

#[test]
fn levels_are_never_printed() {
    let level = Event::Level { remaining_ms: 100, peak_db: -3.0 };
    assert_eq!((sentence(&level), json(&level, NOW_MS)), (None, None));
}

#[test]
fn verdicts_name_who_did_not_play_and_why() {
    let missing = |name: &str, why: &str| Missing { station: name.into(), reason: why.into() };
    let verdict =
        |played, expected, missing: &[Missing]| verdict(&done(played, expected, missing, None, &[])).unwrap();
    assert_eq!(verdict(3, 3, &[]), "3 of 3 stations played it");
    assert_eq!(verdict(0, 0, &[]), "0 of 0 stations played it: nobody is listening");
    assert_eq!(
        verdict(2, 3, &[missing("hall-3", "connection lost")]),
        "2 of 3 stations played it; hall-3 did not: connection lost"
    );
    assert_eq!(
        verdict(1, 3, &[missing("hall-2", "no sound device"), missing("hall-3", "connection lost")]),
        "1 of 3 stations played it; hall-2 did not: no sound device; hall-3 did not: connection lost"
    );
    let many: Vec<_> = (0..25).map(|n| missing(&format!("hall-{n}"), "gone")).collect();
    assert!(verdict(0, 25, &many).ends_with("hall-19 did not: gone; nor did 5 more"));
}

fn done(
    played: usize,
    expected: usize,
    missing: &[Missing],
    spread: Option<(u64, u64)>,
    out_of_step: &[OutOfStep],
) -> Event {
    let (spread_us, uncertainty_us) = spread.unzip();
    let (missing, out_of_step) = (missing.to_vec(), out_of_step.to_vec());
    Event::Done {
        clip: "c-1".into(),
        played,
        expected,
        missing,
        spread_us,
        uncertainty_us,
        out_of_step,
        concealed: Vec::new(),
    }
}

#[test]
fn verdicts_say_how_well_together_and_who_was_not() {
    let words = |spread, out: &[OutOfStep]| verdict(&done(3, 3, &[], spread, out)).unwrap();
    let out = |off_us, uncertainty_us| OutOfStep { station: "hall-3".into(), off_us, uncertainty_us };
    assert_eq!(words(Some((42, 160)), &[]), "3 of 3 stations played it within 0.04 ms (± 0.16)");
    assert_eq!(
        words(Some((42, 160)), &[out(5_250_300, 90)]),
        "3 of 3 stations played it, 2 within 0.04 ms (± 0.16); hall-3 5250 ms late"
    );
    assert_eq!(words(None, &[out(-12_400, 90)]), "3 of 3 stations played it; hall-3 12 ms early");
    assert_eq!(
        words(None, &[out(100, 14_000)]),
        "3 of 3 stations played it; hall-3 perhaps out of step: it knows the announcer's clock to 14 ms only"
    );
    assert!(words(None, &[out(0, u32::MAX)]).ends_with("it does not know the announcer's clock"));
    let many = vec![out(20_000, 0); 25];
    assert!(words(None, &many).ends_with("hall-3 20 ms late; 5 more out of step"));
    assert_eq!(super::out_of_step(9_000, 1_000), None);
    assert!(super::out_of_step(9_000, 1_001).is_some());
}

#[test]
fn verdicts_name_who_did_not_hear_all_of_live_speech() {
    let mut event = done(3, 4, &[Missing { station: "hall-4".into(), reason: "gone".into() }], None, &[]);
    if let Event::Done { concealed, .. } = &mut event {
        let of = |station: &str| Concealed { station: station.into(), concealed: 3, blocks: 250 };
        *concealed = vec![of("hall-2"), of("hall-4")];
    }
    assert_eq!(
        verdict(&event).unwrap(),
        "3 of 4 stations played it; hall-2 concealed 3 of 250 blocks; hall-4 did not: gone"
    );
    let played = |played, concealed, late| {
        sentence(&Event::LivePlayed {
            clip: "c-1".into(),
            station: "hall-1".into(),
            outcome: Outcome::Played,
            blocks: played + concealed,
            played,
            concealed,
            late,
            start_error_us: 0,
            max_error_us: 0,
            underruns: 0,
            uncertainty_us: 0,
            off_us: 0,
        })
        .unwrap()
    };
    assert_eq!(played(250, 0, 0), "hall-1 played c-1");
    assert_eq!(played(247, 3, 2), "hall-1 played c-1, concealed 3 of 250 blocks, 2 of them late");
    assert_eq!(played(0, 250, 0), "hall-1 did not hear c-1");
}

#[test]
fn prose_says_lateness_and_dropouts() {
    let played = |late_ms: u64, underruns| {
        let clip = "5f3a9c21-3".to_string();
        sentence(&Event::Played {
            clip,
            station: "hall-1".into(),
            outcome: Outcome::Played,
            again: false,
            frames: 1,
            late_ms,
            start_error_us: 0,
            max_error_us: 0,
            underruns,
            uncertainty_us: 0,
            off_us: late_ms as i64 * 1_000,
        })
        .unwrap()
    };
    assert_eq!(played(0, 0), "hall-1 played 5f3a9c21-3");
    assert_eq!(played(40, 1), "hall-1 played 5f3a9c21-3, 40 ms late, with 1 dropout");
    assert_eq!(played(0, 2), "hall-1 played 5f3a9c21-3, with 2 dropouts");
    assert_eq!(
        ["0", "0.05", "2.5", "120"],
        [0, 50, 2500, 120_000].map(seconds).each_ref().map(|s| s.as_str())
    );
}
