//! The terminal itself: raw mode, the panel at the bottom, and the history that scrolls above it.

use std::io::{self, Stdout, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{KeyboardEnhancementFlags, PopKeyboardEnhancementFlags, PushKeyboardEnhancementFlags};
use crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};
use crossterm::{cursor, execute, queue, terminal};
use ratatui::backend::CrosstermBackend;
use ratatui::style::Style;
use ratatui::text::Span;
use ratatui::{Terminal, TerminalOptions, Viewport};

use super::panel;
use super::view::View;

/// The most lines that are written to the history at once: few enough for any terminal to scroll.
const MAX_LINES: usize = 200;
/// The window's size where the terminal does not report one (a serial line reports 0 by 0).
const ASSUMED_SIZE: (u16, u16) = (80, 24);

/// How long a window must keep its size before the panel is drawn for it. tmux reports a change to its programs up to
/// 0.25 s after it was made.
const SETTLE: Duration = Duration::from_millis(300);

/// Whether the console has the terminal, and the panel's top row: a panic and a second Ctrl-C must be able to give the
/// terminal back from any thread.
static IS_OPEN: AtomicBool = AtomicBool::new(false);
static PANEL_TOP: AtomicU16 = AtomicU16::new(0);
/// Whether the terminal was asked to report key releases.
static TELLS_RELEASES: AtomicBool = AtomicBool::new(false);

/// The terminal while the console has it; dropping gives it back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    /// The window's columns and rows.
    size: (u16, u16),
    /// When the size last changed, if the panel has not been drawn since.
    resized: Option<Instant>,
    /// The panel's rows.
    rows: u16,
    /// Whether the terminal reports key releases.
    tells_releases: bool,
}

