//! `--from-member`: quorum is lost, and one member's data directory, or two, hold more than the backup.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use testbed::{Etcd, Hosts, Run, until};

use crate::killed::{kill_after, kills};
use crate::{BACKED_UP, GENERATION, Random, Scene, Watched, is_step, tls};

impl Scene {
    /// Writes what the backup has not, and wants it back; m2 has it, too.
    #[track_caller]
    fn write_more(&mut self) {
        let client = self.cluster.client();
        for number in 0..40 {
            client.put(&format!("after the backup/{number}"), "only members have it");
        }
        self.revision = client.revision();
        self.keys = client.keys_at(self.revision);
        // A majority has agreed on it, of which m2 need not be. It answers when it has all.
        until(
            "all that was written, from m2",
            || (client.try_etcdctl_at(1, ["get", GENERATION]).code == Some(0)).then_some(()),
            || client.try_etcdctl(["endpoint", "status"]).to_string(),
        );
    }

    /// A member dies, and its disk with it.
    #[track_caller]
    fn lose_with_data(&self, index: usize) {
        self.kill(index);
        self.hosts[index].ssh(&format!("rm -rf {}", self.cluster.data_dir(index)));
    }

    /// A member dies in the middle of its work.
    #[track_caller]
    fn kill(&self, index: usize) {
        self.hosts[index].ssh("systemctl kill --signal=KILL etcd; systemctl stop etcd");
    }

    fn run_from(&self, member: &str) -> Command {
        self.recover("run", ["--from-member", member])
    }

    /// Makes every page of a member's database that has the first record unreadable.
    #[track_caller]
    fn flip_the_first_page(&self, index: usize) {
        const PAGE: usize = 4096;
        let db = self.hosts[index].path(self.cluster.data_dir(index)).join("member/snap/db");
        let mut bytes = fs::read(&db).unwrap();
        let found: Vec<_> = (0..bytes.len() / PAGE)
            .filter(|page| leaf_has(&bytes[page * PAGE..], BACKED_UP.as_bytes()))
            .collect();
        assert!(!found.is_empty());
        for page in found {
            // The page's own number.
            bytes[page * PAGE + 1] ^= 0x40;
        }
        // In place, as a running etcd has the file open.
        fs::write(&db, bytes).unwrap();
    }

    /// Nothing of a rescue lies beside the data directory; the old one of member 2 does, and has its database.
    #[track_caller]
    fn keeps_the_data_of_m2(&self) {
        let beside: Vec<_> = self.beside();
        let old: Vec<_> =
            beside.iter().filter(|path| path.join("member/snap/db").is_file()).collect();
        assert_eq!((beside.len(), old.len()), (1, 1), "{beside:?}");
    }
}

/// Whether the page is a leaf with that in one of its values, and not in bytes that an older page has left behind the last one.
fn leaf_has(page: &[u8], needle: &[u8]) -> bool {
    const LEAF: u16 = 2;
    let number = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap()) as usize;
    let [flags, count] = [8, 10].map(|at| u16::from_le_bytes([page[at], page[at + 1]]));
    flags == LEAF
        && (0..usize::from(count)).map(|n| 16 + 16 * n).any(|element| {
            let [offset, key, value] = [4, 8, 12].map(|at| number(element + at));
            let begin = element + offset + key;
            page.get(begin..begin + value)
                .is_some_and(|value| value.windows(needle.len()).any(|part| part == needle))
        })
}

/// The line of a comparison that begins so.
#[track_caller]
fn line<'t>(text: &'t str, begins: &str) -> &'t str {
    let found = text.lines().map(str::trim).find(|line| line.starts_with(begins));
    found.unwrap_or_else(|| panic!("no line begins with {begins:?} in\n{text}"))
}

