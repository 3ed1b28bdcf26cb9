//! Secrets stay secret: what is said (every run of these tests is looked at), what is stored, what other users see.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use testbed::{Cluster, Etcd, Fault, FaultProxy, Identity, S3, Security, until};

use crate::keys::Keys;
use crate::{Repo, assert_holds_no_secret, files, observed, snapshot};

/// Of etcd's root.
pub(crate) const PASSWORD: &str = "etcd-password-91c6e03b5d";

/// Where every failure that names settings could name their values.
#[test]
fn a_password_of_etcd_is_in_no_message_and_in_no_repository() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).start();
    cluster.write_sample();
    cluster.etcdctl(["user", "add", &format!("root:{PASSWORD}")]);
    cluster.etcdctl(["user", "grant-role", "root", "root"]);
    cluster.etcdctl(["auth", "enable"]);
    let repo = Repo::folder(&folder.path().join("repo"));
    let endpoint = cluster.client_url(0);
    let backup = |more: &[&str]| {
        let mut command = repo.command(["backup", "--cluster", "prod", "--endpoints", &endpoint]);
        command.args(more);
        command
    };
    let user = format!("root:{PASSWORD}");
    observed(backup(&[]).env("LIFEBOAT_USER", &user)).ok();
    observed(backup(&[]).env("ETCDCTL_USER", "root").env("ETCDCTL_PASSWORD", PASSWORD)).ok();
    observed(backup(&["-w", "json"]).env("LIFEBOAT_USER", &user)).ok();
    assert_eq!(repo.all_verify().len(), 3);

    // Another's password, another's name, no such place, a wrong setting beside it.
    let wrong = observed(backup(&[]).env("LIFEBOAT_USER", format!("root:x{PASSWORD}"))).code_is(1);
    wrong.stderr_has(&["help: "]);
    let unknown = observed(backup(&[]).env("LIFEBOAT_USER", format!("somebody:{PASSWORD}")));
    unknown.code_is(1).stderr_has(&["help: "]);
    let away = ["--endpoints", "http://127.0.0.1:1", "--dial-timeout", "200ms"];
    let mut command = repo.command(["backup", "--cluster", "prod"]);
    observed(command.args(away).env("LIFEBOAT_USER", &user)).code_is(4);
    observed(backup(&["--key", "/nowhere"]).env("LIFEBOAT_USER", &user)).code_is(2);
    assert_eq!(observed(backup(&[]).stdin(Stdio::null())).code, Some(1), "etcd asks who it is");

    for file in files(folder.path()) {
        assert_holds_no_secret(&std::fs::read(&file).unwrap(), &file.display().to_string());
    }
}

#[test]
fn no_object_of_a_store_holds_a_secret_and_files_of_a_folder_are_their_owners() {
    let s3 = S3::start();
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::make_in(folder.path());
    let bucket = Repo::in_s3(&s3, "etcd").encrypted(&keys);
    let repo = Repo::folder(&folder.path().join("repo")).encrypted(&keys);
    for repo in [&bucket, &repo] {
        repo.backup(&snapshot()).ok();
        repo.run(["verify"]).ok();
        repo.run(["keep", "newest", "--as", "kept"]).ok();
        repo.run(["show"]).ok();
        repo.run(["prune", "--keep-last", "1"]).ok();
    }
    let objects = s3.list("etcd");
    assert!(objects.len() >= 5, "{objects:?}");
    for key in &objects {
        assert_holds_no_secret(&s3.get(key), key);
    }
    let stored = files(&folder.path().join("repo"));
    assert!(stored.len() >= 5, "{stored:?}");
    for file in stored {
        assert_holds_no_secret(&std::fs::read(&file).unwrap(), &file.display().to_string());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{} is nobody else's", file.display());
    }
}

/// Credentials in a URL would stand in every list of processes, so they are refused, and not repeated.
#[test]
fn a_secret_in_a_url_is_refused_and_not_repeated() {
    let secret = Identity::Admin.secret();
    for url in [
        format!("s3://key:{secret}@backups/etcd"),
        format!("s3://backups/etcd?secret_access_key={secret}"),
        format!("s3://backups/etcd?endpoint=http://key:{secret}@127.0.0.1:1"),
    ] {
        for arguments in [&["list"][..], &["backup", "--cluster", "prod"]] {
            // By its variable, as `observed` refuses to give a secret as an argument.
            let mut command = crate::lifeboat().command(arguments);
            let run = observed(command.env("LIFEBOAT_REPO", &url));
            assert!(matches!(run.code, Some(1 | 2)), "{run}");
            run.stderr_has(&["error: ", "help: "]);
        }
    }
}

/// Goal: what other users of the machine see of a run tells them nothing. Method: the store does not answer, so the
/// run is there to be looked at.
#[test]
fn the_command_line_of_a_run_shows_no_secret_and_it_starts_no_other_programs() {
    let s3 = S3::start();
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::make_in(folder.path());
    let proxy = FaultProxy::before(s3.endpoint(), |_| Fault::Stall);
    let repo = Repo::s3(s3.url_through(&proxy.url(), "etcd")).encrypted(&keys);
    let mut command = repo.command(["backup", "--cluster", "prod", "--from-file"]);
    command.arg(snapshot()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    until("a request", || (proxy.requests() > 0).then_some(()), String::new);
    let process = format!("/proc/{}", child.id());
    let command_line = std::fs::read(format!("{process}/cmdline")).unwrap();
    assert!(command_line.windows(6).any(|word| word == b"backup"));
    assert_holds_no_secret(&command_line, "the command line");
    for task in std::fs::read_dir(format!("{process}/task")).unwrap() {
        let children = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap();
        assert_eq!(children, "");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
