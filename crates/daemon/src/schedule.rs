//! When a backup is due: cron expressions in a time zone, a delay of each cluster's own, and runs that were missed.
//!
//! ```text
//!   slot             the instant that the expression names
//!   slot + jitter    when it starts: later by a share of `jitter` that depends on the cluster's name alone
//! ```
//!
//! * A slot's name is its instant, the same for every daemon, whatever its jitter.
//! * Of several slots that were missed, the newest is caught up, once.
//! * When clocks go forward, a time that does not exist runs right after the gap; when they go back, a time that
//!   comes twice runs once. An expression with `*` or a step in its minutes or hours follows the time that passes instead.
//!
//! Nothing here asks a clock.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use std::time::Duration;

/// How late a start is no longer called punctual; then it is a missed run, and caught up only if that is wanted.
const PUNCTUAL: SignedDuration = SignedDuration::from_mins(5);

/// Instants that recur.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    /// The longest delay.
    pub jitter: Duration,
    /// Whether a missed run is made up for.
    pub catch_up: bool,
}

/// Why a schedule is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// Not a cron expression.
    #[error("{expression:?} is no cron expression of five fields")]
    Cron {
        /// The expression.
        expression: String,
        /// Why not.
        source: croner::errors::CronError,
    },
    /// No such instant will come.
    #[error("{0:?} names no instant in the years to come")]
    Never(String),
    /// Not a time zone.
    #[error("{zone:?} is no time zone")]
    Zone {
        /// The name.
        zone: String,
        /// Why not.
        source: jiff::Error,
    },
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Run for this slot.
    Now(Timestamp),
    /// Wait until `start`; then `slot` is due.
    At {
        /// The slot.
        slot: Timestamp,
        /// When its delay is over.
        start: Timestamp,
    },
    /// No instant is left.
    Never,
}

