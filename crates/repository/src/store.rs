//! Where objects lie: a folder, or a bucket of some provider.
//!
//! A path here is relative to the root of the repository, with `/` between its parts, and begins with none.
//!
//! * [`Backend::create`] and [`ObjectWriter::finish`] are create-only: two writers of one path cannot both
//!   succeed, and what is there is never overwritten. An object appears whole or not at all.
//! * Transient failures were retried, with back-off, before an error comes back.
//! * Errors and the name of a store tell no secret.

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;
use std::{fmt, path::Path, sync::Arc};

#[cfg(feature = "buckets")]
mod answer;
#[cfg(feature = "buckets")]
mod client;
#[cfg(feature = "buckets")]
mod connect;
#[cfg_attr(not(feature = "buckets"), allow(dead_code, reason = "a folder is never waited for"))]
mod contact;
mod error;
mod local;
mod options;
mod path;
#[cfg(feature = "buckets")]
mod remote;
#[doc(hidden)]
pub mod testing;

pub use contact::{Waiting, WhileWaiting};
pub use error::{At, Operation, Source, StoreError};
pub use options::{Credentials, Secret, StoreOptions};

/// A place for objects. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
}

/// What a store can do. Paths are relative to its root.
pub trait Backend: Send + Sync + 'static {
    /// Where this is, as a URL without secrets.
    fn url(&self) -> &str;
    /// Whether a second creation of an object is refused by the store itself, even at the same instant.
    fn is_create_only(&self) -> bool;
    /// Finds out, by trying, what [`is_create_only`](Self::is_create_only) says from then on.
    fn probe(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async { Ok(self.is_create_only()) })
    }
    /// What the store tells of the lock of an object; without one, of what [`probe`](Self::probe) leaves behind.
    fn object_lock<'a>(
        &'a self,
        _path: Option<&'a str>,
    ) -> BoxFuture<'a, Result<ObjectLock, StoreError>> {
        Box::pin(async { Ok(ObjectLock::Untold) })
    }
    /// Creates a small object from all its bytes; [`StoreError::Exists`] if it is there.
    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Begins an object of unknown size. It is there when [`ObjectWriter::finish`] has returned, not before.
    fn writer<'a>(
        &'a self,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn ObjectWriter>, StoreError>>;
    /// All bytes of a small object; [`StoreError::TooLarge`] if it has more than `bytes_max`.
    fn read<'a>(
        &'a self,
        path: &'a str,
        bytes_max: u64,
    ) -> BoxFuture<'a, Result<Bytes, StoreError>>;
    /// An object from its beginning, piece by piece; goes on by itself where a connection broke.
    fn reader<'a>(
        &'a self,
        path: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError>>;
    /// Every object whose path begins with `prefix`, in the order of their paths.
    /// A prefix is `""` or ends with `/`. What a broken writer left aside is not listed.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>>;
    /// Names of the folders directly below `prefix`, sorted, without the `/`. Some stores still
    /// name one whose last object is gone.
    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>>;
    /// Size of an object, or [`StoreError::NotFound`].
    fn size<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<u64, StoreError>>;
    /// Deletes an object; that it is not there is no error. [`StoreError::Locked`] if the store forbids it for now.
    fn delete<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// An object on its way into a store. Dropped unfinished, it leaves nothing that is listed.
pub trait ObjectWriter: Send {
    /// Adds bytes; returns as soon as they are taken, which may be before they are stored.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Completes the object; [`StoreError::Exists`] if another was completed under its path.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>>;
    /// Gives it up, and removes what was stored of it.
    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// What a store tells of an object's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectLock {
    /// Nothing: this kind of store does not tell, or the object is not there.
    Untold,
    /// It has none, or none that we may see.
    Open,
    /// It has, or had, one.
    Locked(Lock),
}

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// `COMPLIANCE`, `GOVERNANCE`, or [`LEGAL_HOLD`](Self::LEGAL_HOLD).
    pub mode: String,
    /// When it ends; none if nobody can say.
    pub until: Option<Timestamp>,
    /// When the object was written.
    pub since: Option<Timestamp>,
}

impl Lock {
    /// The mode of a lock that holds until somebody lifts it.
    pub const LEGAL_HOLD: &'static str = "LEGAL_HOLD";

    /// Whether the object cannot be deleted then.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }

    /// For how many days an object is locked from its beginning.
    pub fn days(&self) -> Option<i64> {
        let hours = self.until?.duration_since(self.since?).as_hours();
        Some((hours + 12) / 24)
    }
}

/// An object, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
}

impl Store {
    /// A store of that kind.
    pub fn new(backend: impl Backend) -> Self {
        Self { backend: Arc::new(backend) }
    }

    /// The store that `url` names: a folder, or a bucket; see [`StoreOptions`]. Sends nothing yet.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        match options::Location::parse(url, options)? {
            options::Location::Folder(path) => Ok(Self::local(path)),
            #[cfg(not(feature = "buckets"))]
            options::Location::Remote(_) => Err(StoreError::BadUrl {
                url: url.to_owned(),
                reason: "this program was built for folders only".to_owned(),
            }),
            #[cfg(feature = "buckets")]
            options::Location::Remote(location) => {
                let connection = connect::connect(&location, options)?;
                Ok(Self::new(remote::Remote::new(location.url(), connection)))
            }
        }
    }

    /// The folder `root`. It is not opened, and need not be there: creating an object makes it, mode 0700.
    pub fn local(root: impl AsRef<Path>) -> Self {
        Self::new(local::Local::new(root.as_ref()))
    }
}

impl std::ops::Deref for Store {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        &*self.backend
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.backend.url()).finish()
    }
}
