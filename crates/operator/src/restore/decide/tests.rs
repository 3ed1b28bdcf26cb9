//! Whole restores in a small world: what is decided is done there, or lost with a killed operator.

use super::*;
use crate::api::{VolumePhase, VolumeStatus};
use crate::{
    restore::samples,
    volume::{Built, State},
};

/// What would be in Kubernetes.
#[derive(Clone)]
pub(super) struct World {
    pub(super) restore: EtcdRestore,
    pub(super) seen: Seen,
    pub(super) now: Timestamp,
    /// Which Jobs fail.
    pub(super) failing: Option<(Step, usize)>,
    /// What etcd says once it runs on new data.
    pub(super) faults: Vec<String>,
    /// Whether its new data are in place.
    swapped: [bool; 3],
    /// Whether its pods ever start on new data.
    starts: bool,
    pub(super) phases: Vec<RestorePhase>,
    /// Every second decision's actions are lost, beginning with this one.
    lost: Option<usize>,
}

/// A Job whose pod runs.
pub(super) const RUNS: JobSeen = JobSeen::Running { waits_for: None, since: None, begun: true };

/// A Job whose pod has not begun.
pub(super) fn waits(why: &str) -> JobSeen {
    JobSeen::Running { waits_for: Some(why.to_owned()), since: None, begun: false }
}

pub(super) fn members(count: u32) -> Vec<Member> {
    let member = |n| Member {
        name: format!("etcd-{n}"),
        peer_urls: vec![format!("http://etcd-{n}.etcd:2380")],
    };
    (0..count).map(member).collect()
}

impl World {
    pub(super) fn new(restore: EtcdRestore) -> Self {
        let found = Found { members: members(3), revision: Some(7), ..Found::default() };
        let pods = (0..3).map(|n| (format!("etcd-{n}"), true)).collect();
        let claims = (0..3).map(|n| format!("data-etcd-{n}")).collect();
        let seen = Seen {
            set: Some(samples::set()),
            pods,
            claims,
            deployment: Some(Replicas { wanted: 1, there: 1 }),
            source: Some(Ok(found)),
            ..Seen::default()
        };
        Self {
            restore,
            seen,
            now: Timestamp::UNIX_EPOCH,
            failing: None,
            faults: Vec::new(),
            swapped: [false; 3],
            starts: true,
            phases: Vec::new(),
            lost: None,
        }
    }

    pub(super) fn of_set() -> Self {
        Self::new(samples::of_set())
    }

    pub(super) fn set_replicas(&self) -> i32 {
        wanted(self.seen.set.as_ref().unwrap())
    }

    pub(super) fn phase(&self) -> RestorePhase {
        self.restore.status.as_ref().and_then(|status| status.phase).unwrap_or_default()
    }

    pub(super) fn status(&self) -> &EtcdRestoreStatus {
        self.restore.status.as_ref().unwrap()
    }

    pub(super) fn message(&self) -> String {
        let condition = conditions::get(&self.status().conditions, "Succeeded").unwrap();
        format!("{}: {}", condition.reason, condition.message)
    }

    /// One look, one decision, and what comes of it.
    pub(super) fn turn(&mut self, number: usize) {
        let decision = decide(&self.restore, &self.seen, self.now);
        self.restore.status = Some(decision.status);
        if self.phases.last() != Some(&self.phase()) {
            self.phases.push(self.phase());
        }
        let is_lost = self.lost.is_some_and(|first| number % 2 == first);
        if !is_lost {
            decision.actions.into_iter().for_each(|action| self.done(action));
        }
        self.goes_on();
        self.now += jiff::SignedDuration::from_secs(5);
    }

