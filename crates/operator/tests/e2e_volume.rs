//! Volumes restored and taken back, with real backups and a real etcd that starts on the result.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use backup::{Job, Options, Source, Watcher};
use operator::volume::{Built, Contents, Order, Place, State, Target, VolumeError, build};
use repository::{Manifest, codec::Encoding, codec::Identities, store::Store};
use snapshot::DigestRule;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use testbed::{Cluster, Etcd, Security, fixtures};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A backup of that snapshot, in a store in `folder`.
fn stored(folder: &Path, source: Source) -> (Store, Manifest) {
    let store = Store::local(folder.join("store"));
    let target = backup::Target {
        name: "store".to_owned(),
        store: store.clone(),
        encoding: Encoding::default(),
        may_expose: false,
    };
    let options = Options::default();
    let job = Job { cluster: "prod".parse().unwrap(), source, targets: vec![target], options };
    let report = block_on(backup::run(&job, &Watcher::none(), std::future::pending())).unwrap();
    let manifest = report.results.into_iter().next().unwrap().result.unwrap();
    (store, manifest)
}

fn order(manifest: &Manifest, target: Target, initial_cluster: String) -> Order {
    let contents = Contents {
        backup: Some((manifest.cluster.clone(), manifest.id)),
        object: None,
        initial_cluster,
        token: "token".to_owned(),
        target_version: None,
        bump: 1000,
    };
    Order { run: "r1".to_owned(), target, store: None, contents: Some(contents) }
}

fn made(order: &Order, store: &Store) -> Result<(State, Option<Built>), VolumeError> {
    block_on(build(order, store.clone(), &Identities::none(), &|| false))
}

/// A store with a backup from a fixture, and a data directory with old data.
fn with_old_data() -> (tempfile::TempDir, Store, Order) {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::File {
        path: fixtures::fixture("3.5.30/final.db"),
        digest: DigestRule::Required,
        identities: Identities::none(),
    };
    let (store, manifest) = stored(folder.path(), source);
    let data_dir = folder.path().join("data");
    fs::create_dir_all(data_dir.join("member/snap")).unwrap();
    fs::write(data_dir.join("member/snap/db"), "old").unwrap();
    let target = Target::Member { data_dir, name: "m1".to_owned() };
    let order = order(&manifest, target, "m1=http://127.0.0.1:1".to_owned());
    (folder, store, order)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_build_leaves_the_old_data_alone_and_says_the_same_when_it_is_repeated() {
    let (folder, store, order) = with_old_data();
    let data = folder.path().join("data");
    fs::set_permissions(data.join("member"), fs::Permissions::from_mode(0o750)).unwrap();
    let first = made(&order, &store).unwrap();
    assert_eq!(first.0, State::Built);
    assert_eq!(names(&data), ["member", "member.lifeboat-r1.new"]);
    assert_eq!(fs::read(data.join("member/snap/db")).unwrap(), b"old");
    let new = data.join("member.lifeboat-r1.new");
    assert_eq!(new.metadata().unwrap().permissions().mode() & 0o777, 0o750);
    assert_eq!(names(&new), ["snap", "wal"]);
    assert_eq!(made(&order, &store).unwrap(), first);
    let expected = fixtures::expected("3.5.30").final_.revision + 1000;
    assert_eq!(first.1.unwrap().revision, expected);
}

/// Goal: a build that is killed anywhere is completed by the next. Method: the names that it leaves are made by hand.
#[test]
fn a_build_that_was_cut_is_completed() {
    let (folder, store, order) = with_old_data();
    let data = folder.path().join("data");
    let built = made(&order, &store).unwrap();
    let new = data.join("member.lifeboat-r1.new");
    let building = data.join("member.lifeboat-r1.build");

    // Before the new data had their name.
    fs::create_dir(&building).unwrap();
    fs::rename(&new, building.join("member")).unwrap();
    assert_eq!(made(&order, &store).unwrap(), built);
    assert_eq!(names(&data), ["member", "member.lifeboat-r1.new"]);

    // While they were written, and before anything was.
    for leftover in ["member.lifeboat-r1.build.part", "member.lifeboat-r1.build"] {
        fs::remove_dir_all(&new).unwrap();
        fs::create_dir(data.join(leftover)).unwrap();
        if leftover.ends_with(".part") {
            fs::write(data.join(leftover).join("lifeboat-staging"), "").unwrap();
            fs::write(data.join(leftover).join("0"), "half").unwrap();
        }
        assert_eq!(made(&order, &store).unwrap(), built);
        assert_eq!(names(&data), ["member", "member.lifeboat-r1.new"]);
    }
}

#[test]
fn an_empty_volume_gets_its_data_directory() {
    let (folder, store, mut order) = with_old_data();
    let data_dir = folder.path().join("volume/etcd/data");
    order.target = Target::Member { data_dir: data_dir.clone(), name: "m1".to_owned() };
    made(&order, &store).unwrap();
    let place = order.place().unwrap();
    assert_eq!(place.swap().unwrap(), State::Swapped);
    assert_eq!(names(&data_dir), ["member", "member.lifeboat-r1"]);
    assert_eq!(place.undo().unwrap(), State::RolledBack);
    assert_eq!(names(&data_dir), ["member.lifeboat-r1.failed"]);
}

#[test]
fn what_is_stopped_and_what_is_damaged_leaves_the_volume_as_it_was() {
    let (folder, store, order) = with_old_data();
    let data = folder.path().join("data");
    let stopped = block_on(build(&order, store.clone(), &Identities::none(), &|| true));
    assert!(matches!(stopped, Err(VolumeError::Restore(_))), "{stopped:?}");
    assert_eq!(names(&data), ["member"]);

    let mut objects = vec![folder.path().join("store")];
    while let Some(path) = objects.pop() {
        match path.is_dir() {
            true => objects.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path())),
            false if path.ends_with("db.zst") => {
                let mut bytes = fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
            false => {}
        }
    }
    let damaged = made(&order, &store);
    assert!(matches!(damaged, Err(VolumeError::Fetch(_))), "{damaged:?}");
    assert_eq!(names(&data), ["member"]);
}

