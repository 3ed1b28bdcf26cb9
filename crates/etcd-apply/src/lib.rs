//! Raft entries applied to an etcd database offline
