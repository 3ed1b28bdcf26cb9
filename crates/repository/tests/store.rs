//! The store in a folder: what every store does, and what happens to a folder besides.

#[path = "store/conformance.rs"]
mod conformance;

use conformance::{conforms, content, one_creator_wins, paths};
use repository::store::{Store, StoreError, StoreOptions};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

#[tokio::test]
async fn a_folder_does_what_every_store_does() {
    let folder = tempfile::tempdir().unwrap();
    conforms(&Store::local(folder.path().join("not/yet/there"))).await;
}

#[tokio::test]
async fn deleting_takes_empty_folders_away_but_not_the_root() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::local(folder.path());
    store.create("a/b/c/d", "1".into()).await.unwrap();
    store.create("a/x", "1".into()).await.unwrap();
    store.delete("a/b").await.unwrap();
    assert_eq!(paths(&store, "").await, ["a/b/c/d", "a/x"], "a folder is no object");
    store.delete("a/b/c/d").await.unwrap();
    assert_eq!(store.folders("a/").await.unwrap(), [""; 0]);
    store.delete("a/x").await.unwrap();
    assert!(folder.path().exists() && !folder.path().join("a").exists());
}

#[tokio::test]
async fn a_folder_is_opened_by_path_and_by_url() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("with space");
    let options = StoreOptions::default();
    let store = Store::open(path.to_str().unwrap(), &options).unwrap();
    assert!(store.url().starts_with("file:///") && store.url().ends_with("with%20space"));
    store.create("a", "1".into()).await.unwrap();
    let again = Store::open(store.url(), &options).unwrap();
    assert_eq!(paths(&again, "").await, ["a"]);
    assert!(again.probe().await.unwrap() && again.is_create_only());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_creators_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::local(folder.path());
    for round in 0..50 {
        one_creator_wins(&store, &format!("deep/{round}/object"), 8).await;
    }
    // Deleting takes away the folders that creating needs, all the time.
    let churn = (0..8).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..50 {
                let path = format!("churn/x/{task}-{round}");
                store.create(&path, "x".into()).await.unwrap();
                store.delete(&path).await.unwrap();
            }
        })
    });
    for done in futures::future::join_all(churn).await {
        done.unwrap();
    }
    assert!(!folder.path().join("churn").exists(), "the last one takes the folders away");
}

#[tokio::test]
async fn only_the_owner_can_read_what_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    Store::local(&root).create("a/b", "secret".into()).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&root), mode(&root.join("a"))), (0o700, 0o700));
    assert_eq!(mode(&root.join("a/b")), 0o600);
}

#[tokio::test]
async fn what_others_put_there_is_not_listed_as_ours() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::local(folder.path());
    store.create("a", "1".into()).await.unwrap();
    fs::create_dir(folder.path().join("lost+found")).unwrap();
    symlink("/etc", folder.path().join("link")).unwrap();
    symlink(".", folder.path().join("loop")).unwrap();
    assert_eq!(paths(&store, "").await, ["a"]);
    assert_eq!(store.folders("").await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_file_in_the_way_is_no_folder_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::local(folder.path());
    store.create("a", "1".into()).await.unwrap();
    let error = store.create("a/b", "2".into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    assert!(store.size("a/b").await.unwrap_err().is_not_found());
    assert_eq!(paths(&store, "").await, ["a"]);
    let root = Store::local(folder.path().join("a"));
    assert!(matches!(root.list("").await, Err(StoreError::Io { .. })), "a root that is a file");
    assert!(root.create("x", "x".into()).await.is_err());
}

#[tokio::test]
async fn a_read_only_file_system_is_a_denial() {
    // /proc lets nobody, not even root, make folders.
    let store = Store::local("/proc/self/lifeboat");
    let error = store.create("a", "1".into()).await.unwrap_err();
    assert!(error.is_denied() || matches!(error, StoreError::Io { .. }), "{error:?}");
    assert!(!error.is_unreachable());
}

#[tokio::test]
async fn a_write_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // A file size limit cannot be set in-process without unsafe code, so a child has one.
    let status = Command::new("sh")
        .arg("-c")
        .arg(
            "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact --ignored writes_until_told_or_killed",
        )
        .arg(std::env::current_exe().unwrap())
        .env("STORE_TEST_ROOT", folder.path().join("root"))
        .env("STORE_TEST_STOP", "yes")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success(), "it was to hit its limit");
    let root = folder.path().join("root");
    assert_eq!(paths(&Store::local(&root), "").await, [""; 0]);
    assert_eq!(fs::read_dir(root.join(".lifeboat-tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_killed_writer_left_is_removed_by_the_next_and_not_what_a_living_one_writes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::local(folder.path());
    let aside = || {
        let entries = fs::read_dir(folder.path().join(".lifeboat-tmp")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "writes_until_told_or_killed"])
        .env("STORE_TEST_ROOT", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("has written")));
    let mut living = store.writer("living").await.unwrap();
    living.write("alive".into()).await.unwrap();
    assert_eq!(aside().len(), 2, "both are alive, so both are left in peace");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(paths(&store, "").await, [""; 0]);
    store.create("next", "x".into()).await.unwrap();
    assert_eq!(aside().len(), 1);
    living.finish().await.unwrap();
    assert_eq!(paths(&store, "").await, ["living", "next"]);
    assert_eq!(aside(), [""; 0].map(std::path::PathBuf::from));
}

/// The other process of two tests above.
#[tokio::test]
#[ignore = "runs inside other tests"]
async fn writes_until_told_or_killed() {
    let Ok(root) = std::env::var("STORE_TEST_ROOT") else { return };
    let mut writer = Store::local(root).writer("dead").await.unwrap();
    writer.write(content(1 << 20)).await.unwrap();
    if std::env::var("STORE_TEST_STOP").is_ok() {
        return;
    }
    println!("has written");
    std::future::pending::<()>().await;
}
