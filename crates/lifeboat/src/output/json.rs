//! JSON as etcdctl prints it.

use etcd_schema::go_json;
use serde::Serialize;

/// `value` on one line, with the line's end.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    go_json::to_string(value) + "\n"
}

/// For `#[serde(skip_serializing_if)]`: Go's `omitempty` leaves out zero, false and empty.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
