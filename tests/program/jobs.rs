//! Job control: a console that is stopped and continued by its shell is fully restored.

use std::process::Command;

use crate::support::hallway::{BULLHORN, Program, STATE, file, start_station};
use crate::support::terminal::Terminal;
use crate::support::wav::Spec;
use tempfile::TempDir;

/// An announcer of a short sound at a terminal, and one station.
struct Desk {
    terminal: Terminal,
    station: Program,
    shell: String,
    _folder: TempDir,
}

impl Desk {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wav = Spec::mono(16, 8_000).write(folder.path(), 800);
        let environment = [(STATE.to_owned(), folder.path().join("state").display().to_string())];
        let terminal = Terminal::open(100, 30, &environment);
        // A shell that restores the terminal after a job that could not do so (dash does not).
        terminal.type_line("PS1='$ ' exec bash --norc --noprofile");
        let command = format!("{BULLHORN} announce --listen 127.0.0.1:0 --file {}", wav.display());
        terminal.type_line(&format!("clear; {command}"));
        let address =
            |screen: &str| Some(screen.split_once("listening on ")?.1.lines().next()?.trim().to_owned());
        let screen = terminal.wait_until("the console", |screen| address(screen).is_some());
        let output = file(&folder.path().join("out"));
        let station = start_station(&address(&screen).unwrap(), "hall-1", &output, &environment);
        terminal.wait_for("hall-1");
        let shell = terminal.state("#{pane_pid}");
        Self { terminal, station, shell, _folder: folder }
    }

    fn signal(&self, name: &str) {
        let arguments = [&format!("-{name}"), "-P", &self.shell, "-x", "bullhorn"];
        assert!(Command::new("pkill").args(arguments).status().unwrap().success());
    }

    /// Waits until the shell has the terminal in the state that a shell needs, and nothing of the panel is left.
    fn shell_has_it(&self) {
        let told = |screen: &str| screen.contains("Stopped");
        let screen = self.terminal.wait_until("the shell's word", told);
        assert!(!screen.contains("q leaves"), "{screen}");
        self.terminal.type_line("clear; stty -a | tr ' ;' '\\n\\n' | grep -cx -e icanon -e echo -e isig");
        self.terminal.wait_until("cooked input", |screen| screen.lines().any(|line| line.trim() == "3"));
    }

    /// Brings it back to the foreground, and checks that panel and keys work.
    fn whole_again(&mut self) {
        self.terminal.type_line("clear; fg");
        self.works();
    }

    fn works(&mut self) {
        self.terminal.wait_for("q leaves");
        // Keys arrive one by one, without Enter, and are not echoed.
        self.terminal.press("e");
        self.terminal.wait_for("priority emergency");
        self.terminal.press("Enter");
        self.station.wait_for("played");
        let screen = self.terminal.wait_for("1 of 1 stations played it");
        assert_eq!(screen.matches("q leaves").count(), 1, "{screen}");
    }
}

#[test]
fn control_z_gives_the_terminal_to_the_shell_and_fg_takes_it_again() {
    let mut desk = Desk::open();
    for _ in 0..2 {
        desk.terminal.press("C-z");
        desk.shell_has_it();
        desk.whole_again();
    }
}

#[test]
fn stopped_from_outside_and_continued_the_console_is_whole_again() {
    let mut desk = Desk::open();
    desk.signal("TSTP");
    desk.shell_has_it();
    desk.whole_again();
    // No program can prepare for this signal: the shell restores the terminal itself.
    desk.signal("STOP");
    desk.terminal.wait_for("Stopped");
    desk.whole_again();
    desk.signal("CONT");
    desk.works();
}

/// In the background it continues its work, and leaves the terminal and its keys to the shell.
#[test]
fn in_the_background_it_works_and_does_not_draw() {
    let mut desk = Desk::open();
    desk.terminal.press("C-z");
    desk.shell_has_it();
    desk.terminal.type_line("clear; bg");
    desk.terminal.type_line("clear; echo still a $((6 * 7)) shell; jobs");
    let screen = desk.terminal.wait_for("still a 42 shell");
    assert!(!screen.contains("q leaves"), "{screen}");
    desk.terminal.wait_for("Running");
    desk.whole_again();
}

/// Without job control in a shell, nobody could continue it.
#[test]
fn control_z_does_nothing_where_nobody_could_continue_it() {
    let desk = Desk::open();
    desk.terminal.press("q");
    desk.terminal.wait_until("the prompt", |screen| !screen.contains("q leaves"));
    let folder = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(folder.path(), 800);
    // As with ssh: the program leads its own session.
    let command = format!("{BULLHORN} announce --open --listen 127.0.0.1:0 --file {}", wav.display());
    desk.terminal.type_line(&format!("clear; exec {command}"));
    desk.terminal.wait_for("q leaves");
    desk.terminal.press("C-z");
    desk.terminal.press("e");
    desk.terminal.wait_for("priority emergency");
}
