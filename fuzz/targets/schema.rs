//! Any bytes as keys and values of etcd's buckets: no panic, what is read can be written and is read as
//! the same again, and the hashes of a store of such records can be computed.
#![no_main]

use etcd_schema::{
    AlarmMember, KeyValue, Lease, Member, MemberId, Meta, ReadError, Record, Revision, RevisionKey,
    Role, User, count_live_keys, hash_kv,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    values(input);
    store(input);
});

fn values(bytes: &[u8]) {
    if let Ok(value) = KeyValue::parse(bytes) {
        assert_eq!(KeyValue::parse(&value.encode()), Ok(value));
        assert!(KeyValue::parse_key(bytes).is_ok());
    }
    if let Ok(revision) = Revision::parse(bytes) {
        assert_eq!(revision.encode(), bytes);
    }
    if let Ok(key) = RevisionKey::parse(bytes) {
        assert_eq!(key.encode(), bytes);
    }
    if let Ok(lease) = Lease::parse(bytes) {
        assert_eq!(Lease::parse(&lease.encode_value()), Ok(lease));
    }
    if let Ok(alarm) = AlarmMember::parse(bytes) {
        assert_eq!(AlarmMember::parse(&alarm.encode_key()), Ok(alarm));
    }
    if let Ok(member) = Member::parse(bytes) {
        assert_eq!(Member::parse(&member.encode()), Ok(member));
    }
    if let Ok(id) = MemberId::parse_key(bytes) {
        assert_eq!(MemberId::parse_key(id.to_string().as_bytes()), Ok(id));
    }
    let _ = User::parse(bytes);
    let _ = Role::parse(bytes);
    for key in [
        Meta::CONSISTENT_INDEX,
        Meta::TERM,
        Meta::CONF_STATE,
        Meta::SCHEDULED_COMPACT,
        Meta::FINISHED_COMPACT,
        Meta::STORAGE_VERSION,
    ] {
        let _ = Meta::default().read(key, bytes);
    }
}

/// A small store drawn from the input, in which keys come, change and go: 1 byte an operation.
fn store(input: &[u8]) {
    let operations: Vec<(Vec<u8>, Vec<u8>)> = input
        .iter()
        .take(64)
        .enumerate()
        .map(|(n, byte)| {
            let revision = Revision { main: 2 + n as i64 / 3, sub: n as i64 % 3 };
            let key = RevisionKey { revision, tombstone: byte & 1 == 1 };
            let value = KeyValue { key: &[byte >> 5], ..KeyValue::default() };
            (key.encode(), value.encode())
        })
        .collect();
    let records = || operations.iter().map(|(k, v)| Record::parse(k, v).map_err(ReadError::from));
    let _ = count_live_keys(records).expect("our own records are good");
    let newest = operations.len() as i64 / 3 + 2;
    let asked = i64::from(input.first().copied().unwrap_or(0)) % newest;
    let compacted = input.get(1).map(|byte| i64::from(*byte) % newest);
    let _ = hash_kv(records, compacted, Some(asked));
    let _ = hash_kv(records, compacted, None);
}
