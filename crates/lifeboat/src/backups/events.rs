//! What a person sees while a backup is made.

use crate::{commands::findings, progress::Bytes};
use backup::{Event, Watcher};
use std::sync::{Arc, Mutex};

/// Shows events on stderr.
pub(crate) struct Show(Arc<State>);

struct State {
    repositories: Vec<String>,
    bar: Mutex<Option<Bytes>>,
}

impl Show {
    pub(crate) fn new(repositories: Vec<String>) -> Self {
        Self(Arc::new(State { repositories, bar: Mutex::default() }))
    }

    /// One of something that is read back, of so many bytes.
    pub(crate) fn reading(total: u64) -> Self {
        let bar = Mutex::new(Some(Bytes::new("reading", total)));
        Self(Arc::new(State { repositories: Vec::new(), bar }))
    }

    pub(crate) fn watcher(&self) -> Watcher {
        let state = Arc::clone(&self.0);
        Watcher::new(move |event| state.show(event))
    }
}

impl State {
    fn show(&self, event: Event) {
        let mut bar = self.bar.lock().expect("no holder of the lock panics");
        // A bar that is there would be torn by a line of text.
        match event {
            Event::Received(bytes) => return bar.iter().for_each(|bar| bar.set(bytes)),
            Event::Uploaded { .. } => return,
            Event::Fetching { total, .. } => {
                *bar = Some(Bytes::new("fetching", total));
                return;
            }
            _ => *bar = None,
        }
        match event {
            Event::PassedOver { endpoint, why } => say!("passed over {endpoint}: {why}"),
            Event::Chosen { endpoint, why } => {
                say!("taking the snapshot from {endpoint} ({why})");
            }
            Event::FailedOver { why, next } => {
                say!("warning: {why}; beginning again from {next}");
            }
            Event::LeftOut(left) => say!("note: {left}"),
            Event::OtherCluster { repository, first, found } => say!(
                "WARNING: the first backup of that name in {} is of cluster {first}, and this is {found}: if it was not \
                 restored from it, two clusters share a name, and each counts against the other's policy",
                self.repositories[repository]
            ),
            Event::Replayed(replayed) => crate::commands::save::tell_log(&replayed),
            Event::Verifying => say!("verifying"),
            Event::Found(finding) => findings::print(&finding),
            Event::HashKv { revision, agreed, differed, unasked } => {
                tell_hash_kv(revision, &agreed, &differed, &unasked);
            }
            Event::UploadFailed { repository, why, again_in } => say!(
                "warning: the upload to {} failed: {why}; trying again in {} s",
                self.repositories[repository],
                again_in.as_secs()
            ),
            Event::RepositoryFailed { repository, why } => {
                say!("warning: no backup in {}: {why}", self.repositories[repository]);
            }
            _ => {}
        }
    }
}

fn tell_hash_kv(revision: i64, agreed: &[String], differed: &[String], unasked: &[String]) {
    if !differed.is_empty() {
        say!(
            "WARNING: at revision {revision} the data of member{} {} DIFFER from the snapshot's: the members of \
             this cluster do not hold the same data",
            if differed.len() == 1 { "" } else { "s" },
            differed.join(", ")
        );
    }
    if !agreed.is_empty() {
        say!(
            "the data of {} member{} equal the snapshot's",
            agreed.len(),
            if agreed.len() == 1 { "" } else { "s" }
        );
    }
    if !unasked.is_empty() {
        say!(
            "note: member{} {} could not be compared",
            if unasked.len() == 1 { "" } else { "s" },
            unasked.join(", ")
        );
    }
}
