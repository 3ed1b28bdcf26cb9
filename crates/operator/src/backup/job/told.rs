//! What a pod says when it ends: on its termination log, which Kubernetes shows.

use crate::{backup::live::OtherCluster, failure::Failure};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

/// Reasons that a pod can give.
const REASONS: [&str; 12] = [
    "Cluster",
    "Verification",
    "HashMismatch",
    "StoreUnreachable",
    "StoreDenied",
    "StoreFull",
    "Store",
    "Lease",
    "Spool",
    "Settings",
    "Stopped",
    "Internal",
];

/// Why a pod failed, as its termination message has it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) remedy: String,
    pub(super) retryable: bool,
}

/// What it says that made a backup.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToldOfSuccess {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) other_cluster: Option<OtherCluster>,
}

/// The last words of a pod that ended well.
pub(super) fn last_words(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = statuses.iter().find_map(|status| status.state.as_ref()?.terminated.as_ref())?;
    ended.message.clone()
}

/// What a pod said when it ended.
pub(super) fn message(pod: &Pod) -> Option<Failure> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = statuses.iter().find_map(|status| status.state.as_ref()?.terminated.as_ref())?;
    let text = ended.message.as_deref().unwrap_or_default().trim();
    if let Ok(told) = serde_json::from_str::<Told>(text) {
        let Told { reason, message, remedy, retryable } = told;
        let reason = REASONS.into_iter().find(|known| *known == reason).unwrap_or("Job");
        return Some(Failure { reason, message, remedy, retryable });
    }
    let reason = ended.reason.as_deref().unwrap_or("Error");
    let last = text.lines().last().unwrap_or_default();
    Some(Failure {
        reason: "Job",
        message: format!("the pod ended with code {} ({reason}) {last}", ended.exit_code)
            .trim_end()
            .to_owned(),
        remedy: match reason {
            "OOMKilled" => "give it more memory in spec.job.resources".to_owned(),
            _ => "see its logs".to_owned(),
        },
        retryable: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(terminated: Value) -> Pod {
        serde_json::from_value(json!({ "status": { "containerStatuses": [{
            "name": "lifeboat", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": terminated },
        }] } }))
        .unwrap()
    }

    #[test]
    fn what_a_pod_says_of_its_failure_is_taken_as_it_stands() {
        let told = r#"{"reason":"StoreDenied","message":"no","remedy":"ask","retryable":true}"#;
        let failure = message(&pod(json!({ "exitCode": 1, "message": told }))).unwrap();
        assert_eq!((failure.reason, failure.text().as_str()), ("StoreDenied", "no; ask"));
        let killed = message(&pod(json!({ "exitCode": 137, "reason": "OOMKilled" }))).unwrap();
        assert!(killed.retryable && killed.text().contains("more memory"), "{killed:?}");
        let strange = r#"{"reason":"Weather","message":"no","remedy":"","retryable":false}"#;
        let failure = message(&pod(json!({ "exitCode": 1, "message": strange }))).unwrap();
        assert_eq!(failure.reason, "Job", "reasons are a closed list: metrics have them as labels");
    }
}
