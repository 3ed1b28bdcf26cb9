//! What installs the operator, on a real API server: what it may do then, and what is left when it is removed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use k8s_openapi::api::{
    apps::v1::Deployment,
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::Namespace,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config,
    api::{DynamicObject, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::json;
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use testbed::KubeApi;

/// The project's own folder.
fn root() -> PathBuf {
    Path::new("../..").canonicalize().unwrap()
}

fn tool(variable: &str) -> PathBuf {
    let found = std::env::var_os(variable);
    found
        .unwrap_or_else(|| panic!("{variable} is not set: run ./test, or tools/install.sh test"))
        .into()
}

async fn client(server: &KubeApi) -> Client {
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.unwrap()).unwrap()
}

#[track_caller]
fn run(command: &mut Command) -> Result<String, String> {
    let run = command.current_dir(root()).output().expect("the program can be started");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match run.status.success() {
        true => Ok(said(&run.stdout)),
        false => Err(said(&run.stdout) + &said(&run.stderr)),
    }
}

#[track_caller]
fn apply(server: &KubeApi, how: &str, what: &str) {
    let mut command = Command::new(tool("LIFEBOAT_KUBECTL"));
    command.arg("--kubeconfig").arg(server.kubeconfig());
    run(command.args(["apply", "--server-side", how, what])).unwrap();
}

fn helm<'a>(server: &KubeApi, words: impl IntoIterator<Item = &'a str>) -> Result<String, String> {
    let mut command = Command::new("/usr/bin/python3");
    command.env("PYTHONPATH", tool("LIFEBOAT_HELM")).arg("tools/helm.py").arg(server.kubeconfig());
    run(command.args(words.into_iter().map(OsStr::new)))
}

