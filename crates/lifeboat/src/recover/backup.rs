//! Which backup a cluster is brought back from, and how it is read.

use super::rescue::{self, RescueArgs};
use crate::{
    backups::{IdentityArgs, RepositoryArgs, Show, one_cluster, place, setting, warn_unreadable},
    cli::Context,
    interrupt::Interrupt,
    report::{Exit, Failure},
    restoring::BUMP_AUTO,
};
use ::backup::{
    fetch::{FetchError, From as FetchFrom, fetch},
    import,
};
use jiff::Timestamp;
use recover::{
    Answer, Bump, Chosen, Contents, Journal, Plan, Pull,
    discover::{Known, KnownMember},
    rescued, rescued_path,
    spec::Spec,
};
use repository::{
    ClusterName, Repository, RepositoryError,
    codec::Identities,
    listing::{FindError, Target, TargetError},
    manifest::Source as Origin,
};
use snapshot::{DigestRule, Fetched, Snapshot};
use std::path::{Path, PathBuf};

/// How a backup is named.
const WAYS: &str = "give --backup FILE or --backup REPO (a folder, or a URL such as s3://backups/etcd); or write it into the cluster's file, as `backup: {repo: REPO}` or `backup: {file: FILE}`; --repo, LIFEBOAT_REPO and --config name a repository too";
/// What `--at` takes besides a name.
const POINTS: &str = "`newest`, `revision:N` and `time:2026-11-22T16:00Z`";
/// The variables that say who asks a store. Those that name files of this machine are of no use elsewhere.
const STORE_VARIABLES: [&str; 12] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "ALIBABA_CLOUD_ACCESS_KEY_ID",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
    "ALIBABA_CLOUD_SECURITY_TOKEN",
];

/// Which backup, and how it is read.
#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    /// What to bring back: a snapshot file, or a repository (folder or URL) [default: what the cluster's file says]
    #[arg(long, value_name = "FILE|REPO", conflicts_with = "repo")]
    backup: Option<String>,

    /// Which backup of the repository: `newest`, `revision:N`, `time:2026-11-22T16:00Z`, or a name
    #[arg(long, value_name = "POINT")]
    at: Option<Target>,

    /// The cluster's name in the repository, if it is another than in the cluster's file
    #[arg(long, value_name = "NAME")]
    backup_cluster: Option<ClusterName>,

    /// Accept a file without a digest, such as a copied `db`
    #[arg(long)]
    skip_hash_check: bool,

    /// Where the snapshot is unpacked [default: the run's folder]
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<PathBuf>,

    /// Raise the revision by so much above the newest that is known, and mark what was before as compacted; 0 leaves it
    /// [default: auto, 1000000000]
    #[arg(long, value_name = "N|auto")]
    bump_revision: Option<String>,

    /// Let each host fetch the backup from the repository, and build its data itself; nothing is sent from here
    ///
    /// The backup is fetched and built here all the same, to prove it before anything is stopped, and to compare with afterwards.
    #[arg(long)]
    pull: bool,

    /// For --pull: a file on the hosts that sets variables with the store's credentials, as `AWS_ACCESS_KEY_ID=…`
    /// [default: hosts are told those that are set here, and keep them nowhere]
    #[arg(long, value_name = "FILE", requires = "pull")]
    pull_env: Option<PathBuf>,

    /// For --pull: a file on the hosts with an age identity
    #[arg(long, value_name = "FILE", requires = "pull")]
    pull_identity: Option<PathBuf>,

    #[command(flatten)]
    identities: IdentityArgs,

    #[command(flatten)]
    repository: RepositoryArgs,

    #[command(flatten)]
    pub(super) rescue: RescueArgs,
}

/// A backup that was found, and how to get it.
pub(super) struct Source {
    pub(super) chosen: Chosen,
    from: FetchFrom,
    identities: Identities,
    rule: DigestRule,
}

/// Where a backup is said to be.
enum Place {
    File(PathBuf),
    Repo(String),
    Configured,
}

impl BackupArgs {
    /// Finds the backup; nothing of it is fetched yet.
    pub(super) fn find(&self, context: &Context, spec: &Spec) -> Result<Source, Failure> {
        match self.place(spec) {
            Place::File(file) => self.file(&file),
            Place::Repo(repo) => self.repository(context, spec, Some(&repo)),
            Place::Configured => {
                self.repository(context, spec, None).map_err(|failure| match self.is_configured() {
                    true => failure,
                    false => Failure::new(Exit::Usage, "no backup is named", WAYS),
                })
            }
        }
    }

