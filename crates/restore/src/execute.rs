//! A plan carried out: one `db` built and read back, raft files for each member, all synced; then,
//! once the snapshot is proved, put in place.
//!
//! A snapshot that was unpacked to a temporary file is not built again: its file gets the name of the `db`, and is
//! amended once it is proved. Of gigabytes, a few pages are written twice.

use crate::{
    ahead::free_in,
    database::{self, Amendment, BuiltDatabase, DatabaseError, Rewrite},
    error::RestoreError,
    plan::{Destination, RestorePlan},
    staging::{Staging, Target, absolute, io_error, make_dir},
};
use bolt::{Db, Mapped};
use etcd_raftfiles::restore::RestoredCluster;
use rustix::fs::{AtFlags, CWD, linkat};
use snapshot::{Depth, Output, Snapshot, Verified};
use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write},
    ops::ControlFlow,
    os::{
        fd::AsRawFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// Room for WAL, raft snapshot and folders of one member, and for buckets that grow in the rewriting.
pub(crate) const RAFT_FILES_BYTES: u64 = 1 << 20;

/// How far a restore has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// That many more bytes of the database are built.
    Built(u64),
    /// Everything is written, and is being read back and made durable.
    Syncing,
}

/// What a restore made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// The data directory of each member, by name.
    pub data_dirs: Vec<(String, PathBuf)>,
    /// Bytes of the `db` of each.
    pub database_bytes: u64,
}

/// Directories that are built and durable, but not in place. Dropped, they are removed.
#[derive(Debug)]
pub struct Staged {
    staging: Staging,
    source: PathBuf,
    adopted: Option<Adopted>,
    report: RestoreReport,
}

impl Staged {
    /// Puts the directories in place, now that the snapshot they were built from is proved. A temporary one may become
    /// a database here, which is why it is taken.
    pub fn commit(self, source: Snapshot<Verified>) -> Result<RestoreReport, RestoreError> {
        assert_eq!(self.source, source.path(), "the directories were built from another file");
        // Nobody may look at the file while it is changed.
        drop(source);
        self.adopted.iter().try_for_each(Adopted::amend)?;
        self.staging.commit()?;
        Ok(self.report)
    }
}

