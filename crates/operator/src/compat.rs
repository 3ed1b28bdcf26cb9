//! `EtcdBackup` of `etcd.database.coreos.com/v1beta2`, for who comes from the CoreOS etcd-operator.
//!
//! ```text
//!   decide ──▶ permit ──▶ Running ──▶ backup::plain: proved, then stored as one file ──▶ succeeded, or Reason
//!                            ▲                                                                │ interval
//!                            └────────────────────────── due, or tried again ◀────────────────┘
//! ```
//!
//! * What is at the path afterwards is what that operator put there: a plain snapshot, which restore tools take. Not encrypted,
//!   not compressed, no repository around it. It is proved as every backup of ours is, and nothing is overwritten.
//! * Before a file without an interval is written, the status says where (`writing`). Whoever finds that file after an operator
//!   was killed proves it where it lies, and it counts. A file in an interval has the time in its name; one that was cut
//!   at the very end counts for `maxBackups`, and the next one is made.
//! * No finalizer: the files stay when their object goes.

mod attempt;
mod decide;
mod files;
mod place;

use crate::{
    api::coreos::{CoreosBackup, CoreosBackupStatus},
    backup::wait,
    conditions::{self, Is},
    context::{Context, hold},
    failure::Failure,
    run::Scope,
};
use attempt::Attempt;
use decide::{Step, THEIR_FINALIZER, decide};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    runtime::{Controller, controller::Action, watcher},
};
use std::sync::Arc;

/// Follows all objects of the kind.
pub async fn run(
    context: Arc<Context>,
    scope: Scope,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let api: Api<CoreosBackup> = scope.api(&context.client);
    let controller =
        Controller::new(api, watcher::Config::default().page_size(500)).graceful_shutdown_on(stop);
    crate::run::drive(controller, context, "EtcdBackup of CoreOS", reconcile).await;
}

/// Whether the objects may be followed at all, where they are to be: rights of their own go with the flag.
pub(crate) async fn check_rights(client: &Client, scope: &Scope) -> Result<(), Failure> {
    let api: Api<CoreosBackup> = scope.api(client);
    match api.list(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 403 => Err(Failure {
            reason: "Kubernetes",
            ..Failure::settings(
                format!("Kubernetes refused: {}", status.message),
                "install it with that right: deploy/operator/coreos-compat, or coreosCompat: true in the chart",
            )
        }),
        Err(error) => Err(error.into()),
    }
}

async fn reconcile(cached: Arc<CoreosBackup>, context: Arc<Context>) -> Result<Action, Failure> {
    let now = Timestamp::now();
    match decide(&cached, now) {
        Step::Rest => return Ok(Action::await_change()),
        Step::Wait(until) => return Ok(wait(now, until)),
        _ => {}
    }
    // A cache may be older than what this operator has just written.
    let api = context.beside::<CoreosBackup, _>(&*cached);
    let found = api.get_opt(&cached.name_any()).await?;
    let Some(object) = found.filter(|found| found.uid() == cached.uid()) else {
        return Ok(Action::await_change());
    };
    match decide(&object, now) {
        Step::Rest => Ok(Action::await_change()),
        Step::Wait(until) => Ok(wait(now, until)),
        Step::LetGo => {
            // The CoreOS operator holds it by that, and there is none any more.
            hold(&api, &object, THEIR_FINALIZER, false).await?;
            Ok(Action::await_change())
        }
        Step::Refuse(failure) => refuse(&context, &object, &failure, now).await,
        Step::Begin(order, attempt) => {
            Attempt { context: &context, object: &object, order }.begin(attempt).await
        }
    }
}

/// What only another spec mends.
fn invalid(message: impl Into<String>, remedy: impl Into<String>) -> Failure {
    Failure { reason: "Invalid", retryable: false, ..Failure::settings(message, remedy) }
}

/// Names the field that a failure comes from.
fn in_field(field: &'static str) -> impl Fn(Failure) -> Failure {
    move |failure| Failure { message: format!("{field}: {}", failure.message), ..failure }
}

/// Says that nothing can be made of an object.
async fn refuse(
    context: &Context,
    object: &CoreosBackup,
    failure: &Failure,
    now: Timestamp,
) -> Result<Action, Failure> {
    let mut status = object.status.clone().unwrap_or_default();
    set(object, &mut status, Is::False, failure.reason, &failure.text(), now);
    status.succeeded = false;
    status.reason = failure.text();
    (status.attempts, status.retry_at, status.writing) = (None, None, None);
    if object.status.as_ref() != Some(&status) {
        context.write_status(object, &status).await?;
        context.warn(object, "Refused", &failure.text()).await;
    }
    // Only another spec mends it.
    Ok(Action::await_change())
}

fn set(
    object: &CoreosBackup,
    status: &mut CoreosBackupStatus,
    is: Is,
    reason: &str,
    text: &str,
    now: Timestamp,
) {
    let generation = object.meta().generation;
    status.observed_generation = generation;
    conditions::set(&mut status.conditions, "Succeeded", is, reason, text, generation, now);
}

#[cfg(test)]
mod tests;
