use super::*;
use snapshot::DigestRule;
use std::fs;
use testbed::fixtures::fixture;

fn fetched(from: &From) -> Result<Snapshot<Fetched>, FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (none, dir) = (Identities::none(), std::env::temp_dir());
    runtime.block_on(fetch(from, &none, &dir, &Watcher::none()))
}

#[track_caller]
fn is_the_fixture(snapshot: Snapshot<Fetched>) {
    let no_finding = &mut |finding| panic!("{finding}");
    let snapshot = snapshot.verify(DigestRule::Required, no_finding).unwrap();
    let expected = testbed::fixtures::expected("3.5.30").final_;
    assert_eq!(snapshot.survey().revision(), expected.revision);
}

#[test]
fn a_plain_file_is_read_in_place_and_a_wrapped_one_is_unwrapped() {
    let folder = tempfile::tempdir().unwrap();
    let plain = fixture("3.5.30/final.db");
    let snapshot = fetched(&From::File(plain.clone())).unwrap();
    assert_eq!(snapshot.path(), plain);
    is_the_fixture(snapshot);

    let wrapped = folder.path().join("anything");
    let content = zstd::encode_all(&fs::read(&plain).unwrap()[..], 1).unwrap();
    fs::write(&wrapped, content).unwrap();
    is_the_fixture(fetched(&From::File(wrapped)).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file has a name");
}

#[test]
fn an_object_is_fetched_by_its_path_or_found_below_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::local(folder.path());
    let content = fs::read(fixture("3.5.30/final.db")).unwrap();
    let wrapped = zstd::encode_all(&content[..], 1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let create = |path: &str, content: &[u8]| {
        runtime.block_on(store.create(path, content.to_vec().into())).unwrap();
    };
    create("one/snapshot.db", &content);
    create("etcdbr/v2/Full-00000000-00000300-1763820000", b"an old one");
    create("etcdbr/v2/Full-00000000-00000600-1763829864.zst", &wrapped);
    create("etcdbr/v2/Incr-00000601-00000700-1763830164", b"events");
    for path in ["one/snapshot.db", "one", "etcdbr", "etcdbr/v2/"] {
        let from = From::Object { store: store.clone(), path: path.to_owned() };
        is_the_fixture(fetched(&from).unwrap());
    }
    let from = From::Object { store: store.clone(), path: "nothing".to_owned() };
    assert!(matches!(fetched(&from), Err(FetchError::Import(ImportError::Empty { .. }))));
}
