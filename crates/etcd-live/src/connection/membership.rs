//! Changes of who is a member.
//!
//! One at a time: etcd counts a majority of the new members for each. It refuses what would leave too few that run, and, for
//! seconds after a member went away or came, everything (`unhealthy cluster`): what is refused so is to be tried again.

use etcd_client::MemberAddOptions;

use super::Connection;
use crate::error::{LiveError, Request};

impl Connection {
    /// Removes a member. Its id is never used again, and its data are of no use any more.
    pub async fn remove_member(&self, id: u64) -> Result<(), LiveError> {
        let mut cluster = self.client.cluster_client();
        self.ask(Request::MemberRemove, cluster.member_remove(id)).await?;
        Ok(())
    }

    /// Adds a member that is to be started with no data; returns its id. A learner has no vote until it is
    /// [promoted](Self::promote_member), so that it cannot cost the cluster its majority.
    pub async fn add_member(
        &self,
        peer_urls: &[String],
        as_learner: bool,
    ) -> Result<u64, LiveError> {
        let mut cluster = self.client.cluster_client();
        let options = match as_learner {
            true => MemberAddOptions::new().with_is_learner(),
            false => MemberAddOptions::new(),
        };
        let adding = cluster.member_add(peer_urls, Some(options));
        let reply = self.ask(Request::MemberAdd, adding).await?;
        Ok(reply.member().map_or(0, etcd_client::Member::id))
    }

    /// Gives a learner its vote. Refused until it has caught up with the leader.
    pub async fn promote_member(&self, id: u64) -> Result<(), LiveError> {
        let mut cluster = self.client.cluster_client();
        self.ask(Request::MemberPromote, cluster.member_promote(id)).await?;
        Ok(())
    }
}
