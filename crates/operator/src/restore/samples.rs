//! Objects for tests.

use crate::api::{
    BackupStoreSpec, EtcdRestore, EtcdRestoreStatus, RestorePhase, StatefulSetTarget,
};
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};

fn target_json() -> Value {
    json!({ "name": "etcd", "cluster": { "name": "prod", "statefulSet": { "name": "etcd" } } })
}

pub(crate) fn target() -> StatefulSetTarget {
    serde_json::from_value(target_json()).unwrap()
}

pub(crate) fn store() -> BackupStoreSpec {
    serde_json::from_value(
        json!({ "url": "s3://backups/etcd", "credentials": { "secretName": "store" } }),
    )
    .unwrap()
}

/// Three pods with a volume each.
pub(crate) fn set() -> StatefulSet {
    serde_json::from_value(json!({
        "metadata": { "name": "etcd", "namespace": "prod", "uid": "set" },
        "spec": {
            "replicas": 3, "serviceName": "etcd", "selector": { "matchLabels": { "app": "etcd" } },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
            "template": { "spec": {
                "nodeSelector": { "disk": "fast" },
                "securityContext": { "fsGroup": 1001 },
                "containers": [{
                    "name": "etcd", "image": "etcd", "command": ["etcd", "--data-dir=/data/etcd"],
                    "securityContext": { "runAsUser": 1001 },
                    "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                }],
            } },
        },
    }))
    .unwrap()
}

pub(crate) fn restore(target: Value) -> EtcdRestore {
    serde_json::from_value(json!({
        "apiVersion": "lifeboat.dev/v1alpha1", "kind": "EtcdRestore",
        "metadata": { "name": "back", "namespace": "prod", "uid": "01234567-89ab-cdef", "generation": 1 },
        "spec": { "source": { "store": { "name": "s3", "cluster": "prod" } }, "target": target, "confirm": "etcd" },
    }))
    .unwrap()
}

pub(crate) fn of_set() -> EtcdRestore {
    restore(json!({ "statefulSet": target_json() }))
}

/// One that has stopped etcd, and has three volumes to build.
pub(crate) fn building() -> EtcdRestore {
    let volume = |n: u32| {
        json!({ "claim": format!("data-etcd-{n}"), "member": format!("etcd-{n}"), "phase": "Untouched",
            "peerUrls": [format!("http://etcd-{n}.etcd:2380")] })
    };
    let status = json!({
        "run": "0123456789", "replicas": 3, "volumes": [volume(0), volume(1), volume(2)],
        "source": { "store": { "name": "s3", "cluster": "prod", "at": "00000000000000000010-20261122T100000Z" } },
    });
    let status: EtcdRestoreStatus = serde_json::from_value(status).unwrap();
    let status = EtcdRestoreStatus { phase: Some(RestorePhase::Building), ..status };
    EtcdRestore { status: Some(status), ..of_set() }
}
