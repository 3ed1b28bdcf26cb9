//! Values with a spelling of their own.

use serde::{Deserialize, Deserializer, de::Error};
use std::{fmt, num::NonZeroU32, path::Path, str::FromStr, time::Duration};

/// The most bytes of a file that holds a secret: anything longer is another file.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A length of time: `30s`, `5m`, `1h30m`, `2d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    pub(super) fn half_minute() -> Self {
        Self(Duration::from_secs(30))
    }

    pub(super) fn minutes(minutes: u64) -> Self {
        Self(Duration::from_secs(minutes * 60))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no length of time: write it as 30s, 5m, 1h30m or 2d");
        if let Some(days) = text.strip_suffix('d') {
            let days: u64 = days.parse().map_err(|_| wrong())?;
            return days.checked_mul(86400).map(|s| Self(Duration::from_secs(s))).ok_or_else(wrong);
        }
        let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        Duration::try_from(span).map(Self).map_err(|_| wrong())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A share: `1/7`, `1/1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// How many runs make the whole.
    pub of: NonZeroU32,
}

impl Default for Share {
    /// A seventh: run daily, everything is read in a week.
    fn default() -> Self {
        Self { of: NonZeroU32::new(7).expect("seven is not zero") }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of = text.strip_prefix("1/").and_then(|of| of.parse().ok());
        of.map(|of| Self { of }).ok_or_else(|| format!("{text:?} is no share: write it as 1/7"))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Something that must not be seen: it can be used, but not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The first line of a file.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        use std::io::Read;
        let mut text = String::new();
        std::fs::File::open(path)?.take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
        let line = text.lines().next().unwrap_or_default().trim();
        if line.is_empty() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "its first line is empty",
            ));
        }
        Ok(Self(line.to_owned()))
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
