//! Logs that were cut, flipped, or put together wrongly.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use etcd_raftfiles::raftpb::{ConfState, Entry, HardState, Metadata, WalSnapshot};
use etcd_raftfiles::wal::{
    Defect, Encoder, EndKind, EntryRef, Located, Records, Segment, SegmentName, Wal, WalError,
};
use proptest::prelude::*;

const METADATA: Metadata = Metadata { node_id: 0xaaaa_bbbb_cccc_dddd, cluster_id: 7 };

fn entry(term: u64, index: u64, data: &[u8]) -> Entry {
    Entry { entry_type: 0, term, index, data: Some(data.to_vec()) }
}

fn name(seq: u64, first_index: u64) -> SegmentName {
    SegmentName { seq, first_index }
}

/// The head of a first segment.
fn first_segment() -> Encoder {
    let mut wal = Encoder::new(0);
    wal.metadata(METADATA).snapshot(&WalSnapshot::default());
    wal
}

/// Ends a segment as etcd does when it cuts one, and begins the next.
fn cut(segment: Encoder, state: HardState) -> (Vec<u8>, Encoder) {
    let mut next = Encoder::new(segment.crc());
    next.metadata(METADATA).state(state);
    (segment.finish(), next)
}

/// A log of one segment with entries of many sizes, some over several sectors.
fn small_wal() -> Vec<u8> {
    let mut wal = first_segment();
    for index in 1..=12u64 {
        let len = [0, 1, 40, 700, 1500][usize::try_from(index % 5).unwrap()];
        let byte = u8::try_from(index).unwrap();
        wal.entry(&entry(1, index, &vec![byte; len]));
        wal.state(HardState { term: 1, vote: 7, commit: index });
    }
    wal.finish()
}

fn records<'a>(segments: &[Segment<'a>]) -> (Vec<Located<'a>>, Result<EndKind, WalError>) {
    let mut records = Records::new(segments).unwrap();
    let mut good = Vec::new();
    for located in &mut records {
        match located {
            Ok(located) => good.push(located),
            Err(error) => return (good, Err(error)),
        }
    }
    (good, Ok(records.end().unwrap().kind))
}

fn indexes(wal: &Wal<'_>) -> Vec<(u64, u64)> {
    wal.entries.iter().map(|entry| (entry.index, entry.term)).collect()
}

#[test]
fn a_log_cut_at_any_offset_reads_as_a_prefix() {
    let whole = small_wal();
    let complete = [Segment { name: name(0, 0), bytes: &whole }];
    let (all, end) = records(&complete);
    assert_eq!(end, Ok(EndKind::EndOfFile));
    for cut in 0..=whole.len() {
        let segment = [Segment { name: name(0, 0), bytes: &whole[..cut] }];
        let (good, end) = records(&segment);
        assert!(good == all[..good.len()], "cut at {cut}");
        let next =
            all.get(good.len()).map_or(whole.len(), |at| usize::try_from(at.offset).unwrap());
        let expected = if cut == next { EndKind::EndOfFile } else { EndKind::Torn };
        assert_eq!(end, Ok(expected), "cut at {cut}");
    }
}

#[test]
fn a_write_that_stopped_at_any_sector_reads_as_a_prefix() {
    let whole = small_wal();
    let complete = [Segment { name: name(0, 0), bytes: &whole }];
    let (all, _) = records(&complete);
    for sector in (0..whole.len()).step_by(512) {
        let mut bytes = whole.clone();
        bytes.resize(whole.len() + 4096, 0); // as etcd preallocates
        bytes[sector..].fill(0);
        let segment = [Segment { name: name(0, 0), bytes: &bytes }];
        let (good, end) = records(&segment);
        assert!(good == all[..good.len()], "stopped at {sector}");
        assert!(matches!(end, Ok(EndKind::Torn | EndKind::Zeros)), "stopped at {sector}: {end:?}");
        if sector > 0 {
            assert!(good.last().unwrap().offset + 3000 > u64::try_from(sector).unwrap());
        }
    }
}

