//! A cluster brought back from what one of its members has left, where that is more than the newest backup.
//!
//! ```text
//!   lock ─ hold-source ─ take ─────────────── fetch ──▶ proved and built here ─ send ─ stop-clients ─ …
//!          etcd of that   its db and WAL as a   the snapshot, here;
//!          member stops   snapshot, beside it   SHA-256 compared
//! ```
//!
//! * The member's directory is only read. The snapshot of it lies beside it until it is here.
//! * `hold-source` is there only where that etcd runs, without quorum: nobody can write to it, but it has its files in hand.
//! * All entries that the log has are taken, also those beyond the commit that it tells (see `snapshot::StoppedMember`): clients may
//!   have been told that they are done.
//! * Until `fetch` is over nothing but that one member was touched. If its data are damaged, all of it is taken back.

use crate::{
    agent::Answer,
    contents::{Contents, Kinship},
    facts::Facts,
    host::{HostError, Remote},
    journal::{Journal, What},
    plan::Plan,
    run::{Event, Run, RunError, Watcher, patiently},
    shell::quote_path,
    spec::Spec,
    steps::{Kind, LOCK, Step, steps},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use snapshot::{StoppedMember, UseLog};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt::Write as _,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The steps that come before the data can be built, where they come from a member.
pub(crate) const BEFORE_BUILD: [&str; 4] = [LOCK, HOLD, TAKE, FETCH];
pub(crate) const HOLD: &str = "hold-source";
pub(crate) const TAKE: &str = "take";
pub(crate) const FETCH: &str = "fetch";

/// What was fetched, beside the plan.
const RESCUED: &str = "rescued.yaml";
/// The snapshot, in the run's folder.
const FILE: &str = "rescued.db";
/// lifeboat's exit code for damage.
const DAMAGED: i32 = 3;
/// In a database that is larger, the log is only counted by a look: to apply it takes a pass over all keys, from a cold disk.
const APPLY_BYTES_MAX: u64 = 512 << 20;
/// A file that arrives damaged is fetched again so often.
const FETCHES_MAX: u32 = 3;

/// The member whose data are taken instead of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Rescue {
    /// What its host is called in the plan.
    pub member: String,
    /// Its etcd runs, and must be stopped before its data are read.
    pub etcd_runs: bool,
    /// Its log is left out.
    pub db_only: bool,
}

/// What a member's directory holds, as far as a look tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Held {
    /// The newest revision, with the log applied if it can be.
    pub revision: Option<i64>,
    /// Ids of the cluster's members, as the database lists them.
    pub members: BTreeSet<u64>,
    /// Bytes of the database.
    pub bytes: u64,
    /// When it was written to for the last time, as far as the times of its files tell.
    pub written: Option<Timestamp>,
    /// What the log has beyond the database.
    pub log: Option<HeldLog>,
    /// These entries are not in `revision`: with a large database, that would have taken long.
    pub counted_only: bool,
    /// Why it cannot be taken as it is.
    pub trouble: Option<String>,
    /// That is damage.
    pub damaged: bool,
    /// What can be done about that.
    pub remedy: Option<String>,
}

/// What a log has beyond the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct HeldLog {
    /// Entries that are only in the log.
    pub entries: usize,
    /// How many of them lie beyond the commit that the log tells.
    pub beyond_commit: usize,
    /// The last entry.
    pub last_index: u64,
    /// Its term, if that is known.
    pub last_term: Option<u64>,
}

/// A host that has data of the old cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Survivor {
    /// The member, or the host.
    pub label: String,
    /// Whether its etcd runs.
    pub etcd_runs: bool,
    /// What it holds; without a revision if it was not asked.
    pub held: Held,
}

/// What was fetched from a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rescued {
    /// SHA-256 in hex, computed on the host.
    pub sha256: String,
    /// Bytes.
    pub bytes: u64,
    /// The revision it has.
    pub revision: i64,
    /// What the log has added; nothing if it was left out.
    pub log: Option<HeldLog>,
}

