//! Networks and disks that fail while data are on their way: before anything was stopped, so nothing is lost.

use testbed::{Etcd, Run};

use crate::{Gate, Scene, Watched, is_step, tls};

/// Stands before the `rm` that makes way for what arrives on a host: once, when the `db` comes, it does something more. The stream
/// is its standard input too.
#[track_caller]
fn once_while_the_db_arrives(scene: &Scene, index: usize, fault: &str) {
    scene.hosts[index].write_script(
        "/usr/local/bin/rm",
        &format!(
            "#!/bin/sh\ncase \"$2\" in */snap/db.part*) if mkdir /run/fault 2>/dev/null; then\n\
             {fault}\nfi ;; esac\nexec /usr/bin/rm \"$@\"\n"
        ),
    );
}

#[track_caller]
fn etcd_still_runs(scene: &Scene) {
    assert!(scene.hosts.iter().all(|host| host.is_active("etcd")));
    scene.serves_the_old_data("after the backup");
}

/// Overwrites what was built, as a power cut does with what was not yet on the disk.
#[track_caller]
fn damage_what_was_built(scene: &Scene) {
    let runs = scene.state_dir.join("recover");
    let built = runs.read_dir().unwrap().map(|run| run.unwrap().path().join("build/db.zst"));
    let built = built.into_iter().find(|file| file.exists()).unwrap();
    let len = std::fs::metadata(&built).unwrap().len();
    std::fs::write(&built, vec![0; usize::try_from(len).unwrap()]).unwrap();
}

/// Goal: whatever damages the data before they are on the hosts, the run comes to its end by itself. Method: one host gets a part,
/// one loses its connection, and what was built is damaged between two parts of the run.
#[test]
fn what_is_damaged_or_cut_off_on_its_way_is_sent_again() {
    let scene = Scene::without_clients(tls(Etcd::V3_5));
    let before_the_claim = Gate::before(&scene.hosts[0], "mv", "*/plan.yaml.part*");
    let mut first = Watched::start(&mut scene.run_over_the_living());
    before_the_claim.wait();
    first.kill();
    first.end();
    before_the_claim.open();
    damage_what_was_built(&scene);
    once_while_the_db_arrives(&scene, 0, "head -c 1000 >/dev/null");
    once_while_the_db_arrives(
        &scene,
        1,
        "head -c 1000 >/dev/null; pkill -KILL -f 'sshd: root@notty'; exit 1",
    );
    let run = Run::of(&mut scene.run_over_the_living()).ok();
    let run = run.stderr_has(&["db.zst is not what was built any more: all is built again"]);
    for again in ["m1: what arrived of", "m2: "] {
        let told =
            run.stderr.lines().any(|line| line.contains(again) && line.contains("trying again"));
        assert!(told, "{again}\n{run}");
    }
    scene.serves_the_backup();
}

#[test]
fn a_disk_that_is_full_before_or_while_data_arrive_stops_the_run_and_not_etcd() {
    let scene = Scene::without_clients(tls(Etcd::V3_5));
    Run::of(&mut scene.recover("plan", ["--ask"])).ok();
    // etcd itself needs a little.
    scene.hosts[2].fill_disk(4 << 20);
    let refused = Run::of(&mut scene.run_over_the_living()).code_is(5);
    refused.stderr_has(&["m3", "bytes are free", "nothing was stopped"]);
    etcd_still_runs(&scene);
    scene.hosts[2].empty_disk();

    once_while_the_db_arrives(
        &scene,
        1,
        "fallocate -l $(($(df --output=avail --block-size=1 / | tail -n 1) - 65536)) /var/filler",
    );
    let mut run = Watched::start(&mut scene.run_over_the_living());
    assert!(run.wait_for(|line| is_step(line) && line.contains("Put the new data")).is_some());
    let full = run.end().code_is(1).stderr_has(&["m2", "No space left on device"]);
    assert!(!full.stderr.contains("Stop etcd"), "{full}");
    scene.hosts[1].empty_disk();
    etcd_still_runs(&scene);

    // The same command goes on from there.
    Run::of(&mut scene.run_over_the_living()).ok().stderr_has(&["going on with run"]);
    scene.serves_the_backup();
}
