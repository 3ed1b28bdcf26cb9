//! A server that a test starts, waits for and ends: one process, its log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::wait::until;

/// A running server, which ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    process: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command`, whose output goes to `log`, and waits until `is_ready`.
    #[track_caller]
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        log: &Path,
        is_ready: impl Fn() -> bool,
    ) -> Self {
        let output = File::options().create(true).append(true).open(log);
        let output = output.expect("the log folder is writable");
        let process = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file handle can be doubled"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let mut server = Self { name, process, log: log.to_owned() };
        server.wait_until(is_ready);
        server
    }

    /// Polls until `is_ready`; panics with the log when the server ends before that, or takes too long.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, is_ready: impl Fn() -> bool) {
        let Self { name, process, log } = self;
        let ready = || {
            if let Some(status) = process.try_wait().expect("our own child can be asked") {
                panic!("{name} ended with {status}\n{}", written(log));
            }
            is_ready().then_some(())
        };
        until(&format!("an answer of {name}"), ready, || written(log));
    }

    /// All that it has written.
    pub(crate) fn log(&self) -> String {
        written(&self.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, or it ends now; there is nobody to tell of anything else.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn written(log: &Path) -> String {
    std::fs::read(log)
        .map(|log| String::from_utf8_lossy(&log).into_owned())
        .unwrap_or_else(|error| format!("{}: {error}", log.display()))
}
