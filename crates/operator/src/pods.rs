//! What pods that the operator starts tell of themselves.

use k8s_openapi::api::core::v1::Pod;

/// Why a pod has not begun, if it has not.
pub(crate) fn waits_for(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Pending") {
        return None;
    }
    let states = status.container_statuses.iter().flatten().filter_map(|c| c.state.as_ref());
    let waiting = states.filter_map(|state| state.waiting.as_ref()).find_map(|waiting| {
        let reason = waiting.reason.clone()?;
        Some(match &waiting.message {
            Some(message) => format!("{reason}: {message}"),
            None => reason,
        })
    });
    let unscheduled = || {
        let conditions = status.conditions.iter().flatten();
        conditions.filter(|c| c.status == "False").find_map(|c| c.message.clone())
    };
    Some(waiting.or_else(unscheduled).unwrap_or_else(|| "it has not begun".to_owned()))
}
