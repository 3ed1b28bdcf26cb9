//! What `recover` refuses, before anything is stopped.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use testbed::{Etcd, Run, Security};

use crate::{Gate, Scene, Watched, is_step, lifeboat, tls};

/// The members run as they did: none was stopped and started.
#[track_caller]
fn untouched(scene: &Scene, since: &[u64]) {
    let now: Vec<u64> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();
    assert_eq!(now, since);
    scene.serves_the_old_data("after the backup");
}

#[test]
fn a_healthy_cluster_an_unconfirmed_name_and_unknown_host_keys_are_refused() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5).security(Security::Plain));
    let since: Vec<u64> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();

    scene.run().code_is(5).stderr_has(&["the cluster is healthy", "--even-though-healthy"]);
    untouched(&scene, &since);

    // Not even a command line that is complete but for `--yes` goes on without a terminal.
    let run = scene.run_over_the_living();
    let mut unconfirmed = Command::new(run.get_program());
    unconfirmed.args(run.get_args().filter(|argument| *argument != "--yes"));
    Run::of(&mut unconfirmed).code_is(5).stderr_has(&["--yes"]);
    untouched(&scene, &since);

    let known = std::fs::read_to_string(scene.hosts.known_hosts()).unwrap();
    std::fs::write(scene.hosts.known_hosts(), known.lines().next().unwrap()).unwrap();
    let refused = Run::of(&mut scene.run_over_the_living());
    refused.code_is(4).stderr_has(&["m2", "m3", "Host key verification failed"]);
    std::fs::write(scene.hosts.known_hosts(), known).unwrap();
    untouched(&scene, &since);

    scene.misplaced = Some(1);
    let data = scene.cluster.data_dir(1);
    let elsewhere = format!("m2: the etcd that runs there has its data in {data}, not in {data}-");
    let refused = Run::of(&mut scene.run_over_the_living()).code_is(5);
    refused.stderr_has(&[&elsewhere, "nothing was stopped"]);
    untouched(&scene, &since);
    // Of one that is dead it is seen when it has been started, and it is not waited for.
    scene.hosts[1].ssh("systemctl stop etcd");
    let run = Run::of(&mut scene.run_over_the_living()).code_is(3);
    run.stderr_has(&[&elsewhere, "take the run back, and correct etcd.data-dir"]);
    Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    scene.hosts[1].ssh("systemctl start --no-block etcd");
    scene.serves_the_old_data("after the backup");
    scene.misplaced = None;
    let since: Vec<u64> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();

    scene.hosts[1].change_host_key();
    let refused = Run::of(&mut scene.run_over_the_living());
    refused.code_is(4).stderr_has(&["m2", "Host key verification failed"]);
    let now = scene.hosts[0].active_since("etcd");
    assert_eq!(now, since[0]);
}

/// Goal: nobody disturbs a run, and one that is cut off at its very end keeps no host from others. Method: it is stopped
/// in its middle, and meanwhile others are begun, from the same machine and from one that knows nothing of it; then it
/// cannot remove the lock of one host.
#[test]
fn hosts_are_held_for_one_run_until_it_has_let_them_go() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5));
    scene.lose_all_members();
    let mut first = Watched::start(&mut scene.recover("run", [""; 0]));
    let locked = first.wait_for(|line| is_step(line) && line.contains("Put the new data"));
    assert!(locked.is_some());
    let id = Pid::from_raw(i32::try_from(first.child.id()).unwrap()).unwrap();
    kill_process(id, Signal::STOP).unwrap();

    let run = only_run(&scene);
    let pid = format!("pid {}", first.child.id());
    let busy = format!("another run for prod goes on here: run {run}, {pid}, since ");
    scene.run().code_is(5).stderr_has(&[&busy]);
    let here = std::mem::replace(&mut scene.state_dir, scene.hosts.folder().join("elsewhere"));
    let stranger = scene.run();
    scene.state_dir = here;
    let rm = "/usr/local/bin/rm";
    scene.hosts[1].write_script(
        rm,
        "#!/bin/sh\ncase \"$*\" in *.lock) echo 'not now' >&2; exit 1 ;; esac\nexec /usr/bin/rm \"$@\"\n",
    );
    kill_process(id, Signal::CONT).unwrap();
    let held = format!("m1, m2, m3: held by the run {run} of cluster prod, begun 2");
    let adopt = format!("recover adopt {} {run} --state-dir", scene.spec().display());
    stranger.code_is(5).stderr_has(&[&held, &pid, &adopt]);
    // Here it is known what can be done about it.
    let finish = format!("recover run {} --state-dir", scene.spec().display());
    Run::of(&mut scene.recover("plan", [""; 0])).code_is(5).stderr_has(&["begun here", &finish]);

    first.end().code_is(1).stderr_has(&["let the hosts go", "m2", "not now"]);
    scene.hosts[1].ssh(&format!("/usr/bin/rm {rm}"));
    scene.more_etcd = "  owner: root:root\n".to_owned();
    let changed = "m1: etcd.owner was not said, and is \"root:root\"";
    let back = format!("recover rollback {run}");
    scene.run().code_is(5).stderr_has(&["the cluster's file has changed", changed, &back]);
    scene.more_etcd.clear();
    scene.run().ok().stderr_has(&["going on with run"]);
    scene.serves_the_backup();
    // Another may begin, but for the cluster that is back.
    Run::of(&mut scene.recover("plan", [""; 0])).ok();
    // A host that a run holds which has ended is free, as soon as somebody asks.
    let lock = "/var/lib/lifeboat/recover/m2.lock";
    scene.hosts[1].write(lock, format!("{run}\n"));
    scene.run().code_is(5).stderr_has(&["held hosts still", "the cluster is healthy"]);
    assert!(!scene.hosts[1].path(lock).exists());
}

