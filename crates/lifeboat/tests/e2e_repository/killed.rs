//! `kill -9` at random instants: nothing that was reported is lost, nothing is listed that is not whole, and the next
//! run works at once, without waiting for what the dead one held.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use testbed::{Cluster, Etcd, Run, S3, Security, until};

use crate::{Random, Repo, observed, reported, snapshot, told};

/// Instants in a run, from its seed; as parts of the time that a run takes which nobody kills. On a busy machine some
/// runs end before their instant: as many kills as a test promises there are all the same.
#[derive(Debug)]
struct Killer {
    random: Random,
    killed: usize,
    missed: usize,
}

impl Killer {
    fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self { random: Random(seed), killed: 0, missed: 0 }
    }

    /// Kills a run at an instant before `clean` has passed, if it does not end by itself before. Then that was too long:
    /// the machine had something else to do when it was measured.
    #[track_caller]
    fn kill(&mut self, command: &mut Command, clean: &mut Duration) -> Run {
        let part = u32::try_from(self.random.below(1000)).unwrap();
        let begun = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        thread::sleep((*clean * part / 1000).saturating_sub(begun.elapsed()));
        let lived = begun.elapsed();
        child.kill().unwrap();
        let run = Run::from_output(format!("{command:?}"), child.wait_with_output().unwrap());
        if run.code.is_none() {
            self.killed += 1;
        } else {
            self.missed += 1;
            *clean = lived.min(*clean);
        }
        assert!(self.missed < 100, "runs end before they can be killed");
        assert!(matches!(run.code, None | Some(0)), "{run}");
        told(run)
    }
}

/// How long a command takes, and what it says.
#[track_caller]
fn timed(command: &mut Command) -> (Duration, Run) {
    let begun = Instant::now();
    let run = observed(command).ok();
    (begun.elapsed(), run)
}

fn backup_command(repo: &Repo, file: &PathBuf) -> Command {
    crate::written_now(file);
    let mut command = repo.command(["backup", "--cluster", "prod", "-w", "json", "--from-file"]);
    command.arg(file);
    command
}

/// Kills backups; after each, all that is listed is whole, and another process makes the next one.
fn backups_killed(killer: &mut Killer, times: usize, file: &PathBuf, repo: impl Fn(usize) -> Repo) {
    let (mut clean, _) = timed(&mut backup_command(&repo(usize::MAX), file));
    let (mut time, end) = (0, killer.killed + times);
    while killer.killed < end {
        // A few in a row meet in one repository.
        let repo = repo(time / 4);
        let run = killer.kill(&mut backup_command(&repo, file), &mut clean);
        let next = reported(&observed(&mut backup_command(&repo, file)).ok());
        let listed = repo.all_verify();
        for name in reported(&run).iter().chain(&next) {
            assert!(listed.contains(name), "{name} is not in {listed:?}\n{run}");
        }
        if time % 4 == 3 {
            repo.run(["prune", "--keep-last", "1", "--grace", "0s"]).ok();
            assert_eq!(repo.all_verify(), next);
        }
        time += 1;
    }
}

/// Kills prunes: what the policy keeps is kept, and the next prune removes the rest.
fn prunes_killed(killer: &mut Killer, times: usize, repo: &Repo) {
    let backup = || reported(&observed(&mut backup_command(repo, &snapshot())).ok()).remove(0);
    let prune = || repo.command(["prune", "--keep-last", "2", "--grace", "0s"]);
    for _ in 0..6 {
        backup();
    }
    let (mut clean, _) = timed(&mut prune());
    let end = killer.killed + times;
    while killer.killed < end {
        let kept: Vec<_> = [backup(), backup()].into_iter().rev().collect();
        killer.kill(&mut prune(), &mut clean);
        assert_eq!(repo.all_verify()[..2], kept);
        // Enough is left to do for the next one to be killed.
        for _ in 0..2 {
            backup();
        }
    }
    observed(&mut prune()).ok();
    assert_eq!(repo.all_verify().len(), 2);
}

