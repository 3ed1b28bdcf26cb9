//! Any bytes as WAL segments: no panic, and what is read can be written and is read as the same again.
#![no_main]

use etcd_raftfiles::raftpb::Entry;
use etcd_raftfiles::wal::{Encoder, Segment, SegmentName, Wal};
use libfuzzer_sys::fuzz_target;

const FIRST: SegmentName = SegmentName { seq: 0, first_index: 0 };
const SECOND: SegmentName = SegmentName { seq: 1, first_index: 1 };

fuzz_target!(|input: &[u8]| {
    // The first byte says where the input is cut into two segments; 0: it is one.
    let Some((&cut, bytes)) = input.split_first() else { return };
    let (left, right) = bytes.split_at(bytes.len() * usize::from(cut) / 256);
    let segments = if cut == 0 {
        vec![Segment { name: FIRST, bytes }]
    } else {
        vec![Segment { name: FIRST, bytes: left }, Segment { name: SECOND, bytes: right }]
    };
    let Ok(wal) = Wal::read(&segments, 0) else { return };
    assert!(wal.entries.windows(2).all(|pair| pair[0].index + 1 == pair[1].index), "no gaps");
    assert!(wal.committed().len() <= wal.entries.len());

    let written = write(&wal);
    let again = Wal::read(&[Segment { name: FIRST, bytes: &written }], 0).expect("we wrote it");
    assert_eq!(again.metadata, wal.metadata);
    assert_eq!(again.hard_state, wal.hard_state);
    assert_eq!(again.snapshots, wal.snapshots);
    assert_eq!(again.entries, wal.entries);
});

fn write(wal: &Wal) -> Vec<u8> {
    let mut encoder = Encoder::new(0);
    encoder.metadata(wal.metadata);
    for snapshot in &wal.snapshots {
        encoder.snapshot(snapshot);
    }
    for entry in &wal.entries {
        encoder.entry(&Entry {
            entry_type: entry.entry_type.into(),
            term: entry.term,
            index: entry.index,
            data: entry.data.map(<[u8]>::to_vec),
        });
    }
    if let Some(state) = wal.hard_state {
        encoder.state(state);
    }
    encoder.finish()
}
