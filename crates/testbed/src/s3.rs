//! SeaweedFS, a real S3 server: conditional puts, identities with fewer rights, object lock, TLS.
//!
//! One process holds all its parts; everything is on 127.0.0.1 and in one temporary folder, and ends
//! with the value.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::command::Run;
use crate::etcd::from_environment;
use crate::ports::Port;
use crate::s3_client::{Answer, Endpoint, Identity, text};
use crate::server::Server;
use crate::tls::Certificates;

/// The bucket that is always there.
const BUCKET: &str = "backups";

/// A running SeaweedFS with the bucket `backups`.
#[derive(Debug)]
pub struct S3 {
    // Dropped in this order: a server that is gone writes no more into the folder.
    server: Option<Server>,
    endpoint: Endpoint,
    certificates: Option<Certificates>,
    ports: Ports,
    folder: TempDir,
}

/// A port for each of the server's parts.
#[derive(Debug)]
struct Ports {
    master: Port,
    master_grpc: Port,
    volume: Port,
    volume_grpc: Port,
    filer: Port,
    filer_grpc: Port,
    s3: Port,
    s3_grpc: Port,
}

impl Ports {
    fn take() -> Self {
        Self {
            master: Port::take(),
            master_grpc: Port::take(),
            volume: Port::take(),
            volume_grpc: Port::take(),
            filer: Port::take(),
            filer_grpc: Port::take(),
            s3: Port::take(),
            s3_grpc: Port::take(),
        }
    }

    fn flags(&self) -> Vec<String> {
        [
            ("master.port", &self.master),
            ("master.port.grpc", &self.master_grpc),
            ("volume.port", &self.volume),
            ("volume.port.grpc", &self.volume_grpc),
            ("filer.port", &self.filer),
            ("filer.port.grpc", &self.filer_grpc),
            ("s3.port", &self.s3),
            ("s3.port.grpc", &self.s3_grpc),
        ]
        .map(|(name, port)| format!("-{name}={}", port.number))
        .to_vec()
    }
}

impl S3 {
    /// A server without TLS.
    #[track_caller]
    pub fn start() -> Self {
        Self::lay_out(false).started()
    }

    /// A server with a certificate of [its own CA](Self::certificates).
    #[track_caller]
    pub fn start_with_tls() -> Self {
        Self::lay_out(true).started()
    }

    fn lay_out(tls: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::create_dir(folder.path().join("data")).expect("our folder is writable");
        std::fs::write(folder.path().join("identities.json"), identities().to_string())
            .expect("our folder is writable");
        let certificates = tls.then(|| Certificates::make_in(&folder.path().join("tls")));
        let ports = Ports::take();
        let scheme = if tls { "https" } else { "http" };
        let endpoint = Endpoint {
            url: format!("{scheme}://127.0.0.1:{}", ports.s3.number),
            ca: certificates.as_ref().map(Certificates::ca),
        };
        Self { server: None, endpoint, certificates, ports, folder }
    }

    #[track_caller]
    fn started(mut self) -> Self {
        self.resume();
        self.make_bucket(BUCKET);
        self
    }

    /// Whether it serves, and keeps what it is given: its volumes come a moment after its port.
    fn is_ready(&self) -> bool {
        let put = |path: &str, body| {
            self.endpoint.request(Identity::Admin, "PUT", path, &[], body).status
        };
        // The second time, the bucket is there.
        self.endpoint.answers("healthz")
            && [200, 409].contains(&put("ready", None))
            && put("ready/object", Some(b"ready".as_slice())) == 200
    }

    /// Ends the server as a power cut would; what it holds stays for [`resume`](Self::resume).
    pub fn halt(&mut self) {
        assert!(self.server.take().is_some(), "only a running server can be halted");
    }

