//! Work on the disk in a fixed order. The runtime's pool has one thread, which lives only while there is work, and
//! works only while the simulation itself has nothing to do. So a seed's tasks always find that work at the same point.

use std::sync::{Condvar, Mutex};

/// A gate between the simulation and its pool.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_open: bool,
    at_work: usize,
}

impl Gate {
    /// Called when a pool's thread starts: waits until it may work.
    pub fn enter(&self) {
        let state = self.state.lock().unwrap();
        self.changed.wait_while(state, |state| !state.is_open).unwrap().at_work += 1;
    }

    /// Called when the thread stops, with all work done.
    pub fn leave(&self) {
        self.state.lock().unwrap().at_work -= 1;
        self.changed.notify_all();
    }

    /// Called when the simulation pauses.
    pub fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }

    /// Called when the simulation continues: waits until all work is done.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_open = false;
        drop(self.changed.wait_while(state, |state| state.at_work > 0).unwrap());
    }
}
