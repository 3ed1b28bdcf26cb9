//! How a thing is run on a host, as text for the shell.
//!
//! | kind | stopped | kept from coming back at a reboot | started |
//! | --- | --- | --- | --- |
//! | systemd unit | `systemctl stop` | a drop-in whose condition fails while it is there | drop-in removed, `systemctl start` |
//! | static pod | manifest moved away, kubelet stops it | the manifest is away | manifest moved back |
//! | commands | the command `stop` | (as the commands have it) | the command `start` |

use crate::{
    shell::{quote, quote_path},
    spec::Service,
};

/// How long something may take to stop: longer than systemd's own limit, after which it kills.
const STOP_SECONDS: u32 = 150;
/// How long something may take to answer that it is ready.
const READY_SECONDS: u32 = 180;
/// The same of a static pod: kubelet waits for up to five minutes before it starts again what has failed several times.
pub(crate) const POD_SECONDS: u32 = 360;
/// How long a command that has ended may take until what it started is seen to run.
const STARTED_SECONDS: u32 = 10;
/// So much of what a command said is told.
const OUTPUT_LINES: u32 = 10;
/// The kernel keeps that many bytes of a process's name.
const COMM_BYTES: usize = 15;

/// Texts for one service on one host. `keep` is a folder of the run where manifests are kept meanwhile.
pub(crate) struct Shell<'a> {
    service: &'a Service,
    /// The run's folder on the host, quoted.
    run_dir: &'a str,
}

impl<'a> Shell<'a> {
    pub(crate) fn new(service: &'a Service, run_dir: &'a str) -> Self {
        Self { service, run_dir }
    }

    /// An expression that succeeds while it runs, or is about to.
    pub(crate) fn running(&self) -> String {
        match self.service {
            // A job that is queued, as by `start --no-block`, changes the state only when systemd comes to it.
            Service::Systemd(name) => format!(
                "case \"$(systemctl show -p ActiveState -p Job {})\" in *=active*|*=activating*|*=deactivating*|*=reloading*|*Job=[1-9]*) true ;; *) false ;; esac",
                quote(&unit(name))
            ),
            Service::StaticPod(_) => {
                let name = self.service.name();
                let comm: String = name.chars().take(COMM_BYTES).collect();
                format!(
                    "{{ if crictl ps -q >/dev/null 2>&1; then [ -n \"$(crictl ps -q --name {})\" ]; else pgrep -x {} >/dev/null; fi; }}",
                    quote(&format!("^{name}$")),
                    quote(&comm)
                )
            }
            Service::Command(commands) => {
                format!("sh -c {} >/dev/null 2>&1 9>&-", quote(&commands.running))
            }
        }
    }

    /// An expression that succeeds if it does not run, and will not by itself.
    pub(crate) fn stopped(&self) -> String {
        match self.held() {
            Some(held) => format!("{held} && ! {{ {}; }}", self.running()),
            None => format!("! {{ {}; }}", self.running()),
        }
    }

    /// An expression that succeeds if it was started.
    pub(crate) fn started(&self) -> String {
        match (self.service, self.held()) {
            // Whether kubelet has started the pod already is seen by who asks etcd.
            (Service::StaticPod(manifest), _) => format!("[ -e {} ]", quote_path(manifest)),
            (_, Some(held)) => format!("! {held} && {{ {}; }}", self.running()),
            (_, None) => self.running(),
        }
    }

    /// Stops it, and waits until it has.
    pub(crate) fn stop(&self) -> String {
        let stop = match self.service {
            Service::Systemd(name) => {
                let (unit, drop_in) = (quote(&unit(name)), drop_in(name));
                format!(
                    "mkdir -p {}\n\
                     printf '# made by lifeboat recover, which removes it\\n[Unit]\\nConditionPathExists=!%s\\n' {drop_in} >{drop_in}\n\
                     systemctl daemon-reload\n\
                     systemctl stop {unit}",
                    quote(&drop_in_dir(name)),
                )
            }
            Service::StaticPod(manifest) => {
                let (manifest, kept) = (quote_path(manifest), self.kept());
                format!(
                    "mkdir -p {}/manifests\n\
                     if [ -e {manifest} ]; then mv {manifest} {kept}; fi\n\
                     sync",
                    self.run_dir
                )
            }
            Service::Command(commands) => {
                format!("if {}; then sh -c {} 9>&-; fi", self.running(), quote(&commands.stop))
            }
        };
        format!(
            "{stop}\n{}",
            wait(&format!("! {{ {}; }}", self.running()), STOP_SECONDS, "it does not stop")
        )
    }

