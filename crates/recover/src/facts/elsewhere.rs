//! An etcd that runs, but with other data than those in the directory that the cluster's file names.
//!
//! ```text
//!   /proc/PID/comm            etcd
//!   /proc/PID/fd/9 ->         /data/etcd/member/snap/db       compared with DATA-DIR/member/snap/db: the same file, or another
//! ```

use crate::{
    service::unit,
    shell::{quote, quote_path},
    spec::{Resolved, Service},
};
use std::path::Path;

/// What [`elsewhere`] has found, for a person.
pub(crate) fn told_elsewhere(other: &Path, host: &Resolved) -> String {
    let (other, ours) = (other.display(), host.data_dir.display());
    format!("the etcd that runs there has its data in {other}, not in {ours}")
}

/// Says `data-elsewhere DIR` if the etcd that runs has another database open than the one in the data directory. Of several that run
/// there, nobody can tell which is meant.
pub(crate) fn elsewhere(host: &Resolved) -> String {
    let is_ours = match &host.service {
        Service::Systemd(name) => {
            format!(
                "grep -qF {} \"$process/cgroup\" 2>/dev/null",
                quote(&format!("/{}", unit(name)))
            )
        }
        // Else nobody has told that it is the pod's which runs, and not another one of the host.
        Service::StaticPod(_) => "crictl ps -q >/dev/null 2>&1".to_owned(),
        Service::Command(_) => "true".to_owned(),
    };
    // A file is known by its number, as a container has other names for the same directory.
    format!(
        "count=0\n\
         for process in /proc/[0-9]*; do\n\
         name=\n\
         {{ read -r name <\"$process/comm\"; }} 2>/dev/null || continue\n\
         if [ \"$name\" = etcd ] && {is_ours}; then count=$((count+1)); etcd=$process; fi\n\
         done\n\
         if [ $count = 1 ]; then\n\
         real=$(readlink -f {data} 2>/dev/null) || real={data}\n\
         open=$(ls -l \"$etcd/fd\" 2>/dev/null | sed -n 's,.* \\([0-9][0-9]*\\) -> \\(/.*\\)/member/snap/db$,\\1 \\2,p' | head -n 1)\n\
         theirs=$(stat -L -c %d:%i \"$etcd/fd/${{open%% *}}\" 2>/dev/null)\n\
         ours=$(stat -L -c %d:%i \"$real\"/member/snap/db 2>/dev/null)\n\
         if [ -n \"$open\" ] && [ -n \"$theirs\" ] && [ \"$theirs\" != \"$ours\" ] && [ \"${{open#* }}\" != \"$real\" ]; then\n\
         printf 'data-elsewhere %s\\n' \"${{open#* }}\"\n\
         fi\n\
         fi\n",
        data = quote_path(&host.data_dir)
    )
}
