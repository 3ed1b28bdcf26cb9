//! `operator`: backups and restores as objects of Kubernetes.

use crate::report::{Exit, Failure};
use operator::{
    context::Settings,
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
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    namespace: Vec<String>,

    /// Watch all namespaces
    #[arg(long, conflicts_with = "namespace")]
    all_namespaces: bool,

    /// Name of the Lease by which operators elect one of them
    #[arg(long, value_name = "NAME", default_value = "lifeboat-operator")]
    lease: String,

    /// Namespace of that Lease [default: the operator's own]
    #[arg(long, value_name = "NAME")]
    lease_namespace: Option<String>,

    /// Take no Lease: only where it is sure that no other operator watches the same namespaces
    #[arg(long, conflicts_with_all = ["lease", "lease_namespace"])]
    no_leader_election: bool,

    /// Follow EtcdBackups of etcd.database.coreos.com/v1beta2 too, as the CoreOS etcd-operator did: plain snapshot files
    ///
    /// Needs their definition: lifeboat crds --coreos-compat. Stop the CoreOS operator first.
    #[arg(long)]
    coreos_compat: bool,

    /// How many backups it makes at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    parallel_backups: u16,

    /// Image of the pods that it starts [env: LIFEBOAT_IMAGE]
    #[arg(long, value_name = "IMAGE")]
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
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

impl OperatorArgs {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let listen = self.listen()?;
        daemon::log(self.log_format == "json", &self.log_level)
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