    pub(super) fn done(&mut self, action: Action) {
        let allowed = self.set_replicas() == 0 && self.seen.pods.is_empty();
        match action {
            Action::ScaleSet(replicas) => {
                self.seen.set.as_mut().unwrap().spec.as_mut().unwrap().replicas = Some(replicas);
            }
            Action::ScaleDeployment(replicas) => {
                self.seen.deployment = Some(Replicas { wanted: replicas, there: replicas });
            }
            Action::Start(step, index) => {
                assert!(
                    allowed
                        || step == Step::Probe
                        || self.restore.spec.target.stateful_set.is_none(),
                    "{step:?} under a running etcd"
                );
                let earlier = self.seen.jobs.insert((step, index), RUNS);
                assert_eq!(earlier, None, "a Job was started twice");
            }
            Action::Remove(step, index) => {
                self.seen.jobs.remove(&(step, index));
                self.seen.outdated.remove(&(step, index));
            }
            Action::Hold(hold) => {
                self.restore.metadata.finalizers = hold.then(|| vec![FINALIZER.to_owned()]);
            }
        }
    }

    /// What Kubernetes and the pods do by themselves.
    fn goes_on(&mut self) {
        for ((step, index), job) in &mut self.seen.jobs {
            if !matches!(job, JobSeen::Running { waits_for: None, .. }) {
                continue;
            }
            if self.failing == Some((*step, *index)) {
                *job = JobSeen::Failed("no room".to_owned());
                continue;
            }
            let built = Built { revision: 1007, hash_kv: 5 };
            let state = match step {
                Step::Probe => State::Untouched,
                Step::Build => State::Built,
                Step::Swap => State::Swapped,
                Step::Undo => State::RolledBack,
            };
            if *index < 3 {
                self.swapped[*index] = *step == Step::Swap;
            }
            *job = JobSeen::Succeeded(Answer {
                state: Some(state),
                built: (*step == Step::Build).then_some(built),
                ..Answer::default()
            });
        }
        let replicas = self.set_replicas();
        let runs = self.starts || !self.swapped[0];
        self.seen.pods = (0..replicas).map(|n| (format!("etcd-{n}"), runs)).collect();
        let asked = self.phase() == Verifying;
        self.seen.faults = asked.then(|| self.faults.clone());
    }

    /// Until that phase.
    pub(super) fn until(&mut self, phase: RestorePhase) -> &mut Self {
        for number in 0..400 {
            if self.phase() == phase {
                return self;
            }
            self.turn(number);
        }
        panic!("it never is {phase:?}: {:?}, {}", self.phases, self.message());
    }

    /// The reason of a condition, if there is one.
    pub(super) fn changed(&self) -> Option<&str> {
        let condition = conditions::get(&self.status().conditions, CHANGED)?;
        Some(&condition.message)
    }

    /// Until nothing goes on any more.
    pub(super) fn run(&mut self) -> &mut Self {
        for number in 0..400 {
            self.turn(number);
            if matches!(self.phase(), Succeeded | Failed) {
                // It lets go of the object.
                self.turn(1 - self.lost.unwrap_or(0));
                return self;
            }
        }
        panic!("it never ends: {:?}, {}", self.phases, self.message());
    }

    /// The old cluster runs as before, and nobody holds the object.
    pub(super) fn is_as_before(&self) {
        assert_eq!(self.phase(), Failed, "{:?}", self.phases);
        assert_eq!((self.set_replicas(), self.swapped), (3, [false; 3]), "{}", self.message());
        assert_eq!(self.seen.deployment, Some(Replicas { wanted: 1, there: 1 }));
        assert_eq!(self.restore.metadata.finalizers, None);
    }
}

pub(super) fn set_of(restore: &mut EtcdRestore) -> &mut StatefulSetTarget {
    restore.spec.target.stateful_set.as_mut().unwrap()
}

#[test]
fn a_cluster_is_brought_back_and_everything_is_remembered() {
    let mut world = World::of_set();
    set_of(&mut world.restore).suspend_deployment = Some("owner".to_owned());
    world.run();
    let expected = [Checking, Stopping, Building, Swapping, Starting, Verifying, Succeeded];
    assert_eq!(world.phases, expected);
    assert_eq!((world.set_replicas(), world.swapped), (3, [true; 3]));
    assert_eq!(world.seen.deployment, Some(Replicas { wanted: 1, there: 1 }));
    assert_eq!(world.restore.metadata.finalizers, None);
    let status = world.status();
    assert_eq!((status.restored_revision, status.hash_kv), (Some(1007), Some(5)));
    assert_eq!((status.run.as_deref(), status.replicas), (Some("0123456789"), Some(3)));
    assert!(world.message().contains("member.lifeboat-0123456789"), "{}", world.message());
}

