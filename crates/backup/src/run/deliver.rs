//! One repository's share of a run: objects, then the manifest.

use super::{Job, Writer, newest};
use crate::{
    error::TargetError,
    event::{Event, Watcher, why},
    facts::Facts,
    place,
    spool::{SpoolReader, Verdict},
};
use jiff::Timestamp;
use repository::{
    Manifest,
    codec::{self, Ends, Uploaded},
    lease::LeaseError,
    manifest::{FIRST_GENERATION, FORMAT, Include, Object, ObjectKind},
    repository::Registered,
};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::OnceLock,
};

/// How often a commit is tried: each time, what the one before has come to is found out first.
const COMMITS_MAX: u32 = 3;

/// Files to include, as a tar without a name.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) file: File,
    pub(super) paths: Vec<String>,
}

/// All that one repository needs.
pub(super) struct Delivery<'r, 'j> {
    pub(super) job: &'j Job,
    pub(super) watcher: &'j Watcher,
    pub(super) writer: &'r Writer<'j>,
    pub(super) reader: SpoolReader,
    pub(super) facts: &'r OnceLock<Facts>,
    pub(super) packed: Option<&'r Packed>,
    pub(super) started: Timestamp,
}

impl Delivery<'_, '_> {
    /// Delivers, and tells what came of it.
    pub(super) async fn run(self) -> Result<Manifest, TargetError> {
        let repository = self.writer.index;
        let delivered = match self.writer.lease.keep(self.deliver()).await {
            Ok(delivered) => delivered,
            Err(lost) => Err(lost.into()),
        };
        match &delivered {
            Ok(manifest) => {
                let include = manifest.include.as_ref().map_or(0, |i| i.object.stored.bytes);
                let stored = manifest.object.stored.bytes + include;
                self.watcher.tell(Event::Committed { repository, id: manifest.id, stored });
            }
            // The whole run has failed, and says why.
            Err(TargetError::NoSnapshot) => {}
            Err(error) => {
                self.watcher.tell(Event::RepositoryFailed { repository, why: why(error) });
            }
        }
        delivered
    }

    async fn deliver(&self) -> Result<Manifest, TargetError> {
        let (db, include) = futures::try_join!(self.store_db(), self.store_include())?;
        let manifest = self.manifest(db, include);
        self.register().await;
        self.commit(&manifest).await?;
        Ok(manifest)
    }

    async fn store_db(&self) -> Result<Ends, TargetError> {
        let mut failures = 0;
        loop {
            let Some(tail) = self.reader.tail().await else { return Err(TargetError::NoSnapshot) };
            let attempt = tail.attempt();
            let uploaded = self.upload(ObjectKind::Db, tail).await;
            let error = match (uploaded, self.reader.verdict_so_far(attempt)) {
                (Ok(uploaded), _) => match self.reader.verdict(attempt).await {
                    Verdict::Proved => match self.complete(ObjectKind::Db, uploaded).await {
                        Ok(ends) => return Ok(ends),
                        Err(error) => error,
                    },
                    Verdict::Restarted => {
                        give_up(uploaded).await;
                        continue;
                    }
                    Verdict::GivenUp => {
                        give_up(uploaded).await;
                        return Err(TargetError::NoSnapshot);
                    }
                },
                (Err(_), Some(Verdict::Restarted)) => continue,
                (Err(_), Some(Verdict::GivenUp)) => return Err(TargetError::NoSnapshot),
                (Err(error), _) => error,
            };
            failures += 1;
            self.wait_or_fail(error, failures).await?;
        }
    }

    /// The tar is complete and nobody's verdict is waited for, so it is stored at once.
    async fn store_include(&self) -> Result<Option<Ends>, TargetError> {
        let Some(packed) = self.packed else { return Ok(None) };
        let mut failures = 0;
        loop {
            let file = packed.file.try_clone().map_err(TargetError::Reopen)?;
            let stored = async {
                let uploaded = self.upload(ObjectKind::Include, FromStart { file, offset: 0 });
                self.complete(ObjectKind::Include, uploaded.await?).await
            };
            match stored.await {
                Ok(ends) => return Ok(Some(ends)),
                Err(error) => {
                    failures += 1;
                    self.wait_or_fail(error, failures).await?;
                }
            }
        }
    }

