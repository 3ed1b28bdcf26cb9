//! Whether what is encrypted now can be decrypted with the keys that are here.
//!
//! Backups are made without private keys, so a wrong one is not noticed before the day of the restore. Comparing it with the
//! public ones needs no store.

use super::{Is, LOOK};
use crate::{api::BackupStore, context::Context, failure::Failure, secrets};

/// The condition.
pub(super) const DECRYPTABLE: &str = "Decryptable";

/// What is known of a store's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// Nothing is encrypted.
    NotNeeded,
    /// The private key is not in this cluster.
    Elsewhere,
    /// One of them opens what is encrypted now.
    Fit,
    /// None of them does.
    Unfit { secret: String, found: Vec<String> },
    /// They cannot be read.
    Unreadable(Failure),
}

impl Keys {
    /// Compares a store's recipients with the keys that it names.
    pub(super) async fn of(context: &Context, namespace: &str, store: &BackupStore) -> Self {
        let Some(encryption) = &store.spec.encryption else { return Self::NotNeeded };
        let Some(from) = &encryption.identities else { return Self::Elsewhere };
        match secrets::identities(context, namespace, from).await {
            Ok(identities) => Self::compare(
                &encryption.recipients,
                identities.recipients().keys(),
                &from.secret_name,
            ),
            Err(failure) => Self::Unreadable(failure),
        }
    }

    fn compare(recipients: &[String], found: Vec<String>, secret: &str) -> Self {
        match recipients.iter().any(|recipient| found.contains(recipient)) {
            true => Self::Fit,
            false => Self::Unfit { secret: secret.to_owned(), found },
        }
    }

    /// What the condition says; none where nothing is encrypted.
    pub(super) fn judged(&self) -> Option<(Is, &'static str, String)> {
        Some(match self {
            Self::NotNeeded => return None,
            Self::Elsewhere => (
                Is::Unknown,
                "KeyElsewhere",
                "no private key is named in spec.encryption.identities; a restore needs one"
                    .to_owned(),
            ),
            Self::Fit => {
                (Is::True, "KeyFits", "the private key opens what is encrypted now".to_owned())
            }
            Self::Unfit { secret, found } => {
                let found = match &found[..] {
                    [] => "no key".to_owned(),
                    found => format!("the private key of {}", found.join(", ")),
                };
                let text = format!(
                    "Secret {secret:?} has {found}, which is none of spec.encryption.recipients: what is backed up now cannot be restored with it; put the right private key there, or correct the recipients"
                );
                (Is::False, "KeyUnfit", text)
            }
            Self::Unreadable(failure) => {
                let text = format!(
                    "{}; backups need no private key, restores do; looked at again within {} minutes",
                    failure.text(),
                    LOOK.as_secs() / 60
                );
                (Is::False, "KeyMissing", text)
            }
        })
    }

    /// Whether nobody could restore with what is here, though it looks as if.
    pub(super) fn is_unfit(&self) -> bool {
        matches!(self, Self::Unfit { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_opens_nothing_of_now_is_told_of() {
        let (ours, theirs) = ("age1ours".to_owned(), "age1theirs".to_owned());
        let compare = |found: &[&String]| {
            let found = found.iter().map(|key| (*key).clone()).collect();
            Keys::compare(std::slice::from_ref(&ours), found, "keys")
        };
        assert_eq!(compare(&[&theirs, &ours]), Keys::Fit);
        let unfit = compare(&[&theirs]);
        let (is, reason, text) = unfit.judged().unwrap();
        assert_eq!((is, reason), (Is::False, "KeyUnfit"));
        assert!(text.contains("age1theirs") && text.contains("\"keys\""), "{text}");
        assert!(compare(&[]).is_unfit());
    }

    #[test]
    fn a_key_that_is_kept_elsewhere_is_no_fault() {
        assert_eq!(Keys::NotNeeded.judged(), None);
        assert_eq!(Keys::Elsewhere.judged().unwrap().0, Is::Unknown);
        let missing = Keys::Unreadable(Failure::settings("there is no Secret \"x\"", "create it"));
        let (is, reason, text) = missing.judged().unwrap();
        assert_eq!((is, reason), (Is::False, "KeyMissing"));
        assert!(text.contains("create it") && text.contains("backups need no"), "{text}");
    }
}
