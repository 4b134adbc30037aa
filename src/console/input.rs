//! The operator's commands: keys at a terminal, lines without one.

use std::io::{self, BufRead, ErrorKind, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::sync::mpsc;

use super::held::{FIRST_REPEAT, Held, Press, REPEAT};
use super::jobs;
use super::sounds::{Choice, Sounds};
use super::view::{Space, View};
use crate::event::Command;

/// The name of the thread that reads keys.
pub const THREAD: &str = "keys";
/// How long the thread that reads keys can take to notice that it should stop.
const POLL: Duration = Duration::from_millis(100);
/// How long the console, or the thread that reads keys, has to stop before it is abandoned.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A recording with Space that is shorter than this was not meant, where the terminal reports key releases.
const SHORTEST_HOLD: Duration = Duration::from_millis(300);
/// The meaning of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Tell(Command),
    Suspend,
    LeaveAtOnce,
}

/// What is in progress while a key is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Recording,
    Live,
    Reviewing,
}

/// Turns key presses into actions.
#[derive(Debug, Default)]
struct Keyboard {
    held: Held<KeyCode>,
    /// A press that might be a held key's repeat.
    unsure: Option<KeyEvent>,
    /// How Space records, if it does.
    space: Option<Space>,
    /// When Space was pressed last, and when the recording that it started began.
    spaced: Option<Instant>,
    begun: Option<Instant>,
    sounds: Option<Sounds>,
    is_leaving: bool,
    shared: Arc<Shared>,
}

impl Keyboard {
    /// Handles a keyboard event at an instant, and returns its meaning.
    fn press(&mut self, key: KeyEvent, doing: Doing, now: Instant) -> Option<Action> {
        if key.code == KeyCode::Char(' ') && self.space.is_some() {
            return self.space(key.kind, doing, now).map(Action::Tell);
        }
        if key.kind != KeyEventKind::Press {
            return None;
        }
        // A key that starts or ends something is never meant twice within this time.
        let quick = match key.code {
            KeyCode::Enter | KeyCode::Char('l' | 'L') => REPEAT,
            _ => Duration::ZERO,
        };
        let press = self.held.press(letter(key.code), quick, now);
        // An operator who leaves need not wait, and one who moves through a list may hold the key.
        let is_guarded = match key.code {
            KeyCode::Char('c') => !key.modifiers.contains(KeyModifiers::CONTROL),
            KeyCode::Char('q' | 'Q') => false,
            KeyCode::Enter | KeyCode::Char(_) => true,
            _ => false,
        };
        match press {
            Press::Repeats if is_guarded => {
                self.unsure = None;
                None
            }
            Press::Unsure if is_guarded => {
                self.unsure = Some(key);
                None
            }
            _ => self.act(key, doing),
        }
    }

    /// Returns the meaning of the unsure press, if it turns out to count. `next` is the key pressed now, if any.
    fn settle(&mut self, next: Option<KeyCode>, doing: Doing, now: Instant) -> Option<Action> {
        let counts = self.held.settle(next.map(letter).as_ref(), now);
        let key = self.unsure.take_if(|_| counts)?;
        self.act(key, doing)
    }

