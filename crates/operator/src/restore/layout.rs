//! Where the pods of a StatefulSet have their etcd's data: read from the pod template.
//!
//! | looked at | for |
//! | --- | --- |
//! | `command`, `args`; words of a shell's text too | `--data-dir=DIR`, `--data-dir DIR`, `--wal-dir` |
//! | `env` | `ETCD_DATA_DIR`, `ETCD_WAL_DIR`, and what `$(NAME)` stands for |
//! | `volumeMounts` | the volume that the data directory is on |
//! | `volumeClaimTemplates`, `volumes` | the claim of each pod |
//!
//! What cannot be read with certainty is refused, with the field that says it instead.

use crate::api::StatefulSetTarget;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Container, PodSpec, VolumeMount},
};
use kube::ResourceExt;

/// A StatefulSet, as far as a restore needs to know it.
#[derive(Clone, Debug)]
pub(super) struct Layout<'a> {
    set: &'a StatefulSet,
    /// The pods' template.
    pub(super) pod: &'a PodSpec,
    /// The container that runs etcd.
    pub(super) container: &'a Container,
    data_dir: String,
    mount: &'a VolumeMount,
    claim: Claim,
    first: i32,
}

#[derive(Clone, Debug)]
enum Claim {
    /// Of a template: each pod has its own.
    Template(String),
    /// Of one pod.
    Named(String),
}

impl<'a> Layout<'a> {
    /// Reads a StatefulSet. `replicas` is how many members there shall be.
    ///
    /// # Errors
    /// A sentence that names the field which can mend it.
    pub(super) fn read(
        set: &'a StatefulSet,
        target: &StatefulSetTarget,
        replicas: i32,
    ) -> Result<Self, String> {
        let spec = set.spec.as_ref().ok_or("the StatefulSet has no spec")?;
        let pod = spec.template.spec.as_ref().ok_or("the StatefulSet has no pod template")?;
        let container = container(pod, target.container.as_deref())?;
        let data_dir = data_dir(container, target.data_dir.as_deref())?;
        if let Some(wal) = setting(container, "wal-dir", "ETCD_WAL_DIR")
            && !wal.starts_with(&format!("{data_dir}/member"))
        {
            return Err(format!(
                "etcd has its WAL apart from its data ({wal}), which is not restored in place; restore to spec.target.pvc instead"
            ));
        }
        let mount = mount(container, &data_dir)?;
        let claim = claim(set, pod, &mount.name, replicas)?;
        let first = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        Ok(Self { set, pod, container, data_dir, mount, claim, first })
    }

    /// The name of a pod.
    pub(super) fn pod_name(&self, index: i32) -> String {
        format!("{}-{}", self.set.name_any(), self.first.saturating_add(index))
    }

    /// The claim of a pod.
    pub(super) fn claim(&self, index: i32) -> String {
        match &self.claim {
            Claim::Template(template) => format!("{template}-{}", self.pod_name(index)),
            Claim::Named(name) => name.clone(),
        }
    }

    /// etcd's data directory in a pod.
    pub(super) fn data_dir(&self, index: i32) -> String {
        self.expand(&self.data_dir, index)
    }

    /// What etcd in a pod calls itself, where the template says so with certainty.
    pub(super) fn member_name(&self, index: i32) -> Option<String> {
        let name = self.expand(&own_name(self.container)?, index);
        let is_plain = !name.is_empty() && !name.contains(['$', '`', '"', '\'', '{', '(', '*']);
        is_plain.then_some(name)
    }

    /// How the volume is mounted in a pod.
    pub(super) fn mount(&self, index: i32) -> VolumeMount {
        let mut mount = self.mount.clone();
        if let Some(path) = mount.sub_path_expr.take() {
            mount.sub_path = Some(self.expand(&path, index));
        }
        mount.read_only = None;
        mount
    }

    /// Puts in what stands for a pod's name.
    fn expand(&self, text: &str, index: i32) -> String {
        let pod = self.pod_name(index);
        let mut text = text.to_owned();
        for name in names_of_pod(self.container) {
            for form in [format!("$({name})"), format!("${{{name}}}"), format!("${name}")] {
                text = text.replace(&form, &pod);
            }
        }
        text
    }
}

/// Variables that hold the pod's name, longest first, as one may begin with another; and the shell's own.
fn names_of_pod(container: &Container) -> Vec<String> {
    let variables = container.env.iter().flatten();
    let of_pod = variables.filter(|variable| {
        let source = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        source.is_some_and(|field| field.field_path == "metadata.name")
    });
    let mut names: Vec<String> = of_pod.map(|variable| variable.name.clone()).collect();
    names.extend(["POD_NAME", "HOSTNAME", "hostname"].map(str::to_owned));
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    names.dedup();
    names
}

