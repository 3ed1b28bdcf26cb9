//! Which member to ask, when several endpoints are given.
//!
//! ```text
//! never            a learner; what cannot be reached or refuses
//! only if nothing  a member that has no leader, reports alarms, is named in a CORRUPT alarm,
//! better answers   or lags behind
//! else             a follower before the leader, the nearer before the farther, in the order given
//! ```
//!
//! All endpoints are asked at once. Who has not answered within the dial timeout is waited for only
//! while nobody else did. The order is total, so that a caller whose stream breaks can go on with the
//! next candidate. [`order`] decides and does no I/O.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::connection::{Connection, Connector};
use crate::endpoint::Endpoint;
use crate::error::{LiveError, PassedOverAll, Request, one_line};
use crate::reply::{AlarmKind, Status};

/// How many raft entries a member may be behind the foremost one.
///
/// The answers are taken some milliseconds apart, in which a busy cluster moves on by some hundred
/// entries. A member that is cut off falls behind without end.
pub const LAG_ENTRIES_MAX: u64 = 1000;

/// Members that answered within the same step count as equally near, so that chance does not choose.
const LATENCY_STEP: Duration = Duration::from_millis(20);

/// The members that can serve, best first, and the endpoints that cannot.
#[derive(Debug)]
pub struct Choice {
    /// At least one; take the next when one fails.
    pub candidates: Vec<Candidate>,
    /// Endpoints that are no candidates, or candidates for want of better ones.
    pub passed_over: Vec<PassedOver>,
}

/// A member that can serve.
#[derive(Debug)]
pub struct Candidate {
    /// Open, and logged in.
    pub connection: Connection,
    /// What it said of itself.
    pub status: Status,
    /// Why it stands where it stands.
    pub why: Why,
}

impl Candidate {
    /// Nothing speaks against this member.
    pub fn is_sound(&self) -> bool {
        !matches!(self.why, Why::LastResort(_))
    }
}

/// Why a member was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// There was no choice.
    OnlyEndpoint,
    /// A follower in good health: the leader has enough to do.
    Follower,
    /// The leader, in good health.
    Leader,
    /// Not in good health; for want of a better one.
    LastResort(Flaw),
}

/// What speaks against a member that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its data is older than another member's.
    Lagging {
        /// Raft entries behind the foremost member.
        entries: u64,
    },
    /// It reports errors, such as alarms of the cluster.
    Errors(Vec<String>),
    /// It has no leader, so it may be cut off.
    NoLeader,
    /// The cluster found its data to differ from the other members'.
    Corrupt,
}

/// An endpoint that was not taken.
#[derive(Debug)]
pub struct PassedOver {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Why not.
    pub reason: Reason,
}

/// Why an endpoint was not taken.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// Learners have incomplete data.
    Learner,
    /// It gave no usable answer.
    Failed(LiveError),
    /// It answered, and better ones did too.
    Flawed(Flaw),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyEndpoint => f.write_str("the only endpoint given"),
            Self::Follower => f.write_str("a follower in good health"),
            Self::Leader => f.write_str("the leader; no follower is better"),
            Self::LastResort(flaw) => write!(f, "for want of a better one: it {flaw}"),
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lagging { entries } => write!(f, "is {entries} raft entries behind"),
            Self::Errors(errors) => {
                let errors: Vec<&str> = errors.iter().map(|error| error.trim()).collect();
                write!(f, "reports: {}", errors.join(", "))
            }
            Self::NoLeader => f.write_str("has no leader"),
            Self::Corrupt => f.write_str("is named in a CORRUPT alarm"),
        }
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Learner => write!(f, "{} is a learner", self.endpoint),
            Reason::Failed(error) => f.write_str(&one_line(error)),
            Reason::Flawed(flaw) => write!(f, "{} {flaw}", self.endpoint),
        }
    }
}

/// For a line that names the endpoint itself.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Learner => f.write_str("it is a learner"),
            Self::Failed(error) => f.write_str(&one_line(error)),
            Self::Flawed(flaw) => write!(f, "it {flaw}"),
        }
    }
}

