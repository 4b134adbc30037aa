//! A full disk and a read-only one, under everything that is written: the fault is reported, and no page is stopped.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::hallway::{Environment, Program, STATE, file, wavs};
use crate::support::small_disk::SmallDisk;
use crate::support::wav::Spec;
use serde_json::Value;
use tempfile::TempDir;

/// How a full disk and a read-only one are reported; in lower case.
const FULL: &[&str] = &["disk is full", "no space left"];
const READ_ONLY: &[&str] = &["read-only"];

/// An announcer and a station whose state folder, outbox and archives are on a small disk.
struct Building {
    disk: SmallDisk,
    home: TempDir,
    wav: PathBuf,
    environment: Environment,
    address: String,
    announcer: Program,
    hall: Program,
}

impl Building {
    fn open() -> Self {
        let disk = SmallDisk::new(2_048);
        let home = tempfile::tempdir().unwrap();
        // 0.3 s: three memory pages of the disk.
        let wav = Spec::mono(16, 16_000).write(home.path(), 4_800);
        let environment = vec![(STATE.to_owned(), disk.path().join("state").display().to_string())];
        let mut announcer = announcer(&disk, &wav, "127.0.0.1:0", &environment);
        let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
        let hall = station(&disk, &home, &address, "hall-1", &environment);
        announcer.wait_for_one("station-joined", "station", "hall-1");
        Self { disk, home, wav, environment, address, announcer, hall }
    }

    /// Announces a page that everybody hears, whatever the disk does. Returns the announcer's warnings and the station's.
    fn page(&mut self) -> (Vec<String>, Vec<String>) {
        self.announcer.enter();
        let done = self.announcer.wait_for("done");
        assert_eq!((&done["played"], &done["expected"]), (&1.into(), &1.into()), "{done}");
        self.hall.wait_for("played");
        (warnings(&mut self.announcer), warnings(&mut self.hall))
    }

    fn stop(&mut self) {
        self.announcer.terminate();
        self.announcer.exit_code();
        self.hall.terminate();
        self.hall.exit_code();
    }

    fn start(&mut self) {
        self.announcer = announcer(&self.disk, &self.wav, &self.address, &self.environment);
        self.announcer.wait_for("listening");
        self.hall = station(&self.disk, &self.home, &self.address, "hall-1", &self.environment);
        self.announcer.wait_for_one("station-joined", "station", "hall-1");
    }

