//! How far a backup has come.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a backup has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Not begun.
    #[default]
    Pending,
    /// Being made.
    Running,
    /// Stored and verified.
    Succeeded,
    /// Given up.
    Failed,
}
