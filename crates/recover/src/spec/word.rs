//! Words of the file that have a form of their own. What is read is right, so whatever reads the file refuses the same things, with
//! line and field, before a host is reached.

use restore::TargetVersion;
use std::{fmt, ops::Deref};

/// As long as a cluster's name may be in a repository.
const CLUSTER_NAME_BYTES_MAX: usize = 63;
/// What makes a folder a repository; a cluster's folder there cannot have that name.
const MARKER: &str = "lifeboat.json";

/// Why a word is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordError {
    /// Not a cluster's name.
    #[error(
        "{0:?} cannot name a cluster: use 1 to {CLUSTER_NAME_BYTES_MAX} letters, digits, '.', '_' or '-', beginning with a letter or digit"
    )]
    Cluster(String),
    /// Not an owner.
    #[error(
        "{0:?} is no owner: write USER or USER:GROUP, as names of letters, digits, '.', '_' or '-', or as numbers"
    )]
    Owner(String),
    /// Not a version of etcd that data can be made for.
    #[error("etcd {0:?} is not known here: write '3.4', '3.5' or '3.6'")]
    Version(String),
}

/// A text that has passed a check.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $is_right:ident, $error:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = WordError;

            fn try_from(text: String) -> Result<Self, WordError> {
                if $is_right(&text) { Ok(Self(text)) } else { Err(WordError::$error(text)) }
            }
        }

        impl std::str::FromStr for $name {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, WordError> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl PartialEq<$name> for &str {
            fn eq(&self, other: &$name) -> bool {
                *self == other.0
            }
        }
    };
}

word!(
    /// A cluster's name: what is typed before anything is stopped, names its folder in a repository, and files here.
    ClusterName, is_cluster_name, Cluster
);
word!(
    /// `USER` or `USER:GROUP`, as `chown` has it.
    Owner, is_owner, Owner
);
word!(
    /// A version of etcd that data can be made for.
    EtcdVersion, is_version, Version
);

/// What a cluster is called that nobody has named.
impl Default for ClusterName {
    fn default() -> Self {
        Self("etcd".to_owned())
    }
}

fn is_cluster_name(text: &str) -> bool {
    let follows = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    text.len() <= CLUSTER_NAME_BYTES_MAX
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(follows)
        && text != MARKER
}

fn is_owner(text: &str) -> bool {
    let mut parts = text.split(':');
    let right = (&mut parts).take(2).all(is_user);
    right && parts.next().is_none()
}

/// A user's or a group's name by POSIX, or a number.
pub(super) fn is_user(text: &str) -> bool {
    let follows = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let name = text.bytes().next().is_some_and(|b| b != b'-') && text.bytes().all(follows);
    let is_number = text.bytes().next().is_some_and(|b| b.is_ascii_digit());
    name && (!is_number || text.parse::<u32>().is_ok())
}

fn is_version(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain && TargetVersion::of_release(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_what_it_says_or_is_refused() {
        let right = |text: &str| {
            (
                text.parse::<ClusterName>().is_ok(),
                text.parse::<Owner>().is_ok(),
                text.parse::<EtcdVersion>().is_ok(),
            )
        };
        for name in ["prod", "k8s.eu-1_a"] {
            assert_eq!(right(name), (true, true, false), "{name}");
        }
        for owner in ["etcd:etcd", "0:0", "_etcd:etcd-1.a", "65534:nogroup"] {
            assert_eq!(right(owner), (false, true, false), "{owner}");
        }
        for version in ["3.4", "3.5.16", "3.6"] {
            assert_eq!(right(version), (true, false, true), "{version}");
        }
        for wrong in
            ["", " ", "pr od", "pr od/../x", "-x", "etcd:", ":etcd", "a:b:c", "a b;c", "$(id)", "ä"]
        {
            assert_eq!(right(wrong), (false, false, false), "{wrong}");
        }
        for version in ["3.7", "3.40", "4.0", "2.3"] {
            assert!(!right(version).2, "{version}");
        }
    }
}
