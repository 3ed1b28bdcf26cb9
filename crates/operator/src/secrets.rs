//! Secrets of Kubernetes, as what they are for: credentials of stores, keys, certificates, users.
//!
//! Nothing of their content gets into an error, an event or a status: what is told are names of Secrets and of keys in them.

use crate::{
    api::{BackupStore, BackupStoreSpec, Cluster, SecretKey, StoreCredentials, Tls},
    context::Context,
    failure::Failure,
    files::Files,
};
use daemon::place::Place;
use etcd_live::{Identity, TlsOptions};
use k8s_openapi::api::core::v1;
use kube::{Api, Client};
use repository::{
    codec::{Bandwidth, Encoding, Identities, Recipients},
    retention::Policy,
    store::{Credentials, Secret, Store, StoreOptions},
};
use std::{collections::BTreeMap, path::Path, sync::PoisonError};

/// The keys under which a Secret may have the id of an access key, or the account's name.
const ACCESS_KEY_ID: [&str; 6] = [
    "access-key-id",
    "AWS_ACCESS_KEY_ID",
    "AZURE_STORAGE_ACCOUNT",
    "storage-account",
    "accessKeyID",
    "accessKeyId",
];

/// The same of the secret that belongs to it.
const SECRET_ACCESS_KEY: [&str; 6] = [
    "secret-access-key",
    "AWS_SECRET_ACCESS_KEY",
    "AZURE_STORAGE_KEY",
    "storage-key",
    "accessKeySecret",
    "secretAccessKey",
];

/// The same of a token.
const SESSION_TOKEN: [&str; 3] = ["session-token", "AWS_SESSION_TOKEN", "AZURE_STORAGE_SAS_TOKEN"];

/// The same of a service account's file.
const SERVICE_ACCOUNT: [&str; 4] =
    ["credentials.json", "service-account.json", "key.json", "credential-file"];

/// The content of a Secret.
pub struct Content {
    name: String,
    data: BTreeMap<String, Vec<u8>>,
}

impl Content {
    /// Reads a Secret.
    pub async fn read(context: &Context, namespace: &str, name: &str) -> Result<Self, Failure> {
        let secrets: Api<v1::Secret> = Api::namespaced(context.client.clone(), namespace);
        let Some(secret) = secrets.get_opt(name).await? else {
            return Err(Failure::settings(
                format!("there is no Secret {name:?} in namespace {namespace:?}"),
                "create it, or correct its name in the object",
            ));
        };
        let data = secret.data.unwrap_or_default();
        let data = data.into_iter().map(|(key, value)| (key, value.0)).collect();
        Ok(Self { name: name.to_owned(), data })
    }

    /// What a pod finds of a Secret that is mounted there: a file for each key.
    pub fn of_folder(folder: &Path) -> std::io::Result<Self> {
        let mut data = BTreeMap::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file()
                && let Some(key) = path.file_name().and_then(|name| name.to_str())
            {
                data.insert(key.to_owned(), std::fs::read(&path)?);
            }
        }
        Ok(Self { name: folder.display().to_string(), data })
    }

    /// The first of these keys that is there, and not empty, with its bytes.
    fn found<'a>(&self, keys: &[&'a str]) -> Option<(&'a str, &[u8])> {
        let found = keys.iter().find_map(|key| Some((*key, self.data.get(*key)?)));
        found.map(|(key, bytes)| (key, bytes.as_slice())).filter(|(_, bytes)| !bytes.is_empty())
    }

    /// Those bytes.
    fn bytes(&self, keys: &[&str]) -> Option<&[u8]> {
        self.found(keys).map(|(_, bytes)| bytes)
    }

    /// The text under the first of these keys, without the line's end that editors leave.
    pub(crate) fn text(&self, keys: &[&str]) -> Result<Option<String>, Failure> {
        let Some(bytes) = self.bytes(keys) else { return Ok(None) };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(_) => Err(Failure::settings(
                format!("{:?} in Secret {:?} is no text", keys[0], self.name),
                "write it as text",
            )),
        }
    }

    /// The same, where it must be.
    fn needed(&self, keys: &[&str]) -> Result<&[u8], Failure> {
        self.bytes(keys).ok_or_else(|| {
            let keys: Vec<_> = keys.iter().map(|key| format!("{key:?}")).collect();
            Failure::settings(
                format!("Secret {:?} has no {}", self.name, keys.join(" or ")),
                "add that key to the Secret",
            )
        })
    }
}

