//! Stretches of time and numbers of bytes, as a policy writes them.

use jiff::{Span, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Units of bytes, the largest first. A bare `Gi` is Kubernetes' way to write it.
const UNITS: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

/// Why a setting is no amount.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmountError {
    /// Not a stretch of time.
    #[error("{0:?} is no stretch of time: write it like 15d, 36h, 4w or 1y")]
    Within(String),
    /// Not a number of bytes.
    #[error("{0:?} is no size: write it like 50GiB, 500MB or 1073741824")]
    Size(String),
}

/// A stretch of time, longer than none: `15d`, `36h`, `1y 6mo`.
#[derive(Clone, Copy, Debug)]
pub struct Within(Span);

impl Within {
    /// The time that lies so far before another, by the calendar of a zone: a day before noon is noon.
    pub(super) fn before(self, at: Timestamp, zone: &TimeZone) -> Timestamp {
        let zoned = at.to_zoned(zone.clone());
        zoned.checked_sub(self.0).map_or(Timestamp::MIN, |before| before.timestamp())
    }
}

impl PartialEq for Within {
    fn eq(&self, other: &Self) -> bool {
        self.0.fieldwise() == other.0.fieldwise()
    }
}

impl Eq for Within {}

impl FromStr for Within {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let span = text.parse::<Span>().ok().filter(|span| span.is_positive());
        span.map(Self).ok_or_else(|| AmountError::Within(text.to_owned()))
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#}", self.0))
    }
}

/// A number of bytes: `50GiB`, `500 MB`, `1073741824`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// How many bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let parsed = || {
            let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, unit) = text.split_at(digits);
            number.parse::<u64>().ok()?.checked_mul(factor(unit.trim())?)
        };
        parsed().map(Self).ok_or_else(|| AmountError::Size(text.to_owned()))
    }
}

fn factor(unit: &str) -> Option<u64> {
    let unit = unit.strip_suffix('B').unwrap_or(unit);
    if unit.is_empty() {
        return Some(1);
    }
    UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|&(_, factor)| factor)
}

impl fmt::Display for Size {
    /// In the largest unit that says it without a fraction, so that reading it back gives the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |factor: u64| self.0 >= factor && self.0.is_multiple_of(factor);
        f.pad(&match UNITS.iter().find(|&&(_, factor)| whole(factor)) {
            Some((unit, factor)) => format!("{} {unit}B", self.0 / factor),
            None => format!("{} B", self.0),
        })
    }
}

/// As text in settings: `impl` by [`FromStr`] and [`Display`](fmt::Display); a bare number is taken too.
macro_rules! as_text {
    ($type:ty, $expecting:literal) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                from.deserialize_any(Visitor)
            }
        }
    };
}

as_text!(Within, "a stretch of time like 15d");
as_text!(Size, "a size like 50GiB");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_in_the_units_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("50GiB", 50 << 30),
            ("50 GiB", 50 << 30),
            ("50Gi", 50 << 30),
            ("2T", 2_000_000_000_000),
            ("3 kB", 3_000),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "1.5GiB", "5 XB", "99999999TiB", "5 GiB x"] {
            assert_eq!(text.parse::<Size>(), Err(AmountError::Size(text.to_owned())));
        }
    }

    #[test]
    fn a_size_is_read_back_as_it_is_shown() {
        for (bytes, shown) in [(0, "0 B"), (50 << 30, "50 GiB"), (1_500_000, "1500 kB"), (7, "7 B")]
        {
            assert_eq!(Size(bytes).to_string(), shown);
            assert_eq!(shown.parse(), Ok(Size(bytes)));
        }
    }

    #[test]
    fn a_stretch_of_time_is_longer_than_none() {
        for text in ["15d", "36h", "4w", "1y", "1y 6mo", "P15D"] {
            assert!(text.parse::<Within>().is_ok(), "{text}");
        }
        assert_eq!("15d".parse::<Within>().unwrap().to_string(), "15d");
        for text in ["", "15", "0d", "-3d", "3 d ago", "soon"] {
            assert_eq!(text.parse::<Within>(), Err(AmountError::Within(text.to_owned())));
        }
    }

    #[test]
    fn a_day_before_is_the_same_hour_when_the_clocks_change() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let noon: Timestamp = "2026-03-29T12:00:00+02:00".parse().unwrap();
        let before = "1d".parse::<Within>().unwrap().before(noon, &zone);
        assert_eq!(before, "2026-03-28T12:00:00+01:00".parse().unwrap());
    }
}
