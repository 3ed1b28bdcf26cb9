//! The texts are run for real, in folders with spaces in their names, by the `sh` of this machine.

use super::*;
use crate::{
    facts::{Directory, Facts},
    plan::tests::plan,
    shell::{ALREADY, DONE},
    spec::Spec,
};
use std::{fs, path::Path, process::Command};

/// A host that is a folder.
struct Scene {
    folder: tempfile::TempDir,
    plan: Plan,
}

impl Scene {
    fn new(inside: bool, wal: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("it's a host");
        let data = root.join("my etcd");
        fs::create_dir_all(data.join("member/snap")).unwrap();
        fs::write(data.join("member/snap/db"), "old").unwrap();
        let wal_dir = root.join("my wal");
        if wal {
            fs::create_dir_all(&wal_dir).unwrap();
            fs::write(wal_dir.join("0.wal"), "old").unwrap();
        }
        let quoted = |path: &Path| quote_path(path);
        let up = |name: &str| quoted(&root.join(name));
        let yaml = format!(
            "cluster: c\n\
             ssh: {{sudo: false}}\n\
             etcd: {{service: {{command: {{start: {start}, stop: {stop}, running: {running}}}}}}}\n\
             clients:\n\
             - {{command: {{start: {cstart}, stop: {cstop}, running: {crunning}}}}}\n\
             hosts: [{{host: h, member: {{name: m 1, peer-urls: ['http://h:2380']}}}}]\n",
            start = json(&format!("touch {}", up("etcd up"))),
            stop = json(&format!("rm {}", up("etcd up"))),
            running = json(&format!("test -e {}", up("etcd up"))),
            cstart = json(&format!("touch {}", up("api up"))),
            cstop = json(&format!("rm {}", up("api up"))),
            crunning = json(&format!("test -e {}", up("api up"))),
        );
        let mut spec = Spec::parse(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        spec.etcd.data_dir = Some(data.clone());
        spec.etcd.wal_dir = wal.then(|| wal_dir.clone());
        spec.ssh.state_dir = Some(root.join("lifeboat's"));
        assert_eq!(spec.check(), []);
        for up in ["etcd up", "api up"] {
            fs::write(root.join(up), "").unwrap();
        }
        let directory =
            |path| Directory { path, mode: Some("750".to_owned()), ..Directory::default() };
        let facts = Facts {
            clients: vec![(true, true)],
            data: Some(Directory { mount_point: inside, ..directory(data) }),
            wal: wal.then(|| directory(wal_dir)),
            ..Facts::default()
        };
        let plan = Plan { spec, facts: [("m 1".to_owned(), facts)].into(), ..plan() };
        Self { folder, plan }
    }

    fn sh(&self, text: &str) -> (bool, String) {
        let output =
            Command::new("sh").arg("-c").arg(text).current_dir(self.folder.path()).output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text + &String::from_utf8(output.stderr).unwrap())
    }

    fn check(&self, step: &Step) -> bool {
        self.sh(&format!("set -eu\ncheck() {{\n{}\n}}\ncheck", step.hosts[0].check)).0
    }

    fn run(&self, step: &Step) -> (bool, String) {
        let hosts = self.plan.hosts();
        let on = &step.hosts[0];
        self.sh(&self.plan.frame(&hosts[0]).step(&step.id, &on.check, &on.run))
    }

    fn undo(&self, step: &Step) -> (bool, String) {
        let text = format!("set -eu\nundo() {{\n{}\n:\n}}\nundo", step.hosts[0].undo);
        self.sh(&text)
    }

    /// What arrives by ssh.
    fn receive(&self) {
        let to = destination(&self.plan, &self.plan.hosts()[0]);
        fs::create_dir_all(&to.snap).unwrap();
        fs::create_dir_all(&to.wal).unwrap();
        fs::write(to.snap.join("db"), "new").unwrap();
        fs::write(to.wal.join("0.wal"), "new").unwrap();
    }

    fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("it's a host")
    }

    fn db(&self) -> String {
        fs::read_to_string(self.root().join("my etcd/member/snap/db")).unwrap_or_default()
    }

    fn wal(&self) -> String {
        fs::read_to_string(self.root().join("my wal/0.wal")).unwrap_or_default()
    }

    fn up(&self) -> (bool, bool) {
        (self.root().join("etcd up").exists(), self.root().join("api up").exists())
    }

    /// The steps that are scripts, after the data arrived.
    fn steps(&self) -> Vec<Step> {
        self.receive();
        steps(&self.plan).into_iter().filter(|step| step.kind != Kind::Verify).collect()
    }
}

fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn each_scene(test: impl Fn(Scene, bool)) {
    for (inside, wal) in [(false, false), (false, true), (true, false), (true, true)] {
        test(Scene::new(inside, wal), wal);
    }
}

#[test]
fn data_whose_owner_cannot_be_set_are_not_taken_for_whole() {
    let mut scene = Scene::new(false, true);
    scene.plan.spec.etcd.owner = Some("no-such-user:no-such-group".parse().unwrap());
    let send = &scene.steps()[1];
    let (ok, text) = scene.run(send);
    assert!(send.id == SEND && !ok && !scene.check(send), "{}: {text}", send.id);
}

#[test]
fn every_step_is_done_once_and_is_found_done_from_then_on() {
    each_scene(|scene, wal| {
        let steps = scene.steps();
        for (number, step) in steps.iter().enumerate() {
            assert!(!scene.check(step), "{} seems done before it is", step.id);
            let (ok, text) = scene.run(step);
            assert!(ok && text.ends_with(&format!("{DONE}\n")), "{}: {text}", step.id);
            for before in &steps[..=number] {
                let (ok, text) = scene.run(before);
                let already = ok && text.ends_with(&format!("{ALREADY}\n"));
                assert!(already, "after {}, {} is done again: {text}", step.id, before.id);
            }
        }
        assert_eq!((scene.db().as_str(), scene.up()), ("new", (true, true)));
        assert_eq!(scene.wal(), if wal { "new" } else { "" });
    });
}

#[test]
fn whatever_was_done_is_taken_back_from_the_last_step_to_the_first() {
    for stop_after in 0..=7 {
        each_scene(|scene, wal| {
            let steps = scene.steps();
            for step in steps.iter().take(stop_after) {
                let (ok, text) = scene.run(step);
                assert!(ok, "{}: {text}", step.id);
            }
            // Twice, as a rollback may itself be cut.
            for _ in 0..2 {
                for step in steps.iter().rev() {
                    let (ok, text) = scene.undo(step);
                    assert!(ok, "undoing {} after {stop_after}: {text}", step.id);
                }
            }
            assert_eq!((scene.db().as_str(), scene.up()), ("old", (true, true)), "{stop_after}");
            assert_eq!(scene.wal(), if wal { "old" } else { "" }, "after {stop_after}");
        });
    }
}

/// Goal: nothing is left of what nobody has written to. Method: taken back before and after etcd was started with the new data.
#[test]
fn new_data_that_etcd_has_run_with_are_kept_by_a_rollback_and_others_removed() {
    for started in [false, true] {
        each_scene(|scene, wal| {
            let steps = scene.steps();
            let start = steps.iter().position(|step| step.id == "start-etcd").unwrap();
            for step in steps.iter().take(start + usize::from(started)) {
                assert!(scene.run(step).0);
            }
            for _ in 0..2 {
                for step in steps.iter().rev() {
                    let (ok, text) = scene.undo(step);
                    assert!(ok, "{}: {text}", step.id);
                }
            }
            let places = scene.plan.places(&scene.plan.hosts()[0]);
            let kept = places.all().filter(|place| place.undone.exists()).count();
            assert_eq!(kept, if started { 1 + usize::from(wal) } else { 0 });
            assert_eq!(scene.db(), "old");
        });
    }
}

