//! Both roles in this process, and peers of every kind: the protocol to the byte, peers that misbehave, attackers, and
//! a network that breaks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../peer/mod.rs"]
mod peer;
#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod bounds;
mod faults;
mod fuzz_corpus;
mod hostile;
mod limits;
mod limits_table;
mod live;
mod protocol;
mod slow_line;
mod sync;
mod wire;
