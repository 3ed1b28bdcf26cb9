//! Alarms: the rows of the bucket `alarm`, and what is refused while they are raised.

use std::collections::BTreeSet;

use bolt::Bucket;
use etcd_schema::{AlarmMember, AlarmType, ReadError};

use crate::request::AlarmRequest;

const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;

/// What etcd refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing.
    Open,
    /// NOSPACE: puts, transactions with puts, and lease grants.
    Capped,
    /// CORRUPT: all that reads or writes keys or leases.
    Corrupt,
}

/// The alarms raised, by (kind, member).
#[derive(Debug)]
pub(crate) struct Alarms {
    before: BTreeSet<(i32, u64)>,
    raised: BTreeSet<(i32, u64)>,
}

/// NOSPACE and CORRUPT were both raised when an alarm changed. 3.4 and 3.5 then forget one of the
/// two until the next start, 3.6 does not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TwoKinds;

impl Alarms {
    pub(crate) fn read(bucket: Option<Bucket<'_>>) -> Result<Self, ReadError> {
        let mut before = BTreeSet::new();
        for pair in bucket.iter().flat_map(Bucket::iter) {
            let alarm = AlarmMember::parse(pair?.0)?;
            before.insert((alarm.alarm, alarm.member_id));
        }
        Ok(Self { raised: before.clone(), before })
    }

    pub(crate) fn gate(&self) -> Gate {
        if self.is_raised(AlarmType::Corrupt) {
            Gate::Corrupt
        } else if self.is_raised(AlarmType::NoSpace) {
            Gate::Capped
        } else {
            Gate::Open
        }
    }

    pub(crate) fn apply(&mut self, request: &AlarmRequest) -> Result<(), TwoKinds> {
        let two_before = self.two_kinds();
        let alarm = (request.alarm, request.member_id);
        let changed = match request.action {
            ACTIVATE => self.raised.insert(alarm),
            DEACTIVATE => self.raised.remove(&alarm),
            _ => false,
        };
        if changed && (two_before || self.two_kinds()) { Err(TwoKinds) } else { Ok(()) }
    }

    /// Rows that changed: the key, and whether it is there now.
    pub(crate) fn into_changed(self) -> impl Iterator<Item = (Vec<u8>, bool)> {
        let changed: Vec<_> = self.before.symmetric_difference(&self.raised).copied().collect();
        changed.into_iter().map(move |(alarm, member_id)| {
            let there = self.raised.contains(&(alarm, member_id));
            (AlarmMember { member_id, alarm }.encode_key(), there)
        })
    }

    fn is_raised(&self, kind: AlarmType) -> bool {
        self.raised.iter().any(|(alarm, _)| *alarm == i32::from(kind))
    }

    fn two_kinds(&self) -> bool {
        self.is_raised(AlarmType::NoSpace) && self.is_raised(AlarmType::Corrupt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(action: i32, member_id: u64, alarm: AlarmType) -> AlarmRequest {
        AlarmRequest { action, member_id, alarm: alarm.into() }
    }

    #[test]
    fn an_alarm_of_any_member_closes_the_gate_until_the_last_is_disarmed() {
        let mut alarms = Alarms::read(None).unwrap();
        assert_eq!(alarms.gate(), Gate::Open);
        for member in [1, 2] {
            alarms.apply(&request(ACTIVATE, member, AlarmType::NoSpace)).unwrap();
            assert_eq!(alarms.gate(), Gate::Capped);
        }
        alarms.apply(&request(DEACTIVATE, 1, AlarmType::NoSpace)).unwrap();
        assert_eq!(alarms.gate(), Gate::Capped);
        alarms.apply(&request(DEACTIVATE, 2, AlarmType::NoSpace)).unwrap();
        assert_eq!(alarms.gate(), Gate::Open);
        assert_eq!(alarms.into_changed().count(), 0, "as before");
    }

    #[test]
    fn a_corrupt_alarm_closes_more_than_a_full_one() {
        let mut alarms = Alarms::read(None).unwrap();
        alarms.apply(&request(ACTIVATE, 1, AlarmType::Corrupt)).unwrap();
        assert_eq!(alarms.gate(), Gate::Corrupt);
        let changed: Vec<_> = alarms.into_changed().collect();
        assert_eq!(changed, [(vec![0x08, 1, 0x10, 2], true)]);
    }

    #[test]
    fn two_kinds_of_alarm_at_once_are_refused_as_etcds_differ() {
        let mut alarms = Alarms::read(None).unwrap();
        alarms.apply(&request(ACTIVATE, 1, AlarmType::Corrupt)).unwrap();
        assert_eq!(alarms.apply(&request(ACTIVATE, 1, AlarmType::NoSpace)), Err(TwoKinds));
    }
}
