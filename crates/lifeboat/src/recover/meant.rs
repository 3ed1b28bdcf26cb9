//! Which run is meant, by a command that names no file.

use super::args::RunsArgs;
use crate::report::{Exit, Failure};
use recover::{Journal, Plan, Runs, State};

/// So many runs are named to who names one that there is not.
const KNOWN_MAX: usize = 10;

/// The run that is meant.
#[derive(Debug, clap::Args)]
pub(super) struct Meant {
    /// The run, or the cluster's name for its newest run [default: the newest run of the only cluster]
    #[arg(value_name = "RUN|CLUSTER")]
    run: Option<String>,

    #[command(flatten)]
    pub(super) runs: RunsArgs,
}

impl Meant {
    pub(super) fn find(&self) -> Result<(Runs, Plan, Journal), Failure> {
        let runs = self.runs.runs()?;
        let all = runs.all()?;
        let named = |wanted: &str| {
            all.iter().rev().find(|plan| plan.run == wanted || plan.spec.cluster == wanted)
        };
        let mut clusters: Vec<_> = all.iter().map(|plan| plan.spec.cluster.as_str()).collect();
        clusters.sort_unstable();
        clusters.dedup();
        let found = match (&self.run, clusters.as_slice()) {
            (Some(wanted), _) => named(wanted),
            (None, [only]) => named(only),
            (None, []) => None,
            (None, several) => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("there are runs of several clusters: {}", several.join(", ")),
                    "name the cluster, or the run",
                ));
            }
        };
        let Some(found) = found else { return Err(self.unknown(&all)) };
        let (mut plan, journal) = runs.open(&found.run)?;
        plan.by = Some(runs.holder()?);
        Ok((runs, plan, journal))
    }
}

impl Meant {
    /// There is no such run: those that there are.
    fn unknown(&self, all: &[Plan]) -> Failure {
        let wanted = self.run.as_ref().map(|run| format!(" {run}")).unwrap_or_default();
        let lines = all.iter().rev().take(KNOWN_MAX);
        let lines: String = lines
            .map(|plan| format!("\n  {} of cluster {}", plan.run, plan.spec.cluster))
            .collect();
        let message = match all {
            [] => format!("there is no run{wanted}: none is known here"),
            _ => format!(
                "there is no run or cluster{wanted}; known here are, the newest first:{lines}"
            ),
        };
        Failure::new(
            Exit::Failed,
            message,
            "runs are known on the machine that began them, below its --state-dir; `lifeboat recover adopt CLUSTER.yaml` asks the hosts which there are",
        )
    }
}

/// The run that one has followed which was taken back, if it is in place again and can be taken back too.
pub(super) fn older_finished(runs: &Runs, plan: &Plan) -> Result<Option<String>, Failure> {
    let known = runs.of(&plan.spec.cluster)?.into_iter().rev();
    let mut older = known.filter(|(other, _)| other.run < plan.run);
    let before = older.find(|(_, state)| *state != State::RolledBack);
    Ok(before.filter(|(_, state)| *state == State::Finished).map(|(other, _)| other.run))
}
