//! Data directories from a snapshot: the flags and the steps that `snapshot restore` and `restore` share.

use crate::{
    cli::{Context, Tool},
    commands::findings,
    interrupt::Interrupt,
    output::{self, Format},
    progress::Bytes,
    report::{Exit, Failure},
};
use repository::manifest::{Etcd, Member};
use restore::{
    Destination, Progress, RestorePlan, RestoreReport, RestoredCluster, Staged, TargetVersion,
    check_advertised, find_member, parse_cluster, raised,
};
use snapshot::{DigestRule, Fetched, Snapshot, Survey};
use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf};

/// Revisions that `--bump-revision auto` adds: as many as a cluster with 1,500 writes a second makes
/// in a week, so more than clients can have seen after any backup that is worth restoring.
pub(crate) const BUMP_AUTO: u64 = 1_000_000_000;

/// `--initial-cluster` of etcd and its tools.
const INITIAL_CLUSTER: &str = "default=http://localhost:2380";

/// What is to be made of a snapshot.
#[derive(Debug, clap::Args)]
pub(crate) struct Restoring {
    /// Name of the member to restore
    #[arg(long, default_value = "default")]
    name: String,

    /// All members of the new cluster, as name=peer-url[,…]
    ///
    /// [default: default=http://localhost:2380; `restore --all-members` takes the members of the backup]
    #[arg(long, value_name = "MEMBERS")]
    initial_cluster: Option<String>,

    /// Token from which cluster and member ids are made
    ///
    /// [default: etcd-cluster; with --all-members a fresh one, which is printed]
    #[arg(long, value_name = "TOKEN")]
    initial_cluster_token: Option<String>,

    /// Peer URLs of the member [default: its URLs in --initial-cluster]
    #[arg(long, value_name = "URLS")]
    initial_advertise_peer_urls: Option<String>,

    /// Data directory to make: absent or empty [default: NAME.etcd]
    #[arg(long, value_name = "DIR", conflicts_with = "all_members")]
    data_dir: Option<PathBuf>,

    /// WAL directory to make: absent [default: DIR/member/wal]
    #[arg(long, value_name = "DIR", conflicts_with = "all_members")]
    wal_dir: Option<PathBuf>,

    /// Raise the revision by so much, and mark what was before as compacted
    ///
    /// `auto` adds 1000000000, more than clients can have seen. [default: 0; of `restore`: auto]
    #[arg(long, value_name = "N|auto")]
    bump_revision: Option<Bump>,

    /// Mark the revisions before the bump as compacted: what --bump-revision does anyway
    #[arg(long, requires = "bump_revision")]
    mark_compacted: bool,

    /// Make the directories of all members, DIR/NAME each
    #[arg(long, value_name = "DIR", conflicts_with_all = ["name", "initial_advertise_peer_urls"])]
    all_members: Option<PathBuf>,

    /// Etcd version that will run on the directories [default: the backup's, else the snapshot's]
    #[arg(long, value_name = "3.4|3.5|3.6", value_parser = parse_target)]
    target_version: Option<TargetVersion>,

    /// Member that shall be a learner; may be given several times
    #[arg(long = "learner", value_name = "NAME")]
    learners: Vec<String>,

    /// Accepted for scripts written for etcdutl; no memory map is needed
    #[arg(long, value_name = "BYTES", hide = true)]
    initial_memory_map_size: Option<u64>,
}

/// `--bump-revision`.
#[derive(Clone, Copy, Debug)]
struct Bump(u64);

impl std::str::FromStr for Bump {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self(BUMP_AUTO)),
            number => number.parse().map(Self).map_err(|_| "it is neither a number nor `auto`"),
        }
    }
}

fn parse_target(text: &str) -> Result<TargetVersion, &'static str> {
    TargetVersion::of_release(text).ok_or("it is not 3.4, 3.5 or 3.6")
}

/// What is said of a restore, in the order of the JSON.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Restored {
    revision: i64,
    target_version: String,
    cluster_id: String,
    token: String,
    #[serde(skip)]
    member_ids: BTreeMap<String, String>,
}

