//! `backup`: one verified backup into one repository or several.

use super::{
    args::{IdentityArgs, Place, cluster_setting, config, configured, place, setting},
    encoding::{EncodingArgs, usage, warn_unencrypted},
    events::Show,
};
use crate::{
    cli::Context,
    interrupt::Interrupt,
    output::{self, Format, humanize_bytes},
    report::{Exit, Failure},
};
use backup::{HashKvPolicy, Job, Options, Report, Source, Target, TargetReport};
use daemon::{Config, config::Span};
use etcd_live::Connector;
use repository::{ClusterName, Manifest, codec::Identities, lease::Terms};
use serde::Serialize;
use snapshot::{DigestRule, StoppedMember, UseLog};
use std::{
    collections::BTreeSet,
    io::Read,
    path::{Path, PathBuf},
};

/// Enough of a file to see whether age has encrypted it.
const AGE_HEAD_BYTES: u64 = 32;

/// Make one verified backup of a cluster
///
/// The snapshot is compressed, encrypted and sent to the repository while it
/// arrives. It becomes a backup when its digest, every page and every record were
/// proved, and the members were compared with it; until then the repository has
/// none. A repository that is not there is made.
///
/// With several --repo, each gets the backup, and one that fails does not keep
/// the others from it; the exit code is then not 0.
///
/// Examples:
///   lifeboat backup --repo /var/backups/etcd --cluster prod \
///       --endpoints https://10.0.0.1:2379
///   lifeboat backup --repo s3://backups/etcd --cluster prod --recipient age1… \
///       --include /etc/kubernetes/pki
///   lifeboat backup --repo /var/backups/etcd --cluster prod \
///       --from-data-dir /var/lib/etcd
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BackupArgs {
    /// Name of the cluster in the repository [env: LIFEBOAT_CLUSTER]
    ///
    /// With --config, the clusters of that file that are meant [default: all of them].
    #[arg(long = "cluster", value_name = "NAME")]
    clusters: Vec<ClusterName>,

    /// Repository: a folder or a URL; may be given several times [env: LIFEBOAT_REPO]
    #[arg(long = "repo", value_name = "URL")]
    repos: Vec<String>,

    /// The daemon's file: back up the clusters that it names, as it says [env: LIFEBOAT_CONFIG]
    ///
    /// With --repo, only into that repository of the file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Take this snapshot file, also of another tool's making, instead of a live cluster's
    #[arg(long, value_name = "FILE", conflicts_with = "from_data_dir")]
    from_file: Option<PathBuf>,

    /// Accept a --from-file without a digest, such as a copied `db`; pages and records are checked all the same
    #[arg(long, requires = "from_file")]
    skip_hash_check: bool,

    /// Take the data directory of a stopped member, with the writes that are only in its log
    #[arg(long, value_name = "DIR")]
    from_data_dir: Option<PathBuf>,

    /// WAL directory of that member [default: DIR/member/wal]
    #[arg(long, value_name = "DIR", requires = "from_data_dir")]
    wal_dir: Option<PathBuf>,

    /// Keep these files or folders beside the snapshot; may be given several times
    ///
    /// What a restore will need: certificates, static pod manifests, the encryption config. They are encrypted with
    /// the snapshot, and refused if it is not.
    #[arg(long = "include", value_name = "PATH")]
    include: Vec<PathBuf>,

    /// Keep them even if the backup is not encrypted
    #[arg(long, requires = "include")]
    include_unencrypted: bool,

    /// Do not encrypt, even where the newest backup of the cluster is encrypted
    #[arg(long, conflicts_with_all = ["recipients", "recipients_files"])]
    unencrypted: bool,

    /// What to do if a member's data differs from the snapshot's
    ///
    /// [default: warn]
    #[arg(long, value_enum, value_name = "POLICY")]
    hash_kv: Option<HashKv>,

    /// Where the snapshot is kept while it is proved; as much space as the database has is needed
    /// [default: the system's folder for temporary files] [env: LIFEBOAT_SPOOL_DIR]
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<PathBuf>,

    /// How long to wait for another backup of the same cluster to end: 5m, 1d; 0s refuses at once
    #[arg(long, value_name = "SPAN", default_value = "0s")]
    wait: Span,

    #[command(flatten)]
    encoding: EncodingArgs,

    #[command(flatten)]
    identities: IdentityArgs,
}

/// `--hash-kv`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum HashKv {
    /// Say so, and keep the backup
    Warn,
    /// Make no backup
    Fail,
    /// Do not compare
    Skip,
}

impl From<HashKv> for HashKvPolicy {
    fn from(policy: HashKv) -> Self {
        match policy {
            HashKv::Warn => Self::Warn,
            HashKv::Fail => Self::Fail,
            HashKv::Skip => Self::Skip,
        }
    }
}

#[derive(Serialize)]
struct ReportJson<'a> {
    cluster: &'a ClusterName,
    results: Vec<ResultJson<'a>>,
}

