//! Which of the files in a folder is the backup, by their names.
//!
//! ```text
//!   snapshot_2026-11-22_164424.db                    OpenShift, beside
//!   static_kuberesources_2026-11-22_164424.tar.gz    the static pods of that moment
//!
//!   Full-00000000-00000600-1763829864.gz             etcd-backup-restore v2: first and last revision, time
//!   Incr-00000601-00000700-1763830164.gz             events since then
//! ```

use std::fmt;

/// The file to take, and what should be said of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Its name.
    pub name: String,
    /// What is left out.
    pub left: Vec<LeftOut>,
}

/// What stands beside a snapshot and is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftOut {
    /// Files of the control plane, in an archive.
    Resources {
        /// Its name.
        name: String,
    },
    /// Events after the snapshot, which are not applied.
    Incremental {
        /// How many files of them.
        files: usize,
        /// The newest revision in them.
        last_revision: u64,
    },
    /// Snapshots that are older.
    Older {
        /// How many.
        files: usize,
    },
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resources { name } => {
                write!(
                    f,
                    "{name} has the control plane's own files; unpack it by hand if they are lost"
                )
            }
            Self::Incremental { files, last_revision } => write!(
                f,
                "{files} incremental snapshots after it, up to revision {last_revision}, are not applied"
            ),
            Self::Older { files } => write!(f, "{files} older snapshots are left alone"),
        }
    }
}

/// Why nothing can be picked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoPick {
    /// Nothing is there that could be one.
    None,
    /// It does not follow from the names which one is meant.
    Several(Vec<String>),
}

/// Picks the newest snapshot among files of one of the known schemes, or the only file.
pub(super) fn pick(names: &[String]) -> Result<Picked, NoPick> {
    if let Some(picked) = pick_etcdbr(names).or_else(|| pick_openshift(names)) {
        return Ok(picked);
    }
    match names {
        [] => Err(NoPick::None),
        [only] => Ok(Picked { name: only.clone(), left: Vec::new() }),
        several => Err(NoPick::Several(several.to_vec())),
    }
}

/// A name of etcd-backup-restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Etcdbr {
    last: u64,
    unix: u64,
    first: u64,
    full: bool,
}

impl Etcdbr {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let full = match parts.next()? {
            "Full" => true,
            "Incr" => false,
            _ => return None,
        };
        let (first, last) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let time = parts.next()?;
        let unix = time.split_once('.').map_or(time, |(unix, _)| unix).parse().ok()?;
        (parts.next().is_none() && first <= last).then_some(Self { last, unix, first, full })
    }
}

fn pick_etcdbr(names: &[String]) -> Option<Picked> {
    let parsed = || names.iter().filter_map(|name| Some((Etcdbr::parse(name)?, name)));
    let fulls = parsed().filter(|(parsed, _)| parsed.full);
    let (newest, name) = fulls.clone().max()?;
    let later = parsed().filter(|(parsed, _)| !parsed.full && parsed.last > newest.last);
    let (files, last_revision) =
        later.fold((0, 0), |(files, last), (incr, _)| (files + 1, last.max(incr.last)));
    let incremental = (files > 0).then_some(LeftOut::Incremental { files, last_revision });
    let left = incremental.into_iter().chain(older(fulls.count())).collect();
    Some(Picked { name: name.clone(), left })
}

fn pick_openshift(names: &[String]) -> Option<Picked> {
    let time = |name: &str| {
        name.strip_prefix("snapshot_").and_then(|name| Some(name.strip_suffix(".db")?.to_owned()))
    };
    let snapshots = names.iter().filter_map(|name| Some((time(name)?, name)));
    let (time, name) = snapshots.clone().max()?;
    let beside = format!("static_kuberesources_{time}.tar.gz");
    let resources = names.contains(&beside).then_some(LeftOut::Resources { name: beside });
    let left = resources.into_iter().chain(older(snapshots.count())).collect();
    Some(Picked { name: name.clone(), left })
}

fn older(snapshots: usize) -> Option<LeftOut> {
    (snapshots > 1).then(|| LeftOut::Older { files: snapshots - 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(names: &[&str]) -> Result<Picked, NoPick> {
        pick(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_newest_full_snapshot_is_taken_and_what_is_after_it_is_told() {
        let picked = picked(&[
            "Full-00000000-00000360-1763820000.gz",
            "Incr-00000361-00000500-1763821000.gz",
            "Full-00000000-00000600-1763829864.Z",
            "Incr-00000601-00000640-1763830164.gz",
            "Incr-00000641-00000700-1763830464",
        ]);
        let left = vec![
            LeftOut::Incremental { files: 2, last_revision: 700 },
            LeftOut::Older { files: 1 },
        ];
        let name = "Full-00000000-00000600-1763829864.Z".to_owned();
        assert_eq!(picked, Ok(Picked { name, left }));
    }

    #[test]
    fn the_snapshot_in_an_openshift_folder_is_taken_and_the_archive_beside_it_is_told() {
        let resources = "static_kuberesources_2026-11-22_164424.tar.gz";
        let picked = picked(&[
            "snapshot_2026-11-21_164424.db",
            "snapshot_2026-11-22_164424.db",
            "static_kuberesources_2026-11-21_164424.tar.gz",
            resources,
        ]);
        let left =
            vec![LeftOut::Resources { name: resources.to_owned() }, LeftOut::Older { files: 1 }];
        assert_eq!(picked, Ok(Picked { name: "snapshot_2026-11-22_164424.db".to_owned(), left }));
    }

    #[test]
    fn an_only_file_is_taken_and_among_several_there_is_no_guessing() {
        assert_eq!(picked(&["x"]).unwrap().name, "x");
        assert_eq!(picked(&[]), Err(NoPick::None));
        assert!(
            matches!(picked(&["a.db", "b.db"]), Err(NoPick::Several(names)) if names.len() == 2)
        );
    }

    #[test]
    fn what_only_looks_like_a_name_of_etcdbr_is_none() {
        for name in ["Full-1-2", "Full-2-1-3", "Full-1-2-3-4", "Full-a-2-3", "Part-1-2-3"] {
            assert_eq!(Etcdbr::parse(name), None, "{name}");
        }
    }
}
