//! etcd's own config file (`--config-file`): YAML or JSON, whose names are those of the flags.
//!
//! ```yaml
//! name: m1
//! data-dir: /var/lib/etcd
//! initial-cluster: m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380
//! client-transport-security: {cert-file: /c.pem, key-file: /k.pem, trusted-ca-file: /ca.pem}
//! peer-transport-security: {cert-file: …}        # as --peer-cert-file
//! ```
//!
//! Only what says who and where a member is, is read; everything else may have any form.

use serde::Deserialize;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct FileError(Box<serde_saphyr::Error>);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    name: Option<String>,
    data_dir: Option<String>,
    wal_dir: Option<String>,
    initial_advertise_peer_urls: Option<String>,
    advertise_client_urls: Option<String>,
    listen_peer_urls: Option<String>,
    listen_client_urls: Option<String>,
    initial_cluster: Option<String>,
    initial_cluster_state: Option<String>,
    client_transport_security: Option<Security>,
    peer_transport_security: Option<Security>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Security {
    cert_file: Option<String>,
    key_file: Option<String>,
    trusted_ca_file: Option<String>,
    ca_file: Option<String>,
    auto_tls: Option<bool>,
}

/// Names of flags, and their values.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, FileError> {
    // An empty file, or one of comments only, sets nothing.
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(blank) {
        return Ok(Vec::new());
    }
    let file: File = serde_saphyr::from_str(text).map_err(|error| FileError(Box::new(error)))?;
    let plain = [
        ("name", file.name),
        ("data-dir", file.data_dir),
        ("wal-dir", file.wal_dir),
        ("initial-advertise-peer-urls", file.initial_advertise_peer_urls),
        ("advertise-client-urls", file.advertise_client_urls),
        ("listen-peer-urls", file.listen_peer_urls),
        ("listen-client-urls", file.listen_client_urls),
        ("initial-cluster", file.initial_cluster),
        ("initial-cluster-state", file.initial_cluster_state),
    ];
    let plain = plain.into_iter().map(|(name, value)| (name.to_owned(), value));
    let clients = file.client_transport_security.unwrap_or_default().flags("");
    let peers = file.peer_transport_security.unwrap_or_default().flags("peer-");
    let all = plain.chain(clients).chain(peers);
    Ok(all.filter_map(|(name, value)| Some((name, value?))).collect())
}

impl Security {
    fn flags(self, side: &str) -> impl Iterator<Item = (String, Option<String>)> {
        let flags = [
            ("cert-file", self.cert_file),
            ("key-file", self.key_file),
            ("trusted-ca-file", self.trusted_ca_file),
            ("ca-file", self.ca_file),
            ("auto-tls", self.auto_tls.map(|auto| auto.to_string())),
        ];
        flags.map(|(name, value)| (format!("{side}{name}"), value)).into_iter()
    }
}
