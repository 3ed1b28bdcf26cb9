//! Who we are in Kubernetes: the pod's ServiceAccount, or what KUBECONFIG says.

use crate::{failure::Failure, run::RunError};
use kube::{Client, Config};

/// A client, and the namespace that is its own. Kubernetes has answered it.
pub async fn client() -> Result<(Client, String), RunError> {
    // Each of these errors prints its causes by itself.
    let unknown = |error: &dyn std::error::Error| {
        Failure::settings(
            format!("no Kubernetes is known here: {error}"),
            "run it in a pod with a ServiceAccount, or set KUBECONFIG",
        )
    };
    let config = Config::infer().await.map_err(|error| unknown(&error))?;
    let (namespace, address) = (config.default_namespace.clone(), config.cluster_url.to_string());
    let client = Client::try_from(config).map_err(|error| unknown(&error))?;
    match client.apiserver_version().await {
        Err(error) if error_is_for_all(&error) => Err(of_first(error, &address).into()),
        // Who may not ask for that may be allowed what is needed.
        _ => Ok((client, namespace)),
    }
}

/// Whether no other request would do better.
fn error_is_for_all(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 401,
        _ => true,
    }
}

/// Why the first request failed, with where it went.
fn of_first(error: kube::Error, address: &str) -> Failure {
    let failure = Failure::from(error);
    Failure { message: format!("{address}: {}", failure.message), ..failure }
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

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn who_is_not_let_in_is_told_where_and_what_to_do() {
        let refused = |code| {
            let status = Status::failure("Unauthorized", "Unauthorized").with_code(code);
            kube::Error::Api(Box::new(status))
        };
        assert!(error_is_for_all(&refused(401)) && !error_is_for_all(&refused(403)));
        let failure = of_first(refused(401), "https://k:6443/");
        assert!(failure.message.contains("https://k:6443/"), "{failure:?}");
        assert!(failure.remedy.contains("KUBECONFIG"), "{failure:?}");
        let failure = of_first(kube::Error::TlsRequired, "https://k:6443/");
        assert!(failure.remedy.contains("KUBECONFIG"), "{failure:?}");
    }
}
