//! What objects may have done with the operator's own means: its identity in a cloud, its files, its environment.
//!
//! | asked for | allowed |
//! | --- | --- |
//! | options of a store that name files or variables of the operator | never: Secrets are for that |
//! | a store of `file://` | below a folder that `--file-stores` names |
//! | a store without credentials | unless `--no-ambient-credentials` |

use crate::{api::BackupStoreSpec, failure::Failure};
use std::path::{Path, PathBuf};

/// What is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Whether stores without credentials are refused.
    pub no_ambient_credentials: bool,
    /// Where stores of `file://` may be.
    pub file_stores: Vec<PathBuf>,
}

/// Options that name what is the operator's, and what to do instead.
const ITS_OWN: [(&str, &str); 4] = [
    ("ca", "put the certificate into a Secret, and name that in spec.ca"),
    ("credential-file", "put the file into a Secret, and name that in spec.credentials"),
    ("sse-key-file", "leave it out; spec.encryption encrypts with keys of your own"),
    ("sse-key-env", "leave it out; spec.encryption encrypts with keys of your own"),
];

impl Limits {
    /// Refuses what a store may not ask for.
    pub fn check(&self, spec: &BackupStoreSpec) -> Result<(), Failure> {
        if let Some((option, instead)) =
            ITS_OWN.iter().find(|(option, _)| spec.options.contains_key(*option))
        {
            let text =
                format!("spec.options.{option} would name a file or a variable of the operator");
            return Err(refused(text, *instead));
        }
        if spec.url.starts_with("file:") {
            return self.check_folder(&spec.url);
        }
        let is_anonymous = spec.options.get("anonymous").is_some_and(|value| value == "true");
        self.check_identity(spec.credentials.is_some() || is_anonymous)
    }

    /// Refuses the operator's own identity, where it is needed and not to be used.
    pub fn check_identity(&self, has_credentials: bool) -> Result<(), Failure> {
        match has_credentials || !self.no_ambient_credentials {
            true => Ok(()),
            false => Err(refused(
                "the store has no credentials, and this operator lends nobody its own identity (--no-ambient-credentials)",
                "name a Secret in spec.credentials",
            )),
        }
    }

    fn check_folder(&self, url: &str) -> Result<(), Failure> {
        let path = url.strip_prefix("file://").map(Path::new).filter(|path| is_plain(path));
        let is_within =
            |path: &Path| self.file_stores.iter().any(|folder| path.starts_with(folder));
        match path.is_some_and(is_within) {
            true => Ok(()),
            false => Err(refused(
                format!("{url} is no folder that this operator keeps stores in"),
                "use a bucket, or have the operator started with --file-stores and that folder mounted",
            )),
        }
    }
}

/// Whether a path means what it looks like.
fn is_plain(path: &Path) -> bool {
    let text = path.to_string_lossy();
    path.is_absolute() && !text.contains('%') && !text.split('/').any(|part| part == "..")
}

fn refused(text: impl Into<String>, remedy: impl Into<String>) -> Failure {
    Failure { reason: "NotAllowed", ..Failure::settings(text, remedy) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(url: &str, more: serde_json::Value) -> BackupStoreSpec {
        let mut spec = json!({ "url": url });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn folders_of_the_operator_are_for_stores_only_where_it_was_told_so() {
        let limits = Limits { file_stores: vec!["/backups".into()], ..Limits::default() };
        let is_allowed = |url: &str| limits.check(&spec(url, json!({}))).is_ok();
        assert!(is_allowed("file:///backups/prod") && is_allowed("file:///backups"));
        for url in [
            "file:///spool",
            "file:///backups/../spool",
            "file:///backups-2",
            "file:///backups/%2e%2e/spool",
        ] {
            assert!(!is_allowed(url), "{url}");
        }
        assert!(Limits::default().check(&spec("file:///backups", json!({}))).is_err());
    }

    #[test]
    fn the_operators_identity_is_lent_unless_that_is_forbidden() {
        let limits = Limits { no_ambient_credentials: true, ..Limits::default() };
        let own = spec("s3://b", json!({}));
        assert!(Limits::default().check(&own).is_ok());
        assert!(limits.check(&own).unwrap_err().text().contains("spec.credentials"));
        let given = json!({ "credentials": { "secretName": "s" } });
        assert!(limits.check(&spec("s3://b", given)).is_ok());
        assert!(
            limits.check(&spec("s3://b", json!({ "options": { "anonymous": "true" } }))).is_ok()
        );
    }

    #[test]
    fn no_object_names_files_and_variables_of_the_operator() {
        for option in ["ca", "credential-file", "sse-key-file", "sse-key-env"] {
            let spec = spec("s3://b", json!({ "options": { option: "/var/run/x" } }));
            let failure = Limits::default().check(&spec).unwrap_err();
            assert!(failure.message.contains(option), "{failure:?}");
        }
    }
}