/// The run that this machine knows.
#[track_caller]
pub(crate) fn only_run(scene: &Scene) -> String {
    let entries = std::fs::read_dir(scene.state_dir.join("recover")).unwrap();
    let folders = entries.map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
    let runs: Vec<_> = folders.map(|run| run.file_name().into_string().unwrap()).collect();
    let [run] = runs.as_slice() else { panic!("{runs:?}") };
    run.clone()
}

/// Goal: a machine that is lost costs nothing but its run's name. Method: a run is stopped in its middle, and taken back
/// from elsewhere while its process is only asleep; another one is killed there, finished from elsewhere, and made final
/// from a third machine.
#[test]
fn a_run_whose_machine_is_gone_is_taken_back_or_finished_from_another() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5).security(Security::Plain));
    let machine = |scene: &Scene, name: &str| scene.hosts.folder().join(name);
    let first = scene.state_dir.clone();
    let old_data = format!("'{} '*", scene.cluster.data_dir(0));
    let aside = Gate::before(&scene.hosts[0], "mv", &old_data);
    let mut asleep = Watched::start(&mut scene.run_over_the_living());
    assert!(asleep.wait_for(|line| is_step(line) && line.contains("Set the old data")).is_some());
    aside.wait();
    let id = Pid::from_raw(i32::try_from(asleep.child.id()).unwrap()).unwrap();
    kill_process(id, Signal::STOP).unwrap();
    aside.open();
    let run = only_run(&scene);

    scene.state_dir = machine(&scene, "second");
    let nobody = Run::of(&mut scene.recover("rollback", [""; 0])).code_is(1);
    nobody.stderr_has(&["there is no run prod", "recover adopt"]);
    let who = Run::of(&mut scene.recover("adopt", [""; 0])).ok();
    let holds = format!("pid {} holds m1, m2, m3", asleep.child.id());
    assert!(who.stdout.contains(&run) && who.stdout.contains(&holds), "{who}");
    let other = Run::of(&mut scene.recover("adopt", ["20200101t000000-0000"])).code_is(5);
    let other = other.stderr_has(&[&run]);
    assert!(!other.stderr.contains("\n\n"), "{other}");
    scene.more_etcd = "  owner: root:root\n".to_owned();
    let of_prod = std::fs::read_to_string(scene.spec()).unwrap();
    let of_other = scene.hosts.folder().join("other.yaml");
    std::fs::write(&of_other, of_prod.replace("cluster: prod", "cluster: other")).unwrap();
    let mut other = lifeboat().command(["recover", "adopt"]);
    other.arg(&of_other).arg(&run).arg("--state-dir").arg(&scene.state_dir);
    Run::of(&mut other).code_is(5).stderr_has(&["is of cluster prod, not other"]);
    let kept = format!("below `spec:` in {}:", scene.hosts[0].address());
    let changed = ["the cluster's file has changed", "m1: etcd.owner", &kept];
    Run::of(&mut scene.recover("adopt", [&run])).code_is(5).stderr_has(&changed);
    scene.more_etcd.clear();
    let back = format!("recover rollback {run}");
    // One host is away: what it may have done, a rollback takes back when it is there again.
    scene.hosts[1].cut_network();
    let adopted = Run::of(&mut scene.recover("adopt", [&run, "--patience", "0"])).ok();
    let away = ["m2: root@", "cannot be reached", "what was done on m2 is not known", &back];
    adopted.stderr_has(&away);
    scene.hosts[1].restore_network();
    kill_process(id, Signal::CONT).unwrap();
    asleep.end().code_is(1).stderr_has(&["not held by this process any more"]);
    Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    scene.serves_the_old_data("after the backup");
    let nothing = Run::of(&mut scene.recover("adopt", [""; 0])).code_is(1);
    nothing.stderr_has(&["no run holds these hosts"]);
    let since: Vec<_> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();
    let ours = Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    ours.stderr_has(&["was taken back before"]);
    // Where it was begun it is unfinished still, for all that this machine knew.
    scene.state_dir = first;
    let over = Run::of(&mut scene.run_over_the_living()).code_is(5);
    over.stderr_has(&[&run, "was taken back, 2", " by ", "begins anew"]);
    let nothing = Run::of(&mut scene.recover("commit", [""; 0])).code_is(5);
    nothing.stderr_has(&["was taken back", "there is nothing to commit"]);
    untouched(&scene, &since);

    scene.state_dir = machine(&scene, "third");
    let mut killed = Watched::start(&mut scene.run_over_the_living());
    assert!(killed.wait_for(|line| is_step(line) && line.contains("Start all members")).is_some());
    killed.kill();
    killed.end();
    let run = only_run(&scene);
    scene.state_dir = machine(&scene, "fourth");
    Run::of(&mut scene.recover("adopt", [&run])).ok();
    scene.state_dir = machine(&scene, "third");
    let there = |scene: &Scene, command| {
        let refused = Run::of(&mut scene.recover(command, [""; 0])).code_is(5);
        refused.stderr_has(&[&run, "was taken over, 2", &format!("adopt CLUSTER.yaml {run}")]);
    };
    for command in ["rollback", "commit"] {
        there(&scene, command);
    }
    Run::of(&mut scene.run_over_the_living()).code_is(5).stderr_has(&["was taken over, 2"]);
    // And back, as whoever is told how to do it may.
    Run::of(&mut scene.recover("adopt", [&run])).ok();
    scene.state_dir = machine(&scene, "fourth");
    there(&scene, "rollback");
    Run::of(&mut scene.recover("adopt", [&run])).ok();
    Run::of(&mut scene.run_over_the_living()).ok().stderr_has(&["going on with run"]);
    scene.serves_the_backup();
    scene.state_dir = machine(&scene, "third");
    there(&scene, "rollback");
    let status = Run::of(&mut scene.recover("status", [""; 0])).ok();
    assert!(status.stdout.contains("prod: taken over"), "{status}");

    scene.state_dir = machine(&scene, "fifth");
    let finished = Run::of(&mut scene.recover("adopt", [&run])).ok();
    finished.stderr_has(&["was neither committed nor taken back", "recover commit"]);
    scene.state_dir = machine(&scene, "fourth");
    there(&scene, "commit");
    scene.state_dir = machine(&scene, "fifth");
    Run::of(&mut scene.recover("commit", [""; 0])).ok();
    scene.serves_the_backup();
    scene.state_dir = machine(&scene, "fourth");
    let late = Run::of(&mut scene.recover("rollback", [""; 0])).code_is(5);
    late.stderr_has(&["was committed, 2"]);
}