/// A store of that name: where it is, how to get in, how its objects are stored. Without private keys.
pub async fn place(context: &Context, namespace: &str, store: &str) -> Result<Place, Failure> {
    let found = self::store(context, namespace, store).await?;
    place_of(context, namespace, &found.spec).await
}

/// The same with the private keys that it names.
pub async fn place_to_read(
    context: &Context,
    namespace: &str,
    store: &str,
) -> Result<Place, Failure> {
    let found = self::store(context, namespace, store).await?;
    let mut place = place_of(context, namespace, &found.spec).await?;
    let encryption = found.spec.encryption.as_ref();
    if let Some(from) = encryption.and_then(|encryption| encryption.identities.as_ref()) {
        place.identities = identities(context, namespace, from).await?;
    }
    Ok(place)
}

/// The BackupStore of that name.
pub async fn store(
    context: &Context,
    namespace: &str,
    store: &str,
) -> Result<BackupStore, Failure> {
    store_of(&context.client, namespace, store).await
}

/// The same for who is no operator.
pub(crate) async fn store_of(
    client: &Client,
    namespace: &str,
    store: &str,
) -> Result<BackupStore, Failure> {
    let stores: Api<BackupStore> = Api::namespaced(client.clone(), namespace);
    stores.get_opt(store).await?.ok_or_else(|| Failure {
        reason: "StoreMissing",
        ..Failure::settings(
            format!("there is no BackupStore {store:?} in namespace {namespace:?}"),
            "create it, or correct the name of the store in the object's spec",
        )
    })
}

/// A store as its spec says, without private keys. Nothing of it is reached yet.
pub async fn place_of(
    context: &Context,
    namespace: &str,
    spec: &BackupStoreSpec,
) -> Result<Place, Failure> {
    context.settings.limits.check(spec)?;
    let access = access(context, namespace, spec).await?;
    let mut recipients = Recipients::none();
    if let Some(encryption) = &spec.encryption {
        for key in &encryption.recipients {
            recipients.add(key).map_err(|error| {
                Failure::of_setting("spec.encryption.recipients", &error, error.remedy())
            })?;
        }
    }
    let bandwidth = bandwidth(context, namespace, spec)?;
    let options = StoreOptions {
        settings: access.settings,
        credentials: access.credentials,
        ..StoreOptions::default()
    };
    let store = Store::open(&spec.url, &options)
        .map_err(|error| Failure::from(daemon::jobs::Failure::from(&error)))
        .map_err(|failure| failure.with_names_of(&context.files))?;
    Ok(Place {
        store,
        encoding: Encoding { level: spec.compression_level, recipients, bandwidth },
        may_expose: spec.unencrypted,
        identities: Identities::none(),
        retention: Policy::default(),
    })
}

/// A store's limit: one for all that write there.
fn bandwidth(
    context: &Context,
    namespace: &str,
    spec: &BackupStoreSpec,
) -> Result<Option<Bandwidth>, Failure> {
    let Some(limit) = &spec.bandwidth_limit else { return Ok(None) };
    let parsed: Bandwidth = limit.parse().map_err(|error| {
        Failure::of_setting("spec.bandwidthLimit", &error, "write it as 20MiB/s")
    })?;
    let key = (namespace.to_owned(), spec.url.clone(), limit.clone());
    let mut known = context.bandwidths.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Some(known.entry(key).or_insert(parsed).clone()))
}

