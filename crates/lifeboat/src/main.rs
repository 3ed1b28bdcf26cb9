//! The `lifeboat` command.
fn main() {}
