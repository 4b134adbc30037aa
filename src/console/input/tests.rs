#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

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
    read_lines(BufReader::with_capacity(3, Cursor::new(input.to_vec())), &sender, |_| true);
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

/// Repeats at 40 Hz from 0.54 s on: a held key does not end what it started, nor start again what it ended.
#[test]
fn a_held_key_does_one_thing() {
    let (enter, live) = (KeyCode::Enter, KeyCode::Char('l'));
    for (code, doing, after, meant) in [
        (enter, Doing::Live, NOTHING, told(Command::Finish)),
        (live, NOTHING, Doing::Live, told(Command::Live)),
        (live, Doing::Live, NOTHING, told(Command::Finish)),
        (enter, Doing::Reviewing, NOTHING, told(Command::Send)),
        // A clip so short that it is over when the key repeats.
        (enter, NOTHING, NOTHING, ANNOUNCE),
        (KeyCode::Char('e'), NOTHING, NOTHING, told(Command::Emergency)),
        (KeyCode::Char('E'), NOTHING, NOTHING, told(Command::Emergency)),
        (KeyCode::Char('0'), NOTHING, NOTHING, told(Command::Address(None))),
        (KeyCode::Esc, RECORDING, RECORDING, told(Command::Cancel)),
    ] {
        let mut keyboard = Keyboard::default();
        let start = Instant::now();
        assert_eq!(keyboard.press(key(code), doing, start), meant, "{code:?} {doing:?}");
        for ms in (540..5_000).step_by(25).filter(|_| code != KeyCode::Esc) {
            let at = start + Duration::from_millis(ms);
            assert_eq!(keyboard.press(key(code), after, at), None, "{code:?} {doing:?} {ms} ms");
        }
        let again = start + Duration::from_secs(6);
        assert_eq!(keyboard.press(key(code), doing, again), meant, "{code:?} {doing:?}");
    }
}

/// A press soon after another counts when it is followed by no repeat, or by another key.
#[test]
fn a_key_that_is_pressed_again_counts() {
    let mut keyboard = Keyboard::default();
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let (e, enter) = (KeyCode::Char('e'), key(KeyCode::Enter));
    assert_eq!(keyboard.press(key(e), NOTHING, at(0)), told(Command::Emergency));
    assert_eq!(keyboard.press(key(e), NOTHING, at(200)), None);
    assert_eq!(keyboard.settle(None, NOTHING, at(300)), None);
    assert_eq!(keyboard.settle(None, NOTHING, at(400)), told(Command::Emergency));
    assert_eq!(keyboard.press(key(e), NOTHING, at(500)), None);
    assert_eq!(keyboard.settle(Some(KeyCode::Enter), NOTHING, at(510)), told(Command::Emergency));
    assert_eq!(keyboard.press(enter, NOTHING, at(510)), ANNOUNCE);
    // A short clip is recorded, and sent as soon as it is ready.
    assert_eq!(keyboard.press(enter, Doing::Reviewing, at(900)), None);
    assert_eq!(keyboard.settle(None, Doing::Reviewing, at(1_060)), told(Command::Send));
    assert_eq!(keyboard.settle(None, NOTHING, at(2_000)), None);
}

#[test]
fn a_held_f_opens_the_list_of_sounds_and_leaves_it_open() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.wav"), "").unwrap();
    let mut keyboard = Keyboard { sounds: Some(Sounds::open(folder.path()).unwrap()), ..Keyboard::default() };
    let start = Instant::now();
    for ms in std::iter::once(0).chain((540..3_000).step_by(25)) {
        let at = start + Duration::from_millis(ms);
        assert_eq!(keyboard.press(key(KeyCode::Char('f')), NOTHING, at), None);
        assert!(lock(&keyboard.shared.choice).is_some(), "{ms} ms");
    }
}

#[test]
fn ctrl_z_suspends_and_a_plain_z_does_not() {
    let mut keyboard = Keyboard::default();
    let ctrl_z = KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL);
    assert_eq!(keyboard.press(key(KeyCode::Char('z')), NOTHING, Instant::now()), None);
    assert_eq!(Keyboard::default().press(ctrl_z, RECORDING, Instant::now()), Some(Action::Suspend));
}

#[test]
fn lines_that_were_not_meant_do_nothing() {
    let (sender, mut receiver) = mpsc::channel(100);
    let mut seen = 0;
    let every_other = |_| {
        seen += 1;
        seen % 2 == 1
    };
    read_lines(Cursor::new(b"1\n2\n3\n4\n".to_vec()), &sender, every_other);
    drop(sender);
    let all: Vec<Command> = std::iter::from_fn(|| receiver.blocking_recv()).collect();
    assert_eq!(all, [Command::Announce, Command::Announce, Command::Leave]);
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
    // The list is closed: the next Enter speaks, and Esc cancels again.
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
    // Enter does not start speech in this mode, and a short touch is not speech.
    assert_eq!(keyboard.press(key(KeyCode::Enter), NOTHING, later), None);
    assert_eq!(keyboard.press(press, NOTHING, later), ANNOUNCE);
    let touched = later + Duration::from_millis(80);
    assert_eq!(keyboard.press(release, RECORDING, touched), told(Command::Cancel));
    // While a clip is reviewed or sent, Space starts nothing.
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
    // The recording reached its maximum length and is over; the next Space starts a new one.
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
    read_lines(Cursor::new(b"a\nb\n".to_vec()), &sender, |_| true);
}
