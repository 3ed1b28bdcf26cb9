use super::findings;
use crate::{
    cli::{Context, Tool},
    interrupt::Interrupt,
    output::{self, Format},
    progress::Bytes,
    report::Failure,
};
use etcd_live::{Choice, Connector, Endpoint};
use snapshot::{
    Existing, PartFile, Replayed, SaveEvent, Saved, Snapshot, StoppedMember, UseLog, Verified,
};
use std::{
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Save a snapshot of a live cluster, or of a stopped member, and prove it
///
/// The snapshot is written to FILE.part, its digest compared, every page and
/// record checked; only then it is renamed to FILE. With several --endpoints, the
/// best member is chosen: reachable, not a learner, not behind, a follower before
/// the leader; if it fails half way, or what it sends is not sound, the next one
/// is asked. To stdout goes only what was proved, from a copy in $TMPDIR.
///
/// With --data-dir, nothing is asked: the database of a stopped member is read
/// and checked, and all entries of its write-ahead log that are not in it yet are
/// applied, also those that the log does not say are committed: a client may have
/// been told that they are done. What is not in this member's log it cannot give,
/// and its last entries may be ones that the cluster dropped. If several members
/// of a lost cluster can be had, save from each, compare the last entry that is
/// told, and keep the one of the greatest term, and of the greatest index within
/// it: a majority has every acknowledged write.
///
/// Examples:
///   lifeboat snapshot save backup.db --endpoints https://10.0.0.1:2379 \
///       --cacert ca.pem …
///   lifeboat snapshot save - | zstd > backup.db.zst
///   lifeboat snapshot save backup.db --data-dir /var/lib/etcd
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct SaveArgs {
    /// File to write, or `-` for stdout
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,

    /// Save from the data directory of a stopped member instead of a live cluster
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// WAL directory of that member [default: DIR/member/wal]
    #[arg(long, value_name = "DIR", requires = "data_dir")]
    wal_dir: Option<PathBuf>,

    /// Take the database as it is, without the entries of the write-ahead log
    ///
    /// Writes that were acknowledged shortly before the member stopped may be missing.
    #[arg(long, requires = "data_dir")]
    db_only: bool,

    /// Apply the write-ahead log only up to the commit that it tells
    ///
    /// etcd writes the commit down late: writes that were acknowledged shortly before the member
    /// stopped may be missing.
    #[arg(long, requires = "data_dir", conflicts_with = "db_only")]
    committed_only: bool,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct SavedJson {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    sha256: String,
    hash: u32,
    revision: i64,
    total_key: u64,
    total_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogJson>,
}

/// What the log of a stopped member has added.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct LogJson {
    entries: usize,
    beyond_commit: usize,
    last_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_term: Option<u64>,
    torn: bool,
}

impl SaveArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        match &self.data_dir {
            Some(data_dir) => self.save_data_dir(context, data_dir),
            None => self.save_cluster(context),
        }
    }

    /// A script written for etcdctl may save under the same name again and again, as etcdctl lets it;
    /// what it has is replaced by something that was proved.
    fn existing(&self, context: &Context) -> Existing {
        match self.force || context.tool == Tool::EtcdTool {
            true => Existing::Replace,
            false => Existing::Keep,
        }
    }

    fn to_stdout(&self) -> bool {
        self.file == Path::new("-")
    }

    fn save_cluster(&self, context: &Context) -> Result<(), Failure> {
        if !self.to_stdout() {
            // Said before a password is asked for or a member is dialled.
            PartFile::check_target(&self.file, self.existing(context))?;
        }
        let connector = Connector::new(context.connection.options()?)?;
        let endpoints = context.connection.endpoints()?;
        let interrupt = Interrupt::watch()?;
        let saved = context.block_on(async {
            tokio::select! {
                // In this order, nothing is put in place once a signal has come.
                biased;
                () = interrupt.wait() => Err(Failure::interrupted()),
                saved = self.choose_and_save(context, &connector, &endpoints) => saved,
            }
        })?;
        let Saved { endpoint, snapshot, .. } = &saved;
        self.tell(context, &SavedJson::new(&self.file, Some(endpoint.to_string()), snapshot))
    }

    async fn choose_and_save(
        &self,
        context: &Context,
        connector: &Connector,
        endpoints: &[Endpoint],
    ) -> Result<Saved, Failure> {
        let choice = etcd_live::choose(connector, endpoints).await?;
        tell_choice(&choice);
        let bar = Mutex::new(None);
        let on_event = |event: SaveEvent<'_>| show(&bar, &event);
        let candidates = &choice.candidates;
        let saved = if self.to_stdout() {
            let stdout = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
            let spool = std::env::temp_dir();
            snapshot::save_to_writer(candidates, stdout, &spool, &on_event).await
        } else {
            snapshot::save(candidates, &self.file, self.existing(context), &on_event).await
        };
        Ok(saved?)
    }

    fn save_data_dir(&self, context: &Context, data_dir: &Path) -> Result<(), Failure> {
        let member = StoppedMember {
            data_dir: data_dir.to_owned(),
            wal_dir: self.wal_dir.clone(),
            log: self.use_log(),
        };
        let interrupt = Interrupt::watch()?;
        let interrupted = &|| interrupt.requested();
        let on_finding = &mut |finding| findings::print(&finding);
        let saved = if self.to_stdout() {
            let spool = std::env::temp_dir();
            let out = std::io::stdout();
            snapshot::save_offline_to_writer(&member, out, &spool, on_finding, interrupted)?
        } else {
            let existing = self.existing(context);
            snapshot::save_offline(&member, &self.file, existing, on_finding, interrupted)?
        };
        match &saved.replayed {
            None => say!("the write-ahead log was left out, as --db-only says"),
            Some(replayed) => tell_log(replayed),
        }
        let report = SavedJson::new(&self.file, None, &saved.snapshot);
        self.tell(context, &SavedJson { log: saved.replayed.map(LogJson::from), ..report })
    }

    fn use_log(&self) -> UseLog {
        match (self.db_only, self.committed_only) {
            (true, _) => UseLog::No,
            (false, true) => UseLog::Committed,
            (false, false) => UseLog::Whole,
        }
    }

    /// The result, on stdout unless the snapshot went there.
    fn tell(&self, context: &Context, report: &SavedJson) -> Result<(), Failure> {
        let text = report.render(context);
        if self.to_stdout() {
            say_part!("{text}");
            return Ok(());
        }
        output::print(&text)
    }
}