    /// Once nothing is being written, each archived file is whole, and each log consists of whole lines. Returns the
    /// number of files.
    fn archives_are_sound(&self) -> usize {
        let give_up = Instant::now() + crate::support::DEADLINE;
        loop {
            match self.look_at_archives() {
                Ok(files) => return files,
                Err(wrong) => assert!(Instant::now() < give_up, "{wrong}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the outbox no longer holds a clip: clips that it removes later would make room on a full disk.
    fn outbox_is_put_away(&self) {
        let give_up = Instant::now() + crate::support::DEADLINE;
        let is_clip = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().path().extension().is_some_and(|kind| kind == "clip")
        };
        while std::fs::read_dir(self.disk.outside("state/bullhorn/outbox")).unwrap().any(is_clip) {
            assert!(Instant::now() < give_up, "the outbox keeps a clip that was played everywhere");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn look_at_archives(&self) -> Result<usize, String> {
        let mut files = 0;
        for folder in ["office", "hall"] {
            let outside = self.disk.outside(folder);
            for entry in std::fs::read_dir(&outside).unwrap() {
                let path = entry.unwrap().path();
                let content = std::fs::read(&path).map_err(|error| error.to_string())?;
                match path.extension().and_then(|kind| kind.to_str()) {
                    Some("jsonl") => {
                        let is_whole = |line: &[u8]| serde_json::from_slice::<Value>(line).is_ok();
                        let lines = content.strip_suffix(b"\n").unwrap_or(&content);
                        let sound = content.is_empty() || lines.split(|byte| *byte == b'\n').all(is_whole);
                        if !sound || !(content.is_empty() || content.ends_with(b"\n")) {
                            return Err(String::from_utf8_lossy(&content).into());
                        }
                    }
                    Some("wav") if content == std::fs::read(&self.wav).unwrap() => files += 1,
                    _ => return Err(format!("{} in the archive", path.display())),
                }
            }
        }
        Ok(files)
    }
}

fn announcer(disk: &SmallDisk, wav: &std::path::Path, listen: &str, environment: &Environment) -> Program {
    let mut command = disk.bullhorn();
    command
        .args(["announce", "--no-level", "--events", "json", "--listen", listen, "--input"])
        .arg(file(wav));
    command.arg("--archive").arg(disk.path().join("office"));
    Program::start_command("the announcer", command, environment)
}

fn station(
    disk: &SmallDisk,
    home: &TempDir,
    address: &str,
    name: &str,
    environment: &Environment,
) -> Program {
    let output: OsString = file(&home.path().join(name));
    let mut command = disk.bullhorn();
    command.args(["speaker", address, "--events", "json", "--name", name, "--output"]).arg(output);
    command.arg("--keep-clips").arg(disk.path().join("hall"));
    Program::start_command(name, command, environment)
}

fn warnings(program: &mut Program) -> Vec<String> {
    let printed = program.printed();
    let messages = printed.iter().filter(|event| event["event"] == "warning");
    messages.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

/// Waits for the warnings about a disk that cannot be written: from the outbox, the archives, and the station's own notes.
fn everything_is_told(building: &mut Building, words: &[&str]) {
    let is_told = |said: &[String], what: &str| {
        said.iter().any(|it| it.contains(what) && words.iter().any(|word| it.to_lowercase().contains(word)))
    };
    let give_up = Instant::now() + crate::support::DEADLINE;
    loop {
        let (office, hall) = (warnings(&mut building.announcer), warnings(&mut building.hall));
        let all = is_told(&office, "not on the disk")
            && is_told(&office, "not archived")
            && is_told(&hall, "write down what was heard")
            && is_told(&hall, "not archived");
        if all {
            return;
        }
        assert!(Instant::now() < give_up, "{office:#?}\n{hall:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_full_disk_is_told_and_stops_no_page_and_is_used_again_when_there_is_room() {
    let mut building = Building::open();
    assert_eq!(building.page(), (vec![], vec![]));
    building.outbox_is_put_away();
    building.disk.fill_but(0);
    building.page();
    everything_is_told(&mut building, FULL);
    // Neither side needs room to start. Files that could not be written whole were removed again.
    building.stop();
    building.disk.fill_but(0);
    building.start();
    let told = building.announcer.wait_for("warning");
    assert!(told["message"].as_str().unwrap().contains("not written down"), "{told}");
    building.page();
    everything_is_told(&mut building, FULL);
    // A new station cannot be stored, and reports why.
    let mut stranger =
        station(&building.disk, &building.home, &building.address, "hall-2", &building.environment);
    assert_ne!(stranger.exit_code(), 0);
    assert!(stranger.complaints().contains("full"), "{}", stranger.complaints());
    building.disk.empty();
    let before = (warnings(&mut building.announcer).len(), warnings(&mut building.hall).len());
    let files = building.archives_are_sound();
    building.page();
    building.announcer.end_input();
    building.announcer.exit_code();
    building.hall.terminate();
    building.hall.exit_code();
    let after = (warnings(&mut building.announcer).len(), warnings(&mut building.hall).len());
    assert_eq!(after, before, "all is well again");
    assert_eq!(building.archives_are_sound(), files + 2);
    let outbox = std::fs::read_dir(building.disk.outside("state/bullhorn/outbox")).unwrap();
    let left: Vec<_> = outbox.map(|entry| entry.unwrap().file_name()).filter(|name| name != "lock").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_read_only_disk_is_told_and_stops_no_page() {
    let mut building = Building::open();
    building.page();
    // Not while a log is open for writing: everything is written once both have left.
    building.stop();
    building.disk.set_read_only(true);
    building.start();
    let told = building.announcer.wait_for("warning");
    assert!(told["message"].as_str().unwrap().contains("read-only"), "{told}");
    building.page();
    building.page();
    everything_is_told(&mut building, READ_ONLY);
    building.disk.set_read_only(false);
    let files = building.archives_are_sound();
    building.page();
    building.announcer.end_input();
    assert_eq!(building.announcer.exit_code(), 0);
    building.hall.terminate();
    building.hall.exit_code();
    assert_eq!(building.archives_are_sound(), files + 2);
    assert_eq!(wavs(&building.home.path().join("hall-1")).len(), 4);
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_any_write_leaves_nothing_torn() {
    let mut building = Building::open();
    building.page();
    // A page takes about twelve of the disk's memory pages, so each write in turn is the one that fails.
    for pages in (0..=14).chain([3, 7, 1]) {
        building.disk.fill_but(pages);
        building.page();
        building.disk.empty();
        building.archives_are_sound();
    }
    building.stop();
    building.start();
    building.page();
    building.archives_are_sound();
}
