//! What happens in a run, for who shows it.

use std::{sync::Arc, time::Duration};

/// What happens, for who shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A step begins.
    Step {
        /// Its number, from 1.
        number: usize,
        /// Of how many.
        of: usize,
        /// What it does.
        title: String,
    },
    /// A host's part of the step begins.
    Begun {
        /// The host.
        label: String,
    },
    /// So many bytes of all are there.
    Sent {
        /// The host.
        label: String,
        /// Bytes.
        bytes: u64,
        /// Of so many.
        of: u64,
    },
    /// A host's part is done.
    Done {
        /// The host.
        label: String,
        /// It was done before.
        already: bool,
    },
    /// A new member learns what the others know.
    CatchingUp {
        /// The host.
        label: String,
        /// The newest raft entry that it has.
        index: u64,
        /// The newest one of the cluster.
        of: u64,
    },
    /// A member is waited for.
    Waiting {
        /// The host.
        label: String,
        /// What for.
        why: String,
    },
    /// A host's part failed and is tried again.
    Again {
        /// The host.
        label: String,
        /// Why.
        why: String,
        /// For how long it is tried again at most, if that is by time.
        left: Option<Duration>,
    },
    /// A host's part failed; why, the error tells at the end.
    Failed {
        /// The host.
        label: String,
    },
    /// A host that cannot be reached is left as it is.
    LeftAlone {
        /// The host.
        label: String,
        /// Why.
        why: String,
    },
}

/// Who is told what happens.
pub type Watcher = Arc<dyn Fn(Event) + Send + Sync>;
