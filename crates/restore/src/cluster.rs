//! The new cluster: its members, and the ids etcd derives from their URLs and the token.
//!
//! ```text
//!   member id  = first 8 bytes of SHA-1(peer URLs sorted, joined, then the token)
//!   cluster id = first 8 bytes of SHA-1(member ids sorted, 8 bytes big-endian each)
//! ```
//!
//! Ids depend on nothing else, so two clusters restored with the same URLs and token are one to etcd:
//! their members could mix. Hence a fresh token for each restore of a whole cluster.

use etcd_schema::{Member, MemberId};
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with the description of the new cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No member at all.
    #[error("--initial-cluster names no member")]
    Empty,
    /// An item is not `name=url`.
    #[error("--initial-cluster: {item:?} is not of the form name=url")]
    Item {
        /// The item.
        item: String,
    },
    /// A URL is not one that etcd takes.
    #[error("peer URL {url:?} of member {name:?}: {why}")]
    Url {
        /// Member.
        name: String,
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two members, or one twice, have a URL.
    #[error("peer URL {url:?} occurs more than once in --initial-cluster")]
    DuplicateUrl {
        /// The URL.
        url: String,
    },
    /// A member's id comes out as 0 or as another's.
    #[error("the id {id} of member {name:?} is not usable")]
    Id {
        /// Member.
        name: String,
        /// Its id.
        id: MemberId,
    },
    /// `--name` or `--learner` is not a member.
    #[error("{flag} {name:?} is not in --initial-cluster (members: {})", members.join(", "))]
    UnknownName {
        /// The flag that names it.
        flag: &'static str,
        /// The name.
        name: String,
        /// The names there are.
        members: Vec<String>,
    },
    /// Nobody could vote.
    #[error("every member of --initial-cluster is a learner")]
    NoVoter,
    /// A name would lead out of the folder of `--all-members`.
    #[error("member name {name:?} cannot be a folder's name")]
    NameAsFolder {
        /// The name.
        name: String,
    },
    /// The advertised URLs are not those of the cluster.
    #[error(
        "--initial-advertise-peer-urls {} differs from the URLs of {name:?} in --initial-cluster, {}",
        advertised.join(","), expected.join(",")
    )]
    Advertised {
        /// Member.
        name: String,
        /// URLs of the flag.
        advertised: Vec<String>,
        /// URLs in the cluster.
        expected: Vec<String>,
    },
}

impl ClusterError {
    /// One imperative sentence: what to do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Empty | Self::Item { .. } => {
                "give all members of the new cluster: --initial-cluster m1=https://10.0.0.1:2380,m2=…"
            }
            Self::Url { .. } => "give peer URLs of the form https://host:2380",
            Self::DuplicateUrl { .. } | Self::Id { .. } => {
                "give each member peer URLs of its own"
            }
            Self::UnknownName { .. } => "use one of the members' names",
            Self::NoVoter => "leave at least one member a voter",
            Self::NameAsFolder { .. } => "restore this member alone, with --name and --data-dir",
            Self::Advertised { .. } => "leave the flag out: the URLs of --initial-cluster are used",
        }
    }
}

/// A cluster to be, checked: names, URLs and ids are sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCluster {
    /// Cluster id.
    pub id: u64,
    /// Token the ids were derived with.
    pub token: String,
    /// Members in the order of their ids.
    pub members: Vec<Member>,
}

impl NewCluster {
    /// Reads `--initial-cluster` (`name=url[,name=url…]`; a name may occur several times) and derives
    /// the ids. `learners` are names of members that shall not vote.
    pub fn parse(
        initial_cluster: &str,
        token: &str,
        learners: &[String],
    ) -> Result<Self, ClusterError> {
        let urls_by_name = parse_items(initial_cluster)?;
        let mut members: Vec<Member> = urls_by_name
            .into_iter()
            .map(|(name, peer_urls)| Member {
                id: member_id(&peer_urls, token),
                is_learner: learners.contains(&name),
                peer_urls,
                name,
                client_urls: Vec::new(),
            })
            .collect();
        members.sort_by_key(|member| member.id);
        let cluster = Self { id: cluster_id(&members), token: token.to_owned(), members };
        cluster.check_ids()?;
        for name in learners {
            cluster.member("--learner", name)?;
        }
        match cluster.members.iter().all(|member| member.is_learner) {
            true => Err(ClusterError::NoVoter),
            false => Ok(cluster),
        }
    }

