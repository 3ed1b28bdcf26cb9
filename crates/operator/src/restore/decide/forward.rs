//! The way forward, from the moment on that something is changed: stopped, built, in place, started, proved.

use super::{
    AGAIN, Action, Building, JobSeen, Next, PATIENCE_SECONDS, Starting, Step, Succeeded, Swapping,
    Turn, Verifying, stay, wanted,
};
use crate::{api::VolumePhase, volume::Answer};
use kube::ResourceExt;

impl Turn<'_> {
    /// Stops what runs, and says what is still waited for.
    pub(super) fn stop_all(&mut self) -> Option<String> {
        if self.set_target().is_some_and(|target| target.suspend_deployment.is_some())
            && let Some(deployment) = self.seen.deployment
        {
            if deployment.wanted != 0 {
                self.actions.push(Action::ScaleDeployment(0));
                return Some("the Deployment that is suspended".to_owned());
            }
            if deployment.there != 0 {
                return Some("the pods of the Deployment that is suspended".to_owned());
            }
        }
        let set = self.seen.set.as_ref()?;
        if wanted(set) != 0 {
            self.actions.push(Action::ScaleSet(0));
        }
        let pods: Vec<_> = self.seen.pods.keys().cloned().collect();
        match pods.is_empty() {
            false => Some(format!("the end of {}", pods.join(", "))),
            true if wanted(set) != 0 => Some("the StatefulSet to be scaled to 0".to_owned()),
            true => None,
        }
    }

    pub(super) fn stopping(&mut self) -> Next {
        if self.seen.set.is_none() {
            return Next::Fail("StatefulSetGone", "the StatefulSet is gone".to_owned());
        }
        match self.stop_all() {
            None => Next::Go(Building),
            Some(what) if self.age() > PATIENCE_SECONDS => {
                Next::Fail("NotStopped", format!("waited {PATIENCE_SECONDS} s for {what}"))
            }
            Some(what) => stay("Stopping", &format!("waits for {what}"), Some(AGAIN)),
        }
    }

    /// Whether somebody has started etcd where it must not run.
    fn started_by_others(&self) -> Option<Next> {
        let set = self.set_target().and(self.seen.set.as_ref());
        if self.set_target().is_some() && set.is_none() {
            return Some(Next::Fail("StatefulSetGone", "the StatefulSet is gone".to_owned()));
        }
        let set = set?;
        let pods: Vec<_> = self.seen.pods.keys().map(String::as_str).collect();
        if wanted(set) == 0 && pods.is_empty() {
            return None;
        }
        Some(Next::Fail(
            "ScaledUp",
            format!(
                "somebody has scaled StatefulSet {:?} up meanwhile; if that is another operator, name its Deployment in \
                 spec.target.statefulSet.suspendDeployment",
                set.name_any()
            ),
        ))
    }

    /// Goes on with the Jobs of a step, one for each of these volumes; their answers when all have ended well.
    pub(super) fn jobs(
        &mut self,
        step: Step,
        volumes: &[usize],
        done: VolumePhase,
    ) -> Result<Vec<Answer>, Next> {
        let mut answers = Vec::new();
        let mut waits = Vec::new();
        for &index in volumes {
            let claim = self.status.volumes[index].claim.clone();
            let is_outdated = self.seen.outdated.contains(&(step, index));
            match self.seen.jobs.get(&(step, index)) {
                None => {
                    self.actions.push(Action::Start(step, index));
                    waits.push(claim);
                }
                Some(JobSeen::Failed(why)) => {
                    return Err(Next::Fail(failed(step), format!("volume {claim}: {why}")));
                }
                Some(JobSeen::Running { waits_for: Some(_), .. }) if is_outdated => {
                    self.actions.push(Action::Remove(step, index));
                    waits.push(format!("{claim} (its pod is made anew, as spec.job was changed)"));
                }
                Some(JobSeen::Running { waits_for: Some(why), since, .. }) => {
                    if self.seconds_since(*since) > PATIENCE_SECONDS {
                        let text = format!("volume {claim}: its pod has not begun: {why}");
                        return Err(Next::Fail(failed(step), text));
                    }
                    waits.push(format!("{claim} ({why}; spec.job may be corrected)"));
                }
                Some(JobSeen::Running { waits_for: None, .. } | JobSeen::Ending) => {
                    waits.push(claim);
                }
                Some(JobSeen::Succeeded(answer)) => {
                    self.status.volumes[index].phase = done;
                    answers.push(answer.clone());
                }
            }
        }
        match waits.is_empty() {
            true => Ok(answers),
            false => {
                let text = format!("{} volume {}", step.name(), waits.join(", "));
                Err(stay(doing_reason(step), &text, Some(AGAIN)))
            }
        }
    }

    pub(super) fn building(&mut self) -> Next {
        if let Some(failed) = self.started_by_others() {
            return failed;
        }
        self.remember_begun();
        let answers = match self.jobs(Step::Build, &self.all(), VolumePhase::Built) {
            Ok(answers) => answers,
            Err(next) => return next,
        };
        if self.set_target().is_none() {
            return Next::Go(Succeeded);
        }
        // A pod's last words can be lost; a build that is repeated says the same.
        let lost: Vec<usize> =
            answers.iter().enumerate().filter(|(_, a)| a.built.is_none()).map(|(n, _)| n).collect();
        if !lost.is_empty() {
            self.actions.extend(lost.into_iter().map(|index| Action::Remove(Step::Build, index)));
            return stay(
                "Building",
                "a pod's last words were lost; its step is repeated",
                Some(AGAIN),
            );
        }
        let mut built = answers.iter().filter_map(|answer| answer.built);
        let Some(first) = built.next() else {
            return Next::Fail("BuildFailed", "there is no volume".to_owned());
        };
        if built.any(|other| other != first) {
            let text = "the members' new data differ: the source was changed while they were built";
            return Next::Fail("BuildFailed", text.to_owned());
        }
        self.status.restored_revision = Some(first.revision);
        self.status.hash_kv = Some(first.hash_kv);
        Next::Go(Swapping)
    }

    pub(super) fn swapping(&mut self) -> Next {
        if let Some(failed) = self.started_by_others() {
            return failed;
        }
        match self.jobs(Step::Swap, &self.all(), VolumePhase::Swapped) {
            Ok(_) => Next::Go(Starting),
            Err(next) => next,
        }
    }

    /// All volumes.
    fn all(&self) -> Vec<usize> {
        (0..self.status.volumes.len()).collect()
    }

    /// Remembers which volumes a pod has begun to write in.
    pub(super) fn remember_begun(&mut self) {
        for (index, volume) in self.status.volumes.iter_mut().enumerate() {
            let begun = match self.seen.jobs.get(&(Step::Build, index)) {
                Some(JobSeen::Running { begun, .. }) => *begun,
                Some(JobSeen::Failed(_) | JobSeen::Succeeded(_)) => true,
                Some(JobSeen::Ending) | None => false,
            };
            if begun && volume.phase == VolumePhase::Untouched {
                volume.phase = VolumePhase::Building;
            }
        }
    }

    /// How many members there are to be.
    fn members(&self) -> i32 {
        i32::try_from(self.status.volumes.len()).unwrap_or(i32::MAX)
    }

    fn is_late(&self) -> bool {
        self.age() > self.restore.spec.ready_seconds
    }

    pub(super) fn starting(&mut self) -> Next {
        let Some(set) = &self.seen.set else {
            return Next::Fail("StatefulSetGone", "the StatefulSet is gone".to_owned());
        };
        let members = self.members();
        if wanted(set) != members {
            self.actions.push(Action::ScaleSet(members));
        }
        let running = self.seen.pods.values().filter(|runs| **runs).count();
        if running >= self.status.volumes.len() {
            return Next::Go(Verifying);
        }
        let text = format!("{running} of {members} pods run");
        match self.is_late() {
            true => Next::Fail(
                "NotStarted",
                format!("after {} s, {text}", self.restore.spec.ready_seconds),
            ),
            false => stay("Starting", &text, Some(AGAIN)),
        }
    }

    pub(super) fn verifying(&mut self) -> Next {
        match &self.seen.faults {
            Some(faults) if faults.is_empty() => {
                if let Some(scale) = self.wake_deployment() {
                    self.actions.push(scale);
                    return stay(
                        "Verifying",
                        "the Deployment that was suspended is started",
                        Some(AGAIN),
                    );
                }
                Next::Go(Succeeded)
            }
            Some(faults) if self.is_late() => {
                let text =
                    format!("after {} s: {}", self.restore.spec.ready_seconds, faults.join("; "));
                Next::Fail("NotVerified", text)
            }
            Some(faults) => stay("Verifying", &faults.join("; "), Some(AGAIN)),
            None if self.is_late() => {
                Next::Fail("NotVerified", "the members could not be asked".to_owned())
            }
            None => stay("Verifying", "the members are asked", Some(AGAIN)),
        }
    }

    pub(super) fn wake_deployment(&self) -> Option<Action> {
        let (had, now) = (self.status.suspended_replicas?, self.seen.deployment?);
        (now.wanted != had).then_some(Action::ScaleDeployment(had))
    }
}

fn failed(step: Step) -> &'static str {
    match step {
        Step::Probe => "ProbeFailed",
        Step::Build => "BuildFailed",
        Step::Swap => "SwapFailed",
        Step::Undo => "UndoFailed",
    }
}

fn doing_reason(step: Step) -> &'static str {
    match step {
        Step::Probe => "Checking",
        Step::Build => "Building",
        Step::Swap => "Swapping",
        Step::Undo => "RollingBack",
    }
}
