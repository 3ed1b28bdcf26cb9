//! The operator as a whole: refuse what is too old, wait for the lead, follow the objects, stop in order.
//!
//! ```text
//!   kinds there? ─▶ HTTP ─▶ Lease ─▶ a controller per kind and namespace ─▶ stop: no new work, finish or give up, Lease back
//! ```
//!
//! * Whoever loses the Lease ends at once: what runs is given up as when it is stopped, and Kubernetes starts the process again.

mod drive;
mod watches;

pub(crate) use drive::drive;
pub use watches::Watches;

use crate::{
    api, backup, compat,
    context::{Context, Settings},
    crds::{self, CrdProblem},
    failure::Failure,
    http::Server,
    lease::Lease,
    restore, schedule, store,
};
use futures::{FutureExt, future::BoxFuture, future::join_all};
use k8s_openapi::{
    NamespaceResourceScope,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, Resource};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// How long what is given up may take to clean up behind itself.
const CLEANUP_GRACE: Duration = Duration::from_secs(15);

/// Why the operator ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The API server knows our kinds not, or not well enough.
    #[error(transparent)]
    Crds(#[from] CrdProblem),
    /// Kubernetes does not answer, or refuses.
    #[error(transparent)]
    Kubernetes(#[from] Failure),
    /// Nothing can be served.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no place for temporary files.
    #[error("the spool folder {folder:?} cannot be used")]
    Spool {
        /// Which.
        folder: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for")]
    Signals(#[source] std::io::Error),
    /// Another leads now.
    #[error("this operator leads no more: {0}")]
    Deposed(String),
}

impl RunError {
    /// One imperative sentence; printed after `help:`.
    pub fn remedy(&self) -> String {
        match self {
            Self::Crds(problem) => problem.remedy().to_owned(),
            Self::Kubernetes(failure) => failure.remedy.clone(),
            Self::Listen { .. } => "give another --listen".to_owned(),
            Self::Spool { .. } => "give --spool, a folder that can be written to".to_owned(),
            Self::Signals(_) => "run it where signals can be received".to_owned(),
            Self::Deposed(_) => "start it again: it waits until it may lead".to_owned(),
        }
    }
}

/// Which objects a controller follows: those of a namespace, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(pub Option<String>);

impl Scope {
    /// The objects of a kind in it.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.0 {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }
}

/// SIGTERM and SIGINT, each time.
pub fn signals() -> Result<mpsc::Receiver<()>, RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = mpsc::channel(4);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut stream = signal(kind).map_err(RunError::Signals)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() && sender.send(()).await.is_ok() {}
        });
    }
    Ok(receiver)
}

