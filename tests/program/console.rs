//! The console at a real terminal: what it shows, which keys do what, and what it leaves behind.

use crate::support::hallway::{BULLHORN, Program, STATE, file, start_station, wavs};
use crate::support::pulse::{MOUTH, PulseRig};
use crate::support::terminal::Terminal;
use crate::support::wav::{SPOKEN_HZ, Spec, speech};
use tempfile::TempDir;

/// An announcer at a terminal, a voice that speaks into its microphone, and one station.
struct Desk {
    terminal: Terminal,
    station: Program,
    output: TempDir,
    _voice: crate::support::pulse::Player,
    _rig: PulseRig,
}

/// Starts an announcer at the terminal, and returns the address at the beginning of its history.
fn announce(terminal: &Terminal, options: &str) -> String {
    terminal.type_line(&format!("clear; {BULLHORN} announce --listen 127.0.0.1:0 {options}; echo left=$?"));
    let shown = |screen: &str| -> Option<String> {
        let (_, after) = screen.split_once("listening on ")?;
        after.lines().next().map(|address| address.trim().to_owned())
    };
    shown(&terminal.wait_until("the console", |screen| shown(screen).is_some())).unwrap()
}

impl Desk {
    /// Opens a desk for clips of `seconds` seconds, on a terminal of `columns` columns and `rows` rows.
    fn open(seconds: &str, columns: u16, rows: u16) -> Self {
        let rig = PulseRig::start(1);
        let voice = rig.play(MOUTH, &speech(rig.folder(), 60, SPOKEN_HZ));
        let terminal = Terminal::open(columns, rows, &rig.environment());
        let output = tempfile::tempdir().unwrap();
        let address = announce(&terminal, &format!("--seconds {seconds}"));
        let mut station = start_station(&address, "hall-1", &file(output.path()), &rig.environment());
        station.wait_for("connected");
        terminal.wait_for("hall-1");
        Self { terminal, station, output, _voice: voice, _rig: rig }
    }

    /// Leaves with a key; checks the status, and that the terminal is as it was.
    fn leave(&self, key: &str, status: i32) {
        self.terminal.press(key);
        self.restored(status);
    }

    /// Checks that it left with a status, and that the terminal is as it was.
    fn restored(&self, status: i32) {
        self.terminal.wait_for(&format!("left={status}"));
        assert_eq!(
            self.terminal.state("#{alternate_on} #{cursor_flag}"),
            "0 1",
            "screen and cursor are back"
        );
        self.terminal.type_line("stty -a | tr ' ;' '\\n\\n' | grep -cx -e icanon -e echo -e isig");
        self.terminal.wait_until("cooked input", |screen| screen.lines().any(|line| line.trim() == "3"));
    }
}

/// The time in the countdown, while it is visible.
fn remaining_s(screen: &str) -> Option<f64> {
    screen.lines().find_map(|line| line.split_once("● recording")?.1.split_whitespace().next()?.parse().ok())
}

/// The level on the meter, while it is visible.
fn level_db(screen: &str) -> Option<f64> {
    let line = screen.lines().find(|line| line.contains("recording") && line.trim_end().ends_with("dB"))?;
    line.trim_end().trim_end_matches("dB").split_whitespace().last()?.parse().ok()
}

#[test]
fn enter_announces_and_the_verdict_appears() {
    let mut desk = Desk::open("2", 100, 30);
    desk.terminal.press("Enter");
    // The countdown: both of its seconds are seen, and a level that is not silence.
    desk.terminal.wait_for("recording  1.");
    desk.terminal.wait_until("a level", |screen| level_db(screen).is_some_and(|level| level > -60.0));
    desk.terminal.wait_for("recording  0.");
    // Enter during a recording does nothing.
    desk.terminal.press("Enter");
    desk.terminal.wait_for("1 of 1 stations played it");
    desk.station.wait_for("played");
    desk.leave("q", 0);
    assert_eq!(wavs(desk.output.path()).len(), 1, "one Enter, one clip");
}

#[test]
fn escape_drops_the_recording() {
    let mut desk = Desk::open("3", 100, 30);
    desk.terminal.press("Enter");
    // Late enough that the next Enter is not a held key's repeat.
    desk.terminal.wait_until("half a second", |screen| remaining_s(screen).is_some_and(|left| left < 2.5));
    desk.terminal.press("Escape");
    desk.terminal.wait_until("the recording dropped", |screen| screen.to_lowercase().contains("cancelled"));
    // The next one is recorded and sent; the dropped one never was.
    desk.terminal.press("Enter");
    desk.terminal.wait_for("1 of 1 stations played it");
    desk.station.wait_for("played");
    desk.leave("q", 0);
    assert_eq!(wavs(desk.output.path()).len(), 1);
}

#[test]
fn control_c_leaves_too_and_restores_the_terminal() {
    let desk = Desk::open("2", 100, 30);
    desk.leave("C-c", 0);
}

#[test]
fn two_signals_leave_at_once_and_restore_the_terminal() {
    let desk = Desk::open("5", 100, 30);
    desk.terminal.press("Enter");
    desk.terminal.wait_for("recording");
    let shell = desk.terminal.state("#{pane_pid}");
    let kill = |signal: &str| {
        let status =
            std::process::Command::new("pkill").args([signal, "-P", shell.trim(), "-x", "bullhorn"]).status();
        assert!(status.unwrap().success());
    };
    // The first signal drops a page that is being recorded; a page on its way is waited for.
    desk.terminal.wait_for("1 of 1 playing");
    kill("-TERM");
    kill("-INT");
    desk.restored(130);
}

#[test]
fn a_small_terminal_is_enough() {
    let mut desk = Desk::open("2", 40, 10);
    desk.terminal.press("Enter");
    desk.terminal.wait_for("1 of 1");
    desk.station.wait_for("played");
    desk.terminal.resize(20, 5);
    desk.terminal.resize(120, 40);
    desk.terminal.wait_for("hall-1");
    desk.leave("q", 0);
}

/// A file used as the microphone works at the console too.
#[test]
fn a_file_is_announced_from_the_console() {
    let fixtures = tempfile::tempdir().unwrap();
    let output = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(fixtures.path(), 800);
    let state = tempfile::tempdir().unwrap();
    let environment = [(STATE.to_owned(), state.path().display().to_string())];
    let terminal = Terminal::open(80, 24, &environment);
    let address = announce(&terminal, &format!("--input {}", file(&wav).display()));
    let _station = start_station(&address, "hall-1", &file(output.path()), &environment);
    terminal.wait_for("hall-1");
    terminal.press("Enter");
    terminal.wait_for("1 of 1 stations played it");
    terminal.press("q");
    terminal.wait_for("left=0");
}
