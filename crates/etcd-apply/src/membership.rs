//! Members, the cluster's version and raft's configuration, as far as the log changes them.
//!
//! Best effort: a restore writes all of it anew, and no hash of the user's data covers it. Changes
//! that etcd would refuse (a member that is there already, one that was removed) are left out.

use std::collections::BTreeMap;

use bolt::{Bucket, Db};
use etcd_raftfiles::raftpb::{ConfChange, ConfChangeType};
use etcd_schema::{ConfState, Member, MemberId, ReadError, bucket};

use crate::request::{
    ClusterMemberAttrSetRequest, DowngradeInfoSetRequest, MemberAttributes, V2Request,
};

const CLUSTER_VERSION: &[u8] = b"clusterVersion";
const DOWNGRADE: &[u8] = b"downgrade";
const REMOVED: &[u8] = b"removed";

/// What the log has changed.
#[derive(Debug)]
pub(crate) struct Membership<'a> {
    members: Option<Bucket<'a>>,
    removed: Option<Bucket<'a>>,
    changed: BTreeMap<MemberId, Change>,
    conf_state: Option<ConfState>,
    conf_state_changed: bool,
    cluster: BTreeMap<&'static [u8], Vec<u8>>,
}

/// A row that changed: bucket, key, and value, unless the row is gone.
pub(crate) type Row = (&'static [u8], Vec<u8>, Option<Vec<u8>>);

#[derive(Clone, Debug)]
enum Change {
    Set(Member),
    Removed,
}

impl<'a> Membership<'a> {
    pub(crate) fn new(db: &Db<'a>, conf_state: Option<ConfState>) -> Result<Self, ReadError> {
        Ok(Self {
            members: db.bucket(bucket::MEMBERS)?,
            removed: db.bucket(bucket::MEMBERS_REMOVED)?,
            changed: BTreeMap::new(),
            conf_state,
            conf_state_changed: false,
            cluster: BTreeMap::new(),
        })
    }

    /// Takes in a membership change of raft.
    pub(crate) fn conf_change(&mut self, change: &ConfChange) -> Result<(), ReadError> {
        let id = MemberId(change.node_id);
        let Ok(kind) = ConfChangeType::try_from(change.change_type) else { return Ok(()) };
        let context = change.context.as_deref().unwrap_or_default();
        if kind != ConfChangeType::RemoveNode && Member::parse(context).is_err() {
            return Ok(());
        }
        if self.is_removed(id)? {
            return Ok(());
        }
        let known = self.member(id)?;
        let context = Member::parse(context).unwrap_or_default();
        match (kind, known) {
            (ConfChangeType::RemoveNode, _) => {
                self.changed.insert(id, Change::Removed);
            }
            (ConfChangeType::UpdateNode, Some(member)) => {
                self.set(Member { peer_urls: context.peer_urls, ..member });
            }
            (ConfChangeType::AddNode, Some(member)) if member.is_learner => {
                self.set(Member { is_learner: false, ..member });
            }
            (ConfChangeType::AddNode | ConfChangeType::AddLearnerNode, None) => self.set(context),
            _ => return Ok(()),
        }
        self.change_conf_state(kind, id);
        Ok(())
    }

    /// Takes in what a member says of itself once it has started.
    pub(crate) fn set_attributes(
        &mut self,
        request: &ClusterMemberAttrSetRequest,
    ) -> Result<(), ReadError> {
        let MemberAttributes { name, client_urls } = request.attributes.clone().unwrap_or_default();
        if let Some(member) = self.member(MemberId(request.member_id))? {
            self.set(Member { name, client_urls, ..member });
        }
        Ok(())
    }

    pub(crate) fn set_cluster_version(&mut self, version: &str) {
        self.cluster.insert(CLUSTER_VERSION, version.as_bytes().to_vec());
    }

    pub(crate) fn set_downgrade(&mut self, request: &DowngradeInfoSetRequest) {
        let target = if request.enabled { request.ver.as_str() } else { "" };
        let target = serde_json::to_string(target).expect("text always serialises");
        let json = format!("{{\"target-version\":{target},\"enabled\":{}}}", request.enabled);
        self.cluster.insert(DOWNGRADE, json.into_bytes());
    }

    /// 3.4 keeps its books by requests of the v2 API:
    /// `PUT /0/members/<id>/attributes {"name":…,"clientURLs":[…]}` and `PUT /0/version 3.4.0`.
    pub(crate) fn v2(&mut self, request: &V2Request) -> Result<(), ReadError> {
        if request.method != "PUT" {
            return Ok(());
        }
        if request.path == "/0/version" {
            self.set_cluster_version(&request.val);
        }
        let id = request.path.strip_prefix("/0/members/").and_then(|rest| {
            let id = rest.strip_suffix("/attributes")?;
            MemberId::parse_key(id.as_bytes()).ok()
        });
        let Some(id) = id else { return Ok(()) };
        let Some(attributes) = parse_attributes(&request.val) else { return Ok(()) };
        let MemberId(member_id) = id;
        let attributes = Some(attributes);
        self.set_attributes(&ClusterMemberAttrSetRequest { member_id, attributes })
    }

    fn set(&mut self, member: Member) {
        self.changed.insert(member.id, Change::Set(member));
    }

    fn member(&self, id: MemberId) -> Result<Option<Member>, ReadError> {
        match (self.changed.get(&id), &self.members) {
            (Some(Change::Set(member)), _) => Ok(Some(member.clone())),
            (Some(Change::Removed), _) | (None, None) => Ok(None),
            (None, Some(members)) => {
                let row = members.get(id.to_string().as_bytes())?;
                Ok(row.map(Member::parse).transpose()?)
            }
        }
    }

    fn is_removed(&self, id: MemberId) -> Result<bool, ReadError> {
        let before = match &self.removed {
            Some(removed) => removed.get(id.to_string().as_bytes())?.is_some(),
            None => false,
        };
        Ok(before || matches!(self.changed.get(&id), Some(Change::Removed)))
    }

    /// Only where the database has a configuration: from 3.5 on.
    fn change_conf_state(&mut self, kind: ConfChangeType, id: MemberId) {
        let Some(state) = &mut self.conf_state else { return };
        if kind == ConfChangeType::UpdateNode {
            return;
        }
        state.voters.retain(|voter| *voter != id);
        state.learners.retain(|learner| *learner != id);
        match kind {
            ConfChangeType::AddNode => state.voters.push(id),
            ConfChangeType::AddLearnerNode => state.learners.push(id),
            ConfChangeType::RemoveNode | ConfChangeType::UpdateNode => {}
        }
        state.voters.sort_unstable();
        state.learners.sort_unstable();
        self.conf_state_changed = true;
    }

    /// Rows that changed.
    pub(crate) fn into_rows(self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (id, change) in self.changed {
            let key = id.to_string().into_bytes();
            match change {
                Change::Set(member) => rows.push((bucket::MEMBERS, key, Some(member.encode()))),
                Change::Removed => {
                    rows.push((bucket::MEMBERS, key.clone(), None));
                    rows.push((bucket::MEMBERS_REMOVED, key, Some(REMOVED.to_vec())));
                }
            }
        }
        for (key, value) in self.cluster {
            rows.push((bucket::CLUSTER, key.to_vec(), Some(value)));
        }
        if let Some(state) = self.conf_state.filter(|_| self.conf_state_changed) {
            let key = etcd_schema::Meta::CONF_STATE.to_vec();
            rows.push((bucket::META, key, Some(state.encode())));
        }
        rows
    }
}

/// `{"name":…,"clientURLs":[…]}`, either of which may be absent.
fn parse_attributes(json: &str) -> Option<MemberAttributes> {
    let json: serde_json::Value = serde_json::from_str(json).ok()?;
    let object = json.as_object()?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let name = object.get("name").and_then(text).unwrap_or_default();
    let urls = object.get("clientURLs").and_then(|urls| urls.as_array());
    let client_urls = urls.into_iter().flatten().filter_map(text).collect();
    Some(MemberAttributes { name, client_urls })
}
