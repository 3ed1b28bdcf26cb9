use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const DAY: i64 = 86_400;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn candidate(started: &str) -> Candidate {
    sound(at(started), Soundness::Verified)
}

fn sound(started: Timestamp, soundness: Soundness) -> Candidate {
    let id = BackupId::new(u64::try_from(started.as_second()).unwrap(), started);
    Candidate { id, started, bytes: 10, soundness, pins: Vec::new() }
}

fn policy(yaml_like: serde_json::Value) -> Policy {
    serde_json::from_value(yaml_like).unwrap()
}

/// Each decision as a line, newest first.
fn explained(candidates: &[Candidate], now: &str, policy: &Policy) -> Vec<String> {
    let line = |decision: Decision| {
        let reasons: Vec<_> = decision.reasons.iter().map(Reason::to_string).collect();
        let verdict = if decision.keep { "kept" } else { "removed" };
        format!("{} {verdict}: {}", decision.id.started(), reasons.join(", "))
    };
    decide(candidates, at(now), policy).into_iter().map(line).collect()
}

fn kept(candidates: &[Candidate], now: Timestamp, policy: &Policy) -> BTreeSet<BackupId> {
    let decisions = decide(candidates, now, policy);
    decisions.into_iter().filter(|decision| decision.keep).map(|decision| decision.id).collect()
}

#[test]
fn every_decision_says_why() {
    let mut candidates = vec![
        candidate("2026-11-22T10:00:00Z"),
        candidate("2026-11-22T08:00:00Z"),
        candidate("2026-11-21T22:00:00Z"),
        candidate("2026-11-20T22:00:00Z"),
        candidate("2026-11-19T22:00:00Z"),
        candidate("2026-10-01T00:00:00Z"),
    ];
    candidates[5].pins.push("before-upgrade".to_owned());
    candidates[4].soundness = Soundness::Damaged;
    let policy =
        policy(serde_json::json!({ "keep-last": 1, "keep-daily": 2, "keep-within": "1d" }));
    assert_eq!(
        explained(&candidates, "2026-11-22T11:00:00Z", &policy),
        [
            "2026-11-22T10:00:00Z kept: the newest verified, last 1 of 1, daily 1 of 2, within 1d, floor: min-backups 1",
            "2026-11-22T08:00:00Z kept: within 1d",
            "2026-11-21T22:00:00Z kept: daily 2 of 2, within 1d",
            "2026-11-20T22:00:00Z removed: no rule keeps it",
            "2026-11-19T22:00:00Z removed: damaged, and a newer one is not",
            "2026-10-01T00:00:00Z kept: pinned by before-upgrade",
        ]
    );
}

#[test]
fn an_empty_policy_keeps_everything() {
    let candidates = [
        candidate("2026-11-22T10:00:00Z"),
        sound(at("2020-01-01T00:00:00Z"), Soundness::Damaged),
        candidate("1999-01-01T00:00:00Z"),
    ];
    let policy = policy(serde_json::json!({}));
    assert!(decide(&candidates, at("2026-11-22T11:00:00Z"), &policy).iter().all(|d| d.keep));
}

#[test]
fn the_oldest_goes_when_there_is_no_room_but_not_the_floor() {
    let days = ["2026-11-22T10:00:00Z", "2026-11-21T10:00:00Z", "2026-11-20T10:00:00Z"];
    let candidates = days.map(candidate);
    let policy = policy(serde_json::json!({ "max-total-size": 15, "min-backups": 2 }));
    assert_eq!(
        explained(&candidates, "2026-11-22T11:00:00Z", &policy),
        [
            "2026-11-22T10:00:00Z kept: the newest verified, floor: min-backups 2",
            "2026-11-21T10:00:00Z kept: floor: min-backups 2",
            "2026-11-20T10:00:00Z removed: over max-total-size 15 B",
        ]
    );
}

#[test]
fn what_does_not_count_gives_way_before_what_does() {
    let candidates = [
        candidate("2026-11-22T10:00:00Z"),
        sound(at("2026-11-21T10:00:00Z"), Soundness::Unverified),
        candidate("2026-11-20T10:00:00Z"),
    ];
    let policy = policy(serde_json::json!({ "max-total-size": "20B" }));
    let kept = kept(&candidates, at("2026-11-22T11:00:00Z"), &policy);
    assert_eq!(kept, [candidates[0].id, candidates[2].id].into());
}

