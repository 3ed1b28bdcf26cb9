//! Certificates made by `openssl`, as an administrator would make them.
//!
//! ```text
//!   ca.pem ──────── server.pem   127.0.0.1 and localhost; for clients and for peers
//!            ├───── client.pem   CN=root, which etcd takes for the user name where auth is on
//!            └───── expired.pem  like client.pem, for one day in 2020
//!   foreign-ca.pem               signs nothing here
//! ```
//! Each `NAME.pem` has its `NAME-key.pem` beside it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

const SERVER: &str =
    "extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost";
const CLIENT: &str = "extendedKeyUsage=clientAuth";

/// A folder of certificates for one cluster.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes all certificates in `folder`.
    pub fn make_in(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let made = Self { folder: folder.to_owned() };
        made.authority("ca");
        made.authority("foreign-ca");
        made.signed("server", "/CN=lifeboat-test-server", SERVER);
        made.signed("client", "/CN=root", CLIENT);
        made.expired("expired", "/CN=root");
        made
    }

    /// The CA of the cluster.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A CA that signed none of the cluster's certificates.
    pub fn foreign_ca(&self) -> PathBuf {
        self.folder.join("foreign-ca.pem")
    }

    /// Certificate and key of the servers.
    pub fn server(&self) -> (PathBuf, PathBuf) {
        self.pair("server")
    }

    /// Makes certificate and key of a server at this address, and on loopback.
    pub fn server_at(&self, name: &str, address: Ipv4Addr) -> (PathBuf, PathBuf) {
        let extensions = format!("{SERVER},IP:{address},DNS:{name}");
        self.signed(name, &format!("/CN={name}"), &extensions);
        self.pair(name)
    }

    /// Certificate and key of a client.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        self.pair("client")
    }

    /// Certificate and key of a client whose time is over.
    pub fn expired_client(&self) -> (PathBuf, PathBuf) {
        self.pair("expired")
    }

    fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.folder.join(format!("{name}.pem")), self.folder.join(format!("{name}-key.pem")))
    }

    fn authority(&self, name: &str) {
        self.key(name);
        self.openssl(&format!(
            "req -x509 -new -key {name}-key.pem -subj /CN={name} -days 30 -out {name}.pem"
        ));
    }

    fn signed(&self, name: &str, subject: &str, extensions: &str) {
        self.request(name, subject);
        self.write(&format!("{name}.ext"), extensions);
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 30 \
             -extfile {name}.ext -out {name}.pem"
        ));
    }

    /// `openssl x509` makes no certificate of the past; `openssl ca` does, and wants a database.
    fn expired(&self, name: &str, subject: &str) {
        self.request(name, subject);
        self.write("index.txt", "");
        self.write(
            "ca.conf",
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nrand_serial=yes\nnew_certs_dir=.\n\
             default_md=sha256\npolicy=p\nx509_extensions=x\n[p]\ncommonName=supplied\n\
             [x]\nextendedKeyUsage=clientAuth\n",
        );
        self.openssl(&format!(
            "ca -batch -notext -config ca.conf -cert ca.pem -keyfile ca-key.pem -in {name}.csr \
             -startdate 20200101000000Z -enddate 20200102000000Z -out {name}.pem"
        ));
    }

    fn request(&self, name: &str, subject: &str) {
        self.key(name);
        self.openssl(&format!("req -new -key {name}-key.pem -subj {subject} -out {name}.csr"));
    }

    fn key(&self, name: &str) {
        self.openssl(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}-key.pem"
        ));
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.folder.join(name), content).expect("the folder is writable");
    }

    fn openssl(&self, arguments: &str) {
        let run = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(&self.folder)
            .output()
            .expect("openssl is installed (tools/install.sh test)");
        assert!(
            run.status.success(),
            "openssl {arguments}: {}",
            String::from_utf8_lossy(&run.stderr)
        );
    }
}
