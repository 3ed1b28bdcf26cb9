//! What a raft entry asks for.
//!
//! An entry's data is an `InternalRaftRequest` with one of its fields set, or, for the server's own
//! bookkeeping in 3.4, a bare `Request` of the v2 API. The two are told apart by strict parsing: an
//! entry is believed to be what its bytes are when written again. So a field that this version does
//! not know is never skipped.

use prost::Message;

/// A put.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) lease: i64,
    #[prost(bool, tag = "4")]
    pub(crate) prev_kv: bool,
    #[prost(bool, tag = "5")]
    pub(crate) ignore_value: bool,
    #[prost(bool, tag = "6")]
    pub(crate) ignore_lease: bool,
}

/// A deletion.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
    #[prost(bool, tag = "3")]
    prev_kv: bool,
}

/// A read. Only its revision matters here: a transaction fails if that is not to be had.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    limit: i64,
    #[prost(int64, tag = "4")]
    pub(crate) revision: i64,
    #[prost(int32, tag = "5")]
    sort_order: i32,
    #[prost(int32, tag = "6")]
    sort_target: i32,
    #[prost(bool, tag = "7")]
    serializable: bool,
    #[prost(bool, tag = "8")]
    keys_only: bool,
    #[prost(bool, tag = "9")]
    count_only: bool,
    #[prost(int64, tag = "10")]
    min_mod_revision: i64,
    #[prost(int64, tag = "11")]
    max_mod_revision: i64,
    #[prost(int64, tag = "12")]
    min_create_revision: i64,
    #[prost(int64, tag = "13")]
    max_create_revision: i64,
}

/// A transaction: if all compares hold then `success`, else `failure`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) failure: Vec<RequestOp>,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestOp {
    #[prost(oneof = "Op", tags = "1, 2, 3, 4")]
    pub(crate) op: Option<Op>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Op {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
}

