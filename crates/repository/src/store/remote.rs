//! A bucket as a store, through OpenDAL.
//!
//! * Small objects are one conditional put (`If-None-Match: *` and what other providers have for it). Large ones are multipart uploads, a
//!   few parts at once; the condition goes with their completion. Until then nothing is listed.
//! * Where the answer to a put got lost, the repeated put is refused because of our own success. So each
//!   object carries a random mark in its metadata, and one that is "there already" with our mark is a success.
//! * A store that ignores the condition is found out by [`probe`](Backend::probe), which the first creation runs where the provider
//!   is not known. There we look whether the object is there just before: two writers at the same instant could both succeed.
//! * So they could with a large object in GCS (OpenDAL 0.59 sends no condition when it completes one), and at an endpoint
//!   that is not the provider's (SeaweedFS does not heed the condition there). Here too we look just before. What commits a backup is its
//!   manifest, a small object, and the path of a large one is its writer's alone.
//! * An S3 bucket with versions answers a deletion of a locked object with success, and only hides it. So before a deletion
//!   the object's lock is asked for.
//! * An upload that is given up is aborted. One whose process died stays in the bucket, unlisted but paid for, until a lifecycle rule
//!   (`AbortIncompleteMultipartUpload`) removes it.

use super::{
    At, Backend, Entry, Lock, ObjectLock, ObjectWriter, Operation, StoreError,
    answer::{Cause, failed},
    connect::Connection,
    path::{PROBE, check_path, check_prefix},
};
use bytes::Bytes;
use futures::{
    FutureExt,
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use opendal::{
    Buffer, EntryMode, ErrorKind, Operator,
    options::{ListOptions, ReadOptions, WriteOptions},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::OnceCell;

/// Bytes of the first parts of an upload.
const PART_BYTES_MIN: u64 = 8 << 20;

/// After so many parts the next ones are twice as large: 10,000 parts, which is all S3 takes, then hold 8 TiB, which is more than
/// an object can have.
const PARTS_PER_SIZE: u32 = 1_000;

/// Parts on their way at once. Two more are held: the one being filled, and the one OpenDAL keeps back.
const PARTS_AT_ONCE: usize = 4;

/// What is read by one request, and how many of these run at once.
const PIECE_BYTES: u64 = 4 << 20;
const PIECES_AT_ONCE: usize = 4;

/// How often a piece is read again after OpenDAL gave up on it, and how long is waited before.
const PIECE_ATTEMPTS_MAX: u32 = 3;
const PIECE_PAUSE: Duration = Duration::from_secs(2);

/// The name of our mark in an object's metadata.
const MARK: &str = "lifeboat-writer";

/// How long a signed request for an object's lock is valid.
const SIGNED_FOR: Duration = Duration::from_secs(300);

/// A bucket as a store; see the [module](self).
pub(super) struct Remote {
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
    connection: Connection,
    /// Whether the store heeds conditions, once that is known.
    verdict: OnceCell<bool>,
}

impl Remote {
    pub(super) fn new(url: String, connection: Connection) -> Self {
        let verdict = OnceCell::new();
        if connection.is_known_create_only {
            verdict.set(true).expect("it is new");
        }
        Self { shared: Arc::new(Shared { url, connection, verdict }) }
    }

    /// Runs a call that carries no stream of bytes, but not for ever.
    fn bounded<'a, T: Send + 'a>(
        &'a self,
        at: At,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        async move {
            let late = |_| {
                let source = Cause::new("no answer in time, with all retries").into();
                Err(StoreError::Unreachable { at, source })
            };
            tokio::time::timeout(self.shared.connection.bound, work).await.unwrap_or_else(late)
        }
        .boxed()
    }
}

impl Backend for Remote {
    fn url(&self) -> &str {
        &self.shared.url
    }

    fn is_create_only(&self) -> bool {
        self.shared.verdict.get().copied().unwrap_or(true)
    }

    fn probe(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        let at = self.shared.at(Operation::Probe, "");
        self.bounded(at.clone(), self.shared.heeds_conditions(at))
    }

    fn object_lock<'a>(
        &'a self,
        path: Option<&'a str>,
    ) -> BoxFuture<'a, Result<ObjectLock, StoreError>> {
        let at = self.shared.at(Operation::Size, path.unwrap_or(PROBE));
        self.bounded(at.clone(), async move {
            path.map_or(Ok(()), check_path)?;
            self.shared.object_lock(at).await
        })
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        let at = self.shared.at(Operation::Create, path);
        self.bounded(at.clone(), self.shared.create(at, bytes))
    }

    fn writer<'a>(
        &'a self,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn ObjectWriter>, StoreError>> {
        let at = self.shared.at(Operation::Create, path);
        let work = RemoteWriter::begin(self.shared.clone(), path.to_owned());
        self.bounded(at, work.map(|writer| Ok(Box::new(writer?) as Box<dyn ObjectWriter>)))
    }

    fn read<'a>(
        &'a self,
        path: &'a str,
        bytes_max: u64,
    ) -> BoxFuture<'a, Result<Bytes, StoreError>> {
        let at = self.shared.at(Operation::Read, path);
        self.bounded(at.clone(), self.shared.read(at, bytes_max))
    }

    fn reader<'a>(
        &'a self,
        path: &'a str,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError>> {
        let at = self.shared.at(Operation::Read, path);
        self.bounded(at.clone(), async move {
            let bytes = self.shared.size(at.clone()).await?;
            Ok(pieces(self.shared.clone(), at, bytes))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, StoreError>> {
        async move {
            let mut entries: Vec<Entry> = Vec::new();
            for entry in self.shared.entries(prefix, true).await? {
                if entry.metadata().mode() == EntryMode::FILE && entry.path() != PROBE {
                    let bytes = entry.metadata().content_length();
                    entries.push(Entry { path: entry.path().to_owned(), bytes });
                }
            }
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(entries)
        }
        .boxed()
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            let mut names = Vec::new();
            for entry in self.shared.entries(prefix, false).await? {
                let name =
                    entry.path().strip_prefix(prefix).and_then(|name| name.strip_suffix('/'));
                names.extend(name.filter(|name| !name.is_empty()).map(str::to_owned));
            }
            names.sort();
            names.dedup();
            Ok(names)
        }
        .boxed()
    }

    fn size<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<u64, StoreError>> {
        let at = self.shared.at(Operation::Size, path);
        self.bounded(at.clone(), self.shared.size(at))
    }

    fn delete<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let at = self.shared.at(Operation::Delete, path);
        self.bounded(at.clone(), self.shared.delete(at))
    }
}

