//! A running etcd cluster: connections, snapshot stream, members, health, HashKV
