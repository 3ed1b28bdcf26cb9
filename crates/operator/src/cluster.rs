//! How an etcd cluster is reached: from an object's `cluster` to endpoints and a connector.
//!
//! | said | asked | endpoints |
//! | --- | --- | --- |
//! | `endpoints` | nothing | as they stand |
//! | `statefulSet` | the StatefulSet | each pod's name in the headless Service |
//! | `service` | its Endpoints | a headless Service's pods by name; else with `http` each address, with `https` the Service's name, as certificates name it |

use crate::{
    api::{Cluster, MembersRef, Scheme},
    context::Context,
    failure::Failure,
    secrets,
};
use etcd_live::{ConnectOptions, Connector, Endpoint, TlsOptions};
use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetSpec},
    core::v1::{EndpointAddress, Endpoints},
};
use kube::Api;

/// A cluster that can be spoken to. Nothing of it is reached yet.
pub struct Reached {
    /// How connections are made.
    pub connector: Connector,
    /// Its members, as far as known.
    pub endpoints: Vec<Endpoint>,
}

/// What an object says of its cluster, with what Kubernetes and its Secrets add.
pub async fn reach(
    context: &Context,
    namespace: &str,
    cluster: &Cluster,
) -> Result<Reached, Failure> {
    let urls = urls(context, namespace, cluster).await?;
    let endpoints = urls.iter().map(|url| {
        url.parse::<Endpoint>()
            .map_err(|error| Failure::of_setting("spec.cluster.endpoints", &error, error.remedy()))
    });
    let endpoints = endpoints.collect::<Result<_, _>>()?;
    let tls = match &cluster.tls {
        Some(tls) => secrets::tls(context, namespace, tls).await?,
        None => TlsOptions::default(),
    };
    let credentials = secrets::user(context, namespace, cluster).await?;
    let options = ConnectOptions { tls, credentials, ..ConnectOptions::unattended() };
    let connector = Connector::new(options)
        .map_err(|error| Failure::of_setting("spec.cluster.tls", &error, error.remedy()))
        .map_err(|failure| failure.with_names_of(&context.files))?;
    Ok(Reached { connector, endpoints })
}

/// The URLs of a cluster's members.
pub async fn urls(
    context: &Context,
    namespace: &str,
    cluster: &Cluster,
) -> Result<Vec<String>, Failure> {
    match (&cluster.endpoints[..], &cluster.service, &cluster.stateful_set) {
        ([_, ..], None, None) => Ok(cluster.endpoints.clone()),
        ([], Some(service), None) => {
            let found: Api<Endpoints> = Api::namespaced(context.client.clone(), namespace);
            let found = found.get_opt(&service.name).await?;
            let found = found.ok_or_else(|| missing("Service", &service.name, namespace))?;
            of_service(namespace, service, &found)
        }
        ([], None, Some(set)) => {
            let found: Api<StatefulSet> = Api::namespaced(context.client.clone(), namespace);
            let found = found.get_opt(&set.name).await?;
            let found = found.ok_or_else(|| missing("StatefulSet", &set.name, namespace))?;
            of_stateful_set(namespace, set, &found.spec.unwrap_or_default())
        }
        _ => Err(Failure::settings(
            "spec.cluster must have exactly one of endpoints, service and statefulSet",
            "write one of them, and remove the others",
        )),
    }
}

fn missing(kind: &str, name: &str, namespace: &str) -> Failure {
    Failure::settings(
        format!("there is no {kind} {name:?} in namespace {namespace:?}"),
        "create it, or correct its name in spec.cluster",
    )
}

