//! How fast: each thing that costs on the way of a clip, beside the bare library call as its floor.
fn main() {}