/// What `lifeboat snapshot save -w json` prints.
#[derive(Deserialize)]
struct Saved {
    revision: i64,
    log: Option<SavedLog>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SavedLog {
    entries: usize,
    beyond_commit: usize,
    last_index: u64,
    last_term: Option<u64>,
}

impl Held {
    /// Looks at a directory on this machine; nothing if there is no database in it.
    pub fn look(data_dir: &Path, wal_dir: Option<&Path>) -> Option<Self> {
        let db = data_dir.join("member/snap/db");
        let found = fs::metadata(&db).ok()?;
        let contents = Contents::of_file(&db).unwrap_or_default();
        let of_database = contents.revision;
        let member = StoppedMember {
            data_dir: data_dir.to_owned(),
            wal_dir: wal_dir.map(Path::to_owned),
            log: UseLog::Whole,
        };
        let mut held = Self {
            revision: of_database,
            members: contents.members,
            bytes: found.len(),
            ..Self::default()
        };
        let mut written = found.modified().ok();
        match snapshot::glance(&member, APPLY_BYTES_MAX) {
            Ok(glance) => {
                held.revision = glance.revision.or(of_database);
                held.counted_only = glance.revision.is_none() && glance.replayed.entries > 0;
                held.log = Some(HeldLog {
                    entries: glance.replayed.entries,
                    beyond_commit: glance.replayed.beyond_commit,
                    last_index: glance.replayed.index,
                    last_term: glance.replayed.term,
                });
                // A member without quorum writes its votes to the log: only entries make that newer than the database.
                if held.counted_only || glance.revision > of_database {
                    let wal_dir = member.wal_dir.unwrap_or_else(|| data_dir.join("member/wal"));
                    written = written.max(newest_segment(&wal_dir));
                }
            }
            Err(error) => {
                held.trouble = Some(chain(&error));
                held.damaged = error.is_damage();
                held.remedy = Some(error.remedy().to_owned());
            }
        }
        held.written = written.and_then(|time| Timestamp::try_from(time).ok());
        Some(held)
    }
}

impl Held {
    /// How far it goes, and whose it is.
    pub(crate) fn contents(&self) -> Contents {
        Contents { revision: self.revision, members: self.members.clone() }
    }

    /// The greatest revision that it can have.
    pub(crate) fn reach(&self) -> Option<i64> {
        let counted = self.log.filter(|_| self.counted_only).map_or(0, |log| log.entries);
        Some(self.revision?.saturating_add(i64::try_from(counted).unwrap_or(i64::MAX)))
    }
}

fn newest_segment(wal_dir: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(wal_dir).ok()?.flatten();
    let segments = entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "wal"));
    segments.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

impl Rescue {
    /// Whether what a member holds can be taken so.
    pub fn can_take(&self, held: &Held) -> bool {
        held.trouble.is_none() || self.db_only && held.revision.is_some()
    }
}

/// An error with all that caused it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

impl Survivor {
    /// How recent its data are: raft's own order, by which a majority elects the one that has every acknowledged write; where it is
    /// not known, the revision.
    fn recency(&self) -> (u64, u64, i64) {
        let log = self.held.log.filter(|_| self.held.trouble.is_none()).unwrap_or_default();
        (log.last_term.unwrap_or(0), log.last_index, self.held.revision.unwrap_or(0))
    }

    /// Data from before a recovery have another log, whose terms and indexes say nothing here.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        match self.held.contents().kinship(&other.held.contents()) {
            Kinship::Recovered => self.held.revision.cmp(&other.held.revision),
            _ => self.recency().cmp(&other.recency()),
        }
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.held.trouble.is_none()
    }
}

/// The hosts that have data left, in the order of the spec. `answers` may be of fewer hosts, or of none.
pub fn survivors(
    spec: &Spec,
    facts: &BTreeMap<String, Facts>,
    answers: &[(String, Answer)],
) -> Vec<Survivor> {
    let hosts = spec.resolved().into_iter();
    hosts
        .filter_map(|host| {
            let found = facts.get(&host.label)?;
            let data = found.data.as_ref().filter(|data| data.filled)?;
            let answer = answers.iter().find(|(label, _)| *label == host.label);
            let held = answer.and_then(|(_, answer)| answer.held.clone());
            let written = data.written.and_then(|at| Timestamp::from_second(at).ok());
            Some(Survivor {
                etcd_runs: found.service_running,
                held: held.unwrap_or_else(|| Held { written, ..Held::default() }),
                label: host.label,
            })
        })
        .collect()
}

/// The one whose data are the most recent, if any can be taken; the first of several that are equal.
pub fn most_recent(survivors: &[Survivor]) -> Option<&Survivor> {
    let usable = survivors.iter().filter(|survivor| survivor.is_usable());
    usable.rev().max_by(|a, b| a.compare(b).then(a.held.written.cmp(&b.held.written)))
}

