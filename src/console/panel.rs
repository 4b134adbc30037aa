//! Draws the view into whatever room there is. Pure: no terminal, no clock.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Row, Table};

use super::sounds::Choice;
use super::view::{Page, Recording, Space, Stage, State, View};
use crate::priority::Priority;
use crate::report::escaped;

/// Rows beside the stations': title, activity, note, keys.
const FIXED_ROWS: u16 = 4;
/// Rows that the history keeps above the panel.
const HISTORY_ROWS: u16 = 2;
/// The panel's height in a small window, before it may take half of a larger one.
const SMALL_ROWS: u16 = 7;
/// The bottom of the level meter, in dB below full scale.
const METER_DB: f32 = -60.0;
/// The columns from which the line of keys has room for them all.
const WITH_EMERGENCY: u16 = 64;
/// The widest bar, in columns.
const MAX_BAR: usize = 40;

/// The rows that the panel would use in a window of `window_rows`; at least 1.
pub fn wanted_rows(view: &View, window_rows: u16) -> u16 {
    let listed = view.choice.as_ref().map_or(view.stations.len(), Choice::len).max(1);
    let listed = u16::try_from(listed).unwrap_or(u16::MAX).saturating_add(zone_rows(view));
    let room = (window_rows / 2).max(SMALL_ROWS).min(window_rows.saturating_sub(HISTORY_ROWS)).max(1);
    FIXED_ROWS.saturating_add(listed).min(room)
}

/// The rows of the line of zones.
fn zone_rows(view: &View) -> u16 {
    u16::from(!view.zones.is_empty())
}

/// Draws the panel into the whole frame. With little room the stations go first, then keys, note and title.
pub fn draw(frame: &mut Frame, view: &View) {
    let area = frame.area();
    let one_if = |needed_rows: u16| u16::from(area.height >= needed_rows);
    let zone_rows = zone_rows(view).min(area.height.saturating_sub(FIXED_ROWS + 1));
    let listed_rows = area.height.saturating_sub(FIXED_ROWS + zone_rows);
    let rows = [one_if(2), listed_rows, zone_rows, one_if(1), one_if(3), one_if(4)];
    let areas = Layout::vertical(rows.map(Constraint::Length)).areas(area);
    let [title_area, stations_area, zones_area, activity_area, note_area, keys_area] = areas;
    frame.render_widget(title(view), title_area);
    match &view.choice {
        Some(choice) => frame.render_widget(sounds(choice, stations_area), stations_area),
        None => frame.render_widget(stations(view, stations_area), stations_area),
    }
    frame.render_widget(zones(view), zones_area);
    frame.render_widget(activity(view, area.width.into()), activity_area);
    frame.render_widget(note(view), note_area);
    frame.render_widget(keys(view, area.width), keys_area);
}

fn coloured(view: &View, color: Color) -> Style {
    if view.has_colour { Style::new().fg(color) } else { Style::new() }
}

fn title(view: &View) -> Block<'_> {
    let mut title = format!(" bullhorn · {} listening ", view.listening());
    if let Some(address) = &view.address {
        title += &format!("· {} ", escaped(address));
    }
    Block::new().borders(Borders::TOP).title(Span::styled(title, Modifier::BOLD))
}

fn state_style(view: &View, state: &State) -> Style {
    match state {
        State::Waiting => Style::new(),
        State::Announced(Stage::Receiving | Stage::Verified | Stage::Queued) => coloured(view, Color::Cyan),
        State::Announced(Stage::Playing) => coloured(view, Color::Yellow),
        State::Announced(Stage::Played) => coloured(view, Color::Green),
        State::Announced(Stage::OutOfStep(_)) => coloured(view, Color::Yellow).add_modifier(Modifier::BOLD),
        State::Announced(Stage::Failed(_)) | State::Faulty(_) | State::Lost(_) => {
            coloured(view, Color::Red).add_modifier(Modifier::BOLD)
        }
    }
}