impl Schedule {
    /// The instants that a cron expression of five fields names in a time zone.
    pub fn new(expression: &str, zone: &str) -> Result<Self, ScheduleError> {
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression);
        let cron = cron
            .map_err(|source| ScheduleError::Cron { expression: expression.to_owned(), source })?;
        let found = TimeZone::get(zone);
        let zone = found.map_err(|source| ScheduleError::Zone { zone: zone.to_owned(), source })?;
        let schedule = Self { cron, zone, jitter: Duration::ZERO, catch_up: true };
        match schedule.after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never(expression.to_owned())),
        }
    }

    /// The first slot later than that.
    pub fn after(&self, instant: Timestamp) -> Option<Timestamp> {
        let from = instant.to_zoned(self.zone.clone());
        Some(self.cron.find_next_occurrence(&from, false).ok()?.timestamp())
    }

    /// The newest slot that is not later than that.
    pub fn at_or_before(&self, instant: Timestamp) -> Option<Timestamp> {
        let from = instant.to_zoned(self.zone.clone());
        Some(self.cron.find_previous_occurrence(&from, true).ok()?.timestamp())
    }

    /// How much later than its slot a run of that name starts: always the same.
    pub fn delay(&self, name: &str) -> SignedDuration {
        // FNV-1a: the same in every version and on every machine.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let longest = self.jitter.as_secs().saturating_add(1);
        SignedDuration::from_secs(i64::try_from(hash % longest).unwrap_or(0))
    }

    /// What is due, when `done` is the newest slot that needs no more thought.
    ///
    /// Without any `done`, the slot before now counts as missed.
    pub fn due(&self, name: &str, done: Option<Timestamp>, now: Timestamp) -> Due {
        let delay = self.delay(name);
        let started = now.saturating_sub(delay).unwrap_or(Timestamp::MIN);
        let newest = self.at_or_before(started).filter(|slot| done.is_none_or(|done| *slot > done));
        if let Some(slot) = newest
            && (self.catch_up || started.duration_since(slot) <= PUNCTUAL)
        {
            return Due::Now(slot);
        }
        // A clock that went back must not bring back what is done.
        match self.after(done.map_or(started, |done| done.max(started))) {
            Some(slot) => {
                Due::At { slot, start: slot.saturating_add(delay).unwrap_or(Timestamp::MAX) }
            }
            None => Due::Never,
        }
    }

    /// The time between the slot before an instant and the one after it.
    pub fn period(&self, instant: Timestamp) -> Option<SignedDuration> {
        Some(self.after(instant)?.duration_since(self.at_or_before(instant)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn slots(expression: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
        let schedule = Schedule::new(expression, zone).unwrap();
        let mut found = Vec::new();
        let mut instant = at(from);
        while let Some(slot) = schedule.after(instant).filter(|slot| *slot < at(to)) {
            found.push(slot.to_string());
            instant = slot;
        }
        found
    }

    #[test]
    fn a_daily_time_that_the_spring_gap_swallows_runs_once_after_it() {
        // Berlin, 2026-03-29: 02:00 becomes 03:00, at 01:00 UTC.
        let found =
            slots("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            at(&found[0]) >= at("2026-03-29T01:00:00Z")
                && at(&found[0]) <= at("2026-03-29T01:30:00Z")
        );
        assert_eq!(found[1], "2026-03-30T00:30:00Z");
    }

    #[test]
    fn a_daily_time_that_comes_twice_in_autumn_runs_once() {
        // Berlin, 2026-10-25: 03:00 becomes 02:00, at 01:00 UTC.
        let found =
            slots("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(found, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    }

    #[test]
    fn every_half_hour_is_every_half_hour_when_clocks_change() {
        for (from, to) in [
            ("2026-03-29T00:00:00Z", "2026-03-29T06:00:00Z"),
            ("2026-10-24T22:00:00Z", "2026-10-25T04:00:00Z"),
        ] {
            let found = slots("*/30 * * * *", "Europe/Berlin", from, to);
            assert_eq!(found.len(), 11, "{found:?}");
        }
    }

    #[test]
    fn the_newest_of_many_missed_runs_is_caught_up_once() {
        let schedule = Schedule::new("0 * * * *", "UTC").unwrap();
        let (done, now) = (Some(at("2026-01-01T00:00:00Z")), at("2026-01-01T09:30:00Z"));
        let slot = at("2026-01-01T09:00:00Z");
        assert_eq!(schedule.due("prod", done, now), Due::Now(slot));
        let next = at("2026-01-01T10:00:00Z");
        assert_eq!(schedule.due("prod", Some(slot), now), Due::At { slot: next, start: next });
        assert_eq!(
            schedule.due("prod", None, now),
            Due::Now(slot),
            "the first run of all is not waited for"
        );
    }

    #[test]
    fn a_missed_run_is_left_out_where_that_is_wanted() {
        let schedule = Schedule { catch_up: false, ..Schedule::new("0 * * * *", "UTC").unwrap() };
        let next = at("2026-01-01T10:00:00Z");
        let due = |now| schedule.due("prod", None, at(now));
        assert_eq!(due("2026-01-01T09:30:00Z"), Due::At { slot: next, start: next });
        assert_eq!(due("2026-01-01T10:04:00Z"), Due::Now(next), "late by little is not missed");
    }

    #[test]
    fn what_cannot_be_a_schedule_is_refused() {
        for expression in ["", "* * * *", "* * * * * *", "61 * * * *", "0 0 30 2 *", "every day"] {
            assert!(Schedule::new(expression, "UTC").is_err(), "{expression:?}");
        }
        assert!(matches!(
            Schedule::new("0 0 * * *", "Mars/Olympus"),
            Err(ScheduleError::Zone { .. })
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        /// Goal: no daily run is doubled or lost, whatever a zone does to its clocks.
        #[test]
        fn a_daily_schedule_runs_once_on_each_local_day(
            hour in 0..24_u8, minute in 0..60_u8, day in 0..3000_i64,
            zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "UTC", "America/Sao_Paulo"]),
        ) {
            let schedule = Schedule::new(&format!("{minute} {hour} * * *"), zone).unwrap();
            let zone = TimeZone::get(zone).unwrap();
            let mut instant = Timestamp::from_second(1_450_000_000 + day * 86400).unwrap();
            let mut date = None;
            for _ in 0..10 {
                let slot = schedule.after(instant).unwrap();
                prop_assert!(slot > instant);
                prop_assert_eq!(schedule.at_or_before(slot), Some(slot));
                let today = slot.to_zoned(zone.clone()).date();
                if let Some(before) = date {
                    prop_assert_eq!(today, jiff::civil::Date::tomorrow(before).unwrap());
                }
                (date, instant) = (Some(today), slot);
            }
        }

        /// Goal: whenever a daemon looks, it does each slot at most once, in order, and the newest at the latest when it looks.
        #[test]
        fn looking_at_any_times_does_each_slot_at_most_once(
            steps in proptest::collection::vec(-900..7200_i64, 1..60), jitter in 0..600_u64,
        ) {
            let schedule = Schedule { jitter: Duration::from_secs(jitter), ..Schedule::new("*/20 * * * *", "Europe/Berlin").unwrap() };
            let mut now = at("2026-03-28T22:00:00Z");
            let mut done = None;
            for step in steps {
                now += SignedDuration::from_secs(step);
                match schedule.due("prod", done, now) {
                    Due::Now(slot) => {
                        prop_assert!(done.is_none_or(|done| slot > done));
                        prop_assert!(slot + schedule.delay("prod") <= now);
                        done = Some(slot);
                    }
                    Due::At { slot, start } => {
                        prop_assert!(start > now && done.is_none_or(|done| slot > done));
                    }
                    Due::Never => prop_assert!(false),
                }
                prop_assert!(!matches!(schedule.due("prod", done, now), Due::Now(_)));
            }
        }

        #[test]
        fn a_delay_is_within_the_jitter_and_always_the_same(name in "[a-z]{1,12}", jitter in 0..10_000_u64) {
            let schedule = Schedule { jitter: Duration::from_secs(jitter), ..Schedule::new("@daily", "UTC").unwrap() };
            let delay = schedule.delay(&name);
            prop_assert!(delay.as_secs() >= 0 && delay.as_secs() <= i64::try_from(jitter).unwrap());
            prop_assert_eq!(delay, schedule.delay(&name));
        }
    }
}