#[test]
fn an_operator_that_is_killed_anywhere_is_followed_by_one_that_goes_on() {
    for lost in [0, 1] {
        let mut world = World::of_set();
        set_of(&mut world.restore).suspend_deployment = Some("owner".to_owned());
        world.lost = Some(lost);
        world.run();
        assert_eq!((world.phase(), world.set_replicas()), (Succeeded, 3));
        assert_eq!(world.seen.deployment, Some(Replicas { wanted: 1, there: 1 }));

        let mut world = World::of_set();
        set_of(&mut world.restore).suspend_deployment = Some("owner".to_owned());
        world.failing = Some((Step::Swap, 1));
        world.lost = Some(lost);
        world.run().is_as_before();
    }
}

#[test]
fn nothing_begins_before_it_is_confirmed_by_name() {
    for (confirm, told) in
        [(None, "until spec.confirm is \"etcd\""), (Some("prod"), "spec.confirm is \"prod\"")]
    {
        let mut world = World::of_set();
        world.restore.spec.confirm = confirm.map(str::to_owned);
        (0..3).for_each(|number| world.turn(number));
        assert_eq!((world.phase(), world.set_replicas()), (Pending, 3));
        assert!(world.message().contains(told), "{}", world.message());
        let shown = world.restore.status.as_ref().and_then(|status| status.revision);
        assert_eq!(shown, confirm.is_none().then_some(7), "who confirms sees what is taken");
        assert_eq!(world.message().contains(", revision 7"), confirm.is_none());
        assert_eq!(world.restore.metadata.finalizers, None);
        world.restore.spec.confirm = Some("etcd".to_owned());
        world.run();
        assert_eq!(world.phase(), Succeeded);
    }
}

#[test]
fn two_restores_of_one_target_take_turns() {
    let mut world = World::of_set();
    world.seen.other = Some("first".to_owned());
    (0..3).for_each(|number| world.turn(number));
    assert_eq!(world.phase(), Pending);
    assert!(world.message().contains("EtcdRestore first"), "{}", world.message());
    world.seen.other = None;
    world.run();
    assert_eq!(world.phase(), Succeeded);
}

#[test]
fn what_cannot_be_restored_is_refused_before_anything_is_changed() {
    type Change = fn(&mut World);
    let cases: [(Change, &str); 9] = [
        (|w| w.seen.set = Some(StatefulSet { spec: None, ..samples::set() }), "no spec"),
        (
            |w| set_of(&mut w.restore).data_dir = Some("/elsewhere".to_owned()),
            "spec.target.statefulSet.dataDir",
        ),
        (
            |w| set_of(&mut w.restore).container = Some("web".to_owned()),
            "spec.target.statefulSet.container",
        ),
        (
            |w| {
                w.seen.claims.remove("data-etcd-1");
            },
            "no PersistentVolumeClaim \"data-etcd-1\"",
        ),
        (
            |w| {
                set_of(&mut w.restore).suspend_deployment = Some("owner".to_owned());
                w.seen.deployment = None;
            },
            "spec.target.statefulSet.suspendDeployment",
        ),
        (|w| set_of(&mut w.restore).members = members(2), "has 2 members"),
        (|w| w.seen.source = Some(Ok(Found::default())), "spec.target.statefulSet.members"),
        (
            |w| {
                let found = Found {
                    members: vec![Member { name: "m1".to_owned(), peer_urls: Vec::new() }],
                    ..Found::default()
                };
                w.seen.source = Some(Ok(found));
            },
            "the backup's members (m1) are not the pods (etcd-0, etcd-1, etcd-2)",
        ),
        (
            |w| w.seen.set.as_mut().unwrap().spec.as_mut().unwrap().replicas = Some(0),
            "spec.target.statefulSet.replicas",
        ),
    ];
    for (change, told) in cases {
        let mut world = World::of_set();
        change(&mut world);
        let replicas = world.seen.set.as_ref().map(wanted);
        // The world's own pods and replicas would need a spec.
        for _ in 0..3 {
            let decision = decide(&world.restore, &world.seen, world.now);
            assert!(decision.actions.iter().all(|action| matches!(action, Action::Hold(_))));
            world.restore.status = Some(decision.status);
        }
        assert_eq!(world.phase(), Failed, "{told}");
        assert!(world.message().contains(told), "{}", world.message());
        assert!(world.message().contains("nothing was changed"), "{}", world.message());
        assert_eq!(world.seen.set.as_ref().map(wanted), replicas);
    }
}

