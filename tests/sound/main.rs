//! Real sound: the real program on a private sound server, and the measure that it is held to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod correlate;
mod dropouts;
mod hallway;
mod holes;
mod live;
mod outage;
mod several;
mod standing;
mod talkback;
