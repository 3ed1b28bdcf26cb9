//! Objects stored, read back, damaged and encrypted anew, in a folder.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use repository::codec::{
    self, CodecError, Encoding, End, Ends, Expected, FRAME_BYTES, Identities, Recipients,
};
use repository::manifest::{Content, Manifest, ObjectKind};
use repository::rekey::{RekeyError, rekey};
use repository::store::{Store, StoreError, testing::faulty};
use repository::{BackupId, ClusterName};
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

/// Secret keys, fixed so that a failure can be repeated.
const KEYS: [&str; 2] = [
    "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX",
    "AGE-SECRET-KEY-1Q5HR7QAW2YR6AU563P067SUUEA00LYKK800FJXNJFKSWR4FE2H0Q40FH7T",
];

fn identities(n: usize) -> Identities {
    let mut identities = Identities::none();
    identities.add(KEYS[n], "a test").unwrap();
    identities
}

fn encoding(is_encrypted: bool) -> Encoding {
    let recipients = if is_encrypted { identities(0).recipients() } else { Recipients::none() };
    Encoding { recipients, ..Encoding::default() }
}

fn data(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let word = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 60).to_le_bytes()
    };
    let mut data: Vec<u8> = (0..bytes / 8 + 1).flat_map(word).collect();
    data.truncate(bytes);
    data
}

/// An output that the test can look at.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Folder {
    root: tempfile::TempDir,
    store: Store,
}

impl Folder {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::local(root.path());
        Self { root, store }
    }

    async fn put(&self, path: &str, content: &[u8], encoding: &Encoding) -> Expected {
        put(&self.store, path, content, encoding).await
    }

    fn bytes(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.root.path().join(path)).unwrap()
    }

    /// Puts other bytes in the place of an object, as bad hardware does.
    fn damage(&self, path: &str, bytes: &[u8]) {
        let path = self.root.path().join(path);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
}

async fn put(store: &Store, path: &str, content: &[u8], encoding: &Encoding) -> Expected {
    let input = io::Cursor::new(content.to_vec());
    let uploaded = codec::upload(store, path, input, encoding, |_| ()).await.unwrap();
    let Ends { content, stored } = uploaded.finish().await.unwrap();
    Expected { content, stored, recipients: encoding.recipients.keys() }
}

async fn get(
    store: &Store,
    path: &str,
    expected: &Expected,
    identities: &Identities,
) -> Result<Vec<u8>, CodecError> {
    let output = codec::download(store, path, expected, identities, Vec::new(), |_| ()).await?;
    assert_eq!(output.ends.content, expected.content);
    Ok(output.output)
}

#[tokio::test]
async fn what_was_uploaded_is_downloaded() {
    let folder = Folder::new();
    for (n, bytes) in [0, 1, 100_000, FRAME_BYTES, 2 * FRAME_BYTES + 5].into_iter().enumerate() {
        for is_encrypted in [false, true] {
            let encoding = encoding(is_encrypted);
            let path = format!("{n}/{}", encoding.object_name(ObjectKind::Db));
            let content = data(bytes);
            let expected = folder.put(&path, &content, &encoding).await;
            assert_eq!(expected.content.bytes, bytes as u64);
            assert_eq!(expected.stored.bytes, folder.bytes(&path).len() as u64);
            let found = get(&folder.store, &path, &expected, &identities(0)).await.unwrap();
            assert!(found == content, "{path}");
        }
    }
}

#[tokio::test]
async fn progress_counts_the_content_to_its_end() {
    let folder = Folder::new();
    let content = data(3 * FRAME_BYTES);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = |seen: &Arc<Mutex<Vec<u64>>>| {
        let seen = seen.clone();
        move |bytes| seen.lock().unwrap().push(bytes)
    };
    let input = io::Cursor::new(content);
    let (encoding, progress) = (encoding(false), note(&seen));
    let upload = codec::upload(&folder.store, "x.zst", input, &encoding, progress);
    let ends = upload.await.unwrap().finish().await.unwrap();
    let expected = Expected { content: ends.content, stored: ends.stored, recipients: Vec::new() };
    let progress = note(&seen);
    let none = Identities::none();
    codec::download(&folder.store, "x.zst", &expected, &none, io::sink(), progress).await.unwrap();
    let frames = [1, 2, 3].map(|n| n * FRAME_BYTES as u64);
    assert_eq!(*seen.lock().unwrap(), [frames, frames].concat());
}

