//! Where each host of a run is, by what is found on it; and whether another run has come after it.

use super::{Run, RunError};
use crate::{
    claim::{self, Claim, Ended, Placed},
    host::HostError,
    journal::What,
    plan::Plan,
    shell::{quote, quote_path},
    spec::Resolved,
};
use tokio::task::JoinSet;

/// Where a host is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnHostNow {
    /// Which data are in place: `old`, `new` or `none`; and what lies beside them.
    pub data: String,
    /// Whether etcd runs.
    pub etcd: String,
    /// The clients, and whether they run.
    pub clients: String,
    /// The last line of the host's journal.
    pub last: String,
    /// The run whose data are in place, if they are a run's.
    pub placed: Option<Placed>,
}

impl OnHostNow {
    /// Whether data are in place that are not the run's, though it has set those that were there aside.
    fn is_overtaken(&self) -> bool {
        let has = |what: &str| self.data.split(", ").any(|found| found == what);
        has("old") && has("old aside")
    }

    /// Whether data lie beside that a rollback has taken away.
    pub(crate) fn has_undone(&self) -> bool {
        self.data.split(", ").any(|found| found == "taken back beside")
    }

    /// Which data are in place.
    pub(crate) fn in_place(&self) -> &str {
        match self.data.split(", ").next() {
            None | Some("none" | "") => "no",
            Some(data) => data,
        }
    }

    fn parse(answer: &str) -> Self {
        let mut on = Self::default();
        for line in answer.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let field = match key {
                "data" => &mut on.data,
                "etcd" => &mut on.etcd,
                "client" => &mut on.clients,
                "last" => &mut on.last,
                "placed" => {
                    on.placed = Some(Placed::parse(value));
                    continue;
                }
                _ => continue,
            };
            if !field.is_empty() {
                field.push_str(", ");
            }
            field.push_str(value);
        }
        on
    }
}

/// Its answer is read by [`OnHostNow::parse`].
fn status_script(plan: &Plan, host: &Resolved) -> String {
    let (places, frame) = (plan.places(host), plan.frame(host));
    let run_dir = frame.run_dir();
    let (current, mark) = (
        quote_path(&places.member(&places.data.current)),
        quote_path(&places.mark(&places.data.current)),
    );
    let mut text = format!(
        "if [ -e {mark} ]; then echo data new; elif [ -e {current} ]; then echo data old; else echo data none; fi\n"
    );
    for (place, what) in [
        (&places.data.old, "old aside"),
        (&places.data.new, "new beside"),
        (&places.data.undone, "taken back beside"),
    ] {
        text += &format!("[ ! -e {} ] || echo data {what}\n", quote_path(place));
    }
    let mut service = |key: &str, service: &crate::spec::Service, named: bool| {
        let running = crate::service::Shell::new(service, &run_dir).running();
        let name = if named { format!("{} ", quote(&service.name())) } else { String::new() };
        text += &format!(
            "if {running}; then echo {key} {name}runs; else echo {key} {name}stopped; fi\n"
        );
    };
    service("etcd", &host.service, false);
    for client in &host.clients {
        service("client", &client.service, true);
    }
    text +=
        // Who goes on claims the host anew, which tells nothing of how far it is.
        &format!(
            "if [ -e {run_dir}/journal ]; then\n\
             last=$(grep -v ' lock$' {run_dir}/journal | tail -n 1)\n\
             echo last \"${{last:-$(tail -n 1 {run_dir}/journal)}}\"\n\
             fi\n"
        );
    let data_dir = quote_path(&places.data_dir());
    text += &claim::look_for_placed(&host.state_dir, &data_dir);
    frame.look(&text)
}

impl Run<'_> {
    /// Refuses to go on with a run whose data another one has replaced.
    pub async fn refuse_overtaken(&self) -> Result<(), RunError> {
        let found = self.status().await.into_iter();
        // A host that does not answer is told of by what comes next.
        let overtaken = found.filter_map(|(label, on)| Some((label, on.ok()?)));
        let (mut hosts, mut later) = (Vec::new(), Vec::<Placed>::new());
        for (label, on) in overtaken.filter(|(_, on)| on.is_overtaken()) {
            hosts.push(label);
            let known =
                |placed: &Placed| later.iter().any(|known| known.claim.run == placed.claim.run);
            later.extend(on.placed.filter(|placed| !known(placed)));
        }
        let is_final = later.iter().any(|placed| placed.ended == Ended::Committed);
        let later: Vec<_> = later.into_iter().map(|placed| placed.claim).collect();
        if hosts.is_empty() {
            return Ok(());
        }
        if is_final {
            let by = later.iter().map(|claim| claim.run.as_str()).collect::<Vec<_>>().join(", ");
            let note = format!("followed by {by}, which was committed");
            self.journal.note(What::Committed, None, None, Some(&note))?;
        }
        Err(RunError::Overtaken { hosts, later, is_final })
    }

    /// Refuses to go on with a run that another one has come before: it was cut off before it could claim the hosts.
    pub async fn refuse_stale(&self) -> Result<(), RunError> {
        let (mut hosts, mut later) = (Vec::new(), Vec::<Claim>::new());
        for (label, on) in self.status().await {
            let Some(placed) = on.ok().and_then(|on| on.placed) else { continue };
            let known = self.plan.facts.get(&label).and_then(|facts| facts.placed.as_ref());
            let is_known = known.is_some_and(|known| known.claim.run == placed.claim.run);
            if is_known || placed.claim.run == self.plan.run {
                continue;
            }
            hosts.push(label);
            if !later.iter().any(|known| known.run == placed.claim.run) {
                later.push(placed.claim);
            }
        }
        match hosts.is_empty() {
            true => Ok(()),
            false => Err(RunError::Stale { run: self.plan.run.clone(), hosts, later }),
        }
    }

    /// Whether every member runs with the data that it had: the run has replaced none, or somebody has put them back.
    pub async fn is_as_before(&self) -> bool {
        let found = self.status().await;
        found
            .iter()
            .all(|(_, on)| on.as_ref().is_ok_and(|on| on.data == "old" && on.etcd == "runs"))
    }

    /// Where each host is, by what is found on it.
    pub async fn status(&self) -> Vec<(String, Result<OnHostNow, HostError>)> {
        let mut asking = JoinSet::new();
        let hosts = self.fleet.hosts.iter().enumerate();
        // Of a replacement only one host has something to tell.
        let touched =
            hosts.filter(|(_, host)| self.plan.replace.is_none() || self.plan.gets_data(host));
        for (number, host) in touched {
            let text = status_script(self.plan, host);
            let remote = self.fleet.remotes[number].clone();
            asking.spawn(async move {
                let found = remote.script(&text).await.map(|answer| OnHostNow::parse(&answer));
                (number, remote.label().to_owned(), found)
            });
        }
        let mut found = asking.join_all().await;
        found.sort_by_key(|(number, ..)| *number);
        found.into_iter().map(|(_, label, found)| (label, found)).collect()
    }
}
