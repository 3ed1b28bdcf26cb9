//! `recover plan CLUSTER.yaml --discover …`: the cluster's file, found instead of written.

use super::backup::BackupArgs;
use crate::{
    cli::Context,
    report::{Exit, Failure},
};
use etcd_live::{Connector, Endpoint, members_of};
use recover::{
    discover::{Discovery, Finding, Known, KnownMember, Sources, combine, host_of_url, visit},
    spec::{ClusterName, Ssh},
};
use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

/// Set on each argument, as a heading of the whole struct would go on to the arguments after it.
const HEADING: &str = "Discovery";

/// Where the cluster's file is made from
#[derive(Debug, clap::Args)]
pub(super) struct DiscoverArgs {
    /// Make CLUSTER.yaml first, from what these hosts tell over ssh: units, static pods, config files
    ///
    /// Only reads. What is not found, and what contradicts itself, stands as comments in the file; if there is any,
    /// no plan is made of it.
    #[arg(long, help_heading = HEADING, value_name = "HOST,…", value_delimiter = ',')]
    discover: Vec<String>,

    /// Make CLUSTER.yaml first, from the member list of a live cluster; connection flags say how to reach it
    ///
    /// Its hosts are those of the members' peer URLs, unless --discover names them.
    #[arg(long, help_heading = HEADING, value_name = "ENDPOINT,…", value_delimiter = ',')]
    from_endpoint: Vec<Endpoint>,

    /// Make CLUSTER.yaml first, from the member list that the backup holds
    #[arg(long, help_heading = HEADING, conflicts_with = "from_endpoint")]
    from_backup: bool,

    /// Name of the cluster in the file that is made
    #[arg(long, help_heading = HEADING, value_name = "NAME")]
    cluster: Option<ClusterName>,

    /// Do not visit the hosts: only members and their URLs are found
    #[arg(long, help_heading = HEADING, conflicts_with = "discover")]
    no_visit: bool,

    /// User that ssh logs in as [default: what ssh's config says]
    #[arg(long, help_heading = HEADING, value_name = "USER")]
    ssh_user: Option<String>,

    /// Config file for ssh [default: the user's own]
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    ssh_config: Option<PathBuf>,

    /// Option for ssh, as in its config: ProxyJump=bastion; may be given several times
    #[arg(long = "ssh-option", help_heading = HEADING, value_name = "NAME=VALUE")]
    ssh_options: Vec<String>,
}

impl DiscoverArgs {
    /// Makes the file if it shall be made. An error if anything in it is left to decide. Not every command has a backup.
    pub(super) fn run(
        &self,
        context: &Context,
        file: &Path,
        backup: Option<&BackupArgs>,
    ) -> Result<(), Failure> {
        if self.discover.is_empty() && self.from_endpoint.is_empty() && !self.from_backup {
            return Ok(());
        }
        if file.exists() {
            return Err(exists(file));
        }
        let found = self.find(context, backup)?;
        if let Some(refusal) = found.findings.iter().find(|finding| finding.is_refusal()) {
            let help = "bring this cluster back in its own way";
            return Err(Failure::new(Exit::Refused, refusal.to_string(), help));
        }
        write(file, &found.to_yaml())?;
        say!("{} was made, with {} hosts", file.display(), found.spec.hosts.len());
        report(file, &found)
    }

    fn find(&self, context: &Context, backup: Option<&BackupArgs>) -> Result<Discovery, Failure> {
        let known = self.known(context, backup)?;
        let hosts = self.hosts(known.as_ref());
        let ssh = Ssh {
            user: self.ssh_user.clone(),
            config: self.ssh_config.clone(),
            options: self.ssh_options.clone(),
            ..Ssh::default()
        };
        say!("visiting {} hosts", hosts.len());
        let hosts = context.block_on(async { Ok(visit(&ssh, &hosts).await?) })?;
        let cluster = self.cluster.clone();
        Ok(combine(&Sources {
            cluster,
            backup: backup.and_then(BackupArgs::as_spec),
            ssh,
            hosts,
            known,
        }))
    }

    fn known(
        &self,
        context: &Context,
        backup: Option<&BackupArgs>,
    ) -> Result<Option<Known>, Failure> {
        if self.from_backup {
            let cluster = self.cluster.clone().unwrap_or_default();
            let backup = backup.ok_or_else(|| {
                Failure::new(
                    Exit::Usage,
                    "this command takes no backup",
                    "let the members be found with --discover or --from-endpoint",
                )
            })?;
            return backup.members(context, cluster).map(Some);
        }
        if self.from_endpoint.is_empty() {
            return Ok(None);
        }
        let connector = Connector::new(context.connection.options()?)?;
        let listed = context.block_on(async {
            members_of(&connector, &self.from_endpoint).await.map_err(Failure::from)
        })?;
        let members = listed.members.into_iter().map(|member| KnownMember {
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            learner: member.is_learner,
        });
        let asked: Vec<_> = self.from_endpoint.iter().map(ToString::to_string).collect();
        Ok(Some(Known { said_by: asked.join(","), members: members.collect() }))
    }

    fn hosts(&self, known: Option<&Known>) -> Vec<String> {
        if !self.discover.is_empty() || self.no_visit {
            return self.discover.clone();
        }
        let members = known.into_iter().flat_map(|known| &known.members);
        let mut hosts = Vec::new();
        for host in members.filter_map(|member| host_of_url(member.peer_urls.first()?)) {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        hosts
    }
}

/// Never over another file: somebody may have worked on that.
fn write(file: &Path, yaml: &str) -> Result<(), Failure> {
    let made = OpenOptions::new().write(true).create_new(true).open(file);
    match made.and_then(|mut made| made.write_all(yaml.as_bytes())) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(exists(file)),
        Err(error) => Err(Failure::new(
            Exit::Failed,
            format!("cannot write {}: {error}", file.display()),
            "give another name for the file",
        )),
    }
}

fn exists(file: &Path) -> Failure {
    Failure::new(
        Exit::Refused,
        format!("{} is there already", file.display()),
        "give another name, or plan with the file as it is: without --discover, --from-endpoint and --from-backup",
    )
}

/// Tells what a person must know; an error if a person must decide.
fn report(file: &Path, found: &Discovery) -> Result<(), Failure> {
    for finding in &found.findings {
        say!("{finding}");
    }
    let open = found.findings.iter().filter(|finding| needs_a_person(finding)).count();
    if open == 0 {
        return Ok(());
    }
    let file = file.display();
    Err(Failure::new(
        Exit::Failed,
        format!("{file} leaves {open} things to decide; they are comments in it"),
        format!("correct the file, then run `lifeboat recover plan {file}`"),
    ))
}

fn needs_a_person(finding: &Finding) -> bool {
    let open = matches!(
        finding,
        Finding::NotFound { .. }
            | Finding::Unreachable { .. }
            | Finding::Unreadable { .. }
            | Finding::WithoutHost { .. }
    );
    open || finding.is_contradiction()
}
