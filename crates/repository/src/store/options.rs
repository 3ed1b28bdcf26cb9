//! How a store is named, and what may be said about it besides.
//!
//! ```text
//!   /var/backups/etcd    file:///var/backups/etcd                       a folder
//!   s3://bucket/prefix?endpoint=https://s3.example.com:9000&region=eu-1&ca=/etc/ca.pem
//!   gcs://bucket/prefix  gs://bucket/prefix  azblob://container/prefix?account=NAME  oss://bucket/prefix?endpoint=…
//! ```
//!
//! | setting | stores | meaning |
//! | --- | --- | --- |
//! | `endpoint` | all but file | where requests go; `http://` must be written out. Default: the provider's own |
//! | `ca` | all but file | PEM file of one more trusted authority |
//! | `timeout` | all but file | seconds until a silent store counts as gone; default 60 |
//! | `retries` | all but file | how often a request is tried again; default 5, and no longer than 10 s in a store that never answered |
//! | `anonymous` | all but file | `true`: requests are not signed |
//! | `region` | s3 | default: `AWS_REGION`, `AWS_DEFAULT_REGION`, at an endpoint of one's own `us-east-1` |
//! | `path-style` | s3, oss | `true`: the bucket stands in the path. Default at an endpoint of one's own |
//! | `sse` | s3, oss | encryption at rest: `aes256`, `kms`, or `customer` with a key of one's own (s3) |
//! | `sse-kms-key` | s3, oss | which key, with `sse=kms` |
//! | `sse-key-file` | s3 | file of the key (32 bytes or their base64), with `sse=customer` |
//! | `sse-key-env` | s3 | variable that holds the key's base64, with `sse=customer` |
//! | `storage-class` | s3, gcs | of new objects |
//! | `checksum` | s3 | `crc32c` or `md5`: send it with each part. Default none, as some stores refuse it |
//! | `profile`, `role-arn`, `external-id` | s3 (`role-arn` also oss) | whose credentials are used |
//! | `credential-file` | gcs | a service account's JSON |
//! | `account` | azblob | the storage account; default `AZURE_STORAGE_ACCOUNT` |
//!
//! Settings stand in the URL's query or in [`StoreOptions`]; the URL wins. A setting that a store has not is refused.
//! Secrets stand in neither: they come from the provider's standard chain or from [`StoreOptions::credentials`].

use super::{StoreError, WhileWaiting, path::check_path};
use std::{collections::BTreeMap, fmt, path::PathBuf};

/// What is known of a store besides its URL.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// Settings by their name in the URL's query, which wins.
    pub settings: BTreeMap<String, String>,
    /// Credentials to be used instead of those of the provider's standard chain.
    pub credentials: Option<Credentials>,
    /// Who is told when the store does not answer and is waited for.
    pub while_waiting: WhileWaiting,
}

/// Credentials from the config file.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The access key's id; of azblob the account's name.
    pub access_key_id: String,
    /// The secret that belongs to it; of azblob the account's key.
    pub secret_access_key: Secret,
    /// The session's token, if they are temporary; of azblob a SAS token.
    pub session_token: Option<Secret>,
}

/// A text that is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `secret`.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The text, for who needs it to sign.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Which kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    S3,
    Gcs,
    Azblob,
    Oss,
}

impl Kind {
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azblob => "azblob",
            Self::Oss => "oss",
        }
    }

    /// What can be set.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &[
                "region",
                "path-style",
                "sse",
                "sse-kms-key",
                "sse-key-file",
                "sse-key-env",
                "storage-class",
                "checksum",
                "profile",
                "role-arn",
                "external-id",
            ],
            Self::Gcs => &["storage-class", "credential-file"],
            Self::Azblob => &["account"],
            Self::Oss => &["path-style", "sse", "sse-kms-key", "role-arn"],
        }
    }
}

/// What every remote store can be told.
const COMMON_SETTINGS: [&str; 5] = ["endpoint", "ca", "timeout", "retries", "anonymous"];

/// A store's URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Folder(PathBuf),
    Remote(RemoteLocation),
}

/// A bucket, a prefix in it, and the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteLocation {
    pub(super) kind: Kind,
    pub(super) bucket: String,
    /// Without slashes around it; may be empty.
    pub(super) prefix: String,
    settings: BTreeMap<String, String>,
}

