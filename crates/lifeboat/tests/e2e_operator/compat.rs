//! EtcdBackups of the CoreOS operator: made as it made them, taken over from it, and told what is wrong with them.

use crate::world::{DEPLOY, Operator, World, line_of, plain};
use kube::{
    Api, Resource,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use operator::{
    api::coreos::{CoreosBackup, CoreosBackupStatus},
    conditions, crds,
};
use serde_json::{Value, json};
use testbed::{Cluster, Etcd, Identity, Security, Tool};

fn overlay() -> String {
    format!("{DEPLOY}/coreos-compat")
}

/// What `kubectl` does for whoever installs the operator so.
fn install(world: &World) {
    world.kubectl(&["apply", "--server-side", "--force-conflicts", "-k", &overlay()]);
}

/// The same but for the definitions.
fn install_rights(world: &World) {
    let rendered = world.kubectl(&["kustomize", &overlay()]);
    let objects: Vec<Value> = serde_saphyr::from_multiple(&rendered).unwrap();
    let others = objects.into_iter().filter(|one| one["kind"] != "CustomResourceDefinition");
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": others.collect::<Vec<_>>() });
    let file = world.folder().join("rights.json");
    std::fs::write(&file, list.to_string()).unwrap();
    world.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", file.to_str().unwrap()]);
}

/// One with the definition, the rights, and a Secret as that operator took it.
async fn world() -> World {
    let world = World::ready().await;
    install(&world);
    world.until_served(crds::coreos_name()).await;
    until_may_write(&world).await;
    aws_secret(&world).await;
    world
}

/// The API server hears of rights a moment after they are written.
async fn until_may_write(world: &World) {
    let (group, part) = ("etcd.database.coreos.com", "etcdbackups/status");
    world.until_may("patch", group, part, &world.namespace).await;
}

async fn aws_secret(world: &World) {
    let identity = Identity::Admin;
    let credentials = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        identity.access_key(),
        identity.secret()
    );
    let config = "[default]\nregion = us-east-1\n";
    world.secret("aws", [("credentials", &*credentials), ("config", config)]).await;
}

fn operator(world: &World) -> Operator {
    world.operator_with("a", &["--coreos-compat"])
}

