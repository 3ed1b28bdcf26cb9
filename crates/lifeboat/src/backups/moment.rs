//! Points in time, as people write them and as they like to read them.

use jiff::{Span, Timestamp, civil, tz::TimeZone};
use std::{fmt, str::FromStr};

/// A point in time on the command line: RFC 3339, a date, a date and time of the local zone, or so
/// long ago (`90m`, `7d`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Timestamp);

/// Nothing of these.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAMoment;

impl fmt::Display for NotAMoment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write 2026-11-22T16:44:24Z, 2026-11-22, 2026-11-22T16:44 (local time), or 36h, 7d (so long ago)")
    }
}

impl std::error::Error for NotAMoment {}

impl FromStr for Moment {
    type Err = NotAMoment;

    fn from_str(text: &str) -> Result<Self, NotAMoment> {
        Self::parse(text, Timestamp::now(), &TimeZone::system()).ok_or(NotAMoment)
    }
}

impl Moment {
    fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Self> {
        if let Ok(timestamp) = text.parse() {
            return Some(Self(timestamp));
        }
        if let Ok(local) = text.parse::<civil::DateTime>() {
            return local.to_zoned(zone.clone()).ok().map(|zoned| Self(zoned.timestamp()));
        }
        let ago: Span = text.parse().ok()?;
        let then = now.to_zoned(zone.clone()).checked_sub(ago).ok()?.timestamp();
        (then <= now).then_some(Self(then))
    }
}

/// How long before `now`, in the one unit that says enough: `35s`, `12m`, `7h`, `3d`.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    match seconds {
        ..0 => "in the future".to_owned(),
        0..100 => format!("{seconds}s"),
        100..6_000 => format!("{}m", seconds / 60),
        6_000..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_moment_is_written_as_people_write_it() {
        let now = at("2026-11-22T12:00:00Z");
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (text, expected) in [
            ("2026-11-20T01:02:03Z", "2026-11-20T01:02:03Z"),
            ("2026-11-20T01:02:03+02:00", "2026-11-19T23:02:03Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("2026-11-20T10:30", "2026-11-20T09:30:00Z"),
            ("36h", "2026-11-21T00:00:00Z"),
            ("7d", "2026-11-15T12:00:00Z"),
            ("1h30m", "2026-11-22T10:30:00Z"),
        ] {
            assert_eq!(Moment::parse(text, now, &berlin), Some(Moment(at(expected))), "{text}");
        }
        for text in ["", "yesterday", "12", "-3h", "2026-13-01"] {
            assert_eq!(Moment::parse(text, now, &berlin), None, "{text}");
        }
    }

    #[test]
    fn an_age_is_told_in_one_unit() {
        let now = at("2026-11-22T12:00:00Z");
        for (then, expected) in [
            ("2026-11-22T12:00:01Z", "in the future"),
            ("2026-11-22T11:59:25Z", "35s"),
            ("2026-11-22T11:30:00Z", "30m"),
            ("2026-11-21T12:00:00Z", "24h"),
            ("2026-11-12T12:00:00Z", "10d"),
        ] {
            assert_eq!(age(at(then), now), expected);
        }
    }
}
