//! Files that the builder writes, read back: by hand for the edges, at random against a model.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Seek, SeekFrom, Write};

use bolt::{
    BuildError, Builder, Built, Db, Freelist, Inline, KEY_BYTES_MAX, Options, PageSize, Txid,
};
use proptest::prelude::*;

use crate::dump::{self, Dump};

/// Builds a file in memory.
pub(crate) fn build(
    options: Options,
    fill: impl FnOnce(&mut Builder<&mut Cursor<Vec<u8>>>) -> Result<(), BuildError>,
) -> (Vec<u8>, Built) {
    let mut file = Cursor::new(Vec::new());
    let mut builder = Builder::new(&mut file, options).unwrap();
    fill(&mut builder).unwrap();
    let built = builder.finish().unwrap();
    assert_eq!(built.size, file.get_ref().len() as u64);
    assert_eq!(built.size, file.position(), "the file is left at its end");
    (file.into_inner(), built)
}

/// Opens a built file, and asserts that it is clean and that each of its pages is in use.
pub(crate) fn open_clean(bytes: &[u8]) -> Db<'_> {
    let db = Db::open(bytes).unwrap();
    let checked = dump::check(&db);
    assert_eq!(checked.violations, []);
    let others = 2 + u64::from(db.meta().freelist.is_some());
    assert_eq!(checked.summary.pages + others, db.high_water_mark().0, "no page is wasted");
    assert_eq!(checked.dump, dump::read(&db).unwrap());
    db
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2);
    pairs.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

#[test]
fn an_empty_file_is_the_minimal_one_that_bbolt_accepts_byte_for_byte() {
    let mut expected = vec![0; 12_288];
    let mut set = |offset: usize, hex| {
        let bytes = unhex(hex);
        expected[offset..offset + bytes.len()].copy_from_slice(&bytes);
    };
    set(
        0,
        "00000000000000000400000000000000 edda0ced020000000010000000000000
         02000000000000000000000000000000 ffffffffffffffff0300000000000000
         000000000000000082fb8d1ab23f5e21",
    );
    set(
        4096,
        "01000000000000000400000000000000 edda0ced020000000010000000000000
         02000000000000000000000000000000 ffffffffffffffff0300000000000000
         0100000000000000a3457d25bb065940",
    );
    set(8192, "02000000000000000200000000000000");

    let (bytes, built) = build(Options::default(), |_| Ok(()));
    assert!(bytes == expected, "the bytes differ from the test vector");
    assert_eq!((built.pages(), built.size), (3, 12_288));
    open_clean(&bytes);
}

#[test]
fn a_transaction_id_puts_the_meta_in_force_where_bbolt_would() {
    for txid in [1, 2, 3, 1000] {
        let options = Options { txid: Txid(txid), ..Options::default() };
        let (mut bytes, _) = build(options, |_| Ok(()));
        assert_eq!(Db::open(&bytes).unwrap().meta().txid, Txid(txid));
        // Without it, the other one is found, and it is one behind.
        let slot = if txid % 2 == 0 { 0 } else { 4096 };
        bytes[slot + 16] = 0;
        assert_eq!(Db::open(&bytes).unwrap().meta().txid, Txid(txid - 1));
    }
}

#[test]
fn a_bucket_is_inline_up_to_a_quarter_of_a_page_and_never_with_a_bucket_inside() {
    // Page header, one element, a key of 1 byte: 33 bytes and the value.
    for (len, inline) in [(1024 - 33, true), (1024 - 32, false)] {
        let (bytes, _) = build(Options::default(), |builder| {
            builder.begin_bucket(b"b")?;
            builder.put(b"k", &vec![7; len])?;
            builder.end_bucket()
        });
        let bucket = open_clean(&bytes).bucket(b"b").unwrap().unwrap();
        assert_eq!(bucket.is_inline(), inline, "{len}");
    }
    let (bytes, _) = build(Options::default(), |builder| {
        builder.begin_bucket(b"outer")?;
        builder.begin_bucket(b"inner")?;
        builder.end_bucket()?;
        builder.end_bucket()
    });
    let outer = open_clean(&bytes).bucket(b"outer").unwrap().unwrap();
    assert!(!outer.is_inline());
    assert!(outer.bucket(b"inner").unwrap().unwrap().is_inline());
}

