//! What is told to others: an event to a command's standard input, or posted to a URL.
//!
//! ```json
//! {"event":"failure","cluster":"prod","repository":"bucket","at":"2026-11-22T02:00:41Z",
//!  "scheduled_for":"2026-11-22T02:00:00Z","reason":"store-unreachable","error":"…"}
//! ```
//!
//! * A hook has bounded time, and its failure is a line in the log and a count: it never disturbs a backup.
//! * Events wait in a bounded queue; when a hook is too slow for it, the newest are dropped, and logged as such.

use crate::{
    board::Board,
    config::{Hook, Occasion, Secret},
    metrics::FailedHook,
};
use jiff::Timestamp;
use serde::Serialize;
use std::{process::Stdio, sync::Arc};
use tokio::{io::AsyncWriteExt, sync::mpsc};

/// Events that may wait for a slow hook. A daemon has a few per cluster and hour.
const QUEUE_EVENTS: usize = 256;

/// What a command has of the daemon's variables. Others may hold keys of stores, which are none of its business.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// `success`, `failure`, `stale`, `damage`.
    pub event: &'static str,
    /// The cluster.
    pub cluster: String,
    /// The repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The slot of the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<Timestamp>,
    /// The backups that it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<String>,
    /// The revision of the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Bytes of the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The kind of failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Event {
    /// An event of which no more is known.
    pub fn new(occasion: Occasion, cluster: &str, at: Timestamp) -> Self {
        Self {
            event: occasion.name(),
            cluster: cluster.to_owned(),
            repository: None,
            at,
            scheduled_for: None,
            backups: Vec::new(),
            revision: None,
            bytes: None,
            reason: None,
            error: None,
        }
    }
}

impl Event {
    /// The same for a command that reads no JSON.
    fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        let backups = (!self.backups.is_empty()).then(|| self.backups.join(" "));
        let variables = [
            ("LIFEBOAT_EVENT", Some(self.event.to_owned())),
            ("LIFEBOAT_CLUSTER", Some(self.cluster.clone())),
            ("LIFEBOAT_REPOSITORY", self.repository.clone()),
            ("LIFEBOAT_BACKUPS", backups),
            ("LIFEBOAT_REVISION", self.revision.map(|revision| revision.to_string())),
            ("LIFEBOAT_REASON", self.reason.map(str::to_owned)),
        ];
        variables.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

impl Occasion {
    /// As settings and events name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Stale => "stale",
            Self::Damage => "damage",
        }
    }
}

/// Where events go. Cheap to clone; never waits.
#[derive(Clone, Debug)]
pub struct Hooks {
    queues: Arc<[Queue]>,
}

#[derive(Debug)]
struct Queue {
    hook: Hook,
    failures: Failures,
    events: mpsc::Sender<Event>,
}

/// Counts what one hook did not take.
#[derive(Clone, Debug)]
struct Failures {
    hook: u64,
    board: Arc<Board>,
}

impl Failures {
    fn add(&self, reason: &'static str) {
        let failed = FailedHook { hook: self.hook, reason };
        self.board.metrics.hook_failures.get_or_create(&failed).inc();
    }
}

impl Hooks {
    /// Starts a task for each hook; it ends when the last clone is gone and its queue is empty.
    pub fn start(hooks: &[Hook], board: &Arc<Board>) -> (Self, Vec<tokio::task::JoinHandle<()>>) {
        let mut tasks = Vec::new();
        let start = |(place, hook): (u64, &Hook)| {
            let (events, queue) = mpsc::channel(QUEUE_EVENTS);
            let failures = Failures { hook: place, board: board.clone() };
            tasks.push(tokio::spawn(deliver(hook.clone(), queue, failures.clone())));
            Queue { hook: hook.clone(), failures, events }
        };
        let queues: Vec<_> = (0..).zip(hooks).map(start).collect();
        (Self { queues: queues.into() }, tasks)
    }

    /// None at all.
    pub fn none() -> Self {
        Self { queues: Arc::new([]) }
    }