    /// Whether anything but the cluster's file says where backups are.
    fn is_configured(&self) -> bool {
        let config = self.repository.config.is_some() || setting(None, "LIFEBOAT_CONFIG").is_some();
        config || self.repository.repo.is_some() || setting(None, "LIFEBOAT_REPO").is_some()
    }

    /// Finds the backup. If a member's data are to be taken, it is only compared with, and may be missing.
    pub(super) fn find_if_needed(
        &self,
        context: &Context,
        spec: &Spec,
    ) -> Result<Option<Source>, Failure> {
        self.rescue.is_known_in(spec)?;
        match (self.find(context, spec), self.rescue.is_asked()) {
            (Ok(source), _) => Ok(Some(source)),
            (Err(failure), true) => {
                say!("there is no backup to compare with: {}", failure.error);
                Ok(None)
            }
            (Err(failure), false) => Err(rescue::offered_without_backup(failure)),
        }
    }

    /// The snapshot that was fetched from a member.
    pub(super) fn rescued(&self, plan: &Plan, journal: &Journal) -> Source {
        let bytes = rescued(journal).map_or(plan.backup.bytes, |(rescued, _)| rescued.bytes);
        Source {
            chosen: Chosen { bytes, ..plan.backup.clone() },
            from: FetchFrom::File(rescued_path(journal)),
            identities: Identities::none(),
            rule: DigestRule::Required,
        }
    }

    /// Whether a flag says which backup.
    pub(super) fn is_named(&self) -> bool {
        self.backup.is_some() || self.repository.repo.is_some()
    }

    /// The same backup as an earlier run had chosen.
    pub(super) fn find_again(&self, context: &Context, plan: &Plan) -> Result<Source, Failure> {
        let mut source = match &plan.backup.name {
            None => self.file(Path::new(&plan.backup.from)),
            Some(name) => {
                let again = Self {
                    at: Some(target(name)?),
                    backup_cluster: plan.backup.cluster.as_deref().map(str::parse).transpose()?,
                    ..self.copied()
                };
                // As it is named now, with its options; as it was, if it is not named.
                match self.repo(&plan.spec) {
                    Some(repo) => again.repository(context, &plan.spec, Some(&repo)),
                    None if matches!(self.place(&plan.spec), Place::Configured) => {
                        again.repository(context, &plan.spec, None).or_else(|_| {
                            again.repository(context, &plan.spec, Some(&plan.backup.from))
                        })
                    }
                    None => again.repository(context, &plan.spec, Some(&plan.backup.from)),
                }
            }
        }?;
        source.chosen = plan.backup.clone();
        Ok(source)
    }

    /// The backup that flags name, as the cluster's file says it.
    pub(super) fn as_spec(&self) -> Option<recover::spec::Backup> {
        let mut backup = recover::spec::Backup {
            repo: self.repository.repo.clone(),
            cluster: self.backup_cluster.as_ref().and_then(|name| name.as_str().parse().ok()),
            ..recover::spec::Backup::default()
        };
        if self.backup.is_some() {
            match self.place(&Spec::default()) {
                Place::File(file) => backup.file = Some(file),
                Place::Repo(repo) => backup.repo = Some(repo),
                Place::Configured => {}
            }
        }
        (backup.repo.is_some() || backup.file.is_some()).then_some(backup)
    }

    /// The members that the backup's manifest lists.
    pub(super) fn members(
        &self,
        context: &Context,
        cluster: recover::spec::ClusterName,
    ) -> Result<Known, Failure> {
        let spec = Spec { cluster, ..Spec::default() };
        let source = self.find(context, &spec)?;
        let FetchFrom::Backup { manifest, .. } = &source.from else {
            return Err(Failure::new(
                Exit::Usage,
                format!("{} is a file: it does not say who its members were", source.chosen.from),
                "name the hosts with --discover, or a repository with --backup",
            ));
        };
        let members = manifest.etcd.members.iter().map(|member| KnownMember {
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            learner: member.learner,
        });
        Ok(Known { said_by: format!("the backup {}", manifest.id), members: members.collect() })
    }

    fn copied(&self) -> Self {
        Self {
            backup: self.backup.clone(),
            at: self.at.clone(),
            backup_cluster: self.backup_cluster.clone(),
            skip_hash_check: self.skip_hash_check,
            spool_dir: self.spool_dir.clone(),
            bump_revision: self.bump_revision.clone(),
            pull: self.pull,
            pull_env: self.pull_env.clone(),
            pull_identity: self.pull_identity.clone(),
            identities: self.identities.clone(),
            repository: self.repository.clone(),
            rescue: self.rescue.clone(),
        }
    }

