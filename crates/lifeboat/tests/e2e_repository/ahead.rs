//! What a restore knows before it fetches anything.

use std::{fs, path::Path};

use crate::{Repo, files, keys::Keys, snapshot, text};

/// A backup whose object is spoilt: whoever reads it ends with code 3.
#[track_caller]
fn spoilt(repo: &Repo, folder: &Path) {
    repo.backup(&snapshot()).ok();
    let stored = files(folder);
    let object = stored.iter().find(|file| text(file).contains("/db.zst")).unwrap();
    let bytes = fs::metadata(object).unwrap().len();
    fs::remove_file(object).unwrap();
    fs::write(object, vec![7; usize::try_from(bytes).unwrap()]).unwrap();
}

/// Goal: nothing is fetched in vain. Method: what would be fetched cannot be read, and that is not what is told.
#[test]
fn what_speaks_against_a_restore_is_told_before_anything_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repo");
    let repo = Repo::folder(&root);
    spoilt(&repo, &root);
    let data = folder.path().join("data");
    repo.run(["restore", "--data-dir", text(&data)]).code_is(3);

    let used = folder.path().join("used");
    fs::create_dir_all(used.join("member")).unwrap();
    for plan in [&[][..], &["--plan"]] {
        let refused = |code, words: &[&str], arguments: &[&str]| {
            let run = repo.run(["restore"].iter().chain(arguments).chain(plan)).code_is(code);
            run.stderr_has(words).stderr_has(&["help: "]);
        };
        refused(5, &["used", "is not empty"], &["--data-dir", text(&used)]);
        refused(5, &["used", "is not empty"], &["--all-members", text(&used)]);
        let file = snapshot();
        refused(5, &["exists"], &["--data-dir", text(&file)]);
        refused(5, &["exists"], &["--data-dir", text(&data), "--wal-dir", text(&used)]);
        let far = ["--data-dir", text(&data), "--bump-revision", "9223372036854775807"];
        refused(2, &["cannot be raised"], &far);
        // It would be unpacked on a file system that has no room at all.
        refused(1, &["are needed", "bytes"], &["--data-dir", text(&data), "--spool-dir", "/proc"]);
    }
    assert!(!data.exists());
}

#[test]
fn a_missing_identity_and_a_used_folder_for_files_are_told_before_anything_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repo");
    let keys = Keys::make_in(folder.path());
    let repo = Repo::folder(&root).encrypted(&keys);
    let included = folder.path().join("ca.crt");
    fs::write(&included, "a certificate").unwrap();
    let file = snapshot();
    let backup = ["backup", "--cluster", "prod", "--from-file", text(&file), "--include"];
    repo.run(backup.iter().chain(&[text(&included)])).ok();
    let data = folder.path().join("data");
    let restore = ["restore", "--data-dir", text(&data)];

    let keyless = Repo { keys: None, ..repo.clone() };
    keyless.run(restore).code_is(1).stderr_has(&[&keys.recipient, "--identity"]);
    let planned = keyless.run(restore.iter().chain(&["--plan"])).code_is(1);
    assert!(planned.stdout.contains("PROBLEM") && planned.stdout.contains(&keys.recipient));

    // Several things at once: all of them are told.
    let used = folder.path().join("used");
    fs::create_dir_all(used.join("something")).unwrap();
    let into = ["--include-to", text(&used)];
    let json = keyless.run(restore.iter().chain(&into).chain(&["--plan", "-w", "json"])).code_is(1);
    let problems = json.json()["problems"].as_array().unwrap().clone();
    assert_eq!(problems.len(), 2, "{problems:?}");
    repo.run(restore.iter().chain(&into)).code_is(5).stderr_has(&["used", "is not empty"]);
    assert!(!data.exists());
}

#[test]
fn a_plan_says_from_where_for_whom_and_what_room_it_takes_and_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repo");
    let repo = Repo::folder(&root);
    repo.backup(&snapshot()).ok();
    let to = folder.path().join("to");
    let peers = "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380";
    let restore = ["restore", "--plan", "--all-members", text(&to), "--initial-cluster", peers];
    let said = repo.run(restore).ok().stdout;
    let (m1, m2) = (to.join("m1"), to.join("m2"));
    for words in [
        "/db.zst",
        "ago)",
        "revision  600, raised to 1000000600",
        "lost      all writes since then",
        peers,
        &format!("{} for member m1", text(&m1)),
        &format!("{} for member m2", text(&m2)),
        "that are free",
    ] {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    assert!(!said.contains("PROBLEM"), "{said}");

    let json = repo.run(restore.iter().chain(&["-w", "json"])).ok().json();
    assert_eq!(json["initial_cluster"], peers);
    assert_eq!(json["data_dirs"][1]["data_dir"], text(&m2));
    assert_eq!(json["problems"].as_array().unwrap().len(), 0);
    // The snapshot is unpacked beside the directories of both members.
    let (needed, bytes) = (&json["rooms"][0]["needed_bytes"], &json["manifest"]["db"]["bytes"]);
    assert!(needed.as_u64().unwrap() > 3 * bytes.as_u64().unwrap(), "{json}");
    assert!(!to.exists());
}
