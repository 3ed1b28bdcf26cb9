"""What must hold of all that installs the operator, whether kustomize or Helm rendered it:

* the operator's container is confined, and starts pods of its own image;
* bindings name the ServiceAccount that there is, in its namespace;
* no right is a wildcard, and where one namespace is watched there is none outside of it;
* the rights that the chart gives are those of the base, in every mode;
* values that the chart does not know, or that are no values, are refused by name;
* every metric that a rule or a panel asks for is one that the operator exports, promtool takes the rules, and they fire when they should.

Run by tools/operator-install-check.sh with the folder of what kustomize rendered; PYTHONPATH has Helm's engine.
"""
import json
import os
import pathlib
import re
import subprocess
import sys

import helm_python as helm
import yaml

CHART = "charts/lifeboat"
failures = []


def check(good, what):
    print(("ok: " if good else "FAILED: ") + what)
    if not good:
        failures.append(what)


class Rendered:
    """Objects, as they would be applied."""

    def __init__(self, name, texts):
        self.name = name
        self.objects = [one for text in texts for one in yaml.safe_load_all(text) if one]

    def of(self, *kinds):
        return [one for one in self.objects if one["kind"] in kinds]

    def rules(self):
        """Every right, one a line, that any role of the operator gives."""
        found = set()
        for role in self.of("Role", "ClusterRole"):
            if "aggregat" in str(role["metadata"].get("labels")):
                continue  # those of people
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            found.add((group, resource, verb, str(rule.get("resourceNames", ""))))
        return found

    def check(self, namespace, image):
        (deployment,) = self.of("Deployment")
        check(deployment["metadata"]["namespace"] == namespace, f"{self.name}: the operator is in {namespace}")
        self.check_pod(deployment["spec"]["template"], image)
        self.check_accounts(deployment, namespace)
        self.check_selectors(deployment)
        words = [word for role in self.of("Role", "ClusterRole") for rule in role["rules"] for word in sum(map(list, rule.values()), [])]
        check("*" not in words, f"{self.name}: no right is a wildcard")
        names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in self.objects]
        check(len(names) == len(set(names)), f"{self.name}: every object is there once")

    def check_pod(self, template, image):
        pod = template["spec"]
        (container,) = pod["containers"]
        confined = container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        check(confined and pod["securityContext"]["runAsNonRoot"] is True, f"{self.name}: the container is confined")
        check(pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, f"{self.name}: seccomp")
        env = {variable["name"]: variable.get("value") for variable in container["env"]}
        check(container["image"] == env["LIFEBOAT_IMAGE"] == image, f"{self.name}: it starts pods of its own image, {image}")
        spool = [volume for volume in pod["volumes"] if volume["name"] == "spool"][0]
        check("sizeLimit" in spool.get("emptyDir", {"sizeLimit": 0}), f"{self.name}: the spool is bounded")
        check(env["LIFEBOAT_SPOOL_DIR"] in [mount["mountPath"] for mount in container["volumeMounts"]], f"{self.name}: and mounted")
        probes = {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
        check(probes == {"/healthz", "/readyz"}, f"{self.name}: both probes")

    def check_accounts(self, deployment, namespace):
        account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
        roles = {(role["kind"], role["metadata"]["name"]) for role in self.of("Role", "ClusterRole")}
        bindings = self.of("RoleBinding", "ClusterRoleBinding")
        bound = all(
            binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]
            and (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in roles
            for binding in bindings
        )
        check(bindings and bound, f"{self.name}: roles that are there are bound to the operator's account")

    def check_selectors(self, deployment):
        labels = deployment["spec"]["template"]["metadata"]["labels"].items()
        (service,) = self.of("Service")
        selectors = [service["spec"]["selector"], deployment["spec"]["selector"]["matchLabels"]]
        selectors += [policy["spec"]["podSelector"]["matchLabels"] for policy in self.of("NetworkPolicy")]
        check(all(selector.items() <= labels for selector in selectors), f"{self.name}: selectors select the operator")

    def check_inside(self, namespace):
        """Nothing of the cluster's, and nothing in another namespace."""
        outside = [one["kind"] for one in self.objects if one["metadata"].get("namespace") != namespace]
        check(not outside, f"{self.name}: nothing outside of {namespace} {outside or ''}")


def of_chart(name, values=None, namespace="backup", release="lifeboat"):
    with helm.Chart.load(CHART) as chart:
        rendered = chart.render(values=values or {}, name=release, namespace=namespace)
    texts = [text for path, text in sorted(rendered.items()) if path.endswith(".yaml")]
    return Rendered(f"chart, {name}", texts)


def check_kustomize(folder):
    everywhere = Rendered("base", [(folder / "all.yaml").read_text()])
    everywhere.check("lifeboat", "lifeboat:latest")
    one = Rendered("namespaced", [(folder / "namespaced.yaml").read_text()])
    one.check("etcd", "lifeboat:latest")
    one.check_inside("etcd")
    kinds = {rule for rule in everywhere.rules() if rule[1] == "customresourcedefinitions"}
    check(len(kinds) == 1, "base: definitions are read by name")
    check(one.rules() == everywhere.rules() - kinds, "namespaced: the same rights, but that to read definitions")
    return everywhere


COREOS = "etcdbackups.etcd.database.coreos.com"


def check_coreos(base, folder):
    """What is added for who comes from the CoreOS operator: the same by kustomize and by the chart, and only where it is asked for."""
    added = {
        ("etcd.database.coreos.com", "etcdbackups", verb, "") for verb in ("get", "list", "watch", "patch")
    } | {("etcd.database.coreos.com", "etcdbackups/status", "patch", "")}
    everywhere = Rendered("coreos-compat", [(folder / "coreos.yaml").read_text()])
    everywhere.check("lifeboat", "lifeboat:latest")
    chart = of_chart("coreosCompat", {"coreosCompat": True})
    chart.check("backup", "lifeboat:0.1.0")
    for one in (everywhere, chart):
        kinds = [rule for rule in one.rules() if rule[1] == "customresourcedefinitions"]
        check(len(kinds) == 1 and COREOS in kinds[0][3], f"{one.name}: its definition may be read too")
        others = {rule for rule in base.rules() if rule[1] != "customresourcedefinitions"}
        check(one.rules() - set(kinds) == others | added, f"{one.name}: five rights more, and no other")
        names = [definition["metadata"]["name"] for definition in one.of("CustomResourceDefinition")]
        check(len(names) == 5 and COREOS in names, f"{one.name}: and its definition is there")
        people = [role for role in one.of("ClusterRole") if "aggregate" in str(role["metadata"].get("labels"))]
        both = all("etcd.database.coreos.com" in str(role["rules"]) for role in people)
        check(len(people) == 2 and both, f"{one.name}: who may view or edit a namespace may do so with these objects")
    own = Rendered("coreos-compat, namespaced", [(folder / "namespaced-coreos.yaml").read_text()])
    own.check("etcd", "lifeboat:latest")
    own.check_inside("etcd")
    check(added <= own.rules(), "coreos-compat, namespaced: the same rights")
    for one in (everywhere, own, chart):
        (deployment,) = one.of("Deployment")
        words = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        check("--coreos-compat" in words, f"{one.name}: the operator is told so")
    plain = of_chart("plain", {})
    check(not any("coreos" in str(one) for one in base.objects + plain.objects), "nothing of it is there unless it is asked for")


def check_chart(base):
    for message in helm.lint(CHART, strict=True)["messages"]:
        check(message["severity"] < 2 or "icon" in message["error"], f"helm lint: {message['error']}")
    plain = of_chart("plain")
    plain.check("backup", "lifeboat:0.1.0")
    check(plain.rules() == base.rules(), "chart, plain: the rights of the base")
    definitions = plain.of("CustomResourceDefinition")
    kept = all(one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for one in definitions)
    check(len(definitions) == 4 and kept, "chart, plain: four kinds, which uninstall keeps")
    for one in definitions:
        del one["metadata"]["annotations"]["helm.sh/resource-policy"]
        one["metadata"]["labels"] = {"app.kubernetes.io/name": "lifeboat"}
    printed = list(yaml.safe_load_all(pathlib.Path("deploy/operator/base/crds.yaml").read_text()))
    check(definitions == printed, "chart, plain: and they are what lifeboat crds prints")
    for kind in ("PrometheusRule", "ServiceMonitor"):
        check(not plain.of(kind), f"chart, plain: no {kind}, whose kind may not be there")

    one = of_chart("namespaced", {"namespaced": True, "crds": {"install": False}})
    one.check("backup", "lifeboat:0.1.0")
    one.check_inside("backup")
    (deployment,) = one.of("Deployment")
    words = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    check("--all-namespaces" not in words, "chart, namespaced: it watches its own")

    some = of_chart("some namespaces", {"watchNamespaces": ["a", "b"]})
    some.check("backup", "lifeboat:0.1.0")
    where = {binding["metadata"]["namespace"] for binding in some.of("RoleBinding")}
    check(where == {"a", "b", "backup"}, "chart, some namespaces: bound in each, and for the Lease at home")
    cluster = [binding["roleRef"]["name"] for binding in some.of("ClusterRoleBinding")]
    check(len(cluster) == 1 and cluster[0].endswith("-kinds"), "chart, some namespaces: but nowhere else")
    (deployment,) = some.of("Deployment")
    words = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    check("--namespace=a,b" in words, "chart, some namespaces: and told so")

    full = of_chart("all at once", {
        "image": {"repository": "example.com/lifeboat", "tag": "1.2", "pullSecrets": ["pull"]},
        "replicas": 2, "parallelBackups": 8, "logLevel": "debug", "spool": {"sizeLimit": "50Gi"},
        "serviceAccount": {"annotations": {"example.com/role": "backup"}},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True}, "dashboard": {"enabled": True},
        "nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    }, release="other")
    full.check("backup", "example.com/lifeboat:1.2")
    check(len(full.of("PrometheusRule", "ServiceMonitor")) == 2, "chart, all at once: rules and monitor")
    (lease,) = [role for role in full.of("Role") if role["metadata"]["name"].endswith("lease")]
    (deployment,) = full.of("Deployment")
    words = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    name = lease["rules"][1]["resourceNames"][0]
    check(f"--lease={name}" in words, f"chart, all at once: the Lease is {name}")
    digest = of_chart("digest", {"image": {"digest": "sha256:" + "0" * 64}})
    digest.check("backup", "lifeboat@sha256:" + "0" * 64)


def check_monitoring(folder):
    values = {"prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}
    rendered = of_chart("monitoring", values)
    (rules,) = rendered.of("PrometheusRule")
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules["spec"]))
    promtool = subprocess.run([os.environ["LIFEBOAT_PROMTOOL"], "check", "rules", folder / "rules.yaml"], capture_output=True, text=True)
    check(promtool.returncode == 0, f"promtool takes the rules {promtool.stderr}")
    (folder / "test.yaml").write_text(pathlib.Path("deploy/prometheus/operator.rules.test.yaml").read_text())
    tested = subprocess.run([os.environ["LIFEBOAT_PROMTOOL"], "test", "rules", folder / "test.yaml"], capture_output=True, text=True)
    check(tested.returncode == 0, f"the alerts fire when they should {tested.stdout if tested.returncode else ''}")
    (dashboard,) = [one for one in rendered.of("ConfigMap") if "lifeboat-operator.json" in one["data"]]
    panels = json.loads(dashboard["data"]["lifeboat-operator.json"])
    check(len({panel["id"] for panel in panels["panels"]}) == len(panels["panels"]), "every panel has an id of its own")
    source = pathlib.Path("crates/operator/src/metrics.rs").read_text()
    for name in sorted(set(re.findall(r"\blifeboat_([a-z0-9_]+)", str(rules["spec"]) + str(panels)))):
        plain = re.sub(r"_(total|seconds|bytes)$", "", name)
        check(f'"{plain}"' in source, f"the operator exports lifeboat_{name}")


def check_notes():
    with helm.Chart.load(CHART) as chart:
        for values, watched in (({}, "all namespaces"), ({"watchNamespaces": ["a", "b"]}, "a, b"), ({"namespaced": True}, "that namespace alone")):
            rendered = chart.render(values=values, name="lifeboat", namespace="backup")
            (notes,) = [text for path, text in rendered.items() if path.endswith("NOTES.txt")]
            check(f"watches {watched}." in notes and "What remains:" in notes, f"the notes say that it watches {watched}")


def check_refusals():
    wrong = [
        ({"replica": 2}, "replica"),
        ({"image": {"name": "x"}}, "name"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"replicas": 0}, "replicas"),
        ({"watchNamespaces": "a"}, "watchNamespaces"),
        ({"watchNamespaces": ["Not_A_Name"]}, "watchNamespaces"),
        ({"logLevel": ""}, "logLevel"),
        ({"coreosCompat": "yes"}, "coreosCompat"),
        ({"parallelBackups": "many"}, "parallelBackups"),
        ({"spool": {"sizeLimit": 5}}, "sizeLimit"),
        ({"namespaced": True, "watchNamespaces": ["a"]}, "watchNamespaces"),
    ]
    for values, name in wrong:
        try:
            of_chart("wrong", values)
            said = "nothing"
        except helm.HelmError as error:
            said = str(error)
        check(name in said, f"the chart refuses {values} by name" + ("" if name in said else f", but said {said}"))


if len(sys.argv) == 2:
    base = check_kustomize(pathlib.Path(sys.argv[1]))
    check_chart(base)
    check_coreos(base, pathlib.Path(sys.argv[1]))
    check_refusals()
    check_monitoring(pathlib.Path(sys.argv[1]))
    check_notes()
    sys.exit(1 if failures else 0)
sys.exit(__doc__)
