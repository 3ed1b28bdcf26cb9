//! Who we are in Kubernetes: the pod's ServiceAccount, or what KUBECONFIG says.

use crate::{failure::Failure, run::RunError};
use kube::{Client, Config};

/// A client, and the namespace that is its own.
pub async fn client() -> Result<(Client, String), RunError> {
    let unknown = |error: &(dyn std::error::Error + 'static)| {
        Failure::of_setting(
            "no Kubernetes is known here",
            error,
            "run it in a pod with a ServiceAccount, or set KUBECONFIG",
        )
    };
    let config = Config::infer().await.map_err(|error| unknown(&error))?;
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| unknown(&error))?;
    Ok((client, namespace))
}

/// What this process is called among operators: the pod's name, else the host's with the process's number.
pub fn identity() -> String {
    let pod = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    pod.unwrap_or_else(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
        let host = host.as_deref().map_or("operator", str::trim).to_owned();
        match std::env::var_os("KUBERNETES_SERVICE_HOST") {
            // A pod's host name is the pod's.
            Some(_) => host,
            None => format!("{host}-{}", std::process::id()),
        }
    })
}
