//! The status hash, computed on the other core while the walk goes on.
//!
//! The walk reads page headers and keys, the hash reads every byte; together on one core, each waits for
//! memory that the other could have been using.

use etcd_schema::StatusHash;
use std::{
    sync::mpsc::{SyncSender, sync_channel},
    thread::{Scope, ScopedJoinHandle},
};

/// Pairs that are handed over at once; fewer would cost more than they save.
const BATCH_PAIRS: usize = 2048;
/// Batches under way: what the walk may be ahead by.
const BATCHES_MAX: usize = 4;

type Pair<'a> = (&'a [u8], &'a [u8]);

/// A status hash whose bytes are summed by a thread of its own.
pub(crate) struct HashThread<'scope, 'a> {
    batch: Vec<Pair<'a>>,
    queue: SyncSender<Vec<Pair<'a>>>,
    thread: ScopedJoinHandle<'scope, StatusHash>,
}

impl<'scope, 'a: 'scope> HashThread<'scope, 'a> {
    /// Begins a hash of nothing yet.
    pub(crate) fn begin(scope: &'scope Scope<'scope, '_>) -> Self {
        let (queue, batches) = sync_channel::<Vec<Pair<'a>>>(BATCHES_MAX);
        let thread = scope.spawn(move || {
            let mut hash = StatusHash::default();
            for (key, value) in batches.iter().flatten() {
                hash.pair(key, value);
            }
            hash
        });
        Self { batch: Vec::with_capacity(BATCH_PAIRS), queue, thread }
    }

    /// Takes in what a bucket begins with.
    pub(crate) fn bucket(&mut self, name: &'a [u8]) {
        self.pair(name, b"");
    }

    /// Takes in a pair.
    #[inline]
    pub(crate) fn pair(&mut self, key: &'a [u8], value: &'a [u8]) {
        self.batch.push((key, value));
        if self.batch.len() == BATCH_PAIRS {
            self.send();
        }
    }

    fn send(&mut self) {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_PAIRS));
        self.queue.send(batch).expect("the thread takes batches until the queue is closed");
    }

    /// The hash of all that was taken in.
    pub(crate) fn finish(mut self) -> u32 {
        self.send();
        drop(self.queue);
        self.thread.join().expect("the hash thread does not panic").value()
    }
}