#[test]
fn an_unverified_backup_stays_while_nothing_newer_is_verified() {
    let candidates = [
        sound(at("2026-11-22T10:00:00Z"), Soundness::Unverified),
        candidate("2026-11-21T10:00:00Z"),
        sound(at("2026-11-20T10:00:00Z"), Soundness::Unverified),
    ];
    let policy = policy(serde_json::json!({ "keep-last": 5 }));
    assert_eq!(
        explained(&candidates, "2026-11-22T11:00:00Z", &policy),
        [
            "2026-11-22T10:00:00Z kept: nothing newer is verified",
            "2026-11-21T10:00:00Z kept: the newest verified, last 1 of 5, floor: min-backups 1",
            "2026-11-20T10:00:00Z removed: never verified, and a newer one is",
        ]
    );
}

#[test]
fn a_backup_from_the_future_pushes_out_none_of_the_present() {
    let candidates = [
        candidate("2036-01-01T00:00:00Z"),
        candidate("2026-11-22T10:00:00Z"),
        candidate("2026-11-21T10:00:00Z"),
    ];
    let policy = policy(serde_json::json!({ "keep-last": 1, "keep-within": "1h" }));
    assert_eq!(
        explained(&candidates, "2026-11-22T11:00:00Z", &policy),
        [
            "2036-01-01T00:00:00Z kept: dated in the future: 2036-01-01T00:00:00Z",
            "2026-11-22T10:00:00Z kept: the newest verified, last 1 of 1, within 1h, floor: min-backups 1",
            "2026-11-21T10:00:00Z removed: no rule keeps it",
        ]
    );
}

#[test]
fn a_clock_that_went_back_removes_nothing() {
    let candidates = ["2026-11-22T10:00:00Z", "2026-11-21T10:00:00Z"].map(candidate);
    let policy = policy(serde_json::json!({ "keep-last": 1, "max-total-size": 1 }));
    assert!(decide(&candidates, at("1970-01-02T00:00:00Z"), &policy).iter().all(|d| d.keep));
}

#[test]
fn when_backups_stop_nothing_ages_away() {
    let candidates = ["2026-01-20T10:00:00Z", "2026-01-10T10:00:00Z"].map(candidate);
    let policy = policy(serde_json::json!({ "keep-within": "15d" }));
    assert!(decide(&candidates, at("2026-11-22T00:00:00Z"), &policy).iter().all(|d| d.keep));
}

#[test]
fn the_hour_that_daylight_saving_repeats_is_two_hours() {
    let candidates = ["2026-10-25T01:30:00Z", "2026-10-25T00:30:00Z"].map(candidate);
    let berlin = policy(serde_json::json!({ "keep-hourly": 2, "time-zone": "Europe/Berlin" }));
    assert_eq!(kept(&candidates, at("2026-11-01T00:00:00Z"), &berlin).len(), 2);
}

#[test]
fn days_are_those_of_the_zone() {
    // Two days in Berlin, one in UTC.
    let candidates = ["2026-11-21T23:30:00Z", "2026-11-21T22:30:00Z"].map(candidate);
    let now = at("2026-11-22T11:00:00Z");
    let utc = policy(serde_json::json!({ "keep-daily": 2 }));
    let berlin = policy(serde_json::json!({ "keep-daily": 2, "time-zone": "Europe/Berlin" }));
    assert_eq!(kept(&candidates, now, &utc).len(), 1);
    assert_eq!(kept(&candidates, now, &berlin).len(), 2);
}

#[test]
fn a_policy_is_written_as_it_is_read_and_takes_no_misspelt_rule() {
    let read = policy(serde_json::json!({
        "keep-last": 3, "keep-hourly": 24, "keep-daily": 7, "keep-weekly": 4, "keep-monthly": 12, "keep-yearly": 3,
        "keep-within": "15d", "max-total-size": "50GiB", "min-backups": 3, "time-zone": "Europe/Berlin",
    }));
    assert_eq!(policy(serde_json::to_value(&read).unwrap()), read);
    let misspelt = serde_json::from_value::<Policy>(serde_json::json!({ "keep-dayly": 7 }));
    assert!(misspelt.unwrap_err().to_string().contains("keep-dayly"));
    let nowhere =
        serde_json::from_value::<Policy>(serde_json::json!({ "time-zone": "Mars/Olympus" }));
    assert!(nowhere.is_err());
}

// ---- against a plain model -------------------------------------------------------------------