    /// Tells all hooks that wait for it.
    pub fn tell(&self, occasion: Occasion, event: &Event) {
        for queue in self.queues.iter().filter(|queue| queue.hook.on.contains(&occasion)) {
            if queue.events.try_send(event.clone()).is_err() {
                queue.failures.add("dropped");
                tracing::warn!(
                    event = event.event,
                    cluster = event.cluster,
                    "a hook is too slow: an event was dropped"
                );
            }
        }
    }
}

async fn deliver(hook: Hook, mut queue: mpsc::Receiver<Event>, failures: Failures) {
    while let Some(event) = queue.recv().await {
        let done = tokio::time::timeout(hook.timeout.0, once(&hook, &event)).await;
        let error = match done {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(_) => HookError::Timeout,
        };
        failures.add(error.reason());
        tracing::warn!(event = event.event, cluster = event.cluster, error = %crate::chain(&error), "a hook failed");
    }
}

/// Why a hook failed. Says neither URL nor output: both may hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It took too long, and was stopped.
    #[error("it took longer than its timeout")]
    Timeout,
    /// The command could not be run.
    #[error("{program} cannot be run")]
    Run {
        /// The program.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The command failed.
    #[error("{program} ended with {status}")]
    Status {
        /// The program.
        program: String,
        /// How.
        status: std::process::ExitStatus,
    },
    /// A file with a URL or token cannot be read.
    #[error("{path:?} cannot be read")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The request could not be sent.
    #[error("the webhook cannot be reached")]
    Send {
        /// Why not, without the URL.
        source: reqwest::Error,
    },
    /// The receiver refused.
    #[error("the webhook answered {0}")]
    Answer(reqwest::StatusCode),
}

impl HookError {
    /// The kind of failure. Closed, so that metrics have few of them.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Run { .. } => "cannot-run",
            Self::Status { .. } => "status",
            Self::File { .. } => "settings",
            Self::Send { .. } => "unreachable",
            Self::Answer(_) => "refused",
        }
    }
}

async fn once(hook: &Hook, event: &Event) -> Result<(), HookError> {
    let json = serde_json::to_vec(event).expect("an event is plain data");
    match (&hook.command[..], &hook.webhook_file) {
        ([program, arguments @ ..], _) => command(program, arguments, event, &json).await,
        ([], Some(file)) => webhook(hook, file, json).await,
        ([], None) => Ok(()),
    }
}

async fn command(
    program: &str,
    arguments: &[String],
    event: &Event,
    json: &[u8],
) -> Result<(), HookError> {
    let run = |source| HookError::Run { program: program.to_owned(), source };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))))
        .envs(event.variables())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(run)?;
    if let Some(mut input) = child.stdin.take() {
        // A command that does not read its input is no failure; its status tells.
        let _ = input.write_all(json).await;
    }
    let status = child.wait().await.map_err(run)?;
    if status.success() {
        Ok(())
    } else {
        Err(HookError::Status { program: program.to_owned(), status })
    }
}