/// Goal: with the stock commands alone, any object becomes its content again. Method: they do it.
#[tokio::test]
async fn age_and_zstd_turn_an_object_into_its_content() {
    let folder = Folder::new();
    let content = data(FRAME_BYTES + 1000);
    folder.put("db.zst.age", &content, &encoding(true)).await;
    let key = folder.root.path().join("key");
    std::fs::write(&key, KEYS[0]).unwrap();
    let mut age = Command::new("age")
        .arg("-d")
        .arg("-i")
        .arg(&key)
        .arg(folder.root.path().join("db.zst.age"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("age is needed: {e}"));
    let zstd = Command::new("zstd").arg("-dqc").stdin(age.stdout.take().unwrap()).output().unwrap();
    assert!(age.wait().unwrap().success() && zstd.status.success());
    assert!(zstd.stdout == content);
}

/// Goal: no single flipped bit is missed. Method: flip 500, spread over the whole object and dense at both
/// of its ends.
async fn every_flipped_bit_is_found(is_encrypted: bool) {
    let folder = Folder::new();
    let encoding = encoding(is_encrypted);
    let path = encoding.object_name(ObjectKind::Db);
    let content = data(300_000);
    let expected = folder.put(&path, &content, &encoding).await;
    let whole = folder.bytes(&path);
    let bits = whole.len() * 8;
    let spread = (0..300).map(|n| n * (bits / 300) + n % 8);
    let ends = (0..100).flat_map(|n| [n * 11, bits - 1 - n * 3]);
    let flips: std::collections::BTreeSet<_> = spread.chain(ends).collect();
    assert!(flips.len() >= 490, "{}", flips.len());
    for bit in flips {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        folder.damage(&path, &bytes);
        match get(&folder.store, &path, &expected, &identities(0)).await {
            Ok(_) => panic!("bit {bit} was missed"),
            // A flip in a stanza of the header is one that no key opens any more.
            Err(CodecError::NotForUs { .. }) if is_encrypted && bit / 8 < 400 => {}
            Err(error) => assert!(error.is_damage(), "bit {bit}: {error:?}"),
        }
    }
    folder.damage(&path, &whole);
    assert!(get(&folder.store, &path, &expected, &identities(0)).await.unwrap() == content);
}

#[tokio::test]
async fn every_flipped_bit_of_a_plain_object_is_found() {
    every_flipped_bit_is_found(false).await;
}

#[tokio::test]
async fn every_flipped_bit_of_an_encrypted_object_is_found() {
    every_flipped_bit_is_found(true).await;
}

#[tokio::test]
async fn an_object_that_is_too_short_or_too_long_is_told_by_its_size() {
    for is_encrypted in [false, true] {
        let folder = Folder::new();
        let encoding = encoding(is_encrypted);
        let path = encoding.object_name(ObjectKind::Db);
        let expected = folder.put(&path, &data(2 * FRAME_BYTES), &encoding).await;
        let whole = folder.bytes(&path);
        let frame = whole.len() / 2;
        let cuts = [0, 1, 100, 65_536, frame - 1, frame, frame + 1, whole.len() - 1];
        for cut in cuts {
            folder.damage(&path, &whole[..cut]);
            let error = get(&folder.store, &path, &expected, &identities(0)).await.unwrap_err();
            assert!(error.is_damage(), "{cut}: {error}");
            match error {
                CodecError::Size { end: End::Stored, found, .. } => assert_eq!(found, cut as u64),
                CodecError::Mismatch { found, .. } => assert_eq!(found.bytes, cut as u64),
                error => panic!("{cut}: {error:?}"),
            }
        }
        folder.damage(&path, &[&whole[..], &whole[..]].concat());
        let error = get(&folder.store, &path, &expected, &identities(0)).await.unwrap_err();
        assert!(matches!(error, CodecError::Size { end: End::Stored, .. }), "{error}");
    }
}

/// Goal: a small object cannot fill a disk. Method: one that unpacks to more than its manifest says.
#[tokio::test]
async fn content_beyond_what_is_expected_is_not_written() {
    let folder = Folder::new();
    let mut expected = folder.put("db.zst", &vec![0; 64 << 20], &encoding(false)).await;
    expected.content.bytes = 1 << 20;
    let output = Shared::default();
    let (store, none) = (&folder.store, Identities::none());
    let download = codec::download(store, "db.zst", &expected, &none, output.clone(), |_| ());
    let error = download.await.unwrap_err();
    assert!(matches!(error, CodecError::Size { end: End::Content, .. }), "{error}");
    assert!(output.bytes().len() <= 2 * FRAME_BYTES);
}

#[tokio::test]
async fn another_valid_object_in_its_place_is_found() {
    let folder = Folder::new();
    let expected = folder.put("db.zst", b"this backup", &encoding(false)).await;
    folder.put("other.zst", b"that backup", &encoding(false)).await;
    folder.damage("db.zst", &folder.bytes("other.zst"));
    let error = get(&folder.store, "db.zst", &expected, &Identities::none()).await.unwrap_err();
    assert!(matches!(error, CodecError::Mismatch { end: End::Stored, .. }), "{error}");
}

#[tokio::test]
async fn who_has_not_the_key_learns_who_has() {
    let folder = Folder::new();
    let expected = folder.put("db.zst.age", b"secret", &encoding(true)).await;
    for wrong in [Identities::none(), identities(1)] {
        let error = get(&folder.store, "db.zst.age", &expected, &wrong).await.unwrap_err();
        assert!(!error.is_damage());
        let key = &identities(0).recipients().keys()[0];
        assert_eq!(
            error.to_string(),
            format!("cannot decrypt db.zst.age: it is encrypted to {key}")
        );
    }
}

/// An input that waits for its turn, and tells when it is gone.
struct Tail {
    turns: mpsc::Receiver<Vec<u8>>,
    _gone: mpsc::Sender<()>,
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.turns.recv().map_err(|_| io::Error::other("the spool is gone"))?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_no_object_and_ends_its_threads() {
    let folder = Folder::new();
    let (turn, turns) = mpsc::channel();
    let (gone_sender, gone) = mpsc::channel();
    let input = Tail { turns, _gone: gone_sender };
    let encoding = encoding(true);
    let mut upload = Box::pin(codec::upload(&folder.store, "db.zst.age", input, &encoding, |_| ()));
    turn.send(vec![1; 1000]).unwrap();
    assert!(futures::poll!(&mut upload).is_pending());
    drop(upload);
    drop(turn);
    // The thread drops its input as it ends, and only then this fails.
    gone.recv().unwrap_err();
    assert_eq!(folder.store.list("").await.unwrap(), []);
}

/// An output that tells when it is gone.
struct Gauge {
    _gone: mpsc::Sender<()>,
}

impl Write for Gauge {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_download_that_is_dropped_ends_its_threads() {
    let folder = Folder::new();
    let expected = folder.put("db.zst", &data(8 * FRAME_BYTES), &encoding(false)).await;
    let (gone_sender, gone) = mpsc::channel();
    let output = Gauge { _gone: gone_sender };
    let none = Identities::none();
    let download = codec::download(&folder.store, "db.zst", &expected, &none, output, |_| ());
    let mut download = Box::pin(download);
    assert!(futures::poll!(&mut download).is_pending());
    drop(download);
    gone.recv().unwrap_err();
}

#[tokio::test]
async fn an_input_that_fails_leaves_no_object() {
    let folder = Folder::new();
    let (turn, turns) = mpsc::channel();
    let (gone_sender, _gone) = mpsc::channel();
    turn.send(vec![1; 1000]).unwrap();
    drop(turn);
    let input = Tail { turns, _gone: gone_sender };
    let error =
        codec::upload(&folder.store, "db.zst", input, &encoding(false), |_| ()).await.unwrap_err();
    assert!(matches!(error, CodecError::Read { .. }), "{error:?}");
    assert_eq!(folder.store.list("").await.unwrap(), []);
}

#[tokio::test]
async fn a_panic_of_the_input_is_a_panic_of_the_caller() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("a bug")
        }
    }
    let folder = Folder::new();
    let store = folder.store.clone();
    let task = tokio::spawn(async move {
        codec::upload(&store, "db.zst", Broken, &encoding(false), |_| ()).await.map(drop)
    });
    assert!(task.await.unwrap_err().is_panic());
}

