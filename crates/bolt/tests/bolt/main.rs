//! Tests of the crate from outside, over whole files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod amending;
mod building;
mod damaged;
mod dump;
mod fixtures;
mod hostile;
mod mapping;