impl Shared {
    fn at(&self, operation: Operation, path: &str) -> At {
        At::new(&self.url, operation, path)
    }

    fn operator(&self) -> &Operator {
        &self.connection.operator
    }

    /// Whether there is no use in trying again.
    fn is_given_up(&self) -> bool {
        self.connection.contact.is_given_up()
    }

    /// Whether the store heeds conditions; tries it if nobody has yet. `at` is what is to be done for it.
    async fn heeds_conditions(&self, at: At) -> Result<bool, StoreError> {
        self.verdict.get_or_try_init(|| self.try_conditions(at)).await.copied()
    }

    /// Creates one object twice; it stays, for the next process to try once.
    async fn try_conditions(&self, at: At) -> Result<bool, StoreError> {
        let options = || WriteOptions { if_not_exists: true, ..WriteOptions::default() };
        let note = "Lifeboat tries here whether this store keeps objects from being overwritten.\n";
        for _ in 0..2 {
            match self.operator().write_options(PROBE, note, options()).await {
                Ok(_) => {}
                Err(e) if is_taken(&e) => return Ok(true),
                // Some servers refuse the condition itself; then a plain put works.
                Err(e) => match failed(at.clone(), &e) {
                    StoreError::Io { .. } => {
                        let plain = self.operator().write(PROBE, note).await;
                        return plain.map(|_| false).map_err(|e| failed(at, &e));
                    }
                    error => return Err(error),
                },
            }
        }
        Ok(false)
    }

