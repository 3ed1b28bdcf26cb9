//! That nobody's etcd is harmed: by objects that are changed meanwhile, by two at once, by pods that do not start.

use super::{
    tests::{RUNS, World, members, set_of, waits},
    *,
};
use crate::{
    api::{JobOptions, VolumePhase, VolumeStatus},
    restore::samples,
};
use serde_json::json;

fn job_of(image: &str) -> JobOptions {
    JobOptions { image: Some(image.to_owned()), ..JobOptions::default() }
}

fn target_of(world: &World) -> String {
    begun::as_begun(&world.restore).spec.target.stateful_set.unwrap().name
}

fn undone(world: &World) -> bool {
    world.seen.jobs.keys().any(|(step, _)| *step == Step::Undo)
}

#[test]
fn what_is_changed_after_the_beginning_is_ignored_and_told() {
    for phase in [Stopping, Building, Swapping, Starting, Verifying, RollingBack, Succeeded] {
        let mut world = World::of_set();
        if phase == RollingBack {
            world.failing = Some((Step::Swap, 1));
        }
        world.until(phase);
        set_of(&mut world.restore).name = "victim".to_owned();
        world.restore.spec.confirm = None;
        world.turn(0);
        assert_eq!(target_of(&world), "etcd");
        let told = world.changed().unwrap();
        assert!(told.starts_with("spec.target, spec.confirm was changed after"), "{told}");

        set_of(&mut world.restore).name = "etcd".to_owned();
        world.restore.spec.confirm = Some("etcd".to_owned());
        world.turn(0);
        assert_eq!(world.changed(), None, "it was changed back");
    }
}

#[test]
fn how_pods_run_and_how_long_is_waited_may_be_changed_meanwhile() {
    let mut world = World::of_set();
    world.until(Building);
    world.restore.spec.job = Some(job_of("good:1"));
    world.restore.spec.ready_seconds = 7;
    let now = begun::as_begun(&world.restore).spec;
    assert_eq!((now.job, now.ready_seconds), (Some(job_of("good:1")), 7));
    world.run();
    assert_eq!((world.phase(), world.changed()), (Succeeded, None));
}

#[test]
fn an_object_that_is_changed_when_it_has_been_refused_says_that_it_has_ended() {
    let mut world = World::of_set();
    set_of(&mut world.restore).container = Some("web".to_owned());
    world.until(Failed);
    world.restore.metadata.generation = Some(2);
    world.turn(0);
    assert!(world.changed().unwrap().contains("make another EtcdRestore"));
}

#[test]
fn another_target_needs_another_confirmation_as_long_as_nothing_was_stopped() {
    type Change = fn(&mut EtcdRestore);
    let changes: [Change; 2] = [
        |restore| set_of(restore).name = "victim".to_owned(),
        |restore| restore.spec.confirm = None,
    ];
    for change in changes {
        let mut world = World::of_set();
        world.until(Checking);
        change(&mut world.restore);
        (0..5).for_each(|number| world.turn(number));
        assert_eq!((world.phase(), world.set_replicas()), (Pending, 3));
        assert!(world.message().starts_with("NotConfirmed"), "{}", world.message());
    }
}

#[test]
fn who_finds_another_at_work_while_it_looks_stops_nothing() {
    let mut world = World::of_set();
    world.until(Checking);
    world.seen.other = Some("twin".to_owned());
    (0..9).for_each(|number| world.turn(number));
    assert_eq!((world.phase(), world.set_replicas()), (Checking, 3));
    assert!(world.message().starts_with("Waiting: EtcdRestore twin"), "{}", world.message());
    assert!(!holds(Checking), "and is in nobody's way");
    world.seen.other = None;
    world.run();
    assert_eq!(world.phase(), Succeeded);
}

#[test]
fn a_source_that_can_never_be_is_refused() {
    let mut world = World::of_set();
    let failure = Failure { reason: "BackupMissing", ..Failure::settings("no such", "name one") };
    world.seen.source = Some(Err(Unusable::Ever(failure)));
    world.run();
    assert_eq!(world.message(), "BackupMissing: no such; name one; nothing was changed");
}

#[test]
fn etcd_is_not_stopped_before_a_pod_has_had_everything_but_the_volume() {
    let mut world = World::of_set();
    world.until(Checking).turn(0);
    world.seen.jobs.insert((Step::Probe, 0), waits("ImagePullBackOff"));
    (0..9).for_each(|number| world.turn(number));
    assert_eq!((world.phase(), world.set_replicas()), (Checking, 3));
    assert!(world.message().contains("ImagePullBackOff"), "{}", world.message());

    // Its image is corrected.
    let mut mended = world.clone();
    mended.seen.outdated.insert((Step::Probe, 0));
    mended.run();
    assert_eq!(mended.phase(), Succeeded);

    for number in 0..200 {
        world.turn(number);
    }
    assert_eq!((world.phase(), world.set_replicas()), (Failed, 3));
    assert!(world.message().starts_with("ProbeFailed"), "{}", world.message());

    let mut world = World::of_set();
    world.failing = Some((Step::Probe, 0));
    world.run();
    assert_eq!((world.phase(), world.set_replicas()), (Failed, 3));
    assert!(world.message().contains("no room; nothing was changed"), "{}", world.message());
}

#[test]
fn another_source_is_looked_at_by_another_pod() {
    let mut world = World::of_set();
    world.until(Checking);
    world.turn(0);
    world.seen.jobs.insert((Step::Probe, 0), JobSeen::Succeeded(Answer::default()));
    let url = Some("s3://b/other.db".to_owned());
    let source = RestoreSource { url, ..RestoreSource::default() };
    world.seen.source = Some(Ok(Found { source, members: members(3), ..Found::default() }));
    let decision = decide(&world.restore, &world.seen, world.now);
    assert!(decision.actions.contains(&Action::Remove(Step::Probe, 0)), "{:?}", decision.actions);
    assert_eq!(decision.status.phase, Some(Checking));
}

