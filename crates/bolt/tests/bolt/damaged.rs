//! Damaged copies of a snapshot, each made from its recipe in `damaged.json`.

use std::fs;

use bolt::{BoltError, Db, ElementDefect, MetaDefect, PageDefect, Pgid, Violation};
use serde_json::Value;

use crate::dump;
use crate::fixtures::{fixture, json};

/// The cases of `damaged.json`, with the bytes of each file. Digests are left wrong: nothing here reads
/// them.
fn cases() -> Vec<(Value, Vec<u8>)> {
    let damaged = json("damaged/damaged.json");
    let source = source();
    let cases = damaged["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 19);
    cases.iter().map(|case| (case.clone(), bytes(case, &source))).collect()
}

fn source() -> Vec<u8> {
    fs::read(fixture("3.5.30/final.db")).unwrap()
}

fn bytes(case: &Value, source: &[u8]) -> Vec<u8> {
    let Some(recipe) = case["recipe"].as_object() else {
        return fs::read(fixture(&format!("damaged/{}", case["file"].as_str().unwrap()))).unwrap();
    };
    let size = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let mut bytes = source[..size(&recipe["keep_bytes"])].to_vec();
    for edit in recipe["edits"].as_array().unwrap() {
        let new = match edit["hex"].as_str() {
            Some(hex) => unhex(hex),
            None => vec![0; size(&edit["zeros"])],
        };
        let offset = size(&edit["offset"]);
        bytes[offset..offset + new.len()].copy_from_slice(&new);
    }
    bytes.resize(size(&case["size"]), 0);
    bytes
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn case(name: &str) -> Vec<u8> {
    let (_, bytes) = cases().into_iter().find(|(case, _)| case["name"] == name).unwrap();
    bytes
}

fn open_error(name: &str) -> BoltError {
    Db::open(&case(name)).expect_err("the file cannot be opened")
}

fn violations(name: &str) -> Vec<Violation> {
    dump::check(&Db::open(&case(name)).unwrap()).violations
}

#[test]
fn a_truncated_file_is_refused_with_the_size_that_it_should_have() {
    for (name, len) in [("truncated-half", 585_744), ("truncated-one-page", 1_167_392)] {
        let needed = 1_171_456;
        assert_eq!(open_error(name), BoltError::Truncated { len, pages: 286, needed }, "{name}");
    }
}

#[test]
fn what_is_no_bbolt_file_is_refused_as_such() {
    assert_eq!(open_error("zero-length"), BoltError::TooShort { len: 0 });
    let random = open_error("random-4k");
    let (magic, not_found) = (MetaDefect::Magic { found: 0x0748_9671 }, MetaDefect::NotFound);
    assert_eq!(random, BoltError::NoValidMeta { meta0: magic, meta1: not_found });
    let BoltError::NoValidMeta { meta0, meta1 } = open_error("both-metas-broken") else {
        panic!("both metas have a wrong checksum");
    };
    assert!(matches!(meta0, MetaDefect::Checksum { .. }), "{meta0:?}");
    assert!(matches!(meta1, MetaDefect::Checksum { .. }), "{meta1:?}");
}

#[test]
fn every_file_that_is_readable_gives_all_records_of_the_source() {
    let source = source();
    let expected = dump::read(&Db::open(&source).unwrap()).unwrap();
    let mut readable = Vec::new();
    for (case, bytes) in cases() {
        if case["readable"] == true {
            let name = case["name"].as_str().unwrap().to_owned();
            let db = Db::open(&bytes).unwrap();
            assert_eq!(dump::read(&db).unwrap(), expected, "{name}");
            let checked = dump::check(&db);
            assert_eq!(checked.dump, expected, "{name}");
            assert!(!checked.violations.iter().any(Violation::concerns_data), "{name}");
            readable.push(name);
        }
    }
    assert_eq!(
        readable,
        ["no-trailer", "one-meta-broken", "meta0-zeroed", "freelist-lists-used-page"]
    );
}

#[test]
fn no_damaged_file_makes_the_checker_hand_over_a_pair_that_the_source_does_not_have() {
    let source = source();
    let expected = dump::read(&Db::open(&source).unwrap()).unwrap();
    for (case, bytes) in cases() {
        // A changed value is not seen without a digest, and the other file never was the source.
        let skip = ["leaf-value-bit-flip", "not-etcd"];
        if skip.contains(&case["name"].as_str().unwrap()) {
            continue;
        }
        let Ok(db) = Db::open(&bytes) else { continue };
        for pair in dump::check(&db).dump.pairs {
            let found = expected.pairs.binary_search(&pair).is_ok();
            assert!(found, "{}: {:?} is not in the source", case["name"], (pair.0, pair.1));
        }
    }
}

#[test]
fn a_flipped_value_is_a_matter_of_the_digest_and_not_of_the_check() {
    let changed = case("leaf-value-bit-flip");
    let db = Db::open(&changed).unwrap();
    assert_eq!(violations("leaf-value-bit-flip"), []);
    let source = source();
    let source = dump::read(&Db::open(&source).unwrap()).unwrap();
    let changed = dump::read(&db).unwrap();
    let differ = source.pairs.iter().zip(&changed.pairs).filter(|(a, b)| a != b).count();
    assert_eq!((differ, source.pairs.len()), (1, changed.pairs.len()));
}

#[test]
fn a_broken_or_missing_spare_meta_is_found_and_harms_no_data() {
    let [Violation::SpareMeta { slot: 0, defect: MetaDefect::Checksum { .. } }] =
        violations("one-meta-broken")[..]
    else {
        panic!("{:?}", violations("one-meta-broken"));
    };
    let defect = MetaDefect::Magic { found: 0 };
    assert_eq!(violations("meta0-zeroed"), [Violation::SpareMeta { slot: 0, defect }]);
}

#[test]
fn a_pointer_past_the_end_or_to_a_page_in_use_is_found() {
    let hwm = Pgid(286);
    let parent = Pgid(167);
    assert_eq!(
        violations("branch-pointer-flip-high"),
        [Violation::Page {
            pgid: Pgid(1_048_607),
            parent,
            defect: PageDefect::PastHighWaterMark { hwm }
        }]
    );
    let twice = |pgid| [Violation::ReachedTwice { pgid: Pgid(pgid), parent }];
    assert_eq!(violations("branch-pointer-flip-low"), twice(29));
    assert_eq!(violations("page-cycle"), twice(168));
}

#[test]
fn a_stale_page_in_place_of_a_leaf_is_found_by_its_keys() {
    let found = violations("free-page-referenced");
    assert_eq!(found.len(), 11, "one for each key of the page");
    for violation in found {
        let Violation::BelowSeparator { pgid: Pgid(179), .. } = violation else {
            panic!("{violation}");
        };
    }
}

#[test]
fn a_freelist_that_names_pages_in_use_and_lacks_free_ones_is_found() {
    let freelist = Pgid(109);
    let used = |pgid| Violation::FreeButUsed { freelist, pgid: Pgid(pgid) };
    let lost =
        |first, last| Violation::Unaccounted { freelist, first: Pgid(first), last: Pgid(last) };
    assert_eq!(
        violations("freelist-lists-used-page"),
        [
            used(32),
            used(105),
            lost(110, 110),
            lost(137, 138),
            lost(149, 154),
            lost(156, 159),
            lost(164, 165),
            lost(170, 178),
            lost(180, 181),
        ]
    );
}

#[test]
fn keys_that_were_exchanged_are_found_by_their_order() {
    let [violation] = &violations("key-order-broken")[..] else {
        panic!("{:?}", violations("key-order-broken"));
    };
    assert_eq!(
        violation.to_string(),
        "page 105, element 3 (offset 430144): key 000000000000020a5f0000000000000004 is not greater \
         than 000000000000020a5f0000000000000005 before it"
    );
}

#[test]
fn a_leaf_with_a_wrong_size_id_or_kind_is_found() {
    let len = 0x7FFF_FFFF;
    let defect = ElementDefect::ValueTooLong { len };
    let element = Violation::Element { pgid: Pgid(105), index: 1, offset: 430_112, defect };
    assert_eq!(violations("leaf-element-out-of-page"), [element]);
    let page = |defect| [Violation::Page { pgid: Pgid(105), parent: Pgid(167), defect }];
    assert_eq!(violations("leaf-page-id-wrong"), page(PageDefect::IdMismatch { found: 106 }));
    assert_eq!(violations("leaf-page-flags-zero"), page(PageDefect::Flags { found: 0 }));
}

#[test]
fn a_bbolt_file_of_something_else_than_etcd_is_sound() {
    let bytes = case("not-etcd");
    let db = Db::open(&bytes).unwrap();
    assert_eq!(violations("not-etcd"), []);
    let names: Vec<_> = db.buckets().map(|bucket| bucket.unwrap().name()).collect();
    assert_eq!(names, [&b"accounts"[..], b"settings"]);
}

#[test]
fn the_reader_gives_an_error_where_the_checker_finds_harm_to_the_data() {
    let mut compared = 0;
    for (case, bytes) in cases() {
        let Ok(db) = Db::open(&bytes) else { continue };
        let harmed = dump::check(&db).violations.iter().any(Violation::concerns_data);
        assert_eq!(dump::read(&db).is_err(), harmed, "{}", case["name"]);
        compared += 1;
    }
    assert_eq!(compared, 14);
}