/// Goal: a run that another one followed stops nothing. Method: the second is begun on a machine that knows nothing of
/// the first.
#[test]
fn a_run_that_a_later_one_followed_is_not_taken_back_before_it() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5));
    // A third one has planned, and is asleep until the first has ended: what it has planned is not true any more.
    let here = std::mem::replace(&mut scene.state_dir, scene.hosts.folder().join("asleep"));
    let before_its_claim = |host| Gate::before(host, "mv", "*/plan.yaml.part*");
    let gates: Vec<_> = scene.hosts.iter().map(before_its_claim).collect();
    let asleep = Watched::start(&mut scene.run_over_the_living());
    gates.iter().for_each(Gate::wait);
    gates.iter().for_each(Gate::hold_no_more);
    scene.state_dir = here.clone();
    Run::of(&mut scene.run_over_the_living()).ok();
    let first = only_run(&scene);
    gates.into_iter().for_each(Gate::open);
    let outrun = asleep.end().code_is(5);
    outrun.stderr_has(&["another run has put its data there", &first, "is dropped"]);
    let mut unknown = lifeboat().command(["recover", "commit", "PROD", "--state-dir"]);
    let unknown = Run::of(unknown.arg(&scene.state_dir)).code_is(1);
    unknown.stderr_has(&["no run or cluster PROD", &format!("{first} of cluster prod")]);
    scene.state_dir = scene.hosts.folder().join("elsewhere");
    let warning = format!(
        "warning: m1, m2, m3: the data in place are those of run {first} of cluster prod, begun 2"
    );
    let kept = format!(
        "never committed or taken back; its old data stay where they are (m1: {}.lifeboat-{first}, ",
        scene.cluster.data_dir(0)
    );
    let run = Run::of(&mut scene.run_over_the_living()).ok();
    run.stderr_has(&[&warning, &kept, "can no longer be rolled back or committed"])
        // It has raised the revision by a billion, which is no loss.
        .stderr_has(&["but the cluster was recovered since the backup"]);
    let second = only_run(&scene);
    Run::of(&mut scene.recover("adopt", [&first])).code_is(5).stderr_has(&[&second]);
    let there = std::mem::replace(&mut scene.state_dir, here);

    let since: Vec<_> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();
    for command in ["rollback", "commit"] {
        let refused = Run::of(&mut scene.recover(command, [""; 0]));
        refused.code_is(5).stderr_has(&["m1, m2, m3", "later run", &second, "help: "]);
    }
    let now: Vec<_> = scene.hosts.iter().map(|host| host.active_since("etcd")).collect();
    assert_eq!(now, since, "nothing was stopped");
    scene.serves_the_backup();

    let ours = Run::of(&mut scene.recover("adopt", [""; 0])).ok();
    assert!(!ours.stderr.contains("of this machine"), "{ours}");
    let here = std::mem::replace(&mut scene.state_dir, there);
    let ours = Run::of(&mut scene.recover("adopt", [""; 0])).ok();
    ours.stderr_has(&["of this machine", &format!("recover commit {second}")]);
    for state_dir in [scene.state_dir.clone(), here] {
        scene.state_dir = state_dir;
        Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    }
    scene.serves_the_old_data("after the backup");
}

