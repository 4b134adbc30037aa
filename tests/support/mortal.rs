//! A part of a building that is killed and started again. Everything that it prints is kept, run after run.

use std::ffi::OsString;

use super::hallway::{Environment, Program};
use super::oracle::Runs;

/// An announcer or a station that can be killed.
#[derive(Debug)]
pub struct Mortal {
    name: String,
    arguments: Vec<OsString>,
    environment: Environment,
    /// The current run.
    pub program: Program,
    past: Runs,
}

impl Mortal {
    /// Starts it for the first time.
    pub fn start(name: &str, arguments: Vec<OsString>, environment: &Environment) -> Self {
        Self {
            name: name.into(),
            program: Program::start(name, arguments.clone(), environment),
            arguments,
            environment: environment.clone(),
            past: Vec::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Kills it as a power cut does, and starts it again.
    pub fn kill_and_restart(&mut self) {
        self.program.kill();
        self.past.push(self.program.printed_to_the_end());
        self.program = Program::start(&self.name, self.arguments.clone(), &self.environment);
    }

    /// Changes an argument, such as the address to listen on or to dial, from the next run on.
    pub fn set_argument(&mut self, position: usize, value: &str) {
        self.arguments[position] = value.into();
    }

    /// Everything that it has printed so far, run by run.
    pub fn runs(&mut self) -> Runs {
        let mut runs = self.past.clone();
        runs.push(self.program.printed());
        runs
    }
}
