//! Input that is wrong in any way: no panic, and an end in a time that the size of the file bounds.

use std::fs;

use bolt::{
    BoltError, Builder, Check, DEPTH_MAX, Db, Meta, Options, PageDefect, PageSize, Pgid, Txid,
    Violation,
};
use proptest::prelude::*;

use crate::building::{build, build_model, file, open_clean, options};
use crate::dump;
use crate::fixtures::fixture;

/// Reads and checks everything in `bytes`, if they can be opened, and says whether all was well.
fn exercise(bytes: &[u8]) -> bool {
    let Ok(db) = Db::open(bytes) else { return false };
    let checked = dump::check(&db);
    // Each element has 16 bytes and a key of its own.
    assert!(checked.summary.pairs + checked.summary.buckets <= bytes.len() as u64 / 17);
    let read = dump::read(&db);
    for bucket in db.buckets().flatten() {
        let _ = bucket.last();
        let _ = bucket.get(b"some key");
        let _ = bucket.range_from(&[0x80]).take(3).count();
    }
    let sound = !checked.violations.iter().any(Violation::concerns_data);
    if sound {
        assert_eq!(read.unwrap(), checked.dump);
    }
    sound
}

/// A page header, and 16 bytes for each element; the rest is zero.
fn page(page_size: PageSize, id: u64, flags: u16, elements: &[[u8; 16]]) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes.extend(u16::try_from(elements.len()).unwrap().to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(elements.as_flattened());
    bytes.resize(page_size.bytes(), 0);
    bytes
}

/// A file of these pages from page 2 on, with good metas.
fn file_of(page_size: PageSize, pages: &[Vec<u8>]) -> Vec<u8> {
    let meta = Meta {
        page_size,
        root: Pgid(2),
        sequence: 0,
        freelist: None,
        high_water_mark: Pgid(2 + pages.len() as u64),
        txid: Txid(1),
    };
    let mut bytes = Vec::new();
    for slot in 0..2 {
        let mut page = meta.encode(slot).to_vec();
        page.resize(page_size.bytes(), 0);
        bytes.extend(page);
    }
    bytes.extend(pages.concat());
    bytes
}

/// A branch of `count` children with keys of one byte, which all are page `child`.
fn branch(page_size: PageSize, id: u64, child: u64, count: u8) -> Vec<u8> {
    let elements: Vec<[u8; 16]> = (0..count)
        .map(|index| {
            let pos = u32::from(count - index) * 16 + u32::from(index);
            let mut element = [0; 16];
            element[..4].copy_from_slice(&pos.to_le_bytes());
            element[4] = 1;
            element[8..].copy_from_slice(&child.to_le_bytes());
            element
        })
        .collect();
    let mut bytes = page(page_size, id, 1, &elements);
    let start = 16 + 16 * usize::from(count);
    for index in 0..count {
        bytes[start + usize::from(index)] = index;
    }
    bytes
}

/// Goal: what points to the same pages again and again does not keep a walk busy for longer than the
/// file is large. Method: 30 levels of branches with 100 children each, all of them the same page, which
/// makes 10^60 ways to an empty leaf, where no key could show that something is wrong.
#[test]
fn branches_that_name_one_page_many_times_end_a_walk() {
    let page_size = PageSize::DEFAULT;
    let mut pages: Vec<Vec<u8>> = (2..32).map(|id| branch(page_size, id, id + 1, 100)).collect();
    pages.push(page(page_size, 32, 2, &[]));
    let bytes = file_of(page_size, &pages);
    let db = Db::open(&bytes).unwrap();
    let error = db.buckets().find_map(Result::err);
    assert!(matches!(error, Some(BoltError::TooManyPages { .. })), "{error:?}");
    assert_eq!(db.buckets().count(), 1, "an error is the end");
    assert!(matches!(db.bucket(b"b"), Err(BoltError::TooManyPages { .. })));
    let checked = dump::check(&db);
    let twice = |violation: &&Violation| matches!(violation, Violation::ReachedTwice { .. });
    assert_eq!(checked.violations.iter().filter(twice).count(), 30 * 99);
}

#[test]
fn a_branch_that_is_its_own_child_is_an_error_with_its_page_id() {
    let bytes = file_of(PageSize::MIN, &[branch(PageSize::MIN, 2, 2, 1)]);
    let db = Db::open(&bytes).unwrap();
    let error = db.buckets().next().unwrap().unwrap_err();
    assert_eq!(error, BoltError::TooManyPages { pgid: Pgid(2) });
    let twice = Violation::ReachedTwice { pgid: Pgid(2), parent: Pgid(2) };
    assert_eq!(Check::new(&db).violations(10), [twice]);
}

