//! Conditions: what an object's status says of it, with the reason and since when.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can say.
    Unknown,
}

impl Is {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Is {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Sets a condition. Its time stays as long as its status does.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    is: impl Into<Is>,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = is.into().name();
    let before = conditions.iter().position(|condition| condition.type_ == type_);
    let since = before
        .map(|at| &conditions[at])
        .filter(|condition| condition.status == status)
        .map_or_else(|| seconds(now), |condition| condition.last_transition_time.clone());
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        // Kubernetes takes no condition without a message.
        message: if message.is_empty() { reason } else { message }.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match before {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

/// The condition of that type.
pub fn get<'c>(conditions: &'c [Condition], type_: &str) -> Option<&'c Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// An instant as Kubernetes keeps it: in whole seconds.
pub fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mut conditions = Vec::new();
        let at = |second| Timestamp::from_second(second).unwrap();
        set(&mut conditions, "Ready", false, "Waiting", "for a", Some(1), at(10));
        set(&mut conditions, "Ready", false, "Waiting", "for b", Some(2), at(20));
        assert_eq!(conditions[0].last_transition_time, seconds(at(10)));
        assert_eq!(conditions[0].message, "for b");
        set(&mut conditions, "Ready", true, "Done", "", Some(2), at(30));
        assert_eq!(conditions[0].last_transition_time, seconds(at(30)));
        assert_eq!(conditions.len(), 1);
    }
}
