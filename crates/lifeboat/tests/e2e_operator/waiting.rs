//! Waiting for what an operator does: with patience, and with word of what was there instead.

use crate::world::World;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::Event,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Resource,
    api::{ApiResource, DynamicObject, ListParams, PostParams},
    runtime::wait::{await_condition, conditions::is_crd_established},
};
use operator::api::{EtcdBackup, Phase};
use serde::de::DeserializeOwned;
use std::{
    fmt::Debug,
    time::{Duration, Instant},
};
use testbed::FaultProxy;

/// Longer than anything here takes, a store that is looked at again after a minute and a Lease that must run out too;
/// only a fault lasts that long.
const PATIENCE: Duration = Duration::from_secs(240);

/// How often a condition is asked for anew.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until there is what is waited for. Else `look` says what is there instead, which is told with `logs` when patience ends.
pub(crate) async fn patiently<T>(
    what: &str,
    logs: impl Fn() -> String,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        let instead = match look().await {
            Ok(found) => return found,
            Err(instead) => instead,
        };
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}\n{instead}\n{}", logs());
        tokio::time::sleep(LOOK).await;
    }
}

/// A kind of objects in a namespace.
pub(crate) trait Kind:
    Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + DeserializeOwned
{
}

impl<K> Kind for K where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
{
}

/// For objects.
impl World {
    /// Waits until a snapshot is held up.
    pub(crate) async fn until_stalled(&self, proxy: &FaultProxy) {
        self.until_stalled_times(proxy, 1).await;
    }

    /// Waits until so many are.
    pub(crate) async fn until_stalled_times(&self, proxy: &FaultProxy, times: usize) {
        let look = async || match proxy.faults() {
            faults if faults >= times => Ok(()),
            faults => Err(format!("{faults} are")),
        };
        self.patiently(&format!("{times} snapshots are held up"), look).await;
    }

    /// Asks for an object until `there` says so, and gives it.
    pub(crate) async fn until<K: Kind>(
        &self,
        name: &str,
        what: &str,
        there: impl Fn(&K) -> bool,
    ) -> K {
        let api = self.all::<K>();
        let look = async || match api.get_opt(name).await {
            Ok(Some(found)) if there(&found) => Ok(found),
            instead => Err(format!("{instead:#?}")),
        };
        self.patiently(&format!("{name} is {what}"), look).await
    }

    /// Lists the objects of a kind until `there` finds in them what is waited for, and gives that.
    pub(crate) async fn until_listed<K: Kind, T>(
        &self,
        what: &str,
        there: impl Fn(&[K]) -> Option<T>,
    ) -> T {
        let api = self.all::<K>();
        let look = async || {
            let listed = api.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
            there(&listed).ok_or_else(|| format!("{listed:#?}"))
        };
        self.patiently(what, look).await
    }

    pub(crate) async fn until_phase(&self, name: &str, phase: Phase) -> EtcdBackup {
        let is = |backup: &EtcdBackup| {
            backup.status.as_ref().is_some_and(|status| status.phase == Some(phase))
        };
        self.until(name, "in that phase", is).await
    }

    /// Waits until an object is gone.
    pub(crate) async fn until_gone<K: Kind>(&self, name: &str) {
        let api = self.all::<K>();
        let look = async || match api.get_opt(name).await {
            Ok(None) => Ok(()),
            instead => Err(format!("{instead:#?}")),
        };
        self.patiently(&format!("{name} is gone"), look).await;
    }

    /// Reasons of the events about an object, once that one is among them: a status is written before it is
    /// told of.
    pub(crate) async fn events_until(&self, name: &str, reason: &str) -> Vec<String> {
        let there = |events: &[Event]| {
            let about =
                events.iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
            let reasons: Vec<_> = about.filter_map(|event| event.reason.clone()).collect();
            reasons.iter().any(|told| told == reason).then_some(reasons)
        };
        self.until_listed(&format!("an event {reason} of {name}"), there).await
    }
}

/// For the API server.
impl World {
    /// The API server hears of rights a moment after they are written. These are the last of those that are installed.
    pub(crate) async fn until_allowed(&self) {
        self.until_may("patch", "lifeboat.dev", "etcdrestores/status", &self.namespace).await;
        self.until_may("create", "events.k8s.io", "events", &self.namespace).await;
        self.until_may("get", "", "secrets", &self.namespace).await;
    }

    /// Waits until the operator may do that to a resource, or to a part of it, in a namespace.
    pub(crate) async fn until_may(&self, verb: &str, group: &str, what: &str, namespace: &str) {
        let (resource, part) = what.split_once('/').unwrap_or((what, ""));
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let attributes = ResourceAttributes {
            verb: some(verb),
            group: some(group),
            resource: some(resource),
            subresource: some(part),
            namespace: some(namespace),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: some("system:serviceaccount:lifeboat:lifeboat-operator"),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let text = format!("the operator may {verb} {what} in {namespace:?}");
        let look = async || {
            let told = reviews.create(&PostParams::default(), &review).await;
            let status = told.map_err(|error| error.to_string())?.status;
            let is_allowed = status.as_ref().is_some_and(|status| status.allowed);
            is_allowed.then_some(()).ok_or_else(|| format!("{status:?}"))
        };
        self.patiently(&text, look).await;
    }

    /// The same, where what went wrong is told with all that operators have said.
    pub(crate) async fn patiently<T>(
        &self,
        what: &str,
        look: impl AsyncFnMut() -> Result<T, String>,
    ) -> T {
        patiently(what, || self.logs(), look).await
    }

    /// Waits until a kind is served: that begins a moment after it was established.
    pub(crate) async fn until_served(&self, name: &str) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        await_condition(definitions.clone(), name, is_crd_established()).await.unwrap();
        let spec = definitions.get(name).await.unwrap().spec;
        let kind = ApiResource {
            api_version: format!("{}/{}", spec.group, spec.versions[0].name),
            group: spec.group,
            version: spec.versions[0].name.clone(),
            kind: spec.names.kind,
            plural: spec.names.plural,
        };
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let look =
            async || all.list(&ListParams::default().limit(1)).await.map_err(|e| e.to_string());
        self.patiently(&format!("{name} is served"), look).await;
    }
}