#[test]
fn a_chain_of_branches_is_followed_up_to_the_depth_limit() {
    for (levels, readable) in [(DEPTH_MAX, true), (DEPTH_MAX + 1, false)] {
        let leaf = 1 + levels as u64;
        let mut pages: Vec<Vec<u8>> =
            (2..leaf).map(|id| branch(PageSize::MIN, id, id + 1, 1)).collect();
        pages.push(page(PageSize::MIN, leaf, 2, &[]));
        let bytes = file_of(PageSize::MIN, &pages);
        let db = Db::open(&bytes).unwrap();
        let error = db.buckets().find_map(Result::err);
        let violations = Check::new(&db).violations(10);
        if readable {
            assert_eq!((error, violations), (None, vec![]));
        } else {
            assert_eq!(error, Some(BoltError::TooDeep { pgid: Pgid(leaf) }));
            let parent = Pgid(leaf - 1);
            assert_eq!(violations, [Violation::TooDeep { pgid: Pgid(leaf), parent }]);
        }
    }
}

#[test]
fn a_bucket_header_that_is_too_short_is_an_error_of_that_bucket_only() {
    let (mut bytes, _) = build(Options::default(), |builder| {
        for name in [b"a", b"b", b"c"] {
            builder.begin_bucket(name)?;
            builder.put(b"key", b"value")?;
            builder.end_bucket()?;
        }
        Ok(())
    });
    // Element 1 of the root leaf, page 2: give the inline bucket a root page.
    let db = open_clean(&bytes);
    let value = db.bucket(b"b").unwrap().unwrap().get(b"key").unwrap().unwrap();
    let image = value.as_ptr().addr() - bytes.as_ptr().addr() - 3 - 16 - 16;
    bytes[image - 16] = 1;
    let db = Db::open(&bytes).unwrap();
    let readable: Vec<bool> = db.buckets().map(|bucket| bucket.is_ok()).collect();
    assert_eq!(readable, [true, false, true]);
    let violations = Check::new(&db).violations(10);
    assert!(
        matches!(violations[..], [Violation::Element { pgid: Pgid(2), index: 1, .. }]),
        "{violations:?}"
    );
}

#[test]
fn an_inline_bucket_whose_page_is_no_leaf_is_found_by_reader_and_checker() {
    let (bytes, _) = build(Options::default(), |builder| {
        builder.begin_bucket(b"b")?;
        builder.put(b"key", b"value")?;
        builder.end_bucket()
    });
    let image = 2 * 4096 + 16 + 16 + 1 + 16; // page header, element, name, bucket header
    let flags = PageDefect::Flags { found: 1 };
    let id = PageDefect::IdMismatch { found: 7 };
    let count = PageDefect::Count { count: 0x0901 };
    let overflow = PageDefect::InlineOverflow { overflow: 2 };
    for (at, byte, defect) in [(8, 1, flags), (0, 7, id), (11, 9, count), (12, 2, overflow)] {
        let mut bytes = bytes.clone();
        bytes[image + at] = byte;
        let db = Db::open(&bytes).unwrap();
        let (pgid, index, offset) = (Pgid(2), 0, 2 * 4096 + 16);
        let error = db.bucket(b"b").unwrap_err();
        assert_eq!(error, BoltError::InlineBucket { pgid, index, defect });
        let violation = Violation::InlineBucket { pgid, index, offset, defect };
        assert_eq!(Check::new(&db).violations(10), [violation]);
    }
}

#[test]
fn a_page_of_garbage_is_reported_with_a_few_findings_and_a_count_of_the_rest() {
    let (mut bytes, _) = build(Options::default(), |builder| {
        builder.begin_bucket(b"b")?;
        for key in 0u16..150 {
            builder.put(&key.to_be_bytes(), b"some value")?;
        }
        builder.end_bucket()
    });
    // 145 pairs of 28 bytes fill page 2; no element has such flags.
    for index in 0..145 {
        bytes[2 * 4096 + 16 + 16 * index] = 0x55;
    }
    let checked = dump::check(&Db::open(&bytes).unwrap());
    assert_eq!(checked.violations.len(), 17);
    assert_eq!(checked.violations[16], Violation::More { pgid: Pgid(2), count: 129 });
    assert_eq!((checked.summary.violations, checked.summary.pairs), (145, 5));
}

