//! Kubernetes' API server, with an etcd of its own and nothing else: objects are kept, checked and watched, but no pod runs.
//!
//! `tools/install.sh test` says where `kube-apiserver` and `etcd` lie (1.20.2, in `LIFEBOAT_KUBE_ASSETS`). `KUBEBUILDER_ASSETS`, a
//! folder as `setup-envtest` makes one, has another version, and goes before. A server that runs already is taken instead if
//! `LIFEBOAT_TEST_KUBECONFIG` names its kubeconfig: never the one that `KUBECONFIG` happens to name, as tests change what they find.
//!
//! To start one takes more computing than most tests do with it. So `testbed kube-api` runs one for many tests, each of which stays in a
//! namespace of its own; `LIFEBOAT_TEST_KUBE_API` is the folder that it prints.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use tempfile::TempDir;

use crate::etcd::from_environment;
use crate::ports::Port;
use crate::server::Server;

/// Who may do all.
const ADMIN_TOKEN: &str = "token-of-the-tests-admin";

/// Who may do what is bound to the operator's ServiceAccount.
const OPERATOR_TOKEN: &str = "token-of-the-operator";

/// Of an administrator, and of the operator's ServiceAccount.
const KUBECONFIGS: [&str; 2] = ["kubeconfig", "kubeconfig-of-operator"];

/// A running API server. It ends with this value.
#[derive(Debug)]
pub struct KubeApi {
    kubeconfig: PathBuf,
    of_operator: PathBuf,
    /// Of one that runs for many tests.
    shared: Option<PathBuf>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    // In this order: who asks etcd ends before it.
    api: Option<Server>,
    _etcd: Server,
    assets: PathBuf,
    ports: [Port; 3],
    folder: TempDir,
}

impl KubeApi {
    /// Starts it with nothing in it, or takes the one that the tests are told to use.
    #[track_caller]
    pub fn start() -> Self {
        if let Some(kubeconfig) = env::var_os("LIFEBOAT_TEST_KUBECONFIG") {
            let kubeconfig = PathBuf::from(kubeconfig);
            let of_operator = kubeconfig.clone();
            return Self { kubeconfig, of_operator, shared: None, running: None };
        }
        let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let assets = assets.unwrap_or_else(|| from_environment("LIFEBOAT_KUBE_ASSETS"));
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let ports = [Port::take(), Port::take(), Port::take()];
        let etcd = start_etcd(&assets, folder.path(), &ports[0], &ports[1]);
        let api = start_api(&assets, folder.path(), &ports[0], &ports[2]);
        let [kubeconfig, of_operator] = KUBECONFIGS.map(|file| folder.path().join(file));
        let running = Running { api: Some(api), _etcd: etcd, assets, ports, folder };
        Self { kubeconfig, of_operator, shared: None, running: Some(running) }
    }

    /// Takes the one that `testbed kube-api` runs for many tests, or starts one.
    #[track_caller]
    pub fn shared_or_start() -> Self {
        let Some(folder) = env::var_os("LIFEBOAT_TEST_KUBE_API") else { return Self::start() };
        let folder = PathBuf::from(folder);
        let [kubeconfig, of_operator] = KUBECONFIGS.map(|file| folder.join(file));
        Self { kubeconfig, of_operator, shared: Some(folder), running: None }
    }

    /// The folder that all have who use it, if it runs for many tests.
    pub fn shared(&self) -> Option<&Path> {
        self.shared.as_deref()
    }

    /// The folder of one that was started here.
    pub fn folder(&self) -> Option<&Path> {
        self.running.as_ref().map(|running| running.folder.path())
    }

    /// Ends the API server; its etcd runs on. Only for one that was started here.
    #[track_caller]
    pub fn halt(&mut self) {
        let running = self.running.as_mut().expect("it was started here");
        assert!(running.api.take().is_some(), "only a running server can be halted");
    }

    /// Starts it again, on the same port, with the same objects.
    #[track_caller]
    pub fn resume(&mut self) {
        let running = self.running.as_mut().expect("it was started here");
        assert!(running.api.is_none(), "the server runs already");
        let [etcd, _, port] = &running.ports;
        running.api = Some(start_api(&running.assets, running.folder.path(), etcd, port));
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The kubeconfig of the ServiceAccount `lifeboat-operator` in the namespace `lifeboat`, who may do what roles say, and
    /// nothing without. Of a server that ran already there is the administrator's alone.
    pub fn kubeconfig_of_operator(&self) -> &Path {
        &self.of_operator
    }
}

fn start_etcd(assets: &Path, folder: &Path, client: &Port, peer: &Port) -> Server {
    let url = |port: &Port| format!("http://127.0.0.1:{}", port.number);
    let mut command = Command::new(assets.join("etcd"));
    command
        .args(["--name", "kube", "--unsafe-no-fsync", "--data-dir"])
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
        .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
        .args(["--initial-cluster", &format!("kube={}", url(peer))]);
    let health = format!("{}/health", url(client));
    Server::start("etcd", &mut command, &folder.join("etcd.log"), || {
        said_by(&["--fail", &health]).contains("true")
    })
}

fn start_api(assets: &Path, folder: &Path, etcd: &Port, port: &Port) -> Server {
    let (tokens, key) = (folder.join("tokens.csv"), folder.join("accounts.key"));
    let users = format!(
        "{ADMIN_TOKEN},admin,admin,system:masters\n\
         {OPERATOR_TOKEN},system:serviceaccount:lifeboat:lifeboat-operator,operator,\"system:serviceaccounts\"\n"
    );
    fs::write(&tokens, users).expect("our own folder");
    if !key.exists() {
        let made = Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048").output();
        assert!(made.is_ok_and(|made| made.status.success()), "openssl makes a key");
    }
    let mut command = Command::new(assets.join("kube-apiserver"));
    command
        .args([
            &format!("--etcd-servers=http://127.0.0.1:{}", etcd.number),
            "--etcd-prefix=/registry",
        ])
        .args(["--bind-address=127.0.0.1", &format!("--secure-port={}", port.number), "--cert-dir"])
        .arg(folder) // where it makes its certificate
        .args(["--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24"])
        .args(["--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"])
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--token-auth-file"])
        .arg(&tokens)
        .arg("--service-account-key-file")
        .arg(&key)
        .arg("--service-account-signing-key-file")
        .arg(&key);
    let address = format!("https://127.0.0.1:{}", port.number);
    let ready = format!("{address}/readyz");
    let bearer = format!("Authorization: Bearer {ADMIN_TOKEN}");
    let server = Server::start("kube-apiserver", &mut command, &folder.join("api.log"), || {
        said_by(&["--insecure", "--header", &bearer, &ready]) == "ok"
    });
    for (file, token) in KUBECONFIGS.into_iter().zip([ADMIN_TOKEN, OPERATOR_TOKEN]) {
        let text = kubeconfig(&address, &folder.join("apiserver.crt"), token);
        fs::write(folder.join(file), text).expect("our own folder");
    }
    server
}

fn kubeconfig(address: &str, ca: &Path, token: &str) -> String {
    let ca = ca.display();
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters: [{{name: test, cluster: {{server: \"{address}\", certificate-authority: \"{ca}\"}}}}]\n\
         users: [{{name: test, user: {{token: {token}}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n\
         current-context: test\n"
    )
}

fn said_by(arguments: &[&str]) -> String {
    let run = Command::new("curl").args(["--silent", "--max-time", "5"]).args(arguments).output();
    let run = run.expect("curl is installed (tools/install.sh test)");
    String::from_utf8_lossy(&run.stdout).into_owned()
}