    /// The meaning of a press that counts.
    fn act(&mut self, key: KeyEvent, doing: Doing) -> Option<Action> {
        let is_ctrl =
            |letter| key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char(letter);
        let is_plain = key.modifiers.difference(KeyModifiers::SHIFT).is_empty();
        match key.code {
            _ if is_ctrl('c') && self.is_leaving => Some(Action::LeaveAtOnce),
            _ if is_ctrl('c') => Some(self.leave()),
            _ if is_ctrl('z') => Some(Action::Suspend),
            KeyCode::Char('q' | 'Q') if !self.is_leaving && is_plain => Some(self.leave()),
            KeyCode::Enter if self.is_leaving => None,
            KeyCode::Enter => self.enter(doing).map(Action::Tell),
            _ if lock(&self.shared.choice).is_some() => {
                self.choose(key.code);
                None
            }
            KeyCode::Esc => Some(Action::Tell(Command::Cancel)),
            KeyCode::Char('l' | 'L') if doing == Doing::Live && is_plain => {
                Some(Action::Tell(Command::Finish))
            }
            KeyCode::Char('l' | 'L') if doing == Doing::Nothing && is_plain && !self.is_leaving => {
                Some(Action::Tell(Command::Live))
            }
            KeyCode::Char('f' | 'F') if doing == Doing::Nothing && is_plain && !self.is_leaving => {
                *lock(&self.shared.choice) = self.sounds.as_ref().map(Choice::among);
                None
            }
            KeyCode::Char('e' | 'E') if doing == Doing::Nothing && is_plain && !self.is_leaving => {
                Some(Action::Tell(Command::Emergency))
            }
            // Live speech that is already heard keeps its destination.
            KeyCode::Char('0'..='9') if doing == Doing::Live => None,
            KeyCode::Char('0') if is_plain => Some(Action::Tell(Command::Address(None))),
            KeyCode::Char(digit @ '1'..='9') if is_plain => {
                let zone = lock(&self.shared.zones).get(digit as usize - '1' as usize).cloned()?;
                Some(Action::Tell(Command::Address(Some(zone))))
            }
            _ => None,
        }
    }

    fn enter(&mut self, doing: Doing) -> Option<Command> {
        let choice = lock(&self.shared.choice).take();
        match (doing, choice) {
            (Doing::Nothing, Some(choice)) => choice.chosen().map(Command::AnnounceFile),
            (Doing::Nothing, None) => self.space.is_none().then_some(Command::Announce),
            (Doing::Reviewing, _) => Some(Command::Send),
            (Doing::Live, _) => Some(Command::Finish),
            (Doing::Recording, _) => None,
        }
    }

    /// Moves through the list of sounds, or closes it.
    fn choose(&self, code: KeyCode) {
        let mut choice = lock(&self.shared.choice);
        match code {
            KeyCode::Up => choice.iter_mut().for_each(|choice| choice.move_by(-1)),
            KeyCode::Down => choice.iter_mut().for_each(|choice| choice.move_by(1)),
            KeyCode::PageUp => choice.iter_mut().for_each(|choice| choice.move_by(-10)),
            KeyCode::PageDown => choice.iter_mut().for_each(|choice| choice.move_by(10)),
            KeyCode::Esc | KeyCode::Char('f' | 'F') => *choice = None,
            _ => {}
        }
    }

    /// The meaning of Space where it records.
    fn space(&mut self, kind: KeyEventKind, doing: Doing, now: Instant) -> Option<Command> {
        let begun = self.begun;
        let since = |then: Option<Instant>| then.map_or(Duration::MAX, |then| now.duration_since(then));
        let is_repeat = since(self.spaced) < REPEAT;
        if kind != KeyEventKind::Release {
            self.spaced = Some(now);
        }
        match (self.space?, kind) {
            (Space::Held, KeyEventKind::Release) => {
                self.begun = None;
                let is_meant = since(Some(begun?)) >= SHORTEST_HOLD;
                Some(if is_meant { Command::Finish } else { Command::Cancel })
            }
            (_, KeyEventKind::Release) | (Space::Held, KeyEventKind::Repeat) => None,
            (Space::Pressed, _) if is_repeat || since(begun) < FIRST_REPEAT => None,
            (Space::Pressed, _) if doing == Doing::Recording => {
                self.begun = None;
                Some(Command::Finish)
            }
            _ if doing != Doing::Nothing || self.is_leaving => None,
            _ => {
                *lock(&self.shared.choice) = None;
                self.begun = Some(now);
                Some(Command::Announce)
            }
        }
    }

    fn leave(&mut self) -> Action {
        self.is_leaving = true;
        Action::Tell(Command::Leave)
    }
}

