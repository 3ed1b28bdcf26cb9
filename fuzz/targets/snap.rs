//! Any bytes as a raft snapshot: no panic, and what is read can be written and is read as the same again.
#![no_main]

use etcd_raftfiles::snap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    read(input);
    // No mutation hits the right CRC, so the content is also tried in an envelope of our own.
    read(&envelope(input));
});

fn read(bytes: &[u8]) {
    let Ok(snapshot) = snap::parse(bytes) else { return };
    assert_eq!(snap::parse(&snap::encode(&snapshot)).expect("we wrote it"), snapshot);
}

/// `snappb.snapshot` around `data`: field 1 the CRC, field 2 the data.
fn envelope(data: &[u8]) -> Vec<u8> {
    let mut crc = etcd_schema::Crc32c::default();
    crc.update(data);
    let mut out = vec![0x08];
    varint(&mut out, u64::from(crc.value()));
    out.push(0x12);
    varint(&mut out, data.len() as u64);
    out.extend_from_slice(data);
    out
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
