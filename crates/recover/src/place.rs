//! Where data lie on a host, before, meanwhile and after.
//!
//! ```text
//!   beside: the directory itself is renamed          inside: it is a mount point, so what is in it is renamed
//!     /var/lib/etcd                    current         /var/lib/etcd/member
//!     /var/lib/etcd.lifeboat-RUN       old, kept       /var/lib/etcd/member.lifeboat-RUN
//!     /var/lib/etcd.lifeboat-RUN.new   being built     /var/lib/etcd/member.lifeboat-RUN.new
//! ```
//!
//! A file `lifeboat-RUN` in the `member` folder, written last, says whose data these are and that they are whole: it is what
//! checks go by, as it moves with the data. etcd does not look at it.

use std::path::{Path, PathBuf};

/// One directory that is exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where etcd has it.
    pub(crate) current: PathBuf,
    /// Where the old one is kept.
    pub(crate) old: PathBuf,
    /// Where the new one is put together.
    pub(crate) new: PathBuf,
    /// Where a rollback puts what the new one has become.
    pub(crate) undone: PathBuf,
}

/// All of one host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// The data.
    pub(crate) data: Place,
    /// The WAL, if it lies elsewhere.
    pub(crate) wal: Option<Place>,
    /// The data directory is a mount point.
    pub(crate) inside: bool,
    run: String,
}

impl Place {
    fn of(current: PathBuf, run: &str) -> Self {
        let with = |suffix: &str| {
            let mut name = current.clone().into_os_string();
            name.push(format!(".lifeboat-{run}{suffix}"));
            PathBuf::from(name)
        };
        Self { old: with(""), new: with(".new"), undone: with(".undone"), current }
    }
}

impl Places {
    pub(crate) fn new(data_dir: &Path, wal_dir: Option<&Path>, inside: bool, run: &str) -> Self {
        let current = if inside { data_dir.join("member") } else { data_dir.to_owned() };
        Self {
            data: Place::of(current, run),
            wal: wal_dir.map(|wal_dir| Place::of(wal_dir.to_owned(), run)),
            inside,
            run: run.to_owned(),
        }
    }

    /// The data directory, with links followed.
    pub(crate) fn data_dir(&self) -> PathBuf {
        let current = &self.data.current;
        let inside = current.parent().filter(|_| self.inside);
        inside.unwrap_or(current).to_owned()
    }

    /// The `member` folder below one of the data's places.
    pub(crate) fn member(&self, place: &Path) -> PathBuf {
        if self.inside { place.to_owned() } else { place.join("member") }
    }

    /// The mark below one of the data's places.
    pub(crate) fn mark(&self, place: &Path) -> PathBuf {
        self.member(place).join(format!("lifeboat-{}", self.run))
    }

    /// The folder that the WAL segments are put into.
    pub(crate) fn new_wal(&self) -> PathBuf {
        match &self.wal {
            Some(wal) => wal.new.clone(),
            None => self.member(&self.data.new).join("wal"),
        }
    }

    /// The folder of the new `db`.
    pub(crate) fn new_snap(&self) -> PathBuf {
        self.member(&self.data.new).join("snap")
    }

    /// Data and WAL.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.data).chain(&self.wal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_where_follows_from_the_directory_and_the_run() {
        let beside = Places::new(Path::new("/var/lib/etcd"), Some(Path::new("/wal")), false, "r1");
        assert_eq!(beside.data.old, Path::new("/var/lib/etcd.lifeboat-r1"));
        assert_eq!(beside.new_snap(), Path::new("/var/lib/etcd.lifeboat-r1.new/member/snap"));
        assert_eq!(beside.new_wal(), Path::new("/wal.lifeboat-r1.new"));
        assert_eq!(
            beside.mark(&beside.data.current),
            Path::new("/var/lib/etcd/member/lifeboat-r1")
        );
        let inside = Places::new(Path::new("/var/lib/etcd"), None, true, "r1");
        assert_eq!(inside.data.old, Path::new("/var/lib/etcd/member.lifeboat-r1"));
        assert_eq!(inside.new_wal(), Path::new("/var/lib/etcd/member.lifeboat-r1.new/wal"));
        assert_eq!(
            inside.mark(&inside.data.current),
            Path::new("/var/lib/etcd/member/lifeboat-r1")
        );
    }
}