    /// Starts it, without waiting for others that it needs.
    pub(crate) fn start(&self) -> String {
        match self.service {
            Service::Systemd(name) => format!(
                "rm -f {}\n\
                 systemctl daemon-reload\n\
                 systemctl reset-failed {unit} 2>/dev/null || true\n\
                 systemctl start --no-block {unit}",
                drop_in(name),
                unit = quote(&unit(name)),
            ),
            Service::StaticPod(manifest) => {
                let hidden = manifest.with_file_name(format!(".{}.lifeboat", self.service.name()));
                // kubelet does not look at names that begin with a dot; the rename makes it appear whole.
                format!(
                    "kept={kept}\n\
                     if [ ! -e \"$kept\" ]; then kept=$({before}); fi\n\
                     if [ ! -e {manifest} ] && [ -n \"$kept\" ]; then cp -p \"$kept\" {hidden}; mv {hidden} {manifest}; sync; rm \"$kept\"; fi",
                    kept = self.kept(),
                    before = self.kept_before(),
                    hidden = quote_path(&hidden),
                    manifest = quote_path(manifest),
                )
            }
            Service::Command(commands) => self.start_by(&commands.start),
        }
    }

    /// Starts what only a command starts. What that says would be in the way of a journal, and is told if it fails.
    fn start_by(&self, start: &str) -> String {
        format!(
            "if ! {{ {running}; }}; then\n\
             code=0\n\
             sh -c {start} >>{output} 2>&1 9>&- || code=$?\n\
             tries=0\n\
             until [ $code != 0 ] || {{ {running}; }} || [ $tries = {tries} ]; do tries=$((tries+1)); sleep 0.2; done\n\
             if [ $code != 0 ] || ! {{ {running}; }}; then\n\
             echo \"it does not run after its start command, which ended with $code; what that said last, in\" {output} 'on this host:' >&2\n\
             tail -n {OUTPUT_LINES} {output} >&2\n\
             return 1\n\
             fi\n\
             fi",
            running = self.running(),
            start = quote(start),
            output = format_args!("{}/output", self.run_dir),
            tries = STARTED_SECONDS * 5,
        )
    }

    /// Commands that say `missing-command NAME WORD` of each command whose first word the host does not know.
    pub(crate) fn look_for_commands(&self) -> String {
        let Service::Command(commands) = self.service else { return String::new() };
        let named =
            [("start", &commands.start), ("stop", &commands.stop), ("running", &commands.running)];
        let look = |(name, text): (&str, &String)| {
            let word = program(text)?;
            let is_there = match word.contains('/') {
                true => format!("[ -x {word} ]"),
                false => format!("command -v {word} >/dev/null 2>&1"),
            };
            Some(format!("{is_there} || say missing-command '{name} {word}'\n"))
        };
        named.into_iter().filter_map(look).collect()
    }

    /// Lets go of what must not be started: it has no data.
    pub(crate) fn release(&self) -> String {
        match self.service {
            Service::Systemd(name) => {
                format!("rm -f {}\nsystemctl daemon-reload", drop_in(name))
            }
            // A manifest that is put back is started.
            Service::StaticPod(_) | Service::Command(_) => ":".to_owned(),
        }
    }

    /// Restarts what was left running.
    pub(crate) fn restart(&self) -> String {
        match self.service {
            Service::Systemd(name) => format!("systemctl restart {}", quote(&unit(name))),
            _ => format!("{}\n{}", self.stop(), self.start()),
        }
    }

    /// An expression that succeeds while it is kept from coming back.
    fn held(&self) -> Option<String> {
        match self.service {
            Service::Systemd(name) => Some(format!("[ -e {} ]", drop_in(name))),
            Service::StaticPod(manifest) => Some(format!("[ ! -e {} ]", quote_path(manifest))),
            Service::Command(_) => None,
        }
    }

    /// An expression that succeeds if the host has it.
    pub(crate) fn known(&self) -> String {
        match self.service {
            Service::Systemd(name) => format!(
                "[ \"$(systemctl show -p LoadState {})\" = LoadState=loaded ]",
                quote(&unit(name))
            ),
            Service::StaticPod(_) => format!("[ -n \"$({})\" ]", self.manifest()),
            Service::Command(_) => "true".to_owned(),
        }
    }

