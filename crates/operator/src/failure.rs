//! Why something cannot be done, as conditions and events tell it.

use crate::{files::Files, words::in_objects};
use daemon::jobs::FailureReason;
use etcd_live::one_line;

/// Why something cannot be done. Without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One word, for a condition's reason: `StoreUnreachable`.
    pub reason: &'static str,
    /// What happened, with its causes, on one line.
    pub message: String,
    /// One imperative sentence: what to do about it.
    pub remedy: String,
    /// Whether trying again may help.
    pub retryable: bool,
}

impl Failure {
    /// Something that another setting mends; looked at again later, as Secrets come and go.
    pub fn settings(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = in_objects(&remedy.into());
        Self { reason: "Settings", message: message.into(), remedy, retryable: true }
    }

    /// The same for an error of a setting.
    pub fn of_setting(
        what: &str,
        error: &(dyn std::error::Error + 'static),
        remedy: impl Into<String>,
    ) -> Self {
        Self::settings(format!("{what}: {}", one_line(error)), remedy)
    }

    /// The same with what the Secrets are called that `files` keeps.
    pub fn with_names_of(mut self, files: &Files) -> Self {
        self.message = files.named(&self.message);
        self
    }

    /// What happened and what to do, as a condition's message and an event's note have it.
    pub fn text(&self) -> String {
        match self.remedy.is_empty() {
            true => self.message.clone(),
            false => format!("{}; {}", self.message, self.remedy),
        }
    }
}

impl From<daemon::jobs::Failure> for Failure {
    fn from(failure: daemon::jobs::Failure) -> Self {
        let daemon::jobs::Failure { reason, error, remedy, retryable } = failure;
        Self { reason: word(reason), message: error, remedy: in_objects(&remedy), retryable }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        let remedy = match &error {
            kube::Error::Api(status) if status.code == 403 => {
                "give the operator's ServiceAccount that right; see its Role"
            }
            kube::Error::Api(status) if status.code == 401 => {
                "renew the credentials in KUBECONFIG, or see whether the pod's ServiceAccount is still there"
            }
            kube::Error::Api(_) => "",
            _ => "see whether the API server runs, and whether KUBECONFIG, or the pod, leads to it",
        };
        let message = match &error {
            kube::Error::Api(status) => format!("Kubernetes refused: {}", status.message),
            _ => format!("Kubernetes did not answer: {}", one_line(&error)),
        };
        Self { reason: "Kubernetes", message, remedy: remedy.to_owned(), retryable: true }
    }
}

fn word(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::Cluster => "Cluster",
        FailureReason::Verification => "Verification",
        FailureReason::HashMismatch => "HashMismatch",
        FailureReason::StoreUnreachable => "StoreUnreachable",
        FailureReason::StoreDenied => "StoreDenied",
        FailureReason::StoreFull => "StoreFull",
        FailureReason::Store => "Store",
        FailureReason::Lease => "Lease",
        FailureReason::Spool => "Spool",
        FailureReason::Settings => "Settings",
        FailureReason::Stopped => "Stopped",
        FailureReason::Internal => "Internal",
    }
}