    /// Starts the server again, on the same ports and data.
    #[track_caller]
    pub fn resume(&mut self) {
        assert!(self.server.is_none(), "the server runs already");
        let folder = self.folder.path();
        let mut command = Command::new(from_environment("LIFEBOAT_WEED"));
        command.args(["-logtostderr=true", "server"]).args(self.ports.flags());
        // Its other sockets, named by their port, go to the folder for temporary files.
        command.args(self.settings()).env("TMPDIR", folder).current_dir(folder);
        let log = folder.join("log");
        self.server = Some(Server::start("SeaweedFS", &mut command, &log, || self.is_ready()));
    }

    fn settings(&self) -> Vec<String> {
        let folder = text(self.folder.path());
        let mut flags: Vec<String> = [
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            // There is one master, which waits this long for others before it leads.
            "-master.electionTimeout=300ms",
            "-master.heartbeatInterval=100ms",
            // Volumes grow as they are written to; many small ones let many tests have many buckets.
            "-master.volumeSizeLimitMB=64",
            "-volume.max=500",
            "-volume.minFreeSpace=0",
            "-volume.preStopSeconds=0",
            "-filer",
            "-s3",
            "-s3.iam=false",
            "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]
        .map(str::to_owned)
        .to_vec();
        flags.push(format!("-dir={folder}/data"));
        flags.push(format!("-s3.config={folder}/identities.json"));
        flags.push(format!("-filer.localSocket={folder}/filer.sock"));
        flags.push(format!("-s3.localSocket={folder}/s3.sock"));
        if let Some(certificates) = &self.certificates {
            let (cert, key) = certificates.server();
            flags.push(format!("-s3.cert.file={}", cert.display()));
            flags.push(format!("-s3.key.file={}", key.display()));
        }
        flags
    }
}

/// What a tool under test is told.
impl S3 {
    /// `s3://backups/PREFIX?endpoint=…&region=…`, with TLS also `&ca=FILE`.
    pub fn url(&self, prefix: &str) -> String {
        self.url_in(BUCKET, prefix)
    }

    /// The same in another bucket.
    pub fn url_in(&self, bucket: &str, prefix: &str) -> String {
        self.endpoint.store_url(bucket, prefix)
    }

    /// The same through another endpoint, as [`FaultProxy::url`](crate::FaultProxy::url) is one.
    pub fn url_through(&self, endpoint: &str, prefix: &str) -> String {
        let endpoint = Endpoint { url: endpoint.to_owned(), ..self.endpoint.clone() };
        endpoint.store_url(BUCKET, prefix)
    }

    /// `http://127.0.0.1:PORT` or `https://…`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint.url
    }

    /// The variables that give a tool this identity.
    pub fn env(&self, identity: Identity) -> Vec<(&'static str, String)> {
        identity.env()
    }

    /// The certificates of a server with TLS.
    #[track_caller]
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("this server was started without TLS")
    }

    /// A folder that lives as long as the server, for a test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that the server has written.
    pub fn log(&self) -> String {
        self.server.as_ref().map(Server::log).unwrap_or_default()
    }
}

/// What a test does to the store itself, as the administrator.
impl S3 {
    /// Makes a bucket; names have three characters at least.
    #[track_caller]
    pub fn make_bucket(&self, bucket: &str) {
        self.request(Identity::Admin, "PUT", bucket, &[], None).ok();
    }

    /// Makes a bucket whose objects can be locked. Nothing is locked by itself: see
    /// [`retain_by_default`](Self::retain_by_default).
    #[track_caller]
    pub fn make_locking_bucket(&self, bucket: &str) {
        let header = "x-amz-bucket-object-lock-enabled: true";
        self.request(Identity::Admin, "PUT", bucket, &[header], None).ok();
    }

    /// New objects in a locking bucket can be deleted by nobody for so many days.
    #[track_caller]
    pub fn retain_by_default(&self, bucket: &str, days: u32) {
        let rule = format!(
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>\
             <DefaultRetention><Mode>COMPLIANCE</Mode><Days>{days}</Days></DefaultRetention>\
             </Rule></ObjectLockConfiguration>"
        );
        let path = format!("{bucket}?object-lock=");
        self.request(Identity::Admin, "PUT", &path, &[], Some(rule.as_bytes())).ok();
    }

