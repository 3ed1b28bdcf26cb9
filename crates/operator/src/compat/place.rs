//! Where a backup goes: from `s3`, `abs`, `gcs` or `oss` to a store.
//!
//! ```text
//!   path: bucket/prod/etcd.backup ──▶ s3://bucket/prod  +  etcd.backup, or etcd.backup_v1234_2026-11-23-06:00:00
//! ```
//!
//! The store is the file's own folder, so that credentials for that folder alone are enough.

use super::{in_field, invalid};
use crate::{
    api::coreos::{AbsSource, CoreosBackupSpec, GcsSource, OssSource, S3Source},
    context::Context,
    failure::Failure,
    secrets::{self, Access, Content},
};
use repository::store::{Store, StoreOptions};
use std::{collections::BTreeMap, net::IpAddr};

/// Where Alibaba's requests go if the object does not say it.
const OSS_ENDPOINT: &str = "https://oss-cn-hangzhou.aliyuncs.com";

/// The clouds of Azure as its libraries name them, and where blobs lie in each.
const AZURE_CLOUDS: [(&str, &str); 4] = [
    ("AzurePublicCloud", "core.windows.net"),
    ("AzureChinaCloud", "core.chinacloudapi.cn"),
    ("AzureGermanCloud", "core.cloudapi.de"),
    ("AzureUSGovernmentCloud", "core.usgovcloudapi.net"),
];

/// Where a backup goes. Nothing of it is reached yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The field of the spec that says it: `spec.s3`.
    pub field: &'static str,
    /// As the spec has it.
    pub path: String,
    /// The folder, as a store's URL.
    pub url: String,
    /// The file in it, without what an interval adds.
    pub file: String,
    options: BTreeMap<String, String>,
    /// The field that names the Secret, and what it names.
    secret: Option<(&'static str, String)>,
}

impl Place {
    /// What the spec says.
    pub(super) fn of(spec: &CoreosBackupSpec) -> Result<Self, Failure> {
        let missing = |field: &str| {
            invalid(
                format!("spec.storageType is {}, and spec.{field} is missing", spec.storage_type),
                format!("write spec.{field}, or the storageType that you mean"),
            )
        };
        match spec.storage_type.as_str() {
            "S3" => of_s3(spec.s3.as_ref().ok_or_else(|| missing("s3"))?),
            "ABS" => of_abs(spec.abs.as_ref().ok_or_else(|| missing("abs"))?),
            "GCS" => of_gcs(spec.gcs.as_ref().ok_or_else(|| missing("gcs"))?),
            "OSS" => of_oss(spec.oss.as_ref().ok_or_else(|| missing("oss"))?),
            other => Err(invalid(
                format!("spec.storageType is {other:?}"),
                "write S3, ABS, GCS or OSS, and the field of that name",
            )),
        }
    }

    fn new(field: &'static str, scheme: &str, path: &str) -> Result<Self, Failure> {
        let whole = path.split_once('/').filter(|(bucket, key)| {
            !bucket.is_empty()
                && key.split('/').all(|part| !matches!(part, "" | "." | ".."))
                && !key.contains(|c: char| c.is_control() || matches!(c, '?' | '#' | '\\'))
        });
        let Some((bucket, key)) = whole else {
            return Err(invalid(
                format!("{field}.path is {path:?}"),
                "write it as BUCKET/FILE or BUCKET/FOLDER/FILE, without ?, # and empty parts",
            ));
        };
        let (folder, file) = key.rsplit_once('/').unwrap_or(("", key));
        let slash = if folder.is_empty() { "" } else { "/" };
        Ok(Self {
            field,
            path: path.to_owned(),
            url: format!("{scheme}://{bucket}{slash}{folder}"),
            file: file.to_owned(),
            options: BTreeMap::new(),
            secret: None,
        })
    }