/// What lets one into a store.
pub struct Access {
    /// The store's options.
    pub settings: BTreeMap<String, String>,
    /// Its credentials; none: the identity that the pod has.
    pub credentials: Option<Credentials>,
}

/// What a store's spec and its Secrets say of how to get in.
pub async fn access(
    context: &Context,
    namespace: &str,
    spec: &BackupStoreSpec,
) -> Result<Access, Failure> {
    let mut access = Access { settings: spec.options.clone(), credentials: None };
    if let Some(StoreCredentials { secret_name }) = &spec.credentials {
        let secret = Content::read(context, namespace, secret_name).await?;
        credentials(&context.files, &secret, &mut access)?;
    }
    if let Some(ca) = &spec.ca {
        let secret = Content::read(context, namespace, &ca.secret_name).await?;
        secret.needed(&[&ca.key])?;
        let path = file(&context.files, &secret, &[&ca.key])?;
        access.settings.extend(path.map(|path| ("ca".to_owned(), path)));
    }
    Ok(access)
}

/// Credentials, in whichever way the Secret has them.
pub fn credentials(files: &Files, secret: &Content, access: &mut Access) -> Result<(), Failure> {
    if let Some(json) = file(files, secret, &SERVICE_ACCOUNT)? {
        access.settings.insert("credential-file".to_owned(), json);
        return Ok(());
    }
    if let Some(config) = secret.text(&["config"])? {
        let profile = Profile::of(access);
        if let Some(region) = profile.get(&config, "region") {
            access.settings.entry("region".to_owned()).or_insert(region);
        }
    }
    let found = match secret.text(&["credentials"])? {
        Some(file) => {
            let profile = Profile::of(access);
            let found = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"]
                .map(|key| profile.get(&file, key));
            // It is read here; the store knows no file.
            access.settings.remove("profile");
            found
        }
        None => [
            secret.text(&ACCESS_KEY_ID)?,
            secret.text(&SECRET_ACCESS_KEY)?,
            secret.text(&SESSION_TOKEN)?,
        ],
    };
    let [id, key, token] = found;
    match (id, key, token) {
        (Some(access_key_id), Some(key), token) => {
            access.credentials = Some(Credentials {
                access_key_id,
                secret_access_key: Secret::new(key),
                session_token: token.map(Secret::new),
            });
            Ok(())
        }
        // A SAS token stands in for the account's key.
        (Some(access_key_id), None, Some(token)) => {
            access.credentials = Some(Credentials {
                access_key_id,
                secret_access_key: Secret::new(""),
                session_token: Some(Secret::new(token)),
            });
            Ok(())
        }
        _ => Err(Failure::settings(
            format!("Secret {:?} has no credentials of a store", secret.name),
            "give it `access-key-id` and `secret-access-key`, or `credentials` as in ~/.aws",
        )),
    }
}

/// A section of a file as in `~/.aws`.
struct Profile(String);

impl Profile {
    fn of(access: &Access) -> Self {
        Self(access.settings.get("profile").cloned().unwrap_or_else(|| "default".to_owned()))
    }

    /// What it says under `key`: `key = value` below `[profile]`, or `[profile name]` as `config` has it.
    fn get(&self, file: &str, key: &str) -> Option<String> {
        let mut is_ours = false;
        for line in file.lines().map(str::trim) {
            if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                let section = section.trim();
                is_ours = section.strip_prefix("profile ").unwrap_or(section).trim() == self.0;
            } else if let Some((found, value)) = line.split_once('=')
                && is_ours
                && found.trim() == key
            {
                return Some(value.trim().to_owned());
            }
        }
        None
    }
}

