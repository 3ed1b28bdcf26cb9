//! What is looked at before anything is changed: the confirmation, the source, the target, and in a pod all that restoring takes.

use super::{
    AGAIN, Action, Checking, Found, JobSeen, LATER, Next, PATIENCE_SECONDS, Step, Turn, Unusable,
    names, stay, target, wanted,
};
use crate::{
    api::{
        EtcdRestoreStatus, Member,
        RestorePhase::{Building, Stopping},
        RestoreTarget, StatefulSetTarget, VolumePhase, VolumeStatus,
    },
    conditions::seconds,
    restore::{layout::Layout, members},
};
use kube::ResourceExt;
use std::time::Duration;

/// How often it is looked anew which backup is the latest, while nothing is confirmed.
const ANEW: Duration = Duration::from_mins(5);

/// Where the members of a StatefulSet stand in an object.
const MEMBERS: &str = "spec.target.statefulSet.members";

impl Turn<'_> {
    /// Whether it may still work on what it has begun to look at.
    pub(super) fn is_still_confirmed(&self) -> bool {
        let name = target(self.restore);
        let same = name.map(|(kind, name)| format!("{kind}/{name}")) == self.status.target;
        same && self.restore.spec.confirm.as_deref() == name.map(|(_, name)| name)
    }

    /// Forgets what it has found out, as if it had not begun.
    pub(super) fn forget(&mut self) {
        let conditions = std::mem::take(&mut self.status.conditions);
        self.status = EtcdRestoreStatus { conditions, ..EtcdRestoreStatus::default() };
    }

    pub(super) fn pending(&mut self) -> Next {
        let Some((kind, name)) = target(self.restore) else {
            let text = "spec.target must have exactly one of statefulSet, pvc and files";
            return stay("Refused", text, None);
        };
        self.status.target = Some(format!("{kind}/{name}"));
        match self.restore.spec.confirm.as_deref() {
            Some(confirm) if confirm == name => {}
            None => {
                let what = what_it_does(&self.restore.spec.target, kind, name);
                let from = self.what_it_would_take();
                let text = format!("nothing is done until spec.confirm is {name:?}: {what}{from}");
                return stay("NotConfirmed", &text, Some(ANEW));
            }
            Some(other) => {
                let text = format!(
                    "spec.confirm is {other:?}, but the target is {kind}/{name}: nothing is done until it is {name:?}"
                );
                return stay("NotConfirmed", &text, None);
            }
        }
        if let Some(waits) = self.waits_for_other() {
            return waits;
        }
        let uid: String = self.restore.uid().unwrap_or_default().replace('-', "");
        self.status.run = Some(uid.chars().take(10).collect());
        self.status.started_at = Some(seconds(self.now));
        Next::Go(Checking)
    }

    /// Shows which backup it would bring back now, or says why there is none.
    fn what_it_would_take(&mut self) -> String {
        let found = match &self.seen.source {
            Some(Ok(found)) => found.clone(),
            Some(Err(Unusable::Now(failure) | Unusable::Ever(failure))) => {
                (self.status.backup, self.status.revision) = (None, None);
                return format!("; but now it could not be: {}", failure.text());
            }
            None => return String::new(),
        };
        let point = found.source.store.as_ref();
        let point = point.map_or_else(String::new, |point| {
            format!(" of cluster {:?} in BackupStore {:?}", point.cluster, point.name)
        });
        let revision = found.revision.map_or_else(String::new, |at| format!(", revision {at}"));
        let name = found.backup.clone().unwrap_or_default();
        (self.status.backup, self.status.revision) = (found.backup, found.revision);
        format!("; now it would be backup {name}{point}{revision}")
    }

    /// One at a time: who comes second begins when the first has ended.
    fn waits_for_other(&self) -> Option<Next> {
        let other = self.seen.other.as_ref()?;
        let target = self.status.target.as_deref().unwrap_or_default();
        let text = format!(
            "EtcdRestore {other} is at work on {target}: this one begins when that has ended; delete it if it is not wanted any more"
        );
        Some(stay("Waiting", &text, Some(LATER)))
    }

    pub(super) fn checking(&mut self) -> Result<Next, String> {
        if let Some(waits) = self.waits_for_other() {
            return Ok(waits);
        }
        let found = match &self.seen.source {
            Some(Ok(found)) => found.clone(),
            Some(Err(Unusable::Ever(failure))) => {
                return Ok(Next::Refuse(failure.reason, failure.text()));
            }
            Some(Err(Unusable::Now(failure))) => {
                let text = format!(
                    "{}; nothing is changed, and it is looked at again every {} s",
                    failure.text(),
                    LATER.as_secs()
                );
                return Ok(stay(failure.reason, &text, Some(LATER)));
            }
            None => return Ok(stay("Checking", "the source is looked for", Some(AGAIN))),
        };
        let spec_target = self.restore.spec.target.clone();
        let next = match &spec_target.stateful_set {
            Some(set) => {
                self.check_set(set, &found)?;
                Stopping
            }
            None => {
                self.check_volume(&spec_target)?;
                Building
            }
        };
        let is_same = self.status.source.as_ref() == Some(&found.source);
        self.status.source = Some(found.source);
        self.status.backup = found.backup;
        self.status.revision = found.revision;
        // Where nothing is stopped, the pod that writes finds out by itself.
        match next {
            Stopping => Ok(self.probe(is_same).unwrap_or(Next::Go(Stopping))),
            next => Ok(Next::Go(next)),
        }
    }

    /// A pod with everything but the volume: it may not start, or not get at the store, better before etcd is stopped.
    fn probe(&mut self, is_same: bool) -> Option<Next> {
        const PLACE: (Step, usize) = (Step::Probe, 0);
        let waits = |text: &str| Some(stay("Checking", text, Some(AGAIN)));
        let is_outdated = !is_same || self.seen.outdated.contains(&PLACE);
        match self.seen.jobs.get(&PLACE) {
            None => {
                self.actions.push(Action::Start(Step::Probe, 0));
                waits("a pod looks at the source, before etcd is stopped")
            }
            Some(JobSeen::Ending) => waits("the pod that looks at the source is made anew"),
            Some(_) if is_outdated => {
                self.actions.push(Action::Remove(Step::Probe, 0));
                waits("the pod that looks at the source is made anew")
            }
            Some(JobSeen::Failed(why)) => Some(Next::Refuse(
                "ProbeFailed",
                format!("the pod that looks at the source failed: {why}"),
            )),
            Some(JobSeen::Running { waits_for: Some(why), since, .. }) => {
                let text = format!("the pod that looks at the source has not begun: {why}");
                match self.seconds_since(*since) > PATIENCE_SECONDS {
                    true => Some(Next::Refuse("ProbeFailed", text)),
                    false => waits(&format!(
                        "{text}; nothing is changed until it has; spec.job may be corrected"
                    )),
                }
            }
            Some(JobSeen::Running { waits_for: None, .. }) => {
                waits("a pod looks at the source, before etcd is stopped")
            }
            Some(JobSeen::Succeeded(_)) => None,
        }
    }

    fn check_volume(&mut self, spec_target: &RestoreTarget) -> Result<(), String> {
        let (_, claim) = target(self.restore).ok_or("spec.target names no volume")?;
        if !self.seen.claims.contains(claim) {
            return Err(format!(
                "there is no PersistentVolumeClaim {claim:?}, which spec.target names"
            ));
        }
        if !self.seen.users.is_empty() {
            let users = self.seen.users.join(", ");
            return Err(format!("the claim {claim:?} of spec.target is in use by {users}"));
        }
        let member = match &spec_target.pvc {
            Some(pvc) => {
                members::check("spec.target.pvc.members", &pvc.members)?;
                names(&pvc.members)
            }
            None => String::new(),
        };
        self.status.volumes = vec![VolumeStatus {
            claim: claim.to_owned(),
            member,
            peer_urls: Vec::new(),
            phase: VolumePhase::Untouched,
        }];
        Ok(())
    }

    /// Remembers the replicas and the volumes.
    fn check_set(&mut self, target: &StatefulSetTarget, found: &Found) -> Result<(), String> {
        let name = &target.name;
        let set = self.seen.set.as_ref().ok_or_else(|| {
            format!("there is no StatefulSet {name:?}, which spec.target.statefulSet.name names")
        })?;
        let had = wanted(set);
        let replicas = target.replicas.unwrap_or(had);
        if replicas < 1 {
            return Err(format!(
                "StatefulSet {name:?} has no replicas; say in spec.target.statefulSet.replicas how many members there shall be"
            ));
        }
        if target.suspend_deployment.is_some() {
            let seen = self.seen.deployment.ok_or_else(|| {
                let name = target.suspend_deployment.as_deref().unwrap_or_default();
                format!("there is no Deployment {name:?}, which spec.target.statefulSet.suspendDeployment names")
            })?;
            self.status.suspended_replicas = Some(seen.wanted);
        }
        let layout = Layout::read(set, target, replicas)?;
        let pods: Vec<String> = (0..replicas).map(|index| layout.pod_name(index)).collect();
        let members = members_of(target, found, &pods)?;
        let mut volumes = Vec::new();
        for (index, member) in (0..).zip(members) {
            let claim = layout.claim(index);
            if !self.seen.claims.contains(&claim) {
                return Err(format!(
                    "there is no PersistentVolumeClaim {claim:?} of pod {}; create it first: an empty one will do",
                    layout.pod_name(index)
                ));
            }
            let Member { name: member, peer_urls } = member;
            if let Some(own) = layout.member_name(index).filter(|own| *own != member) {
                return Err(format!(
                    "pod {} runs etcd as {own:?}, but its member would be {member:?}; write in {MEMBERS} all members, each named as \
                     etcd's --name in its pod, in the order of the pods",
                    layout.pod_name(index)
                ));
            }
            volumes.push(VolumeStatus { claim, member, peer_urls, phase: VolumePhase::Untouched });
        }
        self.status.replicas = Some(had);
        self.status.volumes = volumes;
        Ok(())
    }
}

