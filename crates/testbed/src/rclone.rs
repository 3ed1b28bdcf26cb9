//! `rclone serve s3`, a second implementation of S3: objects are files in a folder.
//!
//! It knows one identity, no conditional puts and no object lock, which is what makes it a good test.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::etcd::from_environment;
use crate::ports::Port;
use crate::s3_client::{Answer, Endpoint, Identity, text};
use crate::server::Server;

/// The bucket that is always there.
const BUCKET: &str = "backups";

/// A running `rclone serve s3` with the bucket `backups`.
#[derive(Debug)]
pub struct Rclone {
    _server: Server,
    endpoint: Endpoint,
    _port: Port,
    folder: TempDir,
}

impl Rclone {
    /// Starts it over an empty folder.
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let store = folder.path().join("store");
        std::fs::create_dir_all(store.join(BUCKET)).expect("our folder is writable");
        let port = Port::take();
        let address = format!("127.0.0.1:{}", port.number);
        let endpoint = Endpoint { url: format!("http://{address}"), ca: None };
        let mut command = Command::new(from_environment("LIFEBOAT_RCLONE"));
        command
            .args(["serve", "s3", text(&store), "--addr", &address, "--log-level", "INFO"])
            // Files that a test changes are seen at once.
            .args(["--dir-cache-time", "1s", "--vfs-cache-mode", "off"])
            .arg("--cache-dir")
            .arg(folder.path().join("cache"))
            // No file of the machine's user is read or written.
            .args(["--config", "/dev/null", "--auth-key"])
            .arg(format!("{},{}", Identity::Admin.access_key(), Identity::Admin.secret()));
        let server = Server::start("rclone", &mut command, &folder.path().join("log"), || {
            endpoint.request(Identity::Admin, "GET", "", &[], None).status == 200
        });
        Self { _server: server, endpoint, _port: port, folder }
    }

    /// `s3://backups/PREFIX?endpoint=…&region=…`
    pub fn url(&self, prefix: &str) -> String {
        self.endpoint.store_url(BUCKET, prefix)
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> &str {
        &self.endpoint.url
    }

    /// The variables that give a tool this identity; the server knows only [`Identity::Admin`].
    pub fn env(&self, identity: Identity) -> Vec<(&'static str, String)> {
        identity.env()
    }

    /// The folder whose files are the objects of the bucket.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join("store").join(BUCKET)
    }

    /// A folder that lives as long as the server, for a test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
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

    /// Keys in the bucket, in order.
    #[track_caller]
    pub fn list(&self, prefix: &str) -> Vec<String> {
        self.endpoint.list(BUCKET, prefix)
    }
}
