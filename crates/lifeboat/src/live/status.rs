//! `endpoint status`: version, size, and place in the cluster of each member.

use etcd_live::{Connector, Endpoint, Status};
use serde::Serialize;

use super::endpoint::{ask_each, render, report_failed};
use super::wire::{StatusJson, header_fields};
use crate::output::{self, Format, humanize_bytes, quote};
use crate::report::Failure;

const HEADERS: [&str; 10] = [
    "endpoint",
    "ID",
    "version",
    "db size",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
];

/// Print the status of each endpoint
///
/// In the simple format, the values are: endpoint, ID, version, db size, is leader, is learner, raft
/// term, raft index, raft applied index, errors.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointStatusJson<'a> {
    endpoint: String,
    status: StatusJson<'a>,
}

pub(super) async fn run(
    format: Format,
    connector: &Connector,
    endpoints: &[Endpoint],
) -> Result<(), Failure> {
    let ask = |connection: etcd_live::Connection| async move { connection.status().await };
    let (answers, outcome) = report_failed("status", ask_each(connector, endpoints, ask).await);
    output::print(&render(format, &HEADERS, &answers, row, json, fields))?;
    outcome
}

fn row((endpoint, status): &(Endpoint, Status)) -> Vec<String> {
    vec![
        endpoint.to_string(),
        format!("{:x}", status.header.member_id),
        status.version.clone(),
        humanize_bytes(u64::try_from(status.db_size).unwrap_or(0)),
        status.is_leader().to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
    ]
}

fn json((endpoint, status): &(Endpoint, Status)) -> EndpointStatusJson<'_> {
    EndpointStatusJson { endpoint: endpoint.to_string(), status: status.into() }
}

fn fields((endpoint, status): &(Endpoint, Status)) -> String {
    let mut text = header_fields(&status.header);
    text += &format!("\"Version\" : {}\n", quote(&status.version));
    text += &format!("\"DBSize\" : {}\n", status.db_size);
    text += &format!("\"Leader\" : {}\n", status.leader);
    text += &format!("\"IsLearner\" : {}\n", status.is_learner);
    text += &format!("\"RaftIndex\" : {}\n", status.raft_index);
    text += &format!("\"RaftTerm\" : {}\n", status.raft_term);
    text += &format!("\"RaftAppliedIndex\" : {}\n", status.raft_applied_index);
    text += &format!("\"Errors\" : [{}]\n", status.errors.join(" "));
    text + &format!("\"Endpoint\" : {}\n\n", quote(&endpoint.to_string()))
}
