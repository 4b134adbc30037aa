//! Code shared by the integration tests and the benchmarks: the real program in a hallway of processes, a private sound
//! server, sound files made to measure, and the comparison of two recordings.
// Each test binary uses only a part of this.
#![allow(dead_code, unused_imports)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod correlate;
pub mod desks;
pub mod dice;
pub mod hallway;
pub mod marker;
pub mod mortal;
pub mod network;
pub mod oracle;
pub mod pty;
pub mod pulse;
pub mod small_disk;
pub mod terminal;
pub mod wav;

/// The longest time that anything that must happen may take on a busy machine.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);
