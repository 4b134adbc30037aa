//! bullhorn: a push-to-talk PA intercom that proves every page was heard.
//!
//! The way of a clip, which is also the way through the modules:
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
//! Imports run downwards: the two roles ([`announcer`], [`speaker`]) use stations, link and sound;
//! those use wire, clip and sample; those use nothing of ours. The roles do not know each other.
#![forbid(unsafe_code)]

pub mod clip;
pub mod clip_cipher;
pub mod event;
pub mod handshake;
pub mod invite;
pub mod keys;
pub mod loudspeaker;
pub mod microphone;
pub mod sample;
pub mod seal;