fn container<'a>(pod: &'a PodSpec, wanted: Option<&str>) -> Result<&'a Container, String> {
    let names = || pod.containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    let named = |name: &str| pod.containers.iter().find(|container| container.name == name);
    match (wanted, pod.containers.as_slice()) {
        (Some(name), _) => named(name).ok_or_else(|| {
            format!("spec.target.statefulSet.container is {name:?}, but the pods have: {}", names())
        }),
        (None, [only]) => Ok(only),
        (None, _) => named("etcd").ok_or_else(|| {
            format!(
                "say in spec.target.statefulSet.container which of these runs etcd: {}",
                names()
            )
        }),
    }
}

fn data_dir(container: &Container, wanted: Option<&str>) -> Result<String, String> {
    const FIELD: &str =
        "say in spec.target.statefulSet.dataDir what etcd's --data-dir is in its container";
    let found = wanted.map(str::to_owned);
    let found = found.or_else(|| setting(container, "data-dir", "ETCD_DATA_DIR"));
    let found = found
        .ok_or_else(|| format!("nothing in the pod template names a data directory; {FIELD}"))?;
    let mut rest = found.clone();
    for name in names_of_pod(container) {
        for form in [format!("$({name})"), format!("${{{name}}}"), format!("${name}")] {
            rest = rest.replace(&form, "");
        }
    }
    if rest.contains(['$', '`', '"', '\'', '*', ';', '&', '|']) {
        return Err(format!("the data directory {found:?} is not understood; {FIELD}"));
    }
    if !found.starts_with('/') {
        return Err(format!(
            "the data directory {found:?} depends on where etcd is started; {FIELD}, from / on"
        ));
    }
    Ok(found.trim_end_matches('/').to_owned())
}

/// What etcd is told its name is, once, and not by a file, which would count for more.
fn own_name(container: &Container) -> Option<String> {
    let words = words(container);
    let is_flag = |name: &str| {
        words.iter().filter(|word| *word == name || word.starts_with(&format!("{name}="))).count()
    };
    let of_file = container.env.iter().flatten().any(|set| set.name == "ETCD_CONFIG_FILE");
    // `-name` may be another program's in a shell's text.
    if of_file || is_flag("--config-file") > 0 || is_flag("-name") > 0 || is_flag("--name") > 1 {
        return None;
    }
    let of_pod = names_of_pod(container).iter().any(|name| name == "ETCD_NAME");
    setting(container, "name", "ETCD_NAME").or_else(|| of_pod.then(|| "$(ETCD_NAME)".to_owned()))
}

/// The words of a container's command, those of a shell's text too.
fn words(container: &Container) -> Vec<String> {
    let arguments = container.command.iter().chain(&container.args).flatten();
    arguments
        .flat_map(|argument| match argument.contains(char::is_whitespace) {
            // What a shell is given.
            true => argument.split_whitespace().map(unquoted).collect::<Vec<_>>(),
            false => vec![argument.clone()],
        })
        .collect()
}

/// What etcd is told by that flag, or by that variable.
fn setting(container: &Container, flag: &str, variable: &str) -> Option<String> {
    let words = words(container);
    let of_flag = words.iter().enumerate().find_map(|(at, word)| {
        let rest =
            word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?.strip_prefix(flag)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(unquoted(value)),
            None if rest.is_empty() => words.get(at + 1).cloned(),
            None => None,
        }
    });
    let set =
        |name: &str| container.env.iter().flatten().find(|set| set.name == name)?.value.clone();
    let found = of_flag.or_else(|| set(variable))?;
    // A variable that is set to plain text.
    let named = found.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')')).map(str::to_owned);
    named.and_then(|name| set(&name)).or(Some(found))
}

fn unquoted(word: &str) -> String {
    word.trim_matches(['"', '\'', ';', '\\']).to_owned()
}

fn mount<'a>(container: &'a Container, data_dir: &str) -> Result<&'a VolumeMount, String> {
    let covers = |mount: &&VolumeMount| {
        let path = mount.mount_path.trim_end_matches('/');
        data_dir == path || data_dir.starts_with(&format!("{path}/"))
    };
    let mounts = container.volume_mounts.iter().flatten().filter(covers);
    mounts.max_by_key(|mount| mount.mount_path.len()).ok_or_else(|| {
        format!(
            "no volume is mounted at the data directory {data_dir}; correct spec.target.statefulSet.dataDir, or give the pods a volume"
        )
    })
}

