//! What time it is, and waiting: the world's, or a simulation's.

use futures::future::BoxFuture;
use jiff::Timestamp;
use std::time::Duration;

/// A clock on the wall, a stopwatch, and a bed.
pub trait Clock: Send + Sync + 'static {
    /// The time of day. May jump.
    fn now(&self) -> Timestamp;
    /// Time since some instant. Never goes back.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()>;
}

/// The world's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(wait))
    }
}
