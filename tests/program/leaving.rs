//! Leaving: a running announcement is finished or reported, the status is right, and nobody has to wait.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::hallway::{Hallway, file, wavs};
use crate::support::wav::Spec;

/// Names the part that this program plays when it runs itself.
const PART: &str = "BULLHORN_TEST_PART";

/// One announcer, one station, and a page of two seconds that is playing.
fn playing(folder: &std::path::Path) -> Hallway {
    let wav = Spec::mono(16, 8_000).write(folder, 16_000);
    let mut hallway = Hallway::plan().says(&wav).station("hall-1", file(&folder.join("out"))).open();
    hallway.announcer.enter();
    hallway.announcer.wait_for("playing");
    hallway
}

#[test]
fn told_to_leave_the_announcer_finishes_the_page_that_runs() {
    for signal in ["TERM", "INT"] {
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
    // Two signals of a kind that come together count as one.
    hallway.announcer.signal("TERM");
    assert_eq!(hallway.announcer.exit_code(), 130);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn a_station_told_to_leave_reports_what_it_breaks_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut hallway = playing(folder.path());
    hallway.stations[0].signal("TERM");
    assert_eq!(hallway.stations[0].exit_code(), 0);
    let failed = hallway.announcer.wait_for("failed");
    assert_eq!((&failed["station"], &failed["outcome"]), (&"hall-1".into(), &"interrupted".into()));
    assert_eq!(hallway.announcer.wait_for("done")["played"], 0);
    hallway.announcer.end_input();
    assert_eq!(hallway.announcer.exit_code(), 1, "a page that was not heard everywhere shows in the status");
    assert!(wavs(&folder.path().join("out")).is_empty());
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
