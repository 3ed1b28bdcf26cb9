//! A store that fails on demand, to test what uses one.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use repository::store::{Store, testing::{Faults, faulty}};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let (store, faults) = faulty(Store::local(folder.path()));
//! store.create("one", "1".into()).await.unwrap();
//! faults.cut_at(faults.operations() + 1); // as if the cable was pulled before the next operation
//! assert!(store.create("two", "2".into()).await.unwrap_err().is_unreachable());
//! assert!(store.read("one", 1).await.unwrap_err().is_unreachable());
//! faults.heal();
//! assert_eq!(store.list("").await.unwrap().len(), 1);
//! # });
//! ```
//!
//! Everything that a backend is asked counts as one operation, counted from 1: each call of [`Backend`], each write, finish and
//! abort of a writer, and each piece of a reader. So a test runs once without a fault, and then once
//! for every number up to [`Faults::operations`].

use super::{At, Backend, Entry, ObjectWriter, Operation, Store, StoreError};
use bytes::Bytes;
use futures::{
    FutureExt,
    future::BoxFuture,
    stream::{BoxStream, StreamExt},
};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// `store`, and the switch of its faults.
pub fn faulty(store: Store) -> (Store, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    (Store::new(Faulty { store, faults: faults.clone() }), faults)
}

/// Which operations fail, and what was asked so far.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    log: Vec<String>,
    plan: Plan,
}

/// Operations count from 1 since the store was made.
#[derive(Clone, Copy, Debug, Default)]
enum Plan {
    #[default]
    Healthy,
    /// That one fails.
    Once { at: u64, verdict: Verdict },
    /// That one and all after it fail.
    Cut { at: u64, verdict: Verdict },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    /// Nothing is done, and an error is reported.
    Fail,
    /// It is done, and an error is reported: the answer got lost.
    LoseAnswer,
}

impl Faults {
    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        u64::try_from(self.state().log.len()).expect("a vector's length")
    }

    /// The operations, in order, as `create prod/writer/…`.
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Operation number `at` is not done and fails; others are well.
    pub fn fail_at(&self, at: u64) {
        self.state().plan = Plan::Once { at, verdict: Verdict::Fail };
    }

    /// Operation number `at` is done but reported as failed; others are well.
    pub fn lose_answer_at(&self, at: u64) {
        self.state().plan = Plan::Once { at, verdict: Verdict::LoseAnswer };
    }

    /// From operation number `at` on, nothing is done and everything fails.
    pub fn cut_at(&self, at: u64) {
        self.state().plan = Plan::Cut { at, verdict: Verdict::Fail };
    }

    /// As [`cut_at`](Self::cut_at), but operation number `at` itself is done before its answer is lost.
    pub fn cut_after(&self, at: u64) {
        self.state().plan = Plan::Cut { at, verdict: Verdict::LoseAnswer };
    }

    /// From now on all is well.
    pub fn heal(&self) {
        self.state().plan = Plan::Healthy;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation, and says how it ends.
    fn begin(&self, at: &At) -> Verdict {
        let mut state = self.state();
        state.log.push(format!("{} {}", at.operation, at.path));
        let number = u64::try_from(state.log.len()).expect("a vector's length");
        match state.plan {
            Plan::Once { at, verdict } | Plan::Cut { at, verdict } if at == number => verdict,
            Plan::Cut { at, .. } if at < number => Verdict::Fail,
            _ => Verdict::Pass,
        }
    }

    /// Does `work` as the plan says.
    async fn apply<T>(
        &self,
        at: At,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let verdict = self.begin(&at);
        match verdict {
            Verdict::Fail => return Err(injected(at)),
            Verdict::LoseAnswer => drop(work.await?),
            Verdict::Pass => return work.await,
        }
        Err(injected(at))
    }
}

fn injected(at: At) -> StoreError {
    StoreError::Unreachable { at, source: io::Error::other("an injected fault").into() }
}

struct Faulty {
    store: Store,
    faults: Arc<Faults>,
}

impl Faulty {
    fn at(&self, operation: Operation, path: &str) -> At {
        At::new(self.store.url(), operation, path)
    }
}

impl Backend for Faulty {
    fn url(&self) -> &str {
        self.store.url()
    }

