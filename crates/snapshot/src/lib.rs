//! A snapshot file: save, verify, status, and what a stopped member holds
