//! Goal: two daemons of one cluster never commit two backups for one slot, and lose none, whatever sleeps or dies.
//!
//! Method: an hour of a schedule, simulated. Both daemons are the real runner over the real lease; the store is in memory, and
//! before and after each of its operations there may be a pause, some longer than the lease. Daemons die at random
//! and come back, and their clocks jump. Time is tokio's, paused, so an hour takes milliseconds; all chance comes from one seed, which is
//! printed when a run fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../repository/tests/lease/memory.rs"]
mod memory;

use daemon::{
    board::Board,
    hooks::Hooks,
    jobs::{Failure, FailureReason, Jobs, Made, Order, Outcome, Pruned, Survey, Verified},
    runner::{Plan, Runner, Shared},
    schedule::Schedule,
};
use futures::{FutureExt, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};
use memory::{Gate, World};
use repository::{
    BackupId, ClusterName, Manifest,
    lease::{self, Clock, Holder, Lease, LeaseError, Run, Terms},
    manifest::Committed,
    store::Store,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

const SEEDS: u64 = 150;
const HOUR: Duration = Duration::from_secs(3600);
const TTL: Duration = Duration::from_secs(60);
const SLOTS_EVERY: i64 = 300;
const MIDNIGHT: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z

/// Chance from a seed: SplitMix64.
#[derive(Clone)]
struct Dice(Arc<Mutex<u64>>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Tokio's time, and a clock on the wall that may be wrong.
#[derive(Clone)]
struct Wall {
    start: Instant,
    wrong_by: Arc<AtomicI64>,
}

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        let wrong = SignedDuration::from_secs(self.wrong_by.load(Ordering::Relaxed));
        let elapsed = SignedDuration::try_from(self.start.elapsed()).unwrap();
        Timestamp::from_second(MIDNIGHT).unwrap() + elapsed + wrong
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(wait))
    }
}

/// Mostly a moment; now and then long; rarely longer than any lease.
fn gate(dice: &Dice) -> Gate {
    let dice = dice.clone();
    Arc::new(move || {
        let millis = match dice.below(100) {
            0..=69 => dice.below(20),
            70..=95 => dice.below(3000),
            _ => dice.below(200_000),
        };
        Box::pin(tokio::time::sleep(Duration::from_millis(millis)))
    })
}

/// Backups as the real ones are made, but for etcd.
struct Simulated {
    store: Store,
    name: String,
    clock: Arc<dyn Clock>,
    dice: Dice,
}

impl Simulated {
    async fn attempt(&self, order: Order<'_>) -> Result<Outcome, LeaseError> {
        let terms = Terms { ttl: TTL, patience: TTL };
        let holder = Holder::named(&self.name);
        let lease =
            Lease::acquire(&self.store, order.cluster, &holder, terms, self.clock.clone()).await?;
        let made = lease.keep(self.write(&lease, order)).await;
        // The commit counts, whatever becomes of the lease.
        let _ = lease.release(None).await;
        made?
    }

    async fn write(&self, lease: &Lease, order: Order<'_>) -> Result<Outcome, LeaseError> {
        let now = self.clock.now();
        let run = Run { id: BackupId::new(7, now), scheduled_for: order.scheduled_for };
        let id = match lease.begin(run).await {
            Ok(id) => id,
            Err(LeaseError::Done { .. }) => return Ok(Outcome::AlreadyDone),
            Err(error) => return Err(error),
        };
        let object = format!("{}/snapshots/{id}/db.zst", order.cluster);
        let content = format!("{}-{}", self.name, self.dice.below(u64::MAX));
        self.store
            .create(&object, content.clone().into())
            .await
            .expect("nobody else has this name");
        tokio::time::sleep(Duration::from_millis(self.dice.below(90_000))).await;
        lease.commit(&manifest(id, order, lease.fence(), &content)).await?;
        Ok(Outcome::Made(Made {
            id,
            revision: 7,
            finished: self.clock.now(),
            bytes: 1,
            stored_bytes: 1,
            took: Duration::ZERO,
            differing_members: Vec::new(),
        }))
    }
}

