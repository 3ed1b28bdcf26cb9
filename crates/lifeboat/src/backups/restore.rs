//! `restore`: data directories from the repository, or from what another tool has stored.

use super::{
    args::{IdentityArgs, Place, RepositoryArgs, one_cluster, place},
    encoding::usage,
    events::Show,
    list::warn_unreadable,
    moment::age,
};
use crate::{
    cli::Context,
    interrupt::Interrupt,
    output::{self, Format},
    report::Failure,
    restoring::{BUMP_AUTO, Restoring},
};
use backup::fetch::{From as FetchFrom, fetch, fetch_include};
use jiff::Timestamp;
use repository::{
    ClusterName, Manifest, Repository,
    codec::Identities,
    listing::{Found, Target},
};
use serde::Serialize;
use snapshot::{DigestRule, Fetched, Snapshot};
use std::path::PathBuf;

/// Make data directories for a new cluster from a backup
///
/// From a repository: the newest backup that is verified, or the one that --at names. Or from a file, a folder or a
/// URL that another tool has written: etcdctl, k3s and RKE2 (.zip), OpenShift, kOps (.gz), etcd-backup-restore.
///
/// It is decrypted, decompressed and proved on the way; nothing is put in place before, and nothing that exists is
/// touched. The revision is raised above what clients can have seen, and what was before is marked compacted, so
/// that no client waits for a future that was undone: --bump-revision 0 leaves that out.
///
/// Examples:
///   lifeboat restore --repo s3://backups/etcd --cluster prod --plan
///   lifeboat restore --repo s3://backups/etcd --cluster prod --identity identity.txt --all-members restored/
///       --initial-cluster m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380
///   lifeboat restore /backup/etcd-snapshot.zip --data-dir /var/lib/etcd
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct RestoreArgs {
    /// File, folder or URL of a snapshot, instead of a repository
    #[arg(value_name = "SOURCE", conflicts_with_all = ["repo", "at", "cluster"])]
    source: Option<String>,

    /// Which backup: `newest`, `revision:N` (the newest that is not above it), `time:2026-11-22T16:00Z`, or a name
    #[arg(long, value_name = "POINT", default_value = "newest")]
    at: Target,

    /// The cluster, if the repository has several [env: LIFEBOAT_CLUSTER]
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,

    /// Say what would be done, from which object, how old it is and what is lost, and do nothing
    #[arg(long)]
    plan: bool,

    /// Put the files that were kept with the backup into this folder: absent or empty
    #[arg(long, value_name = "DIR", conflicts_with = "source")]
    include_to: Option<PathBuf>,

    /// Accept a SOURCE without a digest, such as a copied `db`; pages and records are checked all the same
    #[arg(long, requires = "source")]
    skip_hash_check: bool,

    /// Where the snapshot is unpacked [default: beside the data directories]
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<PathBuf>,

    #[command(flatten)]
    restoring: Restoring,

    #[command(flatten)]
    identities: IdentityArgs,

    #[command(flatten)]
    repository: RepositoryArgs,
}

/// What would be restored.
#[derive(Serialize)]
struct PlanJson<'a> {
    repository: &'a str,
    cluster: &'a ClusterName,
    name: String,
    object: String,
    age_seconds: i64,
    revision: i64,
    restored_revision: u64,
    exact: bool,
    skipped: Vec<String>,
    manifest: &'a Manifest,
}

