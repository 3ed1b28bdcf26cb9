use super::findings;
use crate::{
    cli::{Context, EtcdVersion},
    output::{self, Format},
    report::Failure,
};
use snapshot::Snapshot;
use std::path::PathBuf;

/// Print hash, revision, number of keys and size of a snapshot file
///
/// The output is that of `etcdctl snapshot status` and `etcdutl snapshot status`. The whole tree is
/// checked on the way; a damaged file ends with exit code 3 and every finding on stderr. The digest
/// at the end of the file is not compared: `snapshot verify` does that.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Snapshot file, or `db` of a stopped member
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Count and print as this etcd does
    ///
    /// Up to 3.5, TOTAL KEYS counts every pair of every bucket; 3.6 counts the keys that exist, and
    /// prints the storage version too. By default, 3.6 for files that an etcd 3.6 has marked with
    /// its storage version, 3.5 for all others.
    #[arg(long, value_name = "VERSION")]
    etcd_version: Option<EtcdVersion>,
}

/// The fields in the order of etcd's JSON.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusJson<'a> {
    hash: u32,
    revision: i64,
    total_key: u64,
    total_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
}

impl StatusArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let snapshot = Snapshot::open(&self.file)?;
        let (status, _) = snapshot.status(&mut |finding| findings::print(&finding))?;
        let marked = if status.version.is_empty() { EtcdVersion::V3_5 } else { EtcdVersion::V3_6 };
        let as_3_6 = self.etcd_version.unwrap_or(marked) == EtcdVersion::V3_6;
        let json = StatusJson {
            hash: status.hash,
            revision: status.revision,
            total_key: if as_3_6 { snapshot.live_keys()? } else { status.pairs },
            total_size: status.total_size,
            version: as_3_6.then_some(status.version.as_str()),
        };
        output::print(&json.render(context.format))
    }
}

impl StatusJson<'_> {
    fn render(&self, format: Format) -> String {
        let mut headers = vec!["hash", "revision", "total keys", "total size"];
        let mut cells = vec![
            format!("{:x}", self.hash),
            self.revision.to_string(),
            self.total_key.to_string(),
            output::humanize_bytes(self.total_size),
        ];
        if let Some(version) = self.version {
            headers.push("version");
            cells.push(version.to_owned());
        }
        match format {
            Format::Simple => output::simple(&cells) + "\n",
            Format::Table => output::table(&headers, &[cells]),
            Format::Json => output::json(self),
            Format::Fields => {
                let version = self.version.map(|version| format!("\"Version\" : {version}\n"));
                format!(
                    "\"Hash\" : {}\n\"Revision\" : {}\n\"Keys\" : {}\n\"Size\" : {}\n{}",
                    self.hash,
                    self.revision,
                    self.total_key,
                    self.total_size,
                    version.unwrap_or_default(),
                )
            }
        }
    }
}