fn manifest(id: BackupId, order: Order<'_>, fence: u64, content: &str) -> Manifest {
    let when = Timestamp::UNIX_EPOCH;
    let size = serde_json::json!({"bytes": 1, "sha256": "00"});
    serde_json::from_value(serde_json::json!({
        "format": 1, "id": id, "cluster": order.cluster, "fence": fence, "tool": content,
        "source": {"kind": "file", "path": "simulated"},
        "started": when, "finished": when, "scheduled_for": order.scheduled_for,
        "etcd": {"revision": 7, "compact_revision": 0, "hash": 0, "total_key": 0, "live_keys": 0,
                 "hash_kv": {"hash": 0, "compact_revision": 0}},
        "db": size, "object": {"name": "db.zst", "bytes": 1, "sha256": "00"},
        "compression": {"format": "zstd", "level": 3, "frame_bytes": 1},
        "verification": {"at": when, "digest": true, "tree": true, "hash_kv": true},
    }))
    .unwrap()
}

fn failure(error: &dyn std::error::Error) -> Failure {
    Failure {
        reason: FailureReason::Lease,
        error: error.to_string(),
        remedy: String::new(),
        retryable: true,
    }
}

impl Jobs for Simulated {
    fn survey<'a>(
        &'a self,
        cluster: &'a ClusterName,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Survey, Failure>> {
        async move {
            let claim = lease::current(&self.store, cluster).await.map_err(|e| failure(&e))?;
            Ok(Survey {
                last_scheduled: claim.and_then(|c| c.last_scheduled),
                create_only: true,
                ..Survey::default()
            })
        }
        .boxed()
    }

    fn backup<'a>(
        &'a self,
        order: Order<'a>,
    ) -> BoxFuture<'a, Vec<(String, Result<Outcome, Failure>)>> {
        async move {
            let result = self.attempt(order).await.map_err(|error| failure(&error));
            vec![(order.repositories[0].clone(), result)]
        }
        .boxed()
    }

    fn verify<'a>(
        &'a self,
        _: &'a ClusterName,
        _: &'a str,
        _: u32,
    ) -> BoxFuture<'a, Result<Verified, Failure>> {
        async { Ok(Verified::default()) }.boxed()
    }

    fn prune<'a>(
        &'a self,
        _: &'a ClusterName,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Pruned, Failure>> {
        async { Ok(Pruned::default()) }.boxed()
    }
}

fn plan() -> Plan {
    Plan {
        cluster: "prod".parse().unwrap(),
        repositories: vec!["store".to_owned()],
        schedule: Schedule::new("*/5 * * * *", "UTC").unwrap(),
        verify: None,
        prune: false,
        stale_after: None,
        attempts: 1000,
        first_wait: Duration::from_secs(2),
        longest_wait: Duration::from_secs(20),
    }
}

fn start(
    name: &str,
    store: Store,
    wall: &Wall,
    dice: &Dice,
) -> (tokio::task::JoinHandle<()>, watch::Sender<bool>) {
    let clock: Arc<dyn Clock> = Arc::new(wall.clone());
    let jobs = Simulated { store, name: name.to_owned(), clock: clock.clone(), dice: dice.clone() };
    let shared = Shared {
        jobs: Arc::new(jobs),
        clock,
        board: Arc::new(Board::default()),
        hooks: Hooks::none(),
        backups: Semaphore::new(1),
        verifications: Semaphore::new(1),
    };
    let (stop, stopped) = watch::channel(false);
    (tokio::spawn(Runner::new(plan(), Arc::new(shared), stopped).run()), stop)
}

