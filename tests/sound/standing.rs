//! The sound server takes the loudspeaker or the microphone away, moves it or mutes it: nothing is reported as heard
//! that was not, and all is well again once the cause is gone.

use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::hallway::{BULLHORN, Environment, Program, STATE, file, start_station};
use crate::support::pulse::{PulseRig, deaf_environment};
use crate::support::terminal::Terminal;
use crate::support::wav::Spec;

/// The longest time that may pass until a fault, or its end, is shown.
const SHOWN: Duration = Duration::from_secs(3);

/// A sound server, an announcer that plays a file, and perhaps a station.
struct Building {
    rig: PulseRig,
    environment: Environment,
    address: String,
    announcer: Program,
}

impl Building {
    /// Opens a building whose pages are tones of `page_ms` milliseconds.
    fn open(rig: PulseRig, page_ms: usize, options: &[&str]) -> Self {
        let mut environment = rig.environment();
        environment.push((STATE.into(), rig.folder().join("state").display().to_string()));
        let page = file(&Spec::mono(16, 8_000).write(rig.folder(), page_ms * 8));
        let fixed = ["announce", "--listen", "127.0.0.1:0", "--input"].map(OsString::from);
        let arguments = fixed.into_iter().chain([page]).chain(options.iter().map(OsString::from));
        let mut announcer = Program::start("the announcer", arguments, &environment);
        let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
        Self { rig, environment, address, announcer }
    }

    /// Starts a station, and waits until it has joined.
    fn station(&mut self, output: &str) -> Program {
        let station = start_station(&self.address, "hall", &output.into(), &self.environment);
        self.announcer.wait_for_one("station-joined", "station", "hall");
        station
    }

    /// Waits until the announcer reports that the station's loudspeaker does not work, for this reason.
    fn is_faulty(&mut self, since: Instant, reason: &str) {
        let fault = self.announcer.wait_for_one("station-faulty", "station", "hall");
        assert!(since.elapsed() < SHOWN, "shown after {:?}: {fault}", since.elapsed());
        assert!(fault["reason"].as_str().unwrap().contains(reason), "{reason:?} is not in {fault}");
    }

    fn is_healthy(&mut self) {
        self.announcer.wait_for_one("station-healthy", "station", "hall");
    }

    /// Announces, and returns the verdict.
    fn page(&mut self) -> Value {
        self.announcer.enter();
        self.announcer.wait_for("done")
    }

    /// Announces a page that is not heard, for this reason.
    fn page_is_missed(&mut self, reason: &str) {
        let done = self.page();
        assert_eq!((&done["played"], &done["expected"]), (&0.into(), &1.into()), "{done}");
        assert!(done["missing"][0]["reason"].as_str().unwrap().contains(reason), "{done}");
    }

    /// Checks that the missed page is played after all, to its last frame.
    fn is_played_late(&mut self, again: bool, frames: usize) {
        let played = self.announcer.wait_for("played");
        assert_eq!(
            (&played["outcome"], &played["again"], &played["frames"]),
            (&"played-late".into(), &again.into(), &frames.into()),
            "{played}"
        );
    }

    /// Announces until a page is heard, so that every device has run.
    fn warm_up(&mut self) {
        let give_up = Instant::now() + crate::support::DEADLINE;
        loop {
            let done = self.page();
            // Even if it was late: the next page would wait behind it, and be late because of that.
            self.announcer.wait_for("played");
            if done["played"] == 1 {
                break;
            }
            assert!(Instant::now() < give_up, "{done}");
        }
        // This page's events must not be taken for the next one's.
        for event in ["recorded", "playing"] {
            while self.announcer.untaken(event) > 0 {
                self.announcer.wait_for(event);
            }
        }
    }

    fn control(&self, order: &str) -> Option<String> {
        control(&self.environment, order)
    }

    /// The number of the stream with this driver: bullhorn's own, or that of a virtual sink.
    fn stream(&self, driver: &str) -> String {
        let list = self.control("list short sink-inputs").unwrap();
        let line = list.lines().find(|line| line.contains(driver)).unwrap_or_else(|| panic!("{list}"));
        line.split('\t').next().unwrap().to_owned()
    }
}

