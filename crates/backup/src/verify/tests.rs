use super::*;
use crate::{Job, Options, Source, Target, run};
use repository::codec::Encoding;
use std::fs;
use tempfile::TempDir;
use testbed::fixtures::fixture;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A backup in a folder.
fn backup() -> (TempDir, Store, Manifest) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::local(folder.path());
    let job = Job {
        cluster: "prod".parse().unwrap(),
        source: Source::File {
            path: fixture("3.5.30/base.db"),
            digest: DigestRule::Required,
            identities: Identities::none(),
        },
        targets: vec![Target {
            name: "a".to_owned(),
            store: store.clone(),
            encoding: Encoding::default(),
            may_expose: false,
        }],
        options: Options {
            include: vec![fixture("3.5.30/expected.json")],
            include_plain: true,
            ..Options::default()
        },
    };
    let report = block_on(run(&job, &Watcher::none(), std::future::pending())).unwrap();
    let manifest = report.results.into_iter().next().unwrap().result.unwrap();
    (folder, store, manifest)
}

fn problems(store: &Store, manifest: &Manifest) -> Vec<Problem> {
    let (none, dir) = (Identities::none(), std::env::temp_dir());
    block_on(verify(store, manifest, &none, &dir, &Watcher::none())).unwrap()
}

#[test]
fn a_sound_backup_has_no_problems() {
    let (_folder, store, manifest) = backup();
    assert!(problems(&store, &manifest).is_empty());
}

/// Fifty bits, spread over both objects; the codec's own tests flip many more.
#[test]
fn a_flipped_bit_of_any_object_is_a_problem() {
    let (folder, store, manifest) = backup();
    let db = folder.path().join(place::db_path(&manifest));
    let include = folder.path().join(place::include_path(&manifest).unwrap());
    for (path, flips) in [(db, 40), (include, 10)] {
        let sound = fs::read(&path).unwrap();
        for flip in 0..flips {
            let bit = sound.len() * 8 / flips * flip + flip % 8;
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::remove_file(&path).unwrap();
            fs::write(&path, damaged).unwrap();
            let problems = problems(&store, &manifest);
            assert!(matches!(problems[..], [Problem::Object(_)]), "bit {bit}: {problems:?}");
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, sound).unwrap();
    }
    assert!(problems(&store, &manifest).is_empty());
}

#[test]
fn an_object_that_is_gone_is_a_problem_and_a_store_that_is_gone_is_none() {
    let (folder, store, manifest) = backup();
    fs::remove_file(folder.path().join(place::db_path(&manifest))).unwrap();
    assert!(matches!(problems(&store, &manifest)[..], [Problem::Object(_)]));

    let (store, faults) = repository::store::testing::faulty(store);
    faults.cut_at(1);
    let (none, dir) = (Identities::none(), std::env::temp_dir());
    let error = block_on(verify(&store, &manifest, &none, &dir, &Watcher::none())).unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
}

#[test]
fn a_manifest_that_says_something_else_of_the_snapshot_is_a_problem() {
    let (_folder, store, manifest) = backup();
    let lies: [fn(&mut Etcd); 7] = [
        |etcd| etcd.revision += 1,
        |etcd| etcd.compact_revision += 1,
        |etcd| etcd.hash ^= 1,
        |etcd| etcd.total_key += 1,
        |etcd| etcd.live_keys += 1,
        |etcd| etcd.hash_kv.hash ^= 1,
        |etcd| etcd.hash_kv.compact_revision += 1,
    ];
    for lie in lies {
        let mut said = manifest.clone();
        lie(&mut said.etcd);
        let problems = problems(&store, &said);
        assert!(matches!(problems[..], [Problem::Differs { .. }]), "{problems:?}");
    }
}
