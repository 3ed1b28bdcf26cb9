//! `cluster-health`: the question of etcd's version 2, answered in its words.
//!
//! ```text
//! member 8e9e05c52164694d is healthy: got healthy result from http://127.0.0.1:2379
//! cluster is healthy
//! ```
//!
//! The old tool asked each member's `/health` over HTTP; here the same two questions, agreement and
//! alarms, are asked over gRPC.

use etcd_live::{Connector, Endpoint, LiveError, Member, Refusal, members_of, one_line};

use super::health::check_each;
use crate::cli::{Context, Tool};
use crate::output;
use crate::report::{Exit, Failure};

/// Check each member's health, as etcdctl of etcd's version 2 did
///
/// The members are those that the cluster knows, wherever --endpoints points to. Fails unless all
/// are healthy: with exit code 1, or with the old tool's 5 when called by the name etcdctl.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterHealthArgs {}

impl ClusterHealthArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let connector = Connector::new(context.connection.options()?)?;
        let endpoints = context.connection.endpoints()?;
        let members = context.block_on(async { Ok(members_of(&connector, &endpoints).await) })?;
        let members = match members {
            Ok(members) => members.members,
            Err(error) => {
                output::print("cluster may be unhealthy: failed to list members\n")?;
                return Err(error.into());
            }
        };
        let verdicts = context.block_on(async {
            let mut verdicts = Vec::new();
            for member in &members {
                verdicts.push(Verdict::of(&connector, member).await);
            }
            Ok(verdicts)
        })?;
        let cluster = Cluster::of(&verdicts);
        output::print(&render(&members, &verdicts, cluster))?;
        cluster.outcome(context.tool)
    }
}

/// What was found at the client URLs of one member, up to the first that answered.
struct Verdict {
    tried: Vec<Tried>,
}

enum Tried {
    Healthy(Endpoint),
    Unhealthy(Endpoint),
    Failed { url: String, why: String },
}

impl Verdict {
    async fn of(connector: &Connector, member: &Member) -> Self {
        let mut tried = Vec::new();
        for url in &member.client_urls {
            let endpoint: Endpoint = match url.parse() {
                Ok(endpoint) => endpoint,
                Err(error) => {
                    tried.push(Tried::Failed { url: url.clone(), why: one_line(&error) });
                    continue;
                }
            };
            tried.push(Tried::of(connector, endpoint).await);
            if !matches!(tried.last(), Some(Tried::Failed { .. })) {
                break;
            }
        }
        Self { tried }
    }

    fn is_healthy(&self) -> bool {
        matches!(self.tried.last(), Some(Tried::Healthy(_)))
    }
}

impl Tried {
    async fn of(connector: &Connector, endpoint: Endpoint) -> Self {
        let checked = check_each(connector, std::slice::from_ref(&endpoint)).await;
        let checked = checked.into_iter().next().expect("one was asked");
        match &checked.result {
            Err(error) if answers_no_reads(error) => Self::by_status(connector, endpoint).await,
            Err(error) if cannot_be_asked(error) => Self::failed(&endpoint, error),
            _ if checked.fault().is_none() => Self::Healthy(endpoint),
            _ => Self::Unhealthy(endpoint),
        }
    }

    /// What can be told of a member that serves no reads, or none without a user: whether it has a
    /// leader, and what it says of itself. The old tool asked `/health`, which wants no user either.
    async fn by_status(connector: &Connector, endpoint: Endpoint) -> Self {
        match async { connector.connect(&endpoint).await?.status().await }.await {
            Ok(status) if status.leader != 0 && status.errors.is_empty() => Self::Healthy(endpoint),
            Ok(_) => Self::Unhealthy(endpoint),
            Err(error) => Self::failed(&endpoint, &error),
        }
    }

    fn failed(endpoint: &Endpoint, error: &LiveError) -> Self {
        Self::Failed { url: endpoint.to_string(), why: one_line(error) }
    }
}

/// A learner, or a member that wants to know who asks: no word about its health.
fn answers_no_reads(error: &LiveError) -> bool {
    matches!(error.refusal(), Some(Refusal::Learner | Refusal::UserWanted))
}