fn stations(view: &View, area: Rect) -> Table<'_> {
    let rows = usize::from(area.height);
    if view.stations.is_empty() {
        return lines(["  no station yet: run `bullhorn speaker THIS-COMPUTER` in a hallway".into()]);
    }
    let all = view.stations.iter().map(|(name, station)| (name, station, view.state(name, station)));
    if view.stations.len() > rows {
        let mut troubled: Vec<_> = all
            .filter(|(_, _, state)| state.trouble().is_some())
            .map(|(name, _, state)| Line::styled(trouble(name, &state), state_style(view, &state)))
            .collect();
        let room = rows.saturating_sub(1);
        if troubled.len() > room && room > 0 {
            let hidden = troubled.len() - (room - 1);
            troubled.truncate(room - 1);
            troubled.push(format!("  … and {hidden} more in trouble").into());
        }
        return lines(std::iter::once(census(view).into()).chain(troubled));
    }
    let third = usize::from(area.width / 3).max(8);
    let names = view.stations.keys().map(|name| columns(name) + 2);
    let name_width = names.max().unwrap_or(0).min(third) as u16;
    let zones = view.stations.values().map(|station| columns(&station.zones.join(", ")));
    let zones_width = if area.width < 60 { 0 } else { zones.max().unwrap_or(0).min(third) as u16 };
    let rows = all.map(|(name, station, state)| {
        let state_words = match state.trouble() {
            Some(reason) => format!("{}: {}", state.word(), escaped(reason)),
            None => state.word().into(),
        };
        Row::new([
            Line::raw(format!("  {}", escaped(name))),
            Line::raw(escaped(&station.zones.join(", ")).into_owned()),
            Line::styled(state_words, state_style(view, &state)),
        ])
    });
    let spacing = if zones_width > 0 { 2 } else { 1 };
    let widths = [Constraint::Length(name_width), Constraint::Length(zones_width), Constraint::Fill(1)];
    Table::new(rows, widths).column_spacing(spacing)
}

/// The columns that a peer's words take.
fn columns(text: &str) -> usize {
    Span::raw(escaped(text)).width()
}

/// Lines of the full width.
fn lines<'a>(lines: impl IntoIterator<Item = Line<'a>>) -> Table<'a> {
    Table::new(lines.into_iter().map(|line| Row::new([line])), [Constraint::Fill(1)])
}

fn trouble(name: &str, state: &State) -> String {
    format!("  {} {}: {}", escaped(name), state.word(), escaped(state.trouble().unwrap_or_default()))
}

/// How many stations there are in each state, those in trouble first.
fn census(view: &View) -> String {
    const WORDS: [&str; 10] = [
        "lost",
        "faulty",
        "failed",
        "out of step",
        "receiving",
        "verified",
        "queued",
        "playing",
        "played",
        "waiting",
    ];
    let mut counts = [0_usize; WORDS.len()];
    for (name, station) in &view.stations {
        let word = view.state(name, station).word();
        for (count, _) in counts.iter_mut().zip(WORDS).filter(|(_, known)| *known == word) {
            *count += 1;
        }
    }
    let parts = counts.iter().zip(WORDS).filter(|(count, _)| **count > 0);
    let parts: Vec<_> = parts.map(|(count, word)| format!("{count} {word}")).collect();
    format!("  {} stations: {}", view.stations.len(), parts.join(", "))
}

/// The list of sounds, as much of it as there is room for around the chosen one.
fn sounds(choice: &Choice, area: Rect) -> Table<'_> {
    if let Some(trouble) = &choice.trouble {
        return lines([format!("  {}", escaped(trouble)).into()]);
    }
    let rows = usize::from(area.height).max(1);
    let first = (choice.at + 1).saturating_sub(rows);
    let line = |(index, name): (usize, String)| match index == choice.at {
        true => Line::styled(format!("> {}", escaped(&name)), Modifier::BOLD),
        false => Line::raw(format!("  {}", escaped(&name))),
    };
    lines(choice.names().enumerate().skip(first).take(rows).map(line))
}

/// Who is spoken to, and the digits that change it.
fn zones(view: &View) -> Line<'_> {
    let to = if view.addressed.is_empty() { "all".to_owned() } else { view.addressed.join(", ") };
    let mut line = vec![Span::styled(format!("to {}", escaped(&to)), Modifier::BOLD), Span::raw("   0 all")];
    let digits = (1..=9).zip(&view.zones);
    line.extend(digits.map(|(digit, zone)| Span::raw(format!("  {digit} {}", escaped(zone)))));
    Line::from(line)
}

fn activity(view: &View, width: usize) -> Line<'_> {
    if let Some(recording) = &view.recording {
        return recording_line(view, recording, width);
    }
    if let Some(review) = &view.review {
        let (length, monitor) = (review.length.as_secs_f64(), escaped(&review.monitor));
        let words = format!("{length:.1} s on {monitor}: Enter sends it, Esc drops it");
        return Line::styled(words, Modifier::BOLD);
    }
    if view.choice.is_some() {
        return Line::styled("choose a sound", Modifier::BOLD);
    }
    match &view.page {
        Some(page) if !page.is_done => page_line(view, page, width),
        _ if view.is_leaving => Line::raw("leaving"),
        _ if view.listening() == 0 => Line::raw("ready, but nobody is listening"),
        _ => {
            let how = match view.space {
                None => "press Enter and speak",
                Some(Space::Held) => "hold Space and speak",
                Some(Space::Pressed) => "press Space, speak, press Space again",
            };
            match view.priority {
                Priority::Emergency => Line::styled(format!("EMERGENCY: {how}"), alarm(view)),
                _ => Line::styled(format!("ready: {how}"), Modifier::BOLD),
            }
        }
    }
}