#[derive(serde::Serialize)]
struct RestoredJson {
    #[serde(flatten)]
    restored: Restored,
    members: Vec<MemberJson>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberJson {
    name: String,
    id: String,
    data_dir: String,
}

/// A cluster that can be made, checked before anything is read or fetched.
pub(crate) struct Wanted {
    cluster: RestoredCluster,
    token: String,
    /// What the cluster ran, if that is known.
    version: Option<TargetVersion>,
    /// The revision that the backup is said to have.
    revision: Option<i64>,
    /// The hash that it is said to have, over all pairs.
    hash: Option<u32>,
}

impl Wanted {
    /// The new cluster, as `--initial-cluster` has it.
    pub(crate) fn initial_cluster(&self) -> String {
        let urls = |member: &etcd_schema::Member| {
            let pairs = member.peer_urls.iter().map(|url| format!("{}={url}", member.name));
            pairs.collect::<Vec<_>>().join(",")
        };
        let mut members: Vec<_> = self.cluster.members().iter().collect();
        members.sort_by_key(|member| &member.name);
        members.into_iter().map(urls).collect::<Vec<_>>().join(",")
    }
}

impl Restoring {
    /// Checks what can be checked without the snapshot.
    pub(crate) fn check(&self) -> Result<Wanted, Failure> {
        self.check_cluster(self.initial_cluster.as_deref().unwrap_or(INITIAL_CLUSTER))
    }

    /// The same for a backup: its members and its version, unless others are given.
    pub(crate) fn check_with(&self, etcd: &Etcd) -> Result<Wanted, Failure> {
        let wanted = match (&self.initial_cluster, &self.all_members) {
            (None, Some(_)) if !etcd.members.is_empty() => {
                self.check_cluster(&initial_cluster(&etcd.members))
            }
            _ => self.check(),
        }?;
        let version = etcd.version.as_deref().and_then(TargetVersion::of_release);
        Ok(Wanted { version, revision: Some(etcd.revision), hash: Some(etcd.hash), ..wanted })
    }

    /// The folder that the data directories will stand in: there is room for them, so there is for more.
    pub(crate) fn beside(&self) -> Result<PathBuf, Failure> {
        Ok(self.destination().parent()?)
    }

    /// Refuses what must fail later, where that is known already: a destination that is in use, a revision that
    /// cannot be raised so far.
    pub(crate) fn refuse_ahead(&self, wanted: &Wanted, bump: u64) -> Result<(), Failure> {
        self.destination().check(&wanted.cluster)?;
        raised(wanted.revision.unwrap_or(1), bump)?;
        Ok(())
    }

    /// What the data directories of a database of so many bytes take, and where.
    pub(crate) fn needs(&self, wanted: &Wanted, database_bytes: u64) -> (PathBuf, u64) {
        let destination = self.destination();
        let bytes = destination.bytes(&wanted.cluster, database_bytes);
        match destination {
            Destination::AllMembers { dir } => (dir, bytes),
            Destination::Member { data_dir, .. } => (data_dir, bytes),
        }
    }

    /// The data directory of each member that is made.
    pub(crate) fn data_dirs(&self, wanted: &Wanted) -> Vec<(String, PathBuf)> {
        self.destination().data_dirs(&wanted.cluster)
    }

    /// The etcd that the directories are for, as far as that is known.
    pub(crate) fn target(&self, wanted: &Wanted) -> Option<TargetVersion> {
        self.target_version.or(wanted.version)
    }

    fn check_cluster(&self, initial_cluster: &str) -> Result<Wanted, Failure> {
        let token = self.token()?;
        let cluster = parse_cluster(initial_cluster, &token, &self.learners)?;
        if self.all_members.is_none() {
            let member = find_member(&cluster, "--name", &self.name)?;
            if let Some(urls) = &self.initial_advertise_peer_urls {
                check_advertised(member, urls)?;
            }
        }
        Ok(Wanted { cluster, token, version: None, revision: None, hash: None })
    }

    /// Proves the snapshot, builds, and puts in place.
    pub(crate) fn run(
        &self,
        context: &Context,
        wanted: Wanted,
        snapshot: Snapshot<Fetched>,
        rule: DigestRule,
        bump: u64,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        self.refuse_ahead(&wanted, bump)?;
        if rule == DigestRule::Required && snapshot.stored_digest().is_none() {
            // It will be refused; what else is wrong with it is told too.
            let refused = snapshot.verify(rule, &mut |finding| findings::print(&finding));
            return Err(refused.expect_err("a file without a digest is not proved").into());
        }
        let snapshot = snapshot.walk(&mut |finding| findings::print(&finding))?;
        let found = snapshot.survey().revision();
        if let Some(said) = wanted.revision.filter(|said| *said != found) {
            return Err(Failure::damaged(
                format!("the manifest says revision {said}, but the snapshot is of {found}"),
                "find out who has changed the manifest; `lifeboat verify` tells what else differs",
            ));
        }
        // The digest was computed on the way to the disk, this hash of what came back from it.
        let found = snapshot.survey().status_hash;
        if let Some(said) = wanted.hash.filter(|said| *said != found) {
            return Err(Failure::damaged(
                format!("the manifest says hash {said}, but what was unpacked has {found}"),
                "check the disk that it was unpacked to; `lifeboat verify` tells whether the backup is sound",
            ));
        }
        let target = match self.target(&wanted) {
            Some(target) => target,
            None => TargetVersion::of_snapshot(&snapshot)?,
        };
        let Wanted { cluster, token, .. } = wanted;
        let plan = RestorePlan::new(&snapshot, cluster, self.destination(), target, bump)?;
        let staged = build(&plan, snapshot.db().size(), interrupt)?;
        let restored = Restored::of(&plan, token);
        let snapshot = snapshot.prove(rule, &mut |finding| findings::print(&finding))?;
        if interrupt.requested() {
            return Err(Failure::interrupted());
        }
        let survey = snapshot.survey().clone();
        let report = staged.commit(snapshot)?;
        warn(&survey, bump);
        restored.tell(context, &report)
    }