    async fn wait_or_fail(&self, error: TargetError, failures: u32) -> Result<(), TargetError> {
        let options = &self.job.options;
        if failures >= options.uploads_max || !error.is_retryable() {
            return Err(error);
        }
        let again_in = options.back_off.saturating_mul(1 << (failures - 1).min(16));
        let repository = self.writer.index;
        self.watcher.tell(Event::UploadFailed { repository, why: why(&error), again_in });
        options.clock.sleep(again_in).await;
        Ok(())
    }

    async fn upload(
        &self,
        kind: ObjectKind,
        input: impl Read + Send + 'static,
    ) -> Result<Uploaded, TargetError> {
        let target = self.writer.target;
        let (repository, watcher) = (self.writer.index, self.watcher.clone());
        let progress = move |bytes| {
            if kind == ObjectKind::Db {
                watcher.tell(Event::Uploaded { repository, bytes });
            }
        };
        let path = self.path(kind);
        Ok(codec::upload(&target.store, &path, input, &target.encoding, progress).await?)
    }

    /// Completes an object, if what was read for it is what was proved.
    async fn complete(&self, kind: ObjectKind, uploaded: Uploaded) -> Result<Ends, TargetError> {
        if kind == ObjectKind::Db {
            let proved = &self.facts().content;
            if uploaded.content != *proved {
                let (proved, found) = (proved.clone(), uploaded.content.clone());
                give_up(uploaded).await;
                return Err(TargetError::NotAsProved { proved, found });
            }
        }
        let finished = uploaded.finish().await;
        if matches!(&finished, Err(error) if error.is_retryable()) {
            // Maybe only the answer was lost, and the object is there. No manifest is, so it is nobody's.
            let _ = self.writer.target.store.delete(&self.path(kind)).await;
        }
        Ok(finished?)
    }

    fn facts(&self) -> &Facts {
        self.facts.get().expect("facts are told before the spool is proved")
    }

    fn path(&self, kind: ObjectKind) -> String {
        let Writer { target, id, .. } = self.writer;
        place::object_path(&self.job.cluster, *id, &target.encoding.object_name(kind))
    }

    fn manifest(&self, db: Ends, include: Option<Ends>) -> Manifest {
        let Facts { source, etcd, verification, .. } = self.facts().clone();
        let Writer { target, lease, id, .. } = self.writer;
        let object = |kind, stored| Object { name: target.encoding.object_name(kind), stored };
        let include = include.zip(self.packed).map(|(ends, packed)| Include {
            object: object(ObjectKind::Include, ends.stored),
            tar: ends.content,
            paths: packed.paths.clone(),
        });
        Manifest {
            format: FORMAT,
            generation: FIRST_GENERATION,
            id: *id,
            cluster: self.job.cluster.clone(),
            fence: lease.fence(),
            source,
            started: self.started,
            finished: self.job.options.clock.now(),
            scheduled_for: self.job.options.scheduled_for,
            tool: self.job.options.tool.clone(),
            etcd,
            db: db.content,
            object: object(ObjectKind::Db, db.stored),
            include,
            compression: target.encoding.compression(),
            encryption: target.encoding.encryption(),
            verification,
        }
    }

    /// Compares the cluster with the one whose backups are there. That it cannot be done now is no reason to
    /// have no backup.
    async fn register(&self) {
        let Some(cluster_id) = &self.facts().etcd.cluster_id else { return };
        let Writer { index, repository, .. } = self.writer;
        let now = self.job.options.clock.now();
        let (cluster, store) = (&self.job.cluster, repository.store());
        let registered = repository.register(cluster, cluster_id, now).await;
        if let Ok(Registered::Differs { first }) = registered {
            // A restored cluster has another id; that was told when its first backup was made.
            if newest::is_of(store, cluster, cluster_id).await.unwrap_or(false) {
                return;
            }
            let found = cluster_id.clone();
            self.watcher.tell(Event::OtherCluster { repository: *index, first, found });
        }
    }

    async fn commit(&self, manifest: &Manifest) -> Result<(), TargetError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.writer.lease.commit(manifest).await {
                Err(LeaseError::Store { source, .. })
                    if source.is_retryable() && tries < COMMITS_MAX =>
                {
                    self.job.options.clock.sleep(self.job.options.back_off).await;
                }
                committed => return Ok(committed?),
            }
        }
    }
}

/// What cannot be removed now is listed nowhere.
async fn give_up(uploaded: Uploaded) {
    let _ = uploaded.abort().await;
}

/// Reads a file from its start, whoever else reads it.
struct FromStart {
    file: File,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
