//! Stores that refuse or cannot be reached: what is said, the exit code, and that nothing is left behind.

use testbed::{Certificates, Identity, Run, S3};

use crate::{Repo, files, observed, reported, snapshot, text};

/// An endpoint where nobody listens, nor ever will.
const NOBODY: &str = "http://127.0.0.1:1";

/// One run for two repositories.
#[track_caller]
fn backup_to_both(good: &Repo, bad: &Repo) -> Run {
    let mut command = bad.command(["backup", "--cluster", "prod", "-w", "json"]);
    command.args(["--repo", &good.url, "--from-file"]).arg(snapshot());
    observed(&mut command)
}

#[test]
fn a_repository_that_refuses_or_is_away_does_not_keep_the_other_from_its_backup() {
    let s3 = S3::start();
    let folder = tempfile::tempdir().unwrap();
    let refusing = Repo::in_s3(&s3, "etcd").as_identity(Identity::ReadOnly);
    let away = Repo::s3(s3.url_through(NOBODY, "etcd") + "&retries=1");
    for (name, bad, code) in [("refusing", &refusing, 1), ("away", &away, 4)] {
        let good = Repo::folder(&folder.path().join(name));
        let run = backup_to_both(&good, bad).code_is(code);
        let bad_url = bad.url.split('?').next().unwrap();
        let run = run.stderr_has(&["1 of 2 repositories", bad_url, "help: "]);
        let report = run.json();
        let results = report["results"].as_array().unwrap();
        assert!(results[0]["error"].is_string() && results[0]["manifest"].is_null(), "{run}");
        assert!(results[1]["error"].is_null(), "{run}");
        assert_eq!(good.all_verify(), reported(&run));
        assert_eq!(good.names().len(), 1);
    }
    assert!(s3.list("etcd").is_empty());
    assert!(s3.unfinished_uploads().is_empty());
}

/// A way to be refused: its URL and identity, the exit code, and words that must be said.
struct Case {
    repo: Repo,
    code: i32,
    words: Vec<&'static str>,
}

/// Every command, each with the same refusal.
#[track_caller]
fn every_command_is_refused(case: &Case, writes_only: bool) {
    let folder = tempfile::tempdir().unwrap();
    let file = snapshot();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let reading: [&[&str]; 7] = [
        &["list"],
        &["show"],
        &["verify"],
        &["prune", "--keep-last", "1"],
        &["keep"],
        &["copy", "--all", "--to", text(&other)],
        &["restore", "--data-dir", text(&data)],
    ];
    let writing: &[&str] = &["backup", "--cluster", "prod", "--from-file", text(&file)];
    let reading = if writes_only { &reading[..0] } else { &reading[..] };
    // All at once, as they have patience with the store.
    std::thread::scope(|scope| {
        for arguments in reading.iter().chain([&writing]) {
            scope.spawn(|| {
                let run = case.repo.run(*arguments).code_is(case.code);
                let run = run.stderr_has(&["error: ", "help: "]).stderr_has(&case.words);
                assert_eq!(run.stdout, "", "{run}");
            });
        }
    });
    assert_eq!(files(folder.path()).len(), 0, "something is left behind");
}

#[test]
fn whoever_may_not_is_told_so_by_every_command() {
    let s3 = S3::start();
    Repo::in_s3(&s3, "etcd").backup(&snapshot()).ok();
    let before = s3.list("");
    let repo = Repo::in_s3(&s3, "etcd");
    let denied = vec!["s3://backups/etcd", "credentials"];
    for identity in [Identity::Unknown, Identity::WrongSecret, Identity::NoAccess] {
        let case = Case { repo: repo.as_identity(identity), code: 1, words: denied.clone() };
        every_command_is_refused(&case, false);
    }

    let mut missing = repo.clone();
    missing.env.retain(|(name, _)| !name.contains("KEY"));
    let case = Case { repo: missing, code: 1, words: denied.clone() };
    every_command_is_refused(&case, false);

    // Whoever may read can do all that only reads.
    let reader = repo.as_identity(Identity::ReadOnly);
    assert_eq!(reader.all_verify().len(), 1);
    every_command_is_refused(&Case { repo: reader, code: 1, words: denied }, true);

    let bucket = Repo::s3(s3.url_in("no-such-bucket", "etcd"));
    let case = Case { repo: bucket, code: 1, words: vec!["no-such-bucket"] };
    every_command_is_refused(&case, false);

    assert_eq!(s3.list(""), before, "nothing was left behind");
    assert!(s3.unfinished_uploads().is_empty());
}

#[test]
fn a_store_that_is_away_has_an_exit_code_of_its_own() {
    let s3 = S3::start();
    let repo = Repo::s3(s3.url_through(NOBODY, "etcd") + "&retries=0");
    every_command_is_refused(&Case { repo, code: 4, words: vec!["s3://backups/etcd"] }, false);
}

#[test]
fn a_store_whose_certificate_another_authority_signed_is_not_spoken_to() {
    let s3 = S3::start_with_tls();
    let foreign = Certificates::foreign_ca(s3.certificates());
    let right = format!("ca={}", s3.certificates().ca().display());
    let wrong = format!("ca={}", foreign.display());
    let url = s3.url("etcd").replace(&right, &wrong) + "&retries=0";
    let case = Case { repo: Repo::s3(url), code: 4, words: vec!["certificate"] };
    every_command_is_refused(&case, false);
    assert!(s3.list("").is_empty());
}

/// Goal: nobody looks at a silent terminal and wonders. That it ends soon is tested where the clock can be turned.
#[test]
fn a_store_that_never_answered_is_waited_for_aloud_and_then_given_up() {
    let repo = Repo::s3(format!("s3://backups/etcd?endpoint={NOBODY}"));
    let file = snapshot();
    let backup = ["backup", "--cluster", "prod", "--from-file", text(&file)];
    std::thread::scope(|scope| {
        for arguments in [&["list"][..], &["restore", "--plan"], &backup] {
            let repo = &repo;
            scope.spawn(move || {
                let run = repo.run(arguments).code_is(4);
                let waiting = format!("waiting for {NOBODY}: Connection refused");
                run.stderr_has(&[&waiting, "trying again for up to", "error: ", "help: "]);
            });
        }
    });
}