#[test]
fn a_sector_missing_before_others_that_were_written_ends_the_log_there() {
    let mut wal = first_segment();
    wal.entry(&entry(1, 1, b"kept"));
    let start = wal.len();
    wal.entry(&entry(1, 2, &[9; 4000]));
    let mut bytes = wal.finish();
    let sector = (start / 512 + 2) * 512;
    bytes[sector..sector + 512].fill(0);
    let segment = [Segment { name: name(0, 0), bytes: &bytes }];
    let wal = Wal::read(&segment, 0).unwrap();
    assert_eq!(indexes(&wal), [(1, 1)]);
    assert_eq!((wal.end.kind, wal.end.offset), (EndKind::Torn, u64::try_from(start).unwrap()));
}

#[test]
fn something_behind_the_zeros_is_reported() {
    let mut bytes = small_wal();
    let end = u64::try_from(bytes.len()).unwrap();
    bytes.resize(bytes.len() + 4096, 0);
    let junk = bytes.len() - 600;
    bytes[junk] = 1;
    let segment = [Segment { name: name(0, 0), bytes: &bytes }];
    let wal = Wal::read(&segment, 0).unwrap();
    assert_eq!(wal.end.offset, end);
    let offset = u64::try_from(junk).unwrap();
    assert_eq!(wal.end.kind, EndKind::TornBehindZeros { offset });
}

