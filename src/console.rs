//! The operator's interface: a console at a terminal, prose or JSON lines without one.
//!
//! At a terminal a panel stays at the bottom and the history scrolls above it in the normal screen, so that it remains
//! in the terminal's scrollback. One thread draws the panel and another reads the keys, so neither a slow terminal nor
//! a held key delays an announcement.

mod held;
mod input;
mod jobs;
mod panel;
mod screen;
mod sounds;
mod view;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError, mpsc as std_mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use self::input::Keys;
use self::jobs::Jobs;
pub use self::sounds::{Sounds, SoundsError};

use self::screen::Screen;
use self::view::{Space, View};
use crate::event::{Command, Event};
use crate::report;

/// The exit status after a second Ctrl-C, the same that a shell reports for the signal.
pub const INTERRUPTED: i32 = 130;
/// The name of the thread that prints or draws.
const THREAD: &str = "console";
/// How often the panel checks the clock and the window's size.
const TICK: Duration = Duration::from_millis(100);
/// The most events that are handled before the next draw or write.
const MAX_BATCH: usize = 256;
/// How many bytes a pipe accepts as a whole or not at all (`PIPE_BUF` of Linux).
const MAX_WHOLE_BYTES: usize = 4096;

/// An error between bullhorn and its operator.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The terminal cannot be used as a console.
    #[error("cannot use this terminal: add `| cat` to the command to do without the console")]
    Terminal(#[source] io::Error),
    /// Standard output cannot be written; the remaining events were received but not printed.
    #[error("cannot write events to standard output")]
    Output(#[source] io::Error),
    /// The console's threads cannot be started.
    #[error("cannot start the console's threads")]
    Thread(#[source] io::Error),
    /// A fault in bullhorn itself.
    #[error("the console stopped by a fault of its own: please report it")]
    Panicked,
}

/// How events are shown and commands are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The console: a panel and keys.
    Terminal,
    /// A line of prose per event on standard output; commands as lines on standard input.
    Prose,
    /// A JSON object per event on standard output, prose on standard error; commands as lines on standard input.
    Json,
}

impl Mode {
    /// JSON if asked for; otherwise the console if an operator is at a terminal; otherwise prose.
    pub fn choose(is_json: bool, has_operator: bool) -> Self {
        match (is_json, has_operator && is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Terminal,
            (false, false) => Self::Prose,
        }
    }
}

/// The operator's options.
#[derive(Debug)]
pub struct Setup {
    /// How events are shown and commands are read.
    pub mode: Mode,
    /// Whether Space records instead of Enter: for as long as it is held, where the terminal reports key releases.
    pub holds: bool,
    /// The sounds to choose from.
    pub sounds: Option<Sounds>,
}

impl From<Mode> for Setup {
    fn from(mode: Mode) -> Self {
        Self { mode, holds: false, sounds: None }
    }
}

/// Whether standard input and output are a terminal that can place its cursor.
pub fn is_terminal() -> bool {
    io::stdin().is_terminal()
        && io::stdout().is_terminal()
        && std::env::var_os("TERM").is_none_or(|name| name != "dumb")
}

/// Whether somebody is at a terminal who can see and fix what is wrong at the start. A service has nobody.
pub fn is_attended() -> bool {
    io::stdin().is_terminal() || io::stderr().is_terminal()
}

/// Shows events until there are no more, and sends the operator's commands.
///
/// Without `commands` it reads nothing, neither keys nor standard input, and [`Mode::Terminal`] behaves like
/// [`Mode::Prose`]. In [`Mode::Terminal`] Ctrl-C is a key, not a signal: the first asks to leave, the second restores
/// the terminal and exits with status 130.
///
/// # Errors
/// [`ConsoleError`]. When standard output is closed, events are still received to the end.
pub async fn run(
    events: mpsc::Receiver<Event>,
    commands: Option<mpsc::Sender<Command>>,
    setup: Setup,
) -> Result<(), ConsoleError> {
    let runtime = Handle::current();
    let (done, result) = oneshot::channel();
    let work = move || {
        let _ = done.send(match (setup.mode, commands) {
            (Mode::Terminal, Some(commands)) => {
                let shown = show_console(&runtime, events, commands.clone(), setup);
                if shown.is_err() {
                    // The terminal is gone, and with it the operator who would ask to leave.
                    let _ = commands.blocking_send(Command::Leave);
                }
                shown
            }
            (mode, commands) => print_lines(events, commands, mode == Mode::Json),
        });
    };
    // Not one of tokio's threads: a runtime waits for those when it shuts down, and this one can hang in a write for as
    // long as nobody reads.
    std::thread::Builder::new().name(THREAD.into()).spawn(work).map_err(ConsoleError::Thread)?;
    result.await.unwrap_or(Err(ConsoleError::Panicked))
}

fn print_lines(
    mut events: mpsc::Receiver<Event>,
    commands: Option<mpsc::Sender<Command>>,
    is_json: bool,
) -> Result<(), ConsoleError> {
    if let Some(commands) = commands {
        input::start_lines(commands).map_err(ConsoleError::Thread)?;
    }
    let (mut output, mut prose) = (Lines::to(io::stdout()), Lines::to(io::stderr()));
    let (mut result, mut is_told) = (Ok(()), false);
    while let Some(first) = events.blocking_recv() {
        let more = std::iter::from_fn(|| events.try_recv().ok());
        for event in std::iter::once(first).chain(more.take(MAX_BATCH)) {
            let sentence = report::sentence(&event);
            let line = match is_json {
                true => {
                    let _ = sentence.map_or(Ok(()), |sentence| prose.add(&sentence));
                    report::json(&event, unix_ms())
                }
                false => sentence,
            };
            if let (Some(line), true) = (line, result.is_ok()) {
                result = output.add(&line);
            }
        }
        let _ = prose.write();
        if result.is_ok() {
            result = output.write();
        }
        if let (Err(error), false) = (&result, std::mem::replace(&mut is_told, result.is_err())) {
            tracing::warn!("events are no longer printed, announcements go on: {error}");
        }
    }
    result.map_err(ConsoleError::Output)
}

/// Lines to be written. A page reports thousands of events at once, so pending lines are written together, as many as a
/// pipe accepts as a whole. A reader therefore never finds half a line of a process that was killed.
struct Lines<W> {
    to: W,
    text: String,
}

impl<W: Write> Lines<W> {
    fn to(to: W) -> Self {
        Self { to, text: String::new() }
    }

    fn add(&mut self, line: &str) -> io::Result<()> {
        let is_full = self.text.len() + line.len() >= MAX_WHOLE_BYTES;
        let written = if is_full { self.write() } else { Ok(()) };
        self.text.extend([line, "\n"]);
        written
    }

    fn write(&mut self) -> io::Result<()> {
        let written = self.to.write_all(self.text.as_bytes()).and_then(|()| self.to.flush());
        self.text.clear();
        written
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn show_console(
    runtime: &Handle,
    mut events: mpsc::Receiver<Event>,
    commands: mpsc::Sender<Command>,
    setup: Setup,
) -> Result<(), ConsoleError> {
    let has_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut view = View::new(has_colour);
    let logs = Logs::divert();
    view.has_sounds = setup.sounds.is_some();
    let mut screen = Screen::open(&view).map_err(ConsoleError::Terminal)?;
    let mut history = Vec::new();
    if setup.holds {
        let space = if screen.tells_releases() { Space::Held } else { Space::Pressed };
        history.push(space.explained().to_owned());
        view.space = Some(space);
    }
    let jobs = Jobs::watch(runtime).map_err(ConsoleError::Thread)?;
    let keys = Keys::start(commands, view.space, setup.sounds).map_err(ConsoleError::Thread)?;
    let mut ticked = Instant::now();
    let mut is_over = false;
    let mut is_stale = true;
    // Whether a shell has the terminal for now.
    let mut is_away = false;
    while !is_over {
        if let Ok(first) = runtime.block_on(async { tokio::time::timeout(TICK, events.recv()).await }) {
            is_over = first.is_none();
            let more = std::iter::from_fn(|| events.try_recv().ok());
            for event in first.into_iter().chain(more.take(MAX_BATCH)) {
                view.apply(&event);
                if !is_told_by_the_panel(&event) {
                    history.extend(report::sentence(&event));
                }
                is_stale = true;
            }
        }
        keys.leave_if_asked();
        if jobs.take_stop() && !is_away {
            keys.pause();
            screen::give_back();
            is_away = true;
            jobs.stop();
        }
        if jobs.take_continued() && !is_away {
            keys.pause();
            screen::let_go();
            is_away = true;
        }
        if is_away && jobs::has_terminal() {
            screen.retake(&view).map_err(ConsoleError::Terminal)?;
            keys.resume();
            (is_away, is_stale) = (false, true);
        }
        history.extend(logs.lines());
        let is_leaving = keys.shared.is_leaving.load(Ordering::SeqCst);
        is_stale |= is_leaving != std::mem::replace(&mut view.is_leaving, is_leaving);
        let now = Instant::now();
        view.tick(now.duration_since(std::mem::replace(&mut ticked, now)));
        is_stale |= keys.shared.follow(&mut view);
        let may_draw = !is_away && (screen.is_still() || is_over);
        is_stale |= view.is_moving() || !history.is_empty() || screen.is_resized();
        if is_stale && may_draw {
            screen.show(&history, &view).map_err(ConsoleError::Terminal)?;
            history.clear();
            is_stale = false;
        }
    }
    if is_away {
        history.iter().try_for_each(|line| writeln!(io::stdout(), "{line}")).map_err(ConsoleError::Output)?;
    }
    Ok(())
}

/// The panel shows these events station by station, so they do not get a line of history each.
fn is_told_by_the_panel(event: &Event) -> bool {
    matches!(event, Event::Verified { .. } | Event::Playing { .. })
}

/// Where log lines go while the console has the terminal: into its history.
static DIVERTED: Mutex<Option<std_mpsc::Sender<String>>> = Mutex::new(None);

/// Log lines for the history. Once this is dropped, they go to standard error again.
struct Logs(std_mpsc::Receiver<String>);

impl Logs {
    /// Diverts the log, unless standard error is redirected away from the terminal.
    fn divert() -> Self {
        let (sender, receiver) = std_mpsc::channel();
        if io::stderr().is_terminal() {
            *DIVERTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        }
        Self(receiver)
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        self.0.try_iter()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        *DIVERTED.lock().unwrap_or_else(PoisonError::into_inner) = None;
        for line in self.0.try_iter() {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// Sends lines to the console's history; returns `false` where there is none.
fn divert(text: &str) -> bool {
    let diverted = DIVERTED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(history) = diverted.as_ref() else { return false };
    text.lines().all(|line| history.send(report::escaped(line).into_owned()).is_ok())
}

/// Gives the terminal back if the console has it, and exits with [`INTERRUPTED`].
pub fn leave_at_once() -> ! {
    screen::give_back();
    std::process::exit(INTERRUPTED);
}

/// Standard error for a log, for use as `tracing_subscriber::fmt().with_writer(console::log)`: while the console has
/// the terminal, lines go into its history instead of across its panel.
pub fn log() -> Log {
    Log
}

/// See [`log`].
#[derive(Debug, Clone, Copy)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        if !divert(&text) {
            let lines: String = text.lines().map(|line| format!("{}\n", report::escaped(line))).collect();
            io::stderr().write_all(lines.as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
