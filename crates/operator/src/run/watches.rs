//! Watches that fail: each cause is told once in a while, and one that Kubernetes refuses is a reason not to be ready.
//!
//! A watch that fails is tried again within half a minute, by itself. Nobody says when it works again, so a refusal counts
//! until it has not been heard for a while.

use crate::failure::Failure;
use kube::runtime::watcher;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// More than two tries.
const HEARD: Duration = Duration::from_secs(75);

/// How often the same is told again.
const TELL_AGAIN: Duration = Duration::from_secs(600);

/// The answer to who wants more than what is still kept: the watch begins anew, and nothing is amiss.
const EXPIRED: u16 = 410;

/// What was heard of watches that fail.
#[derive(Debug, Default)]
pub struct Watches(Mutex<HashMap<String, Heard>>);

#[derive(Debug)]
struct Heard {
    told: Instant,
    last: Instant,
    is_refusal: bool,
}

impl Watches {
    /// Hears of a failure.
    pub(crate) fn note(&self, error: watcher::Error, now: Instant) {
        let Some((failure, is_refusal)) = failure_of(error) else { return };
        if self.is_news(&failure.message, is_refusal, now) {
            let (error, remedy) = (failure.message, failure.remedy);
            tracing::warn!(error, remedy, "objects cannot be watched; trying again");
        }
    }

    fn is_news(&self, message: &str, is_refusal: bool, now: Instant) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|_, heard| now.duration_since(heard.told) < TELL_AGAIN);
        let is_news = !heard.contains_key(message);
        let kept = heard.entry(message.to_owned());
        kept.or_insert(Heard { told: now, last: now, is_refusal }).last = now;
        is_news
    }

    /// What Kubernetes refuses now, if it does.
    pub fn refused(&self, now: Instant) -> Option<String> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_now = |heard: &Heard| heard.is_refusal && now.duration_since(heard.last) < HEARD;
        let refused = heard.iter().filter(|(_, heard)| is_now(heard)).map(|(message, _)| message);
        refused.min().cloned()
    }
}

/// What a watch says, and whether it was refused; nothing where nothing is amiss.
fn failure_of(error: watcher::Error) -> Option<(Failure, bool)> {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    let error = match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => error,
        WatchError(status) => kube::Error::Api(status),
        other => return Some((Failure::of_setting("a watch failed", &other, ""), false)),
    };
    let is_refusal = match &error {
        kube::Error::Api(status) if status.code == EXPIRED => return None,
        kube::Error::Api(status) => matches!(status.code, 401 | 403 | 404),
        _ => false,
    };
    Some((error.into(), is_refusal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn refused(code: u16) -> watcher::Error {
        let status = Status::failure("cannot list", "Forbidden").with_code(code);
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_refusal_is_told_once_and_counts_until_it_is_not_heard_any_more() {
        let (watches, begin) = (Watches::default(), Instant::now());
        let later = |seconds| begin + Duration::from_secs(seconds);
        assert!(watches.is_news("x", true, begin));
        assert!(!watches.is_news("x", true, later(30)));
        assert_eq!(watches.refused(later(60)).as_deref(), Some("x"));
        assert_eq!(watches.refused(later(200)), None);
        assert!(
            watches.is_news("x", true, later(700)),
            "who reads the log later wants to know too"
        );
    }

    #[test]
    fn what_passes_by_itself_is_no_refusal() {
        let (failure, is_refusal) = failure_of(refused(403)).unwrap();
        assert!(is_refusal && failure.remedy.contains("ServiceAccount"), "{failure:?}");
        assert!(!failure_of(refused(500)).unwrap().1);
        assert_eq!(failure_of(refused(EXPIRED)), None);
    }
}
