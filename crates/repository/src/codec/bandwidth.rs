//! A limit to the bytes per second that uploads send together.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, str::FromStr};
use tokio::time::Instant;

/// Text that is no rate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no rate: write bytes per second as 800k, 5M or 10MiB/s (k, M, G are powers of 1000; Ki, Mi, Gi of 1024)"
)]
pub struct BandwidthError(String);

/// A limit in bytes per second. All clones share it.
///
/// Whoever sends waits until the bytes sent before have had their time, so over any while the rate is kept
/// to within one piece of each sender. An idle time is not saved up.
#[derive(Clone)]
pub struct Bandwidth {
    bytes_per_s: NonZeroU64,
    /// When all that was sent has had its time.
    free_at: Arc<Mutex<Option<Instant>>>,
}

impl Bandwidth {
    /// A limit of its own.
    pub fn new(bytes_per_s: NonZeroU64) -> Self {
        Self { bytes_per_s, free_at: Arc::default() }
    }

    /// The limit.
    pub fn bytes_per_s(&self) -> NonZeroU64 {
        self.bytes_per_s
    }

    /// Returns when so many bytes may be sent.
    pub async fn take(&self, bytes: usize) {
        let start = self.reserve(bytes, Instant::now());
        tokio::time::sleep_until(start).await;
    }

    /// Takes the next free while for so many bytes; when it begins.
    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_s.get());
        let while_ = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // Nothing that holds the lock can panic.
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free_at.map_or(now, |free_at| free_at.max(now));
        // Beyond what a clock can say, later ones need not wait longer than this one.
        *free_at = Some(start.checked_add(while_).unwrap_or(start));
        start
    }
}

impl fmt::Debug for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B/s", self.bytes_per_s)
    }
}

impl FromStr for Bandwidth {
    type Err = BandwidthError;

    fn from_str(text: &str) -> Result<Self, BandwidthError> {
        let parsed = || {
            let rate = text.trim();
            let rate = rate.strip_suffix("/s").unwrap_or(rate);
            let digits = rate.find(|c: char| !c.is_ascii_digit()).unwrap_or(rate.len());
            let (number, unit) = rate.split_at_checked(digits)?;
            let number: u64 = number.parse().ok()?;
            NonZeroU64::new(number.checked_mul(factor(unit.trim())?)?)
        };
        parsed().map(Self::new).ok_or_else(|| BandwidthError(text.to_owned()))
    }
}

fn factor(unit: &str) -> Option<u64> {
    // A capital B: a small one is a bit to many.
    let prefix = unit.strip_suffix('B').unwrap_or(unit);
    Some(match prefix {
        "" => 1,
        "k" | "K" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_people_write_them() {
        for (text, bytes) in [
            ("1", 1),
            ("800k", 800_000),
            ("800K", 800_000),
            ("5M", 5_000_000),
            ("5 MB/s", 5_000_000),
            ("10MiB/s", 10 << 20),
            ("64KiB", 64 << 10),
            ("2Gi", 2 << 30),
            (" 7B/s ", 7),
        ] {
            let rate: Bandwidth = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(rate.bytes_per_s().get(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in
            ["", "0", "0M", "M", "-1", "1.5M", "10Mb", "10Mbit", "5 m", "5/m", "99999999999G"]
        {
            assert_eq!(text.parse::<Bandwidth>().unwrap_err(), BandwidthError(text.to_owned()));
        }
    }

    #[test]
    fn senders_share_the_rate_and_idle_time_is_not_saved_up() {
        let rate: Bandwidth = "1000".parse().unwrap();
        let other = rate.clone();
        let begin = Instant::now();
        let after = |start: Instant| start.duration_since(begin).as_millis();
        assert_eq!(after(rate.reserve(500, begin)), 0);
        assert_eq!(after(other.reserve(1000, begin)), 500);
        assert_eq!(after(rate.reserve(10, begin)), 1500);
        let later = begin + Duration::from_secs(60);
        assert_eq!(after(rate.reserve(1000, later)), 60_000);
        assert_eq!(after(other.reserve(1, later)), 61_000);
    }

    #[test]
    fn no_amount_of_bytes_overflows_the_clock() {
        let rate: Bandwidth = "1".parse().unwrap();
        let now = Instant::now();
        for _ in 0..10 {
            rate.reserve(usize::MAX, now);
        }
    }
}