impl RestorePlan<'_> {
    /// Builds the directories beside where they shall be. `on_progress` may end it.
    pub fn build(
        &self,
        on_progress: &dyn Fn(Progress) -> ControlFlow<()>,
    ) -> Result<Staged, RestoreError> {
        let layout = self.stage()?;
        for member in &layout.members {
            member.write_raft_files(self)?;
        }
        let databases: Vec<PathBuf> = layout.members.iter().map(MemberDirs::database).collect();
        let adopted = self.adopt(&databases[0])?;
        let database_bytes = match &adopted {
            Some(adopted) => self.copy_databases(adopted, &databases[1..], on_progress)?,
            None => self.build_databases(&databases, on_progress)?,
        };
        layout.staging.sync()?;
        let data_dirs = layout
            .members
            .iter()
            .map(|member| (member.name.to_owned(), member.data_dir.clone()))
            .collect();
        let report = RestoreReport { data_dirs, database_bytes };
        let source = self.source.path().to_owned();
        Ok(Staged { staging: layout.staging, source, adopted, report })
    }

    /// Makes the empty folders, after a look at the free space.
    fn stage(&self) -> Result<Layout<'_>, RestoreError> {
        let layout = match &self.destination {
            Destination::Member { name, data_dir, wal_dir } => {
                self.stage_member(name, data_dir, wal_dir.as_deref())?
            }
            Destination::AllMembers { dir } => self.stage_all(dir)?,
        };
        let members = layout.members.len() as u64;
        let databases = members - u64::from(self.may_adopt());
        let needed = databases * self.source.db().size() + members * RAFT_FILES_BYTES;
        check_space(&layout.members[0].member_dir, self.destination.path(), needed)?;
        layout.members.iter().try_for_each(MemberDirs::make)?;
        Ok(layout)
    }

    fn stage_member<'a>(
        &self,
        name: &'a str,
        data_dir: &Path,
        wal_dir: Option<&Path>,
    ) -> Result<Layout<'a>, RestoreError> {
        let wal_dir = wal_dir.map(|wal_dir| elsewhere(wal_dir, data_dir)).transpose()?.flatten();
        let in_existing = data_dir.is_dir();
        let tree = if in_existing { data_dir.join("member") } else { data_dir.to_owned() };
        let mut targets: Vec<Target> = wal_dir.into_iter().map(Target::Far).collect();
        targets.push(Target::Near(tree));
        let staging = Staging::begin(data_dir, &targets)?;
        let mut trees = staging.trees();
        let tree = trees.pop().expect("there is a tree for each target");
        let member_dir = if in_existing { tree } else { tree.join("member") };
        let wal_dir = trees.pop().unwrap_or_else(|| member_dir.join("wal"));
        let member = MemberDirs { name, data_dir: data_dir.to_owned(), member_dir, wal_dir };
        Ok(Layout { staging, members: vec![member] })
    }

    fn stage_all(&self, dir: &Path) -> Result<Layout<'_>, RestoreError> {
        let names = self.members();
        let in_existing = dir.is_dir();
        let targets: Vec<Target> = match in_existing {
            true => names.iter().map(|name| Target::Near(dir.join(name))).collect(),
            false => vec![Target::Near(dir.to_owned())],
        };
        let staging = Staging::begin(dir, &targets)?;
        let trees = staging.trees();
        let mut members = Vec::with_capacity(names.len());
        for (number, name) in names.into_iter().enumerate() {
            let tree = match in_existing {
                true => trees[number].clone(),
                false => trees[0].join(name),
            };
            if !in_existing {
                make_dir(&tree)?;
            }
            let member_dir = tree.join("member");
            let wal_dir = member_dir.join("wal");
            members.push(MemberDirs { name, data_dir: dir.join(name), member_dir, wal_dir });
        }
        Ok(Layout { staging, members })
    }

    /// Whether the snapshot's own file can become a `db`: it is there for nothing else, and not much of it is free. One
    /// with many free pages is built anew without them, as its size counts against etcd's quota.
    fn may_adopt(&self) -> bool {
        let (all, used) = (self.source.db().high_water_mark().0, self.source.survey().pages);
        self.source.is_temporary() && used >= all / 4 * 3
    }

    /// Gives the snapshot's file the name `path`, and finds out how it shall be changed. `None` if that cannot be: it is
    /// on another file system, say.
    fn adopt(&self, path: &Path) -> Result<Option<Adopted>, RestoreError> {
        if !self.may_adopt() {
            return Ok(None);
        }
        let named = self.source.try_clone_file().ok().filter(|file| {
            let from = format!("/proc/self/fd/{}", file.as_raw_fd());
            linkat(CWD, from, CWD, path, AtFlags::SYMLINK_FOLLOW).is_ok()
        });
        let Some(file) = named else {
            check_space(path, self.destination.path(), self.source.db().size())?;
            return Ok(None);
        };
        let amendment = database::amend(&self.source.db(), &self.rewrite());
        let amendment = amendment.map_err(|error| built_at(path, error))?;
        Ok(Some(Adopted { file, path: path.to_owned(), amendment }))
    }

    fn rewrite(&self) -> Rewrite<'_> {
        Rewrite { cluster: &self.cluster, target: self.target, bump_to: self.bump_to }
    }

    /// Writes what the adopted file will be to the other members' `paths`. Returns its size.
    fn copy_databases(
        &self,
        adopted: &Adopted,
        paths: &[PathBuf],
        on_progress: &dyn Fn(Progress) -> ControlFlow<()>,
    ) -> Result<u64, RestoreError> {
        let patch = &adopted.amendment.patch;
        if let Some(first) = paths.first() {
            let output = Output::create(paths.iter().map(PathBuf::as_path));
            let output = output.map_err(io_error("create", first))?;
            let on_bytes = |bytes| on_progress(Progress::Built(bytes));
            patch.write(&self.source.db(), output, &on_bytes).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::Interrupted => RestoreError::Interrupted,
                    _ => io_error("write", first)(error),
                }
            })?;
            adopted.read_back(first)?;
        } else if on_progress(Progress::Built(patch.size())).is_break() {
            return Err(RestoreError::Interrupted);
        }
        if on_progress(Progress::Syncing).is_break() {
            return Err(RestoreError::Interrupted);
        }
        Ok(patch.size())
    }

    /// Builds the same `db` at all `paths`, and reads the first back whole. Returns its size.
    fn build_databases(
        &self,
        paths: &[PathBuf],
        on_progress: &dyn Fn(Progress) -> ControlFlow<()>,
    ) -> Result<u64, RestoreError> {
        let path = &paths[0];
        let output = Output::create(paths.iter().map(PathBuf::as_path));
        let output = output.map_err(io_error("create", path))?;
        let on_bytes = |bytes| on_progress(Progress::Built(bytes));
        let database = database::build(&self.source.db(), &self.rewrite(), output, &on_bytes)
            .map_err(|error| built_at(path, error))?;
        if on_progress(Progress::Syncing).is_break() {
            return Err(RestoreError::Interrupted);
        }
        read_back(path, &database)?;
        Ok(database.built.size)
    }
}

/// The snapshot's file, which has a member's name for it already, and becomes its `db` when it is proved.
#[derive(Debug)]
struct Adopted {
    file: File,
    path: PathBuf,
    amendment: Amendment,
}

impl Adopted {
    /// Makes a database of it, durably.
    fn amend(&self) -> Result<(), RestoreError> {
        let for_its_owner = Permissions::from_mode(0o600);
        let amended = self.file.set_permissions(for_its_owner).and_then(|()| {
            self.amendment.patch.apply(&self.file)?;
            self.file.sync_all()
        });
        amended.map_err(io_error("write", &self.path))?;
        self.read_back(&self.path)
    }

