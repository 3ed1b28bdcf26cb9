//! A Kubernetes without nodes, with our kinds, and operators in it.

use crate::waiting::{Kind, patiently};
use k8s_openapi::api::core::v1::{Event, Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use operator::{
    api::{BackupStore, EtcdBackup},
    conditions,
    crds::{self, Rules},
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use testbed::{Cluster, Etcd, Fault, FaultProxy, Identity, KubeApi, S3, Security, Tool};

/// What is installed in a cluster.
pub(crate) const DEPLOY: &str = "../../deploy/operator";

/// The API server, a client of it, a store, and a folder.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) s3: S3,
    /// Where objects are made and looked for.
    pub(crate) namespace: String,
    pub(crate) kube: KubeApi,
    folder: tempfile::TempDir,
}

impl World {
    /// One with nothing in it, which is nobody else's.
    pub(crate) async fn new() -> Self {
        Self::of(KubeApi::start(), "default").await
    }

    async fn of(kube: KubeApi, namespace: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(kube.kubeconfig()).unwrap();
        let text = text.replace("context: {", &format!("context: {{namespace: {namespace}, "));
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, text).unwrap();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        let client = Client::try_from(config).unwrap();
        Self { client, s3: S3::start(), namespace: namespace.to_owned(), kube, folder }
    }

    /// One with our kinds, and the Secret `s3` with the store's credentials. Other tests may be in other namespaces.
    pub(crate) async fn ready() -> Self {
        let kube = KubeApi::shared_or_start();
        let Some(shared) = kube.shared().map(Path::to_owned) else {
            return Self::of(kube, "default").await.make_ready().await;
        };
        // A process may have the number of one that has ended.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let world = Self::of(kube, &format!("test-{}-{now:x}", std::process::id())).await;
        world.make_namespace(&world.namespace).await;
        // Whoever comes first does it for all.
        let installed =
            File::options().create(true).append(true).open(shared.join("installed")).unwrap();
        installed.lock().unwrap();
        if installed.metadata().unwrap().len() == 0 {
            world.install_kinds().await;
            world.install_rights();
            (&installed).write_all(b"kinds, rights\n").unwrap();
        }
        drop(installed);
        world.until_allowed().await;
        world.store_secret().await;
        world
    }

    /// The same, and no other test is there.
    pub(crate) async fn ready_alone() -> Self {
        Self::new().await.make_ready().await
    }

    async fn make_ready(self) -> Self {
        self.install_kinds().await;
        self.install_rights();
        self.until_allowed().await;
        self.store_secret().await;
        self
    }

    async fn store_secret(&self) {
        let identity = Identity::Admin;
        let keys =
            [("access-key-id", identity.access_key()), ("secret-access-key", identity.secret())];
        self.secret("s3", keys).await;
    }

    pub(crate) async fn make_namespace(&self, name: &str) {
        let namespace = json!({ "metadata": { "name": name } });
        let namespace: Namespace = serde_json::from_value(namespace).unwrap();
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    }

    /// What `deploy/operator` allows: operators here act as its ServiceAccount, and so prove that it is enough.
    fn install_rights(&self) {
        // Definitions were applied before, by another name.
        let file = format!("{DEPLOY}/lifeboat-operator.yaml");
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file]);
    }

    /// Runs `kubectl` as who may do all.
    pub(crate) fn kubectl(&self, words: &[&str]) -> String {
        let kubectl = std::env::var_os("LIFEBOAT_KUBECTL").expect("tools/install.sh test says it");
        let mut command = Command::new(kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(words);
        let run = command.output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap()
    }

    pub(crate) async fn install_kinds(&self) {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let printed = Tool::new(env!("CARGO_BIN_EXE_lifeboat")).run(["crds"]).ok().stdout;
        let definitions: Vec<Value> = serde_saphyr::from_multiple(&printed).unwrap();
        assert_eq!(definitions, crds::definitions(Rules::Structural));
        for definition in definitions {
            let name = definition["metadata"]["name"].as_str().unwrap();
            let params = PatchParams::apply("test").force();
            api.patch(name, &params, &Patch::Apply(&definition)).await.unwrap();
            self.until_served(name).await;
        }
    }

    pub(crate) fn all<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn secret<const N: usize>(&self, name: &str, data: [(&str, &str); N]) {
        let data: serde_json::Map<_, _> =
            data.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
        let secret = json!({ "metadata": { "name": name }, "stringData": data });
        let secret: Secret = serde_json::from_value(secret).unwrap();
        self.all().create(&PostParams::default(), &secret).await.unwrap();
    }

    /// Makes an object.
    pub(crate) async fn make<K: Kind + Serialize>(&self, name: &str, spec: Value) -> K {
        let object = json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": { "name": name }, "spec": spec,
        });
        let object: K = serde_json::from_value(object).unwrap();
        self.all().create(&PostParams::default(), &object).await.unwrap()
    }

    /// A BackupStore in SeaweedFS, with more in its spec.
    pub(crate) async fn store(&self, name: &str, prefix: &str, more: Value) -> BackupStore {
        let url = self.s3.url(prefix);
        let (url, _) = url.split_once('?').unwrap();
        let mut spec = json!({
            "url": url,
            "options": { "endpoint": self.s3.endpoint(), "region": "us-east-1" },
            "credentials": { "secretName": "s3" },
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.make(name, spec).await
    }

    /// A BackupStore where no snapshot gets through, until that is over.
    pub(crate) async fn stalled_store(
        &self,
        name: &str,
        prefix: &str,
    ) -> (FaultProxy, Arc<AtomicBool>) {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let proxy = FaultProxy::before(self.s3.endpoint(), move |request| {
            let is_snapshot = request.is("PUT", "/db.zst") || request.is("POST", "/db.zst");
            match is_snapshot && !is_over.load(Ordering::Acquire) {
                true => Fault::Stall,
                false => Fault::Pass,
            }
        });
        let options = json!({ "endpoint": proxy.url(), "region": "us-east-1" });
        self.store(name, prefix, json!({ "options": options })).await;
        (proxy, over)
    }

    /// Removes an object, and waits until it is gone.
    pub(crate) async fn remove<K: Kind>(&self, name: &str) {
        self.all::<K>().delete(name, &DeleteParams::default()).await.unwrap();
        self.until_gone::<K>(name).await;
    }

    /// The manifests below a prefix of the bucket.
    pub(crate) fn manifests(&self, prefix: &str) -> Vec<String> {
        let all = self.s3.list(&format!("{prefix}/"));
        all.into_iter().filter(|path| path.ends_with("/manifest.json")).collect()
    }

    /// Starts an operator, which logs to a file of that name. It needs no Lease: one that loses its Lease as the machine is busy
    /// ends, and nobody here starts it again.
    pub(crate) fn operator(&self, name: &str) -> Operator {
        self.operator_with(name, &[])
    }

    /// The same with more flags.
    pub(crate) fn operator_with(&self, name: &str, flags: &[&str]) -> Operator {
        self.operator_of(name, &[&["--namespace", &self.namespace], flags].concat())
    }

    /// One that works when it has the Lease, and has the right to it.
    pub(crate) async fn elected_operator(&self, name: &str, flags: &[&str]) -> Operator {
        let is_shared = self.kube.shared().is_some();
        let home = if is_shared { &self.namespace } else { "lifeboat" };
        if is_shared {
            // Operators of other tests have theirs.
            let file = format!("{DEPLOY}/base/role-lease.yaml");
            self.kubectl(&["apply", "--server-side", "-f", &file]);
        }
        self.until_may("create", "coordination.k8s.io", "leases", home).await;
        let home = ["--namespace", &self.namespace, "--lease-namespace", home];
        let args = self.args(&[&home, flags].concat());
        self.spawn(name, Tool::new(env!("CARGO_BIN_EXE_lifeboat")).command(args))
    }

    /// One that watches what its flags say.
    pub(crate) fn operator_of(&self, name: &str, flags: &[&str]) -> Operator {
        let args = self.args(&[&["--no-leader-election"], flags].concat());
        self.spawn(name, Tool::new(env!("CARGO_BIN_EXE_lifeboat")).command(args))
    }

    /// One for which these hosts are on this machine, as names of pods and Services are known in a cluster.
    pub(crate) fn operator_that_knows(&self, hosts: &[String], flags: &[&str]) -> Operator {
        let file = self.folder.path().join("hosts");
        std::fs::write(&file, format!("127.0.0.1 localhost {}\n", hosts.join(" "))).unwrap();
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&file);
        command.arg(env!("CARGO_BIN_EXE_lifeboat"));
        let home = ["--no-leader-election", "--namespace", &self.namespace];
        command.args(self.args(&[&home, flags].concat()));
        self.spawn("a", command)
    }

    fn args(&self, flags: &[&str]) -> Vec<String> {
        let folder = self.folder.path().to_str().unwrap();
        let mut args = vec!["operator", "--spool", folder, "--file-stores", folder];
        if !flags.contains(&"--listen") {
            args.extend(["--listen", "none"]);
        }
        args.extend(flags);
        args.into_iter().map(str::to_owned).collect()
    }

    fn spawn(&self, name: &str, mut command: Command) -> Operator {
        let log = self.folder.path().join(format!("{name}.log"));
        command.env("KUBECONFIG", self.kube.kubeconfig_of_operator()).env("POD_NAME", name);
        let file = File::create(&log).unwrap();
        let child = command.stderr(file).stdout(Stdio::null()).spawn().unwrap();
        Operator { child, log }
    }

    /// The kubeconfig of who may do all, in the test's namespace.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A folder for the test's own files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that operators have said.
    pub(crate) fn logs(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap());
        let logs = files.filter(|entry| entry.path().extension().is_some_and(|e| e == "log"));
        logs.map(|entry| std::fs::read_to_string(entry.path()).unwrap()).collect()
    }

    /// All that anybody may read: objects, events, logs.
    pub(crate) async fn told(&self) -> String {
        let all = ListParams::default();
        let backups = self.all::<EtcdBackup>().list(&all).await.unwrap();
        let stores = self.all::<BackupStore>().list(&all).await.unwrap();
        let events = self.all::<Event>().list(&all).await.unwrap();
        let objects = serde_json::to_string(&(backups.items, stores.items, events.items)).unwrap();
        objects + &self.logs()
    }
}

