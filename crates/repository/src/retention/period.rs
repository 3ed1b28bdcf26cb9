//! Hours, days, weeks, months and years of a calendar.

use jiff::{Zoned, civil};
use std::fmt;

/// A stretch of the calendar of which the newest backup is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// An hour of the clock on the wall; the one that daylight saving repeats is two.
    Hour,
    /// A day.
    Day,
    /// From Monday to Sunday.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

/// Which of its kind: its first day and hour, and for hours the zone's offset in seconds.
pub(super) type Key = (civil::Date, i8, i32);

impl Period {
    /// The one that an instant lies in.
    pub(super) fn key(self, at: &Zoned) -> Key {
        let date = at.date();
        match self {
            Self::Hour => (date, at.hour(), at.offset().seconds()),
            Self::Day => (date, 0, 0),
            Self::Week => (monday(date), 0, 0),
            Self::Month => (date.first_of_month(), 0, 0),
            Self::Year => (date.first_of_year(), 0, 0),
        }
    }
}

/// The Monday of the week; the calendar's very first days, before any Monday, are a week of their own.
fn monday(date: civil::Date) -> civil::Date {
    let past = i64::from(date.weekday().to_monday_zero_offset());
    date.checked_sub(jiff::Span::new().days(past)).unwrap_or(civil::Date::MIN)
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        })
    }
}
