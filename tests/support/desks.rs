//! Several announcers, each with an identity of its own, and a station that has joined them all.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::hallway::{BULLHORN, Environment, Program, STATE, file, start_station};
use serde_json::Value;
use tempfile::TempDir;

/// An announcer with a state folder of its own.
#[derive(Debug)]
pub struct Desk {
    /// The program.
    pub announcer: Program,
    /// The address on which it listens.
    pub address: String,
    /// The WAV that it announces.
    pub wav: PathBuf,
    /// A folder that is deleted with the desk.
    pub folder: TempDir,
    environment: Environment,
}

impl Desk {
    /// Opens a desk that announces the WAV that `wav` makes, with further arguments.
    pub fn open(wav: impl FnOnce(&Path) -> PathBuf, more: &[&str], environment: &Environment) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wav = wav(folder.path());
        let mut environment = environment.clone();
        environment.push((STATE.to_owned(), folder.path().join("state").display().to_string()));
        let announcer = start("127.0.0.1:0", &wav, more, &environment);
        let mut desk = Self { announcer, address: String::new(), wav, folder, environment };
        desk.address = desk.announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
        desk
    }

    /// Kills it, and starts it again with another WAV. Returns when the station is back.
    pub fn restart(&mut self, wav: PathBuf) {
        self.announcer.kill();
        self.wav = wav;
        self.announcer = start(&self.address, &self.wav, &[], &self.environment);
        self.announcer.wait_for("station-joined");
    }

    /// The environment of stations that belong to the same user.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The invite with which a station can join.
    pub fn invite(&self) -> String {
        let mut command = std::process::Command::new(BULLHORN);
        let output = command.arg("invite").envs(self.environment.iter().cloned()).output().unwrap();
        let line = String::from_utf8(output.stdout).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    }

    /// Announces, and returns the clip's id.
    pub fn announce(&mut self) -> String {
        self.announcer.enter();
        self.announcer.wait_for("recorded")["clip"].as_str().unwrap().to_owned()
    }

    /// Waits until its one station has played, and returns that event.
    pub fn played(&mut self) -> Value {
        let played = self.announcer.wait_for("played");
        let done = self.announcer.wait_for("done");
        assert_eq!((&done["played"], &done["expected"]), (&1.into(), &1.into()), "{done}");
        played
    }
}

fn start(listen: &str, wav: &Path, more: &[&str], environment: &Environment) -> Program {
    let mut says: [OsString; 3] = ["--no-level".into(), "--file".into(), wav.into()];
    if more.contains(&"--live") {
        says = ["--no-level".into(), "--input".into(), file(wav)];
    }
    let own = ["announce".into(), "--listen".into(), listen.into()].into_iter().chain(says);
    Program::start("an announcer", own.chain(more.iter().map(OsString::from)), environment)
}

/// Starts `hall-1`, which joins these announcers one after the other and then serves all of them.
pub fn join(desks: &[&Desk], output: &OsString, more: &[&str], environment: &Environment) -> Program {
    let mut addresses: Vec<OsString> = Vec::new();
    let mut station: Option<Program> = None;
    for desk in desks {
        // The previous run of the station stops, and frees the name.
        drop(station.take());
        addresses.push((&desk.address).into());
        let invite = desk.invite();
        let own = ["--name", "hall-1", "--invite", &invite, "--output"].map(OsString::from);
        let arguments = [OsString::from("speaker")].into_iter().chain(addresses.clone()).chain(own);
        let arguments = arguments.chain([output.clone()]).chain(more.iter().map(OsString::from));
        let mut joined = Program::start("hall-1", arguments, environment);
        for _ in &addresses {
            joined.wait_for("connected");
        }
        station = Some(joined);
    }
    station.expect("a desk")
}
