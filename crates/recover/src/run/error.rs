//! Why a run stopped, and what to do next.

use crate::{
    claim::{Claim, Elsewhere, HELD},
    host::HostError,
    journal::JournalError,
};
use std::io;

/// Why a run stopped. What was done stays done; a run that goes on begins there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// One host, or several.
    #[error("{step}: {}", several(failures))]
    Hosts {
        /// The step.
        step: String,
        /// What each said.
        failures: Vec<HostError>,
    },
    /// The cluster is not what it should be.
    #[error("the new cluster is not as it should be:{}", lines(faults))]
    Cluster {
        /// All that is wrong.
        faults: Vec<String>,
    },
    /// The cluster did not do what it was asked for.
    #[error("{step}:{}", lines(why))]
    Member {
        /// The step.
        step: String,
        /// What each member said that was asked.
        why: Vec<String>,
    },
    /// What is to be sent cannot be written here.
    #[error("cannot write to {}", path.display())]
    Write {
        /// Where.
        path: std::path::PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No data were built, but hosts need them.
    #[error("hosts need data, but none were built")]
    NothingBuilt,
    /// What is in place on these hosts came after the run.
    #[error("{}: the data in place are not those of this run, though it has set older ones aside: {}", hosts.join(", "), put_there(later))]
    Overtaken {
        /// The hosts.
        hosts: Vec<String>,
        /// The runs whose data they are, as far as hosts know.
        later: Vec<Claim>,
        /// One of them is final.
        is_final: bool,
    },
    /// Another run has put its data there since this one was begun, which has not replaced any yet.
    #[error("{}: another run has put its data there since run {run} was begun: {}", hosts.join(", "), claims(later))]
    Stale {
        /// This run.
        run: String,
        /// The hosts.
        hosts: Vec<String>,
        /// The runs whose data they are.
        later: Vec<Claim>,
    },
    /// The run goes on from another machine, or has ended there.
    #[error("run {run} {}", elsewhere(how))]
    Elsewhere {
        /// The run.
        run: String,
        /// What has become of it.
        how: Elsewhere,
    },
    /// What answers after a rollback is what the run had made.
    #[error("{}: the NEW cluster, {cluster_id:x}, serves there still, though the old data are back in place", members.join(", "))]
    StillNew {
        /// Members that answered.
        members: Vec<String>,
        /// The new cluster's id.
        cluster_id: u64,
    },
    /// ssh's connections have no place.
    #[error("cannot make a folder in /tmp for ssh's connections")]
    Connections(#[source] io::Error),
}

impl RunError {
    /// What to do next.
    pub fn remedy(&self) -> String {
        match self {
            Self::Hosts { failures, .. } => {
                failures.first().map(HostError::remedy).unwrap_or_default()
            }
            Self::Cluster { .. } => "see etcd's logs on the hosts; `lifeboat recover run` asks again, `lifeboat recover rollback` brings the old cluster back".to_owned(),
            Self::Member { .. } => "see etcd's logs on the hosts; the same command goes on from there, `lifeboat recover rollback` takes back what can be taken back".to_owned(),
            Self::Write { .. } => "check the folder's permissions and free space".to_owned(),
            Self::Journal(error) => error.remedy().to_owned(),
            Self::NothingBuilt => "run the same command again".to_owned(),
            Self::Overtaken { is_final: true, .. } => "nothing was changed, and nothing needs to be: that run was committed, so this one is over. Its old data are where they were set aside; docs/recover.md says how to put them back by hand".to_owned(),
            Self::Elsewhere { run, how } => match how {
                Elsewhere::TakenBack { .. } => "nothing was changed; `lifeboat recover run` or `replace` begins anew".to_owned(),
                Elsewhere::Committed { .. } => "nothing was changed; there is nothing left to do for it, and `lifeboat recover run` or `replace` begins anew".to_owned(),
                Elsewhere::TakenOver { .. } => format!("nothing was changed; finish it there, or take it back to this machine: lifeboat recover adopt CLUSTER.yaml {run}"),
            },
            Self::Stale { run, .. } => format!("nothing was changed; what this run was to lose and to keep is not true any more. Take it back, and begin anew: lifeboat recover rollback {run}"),
            Self::StillNew { .. } => "an etcd runs there that its service does not know of: stop it by hand (`pgrep -a etcd`), and run the same command again".to_owned(),
            Self::Overtaken { .. } => "nothing was changed. The later run is to be taken back first, on the machine that began it (if that is gone: `lifeboat recover adopt`); `ls -d DATA-DIR.lifeboat-*` on a host tells which runs there were".to_owned(),
            Self::Connections(_) => "make room in /tmp, or let yourself write there".to_owned(),
        }
    }

    /// Whether another run was quicker: it holds a host, or has put its data there.
    pub fn is_outrun(&self) -> bool {
        match self {
            Self::Hosts { failures, .. } => {
                failures.iter().any(|failure| failure.exit_code() == Some(HELD))
            }
            Self::Stale { .. } => true,
            _ => false,
        }
    }

    /// Whether what arrived on a host is not what was sent, though it was sent again.
    pub fn is_damaged_on_its_way(&self) -> bool {
        let Self::Hosts { failures, .. } = self else { return false };
        failures.iter().any(|failure| matches!(failure, HostError::Damaged { .. }))
    }

    /// Whether a host could not be reached.
    pub fn is_unreachable(&self) -> bool {
        let Self::Hosts { failures, .. } = self else { return false };
        failures.iter().any(|failure| {
            matches!(failure, HostError::Unreachable { .. } | HostError::Silent { .. })
        })
    }
}

fn elsewhere(how: &Elsewhere) -> String {
    let (what, told) = match how {
        Elsewhere::TakenBack { told, .. } => ("was taken back", told),
        Elsewhere::Committed { told } => ("was committed", told),
        Elsewhere::TakenOver { told } => ("was taken over", told),
    };
    format!("{what}, {told}")
}

fn put_there(later: &[Claim]) -> String {
    match later {
        [] => "a later run, or somebody by hand, has put them there".to_owned(),
        later => {
            format!("a later run has put them there: {}", claims(later))
        }
    }
}

fn claims(claims: &[Claim]) -> String {
    let texts: Vec<_> = claims.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

fn several(failures: &[HostError]) -> String {
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    if texts.len() == 1 { texts.concat() } else { lines(&texts) }
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| format!("\n  {text}")).collect()
}
