//! What could expose, hide or lose a backup by mistake is refused, and said.

use std::fs;

use crate::{Repo, keys::Keys, lifeboat, observed, snapshot, text};

#[test]
fn a_cluster_is_meant_by_its_variable_and_an_unknown_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo"));
    for cluster in ["prod", "other"] {
        for _ in 0..2 {
            repo.run(["backup", "--cluster", cluster, "--from-file", text(&snapshot())]).ok();
        }
    }
    let mut prune = repo.command(["prune", "--keep-last", "1"]);
    let pruned = observed(prune.env("LIFEBOAT_CLUSTER", "prod")).ok();
    assert!(!pruned.stdout.contains("other"), "{}", pruned.stdout);
    assert_eq!(repo.list()["backups"].as_array().unwrap().len(), 3);

    for arguments in [
        &["list"][..],
        &["verify", "--all"],
        &["prune", "--keep-last", "1"],
        &["copy", "--all", "--to", text(&folder.path().join("to"))],
        &["show"],
    ] {
        let run = repo.run(arguments.iter().chain(&["--cluster", "prodd"])).code_is(1);
        run.stderr_has(&["prodd", "other, prod", "help: "]);
    }
    assert!(!folder.path().join("repo/prodd").exists());
}

#[test]
fn a_cluster_that_was_encrypted_gets_no_open_backup_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let open = Repo::folder(&folder.path().join("repo"));
    let sealed = open.clone().encrypted(&Keys::make_in(folder.path()));
    sealed.backup(&snapshot()).ok();
    open.backup(&snapshot()).code_is(5).stderr_has(&["is encrypted", "--unencrypted"]);
    assert_eq!(sealed.list()["backups"].as_array().unwrap().len(), 1);
    let file = snapshot();
    open.run(["backup", "--cluster", "prod", "--unencrypted", "--from-file", text(&file)]).ok();
}

#[test]
fn a_manifest_in_the_folder_of_another_cluster_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo"));
    repo.backup(&snapshot()).ok();
    fs::rename(folder.path().join("repo/prod"), folder.path().join("repo/prod2")).unwrap();
    for command in [&["list"][..], &["verify", "--all"]] {
        repo.run(command).code_is(3).stderr_has(&["is the manifest of", "prod"]);
    }
    repo.run(["show"]).code_is(1).stderr_has(&["is the manifest of"]);
    fs::rename(folder.path().join("repo/prod2"), folder.path().join("repo/prod")).unwrap();
    repo.run(["verify", "--all"]).ok();
}

#[test]
fn a_manifest_that_was_changed_by_hand_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo"));
    repo.backup(&snapshot()).ok();
    let snapshots = folder.path().join("repo/prod/snapshots");
    let backup = fs::read_dir(snapshots).unwrap().next().unwrap().unwrap().path();
    let manifest = backup.join("manifest.json");
    let json = fs::read_to_string(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    fs::write(&manifest, json.replace("\"revision\": 600", "\"revision\": 601")).unwrap();
    let data = folder.path().join("data");
    let run = repo.run(["restore", "--data-dir", text(&data)]).code_is(3);
    run.stderr_has(&["601", "600"]);
    assert!(!data.exists());
}

/// The manifest of a backup, rewritten.
fn rewrite_manifest(repo: &std::path::Path, from: &str, to: &str) {
    let backup = fs::read_dir(repo.join("prod/snapshots")).unwrap().next().unwrap().unwrap().path();
    let manifest = backup.join("manifest.json");
    let json = fs::read_to_string(&manifest).unwrap();
    assert!(json.contains(from), "{json}");
    fs::remove_file(&manifest).unwrap();
    fs::write(&manifest, json.replacen(from, to, 1)).unwrap();
}

#[test]
fn what_a_newer_lifeboat_wrote_is_no_damage_but_asks_for_an_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repo");
    let repo = Repo::folder(&root);
    repo.backup(&snapshot()).ok();
    rewrite_manifest(&root, "\"format\": 1", "\"format\": 7");
    let words = ["newer Lifeboat (format 7)", "up to format 1"];
    let to = folder.path().join("to");
    let copy = ["copy", "--all", "--to", text(&to)];
    for command in [&["list"][..], &["verify", "--all"], &["verify", "--quick", "--all"], &copy] {
        repo.run(command).code_is(1).stderr_has(&words);
    }
    repo.run(["verify", "--all"]).code_is(1).stderr_has(&["help: upgrade"]);
    repo.run(["restore", "--data-dir", text(&to)]).code_is(1).stderr_has(&words);
}

