//! Flags that all commands of the repository share.

use super::{encoding::usage, moment::Moment};
use crate::report::{Exit, Failure};
use daemon::Config;
use jiff::Timestamp;
use repository::{
    ClusterName, Manifest, Repository,
    codec::{Identities, SecretString},
    store::{Store, StoreOptions, WhileWaiting},
};
use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

/// Set on each argument, as a heading of the whole struct would go on to the arguments after it.
const HEADING: &str = "Repository";

/// Where backups lie, and the keys to them
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RepositoryArgs {
    /// Repository: a folder, a URL, or a name from the config file [env: LIFEBOAT_REPO]
    ///
    /// file:///PATH, s3://BUCKET/PREFIX, gcs://BUCKET/PREFIX, azblob://CONTAINER/PREFIX or
    /// oss://BUCKET/PREFIX. Options follow a question mark, as in
    /// `s3://backups/etcd?endpoint=https://s3.example.com&region=eu-1`; docs/stores.md lists them.
    /// Credentials come from each provider's usual places, never from the URL.
    #[arg(long, help_heading = HEADING, value_name = "URL")]
    pub(crate) repo: Option<String>,

    /// Config file that names clusters and repositories [env: LIFEBOAT_CONFIG]
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The keys that read encrypted backups
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct IdentityArgs {
    /// File with age identities, to read encrypted backups [env: LIFEBOAT_IDENTITY]
    ///
    /// It may itself be encrypted by a passphrase, which comes from --passphrase-file, from
    /// LIFEBOAT_PASSPHRASE, or is asked for on the terminal.
    #[arg(long = "identity", help_heading = HEADING, value_name = "FILE")]
    pub(crate) identities: Vec<PathBuf>,

    /// File whose first line is the passphrase of the identities [env: LIFEBOAT_PASSPHRASE_FILE]
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Which backups are meant
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Filter {
    /// Cluster; may be given several times [default: all in the repository] [env: LIFEBOAT_CLUSTER]
    #[arg(long = "cluster", value_name = "NAME")]
    pub(crate) clusters: Vec<ClusterName>,

    /// Only backups begun at that time or later: 2026-11-22T16:44:24Z, 2026-11-22, or 7d (so long ago)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,

    /// Only backups begun before that time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
}

/// A repository, and what messages call it.
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) store: Store,
    /// What the config file says of it, if it is named there.
    pub(crate) settings: Option<daemon::place::Place>,
}

impl RepositoryArgs {
    /// The repository that is meant.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        self.place_of(setting(self.repo.as_deref(), "LIFEBOAT_REPO").as_deref())
    }

    /// The same, as a repository that is there already.
    pub(crate) async fn open(&self) -> Result<Repository, Failure> {
        Ok(Repository::open(self.place()?.store).await?)
    }

    /// The repository of a URL, or of a name in the config file; the file's only one if nothing is said.
    pub(crate) fn place_of(&self, repo: Option<&str>) -> Result<Place, Failure> {
        let config = config(self.config.as_deref())?;
        let named = match (&config, repo) {
            (Some(config), Some(repo)) => {
                let named = config.repository(repo);
                // A plain word is a name that was mistyped, not a folder that is to be made here.
                if named.is_none() && !repo.contains(['/', '.']) {
                    return Err(unknown(repo, &config.repositories));
                }
                named
            }
            (Some(config), None) => match config.repositories.as_slice() {
                [only] => Some(only),
                several => return Err(which(several)),
            },
            (None, _) => None,
        };
        match (named, repo) {
            (Some(named), _) => configured(named),
            (None, Some(repo)) => place(repo),
            (None, None) => Err(usage(
                "no repository is given",
                "give --repo URL or set LIFEBOAT_REPO; a folder will do",
            )),
        }
    }
}

impl Place {
    /// What decrypts that backup: what the flags name, else what the config file does. Nothing is read, and no
    /// passphrase asked for, if it is not encrypted.
    pub(crate) fn identities(
        &self,
        args: &IdentityArgs,
        manifest: &Manifest,
    ) -> Result<Identities, Failure> {
        match manifest.encryption {
            Some(_) => self.configured_identities(args),
            None => Ok(Identities::none()),
        }
    }

    /// What decrypts any of its backups.
    pub(crate) fn configured_identities(&self, args: &IdentityArgs) -> Result<Identities, Failure> {
        let identities = args.read()?;
        match &self.settings {
            Some(settings) if identities.is_empty() => Ok(settings.identities.clone()),
            _ => Ok(identities),
        }
    }

    /// The same for several: what decrypts the first that is encrypted decrypts all.
    pub(crate) fn identities_of<'m>(
        &self,
        args: &IdentityArgs,
        manifests: impl IntoIterator<Item = &'m Manifest>,
    ) -> Result<Identities, Failure> {
        let encrypted = manifests.into_iter().find(|manifest| manifest.encryption.is_some());
        encrypted.map_or_else(|| Ok(Identities::none()), |manifest| self.identities(args, manifest))
    }
}

/// The config file, if there is one.
pub(crate) fn config(flag: Option<&Path>) -> Result<Option<Config>, Failure> {
    let file =
        flag.map(Path::to_owned).or_else(|| setting(None, "LIFEBOAT_CONFIG").map(PathBuf::from));
    Ok(file.map(|file| Config::load(&file)).transpose()?)
}

/// A repository of the config file.
pub(crate) fn configured(repository: &daemon::config::Repository) -> Result<Place, Failure> {
    let opened = daemon::place::Place::open(repository, waiting()).map_err(|error| {
        let message = format!("repository {} of the config file cannot be used", repository.name);
        Failure::caused(Exit::Usage, message, &*error, "correct its settings")
    })?;
    Ok(Place { name: repository.name.clone(), store: opened.store.clone(), settings: Some(opened) })
}

