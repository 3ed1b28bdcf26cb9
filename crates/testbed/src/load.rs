//! Fills a server with a database of a wanted size, for the bench.
//!
//! What is written depends on the [`Load`] alone, so two machines get the same keys and values. The
//! order in which transactions of different connections land does not, and neither do revisions:
//! the bench needs a database like those in real life, not two files with equal bytes.
//!
//! One worker per connection writes keys of its own, `TXN_VALUES_BYTES` a transaction, as fast as
//! the server takes them. Of all puts the wanted share overwrites an earlier key of the worker; every
//! `DELETE_EVERY`th transaction also deletes one. So leaves hold several revisions of a key and
//! tombstones between them, as in a Kubernetes cluster between two compactions.

use anyhow::{Context, Result};
use etcd_client::{Client, Txn, TxnOp};

/// Well below the 1.5 MiB that a server takes in a request.
const TXN_VALUES_BYTES: u64 = 512 * 1024;

/// etcd takes 128 operations in a transaction; one is for the delete.
const TXN_PUTS_MAX: u64 = 120;

/// One delete in so many transactions.
const DELETE_EVERY: u64 = 4;

/// What to write.
#[derive(Clone, Debug)]
pub struct Load {
    /// Sum of the sizes of all values written, superseded ones included.
    pub bytes: u64,
    /// Values are between half and one and a half times this long.
    pub value_bytes: u64,
    /// How many of a hundred puts go to a key that exists.
    pub overwrites_percent: u64,
    /// Connections that write at the same time.
    pub connections: u64,
    /// Another seed, other values.
    pub seed: u64,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Sum of the sizes of all values.
    pub bytes: u64,
    /// Puts.
    pub puts: u64,
    /// Deletes.
    pub deletes: u64,
}

/// Writes the load to a server without TLS.
pub async fn write(endpoint: &str, load: &Load) -> Result<Written> {
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..load.connections {
        let client = Client::connect([endpoint], None).await.context("cannot connect")?;
        workers.spawn(Worker::new(number, load).run(client));
    }
    let mut all = Written::default();
    while let Some(worker) = workers.join_next().await {
        let written = worker.context("a worker panicked")??;
        all.bytes += written.bytes;
        all.puts += written.puts;
        all.deletes += written.deletes;
    }
    Ok(all)
}

/// One connection's part of the load.
struct Worker {
    number: u64,
    load: Load,
    random: SplitMix,
    keys: u64,
    written: Written,
}

impl Worker {
    fn new(number: u64, load: &Load) -> Self {
        Self {
            number,
            load: load.clone(),
            random: SplitMix(load.seed.wrapping_mul(1_000_003).wrapping_add(number)),
            keys: 0,
            written: Written::default(),
        }
    }

    async fn run(mut self, mut client: Client) -> Result<Written> {
        let share = self.load.bytes / self.load.connections;
        let mut transactions = 0;
        while self.written.bytes < share {
            let operations = self.transaction(transactions % DELETE_EVERY == DELETE_EVERY - 1);
            client.txn(Txn::new().and_then(operations)).await.context("the server refused")?;
            transactions += 1;
        }
        Ok(self.written)
    }

    /// One transaction. etcd refuses two operations on one key, so overwritten keys are drawn from
    /// stripes: the n-th put draws a key whose number is n modulo the greatest number of puts.
    fn transaction(&mut self, with_delete: bool) -> Vec<TxnOp> {
        let mut operations = Vec::new();
        let mut bytes = 0;
        let old_keys = self.keys;
        let stripes = old_keys / (TXN_PUTS_MAX + 1);
        for n in 0..TXN_PUTS_MAX {
            if bytes >= TXN_VALUES_BYTES {
                break;
            }
            let overwrites = stripes > 0 && self.random.below(100) < self.load.overwrites_percent;
            let key = if overwrites {
                self.random.below(stripes) * (TXN_PUTS_MAX + 1) + n
            } else {
                self.keys += 1;
                self.keys - 1
            };
            let value = self.value();
            bytes += u64::try_from(value.len()).expect("a length fits 64 bits");
            operations.push(TxnOp::put(self.key(key), value, None));
            self.written.puts += 1;
        }
        self.written.bytes += bytes;
        if with_delete && stripes > 0 {
            let key = self.random.below(stripes) * (TXN_PUTS_MAX + 1) + TXN_PUTS_MAX;
            operations.push(TxnOp::delete(self.key(key), None));
            self.written.deletes += 1;
        }
        operations
    }

    fn key(&self, number: u64) -> String {
        format!("/registry/pods/namespace-{:02}/workload-{number:010}", self.number)
    }

    /// Text that compresses about as well as the objects of a Kubernetes cluster do: a random word
    /// now and then among words that come again and again.
    fn value(&mut self) -> Vec<u8> {
        let length = self.load.value_bytes / 2 + self.random.below(self.load.value_bytes + 1);
        let length = usize::try_from(length).expect("values are small");
        let mut value = Vec::with_capacity(length + 64);
        while value.len() < length {
            let word = self.random.next();
            value.extend_from_slice(b"{\"metadata\":{\"uid\":\"");
            value.extend_from_slice(format!("{word:016x}").as_bytes());
            value.extend_from_slice(b"\"}},");
        }
        value.truncate(length);
        value
    }
}

/// The SplitMix64 generator: small, seeded, and good enough to draw keys.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; the slight bias does not matter here.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn worker(seed: u64) -> Worker {
        let load =
            Load { bytes: 0, value_bytes: 1000, overwrites_percent: 30, connections: 1, seed };
        Worker::new(0, &load)
    }

    fn described(worker: &mut Worker) -> Vec<String> {
        (0..20).map(|n| format!("{:?}", worker.transaction(n % 4 == 3))).collect()
    }

    #[test]
    fn the_same_seed_writes_the_same_and_another_does_not() {
        assert_eq!(described(&mut worker(1)), described(&mut worker(1)));
        assert_ne!(described(&mut worker(1)), described(&mut worker(2)));
    }

    #[test]
    fn no_transaction_names_a_key_twice() {
        let mut worker = worker(1);
        for n in 0..50 {
            let operations = worker.transaction(n % 4 == 3);
            let keys: HashSet<String> = operations
                .iter()
                .map(|operation| {
                    let text = format!("{operation:?}");
                    let key = text.split("key: ").nth(1).expect("every operation has a key");
                    key.split(']').next().expect("a key ends").to_owned()
                })
                .collect();
            assert_eq!(keys.len(), operations.len());
        }
        assert!(worker.written.deletes > 0 && worker.keys < worker.written.puts);
    }
}