#[test]
fn folders_that_are_included_twice_come_back_once() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo")).encrypted(&Keys::make_in(folder.path()));
    let pki = folder.path().join("pki");
    fs::create_dir_all(pki.join("etcd")).unwrap();
    fs::write(pki.join("etcd/ca.crt"), "a certificate").unwrap();
    let (file, inner) = (snapshot(), pki.join("etcd"));
    let include = ["--include", text(&pki), "--include", text(&inner), "--include", text(&pki)];
    let backup = ["backup", "--cluster", "prod", "--from-file", text(&file)];
    repo.run(backup.iter().chain(&include)).ok();
    let (data, to) = (folder.path().join("data"), folder.path().join("to"));
    repo.run(["restore", "--data-dir", text(&data), "--include-to", text(&to)]).ok();
    let back = to.join(inner.strip_prefix("/").unwrap()).join("ca.crt");
    assert_eq!(fs::read_to_string(back).unwrap(), "a certificate");
}

#[test]
fn nothing_ends_because_nobody_reads_what_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let repo = folder.path().join("repo");
    let file = snapshot();
    let mut command = lifeboat().command(["backup", "--repo", text(&repo), "--cluster", "prod"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = command.args(["--from-file", text(&file)]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(0));
    Repo::folder(&repo).run(["verify"]).ok();
}

#[test]
fn a_note_with_control_characters_is_shown_and_not_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo"));
    repo.backup(&snapshot()).ok();
    let note = "\u{1b}[2Jtwo\nlines\u{9b}";
    let kept = repo.run(["keep", "newest", "--as", "held", "--note", note, "-w", "json"]).ok();
    assert_eq!(kept.json()["pin"], "held");
    for format in ["simple", "table", "fields", "json"] {
        let said = repo.run(["keep", "-w", format]).ok().stdout;
        let obeyed = |character: char| character.is_control() && character != '\n';
        assert!(!said.contains(obeyed), "{format}: {said:?}");
        assert!(said.contains("two\\nlines") || said.contains("two\\\\nlines"), "{format}: {said}");
    }
    let json = repo.run(["keep", "-w", "json"]).ok().json();
    assert_eq!(json["held"]["note"], note, "whole, for who parses it");
    // Also where it comes back in an error.
    let run = repo.run(["show", "\u{1b}[2J"]).code_is(1);
    assert!(!run.stderr.contains('\u{1b}'), "{run}");
}

#[test]
fn every_command_that_tells_of_backups_has_a_table_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo"));
    let file = snapshot();
    let to = folder.path().join("to");
    let table = |arguments: &[&str], title: &str| {
        let said = repo.run(arguments.iter().chain(&["-w", "table"])).ok().stdout;
        assert!(said.starts_with("+--") && said.contains(title), "{arguments:?}: {said}");
    };
    table(&["backup", "--cluster", "prod", "--from-file", text(&file)], "REPOSITORY");
    table(&["verify"], "RESULT");
    table(&["keep", "newest", "--as", "held"], "PIN");
    table(&["copy", "newest", "--to", text(&to)], "RESULT");
    let again = repo.run(["copy", "newest", "--to", text(&to), "-w", "json"]).ok().json();
    assert_eq!(again["result"], "present");
}

#[test]
fn words_that_mean_nothing_are_refused_and_those_that_people_write_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo"));
    let file = snapshot();
    let backup = |more: &[&str]| {
        let arguments = ["backup", "--from-file", text(&file)];
        repo.run(arguments.iter().chain(more))
    };
    backup(&["--cluster", "prod", "--wait", "1d"]).ok();
    backup(&["--cluster", "prod", "--wait=-5m"]).code_is(2).stderr_has(&["1h30m or 2d"]);
    backup(&["--cluster", "lifeboat.json"]).code_is(2).stderr_has(&["is taken"]);
    for point in ["revision:-1", "revision:0", "time:yesterday"] {
        repo.run(["show", point]).code_is(2).stderr_has(&["revision:N", "time:2026-11-22,"]);
    }
    for point in ["time:2999-01-01", "time:2999-01-01T10:00", "time:2999-01-01T10:00:00Z"] {
        repo.run(["show", point]).ok();
    }
    repo.run(["prune", "--grace", "2d"]).ok();
    let shown = repo.run(["show"]).ok().stdout;
    assert!(shown.contains("compared with no member"), "{shown}");
    let home = Repo::folder(std::path::Path::new("~/backups"));
    home.run(["list"]).code_is(2).stderr_has(&["~", "write the folder out"]);
}