#[test]
fn a_run_that_has_changed_nothing_is_dropped_and_starts_nothing() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5));
    scene.lose_all_members();

    // What can be known without a run does not begin one.
    let folder = scene.hosts.folder().to_str().unwrap().to_owned();
    for command in ["plan", "run"] {
        let refused = Run::of(&mut scene.recover(command, ["--backup", &folder])).code_is(1);
        assert_eq!(refused.stdout, "");
        refused.stderr_has(&["holds no backup"]);
        for text in ["", "hosts: []\n"] {
            let other = format!("{folder}/other");
            std::fs::write(&other, text).unwrap();
            let refused = Run::of(&mut scene.recover(command, ["--backup", &other])).code_is(3);
            assert_eq!(refused.stdout, "");
            refused.stderr_has(&["other cannot be read as a database", "help: "]);
        }
        let unknown = Run::of(&mut scene.recover(command, ["--from-member", "m9"])).code_is(2);
        unknown.stderr_has(&["has no m9", "m1, m2, m3"]);
    }
    scene.more_etcd = "  version: '3.6'\n".to_owned();
    scene.run().code_is(5).stderr_has(&["etcd.version says 3.6, but etcd on m1, m2, m3 is 3.5."]);
    scene.more_etcd.clear();
    Run::of(&mut scene.recover("rollback", [""; 0])).code_is(1).stderr_has(&["there is no run"]);

    let good = std::fs::read(scene.snapshot()).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle..middle + 4].iter_mut().for_each(|byte| *byte ^= 0x5A);
    std::fs::write(scene.snapshot(), bad).unwrap();
    scene.run().code_is(3).stderr_has(&["is dropped", "another snapshot"]);
    std::fs::write(scene.snapshot(), good).unwrap();

    // The program on the hosts is looked at before a run is begun, and then again: that fails.
    let shell = "/usr/local/bin/sh";
    scene.hosts[0].write_script(
        shell,
        "#!/bin/dash\n[ \"$*\" = -s ] || exec /bin/sh \"$@\"\nscript=$(cat)\n\
         case $script in *'recover digest'*) mkdir /run/looked-at 2>/dev/null || exit 1 ;; esac\n\
         printf '%s\\n' \"$script\" | /bin/sh -s\n",
    );
    scene.run().code_is(1).stderr_has(&["m1", "is dropped"]);
    scene.hosts[0].ssh(&format!("rm {shell}"));
    let dropped = Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    dropped.stderr_has(&["was taken back before"]);
    assert!(scene.hosts.iter().all(|host| !host.is_active("etcd")));
    scene.run().ok();
    scene.serves_the_backup();
}
