//! Which backups are kept: one policy, and a reason for every decision.
//!
//! Pure: no store, no clock. [`decide`] is given what is known of all backups of one cluster.
//!
//! * Only backups that *count* use up a rule: verified, whole, undamaged, not dated in the future.
//! * A rule of periods keeps the newest backup of each of the newest N periods *that have one*. A day without
//!   backups uses up none, so after an outage there are still seven daily ones. Periods are those of the
//!   calendar in the policy's time zone; the hour that daylight saving repeats is two hours. The backup that is the
//!   newest of its period stays it, so pruning often loses nothing that pruning once would have kept.
//! * `keep-within` counts back from the newest backup that counts, not from now: when backups stop, nothing ages
//!   away.
//! * Kept whatever the rules say: the newest backup that counts, the newest `min-backups` that do, pinned ones.
//! * A backup that is unverified, damaged or not whole is kept as long as none that is newer counts; then no rule
//!   keeps it.
//! * A backup dated in the future (a clock was wrong, ours or the writer's) is kept and uses up no rule, so that
//!   it cannot push out those that are newer in truth. When all are, because our own clock went back, all stay.
//! * `max-total-size` then removes the oldest until the rest fits, but never what the lines above keep.
//! * A policy without a rule keeps everything (that fits).

mod amount;
mod period;

pub use amount::{AmountError, Size, Within};
pub use period::Period;

use crate::BackupId;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// How many backups of a cluster are kept, and for how long. A rule that is 0 or absent keeps none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Policy {
    /// The newest N.
    pub keep_last: u32,
    /// The newest of each of the newest N hours that have one.
    pub keep_hourly: u32,
    /// The same of days.
    pub keep_daily: u32,
    /// The same of ISO weeks, which begin on Monday.
    pub keep_weekly: u32,
    /// The same of months.
    pub keep_monthly: u32,
    /// The same of years.
    pub keep_yearly: u32,
    /// All that are no older than this, counted back from the newest: `15d`, `36h`, `1y`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_within: Option<Within>,
    /// The most bytes that all backups of the cluster may have in the store together: `50GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_total_size: Option<Size>,
    /// So many verified backups are never gone below, whatever the other rules say. One at least is always kept.
    pub min_backups: u32,
    /// Whose days and hours are meant: an IANA name.
    #[serde(with = "jiff::fmt::serde::tz::required")]
    pub time_zone: TimeZone,
}

impl Default for Policy {
    /// No rule. The floor is 1, so that a policy does what its rules say and no more; more is for whoever wants
    /// something to fall back on when the last one is found damaged. UTC, so that every host decides the same.
    fn default() -> Self {
        Self {
            keep_last: 0,
            keep_hourly: 0,
            keep_daily: 0,
            keep_weekly: 0,
            keep_monthly: 0,
            keep_yearly: 0,
            keep_within: None,
            max_total_size: None,
            min_backups: 1,
            time_zone: TimeZone::UTC,
        }
    }
}

impl Policy {
    /// Whether any rule says what to keep. If none does, everything is kept.
    pub fn has_rule(&self) -> bool {
        self.keep_last > 0
            || self.keep_within.is_some()
            || self.periods().any(|(_, periods)| periods > 0)
    }

    /// The rules of periods, the shortest first.
    fn periods(&self) -> impl Iterator<Item = (Period, u32)> {
        [
            (Period::Hour, self.keep_hourly),
            (Period::Day, self.keep_daily),
            (Period::Week, self.keep_weekly),
            (Period::Month, self.keep_monthly),
            (Period::Year, self.keep_yearly),
        ]
        .into_iter()
    }
}

/// What a decision needs to know of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub id: BackupId,
    /// When it began, by its manifest: the time of its data.
    pub started: Timestamp,
    /// What it has in the store.
    pub bytes: u64,
    /// What it is worth.
    pub soundness: Soundness,
    /// Names of the pins on it.
    pub pins: Vec<String>,
}

