//! The S3 servers of the testbed are what the tests of repositories take them for.

use testbed::{Identity, Rclone, S3};

const ONLY_IF_NEW: &str = "If-None-Match: *";

#[test]
fn the_store_keeps_objects_and_lists_them_also_after_a_power_cut() {
    let mut store = S3::start();
    store.put("a/b/c.json", b"{}");
    store.put("a/d", &[7; 100_000]);
    assert_eq!(store.get("a/d"), [7; 100_000]);
    assert_eq!(store.list("a/"), ["a/b/c.json", "a/d"]);
    store.halt();
    store.resume();
    assert_eq!(store.list("a/"), ["a/b/c.json", "a/d"]);
    store.delete("a/d");
    assert_eq!(store.list(""), ["a/b/c.json"]);
}

#[test]
fn the_store_lists_more_keys_than_one_answer_holds() {
    let store = S3::start();
    store.make_bucket("many");
    let keys: Vec<String> = (0..1_050).map(|n| format!("k/{n:04}")).collect();
    // One process for all: a curl each would take a minute.
    let folder = store.folder().join("many");
    std::fs::create_dir_all(folder.join("k")).unwrap();
    for key in &keys {
        std::fs::write(folder.join(key), b"x").unwrap();
    }
    store.copy_in("many", &folder);
    assert_eq!(store.list_in("many", "k/"), keys);
}

#[test]
fn identities_may_do_what_their_names_say() {
    let store = S3::start();
    store.put("object", b"content");
    let status = |identity, method, body| {
        store.request(identity, method, "backups/object", &[], body).status
    };
    assert_eq!(status(Identity::ReadOnly, "GET", None), 200);
    assert_eq!(status(Identity::ReadOnly, "DELETE", None), 403);
    for identity in
        [Identity::ReadOnly, Identity::NoAccess, Identity::Unknown, Identity::WrongSecret]
    {
        assert_eq!(status(identity, "PUT", Some(b"other".as_slice())), 403, "{identity:?}");
    }
    for identity in [Identity::NoAccess, Identity::Unknown, Identity::WrongSecret] {
        assert_eq!(status(identity, "GET", None), 403, "{identity:?}");
    }
    assert_eq!(store.get("object"), b"content");
}

#[test]
fn an_object_is_created_only_once() {
    let store = S3::start();
    let put = |body: &[u8]| {
        store.request(Identity::Admin, "PUT", "backups/m", &[ONLY_IF_NEW], Some(body)).status
    };
    assert_eq!(put(b"first"), 200);
    assert_eq!(put(b"second"), 412);
    assert_eq!(store.get("m"), b"first");
}

#[test]
fn a_locked_object_cannot_be_deleted_for_good() {
    let store = S3::start();
    store.make_locking_bucket("locked");
    store.retain_by_default("locked", 1);
    store.request(Identity::Admin, "PUT", "locked/kept", &[], Some(b"content")).ok();
    let versions = store.request(Identity::Admin, "GET", "locked?versions=", &[], None).ok().body;
    let versions = String::from_utf8(versions).unwrap();
    let (_, version) = versions.split_once("<VersionId>").expect("the bucket has versions");
    let (version, _) = version.split_once('<').unwrap();
    let path = format!("locked/kept?versionId={version}");
    assert_eq!(store.request(Identity::Admin, "DELETE", &path, &[], None).status, 403);
    assert_eq!(store.request(Identity::Admin, "GET", &path, &[], None).ok().body, b"content");
}

#[test]
fn a_store_with_tls_is_known_by_its_own_ca() {
    let store = S3::start_with_tls();
    store.put("object", b"content");
    assert_eq!(store.get("object"), b"content");
    assert!(store.endpoint().starts_with("https://"));
    assert!(store.url("p").contains("&ca="));
}

#[test]
fn rclone_serves_the_files_of_a_folder_and_knows_no_conditions() {
    let store = Rclone::start();
    std::fs::write(store.bucket().join("object"), b"content").unwrap();
    assert_eq!(store.list(""), ["object"]);
    let request = |identity, method, headers: &[&str], body| {
        store.request(identity, method, "backups/object", headers, body)
    };
    assert_eq!(request(Identity::Admin, "PUT", &[ONLY_IF_NEW], Some(b"x".as_slice())).status, 200);
    assert_eq!(std::fs::read(store.bucket().join("object")).unwrap(), b"x");
    assert_eq!(request(Identity::WrongSecret, "GET", &[], None).status, 403);
    assert_eq!(request(Identity::Unknown, "GET", &[], None).status, 403);
}
