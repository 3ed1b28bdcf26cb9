//! Two or three writers of one cluster, step by step: every operation of the store is two steps, before and after
//! it has its effect, and between any two steps any writer may run, sleep for ages, or die.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "memory.rs"]
mod memory;

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use memory::World;
use proptest::prelude::*;
use repository::{
    BackupId, ClusterName, Manifest,
    lease::{self, Clock, Holder, Lease, LeaseError, Run, Terms},
    manifest::Committed,
    store::Store,
};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

const TTL: Duration = Duration::from_secs(60);

/// A clock that only a test moves: the time of day by any number of seconds, the stopwatch only forward.
#[derive(Clone, Default)]
struct Hand {
    wall: Arc<AtomicI64>,
    stopwatch: Arc<AtomicU64>,
}

impl Hand {
    fn forward(&self, seconds: i64) {
        self.wall.fetch_add(seconds, Ordering::Relaxed);
        self.stopwatch.fetch_add(u64::try_from(seconds).unwrap_or(0), Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        at(self.wall.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.stopwatch.load(Ordering::Relaxed))
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        self.forward(i64::try_from(wait.as_secs()).unwrap().max(1));
        step()
    }
}

/// Waits for the next step.
fn step() -> BoxFuture<'static, ()> {
    let mut seen = false;
    Box::pin(poll_fn(move |_| {
        if std::mem::replace(&mut seen, true) { Poll::Ready(()) } else { Poll::Pending }
    }))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn cluster() -> ClusterName {
    "prod".parse().unwrap()
}

async fn acquire(store: &Store, name: &str, hand: &Hand) -> Result<Lease, LeaseError> {
    let terms = Terms { ttl: TTL, patience: Duration::ZERO };
    Lease::acquire(store, &cluster(), &Holder::named(name), terms, Arc::new(hand.clone())).await
}

/// A manifest of that run, by that writer.
fn manifest(id: BackupId, slot: Option<Timestamp>, fence: u64, writer: &str) -> Manifest {
    let content = serde_json::json!({"bytes": 1, "sha256": "00"});
    serde_json::from_value(serde_json::json!({
        "format": 1, "id": id, "cluster": "prod", "fence": fence, "tool": writer,
        "source": {"kind": "file", "path": writer},
        "started": at(0), "finished": at(0), "scheduled_for": slot,
        "etcd": {"revision": 1, "compact_revision": 0, "hash": 0, "total_key": 0, "live_keys": 0,
                 "hash_kv": {"hash": 0, "compact_revision": 0}},
        "db": content, "object": {"name": "db.zst", "bytes": 1, "sha256": "00"},
        "compression": {"format": "zstd", "level": 3, "frame_bytes": 1},
        "verification": {"at": at(0), "digest": true, "tree": true, "hash_kv": true},
    }))
    .unwrap()
}

/// Does the slots in their order, each until it is done, as a daemon would, but with little patience.
async fn work(
    store: Store,
    name: &'static str,
    slots: Vec<Timestamp>,
    hand: Hand,
) -> Vec<BackupId> {
    let mut committed = Vec::new();
    for slot in slots {
        for _ in 0..4 {
            match attempt(&store, name, slot, &hand).await {
                Ok(Some(id)) => committed.push(id),
                Ok(None) => {}
                Err(_) => continue,
            }
            break;
        }
    }
    committed
}

async fn attempt(
    store: &Store,
    name: &str,
    slot: Timestamp,
    hand: &Hand,
) -> Result<Option<BackupId>, LeaseError> {
    let lease = acquire(store, name, hand).await?;
    let run = Run { id: BackupId::new(7, slot), scheduled_for: Some(slot) };
    let committed = match lease.begin(run).await {
        Ok(id) => {
            let object = format!("prod/snapshots/{id}/db.zst");
            store.create(&object, name.to_owned().into()).await.expect("nobody else has this name");
            lease.commit(&manifest(id, Some(slot), lease.fence(), name)).await.map(|()| Some(id))
        }
        Err(LeaseError::Done { .. }) => Ok(None),
        Err(error) => Err(error),
    };
    // The commit counts, whatever becomes of the lease.
    let released = lease.release(None).await;
    let committed = committed?;
    if committed.is_none() {
        released?;
    }
    Ok(committed)
}

/// What is in the store, judged: at most one backup for a slot, each with the object of the writer that committed it.
fn judge(world: &World, claimed: &[BackupId]) -> BTreeMap<Timestamp, BackupId> {
    let mut by_slot = BTreeMap::new();
    for (path, json) in world.ending("/manifest.json") {
        let Committed::Backup(manifest) = Committed::parse(&path, &json).unwrap() else { continue };
        let slot = manifest.scheduled_for.unwrap();
        assert_eq!(by_slot.insert(slot, manifest.id), None, "two backups of the slot {slot}");
        let object = world.ending(&format!("{}/db.zst", manifest.id));
        assert_eq!(object[0].1, manifest.tool, "{path} and its object are of two writers");
    }
    for id in claimed {
        assert!(by_slot.values().any(|found| found == id), "{id} was claimed but is not there");
    }
    by_slot
}

/// Runs the writers by a list of choices, then whoever is left, one after the other. Says how many steps there were
/// at which each could run.
fn play(writers: usize, slots: i64, choices: &[Choice]) -> World {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let (world, hand) = (World::default(), Hand::default());
    let slots: Vec<_> = (1..=slots).map(|slot| at(slot * 3600)).collect();
    let mut running: Vec<Option<BoxFuture<'_, Vec<BackupId>>>> = NAMES[..writers]
        .iter()
        .map(|name| {
            let store = world.through(Arc::new(step));
            Some(work(store, name, slots.clone(), hand.clone()).boxed())
        })
        .collect();
    let mut claimed = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    let mut run = |writer: &mut Option<BoxFuture<'_, Vec<BackupId>>>, steps: usize| {
        for _ in 0..steps {
            let Some(future) = writer else { return };
            if let Poll::Ready(done) = future.poll_unpin(&mut context) {
                claimed.extend(done);
                *writer = None;
            }
        }
    };
    for choice in choices {
        match *choice {
            Choice::Run { writer, steps } => run(&mut running[writer % writers], steps),
            Choice::Forward(seconds) => hand.forward(seconds),
            Choice::Kill(writer) => running[writer % writers] = None,
        }
    }
    for writer in &mut running {
        hand.forward(3600);
        run(writer, 10_000);
        assert!(writer.is_none(), "a writer alone comes to an end");
    }
    judge(&world, &claimed);
    let left = work(world.open(), "last", slots.clone(), {
        hand.forward(3600);
        hand.clone()
    });
    claimed.extend(left.now_or_never().expect("a store without a gate never waits"));
    let by_slot = judge(&world, &claimed);
    // A slot that is older than one that was done is superseded; the newest is never lost.
    assert!(by_slot.contains_key(slots.last().unwrap()), "the newest slot is done");
    world
}

