//! Hosts work at the same time, and one that cannot be reached is tried again for a while.

use super::{Event, RunError, Watcher};
use crate::host::{HostError, Remote};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

/// The wait between two tries.
const AGAIN: Duration = Duration::from_secs(2);
/// Who waits is told so often that it is tried again.
const AGAIN_TOLD: Duration = Duration::from_secs(10);

/// Tries again for a while, if what failed may pass.
pub(crate) async fn patiently<T, F>(
    remote: &Remote,
    watcher: &Watcher,
    attempt: impl FnMut() -> F,
) -> Result<T, HostError>
where
    F: Future<Output = Result<T, HostError>>,
{
    patiently_unless(remote, watcher, |_| false, attempt).await
}

/// The same, but what is hopeless is not tried again.
pub(super) async fn patiently_unless<T, F>(
    remote: &Remote,
    watcher: &Watcher,
    is_hopeless: impl Fn(&HostError) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, HostError>
where
    F: Future<Output = Result<T, HostError>>,
{
    let until = Instant::now() + remote.patience();
    let mut told: Option<Instant> = None;
    loop {
        match attempt().await {
            Err(error) if error.is_passing() && !is_hopeless(&error) && Instant::now() < until => {
                // Who waits for minutes is told now and then, not at every try.
                if told.is_none_or(|told| told.elapsed() >= AGAIN_TOLD) {
                    told = Some(Instant::now());
                    let (label, why) = (remote.label().to_owned(), error.to_string());
                    let left = Some(until.saturating_duration_since(Instant::now()));
                    watcher(Event::Again { label, why, left });
                }
                tokio::time::sleep(AGAIN).await;
            }
            result => return result,
        }
    }
}

/// All parts at the same time; every failure is told.
pub(crate) async fn gather<T, F>(step: &str, parts: Vec<F>) -> Result<Vec<T>, RunError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, HostError>> + Send + 'static,
{
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for part in each(parts).await {
        match part {
            Ok(part) => done.push(part),
            Err(failure) => failures.push(failure),
        }
    }
    match failures.is_empty() {
        true => Ok(done),
        false => Err(RunError::Hosts { step: step.to_owned(), failures }),
    }
}

/// All parts at the same time, and what each has come to.
pub(crate) async fn each<T, F>(parts: Vec<F>) -> Vec<Result<T, HostError>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, HostError>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for (number, part) in parts.into_iter().enumerate() {
        running.spawn(async move { (number, part.await) });
    }
    let mut ended = running.join_all().await;
    ended.sort_by_key(|(number, _)| *number);
    ended.into_iter().map(|(_, part)| part).collect()
}
