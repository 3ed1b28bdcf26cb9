//! etcd's write-ahead log and raft snapshots, read and written
