//! LZW as Go's `compress/lzw` writes it, least significant bit first, 8 bits to a literal: what
//! etcd-backup-restore calls `.Z`.
//!
//! ```text
//!   code 256 = clear, code 257 = end; codes of 9 to 12 bits, packed from the lowest bit of each byte:
//!
//!   byte 0: 00000000   byte 1: .......1     the first code is a clear: 256 in 9 bits
//! ```
//!
//! Unix `compress` writes `.Z` too, with a header of its own and without an end. It is another format.

use std::io::{self, BufRead, Read};
use weezl::{BitOrder, LzwStatus, decode::Decoder};

/// Whether a stream may begin so. There is no magic number; what comes out must prove itself.
pub(super) fn may_be(head: &[u8]) -> bool {
    matches!(head, [0, second, ..] if second & 1 == 1)
}

/// Decodes while it is read.
pub(super) struct LzwReader<R> {
    input: R,
    decoder: Decoder,
    done: bool,
}

impl<R: BufRead> LzwReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, decoder: Decoder::new(BitOrder::Lsb, 8), done: false }
    }
}

impl<R: BufRead> Read for LzwReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.done && !buffer.is_empty() {
            let input = self.input.fill_buf()?;
            let at_end = input.is_empty();
            let result = self.decoder.decode_bytes(input, buffer);
            self.input.consume(result.consumed_in);
            match result.status {
                Ok(LzwStatus::Done) => self.done = true,
                Ok(LzwStatus::NoProgress) if at_end && result.consumed_out == 0 => {
                    let why = "the LZW stream is cut short";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
                Ok(_) => {}
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
            if result.consumed_out > 0 {
                return Ok(result.consumed_out);
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weezl::encode::Encoder;

    fn encoded(content: &[u8]) -> Vec<u8> {
        Encoder::new(BitOrder::Lsb, 8).encode(content).unwrap()
    }

    #[test]
    fn what_was_encoded_is_decoded_whatever_the_pieces() {
        let content: Vec<u8> = (0..50_000_u32).flat_map(|n| (n * n % 251).to_le_bytes()).collect();
        let encoded = encoded(&content);
        assert!(may_be(&encoded));
        for capacity in [1, 7, 8192] {
            let input = io::BufReader::with_capacity(capacity, &encoded[..]);
            let mut decoded = Vec::new();
            LzwReader::new(input).read_to_end(&mut decoded).unwrap();
            assert_eq!(decoded, content);
        }
    }

    #[test]
    fn a_stream_that_is_cut_short_is_no_end() {
        let encoded = encoded(&[7; 5000]);
        let mut decoded = Vec::new();
        let cut = &encoded[..encoded.len() - 4];
        let error = LzwReader::new(cut).read_to_end(&mut decoded).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