    /// A command that says where a pod's manifest is: in its place, or where a run that was taken back has left it.
    pub(crate) fn manifest(&self) -> String {
        let Service::StaticPod(manifest) = self.service else { return ":".to_owned() };
        let manifest = quote_path(manifest);
        format!("if [ -e {manifest} ]; then echo {manifest}; else {}; fi", self.kept_before())
    }

    /// A command that says where the last of all runs has left the manifest: a member without data is not started by a rollback.
    fn kept_before(&self) -> String {
        let name = quote(&format!("{}.yaml", self.service.name()));
        format!(
            "for file in \"$(dirname \"$(dirname {run_dir})\")\"/*/\"$(basename {run_dir})\"/manifests/{name}; do [ ! -e \"$file\" ] || echo \"$file\"; done | tail -n 1",
            run_dir = self.run_dir
        )
    }

    /// Where a manifest is kept while its pod is stopped.
    pub(crate) fn kept(&self) -> String {
        format!("{}/manifests/{}", self.run_dir, quote(&format!("{}.yaml", self.service.name())))
    }
}

/// Waits until `url` answers 200. Whether its certificate is good is not what is asked.
pub(crate) fn wait_ready(service: &Service, url: &str) -> String {
    let url = quote(url);
    let seconds = match service {
        Service::StaticPod(_) => POD_SECONDS,
        Service::Systemd(_) | Service::Command(_) => READY_SECONDS,
    };
    let ask = format!(
        "if command -v curl >/dev/null; then curl -fsSk -m 5 -o /dev/null {url} 2>/dev/null; else wget -q --no-check-certificate -T 5 -O /dev/null {url}; fi"
    );
    wait(&ask, seconds, &format!("it is not ready after {seconds} s"))
}

/// Waits until `expression` succeeds.
pub(crate) fn wait(expression: &str, seconds: u32, otherwise: &str) -> String {
    let tries = seconds * 5;
    format!(
        "tries=0\n\
         until {expression}; do\n  \
           tries=$((tries+1))\n  \
           if [ $tries -gt {tries} ]; then echo {} >&2; return 1; fi\n  \
           sleep 0.2\n\
         done",
        quote(otherwise)
    )
}

/// The program that a command begins with. Nothing where only the shell can tell: where a variable is set or read, a list of commands
/// is put in brackets, or a word of the shell's own comes first.
fn program(command: &str) -> Option<&str> {
    const SHELLS_OWN: [&str; 8] =
        ["if", "for", "while", "until", "case", "time", "function", "select"];
    let word = command.split([' ', '\t', '\n', ';', '&', '|', '<', '>']).next()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
    let judged = !word.is_empty() && word.chars().all(is_plain) && !SHELLS_OWN.contains(&word);
    judged.then_some(word)
}

