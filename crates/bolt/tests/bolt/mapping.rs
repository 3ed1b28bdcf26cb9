//! Mapped files.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::process::Command;

use bolt::{Db, Mapped};

/// Names the file for the test that runs itself again as a child.
const CHILD: &str = "BOLT_TEST_SHRINKING_FILE";

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_mapped_file_is_its_bytes() {
    let bytes: Vec<u8> = (0..3_000_001u32).map(|n| n.to_le_bytes()[0] ^ 0x5A).collect();
    let mapped = Mapped::open(&file_of(&bytes)).unwrap();
    assert!(*mapped == *bytes);
}

#[test]
fn an_empty_file_is_mapped_as_no_bytes_and_is_no_bbolt_file() {
    let mapped = Mapped::open(&file_of(b"")).unwrap();
    assert!(mapped.is_empty());
    assert!(mapped.is_resident().unwrap());
    assert_eq!(mapped.prefetch().unwrap(), 0);
    assert!(Db::open(&mapped).is_err());
}

#[test]
fn a_file_that_was_read_is_resident_and_not_asked_for_again() {
    let file = file_of(&vec![1; 5_000_000]);
    let mapped = Mapped::open(&file).unwrap();
    assert_eq!(mapped.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 5_000_000);
    assert!(mapped.is_resident().unwrap());
    assert_eq!(mapped.prefetch().unwrap(), 0);
}

#[test]
fn a_mapped_file_can_be_read_by_several_threads() {
    let mapped = Mapped::open(&file_of(&[7; 100_000])).unwrap();
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let (left, right) = mapped.split_at(50_000);
    let sums = std::thread::scope(|scope| {
        let left = scope.spawn(|| sum(left));
        (left.join().unwrap(), sum(right))
    });
    assert_eq!(sums, (350_000, 350_000));
}

/// Goal: a mapped file that shrinks ends the process with a reason and code 1. Method: the test runs
/// itself again in a process of its own, where the file's name in the environment makes it the victim.
#[test]
fn a_mapped_file_that_shrinks_ends_the_process_with_a_reason() {
    if let Some(path) = std::env::var_os(CHILD) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mapped = Mapped::open(&file).unwrap();
        file.set_len(0).unwrap();
        let byte = std::hint::black_box(mapped[100_000]);
        panic!("byte {byte} was read from an empty file");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    fs::write(&path, vec![1; 200_000]).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "mapping::a_mapped_file_that_shrinks_ends_the_process_with_a_reason"])
        .env(CHILD, &path)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: a mapped file could not be read: it shrank"), "{stderr}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "the child got as far as to shrink it");
}