/// Where the snapshot is on the host until it was fetched.
pub(crate) fn on_host(plan: &Plan, places: &crate::place::Places) -> PathBuf {
    let name = places.data.current.file_name().unwrap_or_default().to_string_lossy().into_owned();
    places.data.current.with_file_name(format!("{name}.lifeboat-{}.snapshot", plan.run))
}

/// The file that `take` leaves beside the snapshot: what `lifeboat snapshot save` says of it.
pub(crate) fn told(snapshot: &Path) -> PathBuf {
    let mut name = snapshot.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// What was fetched in an earlier part of a run, and where it is.
pub fn rescued(journal: &Journal) -> Option<(Rescued, PathBuf)> {
    let rescued: Rescued = journal.kept(RESCUED)?;
    let path = journal.folder().join(FILE);
    let whole = fs::metadata(&path).is_ok_and(|found| found.len() == rescued.bytes);
    whole.then_some((rescued, path))
}

/// Where what is fetched from a member will be.
pub fn rescued_path(journal: &Journal) -> PathBuf {
    journal.folder().join(FILE)
}

/// Removes it: the member's own data are where they were.
pub fn forget(journal: &Journal) {
    let path = rescued_path(journal);
    // What is not there needs no removing.
    let _ = fs::remove_file(path.with_extension("part"));
    let _ = fs::remove_file(path);
}

impl RunError {
    /// Whether a member's data are damaged, so that they cannot be taken.
    pub fn is_damaged_source(&self) -> bool {
        let Self::Hosts { failures, .. } = self else { return false };
        failures.iter().any(|failure| failure.exit_code() == Some(DAMAGED))
    }
}

impl Run<'_> {
    /// Takes the data of the member that the plan names, and brings them here; from wherever that stopped.
    pub async fn rescue(&self) -> Result<Rescued, RunError> {
        let steps = steps(self.plan);
        let of = steps.len();
        let mut fetched = rescued(self.journal).map(|(rescued, _)| rescued);
        for (number, step) in steps.iter().enumerate() {
            if !BEFORE_BUILD.contains(&step.id.as_str()) || step.id == TAKE && fetched.is_some() {
                continue;
            }
            let title = step.title.clone();
            (self.fleet.watcher)(Event::Step { number: number + 1, of, title });
            self.note(What::Begin, &step.id, None)?;
            let done = match self.before_build(step, &mut fetched).await {
                Ok(()) if step.id == LOCK => self.refuse_stale().await,
                done => done,
            };
            if let Err(error) = done {
                self.note(What::Failed, &step.id, Some(&error.to_string()))?;
                return Err(error);
            }
            self.note(What::Done, &step.id, None)?;
        }
        Ok(fetched.expect("the last step fetches it"))
    }

    async fn before_build(
        &self,
        step: &Step,
        fetched: &mut Option<Rescued>,
    ) -> Result<(), RunError> {
        if step.kind == Kind::Fetch && fetched.is_none() {
            let part = step.hosts.first().expect("the member's host takes part");
            let remote = self.fleet.remote(part.host);
            let host = &self.fleet.hosts()[part.host];
            let from = on_host(self.plan, &self.plan.places(host));
            let to = rescued_path(self.journal);
            let rescued = fetch(remote, &from, &to, &self.fleet.watcher).await;
            let rescued = rescued.map_err(|error| RunError::Hosts {
                step: step.title.clone(),
                failures: vec![error],
            })?;
            self.journal.keep(RESCUED, &rescued)?;
            *fetched = Some(rescued);
        }
        self.on_all(step, &crate::Built::default()).await
    }

    /// Takes back what [`rescue`](Self::rescue) did, and ends the run: nothing else was touched.
    pub async fn give_up_rescue(&self) -> Result<(), RunError> {
        let steps = steps(self.plan);
        let is_done = |step: &&Step| {
            BEFORE_BUILD.contains(&step.id.as_str())
                && step.hosts.iter().any(|part| !part.undo.is_empty())
        };
        let done: Vec<_> = steps.iter().filter(is_done).collect();
        for (number, step) in done.iter().rev().enumerate() {
            let title = self.undone_title(step);
            (self.fleet.watcher)(Event::Step { number: number + 1, of: done.len(), title });
            self.undo(step).await?;
        }
        self.journal.note(What::RolledBack, None, None, None)?;
        forget(self.journal);
        Ok(())
    }
}

