//! How much room there is for temporary files.

use crate::spool::SpoolError;
use std::{fs::File, io, path::Path};

/// Bytes that can be written to the file system of `file`.
pub(crate) fn free_in(file: &File) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(file)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A nameless file in `dir`, with room for so many bytes.
pub(crate) fn temporary(dir: &Path, needed: u64) -> Result<File, SpoolError> {
    let failed = |source| SpoolError::Create { dir: dir.to_owned(), source };
    let file = tempfile::tempfile_in(dir).map_err(failed)?;
    let available = free_in(&file).map_err(failed)?;
    if available < needed {
        return Err(SpoolError::NoSpace { dir: dir.to_owned(), needed, available });
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_before_anything_is_written() {
        let error = temporary(&std::env::temp_dir(), u64::MAX).unwrap_err();
        assert!(matches!(error, SpoolError::NoSpace { needed: u64::MAX, .. }), "{error:?}");
        let error = temporary(Path::new("/no/such/folder"), 1).unwrap_err();
        assert!(matches!(error, SpoolError::Create { .. }), "{error:?}");
    }
}
