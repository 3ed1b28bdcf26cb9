//! Keys that the stock `age` makes, and identities that a passphrase protects.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testbed::Run;

use crate::{Repo, observed, reported, snapshot, text};

/// Protects identities.
pub(crate) const PASSPHRASE: &str = "passphrase-4d81f0c2e7 of nobody";

/// A pair of keys.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    /// The file with the secret one.
    pub(crate) identity: PathBuf,
    /// The public one.
    pub(crate) recipient: String,
}

impl Keys {
    pub(crate) fn make_in(folder: &Path) -> Self {
        let identity = folder.join("identity.txt");
        Run::of(Command::new("age-keygen").arg("-o").arg(&identity)).ok();
        let recipient = Run::of(Command::new("age-keygen").arg("-y").arg(&identity)).ok().stdout;
        Self { identity, recipient: recipient.trim().to_owned() }
    }

    /// The same with an identity that needs [`PASSPHRASE`]. `age -p` asks on a terminal, which `script` gives it.
    pub(crate) fn protected(&self) -> Self {
        let identity = self.identity.with_extension("age");
        let command = format!("age -p -o {} {}", text(&identity), text(&self.identity));
        let mut script = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("script is part of Debian");
        let mut terminal = script.stdin.take().expect("stdin is a pipe");
        write!(terminal, "{PASSPHRASE}\n{PASSPHRASE}\n").unwrap();
        assert!(script.wait().unwrap().success());
        drop(terminal);
        Self { identity, recipient: self.recipient.clone() }
    }
}

#[test]
fn an_identity_that_a_passphrase_protects_opens_backups_and_without_it_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::make_in(folder.path()).protected();
    let repo = Repo::folder(&folder.path().join("repo")).encrypted(&keys);
    let unlocked =
        Repo { env: vec![("LIFEBOAT_PASSPHRASE", PASSPHRASE.to_owned())], ..repo.clone() };
    assert_eq!(reported(&unlocked.backup(&snapshot()).ok()).len(), 1);

    let verify = || repo.command(["verify", "--no-record"]);
    let passphrase = folder.path().join("passphrase");
    std::fs::write(&passphrase, format!("{PASSPHRASE}\nonly the first line counts\n")).unwrap();
    observed(verify().arg("--passphrase-file").arg(&passphrase)).ok();
    observed(verify().env("LIFEBOAT_PASSPHRASE_FILE", &passphrase)).ok();
    observed(verify().env("LIFEBOAT_PASSPHRASE", PASSPHRASE)).ok();

    let wrong = observed(verify().env("LIFEBOAT_PASSPHRASE", "another")).code_is(2);
    wrong.stderr_has(&["identity.age", "help: "]);
    let none = observed(verify().stdin(Stdio::null())).code_is(2);
    none.stderr_has(&["identity.age", "no terminal", "help: "]);
    let absent = observed(verify().env("LIFEBOAT_PASSPHRASE_FILE", "/nowhere")).code_is(2);
    absent.stderr_has(&["help: "]);
}

#[test]
fn after_a_rekey_only_the_new_keys_open_backups() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let (old, new) = [old, new]
        .map(|folder| {
            std::fs::create_dir(&folder).unwrap();
            Keys::make_in(&folder)
        })
        .into();
    let with_old = Repo::folder(&folder.path().join("repo")).encrypted(&old);
    let with_new = with_old.clone().encrypted(&new);
    with_old.backup(&snapshot()).ok();
    with_old.backup(&snapshot()).ok();

    let foreign = with_new.run(["verify", "--all", "--no-record"]);
    assert_ne!(foreign.code, Some(0), "{foreign}");
    assert_ne!(foreign.code, Some(3), "a key that does not fit is no damage\n{foreign}");
    foreign.stderr_has(&["identity", "help: "]);

    with_old.run(["rekey", "--all", "--recipient", &new.recipient]).ok();
    assert_eq!(with_new.all_verify().len(), 2);
    let run = with_old.run(["verify", "--all", "--no-record"]);
    assert_ne!(run.code, Some(0), "{run}");
    // A second time there is nothing left to do.
    let again = with_new.run(["rekey", "--all", "--recipient", &new.recipient]).ok();
    assert_eq!(again.stdout.matches("already").count(), 2, "{again}");
    let json = with_new.run(["rekey", "--all", "--recipient", &new.recipient, "-w", "json"]).ok();
    for line in json.stdout.lines() {
        let done: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&done["cluster"], &done["result"]), (&"prod".into(), &"present".into()));
    }
    assert_eq!(json.stdout.lines().count(), 2, "{json}");
}
