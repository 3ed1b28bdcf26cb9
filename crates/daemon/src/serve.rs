//! The daemon as a whole: read settings, start everything, read them again when told, stop when told.

use crate::{
    board::Board,
    config::{Config, ConfigError, Problem},
    hooks::Hooks,
    http::{Access, HttpError, Server},
    jobs::{Jobs, Live},
    logs::{self, LogError},
    runner::{Plan, Runner, Shared},
    schedule::ScheduleError,
};
use repository::{
    ClusterName,
    lease::{Clock, SystemClock},
};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{AbortHandle, JoinHandle},
};

/// How long hooks may go on when everything else has ended.
const HOOKS_GRACE: Duration = Duration::from_secs(10);

/// How long what is abandoned may take to clean up behind itself.
const CLEANUP_GRACE: Duration = Duration::from_secs(15);

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing can be served.
    #[error("the HTTP server cannot start")]
    Http(#[from] HttpError),
    /// Logging cannot start.
    #[error("logging cannot start")]
    Log(#[from] LogError),
    /// A schedule is none.
    #[error("a schedule cannot be used")]
    Schedule(#[from] ScheduleError),
    /// Stores or keys cannot be used.
    #[error("the work cannot be prepared")]
    Jobs(#[source] JobsError),
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for")]
    Signals(#[source] std::io::Error),
}

/// What making [`Jobs`] of settings may say.
pub type JobsError = Box<dyn std::error::Error + Send + Sync>;

impl ServeError {
    /// One imperative sentence; printed after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Config(error) => error.remedy(),
            Self::Http(_) => "check http.listen, http.tls and http.token-file in the settings",
            Self::Log(_) => "correct log.level in the settings",
            Self::Schedule(_) => "correct the schedule in the settings",
            Self::Jobs(_) => "check the repositories in the settings, with `lifeboat config check`",
            Self::Signals(_) => "run it where signals can be received",
        }
    }
}

/// What the daemon is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Read the settings again.
    Reload,
    /// Finish, or abandon what takes too long.
    Stop,
}

/// Where signals come from.
pub struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    /// SIGHUP reloads; SIGTERM and SIGINT stop.
    pub fn of_process() -> Result<Self, ServeError> {
        use tokio::signal::unix::{SignalKind, signal};
        let (sender, signals) = Self::channel();
        for (kind, means) in [
            (SignalKind::hangup(), Signal::Reload),
            (SignalKind::terminate(), Signal::Stop),
            (SignalKind::interrupt(), Signal::Stop),
        ] {
            let mut stream = signal(kind).map_err(ServeError::Signals)?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() && sender.send(means).await.is_ok() {}
            });
        }
        Ok(signals)
    }

    /// Signals by hand, for tests and for who embeds the daemon. When the sender is gone, that means stop.
    pub fn channel() -> (mpsc::Sender<Signal>, Self) {
        let (sender, receiver) = mpsc::channel(8);
        (sender, Self(receiver))
    }

    async fn next(&mut self) -> Signal {
        self.0.recv().await.unwrap_or(Signal::Stop)
    }

    /// Waits for a stop; nothing is read again any more.
    async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}

/// What is wrong with a file of settings; nothing if it can be used. Reaches no store and no cluster.
pub fn check(path: &Path) -> Result<Vec<Problem>, ConfigError> {
    match Config::load(path) {
        Ok(_) => Ok(Vec::new()),
        Err(ConfigError::Problems(problems)) => Ok(problems),
        Err(error) => Err(error),
    }
}

/// Makes the work of settings.
pub type MakeJobs =
    dyn Fn(&Config, Arc<dyn Clock>) -> Result<Arc<dyn Jobs>, JobsError> + Send + Sync;

/// Runs the daemon until it is told to stop. All that `lifeboat serve` calls.
pub async fn serve(path: &Path, signals: Signals) -> Result<(), ServeError> {
    let live = |config: &Config, clock| -> Result<Arc<dyn Jobs>, JobsError> {
        Ok(Arc::new(Live::new(config, clock)?))
    };
    serve_with(path, signals, &live).await
}

