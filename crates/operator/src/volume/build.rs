//! New data for a volume: fetched, proved, built beside the old.

use super::{Order, Place, State, Target, VolumeError, io_error};
use backup::{
    Watcher,
    fetch::{From as FetchFrom, fetch, find_object},
};
use jiff::Timestamp;
use repository::{
    BackupId, ClusterName, Manifest, Repository, codec::Identities, listing, store::Store,
};
use restore::{Destination, RestorePlan, RestoredCluster, Room, TargetVersion, parse_cluster};
use serde::{Deserialize, Serialize};
use snapshot::{DigestRule, Fetched, Snapshot};
use std::{
    fs::{self, File},
    io::{self, Seek},
    ops::ControlFlow,
    path::Path,
};

/// What is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// The backup in the store: its cluster and its name. Without, what the store's URL itself names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<(ClusterName, BackupId)>,
    /// The object of a plain snapshot, below the store's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// All members of the new cluster, as `--initial-cluster` has them.
    pub initial_cluster: String,
    /// The new cluster's token.
    pub token: String,
    /// The etcd that will run there. Default: what the backup says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_version: Option<String>,
    /// By how much the revision is raised.
    pub bump: u64,
}

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Built {
    /// The revision that the cluster begins at.
    pub revision: i64,
    /// What each member's HashKV must be there.
    pub hash_kv: u32,
}

/// Builds what the order says, unless it was built before. `stop` is asked now and then whether to go on.
pub async fn build(
    order: &Order,
    store: Store,
    identities: &Identities,
    stop: &dyn Fn() -> bool,
) -> Result<(State, Option<Built>), VolumeError> {
    let contents = order.contents.as_ref().ok_or(VolumeError::Incomplete("contents"))?;
    let source = Source::find(contents, store).await?;
    let work = Work { order, contents, source, identities, stop };
    match &order.target {
        Target::Member { name, .. } => {
            let place = order.place().expect("a member has a place");
            work.member(&place, name).await.map(|built| (State::Built, Some(built)))
        }
        Target::Members { folder } => work.members(folder).await.map(|()| (State::Built, None)),
        Target::File { path } => work.file(path).await.map(|()| (State::Built, None)),
    }
}

/// Whether all is there that building takes, but the volume: the source, and a cluster to build. Nothing is fetched.
pub async fn probe(order: &Order, store: Store) -> Result<(), VolumeError> {
    let contents = order.contents.as_ref().ok_or(VolumeError::Incomplete("contents"))?;
    if !matches!(order.target, Target::File { .. }) {
        parse_cluster(&contents.initial_cluster, &contents.token, &[])
            .map_err(|error| VolumeError::Restore(error.into()))?;
    }
    match Source::find(contents, store).await?.from {
        FetchFrom::Object { store, path } => {
            find_object(&store, &path, &Watcher::none()).await.map(drop).map_err(Into::into)
        }
        FetchFrom::Backup { .. } | FetchFrom::File(_) => Ok(()),
    }
}

/// A snapshot that was found, and what is said of it.
struct Source {
    from: FetchFrom,
    manifest: Option<Box<Manifest>>,
}

impl Source {
    async fn find(contents: &Contents, store: Store) -> Result<Self, VolumeError> {
        match (&contents.backup, &contents.object) {
            (Some((cluster, id)), _) => {
                let repository = Repository::open(store).await?;
                let listing = repository.backups(cluster).await?;
                let target = listing::Target::Name(id.to_string());
                let found = listing.find(&target, Timestamp::now())?;
                let manifest = Box::new(found.backup.manifest.clone());
                let store = repository.store().clone();
                let from = FetchFrom::Backup { store, manifest: manifest.clone() };
                Ok(Self { from, manifest: Some(manifest) })
            }
            (None, Some(path)) => {
                let from = FetchFrom::Object { store, path: path.clone() };
                Ok(Self { from, manifest: None })
            }
            (None, None) => Err(VolumeError::Incomplete("a source")),
        }
    }

    /// Bytes of the snapshot, as far as known before it is there.
    fn bytes(&self) -> u64 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.db.bytes)
    }
}

struct Work<'a> {
    order: &'a Order,
    contents: &'a Contents,
    source: Source,
    identities: &'a Identities,
    stop: &'a dyn Fn() -> bool,
}

