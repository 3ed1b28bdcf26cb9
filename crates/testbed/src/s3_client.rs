//! Requests to an S3 server by `curl`, which signs them: a second opinion on what a store holds, and the
//! hand that makes buckets and damages objects behind the tool's back.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::Run;

/// The region that all servers of the testbed say they are in.
pub(crate) const REGION: &str = "us-east-1";

/// Who asks an S3 server for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// May do everything.
    Admin,
    /// May list and read.
    ReadOnly,
    /// The server knows it and lets it do nothing.
    NoAccess,
    /// The server does not know its access key.
    Unknown,
    /// The key of [`Admin`](Self::Admin) with another secret.
    WrongSecret,
}

impl Identity {
    /// What stands in `AWS_ACCESS_KEY_ID`.
    pub fn access_key(self) -> &'static str {
        match self {
            Self::Admin | Self::WrongSecret => "ADMINACCESSKEY000001",
            Self::ReadOnly => "READERACCESSKEY00001",
            Self::NoAccess => "NOBODYACCESSKEY00001",
            Self::Unknown => "UNKNOWNACCESSKEY0001",
        }
    }

    /// What stands in `AWS_SECRET_ACCESS_KEY`; a word that a test can look for where it must not be.
    pub fn secret(self) -> &'static str {
        match self {
            Self::Admin => "admin-secret-7f2c81d0a9",
            Self::ReadOnly => "reader-secret-3b9e44c17d",
            Self::NoAccess => "nobody-secret-a06d5e92f8",
            Self::Unknown => "unknown-secret-5c1f73be20",
            Self::WrongSecret => "wrong-secret-e84b0d6a31",
        }
    }

    /// The variables that give a tool this identity, and no other that the machine may have.
    pub fn env(self) -> Vec<(&'static str, String)> {
        [
            ("AWS_ACCESS_KEY_ID", self.access_key()),
            ("AWS_SECRET_ACCESS_KEY", self.secret()),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec()
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status code, 0 if there was no answer.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Panics with the answer unless it is a success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(
            (200..300).contains(&self.status),
            "the server answered {}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self
    }
}

/// Sends one signed request to the server at `endpoint`, which may be a proxy before it.
#[track_caller]
pub fn signed_request(
    endpoint: &str,
    identity: Identity,
    method: &str,
    path: &str,
    body: Option<&[u8]>,
) -> Answer {
    let endpoint = Endpoint { url: endpoint.to_owned(), ca: None };
    endpoint.request(identity, method, path, &[], body)
}

/// Where a server is, and what a client must know to reach it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) ca: Option<PathBuf>,
}

impl Endpoint {
    /// The store URL of `prefix` in `bucket`, as the tool takes it.
    pub(crate) fn store_url(&self, bucket: &str, prefix: &str) -> String {
        let mut url = format!("s3://{bucket}/{prefix}?endpoint={}&region={REGION}", self.url);
        if let Some(ca) = &self.ca {
            url.push_str(&format!("&ca={}", ca.display()));
        }
        url
    }

    /// Whether something answers there, whatever it says.
    pub(crate) fn answers(&self, path: &str) -> bool {
        let mut curl = self.curl(path);
        let run = curl.arg("--fail").output().expect("curl is installed (tools/install.sh test)");
        run.status.success()
    }

    /// Sends one signed request. `path` begins with the bucket and may have a query.
    #[track_caller]
    pub(crate) fn request(
        &self,
        identity: Identity,
        method: &str,
        path: &str,
        headers: &[&str],
        body: Option<&[u8]>,
    ) -> Answer {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (sent, received) = (folder.path().join("sent"), folder.path().join("received"));
        let mut curl = self.curl(path);
        curl.args(["--config", "-", "--write-out", "%{http_code}", "--request", method])
            .args(["--aws-sigv4", &format!("aws:amz:{REGION}:s3")])
            .arg("--output")
            .arg(&received);
        for header in headers {
            curl.args(["--header", header]);
        }
        if let Some(body) = body {
            std::fs::write(&sent, body).expect("our folder is writable");
            curl.arg("--upload-file").arg(&sent);
        }
        let status = with_stdin(
            &mut curl,
            &format!("user = \"{}:{}\"\n", identity.access_key(), identity.secret()),
        );
        let status = status.parse().unwrap_or_default();
        Answer { status, body: std::fs::read(received).unwrap_or_default() }
    }

    /// The keys in `bucket` that begin with `prefix`.
    #[track_caller]
    pub(crate) fn list(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        loop {
            // In the order that the signature wants them.
            let after =
                keys.last().map_or(String::new(), |key| format!("&start-after={}", query(key)));
            let path = format!("{bucket}?list-type=2&prefix={}{after}", query(prefix));
            let answer = self.request(Identity::Admin, "GET", &path, &[], None).ok();
            let page = String::from_utf8(answer.body).expect("an XML answer is text");
            let found = page.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
            keys.extend(found.map(|(key, _)| key.to_owned()));
            if !page.contains("<IsTruncated>true</IsTruncated>") {
                return keys;
            }
        }
    }

    fn curl(&self, path: &str) -> Command {
        let mut curl = Command::new("curl");
        // A user's ~/.curlrc and proxies are not for us.
        curl.args(["--disable", "--noproxy", "*", "--silent", "--show-error", "--max-time", "60"]);
        if let Some(ca) = &self.ca {
            curl.arg("--cacert").arg(ca);
        }
        curl.arg(format!("{}/{path}", self.url));
        curl
    }
}

/// Runs `command` with a text on stdin, so that secrets are no arguments; returns its stdout.
#[track_caller]
fn with_stdin(command: &mut Command, text: &str) -> String {
    let program = format!("{:?}", command.get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("curl is installed (tools/install.sh test)");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(text.as_bytes()).expect("curl reads its configuration");
    drop(stdin);
    let output = child.wait_with_output().expect("a child can be waited for");
    let run = Run::from_output(program, output);
    // No connection, a body cut short, an empty answer, broken sending or receiving: status 0.
    let broken = [7, 18, 52, 55, 56].map(Some).contains(&run.code);
    // Whatever else ails curl is no answer, but a bug of ours.
    if broken { String::new() } else { run.ok().stdout }
}

/// A value as it stands in a query: everything but the unreserved characters is encoded.
fn query(value: &str) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The path of a file that a server is told of, as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of the testbed are text")
}