/// Whether a backup can be relied on, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soundness {
    /// It was verified, and nothing speaks against it.
    Verified,
    /// It was stored without proof.
    Unverified,
    /// A check found damage, or an object is missing or has the wrong size.
    Damaged,
}

/// What happens to one backup, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The backup.
    pub id: BackupId,
    /// Whether it stays.
    pub keep: bool,
    /// All that keeps it, or the one reason why nothing does. Never empty.
    pub reasons: Vec<Reason>,
}

/// Why a backup is kept or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Kept: the policy has no rule.
    NoRules,
    /// Kept: a pin holds it.
    Pinned {
        /// The pin's name.
        name: String,
    },
    /// Kept: the newest that counts.
    NewestVerified,
    /// Kept: one of the newest so many.
    Floor {
        /// `min-backups`.
        min_backups: u32,
    },
    /// Kept: dated after now.
    Future {
        /// The date.
        started: Timestamp,
    },
    /// Kept: unverified or damaged, but nothing newer is better.
    NothingBetter,
    /// Kept: one of the newest.
    Last {
        /// Which, from 1.
        rank: u32,
        /// `keep-last`.
        of: u32,
    },
    /// Kept: the newest of its hour, day, week, month or year.
    Newest {
        /// Of what.
        period: Period,
        /// Of which, from 1, the newest.
        rank: u32,
        /// Of how many.
        of: u32,
    },
    /// Kept: not older than the newest by more than this.
    Within(Within),
    /// Removed: it counts, but no rule wants it.
    NoRuleKeeps,
    /// Removed: it was never verified, and a newer one is.
    Unverified,
    /// Removed: it is damaged, and a newer one is not.
    Damaged,
    /// Removed: there is no room.
    OverSize {
        /// `max-total-size`.
        max: Size,
    },
}

impl Reason {
    /// Whether `max-total-size` leaves alone what is kept for this reason.
    fn outweighs_size(&self) -> bool {
        matches!(
            self,
            Self::Pinned { .. }
                | Self::NewestVerified
                | Self::Floor { .. }
                | Self::Future { .. }
                | Self::NothingBetter
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRules => write!(f, "the policy has no rule"),
            Self::Pinned { name } => write!(f, "pinned by {name}"),
            Self::NewestVerified => write!(f, "the newest verified"),
            Self::Floor { min_backups } => write!(f, "floor: min-backups {min_backups}"),
            Self::Future { started } => write!(f, "dated in the future: {started:.0}"),
            Self::NothingBetter => write!(f, "nothing newer is verified"),
            Self::Last { rank, of } => write!(f, "last {rank} of {of}"),
            Self::Newest { period, rank, of } => write!(f, "{period} {rank} of {of}"),
            Self::Within(within) => write!(f, "within {within}"),
            Self::NoRuleKeeps => write!(f, "no rule keeps it"),
            Self::Unverified => write!(f, "never verified, and a newer one is"),
            Self::Damaged => write!(f, "damaged, and a newer one is not"),
            Self::OverSize { max } => write!(f, "over max-total-size {max}"),
        }
    }
}

/// Decides over all backups of one cluster; the newest first, whatever the order they are given in.
pub fn decide(candidates: &[Candidate], now: Timestamp, policy: &Policy) -> Vec<Decision> {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by_key(|candidate| std::cmp::Reverse((candidate.started, candidate.id)));

    let mut rules = Rules::new(policy, &sorted, now);
    let mut decisions: Vec<_> = sorted.iter().map(|candidate| rules.decide(candidate)).collect();
    if let Some(max) = policy.max_total_size {
        make_room(&sorted, &mut decisions, max);
    }
    decisions
}

/// Rules on their way from the newest backup to the oldest.
struct Rules<'a> {
    policy: &'a Policy,
    now: Timestamp,
    /// The time back to which `keep-within` reaches.
    within_from: Option<Timestamp>,
    /// How many that count have been seen.
    counted: u32,
    /// The periods that have been seen, by kind.
    seen: Vec<(Period, u32, BTreeSet<period::Key>)>,
}

