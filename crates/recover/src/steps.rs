//! What is done on each host, as text for the shell: the one source of what is printed, written as a script, and executed.
//!
//! Every step has, for each host that takes part, a check that tells whether it is done, commands that do it and may be run again
//! after they were cut anywhere, and commands that take it back.
//!
//! ```text
//!   lock        hold        stop-clients ─ stop-etcd ─ set-aside ─ swap-in ─ start-etcd ─ verify ─ start-client-… ─ restart-…
//!   push send   (nothing that runs is touched)     │                            │
//!                                                  └── the mark in `member` ────┴── `started` in the run's folder
//! ```
//!
//! * Stopping is over once `started` is there: a run that goes on does not stop what it has started.
//! * Setting aside is over once the mark is in place: what is current then is new.
//! * A rollback is the undoing of all steps, from the last to the first; what was not done is left alone.

use crate::{
    claim,
    place::{Place, Places},
    plan::{Plan, Pull},
    rescue,
    run::agent_path,
    service::{self, Shell},
    shell::{durable, quote, quote_path},
    spec::{Client, Resolved},
};
use std::path::PathBuf;

mod replace;

/// The step in which hosts are claimed.
pub const LOCK: &str = "lock";
/// The step in which hosts get the new data.
pub(crate) const SEND: &str = "send";

/// How long a process may have the database open after it was told to stop.
const UNLOCKED_SECONDS: u32 = 60;

/// A step, on all hosts at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Names it in the journal.
    pub id: String,
    /// What it does, for a person.
    pub title: String,
    /// Who does it.
    pub kind: Kind,
    /// The hosts that take part.
    pub hosts: Vec<OnHost>,
}

/// Who does a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The commands of each host.
    Script,
    /// Files are sent first, and then as above.
    Send,
    /// A file is fetched first, and then as above.
    Fetch,
    /// The cluster is asked, and what it answers is judged here.
    Verify,
    /// The cluster changes its membership.
    Member(MemberChange),
}

/// How a cluster changes its membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// The lost member goes.
    Remove,
    /// The new member comes.
    Add,
    /// The new member gets its vote, when it has caught up.
    Promote,
}

/// A step's part on one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnHost {
    /// Place of the host in the plan.
    pub host: usize,
    /// Succeeds if it is done.
    pub check: String,
    /// Does it.
    pub run: String,
    /// Takes it back.
    pub undo: String,
    /// What a person does without lifeboat, where that is something else than `run`.
    pub by_hand: Option<String>,
}

/// Where the files of one member go on its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) snap: PathBuf,
    pub(crate) wal: PathBuf,
}

/// One host of a plan, and what its steps need.
struct Site<'a> {
    number: usize,
    plan: &'a Plan,
    host: &'a Resolved,
    places: Places,
    run_dir: String,
}

/// All steps of a plan.
pub fn steps(plan: &Plan) -> Vec<Step> {
    if let Some(replace) = &plan.replace {
        return replace::steps(plan, replace);
    }
    let hosts = plan.hosts();
    let sites: Vec<_> =
        hosts.iter().enumerate().map(|(number, host)| Site::new(number, plan, host)).collect();
    let members = || sites.iter().filter(|site| site.host.member.is_some());
    let lock = sites.iter().map(Site::lock);
    let mut steps = vec![step(LOCK, "Claim the hosts for this run", Kind::Script, lock)];
    for site in sites.iter().filter(|site| plan.is_source(site.host)) {
        steps.extend(site.rescue());
    }
    steps.extend([
        step(
            SEND,
            "Put the new data directory beside the old one",
            if plan.pull.is_some() { Kind::Script } else { Kind::Send },
            members().map(|site| match &plan.pull {
                Some(pull) => site.pull(pull),
                None => site.send(),
            }),
        ),
        step(
            "stop-clients",
            "Stop what uses etcd",
            Kind::Script,
            sites
                .iter()
                .filter(|site| site.stopped_clients().next().is_some())
                .map(Site::stop_clients),
        ),
        step("stop-etcd", "Stop etcd", Kind::Script, sites.iter().map(Site::stop_etcd)),
        step(
            "set-aside",
            "Set the old data aside",
            Kind::Script,
            sites.iter().map(Site::set_aside),
        ),
        step("swap-in", "Put the new data in place", Kind::Script, members().map(Site::swap_in)),
        step("start-etcd", "Start all members", Kind::Script, members().map(Site::start_etcd)),
        step(
            "verify",
            "Wait for the cluster, and compare it with the backup",
            Kind::Verify,
            members().map(Site::verify),
        ),
    ]);
    steps.extend(client_steps(&members().collect::<Vec<_>>()));
    steps.retain(|step| !step.hosts.is_empty());
    steps
}