/// Kills copies: what is there is whole, and the next copy brings the rest.
fn copies_killed(killer: &mut Killer, times: usize, from: &Repo, to: impl Fn(usize) -> Repo) {
    let names = from.names();
    let copy = |to: &Repo| {
        let mut command = from.command(["copy", "--all", "--to", &to.url]);
        command.envs(to.env.iter().cloned());
        command
    };
    let (mut clean, _) = timed(&mut copy(&to(usize::MAX)));
    let (mut time, end) = (0, killer.killed + times);
    while killer.killed < end {
        let to = to(time);
        let run = killer.kill(&mut copy(&to), &mut clean);
        let said = run.stdout.matches("copied ").count();
        let there = observed(&mut to.command(["list", "-w", "json"]));
        if there.code == Some(0) {
            assert!(to.all_verify().len() >= said, "{run}");
        } else {
            // Killed before there was a repository.
            assert_eq!(said, 0, "{run}\n{there}");
        }
        observed(&mut copy(&to)).ok();
        assert_eq!(to.all_verify(), names);
        time += 1;
    }
}

#[test]
fn thirty_six_kills_of_backup_prune_and_copy_in_folders_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: String| Repo::folder(&folder.path().join(name));
    let mut killer = Killer::new(11);
    backups_killed(&mut killer, 16, &snapshot(), |n| place(format!("backup-{n}")));
    prunes_killed(&mut killer, 10, &place("prune".to_owned()));
    let from = place("from".to_owned());
    for _ in 0..4 {
        from.backup(&snapshot()).ok();
    }
    copies_killed(&mut killer, 10, &from, |n| place(format!("copy-{n}")));
    assert_eq!(killer.killed, 36);
}

/// A snapshot that does not shrink: its object takes several parts.
fn large_snapshot(cluster: &Cluster) -> PathBuf {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = Random(5);
    for transaction in 0..14 {
        let mut value = || -> String {
            (0..90_000).map(|_| char::from(LETTERS[random.below(LETTERS.len())])).collect()
        };
        let puts: Vec<_> =
            (0..12).map(|n| format!("put large/{transaction}/{n} v{}", value())).collect();
        cluster.transact(&puts);
    }
    let file = cluster.folder().join("large.db");
    let arguments = ["snapshot", "save", file.to_str().unwrap()];
    cluster.etcdctl(arguments);
    file
}

/// What a killed process leaves of a large upload is no object, hinders nobody, and stays until the store's lifecycle
/// rule removes it.
#[test]
fn fourteen_kills_of_backup_prune_and_copy_in_s3_lose_nothing() {
    let s3 = S3::start();
    let cluster = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).start();
    let large = large_snapshot(&cluster);
    let mut killer = Killer::new(12);
    backups_killed(&mut killer, 8, &large, |n| Repo::in_s3(&s3, &format!("backup-{n}")));
    prunes_killed(&mut killer, 3, &Repo::in_s3(&s3, "prune"));
    let from = Repo::in_s3(&s3, "from");
    for _ in 0..2 {
        from.backup(&snapshot()).ok();
    }
    copies_killed(&mut killer, 3, &from, |n| Repo::in_s3(&s3, &format!("copy-{n}")));
    assert_eq!(killer.killed, 14);
    for key in s3.unfinished_uploads() {
        println!("unfinished upload: {key}");
        assert!(key.contains("/snapshots/") && key.ends_with("/db.zst"), "{key}");
    }
}

/// Goal: two writers never meet, and the second one gets through when the first has gone, killed or not. Method: the
/// first is made slow, so that it holds the cluster while the second asks.
#[test]
fn a_second_backup_is_refused_while_the_first_runs_and_waits_for_it_if_told() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo"));
    repo.backup(&snapshot()).ok();
    // A limit is kept by waiting between pieces, so what has only one is not made slow by it.
    let cluster = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).start();
    let mut slow = backup_command(&repo, &large_snapshot(&cluster));
    slow.args(["--bandwidth-limit", "1k"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut slow = slow.spawn().unwrap();

    // The run is known of once its claim names it; until then, and only then, the second one may be first.
    let writes = || {
        let claims = crate::files(&folder.path().join("repo/prod/writer"));
        let claim = std::fs::read_to_string(claims.last()?).unwrap_or_default();
        let is_its = claim.contains(&format!("\"pid\": {}", slow.id()));
        (is_its && claim.contains("\"run\"")).then_some(())
    };
    until("the first backup's claim", writes, String::new);
    let refused = repo.backup(&snapshot()).code_is(5);
    refused.stderr_has(&[&format!("process {}", slow.id()), "help: "]);

    let mut patient = backup_command(&repo, &snapshot());
    let patient = patient.args(["--wait", "2m"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let patient = patient.spawn().unwrap();
    slow.kill().unwrap();
    slow.wait().unwrap();
    let run = Run::from_output("the patient one".to_owned(), patient.wait_with_output().unwrap());
    assert_eq!(reported(&told(run).ok()).len(), 1);
    assert_eq!(repo.all_verify().len(), 2);
}