    /// The member called `name`; `flag` is what the user named it by.
    pub fn member(&self, flag: &'static str, name: &str) -> Result<&Member, ClusterError> {
        self.members.iter().find(|member| member.name == name).ok_or_else(|| {
            let members = self.members.iter().map(|member| member.name.clone()).collect();
            ClusterError::UnknownName { flag, name: name.to_owned(), members }
        })
    }

    /// Ids of the members that vote, ascending.
    pub fn voters(&self) -> Vec<MemberId> {
        self.ids_of(false)
    }

    /// Ids of the members that do not, ascending.
    pub fn learners(&self) -> Vec<MemberId> {
        self.ids_of(true)
    }

    fn ids_of(&self, learners: bool) -> Vec<MemberId> {
        let members = self.members.iter().filter(|member| member.is_learner == learners);
        members.map(|member| member.id).collect()
    }

    fn check_ids(&self) -> Result<(), ClusterError> {
        let mut seen = BTreeSet::from([MemberId(0)]);
        for member in &self.members {
            if !seen.insert(member.id) {
                return Err(ClusterError::Id { name: member.name.clone(), id: member.id });
            }
        }
        Ok(())
    }
}

/// Checks `--initial-advertise-peer-urls` (a comma list) against the URLs of `member`: they must be
/// the same set, as text or after host names are resolved.
pub fn check_advertised(member: &Member, advertised: &str) -> Result<(), ClusterError> {
    let mut urls: Vec<String> = advertised.split(',').map(|url| url.trim().to_owned()).collect();
    urls.sort();
    for url in &urls {
        check_url(&member.name, url)?;
    }
    if urls == member.peer_urls || resolved(&urls) == resolved(&member.peer_urls) {
        return Ok(());
    }
    Err(ClusterError::Advertised {
        name: member.name.clone(),
        advertised: urls,
        expected: member.peer_urls.clone(),
    })
}

/// Scheme and socket addresses of each URL; what cannot be resolved stays text, and so equals only
/// itself.
fn resolved(urls: &[String]) -> BTreeSet<(String, BTreeSet<String>)> {
    use std::net::ToSocketAddrs;
    let resolve = |url: &String| {
        let (scheme, address) = url.split_once("://").unwrap_or(("", url));
        let addresses = address.to_socket_addrs().map_or_else(
            |_| BTreeSet::from([address.to_owned()]),
            |found| found.map(|address| address.to_string()).collect(),
        );
        (scheme.to_owned(), addresses)
    };
    urls.iter().map(resolve).collect()
}

/// Names and their URLs, sorted; no URL occurs twice.
fn parse_items(initial_cluster: &str) -> Result<BTreeMap<String, Vec<String>>, ClusterError> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for item in initial_cluster.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, url) = match item.split_once('=') {
            Some((name, url)) if !name.is_empty() => (name.trim(), url.trim()),
            _ => return Err(ClusterError::Item { item: item.to_owned() }),
        };
        check_url(name, url)?;
        if !seen.insert(url.to_owned()) {
            return Err(ClusterError::DuplicateUrl { url: url.to_owned() });
        }
        by_name.entry(name.to_owned()).or_default().push(url.to_owned());
    }
    by_name.values_mut().for_each(|urls| urls.sort());
    if by_name.is_empty() { Err(ClusterError::Empty) } else { Ok(by_name) }
}

/// The rules of etcd (`pkg/types/urls.go`): http, https, unix or unixs; host:port; no path.
fn check_url(name: &str, url: &str) -> Result<(), ClusterError> {
    let why = match url.split_once("://") {
        None => "it has no scheme (http, https)",
        Some(("unix" | "unixs", address)) if !address.is_empty() => return Ok(()),
        Some(("http" | "https", address)) => match address.rsplit_once(':') {
            _ if address.contains('/') => "it has a path",
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => return Ok(()),
            _ => "its address is not of the form host:port",
        },
        Some(_) => "its scheme is not http, https, unix or unixs",
    };
    Err(ClusterError::Url { name: name.to_owned(), url: url.to_owned(), why })
}

