//! A database on its way to a host: compressed here, unpacked by the program that was pushed there.
//!
//! ```text
//!   db ──▶ pieces of 4 MiB ──▶ a zstd frame each, on all cores ──▶ db.zst ──▶ ssh ──▶ unpack, hash ──▶ db
//!    └───▶ SHA-256 ─────────────────────── compared ──────────────────────────────────────┘
//! ```
//!
//! * It is compressed once, whatever the number of hosts. The cipher of ssh costs more than that, and the network between here
//!   and there is mostly slower than either.
//! * The host hashes what it has unpacked, so that what is compared is what etcd will read.

use crate::build::{in_hex, sha256_of_bytes};
use snapshot::Output;
use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    num::NonZero,
    path::Path,
    sync::mpsc::sync_channel,
    thread,
};

/// What is compressed by itself.
const PIECE_BYTES: usize = 4 << 20;
/// zstd's fastest that is not one of its negative ones: a network of 1 Gbit/s waits for nothing slower.
const LEVEL: i32 = 1;
/// What is unpacked at once.
const BLOCK_BYTES: usize = 1 << 20;
/// Pieces that a core may be ahead.
const AHEAD: usize = 2;

/// Compresses the file `from`, which is not written to meanwhile, to the file `to`, durably. Returns the SHA-256 of `from`.
pub(crate) fn pack(from: &Path, to: &Path) -> io::Result<String> {
    let mapped = bolt::Mapped::open(&File::open(from)?)?;
    let bytes: &[u8] = &mapped;
    let mut out = BufWriter::new(File::create(to)?);
    thread::scope(|scope| {
        let digest = scope.spawn(|| sha256_of_bytes(bytes));
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let packed: Vec<_> = (0..cores)
            .map(|core| {
                let (packed, taken) = sync_channel(AHEAD);
                // Each core has the pieces of its turn, so what is written next is always the next one's.
                let pieces = bytes.chunks(PIECE_BYTES).skip(core).step_by(cores);
                scope.spawn(move || {
                    for piece in pieces {
                        if packed.send(zstd::bulk::compress(piece, LEVEL)).is_err() {
                            return;
                        }
                    }
                });
                taken
            })
            .collect();
        for turn in packed.iter().cycle() {
            let Ok(frame) = turn.recv() else { break };
            out.write_all(&frame?)?;
        }
        // Whoever notes that it was built relies on it after a power cut too.
        out.into_inner()?.sync_all()?;
        Ok(digest.join().expect("hashing does not panic"))
    })
}

/// Unpacks what was packed here to a new file, durably. Returns the SHA-256 of what was unpacked: of what came before it, if the
/// stream is damaged or ends too early.
pub fn unpack(from: impl Read, to: &Path) -> io::Result<String> {
    let mut out = Output::create(std::iter::once(to))?;
    let digest = unpacked(from, |block| out.write_all(block))?;
    out.finish()?;
    File::open(to)?.sync_all()?;
    Ok(digest)
}

/// The SHA-256 of what a packed file holds: of what comes before its damage, if it is damaged.
pub(crate) fn digest_of_packed(path: &Path) -> io::Result<String> {
    unpacked(File::open(path)?, |_| Ok(()))
}

fn unpacked(from: impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<String> {
    use sha2::{Digest, Sha256};
    let mut frames = zstd::stream::read::Decoder::new(from)?;
    let (mut digest, mut block) = (Sha256::new(), vec![0; BLOCK_BYTES]);
    loop {
        // It cannot be told apart whether the connection broke or the stream is wrong; either way the hash is not the one.
        let len = frames.read(&mut block).unwrap_or(0);
        if len == 0 {
            break;
        }
        digest.update(&block[..len]);
        take(&block[..len])?;
    }
    Ok(in_hex(&digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(len: usize) -> Vec<u8> {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Half of it compresses.
            if state >> 31 == 0 { 0 } else { state.to_be_bytes()[1] }
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn what_was_packed_is_unpacked_whatever_its_size() {
        for len in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 9 * PIECE_BYTES + 12_345] {
            let folder = tempfile::tempdir().unwrap();
            let [db, packed, unpacked] = ["db", "db.zst", "again"].map(|n| folder.path().join(n));
            std::fs::write(&db, data(len)).unwrap();
            let sha256 = pack(&db, &packed).unwrap();
            assert_eq!(unpack(File::open(&packed).unwrap(), &unpacked).unwrap(), sha256, "{len}");
            assert!(std::fs::read(&unpacked).unwrap() == data(len), "{len}");
            assert_eq!(sha256, crate::sha256_of(&db).unwrap());
        }
    }

    #[test]
    fn what_is_cut_or_changed_on_its_way_has_another_hash() {
        let folder = tempfile::tempdir().unwrap();
        let (db, packed) = (folder.path().join("db"), folder.path().join("db.zst"));
        std::fs::write(&db, data(3 * PIECE_BYTES)).unwrap();
        let sha256 = pack(&db, &packed).unwrap();
        let packed = std::fs::read(&packed).unwrap();
        let mut arrived = [packed.clone(), packed.clone(), packed[1000..].to_vec(), Vec::new()];
        arrived[0].truncate(packed.len() - 1);
        arrived[1][packed.len() / 2] ^= 1;
        for (case, stream) in arrived.iter().enumerate() {
            let to = folder.path().join(format!("arrived-{case}"));
            assert_ne!(unpack(&stream[..], &to).unwrap(), sha256, "{case}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_and_no_other_hash() {
        let folder = tempfile::tempdir().unwrap();
        let (db, packed) = (folder.path().join("db"), folder.path().join("db.zst"));
        std::fs::write(&db, data(1000)).unwrap();
        pack(&db, &packed).unwrap();
        assert!(unpack(File::open(&packed).unwrap(), &db).is_err(), "it is there already");
        assert!(unpack(File::open(&packed).unwrap(), &folder.path().join("no/db")).is_err());
    }
}
