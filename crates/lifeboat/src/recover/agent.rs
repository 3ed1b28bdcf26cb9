//! `recover agent`: what `recover` runs on a host, to ask the member there.

use crate::{
    cli::Context,
    output,
    report::{Exit, Failure},
};
use etcd_live::{
    ConnectOptions, Connection, Connector, Credentials, Endpoint, Identity, LiveError, Refusal,
    TlsOptions, one_line,
};
use recover::{Answer, Change, Held, Probe, Question, added};
use std::{
    io::Read,
    time::{Duration, Instant},
};

/// The wait between two tries.
const AGAIN: Duration = Duration::from_millis(200);
/// Agreement of members that have just started may take an election.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// A member that is busy, as all are that have just started, takes its time to greet.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Ask the member of this host what stands on standard input, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct AgentArgs {}

impl AgentArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text)?;
        let question: Question = serde_json::from_str(&text).map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("that is no question: {error}"),
                "this command is for `recover` itself",
            )
        })?;
        let mut answer = context.block_on(async { Ok(answer(&question).await) })?;
        if !answer.healthy {
            let (data_dir, wal_dir) = (question.data_dir.as_deref(), question.wal_dir.as_deref());
            answer.held = data_dir.and_then(|data_dir| Held::look(data_dir, wal_dir));
            answer.disk_revision = answer.held.as_ref().and_then(|held| held.revision);
        }
        output::print(&output::json(&answer))
    }
}

async fn answer(question: &Question) -> Answer {
    let mut answer = Answer::default();
    if question.endpoints.is_empty() {
        return answer;
    }
    let until = Instant::now() + Duration::from_secs(question.wait_seconds);
    loop {
        match ask(question, &mut answer).await {
            Ok(()) => answer.error = None,
            Err(error) => answer.error = Some(error),
        }
        if answer.healthy || Instant::now() >= until {
            return answer;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// One try; `answer` keeps what was learnt before it failed.
async fn ask(question: &Question, answer: &mut Answer) -> Result<(), String> {
    answer.denied = false;
    let connection = connect(question, &mut answer.denied).await?;
    let told = |error: LiveError| one_line(&error);
    let status = connection.status().await.map_err(told)?;
    answer.member_id = status.header.member_id;
    answer.cluster_id = status.header.cluster_id;
    answer.version = status.version;
    answer.revision = status.header.revision;
    answer.is_learner = status.is_learner;
    answer.raft_index = status.raft_index;
    list_members(&connection, answer).await?;
    let health = connection.health().await.map_err(|error| {
        answer.denied = error.is_denied();
        told(error)
    })?;
    answer.alarms = health.alarms.iter().map(ToString::to_string).collect();
    if let Some(revision) = question.hash_at {
        match connection.hash_kv(revision).await {
            Ok(hash) => answer.hash = Some(hash.hash),
            Err(error) if error.refusal() == Some(&Refusal::Compacted) => {
                answer.hash_above_compacted = true;
            }
            Err(error) => return Err(told(error)),
        }
    }
    match &question.probe {
        Some(Probe::Put { key, value }) => {
            answer.probed = connection.probe(key, value).await.map_err(told)?;
        }
        Some(Probe::Remove { key }) => {
            answer.probed = Some(connection.remove_probe(key).await.map_err(told)?);
        }
        None => {}
    }
    if question.as_root {
        // Rights are looked at first; there is no such revision, so nothing is hashed.
        let asked = connection.hash_kv(i64::MAX).await;
        answer.denied = asked.is_err_and(|error| error.is_denied());
    }
    if let Some(change) = &question.change {
        apply(change, &connection, answer).await?;
    }
    answer.healthy = true;
    Ok(())
}

async fn list_members(connection: &Connection, answer: &mut Answer) -> Result<(), String> {
    let listed = connection.members().await.map_err(|error| one_line(&error))?;
    let members = listed.members.into_iter();
    (answer.members, answer.peer_urls, answer.client_urls) = Default::default();
    for member in members {
        answer.members.push((member.id, member.name, member.is_learner));
        answer.peer_urls.insert(member.id, member.peer_urls);
        answer.client_urls.insert(member.id, member.client_urls);
    }
    Ok(())
}

/// Changes the membership, unless it is so already: a change that was asked for before, and whose answer was lost, is not asked for
/// again. The members are those after it.
async fn apply(
    change: &Change,
    connection: &Connection,
    answer: &mut Answer,
) -> Result<(), String> {
    // The cluster has just agreed on a read, so this member knows by now what was changed before.
    list_members(connection, answer).await?;
    let known = |id: u64| answer.members.iter().any(|(known, ..)| *known == id);
    let is_learner =
        |id: u64| answer.members.iter().any(|(known, .., learner)| *known == id && *learner);
    let ours = |peer_urls: &[String], known: &[u64]| added(&answer.peer_urls, peer_urls, known);
    let changed = match change {
        Change::Remove { id } if known(*id) => connection.remove_member(*id).await,
        Change::Add { peer_urls, as_learner, known } if ours(peer_urls, known).is_none() => {
            connection.add_member(peer_urls, *as_learner).await.map(drop)
        }
        Change::Promote { id } if is_learner(*id) => connection.promote_member(*id).await,
        Change::RemoveAdded { peer_urls, known } => match ours(peer_urls, known) {
            Some(id) => connection.remove_member(id).await,
            None => Ok(()),
        },
        Change::Remove { .. } | Change::Add { .. } | Change::Promote { .. } => Ok(()),
    };
    changed.map_err(|error| one_line(&error))?;
    list_members(connection, answer).await
}

async fn connect(question: &Question, denied: &mut bool) -> Result<Connection, String> {
    let told = |error: LiveError| one_line(&error);
    let connector = Connector::new(options(question)?).map_err(told)?;
    let mut failed = String::new();
    for url in &question.endpoints {
        let endpoint: Endpoint = url.parse().map_err(|error| format!("{url}: {error}"))?;
        match connector.connect(&endpoint).await {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                *denied |= error.is_denied();
                failed = told(error);
            }
        }
    }
    Err(failed)
}

fn options(question: &Question) -> Result<ConnectOptions, String> {
    let identity = question.cert.clone().zip(question.key.clone());
    let credentials = match (&question.user, &question.password_file) {
        (Some(user), Some(file)) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            let password = text.lines().next().unwrap_or_default().to_owned();
            Some(Credentials { user: user.clone(), password })
        }
        _ => None,
    };
    Ok(ConnectOptions {
        tls: TlsOptions {
            ca: question.ca.clone(),
            identity: identity.map(|(cert, key)| Identity { cert, key }),
            ..TlsOptions::default()
        },
        credentials,
        dial_timeout: DIAL_TIMEOUT,
        command_timeout: COMMAND_TIMEOUT,
        ..ConnectOptions::default()
    })
}