/// Runs until it is told to stop; told again, it does not wait for what runs.
pub async fn run(
    client: Client,
    settings: Settings,
    mut signals: mpsc::Receiver<()>,
) -> Result<(), RunError> {
    check_kinds(&client, &settings).await?;
    let (stop, stopping) = watch::channel(false);
    let (interrupt, interrupted) = watch::channel(false);
    tempfile::tempfile_in(&settings.spool)
        .map_err(|source| RunError::Spool { folder: settings.spool.clone(), source })?;
    let context = Arc::new(Context::new(client, settings, stopping.clone(), interrupted));
    let server = match context.settings.listen {
        Some(address) => Some(
            Server::start(address, context.clone())
                .await
                .map_err(|source| RunError::Listen { address, source })?,
        ),
        None => None,
    };
    let ready = |is| server.iter().for_each(|server| server.ready(is));
    ready(true);
    let lease = lease(&context);
    if let Some(lease) = &lease {
        let waiting = |holder: &str| tracing::info!(holder, "another operator leads; waiting");
        tokio::select! {
            acquired = lease.acquire(waiting) => acquired?,
            _ = signals.recv() => return Ok(()),
        }
    }
    context.metrics.leader.set(1);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = context.settings.identity,
        namespaces = watched(&context.settings.namespaces),
        "leading"
    );
    let mut controllers = Controllers::start(&context, &stopping);
    let kept = async {
        match &lease {
            Some(lease) => lease.keep().await,
            None => std::future::pending().await,
        }
    };
    let mut kept = std::pin::pin!(kept);
    let deposed = tokio::select! {
        why = &mut kept => Some(why),
        _ = signals.recv() => None,
        () = controllers.any_ended() => None,
    };
    ready(false);
    context.metrics.leader.set(0);
    stop.send_replace(true);
    tracing::info!(
        backups_running = context.metrics.running.get(),
        grace_s = context.settings.stop_grace.as_secs(),
        "stopping: nothing new begins, what runs may go on for the grace"
    );
    if deposed.is_none() {
        tokio::select! {
            () = controllers.ended() => {}
            () = tokio::time::sleep(context.settings.stop_grace) => {}
            _ = signals.recv() => {}
            // The lead is kept while something is under way.
            _ = &mut kept => {}
        }
    }
    interrupt.send_replace(true);
    if context.metrics.running.get() > 0 {
        tracing::info!(
            backups_running = context.metrics.running.get(),
            "what runs is given up; the next operator makes it anew"
        );
    }
    if tokio::time::timeout(CLEANUP_GRACE, controllers.ended()).await.is_err() {
        tracing::warn!("what still runs is abandoned: it is no backup");
    }
    if let Some(why) = deposed {
        return Err(RunError::Deposed(why));
    }
    if let Some(lease) = &lease
        && let Err(failure) = lease.release().await
    {
        tracing::warn!(error = failure.message, "the Lease could not be given back");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Namespaces for the log.
fn watched(namespaces: &[String]) -> String {
    match namespaces.is_empty() {
        true => "all".to_owned(),
        false => namespaces.join(", "),
    }
}

fn lease(context: &Context) -> Option<Lease> {
    let settings = &context.settings;
    let name = settings.lease_name.as_ref()?;
    let client = context.client.clone();
    Some(Lease::new(client, &settings.lease_namespace, name, &settings.identity))
}

/// The tasks that follow objects.
struct Controllers {
    tasks: Vec<JoinHandle<()>>,
}

impl Controllers {
    fn start(context: &Arc<Context>, stopping: &watch::Receiver<bool>) -> Self {
        let tasks = scopes(&context.settings)
            .into_iter()
            .flat_map(|scope| controllers(context, &scope, stopping));
        Self { tasks: tasks.map(tokio::spawn).collect() }
    }

    /// A controller ends only when it is told to, or by a fault of ours.
    async fn any_ended(&mut self) {
        let _ = futures::future::select_all(&mut self.tasks).await;
        tracing::error!("a controller has ended by itself");
    }

    async fn ended(&mut self) {
        join_all(self.tasks.iter_mut().filter(|task| !task.is_finished())).await;
    }
}

/// What follows the objects of a scope.
fn controllers(
    context: &Arc<Context>,
    scope: &Scope,
    stopping: &watch::Receiver<bool>,
) -> Vec<BoxFuture<'static, ()>> {
    let stop = || {
        let mut stopping = stopping.clone();
        async move {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    };
    let mut controllers = vec![
        backup::run(context.clone(), scope.clone(), stop()).boxed(),
        schedule::run(context.clone(), scope.clone(), stop()).boxed(),
        restore::run(context.clone(), scope.clone(), stop()).boxed(),
        store::run(context.clone(), scope.clone(), stop()).boxed(),
    ];
    if context.settings.coreos_compat {
        controllers.push(compat::run(context.clone(), scope.clone(), stop()).boxed());
    }
    controllers
}

/// Whether the API server has our kinds, and those are new enough, as far as we may look.
async fn check_kinds(client: &Client, settings: &Settings) -> Result<(), RunError> {
    check_group(client, api::GROUP, api::VERSION, &crds::names()).await?;
    if settings.coreos_compat {
        let (group, version) = (api::coreos::GROUP, api::coreos::VERSION);
        check_group(client, group, version, &[crds::coreos_name()]).await?;
        for scope in scopes(settings) {
            compat::check_rights(client, &scope).await?;
        }
    }
    Ok(())
}

/// What controllers follow: each namespace by itself, or all at once.
fn scopes(settings: &Settings) -> Vec<Scope> {
    match settings.namespaces.is_empty() {
        true => vec![Scope(None)],
        false => settings.namespaces.iter().cloned().map(|name| Scope(Some(name))).collect(),
    }
}

async fn check_group(
    client: &Client,
    group: &str,
    version: &str,
    names: &[&str],
) -> Result<(), RunError> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in names {
        match definitions.get_opt(name).await {
            Ok(found) => crds::check(name, found.as_ref())?,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return discover(client, &format!("{group}/{version}"), names).await;
            }
            Err(error) => return Err(Failure::from(error).into()),
        }
    }
    Ok(())
}

/// The same for who may not read definitions: only whether the kinds are there.
async fn discover(client: &Client, group: &str, names: &[&str]) -> Result<(), RunError> {
    let served = match client.list_api_group_resources(group).await {
        Ok(served) => served.resources,
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(Failure::from(error).into()),
    };
    for name in names {
        let plural = name.split('.').next().unwrap_or_default();
        if !served.iter().any(|resource| resource.name == plural) {
            return Err(CrdProblem::Missing((*name).to_owned()).into());
        }
    }
    Ok(())
}
