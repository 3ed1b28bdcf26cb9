//! What stands on a host about runs: which one holds it, who began that, and how the one ended whose data are in place.
//!
//! ```text
//!   recover/MEMBER.lock             RUN                                       while a run works on the host
//!                                   of cluster prod, begun 2026-… by root@laptop, pid 4711
//!                                   /var/lib/etcd
//!                                   SEAT
//!                                   2026-… by root@laptop
//!   recover/RUN/MEMBER/ended        finished | committed | taken-back         when it has ended
//!                                   of cluster prod, begun 2026-… by root@laptop, pid 4711; finished 2026-…
//!                                   SEAT
//!                                   2026-… by root@laptop
//!   recover/RUN/MEMBER/plan.yaml    what another machine goes on with, if the one that began it is gone
//! ```
//!
//! * The lock is made once, and only the same run may change it: it then names the process that goes on with the run.
//! * A seat is the state folder of a machine: a run is had by one of them, whose later processes go on with it. Another one gets it by
//!   `adopt` alone.
//! * Whoever is not named there any more does nothing further: every step's script looks first.
//! * Which run's data are in place is told by the mark in them, not by these files; they only tell about that run.

use crate::{
    plan::Plan,
    shell::{durable, quote, quote_path},
    spec::Resolved,
};
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path};

/// The exit code of who finds a host held by another run.
pub(crate) const HELD: i32 = 75;
/// In what is told of a run that replaces a member, before its name.
const REPLACING: &str = "replacing ";

/// Who works on hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Holder {
    /// The user.
    pub user: String,
    /// The machine's name.
    pub machine: String,
    /// The process, unless a person works by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Names the folder of runs, unless a person works by hand.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub seat: String,
}

/// Why a run is not to be gone on with from here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Elsewhere {
    /// It was taken back.
    TakenBack {
        /// When, and by whom.
        told: String,
        /// By an earlier process of this machine.
        by_us: bool,
    },
    /// It was made final.
    Committed {
        /// When, and by whom.
        told: String,
    },
    /// It goes on from another machine.
    TakenOver {
        /// When, and by whom.
        told: String,
    },
}

/// What a host tells of who has a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// `held`, or how it has ended.
    pub(crate) word: String,
    /// Whose it is.
    pub(crate) seat: String,
    /// Since when, and by whom.
    pub(crate) told: String,
}

/// Hosts that did not answer when a run was taken over. What stands there about it is still of the machine before: it holds for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Left {
    /// The hosts.
    pub hosts: Vec<String>,
    /// The seat that the run was taken over from.
    pub seat: String,
}

/// What a lock, or the note about a run's end, says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Claim {
    /// The run's id.
    pub run: String,
    /// Of which cluster, since when, by whom.
    pub told: String,
}

/// The run whose data are in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Placed {
    /// Which, and what is known of it.
    pub claim: Claim,
    /// How it ended.
    pub ended: Ended,
    /// Where it has set aside what was there before, if that is there still.
    pub old: Option<String>,
}

/// How a run ended, as a host knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// Not yet, or nobody has said so.
    #[default]
    Unknown,
    /// The cluster is back; it can still be taken back.
    Finished,
    /// Final.
    Committed,
    /// The old data are back.
    TakenBack,
}

impl Holder {
    /// This process.
    pub fn here() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        // Who has become root is still the one to be asked.
        let user = set("SUDO_USER").or_else(|| set("USER")).or_else(|| set("LOGNAME"));
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let machine = machine.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        Self {
            user: user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw())),
            machine: machine.unwrap_or_else(|| "a machine without a name".to_owned()),
            pid: Some(std::process::id()),
            seat: String::new(),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.machine)?;
        self.pid.map_or(Ok(()), |pid| write!(f, ", pid {pid}"))
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, told } = self;
        if told.is_empty() { write!(f, "{run}") } else { write!(f, "{run} {told}") }
    }
}

impl Claim {
    /// Reads `RUN and what is told`.
    pub(crate) fn parse(text: &str) -> Self {
        let (run, told) = text.split_once(' ').unwrap_or((text, ""));
        Self { run: run.to_owned(), told: told.trim().to_owned() }
    }

