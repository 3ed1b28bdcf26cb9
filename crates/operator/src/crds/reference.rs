//! The reference page, made of the definitions: what it says is what `kubectl explain` says.

use super::{Rules, coreos_definition, definitions};
use serde_json::Value;
use std::fmt::Write;

const ABOUT: &str = "# Kubernetes: reference of the kinds

`lifeboat.dev/v1alpha1`. All are namespaced, and name only what is in their own namespace: Secrets, stores, claims. How to begin:
[kubernetes.md](kubernetes.md). `kubectl get lifeboat` lists all of them. At the end: the [EtcdBackup](#etcdbackup-of-the-coreos-operator) that
the CoreOS etcd-operator had.

This page is made of the doc comments in `crates/operator/src/api`: to change it, change them and run that crate's tests with
`UPDATE_DOCS=1`.
";

/// A part of several kinds, which has a section of its own.
struct Shared {
    /// The field that is of it.
    field: &'static str,
    title: &'static str,
    about: &'static str,
}

const SHARED: [Shared; 3] = [
    Shared {
        field: "cluster",
        title: "Cluster",
        about: "An etcd cluster: what it is called, and how its members are reached.",
    },
    Shared {
        field: "job",
        title: "Job options",
        about: "How the pods run that do the work near a cluster.",
    },
    Shared {
        field: "retention",
        title: "Retention",
        about: "Which backups of a cluster are kept. What one rule keeps is kept; without any rule, all are.",
    },
];

/// Fields of Kubernetes' own types.
const FOREIGN: [(&str, &str); 3] = [
    ("conditions", "list of conditions"),
    ("resources", "as in a container"),
    ("tolerations", "list, as in a pod"),
];

/// The whole page.
pub fn page() -> String {
    let mut page = Page { text: ABOUT.to_owned(), shared: Vec::new() };
    for definition in definitions(Rules::Structural) {
        page.kind(&definition);
    }
    let shared = std::mem::take(&mut page.shared);
    for part in SHARED {
        let (_, schema) = shared
            .iter()
            .find(|(name, _)| name == part.field)
            .expect("a kind has a field of every part that is shared");
        page.section("##", part.title, part.about, schema);
    }
    page.coreos(&coreos_definition());
    page.text
}

struct Page {
    text: String,
    /// The parts of several kinds, as they were met.
    shared: Vec<(String, Value)>,
}

impl Page {
    fn kind(&mut self, definition: &Value) {
        let names = &definition["spec"]["names"];
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let (kind, about) = (text(&names["kind"]), text(&schema["description"]));
        let (plural, short) = (text(&names["plural"]), text(&names["shortNames"][0]));
        self.put(&format!("\n## {kind}\n\n{about} `kubectl get {plural}`, or `{short}`.\n"));
        for part in ["spec", "status"] {
            self.section("###", &format!("{kind} {part}"), "", &schema["properties"][part]);
        }
    }

    /// The kind that has the name of one of ours.
    fn coreos(&mut self, definition: &Value) {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let (about, name) = (text(&schema["description"]), text(&definition["metadata"]["name"]));
        self.put(&format!(
            "\n## EtcdBackup of the CoreOS operator\n\n`etcd.database.coreos.com/v1beta2`. {about} `kubectl get {name}`.\n"
        ));
        for (part, title) in [("spec", "its spec"), ("status", "its status")] {
            self.section(
                "###",
                &format!("EtcdBackup of the CoreOS operator: {title}"),
                "",
                &schema["properties"][part],
            );
        }
    }

    /// A heading, and a table of the fields below `schema`.
    fn section(&mut self, depth: &str, title: &str, about: &str, schema: &Value) {
        self.put(&format!("\n{depth} {title}\n\n"));
        let rule = exactly_one(schema).unwrap_or_default();
        let about = format!("{about} {rule}");
        if !about.trim().is_empty() {
            self.put(&format!("{}\n\n", about.trim()));
        }
        self.put("| field | type | |\n| --- | --- | --- |\n");
        self.rows("", schema);
    }

    fn rows(&mut self, above: &str, schema: &Value) {
        let required = |name: &str| contains(&schema["required"], name);
        let properties = schema["properties"].as_object().into_iter().flatten();
        let mut properties: Vec<_> = properties.collect();
        properties.sort_by_key(|(name, _)| (!required(name), name.as_str()));
        for (name, property) in properties {
            let path = format!("{above}{name}");
            let mut about = text(&property["description"]).to_owned();
            if let Some(rule) = exactly_one(property).filter(|_| shared(name, property).is_none()) {
                write!(about, " {rule}").expect("a string takes what is written");
            }
            let mut kind = kind_of(name, property);
            if required(name) {
                kind += ", **required**";
            } else if let Some(default) = property.get("default") {
                write!(kind, ", default `{}`", plain(default)).expect("a string takes it");
            }
            self.put(&format!("| `{path}` | {kind} | {} |\n", escaped(&about)));
            self.below(&path, name, property);
        }
    }

    /// The fields of a field, unless they stand elsewhere.
    fn below(&mut self, path: &str, name: &str, property: &Value) {
        let ends = FOREIGN.iter().any(|(foreign, _)| *foreign == name);
        if shared(name, property).is_some() {
            self.shared.push((name.to_owned(), property.clone()));
        } else if property["properties"]["storeName"].is_object() && path != "spec" {
            // The spec in a schedule's template.
        } else if !ends {
            self.rows(&format!("{path}."), property);
            self.rows(&format!("{path}[]."), &property["items"]);
        }
    }

    fn put(&mut self, text: &str) {
        self.text += text;
    }
}

/// The part that a field is of, if it is shared. A cluster's name alone may be in a field of that name too.
fn shared(name: &str, schema: &Value) -> Option<&'static Shared> {
    SHARED.iter().find(|part| part.field == name && schema["type"] == "object")
}

fn kind_of(name: &str, schema: &Value) -> String {
    if let Some((_, kind)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
        return (*kind).to_owned();
    }
    if let Some(Shared { title, .. }) = shared(name, schema) {
        return format!("[{title}](#{})", title.to_lowercase().replace(' ', "-"));
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().map(|value| format!("`{}`", plain(value))).collect();
        return values.join(", ");
    }
    match text(&schema["type"]) {
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        "string" => "text".to_owned(),
        "integer" => format!("number{}", range(schema)),
        "boolean" => "`true` or `false`".to_owned(),
        "array" if schema["items"]["type"] == "string" => "list of texts".to_owned(),
        "array" => "list".to_owned(),
        _ if schema["additionalProperties"].is_object() => "names and texts".to_owned(),
        _ if schema["properties"]["storeName"].is_object() => {
            "[spec of an EtcdBackup](#etcdbackup-spec)".to_owned()
        }
        _ => "object".to_owned(),
    }
}

fn range(schema: &Value) -> String {
    match (&schema["minimum"], &schema["maximum"]) {
        (Value::Null, _) => String::new(),
        (from, Value::Null) if *from == 0 => String::new(),
        (from, Value::Null) => format!(", at least {from}"),
        (from, to) => format!(", {from} to {to}"),
    }
}

/// The rule of a schema of which exactly one field is given.
fn exactly_one(schema: &Value) -> Option<String> {
    let fields: Vec<_> = schema["oneOf"]
        .as_array()?
        .iter()
        .map(|choice| format!("`{}`", text(&choice["required"][0])))
        .collect();
    let (last, others) = fields.split_last()?;
    Some(format!("Exactly one of {} and {last} is given.", others.join(", ")))
}

fn contains(list: &Value, name: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|entry| entry == name))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}
