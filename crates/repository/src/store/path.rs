//! Which paths an object can have. Checked before any backend sees one, so that none can lead out of the root.

use super::StoreError;

/// Where a local store keeps what is not complete; no object's path begins so.
pub(super) const HIDDEN: &str = ".lifeboat-tmp";

/// What a remote store is tried with; not listed either.
pub(super) const PROBE: &str = ".lifeboat-probe";

/// The longest path of an object: S3 takes 1,024 bytes for the prefix of the repository and the path together.
const PATH_BYTES_MAX: usize = 900;

/// Checks the path of an object: plain parts, one `/` between them.
pub(super) fn check_path(path: &str) -> Result<(), StoreError> {
    let bad = |reason| Err(StoreError::BadPath { path: path.to_owned(), reason });
    if path.len() > PATH_BYTES_MAX {
        return bad("it is too long");
    }
    if path.contains(|c: char| c.is_control() || c == '\\') {
        return bad("it has a control character or a backslash");
    }
    for part in path.split('/') {
        match part {
            "" => return bad("it has an empty part"),
            "." | ".." => return bad("it has a part that is . or .."),
            _ if part.len() > 255 => return bad("it has a part of more than 255 bytes"),
            _ => {}
        }
    }
    if path.split('/').next().is_some_and(|first| first == HIDDEN || first == PROBE) {
        return bad("that name is the store's own");
    }
    Ok(())
}

/// Checks a prefix: `""`, or a path and `/`.
pub(super) fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    match prefix.strip_suffix('/') {
        Some(path) => check_path(path),
        None if prefix.is_empty() => Ok(()),
        None => Err(StoreError::BadPath {
            path: prefix.to_owned(),
            reason: "a prefix ends with a slash",
        }),
    }
}

/// A name that no other process takes.
pub(super) fn random_name() -> String {
    let mut bytes = [0u8; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    let got = rustix::rand::getrandom(&mut bytes, flags).expect("the kernel's generator is up");
    assert_eq!(got, bytes.len(), "16 bytes are given whole");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_and_prefixes_pass() {
        for path in ["lifeboat.json", "prod/snapshots/1-2/db.zst", ".probe", "a b/ü", "..."] {
            check_path(path).unwrap();
            check_prefix(&format!("{path}/")).unwrap();
        }
        check_prefix("").unwrap();
    }

    #[test]
    fn nothing_that_leads_elsewhere_passes() {
        let long = "a/".repeat(500) + "a";
        let wide = "a".repeat(256);
        for path in [
            "",
            "/",
            "/etc",
            "a//b",
            "a/",
            "..",
            "../a",
            "a/../b",
            "a/..",
            ".",
            "a/./b",
            "a\0b",
            "a\\b",
            "a\nb",
            ".lifeboat-tmp",
            ".lifeboat-tmp/x",
            &long,
            &wide,
        ] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        for prefix in ["a", "/", "../", "a//", ".lifeboat-tmp/"] {
            assert!(check_prefix(prefix).is_err(), "{prefix:?}");
        }
    }
}
