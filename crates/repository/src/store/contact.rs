//! Whether a store has ever answered, and who is told while it does not.
//!
//! A store that has answered before will most likely do so again: requests are tried again for as long as the retries
//! say. One that never has is more likely named wrongly, or off: after [`FIRST_CONTACT`] it is given up, and from then
//! on each request is tried once. Whoever asks for a number of retries gets them.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How long a store that never answered is tried.
pub(super) const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// How long a store may take to answer before that is told.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// How often it is told that a store is waited for.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// A store that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Where requests go: scheme, host and port.
    pub place: String,
    /// Why there is no answer; none if there was just none yet.
    pub why: Option<String>,
    /// How much longer it is tried, if that is bounded already.
    pub left: Option<Duration>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting for {}: ", self.place)?;
        match &self.why {
            Some(why) => write!(f, "{why}; trying again")?,
            None => write!(f, "no answer yet")?,
        }
        match self.left {
            Some(left) => write!(f, " for up to {} s", left.as_secs().max(1)),
            None => Ok(()),
        }
    }
}

/// Who is told of a store that is waited for. May be called from any thread.
#[derive(Clone, Default)]
pub struct WhileWaiting(Option<Arc<Told>>);

type Told = dyn Fn(&Waiting) + Send + Sync;

impl WhileWaiting {
    /// Tells `told`.
    pub fn tell(told: impl Fn(&Waiting) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(told)))
    }
}

impl fmt::Debug for WhileWaiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WhileWaiting").field(&self.0.is_some()).finish()
    }
}

/// What is known of one store.
pub(super) struct Contact {
    told: WhileWaiting,
    /// How long it is tried if it never answers.
    patience: Option<Duration>,
    has_answered: AtomicBool,
    times: Mutex<Times>,
}

#[derive(Default)]
struct Times {
    first_request: Option<Instant>,
    last_told: Option<Instant>,
}

impl Contact {
    pub(super) fn new(told: WhileWaiting, patience: Option<Duration>) -> Self {
        let (has_answered, times) = (AtomicBool::new(false), Mutex::default());
        Self { told, patience, has_answered, times }
    }

    /// A request goes out. Says whether nothing has ever been heard of the store.
    pub(super) fn begins(&self) -> bool {
        self.times().first_request.get_or_insert_with(Instant::now);
        !self.has_answered.load(Ordering::Relaxed)
    }

    /// The store answered, whatever it said.
    pub(super) fn answered(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
    }

    /// Whether there is no use in trying again: it never answered, for so long.
    pub(super) fn is_given_up(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// Tells that there is no answer, and why; not too often.
    pub(super) fn waits(&self, place: String, why: Option<String>) {
        let Some(told) = &self.told.0 else { return };
        {
            let (now, mut times) = (Instant::now(), self.times());
            if times.last_told.is_some_and(|last| now - last < TOLD_EVERY) {
                return;
            }
            times.last_told = Some(now);
        }
        told(&Waiting { place, why, left: self.left() });
    }

    /// How much longer it is tried; nothing if that is not bounded here.
    fn left(&self) -> Option<Duration> {
        let patience = self.patience.filter(|_| !self.has_answered.load(Ordering::Relaxed))?;
        let first_request = self.times().first_request;
        Some(first_request.map_or(patience, |first| patience.saturating_sub(first.elapsed())))
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(feature = "buckets")]
mod tests {
    use super::*;
    use crate::store::{Store, StoreOptions};

    /// A port that nobody is ever given.
    const NOBODY: &str = "http://127.0.0.1:1";

    fn told() -> (WhileWaiting, Arc<Mutex<Vec<Waiting>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let kept = said.clone();
        (WhileWaiting::tell(move |waiting| kept.lock().unwrap().push(waiting.clone())), said)
    }

    /// How long reading and listing take in a store that nobody serves; in time that passes by itself.
    async fn tried(settings: &str) -> (Duration, Vec<Waiting>) {
        let (while_waiting, said) = told();
        let options = StoreOptions { while_waiting, ..StoreOptions::default() };
        let url = format!("s3://bucket/x?endpoint={NOBODY}&anonymous=true{settings}");
        let store = Store::open(&url, &options).unwrap();
        let begun = Instant::now();
        assert!(store.read("lifeboat.json", 100).await.unwrap_err().is_unreachable());
        assert!(store.list("").await.unwrap_err().is_unreachable());
        let said = said.lock().unwrap().clone();
        (begun.elapsed(), said)
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_answers_is_given_up_soon_and_that_is_told() {
        let (took, said) = tried("").await;
        assert!(took < FIRST_CONTACT * 3, "{took:?}");
        assert!(said[0].place.starts_with("http://127.0.0.1:"), "{said:?}");
        assert!(said[0].left.is_some_and(|left| left <= FIRST_CONTACT));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_retries_gets_them() {
        let (took, _) = tried("&retries=6").await;
        assert!(took > FIRST_CONTACT * 3, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_has_answered_is_not_given_up() {
        let contact = Contact::new(WhileWaiting::default(), Some(FIRST_CONTACT));
        assert!(contact.begins() && !contact.is_given_up());
        tokio::time::advance(FIRST_CONTACT).await;
        assert!(contact.is_given_up());
        contact.answered();
        assert!(!contact.is_given_up() && !contact.begins());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_at_once_and_then_now_and_then() {
        let (while_waiting, said) = told();
        let contact = Contact::new(while_waiting, None);
        for _ in 0..25 {
            contact.waits("http://host".to_owned(), Some("connection refused".to_owned()));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let said = said.lock().unwrap();
        assert_eq!(said.len(), 3);
        assert_eq!(
            said[0].to_string(),
            "waiting for http://host: connection refused; trying again"
        );
    }
}
