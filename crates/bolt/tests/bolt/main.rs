//! Tests of the crate from outside, over whole files.

mod building;
mod damaged;
mod dump;
mod fixtures;
mod hostile;
mod mapping;
