//! Leader election: of several operators one works, the others wait.
//!
//! A `coordination.k8s.io/v1` Lease holds the leader's name. It is written with the `resourceVersion` that was read, so of two
//! that write at once one is refused.
//!
//! * Nobody's clock is trusted: a lease is free when it has not changed for its duration, as the one who looks has seen.
//! * A leader that cannot renew gives up before anybody else may take over: [`RENEW_WITHIN`] is less than [`DURATION`].
//! * Whoever stops in order says so in the Lease; the next takes over at once.
//!
//! What two operators could do to one backup at once is the store's own lease to prevent; this one only spares the work.

use crate::{context::is_gone, failure::Failure};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a lease holds that is not renewed.
pub const DURATION: Duration = Duration::from_secs(15);

/// How long a leader tries to renew, before it takes itself for no leader any more.
pub const RENEW_WITHIN: Duration = Duration::from_secs(10);

/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(4);

/// How often those who wait look, and how soon a renewal that failed is tried again.
const LOOK: Duration = Duration::from_secs(2);

/// The right to work.
pub struct Lease {
    api: Api<Object>,
    name: String,
    identity: String,
}

/// What was seen of the Lease, and since when it is so.
#[derive(Clone, Debug)]
struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

impl Seen {
    /// Notes what is there now.
    fn note(before: Option<Self>, spec: LeaseSpec, now: Instant) -> Self {
        match before {
            Some(before) if before.spec == spec => before,
            _ => Self { spec, since: now },
        }
    }

    /// Whether it may be taken.
    fn is_free(&self, identity: &str, now: Instant) -> bool {
        let holder = self.spec.holder_identity.as_deref().unwrap_or_default();
        let seconds = self.spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let duration = seconds.map_or(DURATION, Duration::from_secs);
        // Our own name on it: this process took it, or one of the same name that has ended, as a pod's container does.
        holder.is_empty() || holder == identity || now.duration_since(self.since) >= duration
    }
}

impl Lease {
    /// The Lease of that name, not held yet.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
        }
    }

    /// Waits until it is ours. `waiting` hears who has it.
    pub async fn acquire(&self, waiting: impl Fn(&str)) -> Result<(), Failure> {
        let mut seen = None;
        let mut told = String::new();
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(None) => return Ok(()),
                Ok(Some(holder)) if holder != told => {
                    waiting(&holder);
                    told = holder;
                }
                Ok(Some(_)) => {}
                // A right that is missing does not come by waiting, and is better told than hidden.
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    return Err(kube::Error::Api(status).into());
                }
                Err(error) => {
                    tracing::warn!(error = etcd_live::one_line(&error), "the Lease cannot be read");
                }
            }
            sleep(LOOK).await;
        }
    }

    /// Tries once; says who has it, if it is another.
    async fn try_acquire(&self, seen: &mut Option<Seen>) -> Result<Option<String>, kube::Error> {
        let Some(mut object) = self.api.get_opt(&self.name).await? else {
            let object = Object {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.claim(None)),
            };
            return match self.api.create(&PostParams::default(), &object).await {
                Ok(_) => Ok(None),
                Err(error) if is_conflict(&error) => Ok(Some(String::new())),
                Err(error) => Err(error),
            };
        };
        let spec = object.spec.take().unwrap_or_default();
        let now = Seen::note(seen.take(), spec.clone(), Instant::now());
        let is_free = now.is_free(&self.identity, Instant::now());
        *seen = Some(now);
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if !is_free {
            return Ok(Some(holder));
        }
        object.spec = Some(self.claim(Some(&spec)));
        match self.replace(&object).await {
            Ok(()) => Ok(None),
            Err(error) if is_conflict(&error) => Ok(Some(holder)),
            Err(error) => Err(error),
        }
    }

    async fn replace(&self, object: &Object) -> Result<(), kube::Error> {
        self.api.replace(&self.name, &PostParams::default(), object).await.map(drop)
    }

    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        let was_ours = before.is_some_and(|b| b.holder_identity.as_deref() == Some(&self.identity));
        let acquired = before.filter(|_| was_ours).and_then(|before| before.acquire_time.clone());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: acquired.or_else(|| now.clone()),
            renew_time: now,
            lease_transitions: Some(transitions + i32::from(!was_ours)),
            ..LeaseSpec::default()
        }
    }

    /// Renews it; returns when it is lost, with why.
    pub async fn keep(&self) -> String {
        let mut renewed = Instant::now();
        let mut pause = RENEW;
        loop {
            sleep(pause).await;
            let left = RENEW_WITHIN.saturating_sub(renewed.elapsed());
            match timeout(left, self.renew()).await {
                Ok(Ok(None)) => (renewed, pause) = (Instant::now(), RENEW),
                Ok(Ok(Some(holder))) => return format!("{holder:?} has taken the Lease"),
                Ok(Err(error)) => {
                    let error = etcd_live::one_line(&error);
                    tracing::warn!(error, "the Lease cannot be renewed");
                    pause = LOOK;
                }
                Err(_) => pause = Duration::ZERO,
            }
            if renewed.elapsed() >= RENEW_WITHIN {
                return format!("the Lease could not be renewed for {} s", RENEW_WITHIN.as_secs());
            }
        }
    }

    /// Renews it once; says who has it, if it is another.
    async fn renew(&self) -> Result<Option<String>, kube::Error> {
        let mut object = self.api.get(&self.name).await?;
        let spec = object.spec.take().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(Some(spec.holder_identity.unwrap_or_default()));
        }
        object.spec = Some(self.claim(Some(&spec)));
        self.replace(&object).await.map(|()| None)
    }

    /// Gives it back, for the next to take at once. That somebody else has it is no error.
    pub async fn release(&self) -> Result<(), Failure> {
        let mut object = self.api.get(&self.name).await?;
        let Some(spec) = object.spec.as_mut() else { return Ok(()) };
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        match self.replace(&object).await {
            Err(error) if !is_conflict(&error) && !is_gone(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_free_when_it_was_not_renewed_for_its_duration_whatever_its_time_says() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // The holder's clock is years behind.
        let seen = Seen::note(None, spec("a", 1), at(0));
        assert!(!seen.is_free("b", at(14)));
        let seen = Seen::note(Some(seen), spec("a", 1), at(14));
        assert!(seen.is_free("b", at(15)));
        let seen = Seen::note(Some(seen), spec("a", 2), at(15));
        assert!(!seen.is_free("b", at(29)), "it was renewed");
        assert!(seen.is_free("b", at(30)));
    }

    #[test]
    fn a_lease_that_was_given_back_is_free_at_once() {
        let now = Instant::now();
        assert!(Seen::note(None, spec("", 1), now).is_free("b", now));
        assert!(Seen::note(None, spec("b", 1), now).is_free("b", now), "a container that restarts");
    }
}