    /// Refuses what is there, where the store would not.
    async fn look_before(&self, at: At) -> Result<(), StoreError> {
        match self.size(At { operation: Operation::Size, ..at.clone() }).await {
            Ok(_) => Err(StoreError::Exists { at }),
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, at: At, bytes: Bytes) -> Result<(), StoreError> {
        check_path(&at.path)?;
        let is_conditional = self.heeds_conditions(at.clone()).await?;
        if !is_conditional {
            self.look_before(at.clone()).await?;
        }
        let mark = Mark::new();
        let written = self
            .operator()
            .write_options(&at.path, bytes.clone(), mark.options(is_conditional))
            .await;
        match written {
            Ok(_) => Ok(()),
            Err(e) if is_taken(&e) => match self.is_ours(&at, &mark, Some(&bytes)).await? {
                true => Ok(()),
                false => Err(StoreError::Exists { at }),
            },
            Err(e) => Err(failed(at, &e)),
        }
    }

    /// Whether the object is the one we wrote: it has our mark. A store that keeps no marks is asked for the bytes.
    async fn is_ours(
        &self,
        at: &At,
        mark: &Mark,
        bytes: Option<&Bytes>,
    ) -> Result<bool, StoreError> {
        let there = match self.operator().stat(&at.path).await {
            Ok(there) => there,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(failed(at.clone(), &e)),
        };
        if let Some(found) = there.user_metadata().and_then(|metadata| metadata.get(MARK)) {
            return Ok(found == mark.0);
        }
        let Some(bytes) = bytes else { return Ok(false) };
        let same_size = u64::try_from(bytes.len()).is_ok_and(|len| len == there.content_length());
        if !same_size {
            return Ok(false);
        }
        let read = self.operator().read(&at.path).await.map_err(|e| failed(at.clone(), &e))?;
        Ok(read.to_bytes() == *bytes)
    }

    async fn read(&self, at: At, bytes_max: u64) -> Result<Bytes, StoreError> {
        check_path(&at.path)?;
        let mut attempts_left = PIECE_ATTEMPTS_MAX.min(self.connection.retries);
        loop {
            match self.read_once(&at, bytes_max).await {
                // Its connection broke half-way, which OpenDAL does not mend here.
                Err(error)
                    if error.is_unreachable() && attempts_left > 0 && !self.is_given_up() =>
                {
                    attempts_left -= 1;
                }
                other => return other,
            }
            tokio::time::sleep(PIECE_PAUSE).await;
        }
    }

    /// Reads an object by one request, and stops where it gets too large.
    async fn read_once(&self, at: &At, bytes_max: u64) -> Result<Bytes, StoreError> {
        let sorted = |e| failed(at.clone(), &e);
        let reader = self.operator().reader(&at.path).await.map_err(sorted)?;
        let mut pieces = reader.into_stream(..).await.map_err(sorted)?;
        let mut content: Vec<u8> = Vec::new();
        while let Some(piece) = pieces.next().await {
            content.extend_from_slice(&piece.map_err(sorted)?.to_bytes());
            if u64::try_from(content.len()).is_ok_and(|bytes| bytes > bytes_max) {
                let bytes = self.size(at.clone()).await?;
                return Err(StoreError::TooLarge { at: at.clone(), bytes, bytes_max });
            }
        }
        Ok(content.into())
    }

    /// A piece of a large object, all of it.
    async fn piece(&self, at: &At, from: u64, to: u64) -> Result<Bytes, StoreError> {
        let mut attempts_left = PIECE_ATTEMPTS_MAX.min(self.connection.retries);
        loop {
            let options = ReadOptions { range: (from..to).into(), ..ReadOptions::default() };
            let error = match self.operator().read_options(&at.path, options).await {
                Ok(read) if u64::try_from(read.len()).is_ok_and(|len| len == to - from) => {
                    return Ok(read.to_bytes());
                }
                Ok(_) => {
                    let source = Cause::new("the answer ended too early").into();
                    StoreError::Unreachable { at: at.clone(), source }
                }
                Err(e) => failed(at.clone(), &e),
            };
            if !error.is_unreachable() || attempts_left == 0 || self.is_given_up() {
                return Err(error);
            }
            attempts_left -= 1;
            tokio::time::sleep(PIECE_PAUSE).await;
        }
    }

    async fn size(&self, at: At) -> Result<u64, StoreError> {
        check_path(&at.path)?;
        let found = self.operator().stat(&at.path).await.map_err(|e| failed(at, &e))?;
        Ok(found.content_length())
    }

    async fn entries(
        &self,
        prefix: &str,
        recursive: bool,
    ) -> Result<Vec<opendal::Entry>, StoreError> {
        check_prefix(prefix)?;
        let options = ListOptions { recursive, ..ListOptions::default() };
        let listed = self.operator().list_options(prefix, options).await;
        listed.map_err(|e| failed(self.at(Operation::List, prefix), &e))
    }

    async fn delete(&self, at: At) -> Result<(), StoreError> {
        check_path(&at.path)?;
        // Whatever else it answers, the deletion itself will say so.
        if let ObjectLock::Locked(lock) = self.object_lock(at.clone()).await?
            && lock.holds(jiff::Timestamp::now())
        {
            let until = match lock.until {
                Some(until) => Some(until.to_string()),
                None => {
                    (lock.mode == Lock::LEGAL_HOLD).then(|| "its legal hold is lifted".to_owned())
                }
            };
            return Err(StoreError::Locked { at, until });
        }
        match self.operator().delete(&at.path).await {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(at, &e)),
            _ => Ok(()),
        }
    }