/// Brings the snapshot here, whole.
async fn fetch(
    remote: &Remote,
    from: &Path,
    to: &Path,
    watcher: &Watcher,
) -> Result<Rescued, HostError> {
    let look = format!(
        "set -eu\nsha256sum <{from} | cut -c1-64\nwc -c <{from}\ncat {told}\n",
        from = quote_path(from),
        told = quote_path(&told(from))
    );
    let answer = patiently(remote, watcher, || remote.script(&look)).await?;
    let rescued = Rescued::parse(&answer).ok_or_else(|| remote.not_understood(&answer))?;
    let label = remote.label().to_owned();
    let on_bytes = |bytes| watcher(Event::Sent { label: label.clone(), bytes, of: rescued.bytes });
    let command = format!("exec cat {}", quote_path(from));
    let part = to.with_extension("part");
    let local = |source| HostError::Write { path: part.clone(), source };
    for fetches in 1.. {
        let fetch = || remote.fetch(&command, &part, rescued.bytes, &on_bytes);
        patiently(remote, watcher, fetch).await?;
        let arrived = crate::sha256_of(&part).map_err(local)?;
        if arrived == rescued.sha256 {
            break;
        }
        let error = HostError::Damaged {
            label: label.clone(),
            file: from.display().to_string(),
            arrived,
            sent: rescued.sha256.clone(),
        };
        if fetches == FETCHES_MAX {
            return Err(error);
        }
        watcher(Event::Again { label: label.clone(), why: error.to_string(), left: None });
    }
    put_in_place(&part, to).map_err(local)?;
    Ok(rescued)
}

fn put_in_place(part: &Path, to: &Path) -> io::Result<()> {
    File::open(part)?.sync_all()?;
    fs::rename(part, to)?;
    File::open(to.parent().expect("it is in the run's folder"))?.sync_all()
}

impl Rescued {
    /// Two lines and JSON.
    fn parse(answer: &str) -> Option<Self> {
        let mut parts = answer.splitn(3, '\n');
        let sha256 = parts.next()?.trim().to_owned();
        let bytes = parts.next()?.trim().parse().ok()?;
        let saved: Saved = serde_json::from_str(parts.next()?).ok()?;
        let log = saved.log.map(|log| HeldLog {
            entries: log.entries,
            beyond_commit: log.beyond_commit,
            last_index: log.last_index,
            last_term: log.last_term,
        });
        Some(Self { sha256, bytes, revision: saved.revision, log })
    }

    /// What a person is told of it.
    pub fn line(&self, member: &str) -> String {
        let log = match self.log {
            None => "its log was left out".to_owned(),
            Some(log) if log.beyond_commit > 0 => format!(
                "{} entries were in its log only, {} of them beyond the commit that it tells: these are kept too",
                log.entries, log.beyond_commit
            ),
            Some(log) => format!("{} entries were in its log only", log.entries),
        };
        format!("{member}'s data: revision {}, proved; {log}", self.revision)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn survivor(label: &str, revision: i64, term: u64, index: u64) -> Survivor {
        Survivor {
            label: label.to_owned(),
            held: Held {
                revision: Some(revision),
                members: [1, 2, 3].into(),
                written: Some("2026-11-22T15:58:00Z".parse().unwrap()),
                log: Some(HeldLog {
                    last_index: index,
                    last_term: Some(term),
                    ..HeldLog::default()
                }),
                ..Held::default()
            },
            ..Survivor::default()
        }
    }

    #[test]
    fn of_several_members_the_one_that_raft_would_elect_is_the_most_recent() {
        let label = |survivors: &[Survivor]| most_recent(survivors).unwrap().label.clone();
        let (older, newer) = (survivor("m1", 160, 2, 300), survivor("m2", 150, 3, 200));
        assert_eq!(label(&[older.clone(), newer.clone()]), "m2");
        assert_eq!(label(&[survivor("m3", 150, 3, 200), newer.clone()]), "m3");
        let mut damaged = newer;
        damaged.held.trouble = Some("damaged".to_owned());
        assert_eq!(label(&[damaged.clone(), older]), "m1");
        assert_eq!(most_recent(&[damaged]), None);
    }

    #[test]
    fn data_from_before_a_recovery_are_older_whatever_their_log_says() {
        let (before, after) = (survivor("m1", 160, 9, 5000), survivor("m2", 1_000_000_170, 2, 30));
        assert_eq!(most_recent(&[before, after]).unwrap().label, "m2");
    }
}