#[test]
fn an_empty_bucket_that_is_not_inline_is_a_leaf_without_elements() {
    let options = Options { inline: Inline::Never, ..Options::default() };
    let (bytes, built) = build(options, |builder| {
        builder.begin_bucket(b"b")?;
        builder.set_sequence(42)?;
        builder.end_bucket()
    });
    assert_eq!((built.pages(), built.buckets, built.pairs), (4, 1, 0));
    let bucket = open_clean(&bytes).bucket(b"b").unwrap().unwrap();
    assert!(!bucket.is_inline());
    assert_eq!((bucket.iter().count(), bucket.sequence()), (0, 42));
    assert_eq!(bucket.last().unwrap(), None);
}

#[test]
fn values_larger_than_pages_lie_in_overflow_pages_and_share_them_if_that_saves_one() {
    let put = |sizes: &'static [usize]| {
        build(Options::default(), |builder| {
            builder.begin_bucket(b"b")?;
            for (key, size) in (1u8..).zip(sizes) {
                builder.put(&[key], &vec![key; *size])?;
            }
            builder.end_bucket()
        })
    };
    // 2 metas, the root leaf, and: 342 pages for one value; 3 for two values that need 2 each; 1 and 1,
    // and a branch, for two that fill their pages.
    for (sizes, pages) in [(&[1_400_000][..], 345), (&[5000, 5000], 6), (&[4000, 4000], 6)] {
        let (bytes, built) = put(sizes);
        assert_eq!(built.pages(), pages, "{sizes:?}");
        let bucket = open_clean(&bytes).bucket(b"b").unwrap().unwrap();
        for (key, size) in (1u8..).zip(sizes) {
            assert_eq!(bucket.get(&[key]).unwrap(), Some(&vec![key; *size][..]));
        }
    }
}

#[test]
fn what_bbolt_would_not_take_is_refused_and_the_builder_goes_on() {
    let (bytes, built) = build(Options::default(), |builder| {
        assert!(matches!(builder.put(b"k", b""), Err(BuildError::NoBucket)));
        assert!(matches!(builder.end_bucket(), Err(BuildError::NoBucket)));
        assert!(matches!(builder.set_sequence(1), Err(BuildError::NoBucket)));
        assert!(matches!(builder.begin_bucket(b""), Err(BuildError::EmptyKey)));
        builder.begin_bucket(b"b")?;
        assert!(matches!(builder.put(b"", b"v"), Err(BuildError::EmptyKey)));
        let longest = vec![b'k'; KEY_BYTES_MAX];
        let longer = vec![b'k'; KEY_BYTES_MAX + 1];
        builder.put(&longest, b"v")?;
        assert!(matches!(builder.put(&longer, b"v"), Err(BuildError::KeyTooLong { .. })));
        assert!(matches!(builder.put(&longest, b"v"), Err(BuildError::KeyOrder { .. })));
        assert!(matches!(builder.put(b"j", b"v"), Err(BuildError::KeyOrder { .. })));
        assert!(matches!(builder.begin_bucket(b"j"), Err(BuildError::KeyOrder { .. })));
        builder.end_bucket()?;
        assert!(matches!(builder.begin_bucket(b"b"), Err(BuildError::KeyOrder { .. })));
        Ok(())
    });
    assert_eq!((built.buckets, built.pairs), (1, 1));
    open_clean(&bytes);
}

#[test]
fn options_without_meaning_are_refused() {
    let new = |options| Builder::new(Cursor::new(Vec::new()), options).err();
    for fill_percent in [0, 101] {
        let options = Options { fill_percent, ..Options::default() };
        assert!(matches!(new(options), Some(BuildError::FillPercent { .. })));
    }
    let options = Options { txid: Txid(0), ..Options::default() };
    assert!(matches!(new(options), Some(BuildError::Txid)));
}

#[test]
fn a_file_with_an_open_bucket_is_not_finished() {
    let mut file = Cursor::new(Vec::new());
    let mut builder = Builder::new(&mut file, Options::default()).unwrap();
    builder.begin_bucket(b"b").unwrap();
    assert!(matches!(builder.finish(), Err(BuildError::BucketOpen { .. })));
    assert!(Db::open(file.get_ref()).is_err(), "without metas it is no bbolt file");
}

