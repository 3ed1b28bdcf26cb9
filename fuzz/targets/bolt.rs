//! Any bytes as a bbolt file: no panic, no endless loop, and what the checker calls sound is what the
//! iterators read.
#![no_main]

use std::ops::ControlFlow;

use bolt::{BucketStart, Check, Db, Violation, Visitor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    read(input);
    // Almost no mutation hits the right checksum, and without a valid meta nothing behind it is seen.
    let mut mended = input.to_vec();
    for page_size in [512, 1024, 4096] {
        mend_meta(&mut mended, 0);
        mend_meta(&mut mended, page_size);
    }
    read(&mended);
});

fn read(bytes: &[u8]) {
    let Ok(db) = Db::open(bytes) else { return };
    let mut seen = Seen::default();
    let summary = Check::new(&db).walk(&mut seen);
    assert_eq!(summary.pairs, seen.pairs);
    let mut pairs = 0;
    let mut whole = true;
    for bucket in db.buckets() {
        let Ok(bucket) = bucket else {
            whole = false;
            continue;
        };
        let mut last: Option<&[u8]> = None;
        for pair in bucket.iter() {
            let Ok((key, _)) = pair else {
                whole = false;
                break;
            };
            assert!(last.is_none_or(|last| last < key), "keys ascend");
            last = Some(key);
            pairs += 1;
        }
        // The last pair is found without reading the others.
        let found = bucket.last();
        if whole {
            assert_eq!(found.ok().flatten().map(|(key, _)| key), last);
        }
        if let Some(key) = last {
            let _ = bucket.get(key);
            let _ = bucket.range_from(key).count();
        }
    }
    if seen.violations == 0 {
        assert!(whole, "a sound file can be read");
        assert_eq!(pairs, seen.top_level_pairs);
    }
}

#[derive(Default)]
struct Seen {
    depth: usize,
    pairs: u64,
    top_level_pairs: u64,
    violations: u64,
}

impl<'a> Visitor<'a> for Seen {
    fn bucket(&mut self, bucket: BucketStart<'a>) -> ControlFlow<()> {
        assert_eq!(bucket.depth, self.depth);
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn bucket_end(&mut self) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pair(&mut self, _key: &'a [u8], _value: &'a [u8]) -> ControlFlow<()> {
        self.pairs += 1;
        self.top_level_pairs += u64::from(self.depth == 1);
        ControlFlow::Continue(())
    }

    fn violation(&mut self, violation: Violation) -> ControlFlow<()> {
        let _ = violation.to_string();
        self.violations += 1;
        ControlFlow::Continue(())
    }
}

/// Puts the right FNV-1a sum into the meta page at `offset`.
fn mend_meta(bytes: &mut [u8], offset: usize) {
    let Some(meta) = bytes.get_mut(offset + 16..offset + 80) else { return };
    let sum = meta[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    meta[56..].copy_from_slice(&sum.to_le_bytes());
}
