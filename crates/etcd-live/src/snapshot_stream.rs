//! The stream of a snapshot, and the checks that tell a whole one from a broken one.
//!
//! ```text
//! message    remaining_bytes   blob
//! 1          total - 32768     32768 bytes        total = remaining_bytes + blob of the first message
//! 2          total - 65536     32768 bytes        every message must bring remaining_bytes down by
//! …                                               exactly the length of its blob
//! n          0                 1 to 32768 bytes
//! n + 1      0                 SHA-256 of all blobs before it, 32 bytes
//! (the end)
//! ```
//!
//! * etcd ignores the end of its own file: after a read error it sends empty blobs for ever, so an
//!   empty blob ends the stream here (etcd 3.4 to 3.6, `maintenance.go`).
//! * A stream that ends early has no digest, and is reported as [`StreamFault::Cut`]: what arrived
//!   must be thrown away.
//! * Silence is bounded by [`ConnectOptions::stall_timeout`](crate::ConnectOptions::stall_timeout).
//! * The digest is handed on, not compared: whoever writes the bytes hashes them.

use std::time::Duration;

use tokio::time::timeout;

use crate::dial::seconds;
use crate::endpoint::Endpoint;
use crate::error::{LiveError, Peer, Request};

/// The length of the last message: a SHA-256 digest.
pub const DIGEST_LEN: usize = 32;

/// What is wrong with a snapshot stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFault {
    /// It ended before the digest.
    #[error("it ended after {received} bytes of {total}, without its digest")]
    Cut {
        /// Bytes that arrived.
        received: u64,
        /// Bytes that were announced.
        total: u64,
    },
    /// It ended before its first message.
    #[error("it ended before its first message")]
    Empty,
    /// Nothing arrived for too long.
    #[error("nothing arrived for {}, after {received} bytes", seconds(*.after))]
    Stalled {
        /// Bytes that had arrived.
        received: u64,
        /// The limit.
        after: Duration,
    },
    /// The server sends, but nothing of the database: it failed to read its own file.
    #[error("the server sends empty blobs with {remaining} bytes to go")]
    NotFalling {
        /// What was still to come.
        remaining: u64,
    },
    /// `remaining_bytes` does not fall by what was sent.
    #[error("a blob of {blob} bytes after {before} remaining leaves {after} remaining")]
    WrongCount {
        /// Remaining before the message.
        before: u64,
        /// The blob's length.
        blob: u64,
        /// Remaining after it, as the server says.
        after: u64,
    },
    /// The last message is not a digest.
    #[error("the digest has {len} bytes")]
    WrongDigest {
        /// Its length.
        len: usize,
    },
    /// Something follows the digest.
    #[error("something follows the digest")]
    AfterDigest,
}

impl StreamFault {
    /// One imperative sentence; the command prints it after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Cut { .. } | Self::Empty => {
                "see the member's log, and try again or another member"
            }
            Self::Stalled { .. } => {
                "check the network and the member's disk, and try another member"
            }
            Self::NotFalling { .. } | Self::WrongCount { .. } => {
                "see the member's log and check its disk; take the snapshot from another member"
            }
            Self::WrongDigest { .. } | Self::AfterDigest => "check that the endpoint is an etcd",
        }
    }

    /// The connection's fault rather than the data's.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::Empty | Self::Stalled { .. })
    }
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotPart {
    /// The next bytes of the database; never empty.
    Data(Vec<u8>),
    /// The SHA-256 of the database, after all of it. Then nothing follows.
    Digest([u8; DIGEST_LEN]),
}

/// Follows `remaining_bytes` and decides what a message is.
#[derive(Debug)]
struct Progress {
    total: u64,
    remaining: u64,
}

impl Progress {
    /// Takes the size of the whole from the first message.
    fn of_first(remaining: u64, blob: &[u8]) -> Result<Self, StreamFault> {
        let len = len(blob);
        let total = remaining.checked_add(len).ok_or(StreamFault::WrongCount {
            before: u64::MAX,
            blob: len,
            after: remaining,
        })?;
        Ok(Self { total, remaining: total })
    }

    fn received(&self) -> u64 {
        self.total - self.remaining
    }

