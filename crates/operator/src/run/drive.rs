//! Following the objects of a kind: what every controller shares.

use crate::{context::Context, failure::Failure, metrics::OfKind};
use futures::StreamExt;
use kube::{
    Resource, ResourceExt,
    runtime::{Controller, controller, controller::Action, reflector::ObjectRef},
};
use serde::de::DeserializeOwned;
use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// The wait after an object that could not be followed; twice as long after each further time.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Follows objects with `reconcile`, and tries again, less and less often, where it failed.
pub(crate) async fn drive<K, F, R>(
    controller: Controller<K>,
    context: Arc<Context>,
    kind: &'static str,
    reconcile: F,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq,
    F: Fn(Arc<K>, Arc<Context>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Action, Failure>> + Send + 'static,
{
    let of_kind = OfKind { kind };
    let metrics = &context.metrics;
    // From the start, so that a first failure is seen as a rise.
    drop(metrics.reconcile_failures.get_or_create(&of_kind));
    let watch_failures = metrics.watch_failures.get_or_create_owned(&of_kind);
    let objects = controller.store();
    metrics.follow(kind, move |object| {
        objects.get(&ObjectRef::new(&object.name).within(&object.namespace)).is_some()
    });
    let watches = context.clone();
    let failed: Arc<Mutex<HashMap<ObjectRef<K>, u32>>> = Arc::default();
    let under_way = Arc::new(watch::Sender::new(0_usize));
    let idle = idle(&context, &under_way);
    let reconcile = {
        let (failed, of_kind) = (failed.clone(), of_kind.clone());
        move |object: Arc<K>, context: Arc<Context>| {
            let key = ObjectRef::from_obj(&*object);
            let failed = failed.clone();
            context.metrics.reconciled.get_or_create(&of_kind).inc();
            let counted = UnderWay::new(&under_way);
            let is_stopping = *context.stopping.borrow();
            let work = (!is_stopping).then(|| reconcile(object, context));
            async move {
                let _counted = counted;
                let Some(work) = work else { return Ok(Action::await_change()) };
                let done = work.await;
                if done.is_ok() {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                }
                done
            }
        }
    };
    let on_failure = move |object: Arc<K>, failure: &Failure, context: Arc<Context>| {
        context.metrics.reconcile_failures.get_or_create(&of_kind).inc();
        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
        let times = failed.entry(ObjectRef::from_obj(&*object)).or_default();
        *times += 1;
        let wait = FIRST_WAIT.saturating_mul(1 << (*times - 1).min(16)).min(LONGEST_WAIT);
        tracing::warn!(
            kind,
            namespace = object.namespace().unwrap_or_default(),
            name = object.name_any(),
            reason = failure.reason,
            error = failure.message,
            remedy = failure.remedy,
            again_in_s = wait.as_secs(),
            "an object cannot be followed"
        );
        Action::requeue(wait)
    };
    let followed = controller.run(reconcile, on_failure, context).for_each(|outcome| {
        if let Err(controller::Error::QueueError(error)) = outcome {
            watch_failures.inc();
            watches.watches.note(error, Instant::now());
        }
        futures::future::ready(())
    });
    tokio::select! {
        () = followed => {}
        () = idle => {}
    }
}

/// When the operator stops and nothing is under way any more. The controller itself would also wait for what is to be
/// looked at in minutes or hours.
fn idle(
    context: &Context,
    under_way: &watch::Sender<usize>,
) -> impl Future<Output = ()> + Send + 'static {
    let (mut stopping, mut under_way) = (context.stopping.clone(), under_way.subscribe());
    async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
        let _ = under_way.wait_for(|under_way| *under_way == 0).await;
    }
}

/// Counts what is under way, for as long as it lives.
struct UnderWay(Arc<watch::Sender<usize>>);

impl UnderWay {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
