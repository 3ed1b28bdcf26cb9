//! How a pod gets into a store: its Secrets are mounted as folders.

use super::VolumeError;
use crate::{
    failure::Failure,
    files::Files,
    secrets::{self, Access, Content},
};
use repository::{
    codec::Identities,
    store::{Store, StoreOptions},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// A store, as a pod finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreAccess {
    /// Where it is.
    pub url: String,
    /// Its options.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The folder of the Secret with its credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// CA certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The keys that decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<PathBuf>,
}

impl StoreAccess {
    /// The store, and what decrypts what lies there. What must be a file is kept in `files`.
    pub fn open(&self, files: &Files) -> Result<(Store, Identities), VolumeError> {
        let mut access = Access { settings: self.options.clone(), credentials: None };
        if let Some(folder) = &self.credentials {
            let secret = Content::of_folder(folder).map_err(super::io_error("read", folder))?;
            secrets::credentials(files, &secret, &mut access)?;
        }
        if let Some(ca) = &self.ca {
            access.settings.insert("ca".to_owned(), ca.display().to_string());
        }
        let mut identities = Identities::none();
        if let Some(file) = &self.identities {
            let with_passphrase = |_: &Path| Err(io::Error::other("it has a passphrase"));
            identities.add_file(file, with_passphrase).map_err(|error| {
                Failure::of_setting("spec.encryption.identities", &error, error.remedy())
            })?;
        }
        let options = StoreOptions {
            settings: access.settings,
            credentials: access.credentials,
            ..StoreOptions::default()
        };
        let store = Store::open(&self.url, &options)
            .map_err(|error| Failure::from(daemon::jobs::Failure::from(&error)))?;
        Ok((store, identities))
    }
}

/// The store that has an object of that URL, and its path there.
pub fn of_object(url: &str) -> Option<(String, String)> {
    let (base, query) = url.split_once('?').map_or((url, ""), |(base, query)| (base, query));
    let (scheme, rest) = base.split_once("://")?;
    let (bucket, path) = rest.split_once('/').filter(|(_, path)| !path.is_empty())?;
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    Some((format!("{scheme}://{bucket}{query}"), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_of_an_object_keeps_the_options_of_its_url() {
        let (store, path) = of_object("s3://backups/a/b.db?region=r1").unwrap();
        assert_eq!((store.as_str(), path.as_str()), ("s3://backups?region=r1", "a/b.db"));
        assert_eq!(of_object("s3://backups"), None);
    }
}