    /// What the headers of an object say of its lock.
    async fn object_lock(&self, at: At) -> Result<ObjectLock, StoreError> {
        if !self.connection.has_object_lock {
            return Ok(ObjectLock::Untold);
        }
        let signed = self.operator().presign_stat(&at.path, SIGNED_FOR).await;
        let signed = signed.map_err(|e| failed(at.clone(), &e))?;
        let mut request =
            http::Request::builder().method(signed.method().clone()).uri(signed.uri().clone());
        for (name, value) in signed.header() {
            request = request.header(name, value);
        }
        let request = request.body(Buffer::new()).expect("it was signed, so it is a request");
        let sent = self.operator().context().http_transport().send(request).await;
        let answer = sent.map_err(|e| failed(at.clone(), &e))?;
        Ok(match answer.status().is_success() {
            true => lock(answer.headers()),
            false => ObjectLock::Untold,
        })
    }
}

/// What an object's headers say of its lock.
fn lock(headers: &http::HeaderMap) -> ObjectLock {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let since = header("last-modified")
        .and_then(|date| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
    if header("x-amz-object-lock-legal-hold").is_some_and(|hold| hold.eq_ignore_ascii_case("ON")) {
        return ObjectLock::Locked(Lock { mode: Lock::LEGAL_HOLD.to_owned(), until: None, since });
    }
    let Some(until) = header("x-amz-object-lock-retain-until-date") else {
        return ObjectLock::Open;
    };
    let mode = header("x-amz-object-lock-mode").unwrap_or("COMPLIANCE").to_owned();
    // A date that we cannot read is taken for one to come.
    ObjectLock::Locked(Lock { mode, until: until.parse().ok(), since })
}

/// All pieces of an object of that size, in order, some of them read ahead.
fn pieces(
    shared: Arc<Shared>,
    at: At,
    bytes: u64,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let count = bytes.div_ceil(PIECE_BYTES);
    stream::iter(0..count)
        .map(move |number| {
            let (shared, at) = (shared.clone(), at.clone());
            let from = number * PIECE_BYTES;
            async move { shared.piece(&at, from, bytes.min(from + PIECE_BYTES)).await }
        })
        .buffered(PIECES_AT_ONCE)
        .boxed()
}

/// The store refused to overwrite.
fn is_taken(error: &opendal::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists)
}

/// What tells our object from another's under the same path.
struct Mark(String);

impl Mark {
    fn new() -> Self {
        Self(super::path::random_name())
    }

    fn options(&self, is_conditional: bool) -> WriteOptions {
        WriteOptions {
            if_not_exists: is_conditional,
            user_metadata: Some(HashMap::from([(MARK.to_owned(), self.0.clone())])),
            concurrent: PARTS_AT_ONCE,
            ..WriteOptions::default()
        }
    }
}

/// A large object on its way.
struct RemoteWriter {
    shared: Arc<Shared>,
    path: String,
    mark: Mark,
    /// None once the object is complete or given up.
    writer: Option<opendal::Writer>,
    filling: Vec<Bytes>,
    filling_bytes: u64,
    parts: u32,
    /// A write failed or was cancelled half-way.
    is_broken: bool,
}

impl RemoteWriter {
    async fn begin(shared: Arc<Shared>, path: String) -> Result<Self, StoreError> {
        check_path(&path)?;
        let at = shared.at(Operation::Create, &path);
        let is_conditional = shared.heeds_conditions(at.clone()).await?;
        // Before gigabytes are sent in vain.
        shared.look_before(at.clone()).await?;
        let mark = Mark::new();
        let opened = shared.operator().writer_options(&path, mark.options(is_conditional)).await;
        let writer = Some(opened.map_err(|e| failed(at, &e))?);
        let filling = Vec::new();
        Ok(Self {
            shared,
            path,
            mark,
            writer,
            filling,
            filling_bytes: 0,
            parts: 0,
            is_broken: false,
        })
    }

    fn at(&self, operation: Operation) -> At {
        self.shared.at(operation, &self.path)
    }

    /// The open upload, if nothing went wrong with it.
    fn writer(&mut self, operation: Operation) -> Result<&mut opendal::Writer, StoreError> {
        let broken = StoreError::Io {
            at: self.at(operation),
            source: Cause::new("an earlier write to it failed or was given up").into(),
        };
        self.writer.as_mut().filter(|_| !self.is_broken).ok_or(broken)
    }

    async fn send_part(&mut self, operation: Operation) -> Result<(), StoreError> {
        let part = Buffer::from(std::mem::take(&mut self.filling));
        self.filling_bytes = 0;
        self.parts += 1;
        let at = self.at(operation);
        let writer = self.writer.as_mut().expect("checked by the callers");
        writer.write(part).await.map_err(|e| failed(at, &e))
    }