#[test]
fn a_lower_fill_leaves_room_in_every_page() {
    let pages = |fill_percent| {
        let options = Options { fill_percent, ..Options::default() };
        let (bytes, built) = build(options, |builder| {
            builder.begin_bucket(b"b")?;
            for key in 0u32..10_000 {
                builder.put(&key.to_be_bytes(), &[0; 100])?;
            }
            builder.end_bucket()
        });
        open_clean(&bytes);
        built.pages()
    };
    // 120 bytes a pair: 34 in a full page, 16 in half a one. 20 bytes a child: 204, and 101.
    assert_eq!(pages(100), 3 + 295 + 2 + 1);
    assert_eq!(pages(50), 3 + 625 + 7 + 1);
}

/// A disk with room for so many bytes.
struct Full(u64, Cursor<Vec<u8>>);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.position() + bytes.len() as u64 > self.0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Full {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.1.seek(to)
    }
}

/// Goal: a build that meets a full disk says so and leaves nothing that opens as a bbolt file. Method:
/// disks of every size up to that of the whole file.
#[test]
fn a_full_disk_is_an_error_and_never_leaves_a_file_that_opens() {
    let fill = |builder: &mut Builder<&mut Full>| {
        builder.begin_bucket(b"b")?;
        for key in 0u32..700 {
            builder.put(&key.to_be_bytes(), &[0; 10_000])?;
        }
        builder.end_bucket()
    };
    let build = |room: u64| {
        let mut disk = Full(room, Cursor::new(Vec::new()));
        let mut builder = Builder::new(&mut disk, Options::default()).unwrap();
        let filled = fill(&mut builder);
        let failed_early = filled.is_err();
        let finished = builder.finish();
        if failed_early {
            assert!(matches!(finished, Err(BuildError::Broken)), "{room}");
        }
        (filled.and(finished), disk.1.into_inner())
    };
    let size = build(u64::MAX).0.unwrap().size;
    assert!(size > 7_000_000, "larger than the builder's buffer");
    for room in (0..size).step_by(100_000) {
        let (built, bytes) = build(room);
        assert!(
            matches!(built, Err(BuildError::Write { source, .. }) if source.kind() == io::ErrorKind::StorageFull),
            "{room}"
        );
        assert!(Db::open(&bytes).is_err(), "{room}");
    }
}

/// A bucket as a model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) sequence: u64,
    pub(crate) entries: BTreeMap<Vec<u8>, Entry>,
}

#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Value(Vec<u8>),
    Bucket(Model),
}