/// What an object says of a file in SeaweedFS.
fn spec(world: &World, endpoints: &str, path: &str, more: Value) -> Value {
    let endpoints: Vec<_> = endpoints.split(',').collect();
    let mut spec = json!({
        "etcdEndpoints": endpoints, "storageType": "S3",
        "s3": { "path": path, "awsSecret": "aws", "endpoint": world.s3.endpoint() },
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

async fn until(
    world: &World,
    name: &str,
    what: &str,
    is: impl Fn(&CoreosBackupStatus) -> bool,
) -> CoreosBackupStatus {
    let there = |object: &CoreosBackup| object.status.as_ref().is_some_and(&is);
    world.until(name, what, there).await.status.unwrap()
}

async fn made(world: &World, name: &str) -> CoreosBackupStatus {
    until(world, name, "made", |status| status.succeeded).await
}

/// The `Reason` in the end.
async fn refused(world: &World, name: &str, spec: Value) -> String {
    world.make::<CoreosBackup>(name, spec).await;
    until(world, name, "refused", |status| !status.reason.is_empty()).await.reason
}

/// As an operator before this one has written it.
async fn set_status(world: &World, name: &str, status: Value) {
    let patch = Patch::Apply(json!({
        "apiVersion": CoreosBackup::api_version(&()), "kind": CoreosBackup::kind(&()), "status": status,
    }));
    let params = PatchParams::apply(operator::context::MANAGER).force();
    world.all::<CoreosBackup>().patch_status(name, &params, &patch).await.unwrap();
}

#[tokio::test]
async fn one_file_is_made_where_it_was_made_before_and_nothing_is_overwritten() {
    let world = world().await;
    let cluster = Cluster::builder(Etcd::V3_5).security(Security::Tls).members(3).start();
    let revision = cluster.write_sample();
    let read = |path| std::fs::read_to_string(path).unwrap();
    let (cert, key) = cluster.certificates().client();
    let (ca, cert, key) = (read(cluster.certificates().ca()), read(cert), read(key));
    let keys =
        [("etcd-client-ca.crt", &*ca), ("etcd-client.crt", &*cert), ("etcd-client.key", &*key)];
    world.secret("etcd-client-tls", keys).await;
    let running = operator(&world);

    let tls = json!({ "clientTLSSecret": "etcd-client-tls" });
    let once = spec(&world, &cluster.endpoints(), "backups/prod/etcd.backup", tls);
    world.make::<CoreosBackup>("one", once.clone()).await;
    let status = made(&world, "one").await;
    assert_eq!((status.etcd_revision, status.reason.as_str()), (Some(revision), ""));
    assert!(status.etcd_version.unwrap().starts_with("3.5."));
    assert!(status.last_success_date.is_some() && status.writing.is_none());
    assert_eq!(status.path.as_deref(), Some("backups/prod/etcd.backup"));
    let told = world.events_until("one", "BackupSucceeded").await;
    assert_eq!(told.iter().filter(|told| *told == "BackupSucceeded").count(), 1, "{told:?}");

    // A plain snapshot, with nothing beside it but what the store was tried with.
    let file = world.folder().join("etcd.backup");
    let bytes = world.s3.get("prod/etcd.backup");
    assert_eq!(status.size_bytes, Some(bytes.len() as u64));
    std::fs::write(&file, &bytes).unwrap();
    let lifeboat = Tool::new(env!("CARGO_BIN_EXE_lifeboat"));
    let found = lifeboat.run(["snapshot", "status", "-w", "json", file.to_str().unwrap()]).ok();
    assert_eq!(found.json()["revision"], revision);
    assert_eq!(world.s3.list("prod/"), ["prod/.lifeboat-probe", "prod/etcd.backup"]);

    cluster.put("more", "data");
    let said = refused(&world, "again", once.clone()).await;
    assert!(said.starts_with("spec.s3.path: there is an object at backups/prod/etcd.backup; "));
    assert_eq!(world.s3.get("prod/etcd.backup"), bytes);

    // A spec that is corrected is another order.
    let patch = json!({ "spec": { "s3": { "path": "backups/prod/second.backup" } } });
    let all = world.all::<CoreosBackup>();
    all.patch("again", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(made(&world, "again").await.etcd_revision, Some(revision + 1));
    assert!(running.stop().await.success());

    // An operator that was killed after the file was whole, and one that has begun where another's file is.
    world.s3.put("cut/etcd.backup", &bytes);
    world.s3.put("cut/other", b"no snapshot");
    for (name, path) in [("cut", "backups/cut/etcd.backup"), ("junk", "backups/cut/other")] {
        let mut spec = once.clone();
        spec["s3"]["path"] = json!(path);
        world.make::<CoreosBackup>(name, spec).await;
        let begun = json!({ "succeeded": false, "writing": path, "attempts": 1 });
        set_status(&world, name, begun).await;
    }
    let _next = operator(&world);
    let status = made(&world, "cut").await;
    assert_eq!((status.etcd_revision, status.writing), (Some(revision), None));
    assert_eq!(world.s3.get("cut/etcd.backup"), bytes);
    let junk = until(&world, "junk", "refused", |status| !status.reason.is_empty()).await;
    assert!(junk.reason.contains("there is an object at backups/cut/other"), "{}", junk.reason);

    let told = world.told().await
        + &serde_json::to_string(&all.list(&kube::api::ListParams::default()).await.unwrap().items)
            .unwrap();
    for secret in [Identity::Admin.secret(), line_of(&key)] {
        assert!(!told.contains(secret), "a secret was told");
    }
}

#[tokio::test]
async fn in_an_interval_files_are_made_and_the_oldest_go_those_of_the_other_operator_first() {
    let world = world().await;
    let cluster = plain(Etcd::V3_4);
    cluster.put("a", "b");
    for file in ["etcd.db_v9_2019-05-01-00:00:00", "etcd.db_v10_2019-05-01-00:01:00", "etcd.db"] {
        // As the signature has it.
        let key = format!("every/{file}").replace(':', "%3A");
        world.s3.put(&key, b"of another");
    }
    let _operator = operator(&world);
    let policy = json!({ "backupPolicy": { "backupIntervalInSecond": 1, "maxBackups": 2 } });
    let every = spec(&world, &cluster.endpoints(), "backups/every/etcd.db", policy);
    world.make::<CoreosBackup>("every", every).await;
    let first = made(&world, "every").await;
    let path = first.path.unwrap();
    let revision = cluster.revision();
    assert!(path.starts_with(&format!("backups/every/etcd.db_v{revision}_")), "{path}");

    cluster.put("a", "c");
    let newer = until(&world, "every", "made again, and the oldest are gone", |status| {
        let pruned = conditions::get(&status.conditions, "Pruned");
        status.etcd_revision == Some(revision + 1)
            && pruned.is_some_and(|pruned| pruned.status == "True")
    });
    newer.await;
    // Nothing more is made while we look.
    let patch = json!({ "spec": { "backupPolicy": { "backupIntervalInSecond": 86400 } } });
    let all = world.all::<CoreosBackup>();
    let patched = all.patch("every", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let generation = patched.metadata.generation;
    let kept = world.s3.list("every/");
    let theirs = kept.iter().filter(|path| path.contains("_2019-"));
    assert_eq!(theirs.count(), 0, "{kept:?}");
    assert!(kept.contains(&"every/etcd.db".to_owned()), "{kept:?}");
    assert!(kept.iter().filter(|path| path.contains("etcd.db_v")).count() <= 3, "{kept:?}");

    // A change that is wrong is told, and one that mends it is followed.
    let broken =
        json!({ "spec": { "backupPolicy": { "backupIntervalInSecond": 1, "maxBackups": -1 } } });
    all.patch("every", &PatchParams::default(), &Patch::Merge(&broken)).await.unwrap();
    let wrong = "spec.backupPolicy.maxBackups is -1; write 0 or more";
    let told = until(&world, "every", "refused", |status| status.reason == wrong).await;
    assert!(!told.succeeded && told.observed_generation > generation);
    let mended = json!({ "spec": { "backupPolicy": { "maxBackups": 1 } } });
    all.patch("every", &PatchParams::default(), &Patch::Merge(&mended)).await.unwrap();
    let again = made(&world, "every").await;
    assert_eq!(again.reason, "");
    world.remove::<CoreosBackup>("every").await;
    assert!(world.s3.list("every/").iter().any(|path| path.contains("etcd.db_v")), "files stay");
}

#[tokio::test]
async fn what_is_wrong_with_an_object_is_named_with_its_field_and_what_to_do() {
    let world = world().await;
    let cluster = plain(Etcd::V3_4);
    cluster.put("a", "b");
    let _operator = operator(&world);
    let endpoints = cluster.endpoints();
    let with = |more: Value| spec(&world, &endpoints, "backups/wrong/etcd.db", more);

    let said = refused(&world, "unknown", with(json!({ "storageType": "Swift" }))).await;
    assert_eq!(
        said,
        "spec.storageType is \"Swift\"; write S3, ABS, GCS or OSS, and the field of that name"
    );
    let said = refused(&world, "missing", with(json!({ "storageType": "ABS" }))).await;
    assert!(said.starts_with("spec.storageType is ABS, and spec.abs is missing; "), "{said}");
    let said = refused(&world, "nowhere", with(json!({ "etcdEndpoints": [] }))).await;
    assert!(said.starts_with("spec.etcdEndpoints is empty; "), "{said}");
    let said = refused(&world, "bucket", with(json!({ "s3": { "path": "backups" } }))).await;
    assert!(said.starts_with("spec.s3.path is \"backups\"; write it as BUCKET/FILE"), "{said}");
    assert_eq!(world.events_until("unknown", "Refused").await, ["Refused"]);

    // What a Secret may mend is tried again first, with the reason in the condition.
    world.secret("google", [("access-token", "token-of-google")]).await;
    let google = json!({ "storageType": "GCS", "gcs": { "path": "b/f", "gcpSecret": "google" } });
    world.make::<CoreosBackup>("google", with(google)).await;
    let azure = json!({ "storageType": "ABS", "abs": { "path": "b/f", "absSecret": "azure" } });
    world
        .secret("azure", [("storage-account", "a"), ("storage-key", "b"), ("cloud", "Moon")])
        .await;
    world.make::<CoreosBackup>("azure", with(azure)).await;
    let region = json!({ "s3": { "path": "b/f", "awsSecret": "plain" } });
    let keys = "[default]\naws_access_key_id = a\naws_secret_access_key = b\n";
    world.secret("plain", [("credentials", keys)]).await;
    world.make::<CoreosBackup>("region", with(region)).await;
    world.make::<CoreosBackup>("tls", with(json!({ "clientTLSSecret": "lost" }))).await;
    for (name, expected) in [
        ("google", ["spec.gcs.gcpSecret: ", "`credentials.json`"]),
        ("azure", ["spec.abs.absSecret: ", "AzurePublicCloud"]),
        ("region", ["the region of the bucket in spec.s3.path", "spec.s3.awsSecret"]),
        ("tls", ["spec.clientTLSSecret: there is no Secret \"lost\"", "create it"]),
    ] {
        let is_told = |status: &CoreosBackupStatus| {
            let why = conditions::get(&status.conditions, "Succeeded");
            why.is_some_and(|why| expected.iter().all(|part| why.message.contains(part)))
        };
        let status = until(&world, name, &format!("told {expected:?}"), is_told).await;
        assert_eq!(status.reason.is_empty(), status.retry_at.is_some(), "it is over, or is not");
    }
    world.secret("lost", [("etcd-client-ca.crt", "no certificate")]).await;
    let said = until(&world, "tls", "over", |status| !status.reason.is_empty()).await.reason;
    assert!(said.starts_with("spec.clientTLSSecret: "), "{said}");
    assert!(!world.logs().contains("token-of-google"));
}

/// Objects as that operator had them, without any schema.
fn theirs(world: &World) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("etcd.database.coreos.com", "v1beta2", "EtcdBackup");
    Api::namespaced_with(world.client.clone(), &world.namespace, &ApiResource::from_gvk(&gvk))
}

/// The definition that it made: without schema and without a status of its own.
async fn install_theirs(world: &World) {
    let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1beta1", "CustomResourceDefinition");
    let old: Api<DynamicObject> = Api::all_with(world.client.clone(), &ApiResource::from_gvk(&gvk));
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "CustomResourceDefinition",
        "metadata": { "name": crds::coreos_name() },
        "spec": {
            "group": "etcd.database.coreos.com", "version": "v1beta2", "scope": "Namespaced",
            "names": { "plural": "etcdbackups", "kind": "EtcdBackup" },
        },
    });
    let definition = serde_json::from_value(definition).unwrap();
    old.create(&PostParams::default(), &definition).await.unwrap();
    world.until_served(crds::coreos_name()).await;
}

#[tokio::test]
async fn objects_of_the_coreos_operator_are_taken_over_as_it_left_them() {
    let world = World::ready_alone().await;
    aws_secret(&world).await;
    let cluster = plain(Etcd::V3_4);
    cluster.put("a", "b");
    let mut without = operator(&world);
    assert!(!without.end().await.success());
    let log = without.log();
    assert!(log.contains("etcdbackups.etcd.database.coreos.com"), "{log}");
    assert!(log.contains("lifeboat crds --coreos-compat | kubectl apply"), "{log}");

    install_theirs(&world).await;
    let policy =
        json!({ "backupPolicy": { "backupIntervalInSecond": 3600 }, "clusterName": "old" });
    let every = spec(&world, &cluster.endpoints(), "backups/old/etcd.db", policy);
    let once = spec(&world, &cluster.endpoints(), "backups/old/once.db", json!({}));
    for (name, spec, finalizers, status) in [
        (
            "every",
            every,
            json!(["backup-operator-periodic"]),
            json!({ "succeeded": false, "Reason": "no route to host", "lastSuccessDate": null }),
        ),
        (
            "once",
            once,
            json!([]),
            json!({ "succeeded": true, "etcdRevision": 7, "lastSuccessDate": "2019-05-01T00:00:00Z" }),
        ),
    ] {
        let object = json!({
            "apiVersion": "etcd.database.coreos.com/v1beta2", "kind": "EtcdBackup",
            "metadata": { "name": name, "finalizers": finalizers }, "spec": spec, "status": status,
        });
        let object = serde_json::from_value(object).unwrap();
        theirs(&world).create(&PostParams::default(), &object).await.unwrap();
    }
    for (is_allowed, expected) in [
        (false, ["cannot list resource", "coreosCompat: true"]),
        (true, ["has no annotation lifeboat.dev/schema", "crds"]),
    ] {
        if is_allowed {
            install_rights(&world);
            until_may_write(&world).await;
        }
        let mut with_theirs = operator(&world);
        assert!(!with_theirs.end().await.success());
        let log = with_theirs.log();
        assert!(expected.iter().all(|part| log.contains(part)), "{log}");
    }

    install(&world);
    // It was established before; now it is served with a status of its own.
    let look = async || theirs(&world).get_status("every").await.map_err(|error| error.to_string());
    world.patiently("the status is served by itself", look).await;
    let _operator = operator(&world);
    let every = made(&world, "every").await;
    assert_eq!((every.reason.as_str(), every.etcd_revision), ("", Some(cluster.revision())));
    assert!(every.last_success_date.is_some());
    // Followed by now, and left as it was.
    let once = world.all::<CoreosBackup>().get("once").await.unwrap().status.unwrap();
    assert_eq!((once.etcd_revision, once.observed_generation), (Some(7), None));
    assert!(world.s3.list("old/once").is_empty());
    // Nobody else takes the finalizer away any more.
    world.remove::<CoreosBackup>("every").await;
}