#[derive(Serialize)]
struct ResultJson<'a> {
    repository: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<&'a Manifest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl BackupArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let jobs = match config(self.config.as_deref())? {
            Some(config) if self.is_by_config() => self.configured_jobs(context, &config)?,
            _ => vec![self.job(context)?],
        };
        let interrupt = Interrupt::watch()?;
        context.block_on(async {
            let mut failed = None;
            for job in &jobs {
                let names = job.targets.iter().map(|target| target.name.clone()).collect();
                let report = backup::run(job, &Show::new(names).watcher(), interrupt.wait()).await;
                let told = report
                    .map_err(Failure::from)
                    .and_then(|report| tell(context, &job.cluster, &report));
                match (told, &failed) {
                    (Ok(()), _) => {}
                    (Err(failure), _) if interrupt.requested() => return Err(failure),
                    // One cluster that fails does not keep the others from their backups.
                    (Err(failure), None) => failed = Some(failure),
                    (Err(failure), Some(_)) => failure.warn(),
                }
            }
            failed.map_or(Ok(()), Err)
        })
    }

    /// The backup that the flags describe.
    fn job(&self, context: &Context) -> Result<Job, Failure> {
        let cluster = match self.clusters.as_slice() {
            [cluster] => cluster.clone(),
            [] => match cluster_setting()? {
                Some(cluster) => cluster,
                None => {
                    return Err(usage(
                        "the cluster has no name",
                        "give --cluster NAME: its name in the repository",
                    ));
                }
            },
            _ => {
                return Err(usage(
                    "several clusters need a config file",
                    "run once for each, or give --config FILE",
                ));
            }
        };
        let mut places = self.places()?;
        let mut seen = BTreeSet::new();
        places.retain(|place| seen.insert(place.name.clone()));
        let encoding = self.encoding.read()?;
        for place in &places {
            warn_unencrypted(&encoding, &place.name);
        }
        let target = |place: Place| Target {
            name: place.name,
            store: place.store,
            encoding: encoding.clone(),
            may_expose: self.unencrypted,
        };
        Ok(Job {
            cluster,
            source: self.source(context)?,
            targets: places.into_iter().map(target).collect(),
            options: self
                .options(Options { spool_dir: daemon::place::spool(None), ..Options::default() }),
        })
    }

    /// The backups that the config file describes.
    fn configured_jobs(&self, context: &Context, config: &Config) -> Result<Vec<Job>, Failure> {
        if self.encoding.is_given() || context.connection.names_endpoints() {
            return Err(usage(
                "with a config file, it says where clusters are and how backups are stored",
                "leave out --endpoints, --recipient, --level and --bandwidth-limit, or --config (LIFEBOAT_CONFIG)",
            ));
        }
        let unknown =
            self.clusters.iter().find(|name| config.clusters.iter().all(|c| c.name != **name));
        if let Some(name) = unknown {
            return Err(usage(
                format!("the config file has no cluster {name}"),
                "correct --cluster, or the file",
            ));
        }
        let meant = |c: &&daemon::config::Cluster| {
            self.clusters.is_empty() || self.clusters.contains(&c.name)
        };
        config
            .clusters
            .iter()
            .filter(meant)
            .map(|cluster| self.configured_job(config, cluster))
            .collect()
    }

    fn configured_job(
        &self,
        config: &Config,
        cluster: &daemon::config::Cluster,
    ) -> Result<Job, Failure> {
        let meant = |name: &&String| self.repos.is_empty() || self.repos.contains(name);
        let mut targets = Vec::new();
        for name in cluster.repositories.iter().filter(meant) {
            let named = config.repository(name).expect("the config file was checked");
            let Place { name, store, settings } = configured(named)?;
            let encoding = settings.map(|settings| settings.encoding).unwrap_or_default();
            warn_unencrypted(&encoding, &name);
            let may_expose = self.unencrypted || named.unencrypted;
            targets.push(Target { name, store, encoding, may_expose });
        }
        if targets.is_empty() {
            let message =
                format!("cluster {} has no such repository in the config file", cluster.name);
            return Err(usage(message, "name one of its repositories with --repo, or none"));
        }
        let source = daemon::place::source(cluster).map_err(|error| {
            let message =
                format!("cluster {} of the config file cannot be reached as it says", cluster.name);
            Failure::caused(Exit::Usage, message, &*error, "correct its settings")
        })?;
        let options =
            self.options(daemon::place::options(cluster, daemon::place::spool(Some(config))));
        Ok(Job { cluster: cluster.name.clone(), source, targets, options })
    }

    /// Whether the config file says what is backed up; files and stopped members are only named by flags.
    fn is_by_config(&self) -> bool {
        self.from_file.is_none() && self.from_data_dir.is_none()
    }

    fn source(&self, context: &Context) -> Result<Source, Failure> {
        if let Some(path) = &self.from_file {
            let digest = if self.skip_hash_check { DigestRule::Skip } else { DigestRule::Required };
            return Ok(Source::File {
                path: path.clone(),
                digest,
                identities: self.identities_for(path)?,
            });
        }
        if let Some(data_dir) = &self.from_data_dir {
            let (data_dir, wal_dir) = (data_dir.clone(), self.wal_dir.clone());
            return Ok(Source::DataDir(StoppedMember { data_dir, wal_dir, log: UseLog::Whole }));
        }
        let connector = Connector::new(context.connection.options()?)?;
        Ok(Source::Live { connector, endpoints: context.connection.endpoints()? })
    }

    /// What decrypts the file; no passphrase is asked for if age has not encrypted it.
    fn identities_for(&self, path: &Path) -> Result<Identities, Failure> {
        let mut head = Vec::new();
        // A file that cannot be read is told of by who reads all of it.
        let _ = std::fs::File::open(path)
            .and_then(|file| file.take(AGE_HEAD_BYTES).read_to_end(&mut head));
        let is_age =
            head.starts_with(b"age-encryption.org/") || head.starts_with(b"-----BEGIN AGE");
        if is_age { self.identities.read() } else { Ok(Identities::none()) }
    }

    /// Options, where flags have the last word.
    fn options(&self, base: Options) -> Options {
        let patience = self.wait.0;
        let include =
            if self.include.is_empty() { base.include.clone() } else { self.include.clone() };
        Options {
            spool_dir: self.spool_dir.clone().unwrap_or_else(|| base.spool_dir.clone()),
            hash_kv: self.hash_kv.map_or(base.hash_kv, Into::into),
            include,
            include_plain: base.include_plain || self.include_unencrypted,
            terms: Terms { patience, ..Terms::default() },
            ..base
        }
    }

    fn places(&self) -> Result<Vec<Place>, Failure> {
        let mut repos = self.repos.clone();
        if repos.is_empty() {
            repos.extend(setting(None, "LIFEBOAT_REPO"));
        }
        if repos.is_empty() {
            return Err(usage(
                "no repository is given",
                "give --repo URL or set LIFEBOAT_REPO; a folder will do",
            ));
        }
        repos.iter().map(|repo| place(repo)).collect()
    }
}

