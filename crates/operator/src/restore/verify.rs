//! Whether the restored cluster is what it was meant to be: asked of each member, by its own name.

use super::job;
use crate::{
    api::{EtcdRestore, EtcdRestoreStatus},
    cluster::{self, Reached},
    context::Context,
    failure::Failure,
};
use etcd_live::{Connection, Endpoint, LiveError, Refusal, one_line};
use futures::future::join_all;
use kube::ResourceExt;
use recover::{Built, Expected, judge};
use restore::parse_cluster;

/// What speaks against it; nothing if all is as planned.
pub(super) async fn faults(
    context: &Context,
    restore: &EtcdRestore,
    status: &EtcdRestoreStatus,
) -> Result<Vec<String>, Failure> {
    let target = restore.spec.target.stateful_set.as_ref();
    let target = target.ok_or_else(|| Failure::settings("there is no StatefulSet to ask", ""))?;
    let namespace = restore.namespace().unwrap_or_default();
    let reached = cluster::reach(context, &namespace, &target.cluster).await?;
    let built = planned(restore, status)?;
    Ok(faults_of(&reached, &built, status.hash_kv).await)
}

/// The cluster as it was planned: its ids follow from URLs and token.
fn planned(restore: &EtcdRestore, status: &EtcdRestoreStatus) -> Result<Built, Failure> {
    let members = job::initial_cluster(restore, status);
    let cluster = parse_cluster(&members, &job::token(restore), &[]).map_err(|error| {
        Failure::of_setting("spec.target.statefulSet.members", &error, error.remedy())
    })?;
    let ids = cluster.members().iter().map(|member| (member.name.clone(), member.id.0));
    Ok(Built {
        revision: status.restored_revision.unwrap_or_default(),
        cluster_id: cluster.id().0,
        member_ids: ids.collect(),
        ..Built::default()
    })
}

async fn faults_of(reached: &Reached, built: &Built, hash_kv: Option<u32>) -> Vec<String> {
    let Reached { connector, endpoints } = reached;
    let asked = join_all(endpoints.iter().map(async |endpoint| {
        let mut member = Asked { label: endpoint.to_string(), ..Asked::default() };
        if let Err(error) = member.ask(connector, endpoint, built).await {
            member.answer.error = Some(error);
        }
        member
    }));
    let mut asked = asked.await;
    let moved = asked.iter().any(|member| member.has_moved);
    let expected = match moved {
        true => agreement(&mut asked).await,
        false => hash_kv,
    };
    let expected = expected.map(|hash_kv| Expected { revision: built.revision, hash_kv });
    let missing: Vec<String> = built
        .member_ids
        .iter()
        .filter(|(_, id)| !asked.iter().any(|member| member.answer.member_id == **id))
        .map(|(name, _)| format!("{name}: none of the endpoints is this member"))
        .collect();
    let answers: Vec<_> = asked.into_iter().map(|member| (member.label, member.answer)).collect();
    let mut faults = judge(built, expected, &answers);
    // Members that did not answer are told already.
    if faults.is_empty() {
        faults.extend(missing);
    }
    faults
}

/// A member, as far as it has answered.
#[derive(Default)]
struct Asked {
    /// Its name, once it is known; else its URL.
    label: String,
    answer: recover::Answer,
    connection: Option<Connection>,
    /// It hashes only above the revision that the data begin at (etcd 3.4, and 3.5 before 3.5.10), and there were writes since.
    has_moved: bool,
}

impl Asked {
    async fn ask(
        &mut self,
        connector: &etcd_live::Connector,
        endpoint: &Endpoint,
        built: &Built,
    ) -> Result<(), String> {
        let told = |error: LiveError| one_line(&error);
        let connection = connector.connect(endpoint).await.map_err(told)?;
        let answer = &mut self.answer;
        let status = connection.status().await.map_err(told)?;
        answer.member_id = status.header.member_id;
        answer.cluster_id = status.header.cluster_id;
        answer.revision = status.header.revision;
        if let Some((name, _)) = built.member_ids.iter().find(|(_, id)| **id == answer.member_id) {
            self.label.clone_from(name);
        }
        let members = connection.members().await.map_err(told)?.members.into_iter();
        answer.members =
            members.map(|member| (member.id, member.name, member.is_learner)).collect();
        let health = connection.health().await.map_err(told)?;
        answer.alarms = health.alarms.iter().map(ToString::to_string).collect();
        match connection.hash_kv(built.revision).await {
            Ok(hash) => answer.hash = Some(hash.hash),
            Err(error) if error.refusal() == Some(&Refusal::Compacted) => {
                // Its newest revision can be hashed; as long as nothing was written, that is the same.
                let newest = connection.hash_kv(0).await.map_err(told)?;
                answer.revision = newest.header.revision;
                answer.hash = Some(newest.hash);
                self.has_moved = newest.header.revision != built.revision;
            }
            Err(error) => return Err(told(error)),
        }
        answer.healthy = true;
        self.connection = Some(connection);
        Ok(())
    }
}

/// Hashes all members at one revision of the writes since, and takes the first one's for what is expected.
async fn agreement(asked: &mut [Asked]) -> Option<u32> {
    let at = asked.iter().map(|member| member.answer.revision).max()?;
    for member in asked.iter_mut() {
        let Some(connection) = &member.connection else { continue };
        match connection.hash_kv(at).await {
            Ok(hash) => member.answer.hash = Some(hash.hash),
            Err(error) => {
                member.answer.hash = None;
                member.answer.error = Some(one_line(&error));
            }
        }
    }
    asked.iter().find_map(|member| member.answer.hash)
}
