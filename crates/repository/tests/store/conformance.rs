//! What every store must do alike, whatever it is made of.

#![allow(clippy::unwrap_used, reason = "test code, outside a #[test]")]

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use repository::store::{Store, StoreError};

/// Bytes that no page, part or piece repeats.
pub(crate) fn content(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut content: Vec<u8> = std::iter::repeat_with(&mut next).flatten().take(bytes).collect();
    content.truncate(bytes);
    content.into()
}

/// All of an object.
pub(crate) async fn read_all(store: &Store, path: &str) -> Result<Vec<u8>, StoreError> {
    let pieces = store.reader(path).await?;
    let whole = pieces.try_fold(Vec::new(), async |mut whole: Vec<u8>, piece| {
        whole.extend_from_slice(&piece);
        Ok(whole)
    });
    whole.await
}

/// Writes an object in pieces that fit nothing.
pub(crate) async fn write_all(
    store: &Store,
    path: &str,
    content: &Bytes,
) -> Result<(), StoreError> {
    let mut writer = store.writer(path).await?;
    for from in (0..content.len()).step_by(777_777) {
        writer.write(content.slice(from..content.len().min(from + 777_777))).await?;
    }
    writer.finish().await
}

/// Paths of a listing.
pub(crate) async fn paths(store: &Store, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|entry| entry.path).collect()
}

/// Runs all of it in an empty store.
pub(crate) async fn conforms(store: &Store) {
    an_empty_store_has_nothing(store).await;
    small_objects_are_created_once(store).await;
    large_objects_appear_when_finished(store).await;
    listings_are_sorted_and_know_folders(store).await;
    deleting_is_quiet(store).await;
    paths_cannot_lead_elsewhere(store).await;
}

async fn an_empty_store_has_nothing(store: &Store) {
    assert_eq!(store.list("").await.unwrap(), []);
    assert_eq!(store.list("a/").await.unwrap(), []);
    assert_eq!(store.folders("").await.unwrap(), [""; 0]);
    assert!(store.size("a/b").await.unwrap_err().is_not_found());
    assert!(store.read("a/b", 10).await.unwrap_err().is_not_found());
    assert!(store.reader("a/b").await.err().expect("nothing to read").is_not_found());
}

async fn small_objects_are_created_once(store: &Store) {
    store.create("small/one", "first".into()).await.unwrap();
    assert!(store.create("small/one", "second".into()).await.unwrap_err().is_exists());
    assert!(store.create("small/one", "first".into()).await.unwrap_err().is_exists());
    assert!(store.writer("small/one").await.err().expect("it is there").is_exists());
    assert_eq!(store.read("small/one", 5).await.unwrap(), "first");
    let refused = store.read("small/one", 4).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooLarge { bytes: 5, bytes_max: 4, .. }), "{refused:?}");
    store.create("small/empty", Bytes::new()).await.unwrap();
    assert_eq!(store.read("small/empty", 0).await.unwrap(), "");
    assert_eq!(store.size("small/empty").await.unwrap(), 0);
    assert_eq!(read_all(store, "small/empty").await.unwrap(), b"");
}

