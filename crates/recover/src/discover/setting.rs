//! Settings of one etcd, by etcd's own rules, each with the place it is from.
//!
//! ```text
//!   --config-file, or ETCD_CONFIG_FILE    it alone counts: flags and variables are then ignored
//!   else  --data-dir=/d                   a flag
//!   else  ETCD_DATA_DIR=/d                a variable, unless it is empty
//!   else  NAME.etcd                       etcd's default
//! ```
//!
//! As etcd 3.3 to 3.6 do it (`server/etcdmain/config.go`).

mod file;
mod flags;

pub(crate) use file::FileError;

use std::collections::BTreeMap;
use std::fmt;

/// A variable of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: String,
    /// Where it is set.
    pub(crate) from: String,
}

impl Variable {
    /// Reads `NAME=value`.
    pub(crate) fn parse(assignment: &str, from: &str) -> Option<Self> {
        let (name, value) = assignment.split_once('=')?;
        let plain = super::systemd::env_file::is_name(name);
        plain.then(|| Self {
            name: name.to_owned(),
            value: value.to_owned(),
            from: from.to_owned(),
        })
    }

    /// The one of that name that counts: the last.
    pub(crate) fn last<'a>(all: &'a [Self], name: &str) -> Option<&'a Self> {
        all.iter().rev().find(|variable| variable.name == name)
    }
}

/// Where a setting is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command that is written there.
    Flag(String),
    /// A variable that is set there.
    Variable(String),
    /// etcd's own config file of that path.
    File(String),
    /// etcd's default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(place) => write!(f, "flags in {place}"),
            Self::Variable(place) => write!(f, "variables in {place}"),
            Self::File(path) => write!(f, "{path}"),
            Self::Default => f.write_str("etcd's default"),
        }
    }
}

/// Files of TLS towards clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Certificate.
    pub(crate) cert: Option<String>,
    /// Its key.
    pub(crate) key: Option<String>,
    /// CA that is trusted.
    pub(crate) ca: Option<String>,
    /// Certificates that etcd makes for itself.
    pub(crate) auto: bool,
}

/// Why settings cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SettingError {
    /// etcd has a config file that was not read.
    #[error("etcd's config file {path} was not read")]
    NoFile {
        /// The file.
        path: String,
    },
    /// etcd's config file cannot be understood.
    #[error("etcd's config file {path} cannot be understood")]
    File {
        /// The file.
        path: String,
        /// Why not.
        source: FileError,
    },
}

/// All settings of one etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdConfig {
    set: BTreeMap<String, (String, Origin)>,
}

impl EtcdConfig {
    /// The settings of an etcd that is started with `arguments` (its own path not among them), written in
    /// `place`, and `variables`. `read` gives the texts of files.
    pub(crate) fn resolve(
        arguments: &[String],
        place: &str,
        variables: &[Variable],
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingError> {
        let flags = flags::parse(arguments);
        let variable = |flag: &str| {
            let name = format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"));
            Variable::last(variables, &name).filter(|variable| !variable.value.is_empty())
        };
        let flag = flags.iter().rev().find(|(name, _)| name == "config-file");
        let file = flag.map(|(_, path)| path).filter(|path| !path.is_empty());
        if let Some(path) = file.or_else(|| variable("config-file").map(|v| &v.value)) {
            return Self::from_file(path, read);
        }
        let mut set = BTreeMap::new();
        for variable in variables {
            let Some(name) = variable.name.strip_prefix("ETCD_") else { continue };
            let name = name.to_ascii_lowercase().replace('_', "-");
            if variable.value.is_empty() {
                // The last one counts, and an empty one is as good as none.
                set.remove(&name);
            } else {
                let origin = Origin::Variable(variable.from.clone());
                set.insert(name, (variable.value.clone(), origin));
            }
        }
        for (name, value) in flags {
            set.insert(name, (value, Origin::Flag(place.to_owned())));
        }
        Ok(Self { set })
    }

    fn from_file(path: &str, read: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let text = read(path).ok_or_else(|| SettingError::NoFile { path: path.to_owned() })?;
        let values = file::parse(&text)
            .map_err(|source| SettingError::File { path: path.to_owned(), source })?;
        let origin = Origin::File(path.to_owned());
        let set = values.into_iter().map(|(name, value)| (name, (value, origin.clone())));
        Ok(Self { set: set.collect() })
    }

    /// What a setting was set to, by the name of its flag.
    pub fn get(&self, flag: &str) -> Option<&str> {
        self.set.get(flag).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Where a setting is from.
    pub fn origin(&self, flag: &str) -> Origin {
        let set = self.set.get(flag).filter(|(value, _)| !value.is_empty());
        set.map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// The member's name.
    pub fn name(&self) -> &str {
        self.get("name").unwrap_or("default")
    }

    /// The data directory as etcd has it: perhaps relative to its working directory.
    pub fn data_dir(&self) -> String {
        self.get("data-dir").map_or_else(|| format!("{}.etcd", self.name()), str::to_owned)
    }

    /// The WAL directory, if it has one of its own.
    pub fn wal_dir(&self) -> Option<&str> {
        self.get("wal-dir")
    }

    /// Where it tells other members to reach it.
    pub fn peer_urls(&self) -> Vec<String> {
        urls(self.get("initial-advertise-peer-urls").unwrap_or("http://localhost:2380"))
    }

    /// Where it tells clients to reach it.
    pub fn client_urls(&self) -> Vec<String> {
        urls(self.get("advertise-client-urls").unwrap_or("http://localhost:2379"))
    }

    /// Names and peer URLs of the members that it was started with.
    pub fn initial_cluster(&self) -> Vec<(String, String)> {
        let pairs = self.get("initial-cluster").unwrap_or_default().split(',');
        pairs
            .filter_map(|pair| pair.trim().split_once('='))
            .map(|(name, url)| (name.trim().to_owned(), url.trim().to_owned()))
            .collect()
    }

    /// TLS towards clients.
    pub(crate) fn client_tls(&self) -> Tls {
        let path = |flag: &str| self.get(flag).map(str::to_owned);
        Tls {
            cert: path("cert-file"),
            key: path("key-file"),
            ca: path("trusted-ca-file").or_else(|| path("ca-file")),
            auto: self.get("auto-tls") == Some("true"),
        }
    }
}

fn urls(list: &str) -> Vec<String> {
    let urls = list.split(',').map(|url| url.trim().trim_end_matches('/').to_owned());
    urls.filter(|url| !url.is_empty()).collect()
}

#[cfg(test)]
mod tests;