#[test]
fn a_volume_takes_all_members_or_the_snapshot_itself() {
    let (folder, store, mut order) = with_old_data();
    let volume = folder.path().join("volume");
    fs::create_dir_all(volume.join("lost+found")).unwrap();
    let members = "m1=http://127.0.0.1:1,m2=http://127.0.0.1:2";
    order.contents.as_mut().unwrap().initial_cluster = members.to_owned();
    order.target = Target::Members { folder: volume.clone() };
    for _ in 0..2 {
        assert_eq!(made(&order, &store).unwrap(), (State::Built, None));
        assert_eq!(names(&volume), [".lifeboat-r1", "lost+found", "m1", "m2"]);
    }
    order.run = "r2".to_owned();
    assert!(made(&order, &store).is_err(), "a volume with something in it was written to");

    let path = volume.join("old/snapshot.db");
    order.target = Target::File { path: path.clone() };
    made(&order, &store).unwrap();
    let original = fs::read(fixtures::fixture("3.5.30/final.db")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), original);
    assert!(matches!(made(&order, &store), Err(VolumeError::Exists(_))));
}

#[test]
fn etcd_starts_on_what_was_swapped_and_on_what_was_put_back() {
    for version in [Etcd::V3_4, Etcd::V3_5_30] {
        let mut cluster = Cluster::builder(version).security(Security::Plain).start();
        let revision = cluster.write_sample();
        let keys = cluster.keys_at(revision);
        let folder = tempfile::tempdir().unwrap();
        let connector = etcd_live::Connector::new(etcd_live::ConnectOptions::default()).unwrap();
        let endpoints = vec![cluster.client_url(0).parse().unwrap()];
        let (store, manifest) = stored(folder.path(), Source::Live { connector, endpoints });
        cluster.put("after", "the backup");
        let later = cluster.revision();
        cluster.stop_all();

        let orders: Vec<Order> = cluster
            .members()
            .iter()
            .map(|member| {
                let (data_dir, name) = (member.data_dir().to_owned(), member.name().to_owned());
                let initial_cluster = cluster.initial_cluster();
                order(&manifest, Target::Member { data_dir, name }, initial_cluster)
            })
            .collect();
        let built: Vec<Built> =
            orders.iter().map(|order| made(order, &store).unwrap().1.unwrap()).collect();
        assert!(built.windows(2).all(|pair| pair[0] == pair[1]), "{built:?}");
        let places: Vec<Place> = orders.iter().map(|order| order.place().unwrap()).collect();
        places.iter().for_each(|place| assert_eq!(place.swap().unwrap(), State::Swapped));
        cluster.start_all();
        assert_eq!(cluster.revision(), revision + 1000);
        // Of etcd 3.4 and its contemporaries only the newest revision can be hashed after a compaction.
        let hash = cluster.common_hashkv(0).hash;
        assert_eq!(hash, built[0].hash_kv, "{version:?}");
        let values = |keys: Vec<testbed::KeyValue>| -> Vec<_> {
            keys.into_iter().map(|pair| (pair.key, pair.value)).collect()
        };
        assert_eq!(values(cluster.keys_at(0)), values(keys));

        cluster.stop_all();
        places.iter().for_each(|place| assert_eq!(place.undo().unwrap(), State::RolledBack));
        cluster.start_all();
        assert_eq!(cluster.revision(), later);
    }
}