    async fn add(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let missing = part_bytes(self.parts) - self.filling_bytes;
            let taken = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len());
            self.filling.push(bytes.split_to(taken));
            self.filling_bytes += u64::try_from(taken).expect("a length");
            if self.filling_bytes == part_bytes(self.parts) {
                self.send_part(Operation::Write).await?;
            }
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<(), StoreError> {
        let at = self.at(Operation::Finish);
        self.writer(Operation::Finish)?;
        if self.filling_bytes > 0 {
            self.send_part(Operation::Finish).await?;
        }
        let connection = &self.shared.connection;
        if !connection.is_known_create_only || connection.has_plain_completion {
            self.shared.look_before(at.clone()).await?;
        }
        let Err(error) = self.writer(Operation::Finish)?.close().await else {
            self.writer = None;
            return Ok(());
        };
        // A completion whose answer was lost is repeated, and finds its object there or its upload gone.
        let in_doubt =
            is_taken(&error) || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict);
        if in_doubt {
            let there = self.shared.is_ours(&at, &self.mark, None).await;
            if matches!(there, Ok(true)) {
                self.writer = None;
                return Ok(());
            }
            if is_taken(&error)
                || self.shared.look_before(at.clone()).await.is_err_and(|e| e.is_exists())
            {
                return Err(StoreError::Exists { at });
            }
        }
        Err(failed(at, &error))
    }

    async fn give_up(&mut self) -> Result<(), StoreError> {
        let at = self.at(Operation::Abort);
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        match writer.abort().await {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(at, &e)),
            _ => Ok(()),
        }
    }
}

impl ObjectWriter for RemoteWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.writer(Operation::Write)?;
            // Until it is done, so that a write that is cancelled leaves it so.
            self.is_broken = true;
            let result = self.add(bytes).await;
            self.is_broken = result.is_err();
            result
        }
        .boxed()
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        async move { self.complete().await }.boxed()
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        async move { self.give_up().await }.boxed()
    }
}

impl Drop for RemoteWriter {
    fn drop(&mut self) {
        let Some(mut writer) = self.writer.take() else { return };
        // Without a runtime, or when it ends first, the bucket's lifecycle rule is what is left.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { writer.abort().await.ok() });
        }
    }
}

/// Bytes of the part after so many others.
fn part_bytes(parts: u32) -> u64 {
    PART_BYTES_MIN << (parts / PARTS_PER_SIZE).min(9)
}

const _: () = assert!(PART_BYTES_MIN << 9 <= 5 << 30, "S3's largest part");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_the_largest_object() {
        let bytes: u64 = (0..10_000).map(part_bytes).sum();
        assert!(bytes > 5 << 40, "S3's largest object");
        assert_eq!(part_bytes(999), 8 << 20);
        assert_eq!(part_bytes(1_000), 16 << 20);
    }

    #[test]
    fn a_lock_is_a_date_to_come_or_a_legal_hold() {
        let now = "2026-03-01T00:00:00Z".parse().unwrap();
        let locked = |name: &'static str, value: &'static str| {
            let headers = [(name, value)].map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            });
            match lock(&http::HeaderMap::from_iter(headers)) {
                ObjectLock::Locked(lock) => lock.holds(now),
                _ => false,
            }
        };
        let until = "x-amz-object-lock-retain-until-date";
        assert!(locked(until, "2026-03-02T00:00:00.000Z"));
        assert!(!locked(until, "2026-02-28T00:00:00Z"));
        assert!(locked(until, "someday"), "rather not delete");
        assert!(locked("x-amz-object-lock-legal-hold", "ON"));
        assert!(!locked("x-amz-object-lock-legal-hold", "OFF"));
        assert!(!locked("x-amz-object-lock-mode", "GOVERNANCE"));
    }

    #[test]
    fn a_lock_tells_for_how_many_days_it_was_made() {
        let headers = [
            ("last-modified", "Mon, 23 Nov 2026 06:00:02 GMT"),
            ("x-amz-object-lock-mode", "GOVERNANCE"),
            ("x-amz-object-lock-retain-until-date", "2026-12-23T06:00:01.5Z"),
        ];
        let headers = headers.map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
        });
        let ObjectLock::Locked(lock) = lock(&http::HeaderMap::from_iter(headers)) else {
            panic!("not locked")
        };
        assert_eq!((lock.mode.as_str(), lock.days()), ("GOVERNANCE", Some(30)));
    }
}
