//! How fast files are built, mapped, checked and read.
//!
//! ```text
//! measure build FILE PAIRS VALUE_BYTES    a file of buckets like etcd's, with revision keys
//! measure check FILE                      map, check and hash it
//! measure read FILE                       map it and read all pairs
//! measure cold FILE                       map it, bring it into memory, and check it
//! ```

use std::fs::File;
use std::ops::ControlFlow;
use std::time::Instant;

use bolt::{Builder, Check, Db, Mapped, Options, Violation, Visitor};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["build", path, pairs, value_bytes] => build(path, pairs.parse()?, value_bytes.parse()?),
        ["check", path] => check(path, false),
        ["cold", path] => check(path, true),
        ["read", path] => read(path),
        _ => {
            Err("usage: measure build FILE PAIRS VALUE_BYTES | check FILE | cold FILE | read FILE")?
        }
    }
}

fn build(path: &str, pairs: u64, value_bytes: usize) -> Outcome {
    let start = Instant::now();
    let file = File::create(path)?;
    let mut builder = Builder::new(&file, Options::default())?;
    let value: Vec<u8> = (0..value_bytes).map(|n| n.to_le_bytes()[0]).collect();
    builder.begin_bucket(b"key")?;
    for main in 1..=pairs {
        let mut key = [0; 17];
        key[..8].copy_from_slice(&main.to_be_bytes());
        key[8] = b'_';
        builder.put(&key, &value)?;
    }
    builder.end_bucket()?;
    builder.begin_bucket(b"meta")?;
    builder.put(b"consistent_index", &1u64.to_be_bytes())?;
    builder.end_bucket()?;
    let built = builder.finish()?;
    report("build", start, built.size);
    Ok(())
}

/// Adds up every byte that it gets, so that none of them stays unread.
#[derive(Default)]
struct Sum {
    sum: u64,
    violations: u64,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.sum = self.sum.wrapping_add(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.sum = self.sum.wrapping_add(u64::from(*byte));
        }
    }
}

impl<'a> Visitor<'a> for Sum {
    fn pair(&mut self, key: &'a [u8], value: &'a [u8]) -> ControlFlow<()> {
        self.add(key);
        self.add(value);
        ControlFlow::Continue(())
    }

    fn violation(&mut self, violation: Violation) -> ControlFlow<()> {
        println!("{violation}");
        self.violations += 1;
        ControlFlow::Continue(())
    }
}

fn check(path: &str, prefetch: bool) -> Outcome {
    let start = Instant::now();
    let mapped = Mapped::open(&File::open(path)?)?;
    if prefetch {
        let read = mapped.prefetch()?;
        report("prefetch", start, read);
    } else {
        println!("resident: {}", mapped.is_resident()?);
    }
    report("is_resident", start, mapped.len() as u64);
    let db = Db::open(&mapped)?;
    let start = Instant::now();
    let mut sum = Sum::default();
    let summary = Check::new(&db).walk(&mut sum);
    report("check", start, db.size());
    println!("{summary:?}, sum {:016x}", sum.sum);
    Ok(())
}

fn read(path: &str) -> Outcome {
    let mapped = Mapped::open(&File::open(path)?)?;
    let db = Db::open(&mapped)?;
    let start = Instant::now();
    let mut sum = Sum::default();
    for bucket in db.buckets() {
        for pair in bucket? {
            let (key, value) = pair?;
            sum.add(key);
            sum.add(value);
        }
    }
    report("read", start, db.size());
    println!("sum {:016x}", sum.sum);
    Ok(())
}

fn report(what: &str, start: Instant, bytes: u64) {
    println!("{what}: {} MB in {:.3} s", bytes / 1_000_000, start.elapsed().as_secs_f64());
}