/// Asks all endpoints and puts them in order.
pub async fn choose(connector: &Connector, endpoints: &[Endpoint]) -> Result<Choice, LiveError> {
    if endpoints.is_empty() {
        return Err(LiveError::NoEndpoints);
    }
    let (answers, mut passed_over) = ask_all(connector, endpoints).await;
    one_cluster(&answers)?;
    let ordered = order(answers);
    passed_over.extend(ordered.passed_over);
    if ordered.candidates.is_empty() {
        return Err(none_usable(passed_over));
    }
    let mut candidates: Vec<Candidate> = ordered
        .candidates
        .into_iter()
        .map(|(answer, why)| Candidate {
            connection: answer.connection,
            status: answer.status,
            why,
        })
        .collect();
    if let ([only], [_]) = (candidates.as_mut_slice(), endpoints)
        && only.is_sound()
    {
        only.why = Why::OnlyEndpoint;
    }
    Ok(Choice { candidates, passed_over })
}

/// The error of a single endpoint is told as it is.
pub(crate) fn none_usable(mut passed_over: Vec<PassedOver>) -> LiveError {
    match passed_over.pop() {
        Some(PassedOver { reason: Reason::Failed(error), .. }) if passed_over.is_empty() => error,
        last => {
            passed_over.extend(last);
            LiveError::NoneUsable(PassedOverAll(passed_over))
        }
    }
}

/// What one endpoint answered. `C` is its connection, or nothing in tests.
struct Answer<C> {
    /// Its place on the command line.
    place: usize,
    endpoint: Endpoint,
    connection: C,
    status: Status,
    latency: Duration,
    /// A CORRUPT alarm names this member.
    corrupt: bool,
}

async fn ask_all(
    connector: &Connector,
    endpoints: &[Endpoint],
) -> (Vec<Answer<Connection>>, Vec<PassedOver>) {
    let deadline = tokio::time::Instant::now() + connector.dial_timeout();
    let mut asked = JoinSet::new();
    for (place, endpoint) in endpoints.iter().cloned().enumerate() {
        let connector = connector.clone();
        asked.spawn(async move {
            let answer = ask(&connector, place, &endpoint).await;
            (place, answer.map_err(|error| PassedOver { endpoint, reason: Reason::Failed(error) }))
        });
    }
    let mut heard = vec![false; endpoints.len()];
    let mut answers = Vec::new();
    let mut failed = Vec::new();
    loop {
        let next = if answers.is_empty() {
            asked.join_next().await
        } else {
            timeout_at(deadline, asked.join_next()).await.unwrap_or(None)
        };
        let Some(next) = next else { break };
        let (place, answer) = next.expect("the tasks neither panic nor are aborted");
        heard[place] = true;
        match answer {
            Ok(answer) => answers.push(answer),
            Err(passed_over) => failed.push((place, passed_over)),
        }
    }
    let after = connector.dial_timeout();
    for (place, endpoint) in endpoints.iter().enumerate().filter(|(place, _)| !heard[*place]) {
        let (endpoint, request) = (endpoint.clone(), Request::Status);
        let error = LiveError::TimedOut { endpoint: endpoint.clone(), request, after };
        failed.push((place, PassedOver { endpoint, reason: Reason::Failed(error) }));
    }
    failed.sort_by_key(|(place, _)| *place);
    (answers, failed.into_iter().map(|(_, passed_over)| passed_over).collect())
}

async fn ask(
    connector: &Connector,
    place: usize,
    endpoint: &Endpoint,
) -> Result<Answer<Connection>, LiveError> {
    let connection = connector.connect(endpoint).await?;
    let begun = Instant::now();
    let status = connection.status().await?;
    let latency = begun.elapsed();
    // The errors of the status say that something is wrong; the alarms only say whose fault it is.
    // Without a leader they cannot be had, and asking would only take time.
    let alarms = if status.errors.is_empty() || status.leader == 0 {
        Vec::new()
    } else {
        connection.alarms().await.unwrap_or_default()
    };
    let own = status.header.member_id;
    let corrupt = alarms.iter().any(|a| a.member_id == own && a.kind == AlarmKind::Corrupt);
    Ok(Answer { place, endpoint: endpoint.clone(), connection, status, latency, corrupt })
}

