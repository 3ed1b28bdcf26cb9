//! Any bytes as stored objects, plain and encrypted: no panic, bounded memory; what is decoded, zstd decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repository::codec::{Decoding, Encoding, Identities, decode, encode};
use std::io::{self, Read, Write};
use std::sync::LazyLock;

/// The seeds are encrypted to it.
const KEY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

static IDENTITIES: LazyLock<Identities> = LazyLock::new(|| {
    let mut identities = Identities::none();
    identities.add(KEY, "here").expect("it is a key");
    identities
});

/// A few blocks of zeros can be many times as large as they are stored; no more of them is looked at.
const CONTENT_BYTES_MAX: usize = 4 << 20;

fuzz_target!(|input: &[u8]| {
    decoded(input, Some(&*IDENTITIES));
    if let Some(ours) = decoded(input, None) {
        assert!(ours == zstds(input), "zstd makes something else of it");
        let mut stored = Vec::new();
        let ends = encode("again", ours.as_slice(), &mut stored, &Encoding::default(), &|_| ());
        assert_eq!(ends.expect("memory does not fail").content.bytes, ours.len() as u64);
        assert_eq!(decoded(&stored, None).expect("we wrote it"), ours);
    }
});

fn decoded(input: &[u8], identities: Option<&Identities>) -> Option<Vec<u8>> {
    let mut output = Limited(Vec::new());
    let decoding = Decoding { object: "input", identities, expected: None, workers: 1 };
    decode(input, &mut output, &decoding, &|_| ()).ok().map(|_| output.0)
}

fn zstds(input: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    let decoder = zstd::stream::Decoder::new(input).expect("memory does not fail");
    decoder
        .take(CONTENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut content)
        .expect("zstd accepts whatever we accept");
    content
}

struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > CONTENT_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
