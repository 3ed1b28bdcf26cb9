//! HashKV of the members, held against that of a snapshot: does every member hold the same history?
//!
//! * Members are asked at the snapshot's own revision, so writes that come meanwhile change nothing.
//! * Hashes can be compared only where history was compacted to the same revision. If a compaction came
//!   between, the member counts as one that could not be asked.
//! * A member is asked once, whatever the number of endpoints that lead to it.
//! * One that has not got to that revision yet, as a follower may be some entries behind, is waited for a little.

use etcd_live::{Connector, Endpoint, LiveError, Member, Refusal};
use futures::future::join_all;
use repository::manifest::HashKv;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a member that is behind is waited for. One that needs longer is cut off, or in trouble.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How long until it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What to do where a member differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashKvPolicy {
    /// Say so, and keep the backup.
    #[default]
    Warn,
    /// Make no backup.
    Fail,
    /// Do not ask.
    Skip,
}

/// What one member answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    hash: u32,
    /// Not 0 or -1: those stand for a store that was never compacted.
    compact_revision: Option<i64>,
}

/// What all members answered, by their ids.
pub(crate) struct Answers(BTreeMap<u64, Answer>);

/// Asks all members, by the endpoints that were given and, where these do not lead to a member, by those
/// that it tells itself.
pub(crate) async fn ask_members(
    connector: &Connector,
    endpoints: &[Endpoint],
    members: &[Member],
    revision: i64,
) -> Answers {
    let given = endpoints.iter().map(|endpoint| ask(connector, endpoint, revision));
    let mut answers: BTreeMap<u64, Answer> = join_all(given).await.into_iter().flatten().collect();
    let unheard = members.iter().filter(|member| !answers.contains_key(&member.id));
    let unheard = unheard.map(|member| ask_by_its_urls(connector, member, revision));
    let more = join_all(unheard).await;
    answers.extend(more.into_iter().flatten());
    Answers(answers)
}

async fn ask_by_its_urls(
    connector: &Connector,
    member: &Member,
    revision: i64,
) -> Option<(u64, Answer)> {
    for url in &member.client_urls {
        let Ok(endpoint) = url.parse() else { continue };
        let answer = ask(connector, &endpoint, revision).await;
        // An address that leads elsewhere, such as to `localhost`.
        if answer.is_some_and(|(id, _)| id == member.id) {
            return answer;
        }
    }
    None
}

async fn ask(connector: &Connector, endpoint: &Endpoint, revision: i64) -> Option<(u64, Answer)> {
    let connection = connector.connect(endpoint).await.ok()?;
    let answer = caught_up(|| connection.hash_kv(revision)).await.ok()?;
    let compact_revision = (answer.compact_revision > 0).then_some(answer.compact_revision);
    Some((answer.header.member_id, Answer { hash: answer.hash, compact_revision }))
}

/// What a member answers when it has the revision that is asked for, or has not had it for too long.
async fn caught_up<T, F>(ask: impl Fn() -> F) -> Result<T, LiveError>
where
    F: Future<Output = Result<T, LiveError>>,
{
    let deadline = Instant::now() + CATCH_UP;
    loop {
        let answer = ask().await;
        let refusal = answer.as_ref().err().and_then(LiveError::refusal);
        if refusal != Some(&Refusal::FutureRevision) || Instant::now() >= deadline {
            return answer;
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Holds the answers against the hash of the snapshot.
pub(crate) fn compare(
    members: &[Member],
    Answers(answers): &Answers,
    own: &etcd_schema::HashKv,
) -> HashKv {
    let mut result = of_snapshot(own);
    let compacted = own.compact_revision.filter(|revision| *revision > 0);
    let unlisted = answers.keys().filter(|id| !members.iter().any(|member| member.id == **id));
    for id in members.iter().map(|member| &member.id).chain(unlisted) {
        let group = match answers.get(id) {
            Some(answer) if answer.compact_revision != compacted => &mut result.unasked,
            Some(answer) if answer.hash == own.hash => &mut result.agreed,
            Some(_) => &mut result.differed,
            None => &mut result.unasked,
        };
        group.push(format!("{id:x}"));
    }
    result
}

/// What is known when nobody was asked.
pub(crate) fn of_snapshot(own: &etcd_schema::HashKv) -> HashKv {
    HashKv {
        hash: own.hash,
        compact_revision: own.compact_revision.unwrap_or(0),
        agreed: Vec::new(),
        differed: Vec::new(),
        unasked: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd_live::Request;
    use std::cell::Cell;

    fn refused(refusal: Refusal) -> LiveError {
        let endpoint = "m1:2379".parse().unwrap();
        LiveError::Refused { endpoint, request: Request::HashKv, refusal }
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_is_a_little_behind_is_asked_again_and_one_that_stays_behind_is_not_for_ever()
     {
        let asked = Cell::new(0);
        let there_at_the_third = || async {
            asked.set(asked.get() + 1);
            if asked.get() < 3 { Err(refused(Refusal::FutureRevision)) } else { Ok(7) }
        };
        assert_eq!(caught_up(there_at_the_third).await.unwrap(), 7);

        let begun = Instant::now();
        let never = || async { Err::<(), _>(refused(Refusal::FutureRevision)) };
        assert!(caught_up(never).await.is_err());
        assert!(
            (CATCH_UP..CATCH_UP * 2).contains(&begun.elapsed()),
            "in a time that passes by itself"
        );

        let begun = Instant::now();
        let compacted = || async { Err::<(), _>(refused(Refusal::Compacted)) };
        assert!(caught_up(compacted).await.is_err());
        assert_eq!(begun.elapsed(), Duration::ZERO, "that does not pass");
    }

    #[test]
    fn members_are_sorted_by_what_their_hashes_can_tell() {
        let member = |id| Member { id, ..Member::default() };
        let members = [member(0xa), member(0xb), member(0xc), member(0xd)];
        let answer = |hash, compact_revision| Answer { hash, compact_revision };
        let answers = Answers(BTreeMap::from([
            (0xa, answer(7, Some(5))),
            (0xb, answer(8, Some(5))),
            (0xc, answer(7, Some(6))),
            (0xe, answer(7, Some(5))),
        ]));
        let own = etcd_schema::HashKv { hash: 7, hash_revision: 9, compact_revision: Some(5) };
        let result = compare(&members, &answers, &own);
        assert_eq!(result.agreed, ["a", "e"]);
        assert_eq!(result.differed, ["b"]);
        assert_eq!(result.unasked, ["c", "d"]);
    }

    #[test]
    fn a_store_that_was_never_compacted_is_compared_however_that_is_written() {
        let members = [Member { id: 1, ..Member::default() }];
        let answers = Answers(BTreeMap::from([(1, Answer { hash: 7, compact_revision: None })]));
        for compact_revision in [None, Some(0)] {
            let own = etcd_schema::HashKv { hash: 7, hash_revision: 9, compact_revision };
            assert_eq!(compare(&members, &answers, &own).agreed, ["1"]);
        }
    }
}
