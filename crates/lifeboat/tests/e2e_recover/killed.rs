//! `kill -9` of `recover`, at the boundary of every step and at random instants: `run` again finishes, and `rollback`
//! brings the old cluster back with its data. `LIFEBOAT_KILLS=73 ./test e2e` makes 100 of them and more.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use testbed::{Etcd, Run, Security};

use crate::{Random, Scene, Watched, is_step, tls};

/// Kills a command when it begins its step number `step`, from 0; whether it got so far.
pub(crate) fn kill_at_step(command: &mut Command, step: usize) -> bool {
    let mut run = Watched::start(command);
    for _ in 0..=step {
        if run.wait_for(is_step).is_none() {
            run.end().ok();
            return false;
        }
    }
    run.kill();
    run.end();
    true
}

/// Kills a command after so long, if it does not end before.
pub(crate) fn kill_after(command: &mut Command, time: Duration) -> bool {
    let begun = Instant::now();
    let mut run = Watched::start(command);
    std::thread::sleep(time.saturating_sub(begun.elapsed()));
    run.kill();
    run.end().code.is_none()
}

/// A cluster that lives, dies and comes back many times.
struct Lives {
    scene: Scene,
    number: usize,
}

impl Lives {
    fn new(scene: Scene) -> Self {
        // The binary is on the hosts from now on, so that runs are alike.
        Run::of(&mut scene.recover("plan", ["--ask"])).ok();
        Self { scene, number: 0 }
    }

    /// What was written last, which the backup has not.
    #[track_caller]
    fn live_on(&mut self) -> String {
        self.number += 1;
        let generation = format!("life {}", self.number);
        self.scene.live_on(&generation);
        generation
    }

    /// The runs that were begun.
    fn runs(&self) -> BTreeSet<PathBuf> {
        let folders = std::fs::read_dir(self.scene.state_dir.join("recover")).unwrap();
        let plans = folders.map(|folder| folder.unwrap().path().join("plan.yaml"));
        plans.filter(|plan| plan.exists()).collect()
    }

    /// Runs to the end, and proves the data.
    #[track_caller]
    fn finish(&self) {
        Run::of(&mut self.scene.run_over_the_living()).ok();
        self.scene.serves_the_backup();
        self.end();
    }

    /// Rolls back, and proves the data.
    #[track_caller]
    fn roll_back(&self, generation: &str) {
        let back = Run::of(&mut self.scene.recover("rollback", [""; 0])).ok();
        assert!(!back.stderr.contains("does not serve"), "{back}");
        self.scene.serves_the_old_data(generation);
        self.end();
    }

    /// Makes room: what the run kept is not needed any more.
    #[track_caller]
    fn end(&self) {
        let _ = Run::of(&mut self.scene.recover("commit", [""; 0]));
        for kept in self.scene.beside() {
            std::fs::remove_dir_all(kept).unwrap();
        }
    }
}

fn lives() -> Lives {
    Lives::new(Scene::without_clients(tls(Etcd::V3_5).security(Security::Plain)))
}

/// One run, killed whenever it begins a step that it had not reached before; then a rollback, killed in the same way.
#[test]
fn a_run_and_its_rollback_killed_at_every_step_come_to_their_end() {
    let mut lives = Lives::new(Scene::new(tls(Etcd::V3_5)));
    let generation = lives.live_on();
    let mut kills = 0;
    while kill_at_step(&mut lives.scene.run_over_the_living(), kills) {
        kills += 1;
    }
    assert!(kills >= 10, "{kills} kills");
    lives.scene.serves_the_backup();
    lives.scene.clients_run();

    let mut back = 0;
    while kill_at_step(&mut lives.scene.recover("rollback", [""; 0]), back) {
        back += 1;
    }
    assert!(back >= 10, "{back} kills");
    lives.scene.serves_the_old_data(&generation);
    println!("{} kills", kills + back);
}

#[test]
fn a_run_killed_at_any_step_is_rolled_back() {
    let mut lives = lives();
    let mut step = 0;
    loop {
        let generation = lives.live_on();
        if !kill_at_step(&mut lives.scene.run_over_the_living(), step) {
            break;
        }
        lives.roll_back(&generation);
        step += 1;
    }
    assert!(step >= 7, "{step} kills");
}

/// Kills at instants from the seed; as often as not, several before the end.
fn killed_at_random(seed: u64, kills: usize) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut lives = lives();
    let begun = Instant::now();
    Run::of(&mut lives.scene.run_over_the_living()).ok();
    let whole = u64::try_from(begun.elapsed().as_millis()).unwrap();
    lives.end();
    let mut killed = 0;
    while killed < kills {
        let generation = lives.live_on();
        let known = lives.runs();
        let mut begins_again = true;
        while begins_again && killed < kills {
            let time = Duration::from_millis(random.below(whole));
            let mut run = lives.scene.run_over_the_living();
            let was_killed = kill_after(&mut run, time);
            killed += usize::from(was_killed);
            begins_again = was_killed && random.below(3) > 0;
        }
        println!("{killed} kills, life {}", lives.number);
        if random.below(2) == 0 {
            lives.finish();
            continue;
        }
        if lives.runs() == known {
            // Killed before a run was begun: there is nothing to take back.
            lives.scene.serves_the_old_data(&generation);
            continue;
        }
        if random.below(2) == 0 && killed < kills {
            let time = Duration::from_millis(random.below(whole));
            let mut rollback = lives.scene.recover("rollback", [""; 0]);
            killed += usize::from(kill_after(&mut rollback, time));
        }
        lives.roll_back(&generation);
    }
}

/// How many, by `LIFEBOAT_KILLS`: each takes seconds, so `./test` makes few unless told otherwise.
pub(crate) fn kills() -> usize {
    let kills = std::env::var("LIFEBOAT_KILLS").unwrap_or_else(|_| "12".to_owned());
    kills.parse().expect("LIFEBOAT_KILLS is a number")
}

#[test]
fn kills_at_random_instants_lose_nothing() {
    killed_at_random(1, kills());
}
