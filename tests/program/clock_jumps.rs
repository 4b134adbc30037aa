//! The wall clock jumps by years, either way, on either side, at any time: pages continue. libfaketime gives each
//! process a clock of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::hallway::{BULLHORN, Environment, Program, STATE, file, wavs};
use crate::support::wav::Spec;
use serde_json::Value;
use tempfile::TempDir;

const YEAR_MS: i64 = 365 * 86_400 * 1_000;

/// A program whose wall clock can be set; its monotonic clock is the system's.
struct Clocked {
    program: Program,
    clock: PathBuf,
}

fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut found =
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().expect("libfaketime is missing: run script/setup tests")
}

impl Clocked {
    fn start(
        name: &str,
        home: &Path,
        words: &[&str],
        wav_or_folder: &Path,
        environment: &Environment,
    ) -> Self {
        let clock = home.join(format!("{name}-clock"));
        if !clock.exists() {
            std::fs::write(&clock, "+0").unwrap();
        }
        let mut command = Command::new(BULLHORN);
        command.args(words).arg(file(wav_or_folder)).args(["--events", "json"]);
        command.env("LD_PRELOAD", library()).env("FAKETIME_TIMESTAMP_FILE", &clock);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Self { program: Program::start_command(name, command, environment), clock }
    }

    /// Sets its clock to differ from the system's by `by`.
    fn jump(&self, by: &str) {
        // Written elsewhere and then moved into place, because the clock can be read at any time.
        let new = self.clock.with_extension("new");
        std::fs::write(&new, by).unwrap();
        std::fs::rename(new, &self.clock).unwrap();
    }
}

/// How far an event's clock is from this process's, in years.
fn years_off(event: &Value) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let off = event["unix_ms"].as_i64().unwrap() - now;
    (off as f64 / YEAR_MS as f64).round() as i64
}

struct Building {
    home: TempDir,
    environment: Environment,
    address: String,
    announcer: Clocked,
    halls: Vec<Clocked>,
    pages: usize,
}

impl Building {
    fn open() -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), &[])
    }

    fn open_in(home: TempDir, more: &[&str]) -> Self {
        let wav = Spec::mono(16, 8_000).write(home.path(), 2_400);
        let environment = vec![(STATE.to_owned(), home.path().join("state").display().to_string())];
        let words = [&["announce", "--listen", "127.0.0.1:0"], more, &["--input"]].concat();
        let mut announcer = Clocked::start("announcer", home.path(), &words, &wav, &environment);
        let address = announcer.program.wait_for("listening")["address"].as_str().unwrap().to_owned();
        let mut building = Self { home, environment, address, announcer, halls: Vec::new(), pages: 0 };
        for name in ["hall-1", "hall-2"] {
            let hall = building.station(name);
            building.halls.push(hall);
        }
        building
    }

    fn station(&mut self, name: &str) -> Clocked {
        let words = ["speaker", &self.address, "--name", name, "--output"];
        let station =
            Clocked::start(name, self.home.path(), &words, &self.home.path().join(name), &self.environment);
        self.announcer.program.wait_for_one("station-joined", "station", name);
        station
    }

    /// Announces a page that both stations hear. Returns how far each clock is off, in years.
    fn page(&mut self) -> [i64; 3] {
        self.announcer.program.enter();
        self.pages += 1;
        let done = self.announcer.program.wait_for("done");
        assert_eq!((&done["played"], &done["expected"]), (&2.into(), &2.into()), "{done}");
        let heard: Vec<Value> = self.halls.iter_mut().map(|hall| hall.program.wait_for("played")).collect();
        for name in ["hall-1", "hall-2"] {
            assert_eq!(wavs(&self.home.path().join(name)).len(), self.pages);
        }
        [years_off(&done), years_off(&heard[0]), years_off(&heard[1])]
    }

    fn nobody_left(&mut self) {
        assert_eq!(self.announcer.program.untaken("station-left"), 0);
    }
}