/// Where the files for a host go.
pub(crate) fn destination(plan: &Plan, host: &Resolved) -> Destination {
    let places = plan.places(host);
    Destination { snap: places.new_snap(), wal: places.new_wal() }
}

/// An expression that succeeds if a host needs nothing sent any more.
pub(crate) fn has_data(plan: &Plan, host: &Resolved) -> String {
    Site::new(0, plan, host).sent()
}

/// Makes the folders in which a host gets new directories.
pub(crate) fn make_parents(plan: &Plan, host: &Resolved) -> String {
    Site::new(0, plan, host).make_parents()
}

fn step(id: &str, title: &str, kind: Kind, hosts: impl Iterator<Item = OnHost>) -> Step {
    Step { id: id.to_owned(), title: title.to_owned(), kind, hosts: hosts.collect() }
}

/// A step for each client, in the order of the first host that has it: first those that were stopped, then those that are only
/// restarted.
fn client_steps(sites: &[&Site<'_>]) -> Vec<Step> {
    let mut clients: Vec<&Client> = Vec::new();
    for client in sites.iter().flat_map(|site| site.known_clients()) {
        if !clients.iter().any(|known| known.service == client.service) {
            clients.push(client);
        }
    }
    clients.sort_by_key(|client| client.restart);
    let mut steps = Vec::new();
    for client in clients {
        let name = client.service.name();
        let (verb, title) = match client.restart {
            true => ("restart", format!("Restart {name}")),
            false => ("start", format!("Start {name}")),
        };
        let mut id = format!("{verb}-{}", plain(&name));
        if steps.iter().any(|step: &Step| step.id == id) {
            id += &format!("-{}", steps.len() + 1);
        }
        let having = sites.iter().filter_map(|site| {
            let own = site.known_clients().find(|own| own.service == client.service)?;
            Some(site.start_client(own, &id))
        });
        steps.push(step(&id, &title, Kind::Script, having));
    }
    steps
}

impl<'a> Site<'a> {
    fn new(number: usize, plan: &'a Plan, host: &'a Resolved) -> Self {
        let (places, run_dir) = (plan.places(host), plan.frame(host).run_dir());
        Self { number, plan, host, places, run_dir }
    }

    fn on_host(&self, check: String, run: String, undo: String) -> OnHost {
        OnHost { host: self.number, check, run, undo, by_hand: None }
    }

    /// Clients that the host has; all, if that was not found out.
    fn known_clients(&self) -> impl Iterator<Item = &Client> {
        let found = &self.plan.facts(self.host).clients;
        self.host.clients.iter().enumerate().filter_map(|(number, client)| {
            found.get(number).is_none_or(|(known, _)| *known).then_some(client)
        })
    }

    fn stopped_clients(&self) -> impl Iterator<Item = &Client> {
        self.known_clients().filter(|client| !client.restart)
    }

    fn shell<'s>(&'s self, client: &'s Client) -> Shell<'s> {
        Shell::new(&client.service, &self.run_dir)
    }

    fn etcd(&self) -> Shell<'_> {
        Shell::new(&self.host.service, &self.run_dir)
    }

    /// `[ -e …/started ]`
    fn started(&self) -> String {
        format!("[ -e {}/started ]", self.run_dir)
    }

    /// etcd ran with the new data, before it was stopped by a rollback.
    fn has_run(&self) -> String {
        format!("[ -e {}/has-run ]", self.run_dir)
    }

    /// What is current is new.
    fn swapped(&self) -> String {
        exists(&self.places.mark(&self.places.data.current))
    }

    fn sent(&self) -> String {
        format!("{} || {}", exists(&self.places.mark(&self.places.data.new)), self.swapped())
    }

    fn lock(&self) -> OnHost {
        let lock = self.plan.frame(self.host).lock();
        self.on_host(
            claim::is_held(self.plan, &lock),
            claim::hold(self.plan, self.host, false),
            claim::take_back(self.plan, self.host),
        )
    }

    fn send(&self) -> OnHost {
        let mark = self.places.mark(&self.places.data.new);
        let trees: Vec<_> = self.places.all().map(|place| quote_path(&place.new)).collect();
        let trees = trees.join(" ");
        let part = quote_path(&mark.with_extension("part"));
        let mut run =
            format!("chmod -R u=rwX,go= {trees}\necho {} >{part}\n", quote(&self.plan.run));
        run += &self.as_before();
        // Whoever finds the mark relies on all of the above.
        run +=
            &format!("mv {part} {mark}\nsync {mark} 2>/dev/null || sync", mark = quote_path(&mark));
        let clear = format!("rm -rf {trees}");
        let by_hand = format!(
            "{clear}\n{}\n{}\n{run}\nrm -f {}/snapshot.db",
            self.parents(|parent| format!("(umask 022; mkdir -p {parent})")),
            self.restore_by_hand(),
            self.run_dir
        );
        let undo = format!("{clear}\n{}", self.remove_parents());
        OnHost { by_hand: Some(by_hand), ..self.on_host(self.sent(), run, undo) }
    }

    /// Gives the new directories owner and mode of the old ones.
    fn as_before(&self) -> String {
        let facts = self.plan.facts(self.host);
        let of_data = facts.data.as_ref();
        let fallback =
            of_data.and_then(|data| data.owner.as_ref()).or(facts.service_owner.as_ref());
        let mut text = String::new();
        for (place, found) in self.places.all().zip([of_data, facts.wal.as_ref()]) {
            let new = quote_path(&place.new);
            let inside = self.places.inside && *place == self.places.data;
            if let Some(mode) = found.and_then(|found| found.mode.as_ref()).filter(|_| !inside) {
                text += &format!("chmod {} {new}\n", quote(mode));
            }
            let said = self.host.owner.as_deref();
            let was = found.and_then(|found| found.owner.as_ref()).or(fallback);
            let owner = said.or(was.map(String::as_str));
            if let Some(owner) = owner.filter(|owner| *owner != "root:root") {
                text += &format!("chown -R {} {new}\n", quote(owner));
            }
        }
        text
    }

    /// What is done about the folders that the directories lie in. Those that were there must be there still: a disk may have gone.
    fn parents(&self, make: impl Fn(&str) -> String) -> String {
        let facts = self.plan.facts(self.host);
        let found = [facts.data.as_ref(), facts.wal.as_ref()];
        let lines = self.places.all().zip(found).map(|(place, found)| {
            let parent = parent(&place.new);
            match found.is_none_or(|found| found.no_parent.is_some()) {
                true => make(&parent),
                false => format!(
                    "[ -d {parent} ] || {{ echo {parent} 'is not there: is its disk mounted?' >&2; exit 1; }}"
                ),
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// On a new host, the folders that the directories lie in are for all to pass through. Which were made, a file tells.
    fn make_parents(&self) -> String {
        let made = format!("{}/made", self.run_dir);
        format!(
            "folder() {{ if [ ! -d \"$1\" ]; then folder \"$(dirname \"$1\")\"; echo \"$1\" >>{made}; mkdir \"$1\"; fi; }}\n{}",
            self.parents(|parent| format!("(umask 022; folder {parent})"))
        )
    }

    /// Removes the folders that were made, if nothing is in them.
    fn remove_parents(&self) -> String {
        format!(
            "if [ -e {made} ]; then\nsort -r {made} | while read -r folder; do rmdir \"$folder\" 2>/dev/null || true; done\nfi",
            made = format_args!("{}/made", self.run_dir)
        )
    }

    /// The same, fetched and built by the host.
    fn pull(&self, pull: &Pull) -> OnHost {
        let sent = self.send();
        let Some(member) = &self.host.member else { return sent };
        let (plan, new) = (self.plan, &self.places.data.new);
        let into = if self.places.inside { new.with_extension("tmp") } else { new.clone() };
        let mut words = vec![
            quote_path(&agent_path(&plan.agent, self.host)),
            "restore".to_owned(),
            format!("--repo {}", quote(&pull.repo)),
            format!("--name {}", quote(&member.name)),
            format!("--initial-cluster {}", quote(&plan.initial_cluster())),
            format!("--initial-cluster-token {}", quote(&plan.token)),
            format!("--data-dir {}", quote_path(&into)),
        ];
        let mut option = |flag: &str, value: Option<String>| {
            words.extend(value.map(|value| format!("--{flag} {}", quote(&value))));
        };
        let shown = |path: &PathBuf| path.display().to_string();
        option("cluster", plan.backup.cluster.clone());
        option("at", plan.backup.name.clone());
        option("wal-dir", self.places.wal.as_ref().map(|wal| shown(&wal.new)));
        option("target-version", plan.target_version());
        option("identity", pull.identity.as_ref().map(shown));
        let bump = plan.backup.revision.map(|revision| plan.bump.amount(revision).to_string());
        option("bump-revision", bump);
        let trees: Vec<_> = self.places.all().map(|place| quote_path(&place.new)).collect();
        let mut run = format!("rm -rf {}\n{}\n", trees.join(" "), self.make_parents());
        for name in &pull.variables {
            // They are set before this script, by lifeboat alone.
            run += &format!(": \"${{{name}:?must be set where lifeboat runs}}\"\n");
        }
        if let Some(file) = &pull.env_file {
            run += &format!("set -a\n. {}\nset +a\n", quote_path(file));
        }
        // What it says on its way would hide the error.
        run += &format!(
            "{} >/dev/null 2>{log} || {{ code=$?; sed -n '/^error:/,$p' {log} >&2; return $code; }}\n",
            words.join(" "),
            log = format_args!("{}/restore.log", self.run_dir)
        );
        if self.places.inside {
            let (into, new) = (quote_path(&into), quote_path(new));
            run += &format!("mv {into}/member {new}\nrmdir {into}\n");
        }
        self.on_host(sent.check, run + &sent.run, sent.undo)
    }

    /// With etcd's own tools, from a snapshot that was copied to the run's folder.
    fn restore_by_hand(&self) -> String {
        let Some(member) = &self.host.member else { return String::new() };
        let new = &self.places.data.new;
        let into = if self.places.inside { new.with_extension("tmp") } else { new.clone() };
        let wal =
            self.places.wal.as_ref().map(|wal| format!(" --wal-dir {}", quote_path(&wal.new)));
        let arguments = format!(
            "snapshot restore {}/snapshot.db --data-dir {}{} --name {} --initial-cluster {} --initial-cluster-token {} --initial-advertise-peer-urls {}",
            self.run_dir,
            quote_path(&into),
            wal.unwrap_or_default(),
            quote(&member.name),
            quote(&self.plan.initial_cluster()),
            quote(&self.plan.token),
            quote(&member.peer_urls.join(",")),
        );
        let bump = self.plan.backup.revision.map(|revision| self.plan.bump.amount(revision));
        let bump =
            bump.filter(|by| *by > 0).map(|by| format!(" --bump-revision {by} --mark-compacted"));
        let mut text = format!(
            "if command -v etcdutl >/dev/null; then etcdutl {arguments}{}\nelse ETCDCTL_API=3 etcdctl {arguments}; fi",
            bump.unwrap_or_default()
        );
        if self.places.inside {
            let (into, new) = (quote_path(&into), quote_path(new));
            text += &format!("\nmv {into}/member {new} && rmdir {into}");
        }
        text
    }

    fn stop_clients(&self) -> OnHost {
        let stopped: Vec<_> =
            self.stopped_clients().map(|client| self.shell(client).stopped()).collect();
        let check = format!("{} || {{ {}; }}", self.started(), stopped.join(" && "));
        let each = |text: &dyn Fn(Shell<'_>) -> String| {
            let texts: Vec<_> =
                self.stopped_clients().map(|client| text(self.shell(client))).collect();
            texts.join("\n")
        };
        self.on_host(check, each(&|shell| shell.stop()), each(&|shell| shell.start()))
    }

    fn stop_etcd(&self) -> OnHost {
        let etcd = self.etcd();
        let free = format!("{} && {}", etcd.stopped(), self.unlocked());
        let run = format!(
            "{}\n{}",
            etcd.stop(),
            service::wait(
                &self.unlocked(),
                UNLOCKED_SECONDS,
                "a process has the database open still"
            )
        );
        // Without its data, etcd would begin a cluster of its own.
        let undo =
            format!("if {}; then\n{}\nelse {}; fi", self.has_old(), etcd.start(), etcd.release());
        self.on_host(format!("{} || {{ {free}; }}", self.started()), run, undo)
    }

    /// Its data, made a snapshot and fetched.
    fn rescue(&self) -> Vec<Step> {
        let label = &self.host.label;
        let one = |id: &str, title: String, kind, part| step(id, &title, kind, [part].into_iter());
        let mut steps = Vec::new();
        if self.plan.rescue.as_ref().is_some_and(|rescue| rescue.etcd_runs) {
            let title = format!(
                "Stop etcd on {label}: without quorum nobody can write to it, and its data are read next"
            );
            steps.push(one(rescue::HOLD, title, Kind::Script, self.stop_etcd()));
        }
        let title = format!("Prove {label}'s data, and make a snapshot of them beside them");
        steps.push(one(rescue::TAKE, title, Kind::Script, self.take()));
        let title = format!("Fetch the snapshot of {label}'s data");
        steps.push(one(rescue::FETCH, title, Kind::Fetch, self.fetched()));
        steps
    }

    /// A snapshot of the data directory, beside it.
    fn take(&self) -> OnHost {
        let (current, to) = (&self.places.data.current, rescue::on_host(self.plan, &self.places));
        let data_dir =
            if self.places.inside { current.parent().unwrap_or(current) } else { current };
        let (file, told) = (quote_path(&to), quote_path(&rescue::told(&to)));
        let mut command = format!(
            "{} snapshot save {file} --force -w json --data-dir {}",
            quote_path(&agent_path(&self.plan.agent, self.host)),
            quote_path(data_dir)
        );
        if let Some(wal) = &self.places.wal {
            command += &format!(" --wal-dir {}", quote_path(&wal.current));
        }
        if self.plan.rescue.as_ref().is_some_and(|rescue| rescue.db_only) {
            command += " --db-only";
        }
        let check = format!("[ -e {file} ] && [ -e {told} ]");
        let run = format!(
            "if {}; then echo 'the new data are in place: the old ones cannot be taken any more' >&2; return 1; fi\n\
             if {}; then echo {} >&2; return 1; fi\n\
             {command} >{told}.part\n\
             mv {told}.part {told}\n\
             sync",
            self.swapped(),
            self.etcd().running(),
            quote(&format!(
                "etcd runs here again: stop it and run the same command again, or begin anew after `lifeboat recover rollback {}`",
                self.plan.run
            ))
        );
        self.on_host(check, run, format!("rm -f {file} {file}.part {told} {told}.part"))
    }

    /// What [`take`](Self::take) made is not needed on the host any more.
    fn fetched(&self) -> OnHost {
        let taken = self.take();
        let to = rescue::on_host(self.plan, &self.places);
        let check = format!("{} && {}", absent(&to), absent(&rescue::told(&to)));
        self.on_host(check, taken.undo, String::new())
    }

    /// Whether the data that are in place can be started.
    fn has_old(&self) -> String {
        exists(&self.places.member(&self.places.data.current))
    }

    /// No process has the database open: etcd locks it.
    fn unlocked(&self) -> String {
        let db = quote_path(&self.places.member(&self.places.data.current).join("snap/db"));
        format!("{{ [ ! -e {db} ] || ! command -v flock >/dev/null || flock -n {db} true; }}")
    }

    /// Before a data directory is renamed: whoever may have started etcd meanwhile, as a supervisor does, would have it serve from
    /// a directory that has another name by then.
    fn is_stopped(&self) -> String {
        let etcd = self.etcd();
        format!(
            "if {}; then\n{}\nfi\n{}",
            etcd.running(),
            etcd.stop(),
            service::wait(
                &self.unlocked(),
                UNLOCKED_SECONDS,
                "a process has the database open still"
            )
        )
    }

    fn set_aside(&self) -> OnHost {
        let (data, swapped) = (&self.places.data, self.swapped());
        let stopped = self.is_stopped();
        let mut check = format!("{{ {swapped} || {}; }}", absent(&data.current));
        let mut run = format!("{stopped}\n{}", aside(data, &swapped));
        let mut undo = format!("if {}; then\n{stopped}\nfi\n", exists(&data.old));
        if let Some(wal) = &self.places.wal {
            let is_new = format!("{{ {swapped} && {}; }}", absent(&wal.new));
            check += &format!(" && {{ {is_new} || {}; }}", absent(&wal.current));
            run += &format!("\n{}", aside(wal, &is_new));
            undo += &(back(wal) + "\n");
        }
        undo += &back(data);
        self.on_host(check, run, undo)
    }

    fn swap_in(&self) -> OnHost {
        let (data, swapped) = (&self.places.data, self.swapped());
        let mut check = swapped.clone();
        let mut run = format!(
            "{}\nif ! {swapped}; then\n{}\nfi",
            self.is_stopped(),
            rename(&data.new, &data.current)
        );
        // The mark goes with the data, so they are taken out last.
        let mut undo = format!("if {swapped}; then\n{}\nfi", put_away(data));
        if let Some(wal) = &self.places.wal {
            check += &format!(" && {} && {}", absent(&wal.new), exists(&wal.current));
            run +=
                &format!("\nif {}; then\n{}\nfi", exists(&wal.new), rename(&wal.new, &wal.current));
            undo = format!(
                "if {swapped} && {} && {}; then\n{}\nfi\n{undo}",
                absent(&wal.new),
                exists(&wal.current),
                put_away(wal)
            );
        }
        // What has run is kept, whoever started it.
        undo = format!(
            "if {swapped}; then\nif {}; then {}; fi\n{}\nfi\n{undo}",
            self.etcd().running(),
            self.note_has_run(),
            self.is_stopped()
        );
        // What no etcd of ours has run with is what was built, and nothing else.
        let undone: Vec<_> = self.places.all().map(|place| quote_path(&place.undone)).collect();
        undo += &format!("\nif ! {}; then rm -rf {}; fi", self.has_run(), undone.join(" "));
        let trees: Vec<_> = self.places.all().map(|place| quote_path(&place.current)).collect();
        run += &format!(
            "\nif command -v selinuxenabled >/dev/null && selinuxenabled; then restorecon -RF {}; fi",
            trees.join(" ")
        );
        self.on_host(check, run, undo)
    }

    fn note_has_run(&self) -> String {
        let has_run = format!("{}/has-run", self.run_dir);
        format!("touch {has_run}; {}", durable(&has_run))
    }

    fn start_etcd(&self) -> OnHost {
        let (etcd, started) = (self.etcd(), self.started());
        let mark = format!("{}/started", self.run_dir);
        let check = format!("{started} && {}", etcd.started());
        let run = format!("touch {mark}\n{}\n{}", durable(&mark), etcd.start());
        // Somebody else may have started the new members, after they were stopped by a rollback that was cut.
        let undo = format!(
            "if {started} || {{ {} && {{ {}; }}; }}; then\n{}\n{}\nrm -f {mark}\nfi",
            self.swapped(),
            etcd.running(),
            etcd.stop(),
            self.note_has_run()
        );
        self.on_host(check, run, undo)
    }

    /// etcdctl with its flags, for a person on the host.
    fn etcdctl(&self) -> String {
        let mut etcdctl = String::from("ETCDCTL_API=3 etcdctl");
        let tls = &self.host.certificates;
        for (flag, file) in [("cacert", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
            if let Some(file) = file {
                etcdctl += &format!(" --{flag} {}", quote_path(file));
            }
        }
        if let (Some(user), Some(file)) = (&self.host.user, &self.host.password_file) {
            let (user, file) = (quote(user), quote_path(file));
            etcdctl = format!("ETCDCTL_PASSWORD=$(head -n 1 {file}) {etcdctl} --user {user}");
        }
        let urls = self.host.member.as_ref().map(|member| member.client_urls.join(","));
        etcdctl + &format!(" --endpoints {}", quote(&urls.unwrap_or_default()))
    }

    fn verify(&self) -> OnHost {
        let etcdctl = self.etcdctl();
        let by_hand = format!(
            "{}\n{etcdctl} member list\n{etcdctl} endpoint hashkv\n{etcdctl} alarm list",
            service::wait(&format!("{etcdctl} endpoint health"), 120, "etcd is not healthy")
        );
        OnHost {
            by_hand: Some(by_hand),
            ..self.on_host(String::new(), String::new(), String::new())
        }
    }

    fn start_client(&self, client: &Client, id: &str) -> OnHost {
        let shell = self.shell(client);
        let ready = client.ready.as_deref().map(|url| service::wait_ready(&client.service, url));
        // What is restarted looks the same before and after; a file tells.
        let done = format!("{}/{}", self.run_dir, quote(&format!("{id}.done")));
        let mut run = match client.restart {
            true => shell.restart(),
            false => shell.start(),
        };
        if let Some(ready) = ready {
            run += &format!("\n{ready}");
        }
        run += &format!("\ntouch {done}");
        let check = match client.restart {
            true => format!("[ -e {done} ]"),
            false => format!("[ -e {done} ] && {}", shell.started()),
        };
        let undo = match client.restart {
            true => format!("rm -f {done}"),
            false => format!("if {}; then\n{}\nrm -f {done}\nfi", self.started(), shell.stop()),
        };
        self.on_host(check, run, undo)
    }
}

/// A name of a step, which is a file's name too.
fn plain(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-_.@".contains(c) { c } else { '_' };
    name.chars().map(allowed).collect()
}

fn exists(path: &std::path::Path) -> String {
    format!("[ -e {} ]", quote_path(path))
}

fn absent(path: &std::path::Path) -> String {
    format!("[ ! -e {} ]", quote_path(path))
}

/// Moves a directory; never into one that is there.
fn rename(from: &std::path::Path, to: &std::path::Path) -> String {
    format!(
        "if {taken}; then echo {to} 'is in the way' >&2; return 1; fi\n\
         mv {from} {to}\n\
         sync {parent} 2>/dev/null || sync",
        taken = exists(to),
        from = quote_path(from),
        to = quote_path(to),
        parent = parent(to),
    )
}

/// Takes away what is current. What an earlier rollback has taken away is left as it is.
fn put_away(place: &Place) -> String {
    format!(
        "undone={undone}\n\
         number=2\n\
         while [ -e \"$undone\" ]; do undone={undone}.$number; number=$((number+1)); done\n\
         mv {current} \"$undone\"\n\
         sync {parent} 2>/dev/null || sync",
        undone = quote_path(&place.undone),
        current = quote_path(&place.current),
        parent = parent(&place.undone),
    )
}

/// The folder that a directory lies in, quoted.
fn parent(directory: &std::path::Path) -> String {
    quote_path(directory.parent().expect("a directory of etcd is not the root"))
}

/// Sets a place's current directory aside, unless it is new already.
fn aside(place: &Place, is_new: &str) -> String {
    let there = exists(&place.current);
    format!("if {there} && ! {is_new}; then\n{}\nfi", rename(&place.current, &place.old))
}

/// Puts a place's old directory back.
fn back(place: &Place) -> String {
    format!("if {}; then\n{}\nfi", exists(&place.old), rename(&place.old, &place.current))
}

#[cfg(test)]
mod tests;