fn scheme(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

fn of_service(
    namespace: &str,
    service: &MembersRef,
    found: &Endpoints,
) -> Result<Vec<String>, Failure> {
    let (name, port, scheme) = (&service.name, service.port, scheme(service.scheme));
    let subsets = found.subsets.iter().flatten();
    let ready: Vec<_> = subsets.clone().flat_map(|s| s.addresses.iter().flatten()).collect();
    let unready: Vec<_> = subsets.flat_map(|s| s.not_ready_addresses.iter().flatten()).collect();
    // A member that Kubernetes calls unready may have data all the same.
    let addresses = if ready.is_empty() { unready } else { ready };
    if addresses.is_empty() {
        return Err(Failure {
            reason: "Cluster",
            ..Failure::settings(
                format!("Service {name:?} has no endpoints"),
                "see whether its selector matches the pods of etcd, and whether they run",
            )
        });
    }
    let url = |address: &&EndpointAddress| match (&address.hostname, service.scheme) {
        (Some(host), _) => Some(format!("{scheme}://{host}.{name}.{namespace}.svc:{port}")),
        (None, Scheme::Http) => {
            let ip = &address.ip;
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
            Some(format!("{scheme}://{host}:{port}"))
        }
        (None, Scheme::Https) => None,
    };
    let urls: Option<Vec<_>> = addresses.iter().map(url).collect();
    Ok(urls.unwrap_or_else(|| vec![format!("{scheme}://{name}.{namespace}.svc:{port}")]))
}

fn of_stateful_set(
    namespace: &str,
    set: &MembersRef,
    spec: &StatefulSetSpec,
) -> Result<Vec<String>, Failure> {
    let (name, port, scheme) = (&set.name, set.port, scheme(set.scheme));
    let Some(service) = spec.service_name.as_deref().filter(|service| !service.is_empty()) else {
        return Err(Failure::settings(
            format!("StatefulSet {name:?} has no serviceName, so its pods have no names"),
            "name the members in spec.cluster.endpoints",
        ));
    };
    let first = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    match spec.replicas.unwrap_or(1) {
        ..=0 => Err(Failure {
            reason: "Cluster",
            ..Failure::settings(
                format!("StatefulSet {name:?} has no replicas"),
                "scale it up: there is no etcd that could be asked",
            )
        }),
        replicas => Ok((first..first.saturating_add(replicas))
            .map(|n| format!("{scheme}://{name}-{n}.{service}.{namespace}.svc:{port}"))
            .collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoints(addresses: serde_json::Value) -> Endpoints {
        serde_json::from_value(json!({ "subsets": [addresses] })).unwrap()
    }

    fn service(scheme: Scheme) -> MembersRef {
        MembersRef { name: "etcd".to_owned(), port: 2379, scheme }
    }

    #[test]
    fn pods_of_a_headless_service_go_by_their_names() {
        let found = endpoints(
            json!({ "addresses": [{ "ip": "10.0.0.1", "hostname": "etcd-0" }, { "ip": "10.0.0.2", "hostname": "etcd-1" }] }),
        );
        let urls = of_service("prod", &service(Scheme::Https), &found).unwrap();
        assert_eq!(
            urls,
            ["https://etcd-0.etcd.prod.svc:2379", "https://etcd-1.etcd.prod.svc:2379"]
        );
    }

    #[test]
    fn addresses_without_names_are_used_where_no_certificate_has_to_name_them() {
        let found = endpoints(json!({ "addresses": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }] }));
        let urls = |scheme| of_service("prod", &service(scheme), &found).unwrap();
        assert_eq!(urls(Scheme::Http), ["http://10.0.0.1:2379", "http://[fd00::1]:2379"]);
        assert_eq!(urls(Scheme::Https), ["https://etcd.prod.svc:2379"]);
    }

    #[test]
    fn unready_members_are_asked_when_no_other_is_left() {
        let found = endpoints(json!({ "notReadyAddresses": [{ "ip": "10.0.0.1" }] }));
        assert_eq!(
            of_service("prod", &service(Scheme::Http), &found).unwrap(),
            ["http://10.0.0.1:2379"]
        );
        let none = of_service("prod", &service(Scheme::Http), &Endpoints::default());
        assert!(none.unwrap_err().message.contains("no endpoints"));
    }

    #[test]
    fn each_pod_of_a_stateful_set_is_a_member() {
        let spec = json!({
            "serviceName": "peers", "replicas": 2, "ordinals": { "start": 3 },
            "selector": {}, "template": {},
        });
        let spec: StatefulSetSpec = serde_json::from_value(spec).unwrap();
        let set = MembersRef { name: "etcd".to_owned(), port: 2380, scheme: Scheme::Http };
        assert_eq!(
            of_stateful_set("prod", &set, &spec).unwrap(),
            ["http://etcd-3.peers.prod.svc:2380", "http://etcd-4.peers.prod.svc:2380"]
        );
    }
}
