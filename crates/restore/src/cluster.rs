//! The description of the new cluster, read from etcd's flags and checked as etcd checks it.
//!
//! Member and cluster ids follow from peer URLs and the token alone, so two clusters restored with
//! the same URLs and token are one to etcd: their members could mix. Hence a fresh token for each
//! restore of a whole cluster.

use etcd_raftfiles::restore::{self as raft, RestoredCluster, founding_member};
use etcd_schema::Member;
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
    /// The members make no cluster that raft could run.
    #[error("--initial-cluster does not make a cluster")]
    Raft(#[from] raft::ClusterError),
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
            Self::DuplicateUrl { .. } => "give each member peer URLs of its own",
            Self::Raft(error) => error.remedy(),
            Self::UnknownName { .. } => "use one of the members' names",
            Self::NameAsFolder { .. } => "restore this member alone, with --name and --data-dir",
            Self::Advertised { .. } => "leave the flag out: the URLs of --initial-cluster are used",
        }
    }
}

/// Reads `--initial-cluster` (`name=url[,name=url…]`; a name may occur several times) and derives the
/// ids. `learners` are names of members that shall not vote.
pub fn parse_cluster(
    initial_cluster: &str,
    token: &str,
    learners: &[String],
) -> Result<RestoredCluster, ClusterError> {
    let urls_by_name = parse_items(initial_cluster)?;
    let members = urls_by_name
        .into_iter()
        .map(|(name, urls)| founding_member(&name, &urls, learners.contains(&name), token))
        .collect();
    let cluster = RestoredCluster::new(members)?;
    for name in learners {
        find_member(&cluster, "--learner", name)?;
    }
    Ok(cluster)
}

/// The member called `name`; `flag` is what the user named it by.
pub fn find_member<'a>(
    cluster: &'a RestoredCluster,
    flag: &'static str,
    name: &str,
) -> Result<&'a Member, ClusterError> {
    cluster.members().iter().find(|member| member.name == name).ok_or_else(|| {
        let members = cluster.members().iter().map(|member| member.name.clone()).collect();
        ClusterError::UnknownName { flag, name: name.to_owned(), members }
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str =
        "m1=http://127.0.0.1:29001,m2=http://127.0.0.1:29002,m3=http://127.0.0.1:29003";

    #[test]
    fn ids_are_those_that_etcd_derives() {
        let cluster = parse_cluster(THREE, "tok1", &[]).unwrap();
        let members = cluster.members().iter();
        let ids: Vec<_> = members.map(|m| (m.name.as_str(), m.id.to_string())).collect();
        let expected =
            [("m3", "a504fca8cfdd09a2"), ("m1", "aaa30b9a9af434c2"), ("m2", "f6390633c83b792e")];
        assert_eq!(ids, expected.map(|(name, id)| (name, id.to_owned())));
        assert_eq!(cluster.id().0, 0x003d_709d_bfcb_455b);
    }

    #[test]
    fn the_order_of_a_members_urls_does_not_matter() {
        let one = parse_cluster("m=http://a:1,m=http://b:2", "t", &[]).unwrap();
        let other = parse_cluster("m=http://b:2, m=http://a:1", "t", &[]).unwrap();
        assert_eq!(one, other);
        assert!(check_advertised(&one.members()[0], "http://b:2,http://a:1").is_ok());
    }

    #[test]
    fn what_etcd_refuses_is_refused() {
        let error = |text: &str| parse_cluster(text, "t", &[]).unwrap_err();
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
            parse_cluster(THREE, "t", &names)
        };
        let cluster = learners(&["m2"]).unwrap();
        let state = cluster.conf_state();
        assert_eq!((state.voters.len(), state.learners.len()), (2, 1));
        assert!(matches!(learners(&["m4"]), Err(ClusterError::UnknownName { .. })));
        let none = learners(&["m1", "m2", "m3"]);
        assert_eq!(none, Err(ClusterError::Raft(raft::ClusterError::NoVoter)));
    }

    #[test]
    fn advertised_urls_are_compared_after_names_are_resolved() {
        let cluster = parse_cluster("m=http://localhost:2380", "t", &[]).unwrap();
        let other = check_advertised(&cluster.members()[0], "http://127.0.0.1:2381");
        assert!(matches!(other, Err(ClusterError::Advertised { .. })));
        let https = check_advertised(&cluster.members()[0], "https://localhost:2380");
        assert!(matches!(https, Err(ClusterError::Advertised { .. })));
    }
}
