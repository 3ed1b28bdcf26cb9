//! What can be wrong on the way to a cluster: a clear error, the right code, nothing left behind.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use testbed::{Cluster, CutStream, Etcd, Run, Security};

use crate::{client, lifeboat, listing, text};

/// A failed save: this code, these words, and an empty folder.
#[track_caller]
fn fails(codes: &[i32], words: &[&str], save: impl FnOnce(&str) -> Run) {
    let folder = tempfile::tempdir().unwrap();
    let run = save(text(&folder.path().join("saved.db")));
    assert!(run.code.is_some_and(|code| codes.contains(&code)), "{run}");
    run.stderr_has(&["error:", "help:"]).stderr_has(words);
    assert_eq!(listing(folder.path()), [""; 0], "nothing is left behind");
}

#[test]
fn certificates_that_do_not_fit() {
    let cluster = Cluster::builder(Etcd::V3_5).members(1).start();
    cluster.put("a", "1");
    let certificates = cluster.certificates();
    let endpoint = cluster.client_url(0);
    let save = |ca: &std::path::Path,
                (cert, key): (std::path::PathBuf, std::path::PathBuf),
                file: &str| {
        lifeboat().run([
            "--endpoints",
            &endpoint,
            "--cacert",
            text(ca),
            "--cert",
            text(&cert),
            "--key",
            text(&key),
            "snapshot",
            "save",
            file,
        ])
    };
    fails(&[4], &[], |file| save(&certificates.foreign_ca(), certificates.client(), file));
    fails(&[4], &[], |file| save(&certificates.ca(), certificates.expired_client(), file));
    fails(&[1, 2], &["no-such-ca.pem"], |file| {
        save(&cluster.folder().join("no-such-ca.pem"), certificates.client(), file)
    });
    // http to a server that speaks TLS.
    let plain = endpoint.replace("https", "http");
    fails(&[4], &[], |file| lifeboat().run(["--endpoints", &plain, "snapshot", "save", file]));

    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificates.client();
    lifeboat()
        .run([
            "--endpoints",
            &endpoint,
            "--insecure-skip-tls-verify",
            "--cert",
            text(&cert),
            "--key",
            text(&key),
            "snapshot",
            "save",
            text(&folder.path().join("saved.db")),
        ])
        .ok();
}

#[test]
fn endpoints_that_nobody_answers_at() {
    // Bound and never accepted from: the connection is made, and then nothing comes.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    for endpoint in ["http://127.0.0.1:1", &silent] {
        fails(&[4], &["127.0.0.1"], |file| {
            lifeboat().run([
                "--endpoints",
                endpoint,
                "--dial-timeout=1s",
                "--command-timeout=2s",
                "snapshot",
                "save",
                file,
            ])
        });
    }
}

#[test]
fn one_dead_endpoint_of_three_does_not_matter_and_a_dead_majority_is_told() {
    let mut cluster = Cluster::builder(Etcd::V3_5).start();
    cluster.put("a", "1");
    for dead in 0..3 {
        cluster.kill(dead);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("saved.db");
        client(&cluster, &["snapshot", "save", text(&file)]).ok();
        lifeboat().run(["snapshot", "verify", text(&file)]).ok();
        cluster.start(dead);
    }
    cluster.kill_all();
    fails(&[4], &[], |file| client(&cluster, &["snapshot", "save", file]));
}

#[test]
fn a_learner_is_not_saved_from_when_a_voter_is_there() {
    let mut cluster = Cluster::builder(Etcd::V3_5).members(1).start();
    cluster.put("a", "1");
    let learner = cluster.add_learner();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.db");
    let endpoints = format!("{},{}", cluster.client_url(learner), cluster.client_url(0));
    let mut arguments = cluster.connection_flags_to(&endpoints);
    arguments.extend(["snapshot", "save", text(&file)].map(str::to_owned));
    let run = lifeboat().run(&arguments).ok();
    assert!(run.stderr.contains(&cluster.client_url(0)), "it says whom it chose\n{run}");
    lifeboat().run(["snapshot", "verify", text(&file)]).ok();

    // It serves no reads, which says nothing of its health.
    let mut arguments = cluster.connection_flags_to(&cluster.client_url(0));
    arguments.push("cluster-health".to_owned());
    let run = lifeboat().run(&arguments).ok();
    assert!(run.stdout.ends_with("cluster is healthy\n"), "{run}");
}

#[test]
fn a_stream_that_is_cut_half_way_leaves_nothing() {
    let cluster = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).start();
    cluster.write_sample();
    let whole = cluster.folder().join("whole.db");
    crate::save(&cluster, &whole);
    let size = whole.metadata().unwrap().len();
    for percent in [10, 50, 90] {
        let cut = CutStream::before(&cluster.client_url(0), size * percent / 100);
        fails(&[1, 4], &[], |file| {
            lifeboat().run(["--endpoints", &cut.url(), "snapshot", "save", file])
        });
        assert!(cut.was_cut(), "after {percent} %");
    }
}

#[test]
fn a_file_that_exists_is_not_overwritten_without_force() {
    let cluster = Cluster::builder(Etcd::V3_5).members(1).start();
    cluster.put("a", "1");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.db");
    std::fs::write(&file, "precious").unwrap();
    client(&cluster, &["snapshot", "save", text(&file)]).code_is(5).stderr_has(&["--force"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert_eq!(listing(folder.path()), ["saved.db"]);
    client(&cluster, &["snapshot", "save", text(&file), "--force"]).ok();
    lifeboat().run(["snapshot", "verify", text(&file)]).ok();
    let mode = file.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "a snapshot holds secrets");
}

#[test]
fn a_snapshot_goes_to_stdout_as_it_is() {
    let cluster = Cluster::builder(Etcd::V3_5).members(1).start();
    let revision = cluster.write_sample();
    let hash = cluster.common_hashkv(revision);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.db");
    let run = client(&cluster, &["snapshot", "save", "-"]).ok();
    std::fs::write(&file, &run.stdout_bytes).unwrap();
    lifeboat().run(["snapshot", "verify", text(&file)]).ok();
    assert_eq!(crate::hash_of_file(&file, revision), u64::from(hash.hash));
}