    /// The member that the run replaces, if that is what it does.
    pub fn replaces(&self) -> Option<&str> {
        self.told.split(", ").find_map(|part| part.strip_prefix(REPLACING))
    }
}

impl Placed {
    /// Reads `RUN ended and what is told`.
    pub(crate) fn parse(text: &str) -> Self {
        let (run, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (ended, told) = rest.split_once(' ').unwrap_or((rest, ""));
        let ended = match ended {
            "finished" => Ended::Finished,
            "committed" => Ended::Committed,
            "taken-back" => Ended::TakenBack,
            _ => Ended::Unknown,
        };
        Self { claim: Claim { run: run.to_owned(), told: told.to_owned() }, ended, old: None }
    }
}

/// Of which cluster the run is, since when, and by whom.
pub(crate) fn told(plan: &Plan) -> String {
    let by = match (&plan.begun_by, &plan.by) {
        (Some(first), Some(by)) => {
            format!(" by {}@{}, taken over by {by}", first.user, first.machine)
        }
        (_, Some(by)) => format!(" by {by}"),
        (_, None) => String::new(),
    };
    let member = plan.replace.as_ref().map(|replace| format!(", {REPLACING}{}", replace.member));
    format!(
        "of cluster {}{}, begun {:.0}{by}",
        plan.spec.cluster,
        member.unwrap_or_default(),
        plan.made
    )
}

/// An expression that succeeds if the run has the host.
pub(crate) fn is_ours(plan: &Plan, lock: &str) -> String {
    format!("[ \"$(sed -n 1p {lock} 2>/dev/null)\" = {} ]", quote(&plan.run))
}

/// An expression that succeeds if this process has it.
pub(crate) fn is_held(plan: &Plan, lock: &str) -> String {
    format!("{} && [ \"$(sed -n 2p {lock})\" = {} ]", is_ours(plan, lock), quote(&told(plan)))
}

/// This machine's seat, quoted.
fn seat(plan: &Plan) -> String {
    quote(plan.by.as_ref().map_or("", |by| by.seat.as_str()))
}

/// A word of the shell: now, and who works here.
fn now_by(plan: &Plan) -> String {
    let by = plan.by.as_ref().map(|by| format!(" by {}@{}", by.user, by.machine));
    format!("\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"{}", quote(&by.unwrap_or_default()))
}

/// An expression that succeeds if the run is had from here, or nobody has said from where; or from where it was taken over while this
/// host did not answer.
fn is_of_this_seat(plan: &Plan, host: &Resolved, lock: &str) -> String {
    let left = plan.left_with(&host.label).map(|seat| format!(" | {}", quote(seat)));
    format!(
        "case \"$(sed -n 4p {lock})\" in '' | {}{}) true ;; *) false ;; esac",
        seat(plan),
        left.unwrap_or_default()
    )
}

/// Says who has the run, for [`Standing::parse`].
pub(crate) fn look_for_standing(plan: &Plan, host: &Resolved) -> String {
    let frame = plan.frame(host);
    let (lock, ended) = (frame.lock(), format!("{}/ended", frame.run_dir()));
    format!(
        "if {}; then echo held; sed -n 4,5p {lock}\n\
         elif [ -e {ended} ]; then sed -n '1p;3p;4p' {ended}; fi",
        is_ours(plan, &lock)
    )
}

impl Standing {
    /// Nothing, if the host knows nothing of the run.
    pub(crate) fn parse(answer: &str) -> Self {
        let line = |number| answer.lines().nth(number).unwrap_or_default().to_owned();
        Self { word: line(0), seat: line(1), told: line(2) }
    }
}

impl Elsewhere {
    /// What speaks against going on with a run from `seat`. As long as it holds a host it has not ended.
    pub(crate) fn of(seat: &str, standings: &[Standing]) -> Option<Self> {
        let ended = |word: &str| standings.iter().find(|standing| standing.word == word);
        let is_held = ended("held").is_some();
        if let Some(back) = ended("taken-back").filter(|_| !is_held) {
            let by_us = !seat.is_empty() && back.seat == seat;
            return Some(Self::TakenBack { told: back.told.clone(), by_us });
        }
        if let Some(committed) = ended("committed").filter(|_| !is_held) {
            return Some(Self::Committed { told: committed.told.clone() });
        }
        let other = standings.iter().find(|has| !has.seat.is_empty() && has.seat != seat)?;
        Some(Self::TakenOver { told: other.told.clone() })
    }
}

/// Takes the lock, or puts this process's name into it; another machine's only if the run is taken over.
///
/// A member is named by whoever writes the file, so two runs may lock the same data directory under two names: whoever has made its
/// lock looks for another one. Of two at once both may be refused; both never go on.
pub(crate) fn hold(plan: &Plan, host: &Resolved, take_over: bool) -> String {
    let frame = plan.frame(host);
    let (lock, new) = (frame.lock(), format!("{}/lock", frame.run_dir()));
    let data = quote_path(&plan.places(host).data_dir());
    let locks = quote_path(&host.state_dir.join("recover"));
    let tell = |lock: &str| {
        format!("echo \"held by the run $(sed -n 1p {lock}) $(sed -n 2p {lock})\" >&2")
    };
    format!(
        "printf '%s\\n' {} {} {} {} {} >{new}\n\
         if {} && {}; then mv {new} {lock}\n\
         else ln {new} {lock} 2>/dev/null || {{ [ -e {lock} ] || ln {new} {lock}; {}; rm -f {new}; return {HELD}; }}\n\
         for other in {locks}/*.lock; do\n\
         if [ \"$other\" != {lock} ] && [ \"$(sed -n 3p \"$other\")\" = {data} ]; then\n\
         {}; rm -f {new} {lock}; return {HELD}\n\
         fi\n\
         done\n\
         fi\n\
         rm -f {new}\n\
         {}",
        quote(&plan.run),
        quote(&told(plan)),
        data,
        seat(plan),
        now_by(plan),
        is_ours(plan, &lock),
        if take_over { "true".to_owned() } else { is_of_this_seat(plan, host, &lock) },
        tell(&lock),
        tell("\"$other\""),
        durable(&lock),
    )
}

/// Lets the host go.
fn let_go(plan: &Plan, host: &Resolved) -> String {
    let lock = plan.frame(host).lock();
    format!("if {}; then rm -f {lock}; fi", is_ours(plan, &lock))
}

/// Lets the host go, and notes that the run is taken back.
pub(crate) fn take_back(plan: &Plan, host: &Resolved) -> String {
    end(plan, host, Ended::TakenBack)
}

/// Notes how the run has ended, and lets the host go: whoever finds no lock finds the note.
pub(crate) fn end(plan: &Plan, host: &Resolved, ended: Ended) -> String {
    let word = match ended {
        Ended::Committed => "committed",
        Ended::TakenBack => "taken-back",
        Ended::Finished | Ended::Unknown => "finished",
    };
    let run_dir = plan.frame(host).run_dir();
    format!(
        "umask 077\n\
         mkdir -p {run_dir}\n\
         printf '%s\\n' {word} {}\"; {word} $(date -u +%Y-%m-%dT%H:%M:%SZ)\" {} {} >{run_dir}/ended.part\n\
         mv {run_dir}/ended.part {run_dir}/ended\n\
         {}\n\
         {}",
        quote(&told(plan)),
        seat(plan),
        now_by(plan),
        durable(&format!("{run_dir}/ended")),
        let_go(plan, host)
    )
}

/// Says `lock RUN …` for each lock of this member, or of its data directory under another name.
pub(crate) fn look_for_locks(lock: &str, state_dir: &Path, data_dir: &str) -> String {
    format!(
        "for lock in {}/*.lock; do\n\
         if [ -e \"$lock\" ] && {{ [ \"$lock\" = {lock} ] || [ \"$(sed -n 3p \"$lock\")\" = {data_dir} ]; }}; then\n\
         printf 'lock %s %s\\n' \"$(sed -n 1p \"$lock\")\" \"$(sed -n 2p \"$lock\")\"\n\
         fi\n\
         done\n",
        quote_path(&state_dir.join("recover"))
    )
}

/// Says `placed RUN …` and `placed-old …` of the run whose data are in `data_dir`.
pub(crate) fn look_for_placed(state_dir: &Path, data_dir: &str) -> String {
    format!(
        "for mark in {data_dir}/member/lifeboat-*; do\n\
         case $mark in *'*' | *.part) continue ;; esac\n\
         id=${{mark##*/lifeboat-}}\n\
         ended=unknown\n\
         for file in {}/\"$id\"/*/ended; do\n\
         [ ! -e \"$file\" ] || ended=\"$(sed -n 1p \"$file\") $(sed -n 2p \"$file\")\"\n\
         done\n\
         printf 'placed %s %s\\n' \"$id\" \"$ended\"\n\
         for old in {data_dir}.lifeboat-\"$id\" {data_dir}/member.lifeboat-\"$id\"; do\n\
         [ ! -e \"$old\" ] || printf 'placed-old %s\\n' \"$old\"\n\
         done\n\
         done\n",
        quote_path(&state_dir.join("recover"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{facts, plan::tests::plan, shell::Frame, steps::steps};
    use std::{path::PathBuf, process::Command};

    /// A host's folders on this machine.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir_all(place.data().join("member")).unwrap();
            place
        }

        fn data(&self) -> PathBuf {
            self.0.path().join("etcd")
        }

        fn plan(&self, run: &str, pid: u32) -> Plan {
            let mut plan = plan();
            run.clone_into(&mut plan.run);
            plan.spec.ssh.state_dir = Some(self.0.path().join("state"));
            plan.spec.etcd.data_dir = Some(self.data());
            plan.facts.clear();
            let machine = "laptop".to_owned();
            let (user, seat) = ("ops".to_owned(), format!("seat of {run}"));
            plan.by = Some(Holder { user, machine, pid: Some(pid), seat });
            plan
        }

        fn step(&self, plan: &Plan, id: &str) -> (bool, String) {
            let host = &plan.hosts()[0];
            let step = steps(plan).into_iter().find(|step| step.id == id).unwrap();
            sh(&plan.frame(host).step(id, &step.hosts[0].check, &step.hosts[0].run))
        }

        fn facts(&self, plan: &Plan) -> facts::Facts {
            let host = &plan.hosts()[0];
            let frame = Frame { claim: None, ..plan.frame(host) };
            let (_, answer) = sh(&frame.look(&facts::script(host, &frame)));
            facts::parse(&answer, 0.0, 0.0)
        }
    }

    fn sh(text: &str) -> (bool, String) {
        let output = Command::new("sh").arg("-c").arg(text).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), said + &String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn a_lock_says_who_has_it_and_refuses_others() {
        let place = Place::new();
        let (first, second) = (place.plan("r1", 1), place.plan("r2", 2));
        assert!(place.step(&first, "lock").0);
        let told = "r1 of cluster prod, begun 2026-11-22T16:00:00Z by ops@laptop, pid 1";
        let (ok, said) = place.step(&second, "lock");
        assert!(!ok && said.contains(&format!("held by the run {told}")), "{said}");
        let mut over = place.plan("r1", 3);
        over.begun_by = first.by.clone();
        let adopted = "begun 2026-11-22T16:00:00Z by ops@laptop, taken over by ops@laptop, pid 3";
        assert!(super::told(&over).ends_with(adopted), "{}", super::told(&over));
        assert_eq!(place.facts(&second).lock.unwrap().to_string(), told);
        // Under another name it is the same data directory.
        let mut renamed = second.clone();
        renamed.spec.hosts[0].member = None;
        assert_eq!(place.facts(&renamed).lock.unwrap().to_string(), told);
        let (ok, said) = place.step(&renamed, "lock");
        assert!(!ok && said.contains(&format!("held by the run {told}")), "{said}");
        assert!(sh(&take_back(&first, &first.hosts()[0])).0);
        assert!(place.step(&renamed, "lock").0, "what it made in vain is gone");
    }

    #[test]
    fn who_goes_on_with_a_run_stops_who_went_before() {
        let place = Place::new();
        let (first, second) = (place.plan("r1", 1), place.plan("r1", 2));
        assert!(place.step(&first, "lock").0 && place.step(&second, "lock").0);
        let set_aside = place.step(&first, "set-aside");
        assert!(!set_aside.0 && set_aside.1.contains("pid 2"), "{set_aside:?}");
        assert!(place.data().exists(), "nothing was moved");
        let (ok, said) = place.step(&second, "set-aside");
        assert!(ok && !place.data().exists(), "{said}");
    }

    #[test]
    fn a_run_that_has_ended_is_known_by_its_data_until_it_is_taken_back() {
        let place = Place::new();
        let (plan, next) = (place.plan("r1", 1), place.plan("r2", 2));
        assert!(place.step(&plan, "lock").0);
        let old = PathBuf::from(format!("{}.lifeboat-r1", place.data().display()));
        std::fs::create_dir_all(&old).unwrap();
        assert_eq!(place.facts(&next).placed, None);
        std::fs::write(place.data().join("member/lifeboat-r1"), "").unwrap();
        assert_eq!(place.facts(&next).placed.unwrap().ended, Ended::Unknown);

        let host = &plan.hosts()[0];
        for ended in [Ended::Finished, Ended::Committed] {
            assert!(sh(&end(&plan, host, ended)).0);
            let found = place.facts(&next);
            assert_eq!(found.lock, None);
            let found = found.placed.unwrap();
            assert_eq!((found.ended, found.claim.run.as_str()), (ended, "r1"));
            assert!(found.claim.told.contains("by ops@laptop, pid 1; "), "{found:?}");
            assert_eq!(found.old.as_deref(), old.to_str());
        }
        assert!(sh(&take_back(&plan, host)).0);
        assert_eq!(place.facts(&next).placed.unwrap().ended, Ended::TakenBack);
    }

    /// Goal: a run is had by one machine, and nobody goes on with one that has ended. Method: a second machine takes it over, and
    /// ends it in each way.
    #[test]
    fn a_run_that_was_taken_over_or_has_ended_is_not_gone_on_with_where_it_was_begun() {
        let place = Place::new();
        let here = place.plan("r1", 1);
        let mut there = place.plan("r1", 2);
        there.by.as_mut().unwrap().seat = "another seat".to_owned();
        let host = &here.hosts()[0];
        let elsewhere = |plan: &Plan| {
            let (ok, answer) = sh(&look_for_standing(plan, host));
            assert!(ok, "{answer}");
            Elsewhere::of(&plan.by.as_ref().unwrap().seat, &[Standing::parse(&answer)])
        };
        assert_eq!(elsewhere(&here), None);
        assert!(place.step(&here, "lock").0);
        // A later process of the same machine.
        assert!(place.step(&place.plan("r1", 3), "lock").0);
        assert_eq!(elsewhere(&here), None);
        let (ok, said) = place.step(&there, "lock");
        assert!(!ok && said.contains("held by the run r1"), "{said}");

        assert!(sh(&format!("take() {{\n{}\n}}\ntake", hold(&there, host, true))).0);
        assert_eq!(elsewhere(&there), None);
        let Some(Elsewhere::TakenOver { told }) = elsewhere(&here) else { panic!() };
        assert!(told.contains(" by ops@laptop"), "{told}");
        assert!(!place.step(&here, "lock").0, "it is not taken back silently");

        assert!(sh(&end(&there, host, Ended::Finished)).0);
        assert!(matches!(elsewhere(&here), Some(Elsewhere::TakenOver { .. })));
        assert_eq!(elsewhere(&there), None);
        assert!(sh(&end(&there, host, Ended::Committed)).0);
        assert!(matches!(elsewhere(&here), Some(Elsewhere::Committed { .. })));
        assert!(sh(&take_back(&there, host)).0);
        let back = |plan| match elsewhere(plan) {
            Some(Elsewhere::TakenBack { by_us, .. }) => Some(by_us),
            _ => None,
        };
        assert_eq!((back(&here), back(&there)), (Some(false), Some(true)));
    }
}