fn one_cluster<C>(answers: &[Answer<C>]) -> Result<(), LiveError> {
    let cluster = |answer: &Answer<C>| answer.status.header.cluster_id;
    let Some((first, others)) = answers.split_first() else { return Ok(()) };
    match others.iter().find(|other| cluster(other) != cluster(first)) {
        None => Ok(()),
        Some(second) => Err(LiveError::DifferentClusters {
            first: first.endpoint.clone(),
            first_cluster: cluster(first),
            second: second.endpoint.clone(),
            second_cluster: cluster(second),
        }),
    }
}

struct Ordered<C> {
    candidates: Vec<(Answer<C>, Why)>,
    passed_over: Vec<PassedOver>,
}

fn order<C>(answers: Vec<Answer<C>>) -> Ordered<C> {
    let (learners, voters): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status.is_learner);
    let foremost = voters.iter().map(|answer| answer.status.raft_applied_index).max().unwrap_or(0);

    let mut candidates: Vec<(Answer<C>, Why)> = voters
        .into_iter()
        .map(|answer| {
            let why = why(&answer, foremost);
            (answer, why)
        })
        .collect();
    candidates.sort_by_key(|(answer, why)| {
        let steps = answer.latency.as_nanos() / LATENCY_STEP.as_nanos();
        (severity(why), answer.status.is_leader(), steps, answer.place)
    });

    let some_are_sound =
        candidates.first().is_some_and(|(_, why)| !matches!(why, Why::LastResort(_)));
    let flawed = candidates.iter().filter_map(|(answer, why)| match why {
        Why::LastResort(flaw) if some_are_sound => Some(PassedOver {
            endpoint: answer.endpoint.clone(),
            reason: Reason::Flawed(flaw.clone()),
        }),
        _ => None,
    });
    let learners = learners
        .into_iter()
        .map(|answer| PassedOver { endpoint: answer.endpoint, reason: Reason::Learner });
    let passed_over = flawed.chain(learners).collect();
    Ordered { candidates, passed_over }
}

fn why<C>(answer: &Answer<C>, foremost: u64) -> Why {
    let status = &answer.status;
    let behind = foremost - status.raft_applied_index;
    if answer.corrupt {
        Why::LastResort(Flaw::Corrupt)
    } else if status.leader == 0 {
        Why::LastResort(Flaw::NoLeader)
    } else if behind > LAG_ENTRIES_MAX {
        Why::LastResort(Flaw::Lagging { entries: behind })
    } else if !status.errors.is_empty() {
        Why::LastResort(Flaw::Errors(status.errors.clone()))
    } else if status.is_leader() {
        Why::Leader
    } else {
        Why::Follower
    }
}