    /// Looks at what was written to `path`, which is this file or a copy of what it will be. The pages that were kept
    /// were walked before.
    fn read_back(&self, path: &Path) -> Result<(), RestoreError> {
        let fault = |what: String| RestoreError::SelfCheck { path: path.to_owned(), what };
        let mapped = File::open(path).and_then(|file| Mapped::open(&file));
        let mapped = mapped.map_err(io_error("map", path))?;
        let db = Db::open(&mapped).map_err(|error| fault(error.to_string()))?;
        match self.amendment.reads_back(&db) {
            Ok(true) => Ok(()),
            Ok(false) => Err(fault("its hash differs".to_owned())),
            Err(error) => Err(fault(error.to_string())),
        }
    }
}

fn built_at(path: &Path, error: DatabaseError) -> RestoreError {
    match error {
        DatabaseError::Interrupted => RestoreError::Interrupted,
        DatabaseError::Read(source) => RestoreError::Read(source),
        DatabaseError::Build(source) => RestoreError::Build { path: path.to_owned(), source },
    }
}

/// The WAL directory, unless it is where it would be anyway. One that lies elsewhere in the data
/// directory, or around it, could not be put in place by itself.
pub(crate) fn elsewhere(wal_dir: &Path, data_dir: &Path) -> Result<Option<PathBuf>, RestoreError> {
    let (wal, data) = (absolute(wal_dir)?, absolute(data_dir)?);
    if wal == data.join("member/wal") {
        return Ok(None);
    }
    if wal.starts_with(&data) || data.starts_with(&wal) {
        let (wal_dir, data_dir) = (wal_dir.to_owned(), data_dir.to_owned());
        return Err(RestoreError::WalDirInDataDir { wal_dir, data_dir });
    }
    Ok(Some(wal))
}

/// Whether `needed` bytes are free where `staged` is. `shown` is what the user calls that place.
fn check_space(staged: &Path, shown: &Path, needed: u64) -> Result<(), RestoreError> {
    let on = staged.ancestors().find(|path| path.is_dir()).unwrap_or(staged);
    let available = free_in(on)?;
    if available < needed {
        return Err(RestoreError::NoSpace { path: shown.to_owned(), needed, available });
    }
    Ok(())
}

/// Walks what was written: every page sound, and the hash that of what was put in.
fn read_back(path: &Path, database: &BuiltDatabase) -> Result<(), RestoreError> {
    let fault = |what: String| RestoreError::SelfCheck { path: path.to_owned(), what };
    let mapped = File::open(path).and_then(|file| Mapped::open(&file));
    let mapped = mapped.map_err(io_error("map", path))?;
    mapped.prefetch().map_err(io_error("read", path))?;
    let db = Db::open(&mapped).map_err(|error| fault(error.to_string()))?;
    let mut first_finding = None;
    let survey = snapshot::survey(&db, Depth::Tree, &mut |finding| {
        first_finding.get_or_insert(finding);
    });
    if let Some(finding) = first_finding {
        return Err(fault(finding.to_string()));
    }
    if (survey.status_hash, survey.pairs()) != (database.status_hash, database.built.pairs) {
        return Err(fault("its hash differs".to_owned()));
    }
    Ok(())
}

/// The folders being filled.
struct Layout<'a> {
    staging: Staging,
    members: Vec<MemberDirs<'a>>,
}

/// One member's folders.
struct MemberDirs<'a> {
    name: &'a str,
    /// Where it will be.
    data_dir: PathBuf,
    /// Where its `member` folder is now.
    member_dir: PathBuf,
    wal_dir: PathBuf,
}

impl MemberDirs<'_> {
    /// Makes the folders that are not there yet.
    fn make(&self) -> Result<(), RestoreError> {
        for dir in [&self.member_dir, &self.snap_dir(), &self.wal_dir] {
            if !dir.is_dir() {
                make_dir(dir)?;
            }
        }
        Ok(())
    }

    fn snap_dir(&self) -> PathBuf {
        self.member_dir.join("snap")
    }

    fn database(&self) -> PathBuf {
        self.snap_dir().join("db")
    }

    fn write_raft_files(&self, plan: &RestorePlan<'_>) -> Result<(), RestoreError> {
        let cluster = &plan.cluster;
        let member = cluster.members().iter().find(|member| member.name == self.name);
        let id = member.expect("the plan's members are the cluster's").id;
        let wal = self.wal_dir.join(RestoredCluster::wal_name().to_string());
        write_new(&wal, &cluster.wal(id, plan.target.wal_target()))?;
        write_new(&self.snap_dir().join(cluster.snap_name().to_string()), &cluster.snap())
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), RestoreError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(io_error("write", path))
}