/// The output of `pactl`; `None` if the server refuses.
fn control(environment: &Environment, order: &str) -> Option<String> {
    let mut command = Command::new("pactl");
    let output = command.args(order.split(' ')).envs(environment.iter().cloned()).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

fn load(environment: &Environment, module: &str) -> String {
    control(environment, &format!("load-module {module}")).unwrap_or_else(|| panic!("no {module}"))
}

#[test]
fn a_named_loudspeaker_that_is_taken_away_is_replaced_by_no_other() {
    for keeper in ["module-always-sink", "module-rescue-streams"] {
        let rig = PulseRig::start_empty();
        let environment = rig.environment();
        let usb = load(&environment, "module-null-sink sink_name=usb");
        load(&environment, "module-null-sink sink_name=other");
        load(&environment, keeper);
        let mut building = Building::open(rig, 400, &[]);
        let _station = building.station("pulseaudio:usb");
        building.warm_up();
        let stream = building.stream("protocol-native");
        assert_eq!(building.control(&format!("move-sink-input {stream} other")), None, "it was moved");
        let taken = Instant::now();
        building.control(&format!("unload-module {usb}")).unwrap();
        building.is_faulty(taken, "is no longer there");
        building.page_is_missed("is no longer there");
        load(&environment, "module-null-sink sink_name=usb");
        building.is_healthy();
        building.is_played_late(false, 3_200);
    }
}

#[test]
fn a_virtual_loudspeaker_that_is_moved_amid_a_page_plays_it_again() {
    let mut building = Building::open(PulseRig::start(1), 2_500, &[]);
    let _station = building.station("hall-1");
    building.warm_up();
    load(&building.environment, "module-null-sink sink_name=elsewhere");
    building.announcer.enter();
    let clip = building.announcer.wait_for("recorded")["clip"].as_str().unwrap().to_owned();
    building.announcer.wait_for_one("playing", "clip", &clip);
    let list = building.control("list sink-inputs").unwrap();
    // The stream of the virtual sink into which the station plays.
    let modules = building.control("list short modules").unwrap();
    let module = modules
        .lines()
        .find(|line| line.contains("sink_name=hall-1 "))
        .unwrap_or_else(|| panic!("{modules}"));
    let owner = format!("Owner Module: {}\n", module.split_whitespace().next().unwrap());
    let mut streams = list.split("Sink Input #").skip(1).filter(|stream| stream.contains(&owner));
    let stream = streams.next().unwrap_or_else(|| panic!("{list}")).split('\n').next().unwrap();
    let moved = Instant::now();
    building.control(&format!("move-sink-input {stream} elsewhere")).unwrap();
    building.is_faulty(moved, "was moved to");
    building.is_healthy();
    building.is_played_late(true, 20_000);
}

#[test]
fn a_default_loudspeaker_is_a_real_one_or_none() {
    let rig = PulseRig::start_empty();
    let environment = rig.environment();
    load(&environment, "module-always-sink");
    let mut building = Building::open(rig, 400, &[]);
    let started = Instant::now();
    let _station = building.station("default");
    building.is_faulty(started, "not a loudspeaker");
    building.page_is_missed("not a loudspeaker");
    load(&environment, "module-null-sink sink_name=card");
    let hall = load(&environment, "module-remap-sink sink_name=hall master=card");
    building.control("set-default-sink hall").unwrap();
    building.is_healthy();
    building.is_played_late(false, 3_200);
    // The server's next default is a null sink.
    let taken = Instant::now();
    building.control(&format!("unload-module {hall}")).unwrap();
    building.is_faulty(taken, "is no longer there");
    load(&environment, "module-remap-sink sink_name=hall master=card");
    building.control("set-default-sink hall").unwrap();
    building.is_healthy();
    // Another default is followed if it is real.
    load(&environment, "module-remap-sink sink_name=lobby master=card");
    building.control("set-default-sink lobby").unwrap();
    building.is_faulty(Instant::now(), "is used from now on");
    building.is_healthy();
    let list = building.control("list sink-inputs").unwrap();
    assert!(list.contains("protocol-native"), "{list}");
    // It is not a loudspeaker by itself, but a station that names it may have it.
    let mut named = building.station("pulseaudio:card");
    assert_eq!(named.untaken("station-faulty"), 0);
}

#[test]
fn whatever_mutes_the_loudspeaker_is_shown_and_so_is_its_end() {
    let mut building = Building::open(PulseRig::start(1), 2_500, &[]);
    let mut station = building.station("hall-1");
    building.warm_up();
    let stream = building.stream("protocol-native");
    for (mute, unmute, reason) in [
        (
            "set-sink-mute hall-1 1",
            "set-sink-mute hall-1 0",
            "is muted in the sound server, by another program",
        ),
        ("set-sink-mute all 1", "set-sink-mute all 0", "is muted in the sound server"),
        ("set-sink-volume hall-1 0%", "set-sink-volume hall-1 100%", "is turned down to silence"),
        ("set-sink-input-mute STREAM 1", "set-sink-input-mute STREAM 0", "the stream to"),
        ("set-sink-input-volume STREAM 0%", "set-sink-input-volume STREAM 100%", "the stream to"),
    ] {
        let muted = Instant::now();
        building.control(&mute.replace("STREAM", &stream)).unwrap();
        building.is_faulty(muted, reason);
        building.control(&unmute.replace("STREAM", &stream)).unwrap();
        building.is_healthy();
    }
    // A low volume is a warning, given once.
    building.control("set-sink-volume hall-1 15%").unwrap();
    let warned = station.wait_for("warning");
    assert!(warned["message"].as_str().unwrap().contains("turned down to -49 dB"), "{warned}");
    building.control("set-sink-volume hall-1 14%").unwrap();
    building.control("set-sink-volume hall-1 100%").unwrap();
    // During a page, even for a moment: the page was not heard whole.
    building.announcer.enter();
    let clip = building.announcer.wait_for("recorded")["clip"].as_str().unwrap().to_owned();
    building.announcer.wait_for_one("playing", "clip", &clip);
    assert_eq!(station.untaken("warning"), 0);
    building.control("set-sink-mute hall-1 1").unwrap();
    building.is_faulty(Instant::now(), "is muted");
    building.control("set-sink-mute hall-1 0").unwrap();
    building.is_healthy();
    building.is_played_late(true, 20_000);
}

#[test]
fn an_emergency_unmutes_only_where_it_may() {
    let mut building = Building::open(PulseRig::start(1), 400, &["--priority", "emergency"]);
    let mut station = building.station("hall-1");
    building.warm_up();
    building.control("set-sink-mute hall-1 1").unwrap();
    building.is_faulty(Instant::now(), "is muted");
    building.page_is_missed("is muted");
    assert_eq!(building.control("get-sink-mute hall-1").unwrap(), "Mute: yes");
    station.terminate();
    station.exit_code();
    let target = building.address.clone();
    let arguments = ["speaker", &target, "--name", "hall", "--output", "hall-1", "--emergency-unmutes"]
        .map(OsString::from);
    let _station = Program::start("the station", arguments, &building.environment);
    building.announcer.wait_for_one("station-joined", "station", "hall");
    building.is_faulty(Instant::now(), "an emergency page unmutes it");
    let stream = building.stream("protocol-native");
    building.control(&format!("set-sink-input-mute {stream} 1")).unwrap();
    building.control("set-sink-volume all 0%").unwrap();
    let done = building.page();
    assert_eq!(done["played"], 1, "{done}");
    building.is_healthy();
    assert_eq!(building.control("get-sink-mute hall-1").unwrap(), "Mute: no");
    assert!(building.control("get-sink-volume all").unwrap().contains("100%"));
}

#[test]
fn a_microphone_that_is_muted_or_gone_or_a_mere_monitor_is_shown() {
    let rig = PulseRig::start_empty();
    let mut environment = rig.environment();
    environment.push((STATE.into(), rig.folder().join("state").display().to_string()));
    load(&environment, "module-null-sink sink_name=card");
    let mut announcer =
        Program::start("the announcer", ["announce", "--listen", "127.0.0.1:0"], &environment);
    let reason = |fault: Value| fault["reason"].as_str().unwrap().to_owned();
    let fault = reason(announcer.wait_for("microphone-faulty"));
    assert!(fault.contains("the monitor of a loudspeaker, not a microphone"), "{fault}");
    let microphone = load(&environment, "module-remap-source source_name=desk master=card.monitor");
    control(&environment, "set-default-source desk").unwrap();
    announcer.wait_for("microphone-healthy");
    for (mute, unmute) in [
        ("set-source-mute desk 1", "set-source-mute desk 0"),
        ("set-source-volume desk 0%", "set-source-volume desk 100%"),
    ] {
        let muted = Instant::now();
        control(&environment, mute).unwrap();
        let fault = reason(announcer.wait_for("microphone-faulty"));
        assert!(
            muted.elapsed() < SHOWN && fault.contains("in the sound server, by another program"),
            "{fault}"
        );
        control(&environment, unmute).unwrap();
        announcer.wait_for("microphone-healthy");
    }
    control(&environment, &format!("unload-module {microphone}")).unwrap();
    let fault = reason(announcer.wait_for("microphone-faulty"));
    assert!(fault.contains("is no longer there"), "{fault}");
}

#[test]
fn a_service_waits_for_a_device_that_is_late_and_a_slip_of_the_key_is_told_at_once() {
    let mut building = Building::open(PulseRig::start(1), 400, &[]);
    let mut station = building.station("pulseaudio:late");
    building.is_faulty(Instant::now(), "\"pulseaudio:late\"");
    load(&building.environment, "module-null-sink sink_name=late");
    building.is_healthy();
    station.terminate();
    assert_eq!(station.exit_code(), 0);
    // The server itself is late.
    building.rig.kill();
    let mut station = building.station("pulseaudio:hall-1");
    let fault = station.wait_for("station-faulty");
    let reason = fault["reason"].as_str().unwrap();
    assert!(reason.contains("no sound server") && !reason.contains("did you mean"), "{fault}");
    building.rig.restart();
    station.wait_for("station-healthy");
    let terminal = Terminal::open(160, 20, &building.environment);
    terminal
        .type_line(&format!("{BULLHORN} speaker {} --open --output hall-l; echo ended $?", building.address));
    let screen = terminal.wait_until("the end", |screen| screen.contains("ended 1"));
    assert!(screen.contains("did you mean pulseaudio:hall-1"), "{screen}");
}

#[test]
fn alsa_s_mixer_is_watched_and_its_null_device_is_no_loudspeaker() {
    let mut building = Building::open(PulseRig::start(1), 400, &[]);
    // The rig routes ALSA's default device and mixer to the server's default sink.
    let _station = building.station("alsa:default");
    building.warm_up();
    for (mute, unmute) in [
        ("set-sink-mute hall-1 1", "set-sink-mute hall-1 0"),
        ("set-sink-volume hall-1 0%", "set-sink-volume hall-1 100%"),
    ] {
        let muted = Instant::now();
        building.control(mute).unwrap();
        building.is_faulty(muted, "in ALSA's mixer");
        building.control(unmute).unwrap();
        building.is_healthy();
    }
    let home = tempfile::tempdir().unwrap();
    let mut environment = deaf_environment(home.path());
    let null = home.path().join("null.conf");
    std::fs::write(&null, "pcm.!default { type plug slave.pcm { type null } }\n").unwrap();
    environment.push(("ALSA_CONFIG_PATH".into(), null.display().to_string()));
    environment.push((STATE.into(), building.rig.folder().join("state").display().to_string()));
    let mut station = start_station(&building.address, "null", &"default".into(), &environment);
    let fault = station.wait_for("station-faulty");
    assert!(fault["reason"].as_str().unwrap().contains("ALSA's null device, not a loudspeaker"), "{fault}");
}
