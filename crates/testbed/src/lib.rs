//! Real etcd clusters and fixtures for the tests, and the loader of the bench
