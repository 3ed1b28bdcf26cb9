//! A claim, and the chain that claims make.

use super::{Holder, LeaseError};
use crate::{
    BackupId, ClusterName,
    store::{At, Operation, Store, StoreError},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format of a claim.
pub(super) const FORMAT: u32 = 1;

/// Claims that stay when a newer one is written: enough that a reader who has just listed the chain finds what it saw,
/// and that a person sees what went before.
pub const CLAIMS_KEPT: u64 = 4;

const _: () = assert!(CLAIMS_KEPT >= 1, "the head itself must never be deleted");

/// The most bytes of a claim.
const CLAIM_BYTES_MAX: u64 = 64 << 10;

/// How often a head that was deleted before it could be read is looked for again.
const READS_MAX: u32 = 16;

/// One link of the chain: who writes, and what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The format of the claim.
    pub format: u32,
    /// Its place in the chain.
    pub number: u64,
    /// What all claims between one acquisition and its release have in common, and no others.
    pub lease: String,
    /// Who.
    pub holder: Holder,
    /// When it was written, by the holder's clock.
    pub at: Timestamp,
    /// Until when it holds, by the holder's clock.
    pub expires_at: Timestamp,
    /// How long it holds, for a reader whose clock differs.
    pub ttl_seconds: u64,
    /// What is being written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// The newest slot of the schedule that is done or was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scheduled: Option<Timestamp>,
    /// Whether the holder has given it back.
    #[serde(default)]
    pub released: bool,
}

/// One attempt at a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The backup that it will be.
    pub id: BackupId,
    /// The slot of the schedule that it answers, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<Timestamp>,
}

/// What came of writing a claim.
pub(super) enum Appended {
    /// It is the head.
    Head,
    /// Another of the same lease has that number.
    Ours(u64),
    /// Another writer was quicker.
    Overtaken,
}

/// Who may write now, or was the last to.
pub async fn current(store: &Store, cluster: &ClusterName) -> Result<Option<Claim>, LeaseError> {
    head(store, cluster).await
}

/// The claim with the highest number.
pub(super) async fn head(
    store: &Store,
    cluster: &ClusterName,
) -> Result<Option<Claim>, LeaseError> {
    let mut highest = None;
    for _ in 0..READS_MAX {
        highest = numbers(store, cluster).await?.pop();
        let Some(number) = highest else { return Ok(None) };
        if let Some(claim) = read(store, cluster, number).await? {
            return Ok(Some(claim));
        }
        // Deleted since: the chain has moved on by several claims.
    }
    let path = path(cluster, highest.unwrap_or(0));
    let at = At::new(store.url(), Operation::Read, &path);
    let source = StoreError::NotFound { at };
    Err(LeaseError::store("see who writes", source))
}

/// Creates a claim, and makes sure that it is the head.
pub(super) async fn append(
    store: &Store,
    cluster: &ClusterName,
    claim: &Claim,
) -> Result<Appended, LeaseError> {
    let json = serde_json::to_vec_pretty(claim).expect("a claim is plain data");
    if let Err(error) = store.create(&path(cluster, claim.number), json.into()).await {
        // Also when it failed otherwise: the answer may have been lost, not the request.
        match read(store, cluster, claim.number).await {
            Ok(Some(found)) if found == *claim => {}
            Ok(Some(found)) if found.lease == claim.lease => {
                return Ok(Appended::Ours(found.number));
            }
            Ok(_) if matches!(error, StoreError::Exists { .. }) => return Ok(Appended::Overtaken),
            Ok(Some(_)) => return Ok(Appended::Overtaken),
            Ok(None) | Err(_) => return Err(LeaseError::store("say who writes", error)),
        }
    }
    let numbers = numbers(store, cluster).await?;
    if numbers.last() != Some(&claim.number) {
        return Ok(Appended::Overtaken);
    }
    if !store.is_create_only() && read(store, cluster, claim.number).await?.as_ref() != Some(claim)
    {
        return Ok(Appended::Overtaken);
    }
    forget(store, cluster, &numbers).await;
    Ok(Appended::Head)
}

/// Deletes what the head has left behind. That one cannot be deleted (a lock, a role) matters to nobody.
async fn forget(store: &Store, cluster: &ClusterName, numbers: &[u64]) {
    let head = numbers.last().copied().unwrap_or(0);
    for number in numbers.iter().filter(|n| **n + CLAIMS_KEPT <= head) {
        let _ = store.delete(&path(cluster, *number)).await;
    }
}

/// The numbers that there are, sorted.
async fn numbers(store: &Store, cluster: &ClusterName) -> Result<Vec<u64>, LeaseError> {
    let prefix = prefix(cluster);
    let entries = store.list(&prefix).await;
    let entries = entries.map_err(|source| LeaseError::store("see who writes", source))?;
    let number = |path: &str| {
        let digits = path.strip_prefix(&prefix)?.strip_suffix(".json")?;
        digits.parse::<u64>().ok().filter(|n| format!("{n:020}") == digits)
    };
    let mut numbers: Vec<u64> = entries.iter().filter_map(|e| number(&e.path)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

async fn read(
    store: &Store,
    cluster: &ClusterName,
    number: u64,
) -> Result<Option<Claim>, LeaseError> {
    let path = path(cluster, number);
    let json = match store.read(&path, CLAIM_BYTES_MAX).await {
        Ok(json) => json,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(source) => return Err(LeaseError::store("see who writes", source)),
    };
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let malformed = |source| LeaseError::Malformed { path: path.clone(), source };
    let Head { format } = serde_json::from_slice(&json).map_err(malformed)?;
    if format != FORMAT {
        return Err(LeaseError::Format { path, format });
    }
    serde_json::from_slice(&json).map(Some).map_err(malformed)
}

fn prefix(cluster: &ClusterName) -> String {
    format!("{cluster}/writer/")
}

fn path(cluster: &ClusterName, number: u64) -> String {
    format!("{}{number:020}.json", prefix(cluster))
}
