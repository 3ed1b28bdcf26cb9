//! `lifeboat config`.

use crate::{Settings, lifeboat, text};

#[test]
fn five_mistakes_are_told_at_once_each_with_its_place() {
    let settings = Settings::new(
        "clusters:
- name: prod
  endpoints: []
  repositories: [disk, tape]
  schedule: {cron: '61 * * * *'}
  user: root
repositories:
- {name: disk, url: FOLDER/repo, compression-level: 40}
",
    );
    let file = settings.file();
    let run = lifeboat().run(["config", "check", text(&file)]).code_is(2);
    for place in [
        "clusters.prod.endpoints: ",
        "clusters.prod.repositories: ",
        "clusters.prod.schedule: ",
        "clusters.prod.user: ",
        "repositories.disk.compression-level: ",
    ] {
        let line = format!("{}: {place}", file.display());
        assert!(run.stderr.lines().any(|l| l.starts_with(&line)), "{line}\n{run}");
    }
    run.stderr_has(&["5 settings are wrong", "help: "]);
    // The daemon does not start with them either.
    let serve = lifeboat().run(["serve", "--config", text(&file)]).code_is(2);
    serve.stderr_has(&["clusters.prod.schedule", "help: "]);
}

#[test]
fn what_could_never_work_is_told_before_it_fails_at_night() {
    let settings = Settings::new(
        "clusters:
- name: prod
  endpoints: ['foo://10.0.0.1']
  repositories: [disk, bucket]
  schedule: {cron: '@daily'}
repositories:
- {name: disk, url: backups}
- {name: bucket, url: 's3://backups/etcd', options: {regio: x}}
hooks:
- {on: [failure], command: [/nowhere/alert]}
log: {level: loud}
",
    );
    let file = settings.file();
    let run = lifeboat().run(["config", "check", text(&file)]).code_is(2);
    run.stderr_has(&[
        "clusters.prod.endpoints: ",
        "repositories.disk.url: \"backups\" is neither a URL nor an absolute path",
        "repositories.bucket: ",
        "hooks[0].command: cannot run /nowhere/alert",
        "log.level: ",
        "5 settings are wrong",
    ]);
}

#[test]
fn a_setting_that_does_not_exist_is_told_with_its_line() {
    let settings = Settings::new("clusters: []\nrepositories: []\nschedul: x\n");
    let run = lifeboat().run(["config", "check", text(&settings.file())]).code_is(2);
    run.stderr_has(&["schedul", "3", "help: "]);
}

#[test]
fn the_example_is_right_where_its_files_are() {
    let example = lifeboat().run(["config", "example"]).ok().stdout;
    let settings = Settings::new(&example);
    // The files that it names are not here.
    let here = |line: &str| match line.split_once(": /etc/") {
        Some((key, _)) => format!("{key}: FOLDER/secret"),
        None => line.replace("- /etc/kubernetes", "- FOLDER/spool #"),
    };
    settings.secret("secret", "x");
    settings.write(&example.lines().map(here).collect::<Vec<_>>().join("\n"));
    lifeboat().run(["config", "check", text(&settings.file())]).ok();
    lifeboat().run(["config", "check", "/nowhere/lifeboat.yaml"]).code_is(2);
}