impl Model {
    pub(crate) fn write<W: Write + Seek>(
        &self,
        builder: &mut Builder<W>,
    ) -> Result<(), BuildError> {
        for (key, entry) in &self.entries {
            match entry {
                Entry::Value(value) => builder.put(key, value)?,
                Entry::Bucket(bucket) => {
                    builder.begin_bucket(key)?;
                    builder.set_sequence(bucket.sequence)?;
                    bucket.write(builder)?;
                    builder.end_bucket()?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn dump(&self, path: &[Vec<u8>], dump: &mut Dump) {
        for (key, entry) in &self.entries {
            match entry {
                Entry::Value(value) => {
                    dump.pairs.push((path.to_vec(), key.clone(), value.clone()));
                }
                Entry::Bucket(bucket) => {
                    let path = [path, std::slice::from_ref(key)].concat();
                    dump.buckets.push((path.clone(), bucket.sequence));
                    bucket.dump(&path, dump);
                }
            }
        }
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 1..20),
        1 => prop::collection::vec(0u8..3, 1..6),
        1 => prop::collection::vec(any::<u8>(), 300..900),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let filled = |sizes: std::ops::Range<usize>| {
        (sizes, any::<u8>()).prop_map(|(size, byte)| vec![byte; size])
    };
    prop_oneof![6 => filled(0..60), 2 => filled(0..3000), 1 => filled(3000..70_000)]
}

/// A bucket of pairs and, up to a depth of 4, of buckets.
pub(crate) fn bucket() -> impl Strategy<Value = Model> {
    let leaf = prop::collection::btree_map(key(), value().prop_map(Entry::Value), 0..60)
        .prop_map(|entries| Model { sequence: 0, entries });
    leaf.prop_recursive(4, 100, 4, |inner| {
        let pairs = prop::collection::btree_map(key(), value().prop_map(Entry::Value), 0..10);
        let buckets = prop::collection::btree_map(key(), inner.prop_map(Entry::Bucket), 0..4);
        (pairs, buckets, any::<u64>()).prop_map(|(mut entries, buckets, sequence)| {
            entries.extend(buckets);
            Model { sequence, entries }
        })
    })
}

/// A file: nothing but buckets at the root.
pub(crate) fn file() -> impl Strategy<Value = Model> {
    prop::collection::btree_map(key(), bucket().prop_map(Entry::Bucket), 0..6)
        .prop_map(|entries| Model { sequence: 0, entries })
}

pub(crate) fn options() -> impl Strategy<Value = Options> {
    let page_sizes: Vec<PageSize> = PageSize::all().collect();
    (
        prop::sample::select(page_sizes),
        prop_oneof![Just(100u8), 1u8..=100],
        prop::sample::select(vec![Freelist::None, Freelist::Empty]),
        prop::sample::select(vec![Inline::LikeBbolt, Inline::Never]),
        1..u64::MAX,
    )
        .prop_map(|(page_size, fill_percent, freelist, inline, txid)| Options {
            page_size,
            fill_percent,
            freelist,
            txid: Txid(txid),
            inline,
        })
}

/// Builds the file of a model.
pub(crate) fn build_model(options: Options, model: &Model) -> (Vec<u8>, Built) {
    build(options, |builder| model.write(builder))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_built_is_read_back_and_checked_clean(options in options(), model in file()) {
        let (bytes, built) = build_model(options, &model);
        let db = open_clean(&bytes);
        let mut expected = Dump::default();
        model.dump(&[], &mut expected);
        expected.buckets.sort();
        expected.pairs.sort();
        prop_assert_eq!(built.buckets, expected.buckets.len() as u64);
        prop_assert_eq!(built.pairs, expected.pairs.len() as u64);
        prop_assert_eq!(db.meta(), &built.meta);
        prop_assert_eq!(dump::read(&db).unwrap(), expected);
    }

    #[test]
    fn a_file_that_is_read_and_built_again_has_the_same_bytes(
        options in options(), model in file(),
    ) {
        fn copy<W: Write + Seek>(
            bucket: bolt::Bucket<'_>,
            builder: &mut Builder<W>,
        ) -> Result<(), BuildError> {
            builder.begin_bucket(bucket.name())?;
            builder.set_sequence(bucket.sequence())?;
            let mut buckets = bucket.buckets().map(Result::unwrap).peekable();
            for (key, value) in bucket.iter().map(Result::unwrap) {
                while let Some(inner) = buckets.next_if(|inner| inner.name() < key) {
                    copy(inner, builder)?;
                }
                builder.put(key, value)?;
            }
            buckets.try_for_each(|inner| copy(inner, builder))?;
            builder.end_bucket()
        }
        let (bytes, _) = build_model(options, &model);
        let db = Db::open(&bytes).unwrap();
        let (again, _) = build(options, |builder| {
            db.buckets().try_for_each(|bucket| copy(bucket.unwrap(), builder))
        });
        prop_assert!(bytes == again);
    }

    #[test]
    fn a_seek_finds_what_the_map_finds(
        options in options(),
        pairs in prop::collection::btree_map(key(), value(), 0..200),
        wanted in prop::collection::vec(key(), 20),
    ) {
        let (bytes, _) = build(options, |builder| {
            builder.begin_bucket(b"b")?;
            pairs.iter().try_for_each(|(key, value)| builder.put(key, value))?;
            builder.end_bucket()
        });
        let bucket = Db::open(&bytes).unwrap().bucket(b"b").unwrap().unwrap();
        for wanted in wanted.iter().chain(pairs.keys()) {
            let found: Vec<_> = bucket.range_from(wanted).map(Result::unwrap).collect();
            let expected: Vec<_> = pairs.range(wanted.clone()..)
                .map(|(key, value)| (&key[..], &value[..])).collect();
            prop_assert!(found == expected);
            let value = pairs.get(wanted).map(|value| &value[..]);
            prop_assert_eq!(bucket.get(wanted).unwrap(), value);
        }
        let last = pairs.last_key_value().map(|(key, value)| (&key[..], &value[..]));
        prop_assert_eq!(bucket.last().unwrap(), last);
    }
}
