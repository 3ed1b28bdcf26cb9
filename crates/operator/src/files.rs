//! Certificates and keys of Secrets, as files for those who read only files.
//!
//! They lie in a folder that nobody else may enter, each under the hash of its content, and go with the process.

use sha2::{Digest, Sha256};
use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::{NamedTempFile, TempDir};

/// The folder.
#[derive(Debug)]
pub struct Files {
    folder: TempDir,
}

impl Files {
    /// An empty one, in `base`.
    pub fn new(base: &Path) -> io::Result<Self> {
        let mut folder = tempfile::Builder::new();
        folder.prefix("lifeboat-secrets-").permissions(Permissions::from_mode(0o700));
        Ok(Self { folder: folder.tempdir_in(base)? })
    }

    /// A file with that content. The same content is the same file.
    pub fn put(&self, content: &[u8]) -> io::Result<PathBuf> {
        let name: String = Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect();
        let path = self.folder.path().join(name);
        if !path.exists() {
            let mut file = NamedTempFile::new_in(self.folder.path())?;
            file.write_all(content)?;
            file.persist(&path).map_err(|failed| failed.error)?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_secret_is_for_its_owner_alone_and_goes_with_the_folder() {
        let base = tempfile::tempdir().unwrap();
        let files = Files::new(base.path()).unwrap();
        let path = files.put(b"key").unwrap();
        assert_eq!(files.put(b"key").unwrap(), path);
        assert_ne!(files.put(b"other").unwrap(), path);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(files);
        assert!(!path.exists());
    }
}
