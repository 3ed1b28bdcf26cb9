//! What a run has done: a folder on the operator's machine, with lines that are on disk before the next step begins.
//!
//! ```text
//!   <state>/recover/RUN/plan.yaml        what will be done
//!                       journal.jsonl    what was done, a line each
//!                       built.yaml       what was built from the backup
//!                       rescued.db       a member's data, if they are taken instead of a backup; until the end
//!                       build/           the data to be sent, until all hosts have them
//!   <state>/recover/CLUSTER.flock        locked while a run for that cluster goes on
//!   <state>/recover/seat                 names this folder, for hosts
//! ```
//!
//! The journal tells a person; whether a step is done is asked of the hosts. Only how a run ended is read from it.

use crate::{claim::Holder, plan::Plan};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another run for the cluster goes on.
    #[error("another run for {cluster} goes on here{holder}")]
    Busy {
        /// The cluster.
        cluster: String,
        /// The run, the process and since when it works, as `: run …`.
        holder: String,
    },
    /// The plan of a run cannot be read.
    #[error("{} is no plan", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<serde_saphyr::Error>,
    },
    /// There is no such run.
    #[error("there is no run {wanted} in {}", folder.display())]
    Unknown {
        /// What was looked for.
        wanted: String,
        /// Where.
        folder: PathBuf,
    },
}

impl JournalError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io { .. } => {
                "check the folder's permissions and free space, or name another with --state-dir"
            }
            Self::Busy { .. } => {
                "wait for it to end, or end it: Ctrl-C where it runs, or `kill` with that pid; `lifeboat recover status` shows where the hosts are"
            }
            Self::Plan { .. } => "move that folder away if it is of no use",
            Self::Unknown { .. } => "see which there are with `lifeboat recover status`",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub what: What,
    /// In which step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// On which host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// More.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The run, or a step of it, begins.
    Begin,
    /// A step was done on a host, or on all.
    Done,
    /// It was done before.
    Already,
    /// It failed.
    Failed,
    /// The cluster is back.
    Finished,
    /// A step is taken back.
    Undo,
    /// The old cluster is back.
    RolledBack,
    /// It cannot be taken back any more.
    Committed,
}

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was stopped somewhere, or goes on.
    Unfinished,
    /// A rollback was begun.
    RollingBack,
    /// The cluster is back; it can still be taken back.
    Finished,
    /// The old cluster is back.
    RolledBack,
    /// Final.
    Committed,
}

/// All runs of a machine.
#[derive(Clone, Debug)]
pub struct Runs {
    folder: PathBuf,
}

/// One run.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    file: Mutex<File>,
}

/// Held while a run for a cluster goes on.
#[derive(Debug)]
pub struct Lock {
    file: File,
    since: Timestamp,
}

