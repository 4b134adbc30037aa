//! The `bullhorn` program.
fn main() {}