impl Screen {
    /// Takes over the terminal.
    ///
    /// # Errors
    /// The terminal refuses raw mode, or does not report its cursor's position within two seconds.
    pub fn open(view: &View) -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let tell = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                tell(panic);
            }));
        });
        let size = window_size();
        terminal::enable_raw_mode()?;
        IS_OPEN.store(true, Ordering::SeqCst);
        let rows = panel::wanted_rows(view, size.1);
        match inline(rows) {
            Ok(terminal) => Ok(Self { terminal, size, resized: None, rows, tells_releases: false }),
            Err(error) => {
                let _ = terminal::disable_raw_mode();
                IS_OPEN.store(false, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    /// Asks the terminal to report key releases, and returns whether it will. Only terminals with the kitty keyboard
    /// protocol do.
    pub fn tells_releases(&mut self) -> bool {
        // A terminal that does not even answer the question does not.
        self.tells_releases =
            terminal::supports_keyboard_enhancement().unwrap_or(false) && ask_for_releases().is_ok();
        self.tells_releases
    }

    /// Takes over the terminal again after a shell had it, and draws from the cursor's line down.
    ///
    /// # Errors
    /// The same errors as [`Self::open`].
    pub fn retake(&mut self, view: &View) -> io::Result<()> {
        // Raw mode is not set again while it counts as set.
        terminal::disable_raw_mode()?;
        terminal::enable_raw_mode()?;
        IS_OPEN.store(true, Ordering::SeqCst);
        if TELLS_RELEASES.swap(false, Ordering::SeqCst) {
            execute!(io::stdout(), PopKeyboardEnhancementFlags)?;
        }
        if self.tells_releases {
            ask_for_releases()?;
        }
        execute!(io::stdout(), cursor::MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
        self.size = window_size();
        self.resized = None;
        self.rows = panel::wanted_rows(view, self.size.1);
        self.terminal = inline(self.rows)?;
        Ok(())
    }

    /// Checks the window's size; returns `false` while the window is being resized. Anything drawn then may wrap and
    /// leave rows behind that are never wiped.
    pub fn is_still(&mut self) -> bool {
        let size = window_size();
        if size != self.size {
            self.size = size;
            self.resized = Some(Instant::now());
        }
        self.resized.is_none_or(|resized| resized.elapsed() >= SETTLE)
    }

    /// Whether the panel was drawn for a different size of the window.
    pub fn is_resized(&self) -> bool {
        self.resized.is_some()
    }

    /// Writes lines into the history, then draws the panel. Does neither once the terminal has been given back.
    ///
    /// # Errors
    /// The terminal cannot be written to.
    pub fn show(&mut self, history: &[String], view: &View) -> io::Result<()> {
        if !IS_OPEN.load(Ordering::SeqCst) {
            return Ok(());
        }
        queue!(io::stdout(), BeginSynchronizedUpdate)?;
        let shown = self.fit(view).and_then(|()| {
            for line in history {
                self.print(line)?;
            }
            self.terminal.draw(|frame| panel::draw(frame, view))?;
            self.park()
        });
        execute!(io::stdout(), EndSynchronizedUpdate)?;
        shown
    }

    /// Creates the panel again when the window's size has changed or the panel needs more rows.
    fn fit(&mut self, view: &View) -> io::Result<()> {
        let wanted = panel::wanted_rows(view, self.size.1);
        if self.resized.take().is_none() && wanted <= self.rows {
            return Ok(());
        }
        // The cursor was parked at the panel's top left. A terminal that reflows its lines moves
        // the cursor along, so that it still marks the top when the rows no longer do.
        execute!(io::stdout(), cursor::MoveToColumn(0), Clear(ClearType::FromCursorDown))?;
        self.terminal = inline(wanted)?;
        self.rows = wanted;
        Ok(())
    }

    fn print(&mut self, line: &str) -> io::Result<()> {
        let wrapped = wrap(line, self.size.0.into());
        for lines in wrapped.chunks(MAX_LINES) {
            self.terminal.insert_before(lines.len() as u16, |buffer| {
                for (row, line) in (0..).zip(lines) {
                    buffer.set_string(0, row, line, Style::default());
                }
            })?;
        }
        Ok(())
    }

    /// Rests the cursor at the panel's top left.
    fn park(&mut self) -> io::Result<()> {
        let top = self.terminal.get_frame().area().y;
        PANEL_TOP.store(top, Ordering::SeqCst);
        execute!(io::stdout(), cursor::MoveTo(0, top))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Asks the terminal to report key releases.
fn ask_for_releases() -> io::Result<()> {
    // Without all three flags, the release of a key that makes a letter is not reported.
    let flags = KeyboardEnhancementFlags::DISAMBIGUATE_ESCAPE_CODES
        | KeyboardEnhancementFlags::REPORT_EVENT_TYPES
        | KeyboardEnhancementFlags::REPORT_ALL_KEYS_AS_ESCAPE_CODES;
    execute!(io::stdout(), PushKeyboardEnhancementFlags(flags))?;
    TELLS_RELEASES.store(true, Ordering::SeqCst);
    Ok(())
}

/// Leaves the terminal as it is: a shell has it now.
pub fn let_go() {
    IS_OPEN.store(false, Ordering::SeqCst);
}

/// Gives the terminal back as it was, with the panel wiped. Does nothing the second time.
pub fn give_back() {
    if !IS_OPEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut stdout = io::stdout();
    let top = PANEL_TOP.load(Ordering::SeqCst);
    let _ = queue!(stdout, cursor::MoveTo(0, top), Clear(ClearType::FromCursorDown));
    if TELLS_RELEASES.swap(false, Ordering::SeqCst) {
        let _ = queue!(stdout, PopKeyboardEnhancementFlags);
    }
    let _ = queue!(stdout, EndSynchronizedUpdate, cursor::Show);
    let _ = stdout.flush();
    let _ = terminal::disable_raw_mode();
}

fn inline(rows: u16) -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    let options = TerminalOptions { viewport: Viewport::Inline(rows) };
    let mut terminal = Terminal::with_options(CrosstermBackend::new(io::stdout()), options)?;
    PANEL_TOP.store(terminal.get_frame().area().y, Ordering::SeqCst);
    Ok(terminal)
}

fn window_size() -> (u16, u16) {
    match terminal::size() {
        Ok((columns, rows)) if columns > 0 && rows > 0 => (columns, rows),
        _ => ASSUMED_SIZE,
    }
}

/// Breaks a line between words, or inside one that is too long, into lines of `width` columns;
/// those after the first are indented.
fn wrap(line: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "    ";
    let indent = if width > 20 { INDENT } else { "" };
    let columns = |text: &str| Span::raw(text).width();
    let mut lines = Vec::new();
    let mut current = String::new();
    for word in line.split(' ') {
        let is_fresh = current.is_empty() || (!lines.is_empty() && current == indent);
        let gap = if is_fresh { "" } else { " " };
        if columns(&current) + gap.len() + columns(word) <= width {
            current += gap;
            current += word;
            continue;
        }
        if !is_fresh {
            lines.push(std::mem::replace(&mut current, indent.to_owned()));
        }
        for c in word.chars() {
            if columns(&current) + columns(c.encode_utf8(&mut [0; 4])) > width && current != indent {
                lines.push(std::mem::replace(&mut current, indent.to_owned()));
            }
            current.push(c);
        }
    }
    lines.push(current);
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_keep_every_one() {
        assert_eq!(wrap("", 40), [""]);
        assert_eq!(wrap("hall-1 played it", 40), ["hall-1 played it"]);
        assert_eq!(
            wrap("the quick brown fox jumps over it", 24),
            ["the quick brown fox", "    jumps over it"]
        );
        assert_eq!(wrap("ab cd ef", 5), ["ab cd", "ef"]);
    }

    #[test]
    fn no_line_is_wider_than_the_window() {
        let line = format!("{} short 日本語日本語日本語 {}  end", "x".repeat(100), "y".repeat(30));
        for width in 2..130 {
            let lines = wrap(&line, width);
            assert!(lines.iter().all(|line| Span::raw(line).width() <= width), "{width}: {lines:?}");
            let kept = |text: &str| text.chars().filter(|c| *c != ' ').collect::<String>();
            assert_eq!(kept(&lines.concat()), kept(&line), "{width}");
        }
    }
}
