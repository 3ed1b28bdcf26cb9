//! Settings that are read again beside a schedule. Time is tokio's, paused: hours take milliseconds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daemon::{
    board::Board,
    hooks::Hooks,
    jobs::{Failure, Jobs, Order, Outcome, Pruned, Survey, Verified},
    runner::{Plan, Runner, Shared},
    schedule::Schedule,
};
use futures::{FutureExt, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};
use repository::{ClusterName, lease::Clock};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

/// Tokio's time, from two minutes past an hour on.
struct Wall(Instant);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-01-01T10:02:00Z".parse().unwrap();
        start + SignedDuration::try_from(self.0.elapsed()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(wait))
    }
}

/// Counts verifications, each of which takes a minute.
#[derive(Default)]
struct Counting {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Jobs for Counting {
    fn survey<'a>(
        &'a self,
        _: &'a ClusterName,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Survey, Failure>> {
        async { Ok(Survey::default()) }.boxed()
    }

    fn backup<'a>(
        &'a self,
        order: Order<'a>,
    ) -> BoxFuture<'a, Vec<(String, Result<Outcome, Failure>)>> {
        let done = |name: &String| (name.clone(), Ok(Outcome::AlreadyDone));
        async move { order.repositories.iter().map(done).collect() }.boxed()
    }

    fn verify<'a>(
        &'a self,
        _: &'a ClusterName,
        _: &'a str,
        _: u32,
    ) -> BoxFuture<'a, Result<Verified, Failure>> {
        async {
            self.begun.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(60)).await;
            self.ended.fetch_add(1, Ordering::Relaxed);
            Ok(Verified::default())
        }
        .boxed()
    }

    fn prune<'a>(
        &'a self,
        _: &'a ClusterName,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Pruned, Failure>> {
        async { Ok(Pruned::default()) }.boxed()
    }
}

struct World {
    jobs: Arc<Counting>,
    board: Arc<Board>,
    clock: Arc<Wall>,
}

impl World {
    /// Runs with new settings for that long, and stops.
    async fn run_for(&self, how_long: Duration, repositories: &[&str]) {
        let mut hourly = Schedule::new("0 * * * *", "UTC").unwrap();
        hourly.catch_up = false;
        let plan = Plan {
            cluster: "prod".parse().unwrap(),
            repositories: repositories.iter().map(|&name| name.to_owned()).collect(),
            schedule: Schedule::new("@daily", "UTC").unwrap(),
            verify: Some((hourly, 7)),
            prune: false,
            stale_after: None,
            attempts: 1,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(1),
        };
        let shared = Shared {
            jobs: self.jobs.clone(),
            clock: self.clock.clone(),
            board: self.board.clone(),
            hooks: Hooks::none(),
            backups: Semaphore::new(1),
            verifications: Semaphore::new(1),
        };
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(Runner::new(plan, Arc::new(shared), stopped).run());
        tokio::time::sleep(how_long).await;
        stop.send_replace(true);
        running.await.unwrap();
    }

    fn counted(&self) -> (usize, usize) {
        let Counting { begun, ended } = &*self.jobs;
        (begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed))
    }
}

#[tokio::test(start_paused = true)]
async fn reading_settings_again_beside_a_verification_does_not_do_it_again() {
    let world = World {
        jobs: Arc::default(),
        board: Arc::default(),
        clock: Arc::new(Wall(Instant::now())),
    };
    let seconds = Duration::from_secs;
    // Two minutes past is as good as punctual. It is broken off half-way, so it begins again.
    world.run_for(seconds(30), &["near"]).await;
    assert_eq!(world.counted(), (1, 0));
    world.run_for(seconds(65), &["near"]).await;
    assert_eq!(world.counted(), (2, 1));
    // It is still within five minutes of its slot, but done.
    world.run_for(seconds(20), &["near"]).await;
    assert_eq!(world.counted(), (2, 1));
    // A repository that is new has its turn, the other has not.
    world.run_for(seconds(65), &["far", "near"]).await;
    assert_eq!(world.counted(), (3, 2));
    // And the next slot comes for both.
    world.run_for(seconds(3600), &["far", "near"]).await;
    assert_eq!(world.counted(), (5, 4));
}