#[test]
fn a_store_that_does_not_answer_is_asked_again() {
    let mut world = World::of_set();
    let failure = Failure { reason: "StoreUnreachable", ..Failure::settings("no answer", "") };
    let source = world.seen.source.replace(Err(Unusable::Now(failure)));
    (0..5).for_each(|number| world.turn(number));
    assert_eq!(world.phase(), Checking);
    let told =
        "StoreUnreachable: no answer; nothing is changed, and it is looked at again every 20 s";
    assert_eq!(world.message(), told);
    world.seen.source = source;
    world.run();
    assert_eq!(world.phase(), Succeeded);
}

#[test]
fn members_of_other_names_are_taken_in_the_order_of_the_pods() {
    let mut world = World::of_set();
    let names = ["a", "b", "c"].map(str::to_owned);
    let member = |name: String| {
        let url = format!("http://{name}:2380");
        Member { name, peer_urls: vec![url] }
    };
    set_of(&mut world.restore).members = names.into_iter().map(member).collect();
    world.run();
    let found: Vec<_> =
        world.status().volumes.iter().map(|v| (v.member.as_str(), v.claim.as_str())).collect();
    assert_eq!(found, [("a", "data-etcd-0"), ("b", "data-etcd-1"), ("c", "data-etcd-2")]);
}

#[test]
fn a_step_that_fails_puts_the_old_data_back_and_says_why() {
    for (failing, reason) in [
        ((Step::Build, 2), "BuildFailed"),
        ((Step::Swap, 0), "SwapFailed"),
        ((Step::Swap, 2), "SwapFailed"),
    ] {
        let mut world = World::of_set();
        world.failing = Some(failing);
        world.run().is_as_before();
        let message = world.message();
        let expected =
            format!("{reason}: volume data-etcd-{}: no room; the old data are in place", failing.1);
        assert_eq!(message, expected);
        assert!(world.phases.contains(&RollingBack));
        assert!(
            world.status().volumes.iter().all(|volume| volume.phase == VolumePhase::RolledBack)
        );
    }
}

#[test]
fn a_cluster_that_does_not_start_or_is_not_as_planned_is_taken_back() {
    let mut world = World::of_set();
    world.starts = false;
    world.run().is_as_before();
    assert!(
        world.message().starts_with("NotStarted: after 300 s, 0 of 3 pods run"),
        "{}",
        world.message()
    );

    let mut world = World::of_set();
    world.faults = vec!["etcd-1: HashKV differs".to_owned()];
    world.run().is_as_before();
    let message = world.message();
    assert!(message.starts_with("NotVerified: after 300 s: etcd-1: HashKV differs"), "{message}");
}

#[test]
fn pods_that_do_not_end_are_not_waited_for_for_ever() {
    let mut world = World::of_set();
    world.until(Stopping);
    for _ in 0..200 {
        let decision = decide(&world.restore, &world.seen, world.now);
        world.restore.status = Some(decision.status);
        world.now += jiff::SignedDuration::from_secs(5);
        if world.phase() == RollingBack {
            break;
        }
    }
    assert!(world.message().contains("the end of etcd-0, etcd-1, etcd-2"), "{}", world.message());
    world.run().is_as_before();
    assert!(world.status().volumes.iter().all(|volume| volume.phase == VolumePhase::Untouched));
}

