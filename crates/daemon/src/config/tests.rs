use super::*;
use std::fmt::Write as _;

/// A sound file, in whose place something can be put.
fn yaml(edit: impl Fn(String) -> String) -> String {
    edit(
        "clusters:
- name: prod
  endpoints: [http://127.0.0.1:2379]
  repositories: [disk]
  schedule: {cron: '0 * * * *'}
repositories:
- name: disk
  url: /tmp/x
"
        .to_owned(),
    )
}

fn problems(yaml: &str) -> Vec<String> {
    Config::parse(yaml).unwrap().check().iter().map(ToString::to_string).collect()
}

#[test]
fn a_short_file_is_enough() {
    let config = Config::parse(&yaml(|y| y)).unwrap();
    assert_eq!(config.check(), []);
    assert!(config.http.listen.unwrap().ip().is_loopback());
    assert_eq!(config.stop_grace.0.as_secs(), 30);
}

#[test]
fn the_example_is_read_and_only_misses_files() {
    let config = Config::parse(Config::example()).unwrap();
    for problem in config.check() {
        assert!(
            problem.what.contains("cannot read") || problem.what.contains("is not there"),
            "{problem}"
        );
    }
    assert_eq!(config.clusters[0].verify.as_ref().unwrap().sample.of.get(), 7);
}

#[test]
fn the_example_is_read_also_with_everything_that_it_only_shows() {
    // A line that is commented out, and whose comment is not prose, is a setting.
    let all: Vec<String> = Config::example()
        .lines()
        .map(|line| {
            let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
            let setting = rest.strip_prefix("# ").filter(|rest| {
                let key = rest.trim_start().trim_start_matches("- ").split(':').next().unwrap();
                rest.contains(':') && key.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            });
            setting.map_or_else(|| line.to_owned(), |setting| format!("{indent}{setting}"))
        })
        .collect();
    let config =
        Config::parse(&all.join("\n")).unwrap_or_else(|e| panic!("{e:?}\n{}", all.join("\n")));
    assert_eq!(config.hooks.len(), 2);
    assert!(config.clusters[0].password_file.is_some() && config.spool.is_some());
}

#[test]
fn a_setting_that_does_not_exist_is_refused_with_its_line() {
    let wrong = yaml(|y| y.replace("  endpoints", "  endpionts"));
    let error = Config::parse(&wrong).unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.contains("endpionts") && text.contains('3'), "{text}");
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let wrong = yaml(|y| {
        y.replace("[disk]", "[disk, s3]").replace("0 * * * *", "0 25 * * *")
            + "http: {listen: '0.0.0.0:9812'}\nhooks: [{on: []}]\nspool: /nowhere\n"
            + "retries: {attempts: 0}\n"
    });
    let problems = problems(&wrong).join("\n");
    for part in [
        "clusters.prod.repositories: no repository has the name \"s3\"",
        "clusters.prod.schedule",
        "http.listen",
        "hooks[0].on",
        "hooks[0]: needs either",
        "spool: ",
        "retries.attempts",
    ] {
        assert!(problems.contains(part), "{part:?} is not in\n{problems}");
    }
}

#[test]
fn two_of_one_name_are_refused() {
    let cluster = "- {name: prod, endpoints: [x], repositories: [disk], schedule: {cron: '@daily', time-zone: Mars/X}}\n";
    let wrong = yaml(|y| y.replace("repositories:\n-", &format!("{cluster}repositories:\n-")));
    let problems = problems(&wrong).join("\n");
    assert!(problems.contains("two have the name \"prod\""), "{problems}");
    assert!(problems.contains("Mars/X"), "{problems}");
}

#[test]
fn keys_are_not_put_in_the_clear_unless_told_so() {
    let wrong = yaml(|y| y.replace("  schedule", "  include: [/]\n  schedule"));
    assert!(problems(&wrong)[0].contains("in the clear"));
    let right = yaml(|y| {
        y.replace("  schedule", "  include: [/]\n  include-unencrypted: true\n  schedule")
    });
    assert_eq!(problems(&right), [""; 0]);
}