/// The state that the thread that reads keys shares with the console.
#[derive(Debug, Default)]
pub struct Shared {
    /// The console is closing, so the thread should stop.
    is_over: AtomicBool,
    /// A recording is in progress: Enter does nothing.
    is_recording: AtomicBool,
    /// Somebody is speaking live: Enter ends it.
    is_live: AtomicBool,
    /// A clip is being reviewed before it is sent: Enter sends it.
    is_reviewing: AtomicBool,
    /// The operator has asked to leave.
    pub is_leaving: AtomicBool,
    /// The operator wants to leave without waiting.
    leaves_at_once: AtomicBool,
    /// Another program has the terminal: the thread reads nothing.
    is_paused: AtomicBool,
    /// Locked while the thread waits for a key or reads it.
    reading: Mutex<()>,
    /// The zones that the digits select, from 1.
    zones: Mutex<Vec<String>>,
    /// The list of sounds, while it is open.
    choice: Mutex<Option<Choice>>,
}

impl Shared {
    /// Passes what is in progress to the keys, and the open list of sounds to the view. Returns whether that changes
    /// the view.
    pub fn follow(&self, view: &mut View) -> bool {
        self.is_recording.store(view.recording.is_some(), Ordering::SeqCst);
        self.is_live.store(view.recording.as_ref().is_some_and(|it| it.is_live), Ordering::SeqCst);
        self.is_reviewing.store(view.review.is_some(), Ordering::SeqCst);
        lock(&self.zones).clone_from(&view.zones);
        let choice = lock(&self.choice).clone();
        let is_news = choice != view.choice;
        view.choice = choice;
        is_news
    }