impl RestoreArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        match &self.source {
            Some(source) => self.restore_source(context, source),
            None => self.restore_backup(context),
        }
    }

    fn bump(&self) -> u64 {
        self.restoring.bump().unwrap_or(BUMP_AUTO)
    }

    fn spool(&self) -> PathBuf {
        self.spool_dir.clone().unwrap_or_else(|| self.restoring.beside())
    }

    fn restore_backup(&self, context: &Context) -> Result<(), Failure> {
        let place = self.repository.place()?;
        let interrupt = Interrupt::watch()?;
        let (repository, manifest) = context.block_on(async {
            let repository = Repository::open(place.store.clone()).await?;
            let cluster = one_cluster(&repository, self.cluster.as_ref()).await?;
            let listing = repository.backups(&cluster).await?;
            warn_unreadable(&listing);
            let found = listing.find(&self.at, Timestamp::now())?;
            self.tell_plan(context, &repository, &found)?;
            Ok((repository, found.backup.manifest.clone()))
        })?;
        if self.plan {
            return Ok(());
        }
        let wanted = self.restoring.check_with(&manifest.etcd)?;
        let identities = place.identities(&self.identities, &manifest)?;
        let store = repository.store().clone();
        let from = FetchFrom::Backup { store, manifest: Box::new(manifest.clone()) };
        let snapshot = self.fetch(context, &from, &identities, manifest.db.bytes, &interrupt)?;
        // Before anything is put in place: whatever is wrong with them is known then.
        self.unpack_include(context, &repository, &manifest, &identities)?;
        self.restoring.run(context, wanted, snapshot, DigestRule::Required, self.bump(), &interrupt)
    }

    fn restore_source(&self, context: &Context, source: &str) -> Result<(), Failure> {
        if self.plan {
            return Err(usage(
                "--plan is for backups of a repository",
                "see `lifeboat snapshot status` for a file",
            ));
        }
        let wanted = self.restoring.check()?;
        let interrupt = Interrupt::watch()?;
        let from = match source.contains("://") && !source.starts_with("file://") {
            true => object(source)?,
            false => {
                FetchFrom::File(PathBuf::from(source.strip_prefix("file://").unwrap_or(source)))
            }
        };
        let identities = self.identities.read()?;
        let snapshot = self.fetch(context, &from, &identities, 0, &interrupt)?;
        let rule = if self.skip_hash_check { DigestRule::Skip } else { DigestRule::Required };
        self.restoring.run(context, wanted, snapshot, rule, self.bump(), &interrupt)
    }

    fn fetch(
        &self,
        context: &Context,
        from: &FetchFrom,
        identities: &Identities,
        bytes: u64,
        interrupt: &Interrupt,
    ) -> Result<Snapshot<Fetched>, Failure> {
        let (watcher, spool) = (Show::reading(bytes).watcher(), self.spool());
        context.block_on(async {
            tokio::select! {
                biased;
                () = interrupt.wait() => Err(Failure::interrupted()),
                fetched = fetch(from, identities, &spool, &watcher) => Ok(fetched?),
            }
        })
    }

    fn unpack_include(
        &self,
        context: &Context,
        repository: &Repository,
        manifest: &Manifest,
        identities: &Identities,
    ) -> Result<(), Failure> {
        let paths = manifest.include.iter().map(|include| include.paths.join(", ")).next();
        match (&self.include_to, paths) {
            (Some(folder), _) => {
                let spool = self.spool();
                let unpacked = context.block_on(async {
                    Ok(fetch_include(repository.store(), manifest, identities, &spool, folder)
                        .await?)
                })?;
                let Some(unpacked) = unpacked else {
                    say!("note: no files were kept with this backup");
                    return Ok(());
                };
                for (link, target) in &unpacked.links_left_out {
                    say!("note: the link {} to {} was not made", link.display(), target.display());
                }
                say!(
                    "{} files that were kept with the backup are in {}",
                    unpacked.files,
                    folder.display()
                );
            }
            (None, Some(paths)) => {
                say!(
                    "note: files were kept with this backup ({paths}); --include-to DIR brings them back"
                );
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// What is restored, on stderr; on stdout if it is all that was asked for.
    fn tell_plan(
        &self,
        context: &Context,
        repository: &Repository,
        found: &Found<'_>,
    ) -> Result<(), Failure> {
        let manifest = &found.backup.manifest;
        let now = Timestamp::now();
        let revision = u64::try_from(manifest.etcd.revision).unwrap_or_default();
        let object = format!(
            "{}/{}/snapshots/{}/{}",
            repository.store().url(),
            manifest.cluster,
            manifest.id,
            manifest.object.name
        );
        let skipped: Vec<_> =
            found.skipped.iter().map(|(id, unfit)| format!("{id}: {unfit}")).collect();
        for skipped in &skipped {
            say!("warning: passed over {skipped}");
        }
        if self.plan && context.format == Format::Json {
            return output::print(&output::json(&PlanJson {
                repository: repository.store().url(),
                cluster: &manifest.cluster,
                name: manifest.id.to_string(),
                object,
                age_seconds: now.as_second() - manifest.started.as_second(),
                revision: manifest.etcd.revision,
                restored_revision: revision + self.bump(),
                exact: found.is_exact,
                skipped,
                manifest,
            }));
        }
        let (age, lost) = match age(manifest.started, now) {
            _ if manifest.started > now => {
                ("dated in the future: a clock was wrong".to_owned(), String::new())
            }
            age => (format!("{age} ago"), format!(" since then: the last {age}")),
        };
        let exact = if found.is_exact { "" } else { " (the nearest before what was asked for)" };
        let text = format!(
            "restoring {} of {}{exact}\n  from      {object}\n  begun     {:.0} ({age})\n  revision  {}, raised to {}\n  \
             lost      all writes{lost}, and every revision above {}\n",
            manifest.id,
            manifest.cluster,
            manifest.started,
            manifest.etcd.revision,
            revision + self.bump(),
            manifest.etcd.revision,
        );
        if self.plan {
            return output::print(&text);
        }
        say_part!("{text}");
        Ok(())
    }
}

/// The store and the path in it that a URL of an object means.
fn object(url: &str) -> Result<FetchFrom, Failure> {
    let (base, query) =
        url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let wrong = || usage(format!("{url} names no object"), "give s3://BUCKET/PATH/OF/THE/SNAPSHOT");
    let (scheme, rest) = base.split_once("://").ok_or_else(wrong)?;
    let (bucket, path) =
        rest.split_once('/').filter(|(_, path)| !path.is_empty()).ok_or_else(wrong)?;
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let Place { store, .. } = place(&format!("{scheme}://{bucket}{query}"))?;
    Ok(FetchFrom::Object { store, path: path.to_owned() })
}
