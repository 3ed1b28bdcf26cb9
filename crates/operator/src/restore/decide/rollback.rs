//! The way back: the old data in place again, and etcd started on them.
//!
//! While new data are only made beside the old ones, those are not touched. So a pod that would clear up there but cannot start, or
//! fails, keeps nobody from starting etcd: what it would have removed is left, and told. Once data have changed places, a pod must put
//! them back, and is waited for.

use super::{AGAIN, Action, Failed, JobSeen, LATER, Next, Step, Turn, wanted};
use crate::api::{
    RestorePhase::{Building, Swapping},
    VolumePhase,
};

/// How long a pod that only clears up may take to begin.
const CLEARING_PATIENCE_SECONDS: i64 = 120;

impl Turn<'_> {
    pub(super) fn rolling_back(&mut self) -> Next {
        self.remember_begun();
        if self.end_pods() {
            return self.goes_back("pods that write are ended", AGAIN);
        }
        if self.set_target().is_none() {
            return Next::Go(Failed);
        }
        let Some(had) = self.status.replicas else { return Next::Go(Failed) };
        if self.seen.set.is_none() {
            return self
                .goes_back("the StatefulSet is gone; create it again, with 0 replicas", LATER);
        }
        let volumes = self.to_undo();
        if !volumes.is_empty() {
            if let Some(what) = self.stop_all() {
                return self.goes_back(&what, AGAIN);
            }
            if let Some(waits) = self.undo(&volumes) {
                return waits;
            }
        }
        let set = self.seen.set.as_ref().map_or(had, wanted);
        if set != had {
            self.actions.push(Action::ScaleSet(had));
        }
        let wake = self.wake_deployment();
        let is_done = set == had && wake.is_none();
        self.actions.extend(wake);
        match is_done {
            true => Next::Go(Failed),
            false => self.goes_back("the cluster is started again", AGAIN),
        }
    }

    /// Not yet: why it goes back, and what is waited for.
    fn goes_back(&self, what: &str, again: std::time::Duration) -> Next {
        let why = self.status.failure.as_ref();
        let reason = why.map_or("RollingBack", |failure| &failure.reason);
        let cause = why.map_or("", |failure| &failure.message);
        Next::Stay(
            reason.to_owned(),
            format!("{cause}; the old data are put back: {what}"),
            Some(again),
        )
    }

    /// Ends the pods of all steps that lead forward, and of those that were given up; whether any may still be there.
    fn end_pods(&mut self) -> bool {
        let is_left = |index: usize| {
            self.status.volumes.get(index).is_some_and(|volume| volume.phase == VolumePhase::Left)
        };
        let mut some = false;
        for ((step, index), seen) in &self.seen.jobs {
            if *step == Step::Undo && !is_left(*index) {
                continue;
            }
            match seen {
                JobSeen::Running { .. } => self.actions.push(Action::Remove(*step, *index)),
                JobSeen::Ending => {}
                JobSeen::Succeeded(_) | JobSeen::Failed(_) => continue,
            }
            some = true;
        }
        some
    }

    /// Whether data may have changed places.
    fn has_swapped(&self) -> bool {
        self.status.failure.as_ref().is_none_or(|failure| failure.phase >= Swapping)
    }

    /// The volumes that something was begun in.
    fn to_undo(&self) -> Vec<usize> {
        let built = self.status.failure.as_ref().is_none_or(|failure| failure.phase >= Building);
        let swapped = self.has_swapped();
        let is_left = |phase: VolumePhase| match phase {
            VolumePhase::RolledBack | VolumePhase::Left => false,
            VolumePhase::Untouched => swapped,
            VolumePhase::Building | VolumePhase::Built | VolumePhase::Swapped => built,
        };
        let volumes = self.status.volumes.iter().enumerate();
        volumes.filter(|(_, volume)| is_left(volume.phase)).map(|(index, _)| index).collect()
    }

    /// Puts back what these volumes had; what is waited for, if it is not done.
    fn undo(&mut self, volumes: &[usize]) -> Option<Next> {
        if !self.has_swapped() && self.give_up_clearing(volumes) {
            return Some(self.goes_back("what was begun beside them is left there", AGAIN));
        }
        let waits = match self.jobs(Step::Undo, volumes, VolumePhase::RolledBack) {
            Ok(_) => return None,
            // Here a pod is waited for as long as it takes.
            Err(Next::Fail(_, text)) => {
                let failed = self.seen.jobs.iter().filter(|((step, _), seen)| {
                    *step == Step::Undo && matches!(seen, JobSeen::Failed(_))
                });
                self.actions.extend(failed.map(|((step, index), _)| Action::Remove(*step, *index)));
                self.goes_back(&format!("{text}; it is tried again"), LATER)
            }
            Err(Next::Stay(_, text, _)) => self.goes_back(&text, AGAIN),
            Err(next) => next,
        };
        Some(waits)
    }

    /// Gives up on pods that only clear up, and cannot; whether there were any.
    fn give_up_clearing(&mut self, volumes: &[usize]) -> bool {
        let mut some = false;
        for &index in volumes {
            let give_up = match self.seen.jobs.get(&(Step::Undo, index)) {
                Some(JobSeen::Running { waits_for: Some(_), since, .. }) => {
                    self.seconds_since(*since) > CLEARING_PATIENCE_SECONDS
                }
                Some(JobSeen::Failed(_)) => true,
                _ => false,
            };
            if give_up {
                self.status.volumes[index].phase = VolumePhase::Left;
                some = true;
            }
        }
        some
    }

    /// What is said in the end of that which was left.
    pub(super) fn left(&self) -> String {
        let volumes = self.status.volumes.iter();
        let left: Vec<_> = volumes
            .filter(|volume| volume.phase == VolumePhase::Left)
            .map(|volume| volume.claim.as_str())
            .collect();
        match left.is_empty() {
            true => String::new(),
            false => format!(
                "; what was built beside them could not be removed: in volume {} remove member.lifeboat-{}*",
                left.join(", "),
                self.run()
            ),
        }
    }
}