    /// The amount that was asked for.
    pub(crate) fn bump(&self) -> Option<u64> {
        self.bump_revision.map(|bump| bump.0)
    }

    fn token(&self) -> Result<String, Failure> {
        match (&self.initial_cluster_token, &self.all_members) {
            (Some(token), _) => Ok(token.clone()),
            (None, None) => Ok("etcd-cluster".to_owned()),
            (None, Some(_)) => fresh_token(),
        }
    }

    fn destination(&self) -> Destination {
        match &self.all_members {
            Some(dir) => Destination::AllMembers { dir: dir.clone() },
            None => Destination::Member {
                name: self.name.clone(),
                data_dir: self
                    .data_dir
                    .clone()
                    .unwrap_or_else(|| PathBuf::from(format!("{}.etcd", self.name))),
                wal_dir: self.wal_dir.clone(),
            },
        }
    }
}

/// Members as `--initial-cluster` has them.
fn initial_cluster(members: &[Member]) -> String {
    let urls = |member: &Member| {
        let pairs = member.peer_urls.iter().map(|url| format!("{}={url}", member.name));
        pairs.collect::<Vec<_>>().join(",")
    };
    members.iter().map(urls).collect::<Vec<_>>().join(",")
}

/// What a person should know before the cluster is started.
fn warn(survey: &Survey, bump: u64) {
    for alarm in &survey.alarms {
        let kind = if alarm.alarm == 1 { "NOSPACE" } else { "CORRUPT" };
        say!("note: the {kind} alarm of member {:x} was dropped", alarm.member_id);
    }
    if survey.auth_enabled {
        say!("note: authentication is on, with the users and passwords of the snapshot");
    }
    if bump == 0 {
        say!(
            "note: revisions go back to {}; restart clients that have seen later ones, or \
             restore with --bump-revision auto",
            survey.revision()
        );
    }
}

/// A token that no other restore has: two clusters with the same URLs and token are one to etcd.
fn fresh_token() -> Result<String, Failure> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(|e| {
        Failure::new(Exit::Failed, format!("no random token: {e}"), "give --initial-cluster-token")
    })?;
    Ok(format!("lifeboat-{:016x}", u64::from_ne_bytes(random)))
}

fn build(plan: &RestorePlan<'_>, bytes: u64, interrupt: &Interrupt) -> Result<Staged, Failure> {
    let bar = Bytes::new("building", bytes);
    Ok(plan.build(&|progress| {
        match progress {
            Progress::Built(more) => bar.add(more),
            Progress::Syncing => say!("reading back and syncing"),
        }
        if interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?)
}

impl Restored {
    fn of(plan: &RestorePlan<'_>, token: String) -> Self {
        Self {
            revision: plan.revision(),
            target_version: plan.target().to_string(),
            cluster_id: plan.cluster().id().to_string(),
            token,
            member_ids: plan
                .cluster()
                .members()
                .iter()
                .map(|member| (member.name.clone(), member.id.to_string()))
                .collect(),
        }
    }

    fn tell(self, context: &Context, report: &RestoreReport) -> Result<(), Failure> {
        let members = report.data_dirs.iter().map(|(name, data_dir)| MemberJson {
            name: name.clone(),
            id: self.member_ids.get(name).cloned().unwrap_or_default(),
            data_dir: data_dir.display().to_string(),
        });
        let members: Vec<_> = members.collect();
        match (context.tool, context.format) {
            // etcdctl and etcdutl print nothing but logs.
            (Tool::EtcdTool, _) => say_part!("{}", self.text(&members)),
            (Tool::Lifeboat, Format::Json) => {
                output::print(&output::json(&RestoredJson { restored: self, members }))?;
            }
            (Tool::Lifeboat, _) => output::print(&self.text(&members))?,
        }
        Ok(())
    }

    fn text(&self, members: &[MemberJson]) -> String {
        let mut text = format!(
            "restored revision {} for etcd {}, cluster {}, token {}\n",
            self.revision, self.target_version, self.cluster_id, self.token
        );
        for member in members {
            text += &format!("{}, {}, {}\n", member.name, member.id, member.data_dir);
        }
        text
    }
}
