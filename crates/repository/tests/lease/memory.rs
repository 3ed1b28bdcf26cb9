//! A store in memory, whose every operation passes a gate before and after: there a test puts a pause, or lets nobody out.

use bytes::Bytes;
use futures::{
    future::BoxFuture,
    stream::{BoxStream, StreamExt},
};
use repository::store::{At, Backend, Entry, ObjectWriter, Operation, Store, StoreError};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

const URL: &str = "memory://";

/// What is passed before and after each operation.
pub(crate) type Gate = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What is stored.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<BTreeMap<String, Bytes>>>);

impl World {
    /// The store, as someone sees it who has to pass that gate.
    pub(crate) fn through(&self, gate: Gate) -> Store {
        Store::new(Door { world: self.clone(), gate })
    }

    /// The store with no gate.
    pub(crate) fn open(&self) -> Store {
        self.through(Arc::new(|| Box::pin(async {})))
    }

    /// Every object whose path ends so.
    pub(crate) fn ending(&self, suffix: &str) -> Vec<(String, Bytes)> {
        let objects = self.0.lock().unwrap();
        let ending = objects.iter().filter(|(path, _)| path.ends_with(suffix));
        ending.map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
    }

    fn create(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        let mut objects = self.0.lock().unwrap();
        if objects.contains_key(path) {
            return Err(StoreError::Exists { at: At::new(URL, Operation::Create, path) });
        }
        objects.insert(path.to_owned(), bytes);
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        let missing = || StoreError::NotFound { at: At::new(URL, Operation::Read, path) };
        self.0.lock().unwrap().get(path).cloned().ok_or_else(missing)
    }
}

struct Door {
    world: World,
    gate: Gate,
}

impl Door {
    fn pass<'a, T: Send + 'a>(
        &'a self,
        operation: impl FnOnce() -> T + Send + 'a,
    ) -> BoxFuture<'a, T> {
        Box::pin(async move {
            (self.gate)().await;
            let result = operation();
            (self.gate)().await;
            result
        })
    }
}

impl Backend for Door {
    fn url(&self) -> &str {
        URL
    }

    fn is_create_only(&self) -> bool {
        true
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        self.pass(move || self.world.create(path, bytes))
    }

    fn writer<'a>(
        &'a self,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn ObjectWriter>, StoreError>> {
        let (world, path) = (self.world.clone(), path.to_owned());
        self.pass(move || Ok(Box::new(Writer { world, path, bytes: Vec::new() }) as _))
    }

    fn read<'a>(&'a self, path: &'a str, _: u64) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        self.pass(move || self.world.get(path))
    }

    fn reader<'a>(
        &'a self,
        path: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError>> {
        self.pass(move || {
            let bytes = self.world.get(path)?;
            Ok(futures::stream::iter([Ok(bytes)]).boxed())
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        self.pass(move || {
            let objects = self.world.0.lock().unwrap();
            let below = objects.iter().filter(|(path, _)| path.starts_with(prefix));
            let entry = |(path, bytes): (&String, &Bytes)| Entry {
                path: path.clone(),
                bytes: bytes.len() as u64,
            };
            Ok(below.map(entry).collect())
        })
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        self.pass(move || {
            let objects = self.world.0.lock().unwrap();
            let below =
                objects.keys().filter_map(|path| path.strip_prefix(prefix)?.split_once('/'));
            Ok(below
                .map(|(folder, _)| folder.to_owned())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect())
        })
    }

    fn size<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.pass(move || self.world.get(path).map(|bytes| bytes.len() as u64))
    }

    fn delete<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.pass(move || {
            self.world.0.lock().unwrap().remove(path);
            Ok(())
        })
    }
}

struct Writer {
    world: World,
    path: String,
    bytes: Vec<u8>,
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.bytes.extend_from_slice(&bytes);
        Box::pin(async { Ok(()) })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move { self.world.create(&self.path, self.bytes.into()) })
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}