fn which(several: &[daemon::config::Repository]) -> Failure {
    let names: Vec<_> = several.iter().map(|repository| repository.name.as_str()).collect();
    usage(
        format!("the config file names several repositories: {}", names.join(", ")),
        "say which one is meant, with --repo",
    )
}

fn unknown(repo: &str, known: &[daemon::config::Repository]) -> Failure {
    let known: Vec<_> = known.iter().map(|repository| repository.name.as_str()).collect();
    usage(
        format!("the config file has no repository {repo}; it has: {}", known.join(", ")),
        format!("correct the name, or write ./{repo} if a folder is meant"),
    )
}

/// The repository of a URL.
pub(crate) fn place(repo: &str) -> Result<Place, Failure> {
    let options = StoreOptions { while_waiting: waiting(), ..StoreOptions::default() };
    let store = Store::open(repo, &options)?;
    Ok(Place { name: store.url().to_owned(), store, settings: None })
}

/// Says that a store is waited for.
fn waiting() -> WhileWaiting {
    WhileWaiting::tell(|waiting| say!("{waiting}"))
}

/// A setting from its flag, else from its variable; an empty variable counts as unset.
pub(crate) fn setting(flag: Option<&str>, variable: &str) -> Option<String> {
    flag.map(str::to_owned)
        .or_else(|| std::env::var(variable).ok().filter(|value| !value.is_empty()))
}

/// Where temporary files go.
pub(crate) fn spool_dir(
    flag: Option<&PathBuf>,
    repository: &RepositoryArgs,
) -> Result<PathBuf, Failure> {
    let config = config(repository.config.as_deref())?;
    Ok(flag.cloned().unwrap_or_else(|| daemon::place::spool(config.as_ref())))
}

impl IdentityArgs {
    /// Reads the identities; may ask for a passphrase on the terminal.
    pub(crate) fn read(&self) -> Result<Identities, Failure> {
        let mut files = self.identities.clone();
        if files.is_empty() {
            files.extend(setting(None, "LIFEBOAT_IDENTITY").map(PathBuf::from));
        }
        let mut identities = Identities::none();
        for file in files {
            identities.add_file(&file, |path| self.passphrase(path))?;
        }
        Ok(identities)
    }

    fn passphrase(&self, identity: &Path) -> io::Result<SecretString> {
        let file = self.passphrase_file.clone();
        if let Some(file) =
            file.or_else(|| setting(None, "LIFEBOAT_PASSPHRASE_FILE").map(PathBuf::from))
        {
            let text = std::fs::read_to_string(file)?;
            return Ok(text.lines().next().unwrap_or_default().to_owned().into());
        }
        if let Some(passphrase) = setting(None, "LIFEBOAT_PASSPHRASE") {
            return Ok(passphrase.into());
        }
        if !io::stdin().is_terminal() {
            return Err(io::Error::other("there is no terminal to ask for the passphrase"));
        }
        rpassword::prompt_password(format!("Passphrase of {}: ", identity.display()))
            .map(SecretString::from)
    }
}

impl Filter {
    /// The clusters that are meant: those that were named, else all.
    pub(crate) async fn clusters(
        &self,
        repository: &Repository,
    ) -> Result<Vec<ClusterName>, Failure> {
        let known = repository.clusters().await?;
        let mut named = self.clusters.clone();
        if named.is_empty() {
            named.extend(cluster_setting()?);
        }
        if named.is_empty() {
            return Ok(known);
        }
        match named.iter().find(|name| !known.contains(name)) {
            Some(unknown) => Err(no_such_cluster(repository, unknown, &known)),
            None => Ok(named),
        }
    }

    /// Whether a backup of that time is meant.
    pub(crate) fn covers(&self, started: Timestamp) -> bool {
        self.since.is_none_or(|since| started >= since.0)
            && self.until.is_none_or(|until| started < until.0)
    }
}

/// The cluster that the environment names.
pub(crate) fn cluster_setting() -> Result<Option<ClusterName>, Failure> {
    Ok(setting(None, "LIFEBOAT_CLUSTER").map(|name| name.parse()).transpose()?)
}

fn no_such_cluster(
    repository: &Repository,
    unknown: &ClusterName,
    known: &[ClusterName],
) -> Failure {
    let known: Vec<_> = known.iter().map(ClusterName::as_str).collect();
    let url = repository.store().url();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Failure::new(
        Exit::Failed,
        format!("{url} has no backups of cluster {unknown}; it has: {known}"),
        "check the name of the cluster, and the repository",
    )
}

/// The cluster that is named, or the only one that the repository has.
pub(crate) async fn one_cluster(
    repository: &Repository,
    named: Option<&ClusterName>,
) -> Result<ClusterName, Failure> {
    let clusters = repository.clusters().await?;
    if let Some(cluster) = named.cloned().map_or_else(cluster_setting, |named| Ok(Some(named)))? {
        return match clusters.contains(&cluster) {
            true => Ok(cluster),
            false => Err(no_such_cluster(repository, &cluster, &clusters)),
        };
    }
    match clusters.as_slice() {
        [cluster] => Ok(cluster.clone()),
        [] => Err(Failure::new(
            Exit::Failed,
            format!("{} has no backups", repository.store().url()),
            "make one with `lifeboat backup`",
        )),
        several => {
            let names: Vec<_> = several.iter().map(ClusterName::as_str).collect();
            Err(Failure::new(
                Exit::Usage,
                format!(
                    "{} has backups of several clusters: {}",
                    repository.store().url(),
                    names.join(", ")
                ),
                "say which one is meant, with --cluster",
            ))
        }
    }
}
