//! What is found on a host before anything is decided: one script that only looks, and its answer read.
//!
//! The answer is lines of `key value`. What a host could not tell is left out, never guessed.

use crate::{
    claim::{self, Claim, Placed},
    service::{Shell, unit},
    shell::{Frame, quote, quote_path},
    spec::{Resolved, Service},
};
use serde::{Deserialize, Serialize};
use std::{fmt::Write as _, path::PathBuf};

mod elsewhere;

pub(crate) use elsewhere::{elsewhere, told_elsewhere};

/// Tools that steps need; those that are only better to have are not among them.
const TOOLS: [&str; 8] =
    ["sha256sum", "tee", "mkfifo", "stat", "readlink", "sync", "sleep", "date"];

/// What was found on a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Facts {
    /// Whether commands run as root.
    pub root: bool,
    /// As `uname -m` says.
    pub machine: String,
    /// The host's clock less ours, in seconds.
    pub clock_ahead: f64,
    /// The data directory with links followed.
    pub data: Option<Directory>,
    /// The WAL directory, if it is apart.
    pub wal: Option<Directory>,
    /// Version of the etcd that would be started.
    pub etcd_version: Option<String>,
    /// Whether etcd's service is known there.
    pub service_known: bool,
    /// Whether it runs.
    pub service_running: bool,
    /// Whether it does not start when the host boots: a unit of systemd's that is not enabled.
    pub service_disabled: bool,
    /// `USER:GROUP` that it runs as, if that is known: of systemd's units.
    pub service_owner: Option<String>,
    /// Of each client: whether it is known there, and whether it runs.
    pub clients: Vec<(bool, bool)>,
    /// Tools that are needed and missing.
    pub missing_tools: Vec<String>,
    /// Commands that run etcd or its clients and are missing: `start PROGRAM`.
    pub missing_commands: Vec<String>,
    /// The directory that the running etcd has its data in, if that is another.
    pub data_elsewhere: Option<PathBuf>,
    /// What etcd calls the member, as it told.
    pub etcd_name: Option<String>,
    /// The run that holds the host's lock.
    pub lock: Option<Claim>,
    /// The run whose data are in place, if they are a run's.
    pub placed: Option<Placed>,
    /// When the client certificate ends, in seconds since 1970, if that could be found out.
    pub certificate_ends: Option<i64>,
    /// The same of the member's own certificate.
    pub server_certificate_ends: Option<i64>,
    /// Hosts of the member's URLs that its certificate does not have.
    pub names_not_in_certificate: Vec<String>,
    /// Users and groups of the spec's owner that the host does not know.
    pub unknown_owners: Vec<String>,
    /// Files named in the spec that are not there.
    pub missing_files: Vec<String>,
}

/// A directory of etcd.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Directory {
    /// With links followed.
    pub path: PathBuf,
    /// Whether it is there.
    pub exists: bool,
    /// Whether something of etcd is in it.
    pub filled: bool,
    /// Something lies there that is no folder.
    pub no_folder: bool,
    /// Something in it, if nothing of it is etcd's.
    pub foreign: Option<String>,
    /// What runs have set aside, if there is nothing of etcd in it.
    pub beside: Vec<String>,
    /// Whether it is a mount point, so that it cannot be renamed.
    pub mount_point: bool,
    /// The folder that it lies in, if that is not there.
    pub no_parent: Option<PathBuf>,
    /// The mount point in `/etc/fstab` that it lies below, if nothing is mounted there.
    pub not_mounted: Option<PathBuf>,
    /// `USER:GROUP`.
    pub owner: Option<String>,
    /// Octal.
    pub mode: Option<String>,
    /// Bytes in it.
    pub bytes: u64,
    /// Bytes free on its file system.
    pub free: u64,
    /// When the database was written to for the last time, in seconds since 1970.
    pub written: Option<i64>,
}

