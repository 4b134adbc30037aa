//! The sound server dies under both sides, while they wait, record and play, and comes back: so do they, and they cost
//! nothing meanwhile.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use crate::support::hallway::{Environment, Program, STATE, start_station};
use crate::support::pulse::PulseRig;
use serde_json::Value;

/// The longest time that may pass from the server's return until both sides report that they are well.
const RETURN: Duration = Duration::from_secs(3);
/// How long the server is away, and the processor time that either side may use meanwhile.
const AWAY: Duration = Duration::from_secs(3);
const USED_AWAY: Duration = Duration::from_millis(300);
/// A busy machine may start the server late, and run both sides late: each case is tried this often.
const TRIES: usize = 3;

struct Building {
    rig: PulseRig,
    environment: Environment,
    address: String,
    announcer: Program,
    hall: Program,
}

fn announcer(listen: &str, environment: &Environment) -> Program {
    Program::start("the announcer", ["announce", "--seconds", "2", "--listen", listen], environment)
}

impl Building {
    fn open() -> Self {
        let rig = PulseRig::start(1);
        let mut environment = rig.environment();
        environment.push((STATE.into(), rig.folder().join("state").display().to_string()));
        let mut announcer = announcer("127.0.0.1:0", &environment);
        let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
        let hall = start_station(&address, "hall-1", &OsString::from("hall-1"), &environment);
        announcer.wait_for_one("station-joined", "station", "hall-1");
        let mut building = Self { rig, environment, address, announcer, hall };
        // A device that has never run is given more time.
        building.page();
        building
    }

    /// Announces until a page is heard: sound is made in real time, so a busy machine might need several pages.
    fn page(&mut self) {
        let give_up = Instant::now() + crate::support::DEADLINE;
        loop {
            self.announcer.enter();
            let done = self.announcer.wait_for("done");
            if done["played"] == 1 {
                return;
            }
            assert!(Instant::now() < give_up, "nothing is heard any more: {done}");
            eprintln!("this machine is busy, so it is announced again: {done}");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Kills the server and restarts it. Returns how long both sides took to be well again, and the processor time that
    /// the busier one used meanwhile.
    fn outage(&mut self) -> (Duration, Duration) {
        self.rig.kill();
        self.announcer.wait_for("microphone-faulty");
        self.announcer.wait_for_one("station-faulty", "station", "hall-1");
        let cpu = [self.announcer.cpu(), self.hall.cpu()];
        std::thread::sleep(AWAY);
        let used = (self.announcer.cpu() - cpu[0]).max(self.hall.cpu() - cpu[1]);
        self.rig.restart();
        let returned = Instant::now();
        self.announcer.wait_for("microphone-healthy");
        self.announcer.wait_for_one("station-healthy", "station", "hall-1");
        (returned.elapsed(), used)
    }

    /// Repeats the outage, up to [`TRIES`] times, until it is within the bounds.
    fn outages(&mut self, when: &str, mut before: impl FnMut(&mut Self), mut after: impl FnMut(&mut Self)) {
        let mut measured = Vec::new();
        for _ in 0..TRIES {
            before(self);
            measured.push(self.outage());
            after(self);
            self.page();
            if measured.iter().any(|(back, used)| *back <= RETURN && *used <= USED_AWAY) {
                println!("{when}: well again after, and processor time used while it was away: {measured:?}");
                return;
            }
        }
        panic!("{when}: well again after, and processor time used while it was away: {measured:?}");
    }
}

#[test]
fn both_sides_outlive_their_sound_server_whenever_it_dies() {
    let mut building = Building::open();
    building.outages("waiting", |_| (), |_| ());
    let recording = |building: &mut Building| {
        building.announcer.enter();
        building.announcer.wait_for("recording");
        std::thread::sleep(Duration::from_millis(500));
    };
    building.outages("recording", recording, |building| nothing_was_recorded(&mut building.announcer));
    let playing = |building: &mut Building| {
        building.announcer.enter();
        let clip = building.announcer.wait_for("recorded")["clip"].as_str().unwrap().to_owned();
        building.announcer.wait_for_one("playing", "clip", &clip);
    };
    // Earlier pages were recorded and begun as well.
    drain(&mut building.announcer);
    building.outages("playing", playing, |building| {
        // The page that broke off is played again from its start, and marked; earlier pages were not.
        let is_again = |played: &Value| played["again"] == true;
        let again = std::iter::repeat_with(|| building.announcer.wait_for("played")).find(is_again).unwrap();
        assert_eq!(again["outcome"], "played-late", "{again}");
    });
    // An announcer whose microphone was there before starts without it, and is well when it is back.
    building.announcer.end_input();
    building.announcer.exit_code();
    building.rig.kill();
    building.announcer = announcer(&building.address, &building.environment);
    building.announcer.wait_for("listening");
    building.announcer.wait_for("microphone-faulty");
    building.announcer.wait_for_one("station-joined", "station", "hall-1");
    building.announcer.enter();
    nothing_was_recorded(&mut building.announcer);
    building.rig.restart();
    building.announcer.wait_for("microphone-healthy");
    building.page();
}

/// Waits for this warning; pages of silence cause others.
fn nothing_was_recorded(announcer: &mut Program) {
    while !announcer.wait_for("warning")["message"].as_str().unwrap().contains("nothing was sent") {}
}

/// Removes the events that earlier pages left.
fn drain(announcer: &mut Program) {
    for event in ["recorded", "playing", "played", "recording", "warning"] {
        while announcer.untaken(event) > 0 {
            announcer.wait_for(event);
        }
    }
}
