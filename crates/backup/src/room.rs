//! How much room there is.

use std::{fs::File, io};

/// Bytes that can be written to the file system of `file`.
pub(crate) fn free_in(file: &File) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(file)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