/// Goal: what was written after the backup is not lost with two of three members, while the third still runs.
#[test]
fn a_member_of_3_5_that_runs_without_quorum_gives_all_that_the_backup_has_not() {
    let mut scene = Scene::new(tls(Etcd::V3_5));
    scene.write_more();
    let healthy = Run::of(&mut scene.run_from("m2")).code_is(5);
    healthy.stderr_has(&["the cluster is healthy", "there is nothing to rescue"]);
    scene.lose_with_data(0);
    scene.lose_with_data(2);
    assert!(scene.hosts[1].is_active("etcd"));

    // Without asking etcd, only ages are known; not that of a file, which may have been copied.
    let file = fs::File::options().write(true).open(scene.snapshot()).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
    let plan = Run::of(&mut scene.recover("plan", [""; 0])).ok();
    assert!(line(&plan.stdout, "* the backup").contains("file dated"), "{plan}");
    assert!(plan.stdout.contains("newer than the backup is not known"), "{plan}");
    assert!(line(&plan.stdout, "m2's data, etcd runs").contains("not known"), "{plan}");
    assert!(plan.stdout.contains("--from-member m2") && plan.stdout.contains("--ask"), "{plan}");

    let plan = Run::of(&mut scene.recover("plan", ["--ask"])).ok();
    let of_member = line(&plan.stdout, "m2's data, etcd runs");
    assert!(of_member.contains(&format!(" {} ", scene.revision)), "{plan}");
    assert!(line(&plan.stdout, "* the backup").contains("41 revisions that m2 has"), "{plan}");
    let offer = "Recommended: m2's data, newer than the backup by 41 revisions; to take them instead of the backup: --from-member m2";
    assert!(plan.stdout.contains(offer), "{plan}");

    let plan = Run::of(&mut scene.recover("plan", ["--from-member", "m2"])).ok();
    line(&plan.stdout, "* m2's data, etcd runs");
    line(&plan.stdout, "the backup");
    for part in ["Stop etcd on m2", "snapshot save", "beyond the commit"] {
        assert!(plan.stdout.contains(part), "{part}\n{plan}");
    }
    assert!(scene.hosts[1].is_active("etcd"), "a plan stops nothing");

    Run::of(&mut scene.recover("plan", ["--from-member", "m2", "--as-shell"])).code_is(2);

    // Everything is fetched by `cat`: this one is wrong once.
    scene.hosts[1].write_script(
        "/usr/local/bin/cat",
        "#!/bin/sh\ncase \"$1\" in *.snapshot) if mkdir /run/fault 2>/dev/null; then\n\
         tr v w <\"$1\"; exit\nfi ;; esac\nexec /usr/bin/cat \"$@\"\n",
    );
    let run = Run::of(&mut scene.run_from("m2")).ok();
    run.stderr_has(&["* m2's data, etcd runs", "m2's data: revision", "beyond the commit"])
        .stderr_has(&["m2: what arrived of", "trying again"]);
    scene.serves_the_backup();
    scene.clients_run();
    scene.keeps_the_data_of_m2();
    assert!(
        !scene
            .state_dir
            .join("recover")
            .read_dir()
            .unwrap()
            .any(|run| { run.is_ok_and(|run| run.path().join("rescued.db").exists()) })
    );

    let back = Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    assert!(back.stdout.contains("the old data are back; m1, m3 had none"), "{back}");
    back.stderr_has(&["warning: the old cluster does not serve", "m1: etcd does not run, no data"]);
    assert!(scene.hosts[1].path(scene.cluster.data_dir(1)).join("member/snap/db").is_file());
}