/// What [`decide`] means, told backup by backup and as slowly as it is plain. Sizes apart.
fn model_keeps(all: &[Candidate], b: &Candidate, now: Timestamp, policy: &Policy) -> bool {
    let counts = |c: &Candidate| c.soundness == Soundness::Verified && c.started <= now;
    let is_newer = |c: &Candidate, than: &Candidate| (c.started, c.id) > (than.started, than.id);
    let newer: Vec<_> = all.iter().filter(|c| counts(c) && is_newer(c, b)).collect();
    let no_rule = *policy
        == Policy {
            min_backups: policy.min_backups,
            max_total_size: policy.max_total_size,
            time_zone: policy.time_zone.clone(),
            ..Policy::default()
        };
    if !b.pins.is_empty() || b.started > now || no_rule {
        return true;
    }
    if !counts(b) {
        return newer.is_empty();
    }
    let fewer_newer_than = |n: u32| newer.len() < n as usize;
    let newest = all.iter().filter(|c| counts(c)).map(|c| c.started).max().unwrap();
    let zoned = |t: Timestamp| t.to_zoned(policy.time_zone.clone());
    let in_period = |format: &str, n: u32| {
        let name = |c: &Candidate| zoned(c.started).strftime(format).to_string();
        let newer: BTreeSet<_> = newer.iter().map(|c| name(c)).collect();
        !newer.contains(&name(b)) && newer.len() < n as usize
    };
    newer.is_empty()
        || fewer_newer_than(policy.min_backups)
        || fewer_newer_than(policy.keep_last)
        || in_period("%Y-%m-%d %H %z", policy.keep_hourly)
        || in_period("%Y-%m-%d", policy.keep_daily)
        || in_period("%G-%V", policy.keep_weekly)
        || in_period("%Y-%m", policy.keep_monthly)
        || in_period("%Y", policy.keep_yearly)
        || policy.keep_within.is_some_and(|within| {
            let span: jiff::Span = within.to_string().parse().unwrap();
            zoned(b.started) >= &zoned(newest) - span
        })
}

/// The last day of the ten years that backups are strewn over.
fn last_day() -> Timestamp {
    at("2026-11-22T12:00:00Z")
}

/// Single backups anywhere in ten years, and bursts of them in steps of a schedule.
fn arb_backups() -> impl Strategy<Value = Vec<Candidate>> {
    let soundness = prop_oneof![
        8 => Just(Soundness::Verified),
        1 => Just(Soundness::Unverified),
        1 => Just(Soundness::Damaged),
    ];
    let burst =
        (0..3650 * DAY, 1_i64..30, prop_oneof![Just(600), Just(3600), Just(7200), Just(DAY)]);
    let bursts = prop::collection::vec(burst, 0..8);
    let each = prop::collection::vec((soundness, 0_u64..100, 0_u32..30), 240);
    (bursts, each).prop_map(|(bursts, each)| {
        let first = last_day().as_second() - 3650 * DAY;
        let times =
            bursts.into_iter().flat_map(|(start, n, step)| (0..n).map(move |i| start + i * step));
        let times: BTreeSet<_> = times.collect();
        let backups = times.into_iter().zip(each).map(|(offset, (soundness, bytes, pin))| {
            let mut candidate = sound(Timestamp::from_second(first + offset).unwrap(), soundness);
            candidate.bytes = bytes;
            candidate.pins = (pin == 0).then(|| "pin".to_owned()).into_iter().collect();
            candidate
        });
        backups.collect()
    })
}

fn arb_policy() -> impl Strategy<Value = Policy> {
    let zones = prop::sample::select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/St_Johns",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Africa/Casablanca",
        "Asia/Kathmandu",
    ]);
    let rule = || prop_oneof![2 => Just(0_u32), 3 => 1_u32..20];
    let within = prop::option::of(prop::sample::select(vec!["36h", "15d", "4w", "6mo", "2y"]));
    (rule(), rule(), rule(), rule(), rule(), rule(), within, 0_u32..5, zones).prop_map(
        |(last, hourly, daily, weekly, monthly, yearly, within, min_backups, zone)| Policy {
            keep_last: last,
            keep_hourly: hourly,
            keep_daily: daily,
            keep_weekly: weekly,
            keep_monthly: monthly,
            keep_yearly: yearly,
            keep_within: within.map(|within| within.parse().unwrap()),
            max_total_size: None,
            min_backups,
            time_zone: TimeZone::get(zone).unwrap(),
        },
    )
}