/// A condition on a key, or on every key of a range.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Compare {
    #[prost(int32, tag = "1")]
    pub(crate) result: i32,
    #[prost(int32, tag = "2")]
    pub(crate) target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) key: Vec<u8>,
    #[prost(oneof = "Target", tags = "4, 5, 6, 7, 8")]
    pub(crate) operand: Option<Target>,
    #[prost(bytes = "vec", tag = "64")]
    pub(crate) range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Target {
    #[prost(int64, tag = "4")]
    Version(i64),
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    #[prost(bytes, tag = "7")]
    Value(Vec<u8>),
    #[prost(int64, tag = "8")]
    Lease(i64),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CompactionRequest {
    #[prost(int64, tag = "1")]
    pub(crate) revision: i64,
    #[prost(bool, tag = "2")]
    physical: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    pub(crate) ttl: i64,
    #[prost(int64, tag = "2")]
    pub(crate) id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseRevokeRequest {
    #[prost(int64, tag = "1")]
    pub(crate) id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseCheckpointRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) checkpoints: Vec<LeaseCheckpoint>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseCheckpoint {
    #[prost(int64, tag = "1")]
    pub(crate) id: i64,
    #[prost(int64, tag = "2")]
    pub(crate) remaining_ttl: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct AlarmRequest {
    #[prost(int32, tag = "1")]
    pub(crate) action: i32,
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
    #[prost(int32, tag = "3")]
    pub(crate) alarm: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClusterVersionSetRequest {
    #[prost(string, tag = "1")]
    pub(crate) ver: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClusterMemberAttrSetRequest {
    #[prost(uint64, tag = "1")]
    pub(crate) member_id: u64,
    #[prost(message, optional, tag = "2")]
    pub(crate) attributes: Option<MemberAttributes>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MemberAttributes {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) client_urls: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DowngradeInfoSetRequest {
    #[prost(bool, tag = "1")]
    pub(crate) enabled: bool,
    #[prost(string, tag = "2")]
    pub(crate) ver: String,
}

/// A request of the v2 API: proto2, so that all scalars are always written.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct V2Request {
    #[prost(uint64, required, tag = "1")]
    id: u64,
    #[prost(string, required, tag = "2")]
    pub(crate) method: String,
    #[prost(string, required, tag = "3")]
    pub(crate) path: String,
    #[prost(string, required, tag = "4")]
    pub(crate) val: String,
    #[prost(bool, required, tag = "5")]
    dir: bool,
    #[prost(string, required, tag = "6")]
    prev_value: String,
    #[prost(uint64, required, tag = "7")]
    prev_index: u64,
    #[prost(bool, optional, tag = "8")]
    prev_exist: Option<bool>,
    #[prost(int64, required, tag = "9")]
    expiration: i64,
    #[prost(bool, required, tag = "10")]
    wait: bool,
    #[prost(uint64, required, tag = "11")]
    since: u64,
    #[prost(bool, required, tag = "12")]
    recursive: bool,
    #[prost(bool, required, tag = "13")]
    sorted: bool,
    #[prost(bool, required, tag = "14")]
    quorum: bool,
    #[prost(int64, required, tag = "15")]
    time: i64,
    #[prost(bool, required, tag = "16")]
    stream: bool,
    #[prost(bool, optional, tag = "17")]
    refresh: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct RequestHeader {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    username: String,
    #[prost(uint64, tag = "3")]
    auth_revision: u64,
}

/// Requests about authentication and the like are told by their number; their content (it may hold
/// passwords) is not looked at.
#[derive(Clone, PartialEq, Message)]
struct InternalRaftRequest {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, optional, tag = "2")]
    v2: Option<V2Request>,
    #[prost(message, optional, tag = "3")]
    range: Option<RangeRequest>,
    #[prost(message, optional, tag = "4")]
    put: Option<PutRequest>,
    #[prost(message, optional, tag = "5")]
    delete_range: Option<DeleteRangeRequest>,
    #[prost(message, optional, tag = "6")]
    txn: Option<TxnRequest>,
    #[prost(message, optional, tag = "7")]
    compaction: Option<CompactionRequest>,
    #[prost(message, optional, tag = "8")]
    lease_grant: Option<LeaseGrantRequest>,
    #[prost(message, optional, tag = "9")]
    lease_revoke: Option<LeaseRevokeRequest>,
    #[prost(message, optional, tag = "10")]
    alarm: Option<AlarmRequest>,
    #[prost(message, optional, tag = "11")]
    lease_checkpoint: Option<LeaseCheckpointRequest>,
    #[prost(message, optional, tag = "100")]
    header: Option<RequestHeader>,
    #[prost(bytes = "vec", optional, tag = "1000")]
    auth_enable: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1011")]
    auth_disable: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1012")]
    authenticate: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1013")]
    auth_status: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1100")]
    auth_user_add: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1101")]
    auth_user_delete: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1102")]
    auth_user_get: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1103")]
    auth_user_change_password: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1104")]
    auth_user_grant_role: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1105")]
    auth_user_revoke_role: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1106")]
    auth_user_list: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1107")]
    auth_role_list: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1200")]
    auth_role_add: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1201")]
    auth_role_delete: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1202")]
    auth_role_get: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1203")]
    auth_role_grant_permission: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "1204")]
    auth_role_revoke_permission: Option<Vec<u8>>,
    #[prost(message, optional, tag = "1300")]
    cluster_version_set: Option<ClusterVersionSetRequest>,
    #[prost(message, optional, tag = "1301")]
    cluster_member_attr_set: Option<ClusterMemberAttrSetRequest>,
    #[prost(message, optional, tag = "1302")]
    downgrade_info_set: Option<DowngradeInfoSetRequest>,
    #[prost(bytes = "vec", optional, tag = "9900")]
    downgrade_version_test: Option<Vec<u8>>,
}

/// What an entry asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compaction(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    LeaseCheckpoint(LeaseCheckpointRequest),
    Alarm(AlarmRequest),
    ClusterVersionSet(ClusterVersionSetRequest),
    ClusterMemberAttrSet(ClusterMemberAttrSetRequest),
    DowngradeInfoSet(DowngradeInfoSetRequest),
    /// Of the v2 API. It does not touch what the v3 API serves.
    V2(V2Request),
    /// A read or a question, which changes nothing.
    NoEffect,
}

/// Why an entry's data is not a request to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadRequest {
    /// It changes authentication.
    Auth(&'static str),
    /// It is not one, or not one that is known here.
    Unknown,
}

impl Request {
    /// Reads the data of a normal entry.
    pub(crate) fn decode(data: &[u8]) -> Result<Self, BadRequest> {
        if let Some(request) = decode_exactly::<InternalRaftRequest>(data) {
            return request.into_request();
        }
        decode_exactly::<V2Request>(data).map(Self::V2).ok_or(BadRequest::Unknown)
    }
}

impl InternalRaftRequest {
    /// The one request in it; etcd would stop at none, and never writes two.
    fn into_request(mut self) -> Result<Request, BadRequest> {
        if let Some(request) = self.auth_change() {
            return Err(BadRequest::Auth(request));
        }
        let no_effect = self.take_without_effect();
        let mut requests = [
            self.v2.map(Request::V2),
            self.put.map(Request::Put),
            self.delete_range.map(Request::DeleteRange),
            self.txn.map(Request::Txn),
            self.compaction.map(Request::Compaction),
            self.lease_grant.map(Request::LeaseGrant),
            self.lease_revoke.map(Request::LeaseRevoke),
            self.lease_checkpoint.map(Request::LeaseCheckpoint),
            self.alarm.map(Request::Alarm),
            self.cluster_version_set.map(Request::ClusterVersionSet),
            self.cluster_member_attr_set.map(Request::ClusterMemberAttrSet),
            self.downgrade_info_set.map(Request::DowngradeInfoSet),
        ]
        .into_iter()
        .flatten()
        .chain(no_effect);
        match (requests.next(), requests.next()) {
            (Some(request), None) => Ok(request),
            _ => Err(BadRequest::Unknown),
        }
    }

    fn auth_change(&self) -> Option<&'static str> {
        let changes = [
            (&self.auth_enable, "auth enable"),
            (&self.auth_disable, "auth disable"),
            (&self.auth_user_add, "user add"),
            (&self.auth_user_delete, "user delete"),
            (&self.auth_user_change_password, "user password change"),
            (&self.auth_user_grant_role, "user role grant"),
            (&self.auth_user_revoke_role, "user role revoke"),
            (&self.auth_role_add, "role add"),
            (&self.auth_role_delete, "role delete"),
            (&self.auth_role_grant_permission, "role permission grant"),
            (&self.auth_role_revoke_permission, "role permission revoke"),
        ];
        changes.into_iter().find(|(change, _)| change.is_some()).map(|(_, name)| name)
    }

    /// One [`Request::NoEffect`] for each request that only asks.
    fn take_without_effect(&mut self) -> impl Iterator<Item = Request> + use<> {
        let asked = [
            self.range.take().is_some(),
            self.authenticate.is_some(),
            self.auth_status.is_some(),
            self.auth_user_get.is_some(),
            self.auth_user_list.is_some(),
            self.auth_role_list.is_some(),
            self.auth_role_get.is_some(),
            self.downgrade_version_test.is_some(),
        ];
        asked.into_iter().filter(|asked| *asked).map(|_| Request::NoEffect)
    }
}

