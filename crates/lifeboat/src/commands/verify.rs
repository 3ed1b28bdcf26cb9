use super::findings;
use crate::{
    cli::Context,
    output::{self, Format},
    report::Failure,
};
use snapshot::{DigestRule, Snapshot};
use std::path::PathBuf;

/// Prove a snapshot file: digest, every page, every record
///
/// Exit code 0 only if all is well; 3 if anything is wrong, with every finding on stderr. What is
/// checked: the SHA-256 digest at the end; both metas, every page, the order of keys within and
/// across pages, the freelist; every record's form, and that no revision is missing above the
/// compact revision.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Snapshot file, or `db` of a stopped member
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Accept a file without a digest, or with a wrong one
    #[arg(long)]
    skip_hash_check: bool,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    verified: bool,
    sha256: String,
    hash: u32,
    revision: i64,
    compact_revision: i64,
    records: u64,
    total_key: u64,
    total_size: u64,
}

impl VerifyArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let rule = if self.skip_hash_check { DigestRule::Skip } else { DigestRule::Required };
        let snapshot = Snapshot::open(&self.file)?;
        let snapshot = snapshot.verify(rule, &mut |finding| findings::print(&finding))?;
        let survey = snapshot.survey();
        let verdict = Verdict {
            verified: true,
            sha256: snapshot.digest().to_string(),
            hash: survey.status_hash,
            revision: survey.revision(),
            compact_revision: survey.meta.compact_revision().unwrap_or(-1),
            records: survey.pairs_in(etcd_schema::bucket::KEY),
            total_key: survey.pairs(),
            total_size: snapshot.db().size(),
        };
        output::print(&verdict.render(context.format))
    }
}

impl Verdict {
    fn render(&self, format: Format) -> String {
        let rows = [
            ("sha256", self.sha256.clone()),
            ("hash", format!("{:x}", self.hash)),
            ("revision", self.revision.to_string()),
            ("compact revision", self.compact_revision.to_string()),
            ("records", self.records.to_string()),
            ("total keys", self.total_key.to_string()),
            ("total size", output::humanize_bytes(self.total_size)),
        ];
        let (headers, cells): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        match format {
            Format::Simple => format!("verified, {}\n", output::simple(&cells)),
            Format::Table => output::table(&headers, &[cells]),
            Format::Json => output::json(self),
            Format::Fields => headers
                .iter()
                .zip(cells)
                .map(|(name, value)| format!("{} : {value}\n", output::quote(name)))
                .collect(),
        }
    }
}
