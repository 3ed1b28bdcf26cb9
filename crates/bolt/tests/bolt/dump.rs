//! What is in a file, as text that tests can compare: once as the reader has it, once as the checker.

use std::ops::ControlFlow;

use bolt::{BoltError, Bucket, BucketStart, Check, Db, Summary, Violation, Visitor};

/// The names of the buckets around something, from the outside in.
pub(crate) type Path = Vec<Vec<u8>>;

/// Each bucket with its sequence number and each pair of a file, with their paths.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dump {
    pub(crate) buckets: Vec<(Path, u64)>,
    pub(crate) pairs: Vec<(Path, Vec<u8>, Vec<u8>)>,
}

/// What the reader finds, sorted.
pub(crate) fn read(db: &Db<'_>) -> Result<Dump, BoltError> {
    let mut dump = Dump::default();
    for bucket in db.buckets() {
        read_bucket(bucket?, &[], &mut dump)?;
    }
    dump.buckets.sort();
    dump.pairs.sort();
    Ok(dump)
}

fn read_bucket(bucket: Bucket<'_>, outer: &[Vec<u8>], dump: &mut Dump) -> Result<(), BoltError> {
    let path = [outer, &[bucket.name().to_vec()]].concat();
    dump.buckets.push((path.clone(), bucket.sequence()));
    for pair in bucket {
        let (key, value) = pair?;
        dump.pairs.push((path.clone(), key.to_vec(), value.to_vec()));
    }
    // Inline buckets can lie in one another as deep as a page allows; no test needs that.
    const DEPTH_MAX: usize = 40;
    if path.len() == DEPTH_MAX {
        return Ok(());
    }
    for inner in bucket.buckets() {
        read_bucket(inner?, &path, dump)?;
    }
    Ok(())
}

/// What the checker hands over and finds.
pub(crate) struct Checked {
    pub(crate) dump: Dump,
    pub(crate) violations: Vec<Violation>,
    pub(crate) summary: Summary,
}

/// What the checker hands over and finds. Fails if pairs or buckets of one bucket do not ascend.
pub(crate) fn check(db: &Db<'_>) -> Checked {
    let mut collector = Collector::default();
    let summary = Check::new(db).walk(&mut collector);
    assert!(collector.path.is_empty(), "each bucket that begins must end");
    assert!(!summary.stopped);
    let mut dump = collector.dump;
    assert_eq!(summary.pairs, dump.pairs.len() as u64);
    assert_eq!(summary.buckets, dump.buckets.len() as u64);
    dump.buckets.sort();
    dump.pairs.sort();
    Checked { dump, violations: collector.violations, summary }
}

#[derive(Default)]
struct Collector {
    path: Path,
    last: Vec<Vec<u8>>,
    dump: Dump,
    violations: Vec<Violation>,
}

impl Collector {
    fn ascends(&mut self, key: &[u8]) {
        if let Some(last) = self.last.last_mut() {
            assert!(key > last.as_slice(), "{key:?} was handed over after {last:?}");
            *last = key.to_vec();
        }
    }
}

impl<'a> Visitor<'a> for Collector {
    fn bucket(&mut self, bucket: BucketStart<'a>) -> ControlFlow<()> {
        assert_eq!(bucket.depth, self.path.len());
        self.ascends(bucket.name);
        self.path.push(bucket.name.to_vec());
        self.last.push(Vec::new());
        self.dump.buckets.push((self.path.clone(), bucket.sequence));
        ControlFlow::Continue(())
    }

    fn bucket_end(&mut self) -> ControlFlow<()> {
        self.path.pop().expect("a bucket ends that has begun");
        self.last.pop();
        ControlFlow::Continue(())
    }

    fn pair(&mut self, key: &'a [u8], value: &'a [u8]) -> ControlFlow<()> {
        self.ascends(key);
        self.dump.pairs.push((self.path.clone(), key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    }

    fn violation(&mut self, violation: Violation) -> ControlFlow<()> {
        assert!(!violation.to_string().is_empty());
        self.violations.push(violation);
        ControlFlow::Continue(())
    }
}