    /// The repository, if it is named by what can be said to others too.
    fn repo(&self, spec: &Spec) -> Option<String> {
        match self.place(spec) {
            Place::Repo(repo) => Some(repo),
            Place::Configured if self.repository.config.is_none() => self.repository.repo.clone(),
            _ => None,
        }
    }

    /// How hosts fetch the backup themselves, if they shall.
    pub(super) fn pull(&self, spec: &Spec) -> Result<Option<Pull>, Failure> {
        if !self.pull {
            return Ok(None);
        }
        let (env_file, identity) = (self.pull_env.clone(), self.pull_identity.clone());
        let known: &[&str] = if env_file.is_none() { &STORE_VARIABLES } else { &[] };
        let set = known.iter().filter(|name| set_here(name).is_some());
        let variables = set.map(|name| (*name).to_owned()).collect();
        match self.repo(spec).filter(|repo| repo.contains("://")) {
            Some(repo) => Ok(Some(Pull { repo, env_file, variables, identity })),
            None => Err(Failure::new(
                Exit::Usage,
                "--pull needs a repository that hosts can reach",
                "name it by its URL: --backup s3://BUCKET/PREFIX",
            )),
        }
    }

    fn place(&self, spec: &Spec) -> Place {
        let of_spec = spec.backup.clone().unwrap_or_default();
        if let Some(backup) = &self.backup {
            let path = Path::new(backup);
            let is_repository = path.is_dir() || backup.contains("://");
            return match is_repository {
                true => Place::Repo(backup.clone()),
                false => Place::File(path.to_owned()),
            };
        }
        if self.repository.repo.is_some() || self.repository.config.is_some() {
            return Place::Configured;
        }
        match (of_spec.file, of_spec.repo) {
            (Some(file), _) => Place::File(file),
            (None, Some(repo)) => Place::Repo(repo),
            (None, None) => Place::Configured,
        }
    }

    fn rule(&self) -> DigestRule {
        if self.skip_hash_check { DigestRule::Skip } else { DigestRule::Required }
    }

    fn file(&self, file: &Path) -> Result<Source, Failure> {
        let absolute = std::path::absolute(file)?;
        let found = std::fs::metadata(&absolute).map_err(|error| {
            let help = "give a snapshot file, or a repository, with --backup";
            Failure::new(Exit::Failed, format!("cannot read {}: {error}", file.display()), help)
        })?;
        if !found.is_file() {
            let what = if found.is_dir() { "is a folder" } else { "is no file" };
            return Err(Failure::new(
                Exit::Failed,
                format!("{} {what}, not a snapshot", file.display()),
                "a folder with backups is a repository: name it with --backup, or as `backup.repo` in the cluster's file",
            ));
        }
        let modified = found.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        // Before a plan is printed that could not be carried out. What is wrapped is looked into when it is fetched.
        if !import::is_wrapped(&absolute).map_err(FetchError::from)? {
            Contents::refuse_other(&absolute)?;
        }
        let contents = Contents::of_file(&absolute).unwrap_or_default();
        let chosen = Chosen {
            from: absolute.display().to_string(),
            revision: contents.revision,
            members: contents.members,
            dated: modified,
            bytes: found.len(),
            ..Chosen::default()
        };
        let identities = self.identities.read()?;
        Ok(Source { chosen, from: FetchFrom::File(absolute), identities, rule: self.rule() })
    }

