//! The bbolt file format: read, check, build