    fn bucket(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// The path of another file in the same folder, as the spec would have it.
    pub(super) fn path_of(&self, file: &str) -> String {
        let folder = &self.path[..self.path.len() - self.file.len()];
        format!("{folder}{file}")
    }

    fn option(mut self, name: &str, value: impl Into<String>) -> Self {
        self.options.insert(name.to_owned(), value.into());
        self
    }

    fn secret(mut self, field: &'static str, name: Option<&str>) -> Self {
        let name = name.filter(|name| !name.is_empty());
        self.secret = name.map(|name| (field, name.to_owned()));
        self
    }

    /// The store, with what its Secret says.
    pub(super) async fn open(&self, context: &Context, namespace: &str) -> Result<Store, Failure> {
        let has_credentials = self.secret.is_some();
        context.settings.limits.check_identity(has_credentials).map_err(in_field(self.field))?;
        let mut access = Access { settings: self.options.clone(), credentials: None };
        if let Some((field, name)) = &self.secret {
            let read = async {
                let secret = Content::read(context, namespace, name).await?;
                self.look_into(&secret, &mut access)?;
                secrets::credentials(&context.files, &secret, &mut access)
            };
            read.await.map_err(in_field(field))?;
        }
        self.check_region(&access)?;
        let options = StoreOptions {
            settings: access.settings,
            credentials: access.credentials,
            ..StoreOptions::default()
        };
        let opened = Store::open(&self.url, &options);
        opened
            .map_err(|error| Failure::from(daemon::jobs::Failure::from(&error)))
            .map_err(in_field(self.field))
    }

    /// What other Secrets have not.
    fn look_into(&self, secret: &Content, access: &mut Access) -> Result<(), Failure> {
        match self.field {
            "spec.abs" => {
                let account = secret.text(&["storage-account"])?.unwrap_or_default();
                if let Some(cloud) = secret.text(&["cloud"])? {
                    let endpoint = azure(&account, &cloud)?;
                    access.settings.insert("endpoint".to_owned(), endpoint);
                }
                Ok(())
            }
            "spec.gcs" if secret.text(&["credentials.json"])?.is_none() => Err(Failure::settings(
                "the Secret has no `credentials.json`",
                "put a service account's key there; an `access-token` is not taken, as it ends within an hour",
            )),
            _ => Ok(()),
        }
    }

    /// Said here, with the place where the CoreOS operator took it from.
    fn check_region(&self, access: &Access) -> Result<(), Failure> {
        let said = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
        let is_known = self.field != "spec.s3"
            || ["region", "endpoint"].iter().any(|name| access.settings.contains_key(*name))
            || said("AWS_REGION")
            || said("AWS_DEFAULT_REGION");
        match is_known {
            true => Ok(()),
            false => Err(Failure::settings(
                "the region of the bucket in spec.s3.path is not known",
                "write `region = …` below `[default]` into `config` of the Secret in spec.s3.awsSecret",
            )),
        }
    }
}

fn of_s3(s3: &S3Source) -> Result<Place, Failure> {
    let place = Place::new("spec.s3", "s3", &s3.path)?
        .secret("spec.s3.awsSecret", s3.aws_secret.as_deref());
    let endpoint = with_scheme(s3.endpoint.as_deref());
    // As AWS' library does it: no certificate has a name for such a bucket, and no address one for any.
    let plain = s3.force_path_style
        || place.bucket().contains('.')
        || endpoint.as_deref().is_some_and(is_address);
    let place = place.option("path-style", plain.to_string());
    Ok(match endpoint {
        Some(endpoint) => place.option("endpoint", endpoint),
        None => place,
    })
}

fn of_abs(abs: &AbsSource) -> Result<Place, Failure> {
    Ok(Place::new("spec.abs", "azblob", &abs.path)?
        .secret("spec.abs.absSecret", abs.abs_secret.as_deref()))
}

fn of_gcs(gcs: &GcsSource) -> Result<Place, Failure> {
    Ok(Place::new("spec.gcs", "gcs", &gcs.path)?
        .secret("spec.gcs.gcpSecret", gcs.gcp_secret.as_deref()))
}

fn of_oss(oss: &OssSource) -> Result<Place, Failure> {
    let endpoint = with_scheme(oss.endpoint.as_deref());
    let place = Place::new("spec.oss", "oss", &oss.path)?;
    let place = place.secret("spec.oss.ossSecret", oss.oss_secret.as_deref());
    Ok(place.option("endpoint", endpoint.unwrap_or_else(|| OSS_ENDPOINT.to_owned())))
}

/// An endpoint, if one is given; who means to send in the clear writes `http://`.
fn with_scheme(endpoint: Option<&str>) -> Option<String> {
    let endpoint = endpoint.map(str::trim).filter(|endpoint| !endpoint.is_empty())?;
    Some(match endpoint.contains("://") {
        true => endpoint.to_owned(),
        false => format!("https://{endpoint}"),
    })
}

fn is_address(endpoint: &str) -> bool {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.starts_with('[') || host == "localhost" || host.parse::<IpAddr>().is_ok()
}

/// Where the blobs of an account lie.
fn azure(account: &str, cloud: &str) -> Result<String, Failure> {
    let known = AZURE_CLOUDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(cloud));
    match known {
        Some((_, domain)) => Ok(format!("https://{account}.blob.{domain}")),
        None => Err(Failure::settings(
            "`cloud` in the Secret names no cloud of Azure",
            "write AzurePublicCloud, AzureChinaCloud, AzureGermanCloud or AzureUSGovernmentCloud",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn place(storage: &str, field: &str, source: Value) -> Result<Place, Failure> {
        let spec = json!({ "storageType": storage, field: source });
        Place::of(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn a_path_is_a_bucket_a_folder_and_a_file() {
        let at = |path: &str| {
            let place = place("S3", "s3", json!({ "path": path })).unwrap();
            (place.url.clone(), place.file.clone(), place.path_of("x"))
        };
        let is = |url: &str, file: &str, other: &str| (url.into(), file.into(), other.into());
        assert_eq!(at("bucket/etcd.backup"), is("s3://bucket", "etcd.backup", "bucket/x"));
        assert_eq!(at("b/a/c/etcd"), is("s3://b/a/c", "etcd", "b/a/c/x"));
        for bad in ["", "bucket", "bucket/", "/key", "b//k", "b/a/../k", "b/k?region=x", "b/k#x"] {
            let failure = place("S3", "s3", json!({ "path": bad })).unwrap_err();
            assert!(failure.message.starts_with("spec.s3.path is"), "{bad}: {failure}");
            assert!(!failure.retryable);
        }
    }

    #[test]
    fn every_storage_type_has_its_field_and_another_is_refused_by_name() {
        for (storage, field, url) in [
            ("S3", "s3", "s3://b/p"),
            ("ABS", "abs", "azblob://b/p"),
            ("GCS", "gcs", "gcs://b/p"),
            ("OSS", "oss", "oss://b/p"),
        ] {
            let found = place(storage, field, json!({ "path": "b/p/f" })).unwrap();
            assert_eq!((found.url.as_str(), found.file.as_str()), (url, "f"));
            let failure = place(storage, "other", json!({})).unwrap_err();
            let expected = format!("spec.storageType is {storage}, and spec.{field} is missing");
            assert_eq!(failure.message, expected);
        }
        let failure = place("s3", "s3", json!({ "path": "b/p" })).unwrap_err();
        assert!(failure.text().contains("\"s3\"; write S3, ABS, GCS or OSS"), "{failure}");
    }

    #[test]
    fn buckets_stand_where_the_library_of_aws_put_them() {
        for (endpoint, path, force, style) in [
            (None, "b/f", false, "false"),
            (None, "b/f", true, "true"),
            (None, "dotted.b/f", false, "true"),
            (Some("https://s3.example.com"), "b/f", false, "false"),
            (Some("http://10.0.0.1:9000"), "b/f", false, "true"),
            (Some("[::1]:9000"), "b/f", false, "true"),
        ] {
            let source = json!({ "path": path, "endpoint": endpoint, "forcePathStyle": force });
            let place = place("S3", "s3", source).unwrap();
            assert_eq!(place.options["path-style"], style, "{endpoint:?} {path} {force}");
        }
    }

    #[test]
    fn nothing_is_sent_in_the_clear_unless_that_is_written() {
        let endpoint = |storage: &str, field: &str, endpoint: &str| {
            let place = place(storage, field, json!({ "path": "b/f", "endpoint": endpoint }));
            place.unwrap().options.get("endpoint").cloned()
        };
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(endpoint("S3", "s3", ""), None);
        assert_eq!(endpoint("S3", "s3", "s3.example.com"), is("https://s3.example.com"));
        assert_eq!(endpoint("S3", "s3", "http://s3.example.com"), is("http://s3.example.com"));
        assert_eq!(endpoint("OSS", "oss", ""), is(OSS_ENDPOINT));
    }

    #[test]
    fn clouds_of_azure_go_by_the_names_of_its_libraries() {
        let china = azure("a", "AZURECHINACLOUD").unwrap();
        assert_eq!(china, "https://a.blob.core.chinacloudapi.cn");
        assert!(azure("a", "Moon").unwrap_err().text().contains("AzureUSGovernmentCloud"));
    }
}