#[tokio::test]
async fn a_store_that_fails_at_any_operation_gives_its_error_and_no_object() {
    let content = data(FRAME_BYTES);
    let run = async |store: &Store| -> Result<Ends, CodecError> {
        let input = io::Cursor::new(content.clone());
        let uploaded = codec::upload(store, "db.zst.age", input, &encoding(true), |_| ()).await?;
        let ends = uploaded.finish().await?;
        let recipients = identities(0).recipients().keys();
        let Ends { content, stored } = ends.clone();
        let expected = Expected { content, stored, recipients };
        get(store, "db.zst.age", &expected, &identities(0)).await?;
        Ok(ends)
    };
    let (clean, faults) = faulty(Folder::new().store);
    run(&clean).await.unwrap();
    let operations = faults.operations();
    assert!(operations >= 5, "{:?}", faults.log());
    for at in 1..=operations {
        let folder = Folder::new();
        let (store, faults) = faulty(folder.store.clone());
        faults.cut_at(at);
        let error = run(&store).await.unwrap_err();
        assert!(matches!(error, CodecError::Store(_)), "{at}: {error:?}");
    }
}

// Rekey

const CLUSTER: &str = "prod";
const ID: &str = "00000000000000012345-20261122T164424Z";

fn names() -> (ClusterName, BackupId) {
    (CLUSTER.parse().unwrap(), ID.parse().unwrap())
}

