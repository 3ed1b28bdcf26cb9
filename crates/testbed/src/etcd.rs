//! Which etcd a test means, and where its binaries are.

use std::path::PathBuf;

/// A version of etcd whose binaries `tools/install.sh test` brings in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Etcd {
    /// 3.4.23 of Debian bookworm; its `etcdctl` also does what `etcdutl` does later.
    V3_4,
    /// 3.5.16 of Debian trixie.
    V3_5,
    /// The newest 3.5 there is (3.5.30 when this was written), of Debian sid.
    V3_5_30,
}

impl Etcd {
    /// All versions, for tests that go through them.
    pub const ALL: [Self; 3] = [Self::V3_4, Self::V3_5, Self::V3_5_30];

    /// The server.
    pub fn server(self) -> PathBuf {
        self.binary("etcd")
    }

    /// The client.
    pub fn etcdctl(self) -> PathBuf {
        self.binary("etcdctl")
    }

    /// The tool for files: `etcdutl`, and in 3.4 `etcdctl`, which took the same subcommands.
    pub fn file_tool(self) -> PathBuf {
        self.binary(if self == Self::V3_4 { "etcdctl" } else { "etcdutl" })
    }

    /// The version as `--target-version` takes it.
    pub fn minor(self) -> &'static str {
        if self == Self::V3_4 { "3.4" } else { "3.5" }
    }

    fn binary(self, name: &str) -> PathBuf {
        let variable = match self {
            Self::V3_4 => "LIFEBOAT_ETCD_3_4",
            Self::V3_5 => "LIFEBOAT_ETCD_3_5",
            Self::V3_5_30 => "LIFEBOAT_ETCD_3_5_30",
        };
        let path = from_environment(variable).join(name);
        assert!(path.is_file(), "{variable} names a folder without {name}: {}", path.display());
        path
    }
}

/// The path that a variable of `tools/install.sh` holds.
pub(crate) fn from_environment(variable: &str) -> PathBuf {
    std::env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| {
        panic!(
            "{variable} is not set; run `./test`, or first: env=$(tools/install.sh test) && eval \"$env\""
        )
    })
}