#[test]
fn pages_go_on_whatever_the_clocks_say() {
    let mut building = Building::open();
    assert_eq!(building.page(), [0, 0, 0]);
    for (announcer, hall) in
        [("+10y", "+0"), ("-10y", "+0"), ("+0", "+10y"), ("+0", "-10y"), ("-10y", "+10y")]
    {
        building.announcer.jump(announcer);
        building.halls[0].jump(hall);
        let years = |text: &str| text.trim_end_matches('y').parse::<i64>().unwrap();
        assert_eq!(building.page(), [years(announcer), years(hall), 0], "the clocks jumped");
    }
    building.nobody_left();
    // In the middle of a page.
    building.announcer.program.enter();
    building.pages += 1;
    building.announcer.program.wait_for("recorded");
    building.announcer.jump("+10y");
    building.halls[1].jump("-10y");
    assert_eq!(building.announcer.program.wait_for("done")["played"], 2);
    building.halls.iter_mut().for_each(|hall| drop(hall.program.wait_for("played")));
    building.nobody_left();
}

/// The names of the files in an archive, its logs last.
fn archived(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The current month, such as `202611`.
fn month() -> String {
    let output = Command::new("date").args(["-u", "+%Y%m"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A board without a clock starts in 1970, and gets the time from the network a little later.
#[test]
fn a_clock_that_is_set_after_the_start_dates_what_comes_next() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("announcer-clock"), "@1970-01-01 00:00:10").unwrap();
    let pages = home.path().join("pages");
    let archive = pages.display().to_string();
    let mut building = Building::open_in(home, &["--archive", &archive]);
    building.page();
    let names = archived(&pages);
    assert!(names[0].starts_with("1970010") && names[1] == "announcements-197001.jsonl", "{names:?}");
    // A page for a station that is away waits while the clock is set.
    building.halls[1].program.terminate();
    building.halls[1].program.exit_code();
    building.announcer.program.wait_for_one("station-left", "station", "hall-2");
    building.announcer.program.enter();
    building.pages += 1;
    assert_eq!(building.announcer.program.wait_for("done")["played"], 1);
    building.halls[0].program.wait_for("played");
    building.announcer.jump("+0");
    building.halls[1] = building.station("hall-2");
    building.halls[1].program.wait_for("played");
    assert_eq!(building.page(), [0, 0, 0]);
    let names = archived(&pages);
    let is_now = |name: &&String| name.starts_with(&month());
    assert_eq!((names.len(), names.iter().filter(is_now).count()), (5, 1), "{names:?}");
    assert!(names.contains(&format!("announcements-{}.jsonl", month())), "{names:?}");
    for hall in &mut building.halls {
        assert_eq!(hall.program.untaken("rejected"), 0);
    }
    building.announcer.program.terminate();
    building.announcer.program.exit_code();
    // A clip made after the clock was set is dated, and signed, with the new time.
    let file = names.iter().find(is_now).unwrap();
    let mut verify = Command::new(BULLHORN);
    verify.arg("verify").arg(pages.join(file)).envs(building.environment.iter().cloned());
    let said = String::from_utf8(verify.output().unwrap().stdout).unwrap();
    let year = &month()[..4];
    assert!(
        said.contains(&format!(": good: announced {year}-")) && !said.contains("its own clock"),
        "{said}"
    );
}

#[test]
fn a_restart_ten_years_ago_is_heard_as_well() {
    let mut building = Building::open();
    building.page();
    for by in ["+10y", "-10y"] {
        building.announcer.program.terminate();
        building.announcer.program.exit_code();
        building.announcer.jump(by);
        building.halls[0].program.terminate();
        building.halls[0].program.exit_code();
        let words = ["announce", "--listen", &building.address, "--input"];
        let wav = building.home.path().join(Spec::mono(16, 8_000).file_name());
        building.announcer =
            Clocked::start("announcer", building.home.path(), &words, &wav, &building.environment);
        building.announcer.program.wait_for("listening");
        building.halls[0] = building.station("hall-1");
        building.announcer.program.wait_for_one("station-joined", "station", "hall-2");
        let [announcer, ..] = building.page();
        assert_eq!(announcer.abs(), 10);
    }
}
