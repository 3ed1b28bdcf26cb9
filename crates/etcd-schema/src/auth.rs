//! Buckets `auth`, `authUsers` and `authRoles`.

use crate::SchemaError;
use prost::Message;

/// Key of bucket `auth`: one byte, 1 when authentication is on.
pub const AUTH_ENABLED: &[u8] = b"authEnabled";
/// Key of bucket `auth`: 8 bytes big-endian, raised by each change of users or roles.
pub const AUTH_REVISION: &[u8] = b"authRevision";

/// A user (`authpb.User`).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct User {
    /// Name, which is also the row's key.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// bcrypt hash.
    #[prost(bytes = "vec", tag = "2")]
    pub password: Vec<u8>,
    /// Roles granted, sorted by name.
    #[prost(string, repeated, tag = "3")]
    pub roles: Vec<String>,
    /// Present, though empty, for a user with a password.
    #[prost(message, optional, tag = "4")]
    pub options: Option<UserOptions>,
}

/// `authpb.UserAddOptions`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct UserOptions {
    /// The user logs in by certificate alone.
    #[prost(bool, tag = "1")]
    pub no_password: bool,
}

/// A role (`authpb.Role`).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Role {
    /// Name, which is also the row's key.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// Ranges the role may touch.
    #[prost(message, repeated, tag = "2")]
    pub key_permission: Vec<Permission>,
}

/// What a permission allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PermissionType {
    /// Reading.
    Read = 0,
    /// Writing.
    Write = 1,
    /// Both.
    ReadWrite = 2,
}

/// A range of keys and what may be done there (`authpb.Permission`).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Permission {
    /// What is allowed.
    #[prost(enumeration = "PermissionType", tag = "1")]
    pub perm_type: i32,
    /// First key.
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
    /// End of the range: empty for a single key, one zero byte for "and all greater".
    #[prost(bytes = "vec", tag = "3")]
    pub range_end: Vec<u8>,
}

impl User {
    /// Parses a row of `authUsers`.
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        Self::decode(bytes)
            .map_err(|e| SchemaError::Message { what: "authpb.User", why: e.to_string() })
    }
}

impl Role {
    /// Parses a row of `authRoles`.
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        Self::decode(bytes)
            .map_err(|e| SchemaError::Message { what: "authpb.Role", why: e.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_with_a_password_keeps_its_empty_options() {
        let bytes = b"\x0a\x04root\x12\x02$2\x1a\x04root\x22\x00";
        let user = User::parse(bytes).unwrap();
        assert_eq!(user.roles, ["root"]);
        assert_eq!(user.encode_to_vec(), bytes);
    }
}
