//! Files that are amended: what is kept, built anew, continued and left out, at random against a model.

use std::io::Write;
use std::ops::ControlFlow;

use bolt::{BuildError, Builder, Db, Options, Patch, Txid};
use proptest::prelude::*;

use crate::building::{Entry, Model, bucket, build, build_model, file, options};
use crate::dump::{self, Dump};

/// What becomes of a bucket.
#[derive(Clone, Debug)]
enum Fate {
    Kept,
    Dropped,
    /// Built anew with these.
    Replaced(Model),
    /// Followed by so many pairs, with values of so many bytes.
    Continued(u16, usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Kept),
        Just(Fate::Dropped),
        bucket().prop_map(Fate::Replaced),
        (0u16..300, prop_oneof![0usize..60, 3000usize..9000])
            .prop_map(|(pairs, bytes)| Fate::Continued(pairs, bytes)),
    ]
}

/// Keys after all that the strategies make.
fn late_key(number: u16) -> Vec<u8> {
    [&[0xFF; 901][..], &number.to_be_bytes()].concat()
}

/// The file of `bytes` with these fates, as a patch, and the model of it.
fn amend(bytes: &[u8], model: &Model, fates: &[Fate]) -> (Patch, Model) {
    let db = Db::open(bytes).unwrap();
    let (mut patch, mut expected) = (Patch::of(&db), Model::default());
    let mut builder = Builder::amend(&mut patch, &db).unwrap();
    for ((name, entry), fate) in model.entries.iter().zip(fates.iter().cycle()) {
        let Entry::Bucket(mut content) = entry.clone() else {
            unreachable!("the root has buckets")
        };
        let old = db.bucket(name).unwrap().unwrap();
        match fate {
            Fate::Dropped => continue,
            Fate::Kept => builder.keep(&old).unwrap(),
            Fate::Replaced(model) => {
                content = model.clone();
                builder.begin_bucket(name).unwrap();
                builder.set_sequence(model.sequence).unwrap();
                model.write(&mut builder).unwrap();
                builder.end_bucket().unwrap();
            }
            Fate::Continued(pairs, bytes) => {
                builder.begin_after(&old).unwrap();
                for number in 0..*pairs {
                    builder.put(&late_key(number), &vec![3; *bytes]).unwrap();
                    content.entries.insert(late_key(number), Entry::Value(vec![3; *bytes]));
                }
                builder.end_bucket().unwrap();
            }
        }
        expected.entries.insert(name.clone(), Entry::Bucket(content));
    }
    let built = builder.finish().unwrap();
    assert_eq!(built.size, patch.size());
    (patch, expected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_amended_file_has_what_was_kept_and_what_was_put(
        options in options(), model in file(), fates in prop::collection::vec(fate(), 1..7),
    ) {
        let options = Options { txid: Txid(options.txid.0.min(u64::MAX - 2)), ..options };
        let (bytes, _) = build_model(options, &model);
        let (patch, expected) = amend(&bytes, &model, &fates);

        // A snapshot has a digest behind its pages, which goes.
        let mut changed = tempfile::tempfile().unwrap();
        changed.write_all(&bytes).unwrap();
        changed.write_all(&[7; 32]).unwrap();
        patch.apply(&changed).unwrap();
        let amended = bolt::Mapped::open(&changed).unwrap();
        prop_assert_eq!(amended.len() as u64, patch.size());
        let db = Db::open(&amended).unwrap();
        prop_assert_eq!(db.meta().txid, Txid(options.txid.0 + 2));
        prop_assert_eq!(db.spare_meta_defect(), None);

        let mut wanted = Dump::default();
        expected.dump(&[], &mut wanted);
        wanted.buckets.sort();
        wanted.pairs.sort();
        let checked = dump::check(&db);
        prop_assert_eq!(checked.violations, []);
        prop_assert_eq!(checked.dump, wanted);

        let mut copy = std::io::Cursor::new(Vec::new());
        let old = Db::open(&bytes).unwrap();
        patch.write(&old, &mut copy, &|_| ControlFlow::Continue(())).unwrap();
        prop_assert!(copy.into_inner() == amended[..], "a copy differs from the file itself");
    }
}

#[test]
fn what_is_kept_is_not_written_again() {
    let (bytes, _) = build(Options::default(), |builder| {
        for name in [b"a", b"b"] {
            builder.begin_bucket(name)?;
            for key in 0u32..100_000 {
                builder.put(&key.to_be_bytes(), &[0; 100])?;
            }
            builder.end_bucket()?;
        }
        Ok(())
    });
    let db = Db::open(&bytes).unwrap();
    let mut patch = Patch::of(&db);
    let mut builder = Builder::amend(&mut patch, &db).unwrap();
    builder.keep(&db.bucket(b"a").unwrap().unwrap()).unwrap();
    builder.begin_after(&db.bucket(b"b").unwrap().unwrap()).unwrap();
    builder.put(&u32::MAX.to_be_bytes(), b"").unwrap();
    builder.end_bucket().unwrap();
    builder.finish().unwrap();
    // The right edge of one tree, which has three levels, and the root leaf.
    assert_eq!(patch.size() - db.size(), 4 * 4096);
}

#[test]
fn a_transaction_id_without_a_next_one_and_names_out_of_order_are_refused() {
    let options = Options { txid: Txid(u64::MAX - 1), ..Options::default() };
    let (bytes, _) = build(options, |builder| {
        builder.begin_bucket(b"b")?;
        builder.end_bucket()
    });
    let db = Db::open(&bytes).unwrap();
    let mut patch = Patch::of(&db);
    assert!(matches!(Builder::amend(&mut patch, &db).err(), Some(BuildError::Txid)));

    let (bytes, _) = build(Options::default(), |builder| {
        builder.begin_bucket(b"b")?;
        builder.end_bucket()
    });
    let db = Db::open(&bytes).unwrap();
    let mut patch = Patch::of(&db);
    let mut builder = Builder::amend(&mut patch, &db).unwrap();
    let bucket = db.bucket(b"b").unwrap().unwrap();
    builder.keep(&bucket).unwrap();
    assert!(matches!(builder.keep(&bucket), Err(BuildError::KeyOrder { .. })));
    assert!(matches!(builder.begin_after(&bucket), Err(BuildError::KeyOrder { .. })));
}

#[test]
fn a_copy_can_be_ended_in_the_middle() {
    let (bytes, _) = build(Options::default(), |_| Ok(()));
    let db = Db::open(&bytes).unwrap();
    let mut patch = Patch::of(&db);
    Builder::amend(&mut patch, &db).unwrap().finish().unwrap();
    let out = std::io::Cursor::new(Vec::new());
    let ended = patch.write(&db, out, &|_| ControlFlow::Break(()));
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::Interrupted);
}