/// What becomes of that which the target has now.
fn what_it_does(spec_target: &RestoreTarget, kind: &str, name: &str) -> String {
    match &spec_target.stateful_set {
        Some(_) => format!("what {kind}/{name} has now gives way to the backup"),
        None => format!(
            "the backup is written into {kind}/{name}; nothing that lies there is overwritten"
        ),
    }
}

/// The members of the new cluster, in the order of their pods.
fn members_of(
    target: &StatefulSetTarget,
    found: &Found,
    pods: &[String],
) -> Result<Vec<Member>, String> {
    let given = !target.members.is_empty();
    if given {
        members::check(MEMBERS, &target.members)?;
    }
    let known = if given { &target.members } else { &found.members };
    let by_name = |pod: &String| known.iter().find(|member| member.name == *pod).cloned();
    if let Some(members) = pods.iter().map(by_name).collect::<Option<Vec<_>>>() {
        if let Some(member) = members.iter().find(|member| member.peer_urls.is_empty()) {
            return Err(format!(
                "the backup knows no peer URL of {:?}; say all members in {MEMBERS}",
                member.name
            ));
        }
        members::check("the backup's members", &members)
            .map_err(|text| format!("{text}; say all members in {MEMBERS}"))?;
        return Ok(members);
    }
    match given {
        true if known.len() == pods.len() => Ok(known.clone()),
        true => Err(format!(
            "{MEMBERS} has {} members, but there will be {} pods",
            known.len(),
            pods.len()
        )),
        false => Err(format!(
            "the backup's members ({}) are not the pods ({}); say the members' names and peer URLs, in the order of the pods, in {MEMBERS}",
            if known.is_empty() { "none known".to_owned() } else { names(known) },
            pods.join(", ")
        )),
    }
}
