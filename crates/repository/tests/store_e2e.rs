//! Buckets on real S3 servers: SeaweedFS, which can do all that is asked for, and rclone, which cannot.

#[path = "store/conformance.rs"]
mod conformance;

use conformance::{conforms, content, one_creator_wins, paths, read_all, write_all};
use repository::store::{Credentials, Secret, Store, StoreError, StoreOptions};
use std::error::Error;
use testbed::{Identity, Rclone, S3};

/// What a user of that identity has in the config file; retries are few, to be quick where they are in vain.
fn options(identity: Identity) -> StoreOptions {
    StoreOptions {
        settings: [("retries".to_owned(), "1".to_owned())].into(),
        credentials: Some(Credentials {
            access_key_id: identity.access_key().to_owned(),
            secret_access_key: Secret::new(identity.secret()),
            session_token: None,
        }),
        ..StoreOptions::default()
    }
}

fn open(url: &str, identity: Identity) -> Store {
    Store::open(url, &options(identity)).expect("the testbed's URLs are good")
}

/// The whole chain, as it is printed.
fn text(error: &StoreError) -> String {
    let mut text = format!("{error}\n{error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!("\ncaused by: {error}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn seaweedfs_does_what_every_store_does() {
    let server = S3::start();
    let store = open(&server.url("some/prefix"), Identity::Admin);
    assert!(store.probe().await.unwrap() && store.is_create_only());
    conforms(&store).await;
    // What was given up was aborted: at once, or by a task that needs a moment.
    for _ in 0..1_000 {
        if server.unfinished_uploads().is_empty() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("left: {:?}", server.unfinished_uploads());
}

#[tokio::test]
async fn rclone_does_too_but_keeps_nothing_from_being_overwritten() {
    let server = Rclone::start();
    let store = open(&server.url("prefix"), Identity::Admin);
    assert!(!store.probe().await.unwrap());
    assert!(!store.is_create_only());
    conforms(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_creators_one_wins() {
    let server = S3::start();
    let store = open(&server.url("race"), Identity::Admin);
    for round in 0..4 {
        one_creator_wins(&store, &format!("object-{round}"), 8).await;
    }
}

#[tokio::test]
async fn of_two_large_uploads_the_second_is_not_completed() {
    let server = S3::start();
    let store = open(&server.url(""), Identity::Admin);
    let (one, other) = (content(20_000_000), content(20_000_001));
    let begin = async |content: &bytes::Bytes| {
        let mut writer = store.writer("large").await.unwrap();
        writer.write(content.clone()).await.unwrap();
        writer
    };
    let (first, second) = (begin(&one).await, begin(&other).await);
    second.finish().await.unwrap();
    assert!(first.finish().await.unwrap_err().is_exists());
    assert!(read_all(&store, "large").await.unwrap() == other, "not the bytes of who was first");
}

#[tokio::test]
async fn every_page_of_a_listing_is_read() {
    let server = S3::start();
    let folder = server.folder().join("many");
    for n in 0..2_345 {
        let path = folder.join(format!("p/{:02}/{n:05}", n % 50));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "xyz").unwrap();
    }
    server.make_bucket("many");
    server.copy_in("many", &folder);
    let store = open(&server.url_in("many", "p"), Identity::Admin);
    let listed = store.list("").await.unwrap();
    assert_eq!(listed.len(), 2_345);
    assert!(listed.is_sorted_by(|a, b| a.path < b.path) && listed.iter().all(|e| e.bytes == 3));
    assert_eq!(store.folders("").await.unwrap().len(), 50);
}

#[tokio::test]
async fn tls_works_with_the_right_authority_only() {
    let server = S3::start_with_tls();
    let store = open(&server.url("tls"), Identity::Admin);
    write_all(&store, "object", &content(9_000_000)).await.unwrap();
    assert_eq!(paths(&store, "").await, ["object"]);

    let url =
        |ca: &str| format!("s3://backups/tls?endpoint={}&region=us-east-1{ca}", server.endpoint());
    let foreign = format!("&ca={}", server.certificates().foreign_ca().display());
    for ca in ["", &foreign] {
        let error = open(&url(ca), Identity::Admin).list("").await.unwrap_err();
        assert!(error.is_unreachable(), "{error:?}");
        assert!(text(&error).contains("certificate"), "{}", text(&error));
    }
    let plain = url("").replace("https://", "http://");
    let error = open(&plain, Identity::Admin).list("").await.unwrap_err();
    assert!(!error.is_denied(), "{error:?}");
}

#[tokio::test]
async fn credentials_that_do_not_suffice_are_a_denial_and_never_printed() {
    let server = S3::start();
    let admin = open(&server.url("p"), Identity::Admin);
    admin.create("object", "content".into()).await.unwrap();
    for identity in
        [Identity::ReadOnly, Identity::NoAccess, Identity::Unknown, Identity::WrongSecret]
    {
        let store = open(&server.url("p"), identity);
        let mut errors = vec![
            store.create("new", "x".into()).await.unwrap_err(),
            store.delete("object").await.unwrap_err(),
            write_all(&store, "large", &content(20_000_000)).await.unwrap_err(),
        ];
        match identity {
            Identity::ReadOnly => assert_eq!(store.read("object", 10).await.unwrap(), "content"),
            _ => {
                errors.push(store.read("object", 10).await.unwrap_err());
                errors.push(store.size("object").await.unwrap_err());
                errors.push(store.list("").await.unwrap_err());
            }
        }
        for error in errors {
            assert!(error.is_denied(), "{identity:?}: {}", text(&error));
            assert!(!error.is_retryable());
            assert!(!text(&error).contains(identity.secret()), "{}", text(&error));
            assert!(!text(&error).contains("Signature="), "{}", text(&error));
        }
    }
    assert_eq!(paths(&admin, "").await, ["object"]);
    let nobody = StoreOptions::default();
    let store = Store::open(&format!("{}&anonymous=true", server.url("p")), &nobody).unwrap();
    assert!(store.read("object", 10).await.unwrap_err().is_denied());
}

#[tokio::test]
async fn a_bucket_or_a_server_that_is_not_there_is_named() {
    let mut server = S3::start();
    let store = open(&server.url_in("no-such-bucket", "p"), Identity::Admin);
    for error in [
        store.create("x", "x".into()).await.unwrap_err(),
        store.list("").await.unwrap_err(),
        write_all(&store, "large", &content(20_000_000)).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::NoSuchBucket { .. }), "{}", text(&error));
        assert!(error.to_string().contains("s3://no-such-bucket/p"), "{error}");
    }
    let store = open(&server.url("p"), Identity::Admin);
    store.create("x", "x".into()).await.unwrap();
    server.halt();
    for error in [
        store.create("y", "y".into()).await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.read("x", 1).await.unwrap_err(),
        store.delete("x").await.unwrap_err(),
    ] {
        assert!(error.is_unreachable() && error.is_retryable(), "{}", text(&error));
    }
    server.resume();
    assert_eq!(paths(&store, "").await, ["x"]);
}

#[tokio::test]
async fn a_locked_object_is_not_deleted() {
    let server = S3::start();
    server.make_locking_bucket("locking");
    let store = open(&server.url_in("locking", "p"), Identity::Admin);
    store.create("free", "x".into()).await.unwrap();
    server.retain_by_default("locking", 1);
    store.create("locked", "x".into()).await.unwrap();
    write_all(&store, "large", &content(9_000_000)).await.unwrap();
    for path in ["locked", "large"] {
        let error = store.delete(path).await.unwrap_err();
        assert!(matches!(error, StoreError::Locked { until: Some(_), .. }), "{}", text(&error));
        assert!(!error.is_retryable());
    }
    store.delete("free").await.unwrap();
    assert_eq!(paths(&store, "").await, ["large", "locked"]);
}
