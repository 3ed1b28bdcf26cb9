//! Whether members can be those of a cluster: known before etcd is stopped, and told with the field that has them.

use crate::api::Member;
use restore::parse_cluster;
use std::collections::BTreeMap;

/// As etcd's `--initial-cluster` has them.
pub(super) fn initial_cluster<'m>(
    members: impl IntoIterator<Item = (&'m str, &'m [String])>,
) -> String {
    let pair = |name: &str, urls: &[String]| {
        urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
    };
    let pairs: Vec<_> = members.into_iter().map(|(name, urls)| pair(name, urls)).collect();
    pairs.join(",")
}

/// Refuses what no cluster can be made of. `field` is where the members stand.
pub(super) fn check(field: &str, members: &[Member]) -> Result<(), String> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (at, Member { name, peer_urls }) in members.iter().enumerate() {
        let splits = |text: &str| text.contains(|c: char| c == ',' || c.is_whitespace());
        if splits(name) || name.contains(['=', '/']) || matches!(name.as_str(), "" | "." | "..") {
            return Err(format!(
                "{field}[{at}].name is {name:?}, which cannot be a member's name: write etcd's --name, without `,`, `=`, `/` and blanks"
            ));
        }
        if let Some(first) = names.insert(name, at) {
            return Err(format!(
                "{field}[{first}] and {field}[{at}] are both called {name:?}; correct one"
            ));
        }
        if peer_urls.is_empty() {
            return Err(format!(
                "{field}[{at}].peerUrls is empty; write etcd's --initial-advertise-peer-urls"
            ));
        }
        for url in peer_urls {
            if splits(url) {
                return Err(format!(
                    "{field}[{at}].peerUrls has {url:?}; write one URL in each entry"
                ));
            }
            if let Some(other) = owners.insert(url, name) {
                return Err(format!(
                    "{field}: {url} is a URL of {other:?} and of {name:?}; give each member peer URLs of its own"
                ));
            }
        }
    }
    let text = initial_cluster(members.iter().map(|m| (m.name.as_str(), m.peer_urls.as_slice())));
    let made = parse_cluster(&text, "", &[]);
    made.map(drop).map_err(|error| format!("{field}: {}", etcd_live::one_line(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, urls: &[&str]) -> Member {
        Member {
            name: name.to_owned(),
            peer_urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        }
    }

    #[test]
    fn members_that_etcd_would_take_are_taken() {
        let two =
            [member("m1", &["http://a:1", "http://b:1"]), member("m-2.x", &["https://c:2380"])];
        assert_eq!(check("spec.members", &two), Ok(()));
    }

    #[test]
    fn members_of_which_no_cluster_can_be_made_are_told_with_their_field() {
        let url = &["http://a:1"][..];
        for (members, told) in [
            (vec![member("../a=b,c", url)], "spec.members[0].name is \"../a=b,c\""),
            (
                vec![member("m1", url), member("a/b", &["http://b:1"])],
                "spec.members[1].name is \"a/b\"",
            ),
            (vec![member("..", url)], "spec.members[0].name"),
            (vec![member("m1", url), member("m1", &["http://b:1"])], "are both called \"m1\""),
            (
                vec![member("m1", url), member("m2", url)],
                "http://a:1 is a URL of \"m1\" and of \"m2\"",
            ),
            (vec![member("m1", &["http://a:1,http://b:1"])], "one URL in each entry"),
            (vec![member("m1", &["http://a"])], "not of the form host:port"),
            (vec![member("m1", &[])], "spec.members[0].peerUrls is empty"),
        ] {
            let refused = check("spec.members", &members).unwrap_err();
            assert!(refused.contains(told), "{refused}");
            assert!(!refused.contains("--initial-cluster"), "no flag is given here: {refused}");
        }
    }
}