fn recording_line<'a>(view: &View, recording: &Recording, width: usize) -> Line<'a> {
    let tenths = recording.remaining_ms.div_ceil(100);
    let countdown = format!("● recording {:2}.{} s ", tenths / 10, tenths % 10);
    let level = recording.peak_db.unwrap_or(METER_DB);
    let style = match level {
        level if level >= -3.0 => coloured(view, Color::Red),
        level if level >= -12.0 => coloured(view, Color::Yellow),
        _ => coloured(view, Color::Green),
    };
    let decibels = match recording.peak_db {
        Some(peak_db) => format!(" {:4.0} dB", peak_db.max(-100.0)),
        None => "   -- dB".into(),
    };
    let red = coloured(view, Color::Red).add_modifier(Modifier::BOLD);
    let room = width.saturating_sub(Span::raw(&countdown).width() + decibels.len());
    let mut line = vec![Span::styled(countdown, red)];
    line.extend(bar(f64::from((level - METER_DB) / -METER_DB), room, style));
    line.push(Span::raw(decibels));
    Line::from(line)
}

fn page_line<'a>(view: &View, page: &Page, width: usize) -> Line<'a> {
    let (playing, arrived) = page.counts();
    let expected = page.stages.len();
    let (words, share, after) = if playing > 0 {
        let length = page.length.as_secs_f64();
        let share = if length > 0.0 { page.playing_for.as_secs_f64() / length } else { 0.0 };
        let after = format!(" {:.0} of {length:.0} s", page.playing_for.as_secs_f64());
        (format!("{playing} of {expected} playing "), share, after)
    } else if let Some((share, left)) = page.sent.filter(|_| arrived < expected) {
        let after = format!(" {} s left", left.as_secs_f64().ceil());
        (format!("sending, {arrived} of {expected} have it "), share, after)
    } else {
        let share = arrived as f64 / expected.max(1) as f64;
        (format!("sending, {arrived} of {expected} have it "), share, String::new())
    };
    let room = width.saturating_sub(words.len() + after.len());
    let mut line = vec![Span::raw(words)];
    line.extend(bar(share, room, coloured(view, Color::Cyan)));
    line.push(Span::raw(after));
    Line::from(line)
}

/// A bar of at most `room` columns with its brackets; `share` of 0.0 to 1.0 of it is full.
fn bar<'a>(share: f64, room: usize, style: Style) -> Vec<Span<'a>> {
    let columns = room.saturating_sub(2).min(MAX_BAR);
    if columns < 4 {
        return Vec::new();
    }
    // A share that is no number casts to 0.
    let full = ((share * columns as f64).round() as usize).min(columns);
    vec![
        Span::raw("["),
        Span::styled("█".repeat(full), style),
        Span::raw("·".repeat(columns - full)),
        Span::raw("]"),
    ]
}

fn alarm(view: &View) -> Style {
    coloured(view, Color::Red).add_modifier(Modifier::BOLD)
}

fn note(view: &View) -> Line<'_> {
    let alarm = alarm(view);
    match (&view.recording, &view.verdict) {
        (Some(recording), _) if recording.is_clipping() => {
            Line::styled("too loud: it is cut off; step back a little", alarm)
        }
        (Some(recording), _) if recording.is_quiet() => {
            Line::styled("hearing nothing: is the microphone on?", alarm)
        }
        (_, Some(verdict)) => {
            let style = if verdict.is_good { coloured(view, Color::Green) } else { alarm };
            Line::styled(format!("last: {}", verdict.sentence), style)
        }
        _ => Line::default(),
    }
}

fn keys(view: &View, width: u16) -> Line<'_> {
    let announces = match view.space {
        None => "Enter announces",
        Some(Space::Held) => "hold Space to speak",
        Some(Space::Pressed) => "Space starts, Space ends",
    };
    let sounds = if view.has_sounds { "  f sounds" } else { "" };
    let emergency = if width >= WITH_EMERGENCY { "  e emergency" } else { "" };
    let words = match (view.is_leaving, width) {
        (true, _) => "leaving after the verdict; Ctrl-C: now".to_owned(),
        (false, _) if view.choice.is_some() => "Up, Down  Enter announces it  Esc closes".to_owned(),
        (false, 90..) if view.space.is_none() && !view.has_sounds => {
            "Enter announces   Esc cancels a recording   e emergency   q leaves   (--seconds N: length)"
                .to_owned()
        }
        (false, _) => format!("{announces}  Esc cancels{sounds}{emergency}  q leaves"),
    };
    Line::styled(words, Modifier::DIM)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
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
            },
            Event::Sending {
                clip: CLIP.into(),
                stations: names.iter().map(|name| name.to_string()).collect(),
            },
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
        assert_eq!(shown[5], "Space starts, Space ends  Esc cancels  e emergency  q leaves");
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
        });
        let shown = screen(&view, 90, 7);
        assert_eq!(
            shown[1..4],
            ["  hall-1  played", "  hall-2  played", "  hall-3  out of step: 4250 ms late"]
        );
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
}