#[test]
fn a_visitor_can_end_the_walk_at_any_call() {
    use std::ops::ControlFlow;

    struct Countdown(u32);
    impl Countdown {
        fn tick(&mut self) -> ControlFlow<()> {
            assert!(self.0 > 0, "called after it ended the walk");
            self.0 -= 1;
            if self.0 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    impl<'a> bolt::Visitor<'a> for Countdown {
        fn bucket(&mut self, _: bolt::BucketStart<'a>) -> ControlFlow<()> {
            self.tick()
        }
        fn bucket_end(&mut self) -> ControlFlow<()> {
            self.tick()
        }
        fn pair(&mut self, _: &'a [u8], _: &'a [u8]) -> ControlFlow<()> {
            self.tick()
        }
        fn violation(&mut self, violation: Violation) -> ControlFlow<()> {
            panic!("{violation}")
        }
    }

    let bytes = fs::read(fixture("3.4.23/base.db")).unwrap();
    let db = Db::open(&bytes).unwrap();
    let all = Check::new(&db).walk(&mut Countdown(u32::MAX));
    assert!(!all.stopped);
    let calls = u32::try_from(all.pairs + 2 * all.buckets).unwrap();
    for after in 1..=calls {
        assert!(Check::new(&db).walk(&mut Countdown(after)).stopped);
    }
}

/// Goal: a changed byte in the structure of a real file is found. Method: each byte of each page header
/// and of each element's position and size, one after another, in a file without slack.
#[test]
fn every_changed_bit_of_a_size_or_position_in_a_full_leaf_is_found() {
    let (bytes, _) = build(Options::default(), |builder| {
        builder.begin_bucket(b"b")?;
        for key in 0u32..1000 {
            builder.put(&key.to_be_bytes(), &[1; 40])?;
        }
        builder.end_bucket()
    });
    open_clean(&bytes);
    let leaf = 2 * 4096;
    let count = usize::from(u16::from_le_bytes([bytes[leaf + 10], bytes[leaf + 11]]));
    let mut missed = Vec::new();
    for offset in leaf..leaf + 16 + 16 * count {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[offset] ^= 1 << bit;
            if exercise(&changed) {
                missed.push((offset - leaf, bit));
            }
        }
    }
    // The size of the last value has nothing behind it that would show that it shrank; the count may
    // shrink, too; and an overflow that ends at the next page in use is found by that page only.
    let last = 16 + 16 * (count - 1) + 12;
    missed.retain(|(offset, _)| !(last..last + 4).contains(offset) && !(10..12).contains(offset));
    assert_eq!(missed, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        prop_assert!(!exercise(&bytes));
    }

    #[test]
    fn random_pages_behind_good_metas_never_panic(
        pages in prop::collection::vec(
            (
                prop::sample::select(vec![1u16, 2, 2, 0x10, 4]),
                prop::collection::vec((any::<bool>(), 0u32..600, 0u32..40, 0u64..12), 0..30),
            ),
            1..10,
        ),
    ) {
        let pages: Vec<Vec<u8>> = (2u64..).zip(&pages).map(|(id, (flags, elements))| {
            let elements: Vec<[u8; 16]> = elements.iter().map(|(flag, pos, ksize, last)| {
                let mut element = [0; 16];
                if *flags == 2 {
                    element[0] = u8::from(*flag);
                    element[4..8].copy_from_slice(&pos.to_le_bytes());
                    element[8..12].copy_from_slice(&ksize.to_le_bytes());
                    element[12] = last.to_le_bytes()[0] * 16;
                } else {
                    element[..4].copy_from_slice(&pos.to_le_bytes());
                    element[4..8].copy_from_slice(&ksize.to_le_bytes());
                    element[8..].copy_from_slice(&last.to_le_bytes());
                }
                element
            }).collect();
            let mut page = page(PageSize::MIN, id, *flags, &elements);
            for (index, byte) in page.iter_mut().enumerate().skip(16 + 16 * elements.len()) {
                *byte = index.to_le_bytes()[0] % 11; // keys, and bucket headers that lead somewhere
            }
            page
        }).collect();
        exercise(&file_of(PageSize::MIN, &pages));
    }

    #[test]
    fn a_built_file_with_changed_bytes_never_panics(
        options in options(),
        model in file(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (mut bytes, _) = build_model(options, &model);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        exercise(&bytes);
    }

    #[test]
    fn a_file_cut_short_is_refused(
        options in options(), model in file(), cut in any::<prop::sample::Index>(),
    ) {
        let (bytes, _) = build_model(options, &model);
        prop_assert!(Db::open(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn a_real_file_with_a_changed_byte_never_panics(
        place in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = fs::read(fixture("3.6.14/final.db")).unwrap();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        exercise(&bytes);
    }
}

/// The builder has to be told not to nest deeper than what the reader follows.
#[test]
fn buckets_nested_up_to_the_limit_are_read_back() {
    let (bytes, built) = build(Options::default(), |builder: &mut Builder<_>| {
        let mut depth = 0u64;
        while builder.begin_bucket(b"b").is_ok() {
            depth += 1;
            assert!(depth < 1000, "nesting has a limit");
        }
        (0..depth).try_for_each(|_| builder.end_bucket())
    });
    let db = open_clean(&bytes);
    assert_eq!(dump::read(&db).unwrap().buckets.len() as u64, built.buckets);
}
