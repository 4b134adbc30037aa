//! Events in words and as JSON lines: pure formatting, safe for a terminal whatever a peer sent.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use crate::devices::{Device, Direction};
use crate::event::{Event, Missing};
use crate::keys::Station;
use crate::wire::is_unprintable;

/// Missing stations that a verdict names before it only counts them.
const MAX_NAMED_MISSING: usize = 20;

/// Text with unprintable characters written out, such as `\u{1b}` for Escape.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if is_unprintable(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Two loudspeakers closer together than this sound as one (Haas, 1949).
const WORTH_SAYING_MS: u64 = 10;

/// An event in one line of prose; `None` for what is not worth a line.
pub fn sentence(event: &Event) -> Option<String> {
    let sentence = match event {
        Event::Listening { address } => format!("listening on {address}"),
        Event::StationJoined { station, address, zones } if zones.is_empty() => {
            format!("{station} listens, from {address}")
        }
        Event::StationJoined { station, address, zones } => {
            format!("{station} listens, from {address}, in {}", zones.join(", "))
        }
        Event::StationLeft { station, reason } => format!("{station} is gone: {reason}"),
        Event::Recording { length_ms, input } => {
            format!("recording {} s from {input}", seconds(*length_ms))
        }
        Event::Level { .. } => return None,
        Event::Cancelled => "cancelled: nothing was sent".into(),
        Event::Recorded { clip, length_ms, peak_db, .. } => {
            format!("recorded {clip}: {} s, loudest {peak_db:.0} dB", seconds(*length_ms))
        }
        Event::Sending { clip, stations } => match stations.as_slice() {
            [] => format!("nobody to send {clip} to"),
            [station] => format!("sending {clip} to {station}"),
            several => format!("sending {clip} to {} stations", several.len()),
        },
        Event::Progress { .. } => return None,
        Event::Verified { clip, station } => format!("{station} has {clip}, intact"),
        Event::Rejected { clip, station, reason } => format!("{station} refused {clip}: {reason}"),
        Event::Playing { clip, station } => format!("{station} is playing {clip}"),
        Event::Played { clip, station, late_ms, underruns, .. } => {
            let mut played = format!("{station} played {clip}");
            if *late_ms >= WORTH_SAYING_MS {
                played += &format!(", {late_ms} ms late");
            }
            match underruns {
                0 => {}
                1 => played += ", with 1 dropout",
                several => played += &format!(", with {several} dropouts"),
            }
            played
        }
        Event::Failed { clip, station, reason } => format!("{station} did not play {clip}: {reason}"),
        Event::Done { played, expected, missing, .. } => verdict(*played, *expected, missing),
        Event::Connected { announcer } => format!("connected to {announcer}"),
        Event::Waiting { announcer, reason } => format!("waiting for {announcer}: {reason}"),
        Event::Warning { message } => format!("warning: {message}"),
    };
    Some(escaped(&sentence).into_owned())
}

/// The verdict: how many played it, who did not, and why.
pub fn verdict(played: usize, expected: usize, missing: &[Missing]) -> String {
    let mut verdict = format!("{played} of {expected} stations played it");
    if expected == 0 {
        verdict += ": nobody is listening";
    }
    for Missing { station, reason } in missing.iter().take(MAX_NAMED_MISSING) {
        verdict += &format!("; {station} did not: {reason}");
    }
    if missing.len() > MAX_NAMED_MISSING {
        verdict += &format!("; nor did {} more", missing.len() - MAX_NAMED_MISSING);
    }
    escaped(&verdict).into_owned()
}

/// Milliseconds as seconds with the decimals they need, three at most.
fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').into()
}

/// An event as one JSON object without a line end: `event` and `unix_ms` (milliseconds since
/// 1970-01-01 UTC) first, then its fields. `None` for [`Event::Level`], which is for the eye only.
pub fn json(event: &Event, unix_ms: u64) -> Option<String> {
    const TAG: &str = r#"{"event":""#;
    if matches!(event, Event::Level { .. }) {
        return None;
    }
    let object = serde_json::to_string(event).ok()?;
    let name_bytes = object.strip_prefix(TAG)?.find('"')?;
    let (tag, fields) = object.split_at(TAG.len() + name_bytes + 1);
    let mut line = String::with_capacity(object.len() + 32);
    line.push_str(tag);
    let _ = write!(line, r#","unix_ms":{unix_ms}"#);
    for c in fields.chars() {
        if is_unprintable(c) {
            // Unprintable characters stand in strings only, where JSON takes UTF-16 escapes.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(line, "\\u{unit:04x}");
            }
        } else {
            line.push(c);
        }
    }
    Some(line)
}