#[test]
fn a_pod_that_never_begins_is_not_waited_for_for_ever() {
    let mut world = World::of_set();
    world.until(Building);
    for index in 0..3 {
        world.seen.jobs.insert((Step::Build, index), waits("ErrImagePull"));
    }
    for _ in 0..200 {
        let decision = decide(&world.restore, &world.seen, world.now);
        world.restore.status = Some(decision.status);
        world.now += jiff::SignedDuration::from_secs(5);
    }
    assert_eq!(world.phase(), RollingBack);
    world.run().is_as_before();
    assert!(world.message().contains("ErrImagePull"), "{}", world.message());
    let untouched = |volume: &VolumeStatus| volume.phase == VolumePhase::Untouched;
    assert!(world.status().volumes.iter().all(untouched), "nothing was there to take back");
}

#[test]
fn whoever_scales_it_up_meanwhile_is_told_of_the_field_that_prevents_it() {
    for phase in [Building, Swapping] {
        let mut world = World::of_set();
        let mut number = 0;
        while world.phase() != phase {
            world.turn(number);
            number += 1;
        }
        world.done(Action::ScaleSet(3));
        world.goes_on();
        world.run().is_as_before();
        assert!(world.message().contains("suspendDeployment"), "{}", world.message());
    }
}

#[test]
fn an_object_that_is_deleted_meanwhile_puts_the_old_data_back_first() {
    for phase in [Stopping, Building, Swapping, Starting, Verifying] {
        let mut world = World::of_set();
        world.faults = vec!["not yet".to_owned()];
        let mut number = 0;
        while world.phase() != phase {
            world.turn(number);
            number += 1;
        }
        world.restore.metadata.deletion_timestamp = Some(Time(world.now));
        world.run().is_as_before();
    }
}

#[test]
fn an_undo_that_fails_is_tried_until_it_is_done() {
    let mut world = World::of_set();
    world.failing = Some((Step::Swap, 1));
    while world.phase() != RollingBack {
        world.turn(0);
    }
    world.failing = Some((Step::Undo, 0));
    let mut told = Vec::new();
    for number in 0..9 {
        world.turn(number);
        told.push(world.message());
    }
    assert_eq!(world.phase(), RollingBack);
    assert!(told.iter().any(|text| text.contains("it is tried again")), "{told:#?}");
    world.failing = None;
    world.run().is_as_before();
}

#[test]
fn last_words_that_were_lost_are_asked_for_again() {
    let mut world = World::of_set();
    world.until(Building);
    world.turn(0);
    world.seen.jobs.insert((Step::Build, 1), JobSeen::Succeeded(Answer::default()));
    world.run();
    assert_eq!(world.phase(), Succeeded);
}

#[test]
fn new_data_that_differ_are_not_put_in_place() {
    let mut world = World::of_set();
    world.until(Building);
    world.turn(0);
    let built = Some(Built { revision: 9, hash_kv: 9 });
    let other = Answer { built, ..Answer::default() };
    world.seen.jobs.insert((Step::Build, 1), JobSeen::Succeeded(other));
    world.run().is_as_before();
    assert!(world.message().contains("the source was changed"), "{}", world.message());
}

#[test]
fn a_volume_alone_is_written_only_while_nothing_uses_it() {
    for target in [
        serde_json::json!({ "pvc": { "claimName": "etcd", "members": [{ "name": "m1", "peerUrls": ["http://x:1"] }] } }),
        serde_json::json!({ "files": { "claimName": "etcd" } }),
    ] {
        let mut world = World::new(samples::restore(target.clone()));
        world.seen.claims.insert("etcd".to_owned());
        world.run();
        assert_eq!(world.phases, [Checking, Building, Succeeded]);

        let mut world = World::new(samples::restore(target.clone()));
        world.seen.claims.insert("etcd".to_owned());
        world.seen.users = vec!["pod web".to_owned()];
        world.run();
        assert_eq!(world.phases, [Checking, Failed]);
        assert!(world.message().contains("in use by pod web"), "{}", world.message());

        let mut world = World::new(samples::restore(target));
        world.seen.claims.insert("etcd".to_owned());
        world.failing = Some((Step::Build, 0));
        world.run();
        assert_eq!(world.phase(), Failed);
        assert!(world.message().contains("no room"), "{}", world.message());
    }
}