    fn repository(
        &self,
        context: &Context,
        spec: &Spec,
        repo: Option<&str>,
    ) -> Result<Source, Failure> {
        let of_spec = spec.backup.clone().unwrap_or_default();
        let place = match repo {
            Some(repo) => place(repo)?,
            None => self.repository.place()?,
        };
        let target = match (&self.at, &of_spec.at) {
            (Some(at), _) => at.clone(),
            (None, Some(at)) => target(at)?,
            (None, None) => target("newest")?,
        };
        let manifest = context.block_on(async {
            let repository = match Repository::open(place.store.clone()).await {
                Err(RepositoryError::NotARepository { url }) => {
                    return Err(Failure::new(
                        Exit::Failed,
                        format!("{url} holds no backup: it is no repository, as it has no lifeboat.json"),
                        "give a snapshot file, or the folder or URL that backups were made to, with --backup",
                    ));
                }
                opened => opened?,
            };
            let known = repository.clusters().await?;
            let said = match (&self.backup_cluster, &of_spec.cluster) {
                (Some(name), _) => Some(name.clone()),
                (None, Some(name)) => Some(name.parse()?),
                (None, None) => {
                    spec.cluster.parse::<ClusterName>().ok().filter(|name| known.contains(name))
                }
            };
            let cluster = one_cluster(&repository, said.as_ref()).await?;
            let listing = repository.backups(&cluster).await?;
            warn_unreadable(&listing);
            let found = listing.find(&target, Timestamp::now()).map_err(|error| {
                let help = match &error {
                    FindError::NoSuchName { .. } => {
                        Some(format!("{}; other points are {POINTS}", error.remedy()))
                    }
                    _ => None,
                };
                let failure = Failure::from(error);
                Failure { help: help.or(failure.help), ..failure }
            })?;
            for (id, unfit) in &found.skipped {
                say!("warning: passed over {id}: {unfit}");
            }
            Ok(found.backup.manifest.clone())
        })?;
        // A file that became a backup has brought its date with it.
        let (taken, dated) = match manifest.source {
            Origin::Live { .. } => (Some(manifest.started), None),
            Origin::File { .. } | Origin::DataDir { .. } => (None, Some(manifest.started)),
        };
        let members = manifest.etcd.members.iter();
        let chosen = Chosen {
            from: place.store.url().to_owned(),
            cluster: Some(manifest.cluster.to_string()),
            name: Some(manifest.id.to_string()),
            revision: Some(manifest.etcd.revision),
            members: members
                .filter_map(|member| u64::from_str_radix(&member.id, 16).ok())
                .collect(),
            taken,
            dated,
            bytes: manifest.db.bytes,
            version: manifest.etcd.version.clone(),
        };
        let identities = place.identities(&self.identities, &manifest)?;
        let from = FetchFrom::Backup { store: place.store, manifest: Box::new(manifest) };
        Ok(Source { chosen, from, identities, rule: DigestRule::Required })
    }

    /// What the revision is raised by, above what anybody can have seen.
    pub(super) fn bump(&self, answers: &[(String, Answer)]) -> Result<Bump, Failure> {
        let margin = match self.bump_revision.as_deref() {
            None | Some("auto") => BUMP_AUTO,
            Some(text) => text.parse().map_err(|_| {
                Failure::new(
                    Exit::Usage,
                    format!("--bump-revision: {text:?} is neither a number nor `auto`"),
                    "give a number; 0 leaves the revision as it is",
                )
            })?,
        };
        let revision = |answer: &Answer| answer.revision.max(answer.disk_revision.unwrap_or(0));
        let newest = answers.iter().max_by_key(|(label, answer)| (revision(answer), label));
        let Some((label, answer)) = newest.filter(|(_, answer)| revision(answer) > 0) else {
            return Ok(Bump { margin, ..Bump::default() });
        };
        let of_disk = answer.held.iter().flat_map(|held| held.members.iter().copied());
        Ok(Bump {
            margin,
            last_seen: Some(revision(answer)),
            seen_at: Some(label.clone()),
            members: answer.members.iter().map(|(id, ..)| *id).chain(of_disk).collect(),
        })
    }

    /// Fetches the backup to `folder`, or to where it is said.
    pub(super) fn fetch(
        &self,
        context: &Context,
        source: &Source,
        folder: &Path,
        interrupt: &Interrupt,
    ) -> Result<(Snapshot<Fetched>, DigestRule), Failure> {
        let spool = self.spool_dir.clone().unwrap_or_else(|| folder.to_owned());
        let watcher = Show::reading(source.chosen.bytes).watcher();
        let snapshot = context.block_on(async {
            tokio::select! {
                biased;
                () = interrupt.wait() => Err(Failure::interrupted()),
                fetched = fetch(&source.from, &source.identities, &spool, &watcher) => Ok(fetched?),
            }
        })?;
        Ok((snapshot, source.rule))
    }
}

/// What hosts that fetch the backup themselves are told: the plan has the names.
pub(super) fn told(plan: &Plan) -> Vec<(String, String)> {
    let names = plan.pull.iter().flat_map(|pull| &pull.variables);
    names.filter_map(|name| Some((name.clone(), set_here(name)?))).collect()
}

fn set_here(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A point, as `--at` has it.
fn target(text: &str) -> Result<Target, Failure> {
    text.parse().map_err(|error: TargetError| {
        Failure::new(
            Exit::Usage,
            error.to_string(),
            "correct `at` in the cluster's file, or give --at",
        )
    })
}