fn path(name: &str) -> String {
    format!("{CLUSTER}/snapshots/{ID}/{name}")
}

fn manifest(db: &Expected, include: &Expected, encoding: &Encoding) -> Manifest {
    let content = |c: &Content| serde_json::json!({"bytes": c.bytes, "sha256": c.sha256});
    let object = |kind, c: &Content| {
        let mut object = content(c);
        object["name"] = encoding.object_name(kind).into();
        object
    };
    let json = serde_json::json!({
        "format": 1, "id": ID, "cluster": CLUSTER, "fence": 1,
        "source": {"kind": "file", "path": "snapshot.db"},
        "started": "2026-11-22T16:44:24Z", "finished": "2026-11-22T16:44:25Z", "tool": "a test",
        "etcd": {
            "revision": 12345, "compact_revision": 0, "hash": 1, "total_key": 1, "live_keys": 1,
            "hash_kv": {"hash": 1, "compact_revision": 0},
        },
        "db": content(&db.content),
        "object": object(ObjectKind::Db, &db.stored),
        "include": {
            "object": object(ObjectKind::Include, &include.stored),
            "tar": content(&include.content),
            "paths": ["pki"],
        },
        "compression": encoding.compression(),
        "encryption": encoding.encryption(),
        "verification": {"at": "2026-11-22T16:44:25Z", "digest": true, "tree": true, "hash_kv": false},
    });
    serde_json::from_value(json).unwrap()
}

async fn backup(store: &Store, encoding: &Encoding) {
    let db_path = path(&encoding.object_name(ObjectKind::Db));
    let db = put(store, &db_path, &data(300_000), encoding).await;
    let include_path = path(&encoding.object_name(ObjectKind::Include));
    let include = put(store, &include_path, b"a tar", encoding).await;
    let json = serde_json::to_vec(&manifest(&db, &include, encoding)).unwrap();
    store.create(&path("manifest.json"), json.into()).await.unwrap();
}

/// Reads the newest generation, as a restore does.
async fn restore(store: &Store, key: usize) -> Result<Manifest, CodecError> {
    use repository::manifest::{Committed, manifest_generation, manifest_name};
    let folder = path("");
    let entries = store.list(&folder).await?;
    let generation =
        |entry: &repository::store::Entry| manifest_generation(&entry.path[folder.len()..]);
    let newest = entries.iter().filter_map(generation).max().expect("there is a manifest");
    let manifest = path(&manifest_name(newest));
    let json = store.read(&manifest, 1 << 20).await?;
    let Committed::Backup(manifest) = Committed::parse(&manifest, &json).unwrap() else {
        panic!("abandoned")
    };
    let db = path(&manifest.object.name);
    let content = get(store, &db, &Expected::db(&manifest), &identities(key)).await?;
    assert!(content == data(300_000));
    let include = path(&manifest.include.as_ref().unwrap().object.name);
    let expected = Expected::include(&manifest).unwrap();
    assert_eq!(get(store, &include, &expected, &identities(key)).await?, b"a tar");
    Ok(*manifest)
}

async fn listed(store: &Store) -> Vec<String> {
    let entries = store.list(&path("")).await.unwrap();
    entries.into_iter().map(|entry| entry.path[path("").len()..].to_owned()).collect()
}

async fn rekeyed(store: &Store, from: usize, to: usize) -> Result<bool, RekeyError> {
    let (cluster, id) = names();
    let recipients = identities(to).recipients();
    let rekeyed = rekey(store, &cluster, id, &identities(from), &recipients, None, |_| ()).await?;
    assert!(rekeyed.locked.is_empty());
    Ok(rekeyed.is_rewritten)
}

