//! The definitions of our kinds, as an API server takes them.
//!
//! ```text
//!   api/*.rs ──derive──▶ what kube makes of it ──tidy──▶ structural schema ──▶ lifeboat crds, the chart, docs/
//! ```
//!
//! What is printed is valid from Kubernetes 1.20 on. Rules in CEL, which 1.25 brought, are added only when asked for:
//! older servers refuse them, or drop them and say nothing. Without them the operator itself watches over what they say.
//!
//! Each definition has a number in the annotation [`SCHEMA_ANNOTATION`]. An operator that finds a smaller one, or none,
//! asks for an update instead of losing fields that the API server would prune ([`check`]).

mod lacks;
mod reference;
mod tidy;

use crate::api::{BackupStore, EtcdBackup, EtcdBackupSchedule, EtcdRestore, coreos::CoreosBackup};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, ResourceExt};
use serde_json::{Value, json};

pub use reference::page as reference_page;

/// The annotation of a definition that says how new it is.
pub const SCHEMA_ANNOTATION: &str = "lifeboat.dev/schema";

/// How new the definitions of this program are: goes up whenever a field is added that the operator needs.
pub const SCHEMA: u32 = 1;

/// What is said first, wherever the definitions are kept as a file.
const HEADER: &str = "# Lifeboat's kinds, as `lifeboat crds` prints them. The doc comments of crates/operator/src/api are their source.\n";

/// Which rules the definitions have besides their schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// None: for every Kubernetes since 1.20.
    Structural,
    /// That the spec of an EtcdBackup and the target of an EtcdRestore stay as they were, in CEL: since 1.25.
    Cel,
}

/// Why the definitions of a server do not fit this program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrdProblem {
    /// There is none.
    #[error("the API server does not know the kind {0}")]
    Missing(String),
    /// It is older than this program.
    #[error("the definition {name} {}, and this operator needs {SCHEMA}", schema_of(*found))]
    Older {
        /// Its name.
        name: String,
        /// Its number; 0 if it has none.
        found: u32,
    },
    /// A field is not in it, whatever its number says.
    #[error("the definition {name} lacks the field {field}")]
    Lacks {
        /// Its name.
        name: String,
        /// Which.
        field: String,
    },
}

fn schema_of(found: u32) -> String {
    match found {
        0 => format!("has no annotation {SCHEMA_ANNOTATION}"),
        found => format!("has schema {found}"),
    }
}

impl CrdProblem {
    /// What to do.
    pub fn remedy(&self) -> &'static str {
        let (Self::Missing(name) | Self::Older { name, .. } | Self::Lacks { name, .. }) = self;
        match name == coreos_name() {
            true => {
                "apply the definitions of this version: lifeboat crds --coreos-compat | kubectl apply --server-side --force-conflicts -f -"
            }
            false => {
                "apply the definitions of this version: lifeboat crds | kubectl apply --server-side --force-conflicts -f -"
            }
        }
    }
}

/// The names of the definitions, as `kubectl get crd` lists them.
pub fn names() -> [&'static str; 4] {
    [
        BackupStore::crd_name(),
        EtcdBackup::crd_name(),
        EtcdBackupSchedule::crd_name(),
        EtcdRestore::crd_name(),
    ]
}

/// The name of the definition that is followed beside them, for who comes from the CoreOS operator.
pub fn coreos_name() -> &'static str {
    CoreosBackup::crd_name()
}

/// Whether the definition that a server has under one of these names is new enough. Newer ones are: fields are added,
/// never removed.
pub fn check(name: &str, found: Option<&CustomResourceDefinition>) -> Result<(), CrdProblem> {
    let definition = found.ok_or_else(|| CrdProblem::Missing(name.to_owned()))?;
    let number = definition.annotations().get(SCHEMA_ANNOTATION);
    let found = number.and_then(|number| number.parse().ok()).unwrap_or(0);
    if found < SCHEMA {
        return Err(CrdProblem::Older { name: name.to_owned(), found });
    }
    let ours = match name == coreos_name() {
        true => Some(coreos_definition()),
        false => {
            let mut all = definitions(Rules::Structural).into_iter();
            all.find(|ours| ours["metadata"]["name"] == name)
        }
    };
    let theirs = serde_json::to_value(definition).expect("a definition can be written as JSON");
    match ours.and_then(|ours| lacks::first(&ours, &theirs)) {
        Some(field) => Err(CrdProblem::Lacks { name: name.to_owned(), field }),
        None => Ok(()),
    }
}

/// The definitions, in the order of [`names`].
pub fn definitions(rules: Rules) -> Vec<Value> {
    let derived =
        [BackupStore::crd(), EtcdBackup::crd(), EtcdBackupSchedule::crd(), EtcdRestore::crd()];
    derived.iter().map(|derived| definition(derived, rules)).collect()
}

/// The definitions as YAML, ready for `kubectl apply --server-side -f -`.
pub fn yaml(rules: Rules) -> String {
    let mut text = HEADER.to_owned();
    for definition in definitions(rules) {
        text += &document(&definition);
    }
    text
}

/// The definition of the CoreOS operator's `EtcdBackup`.
pub fn coreos_definition() -> Value {
    let mut made = definition(&CoreosBackup::crd(), Rules::Structural);
    // That operator's definition kept whatever was written, which holds until it is taken back.
    made["spec"]["preserveUnknownFields"] = json!(false);
    // It wrote null for a time that there is not, 1.20 does for an empty reason; an object with a field that is refused gets no status.
    let schema = &mut made["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for time in ["lastSuccessDate", "lastExecutionDate", "Reason"] {
        schema["properties"]["status"]["properties"][time]["nullable"] = json!(true);
    }
    // Kubernetes 1.20 takes an empty default that is applied for none, and refuses that.
    let reason = &mut schema["properties"]["status"]["properties"]["Reason"];
    reason.as_object_mut().map(|reason| reason.remove("default"));
    made
}

/// The same as YAML, to be put behind that of the others, or applied alone.
pub fn coreos_yaml() -> String {
    document(&coreos_definition())
}

fn document(definition: &Value) -> String {
    "---\n".to_owned() + &serde_saphyr::to_string(definition).expect("JSON can be written as YAML")
}

fn definition(derived: &CustomResourceDefinition, rules: Rules) -> Value {
    let mut made = serde_json::to_value(derived).expect("a definition can be written as JSON");
    made["metadata"]["annotations"] = json!({ SCHEMA_ANNOTATION: SCHEMA.to_string() });
    made["metadata"]["labels"] = json!({ "app.kubernetes.io/name": "lifeboat" });
    let schema = &mut made["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    tidy::tidy(schema);
    let spec = &mut schema["properties"]["spec"];
    match (rules, derived.spec.names.kind.as_str()) {
        (Rules::Cel, "EtcdBackup") => {
            stays(spec, "a backup's spec cannot be changed: make another EtcdBackup");
        }
        (Rules::Cel, "EtcdRestore") => {
            let target = &mut spec["properties"]["target"];
            stays(target, "a restore's target cannot be changed: make another EtcdRestore");
        }
        _ => {}
    }
    made
}

/// Adds the rule that a part stays as it was.
fn stays(part: &mut Value, message: &str) {
    part["x-kubernetes-validations"] = json!([{ "rule": "self == oldSelf", "message": message }]);
}

#[cfg(test)]
mod tests;
