//! The real program, as a person or a script runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod cli;
mod clock_jumps;
mod console;
mod disk;
mod disk_hangs;
mod files;
mod imports;
mod jobs;
mod keep;
mod keyboard;
mod killed;
mod leaving;
mod live;
mod membership;
mod operating;
mod oracle;
mod recordings;
mod several;
mod sound_files;
mod speaking;
mod supervision;
mod talkback;
mod units;