/// A running operator. Killed when it is dropped.
pub(crate) struct Operator {
    child: Child,
    log: PathBuf,
}

impl Operator {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has said that.
    pub(crate) async fn says(&self, what: &str) {
        self.says_times(what, 1).await;
    }

    /// Waits until it has said that so often.
    pub(crate) async fn says_times(&self, what: &str, times: usize) {
        let look = async || match self.log().matches(what).count() {
            found if found >= times => Ok(()),
            found => Err(format!("{found} times")),
        };
        patiently(&format!("it says {what:?} {times} times"), || self.log(), look).await;
    }

    /// What it answers over HTTP, with the status.
    pub(crate) async fn answers(&self, path: &str) -> String {
        self.says("\"message\":\"listening\"").await;
        let log = self.log();
        let (_, rest) = log.split_once("\"address\":\"").unwrap();
        let (address, _) = rest.split_once('"').unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// SIGKILL: it can do nothing more.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, as Kubernetes does.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        let id = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.end().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let log = self.log.clone();
        let logs = || std::fs::read_to_string(&log).unwrap();
        let look = async || self.child.try_wait().unwrap().ok_or_else(String::new);
        patiently("it ends", logs, look).await
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A part of a private key that is told as it is, whatever becomes of its lines.
pub(crate) fn line_of(key: &str) -> &str {
    key.lines().nth(1).expect("a key has lines")
}

/// An etcd of one member, without TLS.
pub(crate) fn plain(version: Etcd) -> Cluster {
    Cluster::builder(version).members(1).security(Security::Plain).start()
}

/// What an EtcdBackup says of a plain cluster.
pub(crate) fn backup_of(endpoints: &str, store: &str, more: Value) -> Value {
    let endpoints: Vec<_> = endpoints.split(',').collect();
    let mut spec =
        json!({ "cluster": { "name": "prod", "endpoints": endpoints }, "storeName": store });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// The labels of an object that shows a backup of the store.
pub(crate) fn is_synced(backup: &EtcdBackup) -> bool {
    backup.labels().contains_key(operator::backup::SYNCED)
}

/// Whether a store can be used, as its status says.
pub(crate) fn is_ready(store: &BackupStore) -> bool {
    let status = store.status.clone().unwrap_or_default();
    conditions::get(&status.conditions, "Ready").is_some_and(|ready| ready.status == "True")
}
