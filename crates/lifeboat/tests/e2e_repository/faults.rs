//! A network and a store that fail by chance, in every command: what was reported is there, what is listed is whole,
//! and without faults everything works.

use std::collections::BTreeSet;
use std::path::Path;

use testbed::{FaultProxy, Run, S3};

use crate::keys::Keys;
use crate::{Repo, observed, reported, snapshot, text};

/// One request in so many has something done to it.
const ONE_IN: u64 = 6;

/// A run through faults may fail, but in an orderly way, and must not see damage where there is none.
#[track_caller]
fn is_orderly(run: Run) -> Run {
    assert!(matches!(run.code, Some(0 | 1 | 4)), "{run}");
    if run.code != Some(0) {
        assert!(run.stderr.contains("error: ") && run.stderr.contains("help: "), "{run}");
    }
    run
}

/// Goal and method: see the module; what happens follows from the seed, but for how requests that are sent at once
/// are numbered.
fn all_commands_survive(s3: &S3, seed: u64, keys: Option<&Keys>) {
    let proxy = FaultProxy::seeded(s3.endpoint(), seed, ONE_IN);
    let place = |prefix: &str| {
        let (direct, through) = (s3.url(prefix), s3.url_through(&proxy.url(), prefix));
        [direct, through + "&timeout=5&retries=2"].map(|url| {
            let repo = Repo::s3(url);
            keys.map_or(repo.clone(), |keys| repo.encrypted(keys))
        })
    };
    let [direct, through] = place(&format!("from-{seed}"));
    let [direct_copy, through_copy] = place(&format!("to-{seed}"));
    let folder = tempfile::tempdir().unwrap();
    direct.backup(&snapshot()).ok();

    let mut claimed: BTreeSet<String> = direct.names().into_iter().collect();
    for _ in 0..4 {
        claimed.extend(reported(&is_orderly(through.backup(&snapshot()))));
    }
    let listed = direct.all_verify();
    assert!(claimed.is_subset(&listed.iter().cloned().collect()), "{claimed:?} in {listed:?}");

    for _ in 0..2 {
        is_orderly(through.run(["verify", "--all"]));
    }
    assert_eq!(direct.names(), listed, "no network makes a backup damaged");

    for _ in 0..2 {
        let copy = ["copy", "--all", "--to", &through_copy.url];
        let run = is_orderly(through.run(copy));
        let copied: BTreeSet<_> = copied(&run).collect();
        if run.code == Some(0) {
            assert_eq!(copied.len(), listed.len(), "{run}");
        }
        if !copied.is_empty() {
            let there = direct_copy.all_verify().into_iter().collect();
            assert!(copied.is_subset(&there), "{copied:?} in {there:?}");
        }
    }

    for turn in 0..3 {
        restore(&through, &folder.path().join(turn.to_string()));
    }

    for _ in 0..2 {
        is_orderly(through.run(["prune", "--keep-last", "2", "--grace", "0s"]));
        let left = direct.all_verify();
        assert_eq!(left[..listed.len().min(2)], listed[..listed.len().min(2)]);
    }
    assert!(proxy.faults() > 0, "something was done to a request");

    // And now that all is well:
    let newest = reported(&direct.backup(&snapshot()).ok()).remove(0);
    direct.run(["prune", "--keep-last", "1", "--grace", "0s"]).ok();
    assert_eq!(direct.all_verify(), [newest]);
    direct.run(["copy", "--all", "--to", &direct_copy.url]).ok();
    direct_copy.all_verify();
}

/// Names that a copy reports, copied now or before.
fn copied(run: &Run) -> impl Iterator<Item = String> {
    let name = |line: &str| {
        line.strip_prefix("copied ")
            .or(line.contains("there already").then_some(line))
            .and_then(|rest| rest.split_whitespace().next().map(str::to_owned))
    };
    run.stdout.lines().filter_map(name).collect::<Vec<_>>().into_iter()
}

/// A restore is whole or absent.
#[track_caller]
fn restore(repo: &Repo, data: &Path) {
    let run = is_orderly(repo.run(["restore", "--data-dir", text(data), "--bump-revision", "0"]));
    if run.code != Some(0) {
        assert!(!data.exists(), "{run}");
        return;
    }
    let db = data.join("member/snap/db");
    let hash = |path: &Path, more: &[&str]| {
        let mut command =
            crate::lifeboat().command(["snapshot", "hashkv", text(path), "-w", "json"]);
        observed(command.args(more)).ok().json()["hash"].as_u64().unwrap()
    };
    assert_eq!(hash(&db, &[]), hash(&snapshot(), &[]), "{run}");
}

fn seeds(seeds: std::ops::Range<u64>) {
    let s3 = S3::start();
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::make_in(folder.path());
    let (s3, keys) = (&s3, &keys);
    // At once, as they wait more than they compute.
    std::thread::scope(|scope| {
        for seed in seeds {
            let encrypted = (seed % 2 == 1).then_some(keys);
            let survives = move || all_commands_survive(s3, seed, encrypted);
            let named = std::thread::Builder::new().name(format!("seed {seed}"));
            named.spawn_scoped(scope, survives).unwrap();
        }
    });
}

#[test]
fn a_store_that_fails_by_chance_loses_nothing_and_nothing_is_claimed_that_is_not_whole() {
    seeds(0..3);
}

#[test]
fn another_three_seeds_lose_nothing_either() {
    seeds(3..6);
}
