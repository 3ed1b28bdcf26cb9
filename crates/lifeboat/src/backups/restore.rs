//! `restore`: data directories from the repository, or from what another tool has stored.

mod plan;

use super::{
    args::{IdentityArgs, Place, RepositoryArgs, one_cluster, place},
    encoding::usage,
    events::Show,
    list::warn_unreadable,
    show::plural,
};
use crate::{
    cli::Context,
    interrupt::Interrupt,
    report::Failure,
    restoring::{BUMP_AUTO, Restoring, Wanted},
};
use backup::{
    fetch::{FetchError, From as FetchFrom, fetch, fetch_include},
    include::check_absent_or_empty,
};
use jiff::Timestamp;
use plan::Plan;
use repository::{
    ClusterName, Manifest, Repository,
    codec::{CodecError, Identities},
    listing::{Found, Target},
};
use restore::Room;
use snapshot::{DigestRule, Fetched, Snapshot};
use std::path::PathBuf;

/// Make data directories for a new cluster from a backup
///
/// From a repository: the newest backup that is verified, or the one that --at
/// names. Or from a file, a folder or a URL that another tool has written:
/// etcdctl, k3s and RKE2 (.zip), OpenShift, kOps (.gz), etcd-backup-restore.
///
/// It is decrypted, decompressed and proved on the way; nothing is put in place
/// before, and nothing that exists is touched. What can be known before (a target
/// that is in use, too little room, a missing identity) is told before anything
/// is fetched. The revision is raised above what clients can have seen, and what
/// was before is marked compacted, so that no client waits for a future that was
/// undone: --bump-revision 0 leaves that out.
///
/// Examples:
///   lifeboat restore --repo s3://backups/etcd --cluster prod --plan
///   lifeboat restore --repo s3://backups/etcd --cluster prod \
///       --identity identity.txt --all-members restored/ \
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

    /// Say what would be done, and do nothing
    ///
    /// From which object, how old it is and what is lost; which members are made and where; what room that takes; and
    /// what speaks against it. The exit code is then that of the restore.
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

    fn spool(&self) -> Result<PathBuf, Failure> {
        self.spool_dir.clone().map_or_else(|| self.restoring.beside(), Ok)
    }

    fn restore_backup(&self, context: &Context) -> Result<(), Failure> {
        let place = self.repository.place()?;
        let interrupt = Interrupt::watch()?;
        let (repository, found) = context.block_on(async {
            let repository = Repository::open(place.store.clone()).await?;
            let cluster = one_cluster(&repository, self.cluster.as_ref()).await?;
            let listing = repository.backups(&cluster).await?;
            warn_unreadable(&listing);
            let Found { backup, is_exact, skipped } = listing.find(&self.at, Timestamp::now())?;
            Ok((repository, (backup.manifest.clone(), is_exact, skipped)))
        })?;
        let (manifest, is_exact, skipped) = found;
        for (id, unfit) in &skipped {
            say!("warning: passed over {id}: {unfit}");
        }
        let wanted = self.restoring.check_with(&manifest.etcd)?;
        let mut problems = Vec::new();
        let identities = self.identities_of(&place, &manifest).unwrap_or_else(|missing| {
            problems.push(missing);
            Identities::none()
        });
        let rooms = self.rooms(&wanted, &manifest, &mut problems)?;
        let (url, skipped) = (repository.store().url(), &skipped[..]);
        let plan = Plan {
            args: self,
            url,
            manifest: &manifest,
            is_exact,
            skipped,
            wanted: &wanted,
            rooms,
        };
        plan.tell(context, &problems)?;
        let mut problems = problems.into_iter();
        if let Some(first) = problems.next() {
            problems.for_each(|problem| problem.warn());
            return Err(first);
        }
        if self.plan {
            return Ok(());
        }
        let store = repository.store().clone();
        let from = FetchFrom::Backup { store, manifest: Box::new(manifest.clone()) };
        let snapshot = self.fetch(context, &from, &identities, manifest.db.bytes, &interrupt)?;
        // Before anything is put in place: whatever is wrong with them is known then.
        self.unpack_include(context, &repository, &manifest, &identities)?;
        self.restoring.run(context, wanted, snapshot, DigestRule::Required, self.bump(), &interrupt)
    }

    /// What opens the backup, which its manifest tells before anything is fetched.
    fn identities_of(&self, place: &Place, manifest: &Manifest) -> Result<Identities, Failure> {
        let identities = place.identities(&self.identities, manifest)?;
        let Some(encryption) = &manifest.encryption else { return Ok(identities) };
        let ours = identities.recipients().keys();
        match encryption.recipients.iter().any(|recipient| ours.contains(recipient)) {
            true => Ok(identities),
            false => Err(CodecError::NotForUs {
                object: plan::object(manifest),
                recipients: encryption.recipients.clone(),
            }
            .into()),
        }
    }

    /// The room that it takes; and all that speaks against it before anything is fetched.
    fn rooms(
        &self,
        wanted: &Wanted,
        manifest: &Manifest,
        problems: &mut Vec<Failure>,
    ) -> Result<Vec<Room>, Failure> {
        problems.extend(self.restoring.refuse_ahead(wanted, self.bump()).err());
        let tar = manifest.include.as_ref().map_or(0, |include| include.tar.bytes);
        let mut needs = vec![
            self.restoring.needs(wanted, manifest.db.bytes),
            (self.spool()?, manifest.db.bytes),
        ];
        if let Some(folder) = self.include_to.as_ref().filter(|_| tar > 0) {
            problems.extend(
                check_absent_or_empty(folder).map_err(FetchError::from).err().map(Failure::from),
            );
            // The archive goes to the spool before it is unpacked.
            needs.extend([(self.spool()?, tar), (folder.clone(), tar)]);
        }
        let rooms = Room::of(&needs)?;
        problems.extend(rooms.iter().filter_map(|room| room.check().err()).map(Failure::from));
        Ok(rooms)
    }

    fn restore_source(&self, context: &Context, source: &str) -> Result<(), Failure> {
        if self.plan {
            return Err(usage(
                "--plan is for backups of a repository",
                "see `lifeboat snapshot status` for a file",
            ));
        }
        let wanted = self.restoring.check()?;
        self.restoring.refuse_ahead(&wanted, self.bump())?;
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
        let (watcher, spool) = (Show::reading(bytes).watcher(), self.spool()?);
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
                let spool = self.spool()?;
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
                    "unpacked {} file{} kept with the backup into {}",
                    unpacked.files,
                    plural(unpacked.files),
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