/// Runs the daemon until it is told to stop, with work that `make` makes of the settings.
pub async fn serve_with(
    path: &Path,
    mut signals: Signals,
    make: &MakeJobs,
) -> Result<(), ServeError> {
    let config = Config::load(path)?;
    logs::start(&config.log)?;
    let mut daemon = Daemon::start(config, make).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), clusters = daemon.runners.len(), "started");
    while signals.next().await == Signal::Reload {
        daemon.reload(path, make);
    }
    daemon.stop(&mut signals).await;
    tracing::info!("stopped");
    Ok(())
}

struct Daemon {
    config: Config,
    board: Arc<Board>,
    clock: Arc<dyn Clock>,
    runners: BTreeMap<ClusterName, Running>,
    /// Runners of settings that were replaced, for clusters that are named no more.
    leaving: Vec<JoinHandle<()>>,
    aborts: Vec<AbortHandle>,
    hooks: Vec<JoinHandle<()>>,
    /// The work of these settings, and of those before them that may still be at it.
    jobs: Vec<Arc<dyn Jobs>>,
    http: Option<Listening>,
}

struct Listening {
    task: JoinHandle<()>,
    access: watch::Sender<Access>,
    ready: Arc<AtomicBool>,
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Daemon {
    async fn start(config: Config, make: &MakeJobs) -> Result<Self, ServeError> {
        let board = Arc::new(Board::default());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let plans = plans(&config)?;
        let jobs = make(&config, clock.clone()).map_err(ServeError::Jobs)?;
        let http = Listening::start(&config, &board).await?;
        let mut daemon = Self {
            config,
            board,
            clock,
            runners: BTreeMap::new(),
            leaving: Vec::new(),
            aborts: Vec::new(),
            hooks: Vec::new(),
            jobs: Vec::new(),
            http,
        };
        daemon.run(plans, jobs);
        if let Some(http) = &daemon.http {
            http.ready.store(true, Ordering::Release);
        }
        Ok(daemon)
    }

    /// Starts runners; each waits until the one before it of the same cluster has come to its end.
    fn run(&mut self, plans: Vec<Plan>, jobs: Arc<dyn Jobs>) {
        let (hooks, tasks) = Hooks::start(&self.config.hooks, &self.board);
        self.hooks.retain(|task| !task.is_finished());
        self.hooks.extend(tasks);
        self.aborts.retain(|task| !task.is_finished());
        self.leaving.retain(|task| !task.is_finished());
        // Those that nobody works with any more are held here alone.
        self.jobs.retain(|jobs| Arc::strong_count(jobs) > 1);
        self.jobs.push(jobs.clone());
        let shared = Arc::new(Shared {
            jobs,
            clock: self.clock.clone(),
            board: self.board.clone(),
            hooks,
            backups: Semaphore::new(self.config.parallel_backups),
            verifications: Semaphore::new(1),
        });
        self.show_floors();
        let mut before = std::mem::take(&mut self.runners);
        for running in before.values() {
            running.stop.send_replace(true);
        }
        for plan in plans {
            let cluster = plan.cluster.clone();
            let earlier = before.remove(&cluster);
            let (stop, stopped) = watch::channel(false);
            let runner = Runner::new(plan, shared.clone(), stopped);
            let task = tokio::spawn(async move {
                if let Some(earlier) = earlier {
                    let _ = earlier.task.await;
                }
                runner.run().await;
            });
            self.aborts.push(task.abort_handle());
            self.runners.insert(cluster, Running { stop, task });
        }
        self.leaving.extend(before.into_values().map(|running| running.task));
    }

    fn show_floors(&self) {
        for cluster in &self.config.clusters {
            for name in &cluster.repositories {
                let of_repository = self.config.repository(name).map(|r| &r.retention);
                let Some(policy) = cluster.retention.as_ref().or(of_repository) else { continue };
                // One is kept even where none is asked for.
                self.board.keeps(&cluster.name, name, policy.min_backups.max(1));
            }
        }
    }

    /// Takes new settings if all of them can be used; otherwise keeps what it has.
    fn reload(&mut self, path: &Path, make: &MakeJobs) {
        match self.prepare(path, make) {
            Ok((config, access, plans, jobs)) => {
                if config.http.listen != self.config.http.listen {
                    let listens = |config: &Config| {
                        config.http.listen.map_or_else(|| "nothing".to_owned(), |at| at.to_string())
                    };
                    let (old, new) = (listens(&self.config), listens(&config));
                    tracing::warn!(%old, %new, "another http.listen is taken only by a restart");
                }
                if config.log != self.config.log {
                    tracing::warn!("another log.format or log.level is taken only by a restart");
                }
                if let (Some(http), Some(access)) = (&self.http, access) {
                    http.access.send_replace(access);
                }
                self.config = config;
                self.run(plans, jobs);
                let config = &self.config;
                self.board.retain(|place| {
                    let cluster = config.clusters.iter().find(|c| c.name.as_str() == place.cluster);
                    cluster.is_some_and(|cluster| cluster.repositories.contains(&place.repository))
                });
                self.board.metrics.reloads.inc();
                tracing::info!(clusters = self.runners.len(), "settings were read again");
            }
            Err(error) => {
                self.board.metrics.reload_failures.inc();
                tracing::error!(
                    error = crate::chain(&error),
                    help = error.remedy(),
                    "new settings were refused; the old ones stay"
                );
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "the parts of a daemon, used once")]
    fn prepare(
        &self,
        path: &Path,
        make: &MakeJobs,
    ) -> Result<(Config, Option<Access>, Vec<Plan>, Arc<dyn Jobs>), ServeError> {
        let config = Config::load(path)?;
        let plans = plans(&config)?;
        let access = self.http.as_ref().map(|_| Access::read(&config.http)).transpose()?;
        let jobs = make(&config, self.clock.clone()).map_err(ServeError::Jobs)?;
        Ok((config, access, plans, jobs))
    }

    /// Lets attempts finish within the grace, and abandons the rest. A second signal shortens it.
    async fn stop(mut self, signals: &mut Signals) {
        if let Some(http) = &self.http {
            http.ready.store(false, Ordering::Release);
        }
        for running in self.runners.values() {
            running.stop.send_replace(true);
        }
        let tasks = self.runners.into_values().map(|running| running.task).chain(self.leaving);
        let mut ended = futures::future::join_all(tasks);
        let grace = self.config.stop_grace.0;
        let in_time = tokio::select! {
            ended = tokio::time::timeout(grace, &mut ended) => ended.is_ok(),
            () = signals.stop() => false,
        };
        if !in_time {
            tracing::warn!("what still runs is abandoned: it is no backup");
            self.jobs.iter().for_each(|jobs| jobs.interrupt());
            let _ = tokio::time::timeout(CLEANUP_GRACE, ended).await;
        }
        for task in &self.aborts {
            task.abort();
        }
        let hooks = futures::future::join_all(std::mem::take(&mut self.hooks));
        if tokio::time::timeout(HOOKS_GRACE, hooks).await.is_err() {
            tracing::warn!("a hook was still at work");
        }
        if let Some(http) = self.http {
            http.task.abort();
        }
    }
}

impl Listening {
    async fn start(config: &Config, board: &Arc<Board>) -> Result<Option<Self>, ServeError> {
        let Some(address) = config.http.listen else { return Ok(None) };
        let access = Access::read(&config.http)?;
        let server = Server::bind(address, board.clone()).await?;
        let (access, receiver) = watch::channel(access);
        let ready = server.ready();
        let listens = server.address().unwrap_or(address);
        tracing::info!(address = %listens, "listening");
        let task = tokio::spawn(server.serve(receiver));
        Ok(Some(Self { task, access, ready }))
    }
}

fn plans(config: &Config) -> Result<Vec<Plan>, ScheduleError> {
    let plan = |cluster: &crate::config::Cluster| {
        let verify = cluster.verify.as_ref();
        let verify = verify.map(|v| Ok((v.schedule()?, v.sample.of.get()))).transpose()?;
        Ok(Plan {
            cluster: cluster.name.clone(),
            repositories: cluster.repositories.clone(),
            schedule: cluster.schedule.schedule()?,
            verify,
            prune: cluster.prune,
            stale_after: cluster.stale_after.map(|span| span.0),
            attempts: config.retries.attempts,
            first_wait: config.retries.first_wait.0,
            longest_wait: config.retries.longest_wait.0,
        })
    };
    config.clusters.iter().map(plan).collect()
}
