//! `recover status`: where each host is.

use super::{
    meant::{Meant, older_finished},
    show::Shown,
};
use crate::{
    cli::Context,
    output::{self, Format},
    report::{Exit, Failure},
};
use recover::{
    Elsewhere, Fleet, Journal, Line, Plan, Question, Run, RunError, State, What, spec::Resolved,
};
use serde::Serialize;
use std::{io::IsTerminal, time::Duration};

/// Show how far a recovery is, on each host
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    meant: Meant,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusJson {
    run: String,
    cluster: String,
    state: &'static str,
    hosts: Vec<HostJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostJson {
    host: String,
    data: String,
    etcd: String,
    clients: String,
    last: String,
}

impl StatusArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let (runs, plan, journal) = self.meant.find()?;
        let has_ended = matches!(journal.state()?, State::RolledBack | State::Committed);
        let shown = Shown::new(&plan.spec);
        let (found, elsewhere, served) = context.block_on(async {
            let fleet = Fleet::new(&plan.spec, shown.watcher())?.patient(Duration::ZERO);
            let run = Run { plan: &plan, journal: &journal, fleet: &fleet };
            let found = run.status().await;
            let elsewhere = if has_ended { Ok(()) } else { run.refuse_elsewhere().await };
            Ok((found, elsewhere, served(&plan, &fleet).await))
        })?;
        // What has ended elsewhere is written down here by now.
        let state = match (journal.state()?, &elsewhere) {
            (_, Err(RunError::Elsewhere { how: Elsewhere::TakenOver { .. }, .. })) => "taken over",
            (State::Unfinished, _) => "unfinished",
            (State::RollingBack, _) => "being taken back",
            (State::Finished, _) => "finished",
            (State::RolledBack, _) => "taken back",
            (State::Committed, _) => "committed",
        };
        if let Err(error) = elsewhere {
            say!("{error}");
        }
        if let Some(changed) = changed_members(&plan, &journal)? {
            say!("{changed}");
        }
        if let Some(older) = older_finished(&runs, &plan)?.filter(|_| state == "taken back") {
            say!(
                "run {older}, which it had followed, is in place, neither committed nor taken back"
            );
        }
        let unknown: Vec<_> = found
            .iter()
            .filter_map(|(host, found)| Some((host.clone(), found.as_ref().err()?.remedy())))
            .collect();
        let hosts = found.into_iter().map(|(host, found)| match found {
            Ok(on) => {
                HostJson { host, data: on.data, etcd: on.etcd, clients: on.clients, last: on.last }
            }
            Err(error) => HostJson {
                host,
                data: "unknown".to_owned(),
                etcd: "unknown".to_owned(),
                clients: "unknown".to_owned(),
                last: error.to_string(),
            },
        });
        let mut hosts: Vec<_> = hosts.collect();
        let order: Vec<_> = plan.hosts().into_iter().map(|host| host.label).collect();
        for (label, serves) in served {
            match hosts.iter_mut().find(|known| known.host == label) {
                Some(known) => known.etcd += &format!(", {serves}"),
                // Only the lost member's host is changed.
                None => hosts.push(HostJson {
                    host: label,
                    data: "not touched".to_owned(),
                    etcd: serves,
                    clients: String::new(),
                    last: String::new(),
                }),
            }
        }
        let place = |host: &HostJson| order.iter().position(|label| *label == host.host);
        hosts.sort_by_key(place);
        let json = StatusJson {
            run: plan.run.clone(),
            cluster: plan.spec.cluster.to_string(),
            state,
            hosts,
        };
        output::print(&json.render(context.format))?;
        let Some((_, remedy)) = unknown.first() else { return Ok(()) };
        let labels: Vec<_> = unknown.iter().map(|(label, _)| label.as_str()).collect();
        Err(Failure::new(
            Exit::Unreachable,
            format!("where {} is could not be found out", labels.join(", ")),
            remedy,
        ))
    }
}

/// Of a replacement: what the cluster was asked for last, which is in no host's journal.
fn changed_members(plan: &Plan, journal: &Journal) -> Result<Option<String>, Failure> {
    let Some(replace) = &plan.replace else { return Ok(None) };
    let lines = journal.lines()?;
    let told = |line: &Line| match (line.what, line.step.as_deref()?) {
        (What::Done, "remove-member") => Some("was removed from the cluster"),
        (What::Done, "add-member") => Some("was removed from the cluster, and added anew"),
        (What::Done, "promote") => Some("is a new member of the cluster"),
        (What::Undo, "promote") => Some("is taken out of the cluster, if it was added"),
        _ => None,
    };
    let last = lines.iter().rev().find_map(told);
    Ok(last.map(|told| format!("{} {told}", replace.member)))
}

/// Of a replacement: which members serve meanwhile. Of a recovery, nobody is asked.
async fn served(plan: &Plan, fleet: &Fleet) -> Vec<(String, String)> {
    let mut served = Vec::new();
    let hosts = fleet.hosts().iter().filter(|host| plan.replace.is_some() && host.member.is_some());
    for host in hosts {
        let one = |other: &Resolved| (other.label == host.label).then(|| Question::to(other));
        // One that cannot be asked does not keep the others from being told of.
        let serves = match fleet.ask(&plan.agent, one).await {
            Ok(answers) => match answers.first() {
                Some((_, answer)) if answer.healthy => "serves".to_owned(),
                Some((_, answer)) => {
                    let why = answer.error.as_deref().unwrap_or("no answer");
                    format!("does not serve: {why}")
                }
                None => "was not asked".to_owned(),
            },
            Err(error) => format!("cannot be asked: {error}"),
        };
        served.push((host.label.clone(), serves));
    }
    served
}

impl StatusJson {
    fn render(&self, format: Format) -> String {
        if format == Format::Json {
            return output::json(self);
        }
        // Hosts without a member have their own name.
        let headers = ["member", "data", "etcd", "clients", "last"];
        // Who reads it line by line finds each in one.
        let table = match std::io::stdout().is_terminal() {
            true => output::table,
            false => output::wide_table,
        };
        let rows = self.hosts.iter().map(|on| {
            [&on.host, &on.data, &on.etcd, &on.clients, &on.last].map(Clone::clone).to_vec()
        });
        format!(
            "run {} of cluster {}: {}\n{}",
            self.run,
            self.cluster,
            self.state,
            table(&headers, &rows.collect::<Vec<_>>())
        )
    }
}