/// Goal: of two survivors that do not run, the one that died last is taken; a run that is killed at each of its steps comes to its end.
#[test]
fn of_two_stopped_members_of_3_4_the_newer_one_is_taken_however_often_the_run_is_killed() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_4));
    scene.kill(2);
    scene.write_more();
    scene.kill(1);
    scene.lose_with_data(0);

    let plan = Run::of(&mut scene.recover("plan", ["--from-member", "m3"])).ok();
    let advice = "Recommended: m2's data, which are more recent than m3's: --from-member m2";
    assert!(plan.stdout.contains(advice), "{plan}");
    assert!(plan.stdout.contains("A majority of the members has its data"), "{plan}");
    let unknown = Run::of(&mut scene.recover("plan", ["--from-member", "m1"])).code_is(1);
    unknown.stderr_has(&["m1 has no data left", "--from-member m2"]);

    // Killed whenever a step begins that was not reached before.
    let mut reached = 0;
    let mut kills = 0;
    loop {
        let mut run = Watched::start(&mut scene.run_from("newest"));
        let next = run.wait_for(|line| is_step(line) && number_of(line) > reached);
        let Some(next) = next else {
            run.end().ok();
            break;
        };
        reached = number_of(&next);
        kills += 1;
        run.kill();
        run.end();
        if kills == 1 {
            // As after a reboot of the host.
            scene.hosts[1].ssh("systemctl start --no-block etcd");
            let again = Run::of(&mut scene.run_from("newest")).code_is(1);
            again.stderr_has(&["etcd runs here again: stop it"]);
            scene.hosts[1].ssh("systemctl stop etcd");
        }
    }
    assert!(kills >= 9, "{kills} kills");
    scene.serves_the_backup();
    let state = fs::read_dir(scene.state_dir.join("recover")).unwrap();
    let runs = state.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(runs, 1, "it was one run");
}

fn number_of(line: &str) -> usize {
    let number = line.strip_prefix('[').and_then(|line| line.split_once('/'));
    number.and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}

/// Goal: a run that was cut off before the data were built leaves the member as it was, once it is taken back.
#[test]
fn a_rescue_that_is_killed_at_any_step_is_rolled_back_and_the_member_of_3_4_runs_again() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_4));
    scene.write_more();
    scene.lose_with_data(0);
    scene.lose_with_data(2);
    let data = scene.hosts[1].path(scene.cluster.data_dir(1));
    for step in 1.. {
        let mut run = Watched::start(&mut scene.run_from("m2"));
        let begun = run.wait_for(|line| is_step(line) && number_of(line) == step);
        let Some(begun) = begun else {
            run.end().ok();
            assert!(step > 10, "{step} steps");
            break;
        };
        run.kill();
        run.end();
        // The script of that step may still be at work on the host; the rollback waits for it.
        Run::of(&mut scene.recover("rollback", [""; 0])).ok();
        assert!(data.join("member/snap/db").is_file(), "{begun}");
        assert!(scene.hosts[1].is_active("etcd") || is_starting(&scene), "{begun}");
        for beside in scene.beside() {
            let name = beside.file_name().unwrap().to_string_lossy().into_owned();
            assert!(name.ends_with(".undone"), "{name} after {begun}");
            fs::remove_dir_all(beside).unwrap();
        }
        for index in [0, 2] {
            // Without data, etcd would wait for the others for ever, or begin a cluster of its own.
            assert!(!scene.hosts[index].path(scene.cluster.data_dir(index)).exists(), "{begun}");
        }
    }
    scene.serves_the_backup();
}

/// Without quorum etcd 3.4 does not tell systemd that it is ready: that gives up after a while, and begins again.
fn is_starting(scene: &Scene) -> bool {
    let state = scene.hosts[1].ssh("systemctl show -p ActiveState --value etcd").stdout;
    ["activating", "deactivating"].contains(&state.trim())
}

/// Goal: whenever it is killed, the only data that are left come back. Method: half of the kills are within the time that it takes to
/// stop the member, and to make and fetch the snapshot.
#[test]
fn a_rescue_that_is_killed_at_random_instants_loses_nothing() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5));
    scene.write_more();
    scene.lose_with_data(0);
    scene.lose_with_data(2);
    let mut random = Random(4);
    let kills = kills() / 2;
    let mut killed = 0;
    while killed < kills {
        let within = if killed % 2 == 0 { 4_000 } else { 8_000 };
        let time = Duration::from_millis(random.below(within));
        if !kill_after(&mut scene.run_from("m2"), time) || random.below(4) == 0 {
            // It was done, or it shall be: from the beginning again.
            Run::of(&mut scene.recover("rollback", [""; 0]));
            scene.beside().into_iter().for_each(|path| fs::remove_dir_all(path).unwrap());
        }
        killed += 1;
    }
    Run::of(&mut scene.run_from("m2")).ok();
    scene.serves_the_backup();
    scene.keeps_the_data_of_m2();
}

