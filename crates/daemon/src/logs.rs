//! Logs on standard error, as lines for a person or as JSON.
//!
//! One event per run's end, with its numbers; failures once, by whoever stops their journey. No event has a secret: what is
//! logged are names, numbers and errors, and errors have none.

use crate::config::{Log, LogFormat};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, util::SubscriberInitExt};

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Not a level.
    #[error("{level:?} is no level of logging: use error, warn, info, debug or trace")]
    Level {
        /// What was given.
        level: String,
        /// Why not.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A word that would be taken for a part's name, and silence all others.
    #[error(
        "{word:?} is no level of logging: use error, warn, info, debug or trace, or PART=LEVEL"
    )]
    Word {
        /// What was given.
        word: String,
    },
}

/// Whether a level can be understood.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let is_level =
        |word: &&str| word.contains('=') || word.is_empty() || word.parse::<LevelFilter>().is_ok();
    if let Some(word) = level.split(',').map(str::trim).find(|word| !is_level(word)) {
        return Err(LogError::Word { word: word.to_owned() });
    }
    EnvFilter::try_new(level).map_err(|source| LogError::Level { level: level.to_owned(), source })
}

/// Sends the events of this process to standard error, as JSON or for a person.
pub fn log(json: bool, level: &str) -> Result<(), LogError> {
    let format = if json { LogFormat::Json } else { LogFormat::Text };
    start(&Log { format, level: Some(level.to_owned()) })
}

/// Sends the events of this process to standard error. Where someone has set that up already, theirs stays.
pub(crate) fn start(log: &Log) -> Result<(), LogError> {
    let filter = filter(log.level.as_deref().unwrap_or("info"))?;
    // Logs that nobody can read must not end the daemon: errors of logging would be told on stderr, and panic there.
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let _ = match log.format {
        LogFormat::Text => logs.with_ansi(false).finish().try_init(),
        LogFormat::Json => logs.json().flatten_event(true).finish().try_init(),
    };
    Ok(())
}