/// The script whose answer [`parse`] reads.
pub(crate) fn script(host: &Resolved, frame: &Frame<'_>) -> String {
    let mut text = String::from(
        "say() { printf '%s %s\\n' \"$1\" \"$2\"; }\n\
         say uid \"$(id -u)\"\n\
         say machine \"$(uname -m)\"\n\
         say clock \"$(date +%s.%N)\"\n",
    );
    for tool in TOOLS {
        let _ = writeln!(text, "command -v {tool} >/dev/null || say missing-tool {tool}");
    }
    directory(&mut text, "data", &quote_path(&host.data_dir), "/member");
    if let Some(wal_dir) = &host.wal_dir {
        directory(&mut text, "wal", &quote_path(wal_dir), "");
    }
    let run_dir = frame.run_dir();
    service(&mut text, "service", &host.service, &run_dir);
    let clients = host.clients.iter().map(|client| &client.service);
    for client in clients.clone() {
        service(&mut text, "client", client, &run_dir);
    }
    for service in clients.chain([&host.service]) {
        text += &Shell::new(service, &run_dir).look_for_commands();
    }
    text += &elsewhere(host);
    unit_facts(&mut text, &host.service);
    version(&mut text, &host.service, &run_dir);
    // Links are followed, as they are for the lock's third line.
    let _ = writeln!(
        text,
        "at={at}\ndata=$(readlink -f \"$at\" 2>/dev/null) || data=$at",
        at = quote_path(&host.data_dir)
    );
    text += &claim::look_for_locks(&frame.lock(), &host.state_dir, "\"$data\"");
    text += &claim::look_for_placed(&host.state_dir, "\"$data\"");
    owner(&mut text, host);
    files(&mut text, host);
    text
}

/// Names are asked for; numbers need nobody to know them.
fn owner(text: &mut String, host: &Resolved) {
    let Some(owner) = &host.owner else { return };
    for (name, kind) in owner.split(':').zip(["user", "group"]) {
        let ask = match kind {
            "user" => "id -u --",
            _ => "! command -v getent >/dev/null || getent group --",
        };
        if name.parse::<u32>().is_err() {
            let name = quote(name);
            let _ = writeln!(
                text,
                "{{ {ask} {name}; }} >/dev/null 2>&1 || say unknown-owner \"{kind} \"{name}"
            );
        }
    }
}

fn directory(text: &mut String, key: &str, path: &str, inside: &str) {
    // Of a mount point, the folder in it is set aside.
    let known = if inside.is_empty() { "'[.]wal\\|[.]tmp'" } else { "'^member'" };
    let _ = writeln!(
        text,
        "at={path}\n\
         real=$(readlink -f \"$at\" 2>/dev/null) || real=$at\n\
         say {key}-path \"$real\"\n\
         place=$real\n\
         if [ -L \"$at\" ] && [ ! -e \"$at\" ]; then place=$(readlink \"$at\"); fi\n\
         [ -d \"$(dirname \"$place\")\" ] || say {key}-no-parent \"$(dirname \"$place\")\"\n\
         sed 's/#.*//' /etc/fstab 2>/dev/null | while read -r device point more; do\n\
         case \"$point:$place/\" in /?*:\"${{point%/}}\"/*) grep -q \" $point \" /proc/self/mounts || say {key}-not-mounted \"$point\" ;; esac\n\
         done\n\
         on=$real\n\
         while [ ! -e \"$on\" ]; do on=$(dirname \"$on\"); done\n\
         say {key}-free-kib \"$(df -Pk \"$on\" | sed -n '$p' | sed 's/.* \\([0-9][0-9]*\\)  *[0-9][0-9]*% .*/\\1/')\"\n\
         if [ -z \"$(ls -A \"$real\"{inside} 2>/dev/null)\" ]; then\n\
         for old in \"$real\".lifeboat-*; do\n\
         case $old in *.undone | *.undone.*) continue ;; esac\n\
         [ ! -e \"$old\" ] || say {key}-beside \"${{old##*/}}\"\n\
         done\n\
         fi\n\
         [ ! -e \"$real\" ] || [ -d \"$real\" ] || say {key}-no-folder yes\n\
         if [ -d \"$real\" ]; then\n\
         say {key}-exists yes\n\
         say {key}-owner \"$(stat -c %U:%G \"$real\")\"\n\
         say {key}-mode \"$(stat -c %a \"$real\")\"\n\
         say {key}-kib \"$(du -sk \"$real\" | sed 's/[^0-9].*//')\"\n\
         [ \"$(stat -c %d \"$real\")\" = \"$(stat -c %d \"$real/..\")\" ] || say {key}-mount yes\n\
         [ -z \"$(ls -A \"$real\"{inside} 2>/dev/null)\" ] || say {key}-filled yes\n\
         [ ! -f \"$real\"{inside}/snap/db ] || say {key}-written \"$(stat -c %Y \"$real\"{inside}/snap/db)\"\n\
         foreign=$(ls -A \"$real\" | grep -v '^lost+found$' | head -n 1)\n\
         [ -z \"$foreign\" ] || ls -A \"$real\" | grep -q {known} || say {key}-foreign \"$foreign\"\n\
         fi"
    );
}

