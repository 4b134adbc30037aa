//! Events in words and as JSON lines: pure formatting, safe for a terminal whatever a peer sent.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use crate::devices::{Device, Direction};
use crate::event::{Concealed, Event, IN_STEP_US, Missing, OutOfStep, Outcome, is_in_step};
use crate::keys::Station;
use crate::priority::Priority;
use crate::wire::is_unprintable;

/// Stations of a kind that a verdict names before it only counts them.
const MAX_NAMED: usize = 20;

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
        Event::StationFaulty { station, reason } => format!("{station} cannot play: {reason}"),
        Event::StationHealthy { station } => format!("{station} can play again"),
        Event::MicrophoneFaulty { input, reason } => {
            format!("nothing can be recorded from {input}: {reason}")
        }
        Event::MicrophoneHealthy { input } => format!("{input} works again"),
        Event::Recording { length_ms, input } => {
            format!("recording {} s from {input}", seconds(*length_ms))
        }
        Event::Level { .. } => return None,
        Event::Cancelled => "cancelled: nothing was sent".into(),
        Event::Reviewing { length_ms, monitor, .. } => {
            format!("{} s to be heard on {monitor}: Enter sends it, Esc drops it", seconds(*length_ms))
        }
        Event::Recorded { clip, length_ms, peak_db, loudness_lufs, priority, .. } => {
            let loudness = loudness_lufs.map(|lufs| format!(", {lufs:.0} LUFS")).unwrap_or_default();
            let priority = match priority {
                Priority::Normal => String::new(),
                other => format!(", priority {}", other.word()),
            };
            format!("recorded {clip}: {} s, loudest {peak_db:.0} dB{loudness}{priority}", seconds(*length_ms))
        }
        Event::Priority { priority } => format!("the next announcement has priority {}", priority.word()),
        Event::Zones { .. } => return None,
        Event::Volume { station, volume_db: Some(db) } => format!("{station} plays at {db} dB from now on"),
        Event::Volume { station, volume_db: None } => {
            format!("{station} plays at its own volume from now on")
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
        Event::Queued { clip, station, interrupted: false } => {
            format!("{station} plays another page first, then {clip}")
        }
        Event::Queued { clip, station, interrupted: true } => {
            format!("{station} broke off {clip} for an emergency, and plays it again afterwards")
        }
        Event::Played { clip, station, again, off_us, uncertainty_us, underruns, .. } => {
            let mut played = format!("{station} played {clip}");
            if *again {
                played += " again, from its start";
            }
            if let Some(words) = out_of_step(*off_us, *uncertainty_us) {
                played += &format!(", {words}");
            }
            match underruns {
                0 => {}
                1 => played += ", with 1 dropout",
                several => played += &format!(", with {several} dropouts"),
            }
            played
        }
        Event::LiveStarted { clip, input, stations, latency_ms, .. } => {
            let who = match stations.as_slice() {
                [] => "nobody".to_owned(),
                [station] => station.clone(),
                several => format!("{} stations", several.len()),
            };
            format!("live from {input} to {who}, {latency_ms} ms later: {clip}")
        }
        Event::LiveEnded { clip, length_ms, peak_db, .. } => {
            format!("said {clip}: {} s, loudest {peak_db:.0} dB", seconds(*length_ms))
        }
        Event::LivePlayed {
            clip, station, blocks, played, concealed, late, off_us, uncertainty_us, ..
        } => {
            let mut words = match (played, concealed) {
                (0, _) => format!("{station} did not hear {clip}"),
                (_, 0) => format!("{station} played {clip}"),
                _ => format!("{station} played {clip}, concealed {concealed} of {blocks} blocks"),
            };
            if *late > 0 {
                words += &format!(", {late} of them late");
            }
            if let (Some(out), true) = (out_of_step(*off_us, *uncertainty_us), *played > 0) {
                words += &format!(", {out}");
            }
            words
        }
        Event::Failed { clip, station, outcome: Outcome::Interrupted, reason } => {
            format!("{station} was interrupted in {clip}: {reason}")
        }
        Event::Failed { clip, station, reason, .. } => format!("{station} did not play {clip}: {reason}"),
        Event::Done { .. } => verdict(event).unwrap_or_default(),
        Event::Connected { announcer } => format!("connected to {announcer}"),
        Event::Waiting { announcer, reason } => format!("waiting for {announcer}: {reason}"),
        Event::Warning { message } => format!("warning: {message}"),
        Event::TalkbackSending { talkback, announcer, length_ms, .. } => {
            format!("sending {talkback} to {announcer}: {} s", seconds(*length_ms))
        }
        Event::TalkbackReceived { station, length_ms, file, .. } => {
            let kept = file.as_ref().map_or("not kept".into(), |file| format!("kept as {}", file.display()));
            format!("{station} says: {} s, {kept}", seconds(*length_ms))
        }
        Event::TalkbackHeard { talkback, station } => format!("{talkback} of {station} was heard"),
        Event::TalkbackKept { talkback, station, reason } => {
            format!("{talkback} of {station} was kept, not heard: {reason}")
        }
        Event::TalkbackRefused { talkback, station, reason } => {
            format!("{talkback} of {station} was not taken: {reason}")
        }
    };
    Some(escaped(&sentence).into_owned())
}