/// Goal: no directory is renamed below an etcd that runs. Method: somebody starts it again before each step that renames, and before
/// each part of a rollback.
#[test]
fn etcd_does_not_run_while_its_directories_are_renamed_whoever_started_it() {
    each_scene(|scene, wal| {
        let up = scene.root().join("etcd up");
        let steps = scene.steps();
        let mut renamed = Vec::new();
        for step in steps.iter().take_while(|step| step.id != "start-etcd") {
            let renames = ["set-aside", "swap-in"].contains(&step.id.as_str());
            if renames {
                fs::write(&up, "").unwrap();
            }
            let (ok, text) = scene.run(step);
            assert!(ok && (!renames || !up.exists()), "{}: {text}", step.id);
            renamed.extend(renames.then_some(&step.id));
        }
        assert_eq!(renamed.len(), 2);
        for id in ["start-etcd", "swap-in", "set-aside"] {
            fs::write(&up, "").unwrap();
            let step = steps.iter().find(|step| step.id == id).unwrap();
            let (ok, text) = scene.undo(step);
            assert!(ok && !up.exists(), "{id}: {text}");
        }
        assert_eq!(scene.db(), "old");
        // etcd ran with the new data, though the run has not started it.
        let places = scene.plan.places(&scene.plan.hosts()[0]);
        let kept = places.all().filter(|place| place.undone.exists()).count();
        assert_eq!(kept, 1 + usize::from(wal));
    });
}

#[test]
fn what_an_earlier_rollback_has_taken_away_is_in_nobodys_way() {
    each_scene(|scene, wal| {
        let places = scene.plan.places(&scene.plan.hosts()[0]);
        places.all().for_each(|place| fs::create_dir_all(&place.undone).unwrap());
        let steps = scene.steps();
        for step in &steps {
            assert!(scene.run(step).0);
        }
        for step in steps.iter().rev() {
            let (ok, text) = scene.undo(step);
            assert!(ok, "{}: {text}", step.id);
        }
        let second = |place: &Place| format!("{}.2", place.undone.display());
        let kept = places.all().filter(|place| Path::new(&second(place)).exists()).count();
        assert_eq!((kept, scene.db().as_str()), (1 + usize::from(wal), "old"));
    });
}

#[test]
fn folders_that_a_run_has_made_are_removed_by_a_rollback_if_they_are_empty() {
    let mut scene = Scene::new(false, true);
    let new = scene.root().join("new");
    scene.plan.spec.etcd.data_dir = Some(new.join("deep/my etcd"));
    scene.plan.spec.etcd.wal_dir = Some(new.join("my wal"));
    scene.plan.facts.values_mut().for_each(|facts| (facts.data, facts.wal) = (None, None));
    let steps = steps(&scene.plan);
    let send = steps.iter().find(|step| step.id == SEND).unwrap();
    assert!(scene.run(&steps[0]).0);
    for something_else in [false, true] {
        let (ok, text) = scene.sh(&make_parents(&scene.plan, &scene.plan.hosts()[0]));
        assert!(ok && new.join("deep").is_dir(), "{text}");
        if something_else {
            fs::write(new.join("a file"), "of somebody").unwrap();
        }
        assert!(scene.undo(send).0);
        assert_eq!((new.exists(), new.join("deep").exists()), (something_else, false));
    }
}

#[test]
fn a_folder_that_was_there_and_is_gone_is_not_made_again() {
    let scene = Scene::new(false, true);
    let make = make_parents(&scene.plan, &scene.plan.hosts()[0]);
    assert!(scene.sh(&make).0);
    fs::remove_dir_all(scene.root()).unwrap();
    let (ok, text) = scene.sh(&make);
    assert!(!ok && text.contains("is its disk mounted?") && !scene.root().exists(), "{text}");
}