/// Says on stderr which member was chosen and why, and what is wrong with the others.
fn tell_choice(choice: &Choice) {
    for passed in &choice.passed_over {
        say!("passed over {}: {}", passed.endpoint, passed.reason);
    }
    if let Some(chosen) = choice.candidates.first() {
        say!("taking the snapshot from {} ({})", chosen.connection.endpoint(), chosen.why);
    }
}

/// Says on stderr what the log of a stopped member has added.
pub(crate) fn tell_log(replayed: &Replayed) {
    let Replayed { entries, beyond_commit, index, term, torn } = replayed;
    say!(
        "{entries} entries of the write-ahead log were applied, {beyond_commit} of them beyond the \
         commit that it tells"
    );
    let of_term = term.map(|term| format!(" of term {term}")).unwrap_or_default();
    say!("the last entry is {index}{of_term}");
    if let Some(torn) = torn {
        say!(
            "the log breaks off in a write at offset {} of {}: what stood there was not acknowledged",
            torn.offset,
            torn.segment
        );
    }
}

fn show(bar: &Mutex<Option<Bytes>>, event: &SaveEvent<'_>) {
    let mut bar = bar.lock().expect("no holder of the lock panics");
    match event {
        SaveEvent::Fetching { total, .. } => *bar = Some(Bytes::new("fetching", *total)),
        SaveEvent::Received(bytes) => bar.iter().for_each(|bar| bar.set(*bytes)),
        SaveEvent::FailedOver { error, next } => {
            *bar = None;
            say!("warning: {error}");
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                say!("warning: caused by: {error}");
                cause = error.source();
            }
            say!("beginning again from {next}");
        }
        SaveEvent::Verifying => *bar = None,
        SaveEvent::Found(finding) => findings::print(finding),
        _ => {}
    }
}

impl From<Replayed> for LogJson {
    fn from(replayed: Replayed) -> Self {
        Self {
            entries: replayed.entries,
            beyond_commit: replayed.beyond_commit,
            last_index: replayed.index,
            last_term: replayed.term,
            torn: replayed.torn.is_some(),
        }
    }
}

impl SavedJson {
    fn new(path: &Path, endpoint: Option<String>, snapshot: &Snapshot<Verified>) -> Self {
        let survey = snapshot.survey();
        Self {
            path: path.display().to_string(),
            endpoint,
            sha256: snapshot.digest().to_string(),
            hash: survey.status_hash,
            revision: survey.revision(),
            total_key: survey.pairs(),
            total_size: snapshot.db().size(),
            log: None,
        }
    }

    fn render(&self, context: &Context) -> String {
        let saved = format!("Snapshot saved at {}\n", self.path);
        match (context.format, context.tool) {
            (Format::Json, Tool::Lifeboat) => output::json(self),
            (_, Tool::EtcdTool) => saved,
            _ => format!(
                "{saved}verified: revision {}, {} keys, {}, hash {:x}, sha256 {}\n",
                self.revision,
                self.total_key,
                output::humanize_bytes(self.total_size),
                self.hash,
                self.sha256,
            ),
        }
    }
}
