//! Backups that others made, a member that is gone, and the files that a restore needs besides.

use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::{Run, fixtures};

use crate::keys::Keys;
use crate::{Repo, lifeboat, observed, reported, snapshot, text};

/// HashKV of a file, as lifeboat computes it.
#[track_caller]
fn hash(file: &Path) -> u64 {
    let run = lifeboat().run(["snapshot", "hashkv", text(file), "-w", "json"]).ok();
    run.json()["hash"].as_u64().unwrap()
}

/// Runs a script of the shell in the folder, with `$SNAPSHOT`.
#[track_caller]
fn shell(folder: &Path, script: &str) {
    let mut bash = Command::new("bash");
    bash.args(["-euc", script]).current_dir(folder).env("SNAPSHOT", snapshot());
    Run::of(&mut bash).ok();
}

/// The same snapshot as each tool would have written it.
fn of_other_tools(folder: &Path) -> Vec<PathBuf> {
    shell(
        folder,
        r#"
        gzip -c $SNAPSHOT > etcd.backup.gz
        mkdir k3s && cp $SNAPSHOT k3s/on-demand-node-1700000000
        python3 -c 'import zipfile; z = zipfile.ZipFile("on-demand-node-1700000000.zip", "w", zipfile.ZIP_DEFLATED); z.write("k3s/on-demand-node-1700000000", "on-demand-node-1700000000")'
        mkdir openshift && cp $SNAPSHOT openshift/snapshot_2026-11-20_100000.db
        mkdir pods && echo pod > pods/pod.yaml && tar -czf openshift/static_kuberesources_2026-11-20_100000.tar.gz pods
        mkdir -p etcdbr/v2
        python3 -c 'import os, zlib; open("etcdbr/v2/Full-00000000-00000600-1700000000.zlib", "wb").write(zlib.compress(open(os.environ["SNAPSHOT"], "rb").read()))'
        "#,
    );
    ["etcd.backup.gz", "on-demand-node-1700000000.zip", "openshift", "etcdbr/v2"]
        .map(|name| folder.join(name))
        .to_vec()
}

#[test]
fn what_other_tools_have_written_is_restored_from_where_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let expected = hash(&snapshot());
    for source in of_other_tools(folder.path()).iter().chain([&snapshot()]) {
        let data = folder.path().join("data");
        let mut restore = lifeboat().command(["restore", text(source), "--data-dir", text(&data)]);
        observed(restore.args(["--bump-revision", "0"])).ok();
        assert_eq!(hash(&data.join("member/snap/db")), expected, "{}", source.display());
        std::fs::remove_dir_all(&data).unwrap();
    }
}

#[test]
fn what_other_tools_have_written_becomes_a_backup_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let expected = hash(&snapshot());
    let repo = Repo::folder(&folder.path().join("repo"));
    let sources = of_other_tools(folder.path());
    for source in &sources {
        let name = reported(&repo.backup(source).ok()).remove(0);
        let manifest = &repo.run(["show", &name, "-w", "json"]).ok().json()["manifest"];
        assert_eq!(manifest["etcd"]["hash_kv"]["hash"], expected, "{}", source.display());
        assert_eq!(manifest["source"]["kind"], "file");
    }
    assert_eq!(repo.all_verify().len(), sources.len());
}

#[test]
fn an_import_that_is_damaged_or_no_snapshot_is_refused_and_leaves_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::folder(&folder.path().join("repo"));
    shell(
        folder.path(),
        "head -c 100000 $SNAPSHOT | gzip -c > cut.gz\n gzip -c $SNAPSHOT | head -c 50000 > torn.gz\n \
         echo hello > text\n mkdir empty",
    );
    for name in ["cut.gz", "torn.gz", "text", "empty", "absent"] {
        let source = folder.path().join(name);
        let run = repo.backup(&source);
        assert!(matches!(run.code, Some(1 | 3)), "{run}");
        let run = run.stderr_has(&["error: ", "help: "]);
        assert!(reported(&run).is_empty());
        let data = folder.path().join("data");
        let run = observed(&mut lifeboat().command([
            "restore",
            text(&source),
            "--data-dir",
            text(&data),
        ]));
        assert!(matches!(run.code, Some(1 | 3)), "{run}");
        run.stderr_has(&["error: ", "help: "]);
        assert!(!data.exists());
    }
    let found = crate::files(&folder.path().join("repo"));
    assert!(!found.iter().any(|path| path.ends_with("manifest.json")), "{found:?}");
}

/// Nothing of it may be lost: what only its log had is in the backup.
#[test]
fn a_member_that_was_killed_becomes_a_backup_with_the_writes_of_its_log() {
    for version in ["3.4.23", "3.5.30"] {
        let folder = tempfile::tempdir().unwrap();
        let member = fixtures::killed(version);
        let expected = fixtures::killed_expected(version);
        let repo = Repo::folder(&folder.path().join("repo"));
        repo.run(["backup", "--cluster", "prod", "--from-data-dir", text(member.path())]).ok();
        assert_eq!(repo.all_verify().len(), 1);
        let manifest = &repo.run(["show", "-w", "json"]).ok().json()["manifest"];
        let etcd = &manifest["etcd"];
        assert_eq!(etcd["revision"].as_i64(), Some(expected.revision_after_restart), "{version}");
        assert_eq!(
            etcd["hash_kv"]["hash"].as_u64(),
            Some(u64::from(expected.hashkv_at_revision_after_restart.hash))
        );
        assert_eq!(manifest["source"]["kind"], "data-dir");
    }
}

#[test]
fn files_that_a_restore_needs_are_kept_encrypted_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::make_in(folder.path());
    shell(
        folder.path(),
        "mkdir -p pki/etcd && echo ca > pki/ca.crt && echo key > pki/etcd/ca.key && chmod 600 pki/etcd/ca.key \
         && ln -s ca.crt pki/link",
    );
    let pki = folder.path().join("pki");
    let plain = Repo::folder(&folder.path().join("plain"));
    let file = snapshot();
    let arguments =
        ["backup", "--cluster", "prod", "--from-file", text(&file), "--include", text(&pki)];
    let refused = plain.run(arguments);
    assert!(matches!(refused.code, Some(2 | 5)), "{refused}");
    refused.stderr_has(&["--include-unencrypted", "--recipient"]);
    assert!(crate::files(&folder.path().join("plain")).is_empty());

    let sealed = Repo::folder(&folder.path().join("sealed")).encrypted(&keys);
    sealed.run(arguments).ok();
    let mut allowed = plain.command(arguments);
    observed(allowed.arg("--include-unencrypted")).ok();
    for (repo, name) in [(&sealed, "of sealed"), (&plain, "of plain")] {
        assert_eq!(repo.all_verify().len(), 1);
        let to = folder.path().join(name);
        let data = to.join("data");
        std::fs::create_dir(&to).unwrap();
        let without = repo.run(["restore", "--data-dir", text(&data)]).ok();
        without.stderr_has(&["--include-to", text(&pki)]);
        std::fs::remove_dir_all(&data).unwrap();
        let include = to.join("include");
        let with = ["restore", "--data-dir", text(&data), "--include-to", text(&include)];
        repo.run(with).ok();
        let found = crate::files(&include);
        let key = found.iter().find(|path| path.ends_with("pki/etcd/ca.key"));
        assert_eq!(std::fs::read_to_string(key.unwrap()).unwrap(), "key\n");
        let ca = found.iter().find(|path| path.ends_with("pki/ca.crt")).unwrap();
        assert_eq!(std::fs::read_to_string(ca).unwrap(), "ca\n");
    }
}