async fn large_objects_appear_when_finished(store: &Store) {
    let content = content(30_000_001);
    let mut writer = store.writer("large/object").await.unwrap();
    writer.write(content.slice(..20_000_000)).await.unwrap();
    assert_eq!(paths(store, "large/").await, [""; 0]);
    assert!(store.size("large/object").await.unwrap_err().is_not_found());
    writer.write(content.slice(20_000_000..)).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(store.size("large/object").await.unwrap(), 30_000_001);
    assert!(read_all(store, "large/object").await.unwrap() == content, "other bytes came back");
    // A reader that is not read to its end is no harm.
    drop(store.reader("large/object").await.unwrap().next().await);

    write_all(store, "large/medium", &content.slice(..1_000_000)).await.unwrap();
    store.writer("large/empty").await.unwrap().finish().await.unwrap();
    assert_eq!(store.size("large/empty").await.unwrap(), 0);

    let mut given_up = store.writer("large/given-up").await.unwrap();
    given_up.write(content.slice(..9_000_000)).await.unwrap();
    given_up.abort().await.unwrap();
    let mut dropped = store.writer("large/dropped").await.unwrap();
    dropped.write(content.slice(..9_000_000)).await.unwrap();
    drop(dropped);
    assert_eq!(paths(store, "large/").await, ["large/empty", "large/medium", "large/object"]);

    for bytes in [10, 20_000_000] {
        let mut late = store.writer("large/late").await.unwrap();
        late.write(content.slice(..bytes)).await.unwrap();
        store.create("large/late", "was faster".into()).await.unwrap();
        assert!(late.finish().await.unwrap_err().is_exists(), "{bytes}");
        assert_eq!(store.read("large/late", 100).await.unwrap(), "was faster");
        store.delete("large/late").await.unwrap();
    }
}

async fn listings_are_sorted_and_know_folders(store: &Store) {
    for path in ["list/b/2", "list/a/1", "list/a/x/y", "list/c", "list/a-b/1", "list2/x"] {
        store.create(path, "1234".into()).await.unwrap();
    }
    let listed = store.list("list/").await.unwrap();
    assert!(listed.iter().all(|entry| entry.bytes == 4));
    assert_eq!(
        paths(store, "list/").await,
        ["list/a-b/1", "list/a/1", "list/a/x/y", "list/b/2", "list/c"]
    );
    assert_eq!(paths(store, "list/a/").await, ["list/a/1", "list/a/x/y"]);
    assert_eq!(store.folders("list/").await.unwrap(), ["a", "a-b", "b"]);
    assert_eq!(store.folders("").await.unwrap(), ["large", "list", "list2", "small"]);
    assert!(matches!(store.list("list").await, Err(StoreError::BadPath { .. })));
}

async fn deleting_is_quiet(store: &Store) {
    store.delete("list/a/x/y").await.unwrap();
    store.delete("list/a/x/y").await.unwrap();
    store.delete("list/never/was").await.unwrap();
    assert_eq!(paths(store, "list/a/").await, ["list/a/1"]);
    store.create("list/a/x/y", "again".into()).await.unwrap();
    assert_eq!(store.read("list/a/x/y", 10).await.unwrap(), "again");
}

async fn paths_cannot_lead_elsewhere(store: &Store) {
    for path in ["", "../x", "/etc/passwd", "a/../../x", "a//b", "a/", ".lifeboat-tmp/x", "a\0"] {
        let refused = |result: Result<(), StoreError>| {
            assert!(matches!(result, Err(StoreError::BadPath { .. })), "{path:?}: {result:?}");
        };
        refused(store.create(path, "x".into()).await);
        refused(store.writer(path).await.map(drop));
        refused(store.read(path, 1).await.map(drop));
        refused(store.reader(path).await.map(drop));
        refused(store.size(path).await.map(drop));
        refused(store.delete(path).await);
    }
}

/// Of `tasks` that create the same object at once exactly one succeeds, and its bytes are there.
pub(crate) async fn one_creator_wins(store: &Store, path: &str, tasks: usize) {
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(tasks));
    let creators = (0..tasks).map(|task| {
        let (store, barrier, path) = (store.clone(), barrier.clone(), path.to_owned());
        tokio::spawn(async move {
            barrier.wait().await;
            match store.create(&path, format!("task {task}").into()).await {
                Ok(()) => Some(task),
                Err(StoreError::Exists { .. }) => None,
                Err(error) => panic!("{error:?}"),
            }
        })
    });
    let results = futures::future::join_all(creators).await;
    let winners: Vec<_> = results.into_iter().filter_map(|result| result.unwrap()).collect();
    let [winner] = winners[..] else { panic!("{winners:?} have all created it") };
    assert_eq!(store.read(path, 100).await.unwrap(), format!("task {winner}"));
}
