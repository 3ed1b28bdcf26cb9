//! The kinds as a real API server takes them: definitions, defaults, refusals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{
        ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
    },
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{await_condition, conditions::is_crd_established},
};
use operator::api::coreos::CoreosBackup;
use operator::crds::{self, Rules};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use testbed::KubeApi;

async fn client(server: &KubeApi) -> Client {
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.unwrap()).unwrap()
}

/// Applies what `lifeboat crds` prints, and waits until the server serves the kinds.
async fn install(client: &Client) -> Vec<CustomResourceDefinition> {
    let printed = crds::yaml(Rules::Structural);
    let definitions: Vec<Value> = serde_saphyr::from_multiple(&printed).unwrap();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut installed = Vec::new();
    for definition in definitions {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("test").force();
        api.patch(name, &params, &Patch::Apply(&definition)).await.unwrap();
        let established = await_condition(api.clone(), name, is_crd_established()).await;
        installed.push(established.unwrap().unwrap());
    }
    until_served(client).await;
    installed
}

/// Kinds are served a moment after they were established.
async fn until_served(client: &Client) {
    let begun = Instant::now();
    for (name, ..) in minimal() {
        while let Err(error) = kind(client, name).list(&ListParams::default().limit(1)).await {
            assert!(begun.elapsed() < Duration::from_secs(120), "{name}: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn kind(client: &Client, name: &str) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("lifeboat.dev", "v1alpha1", name);
    Api::namespaced_with(client.clone(), "default", &ApiResource::from_gvk(&gvk))
}

/// An object of a kind, as YAML has it.
fn object(kind: &str, name: &str, spec: &str) -> DynamicObject {
    let spec: Value = serde_saphyr::from_str(spec).unwrap();
    serde_json::from_value(json!({
        "apiVersion": "lifeboat.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap()
}

/// Why the server refuses the object; nothing if it takes it.
async fn refusal(client: &Client, kind_name: &str, spec: &str) -> String {
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let made = kind(client, kind_name).create(&params, &object(kind_name, "wrong", spec)).await;
    match made {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.reason, "Invalid", "{spec}: {}", status.message);
            status.message.clone()
        }
        Err(error) => panic!("{spec}: {error}"),
        Ok(_) => String::new(),
    }
}

const STORE: &str = "url: s3://bucket/etcd";
const BACKUP: &str =
    "storeName: s3\ncluster: {name: prod, endpoints: [\"https://etcd-0.etcd:2379\"]}";
const RESTORE: &str = "source: {backupName: daily}\ntarget: {files: {claimName: out}}";

/// A minimal spec of each kind, and what the server adds to it.
fn minimal() -> [(&'static str, String, Value); 4] {
    let schedule = format!(
        "schedule: \"@daily\"\nretention: {{}}\ntemplate:\n  spec:\n    {}",
        BACKUP.replace('\n', "\n    ")
    );
    let backup = json!({
        "storeName": "s3", "attempts": 3, "deletionPolicy": "Retain", "hashMismatch": "Warn", "runAs": "Operator",
        "cluster": {"name": "prod", "endpoints": ["https://etcd-0.etcd:2379"]},
    });
    [
        (
            "BackupStore",
            STORE.to_owned(),
            json!({"url": "s3://bucket/etcd", "compressionLevel": 1, "sync": false, "unencrypted": false}),
        ),
        ("EtcdBackup", BACKUP.to_owned(), backup.clone()),
        (
            "EtcdBackupSchedule",
            schedule,
            json!({
                "schedule": "@daily", "timeZone": "UTC", "suspend": false, "jitterSeconds": 0,
                "successfulHistoryLimit": 10, "failedHistoryLimit": 10, "template": {"spec": backup},
                "retention": {
                    "keepLast": 0, "keepHourly": 0, "keepDaily": 0, "keepWeekly": 0, "keepMonthly": 0, "keepYearly": 0,
                    "minBackups": 1,
                },
            }),
        ),
        (
            "EtcdRestore",
            RESTORE.to_owned(),
            json!({
                "source": {"backupName": "daily"}, "target": {"files": {"claimName": "out", "path": "snapshot.db"}},
                "bumpRevision": "Auto", "readySeconds": 300,
            }),
        ),
    ]
}

/// Specs that are wrong in one thing, and the field that the server must name.
fn wrong() -> Vec<(&'static str, String, &'static str)> {
    let mut cases = Vec::new();
    let store = |more: &str| format!("{STORE}\n{more}");
    for (spec, field) in [
        ("{}".to_owned(), "spec.url"),
        ("url: https://bucket/etcd".to_owned(), "spec.url"),
        ("url: s3://key:secret@bucket/etcd".to_owned(), "spec.url"),
        ("url: s3://bucket/etcd?region=x".to_owned(), "spec.url"),
        (store("compressionLevel: 20"), "spec.compressionLevel"),
        (store("bandwidthLimit: fast"), "spec.bandwidthLimit"),
        (store("encryption: {recipients: []}"), "spec.encryption.recipients"),
        (store("encryption: {recipients: [AGE-SECRET-KEY-1]}"), "spec.encryption.recipients"),
        (store("credentials: {secretName: \"\"}"), "spec.credentials.secretName"),
        (store("ca: {secretName: ca}"), "spec.ca.key"),
    ] {
        cases.push(("BackupStore", spec, field));
    }
    let backup = |more: &str| format!("{BACKUP}\n{more}");
    let cluster = |cluster: &str| format!("storeName: s3\ncluster: {{{cluster}}}");
    for (spec, field) in [
        ("cluster: {name: prod, service: {name: etcd}}".to_owned(), "spec.storeName"),
        (cluster("endpoints: [\"http://a:2379\"]"), "spec.cluster.name"),
        (cluster("name: a/b, endpoints: [\"http://a:2379\"]"), "spec.cluster.name"),
        (cluster("name: prod"), "spec.cluster"),
        (cluster("name: prod, endpoints: []"), "spec.cluster.endpoints"),
        (cluster("name: prod, endpoints: [\"a:2379\"]"), "spec.cluster.endpoints"),
        (cluster("name: prod, endpoints: [\"http://u:p@a:2379\"]"), "spec.cluster.endpoints"),
        (cluster("name: prod, endpoints: [\"http://a:2379\"], service: {name: b}"), "spec.cluster"),
        (cluster("name: prod, service: {name: a}, statefulSet: {name: a}"), "spec.cluster"),
        (cluster("name: prod, service: {name: a, port: 70000}"), "spec.cluster.service.port"),
        (cluster("name: prod, service: {name: a, scheme: grpc}"), "spec.cluster.service.scheme"),
        (cluster("name: prod, service: {name: a}, tls: {}"), "spec.cluster.tls.secretName"),
        (backup("runAs: CronJob"), "spec.runAs"),
        (backup("deletionPolicy: Remove"), "spec.deletionPolicy"),
        (backup("attempts: 0"), "spec.attempts"),
        (backup("ttlSecondsAfterFinished: -1"), "spec.ttlSecondsAfterFinished"),
        (backup("job: {resources: {limits: {memory: 1 GB}}}"), "spec.job.resources.limits"),
    ] {
        cases.push(("EtcdBackup", spec, field));
    }
    let schedule =
        |more: &str| format!("{more}\ntemplate:\n  spec:\n    {}", BACKUP.replace('\n', "\n    "));
    let hourly = |more: &str| schedule(&format!("schedule: \"@hourly\"\n{more}"));
    for (spec, field) in [
        ("schedule: \"@hourly\"".to_owned(), "spec.template"),
        (
            "schedule: \"@hourly\"\ntemplate: {spec: {storeName: s3}}".to_owned(),
            "spec.template.spec.cluster",
        ),
        (schedule("timeZone: UTC"), "spec.schedule"),
        (schedule("schedule: \"0 0 3 * * *\""), "spec.schedule"),
        (hourly("jitterSeconds: 100000"), "spec.jitterSeconds"),
        (hourly("startingDeadlineSeconds: -1"), "spec.startingDeadlineSeconds"),
        (hourly("retention: {minBackups: 0}"), "spec.retention.minBackups"),
        (hourly("retention: {keepLast: -1}"), "spec.retention.keepLast"),
        (hourly("retention: {keepWithin: soon}"), "spec.retention.keepWithin"),
        (hourly("retention: {maxTotalSize: big}"), "spec.retention.maxTotalSize"),
        (hourly("successfulHistoryLimit: 5000"), "spec.successfulHistoryLimit"),
    ] {
        cases.push(("EtcdBackupSchedule", spec, field));
    }
    let target = |target: &str| format!("source: {{backupName: daily}}\ntarget: {{{target}}}");
    let source =
        |source: &str| format!("source: {{{source}}}\ntarget: {{files: {{claimName: out}}}}");
    for (spec, field) in [
        (source(""), "spec.source"),
        (source("backupName: daily, url: \"s3://bucket/etcd.db\""), "spec.source"),
        (source("url: etcd.db"), "spec.source.url"),
        (source("store: {name: s3}"), "spec.source.store.cluster"),
        (source("store: {name: s3, cluster: prod, at: \"\"}"), "spec.source.store.at"),
        (target(""), "spec.target"),
        (target("files: {claimName: a}, pvc: {claimName: a, members: []}"), "spec.target"),
        (target("pvc: {claimName: a, members: []}"), "spec.target.pvc.members"),
        (target("pvc: {claimName: a, members: [{name: a, peerUrls: [\"a:2380\"]}]}"), "peerUrls"),
        (target("files: {claimName: a, path: /etc/passwd}"), "spec.target.files.path"),
        (target("files: {claimName: a, path: a/../../b}"), "spec.target.files.path"),
        (target("statefulSet: {name: etcd}"), "spec.target.statefulSet.cluster"),
        (
            target(
                "statefulSet: {name: etcd, replicas: 0, cluster: {name: prod, service: {name: etcd}}}",
            ),
            "spec.target.statefulSet.replicas",
        ),
        (
            target(
                "statefulSet: {name: etcd, dataDir: data, cluster: {name: prod, service: {name: etcd}}}",
            ),
            "spec.target.statefulSet.dataDir",
        ),
        (format!("{RESTORE}\nreadySeconds: 1"), "spec.readySeconds"),
        (format!("{RESTORE}\nbumpRevision: Much"), "spec.bumpRevision"),
    ] {
        cases.push(("EtcdRestore", spec, field));
    }
    cases
}

/// One server for all, as it takes seconds to start.
#[tokio::test]
async fn a_real_api_server_takes_the_kinds_fills_in_defaults_and_refuses_what_is_wrong() {
    let server = KubeApi::start();
    let client = client(&server).await;
    definitions_are_taken_as_they_are(&client).await;
    defaults_are_filled_in(&client).await;
    wrong_objects_are_refused_by_the_name_of_the_field(&client).await;
    the_objects_of_the_guide_are_right(&client).await;
    the_rule_in_cel_holds_where_the_server_knows_it(&client).await;
}

async fn definitions_are_taken_as_they_are(client: &Client) {
    let installed = install(client).await;
    for definition in &installed {
        let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
        let bad = |kind: &str| kind == "NonStructuralSchema" || kind == "NamesAccepted";
        for condition in conditions.unwrap().iter().filter(|condition| bad(&condition.type_)) {
            let good = condition.status
                == if condition.type_ == "NamesAccepted" { "True" } else { "False" };
            assert!(good, "{}: {condition:?}", definition.name_any());
        }
        assert_eq!(crds::check(&definition.name_any(), Some(definition)), Ok(()));
    }
    let again = install(client).await;
    let generations = |of: &[CustomResourceDefinition]| -> Vec<_> {
        of.iter().map(|definition| definition.metadata.generation).collect()
    };
    assert_eq!(generations(&installed), generations(&again), "applied again, nothing changes");
}

async fn defaults_are_filled_in(client: &Client) {
    for (name, spec, expected) in minimal() {
        let minimal = object(name, "minimal", &spec);
        let made = kind(client, name).create(&PostParams::default(), &minimal).await.unwrap();
        assert_eq!(made.data["spec"], expected, "{name}");
    }
}

async fn wrong_objects_are_refused_by_the_name_of_the_field(client: &Client) {
    let mut taken = Vec::new();
    for (name, spec, field) in wrong() {
        let refusal = refusal(client, name, &spec).await;
        if !refusal.contains(field) {
            taken.push(format!("{name}, {field}:\n{spec}\n-> {refusal}"));
        }
    }
    assert!(taken.is_empty(), "not refused for the field that is wrong:\n{}", taken.join("\n\n"));
}

/// Every object that stands in `docs/kubernetes.md`.
async fn the_objects_of_the_guide_are_right(client: &Client) {
    let guide = include_str!("../../../docs/kubernetes.md");
    let mut kinds = BTreeSet::new();
    for block in guide.split("```yaml\n").skip(1) {
        let yaml = block.split("```").next().unwrap();
        match yaml.split_once(": ").unwrap() {
            ("apiVersion", rest) if rest.starts_with("lifeboat.dev/") => {}
            ("apiVersion", _) => {
                let object: DynamicObject = serde_saphyr::from_str(yaml).unwrap();
                let read: CoreosBackup = serde_saphyr::from_str(yaml).unwrap();
                let read = serde_json::to_value(&read.spec).unwrap();
                assert_no_field_is_lost(&object.data["spec"], &read, "of CoreOS");
                continue;
            }
            _ => continue, // a part of an object
        }
        let mut object: DynamicObject = serde_saphyr::from_str(yaml).unwrap();
        object.metadata.namespace = None;
        let kind_name = object.types.clone().unwrap().kind;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let made = kind(client, &kind_name).create(&dry, &object).await;
        let made = made.unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert_no_field_is_lost(&object.data["spec"], &made.data["spec"], &kind_name);
        kinds.insert(kind_name);
    }
    assert_eq!(kinds.len(), 4, "the guide has an object of each kind: {kinds:?}");
}

/// The server drops fields that it does not know.
fn assert_no_field_is_lost(given: &Value, kept: &Value, path: &str) {
    for (name, value) in given.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(kept.get(name).is_some(), "{path} is no field");
        assert_no_field_is_lost(value, &kept[name], &path);
    }
}

/// Older servers refuse the definition, as it is applied by the server.
async fn the_rule_in_cel_holds_where_the_server_knows_it(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = "etcdbackups.lifeboat.dev";
    let with_rule = crds::definitions(Rules::Cel)
        .into_iter()
        .find(|definition| definition["metadata"]["name"] == name)
        .unwrap();
    let params = PatchParams::apply("test").force();
    let applied = definitions.patch(name, &params, &Patch::Apply(&with_rule)).await;
    let minor: u32 =
        client.apiserver_version().await.unwrap().minor.trim_end_matches('+').parse().unwrap();
    if minor < 25 {
        let refused = applied.unwrap_err().to_string();
        assert!(refused.contains("x-kubernetes-validations"), "{refused}");
        return;
    }
    applied.unwrap();
    await_condition(definitions, name, is_crd_established()).await.unwrap();
    let backups = kind(client, "EtcdBackup");
    backups.create(&PostParams::default(), &object("EtcdBackup", "one", BACKUP)).await.unwrap();
    let change = json!({"spec": {"storeName": "other"}});
    let refused = backups.patch("one", &PatchParams::default(), &Patch::Merge(&change)).await;
    assert!(refused.unwrap_err().to_string().contains("make another EtcdBackup"));
}