impl Location {
    /// Takes `url` apart and checks that its store has all these settings.
    pub(super) fn parse(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Self::folder(url, PathBuf::from(url), options);
        };
        let kind = match scheme {
            "file" => {
                let path = url::Url::parse(url).ok().and_then(|url| {
                    let is_plain =
                        url.query().is_none() && url.fragment().is_none() && rest.starts_with('/');
                    is_plain.then(|| url.to_file_path().ok()).flatten()
                });
                let path = path.ok_or_else(|| {
                    bad_url(url, "file:// takes an absolute path and nothing else")
                })?;
                return Self::folder(url, path, options);
            }
            "s3" => Kind::S3,
            "gcs" | "gs" => Kind::Gcs,
            "azblob" => Kind::Azblob,
            "oss" => Kind::Oss,
            _ => return Err(bad_url(url, "it begins with none of file, s3, gcs, azblob, oss")),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.contains(['@', ':']) {
            return Err(bad_url(url, "credentials and ports do not belong into it"));
        }
        let is_bucket = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '$');
        if bucket.is_empty() || !bucket.chars().all(is_bucket) {
            return Err(bad_url(url, "it names no bucket"));
        }
        let prefix = prefix.trim_matches('/');
        if !prefix.is_empty() && check_path(prefix).is_err() || prefix.contains('#') {
            return Err(bad_url(url, "that is no prefix"));
        }
        let mut settings = options.settings.clone();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            settings.insert(name.into_owned(), value.into_owned());
        }
        let location =
            RemoteLocation { kind, bucket: bucket.to_owned(), prefix: prefix.to_owned(), settings };
        location.check()?;
        Ok(Self::Remote(location))
    }

    fn folder(url: &str, path: PathBuf, options: &StoreOptions) -> Result<Self, StoreError> {
        if path.as_os_str().is_empty() {
            return Err(bad_url(url, "it is empty"));
        }
        if path.iter().any(|part| part == "~") {
            return Err(bad_url(
                url,
                "only a shell knows ~, and not inside of a word: write the folder out",
            ));
        }
        match options.settings.keys().next() {
            None => Ok(Self::Folder(path)),
            Some(option) => Err(StoreError::BadOption {
                url: url.to_owned(),
                option: option.clone(),
                reason: "a folder has no settings".to_owned(),
            }),
        }
    }
}

impl RemoteLocation {
    /// How the store is called in messages.
    pub(super) fn url(&self) -> String {
        let Self { kind, bucket, prefix, .. } = self;
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("{}://{bucket}{slash}{prefix}", kind.scheme())
    }

    /// A setting, if it is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(
            COMMON_SETTINGS.contains(&name) || self.kind.settings().contains(&name),
            "{name} is not a setting of {:?}",
            self.kind
        );
        self.settings.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A setting that is `true` or `false`.
    #[cfg(any(feature = "buckets", test))]
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, StoreError> {
        match self.get(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.bad(name, "it is true or false")),
        }
    }

    /// A setting that is a number.
    #[cfg(any(feature = "buckets", test))]
    pub(super) fn number(&self, name: &str, default: u32, max: u32) -> Result<u32, StoreError> {
        match self.get(name).map(str::parse) {
            None => Ok(default),
            Some(Ok(number)) if number <= max => Ok(number),
            Some(_) => Err(self.bad(name, format!("it is a number up to {max}"))),
        }
    }

    /// The complaint about a setting. The value is not repeated: it could be a secret in the wrong place.
    pub(super) fn bad(&self, name: &str, reason: impl Into<String>) -> StoreError {
        StoreError::BadOption { url: self.url(), option: name.to_owned(), reason: reason.into() }
    }

    fn check(&self) -> Result<(), StoreError> {
        for name in self.settings.keys() {
            if !COMMON_SETTINGS.contains(&name.as_str())
                && !self.kind.settings().contains(&name.as_str())
            {
                return Err(self.bad(name, format!("{} has no such setting", self.kind.scheme())));
            }
        }
        if let Some(endpoint) = self.get("endpoint") {
            self.check_endpoint("endpoint", endpoint)?;
        }
        Ok(())
    }

    /// An endpoint is a plain `http://` or `https://` URL, so that who sends in the clear has said so.
    pub(super) fn check_endpoint(&self, name: &str, endpoint: &str) -> Result<(), StoreError> {
        let url = url::Url::parse(endpoint).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(url) = url else {
            return Err(self.bad(name, "it begins with https:// or http://, and names a host"));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.bad(name, "credentials do not belong into it"));
        }
        match url.query().is_some() || url.fragment().is_some() {
            true => Err(self.bad(name, "it has a query or a fragment")),
            false => Ok(()),
        }
    }
}

