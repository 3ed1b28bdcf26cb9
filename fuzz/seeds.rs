//! Writes the corpus that the fuzz targets start from: `cargo run --bin seeds -- corpus`.
//!
//! Small files with everything in them that the parsers know. libFuzzer makes the rest of them.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use bolt::{Builder, Freelist, Inline, Options, PageSize, Txid};
use etcd_raftfiles::raftpb::{
    ConfState, Entry, EntryType, HardState, Metadata, Snapshot, SnapshotMetadata, WalSnapshot,
};
use etcd_raftfiles::snap;
use etcd_raftfiles::wal::{Encoder, Segment, SegmentName, Wal};
use etcd_schema::{KeyValue, Lease, Member, MemberId, Revision, RevisionKey};

fn main() {
    let folder = std::env::args_os().nth(1).expect("usage: seeds FOLDER");
    let corpus = Corpus { folder: PathBuf::from(folder) };
    bolt_files(&corpus);
    wal_segments(&corpus);
    raft_snapshots(&corpus);
    schema_values(&corpus);
    requests(&corpus);
    stored_objects(&corpus);
}

struct Corpus {
    folder: PathBuf,
}

impl Corpus {
    fn put(&self, target: &str, name: &str, bytes: &[u8]) {
        let folder: &Path = &self.folder.join(target);
        fs::create_dir_all(folder).expect("the corpus folder is writable");
        fs::write(folder.join(name), bytes).expect("the corpus folder is writable");
    }
}

/// Trees of one page, of two levels and of three, inline or not, with overflow pages, nested buckets
/// and a freelist.
fn bolt_files(corpus: &Corpus) {
    let small = PageSize::all().next().expect("there are page sizes");
    let default = Options::default();
    let shapes = [
        ("inline", Options { page_size: small, ..default }, 2, 10),
        ("two-levels", Options { page_size: small, ..default }, 40, 30),
        ("three-levels", Options { page_size: small, fill_percent: 50, ..default }, 60, 60),
        ("overflow", Options { page_size: small, txid: Txid(2), ..default }, 6, 900),
        ("not-inline", Options { page_size: small, inline: Inline::Never, ..default }, 1, 10),
        ("freelist", Options { page_size: small, freelist: Freelist::Empty, ..default }, 5, 50),
        ("page-4096", default, 5, 50),
    ];
    for (name, options, pairs, value_bytes) in shapes {
        let mut file = Cursor::new(Vec::new());
        let mut builder = Builder::new(&mut file, options).expect("the options are good");
        for bucket in ["alarm", "key", "meta"] {
            builder.begin_bucket(bucket.as_bytes()).expect("names ascend");
            for n in 0..if bucket == "key" { pairs } else { n_of(bucket) } {
                let key = RevisionKey { revision: Revision { main: n, sub: 0 }, tombstone: false };
                builder.put(&key.encode(), &vec![b'v'; value_bytes]).expect("keys ascend");
            }
            builder.end_bucket().expect("it has begun");
        }
        builder.begin_bucket(b"nested").expect("names ascend");
        builder.begin_bucket(b"inner").expect("names ascend");
        builder.put(b"k", b"v").expect("keys ascend");
        builder.end_bucket().expect("it has begun");
        builder.end_bucket().expect("it has begun");
        builder.finish().expect("memory does not fail");
        corpus.put("bolt", name, file.get_ref());
    }
}

fn n_of(bucket: &str) -> i64 {
    if bucket == "meta" { 3 } else { 0 }
}

/// What a restore writes, and what a server goes on to write.
fn wal_segments(corpus: &Corpus) {
    let mut log = Encoder::new(0);
    log.metadata(Metadata { node_id: 1, cluster_id: 2 });
    log.snapshot(&WalSnapshot { index: 0, term: 0, conf_state: None });
    for index in 1..=3 {
        log.entry(&Entry {
            entry_type: if index == 1 { EntryType::ConfChange } else { EntryType::Normal }.into(),
            term: 1,
            index,
            data: (index != 2).then(|| vec![b'd'; 20 * index as usize]),
        });
    }
    log.state(HardState { term: 1, vote: 1, commit: 3 });
    let conf_state = Some(ConfState { voters: vec![1, 7], ..ConfState::default() });
    log.snapshot(&WalSnapshot { index: 3, term: 1, conf_state });
    let crc = log.crc();
    let first = log.finish();
    let one = |bytes: &[u8]| [&[0], bytes].concat();
    corpus.put("wal", "one-segment", &one(&first));
    corpus.put("wal", "preallocated", &one(&[first.clone(), vec![0; 600]].concat()));
    corpus.put("wal", "torn", &one(&first[..first.len() - 5]));

    let mut second = Encoder::new(crc);
    second.metadata(Metadata { node_id: 1, cluster_id: 2 });
    second.state(HardState { term: 1, vote: 1, commit: 3 });
    let entry_type = EntryType::Normal.into();
    second.entry(&Entry { entry_type, term: 2, index: 4, data: Some(b"four".to_vec()) });
    let second = second.finish();
    // The reader cuts at a 256th part of the whole; zeros before the cut are room not yet written to.
    let mut halves = first;
    halves.resize(second.len().max(halves.len()).next_multiple_of(8), 0);
    let mut tail = second;
    tail.resize(halves.len(), 0);
    corpus.put("wal", "two-segments", &[&[128], halves.as_slice(), tail.as_slice()].concat());
}