    /// Writes an object of [the usual bucket](Self::url), over one that may be there.
    #[track_caller]
    pub fn put(&self, key: &str, content: &[u8]) {
        let path = format!("{BUCKET}/{key}");
        self.request(Identity::Admin, "PUT", &path, &[], Some(content)).ok();
    }

    /// Reads an object of the usual bucket.
    #[track_caller]
    pub fn get(&self, key: &str) -> Vec<u8> {
        self.request(Identity::Admin, "GET", &format!("{BUCKET}/{key}"), &[], None).ok().body
    }

    /// Deletes an object of the usual bucket.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.request(Identity::Admin, "DELETE", &format!("{BUCKET}/{key}"), &[], None).ok();
    }

    /// Keys in the usual bucket, in order.
    #[track_caller]
    pub fn list(&self, prefix: &str) -> Vec<String> {
        self.list_in(BUCKET, prefix)
    }

    /// Keys in another bucket, in order.
    #[track_caller]
    pub fn list_in(&self, bucket: &str, prefix: &str) -> Vec<String> {
        self.endpoint.list(bucket, prefix)
    }

    /// Uploads that were begun in the usual bucket and neither completed nor aborted.
    #[track_caller]
    pub fn unfinished_uploads(&self) -> Vec<String> {
        let path = format!("{BUCKET}?uploads=");
        let answer = self.request(Identity::Admin, "GET", &path, &[], None).ok();
        let page = String::from_utf8_lossy(&answer.body).into_owned();
        let found = page.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        found.map(|(key, _)| key.to_owned()).collect()
    }

    /// Sends a signed request. `path` begins with the bucket and may have a query.
    #[track_caller]
    pub fn request(
        &self,
        identity: Identity,
        method: &str,
        path: &str,
        headers: &[&str],
        body: Option<&[u8]>,
    ) -> Answer {
        self.endpoint.request(identity, method, path, headers, body)
    }

    /// Copies the files of a folder into a bucket, thousands in seconds.
    #[track_caller]
    pub fn copy_in(&self, bucket: &str, folder: &Path) {
        let mut rclone = Command::new(from_environment("LIFEBOAT_RCLONE"));
        rclone
            .args(["copy", "--config", "/dev/null", "--no-traverse", "--transfers", "16"])
            .args(["--s3-provider", "SeaweedFS", "--s3-env-auth", "--s3-no-check-bucket"])
            .args(["--s3-endpoint", self.endpoint(), text(folder), &format!(":s3:{bucket}")])
            .envs(Identity::Admin.env());
        if let Some(certificates) = &self.certificates {
            rclone.arg("--ca-cert").arg(certificates.ca());
        }
        Run::of(&mut rclone).ok();
    }

    /// Runs one command of SeaweedFS's own shell.
    #[track_caller]
    pub fn shell(&self, line: &str) -> Run {
        let ports = &self.ports;
        let mut weed = Command::new(from_environment("LIFEBOAT_WEED"));
        weed.arg("shell")
            .arg(format!("-master=127.0.0.1:{}.{}", ports.master.number, ports.master_grpc.number))
            .arg(format!("-filer=127.0.0.1:{}.{}", ports.filer.number, ports.filer_grpc.number));
        let script = self.folder.path().join("shell");
        std::fs::write(&script, format!("{line}\nexit\n")).expect("our folder is writable");
        weed.stdin(std::fs::File::open(&script).expect("it was just written"));
        Run::of(&mut weed).ok()
    }
}

/// What the server lets whom do. Those it does not know are not in it.
fn identities() -> serde_json::Value {
    let entry = |name: &str, identity: Identity, actions: &[&str]| {
        serde_json::json!({
            "name": name,
            "credentials": [{
                "accessKey": identity.access_key(),
                "secretKey": identity.secret(),
            }],
            "actions": actions,
        })
    };
    serde_json::json!({"identities": [
        entry("admin", Identity::Admin, &["Admin", "Read", "Write", "List", "Tagging"]),
        entry("reader", Identity::ReadOnly, &["Read", "List"]),
        entry("nobody", Identity::NoAccess, &[]),
    ]})
}
