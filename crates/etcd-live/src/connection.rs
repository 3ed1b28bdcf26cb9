//! A connection to one member, and what can be asked of it.

mod membership;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{AlarmAction, AlarmType, Channel, Client};
use tokio::time::timeout;

use crate::dial::Dialer;
use crate::endpoint::Endpoint;
use crate::error::{LiveError, Peer, Refusal, Request};
use crate::options::ConnectOptions;
use crate::reply::{Alarm, AlarmKind, HashKv, Members, Status};
use crate::snapshot_stream::SnapshotStream;

/// The key that a health check reads; etcdctl's too. It need not exist.
const HEALTH_KEY: &str = "health";

/// Makes connections with one set of options. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    dialer: Arc<Dialer>,
}

impl Connector {
    /// Reads the certificates that the options name. Nothing is connected yet.
    pub fn new(options: ConnectOptions) -> Result<Self, LiveError> {
        Ok(Self { dialer: Arc::new(Dialer::new(options)?) })
    }

    /// Connects to one endpoint and logs in, if there is a user.
    ///
    /// A cluster without authentication is entered without a login, as etcdctl does, so that the same
    /// settings work before and after authentication is switched on.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Connection, LiveError> {
        let options = self.dialer.options();
        let unreachable = |source| LiveError::Unreachable { endpoint: endpoint.clone(), source };
        let peer = Peer::new(endpoint.clone());
        let dialing = self.dialer.dial(endpoint, peer.faults());
        let channel = dialing.await.map_err(unreachable)?;

        let limits = etcd_client::ConnectOptions::new().with_auto_token_refresh(true);
        let client = Client::from_channel(Channel::Tonic(channel), Some(limits))
            .await
            .map_err(|error| peer.failed(Request::Authenticate, error))?;
        let mut connection = Connection {
            peer,
            client,
            command_timeout: options.command_timeout,
            stall_timeout: options.stall_timeout,
        };
        connection.log_in(options).await?;
        Ok(connection)
    }

    pub(crate) fn dial_timeout(&self) -> Duration {
        self.dialer.options().dial_timeout
    }
}

/// A connection to one member. Cheap to clone; requests may run side by side.
///
/// Each request but a snapshot is bounded by
/// [`command_timeout`](crate::ConnectOptions::command_timeout).
#[derive(Clone)]
pub struct Connection {
    peer: Peer,
    client: Client,
    command_timeout: Duration,
    stall_timeout: Duration,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("endpoint", self.endpoint()).finish_non_exhaustive()
    }
}

/// The outcome of a health check that reached its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// How long the cluster took to agree on a read.
    pub took: Duration,
    /// Alarms of the whole cluster. With any of them it is not healthy.
    pub alarms: Vec<AlarmKind>,
}

impl Connection {
    /// The endpoint as the user gave it.
    pub fn endpoint(&self) -> &Endpoint {
        self.peer.endpoint()
    }

    /// The state of this member.
    pub async fn status(&self) -> Result<Status, LiveError> {
        let mut maintenance = self.client.maintenance_client();
        let reply = self.ask(Request::Status, maintenance.status()).await?;
        Ok(Status::from(&reply))
    }

    /// The members of the cluster as this member knows them, which works without a quorum.
    pub async fn members(&self) -> Result<Members, LiveError> {
        let mut cluster = self.client.cluster_client();
        let reply = self.ask(Request::MemberList, cluster.member_list()).await?;
        Ok(Members::from(&reply))
    }

    /// The hash of this member's history up to `revision`; 0 stands for its newest.
    ///
    /// Takes the time to read the whole database, so only the connection is watched, not the clock.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKv, LiveError> {
        let mut maintenance = self.client.maintenance_client();
        let reply = maintenance.hash_kv(revision).await;
        let reply = reply.map_err(|error| self.peer.failed(Request::HashKv, error))?;
        Ok(HashKv::from(&reply))
    }

    /// The alarms of the whole cluster.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, LiveError> {
        let mut maintenance = self.client.maintenance_client();
        let asked = maintenance.alarm(AlarmAction::Get, AlarmType::None, None);
        let reply = self.ask(Request::Alarm, asked).await?;
        Ok(reply.alarms().iter().map(Alarm::from).collect())
    }

    /// Asks this member for something that the whole cluster must agree on: a linearizable read.
    ///
    /// A denied permission counts as healthy, because it took the agreement to find it out.
    pub async fn health(&self) -> Result<Health, LiveError> {
        let mut keys = self.client.kv_client();
        let begun = Instant::now();
        let read = self.ask(Request::Range, keys.get(HEALTH_KEY, None)).await;
        let took = begun.elapsed();
        match read {
            Err(error) if error.refusal() != Some(&Refusal::PermissionDenied) => return Err(error),
            _ => {}
        }
        let alarms = self.alarms().await?.iter().map(|alarm| alarm.kind).collect();
        Ok(Health { took, alarms })
    }

    /// Proves that the cluster takes writes: writes `value` under `key`, and reads it back. Returns the revision of the write, if
    /// what was read is what was written. What the key held before is lost, so it must be one that nobody else uses.
    pub async fn probe(&self, key: &str, value: &str) -> Result<Option<i64>, LiveError> {
        let mut keys = self.client.kv_client();
        self.ask(Request::Put, keys.put(key, value, None)).await?;
        let read = self.ask(Request::Range, keys.get(key, None)).await?;
        let pair = read.kvs().iter().find(|pair| pair.value() == value.as_bytes());
        Ok(pair.map(etcd_client::KeyValue::mod_revision))
    }

    /// Removes the key of a [`probe`](Self::probe). Returns the revision since when it is gone.
    pub async fn remove_probe(&self, key: &str) -> Result<i64, LiveError> {
        let mut keys = self.client.kv_client();
        let reply = self.ask(Request::DeleteRange, keys.delete(key, None)).await?;
        Ok(reply.header().map_or(0, etcd_client::ResponseHeader::revision))
    }

    /// Opens a snapshot stream; its first message has arrived when this returns.
    pub async fn snapshot(&self) -> Result<SnapshotStream, LiveError> {
        let mut maintenance = self.client.maintenance_client();
        let messages = timeout(self.stall_timeout, maintenance.snapshot())
            .await
            .map_err(|_| self.peer.silent(Request::Snapshot, self.stall_timeout))?
            .map_err(|error| self.peer.failed(Request::Snapshot, error))?;
        SnapshotStream::open(self.peer.clone(), messages, self.stall_timeout).await
    }

    async fn log_in(&mut self, options: &ConnectOptions) -> Result<(), LiveError> {
        let Some(credentials) = &options.credentials else { return Ok(()) };
        let user = (credentials.user.clone(), credentials.password.clone());
        let login = timeout(self.command_timeout, self.client.update_user(Some(user)))
            .await
            .map_err(|_| self.peer.silent(Request::Authenticate, self.command_timeout))?
            .map_err(|error| self.peer.failed(Request::Authenticate, error));
        match login {
            Err(error) if error.refusal() == Some(&Refusal::AuthNotEnabled) => Ok(()),
            login => login,
        }
    }

    async fn ask<T>(
        &self,
        request: Request,
        reply: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, LiveError> {
        match timeout(self.command_timeout, reply).await {
            Ok(reply) => reply.map_err(|error| self.peer.failed(request, error)),
            Err(_) => Err(self.peer.silent(request, self.command_timeout)),
        }
    }
}
