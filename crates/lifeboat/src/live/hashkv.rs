//! `endpoint hashkv`: whether members hold the same history.
//!
//! Hashes of a moving store are comparable only at one revision, and only between members that were
//! compacted to the same revision. etcdctl hashes each member at whatever revision it has just then;
//! here several endpoints are first asked for their revision, and all are hashed at the smallest.

use etcd_live::{Connector, Endpoint, HashKv, LiveError, Status};
use serde::Serialize;

use super::endpoint::{ask_each, render, report_failed};
use super::wire::{HashKvJson, header_fields};
use crate::output::{self, Format, quote};
use crate::report::{Exit, Failure};

const HEADERS: [&str; 2] = ["endpoint", "hash"];

/// Hash the history of each member, and compare
///
/// Several endpoints are hashed at one common revision: --rev, or else the smallest of their current
/// revisions. If members that were compacted to the same revision differ, that is said and the exit
/// code is 3. With authentication on, this needs a user with the role root.
#[derive(Debug, clap::Args)]
pub(super) struct HashKvArgs {
    /// Hash up to this revision [default: the newest that all endpoints have]
    #[arg(
        long,
        value_name = "REVISION",
        default_value_t = 0,
        hide_default_value = true,
        value_parser = clap::value_parser!(i64).range(0..)
    )]
    rev: i64,
}

#[derive(Serialize)]
struct EndpointHashKvJson {
    #[serde(rename = "Endpoint")]
    endpoint: String,
    #[serde(rename = "HashKV")]
    hash_kv: HashKvJson,
}

impl HashKvArgs {
    pub(super) async fn run(
        &self,
        format: Format,
        connector: &Connector,
        endpoints: &[Endpoint],
    ) -> Result<(), Failure> {
        let revision = match (self.rev, endpoints) {
            (0, [_, _, ..]) => common_revision(connector, endpoints).await?,
            (given, _) => given,
        };
        let ask = move |connection: etcd_live::Connection| async move {
            connection.hash_kv(revision).await
        };
        let (answers, outcome) = report_failed("hash", ask_each(connector, endpoints, ask).await);
        output::print(&render(format, &HEADERS, &answers, row, json, fields))?;
        match compare(&answers) {
            Comparison::Equal => outcome,
            Comparison::NotComparable => {
                say!(
                    "warning: the members were compacted to different revisions, so not all hashes \
                     can be compared; ask again in a moment, or with --rev"
                );
                outcome
            }
            Comparison::Different(groups) => Err(differ(revision, &groups)),
        }
    }
}

/// The smallest current revision; endpoints that do not answer now fail again when they are hashed.
async fn common_revision(connector: &Connector, endpoints: &[Endpoint]) -> Result<i64, Failure> {
    let ask = |connection: etcd_live::Connection| async move { connection.status().await };
    smallest_revision(ask_each(connector, endpoints, ask).await)
}

/// Without any revision, the members would be hashed wherever each just is, and seem to differ.
fn smallest_revision(answers: Vec<(Endpoint, Result<Status, LiveError>)>) -> Result<i64, Failure> {
    let statuses = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    match statuses.map(|status| status.header.revision).min() {
        Some(revision) => Ok(revision),
        None => report_failed("status", answers).1.map(|()| 0),
    }
}

#[derive(Debug, PartialEq)]
enum Comparison {
    Equal,
    /// Compact revisions differ; where they are equal the hashes are too.
    NotComparable,
    /// Groups of members that should be equal and are not: compact revision, endpoints and hashes.
    Different(Vec<(i64, Vec<(String, u32)>)>),
}

fn compare(answers: &[(Endpoint, HashKv)]) -> Comparison {
    let mut groups: Vec<(i64, Vec<(String, u32)>)> = Vec::new();
    for (endpoint, hash) in answers {
        let member = (endpoint.to_string(), hash.hash);
        match groups.iter_mut().find(|(compacted, _)| *compacted == hash.compact_revision) {
            Some((_, members)) => members.push(member),
            None => groups.push((hash.compact_revision, vec![member])),
        }
    }
    let comparable = groups.len() <= 1;
    groups.retain(|(_, members)| members.iter().any(|(_, hash)| *hash != members[0].1));
    match (groups.as_slice(), comparable) {
        ([], true) => Comparison::Equal,
        ([], false) => Comparison::NotComparable,
        _ => Comparison::Different(groups),
    }
}

