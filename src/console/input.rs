//! What the operator asks for: keys at a terminal, lines without one.

use std::io::{BufRead, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::sounds::{Choice, Sounds};
use super::view::{Space, View};
use crate::event::Command;

/// The name of the thread that reads keys.
pub const THREAD: &str = "keys";
/// How long the thread of keys may take to notice that it should end.
const POLL: Duration = Duration::from_millis(100);
/// An Enter this soon after another is a held key's repeat: terminals send at most some 30 a second,
/// and begin with it after 0.25 to 0.7 s, when the recording already runs.
const REPEAT: Duration = Duration::from_millis(300);
/// How long the console may take to leave at once before it is left behind.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A recording of Space that is shorter was not meant, where the terminal tells when it is let go.
const SHORTEST_HOLD: Duration = Duration::from_millis(300);
/// Where it does not, a Space this soon after the one that started is a held key's first repeat.
const FIRST_REPEAT: Duration = Duration::from_secs(1);

/// What a key means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Tell(Command),
    LeaveAtOnce,
}

/// What is going on while a key is pressed.
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
    entered: Option<Instant>,
    /// How Space records, if it does.
    space: Option<Space>,
    /// When it was pressed last, and when the recording that it started began.
    spaced: Option<Instant>,
    begun: Option<Instant>,
    sounds: Option<Sounds>,
    is_leaving: bool,
    shared: Arc<Shared>,
}

impl Keyboard {
    /// What an event of the keyboard means at an instant.
    fn press(&mut self, key: KeyEvent, doing: Doing, now: Instant) -> Option<Action> {
        if key.code == KeyCode::Char(' ') && self.space.is_some() {
            return self.space(key.kind, doing, now).map(Action::Tell);
        }
        if key.kind != KeyEventKind::Press {
            return None;
        }
        if key.code != KeyCode::Enter {
            // A held key's repeats come without another key between them.
            self.entered = None;
        }
        let is_ctrl_c = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
        let is_plain = key.modifiers.difference(KeyModifiers::SHIFT).is_empty();
        match key.code {
            _ if is_ctrl_c && self.is_leaving => Some(Action::LeaveAtOnce),
            _ if is_ctrl_c => Some(self.leave()),
            KeyCode::Char('q' | 'Q') if !self.is_leaving && is_plain => Some(self.leave()),
            KeyCode::Enter => {
                let is_repeat = self.entered.is_some_and(|entered| now.duration_since(entered) < REPEAT);
                self.entered = Some(now);
                if is_repeat || self.is_leaving {
                    return None;
                }
                self.enter(doing).map(Action::Tell)
            }
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
            // What is heard already goes where it goes.
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

    /// What Space means where it records.
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

/// What the thread of keys and the console tell each other.
#[derive(Debug, Default)]
pub struct Shared {
    /// The console ends: so should the thread.
    is_over: AtomicBool,
    /// A recording runs: Enter does nothing.
    is_recording: AtomicBool,
    /// Somebody speaks live: Enter ends that.
    is_live: AtomicBool,
    /// A clip is heard before it is sent: Enter sends it.
    is_reviewing: AtomicBool,
    /// The operator has asked to leave.
    pub is_leaving: AtomicBool,
    /// The operator will not wait.
    leaves_at_once: AtomicBool,
    /// The zones that digits stand for, from 1.
    zones: Mutex<Vec<String>>,
    /// The list of sounds, while it is open.
    choice: Mutex<Option<Choice>>,
}

impl Shared {
    /// Tells the keys what goes on, and the view what the keys did; whether that changes the view.
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

/// The thread that reads keys; dropping ends it.
#[derive(Debug)]
pub struct Keys {
    /// What it and the console tell each other.
    pub shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Keys {
    /// Starts to read keys. The terminal is in raw mode already.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        commands: mpsc::Sender<Command>,
        space: Option<Space>,
        sounds: Option<Sounds>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let keyboard = Keyboard { space, sounds, shared: Arc::clone(&shared), ..Keyboard::default() };
        let thread =
            thread::Builder::new().name(THREAD.into()).spawn(move || read_keys(&commands, keyboard))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Ends the process if the operator will not wait: the console calls it where it does not draw.
    pub fn leave_if_asked(&self) {
        if self.shared.leaves_at_once.load(Ordering::SeqCst) {
            super::leave_at_once();
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_keys(commands: &mpsc::Sender<Command>, mut keyboard: Keyboard) {
    let shared = Arc::clone(&keyboard.shared);
    // Leaving must not get lost in a full queue; the others may, as if the key had not been pressed.
    let mut owes_leave = false;
    while !shared.is_over.load(Ordering::SeqCst) {
        if owes_leave {
            owes_leave = matches!(commands.try_send(Command::Leave), Err(mpsc::error::TrySendError::Full(_)));
        }
        let key = match event::poll(POLL)
            .and_then(|is_there| if is_there { event::read().map(Some) } else { Ok(None) })
        {
            Ok(Some(event::Event::Key(key))) => key,
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::error!("cannot read keys any more, so bullhorn leaves: {error}");
                let _ = commands.blocking_send(Command::Leave);
                return;
            }
        };
        match keyboard.press(key, shared.doing(), Instant::now()) {
            Some(Action::Tell(Command::Leave)) => {
                owes_leave = true;
                shared.is_leaving.store(true, Ordering::SeqCst);
            }
            Some(Action::Tell(command)) => {
                let _ = commands.try_send(command);
            }
            Some(Action::LeaveAtOnce) => {
                shared.leaves_at_once.store(true, Ordering::SeqCst);
                thread::sleep(AT_ONCE);
                super::leave_at_once();
            }
            None => {}
        }
    }
}

/// Starts to read lines of standard input. The thread ends with the input or the process: no system
/// can wake a read of standard input.
///
/// # Errors
/// The system gives no thread.
pub fn start_lines(commands: mpsc::Sender<Command>) -> std::io::Result<()> {
    thread::Builder::new()
        .name("lines".into())
        .spawn(move || read_lines(std::io::stdin().lock(), &commands))?;
    Ok(())
}

/// Announces once a line, the last without a line end too, then leaves. A line may be of any length
/// and any bytes. Waits while the announcer is busy.
fn read_lines(mut input: impl BufRead, commands: &mpsc::Sender<Command>) {
    let mut is_in_line = false;
    loop {
        let block = match input.fill_buf() {
            Ok([]) => break,
            Ok(block) => block,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::error!("cannot read standard input: {error}");
                break;
            }
        };
        let bytes = block.len();
        let lines = block.iter().filter(|byte| **byte == b'\n').count();
        is_in_line = block.last() != Some(&b'\n');
        for _ in 0..lines {
            if commands.blocking_send(Command::Announce).is_err() {
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
