//! Names of the files that backups in an interval leave: `FILE_vREVISION_DATE`, as the CoreOS operator named them.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// How a date stands in a name. UTC.
const DATE: &str = "%Y-%m-%d-%H:%M:%S";

/// The name of a file.
pub(super) fn name(file: &str, revision: i64, begun: Timestamp) -> String {
    format!("{file}_v{revision}_{}", begun.to_zoned(TimeZone::UTC).strftime(DATE))
}

/// Which of a folder's files to delete, so that `keep` are left: never `made`, and nothing that is no backup of `file`.
///
/// The other operator went by the alphabet, in which `v10` is older than `v9`; here the date counts.
pub(super) fn surplus(file: &str, made: &str, paths: &[String], keep: usize) -> Vec<String> {
    let others = paths.iter().filter(|path| *path != made);
    let mut others: Vec<_> = others.filter_map(|path| Some((stamp(file, path)?, path))).collect();
    others.sort_by(|a, b| b.cmp(a));
    others.into_iter().skip(keep.saturating_sub(1)).map(|(_, path)| path.clone()).collect()
}

/// When a backup was made, and its revision; none of what is no backup of `file`.
fn stamp(file: &str, path: &str) -> Option<(DateTime, u64)> {
    let (revision, date) = path.strip_prefix(file)?.strip_prefix("_v")?.split_once('_')?;
    let date = DateTime::strptime(DATE, date).ok()?;
    Some((date, revision.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surplus(made: &str, paths: &[&str], keep: usize) -> Vec<String> {
        let paths: Vec<_> = paths.iter().map(|&path| path.to_owned()).collect();
        super::surplus("etcd.db", made, &paths, keep)
    }

    #[test]
    fn a_name_has_the_revision_and_the_date() {
        let at = "2026-11-23T06:07:08Z".parse().unwrap();
        assert_eq!(name("etcd.db", 1234, at), "etcd.db_v1234_2026-11-23-06:07:08");
        assert!(stamp("etcd.db", &name("etcd.db", 1234, at)).is_some());
    }

    #[test]
    fn the_oldest_are_surplus_whatever_the_alphabet_says() {
        let paths = [
            "etcd.db_v9_2026-11-23-06:00:00",
            "etcd.db_v10_2026-11-23-06:01:00",
            "etcd.db_v100_2026-11-23-06:02:00",
        ];
        assert_eq!(surplus(paths[2], &paths, 2), [paths[0]]);
        assert_eq!(surplus(paths[2], &paths, 1), [paths[1], paths[0]]);
        assert!(surplus(paths[2], &paths, 3).is_empty());
    }

    #[test]
    fn what_was_just_made_stays_though_another_is_dated_after_it() {
        let paths = ["etcd.db_v9_2026-11-23-06:00:00", "etcd.db_v9_2099-01-01-00:00:00"];
        assert_eq!(surplus(paths[0], &paths, 1), [paths[1]]);
        assert!(surplus(paths[0], &paths, 2).is_empty());
    }

    #[test]
    fn nothing_else_is_ever_surplus() {
        let others = [
            "etcd.db",
            "etcd.db_v9",
            "etcd.db_v9_latest",
            "etcd.db_v9_2026-11-23-06:00:00.gz",
            "etcd.db2_v9_2026-11-23-06:00:00",
            "other/etcd.db_v9_2026-11-23-06:00:00",
            "my-etcd.db_v9_2026-11-23-06:00:00",
            "etcd.db_v-9_2026-11-23-06:00:00",
            "repository.json",
        ];
        assert!(surplus("made", &others, 1).is_empty());
    }
}
