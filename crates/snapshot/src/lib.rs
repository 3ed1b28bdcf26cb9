//! A snapshot file: saved, verified, described.
//!
//! * [`Snapshot`] is a file, as far as it has been proved: [`Fetched`], [`Walked`], then [`Verified`].
//! * [`survey()`] is the one walk that proves a database and says what it holds.
//! * [`Output`] writes a file, or several at once, past the page cache.
//! * [`PartFile`] gives a file its final name when it is complete, never before.
//!
//! **Invariant:** nothing is called a snapshot before its digest, its tree and its records were
//! checked; and a file under its final name is never replaced unasked.

mod digest;
mod file;
mod finding;
mod hashing;
mod offline;
mod output;
mod part_file;
mod save;
mod status;
mod survey;

pub use digest::{DIGEST_BYTES, DigestHasher, Digests, NotADigest, Sha256Digest, split_digest};
pub use file::{DigestRule, Fetched, Snapshot, SnapshotError, Surveyed, Verified, Walked};
pub use finding::{Finding, RecordDefect};
pub use offline::{
    Glance, OfflineError, Replayed, SavedOffline, StoppedMember, TornTail, UseLog, glance,
    save_offline, save_offline_to_file, save_offline_to_writer,
};
pub use output::Output;
pub use part_file::{Existing, PartFile, PartFileError};
pub use save::{Progress, SaveError, SaveEvent, Saved, save, save_to_file, save_to_writer};
pub use status::Status;
pub use survey::{BucketCount, Depth, Survey, survey};