impl Work<'_> {
    async fn member(&self, place: &Place, name: &str) -> Result<Built, VolumeError> {
        place.prepare()?;
        let _lock = place.lock()?;
        match place.state()? {
            State::Untouched => {}
            State::Built => return measure(&place.new_data()),
            state @ (State::Swapping | State::Swapped | State::Undoing | State::RolledBack) => {
                return Err(place.out_of_turn("to be built", state));
            }
        }
        let building = place.building();
        // What is there is complete: it came by one rename. What is in it may have been taken out of it already.
        if !building.join("member").is_dir() {
            let _ = fs::remove_dir(&building);
            let destination = Destination::Member {
                name: name.to_owned(),
                data_dir: building.clone(),
                wal_dir: None,
            };
            self.restore(destination, place.data_dir()).await?;
        }
        let member = building.join("member");
        place.take_owner(&member)?;
        place.rename(&member, &place.new_data())?;
        fs::remove_dir(&building).map_err(io_error("remove", &building))?;
        measure(&place.new_data())
    }

    async fn members(&self, folder: &Path) -> Result<(), VolumeError> {
        let cluster = self.cluster()?;
        let destination = Destination::AllMembers { dir: folder.to_owned() };
        let made = destination.data_dirs(&cluster);
        // Of several folders the last rename is the commit, so all of them are there or the restore begins anew.
        let marker = folder.join(format!(".lifeboat-{}", self.order.run));
        if marker.exists() && made.iter().all(|(_, dir)| dir.join("member").is_dir()) {
            return Ok(());
        }
        self.restore(destination, folder).await?;
        let owner = Place::new(folder, &self.order.run);
        made.iter().try_for_each(|(_, dir)| owner.take_owner(dir))?;
        File::create(&marker).and_then(|file| file.sync_all()).map_err(io_error("create", &marker))
    }

    async fn file(&self, path: &Path) -> Result<(), VolumeError> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        if path.symlink_metadata().is_ok() {
            return Err(VolumeError::Exists(path.to_owned()));
        }
        Room::of(&[(folder.to_owned(), self.source.bytes())])?.iter().try_for_each(Room::check)?;
        let snapshot = self.fetch(folder).await?;
        let snapshot = self.proved(snapshot)?.prove(DigestRule::Required, &mut |_| {})?;
        copy(snapshot.try_clone_file()?, path, folder).map_err(io_error("write", path))
    }

    fn cluster(&self) -> Result<RestoredCluster, VolumeError> {
        let Contents { initial_cluster, token, .. } = self.contents;
        parse_cluster(initial_cluster, token, &[])
            .map_err(|error| VolumeError::Restore(error.into()))
    }

    async fn fetch(&self, spool: &Path) -> Result<Snapshot<Fetched>, VolumeError> {
        Ok(fetch(&self.source.from, self.identities, spool, &Watcher::none()).await?)
    }

    /// Walks the snapshot, and compares it with what the manifest says.
    fn proved(
        &self,
        snapshot: Snapshot<Fetched>,
    ) -> Result<Snapshot<snapshot::Walked>, VolumeError> {
        let snapshot = snapshot.walk(&mut |_| {})?;
        let Some(manifest) = &self.source.manifest else { return Ok(snapshot) };
        let (etcd, survey) = (&manifest.etcd, snapshot.survey());
        let pairs = [
            ("revision", etcd.revision, survey.revision()),
            ("hash", etcd.hash.into(), survey.status_hash.into()),
        ];
        match pairs.into_iter().find(|(_, said, found)| said != found) {
            Some((what, said, found)) => Err(VolumeError::Differs { what, said, found }),
            None => Ok(snapshot),
        }
    }

    async fn restore(&self, destination: Destination, spool: &Path) -> Result<(), VolumeError> {
        let cluster = self.cluster()?;
        destination.check(&cluster)?;
        let needed = destination.bytes(&cluster, self.source.bytes());
        Room::of(&[(spool.to_owned(), needed)])?.iter().try_for_each(Room::check)?;
        let snapshot = self.proved(self.fetch(spool).await?)?;
        let said = self.contents.target_version.as_deref();
        let said = said.or_else(|| self.source.manifest.as_ref()?.etcd.version.as_deref());
        let target = match said.and_then(TargetVersion::of_release) {
            Some(target) => target,
            None => TargetVersion::of_snapshot(&snapshot)?,
        };
        let plan = RestorePlan::new(&snapshot, cluster, destination, target, self.contents.bump)?;
        let staged = plan.build(&|_| match (self.stop)() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })?;
        staged.commit(snapshot.prove(DigestRule::Required, &mut |_| {})?)?;
        Ok(())
    }
}

/// Gives the file its name when all of it is durable.
fn copy(mut from: File, path: &Path, folder: &Path) -> io::Result<()> {
    let part = path.with_extension("lifeboat-part");
    let mut to = File::create(&part)?;
    from.rewind()?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    fs::rename(&part, path)?;
    File::open(folder)?.sync_all()
}

/// What was built, and is to be found again.
fn measure(member: &Path) -> Result<Built, VolumeError> {
    let hash = restore::hash_restored(&member.join("snap/db"), None, None)?;
    Ok(Built { revision: hash.hash_revision, hash_kv: hash.hash })
}
