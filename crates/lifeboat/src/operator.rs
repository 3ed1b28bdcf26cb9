//! `operator`: backups and restores as objects of Kubernetes.

use crate::report::{Exit, Failure};
use clap::builder::NonEmptyStringValueParser;
use operator::{
    context::Settings,
    limits::Limits,
    run::{RunError, run, signals},
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Run the operator: backups and restores as objects of Kubernetes
///
/// Follows BackupStore, EtcdBackup, EtcdBackupSchedule and EtcdRestore of the API group lifeboat.dev. In a pod it uses the
/// pod's ServiceAccount, elsewhere KUBECONFIG. Several operators of one Lease wait for each other: one works.
#[derive(Debug, clap::Args)]
pub(crate) struct OperatorArgs {
    /// A namespace to watch; several with commas, or by giving it again [default: the operator's own]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = label)]
    namespace: Vec<String>,

    /// Watch all namespaces
    #[arg(long, conflicts_with = "namespace")]
    all_namespaces: bool,

    /// Name of the Lease by which operators elect one of them
    #[arg(long, value_name = "NAME", default_value = "lifeboat-operator", value_parser = NonEmptyStringValueParser::new())]
    lease: String,

    /// Namespace of that Lease [default: the operator's own]
    #[arg(long, value_name = "NAME", value_parser = label)]
    lease_namespace: Option<String>,

    /// Take no Lease: only where it is sure that no other operator watches the same namespaces
    #[arg(long, conflicts_with_all = ["lease", "lease_namespace"])]
    no_leader_election: bool,

    /// Follow EtcdBackups of etcd.database.coreos.com/v1beta2 too, as the CoreOS etcd-operator did: plain snapshot files
    ///
    /// Needs their definition: lifeboat crds --coreos-compat. Stop the CoreOS operator first.
    #[arg(long)]
    coreos_compat: bool,

    /// Refuse BackupStores without credentials, which would act with the operator's own identity in the cloud
    #[arg(long)]
    no_ambient_credentials: bool,

    /// A folder below which BackupStores of file:// may be; without, there are none
    #[arg(long, value_name = "DIR")]
    file_stores: Vec<PathBuf>,

    /// How many backups it makes at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    parallel_backups: u16,

    /// Image of the pods that it starts [env: LIFEBOAT_IMAGE]
    #[arg(long, value_name = "IMAGE", value_parser = NonEmptyStringValueParser::new())]
    image: Option<String>,

    /// Folder for temporary files [env: LIFEBOAT_SPOOL_DIR] [default: the system's]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,

    /// Where health and metrics are served; `none`: nowhere
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:8080")]
    listen: String,

    /// How many seconds what runs may go on when the operator is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    stop_grace: u64,

    /// How logs are written: `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "json", value_parser = ["text", "json"])]
    log_format: String,

    /// What is logged: error, warn, info, debug, trace, or PART=LEVEL
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = NonEmptyStringValueParser::new())]
    log_level: String,
}

impl OperatorArgs {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let listen = self.listen()?;
        daemon::log(self.log_format == "json", &logged(&self.log_level))
            .map_err(|error| usage(error.to_string(), "correct --log-level"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(self.run_in(listen));
        runtime.shutdown_background();
        ended
    }

    async fn run_in(self, listen: Option<SocketAddr>) -> Result<(), Failure> {
        let signals = signals().map_err(failure)?;
        let (client, own) = operator::client().await.map_err(failure)?;
        let namespaces = match (self.all_namespaces, self.namespace.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => vec![own.clone()],
            (false, false) => self.namespace,
        };
        let settings = Settings {
            namespaces,
            lease_namespace: self.lease_namespace.unwrap_or(own),
            lease_name: (!self.no_leader_election).then_some(self.lease),
            identity: operator::identity(),
            image: self.image.or_else(|| said("LIFEBOAT_IMAGE")),
            spool: self.spool.unwrap_or_else(|| daemon::place::spool(None)),
            parallel_backups: self.parallel_backups.into(),
            listen,
            stop_grace: Duration::from_secs(self.stop_grace),
            limits: Limits {
                no_ambient_credentials: self.no_ambient_credentials,
                file_stores: self.file_stores,
            },
            coreos_compat: self.coreos_compat,
        };
        run(client, settings, signals).await.map_err(failure)
    }

    fn listen(&self) -> Result<Option<SocketAddr>, Failure> {
        match self.listen.as_str() {
            "none" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                usage(
                    format!("--listen {text:?} is no address"),
                    "write HOST:PORT, as 0.0.0.0:8080",
                )
            }),
        }
    }
}

/// What the pod of a Job of an EtcdBackup does
#[derive(Debug, clap::Args)]
pub(crate) struct BackupJobArgs {
    /// What the operator wants, JSON
    order: String,
}

impl BackupJobArgs {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let made = runtime.block_on(async {
            let mut signals = signals().map_err(failure)?;
            let interrupted = async move {
                let _ = signals.recv().await;
            };
            operator::backup::job::obey(&self.order, interrupted)
                .await
                .map_err(|error| failure(RunError::Kubernetes(error)))
        });
        runtime.shutdown_background();
        crate::output::print(&format!("{}\n", made?))
    }
}

/// A name as Kubernetes has them: what is left of a variable that is not set is none.
fn label(name: &str) -> Result<String, &'static str> {
    let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let is_label = (1..=63).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    match is_label {
        true => Ok(name.to_owned()),
        false => Err("a name has 1 to 63 of a-z, 0-9 and -, and begins and ends with none of -"),
    }
}

/// What is logged at a level. Of the client's own libraries only what nobody else tells: each failure is told once, by who
/// can say what to do about it.
fn logged(level: &str) -> String {
    match level {
        "error" | "warn" | "info" => format!("{level},kube_runtime=error,kube_client=off"),
        _ => level.to_owned(),
    }
}

fn said(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

fn usage(message: String, help: &str) -> Failure {
    Failure::new(Exit::Usage, message, help)
}

pub(crate) fn failure(error: RunError) -> Failure {
    let exit = match &error {
        RunError::Kubernetes(failure) if failure.reason == "Kubernetes" => Exit::Unreachable,
        RunError::Kubernetes(failure) if failure.reason == "Stopped" => Exit::Interrupted,
        _ => Exit::Failed,
    };
    let help = error.remedy();
    let cause = std::error::Error::source(&error).map(etcd_live::one_line);
    let message = match cause {
        Some(cause) => format!("{error}\ncaused by: {cause}"),
        None => error.to_string(),
    };
    Failure { exit, error: message.into(), help: (!help.is_empty()).then_some(help) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_odd_namespace_is_refused_and_never_means_all_of_them() {
        for name in ["prod", "a", "team-1", &"x".repeat(63)] {
            assert_eq!(label(name).as_deref(), Ok(name));
        }
        for name in ["", "Prod_X", "-a", "a-", "a.b", &"x".repeat(64)] {
            assert!(label(name).is_err(), "{name:?}");
        }
    }
}
