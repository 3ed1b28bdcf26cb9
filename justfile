# `just` lists what there is.

_list:
    @just --list --unsorted

# What must hold before a commit, without servers: format, lints, unit tests, docs
check:
    ./test format lint unit docs

# Everything that CI runs, real servers included
test:
    ./test

# The tests with real etcd clusters
e2e:
    ./test e2e

# Fuzz every target for so many seconds
fuzz seconds="60":
    fuzz/run {{seconds}}

# Side by side with etcdctl and etcdutl; writes docs/performance.md
bench *options:
    ./bench {{options}}

# A cluster is backed up, destroyed and brought back; `just demo recover` does it over ssh
demo *options:
    ./demo {{options}}

# Advisories, licences, duplicates and sources of the dependencies; needs the network
deny:
    cargo deny check
