//! Text for `sh`: quoting, and the frame around the commands of one step on one host.
//!
//! ```text
//!   set -eu, names of folders          what every script begins with
//!   check() { … }                      succeeds if the step is done; changes nothing
//!   run() { … }                        does it; may be run again after it was cut anywhere
//!   main                               check || run && check, under a lock, with lines for the host's journal
//! ```
//!
//! * The shell reads all of it before anything is done, as `main` is the last line: a script that was cut on its way does nothing.
//! * Two scripts of one member never run at once: one that a killed `lifeboat` left behind is waited for.
//! * POSIX, but for `flock` and `sync FILE`, which Debian, Ubuntu, Red Hat, SUSE, Alpine and Flatcar have; without `flock` the lock is left out.

use crate::steps::LOCK;
use std::path::Path;

/// The word that a script ends with, on stdout, if the step was done before.
pub(crate) const ALREADY: &str = "lifeboat:already";
/// The same if it was done now.
pub(crate) const DONE: &str = "lifeboat:done";

/// How long a script waits for another one of the same member, in seconds: longer than any step waits by itself.
const LOCK_SECONDS: u32 = 600;

/// `text` as one word of the shell.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A path as one word of the shell.
pub fn quote_path(path: &Path) -> String {
    quote(path.to_str().expect("paths of hosts are text: they come from YAML"))
}

/// Makes a file and its name durable. `sync` without a name would wait for all that the machine has to write.
pub(crate) fn durable(path: &str) -> String {
    format!("sync {path} \"$(dirname {path})\" 2>/dev/null || sync")
}

/// Where a script keeps its own things on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// The run's id.
    pub(crate) run: &'a str,
    /// The member, or the host: names the journal and the lock.
    pub(crate) label: &'a str,
    /// Folder of lifeboat on the host.
    pub(crate) state_dir: &'a Path,
    /// Succeeds while the process that has the script run holds the host; what else is said then.
    pub(crate) claim: Option<String>,
}

impl Frame<'_> {
    /// The run's folder for this member.
    pub(crate) fn run_dir(&self) -> String {
        let folder = self.state_dir.join("recover").join(self.run).join(folder_name(self.label));
        quote_path(&folder)
    }

    /// The lock that says which run may change this member.
    pub(crate) fn lock(&self) -> String {
        quote_path(
            &self.state_dir.join("recover").join(format!("{}.lock", folder_name(self.label))),
        )
    }

    /// A script that only looks: `text` is run as it is.
    pub(crate) fn look(&self, text: &str) -> String {
        format!("set -u\nmain() {{\n{}\n}}\nmain </dev/null\n", body(text))
    }

    /// Fails unless the process that has the script run holds the host still.
    pub(crate) fn still_ours(&self) -> String {
        let Some(claim) = &self.claim else { return String::new() };
        format!(
            "  if ! {{ {claim}; }}; then echo \"the host is not held by this process any more, but by: $(cat {} 2>/dev/null || echo nobody)\" >&2; return 1; fi\n",
            self.lock()
        )
    }

    /// A script for one step.
    pub(crate) fn step(&self, id: &str, check: &str, run: &str) -> String {
        let (id, run_dir) = (quote(id), self.run_dir());
        let lock = quote_path(
            &self.state_dir.join("recover").join(format!("{}.flock", folder_name(self.label))),
        );
        // Somebody else may have taken the run over, while this script waited for its turn.
        let claim = if id.ends_with(LOCK) { String::new() } else { self.still_ours() };
        format!(
            "set -eu\n\
             check() {{\n{}\n}}\n\
             run() {{\n{}\n}}\n\
             note() {{\n  \
               printf '%s %s %s\\n' \"$(date -u +%Y-%m-%dT%H:%M:%SZ)\" \"$1\" {id} >>{run_dir}/journal\n  \
               sync {run_dir}/journal 2>/dev/null || sync\n\
             }}\n\
             main() {{\n  \
               umask 077\n  \
               mkdir -p {run_dir}\n  \
               if command -v flock >/dev/null; then exec 9>>{lock}; flock -w {LOCK_SECONDS} 9 || {{ echo 'another script of lifeboat still works here' >&2; return 1; }}; fi\n\
             {claim}  \
               if check; then note already; echo {ALREADY}; return 0; fi\n  \
               note begin\n  \
               run\n  \
               if ! check; then echo 'it was done, but its check fails' >&2; note failed; return 1; fi\n  \
               note done\n  \
               echo {DONE}\n\
             }}\n\
             main </dev/null\n",
            body(check),
            body(run),
        )
    }
}

/// A name that leads nowhere else.
fn folder_name(label: &str) -> String {
    label.replace(['/', '\0'], "_")
}

/// A function's body; an empty one does nothing. It is not indented: a quoted text may have lines of its own.
fn body(text: &str) -> &str {
    if text.trim().is_empty() { ":" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command};

    fn sh(text: &str) -> (bool, String) {
        let output = Command::new("sh").arg("-c").arg(text).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text + &String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn a_quoted_word_arrives_as_it_was() {
        for word in
            ["", "plain", "two words", "it's", "$HOME `id` \"x\" \\", "a\nb", "*", "~", "-n"]
        {
            let (ok, text) = sh(&format!("printf %s {}", quote(word)));
            assert_eq!((ok, text.as_str()), (true, word));
        }
    }

    #[test]
    fn a_step_is_run_once_and_then_found_done() {
        let folder = tempfile::tempdir().unwrap();
        let frame = Frame { run: "r1", label: "m 1", state_dir: folder.path(), claim: None };
        let file = quote_path(&folder.path().join("the file"));
        let script = frame.step("make", &format!("[ -e {file} ]"), &format!("touch {file}"));
        assert_eq!(sh(&script), (true, format!("{DONE}\n")));
        assert_eq!(sh(&script), (true, format!("{ALREADY}\n")));
        let journal = fs::read_to_string(folder.path().join("recover/r1/m 1/journal")).unwrap();
        let words: Vec<_> = journal.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(words, ["begin make", "done make", "already make"]);
    }

    #[test]
    fn a_step_whose_command_fails_or_that_has_no_effect_fails() {
        let folder = tempfile::tempdir().unwrap();
        let frame = Frame { run: "r1", label: "m1", state_dir: folder.path(), claim: None };
        let after = folder.path().join("after");
        let run = format!("false\ntouch {}", quote_path(&after));
        let (ok, text) = sh(&frame.step("make", "false", &run));
        assert!(!ok && !after.exists(), "{text}");
        let (ok, text) = sh(&frame.step("make", "false", "true"));
        assert!(!ok && text.contains("its check fails"), "{text}");
    }

    #[test]
    fn a_script_that_was_cut_on_its_way_does_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let frame = Frame { run: "r1", label: "m1", state_dir: folder.path(), claim: None };
        let file = folder.path().join("made");
        let script = frame.step("make", "false", &format!("touch {}", quote_path(&file)));
        for cut in 0..script.len() - "main </dev/null\n".len() {
            let _ = cut % 97 != 0 || sh(&script[..cut]).0;
            assert!(!file.exists(), "cut at {cut}");
        }
    }
}