/// The verdict of [`Event::Done`]: how many played it, how well together, who did not, and why. `None` for
/// another event.
pub fn verdict(event: &Event) -> Option<String> {
    let Event::Done {
        played, expected, missing, spread_us, uncertainty_us, out_of_step: out, concealed, ..
    } = event
    else {
        return None;
    };
    let mut verdict = format!("{played} of {expected} stations played it");
    if *expected == 0 {
        verdict += ": nobody is listening";
    }
    if let (Some(spread), Some(doubt)) = (spread_us, uncertainty_us) {
        let who =
            if out.is_empty() { String::new() } else { format!(", {}", played.saturating_sub(out.len())) };
        verdict += &format!("{who} within {} ms (± {})", milliseconds(*spread), milliseconds(*doubt));
    }
    for OutOfStep { station, off_us, uncertainty_us } in out.iter().take(MAX_NAMED) {
        if let Some(words) = out_of_step(*off_us, *uncertainty_us) {
            verdict += &format!("; {station} {words}");
        }
    }
    if out.len() > MAX_NAMED {
        verdict += &format!("; {} more out of step", out.len() - MAX_NAMED);
    }
    let heard = |it: &&Concealed| !missing.iter().any(|missing| missing.station == it.station);
    for Concealed { station, concealed, blocks } in concealed.iter().filter(heard).take(MAX_NAMED) {
        verdict += &format!("; {station} concealed {concealed} of {blocks} blocks");
    }
    for Missing { station, reason } in missing.iter().take(MAX_NAMED) {
        verdict += &format!("; {station} did not: {reason}");
    }
    if missing.len() > MAX_NAMED {
        verdict += &format!("; nor did {} more", missing.len() - MAX_NAMED);
    }
    Some(escaped(&verdict).into_owned())
}

/// How far a station was from step, in words; `None` for one that was in step.
pub fn out_of_step(off_us: i64, uncertainty_us: u32) -> Option<String> {
    if is_in_step(off_us, uncertainty_us) {
        return None;
    }
    let off = milliseconds(off_us.unsigned_abs());
    Some(match (off_us.unsigned_abs() > IN_STEP_US, off_us < 0, uncertainty_us) {
        (true, true, _) => format!("{off} ms early"),
        (true, false, _) => format!("{off} ms late"),
        (false, _, u32::MAX) => "perhaps out of step: it does not know the announcer's clock".into(),
        (false, _, doubt) => format!(
            "perhaps out of step: it knows the announcer's clock to {} ms only",
            milliseconds(doubt.into())
        ),
    })
}

/// Microseconds as milliseconds: hundredths below ten, whole ones from there on.
fn milliseconds(us: u64) -> String {
    if us < 10_000 { format!("{:.2}", us as f64 / 1e3) } else { format!("{:.0}", us as f64 / 1e3) }
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
    let talk = stations.iter().any(|station| station.signer.is_some());
    let signer = |words: &str| if talk { format!("  {words:19}") } else { String::new() };
    let mut text = format!(
        "{:width$}  {:23}  {:23}  {:8}{}  zones\n",
        "station",
        "joined",
        "last here",
        "volume",
        signer("talks back as")
    );
    for station in stations {
        let (joined, seen) = (time(station.joined_unix_s), time(station.last_seen_unix_s));
        let (name, zones) = (escaped(&station.name), station.zones.join(", "));
        let volume = station.volume.map_or("own".to_owned(), |volume| volume.to_string());
        let signer = signer(&station.signer.map_or("-".to_owned(), |key| key.fingerprint().to_string()));
        let line = format!("{name:width$}  {joined}  {seen}  {volume:8}{signer}  {}", escaped(&zones));
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
        let talkback = || String::from("6b2f1d80-1");
        vec![
            Event::Listening { address: "0.0.0.0:7766".into() },
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
                out_of_step: vec![OutOfStep {
                    station: "hall-4".into(),
                    off_us: 5_250_300,
                    uncertainty_us: 85,
                }],
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
        let verdict = |played, expected, missing: &[Missing]| {
            verdict(&done(played, expected, missing, None, &[])).unwrap()
        };
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
}
