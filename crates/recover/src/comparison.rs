//! A backup and what members have left, side by side: what each has, what is lost with it, and which is to be preferred.
//!
//! Revisions are compared where they are of one cluster ([`Kinship`]), and times where both are known: a snapshot file has only a
//! date, which a copy has of its own.

use crate::{
    contents::{Contents, Kinship},
    plan::{Chosen, Plan},
    rescue::{Rescue, Survivor, most_recent},
    runbook::span,
};
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write as _;

/// Times of two machines that differ by less say nothing: clocks differ, and a file's time has whole seconds.
const CLOCKS: SignedDuration = SignedDuration::from_secs(5);
const BACKUP: &str = "the backup";

/// One of those that are compared.
struct Side<'a> {
    name: &'a str,
    contents: Contents,
}

/// Backup and data that are left, side by side, and what speaks for which; nothing if no data are left.
pub(crate) fn comparison(plan: &Plan, now: Timestamp) -> String {
    if plan.survivors.is_empty() {
        return String::new();
    }
    let backup = match plan.rescue {
        Some(_) => plan.other_backup.as_ref(),
        None => Some(&plan.backup),
    };
    let best = most_recent(&plan.survivors);
    let of_backup = backup.map(|backup| Side { name: BACKUP, contents: backup.contents() });
    let of_best =
        best.map(|best| Side { name: best.label.as_str(), contents: best.held.contents() });
    let newest = of_best.iter().chain(&of_backup).max_by_key(|side| side.contents.revision);
    let title = ["", "revision", "last change", "age", "what is lost with it"];
    let mut rows = vec![title.map(str::to_owned)];
    if let (Some(backup), Some(side)) = (backup, &of_backup) {
        let name = format!("{} the backup", mark(plan.rescue.is_none()));
        let lost = lost(side, newest).unwrap_or_else(|| "all writes since".to_owned());
        let mut row = row(name, backup.revision, backup.taken, now, lost);
        if let (None, Some(dated)) = (backup.taken, backup.dated) {
            row[2] = format!("file dated {dated:.0}");
        }
        rows.push(row);
    }
    for survivor in &plan.survivors {
        let held = &survivor.held;
        let chosen = plan.rescue.as_ref().is_some_and(|rescue| rescue.member == survivor.label);
        let runs = if survivor.etcd_runs { ", etcd runs" } else { "" };
        let name = format!("{} {}'s data{runs}", mark(chosen), survivor.label);
        let side = Side { name: &survivor.label, contents: held.contents() };
        let lost = match held.trouble {
            Some(_) => "cannot be taken as they are".to_owned(),
            None => lost(&side, newest).unwrap_or_else(|| "what only other members had".to_owned()),
        };
        let mut row = row(name, held.revision, held.written, now, lost);
        row[1] += if held.counted_only { "+" } else { "" };
        rows.push(row);
    }
    let mut text = "\nWhat there is to bring it back from (*: what this plan takes)\n\n".to_owned();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths = [0, 1, 2, 3].map(|column| width(column).unwrap_or(0));
    for row in &rows {
        let cells = row.iter().zip(widths.into_iter().chain([0]));
        let line: String = cells.map(|(cell, width)| format!("  {cell:<width$}")).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for line in advice(plan, backup, best) {
        let _ = writeln!(text, "\n  {line}");
    }
    text
}

fn mark(chosen: bool) -> char {
    if chosen { '*' } else { ' ' }
}

fn row(
    name: String,
    revision: Option<i64>,
    written: Option<Timestamp>,
    now: Timestamp,
    lost: String,
) -> [String; 5] {
    let unknown = || "not known".to_owned();
    [
        name,
        revision.map_or_else(unknown, |revision| revision.to_string()),
        written.map_or_else(unknown, |written| format!("{written:.0}")),
        written.map_or_else(unknown, |written| span(written, now)),
        lost,
    ]
}

/// What the newest is known to have more, or why that is not known; nothing if it is not more.
fn lost(side: &Side<'_>, newest: Option<&Side<'_>>) -> Option<String> {
    let newest = newest.filter(|newest| newest.name != side.name)?;
    let more = newest.contents.revision?.checked_sub(side.contents.revision?)?;
    let (of, with_backup) = (newest.name, side.name == BACKUP || newest.name == BACKUP);
    match side.contents.kinship(&newest.contents) {
        Kinship::Recovered => Some(format!("how much is not known: {of} is from after a recovery")),
        Kinship::Strangers => Some(format!("not known: it is not of the cluster of {of}")),
        // All hosts of the file are of one cluster, but nobody knows where a backup comes from.
        Kinship::Unknown if with_backup => Some("not known".to_owned()),
        Kinship::Unknown | Kinship::Same => {
            (more > 0).then(|| format!("{} that {of} has", revisions(more)))
        }
    }
}

/// How many, for a person.
pub(crate) fn revisions(count: i64) -> String {
    if count == 1 { "1 revision".to_owned() } else { format!("{count} revisions") }
}

/// What a person must know to choose.
fn advice(plan: &Plan, backup: Option<&Chosen>, best: Option<&Survivor>) -> Vec<String> {
    let mut lines = Vec::new();
    for survivor in plan.survivors.iter().filter(|survivor| !survivor.is_usable()) {
        let trouble = survivor.held.trouble.as_deref().unwrap_or_default();
        lines.push(format!("{}'s data: {trouble}", survivor.label));
    }
    let sound = plan.survivors.iter().filter(|survivor| survivor.held.revision.is_some());
    let sound = sound.filter(|survivor| survivor.is_usable()).count();
    if sound > plan.hosts().iter().filter(|host| host.member.is_some()).count() / 2 {
        lines.push(
            "A majority of the members has its data. If these members can be started, do that instead: nothing is lost then.".to_owned(),
        );
    }
    for survivor in plan.survivors.iter().filter(|survivor| survivor.held.counted_only) {
        lines.push(format!(
            "{}'s revision is that of its database; {} entries that are only in its log come on top of it.",
            survivor.label,
            survivor.held.log.map_or(0, |log| log.entries)
        ));
    }
    let Some(best) = best else { return lines };
    match &plan.rescue {
        None => lines.push(offer(best, &plan.backup)),
        Some(rescue) => lines.extend(of_choice(plan, rescue, best, backup)),
    }
    lines
}

/// Whether the member's data are better than the backup that is taken unless one says otherwise.
fn offer(best: &Survivor, backup: &Chosen) -> String {
    let label = &best.label;
    let flag = format!("to take them instead of the backup: --from-member {label}");
    let (Some(held), Some(of_backup)) = (best.held.reach(), backup.revision) else {
        return unasked(best, backup, &flag);
    };
    match best.held.contents().kinship(&backup.contents()) {
        Kinship::Same if held > of_backup => {
            let by = if best.held.counted_only { "up to " } else { "" };
            let more = revisions(held - of_backup);
            format!("Recommended: {label}'s data, newer than the backup by {by}{more}; {flag}")
        }
        Kinship::Same => format!("Recommended: the backup; {label}'s data are not newer"),
        Kinship::Recovered if held > of_backup => format!(
            "Recommended: {label}'s data, which the cluster has served last. It was recovered since the backup, which raised its revisions, so their difference does not tell how much is lost with the backup; {flag}"
        ),
        Kinship::Recovered => format!(
            "Recommended: the backup; {label}'s data are from before the cluster was recovered, which raised its revisions"
        ),
        Kinship::Strangers => format!("{}; {flag}", strangers(label)),
        Kinship::Unknown => format!("{}; {flag}", unknown(label)),
    }
}

/// Without revisions, times are all there is.
fn unasked(best: &Survivor, backup: &Chosen, flag: &str) -> String {
    let label = &best.label;
    if best.held.revision.is_some() {
        return format!("The backup's revision is not known; {flag}");
    }
    let told = match (best.held.written, backup.taken) {
        (Some(written), Some(taken)) => {
            let when = match written.duration_since(taken) {
                after if after > CLOCKS => "after",
                before if before < -CLOCKS => "before",
                _ => "at about the time at which",
            };
            format!("{label}'s data were written {when} the backup was begun.")
        }
        (_, None) => format!(
            "Whether {label}'s data are newer than the backup is not known: the date of a snapshot file may be that of a copy."
        ),
        (None, _) => format!("Whether {label}'s data are newer than the backup is not known."),
    };
    format!("{told} How far they go: --ask tells (it puts lifeboat's binary on the hosts); {flag}")
}

fn strangers(label: &str) -> String {
    format!(
        "Whether {label}'s data are newer than the backup is not known: they have no member in common, so the backup is of another cluster, or this one was made anew since"
    )
}

fn unknown(label: &str) -> String {
    format!(
        "Whether {label}'s data are newer than the backup is not known: nothing tells whether both are of one cluster, and only then can their revisions be compared"
    )
}

/// What speaks against the member that was chosen, and what becomes of the end of its log.
fn of_choice(
    plan: &Plan,
    rescue: &Rescue,
    best: &Survivor,
    backup: Option<&Chosen>,
) -> Vec<String> {
    let mut lines = Vec::new();
    let label = &rescue.member;
    let Some(chosen) = plan.survivors.iter().find(|survivor| survivor.label == *label) else {
        return lines;
    };
    let backup = backup.filter(|backup| backup.revision.is_some());
    let kinship = backup.map(|backup| chosen.held.contents().kinship(&backup.contents()));
    let is_older = backup.is_some_and(|backup| {
        chosen.held.reach().is_some() && backup.revision >= chosen.held.reach()
    });
    let instead = "To take it: leave out --from-member";
    match kinship {
        Some(Kinship::Same) if is_older => lines.push(format!(
            "Recommended: the backup; {label}'s data are not newer. {instead}"
        )),
        Some(Kinship::Recovered) if is_older => lines.push(format!(
            "Recommended: the backup; {label}'s data are from before the cluster was recovered, which raised its revisions. {instead}"
        )),
        Some(Kinship::Strangers) => lines.push(format!("{}. {instead}", strangers(label))),
        Some(Kinship::Unknown) => lines.push(format!("{}. {instead}", unknown(label))),
        _ => {}
    }
    if lines.is_empty() && best.compare(chosen).is_gt() {
        lines.push(format!(
            "Recommended: {0}'s data, which are more recent than {label}'s: --from-member {0}",
            best.label
        ));
    } else if lines.is_empty() {
        lines.push(format!("{label}'s data are the most recent that are left."));
    }
    match chosen.held.log {
        _ if rescue.db_only => lines.push(format!("{label}'s log is left out, as --db-only says.")),
        Some(log) if log.beyond_commit == 1 => lines.push(format!(
            "The last entry of {label}'s log lies beyond the commit that it tells. It is kept: a client may have been told that it is done.",
        )),
        Some(log) if log.beyond_commit > 0 => lines.push(format!(
            "{} of the last entries of {label}'s log lie beyond the commit that it tells. They are kept: clients may have been told that they are done.",
            log.beyond_commit
        )),
        Some(_) => lines.push(format!("No entry of {label}'s log lies beyond the commit that it tells.")),
        None => {}
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::tests::plan, rescue::tests::survivor, runbook, summary};

    fn now() -> Timestamp {
        "2026-11-22T16:00:00Z".parse().unwrap()
    }

    #[track_caller]
    fn says(plan: &Plan, parts: &[&str]) {
        let text = comparison(plan, now());
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn both_ages_stand_side_by_side_and_the_newer_is_recommended() {
        let mut plan = plan();
        assert_eq!(comparison(&plan, now()), "");
        plan.survivors = vec![survivor("m2", 150, 3, 200)];
        plan.survivors[0].etcd_runs = true;
        assert_eq!(
            comparison(&plan, now()),
            "
What there is to bring it back from (*: what this plan takes)

                          revision  last change           age     what is lost with it
  * the backup            100       2026-11-22T15:00:00Z  60 min  50 revisions that m2 has
    m2's data, etcd runs  150       2026-11-22T15:58:00Z  2 min   what only other members had

  Recommended: m2's data, newer than the backup by 50 revisions; to take them instead of the backup: --from-member m2
"
        );
        plan.survivors[0].held.revision = Some(90);
        says(
            &plan,
            &[
                "10 revisions that the backup has",
                "Recommended: the backup; m2's data are not newer",
            ],
        );
    }

    #[test]
    fn a_plan_from_a_member_says_what_becomes_of_the_end_of_its_log() {
        let mut plan = plan();
        plan.survivors = vec![survivor("m2", 150, 3, 200), survivor("m3", 140, 3, 190)];
        plan.survivors[0].held.log.as_mut().unwrap().beyond_commit = 2;
        plan.other_backup = Some(plan.backup.clone());
        plan.rescue = Some(Rescue { member: "m2".to_owned(), etcd_runs: true, db_only: false });
        says(
            &plan,
            &[
                "* m2's data",
                "    the backup",
                "10 revisions that m2 has",
                "m2's data are the most recent that are left.",
                "2 of the last entries of m2's log lie beyond the commit that it tells. They are kept",
                "A majority of the members has its data.",
            ],
        );
        assert!(
            summary(&plan, now())
                .contains("lost      what only other members had, and m2 had not yet")
        );
        let text = runbook(&plan, now());
        let steps = [
            "Claim the hosts for this run",
            "Stop etcd on m2",
            "Prove m2's data",
            "Fetch the snapshot of m2's data",
            "Prove the snapshot, and build",
            "Put the new data directory beside the old one",
            "From here on the cluster is down",
        ];
        let places: Vec<_> = steps.iter().map(|step| text.find(step).expect(step)).collect();
        assert!(places.is_sorted(), "{places:?}\n{text}");
        plan.rescue.as_mut().unwrap().member = "m3".to_owned();
        says(&plan, &["Recommended: m2's data, which are more recent than m3's: --from-member m2"]);
    }

    #[test]
    fn where_nobody_was_asked_only_ages_are_compared() {
        let mut plan = plan();
        plan.survivors = vec![survivor("m2", 150, 3, 200)];
        (plan.survivors[0].held.revision, plan.survivors[0].held.log) = (None, None);
        says(&plan, &["not known", "m2's data were written after the backup was begun", "--ask"]);
    }

    #[test]
    fn seconds_between_two_clocks_say_nothing() {
        let mut plan = plan();
        plan.survivors = vec![survivor("m2", 150, 3, 200)];
        (plan.survivors[0].held.revision, plan.survivors[0].held.log) = (None, None);
        for (at, told) in [
            ("2026-11-22T15:00:00Z", "at about the time at which"),
            ("2026-11-22T14:59:58Z", "at about the time at which"),
            ("2026-11-22T14:59:50Z", "before"),
            ("2026-11-22T15:00:06Z", "after"),
        ] {
            plan.survivors[0].held.written = Some(at.parse().unwrap());
            says(&plan, &[&format!("m2's data were written {told} the backup was begun.")]);
        }
    }

    #[test]
    fn the_date_of_a_snapshot_file_is_shown_and_compared_with_nothing() {
        let mut plan = plan();
        plan.backup.dated = plan.backup.taken.take();
        plan.survivors = vec![survivor("m2", 150, 3, 200)];
        says(&plan, &["file dated 2026-11-22T15:00:00Z  not known  50 revisions that m2 has"]);
        let text = summary(&plan, now());
        assert!(text.contains("dated     2026-11-22T15:00:00Z, its file: a copy has"), "{text}");
        assert!(text.contains("lost      all writes since the backup: 50 revisions"), "{text}");
        (plan.survivors[0].held.revision, plan.survivors[0].held.log) = (None, None);
        says(
            &plan,
            &[
                "newer than the backup is not known: the date of a snapshot file may be that of a copy",
                "--ask",
            ],
        );
    }

    #[test]
    fn revisions_of_two_clusters_are_not_compared() {
        let mut plan = plan();
        plan.survivors = vec![survivor("m2", 150, 3, 200)];
        plan.survivors[0].held.members = [7].into();
        says(&plan, &["not known: it is not of the cluster of m2", "no member in common"]);
        plan.bump.members = [7].into();
        let text = summary(&plan, now());
        assert!(
            text.contains("m1 was seen at revision 150, but has no member in common"),
            "{text}"
        );
        plan.backup.members.clear();
        says(&plan, &["nothing tells whether both are of one cluster"]);
    }

    #[test]
    fn a_recovery_since_the_backup_is_not_taken_for_lost_revisions() {
        let mut plan = plan();
        plan.survivors = vec![survivor("m2", 1_000_000_103, 2, 30)];
        plan.survivors[0].held.members = [7].into();
        (plan.bump.last_seen, plan.bump.members) = (Some(1_000_000_103), [7].into());
        let text = summary(&plan, now());
        for part in [
            "the cluster was recovered since the backup, which raised its revisions",
            "how much is not known: m2 is from after a recovery",
            "Recommended: m2's data, which the cluster has served last.",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains("1000000003"), "{text}");
        plan.survivors[0].held.revision = Some(90);
        plan.backup.revision = Some(1_000_000_103);
        says(
            &plan,
            &["Recommended: the backup; m2's data are from before the cluster was recovered"],
        );
    }

    #[test]
    fn entries_that_were_only_counted_are_told() {
        let mut plan = plan();
        plan.survivors = vec![survivor("m2", 100, 3, 200)];
        plan.survivors[0].held.counted_only = true;
        plan.survivors[0].held.log.as_mut().unwrap().entries = 12;
        says(&plan, &["100+", "12 entries that are only in its log", "by up to 12 revisions"]);
    }
}