#[test]
fn old_data_are_kept_and_the_new_have_the_modes_of_the_old_directory() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new(false, false);
    for step in scene.steps() {
        assert!(scene.run(&step).0);
    }
    let old = scene.root().join(format!("my etcd.lifeboat-{}/member/snap/db", scene.plan.run));
    assert_eq!(fs::read_to_string(old).unwrap(), "old");
    let mode =
        |path: &str| fs::metadata(scene.root().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("my etcd"), mode("my etcd/member"), mode("my etcd/member/snap/db")),
        (0o750, 0o700, 0o600)
    );
}

#[test]
fn a_directory_that_appears_meanwhile_is_never_overwritten_or_filled() {
    let scene = Scene::new(false, false);
    let steps = scene.steps();
    let swap = steps.iter().position(|step| step.id == "swap-in").unwrap();
    for step in &steps[..swap] {
        assert!(scene.run(step).0);
    }
    fs::create_dir_all(scene.root().join("my etcd/member")).unwrap();
    let (ok, text) = scene.run(&steps[swap]);
    assert!(!ok && text.contains("is in the way"), "{text}");
    assert_eq!(fs::read_dir(scene.root().join("my etcd")).unwrap().count(), 1);
}

#[test]
fn a_host_that_another_run_holds_is_refused() {
    let scene = Scene::new(false, false);
    let lock = &steps(&scene.plan)[0];
    assert!(scene.run(lock).0);
    let mut other = Scene::new(false, false);
    other.plan.spec = scene.plan.spec.clone();
    other.plan.run = "another".to_owned();
    let (ok, text) = other.run(&steps(&other.plan)[0]);
    assert!(!ok && text.contains(&format!("held by the run {}", scene.plan.run)), "{text}");
    assert!(scene.undo(lock).0);
    assert!(other.run(&steps(&other.plan)[0]).0);
}

#[test]
fn a_host_without_a_member_is_only_stopped_and_its_data_set_aside() {
    let mut scene = Scene::new(false, false);
    scene.plan.spec.hosts[0].member = None;
    scene.plan.facts = [("h".to_owned(), scene.plan.facts["m 1"].clone())].into();
    let steps = steps(&scene.plan);
    let ids: Vec<_> = steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["lock", "stop-clients", "stop-etcd", "set-aside"]);
    for step in &steps {
        let (ok, text) = scene.run(step);
        assert!(ok, "{text}");
    }
    assert_eq!((scene.db().as_str(), scene.up()), ("", (false, false)));
}

#[test]
fn clients_that_were_stopped_are_started_before_others_are_restarted() {
    let ids: Vec<_> = steps(&plan()).into_iter().map(|step| step.id).collect();
    assert_eq!(ids[ids.len() - 2..], ["start-kube-apiserver", "restart-kubelet"]);
}

#[test]
fn a_host_that_fetches_the_backup_itself_is_sent_nothing_and_asked_no_secret() {
    let mut plan = plan();
    plan.pull = Some(Pull {
        repo: "s3://backups/etcd?endpoint=https://s3.example.com".to_owned(),
        env_file: Some("/etc/lifeboat/env".into()),
        variables: Vec::new(),
        identity: None,
    });
    let send = steps(&plan).into_iter().find(|step| step.id == "send").unwrap();
    assert_eq!(send.kind, Kind::Script);
    let run = &send.hosts[0].run;
    for part in [
        ". /etc/lifeboat/env\n",
        "/var/lib/lifeboat/bin/lifeboat-0.1.0-abababababab restore --repo 's3://backups/etcd?endpoint=https://s3.example.com' --name m1",
        "--data-dir '/var/lib/my etcd.lifeboat-20261122t160000-12ab.new'",
        "--cluster prod --at 00000000000000000100-20261122T150000Z --target-version 3.5.16 --bump-revision 1050",
        "chown -R etcd:etcd",
    ] {
        assert!(run.contains(part), "{part}\nnot in\n{run}");
    }
    assert!(
        send.hosts[2]
            .run
            .contains("mv '/var/lib/my etcd/member.lifeboat-20261122t160000-12ab.tmp'/member"),
        "{}",
        send.hosts[2].run
    );
}