impl Runs {
    /// The runs below a state folder, as `~/.local/state/lifeboat`.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join("recover") }
    }

    /// Keeps others from a cluster.
    pub fn lock(&self, cluster: &str) -> Result<Lock, JournalError> {
        make_folder(&self.folder)?;
        let path = self.folder.join(format!("{}.flock", cluster.replace('/', "_")));
        let mut options = OpenOptions::new();
        let opened =
            options.create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let mut file = opened.map_err(io_error("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let lock = Lock { file, since: Timestamp::now() };
                lock.tell(None).map_err(io_error("write", &path))?;
                Ok(lock)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Who has it is only good to know.
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                let holder = if holder.is_empty() { String::new() } else { format!(": {holder}") };
                Err(JournalError::Busy { cluster: cluster.to_owned(), holder })
            }
            Err(error) => Err(io_error("lock", &path)(error.into())),
        }
    }

    /// This process, and the folder of runs that it works with: what is in the folder goes on with its runs.
    pub fn holder(&self) -> Result<Holder, JournalError> {
        make_folder(&self.folder)?;
        let path = self.folder.join("seat");
        if !path.exists() {
            let part = self.folder.join(format!("seat-{}", std::process::id()));
            write_synced(
                &part,
                &Plan::new_run(Timestamp::now()).map_err(io_error("name", &path))?,
            )?;
            // Whoever was first has named it.
            let _ = fs::hard_link(&part, &path);
            fs::remove_file(&part).map_err(io_error("remove", &part))?;
        }
        let seat = fs::read_to_string(&path).map_err(io_error("read", &path))?;
        Ok(Holder { seat, ..Holder::here() })
    }

    /// Begins a run: its plan is on disk when this returns.
    pub fn begin(&self, plan: &Plan) -> Result<Journal, JournalError> {
        let folder = self.folder.join(&plan.run);
        make_folder(&folder)?;
        write_synced(&folder.join("plan.yaml"), &plan.to_yaml())?;
        let journal = Journal::open(folder)?;
        journal.note(What::Begin, None, None, None)?;
        Ok(journal)
    }

    /// All runs of a cluster that can be read, the oldest first.
    pub fn of(&self, cluster: &str) -> Result<Vec<(Plan, State)>, JournalError> {
        let mut runs = Vec::new();
        for plan in self.all()?.into_iter().filter(|plan| plan.spec.cluster == cluster) {
            let state = state(&read_lines(&self.folder.join(&plan.run))?);
            runs.push((plan, state));
        }
        Ok(runs)
    }

    /// The plans of all runs that can be read, the oldest first.
    pub fn all(&self) -> Result<Vec<Plan>, JournalError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io_error("read", &self.folder))?,
        };
        let folders = entries.flatten().map(|entry| entry.path());
        let runs = folders.filter(|folder| folder.join("plan.yaml").exists());
        let mut plans = runs.map(|folder| read_plan(&folder)).collect::<Result<Vec<_>, _>>()?;
        plans.sort_by(|a, b| a.run.cmp(&b.run));
        Ok(plans)
    }

    /// Begins a run that another machine has begun, with what hosts tell of it.
    pub fn adopt(&self, plan: &Plan, lines: &[Line], note: &str) -> Result<Journal, JournalError> {
        let folder = self.folder.join(&plan.run);
        make_folder(&folder)?;
        let line = |line: &Line| serde_json::to_string(line).expect("a line is text") + "\n";
        write_synced(&folder.join("journal.jsonl"), &lines.iter().map(line).collect::<String>())?;
        write_synced(&folder.join("plan.yaml"), &plan.to_yaml())?;
        let journal = Journal::open(folder)?;
        journal.note(What::Begin, None, None, Some(note))?;
        Ok(journal)
    }

    /// A run that is there.
    pub fn open(&self, run: &str) -> Result<(Plan, Journal), JournalError> {
        let folder = self.folder.join(run);
        let named = !run.is_empty() && !run.contains('/') && !run.starts_with('.');
        if !named || !folder.join("plan.yaml").exists() {
            return Err(JournalError::Unknown {
                wanted: run.to_owned(),
                folder: self.folder.clone(),
            });
        }
        Ok((read_plan(&folder)?, Journal::open(folder)?))
    }
}

impl Lock {
    /// Names the run, for whoever finds the cluster locked.
    pub fn names(&self, run: &str) {
        // The lock holds all the same.
        let _ = self.tell(Some(run));
    }

    fn tell(&self, run: Option<&str>) -> io::Result<()> {
        let run = run.map_or_else(|| "a new run".to_owned(), |run| format!("run {run}"));
        let text = format!("{run}, pid {}, since {:.0}\n", std::process::id(), self.since);
        self.file.set_len(0)?;
        self.file.write_all_at(text.as_bytes(), 0)
    }
}

impl Journal {
    fn open(folder: PathBuf) -> Result<Self, JournalError> {
        let path = folder.join("journal.jsonl");
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = Mutex::new(opened.map_err(io_error("open", &path))?);
        Ok(Self { folder, file })
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the data are built.
    pub fn build_dir(&self) -> PathBuf {
        self.folder.join("build")
    }

    /// Writes a line; it is on disk when this returns.
    pub fn note(
        &self,
        what: What,
        step: Option<&str>,
        host: Option<&str>,
        note: Option<&str>,
    ) -> Result<(), JournalError> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let line = Line {
            at: Timestamp::now(),
            what,
            step: owned(step),
            host: owned(host),
            note: owned(note),
        };
        let mut text = serde_json::to_string(&line).expect("a line is text");
        text.push('\n');
        let mut file = self.file.lock().expect("no holder of the lock panics");
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        written.map_err(io_error("write", &self.folder.join("journal.jsonl")))
    }

    /// All lines so far.
    pub fn lines(&self) -> Result<Vec<Line>, JournalError> {
        read_lines(&self.folder)
    }