#[derive(Clone, Copy, Debug)]
enum Choice {
    Run { writer: usize, steps: usize },
    Forward(i64),
    Kill(usize),
}

/// Goal: whoever sleeps, wherever, for longer than any lease: one slot is never committed twice.
/// Method: `a` runs to its i-th step, `b` to its j-th, `a` k steps further, and then both to their ends, for all i, j, k; each
/// time the lease of the one that stops has expired.
#[test]
fn wherever_two_writers_are_interrupted_a_slot_is_committed_once() {
    let steps = 36;
    for i in 0..steps {
        for j in 0..steps {
            for k in [1, 2, 4, 7, 12] {
                let expire = Choice::Forward(120);
                let run = |writer, steps| Choice::Run { writer, steps };
                play(
                    2,
                    1,
                    &[run(0, i), expire, run(1, j), expire, run(0, k), expire, run(1, k), expire],
                );
            }
        }
    }
}

/// Goal: the same when a writer never wakes again.
#[test]
fn wherever_a_writer_dies_the_next_does_the_slot_once() {
    for i in 0..48 {
        for j in (0..48).step_by(2) {
            let run = |writer, steps| Choice::Run { writer, steps };
            play(
                2,
                2,
                &[run(0, i), Choice::Kill(0), Choice::Forward(61), run(1, j), Choice::Kill(1)],
            );
        }
    }
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        20 => (0..3_usize, 1..12_usize).prop_map(|(writer, steps)| Choice::Run { writer, steps }),
        5 => (-200..200_i64).prop_map(Choice::Forward),
        1 => (0..3_usize).prop_map(Choice::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn three_writers_in_any_order_with_clocks_that_jump_commit_a_slot_once(
        choices in proptest::collection::vec(choice(), 0..80),
    ) {
        play(3, 3, &choices);
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a store without a gate never waits")
}

fn run(slot: Option<i64>) -> Run {
    Run { id: BackupId::new(7, at(0)), scheduled_for: slot.map(at) }
}

#[test]
fn a_second_writer_is_told_who_holds_the_cluster_and_until_when() {
    let (world, hand) = (World::default(), Hand::default());
    let store = world.open();
    let _first = now(acquire(&store, "first", &hand)).unwrap();
    match now(acquire(&store, "second", &hand)).err() {
        Some(LeaseError::Held { by, until, .. }) => {
            assert_eq!((by.as_str(), until), ("first", at(60)));
        }
        other => panic!("{other:?}"),
    }
    hand.forward(60);
    now(acquire(&store, "second", &hand)).unwrap();
}

/// Whether a writer that waits twice the time to live gets the cluster.
fn is_acquired_by_waiting(store: &Store, hand: &Hand) -> bool {
    let terms = Terms { ttl: TTL, patience: TTL * 2 };
    let holder = Holder::named("second");
    let cluster = cluster();
    let second = Lease::acquire(store, &cluster, &holder, terms, Arc::new(hand.clone()));
    let mut second = second.boxed();
    let mut context = Context::from_waker(Waker::noop());
    (0..20).any(|_| second.poll_unpin(&mut context).map(|lease| lease.unwrap()).is_ready())
}

#[test]
fn a_patient_writer_waits_until_the_lease_has_expired() {
    let (world, hand) = (World::default(), Hand::default());
    let store = world.open();
    let _first = now(acquire(&store, "first", &hand)).unwrap();
    assert!(is_acquired_by_waiting(&store, &hand));
    assert!(hand.now() >= at(60) && hand.now() <= at(120), "{}", hand.now());
}

#[test]
fn a_holder_whose_clock_was_a_year_ahead_is_replaced_after_one_time_to_live() {
    let (world, hand) = (World::default(), Hand::default());
    let store = world.open();
    hand.forward(365 * 86400);
    let _first = now(acquire(&store, "first", &hand)).unwrap();
    hand.forward(-365 * 86400);
    assert!(
        is_acquired_by_waiting(&store, &hand),
        "the claim stood unchanged for a minute, whatever it says"
    );
}

#[test]
fn a_writer_that_slept_cannot_commit_what_was_abandoned_meanwhile() {
    let (world, hand) = (World::default(), Hand::default());
    let store = world.open();
    let first = now(acquire(&store, "first", &hand)).unwrap();
    let id = now(first.begin(run(Some(0)))).unwrap();
    hand.forward(61);
    let second = now(acquire(&store, "second", &hand)).unwrap();

    let sleeper = now(first.commit(&manifest(id, Some(at(0)), first.fence(), "first")));
    assert!(
        matches!(sleeper, Err(LeaseError::Fenced { by, .. }) if by == second.fence()),
        "{sleeper:?}"
    );
    assert!(matches!(now(first.renew()), Err(LeaseError::Lost { by, .. }) if by == "second"));
    assert_eq!(now(second.last_scheduled()), None);
    let again = now(second.begin(run(Some(0)))).unwrap();
    assert_ne!(again, id, "the abandoned name is used");
    now(second.commit(&manifest(again, Some(at(0)), second.fence(), "second"))).unwrap();
}

#[test]
fn a_writer_that_died_after_its_commit_has_done_the_slot() {
    let (world, hand) = (World::default(), Hand::default());
    let store = world.open();
    let first = now(acquire(&store, "first", &hand)).unwrap();
    let id = now(first.begin(run(Some(5)))).unwrap();
    now(first.commit(&manifest(id, Some(at(5)), first.fence(), "first"))).unwrap();
    drop(first);
    hand.forward(61);
    let second = now(acquire(&store, "second", &hand)).unwrap();
    assert_eq!(now(second.last_scheduled()), Some(at(5)));
    assert!(matches!(now(second.begin(run(Some(5)))), Err(LeaseError::Done { .. })));
}

#[test]
fn two_runs_of_one_second_and_revision_get_two_names() {
    let (world, hand) = (World::default(), Hand::default());
    let store = world.open();
    let lease = now(acquire(&store, "a", &hand)).unwrap();
    let one = now(lease.begin(run(None))).unwrap();
    now(lease.commit(&manifest(one, None, lease.fence(), "a"))).unwrap();
    let two = now(lease.begin(run(None))).unwrap();
    assert_eq!((one.started(), two.started()), (at(0), at(1)));
}

#[test]
fn the_chain_stays_short_and_says_who_wrote_last() {
    let (world, hand) = (World::default(), Hand::default());
    let store = world.open();
    assert_eq!(now(lease::current(&store, &cluster())).unwrap(), None);
    let lease = now(acquire(&store, "a", &hand)).unwrap();
    for _ in 0..20 {
        now(lease.renew()).unwrap();
    }
    now(lease.release(Some(at(9)))).unwrap();
    let claim = now(lease::current(&store, &cluster())).unwrap().unwrap();
    assert!(claim.released);
    assert_eq!((claim.number, claim.last_scheduled, claim.run), (22, Some(at(9)), None));
    let kept = world.ending(".json").len();
    assert_eq!(kept, usize::try_from(lease::CLAIMS_KEPT).unwrap());
}

#[test]
fn a_run_that_is_given_up_leaves_a_closed_door_and_the_slot_open() {
    let (world, hand) = (World::default(), Hand::default());
    let store = world.open();
    let lease = now(acquire(&store, "a", &hand)).unwrap();
    now(lease.begin(run(Some(3)))).unwrap();
    now(lease.release(None)).unwrap();
    let (path, json) = world.ending("/manifest.json").pop().unwrap();
    assert!(matches!(Committed::parse(&path, &json).unwrap(), Committed::Abandoned(_)));
    let claim = now(lease::current(&store, &cluster())).unwrap().unwrap();
    assert_eq!(claim.last_scheduled, None);
}

/// Goal: an answer that got lost neither loses the backup nor makes two. Method: the answer to each operation in turn is lost,
/// then each operation in turn fails.
#[test]
fn whichever_operation_fails_or_loses_its_answer_the_slot_is_done_once() {
    for lost_answer in [true, false] {
        for operation in 1..40 {
            let (world, hand) = (World::default(), Hand::default());
            let (store, faults) = repository::store::testing::faulty(world.open());
            if lost_answer {
                faults.lose_answer_at(operation);
            } else {
                faults.fail_at(operation);
            }
            let mut claimed = Vec::new();
            for _ in 0..3 {
                match now(attempt_with_faults(&store, &hand)) {
                    Ok(id) => claimed.extend(id),
                    Err(_) => hand.forward(61),
                }
            }
            let by_slot = judge(&world, &claimed);
            assert!(by_slot.contains_key(&at(10)), "operation {operation} of {:?}", faults.log());
        }
    }
}

async fn attempt_with_faults(store: &Store, hand: &Hand) -> Result<Option<BackupId>, LeaseError> {
    let lease = acquire(store, "a", hand).await?;
    let id = match lease.begin(run(Some(10))).await {
        Ok(id) => id,
        Err(LeaseError::Done { .. }) => return lease.release(None).await.map(|()| None),
        Err(error) => return Err(error),
    };
    if store.create(&format!("prod/snapshots/{id}/db.zst"), "a".into()).await.is_err() {
        lease.release(None).await?;
        return Ok(None);
    }
    lease.commit(&manifest(id, Some(at(10)), lease.fence(), "a")).await?;
    let _ = lease.release(None).await;
    Ok(Some(id))
}