fn claim(set: &StatefulSet, pod: &PodSpec, volume: &str, replicas: i32) -> Result<Claim, String> {
    let spec = set.spec.as_ref();
    let mut templates = spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    if templates.any(|template| template.name_any() == volume) {
        return Ok(Claim::Template(volume.to_owned()));
    }
    let mut volumes = pod.volumes.iter().flatten();
    let of_claim = volumes
        .find(|found| found.name == volume)
        .and_then(|found| found.persistent_volume_claim.as_ref());
    match of_claim {
        Some(claim) if replicas == 1 => Ok(Claim::Named(claim.claim_name.clone())),
        Some(_) => {
            Err(format!("all pods share the volume {volume:?}; a member needs one of its own"))
        }
        None => Err(format!(
            "the data are on volume {volume:?}, which is of no PersistentVolumeClaim: it would be gone before it was restored"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::samples;
    use serde_json::{Value, json};

    fn read(container: Value) -> Result<(String, String), String> {
        let mut set = samples::set();
        let containers = &mut set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers;
        containers[0] = serde_json::from_value(container).unwrap();
        let target = samples::target();
        let layout = Layout::read(&set, &target, 3)?;
        Ok((layout.data_dir(1), layout.claim(1)))
    }

    fn with(more: Value) -> Value {
        let mut container = json!({
            "name": "etcd", "volumeMounts": [
                { "name": "config", "mountPath": "/etc/etcd" }, { "name": "data", "mountPath": "/data/" },
            ],
        });
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container
    }

    #[test]
    fn the_data_directory_is_found_wherever_a_template_may_have_it() {
        let claim = "data-etcd-1".to_owned();
        for (more, expected) in [
            (json!({"command": ["etcd", "--data-dir=/data/etcd"]}), "/data/etcd"),
            (json!({"command": ["etcd"], "args": ["--data-dir", "/data/etcd/"]}), "/data/etcd"),
            (json!({"env": [{"name": "ETCD_DATA_DIR", "value": "/data"}]}), "/data"),
            (
                json!({"command": ["sh", "-c", "exec etcd --name=$HOSTNAME --data-dir=\"/data/default.etcd\" --x"]}),
                "/data/default.etcd",
            ),
            (
                json!({"args": ["sh", "-ec", "etcd --data-dir /data/${HOSTNAME} \\\n --y"]}),
                "/data/etcd-1",
            ),
            (json!({"args": ["--data-dir=/data/$(POD_NAME)"]}), "/data/etcd-1"),
            (
                json!({"args": ["--data-dir=$(DIR)"], "env": [{"name": "DIR", "value": "/data/x"}]}),
                "/data/x",
            ),
            (
                json!({"args": ["--data-dir=/data/$(ME)"],
                    "env": [{"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
                "/data/etcd-1",
            ),
        ] {
            assert_eq!(read(with(more)).unwrap(), (expected.to_owned(), claim.clone()));
        }
    }

    #[test]
    fn what_etcd_calls_itself_is_known_where_the_template_says_it_plainly() {
        for (more, expected) in [
            (json!({"args": ["--name=$(POD_NAME)"]}), Some("etcd-1")),
            (json!({"command": ["sh", "-c", "exec etcd --name ${HOSTNAME} --x"]}), Some("etcd-1")),
            (json!({"args": ["--name=a"]}), Some("a")),
            (json!({"env": [{"name": "ETCD_NAME", "value": "b"}]}), Some("b")),
            (
                json!({"env": [{"name": "ETCD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
                Some("etcd-1"),
            ),
            (json!({}), None),
            (json!({"args": ["--name=$(WHO)"]}), None),
            (json!({"args": ["--name=a", "--config-file=/etc/etcd.yaml"]}), None),
            (json!({"command": ["sh", "-c", "find / -name x; exec etcd --name y"]}), None),
            (json!({"command": ["sh", "-c", "etcd --name m${HOSTNAME##*-}"]}), None),
        ] {
            let mut set = samples::set();
            let mut container = with(more.clone());
            container["volumeMounts"][1]["mountPath"] = json!("/data");
            let spec = set.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
            spec.containers[0] = serde_json::from_value(container).unwrap();
            let mut target = samples::target();
            target.data_dir = Some("/data".to_owned());
            let layout = Layout::read(&set, &target, 3).unwrap();
            assert_eq!(layout.member_name(1).as_deref(), expected, "{more}");
        }
    }

    #[test]
    fn what_is_not_certain_is_refused_with_the_field_that_says_it() {
        for (more, field) in [
            (json!({"command": ["etcd"]}), "spec.target.statefulSet.dataDir"),
            (json!({"command": ["etcd", "--data-dir=data"]}), "spec.target.statefulSet.dataDir"),
            (json!({"args": ["--data-dir=/data/$(cat where)"]}), "spec.target.statefulSet.dataDir"),
            (json!({"args": ["--data-dir=/elsewhere"]}), "spec.target.statefulSet.dataDir"),
            (json!({"args": ["--data-dir=/data", "--wal-dir=/wal"]}), "spec.target.pvc"),
            (json!({"args": ["--data-dir=/etc/etcd"]}), "PersistentVolumeClaim"),
        ] {
            let refused = read(with(more)).unwrap_err();
            assert!(refused.contains(field), "{refused}");
        }
    }

    #[test]
    fn of_several_containers_the_one_with_etcd_is_meant() {
        let mut set = samples::set();
        let pod = set.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        pod.containers.push(Container { name: "exporter".to_owned(), ..Container::default() });
        let mut target = samples::target();
        assert_eq!(Layout::read(&set, &target, 3).unwrap().container.name, "etcd");
        target.container = Some("web".to_owned());
        let refused = Layout::read(&set, &target, 3).unwrap_err();
        assert!(refused.contains("spec.target.statefulSet.container"), "{refused}");
    }
}