    /// Whether a step of it was begun. If not, nothing was changed on any host but that lifeboat's own program is there.
    pub fn has_begun_a_step(&self) -> Result<bool, JournalError> {
        Ok(self.lines()?.iter().any(|line| line.step.is_some()))
    }

    /// The steps that were begun, each once.
    pub fn begun(&self) -> Result<Vec<String>, JournalError> {
        let mut steps: Vec<_> = self.lines()?.into_iter().filter_map(|line| line.step).collect();
        steps.dedup();
        Ok(steps)
    }

    /// How far the run came.
    pub fn state(&self) -> Result<State, JournalError> {
        Ok(state(&self.lines()?))
    }

    /// Keeps a value of the run beside the plan.
    pub fn keep<T: Serialize>(&self, name: &str, value: &T) -> Result<(), JournalError> {
        let text = serde_saphyr::to_string(value).expect("a value of ours can be YAML");
        write_synced(&self.folder.join(name), &text)
    }

    /// A value that was kept; nothing if there is none, or one that was not written whole.
    pub fn kept<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        let text = fs::read_to_string(self.folder.join(name)).ok()?;
        serde_saphyr::from_str(&text).ok()
    }
}

fn state(lines: &[Line]) -> State {
    let mut state = State::Unfinished;
    for line in lines {
        state = match (line.what, state) {
            (What::Finished, _) => State::Finished,
            (What::Undo, _) => State::RollingBack,
            (What::RolledBack, _) => State::RolledBack,
            (What::Committed, _) => State::Committed,
            (_, before) => before,
        };
    }
    state
}

/// The lines of a journal. A last one that was cut is left out.
fn read_lines(folder: &Path) -> Result<Vec<Line>, JournalError> {
    let path = folder.join("journal.jsonl");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.map_err(io_error("read", &path))?,
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn read_plan(folder: &Path) -> Result<Plan, JournalError> {
    let path = folder.join("plan.yaml");
    let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    Plan::parse(&text).map_err(|source| JournalError::Plan { path, source })
}

fn make_folder(path: &Path) -> Result<(), JournalError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(io_error("make", path))
}

/// Written aside and renamed: the file is whole or not there.
fn write_synced(path: &Path, text: &str) -> Result<(), JournalError> {
    let part = path.with_extension("part");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        File::open(path.parent().expect("it is in the run's folder"))?.sync_all()
    };
    write().map_err(io_error("write", path))
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> JournalError + 'a {
    move |source| JournalError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;

    #[test]
    fn a_run_is_found_again_with_how_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::new(folder.path());
        assert!(runs.of("prod").unwrap().is_empty());
        let journal = runs.begin(&plan()).unwrap();
        assert_eq!(runs.of("prod").unwrap(), [(plan(), State::Unfinished)]);
        assert!(runs.of("other").unwrap().is_empty());
        for (what, state) in [
            (What::Done, State::Unfinished),
            (What::Finished, State::Finished),
            (What::Undo, State::RollingBack),
            (What::RolledBack, State::RolledBack),
        ] {
            journal.note(what, Some("send"), Some("m1"), Some("why \"so\"")).unwrap();
            assert_eq!(journal.state().unwrap(), state);
        }
        assert_eq!(runs.open(&plan().run).unwrap().0, plan());
        assert!(matches!(runs.open("../x"), Err(JournalError::Unknown { .. })));
    }

    #[test]
    fn a_folder_of_runs_has_one_name_of_its_own() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let seat = |at: usize| Runs::new(folders[at].path()).holder().unwrap().seat;
        assert!(!seat(0).is_empty() && seat(0) == seat(0) && seat(0) != seat(1));
    }

    #[test]
    fn a_line_that_was_cut_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Runs::new(folder.path()).begin(&plan()).unwrap();
        journal.note(What::Done, Some("send"), None, None).unwrap();
        let path = journal.folder().join("journal.jsonl");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(journal.lines().unwrap().len(), 1);
    }

    #[test]
    fn two_runs_for_one_cluster_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::new(folder.path());
        let first = runs.lock("prod").unwrap();
        first.names("r1");
        let refused = runs.lock("prod").unwrap_err().to_string();
        let told = format!("goes on here: run r1, pid {}, since ", std::process::id());
        assert!(refused.contains(&told), "{refused}");
        runs.lock("other").unwrap();
        drop(first);
        runs.lock("prod").unwrap();
    }
}
