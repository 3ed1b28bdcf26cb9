//! Ctrl-C and SIGTERM end a save at every stage, also before the first answer of a member.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::TcpListener,
    process::{Command, Stdio},
};

/// A member that takes the connection and never says a word.
#[test]
fn a_signal_ends_a_save_that_is_still_choosing_its_member() {
    let member = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut save = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
        .args(["snapshot", "save", "--dial-timeout=120s", "--command-timeout=120s", "--endpoints"])
        .arg(member.local_addr().unwrap().to_string())
        .arg(folder.path().join("x.db"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It listens to signals before it dials.
    let (_connection, _) = member.accept().unwrap();
    let pid = save.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    // Without the signal, the member's silence would end it with another code.
    assert_eq!(save.wait().unwrap().code(), Some(130));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}
