//! What one script saw on a host, in one visit.
//!
//! ```text
//!   @unit etcd.service          a kind and a name
//!   |[Service]                  then text, each line behind a bar, so that no text can look like a heading
//!   |ExecStart=/usr/bin/etcd
//!   @end                        without it, something was cut off
//! ```
//!
//! The script only reads, and prints nothing secret: values of what is called a password or a secret are left
//! out on the host already, of files of variables only etcd's are printed, and no key or certificate is opened.

use crate::shell::quote;
use std::collections::BTreeMap;

/// The script, but for its first line.
const SCRIPT: &str = include_str!("gather.sh");
/// Most bytes of an answer: a hundred files of the size at which the script cuts them.
pub const ANSWER_BYTES_MAX: u64 = 26 << 20;

/// Why an answer is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatherError {
    /// Its end is missing.
    #[error("the host's answer was cut off after {lines} lines")]
    Cut {
        /// How much there was.
        lines: usize,
    },
}

/// What a host told of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// Its name, clock, tools.
    pub system: Facts,
    /// Units of etcd by name, as `systemctl cat` prints them.
    pub units: Vec<(String, String)>,
    /// States of units: etcd's, and those of Kubernetes.
    pub states: BTreeMap<String, Facts>,
    /// Files by path.
    pub files: BTreeMap<String, String>,
    /// Other manifests of static pods, and units of Kubernetes: the few flags of them that matter.
    pub manifests: Vec<(String, String)>,
    /// Running etcds.
    pub processes: BTreeMap<String, Process>,
    /// Directories that may be etcd's.
    pub directories: BTreeMap<String, Facts>,
    /// Certificates beside etcd's own: issuer, use, key.
    pub certificates: BTreeMap<String, Facts>,
    /// What programs say of their version.
    pub versions: BTreeMap<String, String>,
}

/// `key=value` lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(Vec<(String, String)>);

/// A running etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its `ETCD_…` variables, `NAME=value`.
    pub environment: Vec<String>,
    /// Its program, folder, user, control group.
    pub about: Facts,
}

impl Facts {
    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// The first value of a key, if it is not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.all(key).next().filter(|value| !value.is_empty())
    }

    /// All values of a key.
    pub fn all<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

/// The script for a host. `more` are paths that an earlier answer has shown to matter.
pub fn script<'a>(more: impl IntoIterator<Item = &'a str>) -> String {
    // The script takes a list apart at blanks, so what has one cannot be asked for.
    let plain = |path: &&str| path.starts_with('/') && !path.contains(char::is_whitespace);
    let more: Vec<_> = more.into_iter().filter(plain).collect();
    format!("more={}\n{SCRIPT}", quote(&more.join(" ")))
}

impl Gathered {
    /// Reads what the script printed.
    pub fn parse(answer: &str) -> Result<Self, GatherError> {
        let mut gathered = Self::default();
        let mut heading = None;
        let mut text = String::new();
        for line in answer.lines() {
            if let Some(next) = line.strip_prefix('@') {
                if let Some(heading) = heading.replace(next) {
                    gathered.add(heading, &std::mem::take(&mut text));
                }
            } else if let Some(line) = line.strip_prefix('|') {
                text.push_str(line);
                text.push('\n');
            }
        }
        match heading {
            Some("end") => Ok(gathered),
            _ => Err(GatherError::Cut { lines: answer.lines().count() }),
        }
    }

    fn add(&mut self, heading: &str, text: &str) {
        let (kind, name) = heading.split_once(' ').unwrap_or((heading, ""));
        let (name, lines) = (name.to_owned(), || text.lines().map(str::to_owned));
        match kind {
            "system" => self.system = Facts::parse(text),
            "unit" => self.units.push((name, text.to_owned())),
            "state" => drop(self.states.insert(name, Facts::parse(text))),
            "file" => drop(self.files.insert(name, text.to_owned())),
            "manifest" => self.manifests.push((name, text.to_owned())),
            "process" => {
                // A last newline ends the last argument, and the text its last line.
                let words = text.strip_suffix('\n').unwrap_or(text).lines();
                self.process(name).command = words.map(str::to_owned).collect();
            }
            "environ" => {
                self.process(name).environment = lines().filter(|l| !l.is_empty()).collect();
            }
            "about" => self.process(name).about = Facts::parse(text),
            "dir" => drop(self.directories.insert(name, Facts::parse(text))),
            "cert" => drop(self.certificates.insert(name, Facts::parse(text))),
            "version" => drop(self.versions.insert(name, text.to_owned())),
            // Of a newer script.
            _ => {}
        }
    }

