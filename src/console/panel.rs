//! Draws the view into the available room. Pure: no terminal, no clock.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Row, Table};

use super::sounds::Choice;
use super::view::{Page, Recording, Space, Stage, State, View};
use crate::priority::Priority;
use crate::report::escaped;

/// Rows in addition to those of the stations: title, activity, note, keys.
const FIXED_ROWS: u16 = 4;
/// Rows that the history keeps above the panel.
const HISTORY_ROWS: u16 = 2;
/// The panel's greatest height in a small window; in a larger one it is half the window.
const SMALL_ROWS: u16 = 7;
/// The bottom of the level meter, in dB below full scale.
const METER_DB: f32 = -60.0;
/// The width, in columns, from which the line of keys has room for the emergency key.
const WITH_EMERGENCY: u16 = 64;
/// The width from which it has room for the key for live speech too.
const WITH_LIVE: u16 = 80;
/// The widest bar, in columns.
const MAX_BAR: usize = 40;

/// The rows that the panel would use in a window of `window_rows`; at least 1.
pub fn wanted_rows(view: &View, window_rows: u16) -> u16 {
    let listed = view.choice.as_ref().map_or(view.stations.len(), Choice::len).max(1);
    let listed = u16::try_from(listed).unwrap_or(u16::MAX).saturating_add(zone_rows(view));
    let room = (window_rows / 2).max(SMALL_ROWS).min(window_rows.saturating_sub(HISTORY_ROWS)).max(1);
    FIXED_ROWS.saturating_add(listed).min(room)
}

/// The number of rows for the line of zones.
fn zone_rows(view: &View) -> u16 {
    u16::from(!view.zones.is_empty())
}

/// Draws the panel into the whole frame. With little room the stations are left out first, then keys, note and title.
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

/// The number of columns that a peer's text needs.
fn columns(text: &str) -> usize {
    Span::raw(escaped(text)).width()
}

/// A table of lines of the full width.
fn lines<'a>(lines: impl IntoIterator<Item = Line<'a>>) -> Table<'a> {
    Table::new(lines.into_iter().map(|line| Row::new([line])), [Constraint::Fill(1)])
}

fn trouble(name: &str, state: &State) -> String {
    format!("  {} {}: {}", escaped(name), state.word(), escaped(state.trouble().unwrap_or_default()))
}

/// Counts the stations in each state, with the troubled states first.
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

/// The list of sounds, as much of it as fits around the chosen one.
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

/// The zones that are addressed, and the digits that change them.
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
    let countdown = if recording.is_live {
        let tenths = recording.length_ms.saturating_sub(recording.remaining_ms) / 100;
        format!("● LIVE {:3}.{} s ", tenths / 10, tenths % 10)
    } else {
        let tenths = recording.remaining_ms.div_ceil(100);
        format!("● recording {:2}.{} s ", tenths / 10, tenths % 10)
    };
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

/// A bar of at most `room` columns, including its brackets, filled to `share`, from 0.0 to 1.0.
fn bar<'a>(share: f64, room: usize, style: Style) -> Vec<Span<'a>> {
    let columns = room.saturating_sub(2).min(MAX_BAR);
    if columns < 4 {
        return Vec::new();
    }
    // A share that is not a number casts to 0.
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
    let live = if width >= WITH_LIVE { "  l live" } else { "" };
    let emergency = if width >= WITH_EMERGENCY { "  e emergency" } else { "" };
    let words = match (view.is_leaving, width) {
        (true, _) => "leaving after the verdict; Ctrl-C: now".to_owned(),
        _ if view.recording.as_ref().is_some_and(|it| it.is_live) => {
            "Enter ends it   q ends it and leaves".to_owned()
        }
        (false, _) if view.choice.is_some() => "Up, Down  Enter announces it  Esc closes".to_owned(),
        (false, 90..) if view.space.is_none() && !view.has_sounds => {
            "Enter announces  Esc cancels a recording  l live  e emergency  q leaves  (--seconds N: length)"
                .to_owned()
        }
        (false, _) => format!("{announces}  Esc cancels{sounds}{live}{emergency}  q leaves"),
    };
    Line::styled(words, Modifier::DIM)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