fn service(text: &mut String, key: &str, service: &Service, run_dir: &str) {
    let shell = Shell::new(service, run_dir);
    let (known, running) = (shell.known(), shell.running());
    let _ = writeln!(
        text,
        "if {known}; then known=yes; else known=no; fi\n\
         if {running}; then running=yes; else running=no; fi\n\
         say {key} \"$known $running\""
    );
}

/// What matters where etcd has never run: whether it will at the next boot, and as whom, to whom the new data are to belong.
fn unit_facts(text: &mut String, service: &Service) {
    let Service::Systemd(name) = service else { return };
    let unit = quote(&unit(name));
    let _ = writeln!(
        text,
        "[ \"$(systemctl is-enabled {unit} 2>/dev/null)\" != disabled ] || say service-disabled yes\n\
         user=$(systemctl show -p User {unit} | sed -n 's/^User=//p')\n\
         group=$(systemctl show -p Group {unit} | sed -n 's/^Group=//p')\n\
         [ -n \"$group\" ] || group=$(id -gn \"$user\" 2>/dev/null)\n\
         [ -z \"$user\" ] || [ -z \"$group\" ] || say service-owner \"$user:$group\""
    );
}

fn version(text: &mut String, service: &Service, run_dir: &str) {
    let ask = match service {
        Service::Systemd(name) => format!(
            "bin=$(systemctl show -p ExecStart {} | sed -n 's/.*path=\\([^ ;]*\\).*/\\1/p' | head -n 1)\n\
             [ -x \"$bin\" ] || bin=$(command -v etcd)\n\
             version=$(\"$bin\" --version 2>/dev/null | sed -n 's/^etcd Version: //p')",
            quote(&unit(name))
        ),
        Service::StaticPod(_) => format!(
            "version=$(sed -n 's/.*image:.*etcd:v\\{{0,1\\}}\\([0-9][0-9.]*\\).*/\\1/p' \"$({})\" 2>/dev/null | head -n 1)",
            Shell::new(service, run_dir).manifest()
        ),
        // Which program a command starts cannot be told.
        Service::Command(_) => "version=".to_owned(),
    };
    let _ = writeln!(text, "{ask}\n[ -z \"$version\" ] || say etcd-version \"$version\"");
}