/// The devices for `bullhorn devices`: microphones, then loudspeakers; the default marked.
pub fn devices(devices: &[Device]) -> String {
    let width = devices.iter().map(|device| device.id.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (direction, title) in
        [(Direction::Input, "Microphones, for --input"), (Direction::Output, "Loudspeakers, for --output")]
    {
        text.push_str(title);
        text.push('\n');
        let mut none = true;
        for device in devices.iter().filter(|device| device.direction == direction) {
            none = false;
            let (mark, word) = if device.is_default { ('*', " (default)") } else { (' ', "") };
            let (id, name) = (escaped(&device.id), escaped(&device.name));
            text.push_str(&format!("{mark} {id:width$}  {name}{word}\n"));
        }
        if none {
            text.push_str("  none\n");
        }
    }
    text
}

/// Seconds since 1970 as date and time, UTC.
pub fn time(unix_s: u64) -> String {
    // The formatter knows years of four digits only.
    let time = UNIX_EPOCH + Duration::from_secs(unix_s.min(LAST_FORMATTED_UNIX_S));
    humantime::format_rfc3339_seconds(time).to_string().replace('T', " ").replace('Z', " UTC")
}

/// 9999-12-31 23:59:59 UTC.
const LAST_FORMATTED_UNIX_S: u64 = 253_402_300_799;

/// The stations for `bullhorn stations`.
pub fn stations(stations: &[&Station]) -> String {
    if stations.is_empty() {
        return "no station has joined yet: `bullhorn invite` prints the line to run on one\n".to_owned();
    }
    let width = stations.iter().map(|station| escaped(&station.name).chars().count()).max().unwrap_or(0);
    let width = width.max("station".len());
    let mut text = format!("{:width$}  {:23}  {:23}  zones\n", "station", "joined", "last here");
    for station in stations {
        let (joined, seen) = (time(station.joined_unix_s), time(station.last_seen_unix_s));
        let (name, zones) = (escaped(&station.name), station.zones.join(", "));
        let line = format!("{name:width$}  {joined}  {seen}  {}", escaped(&zones));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_000_000_123;

    /// One of each, as `docs/events.md` shows them.
    fn one_of_each() -> Vec<Event> {
        let clip = || String::from("5f3a9c21-3");
        let station = || String::from("hall-1");
        vec![
            Event::Listening { address: "0.0.0.0:7766".into() },
            Event::StationJoined {
                station: station(),
                address: "192.168.1.31:50112".into(),
                zones: vec!["ground floor".into(), "gym".into()],
            },
            Event::StationLeft { station: station(), reason: "connection lost".into() },
            Event::Recording { length_ms: 5000, input: "USB microphone".into() },
            Event::Cancelled,
            Event::Recorded {
                clip: clip(),
                length_ms: 5000,
                rate_hz: 48_000,
                bytes: 480_044,
                sha256: "9b74c9897bac770ffc029102a200c5de5c1f0d6b8f4b4d6c7e8a1f2b3c4d5e6f".into(),
                peak_db: -6.5,
                input: "USB microphone".into(),
            },
            Event::Sending { clip: clip(), stations: vec![station(), "hall-2".into()] },
            Event::Verified { clip: clip(), station: station() },
            Event::Rejected { clip: clip(), station: station(), reason: "the SHA-256 does not match".into() },
            Event::Playing { clip: clip(), station: station() },
            Event::Played {
                clip: clip(),
                station: station(),
                frames: 240_000,
                late_ms: 0,
                start_error_us: -12,
                max_error_us: 30,
                underruns: 0,
            },
            Event::Failed { clip: clip(), station: station(), reason: "connection lost".into() },
            Event::Done {
                clip: clip(),
                played: 1,
                expected: 2,
                missing: vec![Missing { station: "hall-2".into(), reason: "connection lost".into() }],
            },
            Event::Connected { announcer: "office-pc:7766".into() },
            Event::Waiting { announcer: "office-pc:7766".into(), reason: "connection refused".into() },
            Event::Warning { message: "the clip is silent: check the microphone USB microphone".into() },
        ]
    }

    #[test]
    fn every_event_is_documented_by_the_line_it_prints() {
        let page = include_str!("../docs/events.md");
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
        assert_eq!(
            json(&Event::Cancelled, NOW_MS).unwrap(),
            r#"{"event":"cancelled","unix_ms":1795000000123}"#
        );
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

    #[test]
    fn prose_says_lateness_and_dropouts() {
        let played = |late_ms, underruns| {
            let clip = "5f3a9c21-3".to_string();
            sentence(&Event::Played {
                clip,
                station: "hall-1".into(),
                frames: 1,
                late_ms,
                start_error_us: 0,
                max_error_us: 0,
                underruns,
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
}
