//! Asking a cluster what any of its members can tell.

use tokio::task::JoinSet;

use crate::choice::{PassedOver, Reason, none_usable};
use crate::connection::Connector;
use crate::endpoint::Endpoint;
use crate::error::LiveError;
use crate::reply::Members;

/// The members of the cluster, from whichever endpoint answers first.
pub async fn members_of(
    connector: &Connector,
    endpoints: &[Endpoint],
) -> Result<Members, LiveError> {
    if endpoints.is_empty() {
        return Err(LiveError::NoEndpoints);
    }
    let mut asked = JoinSet::new();
    for endpoint in endpoints.iter().cloned() {
        let connector = connector.clone();
        asked.spawn(async move {
            let members = async { connector.connect(&endpoint).await?.members().await }.await;
            members.map_err(|error| PassedOver { endpoint, reason: Reason::Failed(error) })
        });
    }
    let mut failed = Vec::new();
    while let Some(answer) = asked.join_next().await {
        match answer.expect("the tasks neither panic nor are aborted") {
            Ok(members) => return Ok(members),
            Err(passed_over) => failed.push(passed_over),
        }
    }
    Err(none_usable(failed))
}
