//! What the settings name, ready to use: repositories with their keys, and clusters.
//!
//! Nothing is reached yet; keys, credentials and certificates are read.

use crate::{
    config::{self, HashMismatch, Secret},
    serve::JobsError,
};
use backup::HashKvPolicy;
use etcd_live::{ConnectOptions, Connector, Credentials, Endpoint, Identity, TlsOptions};
use repository::{
    codec::{Encoding, Identities, Recipients, SecretString},
    retention::Policy,
    store::{self, Store, StoreOptions, WhileWaiting},
};
use std::path::PathBuf;

/// A repository of the settings.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where it is.
    pub store: Store,
    /// How objects are stored there.
    pub encoding: Encoding,
    /// Whether they may be stored open although those before are encrypted.
    pub may_expose: bool,
    /// What decrypts them.
    pub identities: Identities,
    /// What is kept there, unless a cluster says otherwise.
    pub retention: Policy,
}

impl Place {
    /// Reads what the repository's settings name. `while_waiting` hears of it when its store does not answer.
    pub fn open(
        repository: &config::Repository,
        while_waiting: WhileWaiting,
    ) -> Result<Self, JobsError> {
        let mut recipients = Recipients::none();
        for key in &repository.recipients {
            recipients.add(key)?;
        }
        let mut identities = Identities::none();
        for file in &repository.identities {
            identities.add_file(file, |_| passphrase(repository))?;
        }
        let bandwidth =
            repository.bandwidth_limit.as_ref().map(|limit| limit.parse()).transpose()?;
        let level = repository.compression_level;
        let credentials = credentials(repository)?;
        let settings = repository.options.clone();
        let options = StoreOptions { settings, credentials, while_waiting };
        Ok(Self {
            store: Store::open(&repository.url, &options)?,
            encoding: Encoding { level, recipients, bandwidth },
            may_expose: repository.unencrypted,
            identities,
            retention: repository.retention.clone(),
        })
    }
}

fn passphrase(repository: &config::Repository) -> std::io::Result<SecretString> {
    let Some(file) = &repository.passphrase_file else {
        let missing = "the identity has a passphrase, and passphrase-file is not set";
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, missing));
    };
    Ok(SecretString::from(Secret::read(file)?.reveal().to_owned()))
}

/// The names in `credential-files`.
pub(crate) const CREDENTIALS: [&str; 3] = ["access-key-id", "secret-access-key", "session-token"];

fn credentials(repository: &config::Repository) -> Result<Option<store::Credentials>, JobsError> {
    let secret =
        |name: &str| repository.credential_files.get(name).map(|f| Secret::read(f)).transpose();
    let [id, key, token] = CREDENTIALS.map(secret);
    let (id, key, token) = (id?, key?, token?);
    let Some((id, key)) = id.zip(key) else { return Ok(None) };
    let hidden = |secret: &Secret| store::Secret::new(secret.reveal());
    Ok(Some(store::Credentials {
        access_key_id: id.reveal().to_owned(),
        secret_access_key: hidden(&key),
        session_token: token.as_ref().map(hidden),
    }))
}

/// How to reach a cluster. Passwords and certificates are read anew for each backup, as they are renewed.
pub fn source(cluster: &config::Cluster) -> Result<backup::Source, JobsError> {
    let credentials = match (&cluster.user, &cluster.password_file) {
        (Some(user), Some(file)) => {
            let password = Secret::read(file)?;
            Some(Credentials { user: user.clone(), password: password.reveal().to_owned() })
        }
        _ => None,
    };
    let tls = &cluster.tls;
    let identity = tls.cert.clone().zip(tls.key.clone());
    let options = ConnectOptions {
        tls: TlsOptions {
            ca: tls.ca.clone(),
            identity: identity.map(|(cert, key)| Identity { cert, key }),
            skip_verify: tls.insecure_skip_verify,
            server_name: tls.server_name.clone(),
        },
        credentials,
        ..ConnectOptions::unattended()
    };
    let endpoints = cluster.endpoints.iter().map(|text| text.parse::<Endpoint>());
    let endpoints = endpoints.collect::<Result<_, _>>()?;
    Ok(backup::Source::Live { connector: Connector::new(options)?, endpoints })
}

/// Where temporary files go: `LIFEBOAT_SPOOL_DIR`, else what the settings say, else the system's folder for them.
pub fn spool(config: Option<&config::Config>) -> PathBuf {
    let named = std::env::var_os("LIFEBOAT_SPOOL_DIR").filter(|folder| !folder.is_empty());
    let named = named.map(PathBuf::from).or_else(|| config.and_then(|config| config.spool.clone()));
    named.unwrap_or_else(std::env::temp_dir)
}

/// How a cluster is backed up, as far as its settings say.
pub fn options(cluster: &config::Cluster, spool_dir: PathBuf) -> backup::Options {
    backup::Options {
        spool_dir,
        hash_kv: match cluster.hash_mismatch {
            HashMismatch::Warn => HashKvPolicy::Warn,
            HashMismatch::Fail => HashKvPolicy::Fail,
        },
        include: cluster.include.clone(),
        include_plain: cluster.include_unencrypted,
        ..backup::Options::default()
    }
}
