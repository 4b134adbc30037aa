//! What the operator asks for: keys at a terminal, lines without one.

use std::io::{BufRead, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

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

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tell(Command),
    LeaveAtOnce,
}

/// Turns key presses into actions.
#[derive(Debug, Default)]
struct Keyboard {
    entered: Option<Instant>,
    is_leaving: bool,
}

impl Keyboard {
    /// What an event of the keyboard means at an instant, while a recording runs or not.
    fn press(&mut self, key: KeyEvent, is_recording: bool, now: Instant) -> Option<Action> {
        if key.kind != KeyEventKind::Press {
            return None;
        }
        if key.code != KeyCode::Enter {
            // A held key's repeats come without another key between them.
            self.entered = None;
        }
        let is_ctrl_c = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
        match key.code {
            _ if is_ctrl_c && self.is_leaving => Some(Action::LeaveAtOnce),
            _ if is_ctrl_c => Some(self.leave()),
            KeyCode::Char('q' | 'Q')
                if !self.is_leaving && key.modifiers.difference(KeyModifiers::SHIFT).is_empty() =>
            {
                Some(self.leave())
            }
            KeyCode::Esc => Some(Action::Tell(Command::Cancel)),
            KeyCode::Enter => {
                let is_repeat = self.entered.is_some_and(|entered| now.duration_since(entered) < REPEAT);
                self.entered = Some(now);
                let announces = !is_repeat && !is_recording && !self.is_leaving;
                announces.then_some(Action::Tell(Command::Announce))
            }
            _ => None,
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
    pub is_recording: AtomicBool,
    /// The operator has asked to leave.
    pub is_leaving: AtomicBool,
    /// The operator will not wait.
    leaves_at_once: AtomicBool,
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
    pub fn start(commands: mpsc::Sender<Command>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name(THREAD.into()).spawn(move || read_keys(&commands, &theirs))?;
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

fn read_keys(commands: &mpsc::Sender<Command>, shared: &Shared) {
    let mut keyboard = Keyboard::default();
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
        match keyboard.press(key, shared.is_recording.load(Ordering::SeqCst), Instant::now()) {
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
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::io::{BufReader, Cursor};

    use super::*;

    const ANNOUNCE: Option<Action> = Some(Action::Tell(Command::Announce));
    const LEAVE: Option<Action> = Some(Action::Tell(Command::Leave));

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    fn ctrl_c() -> KeyEvent {
        KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)
    }

    fn commands_of(input: &[u8]) -> Vec<Command> {
        let (sender, mut receiver) = mpsc::channel(100);
        read_lines(BufReader::with_capacity(3, Cursor::new(input.to_vec())), &sender);
        drop(sender);
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    #[test]
    fn keys_mean_what_the_help_says() {
        let mut keyboard = Keyboard::default();
        let now = Instant::now();
        assert_eq!(keyboard.press(key(KeyCode::Enter), false, now), ANNOUNCE);
        assert_eq!(keyboard.press(key(KeyCode::Esc), true, now), Some(Action::Tell(Command::Cancel)));
        assert_eq!(keyboard.press(key(KeyCode::Char('x')), false, now), None);
        assert_eq!(keyboard.press(key(KeyCode::Char('c')), false, now), None);
        assert_eq!(keyboard.press(key(KeyCode::Char('q')), false, now), LEAVE);
        assert_eq!(keyboard.press(key(KeyCode::Char('q')), false, now), None);
        assert_eq!(keyboard.press(key(KeyCode::Enter), false, now + Duration::from_secs(9)), None);
        assert_eq!(keyboard.press(ctrl_c(), false, now), Some(Action::LeaveAtOnce));
    }

    #[test]
    fn the_first_ctrl_c_asks_and_the_second_does_not() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.press(ctrl_c(), true, Instant::now()), LEAVE);
        assert_eq!(keyboard.press(ctrl_c(), true, Instant::now()), Some(Action::LeaveAtOnce));
    }

    #[test]
    fn a_held_enter_announces_once() {
        let mut keyboard = Keyboard::default();
        let start = Instant::now();
        assert_eq!(keyboard.press(key(KeyCode::Enter), false, start), ANNOUNCE);
        let mut now = start + Duration::from_millis(500);
        for _ in 0..300 {
            let is_recording = now < start + Duration::from_secs(5);
            assert_eq!(keyboard.press(key(KeyCode::Enter), is_recording, now), None);
            now += Duration::from_millis(33);
        }
        assert_eq!(keyboard.press(key(KeyCode::Enter), false, now + Duration::from_secs(1)), ANNOUNCE);
    }

    #[test]
    fn releases_and_repeats_are_ignored() {
        let mut keyboard = Keyboard::default();
        for kind in [KeyEventKind::Release, KeyEventKind::Repeat] {
            let enter = KeyEvent::new_with_kind(KeyCode::Enter, KeyModifiers::NONE, kind);
            assert_eq!(keyboard.press(enter, false, Instant::now()), None);
        }
    }

    #[test]
    fn every_line_announces_once_and_the_end_leaves() {
        use Command::{Announce, Leave};
        assert_eq!(commands_of(b""), [Leave]);
        assert_eq!(commands_of(b"\n"), [Announce, Leave]);
        assert_eq!(commands_of(b"hello\n\nworld\n"), [Announce, Announce, Announce, Leave]);
        assert_eq!(commands_of(b"no end"), [Announce, Leave]);
        assert_eq!(commands_of(b"\xff\xfe\0\n\xff"), [Announce, Announce, Leave]);
    }

    #[test]
    fn reading_ends_with_the_announcer() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        read_lines(Cursor::new(b"a\nb\n".to_vec()), &sender);
    }
}