/// Whether the operator of a namespace may do that: `VERB RESOURCE[/SUBRESOURCE][.GROUP][=NAME]`.
async fn may(client: &Client, home: &str, namespace: &str, what: &str) -> bool {
    let (verb, resource) = what.split_once(' ').unwrap();
    let (resource, name) = resource.split_once('=').unwrap_or((resource, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{home}:lifeboat-operator")),
            resource_attributes: Some(ResourceAttributes {
                verb: some(verb),
                group: some(group),
                resource: some(resource),
                subresource: some(subresource),
                name: some(name),
                namespace: some(namespace),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

/// What the operator does somewhere in its code, in the namespaces that it watches.
const ALLOWED: &[&str] = &[
    "get backupstores.lifeboat.dev",
    "list backupstores.lifeboat.dev",
    "watch etcdbackupschedules.lifeboat.dev",
    "create etcdbackups.lifeboat.dev",
    "patch etcdbackups.lifeboat.dev",
    "delete etcdbackups.lifeboat.dev",
    "get etcdbackups.lifeboat.dev",
    "get etcdrestores.lifeboat.dev",
    "patch etcdrestores.lifeboat.dev",
    "patch backupstores/status.lifeboat.dev",
    "patch etcdbackups/status.lifeboat.dev",
    "patch etcdbackupschedules/status.lifeboat.dev",
    "patch etcdrestores/status.lifeboat.dev",
    "get secrets",
    "get endpoints",
    "get statefulsets.apps",
    "patch statefulsets/scale.apps",
    "get deployments.apps",
    "patch deployments/scale.apps",
    "list pods",
    "list persistentvolumeclaims",
    "get jobs.batch",
    "watch jobs.batch",
    "create jobs.batch",
    "delete jobs.batch",
    "create events.events.k8s.io",
    "patch events.events.k8s.io",
];

/// What it must not be able to do, whatever it is made to believe.
const REFUSED: &[&str] = &[
    "list secrets",
    "watch secrets",
    "create secrets",
    "delete secrets",
    "create backupstores.lifeboat.dev",
    "delete backupstores.lifeboat.dev",
    "delete etcdrestores.lifeboat.dev",
    "create etcdrestores.lifeboat.dev",
    "patch etcdbackupschedules.lifeboat.dev",
    "update etcdbackups.lifeboat.dev",
    "deletecollection etcdbackups.lifeboat.dev",
    "create pods",
    "delete pods",
    "create pods/exec",
    "patch statefulsets.apps",
    "delete statefulsets.apps",
    "patch deployments.apps",
    "create deployments.apps",
    "delete persistentvolumeclaims",
    "get persistentvolumes",
    "get nodes",
    "list namespaces",
    "create customresourcedefinitions.apiextensions.k8s.io",
    "delete customresourcedefinitions.apiextensions.k8s.io=etcdbackups.lifeboat.dev",
    "get customresourcedefinitions.apiextensions.k8s.io=others.example.com",
    "create clusterroles.rbac.authorization.k8s.io",
    "impersonate users",
    "get configmaps",
    "create serviceaccounts/token",
];

/// Longer than the API server takes to hear of rights that were just written.
const PATIENCE: Duration = Duration::from_secs(120);

/// Looks again until nothing is wrong.
async fn until_right(mut wrong: impl AsyncFnMut() -> Vec<String>) {
    let begun = Instant::now();
    loop {
        let wrong = wrong().await;
        if wrong.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{wrong:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Of these, what is allowed and what is not is as it was meant.
async fn until_rights(client: &Client, home: &str, inside: &[&str], outside: &[&str]) {
    until_right(async || wrong_rights(client, home, inside, outside).await).await;
}

/// What is allowed and was not meant to be, and the other way round.
async fn wrong_rights(
    client: &Client,
    home: &str,
    inside: &[&str],
    outside: &[&str],
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = async |namespace: &str, what: &str, allowed: bool| {
        if may(client, home, namespace, what).await != allowed {
            wrong.push(format!("{what} in {namespace:?}: {allowed} was meant"));
        }
    };
    for namespace in inside {
        for what in ALLOWED {
            expect(namespace, what, true).await;
        }
        for what in REFUSED {
            expect(namespace, what, false).await;
        }
    }
    for namespace in outside {
        for what in ALLOWED {
            expect(namespace, what, false).await;
        }
    }
    expect(home, "create leases.coordination.k8s.io", true).await;
    expect(home, "update leases.coordination.k8s.io=lifeboat-operator", true).await;
    expect(home, "update leases.coordination.k8s.io=somebody-elses", false).await;
    expect("kube-system", "update leases.coordination.k8s.io=lifeboat-operator", false).await;
    wrong
}

/// Whether the operator may read definitions is as it was meant.
async fn until_may_read_kinds(client: &Client, home: &str, is_meant: bool) {
    let what = "get customresourcedefinitions.apiextensions.k8s.io=etcdbackups.lifeboat.dev";
    until_may(client, home, "", what, is_meant).await;
}

async fn until_may(client: &Client, home: &str, namespace: &str, what: &str, is_meant: bool) {
    let wrong = async || match may(client, home, namespace, what).await == is_meant {
        true => Vec::new(),
        false => vec![format!("{what} in {namespace:?}: {is_meant} was meant")],
    };
    until_right(wrong).await;
}

async fn kinds(client: &Client) -> usize {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let found = definitions.list_metadata(&ListParams::default()).await.unwrap();
    let ours =
        |name: &Option<String>| name.as_ref().is_some_and(|name| name.ends_with(".lifeboat.dev"));
    found.items.iter().filter(|found| ours(&found.metadata.name)).count()
}

async fn operators(client: &Client, namespace: &str) -> usize {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    deployments.list(&ListParams::default()).await.unwrap().items.len()
}

#[tokio::test]
async fn kustomize_gives_the_operator_the_rights_it_uses_and_no_others() {
    let server = KubeApi::start();
    let client = client(&server).await;
    apply(&server, "-f", "deploy/operator/lifeboat-operator.yaml");
    apply(&server, "-k", "deploy/operator");
    assert_eq!((kinds(&client).await, operators(&client, "lifeboat").await), (4, 1));
    until_rights(&client, "lifeboat", &["lifeboat", "default", ""], &[]).await;
    until_may_read_kinds(&client, "lifeboat", true).await;

    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "etcd"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    apply(&server, "-k", "deploy/operator/namespaced");
    assert_eq!(operators(&client, "etcd").await, 1);
    until_rights(&client, "etcd", &["etcd"], &["default", "lifeboat", ""]).await;
    until_may_read_kinds(&client, "etcd", false).await;
}

#[tokio::test]
async fn helm_installs_upgrades_and_uninstalls_and_leaves_kinds_and_objects_alone() {
    let server = KubeApi::start();
    let client = client(&server).await;
    helm(&server, ["backup", "install", "lifeboat"]).unwrap();
    assert_eq!((kinds(&client).await, operators(&client, "backup").await), (4, 1));
    until_rights(&client, "backup", &["backup", "default", ""], &[]).await;

    let stores =
        ApiResource::from_gvk(&GroupVersionKind::gvk("lifeboat.dev", "v1alpha1", "BackupStore"));
    let stores: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &stores);
    let store = json!({
        "apiVersion": "lifeboat.dev/v1alpha1", "kind": "BackupStore",
        "metadata": {"name": "s3"}, "spec": {"url": "s3://bucket/etcd"},
    });
    let store = serde_json::from_value(store).unwrap();
    // A kind is served a moment after it was made.
    let wrong = async || match stores.create(&PostParams::default(), &store).await {
        Ok(_) => Vec::new(),
        Err(error) => vec![error.to_string()],
    };
    until_right(wrong).await;

    let two = r#"{"watchNamespaces": ["default"], "replicas": 2}"#;
    helm(&server, ["backup", "upgrade", "lifeboat", two]).unwrap();
    until_rights(&client, "backup", &["default"], &["backup", ""]).await;
    until_may_read_kinds(&client, "backup", true).await;

    helm(&server, ["backup", "uninstall", "lifeboat"]).unwrap();
    assert_eq!((kinds(&client).await, operators(&client, "backup").await), (4, 0));
    until_may(&client, "backup", "default", "get secrets", false).await;
    assert!(stores.get("s3").await.is_ok(), "the object is as it was");

    helm(&server, ["backup", "install", "lifeboat"]).unwrap();
    assert_eq!((kinds(&client).await, operators(&client, "backup").await), (4, 1));
}