fn raft_snapshots(corpus: &Corpus) {
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let snapshot = Snapshot {
        data: Some(b"{\"Root\":{\"Path\":\"/\"},\"CurrentIndex\":3,\"CurrentVersion\":2}".to_vec()),
        metadata: SnapshotMetadata { conf_state, index: 3, term: 1 },
    };
    corpus.put("snap", "three-members", &snap::encode(&snapshot));
}

fn schema_values(corpus: &Corpus) {
    let value = KeyValue {
        key: b"k",
        create_revision: 2,
        mod_revision: 300,
        version: 3,
        value: b"v",
        lease: -5,
    };
    let member = Member {
        id: MemberId(1 << 60),
        peer_urls: vec!["http://127.0.0.1:2380".to_owned()],
        is_learner: true,
        name: "m1".to_owned(),
        client_urls: vec!["http://127.0.0.1:2379".to_owned()],
    };
    let revision = Revision { main: 258, sub: 1 };
    let tombstone = RevisionKey { revision, tombstone: true };
    let lease = Lease { id: -5, ttl: 60, remaining_ttl: 3 };
    corpus.put("schema", "key-value", &value.encode());
    corpus.put("schema", "revision", &revision.encode());
    corpus.put("schema", "tombstone", &tombstone.encode());
    corpus.put("schema", "lease", &lease.encode_value());
    corpus.put("schema", "member", &member.encode());
    corpus.put("schema", "conf-state", b"{\"voters\":[9126955784348495964],\"auto_leave\":false}");
    corpus.put("schema", "user", b"\x0a\x04root\x12\x04hash\x1a\x04root\x22\x00");
    corpus.put("schema", "role", b"\x0a\x01r\x12\x07\x08\x02\x12\x01a\x1a\x00");
    corpus.put("schema", "alarm", b"\x08\x05\x10\x01");
    corpus.put("schema", "store", b"\x01\x02\x20\x21\x40\x20\x03\x61\x41\x20");
}

/// Requests as real clients sent them: from the logs of the killed members in `fixtures/`, a few of
/// each length class.
fn requests(corpus: &Corpus) {
    for version in ["3.4.23", "3.5.30", "3.6.14"] {
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(version);
        let unpacked = Command::new("tar")
            .args(["-I", "zstd", "-xOf"])
            .arg(archive.join("killed.tar.zst"))
            .arg("member/wal/0000000000000000-0000000000000000.wal")
            .output()
            .expect("tar is installed");
        assert!(unpacked.status.success());
        let name = SegmentName { seq: 0, first_index: 0 };
        let wal = Wal::read(&[Segment { name, bytes: &unpacked.stdout }], 0).expect("a good log");
        let data = wal.entries.iter().filter_map(|entry| entry.data);
        let short: Vec<_> = data.filter(|data| data.len() < 255).collect();
        for (number, entries) in short.chunks(short.len() / 8).enumerate() {
            let mut seed = Vec::new();
            for data in entries.iter().take(12) {
                seed.push(u8::try_from(data.len()).expect("they are short"));
                seed.extend_from_slice(data);
            }
            corpus.put("apply", &format!("{version}-{number}"), &seed);
        }
    }
}

/// What we write, plain and encrypted, and what `zstd` writes: with and without a size, a checksum, and a second frame.
fn stored_objects(corpus: &Corpus) {
    use repository::codec::{Encoding, Identities, encode};

    let text = b"/registry/pods/default/web-1".repeat(40);
    let noise: Vec<u8> =
        (0..400_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut identities = Identities::none();
    identities
        .add("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX", "here")
        .expect("it is a key");
    let sealed = Encoding { recipients: identities.recipients(), ..Encoding::default() };
    for (name, content) in [("empty", &[] as &[u8]), ("text", &text), ("noise", &noise)] {
        for (kind, encoding) in [("plain", &Encoding::default()), ("age", &sealed)] {
            let mut stored = Vec::new();
            encode(name, content, &mut stored, encoding, &|_| ()).expect("memory does not fail");
            corpus.put("frames", &format!("{kind}-{name}"), &stored);
        }
        let streamed = zstd::stream::encode_all(content, 3).expect("memory does not fail");
        let skipped = [b"\x50\x2A\x4D\x18\x02\0\0\0ab", &streamed[..], &streamed[..]].concat();
        corpus.put("frames", &format!("streamed-{name}"), &streamed);
        corpus.put("frames", &format!("skipped-{name}"), &skipped);
    }
}