    fn doing(&self) -> Doing {
        if self.is_reviewing.load(Ordering::SeqCst) {
            Doing::Reviewing
        } else if self.is_live.load(Ordering::SeqCst) {
            Doing::Live
        } else if self.is_recording.load(Ordering::SeqCst) {
            Doing::Recording
        } else {
            Doing::Nothing
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that reads keys. Dropping this stops it, or abandons it if it hangs in the terminal.
#[derive(Debug)]
pub struct Keys {
    /// The state that it shares with the console.
    pub shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Keys {
    /// Starts to read keys. The terminal must already be in raw mode.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        commands: mpsc::Sender<Command>,
        space: Option<Space>,
        sounds: Option<Sounds>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let keyboard = Keyboard { space, sounds, shared: Arc::clone(&shared), ..Keyboard::default() };
        let thread =
            thread::Builder::new().name(THREAD.into()).spawn(move || read_keys(&commands, keyboard))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Stops reading. When this returns, no read is in progress.
    pub fn pause(&self) {
        self.shared.is_paused.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.reading));
    }

    /// Resumes reading.
    pub fn resume(&self) {
        self.shared.is_paused.store(false, Ordering::SeqCst);
    }

    /// Exits if the operator wants to leave without waiting. The console calls this while it is not drawing.
    pub fn leave_if_asked(&self) {
        if self.shared.leaves_at_once.load(Ordering::SeqCst) {
            super::leave_at_once();
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else { return };
        let give_up = Instant::now() + AT_ONCE;
        while !thread.is_finished() && Instant::now() < give_up {
            thread::sleep(POLL / 10);
        }
    }
}

fn read_keys(commands: &mpsc::Sender<Command>, mut keyboard: Keyboard) {
    let shared = Arc::clone(&keyboard.shared);
    // Leave must not get lost in a full queue; other commands may, as if the key had not been pressed.
    let mut owes_leave = false;
    while !shared.is_over.load(Ordering::SeqCst) {
        if owes_leave {
            owes_leave = matches!(commands.try_send(Command::Leave), Err(mpsc::error::TrySendError::Full(_)));
        }
        if shared.is_paused.load(Ordering::SeqCst) {
            thread::sleep(POLL);
            continue;
        }
        let reading = lock(&shared.reading);
        let read = next_event();
        drop(reading);
        let key = match read {
            Ok(Some(event::Event::Key(key))) => Some(key),
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::error!("the terminal is gone, so bullhorn leaves: {error}");
                let _ = commands.blocking_send(Command::Leave);
                return;
            }
        };
        let now = Instant::now();
        let pressed = key.filter(|key| key.kind == KeyEventKind::Press).map(|key| key.code);
        let settled = keyboard.settle(pressed, shared.doing(), now);
        let meant = key.and_then(|key| keyboard.press(key, shared.doing(), now));
        for action in settled.into_iter().chain(meant) {
            match action {
                Action::Tell(Command::Leave) => {
                    owes_leave = true;
                    shared.is_leaving.store(true, Ordering::SeqCst);
                }
                Action::Tell(command) => {
                    let _ = commands.try_send(command);
                }
                Action::Suspend => jobs::ask_to_stop(),
                Action::LeaveAtOnce => {
                    shared.leaves_at_once.store(true, Ordering::SeqCst);
                    thread::sleep(AT_ONCE);
                    super::leave_at_once();
                }
            }
        }
    }
}

/// The key without regard to Shift.
fn letter(code: KeyCode) -> KeyCode {
    match code {
        KeyCode::Char(letter) => KeyCode::Char(letter.to_ascii_lowercase()),
        other => other,
    }
}

/// The next event of the terminal, if one comes soon.
fn next_event() -> io::Result<Option<event::Event>> {
    // If the terminal is gone, crossterm reads it again and again and never returns.
    terminal_says(Duration::ZERO)?;
    if !event::poll(Duration::ZERO)? {
        terminal_says(POLL)?;
        return Ok(None);
    }
    event::read().map(Some)
}

/// Waits until the terminal has input, for at most `timeout`.
///
/// # Errors
/// The terminal is gone.
fn terminal_says(timeout: Duration) -> io::Result<()> {
    let stdin = io::stdin();
    let mut terminal = [PollFd::new(&stdin, PollFlags::IN)];
    let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
    rustix::event::poll(&mut terminal, Some(&timeout))?;
    let is_gone = terminal[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
    if is_gone { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Starts to read lines from standard input. At a terminal, where Enter may be held, a line within 1.1 s of the last
/// one does not count. The thread ends with the input or the process, because no system can wake a read of standard
/// input.
///
/// # Errors
/// The thread cannot be started.
pub fn start_lines(commands: mpsc::Sender<Command>) -> io::Result<()> {
    thread::Builder::new().name("lines".into()).spawn(move || {
        let mut held = Held::default();
        let is_terminal = io::stdin().is_terminal();
        let is_meant = |now| !is_terminal || held.press((), REPEAT, now) == Press::Counts;
        read_lines(io::stdin().lock(), &commands, is_meant);
    })?;
    Ok(())
}

/// Announces once per line, including a last line without a line end, and then leaves. A line may have any length and
/// contain any bytes. Waits while the announcer is busy.
fn read_lines(
    mut input: impl BufRead,
    commands: &mpsc::Sender<Command>,
    mut is_meant: impl FnMut(Instant) -> bool,
) {
    let mut is_in_line = false;
    loop {
        let block = match input.fill_buf() {
            Ok([]) => break,
            Ok(block) => block,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                // The same as when a terminal is gone; half a line was not meant.
                tracing::error!("cannot read standard input any more, so bullhorn leaves: {error}");
                is_in_line = false;
                break;
            }
        };
        let bytes = block.len();
        let lines = block.iter().filter(|byte| **byte == b'\n').count();
        is_in_line = block.last() != Some(&b'\n');
        for _ in 0..lines {
            if is_meant(Instant::now()) && commands.blocking_send(Command::Announce).is_err() {
                return;
            }
        }
        input.consume(bytes);
    }
    if is_in_line && commands.blocking_send(Command::Announce).is_err() {
        return;
    }
    let _ = commands.blocking_send(Command::Leave);
}

#[cfg(test)]
mod tests;