/// A daemon that dies and comes back, on a machine whose clock jumps.
async fn troubled(name: &'static str, world: World, wall: Wall, dice: Dice, clocks_jump: bool) {
    let begin = Instant::now();
    while begin.elapsed() < HOUR {
        let (task, _stop) = start(name, world.through(gate(&dice)), &wall, &dice);
        tokio::time::sleep(Duration::from_secs(dice.below(1500))).await;
        if dice.below(3) > 0 {
            task.abort();
            let _ = task.await;
            tokio::time::sleep(Duration::from_secs(dice.below(120))).await;
        } else {
            // It lives on; only its clock is set.
            tokio::time::sleep(
                HOUR.saturating_sub(begin.elapsed()).min(Duration::from_secs(dice.below(900))),
            )
            .await;
            task.abort();
            let _ = task.await;
        }
        if clocks_jump {
            let seconds = i64::try_from(dice.below(400)).unwrap() - 200;
            wall.wrong_by.store(seconds, Ordering::Relaxed);
        }
    }
}

/// The backups of each slot.
fn committed(world: &World) -> BTreeMap<Option<Timestamp>, Vec<BackupId>> {
    let mut by_slot: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (path, json) in world.ending("/manifest.json") {
        if let Committed::Backup(manifest) = Committed::parse(&path, &json).unwrap() {
            by_slot.entry(manifest.scheduled_for).or_default().push(manifest.id);
            let object = world.ending(&format!("{}/db.zst", manifest.id));
            assert_eq!(
                object[0].1, manifest.tool,
                "{path}: manifest and object are of two writers"
            );
        }
    }
    by_slot
}

async fn one_hour(seed: u64) -> (usize, usize) {
    let dice = Dice::new(seed);
    let (world, start_at) = (World::default(), Instant::now());
    let wall = || Wall { start: start_at, wrong_by: Arc::default() };
    let clocks_jump = seed.is_multiple_of(2);
    let a = tokio::spawn(troubled("a", world.clone(), wall(), dice.clone(), clocks_jump));
    let b = tokio::spawn(troubled("b", world.clone(), wall(), dice.clone(), clocks_jump));
    a.await.unwrap();
    b.await.unwrap();

    // Then one that is in good health, for a little more than a period, so that the newest slot is due once more.
    let sound = wall();
    let calm = Dice::new(seed);
    let (task, _stop) = start("c", World::open(&world), &sound, &calm);
    let healthy_from = sound.now();
    tokio::time::sleep(Duration::from_secs(1200)).await;
    let healthy_to = sound.now();
    task.abort();
    let _ = task.await;

    let by_slot = committed(&world);
    for (slot, ids) in &by_slot {
        assert!(slot.is_none() || ids.len() == 1, "seed {seed}: slot {slot:?} has {ids:?}");
    }
    // While nobody was in trouble, no slot but those that somebody whose clock was ahead has done or passed is missing.
    let claim = lease::current(&world.open(), &"prod".parse().unwrap()).await.unwrap().unwrap();
    assert!(
        claim.last_scheduled.unwrap() >= healthy_to - SignedDuration::from_secs(SLOTS_EVERY + 200),
        "seed {seed}"
    );
    let first = healthy_from.as_second() + 2 * SLOTS_EVERY;
    let mut slot = first - first.rem_euclid(SLOTS_EVERY);
    while slot + 240 < healthy_to.as_second() {
        let at = Timestamp::from_second(slot).unwrap();
        assert!(
            by_slot.contains_key(&Some(at)),
            "seed {seed}: slot {at} is lost; there are {:?}",
            by_slot.keys()
        );
        slot += SLOTS_EVERY;
    }
    let abandoned =
        world.ending("/manifest.json").len() - by_slot.values().map(Vec::len).sum::<usize>();
    (by_slot.len(), abandoned)
}

#[test]
fn two_daemons_in_trouble_for_an_hour_do_each_slot_once() {
    let first = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    let seeds = first.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let (mut slots, mut abandoned) = (0, 0);
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let hour = std::panic::AssertUnwindSafe(|| runtime.block_on(one_hour(seed)));
        let (done, given_up) =
            std::panic::catch_unwind(hour).unwrap_or_else(|_| panic!("failed with SEED={seed}"));
        slots += done;
        abandoned += given_up;
    }
    println!("{slots} slots done, {abandoned} runs abandoned");
    assert!(
        first.is_some() || abandoned > 100,
        "the trouble was real: {abandoned} runs were taken over"
    );
}