impl<'a> Rules<'a> {
    fn new(policy: &'a Policy, sorted: &[&Candidate], now: Timestamp) -> Self {
        let newest = sorted.iter().find(|candidate| counts(candidate, now));
        let within_from = newest
            .zip(policy.keep_within)
            .map(|(newest, within)| within.before(newest.started, &policy.time_zone));
        let seen = policy.periods().map(|(period, of)| (period, of, BTreeSet::new())).collect();
        Self { policy, now, within_from, counted: 0, seen }
    }

    fn decide(&mut self, candidate: &Candidate) -> Decision {
        let mut reasons: Vec<_> =
            candidate.pins.iter().map(|name| Reason::Pinned { name: name.clone() }).collect();
        if candidate.started > self.now {
            reasons.push(Reason::Future { started: candidate.started });
        } else if counts(candidate, self.now) {
            self.apply(candidate, &mut reasons);
        } else if self.counted == 0 {
            reasons.push(Reason::NothingBetter);
        }
        if reasons.is_empty() && !self.policy.has_rule() {
            reasons.push(Reason::NoRules);
        }
        let keep = !reasons.is_empty();
        if !keep {
            reasons.push(match candidate.soundness {
                Soundness::Verified => Reason::NoRuleKeeps,
                Soundness::Unverified => Reason::Unverified,
                Soundness::Damaged => Reason::Damaged,
            });
        }
        Decision { id: candidate.id, keep, reasons }
    }

    /// Every rule over a backup that counts.
    fn apply(&mut self, candidate: &Candidate, reasons: &mut Vec<Reason>) {
        self.counted = self.counted.saturating_add(1);
        let (rank, policy) = (self.counted, self.policy);
        if rank == 1 {
            reasons.push(Reason::NewestVerified);
        }
        if rank <= policy.keep_last {
            reasons.push(Reason::Last { rank, of: policy.keep_last });
        }
        let zoned = candidate.started.to_zoned(policy.time_zone.clone());
        for (period, of, seen) in &mut self.seen {
            // A full set never keeps another, so it need not grow.
            if seen.len() < *of as usize && seen.insert(period.key(&zoned)) {
                let rank = u32::try_from(seen.len()).expect("no more than `of`, which is a u32");
                reasons.push(Reason::Newest { period: *period, rank, of: *of });
            }
        }
        if let Some(within) = policy.keep_within
            && self.within_from.is_some_and(|from| candidate.started >= from)
        {
            reasons.push(Reason::Within(within));
        }
        if rank <= policy.min_backups {
            reasons.push(Reason::Floor { min_backups: policy.min_backups });
        }
    }
}

/// Whether rules may rely on it.
fn counts(candidate: &Candidate, now: Timestamp) -> bool {
    candidate.soundness == Soundness::Verified && candidate.started <= now
}

/// Turns decisions over, the oldest first, until what is kept fits; what does not count goes before what does.
fn make_room(sorted: &[&Candidate], decisions: &mut [Decision], max: Size) {
    let kept = sorted.iter().zip(&*decisions).filter(|(_, decision)| decision.keep);
    let mut total = kept.map(|(candidate, _)| candidate.bytes).fold(0, u64::saturating_add);
    for sound in [false, true] {
        for (candidate, decision) in sorted.iter().zip(&mut *decisions).rev() {
            if total <= max.bytes() {
                return;
            }
            let wanted = (candidate.soundness == Soundness::Verified) == sound;
            if wanted && decision.keep && !decision.reasons.iter().any(Reason::outweighs_size) {
                total = total.saturating_sub(candidate.bytes);
                *decision = Decision {
                    id: candidate.id,
                    keep: false,
                    reasons: vec![Reason::OverSize { max }],
                };
            }
        }
    }
}

#[cfg(test)]
mod tests;
