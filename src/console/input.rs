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
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::io::{BufReader, Cursor};

    use super::*;

    const ANNOUNCE: Option<Action> = Some(Action::Tell(Command::Announce));
    const LEAVE: Option<Action> = Some(Action::Tell(Command::Leave));
    const NOTHING: Doing = Doing::Nothing;
    const RECORDING: Doing = Doing::Recording;

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
        assert_eq!(keyboard.press(key(KeyCode::Enter), NOTHING, now), ANNOUNCE);
        assert_eq!(keyboard.press(key(KeyCode::Esc), RECORDING, now), Some(Action::Tell(Command::Cancel)));
        assert_eq!(keyboard.press(key(KeyCode::Char('x')), NOTHING, now), None);
        assert_eq!(keyboard.press(key(KeyCode::Char('c')), NOTHING, now), None);
        assert_eq!(keyboard.press(key(KeyCode::Char('q')), NOTHING, now), LEAVE);
        assert_eq!(keyboard.press(key(KeyCode::Char('q')), NOTHING, now), None);
        assert_eq!(keyboard.press(key(KeyCode::Enter), NOTHING, now + Duration::from_secs(9)), None);
        assert_eq!(keyboard.press(ctrl_c(), NOTHING, now), Some(Action::LeaveAtOnce));
    }

    #[test]
    fn the_first_ctrl_c_asks_and_the_second_does_not() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.press(ctrl_c(), RECORDING, Instant::now()), LEAVE);
        assert_eq!(keyboard.press(ctrl_c(), RECORDING, Instant::now()), Some(Action::LeaveAtOnce));
    }

    #[test]
    fn a_held_enter_announces_once() {
        let mut keyboard = Keyboard::default();
        let start = Instant::now();
        assert_eq!(keyboard.press(key(KeyCode::Enter), NOTHING, start), ANNOUNCE);
        let mut now = start + Duration::from_millis(500);
        for _ in 0..300 {
            let doing = if now < start + Duration::from_secs(5) { RECORDING } else { NOTHING };
            assert_eq!(keyboard.press(key(KeyCode::Enter), doing, now), None);
            now += Duration::from_millis(33);
        }
        assert_eq!(keyboard.press(key(KeyCode::Enter), NOTHING, now + Duration::from_secs(1)), ANNOUNCE);
    }

    #[test]
    fn releases_and_repeats_are_ignored() {
        let mut keyboard = Keyboard::default();
        for kind in [KeyEventKind::Release, KeyEventKind::Repeat] {
            let enter = KeyEvent::new_with_kind(KeyCode::Enter, KeyModifiers::NONE, kind);
            assert_eq!(keyboard.press(enter, NOTHING, Instant::now()), None);
        }
    }

    fn told(command: Command) -> Option<Action> {
        Some(Action::Tell(command))
    }

    #[test]
    fn a_clip_that_is_heard_first_is_sent_with_enter_or_dropped() {
        let mut keyboard = Keyboard::default();
        let now = Instant::now();
        assert_eq!(keyboard.press(key(KeyCode::Enter), Doing::Reviewing, now), told(Command::Send));
        assert_eq!(keyboard.press(key(KeyCode::Esc), Doing::Reviewing, now), told(Command::Cancel));
    }

    #[test]
    fn digits_speak_to_zones() {
        let mut keyboard = Keyboard::default();
        *lock(&keyboard.shared.zones) = vec!["east".into(), "gym".into()];
        let mut press = |c| keyboard.press(key(KeyCode::Char(c)), NOTHING, Instant::now());
        assert_eq!(press('2'), told(Command::Address(Some("gym".into()))));
        assert_eq!(press('0'), told(Command::Address(None)));
        assert_eq!(press('3'), None);
    }

    #[test]
    fn a_sound_is_chosen_with_arrows_and_sent_with_enter() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.wav", "b.wav"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let sounds = Some(Sounds::open(folder.path()).unwrap());
        let mut keyboard = Keyboard { sounds, ..Keyboard::default() };
        let mut press = |code| keyboard.press(key(code), NOTHING, Instant::now());
        assert_eq!(
            [press(KeyCode::Char('f')), press(KeyCode::Down), press(KeyCode::Char('1'))],
            [None, None, None]
        );
        assert_eq!(press(KeyCode::Enter), told(Command::AnnounceFile(folder.path().join("b.wav"))));
        // It is closed: the next Enter speaks, and Esc cancels again.
        assert_eq!(press(KeyCode::Esc), told(Command::Cancel));
        assert_eq!(press(KeyCode::Enter), ANNOUNCE);
        assert_eq!([press(KeyCode::Char('f')), press(KeyCode::Esc)], [None, None]);
        assert_eq!(press(KeyCode::Esc), told(Command::Cancel));
        assert_eq!(Keyboard::default().press(key(KeyCode::Char('f')), NOTHING, Instant::now()), None);
    }

    fn space(kind: KeyEventKind) -> KeyEvent {
        KeyEvent::new_with_kind(KeyCode::Char(' '), KeyModifiers::NONE, kind)
    }

    #[test]
    fn held_space_records_until_it_is_let_go() {
        let mut keyboard = Keyboard { space: Some(Space::Held), ..Keyboard::default() };
        let start = Instant::now();
        let (press, repeat, release) =
            (space(KeyEventKind::Press), space(KeyEventKind::Repeat), space(KeyEventKind::Release));
        assert_eq!(keyboard.press(press, NOTHING, start), ANNOUNCE);
        for ms in [500, 533, 566] {
            assert_eq!(keyboard.press(repeat, RECORDING, start + Duration::from_millis(ms)), None);
        }
        let later = start + Duration::from_secs(3);
        assert_eq!(keyboard.press(release, RECORDING, later), told(Command::Finish));
        assert_eq!(keyboard.press(release, NOTHING, later), None);
        // Enter is not how one speaks here, and a touch is no word.
        assert_eq!(keyboard.press(key(KeyCode::Enter), NOTHING, later), None);
        assert_eq!(keyboard.press(press, NOTHING, later), ANNOUNCE);
        let touched = later + Duration::from_millis(80);
        assert_eq!(keyboard.press(release, RECORDING, touched), told(Command::Cancel));
        // While a clip is heard or sent, Space starts nothing.
        assert_eq!(keyboard.press(press, Doing::Reviewing, touched), None);
        assert_eq!(keyboard.press(release, Doing::Reviewing, touched), None);
    }

    #[test]
    fn pressed_space_starts_and_ends_and_a_held_one_does_not_end_itself() {
        let mut keyboard = Keyboard { space: Some(Space::Pressed), ..Keyboard::default() };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let press = space(KeyEventKind::Press);
        assert_eq!(keyboard.press(press, NOTHING, start), ANNOUNCE);
        // A held key repeats after half a second.
        for ms in (500..3_000).step_by(33) {
            assert_eq!(keyboard.press(press, RECORDING, at(ms)), None, "{ms}");
        }
        assert_eq!(keyboard.press(press, RECORDING, at(4_000)), told(Command::Finish));
        for ms in (4_033..4_500).step_by(33) {
            assert_eq!(keyboard.press(press, NOTHING, at(ms)), None, "{ms}");
        }
        assert_eq!(keyboard.press(press, NOTHING, at(6_000)), ANNOUNCE);
        // It reached its longest and is over; the next Space starts anew.
        assert_eq!(keyboard.press(press, NOTHING, at(70_000)), ANNOUNCE);
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