/// The lower the better; alarms of the cluster weigh least, because all members report them.
fn severity(why: &Why) -> u8 {
    match why {
        Why::OnlyEndpoint | Why::Follower | Why::Leader => 0,
        Why::LastResort(Flaw::Errors(_)) => 1,
        Why::LastResort(Flaw::Lagging { .. }) => 2,
        Why::LastResort(Flaw::NoLeader) => 3,
        Why::LastResort(Flaw::Corrupt) => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Header;

    const LEADER: u64 = 1;

    /// A follower in good health. Members are numbered from 1; 1 is the leader.
    fn member(id: u64) -> Answer<()> {
        Answer {
            place: usize::try_from(id).unwrap(),
            endpoint: format!("m{id}:2379").parse().unwrap(),
            connection: (),
            status: Status {
                header: Header { cluster_id: 7, member_id: id, revision: 1, raft_term: 2 },
                leader: LEADER,
                raft_applied_index: 50_000,
                ..Status::default()
            },
            latency: Duration::from_millis(1),
            corrupt: false,
        }
    }

    fn with(id: u64, change: impl FnOnce(&mut Answer<()>)) -> Answer<()> {
        let mut answer = member(id);
        change(&mut answer);
        answer
    }

    #[track_caller]
    fn check(answers: Vec<Answer<()>>, candidates: &[&str], passed_over: &[&str]) {
        let ordered = order(answers);
        let shown: Vec<String> = ordered
            .candidates
            .iter()
            .map(|(answer, why)| format!("{}: {why}", answer.endpoint))
            .collect();
        assert_eq!(shown, candidates);
        let shown: Vec<String> = ordered.passed_over.iter().map(ToString::to_string).collect();
        assert_eq!(shown, passed_over);
    }

    #[test]
    fn followers_come_before_the_leader_in_the_order_given() {
        check(
            vec![member(1), member(3), member(2)],
            &[
                "m2:2379: a follower in good health",
                "m3:2379: a follower in good health",
                "m1:2379: the leader; no follower is better",
            ],
            &[],
        );
    }

    #[test]
    fn a_nearer_follower_comes_first_but_chance_does_not_choose() {
        let far = with(2, |answer| answer.latency = Duration::from_millis(90));
        let jitter = with(3, |answer| answer.latency = Duration::from_millis(9));
        check(
            vec![far, jitter, member(4)],
            &[
                "m3:2379: a follower in good health",
                "m4:2379: a follower in good health",
                "m2:2379: a follower in good health",
            ],
            &[],
        );
    }

    #[test]
    fn a_learner_is_never_a_candidate() {
        let learner = with(2, |answer| answer.status.is_learner = true);
        check(vec![learner], &[], &["m2:2379 is a learner"]);
    }

    #[test]
    fn a_lagging_follower_is_passed_over_and_comes_after_the_leader() {
        let lagging = with(2, |answer| answer.status.raft_applied_index -= LAG_ENTRIES_MAX + 1);
        let close = with(3, |answer| answer.status.raft_applied_index -= LAG_ENTRIES_MAX);
        check(
            vec![member(1), lagging, close],
            &[
                "m3:2379: a follower in good health",
                "m1:2379: the leader; no follower is better",
                "m2:2379: for want of a better one: it is 1001 raft entries behind",
            ],
            &["m2:2379 is 1001 raft entries behind"],
        );
    }

    #[test]
    fn a_learner_ahead_of_all_does_not_make_the_others_lag() {
        let learner = with(2, |answer| {
            answer.status.is_learner = true;
            answer.status.raft_applied_index += 10 * LAG_ENTRIES_MAX;
        });
        check(
            vec![learner, member(3)],
            &["m3:2379: a follower in good health"],
            &["m2:2379 is a learner"],
        );
    }

    /// The survivor of a lost quorum must still be able to give its data.
    #[test]
    fn a_member_without_a_leader_serves_when_there_is_no_other() {
        let alone = with(2, |answer| {
            answer.status.leader = 0;
            answer.status.errors = vec!["etcdserver: no leader".to_owned()];
        });
        check(vec![alone], &["m2:2379: for want of a better one: it has no leader"], &[]);
    }

    #[test]
    fn with_an_alarm_that_all_report_the_best_of_them_is_taken() {
        let alarm = |answer: &mut Answer<()>| {
            answer.status.errors = vec!["memberID:2 alarm:CORRUPT ".to_owned()];
        };
        let corrupt = with(2, |answer| {
            alarm(answer);
            answer.corrupt = true;
        });
        check(
            vec![corrupt, with(1, alarm), with(3, alarm)],
            &[
                "m3:2379: for want of a better one: it reports: memberID:2 alarm:CORRUPT",
                "m1:2379: for want of a better one: it reports: memberID:2 alarm:CORRUPT",
                "m2:2379: for want of a better one: it is named in a CORRUPT alarm",
            ],
            &[],
        );
    }

    #[test]
    fn endpoints_of_two_clusters_are_refused() {
        let stranger = with(2, |answer| answer.status.header.cluster_id = 8);
        let error = one_cluster(&[member(1), stranger]).unwrap_err();
        assert!(matches!(error, LiveError::DifferentClusters { second_cluster: 8, .. }), "{error}");
        assert!(one_cluster(&[member(1), member(2)]).is_ok());
    }
}