/// Mostly the end of the ten years, so that few backups lie in the future.
fn arb_now() -> impl Strategy<Value = Timestamp> {
    let ago = prop_oneof![3 => Just(0), 1 => 0..3650 * DAY];
    ago.prop_map(|ago| Timestamp::from_second(last_day().as_second() - ago).unwrap())
}

fn only(candidates: &[Candidate], ids: &BTreeSet<BackupId>) -> Vec<Candidate> {
    candidates.iter().filter(|candidate| ids.contains(&candidate.id)).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn decisions_are_those_of_the_plain_model(backups in arb_backups(), now in arb_now(), policy in arb_policy()) {
        let expected: BTreeMap<_, _> =
            backups.iter().map(|b| (b.id, model_keeps(&backups, b, now, &policy))).collect();
        let decided: BTreeMap<_, _> =
            decide(&backups, now, &policy).into_iter().map(|d| (d.id, d.keep)).collect();
        prop_assert_eq!(decided, expected);
    }

    /// With room or without: what must never go stays, and a second run has nothing to do.
    #[test]
    fn what_must_stay_stays_and_deciding_again_removes_nothing(
        backups in arb_backups(), now in arb_now(), policy in arb_policy(), max in prop::option::of(0_u64..5_000),
    ) {
        let policy = Policy { max_total_size: max.map(Size::new), ..policy };
        let kept_ids = kept(&backups, now, &policy);

        let mut counting: Vec<_> = backups.iter().filter(|b| counts(b, now)).collect();
        counting.sort_by_key(|b| std::cmp::Reverse(b.started));
        for floor in counting.iter().take((policy.min_backups as usize).max(1)) {
            prop_assert!(kept_ids.contains(&floor.id), "{} is one of the floor", floor.id);
        }
        let newest_verified = backups.iter().filter(|b| b.soundness == Soundness::Verified).max_by_key(|b| b.started);
        prop_assert!(newest_verified.is_none_or(|b| kept_ids.contains(&b.id)));
        prop_assert!(backups.iter().filter(|b| !b.pins.is_empty()).all(|b| kept_ids.contains(&b.id)));

        prop_assert_eq!(kept(&only(&backups, &kept_ids), now, &policy), kept_ids);
    }

    #[test]
    fn more_of_a_rule_removes_nothing_more(
        backups in arb_backups(), now in arb_now(), policy in arb_policy(), more in prop::array::uniform7(0_u32..5),
    ) {
        prop_assume!(policy.has_rule());
        let larger = Policy {
            keep_last: policy.keep_last + more[0],
            keep_hourly: policy.keep_hourly + more[1],
            keep_daily: policy.keep_daily + more[2],
            keep_weekly: policy.keep_weekly + more[3],
            keep_monthly: policy.keep_monthly + more[4],
            keep_yearly: policy.keep_yearly + more[5],
            min_backups: policy.min_backups + more[6],
            ..policy.clone()
        };
        prop_assert!(kept(&backups, now, &policy).is_subset(&kept(&backups, now, &larger)));
    }

    #[test]
    fn more_room_removes_nothing_more(
        backups in arb_backups(), now in arb_now(), policy in arb_policy(), max in 0_u64..5_000, more in 0_u64..5_000,
    ) {
        let of = |max| Policy { max_total_size: Some(Size::new(max)), ..policy.clone() };
        prop_assert!(kept(&backups, now, &of(max)).is_subset(&kept(&backups, now, &of(max + more))));
    }

    /// Goal: running prune after every backup costs nothing that one prune at the end would have kept.
    #[test]
    fn pruning_often_keeps_what_pruning_once_keeps(backups in arb_backups(), policy in arb_policy(), every in 1_usize..9) {
        let mut present = Vec::new();
        for (i, backup) in backups.iter().enumerate() {
            present.push(backup.clone());
            if i % every == 0 {
                let ids = kept(&present, backup.started, &policy);
                present = only(&present, &ids);
            }
        }
        // A burst that begins on the last day goes on for a month.
        let end = at("2026-12-31T00:00:00Z");
        prop_assert_eq!(kept(&present, end, &policy), kept(&backups, end, &policy));
    }

    #[test]
    fn the_order_in_which_backups_are_listed_does_not_matter(backups in arb_backups(), now in arb_now(), policy in arb_policy()) {
        let reversed: Vec<_> = backups.iter().rev().cloned().collect();
        prop_assert_eq!(decide(&backups, now, &policy), decide(&reversed, now, &policy));
    }
}
