//! `recover receive` and `recover digest`: what `recover` runs on a host, to take a database that comes compressed, and to look
//! whether the program there is whole.

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

/// Print the SHA-256 of a file
#[derive(Debug, clap::Args)]
pub(crate) struct DigestArgs {
    /// The file
    file: PathBuf,
}

impl DigestArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let sha256 = recover::sha256_of(&self.file)?;
        output::print(&format!("{sha256}\n"))
    }
}
