//! `endpoint health`: whether the cluster agrees on something through each member.

use std::time::{Duration, Instant};

use etcd_live::{AlarmKind, Connector, Endpoint, Health, LiveError, one_line};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::output::{self, Format, duration, is_default, json, quote, table};
use crate::report::{Exit, Failure};

const HEADERS: [&str; 4] = ["endpoint", "health", "took", "error"];

/// Check that the cluster works through each endpoint
///
/// Each member is asked for a read that the cluster must agree on, and for alarms. A user without
/// permission for that read still proves the agreement. Fails unless all are healthy.
#[derive(Debug, clap::Args)]
pub(super) struct HealthArgs {}

/// What was found at one endpoint.
pub(super) struct Checked {
    pub(super) endpoint: Endpoint,
    pub(super) took: Duration,
    pub(super) result: Result<Health, LiveError>,
}

impl Checked {
    /// Why the endpoint is not healthy.
    pub(super) fn fault(&self) -> Option<String> {
        match &self.result {
            Err(error) => Some(one_line(error)),
            Ok(health) if health.alarms.is_empty() => None,
            Ok(health) => Some(alarms(&health.alarms)),
        }
    }
}

/// etcdctl's words, with its space at the end.
fn alarms(alarms: &[AlarmKind]) -> String {
    let names: String = alarms.iter().map(|alarm| format!("{alarm} ")).collect();
    format!("Active Alarm(s): {names}")
}

#[derive(Serialize)]
struct HealthJson {
    endpoint: String,
    health: bool,
    took: String,
    #[serde(skip_serializing_if = "is_default")]
    error: String,
}

pub(super) async fn run(
    format: Format,
    connector: &Connector,
    endpoints: &[Endpoint],
) -> Result<(), Failure> {
    let checked = check_each(connector, endpoints).await;
    output::print(&render(format, &checked))?;
    if format == Format::Simple {
        for (endpoint, fault) in faults(&checked) {
            say!("{endpoint} is unhealthy: failed to commit proposal: {fault}");
        }
    }
    outcome(&checked)
}

pub(super) async fn check_each(connector: &Connector, endpoints: &[Endpoint]) -> Vec<Checked> {
    let mut checking = JoinSet::new();
    for (place, endpoint) in endpoints.iter().cloned().enumerate() {
        let connector = connector.clone();
        checking.spawn(async move { (place, check(&connector, endpoint).await) });
    }
    let mut checked = checking.join_all().await;
    checked.sort_by_key(|(place, _)| *place);
    checked.into_iter().map(|(_, checked)| checked).collect()
}

async fn check(connector: &Connector, endpoint: Endpoint) -> Checked {
    let begun = Instant::now();
    let result = async { connector.connect(&endpoint).await?.health().await }.await;
    let took = result.as_ref().map_or_else(|_| begun.elapsed(), |health| health.took);
    Checked { endpoint, took, result }
}

fn faults(checked: &[Checked]) -> impl Iterator<Item = (&Endpoint, String)> {
    checked.iter().filter_map(|checked| Some((&checked.endpoint, checked.fault()?)))
}

fn outcome(checked: &[Checked]) -> Result<(), Failure> {
    let unhealthy = faults(checked).count();
    if unhealthy == 0 {
        return Ok(());
    }
    let errors = || checked.iter().filter_map(|checked| checked.result.as_ref().err());
    let silent = errors().count() == checked.len() && errors().all(LiveError::is_unreachable);
    let help = errors().next().map_or(
        "free space and disarm NOSPACE alarms; replace members with CORRUPT alarms",
        LiveError::remedy,
    );
    let exit = if silent { Exit::Unreachable } else { Exit::Failed };
    let message = format!("unhealthy cluster: {unhealthy} of {} endpoints", checked.len());
    Err(Failure::new(exit, message, help))
}

fn render(format: Format, checked: &[Checked]) -> String {
    let rows = || checked.iter().map(HealthJson::from);
    match format {
        Format::Simple => rows().filter(|row| row.health).map(|row| healthy_line(&row)).collect(),
        Format::Table => table(&HEADERS, &rows().map(HealthJson::row).collect::<Vec<_>>()),
        Format::Json => json(&rows().collect::<Vec<_>>()),
        Format::Fields => rows().map(HealthJson::fields).collect(),
    }
}

fn healthy_line(row: &HealthJson) -> String {
    format!("{} is healthy: successfully committed proposal: took = {}\n", row.endpoint, row.took)
}

impl From<&Checked> for HealthJson {
    fn from(checked: &Checked) -> Self {
        let fault = checked.fault();
        Self {
            endpoint: checked.endpoint.to_string(),
            health: fault.is_none(),
            took: duration::format(checked.took),
            error: fault.unwrap_or_default(),
        }
    }
}

impl HealthJson {
    fn row(self) -> Vec<String> {
        vec![self.endpoint, self.health.to_string(), self.took, self.error]
    }

    fn fields(self) -> String {
        format!(
            "\"Endpoint\" : {}\n\"Health\" : {}\n\"Took\" : {}\n\"Error\" : {}\n\n",
            quote(&self.endpoint),
            self.health,
            self.took,
            self.error
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(alarms: Vec<AlarmKind>) -> Checked {
        let took = Duration::from_micros(1_500);
        let endpoint = "127.0.0.1:2379".parse().unwrap();
        Checked { endpoint, took, result: Ok(Health { took, alarms }) }
    }

    #[test]
    fn an_alarm_makes_a_member_unhealthy_though_it_answers() {
        let checked = [checked(vec![AlarmKind::NoSpace, AlarmKind::Corrupt])];
        assert_eq!(
            render(Format::Json, &checked),
            concat!(
                r#"[{"endpoint":"127.0.0.1:2379","health":false,"took":"1.5ms","#,
                r#""error":"Active Alarm(s): NOSPACE CORRUPT "}]"#,
                "\n"
            )
        );
        assert_eq!(render(Format::Simple, &checked), "");
        assert_eq!(outcome(&checked).unwrap_err().exit, Exit::Failed);
    }

    #[test]
    fn a_healthy_member_is_told_as_etcdctl_tells_it() {
        assert_eq!(
            render(Format::Simple, &[checked(vec![])]),
            "127.0.0.1:2379 is healthy: successfully committed proposal: took = 1.5ms\n"
        );
        assert!(outcome(&[checked(vec![])]).is_ok());
    }
}
