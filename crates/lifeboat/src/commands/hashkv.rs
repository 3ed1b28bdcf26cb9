use super::findings;
use crate::{
    cli::Context,
    output::{self, Format},
    report::Failure,
};
use snapshot::{DigestRule, Snapshot};
use std::path::PathBuf;

/// Print the HashKV of a snapshot file at a revision
///
/// It equals what `etcdctl endpoint hashkv --rev` answers on a cluster with the same data and the
/// same compact revision. The file is verified first; its digest is compared if it has one.
#[derive(Debug, clap::Args)]
pub(crate) struct HashKvArgs {
    /// Snapshot file, or `db` of a stopped member
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Revision to hash up to [default: the newest]
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    rev: i64,
}

/// The fields in the order of etcdutl 3.6's JSON.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct HashKvJson {
    hash: u32,
    hash_revision: i64,
    compact_revision: i64,
}

impl HashKvArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let snapshot = Snapshot::open(&self.file)?;
        let rule = match snapshot.stored_digest() {
            Some(_) => DigestRule::Required,
            None => DigestRule::Skip,
        };
        let snapshot = snapshot.verify(rule, &mut |finding| findings::print(&finding))?;
        let answer = snapshot.hash_kv((self.rev > 0).then_some(self.rev))?;
        let json = HashKvJson {
            hash: answer.hash,
            hash_revision: answer.hash_revision,
            compact_revision: answer.compact_revision.unwrap_or(-1),
        };
        output::print(&json.render(context.format))
    }
}

impl HashKvJson {
    fn render(&self, format: Format) -> String {
        let values = [
            self.hash.to_string(),
            self.hash_revision.to_string(),
            self.compact_revision.to_string(),
        ];
        let headers = ["hash", "hash revision", "compact revision"];
        match format {
            Format::Simple => output::simple(&values) + "\n",
            Format::Table => output::table(&headers, &[values.to_vec()]),
            Format::Json => output::json(self),
            Format::Fields => format!(
                "\"Hash\" : {}\n\"Hash revision\" : {}\n\"Compact revision\" : {}\n",
                self.hash, self.hash_revision, self.compact_revision
            ),
        }
    }
}
