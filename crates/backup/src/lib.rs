//! One verified backup: from a live cluster, a file or a stopped member into repositories, and back out of them.
//!
//! * [`run()`] makes one backup of one cluster, into one repository or several.
//! * [`plain`] makes one as a plain file in a store, for who expects that there.
//! * [`verify()`](verify::verify) reads a backup back, and proves it as it lies in the store.
//! * [`check`] does that for many, and notes what it finds.
//! * [`fetch()`](fetch::fetch) brings a snapshot to where it can be restored from.
//! * [`import`] takes what other tools have made.
//! * [`mod@include`] keeps files beside a snapshot, and gives them back.
//! * [`Spool`] lies between etcd and the stores.
//!
//! **Invariant:** nothing is printed here, and nothing is called a backup that was not proved.

pub mod check;
mod error;
mod event;
mod facts;
pub mod fetch;
mod hashkv;
pub mod import;
pub mod include;
mod place;
mod room;
mod run;
mod spool;
pub mod verify;

pub use error::{BackupError, Kind, TargetError};
pub use event::{Event, Watcher};
pub use facts::Facts;
pub use hashkv::HashKvPolicy;
pub use run::{Job, Options, Report, Source, Target, TargetReport, plain, run};
pub use spool::{Spool, SpoolError, SpoolReader, Tail, TailError, Verdict};
