//! What etcd keeps in bbolt: buckets, revision keys, values, hashes