fn files(text: &mut String, host: &Resolved) {
    let tls = &host.certificates;
    let named = [&tls.ca, &tls.cert, &tls.key, &host.password_file, &host.server_certificate];
    for file in named.into_iter().flatten() {
        let file = quote_path(file);
        let _ = writeln!(text, "[ -r {file} ] || say missing-file {file}");
    }
    for (key, cert) in [("", &tls.cert), ("server-", &host.server_certificate)] {
        let Some(cert) = cert else { continue };
        let _ = writeln!(
            text,
            "ends=$(openssl x509 -enddate -noout -in {} 2>/dev/null | sed -n 's/^notAfter=//p')\n\
             [ -z \"$ends\" ] || say {key}certificate-ends \"$(date -d \"$ends\" +%s 2>/dev/null)\"",
            quote_path(cert)
        );
    }
    let (Some(cert), Some(member)) = (&host.server_certificate, &host.member) else { return };
    let urls = member.peer_urls.iter().chain(&member.client_urls);
    for url in
        urls.filter_map(|url| url::Url::parse(url).ok()).filter(|url| url.scheme() == "https")
    {
        let Some(name) = url.host() else { continue };
        let (check, name) = match name {
            url::Host::Domain(name) => ("checkhost", name.to_owned()),
            url::Host::Ipv4(address) => ("checkip", address.to_string()),
            url::Host::Ipv6(address) => ("checkip", address.to_string()),
        };
        let name = quote(&name);
        let _ = writeln!(
            text,
            "case \"$(openssl x509 -noout -{check} {name} -in {} 2>/dev/null)\" in *NOT*) say name-not-in-certificate {name} ;; esac",
            quote_path(cert)
        );
    }
}

/// Reads the answer. The host's clock is compared with ours from when it was asked to when it had answered: between these it is right.
pub(crate) fn parse(answer: &str, asked: f64, answered: f64) -> Facts {
    let mut facts = Facts::default();
    for line in answer.lines() {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.trim();
        match key {
            "uid" => facts.root = value == "0",
            "machine" => facts.machine = value.to_owned(),
            "clock" => {
                facts.clock_ahead = value
                    .parse::<f64>()
                    .map_or(0.0, |clock| (clock - asked).min(0.0) + (clock - answered).max(0.0));
            }
            "missing-command" => facts.missing_commands.push(value.to_owned()),
            "data-elsewhere" => facts.data_elsewhere = Some(value.into()),
            "missing-tool" => facts.missing_tools.push(value.to_owned()),
            "unknown-owner" => facts.unknown_owners.push(value.to_owned()),
            "missing-file" => facts.missing_files.push(value.to_owned()),
            "service" => (facts.service_known, facts.service_running) = yes_yes(value),
            "service-disabled" => facts.service_disabled = true,
            "service-owner" => facts.service_owner = Some(value.to_owned()),
            "client" => facts.clients.push(yes_yes(value)),
            "etcd-version" => facts.etcd_version = Some(value.to_owned()),
            "lock" => facts.lock = Some(Claim::parse(value)),
            "placed" => facts.placed = Some(Placed::parse(value)),
            "placed-old" => {
                if let Some(placed) = &mut facts.placed {
                    placed.old = Some(value.to_owned());
                }
            }
            "server-certificate-ends" => facts.server_certificate_ends = value.parse().ok(),
            "name-not-in-certificate" => facts.names_not_in_certificate.push(value.to_owned()),
            "certificate-ends" => facts.certificate_ends = value.parse().ok(),
            _ => {
                if let Some(key) = key.strip_prefix("data-") {
                    fill(facts.data.get_or_insert_default(), key, value);
                } else if let Some(key) = key.strip_prefix("wal-") {
                    fill(facts.wal.get_or_insert_default(), key, value);
                }
            }
        }
    }
    facts
}

fn fill(directory: &mut Directory, key: &str, value: &str) {
    let bytes = || value.parse::<u64>().unwrap_or(0).saturating_mul(1024);
    match key {
        "path" => directory.path = value.into(),
        "exists" => directory.exists = true,
        "filled" => directory.filled = true,
        "no-folder" => directory.no_folder = true,
        "beside" => directory.beside.push(value.to_owned()),
        "foreign" => directory.foreign = Some(value.to_owned()),
        "mount" => directory.mount_point = true,
        "no-parent" => directory.no_parent = Some(value.into()),
        "not-mounted" => directory.not_mounted = Some(value.into()),
        "owner" => directory.owner = Some(value.to_owned()),
        "mode" => directory.mode = Some(value.to_owned()),
        "kib" => directory.bytes = bytes(),
        "free-kib" => directory.free = bytes(),
        "written" => directory.written = value.parse().ok(),
        _ => {}
    }
}