    fn process(&mut self, pid: String) -> &mut Process {
        self.processes.entry(pid).or_default()
    }

    /// The version that a program told: `etcd Version: 3.4.23`.
    pub fn version_of(&self, program: &str) -> Option<&str> {
        let text = self.versions.get(program)?;
        text.lines().find_map(|line| line.strip_prefix("etcd Version: ")).map(str::trim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn text_that_looks_like_a_heading_stays_text() {
        let answer = "@file /a\n|x\n|@end\n||y\n\n@version /p\n|v\n@end\n";
        let gathered = Gathered::parse(answer).unwrap();
        assert_eq!(gathered.files["/a"], "x\n@end\n|y\n");
        assert_eq!(gathered.versions["/p"], "v\n");
    }

    #[test]
    fn an_answer_without_its_end_is_refused() {
        for answer in ["", "@system\n|hostname=a\n", "@file /a\n|@end\n"] {
            assert!(matches!(Gathered::parse(answer), Err(GatherError::Cut { .. })), "{answer:?}");
        }
    }

    #[test]
    fn an_empty_argument_of_a_process_is_kept() {
        let answer = "@process 7\n|etcd\n|--name\n|\n|--x\n\n@environ 7\n|ETCD_A=b=c\n|\n@end\n";
        let process = &Gathered::parse(answer).unwrap().processes["7"];
        assert_eq!(process.command, ["etcd", "--name", "", "--x"]);
        assert_eq!(process.environment, ["ETCD_A=b=c"]);
    }

    #[test]
    fn paths_that_a_shell_would_take_for_more_do_no_harm() {
        let script = script(["/a'$(x)", "/b c", "relative"]);
        assert_eq!(script.lines().next().unwrap(), r"more='/a'\''$(x)'");
    }

    /// The script, on the machine that runs the tests: whatever it has, the answer must be whole.
    fn run(shell: &[&str], script: &str) -> String {
        let mut child = Command::new(shell[0])
            .args(&shell[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_script_runs_under_sh_and_its_answer_is_read() {
        let gathered = Gathered::parse(&run(&["sh", "-s"], &script([]))).unwrap();
        assert!(gathered.system.get("hostname").is_some());
        assert!(gathered.system.get("time").unwrap().parse::<u64>().unwrap() > 1_700_000_000);
    }

    #[test]
    fn a_file_that_is_asked_for_is_shown_without_passwords() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.yml");
        let text = "name: m1\ndiscovery-proxy: http://user:hunter2@proxy:3128\nroot-password: hunter2\n\
            Environment=\"ETCD_ROOT_PASSWORD=hunter2 hunter2\" ETCD_NAME=a\nA='B_SECRET=hunter2' PASSWORD=hunter2\n\
            args: --some-secret=hunter2 --data-dir=/d\nETCD_PASSWORD=hunter2 hunter2\n- name: X_PASSWORD\n  value: hunter2\n";
        std::fs::write(&path, text).unwrap();
        let answer = run(&["sh", "-s"], &script([path.to_str().unwrap()]));
        assert!(!answer.contains("hunter2"), "{answer}");
        let gathered = Gathered::parse(&answer).unwrap();
        let shown = &gathered.files[path.to_str().unwrap()];
        for kept in ["name: m1", "ETCD_NAME=a", "--data-dir=/d", "@proxy:3128"] {
            assert!(shown.contains(kept), "{kept} in {shown}");
        }
    }
}