/// The full name of a unit.
pub(crate) fn unit(name: &str) -> String {
    const KINDS: [&str; 6] = [".service", ".socket", ".target", ".timer", ".path", ".slice"];
    if KINDS.iter().any(|kind| name.ends_with(kind)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

fn drop_in_dir(name: &str) -> String {
    format!("/etc/systemd/system/{}.d", unit(name))
}

fn drop_in(name: &str) -> String {
    quote(&format!("{}/lifeboat-recover.conf", drop_in_dir(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Commands;
    use std::{path::Path, process::Command};

    fn sh(text: &str) -> bool {
        let text = format!("set -eu\nmain() {{\n{text}\n}}\nmain </dev/null");
        Command::new("sh").arg("-c").arg(text).status().unwrap().success()
    }

    #[test]
    fn commands_are_stopped_and_started_once_and_may_be_told_so_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a folder");
        std::fs::create_dir(&dir).unwrap();
        let (up, log) = (quote_path(&dir.join("it's up")), quote_path(&dir.join("log")));
        let service = Service::Command(Commands {
            start: format!("echo started >>{log}; touch {up}"),
            stop: format!("echo stopped >>{log}; rm {up}"),
            running: format!("test -e {up}"),
        });
        let run_dir = quote_path(&dir);
        let shell = Shell::new(&service, &run_dir);
        for _ in 0..2 {
            assert!(sh(&shell.start()) && sh(&shell.started()) && !sh(&shell.stopped()));
        }
        for _ in 0..2 {
            assert!(sh(&shell.stop()) && sh(&shell.stopped()) && !sh(&shell.started()));
        }
        assert_eq!(std::fs::read_to_string(dir.join("log")).unwrap(), "started\nstopped\n");
    }

    #[test]
    fn a_start_that_fails_tells_what_it_said_and_where_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = quote_path(folder.path());
        for start in ["echo no such data; false", "echo no such data"] {
            let service = Service::Command(Commands {
                start: start.to_owned(),
                stop: "true".to_owned(),
                running: "false".to_owned(),
            });
            let text = Shell::new(&service, &run_dir).start().replace("sleep 0.2", ":");
            let text = format!("set -eu\nmain() {{\n{text}\n}}\nmain </dev/null");
            let output = Command::new("sh").arg("-c").arg(text).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && said.contains("no such data\n"), "{said}");
            let file = folder.path().join("output");
            assert!(said.contains(&file.display().to_string()), "{said}");
        }
    }

    #[test]
    fn the_program_of_a_command_is_looked_for_where_it_can_be_told() {
        let told = [
            ("/opt/etcd/start --now", Some("/opt/etcd/start")),
            ("kill $(cat /run/etcd.pid)", Some("kill")),
            ("pgrep -x etcd;true", Some("pgrep")),
            ("VERBOSE=1 start", None),
            ("$HOME/start", None),
            ("(cd /opt; ./start)", None),
            ("if true; then start; fi", None),
            ("'my start'", None),
            ("! false", None),
            ("", None),
        ];
        for (command, word) in told {
            assert_eq!(program(command), word, "{command}");
        }
        let service = Service::Command(Commands {
            start: "/no/such/start now".to_owned(),
            stop: "no-such-stop".to_owned(),
            running: "test -e /".to_owned(),
        });
        let look = Shell::new(&service, "/r").look_for_commands();
        let text = format!("say() {{ echo \"$1 $2\"; }}\n{look}");
        let output = Command::new("sh").arg("-c").arg(text).output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "missing-command start /no/such/start\nmissing-command stop no-such-stop\n"
        );
    }

    #[test]
    fn a_manifest_is_away_while_its_pod_is_stopped_and_comes_back_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("no-such-process-here.yaml");
        std::fs::write(&manifest, "kind: Pod\n").unwrap();
        let service = Service::StaticPod(manifest.clone());
        let run_dir = quote_path(&folder.path().join("the run"));
        let shell = Shell::new(&service, &run_dir);
        assert!(sh(&shell.started()) && !sh(&shell.stopped()));
        for _ in 0..2 {
            assert!(sh(&shell.stop()) && sh(&shell.stopped()) && !manifest.exists());
        }
        for _ in 0..2 {
            assert!(sh(&shell.start()) && sh(&shell.started()) && !sh(&shell.stopped()));
        }
        assert_eq!(std::fs::read_to_string(&manifest).unwrap(), "kind: Pod\n");
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "nothing else is left beside the manifest and the run's folder");
    }

    #[test]
    fn a_manifest_that_an_earlier_run_has_kept_is_found_and_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("no-such-process-here.yaml");
        std::fs::write(&manifest, "kind: Pod\n").unwrap();
        let service = Service::StaticPod(manifest.clone());
        let of_run = |run: &str| quote_path(&folder.path().join("my state").join(run).join("m 1"));
        let (first, second) = (of_run("r1"), of_run("r2"));
        let (first, second) = (Shell::new(&service, &first), Shell::new(&service, &second));
        assert!(sh(&second.known()) && sh(&first.stop()) && !manifest.exists());
        // A rollback leaves it, as there is nothing to run; the next run begins.
        assert!(sh(&first.release()) && sh(&second.known()) && sh(&second.stopped()));
        assert!(sh(&second.stop()) && sh(&second.start()) && sh(&second.started()));
        assert_eq!(std::fs::read_to_string(&manifest).unwrap(), "kind: Pod\n");
        assert!(sh(&second.stop()) && sh(&second.start()) && manifest.exists());
    }

    #[test]
    fn a_unit_is_held_by_a_condition_that_names_its_own_file() {
        let service = Service::Systemd("etcd".to_owned());
        let stop = Shell::new(&service, "/r").stop();
        assert!(stop.contains("ConditionPathExists=!%s"), "{stop}");
        assert!(
            stop.contains("/etc/systemd/system/etcd.service.d/lifeboat-recover.conf"),
            "{stop}"
        );
        assert!(stop.contains("systemctl stop etcd.service"), "{stop}");
        assert_eq!(unit("etcd@a.service"), "etcd@a.service");
        assert!(Path::new(&drop_in_dir("etcd")).is_absolute());
    }
}