fn member_id(sorted_urls: &[String], token: &str) -> MemberId {
    let mut sha1 = sha1_smol::Sha1::new();
    sorted_urls.iter().for_each(|url| sha1.update(url.as_bytes()));
    sha1.update(token.as_bytes());
    MemberId(first_eight(&sha1))
}

fn cluster_id(members_by_id: &[Member]) -> u64 {
    let mut sha1 = sha1_smol::Sha1::new();
    members_by_id.iter().for_each(|member| sha1.update(&member.id.0.to_be_bytes()));
    first_eight(&sha1)
}

fn first_eight(sha1: &sha1_smol::Sha1) -> u64 {
    let digest = sha1.digest().bytes();
    u64::from_be_bytes(*digest.first_chunk().expect("a SHA-1 digest has 20 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str =
        "m1=http://127.0.0.1:29001,m2=http://127.0.0.1:29002,m3=http://127.0.0.1:29003";

    fn three(token: &str) -> NewCluster {
        NewCluster::parse(THREE, token, &[]).unwrap()
    }

    #[test]
    fn ids_are_those_that_etcd_derives() {
        let cluster = three("tok1");
        let ids: Vec<_> =
            cluster.members.iter().map(|m| (m.name.as_str(), m.id.to_string())).collect();
        let expected = [
            ("m3", "a504fca8cfdd09a2"),
            ("m1", "aaa30b9a9af434c2"),
            ("m2", "f6390633c83b792e"),
        ];
        assert_eq!(ids, expected.map(|(name, id)| (name, id.to_owned())));
        assert_eq!(cluster.id, 0x003d_709d_bfcb_455b);
        let default =
            NewCluster::parse("default=http://localhost:2380", "etcd-cluster", &[]).unwrap();
        assert_eq!(default.members[0].id.to_string(), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", default.id), "cdf818194e3a8c32");
    }

    #[test]
    fn another_token_makes_another_cluster() {
        let (a, b) = (three("a"), three("b"));
        assert_ne!(a.id, b.id);
        assert!(a.voters().iter().all(|id| !b.voters().contains(id)));
    }

    #[test]
    fn the_order_of_a_members_urls_does_not_matter() {
        let one = NewCluster::parse("m=http://a:1,m=http://b:2", "t", &[]).unwrap();
        let other = NewCluster::parse("m=http://b:2, m=http://a:1", "t", &[]).unwrap();
        assert_eq!(one, other);
        assert!(check_advertised(&one.members[0], "http://b:2,http://a:1").is_ok());
    }

    #[test]
    fn what_etcd_refuses_is_refused() {
        let error = |text: &str| NewCluster::parse(text, "t", &[]).unwrap_err();
        assert_eq!(error(""), ClusterError::Empty);
        assert!(matches!(error("m1"), ClusterError::Item { .. }));
        assert!(matches!(error("=http://a:1"), ClusterError::Item { .. }));
        for url in ["a:1", "ftp://a:1", "http://a", "http://a:1/x", "http://:1", "http://a:70000"] {
            assert!(matches!(error(&format!("m={url}")), ClusterError::Url { .. }), "{url}");
        }
        let twice = error("m1=http://a:1,m2=http://a:1");
        assert_eq!(twice, ClusterError::DuplicateUrl { url: "http://a:1".into() });
    }

    #[test]
    fn learners_are_members_and_not_all_of_them() {
        let learners = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            NewCluster::parse(THREE, "t", &names)
        };
        let cluster = learners(&["m2"]).unwrap();
        assert_eq!((cluster.voters().len(), cluster.learners().len()), (2, 1));
        assert!(matches!(learners(&["m4"]), Err(ClusterError::UnknownName { .. })));
        assert_eq!(learners(&["m1", "m2", "m3"]), Err(ClusterError::NoVoter));
    }

    #[test]
    fn advertised_urls_are_compared_after_names_are_resolved() {
        let cluster = NewCluster::parse("m=http://localhost:2380", "t", &[]).unwrap();
        let other = check_advertised(&cluster.members[0], "http://127.0.0.1:2381");
        assert!(matches!(other, Err(ClusterError::Advertised { .. })));
        let https = check_advertised(&cluster.members[0], "https://localhost:2380");
        assert!(matches!(https, Err(ClusterError::Advertised { .. })));
    }
}
