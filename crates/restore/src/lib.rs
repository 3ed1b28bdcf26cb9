//! Data directories for every member of a new cluster: plan, then execute
