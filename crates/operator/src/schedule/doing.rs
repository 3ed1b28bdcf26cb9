//! What was decided about a schedule, being done.

use super::{
    Decision, LABEL, LOOK_AGAIN, RETAINED, fnv, is_of, is_unretained, measure,
    retention::{self, Kept, Pruned},
    short,
};
use crate::{
    api::{EtcdBackup, EtcdBackupSchedule, EtcdBackupScheduleStatus, Retention},
    backup::{self, LOCKED, RETAIN, remove_object, stored},
    conditions,
    context::{Context, is_gone},
    failure::Failure,
    secrets,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::controller::Action,
};
use serde_json::json;

/// What was decided, being done.
pub(super) struct Doing<'a> {
    pub(super) context: &'a Context,
    pub(super) schedule: &'a EtcdBackupSchedule,
    pub(super) api: Api<EtcdBackup>,
    pub(super) children: Vec<EtcdBackup>,
}

impl Doing<'_> {
    pub(super) async fn act(
        &self,
        mut decision: Decision,
        now: Timestamp,
    ) -> Result<Action, Failure> {
        let Self { context, schedule, .. } = *self;
        if let Some(name) = &decision.create {
            decision.status.active = Some(self.create(name).await?);
        }
        if let Some((slot, why)) = &decision.skipped {
            let (namespace, name) = (schedule.namespace().unwrap_or_default(), schedule.name_any());
            tracing::warn!(namespace, schedule = name, %slot, why, "a backup is skipped");
            context
                .warn(schedule, "Skipped", &format!("the backup of {slot} is skipped: {why}"))
                .await;
        }
        let store = &schedule.spec.template.spec.store_name;
        let namespace = schedule.namespace().unwrap_or_default();
        if let Err(failure) = secrets::store(context, &namespace, store).await {
            let (generation, text) = (schedule.meta().generation, failure.text());
            let conditions = &mut decision.status.conditions;
            conditions::set(conditions, "Ready", false, failure.reason, &text, generation, now);
            decision.wake_in(LOOK_AGAIN, now);
        }
        let mut gone = std::mem::take(&mut decision.remove);
        if decision.retains
            && let Some(policy) = &schedule.spec.retention
        {
            gone.extend(self.retain(policy, &mut decision.status, now).await);
        }
        // Before what it tells of goes: who is woken by that knows then what was there.
        if schedule.status.as_ref() != Some(&decision.status) {
            context.write_status(schedule, &decision.status).await?;
        }
        for name in gone {
            self.forget(&name).await?;
        }
        measure(context, schedule, &decision.status);
        Ok(match decision.wake {
            Some(wake) => backup::wait(now, wake),
            None => Action::await_change(),
        })
    }

    /// Makes the EtcdBackup of that name, or, where somebody else's has it, one of another. Says which.
    async fn create(&self, name: &str) -> Result<String, Failure> {
        if self.is_ours_after_creation(name).await? {
            return Ok(name.to_owned());
        }
        let Self { context, schedule, .. } = *self;
        let uid = schedule.uid().unwrap_or_default();
        let other = format!("{name}-{:08x}", fnv(&uid) & 0xffff_ffff);
        if !self.is_ours_after_creation(&other).await? {
            return Err(Failure {
                reason: "NameTaken",
                ..Failure::settings(
                    format!(
                        "there are EtcdBackups {name} and {other}, and neither is this schedule's"
                    ),
                    "remove one of them, or rename the schedule",
                )
            });
        }
        let text = format!("EtcdBackup {name} is not this schedule's; it makes {other} instead");
        context.warn(schedule, "NameTaken", &text).await;
        Ok(other)
    }

    /// Creates an EtcdBackup. Whether it is the schedule's: made now, or by an operator that ended before it could say so.
    async fn is_ours_after_creation(&self, name: &str) -> Result<bool, Failure> {
        let Self { context, schedule, .. } = *self;
        let template = &schedule.spec.template;
        let mut labels = template.labels.clone();
        labels.insert(LABEL.to_owned(), short(&schedule.name_any()));
        let mut backup = EtcdBackup::new(name, template.spec.clone());
        backup.metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: schedule.namespace(),
            labels: Some(labels),
            annotations: Some(template.annotations.clone()),
            owner_references: Some(schedule.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        };
        match self.api.create(&PostParams::default(), &backup).await {
            Ok(_) => {
                context.note(schedule, "Created", &format!("EtcdBackup {name}")).await;
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let found = self.api.get_opt(name).await?;
                Ok(found.is_some_and(|found| is_of(&found, schedule)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lets retention look at the store. Says which EtcdBackups show a backup that is gone.
    async fn retain(
        &self,
        policy: &Retention,
        status: &mut EtcdBackupScheduleStatus,
        now: Timestamp,
    ) -> Vec<String> {
        let Self { context, schedule, .. } = *self;
        let generation = schedule.meta().generation;
        let was_unretained = is_unretained(status);
        let before = conditions::get(&status.conditions, RETAINED).map(|c| c.reason.clone());
        let mut set = |is: bool, reason: &str, text: &str| {
            conditions::set(&mut status.conditions, RETAINED, is, reason, text, generation, now);
        };
        let Pruned { removed, left, kept, keeps_all } =
            match retention::apply(context, schedule, policy, now).await {
                Ok(pruned) => pruned,
                Err(failure) => {
                    let (reason, text) = (failure.reason, failure.text());
                    tracing::warn!(
                        schedule = schedule.name_any(),
                        reason,
                        error = text,
                        "retention failed"
                    );
                    // The first is what is told: what is written wakes us, and words may differ each time.
                    if !was_unretained {
                        let text = format!("{text}; tried again every minute");
                        set(false, reason, &text);
                        context.warn(schedule, "PruneFailed", &text).await;
                    }
                    return Vec::new();
                }
            };
        match kept {
            None if keeps_all => {
                let text = format!(
                    "no rule of spec.retention is above 0, so that everything is kept: the cluster has {left} backups in the store; write keepLast, keepDaily or another, or leave spec.retention out"
                );
                set(true, "KeepsAll", &text);
            }
            None => {
                let text = format!(
                    "what the policy does not keep is deleted: the cluster has {left} backups in the store, whoever made them"
                );
                set(true, "Pruned", &text);
            }
            Some(Kept { objects, until }) => {
                let first = until.map_or_else(String::new, |at| format!(", the first until {at}"));
                let text = format!(
                    "{objects} objects that the policy does not keep are locked in the store{first}; they go with a later backup, when their lock has ended"
                );
                set(true, LOCKED, &text);
                if before.as_deref() != Some(LOCKED) {
                    context.note(schedule, LOCKED, &text).await;
                }
            }
        }
        if !removed.is_empty() {
            let text = format!("{} backups were deleted, and {left} are left", removed.len());
            context.note(schedule, "Pruned", &text).await;
        }
        let shows = |child: &&EtcdBackup| {
            let backup = child.status.as_ref().and_then(|status| status.backup.as_ref());
            backup.is_some_and(|backup| removed.contains(backup))
        };
        let ours: Vec<_> = self.children.iter().filter(shows).map(ResourceExt::name_any).collect();
        let spec = &schedule.spec.template.spec;
        let place = (&*spec.store_name, &*spec.cluster.name);
        let by = format!("EtcdBackupSchedule {}", schedule.name_any());
        // The look at the store tells of it too, later.
        if let Err(failure) = stored::pruned(context, schedule, place, &removed, &ours, &by).await {
            tracing::warn!(
                error = failure.message,
                "who shows a backup that was pruned is not told yet"
            );
        }
        ours
    }

    /// Removes an EtcdBackup; which backups stay in the store is for retention alone to say.
    async fn forget(&self, name: &str) -> Result<(), Failure> {
        let Some(child) = self.children.iter().find(|child| child.name_any() == name) else {
            return Ok(());
        };
        if !child.finalizers().is_empty() {
            let patch = json!({ "metadata": { "annotations": { RETAIN: "true" } } });
            match self.api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Err(error) if !is_gone(&error) => return Err(error.into()),
                _ => {}
            }
        }
        remove_object(&self.api, child).await.map(drop)
    }
}