    fn is_create_only(&self) -> bool {
        self.store.is_create_only()
    }

    fn probe(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.faults.apply(self.at(Operation::Probe, ""), self.store.probe()).boxed()
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        let work = self.store.create(path, bytes);
        self.faults.apply(self.at(Operation::Create, path), work).boxed()
    }

    fn writer<'a>(
        &'a self,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn ObjectWriter>, StoreError>> {
        async move {
            let at = self.at(Operation::Create, path);
            let writer = self.faults.apply(at.clone(), self.store.writer(path)).await?;
            let faults = self.faults.clone();
            Ok(Box::new(FaultyWriter { writer, faults, at }) as Box<dyn ObjectWriter>)
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        path: &'a str,
        bytes_max: u64,
    ) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        self.faults.apply(self.at(Operation::Read, path), self.store.read(path, bytes_max)).boxed()
    }

    fn reader<'a>(
        &'a self,
        path: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError>> {
        async move {
            let at = self.at(Operation::Read, path);
            let pieces = self.faults.apply(at.clone(), self.store.reader(path)).await?;
            let faults = self.faults.clone();
            Ok(pieces
                .then(move |piece| {
                    let (faults, at) = (faults.clone(), at.clone());
                    async move { faults.apply(at, async { piece }).await }
                })
                .boxed())
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        self.faults.apply(self.at(Operation::List, prefix), self.store.list(prefix)).boxed()
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        self.faults.apply(self.at(Operation::List, prefix), self.store.folders(prefix)).boxed()
    }

    fn size<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.faults.apply(self.at(Operation::Size, path), self.store.size(path)).boxed()
    }

    fn delete<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.faults.apply(self.at(Operation::Delete, path), self.store.delete(path)).boxed()
    }
}

struct FaultyWriter {
    writer: Box<dyn ObjectWriter>,
    faults: Arc<Faults>,
    at: At,
}

impl ObjectWriter for FaultyWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        let at = At { operation: Operation::Write, ..self.at.clone() };
        self.faults.apply(at, self.writer.write(bytes)).boxed()
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        let Self { writer, faults, at } = *self;
        let at = At { operation: Operation::Finish, ..at };
        async move { faults.apply(at, writer.finish()).await }.boxed()
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        let Self { writer, faults, at } = *self;
        let at = At { operation: Operation::Abort, ..at };
        async move { faults.apply(at, writer.abort()).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_operation_counts_and_can_be_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (store, faults) = faulty(Store::local(folder.path()));
        let run = async |path: &str| -> Result<(), StoreError> {
            let mut writer = store.writer(path).await?;
            writer.write("content".into()).await?;
            writer.finish().await?;
            let mut pieces = store.reader(path).await?;
            while let Some(piece) = pieces.next().await {
                piece?;
            }
            store.delete(path).await
        };
        run("whole").await.unwrap();
        assert_eq!(
            faults.log(),
            [
                "create whole",
                "write to whole",
                "complete whole",
                "read whole",
                "read whole",
                "delete whole"
            ]
        );
        for at in 1..=faults.operations() {
            faults.cut_at(faults.operations() + at);
            assert!(run(&format!("cut-{at}")).await.unwrap_err().is_unreachable());
            assert!(store.size("whole").await.unwrap_err().is_unreachable(), "it stays cut");
            faults.heal();
        }
        // Those that were complete when the cut came are there, others have left nothing.
        let left: Vec<_> = store.list("").await.unwrap().into_iter().map(|e| e.path).collect();
        assert_eq!(left, ["cut-4", "cut-5", "cut-6"]);
    }

    #[tokio::test]
    async fn a_lost_answer_means_done() {
        let folder = tempfile::tempdir().unwrap();
        let (store, faults) = faulty(Store::local(folder.path()));
        faults.lose_answer_at(1);
        assert!(store.create("one", "1".into()).await.unwrap_err().is_unreachable());
        assert!(store.create("one", "1".into()).await.unwrap_err().is_exists());
        faults.fail_at(3);
        assert!(store.create("two", "2".into()).await.unwrap_err().is_unreachable());
        store.create("two", "2".into()).await.unwrap();
    }
}