fn yes_yes(value: &str) -> (bool, bool) {
    let (known, running) = value.split_once(' ').unwrap_or_default();
    (known == "yes", running == "yes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;
    use std::process::Command;

    #[test]
    fn this_machine_tells_what_is_in_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("my data");
        std::fs::create_dir_all(data.join("member/snap")).unwrap();
        std::fs::write(data.join("member/snap/db"), vec![1; 100_000]).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let spec = Spec::parse(&format!(
            "cluster: c
etcd: {{data-dir: '{}', wal-dir: /no/such/wal, certificates: {{ca: /no/ca.pem}}, service: {{command: {{start: 'true', stop: 'true', running: 'false'}}}}}}
clients: [{{command: {{start: 'true', stop: 'true', running: 'true'}}}}]
hosts: [{{host: h, member: {{name: m1, peer-urls: ['http://h:2380']}}}}]",
            link.display()
        ))
        .unwrap();
        let host = &spec.resolved()[0];
        let frame = Frame { run: "r1", label: "m1", state_dir: folder.path(), claim: None };
        let text = frame.look(&script(host, &frame));
        let output = Command::new("sh").arg("-c").arg(&text).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let facts = parse(&String::from_utf8(output.stdout).unwrap(), 0.0, 0.0);
        let found = facts.data.unwrap();
        assert_eq!(found.path, data.canonicalize().unwrap(), "{errors}");
        assert!(found.exists && found.filled && !found.mount_point, "{found:?} {errors}");
        assert!(found.bytes >= 100_000 && found.free > 0, "{found:?}");
        assert!(found.owner.is_some() && found.mode.as_deref() == Some("755"), "{found:?}");
        assert_eq!((found.no_parent, found.not_mounted), (None, None), "{errors}");
        let wal = facts.wal.unwrap();
        assert!(!wal.exists && wal.free > 0, "{wal:?}");
        assert_eq!(wal.no_parent, Some("/no/such".into()), "{wal:?} {errors}");
        assert_eq!((facts.service_known, facts.service_running), (true, false));
        assert_eq!(facts.clients, [(true, true)]);
        assert_eq!(facts.missing_files, ["/no/ca.pem"]);
        assert!(facts.clock_ahead > 1e9 && facts.lock.is_none() && facts.missing_tools.is_empty());
    }

    /// What is told of a directory.
    fn told_of(path: &std::path::Path, fstab: &str) -> Directory {
        let mut text = "say() { printf '%s %s\\n' \"$1\" \"$2\"; }\n".to_owned();
        directory(&mut text, "data", &quote_path(path), "/member");
        let text = text.replace("/etc/fstab", fstab);
        let output = Command::new("sh").arg("-c").arg(text).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        parse(&String::from_utf8(output.stdout).unwrap(), 0.0, 0.0).data.unwrap()
    }

    #[test]
    fn what_is_not_etcds_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let told = || told_of(&path, "/dev/null");
        assert_eq!((told().foreign, told().no_folder), (None, false));
        std::fs::create_dir(path.with_extension("lifeboat-r1")).unwrap();
        // What a rollback has taken away is nobody's any more.
        for undone in ["lifeboat-r0.undone", "lifeboat-r0.undone.2"] {
            std::fs::create_dir(path.with_extension(undone)).unwrap();
        }
        assert_eq!(told().beside, ["data.lifeboat-r1"]);
        std::fs::write(&path, "").unwrap();
        assert!(told().no_folder);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir_all(path.join("lost+found")).unwrap();
        assert_eq!((told().foreign, told().no_folder), (None, false));
        std::fs::write(path.join("index.html"), "").unwrap();
        assert_eq!(told().foreign.as_deref(), Some("index.html"));
        // As a run that was cut off leaves it, where it is a mount point.
        std::fs::create_dir(path.join("member.lifeboat-r1")).unwrap();
        assert_eq!(told().foreign, None);
    }

    #[test]
    fn a_disk_that_is_not_mounted_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        let fstab = folder.path().join("fstab");
        let none = format!(
            "# {d} is no mount point\nUUID=1 / ext4 rw 0 1\n/dev/b none swap sw 0 0\n",
            d = disk.display()
        );
        std::fs::write(&fstab, &none).unwrap();
        let told = |name: &str| told_of(&disk.join(name), fstab.to_str().unwrap());
        assert_eq!((told("etcd").not_mounted, told("etcd").no_parent), (None, None));
        std::fs::write(
            &fstab,
            format!("{none}/dev/c {} ext4 defaults 0 2 # etcd's\n", disk.display()),
        )
        .unwrap();
        assert_eq!(told("etcd").not_mounted, Some(disk.clone()));
        assert_eq!(
            told_of(&folder.path().join("disk2/etcd"), fstab.to_str().unwrap()).not_mounted,
            None
        );

        std::os::unix::fs::symlink(folder.path().join("gone/etcd"), disk.join("link")).unwrap();
        assert_eq!(told("link").no_parent, Some(folder.path().join("gone")));
    }

    #[test]
    fn a_certificate_that_lacks_a_name_of_its_member_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("the cert.pem"), folder.path().join("key.pem"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args([
                "-days",
                "30",
                "-subj",
                "/CN=m1",
                "-addext",
                "subjectAltName=IP:10.0.0.1,DNS:m1",
            ])
            .arg("-out")
            .arg(&cert)
            .arg("-keyout")
            .arg(&key)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut spec = Spec::parse(
            "cluster: c
hosts: [{host: h, member: {name: m1, peer-urls: ['https://m1:2380', 'https://m2:2380'], client-urls: ['https://10.0.0.1:2379', 'https://10.0.0.2:2379']}}]",
        )
        .unwrap();
        spec.etcd.server_certificate = Some(cert);
        let mut text = "say() { printf '%s %s\\n' \"$1\" \"$2\"; }\n".to_owned();
        files(&mut text, &spec.resolved()[0]);
        let output = Command::new("sh").arg("-c").arg(text).output().unwrap();
        let facts = parse(&String::from_utf8(output.stdout).unwrap(), 0.0, 0.0);
        assert_eq!(facts.names_not_in_certificate, ["m2", "10.0.0.2"]);
        assert!(facts.server_certificate_ends.is_some() && facts.missing_files.is_empty());
    }

    #[test]
    fn an_owner_that_the_host_does_not_know_is_found_out() {
        let unknown = |owner: &str| {
            let mut spec = Spec::parse(
                "cluster: c\nhosts: [{host: h, member: {name: m1, peer-urls: ['http://h:2380']}}]",
            )
            .unwrap();
            spec.etcd.owner = Some(owner.parse().unwrap());
            let mut text = "say() { printf '%s %s\\n' \"$1\" \"$2\"; }\n".to_owned();
            super::owner(&mut text, &spec.resolved()[0]);
            let output = Command::new("sh").arg("-c").arg(text).output().unwrap();
            parse(&String::from_utf8(output.stdout).unwrap(), 0.0, 0.0).unknown_owners
        };
        assert_eq!(unknown("root:root"), [""; 0]);
        assert_eq!(unknown("54321:54321"), [""; 0]);
        assert_eq!(unknown("no-such-one:root"), ["user no-such-one"]);
        assert_eq!(unknown("root:no-such-one"), ["group no-such-one"]);
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let ahead = |clock: &str| parse(&format!("clock {clock}"), 100.0, 110.0).clock_ahead;
        assert_eq!((ahead("95.5"), ahead("105"), ahead("112")), (-4.5, 0.0, 2.0));
        assert_eq!(parse("hello\n\nwal\nclock soon\n", 0.0, 0.0), Facts::default());
    }
}
