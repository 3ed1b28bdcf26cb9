/// A running CRC-32C (Castagnoli), the sum under both of etcd's hashes.
///
/// Uses the processor's instructions where it has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crc32c(u32);

impl Crc32c {
    /// Takes `bytes` in.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// The sum over all bytes so far.
    pub fn value(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_values_are_those_of_castagnoli() {
        for (bytes, sum) in [(&b"123456789"[..], 0xe306_9283), (b"key", 0x40a4_756d)] {
            let mut crc = Crc32c::default();
            for part in bytes.chunks(2) {
                crc.update(part);
            }
            assert_eq!(crc.value(), sum);
        }
    }
}