    /// Accepts the next message.
    fn take(&mut self, remaining: u64, blob: Vec<u8>) -> Result<SnapshotPart, StreamFault> {
        if self.remaining == 0 {
            let len = blob.len();
            return blob
                .try_into()
                .map(SnapshotPart::Digest)
                .map_err(|_| StreamFault::WrongDigest { len });
        }
        if blob.is_empty() {
            return Err(StreamFault::NotFalling { remaining: self.remaining });
        }
        let len = len(&blob);
        if self.remaining.checked_sub(len) != Some(remaining) {
            let before = self.remaining;
            return Err(StreamFault::WrongCount { before, blob: len, after: remaining });
        }
        self.remaining = remaining;
        Ok(SnapshotPart::Data(blob))
    }
}

fn len(blob: &[u8]) -> u64 {
    u64::try_from(blob.len()).expect("a length fits 64 bits")
}

/// A snapshot on its way. Dropping it tells the server to stop.
#[derive(Debug)]
pub struct SnapshotStream {
    peer: Peer,
    messages: etcd_client::SnapshotStreaming,
    stall_timeout: Duration,
    version: String,
    progress: Progress,
    state: State,
}

/// What the next call of [`SnapshotStream::next`] looks at.
#[derive(Debug)]
enum State {
    /// The first message, read already because it tells the size.
    First(u64, Vec<u8>),
    Streaming,
    Done,
}

impl SnapshotStream {
    /// Reads the first message, which may be a refusal.
    pub(crate) async fn open(
        peer: Peer,
        mut messages: etcd_client::SnapshotStreaming,
        stall_timeout: Duration,
    ) -> Result<Self, LiveError> {
        let first = match timeout(stall_timeout, messages.message()).await {
            Err(_) => {
                return Err(
                    peer.streams(StreamFault::Stalled { received: 0, after: stall_timeout })
                );
            }
            Ok(Err(error)) => return Err(peer.failed(Request::Snapshot, error)),
            Ok(Ok(None)) => return Err(peer.streams(StreamFault::Empty)),
            Ok(Ok(Some(message))) => message,
        };
        let blob = first.blob().to_vec();
        let progress = Progress::of_first(first.remaining_bytes(), &blob);
        Ok(Self {
            progress: progress.map_err(|fault| peer.streams(fault))?,
            peer,
            messages,
            stall_timeout,
            version: first.version().to_owned(),
            state: State::First(first.remaining_bytes(), blob),
        })
    }

    /// The size of the database, without the digest.
    pub fn total(&self) -> u64 {
        self.progress.total
    }

    /// Bytes of the database handed out so far.
    pub fn received(&self) -> u64 {
        self.progress.received()
    }

    /// The storage version that the server names, such as `3.6.0`; empty before etcd 3.6.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The endpoint that sends.
    pub fn endpoint(&self) -> &Endpoint {
        self.peer.endpoint()
    }

    /// The next piece: data, then the digest, then `None`. After an error nothing more comes, and
    /// what came before is worthless.
    ///
    /// Not safe to cancel: a piece that was read may be lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<SnapshotPart>, LiveError> {
        let (remaining, blob) = match std::mem::replace(&mut self.state, State::Done) {
            State::Done => return Ok(None),
            State::First(remaining, blob) => (remaining, blob),
            State::Streaming => match self.message().await? {
                Some(message) => (message.remaining_bytes(), message.blob().to_vec()),
                None => return Err(self.peer.streams(self.cut())),
            },
        };
        let part = self.progress.take(remaining, blob).map_err(|fault| self.peer.streams(fault))?;
        if matches!(part, SnapshotPart::Data(_)) {
            self.state = State::Streaming;
        } else if self.message().await?.is_some() {
            return Err(self.peer.streams(StreamFault::AfterDigest));
        }
        Ok(Some(part))
    }

    async fn message(&mut self) -> Result<Option<etcd_client::SnapshotResponse>, LiveError> {
        let (received, total, after) = (self.received(), self.total(), self.stall_timeout);
        match timeout(after, self.messages.message()).await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(error)) => Err(LiveError::Interrupted {
                received,
                total,
                source: Box::new(self.peer.failed(Request::Snapshot, error)),
            }),
            Err(_) => Err(self.peer.streams(StreamFault::Stalled { received, after })),
        }
    }

    fn cut(&self) -> StreamFault {
        StreamFault::Cut { received: self.received(), total: self.total() }
    }
}

#[cfg(test)]
mod tests;