/// The complaint about a URL, of which only what cannot be secret is repeated.
fn bad_url(url: &str, reason: &str) -> StoreError {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let plain = match plain.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}/{path}")
        }
        None => plain.to_owned(),
    };
    StoreError::BadUrl { url: plain, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Location, StoreError> {
        Location::parse(url, &StoreOptions::default())
    }

    fn remote(url: &str) -> RemoteLocation {
        match parse(url).unwrap() {
            Location::Remote(location) => location,
            Location::Folder(path) => panic!("{url} is the folder {}", path.display()),
        }
    }

    #[test]
    fn folders_are_plain_paths_or_file_urls() {
        for (url, path) in [
            ("/var/backups", "/var/backups"),
            ("backups", "backups"),
            ("file:///var/backups", "/var/backups"),
            ("file:///with%20space", "/with space"),
        ] {
            assert_eq!(parse(url).unwrap(), Location::Folder(path.into()), "{url}");
        }
        for url in [
            "",
            "~/backups",
            "file:///~/backups",
            "file://",
            "file://host/path",
            "file:///path?endpoint=x",
            "file:relative://x",
        ] {
            assert!(matches!(parse(url), Err(StoreError::BadUrl { .. })), "{url:?}");
        }
    }

    #[test]
    fn a_bucket_has_a_prefix_and_settings() {
        let store =
            remote("s3://Some.Bucket_1/a/b/?endpoint=http://127.0.0.1:1&region=x&path-style=true");
        assert_eq!(
            (store.kind, &*store.bucket, &*store.prefix),
            (Kind::S3, "Some.Bucket_1", "a/b")
        );
        assert_eq!(store.get("endpoint"), Some("http://127.0.0.1:1"));
        assert_eq!(store.flag("path-style").unwrap(), Some(true));
        assert_eq!(store.url(), "s3://Some.Bucket_1/a/b");
        assert_eq!(remote("gs://bucket").kind, Kind::Gcs);
        assert_eq!(remote("gcs://bucket").url(), "gcs://bucket");
        assert_eq!(remote("azblob://container/x?account=a").get("account"), Some("a"));
        assert_eq!(remote("oss://bucket?endpoint=https://oss-x.aliyuncs.com").kind, Kind::Oss);
    }

    #[test]
    fn the_url_wins_over_the_options() {
        let settings = [("region", "options"), ("ca", "/ca")];
        let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let options = StoreOptions { settings, ..StoreOptions::default() };
        let Location::Remote(store) = Location::parse("s3://b?region=url", &options).unwrap()
        else {
            panic!("not a bucket")
        };
        assert_eq!((store.get("region"), store.get("ca")), (Some("url"), Some("/ca")));
        assert!(matches!(Location::parse("/folder", &options), Err(StoreError::BadOption { .. })));
    }

    #[test]
    fn what_is_wrong_is_refused_and_no_secret_repeated() {
        for url in [
            "s3://",
            "s3:///prefix",
            "s3://user:hunter2@bucket/x",
            "s3://bucket:80/x",
            "s3://b/../c",
            "s3://b/a//c",
            "s3://b/x#y",
            "ftp://b/x",
            "http://user:hunter2@host/b",
            "s3://b?secret=hunter2",
            "s3://b?secret_access_key=hunter2",
            "gcs://b?region=x",
            "s3://b?account=x",
            "s3://b?endpoint=s3.example.com",
            "s3://b?endpoint=https://u:hunter2@h",
            "s3://b?endpoint=https://h/?x",
        ] {
            let error = parse(url).unwrap_err();
            assert!(
                matches!(error, StoreError::BadUrl { .. } | StoreError::BadOption { .. }),
                "{url}: {error}"
            );
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let store = remote("s3://b?path-style=hunter2&retries=hunter2");
        assert!(!store.flag("path-style").unwrap_err().to_string().contains("hunter2"));
        assert!(!store.number("retries", 1, 9).unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn secrets_are_not_printed() {
        let credentials = Credentials {
            access_key_id: "id".into(),
            secret_access_key: Secret::new("hunter2"),
            session_token: Some(Secret::new("hunter2")),
        };
        let options = StoreOptions { credentials: Some(credentials), ..StoreOptions::default() };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
