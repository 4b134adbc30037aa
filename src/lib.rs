//! bullhorn: a push-to-talk PA intercom that proves every page was heard.
//!
//! The path of a clip, which is also the path through the modules:
//!
//! ```text
//!  announcer machine                                      station machine (hallway)
//!  ┌──────────┐   ┌──────┐   ┌──────────┐   ┌──────┐       ┌──────┐   ┌──────┐   ┌─────────────┐
//!  │microphone│──▶│ clip │──▶│ stations │──▶│ link │══TCP═▶│ link │──▶│ clip │──▶│ loudspeaker │
//!  └──────────┘   └──────┘   └──────────┘   └──────┘       └──────┘   └──────┘   └─────────────┘
//!    record        WAV +       roster,        one            the same    verify,     play at the
//!    N seconds     SHA-256     fan-out        connection                 buffer      agreed instant
//!                              receipts  ◀════════════════════ verified · played · failed
//! ```
//!
//! Talkback goes the other way, over a connection of its own: [`speaker::talkback`] records and signs, and the
//! announcer verifies, keeps and plays. Live speech takes the same path as a clip, block by block, during the speech:
//! the announcer's microphone, one broadcast to all links, and a feed at each loudspeaker that conceals missing blocks.
//!
//! # The parts
//!
//! | | |
//! |---|---|
//! | the two roles | [`announcer`], [`speaker`]; [`demo`] runs both |
//! | the site and its keys | [`site`], [`membership`], [`keys`], [`invite`], [`handshake`], [`seal`], [`clip_cipher`] |
//! | sound | [`microphone`], [`loudspeaker`], [`devices`], [`sound_file`], [`prepare`], [`sample`], [`clock`], [`volume`] |
//! | the wire | [`stations`], [`link`], [`wire`], [`clip`], [`priority`] |
//! | what is kept | [`archive`], [`outbox`], the station's diary |
//! | what is shown | [`cli`], [`console`], [`event`], [`report`] |
//! | the process | [`leaving`], [`wall`] |
//!
//! A module imports only modules on lines below its own; a test compares these lines with the code. The two roles do not
//! use each other, though one stands above the other here.
//!
//! ```text floors
//! leaving
//! cli console demo
//! announcer
//! speaker outbox
//! site membership stations
//! archive diary link report
//! event handshake
//! microphone loudspeaker clip_cipher seal invite
//! devices prepare keys
//! sound_file wire
//! clip priority
//! advice batches clock sample shared_folder volume wall
//! ```
#![forbid(unsafe_code)]

mod advice;
pub mod announcer;
pub mod archive;
mod batches;
pub mod cli;
pub mod clip;
pub mod clip_cipher;
pub mod clock;
pub mod console;
pub mod demo;
pub mod devices;
mod diary;
pub mod event;
pub mod handshake;
pub mod invite;
pub mod keys;
pub mod leaving;
pub mod link;
pub mod loudspeaker;
pub mod membership;
pub mod microphone;
pub mod outbox;
pub mod prepare;
pub mod priority;
pub mod report;
pub mod sample;
pub mod seal;
mod shared_folder;
pub mod site;
pub mod sound_file;
pub mod speaker;
pub mod stations;
pub mod volume;
pub mod wall;
pub mod wire;

/// The exit status after a fault in bullhorn itself, the same that Rust uses.
pub const PANICKED: i32 = 101;

/// Installs a panic hook: a panic in any thread or task, which is a fault in bullhorn itself, then ends the process
/// with [`PANICKED`] and a report, so that its supervisor starts it again instead of leaving a station silently deaf.
pub fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(PANICKED);
    }));
}

/// Formats an error and its causes in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    words
}
