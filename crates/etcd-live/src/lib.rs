//! A running etcd cluster: connections, snapshot stream, members, health, HashKV.
//!
//! The only crate that speaks gRPC. It asks and reports; it writes no file and prints nothing.
//!
//! ```text
//! "https://m1:2379"      ConnectOptions
//!        │ parse               │ certificates are read once
//!        ▼                     ▼
//!    Endpoint ─────────▶ Connector ──connect──▶ Connection ──▶ status, members, hash_kv, health
//!        └───────────────── choose ──▶ Choice ─────┘  │
//!                    (best member first, with reasons) └─snapshot──▶ SnapshotStream
//! ```
//!
//! * One connection is one member: nothing is balanced or retried behind the caller's back, so each
//!   answer is known to come from the endpoint that was asked.
//! * Every wait is bounded: connecting by the dial timeout, requests by the command timeout, silence
//!   in a stream by the stall timeout, a dead peer by keepalive.
//! * Errors are values: [`LiveError`] tells an unreachable cluster from a refused user, names the
//!   endpoint, and has a remedy.
//!
//! ```no_run
//! # async fn example() -> Result<(), etcd_live::LiveError> {
//! use etcd_live::{ConnectOptions, Connector, SnapshotPart, choose};
//!
//! let connector = Connector::new(ConnectOptions::default())?;
//! let endpoints = ["127.0.0.1:2379".parse().expect("an endpoint")];
//! let choice = choose(&connector, &endpoints).await?;
//! let mut stream = choice.candidates[0].connection.snapshot().await?;
//! while let Some(part) = stream.next().await? {
//!     match part {
//!         SnapshotPart::Data(bytes) => println!("{} bytes", bytes.len()),
//!         SnapshotPart::Digest(sha256) => println!("digest {sha256:02x?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod choice;
mod cluster;
mod connection;
mod dial;
mod endpoint;
mod error;
mod options;
mod reply;
mod snapshot_stream;
mod tls;

pub use choice::{Candidate, Choice, Flaw, LAG_ENTRIES_MAX, PassedOver, Reason, Why, choose};
pub use cluster::members_of;
pub use connection::{Connection, Connector, Health};
pub use dial::DialError;
pub use endpoint::{DEFAULT_PORT, Endpoint, EndpointError};
pub use error::{LiveError, Lost, PassedOverAll, Refusal, Request, one_line};
pub use options::{ConnectOptions, Credentials, Identity, TlsOptions};
pub use reply::{Alarm, AlarmKind, HashKv, Header, Member, Members, Status};
pub use snapshot_stream::{DIGEST_LEN, SnapshotPart, SnapshotStream, StreamFault};
pub use tls::{TlsFault, TlsSetupError};