#[tokio::test]
async fn a_rekeyed_backup_opens_with_the_new_key_only() {
    for is_encrypted in [false, true] {
        let folder = Folder::new();
        backup(&folder.store, &encoding(is_encrypted)).await;
        assert!(rekeyed(&folder.store, 0, 1).await.unwrap());
        let names = ["db.2.zst.age", "include.2.tar.zst.age", "manifest.2.json"];
        assert_eq!(listed(&folder.store).await, names);
        let manifest = restore(&folder.store, 1).await.unwrap();
        assert_eq!(manifest.encryption.unwrap().recipients, identities(1).recipients().keys());
        let error = restore(&folder.store, 0).await.unwrap_err();
        assert!(matches!(error, CodecError::NotForUs { .. }), "{error}");

        assert!(!rekeyed(&folder.store, 0, 1).await.unwrap(), "nothing is left to do");
        assert_eq!(listed(&folder.store).await, names);
    }
}

#[tokio::test]
async fn a_damaged_backup_is_not_rekeyed() {
    let folder = Folder::new();
    backup(&folder.store, &encoding(true)).await;
    let db = path("db.zst.age");
    let mut bytes = folder.bytes(&db);
    *bytes.last_mut().unwrap() ^= 1;
    folder.damage(&db, &bytes);
    let before = listed(&folder.store).await;
    match rekeyed(&folder.store, 0, 1).await.unwrap_err() {
        RekeyError::Codec(error) => assert!(error.is_damage(), "{error:?}"),
        error => panic!("{error:?}"),
    }
    assert_eq!(listed(&folder.store).await, before);
}

#[tokio::test]
async fn what_is_no_backup_is_not_rekeyed() {
    let folder = Folder::new();
    let error = rekeyed(&folder.store, 0, 1).await.unwrap_err();
    assert!(matches!(error, RekeyError::NoBackup { .. }), "{error}");
    let (cluster, id) = names();
    let nobody = Recipients::none();
    let error = rekey(&folder.store, &cluster, id, &identities(0), &nobody, None, |_| ())
        .await
        .unwrap_err();
    assert!(matches!(error, RekeyError::NoRecipients), "{error}");
}

/// Goal: whenever a rekey stops, a whole backup is there, and the next rekey comes to the same end. Method:
/// cut at every operation, with the answer to it lost or the operation not done.
#[tokio::test]
async fn a_rekey_cut_at_any_operation_leaves_a_backup_and_can_be_done_again() {
    let folder = Folder::new();
    backup(&folder.store, &encoding(true)).await;
    let (clean, faults) = faulty(folder.store.clone());
    rekeyed(&clean, 0, 1).await.unwrap();
    let operations = faults.operations();
    assert!(operations >= 12, "{:?}", faults.log());
    for at in 1..=operations {
        for is_answer_lost in [false, true] {
            let folder = Folder::new();
            backup(&folder.store, &encoding(true)).await;
            let (store, faults) = faulty(folder.store.clone());
            if is_answer_lost {
                faults.cut_after(at);
            } else {
                faults.cut_at(at);
            }
            let cut = rekeyed(&store, 0, 1).await;
            assert!(cut.is_err() || is_answer_lost, "cut {at}");
            faults.heal();

            let old = restore(&store, 0).await;
            let new = restore(&store, 1).await;
            assert!(old.is_ok() || new.is_ok(), "cut {at}: {old:?} {new:?}");

            rekeyed(&store, 0, 1).await.unwrap_or_else(|e| panic!("cut {at}: {e:?}"));
            let manifest = restore(&store, 1).await.unwrap();
            let names = listed(&store).await;
            assert_eq!(names.len(), 3, "cut {at}: {names:?}");
            assert!(names.contains(&manifest.object.name));
        }
    }
}

#[tokio::test]
async fn two_rekeys_at_once_leave_one_whole_backup() {
    let folder = Folder::new();
    backup(&folder.store, &encoding(true)).await;
    let (one, two) = futures::join!(rekeyed(&folder.store, 0, 1), rekeyed(&folder.store, 0, 1));
    assert!(one.is_ok() || two.is_ok());
    for result in [one, two] {
        match result {
            Ok(_) | Err(RekeyError::Store(StoreError::Exists { .. })) => {}
            Err(RekeyError::Codec(CodecError::Store(
                StoreError::Exists { .. } | StoreError::NotFound { .. },
            ))) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    restore(&folder.store, 1).await.unwrap();
}
