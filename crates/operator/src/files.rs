//! Certificates and keys of Secrets, as files for those who read only files.
//!
//! ```text
//!   Secret ──put──▶ a file in memory without a name ──▶ /proc/self/fd/12, for this process alone
//! ```
//!
//! They are on no disk and in no folder: nothing is left of them when the process ends, however it does. One that nobody has asked
//! for in a day goes before: certificates are renewed, and their objects deleted.

use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Longer than a backup or a restore takes, each of which asks anew.
const UNUSED_MAX: Duration = Duration::from_secs(24 * 3600);

/// The files.
#[derive(Debug, Default)]
pub struct Files(Mutex<HashMap<Key, Kept>>);

/// The hash of what is in a file, and where that comes from.
type Key = ([u8; 32], String);

#[derive(Debug)]
struct Kept {
    file: File,
    used: Instant,
}

impl Kept {
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

impl Files {
    /// The path of a file with that content, which messages call `origin`: see [`named`](Self::named).
    pub fn put(&self, content: &[u8], origin: &str) -> io::Result<String> {
        let key = (Sha256::digest(content).into(), origin.to_owned());
        let now = Instant::now();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, kept| now.duration_since(kept.used) < UNUSED_MAX);
        if let Some(known) = kept.get_mut(&key) {
            known.used = now;
            return Ok(known.path());
        }
        let mut file = File::from(memfd_create("lifeboat-secret", MemfdFlags::CLOEXEC)?);
        file.write_all(content)?;
        let new = Kept { file, used: now };
        let path = new.path();
        kept.insert(key, new);
        Ok(path)
    }

    /// The same text with the origin of each file in place of its path, which says nothing to anybody.
    pub fn named(&self, text: &str) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> =
            kept.iter().map(|((_, origin), kept)| (kept.path(), origin)).collect();
        // 12 before 1.
        names.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        names.iter().fold(text.to_owned(), |text, (path, origin)| text.replace(path, origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_secret_can_be_read_by_its_path_and_is_in_no_folder() {
        let files = Files::default();
        let path = files.put(b"key", "\"tls.key\" in Secret \"a\"").unwrap();
        assert_eq!(files.put(b"key", "\"tls.key\" in Secret \"a\"").unwrap(), path);
        let other = files.put(b"other", "\"tls.key\" in Secret \"a\"").unwrap();
        assert_ne!(other, path);
        for _ in 0..2 {
            assert_eq!(std::fs::read(&path).unwrap(), b"key", "each reader begins at its begin");
        }
        let place = std::fs::read_link(&path).unwrap();
        assert!(place.to_string_lossy().starts_with("/memfd:lifeboat-secret"), "{place:?}");
    }

    #[test]
    fn messages_name_the_secret_in_place_of_the_file() {
        let files = Files::default();
        for n in 0..12 {
            files.put(format!("{n}").as_bytes(), &format!("<{n}>")).unwrap();
        }
        for n in 0..12 {
            let path = files.put(format!("{n}").as_bytes(), &format!("<{n}>")).unwrap();
            assert_eq!(files.named(&format!("{path} is torn")), format!("<{n}> is torn"));
        }
    }
}
