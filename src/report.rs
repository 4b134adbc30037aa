//! Events in words and as JSON lines: pure formatting, safe for a terminal whatever a peer sent.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use unicode_width::UnicodeWidthStr;

use crate::devices::{Device, Direction};
use crate::event::{Concealed, Event, IN_STEP_US, Missing, OutOfStep, Outcome, is_in_step};
use crate::keys::{Station, ZoneOrder};
use crate::priority::Priority;
use crate::wire::is_unprintable;

/// The start of the address of an announcer that listens on IPv6 and IPv4.
const EVERY_NETWORK: &str = "[::]:";
/// The most stations of each kind that a verdict names; further ones are only counted.
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

/// An event in one line of prose; `None` if it is not worth a line.
pub fn sentence(event: &Event) -> Option<String> {
    let sentence = match event {
        Event::Listening { address } => match address.strip_prefix(EVERY_NETWORK) {
            Some(port) => format!("listening on port {port} of every network"),
            None => format!("listening on {address}"),
        },
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
            format!("{station} broke off {clip} for an emergency, and comes back to it afterwards")
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
            clip,
            station,
            outcome,
            blocks,
            played,
            concealed,
            late,
            off_us,
            uncertainty_us,
            ..
        } => {
            let mut words = match (played, concealed) {
                (0, _) => format!("{station} did not hear {clip}"),
                (_, 0) => format!("{station} played {clip}"),
                _ if *outcome == Outcome::Interrupted => {
                    format!("{station} heard only {played} of {blocks} blocks of {clip}")
                }
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

/// The verdict of [`Event::Done`]: how many stations played it, how well together, which did not, and why. `None` for
/// any other event.
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

/// How far a station was out of step, in words; `None` if it was in step.
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

/// An event as one JSON object without a line end: `event` and `unix_ms` (milliseconds since 1970-01-01 UTC) first,
/// then its fields. `None` for [`Event::Level`], which is only meant to be watched.
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
            // Unprintable characters occur in strings only, where JSON accepts UTF-16 escapes.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(line, "\\u{unit:04x}");
            }
        } else {
            line.push(c);
        }
    }
    Some(line)
}

/// The devices for `bullhorn devices`: microphones, then loudspeakers; the default is marked.
pub fn devices(devices: &[Device]) -> String {
    let width = devices.iter().map(|device| escaped(&device.id).width()).max().unwrap_or(0);
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
            let (id, name) = (padded(&escaped(&device.id), width), escaped(&device.name));
            text.push_str(&format!("{mark} {id}  {name}{word}\n"));
        }
        if none {
            text.push_str("  none\n");
        }
    }
    text
}

/// Seconds since 1970 as date and time, UTC.
pub fn time(unix_s: u64) -> String {
    // The formatter only handles years of four digits.
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
    let names: Vec<Cow<str>> = stations.iter().map(|station| escaped(&station.name)).collect();
    let width = names.iter().map(|name| name.width()).max().unwrap_or(0).max("station".len());
    let talk = stations.iter().any(|station| station.signer.is_some());
    let signer = |words: &str| if talk { format!("  {words:19}") } else { String::new() };
    let mut text = format!(
        "{:width$}  {:23}  {:23}  {:8}  {:19}{}  zones\n",
        "station",
        "joined",
        "last here",
        "volume",
        "key",
        signer("talks back as")
    );
    for (station, name) in stations.iter().zip(names) {
        let (joined, seen) = (time(station.joined_unix_s), time(station.last_seen_unix_s));
        let (name, zones) = (padded(&name, width), station.zones.join(", "));
        let (volume, key) =
            (station.volume.map_or("own".to_owned(), |volume| volume.to_string()), station.key.fingerprint());
        let signer = signer(&station.signer.map_or("-".to_owned(), |key| key.fingerprint().to_string()));
        let line = format!("{name}  {joined}  {seen}  {volume:8}  {key}{signer}  {}", escaped(&zones));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The zones for `bullhorn zones`, with their digits and how many stations are in each.
pub fn zones(order: &ZoneOrder, stations: &[&Station]) -> String {
    let zones: BTreeSet<&str> =
        stations.iter().flat_map(|station| &station.zones).map(String::as_str).collect();
    let all = order.all(&zones);
    if all.is_empty() {
        return "no station has joined with a zone: `bullhorn speaker HOST --zone ZONE` does\n".to_owned();
    }
    let width = all.iter().map(|zone| escaped(zone).width()).max().unwrap_or(0).max("zone".len());
    let mut text = format!("digit  {}  stations\n", padded("zone", width));
    for (at, zone) in all.iter().enumerate() {
        let digit = if at < order.with_digits().len() { (at + 1).to_string() } else { "-".to_owned() };
        let inside = stations.iter().filter(|station| station.zones.contains(zone)).count();
        text.push_str(&format!("{digit:5}  {}  {inside}\n", padded(&escaped(zone), width)));
    }
    text
}

/// Pads text with spaces to this number of terminal columns.
fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
