//! Member and cluster ids, which follow from the peer URLs and the cluster token alone.
//!
//! ```text
//! member id  = SHA-1( peer URLs, ascending, joined by nothing  ‖  token )[0..8]     big-endian
//! cluster id = SHA-1( member ids, ascending, 8 bytes big-endian each )[0..8]        big-endian
//! ```
//!
//! Two clusters with the same URLs and the same token have the same ids and can mix: that is why
//! each restore should have a token of its own.

use etcd_schema::MemberId;
use std::fmt;

/// The id of a cluster. Printed as etcd prints it: hexadecimal without leading zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

/// The id of a member that is there when its cluster is founded. The order of `peer_urls` does not
/// matter. (A member added later also has the time of its adding in its id.)
pub fn founding_member<S: AsRef<str>>(peer_urls: &[S], token: &str) -> MemberId {
    let mut urls: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
    urls.sort_unstable();
    let mut sha1 = sha1_smol::Sha1::new();
    for url in urls {
        sha1.update(url.as_bytes());
    }
    sha1.update(token.as_bytes());
    MemberId(first_eight_bytes(&sha1))
}

impl ClusterId {
    /// The id of a cluster founded by these members, in any order.
    pub fn founding(members: &[MemberId]) -> Self {
        let mut ids = members.to_vec();
        ids.sort_unstable();
        let mut sha1 = sha1_smol::Sha1::new();
        for id in ids {
            sha1.update(&id.0.to_be_bytes());
        }
        Self(first_eight_bytes(&sha1))
    }
}

fn first_eight_bytes(sha1: &sha1_smol::Sha1) -> u64 {
    let digest = sha1.digest().bytes();
    let (head, _) = digest.split_first_chunk::<8>().expect("a SHA-1 has 20 bytes");
    u64::from_be_bytes(*head)
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_etcd_computes() {
        let urls = ["http://127.0.0.1:29001", "http://127.0.0.1:29002", "http://127.0.0.1:29003"];
        let ids: Vec<_> = urls.iter().map(|url| founding_member(&[url], "tok1")).collect();
        let printed: Vec<_> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(printed, ["aaa30b9a9af434c2", "f6390633c83b792e", "a504fca8cfdd09a2"]);
        assert_eq!(ClusterId::founding(&ids), ClusterId(0x003d_709d_bfcb_455b));
        assert_eq!(ClusterId::founding(&ids).to_string(), "3d709dbfcb455b");
    }

    #[test]
    fn ids_of_the_default_cluster_are_the_well_known_ones() {
        let member = founding_member(&["http://localhost:2380"], "etcd-cluster");
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(ClusterId::founding(&[member]).to_string(), "cdf818194e3a8c32");
    }

    #[test]
    fn the_order_of_urls_and_members_does_not_matter() {
        let (a, b) = ("http://10.0.0.1:2380", "http://10.0.0.2:2380");
        assert_eq!(founding_member(&[a, b], "t"), founding_member(&[b, a], "t"));
        let (x, y) = (MemberId(7), MemberId(9));
        assert_eq!(ClusterId::founding(&[x, y]), ClusterId::founding(&[y, x]));
    }
}
