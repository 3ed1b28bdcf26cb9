//! Inside of the pod: the order is obeyed.

use super::{
    order::Order,
    told::{Told, ToldOfSuccess},
};
use crate::{
    api::HashMismatch,
    backup::live::{self, Made},
    failure::Failure,
    files::Files,
    secrets::{self, Content},
};
use backup::{HashKvPolicy, Options, Source, Target};
use etcd_live::{ConnectOptions, Connector, Endpoint, TlsOptions};
use repository::{
    codec::{Encoding, Recipients},
    lease::Terms,
};
use std::path::PathBuf;

/// What the pod may write there, Kubernetes shows.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// Does what an order says, in the pod. Why it failed is written where Kubernetes shows it.
pub async fn obey(
    order: &str,
    interrupted: impl Future<Output = ()> + Send + 'static,
) -> Result<String, Failure> {
    let made = make(order, interrupted).await;
    let told = match &made {
        Ok(made) => serde_json::to_vec(&ToldOfSuccess { other_cluster: made.other.clone() }),
        Err(failure) => {
            let Failure { reason, message, remedy, retryable } = failure.clone();
            serde_json::to_vec(&Told { reason: reason.to_owned(), message, remedy, retryable })
        }
    };
    // Where there is none, the log's end is shown.
    let _ = std::fs::write(TERMINATION_LOG, told.expect("plain data"));
    Ok(made?.manifest.id.to_string())
}

async fn make(
    order: &str,
    interrupted: impl Future<Output = ()> + Send + 'static,
) -> Result<Made, Failure> {
    let order: Order = serde_json::from_str(order).map_err(|error| {
        Failure::of_setting("the order", &error, "use the image of the operator's version")
    })?;
    let spool = std::env::temp_dir();
    let files = Files::default();
    live::make(order.job(&files, spool)?, interrupted).await
}

impl Order {
    fn job(&self, files: &Files, spool_dir: PathBuf) -> Result<backup::Job, Failure> {
        let mounted = |folder: &PathBuf| {
            Content::of_folder(folder).map_err(|error| {
                Failure::of_setting("a mounted Secret cannot be read", &error, "see the pod")
            })
        };
        let tls = match self.tls.as_ref().zip(self.tls_folder.as_ref()) {
            Some((tls, folder)) => secrets::tls_of(files, &mounted(folder)?, tls)?,
            None => TlsOptions::default(),
        };
        let user = self.user_folder.as_ref().map(mounted).transpose()?;
        let credentials = user.map(|secret| secrets::user_of(&secret)).transpose()?;
        let options = ConnectOptions { tls, credentials, ..ConnectOptions::unattended() };
        let connector = Connector::new(options)
            .map_err(|error| Failure::of_setting("spec.cluster.tls", &error, error.remedy()))
            .map_err(|failure| failure.with_names_of(files))?;
        let endpoints = self.endpoints.iter().map(|url| {
            url.parse::<Endpoint>().map_err(|error| {
                Failure::of_setting("spec.cluster.endpoints", &error, error.remedy())
            })
        });
        let endpoints = endpoints.collect::<Result<_, _>>()?;
        let (store, _) = self.store.open(files).map_err(|error| {
            Failure::of_setting("the store", &error, "see the BackupStore's conditions")
        })?;
        let mut recipients = Recipients::none();
        for key in &self.recipients {
            recipients.add(key).map_err(|error| {
                Failure::of_setting("spec.encryption.recipients", &error, error.remedy())
            })?;
        }
        let bandwidth = self.bandwidth_limit.as_ref().map(|limit| limit.parse()).transpose();
        let bandwidth = bandwidth.map_err(|error| {
            Failure::of_setting("spec.bandwidthLimit", &error, "write it as 20MiB/s")
        })?;
        let cluster = self.cluster.parse().map_err(|error| {
            Failure::of_setting("spec.cluster.name", &error, "write another name")
        })?;
        Ok(backup::Job {
            cluster,
            source: Source::Live { connector, endpoints },
            targets: vec![Target {
                name: self.store_name.clone(),
                store,
                encoding: Encoding { level: self.compression_level, recipients, bandwidth },
                may_expose: self.unencrypted,
            }],
            options: Options {
                spool_dir,
                hash_kv: match self.hash_mismatch {
                    HashMismatch::Warn => HashKvPolicy::Warn,
                    HashMismatch::Fail => HashKvPolicy::Fail,
                },
                terms: Terms { patience: live::PATIENCE, ..Terms::default() },
                tool: self.tool.clone(),
                ..Options::default()
            },
        })
    }
}
