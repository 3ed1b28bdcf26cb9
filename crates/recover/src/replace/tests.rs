use super::*;

const PEERS: [&str; 3] = ["http://h1:2380", "http://h2:2380", "http://h3:2380"];

fn spec() -> Spec {
    Spec::parse(
        "cluster: prod
hosts:
- {host: h1, member: {name: m1, peer-urls: ['http://h1:2380']}}
- {host: h2, member: {name: m2, peer-urls: ['http://h2:2380']}}
- {host: h3, member: {name: m3, peer-urls: ['http://h3:2380']}}
",
    )
    .unwrap()
}

/// m3 is lost; the others are well.
fn answers() -> Vec<(String, Answer)> {
    let members: Vec<_> = (1..=3_u64).map(|id| (id, format!("m{id}"), false)).collect();
    let known = Answer {
        healthy: true,
        cluster_id: 99,
        version: "3.5.16".to_owned(),
        peer_urls: (1..=3).zip(PEERS.map(|url| vec![url.to_owned()])).collect(),
        members,
        ..Answer::default()
    };
    let of = |id: u64| (format!("m{id}"), Answer { member_id: id, ..known.clone() });
    let lost = Answer { error: Some("cannot reach h3".to_owned()), ..Answer::default() };
    vec![of(1), of(2), ("m3".to_owned(), lost)]
}

fn examine(answers: &[(String, Answer)]) -> Result<Replace, ReplaceError> {
    Replace::examine(&spec(), "m3", &BTreeMap::new(), answers, false)
}

/// The same change to what both healthy members say.
fn with(change: impl Fn(&mut Answer)) -> Result<Replace, ReplaceError> {
    let mut answers = answers();
    answers.iter_mut().take(2).for_each(|(_, answer)| change(answer));
    examine(&answers)
}

#[test]
fn a_lost_member_is_replaced_through_those_that_are_healthy() {
    let replace = examine(&answers()).unwrap();
    assert_eq!((replace.member.as_str(), replace.old, replace.cluster_id), ("m3", Some(3), 99));
    assert_eq!(replace.others, [("m1".to_owned(), 1), ("m2".to_owned(), 2)].into());
    assert_eq!(replace.through, ["m1", "m2"]);
    assert!(replace.learner);
}

#[test]
fn a_member_that_was_removed_already_is_only_added() {
    let replace = with(|answer| {
        answer.members.pop();
        answer.peer_urls.remove(&3);
    })
    .unwrap();
    assert_eq!((replace.old, replace.remove()), (None, None));
}

#[test]
fn one_that_was_added_and_never_started_is_found_by_its_url_and_removed() {
    let replace = with(|answer| answer.members[2] = (3, String::new(), true)).unwrap();
    assert_eq!(replace.old, Some(3));
}

#[test]
fn a_member_on_a_new_host_is_found_by_its_name() {
    let replace =
        with(|answer| drop(answer.peer_urls.insert(3, vec!["http://gone:2380".to_owned()])))
            .unwrap();
    assert_eq!(replace.old, Some(3));
}

#[test]
fn a_version_without_learners_gets_a_voting_member() {
    assert!(!with(|answer| answer.version = "3.3.27".to_owned()).unwrap().learner);
}

#[test]
fn what_would_cost_the_cluster_its_majority_is_refused() {
    let mut one = answers();
    one[1].1 = Answer::default();
    let error = examine(&one).unwrap_err();
    assert_eq!(error, ReplaceError::TooFew { member: "m3".to_owned(), voters: 2, healthy: 1 });
    one[0].1 = Answer { error: Some("no leader".to_owned()), ..Answer::default() };
    let error = examine(&one).unwrap_err();
    assert!(error.to_string().contains("m1: no leader"), "{error}");
    assert!(error.remedy().contains("recover run"));
    one[1].1.denied = true;
    let error = examine(&one).unwrap_err();
    assert!(
        matches!(error, ReplaceError::Denied { .. }),
        "who is refused knows nothing of quorums"
    );
    assert!(error.remedy().contains("etcd.user"));
}

#[test]
fn a_member_that_is_healthy_is_left_alone_unless_told_otherwise() {
    let mut all = answers();
    all[2].1 = Answer { member_id: 3, ..all[0].1.clone() };
    assert!(matches!(examine(&all), Err(ReplaceError::Healthy { .. })));
    let mut alone = all.clone();
    (alone[2].1.cluster_id, alone[2].1.member_id) = (7, 8);
    assert_eq!(examine(&alone).unwrap().old, Some(3), "another cluster's member is none of ours");
    let replace = Replace::examine(&spec(), "m3", &BTreeMap::new(), &all, true).unwrap();
    assert_eq!((replace.old, replace.through.len()), (Some(3), 2));
}

#[test]
fn what_etcd_would_refuse_later_is_refused_before() {
    let error = with(|answer| answer.members[0].2 = true).unwrap_err();
    assert_eq!(error, ReplaceError::Learner { name: "m1".to_owned() });
    let error = with(|answer| answer.alarms.push("NOSPACE".to_owned())).unwrap_err();
    assert!(error.to_string().contains("NOSPACE"));
    let error =
        with(|answer| drop(answer.peer_urls.insert(1, vec![PEERS[2].to_owned()]))).unwrap_err();
    let (url, name) = (PEERS[2].to_owned(), "m1".to_owned());
    assert_eq!(error, ReplaceError::UrlTaken { url, name });
    let mut differ = answers();
    differ[1].1.members.pop();
    assert!(matches!(examine(&differ), Err(ReplaceError::Differ { .. })));
    let facts = Facts { etcd_version: Some("3.4.23".to_owned()), ..Facts::default() };
    let facts = BTreeMap::from([("m3".to_owned(), facts)]);
    let error = Replace::examine(&spec(), "m3", &facts, &answers(), false).unwrap_err();
    assert!(matches!(error, ReplaceError::OtherVersion { .. }));
    let error = Replace::examine(&spec(), "m9", &facts, &answers(), false).unwrap_err();
    assert!(error.to_string().contains("it has m1, m2, m3"), "{error}");
}

#[test]
fn the_member_that_was_added_is_known_from_the_lost_one_with_the_same_url() {
    let url = vec!["http://h3:2380".to_owned()];
    let before = BTreeMap::from([(3, url.clone())]);
    assert_eq!(added(&before, &url, &[1, 2, 3]), None);
    let after = BTreeMap::from([(1, vec!["http://h1:2380".to_owned()]), (7, url.clone())]);
    assert_eq!(added(&after, &url, &[1, 2, 3]), Some(7));
}

#[test]
fn the_log_of_a_member_that_joins_has_the_two_ids_and_nothing_else() {
    use etcd_raftfiles::wal::{Records, Segment, SegmentName, Wal};
    let folder = tempfile::tempdir().unwrap();
    write_log(folder.path(), 99, 7).unwrap();
    let file = log_file(folder.path());
    let bytes = fs::read(&file.path).unwrap();
    let name: SegmentName = file.name.parse().unwrap();
    let segments = [Segment { name, bytes: &bytes }];
    assert_eq!(Records::new(&segments).unwrap().count(), 3, "crc, metadata, snapshot 0");
    let wal = Wal::read(&segments, 0).unwrap();
    assert_eq!(wal.metadata, Metadata { node_id: 7, cluster_id: 99 });
    assert_eq!((wal.commit(), wal.committed().len()), (0, 0));
}
