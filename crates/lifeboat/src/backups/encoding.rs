//! The flags that say how objects are stored.

use crate::report::{Exit, Failure};
use repository::codec::{Bandwidth, Encoding, LEVEL_DEFAULT, Recipients};
use std::path::PathBuf;

const HEADING: &str = "Storing";

/// How backups are stored
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EncodingArgs {
    /// Encrypt to this age recipient (age1…); may be given several times [env: LIFEBOAT_RECIPIENTS, by commas]
    ///
    /// Whoever has the identity of one of them can read the backup; this machine need not have any.
    #[arg(long = "recipient", help_heading = HEADING, value_name = "AGE")]
    recipients: Vec<String>,

    /// File with recipients, one a line
    #[arg(long = "recipients-file", help_heading = HEADING, value_name = "FILE")]
    recipients_files: Vec<PathBuf>,

    /// Send no more than so many bytes a second: 10MiB, 800k
    #[arg(long, help_heading = HEADING, value_name = "RATE")]
    bandwidth_limit: Option<Bandwidth>,

    /// Level of compression, 1 to 19 [default: 1]
    ///
    /// 3 takes half as long again, and is seldom smaller on what etcd holds.
    #[arg(long, help_heading = HEADING, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(1..=19))]
    level: Option<i32>,
}

impl EncodingArgs {
    pub(crate) fn read(&self) -> Result<Encoding, Failure> {
        Ok(Encoding {
            level: self.level.unwrap_or(LEVEL_DEFAULT),
            recipients: self.recipients()?,
            bandwidth: self.bandwidth_limit.clone(),
        })
    }

    /// Whether any flag says how to store.
    pub(crate) fn is_given(&self) -> bool {
        self.names_recipients() || self.bandwidth_limit.is_some() || self.level.is_some()
    }

    /// Whether any flag says who shall read.
    pub(crate) fn names_recipients(&self) -> bool {
        !self.recipients.is_empty() || !self.recipients_files.is_empty()
    }

    pub(crate) fn recipients(&self) -> Result<Recipients, Failure> {
        let mut recipients = Recipients::none();
        for file in &self.recipients_files {
            recipients.add_file(file)?;
        }
        if self.names_recipients() {
            self.recipients.iter().try_for_each(|key| recipients.add(key))?;
        } else if let Some(keys) = super::args::setting(None, "LIFEBOAT_RECIPIENTS") {
            keys.split(',').try_for_each(|key| recipients.add(key.trim()))?;
        }
        Ok(recipients)
    }

    /// The limit of what is sent.
    pub(crate) fn bandwidth(&self) -> Option<&Bandwidth> {
        self.bandwidth_limit.as_ref()
    }
}

/// What must be said of backups that everyone can read.
pub(crate) fn warn_unencrypted(encoding: &Encoding, place: &str) {
    if encoding.recipients.is_empty() {
        say!(
            "note: backups in {place} are not encrypted; a snapshot of a Kubernetes cluster holds all its \
             Secrets (--recipient)"
        );
    }
}

/// A usage error of these commands.
pub(crate) fn usage(message: impl Into<String>, help: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message, help)
}