/// No answer, as opposed to a bad one.
fn cannot_be_asked(error: &LiveError) -> bool {
    match error {
        LiveError::TimedOut { .. } => false,
        error => error.refusal().is_none(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cluster {
    Healthy,
    Degraded,
    Unavailable,
}

impl Cluster {
    fn of(verdicts: &[Verdict]) -> Self {
        match verdicts.iter().filter(|verdict| verdict.is_healthy()).count() {
            healthy if healthy == verdicts.len() => Self::Healthy,
            0 => Self::Unavailable,
            _ => Self::Degraded,
        }
    }

    fn line(self) -> &'static str {
        match self {
            Self::Healthy => "cluster is healthy",
            Self::Degraded => "cluster is degraded",
            Self::Unavailable => "cluster is unavailable",
        }
    }

    fn outcome(self, tool: Tool) -> Result<(), Failure> {
        if self == Self::Healthy {
            return Ok(());
        }
        // The old tool's number for an unhealthy cluster is the one that Lifeboat has for a refusal.
        let exit = if tool == Tool::EtcdTool { Exit::Refused } else { Exit::Failed };
        Err(Failure::new(exit, self.line(), "see the lines above, and the logs of those members"))
    }
}

fn render(members: &[Member], verdicts: &[Verdict], cluster: Cluster) -> String {
    let members = members.iter().zip(verdicts);
    let lines: String = members.map(|(member, verdict)| member_lines(member, verdict)).collect();
    format!("{lines}{}\n", cluster.line())
}

fn member_lines(member: &Member, verdict: &Verdict) -> String {
    let id = member.id;
    if member.client_urls.is_empty() {
        return format!("member {id:x} is unreachable: no available published client urls\n");
    }
    let mut lines = String::new();
    for tried in &verdict.tried {
        lines += &match tried {
            Tried::Healthy(url) => {
                format!("member {id:x} is healthy: got healthy result from {url}\n")
            }
            Tried::Unhealthy(url) => {
                format!("member {id:x} is unhealthy: got unhealthy result from {url}\n")
            }
            Tried::Failed { url, why } => {
                format!("failed to check the health of member {id:x} on {url}: {why}\n")
            }
        };
    }
    if matches!(verdict.tried.last(), Some(Tried::Failed { .. })) {
        let urls = member.client_urls.join(" ");
        lines += &format!("member {id:x} is unreachable: [{urls}] are all unreachable\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, urls: &[&str]) -> Member {
        let client_urls = urls.iter().map(|url| (*url).to_owned()).collect();
        Member { id, client_urls, ..Member::default() }
    }

    fn endpoint(url: &str) -> Endpoint {
        url.parse().unwrap()
    }

    #[test]
    fn a_cluster_is_told_in_the_words_of_the_old_tool() {
        let members = [
            member(0x1a, &["http://a:1"]),
            member(0x2b, &["http://b:1", "http://b:2"]),
            member(0x3c, &[]),
            member(0x4d, &["http://d:1"]),
        ];
        let failed = |url: &str| Tried::Failed { url: url.to_owned(), why: "refused".to_owned() };
        let verdicts = [
            Verdict { tried: vec![Tried::Healthy(endpoint("http://a:1"))] },
            Verdict { tried: vec![failed("http://b:1"), failed("http://b:2")] },
            Verdict { tried: vec![] },
            Verdict { tried: vec![Tried::Unhealthy(endpoint("http://d:1"))] },
        ];
        assert_eq!(
            render(&members, &verdicts, Cluster::of(&verdicts)),
            "\
member 1a is healthy: got healthy result from http://a:1
failed to check the health of member 2b on http://b:1: refused
failed to check the health of member 2b on http://b:2: refused
member 2b is unreachable: [http://b:1 http://b:2] are all unreachable
member 3c is unreachable: no available published client urls
member 4d is unhealthy: got unhealthy result from http://d:1
cluster is degraded
"
        );
    }

    #[test]
    fn the_exit_code_is_the_old_tools_only_under_its_name() {
        assert!(Cluster::Healthy.outcome(Tool::EtcdTool).is_ok());
        assert_eq!(Cluster::Degraded.outcome(Tool::EtcdTool).unwrap_err().exit as u8, 5);
        assert_eq!(Cluster::Unavailable.outcome(Tool::Lifeboat).unwrap_err().exit, Exit::Failed);
    }
}
