//! Files on their way to a host: sent until they have arrived whole, and only those that are not there yet.

use super::{Event, Watcher, patiently};
use crate::{
    build::MemberFile,
    host::{HostError, Remote},
    shell::{ALREADY, quote},
};
use std::path::Path;

/// A file that arrives damaged is sent so often; then it is looked at whether it is sound here.
const SENDS_MAX: u32 = 2;

/// Takes what stands on standard input to `$part`, and its SHA-256 to `$sum`: by what every host has.
pub(super) const AS_IT_IS: &str = "rm -f \"$part.fifo\" \"$part.sum\"
mkfifo \"$part.fifo\"
sha256sum <\"$part.fifo\" >\"$part.sum\" &
hash=$!
if ! tee \"$part.fifo\" >\"$part\"; then kill \"$hash\" 2>/dev/null || true; rm -f \"$part\" \"$part.fifo\" \"$part.sum\"; return 1; fi
wait \"$hash\"
sum=$(cut -c1-64 <\"$part.sum\")
rm -f \"$part.fifo\" \"$part.sum\"
sync \"$part\" 2>/dev/null || sync";

/// The same for what is compressed: by the program that was pushed there.
fn packed(program: &str) -> String {
    format!("sum=$({program} recover receive \"$part\") || {{ rm -f \"$part\"; return 1; }}")
}

/// A command that takes a file from its standard input, by `take`, makes it durable and gives it its name; and that says which
/// hash it has.
///
/// One that a killed `lifeboat` left behind may still be receiving: each has a temporary name of its own, and `before_naming` keeps a
/// late one from putting its file where things have gone on.
pub(super) fn receive(take: &str, to: &str, sha256: &str, before_naming: &str) -> String {
    let sha256 = quote(sha256);
    format!(
        "set -eu\n\
         umask 077\n\
         to={to}\n\
         part=$to.part.$$\n\
         mkdir -p \"$(dirname \"$to\")\"\n\
         rm -f \"$part\"\n\
         {take}\n\
         if [ \"$sum\" != {sha256} ]; then rm -f \"$part\"; echo \"$sum\"; return 0; fi\n\
         {before_naming}\n\
         mv \"$part\" \"$to\"\n\
         echo \"$sum\""
    )
}

/// An expression that succeeds if the file has that hash.
pub(super) fn has_sha256(path: &str, sha256: &str) -> String {
    format!("[ \"$(sha256sum <{path} | cut -c1-64)\" = {} ]", quote(sha256))
}

/// Sends a file until it has arrived whole.
pub(super) async fn send(
    remote: &Remote,
    receive: &str,
    path: &Path,
    sha256: &str,
    on_bytes: &(dyn Fn(u64) + Send + Sync),
    watcher: &Watcher,
) -> Result<(), HostError> {
    let mut sends = 0;
    loop {
        let said = patiently(remote, watcher, || remote.send(receive, path, on_bytes)).await?;
        let arrived = said.lines().last().unwrap_or_default().trim().to_owned();
        if arrived == sha256 {
            return Ok(());
        }
        sends += 1;
        let (label, file) = (remote.label().to_owned(), path.display().to_string());
        let error =
            HostError::Damaged { label: label.clone(), file, arrived, sent: sha256.to_owned() };
        if sends == SENDS_MAX {
            return Err(error);
        }
        watcher(Event::Again { label, why: error.to_string(), left: None });
    }
}

/// Sends those files that are not there yet, the largest last. `program` is where lifeboat's own one is on the host.
pub(super) async fn send_all(
    remote: &Remote,
    program: &str,
    check: &str,
    parents: &str,
    files: Vec<(MemberFile, String)>,
    watcher: &Watcher,
) -> Result<(), HostError> {
    let mut look =
        format!("check() {{\n{check}\n}}\nif check; then echo {ALREADY}; exit; fi\n{parents}\n");
    for (number, (file, to)) in files.iter().enumerate() {
        look += &format!(
            "if [ -f {to} ] && {}; then echo there {number}; fi\n",
            has_sha256(to, &file.sha256)
        );
    }
    let there = patiently(remote, watcher, || remote.script(&look)).await?;
    if there.contains(ALREADY) {
        return Ok(());
    }
    for (number, (file, to)) in files.iter().enumerate() {
        if there.lines().any(|line| line == format!("there {number}")) {
            continue;
        }
        let of = std::fs::metadata(&file.path).map_or(0, |found| found.len());
        let label = remote.label().to_owned();
        let on_bytes = |bytes| watcher(Event::Sent { label: label.clone(), bytes, of });
        let not_needed = format!(
            "check() {{\n{check}\n}}\nif check; then rm -f \"$part\"; echo \"$sum\"; return 0; fi"
        );
        let take = if file.packed { packed(program) } else { AS_IT_IS.to_owned() };
        let receive = receive(&take, to, &file.sha256, &not_needed);
        send(remote, &receive, &file.path, &file.sha256, &on_bytes, watcher).await?;
    }
    Ok(())
}