#[test]
fn a_job_whose_pod_has_not_begun_is_made_anew_when_it_was_corrected_and_else_goes_on() {
    let mut world = World::of_set();
    world.until(Building);
    world.turn(0);
    for index in 0..3 {
        world.seen.outdated.insert((Step::Build, index));
    }
    world.seen.jobs.insert((Step::Build, 0), waits("ImagePullBackOff"));
    world.seen.jobs.insert((Step::Build, 1), RUNS);
    let decision = decide(&world.restore, &world.seen, world.now);
    let removed = |n| decision.actions.contains(&Action::Remove(Step::Build, n));
    assert_eq!([removed(0), removed(1), removed(2)], [true, false, false]);
}

#[test]
fn where_no_pod_has_begun_nothing_is_taken_back_and_etcd_starts_at_once() {
    let mut world = World::of_set();
    world.until(Building);
    (0..3).for_each(|n| drop(world.seen.jobs.insert((Step::Build, n), waits("ImagePullBackOff"))));
    world.restore.metadata.deletion_timestamp = Some(Time(world.now));
    world.run().is_as_before();
    assert!(!undone(&world));
}

#[test]
fn a_pod_that_would_only_clear_up_keeps_nobody_from_starting_etcd() {
    for cannot in [waits("ImagePullBackOff"), JobSeen::Failed("no right".to_owned())] {
        let mut world = World::of_set();
        world.failing = Some((Step::Build, 1));
        world.until(RollingBack);
        for _ in 0..60 {
            for index in 0..3 {
                let place = (Step::Undo, index);
                if world.seen.jobs.contains_key(&place) {
                    world.seen.jobs.insert(place, cannot.clone());
                }
            }
            let decision = decide(&world.restore, &world.seen, world.now);
            world.restore.status = Some(decision.status.clone());
            for action in decision.actions {
                if let Action::Start(step, index) = action {
                    world.seen.jobs.insert((step, index), cannot.clone());
                } else {
                    world.done(action);
                }
            }
            world.now += jiff::SignedDuration::from_secs(5);
        }
        world.run().is_as_before();
        let left = |volume: &VolumeStatus| volume.phase == VolumePhase::Left;
        assert!(world.status().volumes.iter().any(left));
        assert!(
            world.message().contains("remove member.lifeboat-0123456789*"),
            "{}",
            world.message()
        );
    }
}

#[test]
fn data_that_have_changed_places_are_put_back_however_long_it_takes() {
    let mut world = World::of_set();
    world.failing = Some((Step::Swap, 2));
    world.until(RollingBack);
    world.failing = None;
    world.turn(0);
    (0..3).for_each(|n| drop(world.seen.jobs.insert((Step::Undo, n), waits("ImagePullBackOff"))));
    for _ in 0..500 {
        let decision = decide(&world.restore, &world.seen, world.now);
        assert!(!decision.actions.contains(&Action::ScaleSet(3)), "{:?}", decision.actions);
        world.restore.status = Some(decision.status);
        world.now += jiff::SignedDuration::from_secs(5);
    }
    assert_eq!(world.phase(), RollingBack);
}

#[test]
fn a_member_that_is_not_called_as_its_pod_calls_etcd_is_refused() {
    let mut world = World::of_set();
    let set = world.seen.set.as_mut().unwrap().spec.as_mut().unwrap();
    let container = &mut set.template.spec.as_mut().unwrap().containers[0];
    container.command.as_mut().unwrap().push("--name=$(POD_NAME)".to_owned());
    let mut right = world.clone();
    let mut wrong = members(3);
    wrong[1].name = "q".to_owned();
    set_of(&mut world.restore).members = wrong;
    world.run();
    assert_eq!(world.phase(), Failed);
    assert!(world.message().contains("pod etcd-1 runs etcd as \"etcd-1\""), "{}", world.message());
    right.run();
    assert_eq!(right.phase(), Succeeded);
}

#[test]
fn members_of_no_cluster_are_refused_before_anything_is_stopped() {
    let mut world = World::of_set();
    let mut wrong = members(3);
    wrong[2].name = "../a=b,c".to_owned();
    set_of(&mut world.restore).members = wrong.clone();
    world.run();
    assert_eq!((world.phase(), world.set_replicas()), (Failed, 3));
    assert!(world.message().contains("statefulSet.members[2].name"), "{}", world.message());

    let target = json!({ "pvc": { "claimName": "etcd", "members": wrong } });
    let mut world = World::new(samples::restore(target));
    world.seen.claims.insert("etcd".to_owned());
    world.run();
    assert_eq!(world.phases, [Checking, Failed]);
    assert!(world.message().contains("spec.target.pvc.members[2].name"), "{}", world.message());
}

#[test]
fn who_confirms_is_told_what_becomes_of_what_is_there() {
    for (target, told) in [
        (json!({ "files": { "claimName": "etcd" } }), "nothing that lies there is overwritten"),
        (
            json!({ "pvc": { "claimName": "etcd", "members": members(1) } }),
            "nothing that lies there is overwritten",
        ),
    ] {
        let mut world = World::new(samples::restore(target));
        world.restore.spec.confirm = None;
        world.turn(0);
        assert!(world.message().contains(told), "{}", world.message());
        assert_eq!(world.status().target.as_deref(), Some("persistentvolumeclaim/etcd"));
    }
    let mut world = World::of_set();
    world.restore.spec.confirm = None;
    world.turn(0);
    assert!(world.message().contains("gives way to the backup"), "{}", world.message());
}
