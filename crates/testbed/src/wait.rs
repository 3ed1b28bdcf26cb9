//! Waiting for what takes its time: with more patience than any machine needs, and an account when that ends.
//!
//! What is waited for is what a test needs, never a time that should do. A slow machine makes such a test slow, and not red.

use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes that the tests wait for; only a fault lasts that long.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Between two looks.
pub(crate) const INTERVAL: Duration = Duration::from_millis(50);

/// Asks until there is an answer; panics with the account when there is none for [`PATIENCE`].
#[track_caller]
pub fn until<T>(
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
    account: impl FnOnce() -> String,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} never came\n{}", account());
        thread::sleep(INTERVAL);
    }
}