fn differ(revision: i64, groups: &[(i64, Vec<(String, u32)>)]) -> Failure {
    let mut message = format!("THE MEMBERS' DATA DIFFERS at revision {revision}:");
    for (compacted, members) in groups {
        for (endpoint, hash) in members {
            message += &format!("\n  {endpoint}: hash {hash}, compacted to {compacted}");
        }
    }
    Failure::new(
        Exit::Damaged,
        message,
        "find out which member is right before you take a snapshot; a majority of equal hashes is a hint",
    )
}

fn row((endpoint, hash): &(Endpoint, HashKv)) -> Vec<String> {
    vec![endpoint.to_string(), hash.hash.to_string()]
}

fn json((endpoint, hash): &(Endpoint, HashKv)) -> EndpointHashKvJson {
    EndpointHashKvJson { endpoint: endpoint.to_string(), hash_kv: hash.into() }
}

fn fields((endpoint, hash): &(Endpoint, HashKv)) -> String {
    let endpoint = quote(&endpoint.to_string());
    let header = header_fields(&hash.header);
    format!("{header}\"Endpoint\" : {endpoint}\n\"Hash\" : {}\n\n", hash.hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd_live::{Header, Request};
    use std::time::Duration;

    fn member(place: u16, hash: u32, compact_revision: i64) -> (Endpoint, HashKv) {
        let endpoint = format!("m{place}:2379").parse().unwrap();
        (endpoint, HashKv { hash, compact_revision, ..HashKv::default() })
    }

    fn status(revision: i64) -> Result<Status, LiveError> {
        let header = Header { revision, ..Header::default() };
        Ok(Status { header, ..Status::default() })
    }

    fn silent() -> Result<Status, LiveError> {
        let endpoint = "m9:2379".parse().unwrap();
        Err(LiveError::TimedOut {
            endpoint,
            request: Request::Status,
            after: Duration::from_secs(5),
        })
    }

    #[test]
    fn members_are_hashed_at_the_smallest_revision_or_not_at_all() {
        let endpoint: Endpoint = "m1:2379".parse().unwrap();
        let answers = |all: Vec<_>| all.into_iter().map(|a| (endpoint.clone(), a)).collect();
        let some = smallest_revision(answers(vec![status(8), silent(), status(7)]));
        assert_eq!(some.unwrap(), 7);
        let none = smallest_revision(answers(vec![silent(), silent()]));
        assert_eq!(none.unwrap_err().exit, Exit::Unreachable);
    }

    #[test]
    fn members_with_equal_hashes_agree() {
        assert_eq!(compare(&[]), Comparison::Equal);
        assert_eq!(compare(&[member(1, 7, 5), member(2, 7, 5)]), Comparison::Equal);
    }

    #[test]
    fn hashes_over_different_compactions_are_not_held_against_anyone() {
        let answers = [member(1, 7, 5), member(2, 8, 6), member(3, 7, 5)];
        assert_eq!(compare(&answers), Comparison::NotComparable);
    }

    #[test]
    fn a_member_that_differs_is_found_and_is_damage() {
        let answers = [member(1, 7, 5), member(2, 8, 5), member(3, 9, 6)];
        let Comparison::Different(groups) = compare(&answers) else { panic!("not found") };
        let failure = differ(40, &groups);
        assert_eq!(failure.exit, Exit::Damaged);
        assert_eq!(
            failure.error.to_string(),
            "THE MEMBERS' DATA DIFFERS at revision 40:\n  \
             m1:2379: hash 7, compacted to 5\n  \
             m2:2379: hash 8, compacted to 5"
        );
    }
}