/// Goal: the only data that are left lie on a host that shall have no member any more; by way of sudo, and with the log elsewhere.
#[test]
fn data_of_a_host_that_goes_come_back_on_one_that_stays() {
    let hosts = Hosts::builder().disk_bytes(3 << 30).start(3);
    for host in hosts.iter() {
        host.ssh("mkdir /wal && chown etcd:etcd /wal");
    }
    let mut scene = Scene::on(hosts, tls(Etcd::V3_5).setting("wal-dir", "/wal/etcd"), false);
    scene.more_etcd = "  wal-dir: /wal/etcd\n".to_owned();
    scene.user = "ops";
    scene.write_more();
    scene.lose_with_data(0);
    scene.lose_with_data(2);
    scene.members = vec![0];
    for index in [0, 2] {
        scene.hosts[index].ssh("rm -rf /wal/etcd");
    }
    let source = scene.hosts[1].address().to_string();
    let run = Run::of(&mut scene.run_from(&source)).ok();
    run.stderr_has(&[&format!("* {source}'s data, etcd runs")]);
    scene.serves_the_backup();
    assert!(!scene.hosts[1].is_active("etcd"));
}

/// Goal: damaged data are never brought back as if they were sound. Method: a page that only a walk through the whole database reads
/// is changed, once while etcd is down, and once under an etcd that runs.
#[test]
fn a_damaged_directory_is_refused_by_its_name_and_the_backup_offered() {
    let scene = Scene::without_clients(tls(Etcd::V3_5));
    scene.lose_with_data(0);
    scene.lose_with_data(2);
    // A look applies what only the log has, which takes a pass over all keys: a snapshot commits it to the database.
    let committed = scene.hosts.folder().join("committed.db");
    scene
        .cluster
        .client()
        .try_etcdctl_at(1, ["snapshot", "save", committed.to_str().unwrap()])
        .ok();
    scene.flip_the_first_page(1);
    let db = format!("{}/member/snap/db", scene.cluster.data_dir(1));
    let parts = [
        db.as_str(),
        "is damaged",
        "all is as it was before, and nothing else was touched",
        "from the backup: the same command without --from-member",
    ];
    Run::of(&mut scene.run_from("m2")).code_is(3).stderr_has(&parts);
    let held = "ls /etc/systemd/system/etcd.service.d/lifeboat-recover.conf /var/lib/lifeboat/recover/*.lock";
    let left = scene.hosts[1].try_ssh(held).stdout;
    assert_eq!(left, "", "etcd is not kept from starting, and the host is free");

    scene.hosts[1].ssh("systemctl stop etcd");
    Run::of(&mut scene.run_from("m2")).code_is(3).stderr_has(&parts);

    // Where nothing can be read at all, a look is enough.
    scene.hosts[1].ssh(&format!("dd if=/dev/zero of={db} bs=8192 count=1 conv=notrunc"));
    let looked = Run::of(&mut scene.run_from("m2")).code_is(3);
    looked.stderr_has(&[&db, "is damaged", "leave out --from-member"]);

    let run = scene.run().ok();
    run.stderr_has(&["m2's data", "cannot be taken as they are"]);
    scene.serves_the_backup();
    let said = scene.cluster.client().etcdctl(["get", GENERATION, "--print-value-only"]).stdout;
    assert_eq!(said, format!("{BACKED_UP}\n"));
}

/// Goal: with users and passwords on, the log cannot be replayed without etcd; the database can be taken.
#[test]
fn with_authentication_the_database_is_taken_when_the_log_cannot_be() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5).auth("rescued"));
    scene.more_etcd = "  user: root\n  password-file: /etc/etcd/password\n".to_owned();
    for host in scene.hosts.iter() {
        host.write("/etc/etcd/password", "rescued\n");
    }
    scene.write_more();
    scene.lose_with_data(0);
    scene.lose_with_data(2);
    let refused = Run::of(&mut scene.run_from("m2")).code_is(1);
    refused.stderr_has(&["m2's data cannot be taken", "authentication", "--db-only"]);
    // What was applied is in the database when etcd has stopped.
    Run::of(&mut scene.recover("run", ["--from-member", "m2", "--db-only"])).ok();
    scene.serves_the_backup();
}
