//! Leaving: a running announcement is finished or reported, the status is right, and nobody has to wait.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::DEADLINE;
use crate::support::hallway::{BULLHORN, Hallway, Program, STATE, file, start_station, wavs};
use crate::support::terminal::Terminal;
use crate::support::wav::Spec;

/// Names the part that this test program plays when it runs itself.
const PART: &str = "BULLHORN_TEST_PART";

/// One announcer, one station, and a page of two seconds that is playing.
fn playing(folder: &Path) -> Hallway {
    let wav = Spec::mono(16, 8_000).write(folder, 16_000);
    let mut hallway = Hallway::plan().says(&wav).station("hall-1", file(&folder.join("out"))).open();
    hallway.announcer.enter();
    hallway.announcer.wait_for("playing");
    hallway
}

#[test]
fn told_to_leave_the_announcer_finishes_the_page_that_runs() {
    for signal in ["TERM", "INT", "HUP"] {
        let folder = tempfile::tempdir().unwrap();
        let mut hallway = playing(folder.path());
        hallway.announcer.signal(signal);
        assert_eq!(hallway.announcer.wait_for("done")["played"], 1, "{signal}");
        assert_eq!(hallway.announcer.exit_code(), 0, "{signal}");
        assert_eq!(wavs(&folder.path().join("out")).len(), 1);
    }
}

#[test]
fn told_twice_it_leaves_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut hallway = playing(folder.path());
    let started = Instant::now();
    hallway.announcer.signal("INT");
    // Two signals of the same kind that arrive together count as one.
    hallway.announcer.signal("TERM");
    assert_eq!(hallway.announcer.exit_code(), 130);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn a_station_told_to_leave_reports_what_it_breaks_off() {
    for signal in ["TERM", "HUP"] {
        a_station_told_by(signal);
    }
}

fn a_station_told_by(signal: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut hallway = playing(folder.path());
    hallway.stations[0].signal(signal);
    assert_eq!(hallway.stations[0].exit_code(), 0);
    let failed = hallway.announcer.wait_for("failed");
    assert_eq!((&failed["station"], &failed["outcome"]), (&"hall-1".into(), &"interrupted".into()));
    assert_eq!(hallway.announcer.wait_for("done")["played"], 0);
    hallway.announcer.end_input();
    assert_eq!(hallway.announcer.exit_code(), 1, "a page that was not heard everywhere shows in the status");
    assert!(wavs(&folder.path().join("out")).is_empty());
}

/// After each page a station makes a new connection, which might be only half made when the announcer leaves.
#[test]
fn a_station_that_has_just_played_is_told_that_the_announcer_leaves() {
    for _ in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let wav = Spec::mono(16, 8_000).write(folder.path(), 800);
        let mut hallway =
            Hallway::plan().says(&wav).station("hall-1", file(&folder.path().join("out"))).open();
        hallway.announcer.enter();
        hallway.announcer.wait_for("done");
        hallway.announcer.signal("TERM");
        let waiting = hallway.stations[0].wait_for("waiting");
        let reason = waiting["reason"].as_str().unwrap();
        assert!(!reason.contains("invite"), "{reason}");
        let is_told = ["is leaving", "no announcer listens there", "the connection"].iter();
        assert!(is_told.clone().any(|words| reason.contains(words)), "{reason}");
    }
}

/// A shell and the system both send SIGHUP when a terminal is lost: it may come several times, and after another signal.
#[test]
fn a_hangup_never_leaves_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut hallway = playing(folder.path());
    for signal in ["HUP", "HUP", "TERM", "HUP"] {
        hallway.announcer.signal(signal);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(hallway.announcer.wait_for("done")["played"], 1);
    assert_eq!(hallway.announcer.exit_code(), 0);
}

#[test]
fn a_hangup_lets_the_demo_finish_its_page() {
    let mut demo = Program::start("demo", ["demo"], &[]);
    demo.wait_for("playing");
    demo.signal("HUP");
    assert_eq!(demo.wait_for("done")["played"], 2);
    assert_eq!(demo.exit_code(), 0);
}

/// `nohup` makes its program ignore SIGHUP, and that must not change.
#[test]
fn who_is_to_outlive_a_hangup_does() {
    let folder = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(folder.path(), 800);
    let mut nohup = Command::new("nohup");
    nohup.args([BULLHORN, "announce", "--listen", "127.0.0.1:0", "--events", "json", "--file"]).arg(&wav);
    let mut announcer = Program::start_command("announcer", nohup, &[]);
    announcer.wait_for("listening");
    announcer.signal("HUP");
    announcer.enter();
    assert_eq!(announcer.wait_for("done")["expected"], 0);
    announcer.signal("TERM");
    announcer.exit_code();
}

/// The window is closed, or the connection to it is lost, in the middle of a page.
#[test]
fn without_its_terminal_the_announcer_finishes_the_page_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(folder.path(), 16_000);
    let environment = [(STATE.to_owned(), folder.path().join("state").display().to_string())];
    let terminal = Terminal::open(100, 30, &environment);
    let archive = folder.path().join("archive");
    let (wav, archived) = (wav.display(), archive.display());
    terminal.type_line(&format!(
        "clear; {BULLHORN} announce --listen 127.0.0.1:0 --file {wav} --archive {archived}; echo left=$?"
    ));
    let address =
        |screen: &str| Some(screen.split_once("listening on ")?.1.lines().next()?.trim().to_owned());
    let screen = terminal.wait_until("the console", |screen| address(screen).is_some());
    let output = folder.path().join("out");
    let mut station = start_station(&address(&screen).unwrap(), "hall-1", &file(&output), &environment);
    station.wait_for("connected");
    terminal.wait_for("hall-1");
    let shell = terminal.state("#{pane_pid}");
    let children = || Command::new("pgrep").args(["-P", &shell, "-x", "bullhorn"]).output().unwrap().stdout;
    let bullhorn = String::from_utf8(children()).unwrap().trim().to_owned();
    assert!(!bullhorn.is_empty());
    terminal.press("Enter");
    station.wait_for("playing");
    drop(terminal);
    station.wait_for("played");
    // It has exited, and its last outcome is in the archive.
    let give_up = Instant::now() + DEADLINE;
    while Path::new("/proc").join(&bullhorn).join("exe").exists() {
        assert!(Instant::now() < give_up, "it does not leave without its terminal");
        std::thread::sleep(Duration::from_millis(20));
    }
    let logs = std::fs::read_dir(&archive).unwrap().map(|entry| entry.unwrap().path());
    let log = logs.into_iter().find(|path| path.extension().is_some_and(|it| it == "jsonl")).unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.lines().any(|line| line.contains("\"outcome\"") && line.contains("played")), "{log}");
}

#[test]
fn a_page_nobody_came_back_for_is_reported_before_leaving() {
    let folder = tempfile::tempdir().unwrap();
    let mut hallway = playing(folder.path());
    hallway.stations[0].kill();
    hallway.announcer.signal("TERM");
    let done = hallway.announcer.wait_for("done");
    assert_eq!((&done["played"], &done["expected"]), (&0.into(), &1.into()));
    assert_eq!(hallway.announcer.exit_code(), 1);
}

#[test]
fn a_panic_in_a_task_ends_the_process_with_a_report() {
    if std::env::var_os(PART).is_some() {
        bullhorn::end_on_panic();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(async { panic!("a fault of our own") });
            std::future::pending::<()>().await;
        });
    }
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leaving::a_panic_in_a_task_ends_the_process_with_a_report", "--nocapture"])
        .env(PART, "1")
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(bullhorn::PANICKED));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("a fault of our own") && said.contains("leaving.rs"), "{said}");
}