/// Goal: no flipped bit passes for a torn write, so none can drop committed entries in silence; and
/// none changes what is read, though the CRC leaves out the record's type.
#[test]
fn every_flipped_bit_is_found_and_none_is_taken_for_a_torn_write() {
    let mut bytes = small_wal();
    let used = bytes.len();
    bytes.resize(used + 4096, 0);
    for at in 0..used {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            let read = Wal::read(&[Segment { name: name(0, 0), bytes: &bytes }], 0);
            assert!(
                matches!(read, Err(WalError::Corrupt { .. })),
                "byte {at} bit {bit}: {:?}",
                read.map(|wal| wal.end)
            );
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn terms_and_commit_never_go_back() {
    let state = |term, commit| HardState { term, vote: 7, commit };
    let cases = [
        [state(2, 1), state(1, 1)], // term
        [state(2, 1), state(2, 0)], // commit
    ];
    for [before, after] in cases {
        let mut wal = first_segment();
        wal.entry(&entry(1, 1, b"a")).state(before).state(after);
        let bytes = wal.finish();
        let error = Wal::read(&[Segment { name: name(0, 0), bytes: &bytes }], 0).unwrap_err();
        assert!(matches!(error, WalError::Corrupt { why: Defect::GoesBack, .. }), "{error}");
    }
    let mut wal = first_segment();
    wal.entry(&entry(2, 1, b"a")).entry(&entry(1, 2, b"b"));
    let bytes = wal.finish();
    let error = Wal::read(&[Segment { name: name(0, 0), bytes: &bytes }], 0).unwrap_err();
    assert!(matches!(error, WalError::Corrupt { why: Defect::GoesBack, .. }), "{error}");
}

#[test]
fn a_cut_record_in_a_segment_that_is_not_the_last_is_damage() {
    let mut wal = first_segment();
    wal.entry(&entry(1, 1, &[5; 2000]));
    let (first, mut wal) = cut(wal, HardState { term: 1, vote: 7, commit: 1 });
    wal.entry(&entry(1, 2, b"x"));
    let second = wal.finish();
    let short = &first[..first.len() - 900];
    let segments =
        [Segment { name: name(0, 0), bytes: short }, Segment { name: name(1, 2), bytes: &second }];
    let error = Wal::read(&segments, 0).unwrap_err();
    assert!(
        matches!(&error, WalError::Corrupt { segment, why: Defect::CutOff, .. } if *segment == name(0, 0)),
        "{error}"
    );
}

/// Three segments, cut as etcd cuts them.
fn three_segments() -> Vec<(SegmentName, Vec<u8>)> {
    let mut segments = Vec::new();
    let mut wal = first_segment();
    let mut current = name(0, 0);
    for index in 1..=30u64 {
        if wal.len() > 1200 {
            let (bytes, next) = cut(wal, HardState { term: 1, vote: 7, commit: index - 1 });
            segments.push((current, bytes));
            current = name(current.seq + 1, index);
            wal = next;
        }
        wal.entry(&entry(1, index, &[3; 100]));
    }
    wal.state(HardState { term: 2, vote: 7, commit: 29 });
    segments.push((current, wal.finish()));
    assert!(segments.len() >= 3, "{} segments", segments.len());
    segments
}

fn borrow(segments: &[(SegmentName, Vec<u8>)]) -> Vec<Segment<'_>> {
    segments.iter().map(|(name, bytes)| Segment { name: *name, bytes }).collect()
}

#[test]
fn several_segments_are_one_chain() {
    let segments = three_segments();
    let wal_segments = borrow(&segments);
    let wal = Wal::read(&wal_segments, 0).unwrap();
    assert_eq!(wal.entries.len(), 30);
    assert_eq!(wal.committed().len(), 29);
    assert_eq!(wal.hard_state, Some(HardState { term: 2, vote: 7, commit: 29 }));
    assert_eq!(wal.metadata, METADATA);
    assert_eq!(wal.end.segment, segments.last().unwrap().0);
}

#[test]
fn a_log_whose_oldest_segments_were_purged_is_read() {
    let segments = three_segments();
    let wal_segments = borrow(&segments[1..]);
    let first = wal_segments[0].name.first_index;
    let wal = Wal::read(&wal_segments, first + 2).unwrap();
    assert_eq!(wal.entries[0].index, first + 3);
    let all = Wal::read(&wal_segments, 0).unwrap();
    assert_eq!(all.entries[0].index, first, "what is missing before is for the caller to see");
}

#[test]
fn a_segment_that_was_just_cut_is_read_without_those_before_it() {
    let (_, mut last) = cut(first_segment(), HardState { term: 1, vote: 7, commit: 8 });
    let name = name(1, 10);
    let bytes = std::mem::replace(&mut last, Encoder::new(0)).finish();
    let wal = Wal::read(&[Segment { name, bytes: &bytes }], 9).unwrap();
    assert_eq!((wal.commit(), wal.last_index, wal.entries.len()), (8, 9, 0));
}

#[test]
fn a_segment_missing_in_the_middle_is_found_by_its_name() {
    let mut segments = three_segments();
    segments.remove(1);
    let error = Wal::read(&borrow(&segments), 0).unwrap_err();
    let expected = WalError::NotContiguous { before: segments[0].0, found: segments[1].0 };
    assert_eq!(error, expected);
    assert_eq!(Wal::read(&[], 0), Err(WalError::NoSegments));
}

#[test]
fn a_segment_of_another_log_breaks_the_chain() {
    let mut segments = three_segments();
    let (other, _) = cut(first_segment(), HardState::default());
    segments[1].1 = other;
    let error = Wal::read(&borrow(&segments), 0).unwrap_err();
    assert!(
        matches!(error, WalError::Corrupt { why: Defect::Crc { .. }, offset: 0, .. }),
        "{error}"
    );
}

#[test]
fn a_log_of_two_members_is_refused() {
    let mut wal = first_segment();
    wal.metadata(Metadata { node_id: 1, cluster_id: 7 });
    let bytes = wal.finish();
    let error = Wal::read(&[Segment { name: name(0, 0), bytes: &bytes }], 0).unwrap_err();
    assert!(matches!(error, WalError::Corrupt { why: Defect::OtherMetadata, .. }), "{error}");
}

#[test]
fn a_log_without_metadata_is_refused() {
    let bytes = Encoder::new(0).finish();
    let error = Wal::read(&[Segment { name: name(0, 0), bytes: &bytes }], 0);
    assert_eq!(error, Err(WalError::NoMetadata));
}

#[test]
fn a_later_entry_replaces_the_one_of_its_index_and_all_after_it() {
    let mut wal = first_segment();
    for index in 1..=5 {
        wal.entry(&entry(1, index, b"old"));
    }
    wal.entry(&entry(2, 3, b"new"));
    wal.state(HardState { term: 2, vote: 7, commit: 3 });
    let bytes = wal.finish();
    let segments = [Segment { name: name(0, 0), bytes: &bytes }];
    let wal = Wal::read(&segments, 0).unwrap();
    assert_eq!(indexes(&wal), [(1, 1), (2, 1), (3, 2)]);
    assert_eq!(wal.entries[2].data, Some(&b"new"[..]));
    let after = Wal::read(&segments, 2).unwrap();
    assert_eq!(indexes(&after), [(3, 2)]);
    let none: [EntryRef<'_>; 0] = [];
    assert_eq!(Wal::read(&segments, 3).unwrap().entries, none, "4 and 5 are gone too");
}

#[test]
fn a_missing_entry_is_damage_unless_a_snapshot_took_its_place() {
    let build = |with_snapshot| {
        let mut wal = first_segment();
        wal.entry(&entry(1, 1, b"a"));
        if with_snapshot {
            let conf_state = Some(ConfState { voters: vec![1], ..ConfState::default() });
            wal.snapshot(&WalSnapshot { index: 9, term: 1, conf_state });
        }
        wal.entry(&entry(1, 10, b"b"));
        wal.finish()
    };
    let bytes = build(false);
    let error = Wal::read(&[Segment { name: name(0, 0), bytes: &bytes }], 0).unwrap_err();
    let expected = Defect::EntryGap { expected: 2, found: 10 };
    assert!(matches!(error, WalError::Corrupt { why, .. } if why == expected), "{error}");

    let bytes = build(true);
    let segments = [Segment { name: name(0, 0), bytes: &bytes }];
    assert_eq!(indexes(&Wal::read(&segments, 0).unwrap()), [(10, 1)]);
}

#[test]
fn a_log_shorter_than_what_was_committed_is_refused() {
    let mut wal = first_segment();
    wal.entry(&entry(1, 1, b"a"));
    wal.state(HardState { term: 1, vote: 7, commit: 5 });
    let bytes = wal.finish();
    let error = Wal::read(&[Segment { name: name(0, 0), bytes: &bytes }], 0);
    assert_eq!(error, Err(WalError::ShorterThanCommit { commit: 5, last: 1 }));
}

proptest! {
    #[test]
    fn entries_that_are_written_read_back(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..900), 1..20),
        term: u64,
        cut_at in 200usize..3000,
    ) {
        let mut segments = Vec::new();
        let (mut wal, mut current) = (first_segment(), name(0, 0));
        for (payload, index) in payloads.iter().zip(1..) {
            if wal.len() > cut_at {
                let (bytes, next) = cut(wal, HardState { term, vote: 0, commit: index - 1 });
                segments.push((current, bytes));
                (wal, current) = (next, name(current.seq + 1, index));
            }
            wal.entry(&entry(term, index, payload));
        }
        segments.push((current, wal.finish()));
        let borrowed = borrow(&segments);
        let read = Wal::read(&borrowed, 0).unwrap();
        let data: Vec<_> = read.entries.iter().map(|entry| entry.data.unwrap().to_vec()).collect();
        prop_assert_eq!(data, payloads);
        prop_assert!(read.entries.iter().all(|entry| entry.term == term));
    }

    #[test]
    fn garbage_is_refused_or_read_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400), small_length in 0u8..100,
    ) {
        let segment = [Segment { name: name(0, 0), bytes: &bytes }];
        let _ = Wal::read(&segment, 0);
        // And with a length that leads into the record decoder.
        let mut framed = vec![small_length, 0, 0, 0, 0, 0, 0, 0];
        framed.extend_from_slice(&bytes);
        let segment = [Segment { name: name(0, 0), bytes: &framed }];
        let _ = Wal::read(&segment, 0);
    }
}
