//! `member list`: who belongs to the cluster.

use etcd_live::{Connector, Member, Members, members_of};

use super::wire::{HexMembersJson, MembersJson, header_fields};
use crate::cli::Context;
use crate::output::{self, Format, json, quote, simple, table};
use crate::report::Failure;

const HEADERS: [&str; 6] = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];

/// Ask a cluster about its members
#[derive(Debug, clap::Subcommand)]
pub(crate) enum MemberCommand {
    List(MemberListArgs),
}

/// List the members of the cluster
///
/// The endpoint that answers first is believed; it need not have a quorum. In the simple format, the
/// values are: ID, status, name, peer URLs, client URLs, is a learner.
#[derive(Debug, clap::Args)]
pub(crate) struct MemberListArgs {
    /// Print ids in hex in the JSON format too
    #[arg(long)]
    hex: bool,
}

impl MemberCommand {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::List(args) => args.run(context),
        }
    }
}

impl MemberListArgs {
    fn run(&self, context: &Context) -> Result<(), Failure> {
        let connector = Connector::new(context.connection.options()?)?;
        let endpoints = context.connection.endpoints()?;
        let members = context
            .block_on(async { members_of(&connector, &endpoints).await.map_err(Failure::from) })?;
        output::print(&render(context.format, self.hex, &members))?;
        Ok(())
    }
}

fn render(format: Format, hex: bool, members: &Members) -> String {
    match format {
        Format::Simple => {
            members.members.iter().map(|member| simple(&row(member)) + "\n").collect()
        }
        Format::Table => table(&HEADERS, &members.members.iter().map(row).collect::<Vec<_>>()),
        Format::Json if hex => json(&HexMembersJson::from(members)),
        Format::Json => json(&MembersJson::from(members)),
        Format::Fields => {
            header_fields(&members.header) + &members.members.iter().map(fields).collect::<String>()
        }
    }
}

fn row(member: &Member) -> Vec<String> {
    let status = if member.name.is_empty() { "unstarted" } else { "started" };
    vec![
        format!("{:x}", member.id),
        status.to_owned(),
        member.name.clone(),
        member.peer_urls.join(","),
        member.client_urls.join(","),
        member.is_learner.to_string(),
    ]
}

fn fields(member: &Member) -> String {
    let mut text = format!("\"ID\" : {}\n\"Name\" : {}\n", member.id, quote(&member.name));
    for url in &member.peer_urls {
        text += &format!("\"PeerURL\" : {}\n", quote(url));
    }
    for url in &member.client_urls {
        text += &format!("\"ClientURL\" : {}\n", quote(url));
    }
    text + &format!("\"IsLearner\" : {}\n\n", member.is_learner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd_live::Header;

    /// A started member and an added one. The texts below have the shapes that etcdctl 3.5.16 prints.
    fn two_members() -> Members {
        let started = Member {
            id: 0x19a4_ad7f_302d_aa31,
            name: "m3".to_owned(),
            peer_urls: vec!["http://127.0.0.1:33331".to_owned()],
            client_urls: vec!["http://127.0.0.1:33330".to_owned()],
            is_learner: false,
        };
        let added = Member {
            id: 0x9000_5424_a067_5e50,
            peer_urls: vec!["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()],
            is_learner: true,
            ..Member::default()
        };
        let header = Header {
            cluster_id: 0x1666_bf44,
            member_id: 0x19a4_ad7f_302d_aa31,
            revision: 0,
            raft_term: 2,
        };
        Members { header, members: vec![started, added] }
    }

    #[test]
    fn a_member_that_never_started_has_no_name_and_no_client_urls() {
        assert_eq!(
            render(Format::Simple, false, &two_members()),
            "19a4ad7f302daa31, started, m3, http://127.0.0.1:33331, http://127.0.0.1:33330, false\n\
             90005424a0675e50, unstarted, , http://127.0.0.1:1,http://127.0.0.1:2, , true\n"
        );
    }

    #[test]
    fn json_leaves_out_what_is_zero() {
        assert_eq!(
            render(Format::Json, false, &two_members()),
            concat!(
                r#"{"header":{"cluster_id":375832388,"member_id":1847792508909496881,"raft_term":2},"#,
                r#""members":[{"ID":1847792508909496881,"name":"m3","#,
                r#""peerURLs":["http://127.0.0.1:33331"],"clientURLs":["http://127.0.0.1:33330"]},"#,
                r#"{"ID":10376386057748307536,"#,
                r#""peerURLs":["http://127.0.0.1:1","http://127.0.0.1:2"],"isLearner":true}]}"#,
                "\n"
            )
        );
    }

    #[test]
    fn json_in_hex_says_null_and_nothing_of_learners() {
        assert_eq!(
            render(Format::Json, true, &two_members()),
            concat!(
                r#"{"header":{"cluster_id":"1666bf44","member_id":"19a4ad7f302daa31","raft_term":2},"#,
                r#""members":[{"ID":"19a4ad7f302daa31","name":"m3","#,
                r#""peerURLs":["http://127.0.0.1:33331"],"clientURLS":["http://127.0.0.1:33330"]},"#,
                r#"{"ID":"90005424a0675e50","name":"","#,
                r#""peerURLs":["http://127.0.0.1:1","http://127.0.0.1:2"],"clientURLS":null}]}"#,
                "\n"
            )
        );
    }
}