/// Keys that decrypt.
pub async fn identities(
    context: &Context,
    namespace: &str,
    from: &SecretKey,
) -> Result<Identities, Failure> {
    let secret = Content::read(context, namespace, &from.secret_name).await?;
    let text = secret.needed(&[&from.key])?;
    let text = String::from_utf8_lossy(text);
    let place = format!("{:?} in Secret {:?}", from.key, from.secret_name);
    let mut identities = Identities::none();
    let lines = text.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        identities.add(line, &place).map_err(|error| {
            Failure::of_setting("spec.encryption.identities", &error, error.remedy())
        })?;
    }
    Ok(identities)
}

/// Certificates for clients of a cluster's etcd.
pub async fn tls(context: &Context, namespace: &str, tls: &Tls) -> Result<TlsOptions, Failure> {
    tls_of(&context.files, &Content::read(context, namespace, &tls.secret_name).await?, tls)
}

/// The same of a Secret that was read.
pub fn tls_of(files: &Files, secret: &Content, tls: &Tls) -> Result<TlsOptions, Failure> {
    let file = |keys: &[&str]| file(files, secret, keys);
    let ca = file(&["ca.crt", "etcd-client-ca.crt"])?;
    let cert = file(&["tls.crt", "etcd-client.crt"])?;
    let key = file(&["tls.key", "etcd-client.key"])?;
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some(Identity { cert: cert.into(), key: key.into() }),
        (None, None) => None,
        (Some(_), None) => return Err(half(&secret.name, "a certificate without its key")),
        (None, Some(_)) => return Err(half(&secret.name, "a key without its certificate")),
    };
    if ca.is_none() && identity.is_none() {
        return Err(half(&secret.name, "neither an authority nor a certificate"));
    }
    Ok(TlsOptions {
        ca: ca.map(Into::into),
        identity,
        skip_verify: tls.insecure_skip_verify,
        server_name: tls.server_name.clone(),
    })
}

fn half(secret: &str, has: &str) -> Failure {
    Failure::settings(
        format!("Secret {secret:?} has {has}"),
        "give it `ca.crt`, `tls.crt` and `tls.key`, or `etcd-client-ca.crt`, `etcd-client.crt` and `etcd-client.key`",
    )
}

/// Who we are in a cluster that has users.
pub async fn user(
    context: &Context,
    namespace: &str,
    cluster: &Cluster,
) -> Result<Option<etcd_live::Credentials>, Failure> {
    let Some(name) = &cluster.auth_secret_name else { return Ok(None) };
    user_of(&Content::read(context, namespace, name).await?).map(Some)
}

/// The same of a Secret that was read.
pub fn user_of(secret: &Content) -> Result<etcd_live::Credentials, Failure> {
    secret.needed(&["username"])?;
    secret.needed(&["password"])?;
    let user = secret.text(&["username"])?.unwrap_or_default();
    let password = secret.text(&["password"])?.unwrap_or_default();
    Ok(etcd_live::Credentials { user, password })
}

/// A file with what is under one of these keys, if there is one.
fn file(files: &Files, secret: &Content, keys: &[&str]) -> Result<Option<String>, Failure> {
    let Some((key, content)) = secret.found(keys) else { return Ok(None) };
    let origin = format!("{key:?} in Secret {:?}", secret.name);
    let path = files.put(content, &origin).map_err(|error| Failure {
        reason: "Internal",
        ..Failure::of_setting(
            &format!("{origin} cannot be kept in memory"),
            &error,
            "see the limits of the operator's container",
        )
    })?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_in_both_of_the_files_that_aws_has() {
        let credentials = "[default]\naws_access_key_id = A\n\n[prod]\naws_access_key_id=B\n";
        let config = "[default]\nregion = r1\n[profile prod]\nregion = r2\n";
        let profile = |name: &str| Profile(name.to_owned());
        assert_eq!(profile("default").get(credentials, "aws_access_key_id").as_deref(), Some("A"));
        assert_eq!(profile("prod").get(credentials, "aws_access_key_id").as_deref(), Some("B"));
        assert_eq!(profile("prod").get(config, "region").as_deref(), Some("r2"));
        assert_eq!(profile("other").get(config, "region"), None);
    }
}