async fn webhook(hook: &Hook, file: &std::path::Path, json: Vec<u8>) -> Result<(), HookError> {
    let read = |path: &std::path::Path| {
        Secret::read(path).map_err(|source| HookError::File { path: path.to_owned(), source })
    };
    let send = |source: reqwest::Error| HookError::Send { source: source.without_url() };
    let url = read(file)?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(crate::tls::client())
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(send)?;
    let mut request =
        client.post(url.reveal()).header("content-type", "application/json").body(json);
    if let Some(file) = &hook.bearer_file {
        request = request.bearer_auth(read(file)?.reveal());
    }
    let status = request.send().await.map_err(send)?.status();
    if status.is_success() { Ok(()) } else { Err(HookError::Answer(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;
    use std::time::Duration;

    fn hook(command: &[&str]) -> Hook {
        Hook {
            on: vec![Occasion::Failure],
            command: command.iter().map(|&part| part.to_owned()).collect(),
            webhook_file: None,
            bearer_file: None,
            timeout: Span(Duration::from_secs(20)),
        }
    }

    fn event() -> Event {
        Event::new(Occasion::Failure, "prod", Timestamp::UNIX_EPOCH)
    }

    /// What the metrics say after the hook was told.
    async fn told(hook: Hook, event: &Event) -> String {
        let board = Arc::new(Board::default());
        let (hooks, tasks) = Hooks::start(&[hook], &board);
        hooks.tell(Occasion::Failure, event);
        hooks.tell(Occasion::Success, event);
        drop(hooks);
        for task in tasks {
            task.await.unwrap();
        }
        board.scrape(Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_command_gets_the_event_on_its_standard_input() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let hook = hook(&["/bin/sh", "-c", "cat >> \"$0\"", out.to_str().unwrap()]);
        let metrics = told(hook, &event()).await;
        assert!(!metrics.contains("hook_failures_total"), "{metrics}");
        let written = std::fs::read_to_string(out).unwrap();
        assert_eq!(written, r#"{"event":"failure","cluster":"prod","at":"1970-01-01T00:00:00Z"}"#);
    }

    /// Cargo gives tests variables of its own: they stand for the keys that a daemon may have.
    #[tokio::test]
    async fn a_command_has_no_variable_but_the_plain_ones_and_what_the_event_tells() {
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let hook = hook(&["/bin/sh", "-c", "env > \"$0\"", out.to_str().unwrap()]);
        let event = Event {
            repository: Some("bucket".to_owned()),
            backups: vec!["a".to_owned(), "b".to_owned()],
            revision: Some(7),
            ..event()
        };
        let metrics = told(hook, &event).await;
        assert!(!metrics.contains("hook_failures_total"), "{metrics}");
        let written = std::fs::read_to_string(out).unwrap();
        // The shell itself sets some more.
        let of_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
        let names = written.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
        let others: Vec<_> = names
            .filter(|name| !name.starts_with("LIFEBOAT_"))
            .filter(|name| !of_shell.contains(name) && !INHERITED.contains(name))
            .collect();
        assert!(others.is_empty(), "{others:?}");
        for line in [
            "LIFEBOAT_EVENT=failure",
            "LIFEBOAT_CLUSTER=prod",
            "LIFEBOAT_REPOSITORY=bucket",
            "LIFEBOAT_BACKUPS=a b",
            "LIFEBOAT_REVISION=7",
        ] {
            assert!(written.lines().any(|found| found == line), "{line} in {written}");
        }
        assert!(!written.contains("LIFEBOAT_REASON"));
    }

    #[tokio::test]
    async fn a_command_that_never_ends_is_stopped() {
        let hook =
            Hook { timeout: Span(Duration::from_millis(50)), ..hook(&["/bin/sleep", "1000"]) };
        let metrics = told(hook, &event()).await; // comes back
        let line = r#"lifeboat_hook_failures_total{hook="0",reason="timeout"} 1"#;
        assert!(metrics.contains(line), "{metrics}");
    }

    #[tokio::test]
    async fn a_command_that_fails_or_is_not_there_is_told_by_its_name_alone() {
        let failed = once(&hook(&["/bin/false", "secret"]), &event()).await.unwrap_err();
        assert_eq!(failed.to_string(), "/bin/false ended with exit status: 1");
        let missing = once(&hook(&["/nowhere", "secret"]), &event()).await.unwrap_err();
        assert_eq!(missing.to_string(), "/nowhere cannot be run");
    }

    #[tokio::test]
    async fn a_webhook_gets_the_event_and_its_token_and_errors_tell_no_url() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (url, token) = (folder.path().join("url"), folder.path().join("token"));
        std::fs::write(&url, format!("http://{address}/hidden\n")).unwrap();
        std::fs::write(&token, "s3cret\n").unwrap();
        let hook = Hook { webhook_file: Some(url), bearer_file: Some(token), ..hook(&[]) };

        let serve = axum::Router::new().route(
            "/hidden",
            axum::routing::post(|headers: axum::http::HeaderMap, body: String| async move {
                let right =
                    headers["authorization"] == "Bearer s3cret" && body.contains("\"prod\"");
                if right { axum::http::StatusCode::OK } else { axum::http::StatusCode::BAD_REQUEST }
            }),
        );
        let server = tokio::spawn(async move { axum::serve(listener, serve).await });
        once(&hook, &event()).await.unwrap();
        server.abort();
        let _ = server.await;
        let error = crate::chain(&once(&hook, &event()).await.unwrap_err());
        assert!(!error.contains("hidden") && !error.contains("s3cret"), "{error}");
    }
}