#[test]
fn outside_of_loopback_both_a_certificate_and_a_token_are_needed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, "text\n").unwrap();
        path.display().to_string()
    };
    let (pem, token) = (file("pem"), file("token"));
    let tls = format!("tls: {{cert: {pem}, key: {pem}}}");
    let listen =
        |rest: &str| problems(&yaml(|y| format!("{y}http: {{listen: '[::]:9812'{rest}}}\n")));
    assert_eq!(listen("").len(), 1);
    assert_eq!(listen(&format!(", {tls}")).len(), 1);
    assert_eq!(listen(&format!(", token-file: {token}")).len(), 1);
    assert_eq!(listen(&format!(", {tls}, token-file: {token}")), [""; 0]);
}

#[test]
fn an_endpoint_must_be_one() {
    let endpoints =
        |list: &str| problems(&yaml(|y| y.replace("[http://127.0.0.1:2379]", list))).join("\n");
    for wrong in ["['foo://bar']", "[http://127.0.0.1:2379, '']"] {
        let problems = endpoints(wrong);
        assert!(problems.starts_with("clusters.prod.endpoints: "), "{wrong}: {problems:?}");
    }
    assert_eq!(endpoints("['10.0.0.1:2379', 'unix:///run/etcd.sock']"), "");
}

#[test]
fn a_repository_is_an_absolute_path_or_the_url_of_a_store_with_settings_that_it_has() {
    let url = |url: &str| problems(&yaml(|y| y.replace("/tmp/x", url))).join("\n");
    for (wrong, told) in [
        ("backups", "repositories.disk.url: \"backups\" is neither a URL nor an absolute path"),
        ("./backups", "neither a URL nor an absolute path"),
        ("ftp://host/x", "begins with none of file, s3"),
        ("s3://bucket\n  options: {regio: x}", "regio"),
    ] {
        let problems = url(wrong);
        assert!(problems.contains(told) && problems.lines().count() == 1, "{wrong}: {problems:?}");
    }
    assert_eq!(url("s3://bucket\n  options: {region: x}"), "");
    assert_eq!(url("file:///var/backups"), "");
}

#[test]
fn credentials_of_a_store_are_whole_and_have_their_names() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "x\n").unwrap();
    let of = |names: &[&str]| {
        let files: Vec<_> =
            names.iter().map(|name| format!("{name}: {}", file.path().display())).collect();
        let files = format!("/tmp/x\n  credential-files: {{{}}}", files.join(", "));
        problems(&yaml(|y| y.replace("/tmp/x", &files))).join("\n")
    };
    assert_eq!(of(&["access-key-id", "secret-access-key"]), "");
    assert_eq!(of(&["access-key-id", "secret-access-key", "session-token"]), "");
    assert!(of(&["access-key-id"]).contains("needed together"));
    assert!(of(&["session-token"]).contains("needed together"));
    assert!(of(&["access_key_id"]).contains("\"access_key_id\" is none of access-key-id, "));
}

#[test]
fn a_hook_that_could_not_be_run_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let command = |program: &str| {
        problems(&yaml(|y| format!("{y}hooks: [{{on: [success], command: ['{program}']}}]\n")))
            .join("\n")
    };
    let script_text = script.to_str().unwrap();
    assert!(command(script_text).contains("hooks[0].command: cannot run "), "not executable");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(command(script_text), "");
    assert!(command(folder.path().to_str().unwrap()).contains("no file"));
    assert!(command("/nowhere/program").contains("hooks[0].command: cannot run /nowhere/program"));
    assert!(command("lifeboat-no-such-program").contains("is in no folder of PATH"));
    assert_eq!(command("sh"), "");
}

#[test]
fn a_word_that_is_no_level_is_refused_as_it_would_silence_all_logs() {
    let level =
        |level: &str| problems(&yaml(|y| format!("{y}log: {{level: '{level}'}}\n"))).join("\n");
    assert!(level("loud").contains("log.level: \"loud\" is no level of logging"));
    assert!(level("info,repository").contains("\"repository\""));
    assert!(level("info,repository=loud").contains("log.level"));
    for right in ["info", "WARN", "off", "info,repository=debug"] {
        assert_eq!(level(right), "", "{right}");
    }
}

#[test]
fn a_secret_cannot_be_printed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\nrest\n").unwrap();
    let secret = Secret::read(file.path()).unwrap();
    assert_eq!(secret.reveal(), "hunter2");
    assert_eq!(format!("{secret:?}"), "[secret]");
}

#[test]
fn lengths_of_time_are_read() {
    let span = |text: &str| text.parse::<Span>().map(|span| span.0.as_secs());
    assert_eq!([span("30s"), span("1h30m"), span("2d")], [Ok(30), Ok(5400), Ok(172_800)]);
    assert!(
        span("-1s").is_err() && span("soon").is_err() && span("99999999999999999999d").is_err()
    );
}