/// The message, if the bytes are just what writing it gives: no unknown field, none out of order.
fn decode_exactly<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    (message.encode_to_vec() == bytes).then_some(message)
}

#[cfg(test)]
pub(crate) mod build {
    //! Requests for tests, short to write.

    use super::*;

    pub(crate) fn put(key: &str, value: &str) -> PutRequest {
        PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
    }

    pub(crate) fn put_with_lease(key: &str, value: &str, lease: i64) -> PutRequest {
        PutRequest { lease, ..put(key, value) }
    }

    pub(crate) fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
        DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false }
    }

    pub(crate) fn range_at(revision: i64) -> RangeRequest {
        RangeRequest { key: b"k".into(), revision, ..RangeRequest::default() }
    }

    pub(crate) fn compare(key: &str, result: i32, target: i32, operand: Target) -> Compare {
        let operand = Some(operand);
        Compare { result, target, key: key.into(), operand, range_end: vec![] }
    }

    pub(crate) fn txn(compare: Vec<Compare>, success: Vec<Op>, failure: Vec<Op>) -> TxnRequest {
        let ops = |ops: Vec<Op>| ops.into_iter().map(|op| RequestOp { op: Some(op) }).collect();
        TxnRequest { compare, success: ops(success), failure: ops(failure) }
    }

    /// The data of an entry with this request, as 3.5 writes it.
    pub(crate) fn entry(request: Request) -> Vec<u8> {
        let header = Some(RequestHeader { id: 7, username: String::new(), auth_revision: 1 });
        let mut raft = InternalRaftRequest { header, ..InternalRaftRequest::default() };
        match request {
            Request::Put(r) => raft.put = Some(r),
            Request::DeleteRange(r) => raft.delete_range = Some(r),
            Request::Txn(r) => raft.txn = Some(r),
            Request::Compaction(r) => raft.compaction = Some(r),
            Request::LeaseGrant(r) => raft.lease_grant = Some(r),
            Request::LeaseRevoke(r) => raft.lease_revoke = Some(r),
            Request::LeaseCheckpoint(r) => raft.lease_checkpoint = Some(r),
            Request::Alarm(r) => raft.alarm = Some(r),
            Request::ClusterVersionSet(r) => raft.cluster_version_set = Some(r),
            Request::ClusterMemberAttrSet(r) => raft.cluster_member_attr_set = Some(r),
            Request::DowngradeInfoSet(r) => raft.downgrade_info_set = Some(r),
            Request::V2(r) => return r.encode_to_vec(),
            Request::NoEffect => raft.range = Some(RangeRequest::default()),
        }
        raft.encode_to_vec()
    }

    pub(crate) fn compaction(revision: i64) -> Request {
        Request::Compaction(CompactionRequest { revision, physical: false })
    }

    pub(crate) fn v2_put(path: &str, val: &str) -> Request {
        let (method, path, val) = ("PUT".into(), path.into(), val.into());
        Request::V2(V2Request { id: 1, method, path, val, ..V2Request::default() })
    }

    pub(crate) fn auth_enable() -> Vec<u8> {
        let raft =
            InternalRaftRequest { auth_enable: Some(vec![]), ..InternalRaftRequest::default() };
        raft.encode_to_vec()
    }

    pub(crate) fn authenticate() -> Vec<u8> {
        let raft =
            InternalRaftRequest { authenticate: Some(vec![]), ..InternalRaftRequest::default() };
        raft.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::build::*;
    use super::*;

    #[test]
    fn every_request_reads_back_as_what_it_is() {
        let requests = [
            Request::Put(put("k", "v")),
            Request::DeleteRange(delete("k", "\0")),
            Request::Txn(txn(
                vec![compare("k", 0, 3, Target::Value(vec![]))],
                vec![Op::Put(put("a", ""))],
                vec![Op::Txn(txn(vec![], vec![Op::Range(range_at(5))], vec![]))],
            )),
            compaction(5),
            Request::LeaseGrant(LeaseGrantRequest { ttl: 10, id: -5 }),
            Request::LeaseRevoke(LeaseRevokeRequest { id: i64::MIN }),
            Request::NoEffect,
            v2_put("/0/version", "3.4.0"),
        ];
        for request in requests {
            assert_eq!(Request::decode(&entry(request.clone())), Ok(request));
        }
    }

    #[test]
    fn an_entry_with_a_field_that_is_not_known_is_not_guessed_at() {
        let mut data = entry(Request::Put(put("k", "v")));
        data.extend_from_slice(b"\xa2\x80\x01\x00"); // field 2052, empty
        assert_eq!(Request::decode(&data), Err(BadRequest::Unknown));
        // The same inside the put: field 7.
        assert_eq!(Request::decode(b"\x22\x05\x0a\x01k\x38\x01"), Err(BadRequest::Unknown));
    }

    #[test]
    fn an_entry_with_no_request_or_with_two_is_not_known() {
        let none = InternalRaftRequest { id: 5, ..InternalRaftRequest::default() };
        assert_eq!(Request::decode(&none.encode_to_vec()), Err(BadRequest::Unknown));
        let put = Some(put("k", "v"));
        let compaction = Some(CompactionRequest { revision: 3, physical: false });
        let two = InternalRaftRequest { put, compaction, ..InternalRaftRequest::default() };
        assert_eq!(Request::decode(&two.encode_to_vec()), Err(BadRequest::Unknown));
    }

    #[test]
    fn a_change_of_authentication_is_named_and_a_question_about_it_has_no_effect() {
        assert_eq!(Request::decode(&auth_enable()), Err(BadRequest::Auth("auth enable")));
        assert_eq!(Request::decode(&authenticate()), Ok(Request::NoEffect));
    }

    #[test]
    fn a_transaction_nested_too_deep_to_decode_is_refused_without_a_panic() {
        let mut nested = txn(vec![], vec![Op::Put(put("k", "v"))], vec![]);
        for _ in 0..500 {
            nested = txn(vec![], vec![Op::Txn(nested)], vec![]);
        }
        let data = entry(Request::Txn(nested));
        assert_eq!(Request::decode(&data), Err(BadRequest::Unknown));
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = Request::decode(&bytes);
        }
    }
}
