//! The wall clock jumps by years, either way, on either side, at any time: pages go on. libfaketime gives each process
//! a clock of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::hallway::{BULLHORN, Environment, Program, STATE, file, wavs};
use crate::support::wav::Spec;
use serde_json::Value;
use tempfile::TempDir;

const YEAR_MS: i64 = 365 * 86_400 * 1_000;

/// A program whose wall clock can be set; its monotonic one is the system's.
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

    /// Sets its clock so far from the system's.
    fn jump(&self, by: &str) {
        // Written elsewhere and put in place: the clock is read at any time.
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
        let home = tempfile::tempdir().unwrap();
        let wav = Spec::mono(16, 8_000).write(home.path(), 2_400);
        let environment = vec![(STATE.to_owned(), home.path().join("state").display().to_string())];
        let words = ["announce", "--listen", "127.0.0.1:0", "--input"];
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

    /// A page that both hear. Gives how far each clock is off, in years.
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