/// The settings as a page, made of the doc comments in `config.rs`.
fn reference() -> String {
    let mut page = String::from(
        "# Settings\n\nThe file of `lifeboat serve`, and of every command that is given a name from it. YAML; `lifeboat config example` prints one to\nbegin with, `lifeboat config check` says everything that is wrong with one.\n\nThis page is made of the doc comments in `crates/daemon/src/config.rs`: to change it, change them and run that crate's tests with\n`UPDATE_DOCS=1`.\n",
    );
    let (mut doc, mut inside) = (Vec::new(), false);
    let mut default = false;
    for line in include_str!("../config.rs").lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            doc.push(text);
        } else if let Some(name) =
            line.strip_prefix("pub struct ").and_then(|l| l.strip_suffix(" {"))
        {
            inside = true;
            write!(
                page,
                "\n## {name}\n\n{}\n\n| setting | type | |\n| --- | --- | --- |\n",
                doc.join(" ")
            )
            .unwrap();
            doc.clear();
        } else if line.starts_with("pub enum ") || line == "}" {
            (inside, default) = (false, false);
            doc.clear();
        } else if line.starts_with("#[serde(default") {
            default = true;
        } else if let Some((name, kind)) = line
            .strip_prefix("pub ")
            .and_then(|l| l.strip_suffix(',')?.split_once(": "))
            .filter(|_| inside)
        {
            assert!(!doc.is_empty(), "{name} has no doc comment");
            writeln!(
                page,
                "| `{}` | {} | {} |",
                name.replace('_', "-"),
                kind_name(kind),
                doc.join(" ")
            )
            .unwrap();
            (default, doc) = (false, Vec::new());
        }
    }
    let _ = default;
    page
}

fn kind_name(kind: &str) -> String {
    let inner = |prefix: &str| kind.strip_prefix(prefix).and_then(|k| k.strip_suffix('>'));
    if let Some(inner) = inner("Option<") {
        return format!("{}, or left out", kind_name(inner));
    }
    if let Some(inner) = inner("Vec<") {
        return format!("list of {}", kind_name(inner));
    }
    match kind {
        "BTreeMap<String, String>" => "names and texts",
        "BTreeMap<String, PathBuf>" => "names and files",
        "String" | "ClusterName" => "text",
        "PathBuf" => "path",
        "bool" => "`true` or `false`",
        "u32" | "i32" | "usize" => "number",
        "Span" => "time, as `30s`, `5m`, `2d`",
        "Share" => "share, as `1/7`",
        "SocketAddr" => "address and port",
        "Policy" => "[retention](#retention)",
        "HashMismatch" => "`warn` or `fail`",
        "LogFormat" => "`text` or `json`",
        "Occasion" => "`success`, `failure`, `stale`, `damage`",
        other => return format!("[{other}](#{})", other.to_lowercase()),
    }
    .to_owned()
}

fn retention_reference() -> String {
    let mut page = String::from(
        "\n## Retention\n\nWhich backups of a cluster are kept. Whatever one rule keeps is kept. Without any rule, all are.\n\n| setting | |\n| --- | --- |\n",
    );
    let source = include_str!("../../../repository/src/retention.rs");
    let fields = source
        .split("pub struct Policy {")
        .nth(1)
        .and_then(|rest| rest.split("\n}").next())
        .unwrap();
    let mut doc = Vec::new();
    for line in fields.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            doc.push(text);
        } else if let Some((name, _)) = line.strip_prefix("pub ").and_then(|l| l.split_once(": ")) {
            writeln!(
                page,
                "| `{}` | {} |",
                name.replace('_', "-"),
                std::mem::take(&mut doc).join(" ")
            )
            .unwrap();
        }
    }
    page
}

#[test]
fn the_reference_says_what_the_doc_comments_say() {
    let path = "../../docs/configuration.md";
    let page = reference()
        + &retention_reference()
        + "\n## Example\n\n```yaml\n"
        + Config::example()
        + "```\n";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == page, "run the tests of this crate with UPDATE_DOCS=1");
    for setting in
        ["stop-grace", "hash-mismatch", "credential-files", "keep-weekly", "webhook-file"]
    {
        assert!(page.contains(&format!("| `{setting}` |")), "{setting}");
    }
}
