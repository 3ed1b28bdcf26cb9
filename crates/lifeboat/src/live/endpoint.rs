//! `endpoint …`: questions that each member answers for itself.

use etcd_live::{Connection, Connector, Endpoint, LiveError, members_of, one_line};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{hashkv, health, status};
use crate::cli::Context;
use crate::output::{Format, json, simple, table};
use crate::report::{Exit, Failure};

/// Ask each member about itself
#[derive(Debug, clap::Args)]
pub(crate) struct EndpointArgs {
    /// Ask all members of the cluster, at the client URLs that they announce
    #[arg(long, global = true)]
    cluster: bool,

    #[command(subcommand)]
    command: EndpointCommand,
}

#[derive(Debug, clap::Subcommand)]
enum EndpointCommand {
    Status(status::StatusArgs),
    Health(health::HealthArgs),
    #[command(name = "hashkv")]
    HashKv(hashkv::HashKvArgs),
}

impl EndpointArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let connector = Connector::new(context.connection.options()?)?;
        let given = context.connection.endpoints()?;
        context.block_on(async {
            let endpoints = if self.cluster { announced(&connector, &given).await? } else { given };
            match &self.command {
                EndpointCommand::Status(_) => {
                    status::run(context.format, &connector, &endpoints).await
                }
                EndpointCommand::Health(_) => {
                    health::run(context.format, &connector, &endpoints).await
                }
                EndpointCommand::HashKv(args) => {
                    args.run(context.format, &connector, &endpoints).await
                }
            }
        })
    }
}

/// The client URLs of all members, in the order of their ids.
async fn announced(
    connector: &Connector,
    endpoints: &[Endpoint],
) -> Result<Vec<Endpoint>, Failure> {
    let members = members_of(connector, endpoints).await?;
    let urls = members.members.iter().flat_map(|member| &member.client_urls);
    let endpoints: Result<Vec<Endpoint>, _> = urls.map(|url| url.parse()).collect();
    endpoints.map_err(|error| {
        let message = format!("a member announces a client URL that cannot be used: {error}");
        Failure::new(
            Exit::Failed,
            message,
            "give the members with --endpoints instead of --cluster",
        )
    })
}

/// Asks all endpoints at once; answers come back in the order of the endpoints.
pub(super) async fn ask_each<T, Asking>(
    connector: &Connector,
    endpoints: &[Endpoint],
    ask: impl Fn(Connection) -> Asking + Copy + Send + Sync + 'static,
) -> Vec<(Endpoint, Result<T, LiveError>)>
where
    T: Send + 'static,
    Asking: Future<Output = Result<T, LiveError>> + Send,
{
    let mut asked = JoinSet::new();
    for (place, endpoint) in endpoints.iter().cloned().enumerate() {
        let connector = connector.clone();
        asked.spawn(async move {
            let answer = async { ask(connector.connect(&endpoint).await?).await }.await;
            (place, endpoint, answer)
        });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(place, ..)| *place);
    answers.into_iter().map(|(_, endpoint, answer)| (endpoint, answer)).collect()
}

/// Says on stderr which endpoints gave no `what`, and splits them off.
pub(super) fn report_failed<T>(
    what: &str,
    answers: Vec<(Endpoint, Result<T, LiveError>)>,
) -> (Vec<(Endpoint, T)>, Result<(), Failure>) {
    let asked = answers.len();
    let mut good = Vec::new();
    let mut failed = Vec::new();
    for (endpoint, answer) in answers {
        match answer {
            Ok(answer) => good.push((endpoint, answer)),
            Err(error) => {
                say!("Failed to get the {what} of endpoint {endpoint} ({})", one_line(&error));
                failed.push(error);
            }
        }
    }
    let outcome = match failed.first() {
        None => Ok(()),
        Some(first) => {
            let all_silent = good.is_empty() && failed.iter().all(LiveError::is_unreachable);
            let exit = if all_silent { Exit::Unreachable } else { Exit::Failed };
            let message = format!("{} of {asked} endpoints gave no {what}", failed.len());
            Err(Failure::new(exit, message, first.remedy()))
        }
    };
    (good, outcome)
}

/// The answers of all endpoints, each told by `row`, `json_of` or `fields`.
pub(super) fn render<'a, T, J: Serialize>(
    format: Format,
    headers: &[&str],
    answers: &'a [(Endpoint, T)],
    row: impl Fn(&'a (Endpoint, T)) -> Vec<String>,
    json_of: impl Fn(&'a (Endpoint, T)) -> J,
    fields: impl Fn(&'a (Endpoint, T)) -> String,
) -> String {
    match format {
        Format::Simple => answers.iter().map(|answer| simple(&row(answer)) + "\n").collect(),
        Format::Table => table(headers, &answers.iter().map(row).collect::<Vec<_>>()),
        Format::Json => json(&answers.iter().map(json_of).collect::<Vec<_>>()),
        Format::Fields => answers.iter().map(fields).collect(),
    }
}