/// The result, and the failure if any repository has no backup or a member differs.
fn tell(context: &Context, cluster: &ClusterName, report: &Report) -> Result<(), Failure> {
    let results = report.results.iter();
    if context.format == Format::Json {
        let results = results.map(|target| ResultJson {
            repository: &target.url,
            manifest: target.result.as_ref().ok(),
            error: target.result.as_ref().err().map(|error| etcd_live::one_line(error)),
        });
        output::print(&output::json(&ReportJson { cluster, results: results.collect() }))?;
    } else {
        let made = results.filter_map(|target| Some((target, target.result.as_ref().ok()?)));
        output::print(&match context.format {
            Format::Simple | Format::Json => {
                made.map(|(target, made)| line(target, made)).collect()
            }
            format => {
                let rows: Vec<_> = made.map(|(target, made)| row(target, made)).collect();
                output::rows(format, &HEADERS, &rows)
            }
        })?;
    }
    let failed: Vec<_> = report
        .results
        .iter()
        .filter_map(|target| Some((target, target.result.as_ref().err()?)))
        .collect();
    match failed.as_slice() {
        [] => Ok(()),
        [(target, error), ..] => {
            let message = match failed.len() {
                n if n == report.results.len() => {
                    format!("{cluster} has no backup in {}", target.name)
                }
                n => format!(
                    "{cluster} has no backup in {n} of {} repositories",
                    report.results.len()
                ),
            };
            let failure = Failure::from_kind(
                report.failure().unwrap_or(backup::Kind::Failed),
                message,
                error,
            );
            Err(failure)
        }
    }
}

const HEADERS: [&str; 7] = ["Cluster", "Name", "Repository", "Revision", "Keys", "Size", "Stored"];

fn row(target: &TargetReport, manifest: &Manifest) -> Vec<String> {
    vec![
        manifest.cluster.to_string(),
        manifest.id.to_string(),
        target.name.clone(),
        manifest.etcd.revision.to_string(),
        manifest.etcd.live_keys.to_string(),
        humanize_bytes(manifest.db.bytes),
        humanize_bytes(manifest.object.stored.bytes),
    ]
}

fn line(target: &TargetReport, manifest: &Manifest) -> String {
    format!(
        "{}: {} in {}: revision {}, {} keys, {} stored as {}{}\n",
        manifest.cluster,
        manifest.id,
        target.name,
        manifest.etcd.revision,
        manifest.etcd.live_keys,
        humanize_bytes(manifest.db.bytes),
        humanize_bytes(manifest.object.stored.bytes),
        if manifest.encryption.is_some() { ", encrypted" } else { "" },
    )
}

impl From<backup::Kind> for Exit {
    fn from(kind: backup::Kind) -> Self {
        match kind {
            backup::Kind::Failed => Self::Failed,
            backup::Kind::Damage => Self::Damaged,
            backup::Kind::Unreachable => Self::Unreachable,
            backup::Kind::Refused => Self::Refused,
        }
    }
}
