//! `recover receive`: what `recover` runs on a host, to take a database that comes compressed.

use crate::{output, report::Failure};
use std::path::PathBuf;

/// Unpack what stands on standard input to a new file, and print the SHA-256 of what arrived
#[derive(Debug, clap::Args)]
pub(crate) struct ReceiveArgs {
    /// The file
    file: PathBuf,
}

impl ReceiveArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let sha256 = recover::unpack(std::io::stdin().lock(), &self.file)?;
        output::print(&format!("{sha256}\n"))
    }
}
