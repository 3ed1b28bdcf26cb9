"""What must hold in deploy/ and what no other tool looks at:

* every metric that a rule or a panel asks for is one that the daemon exports;
* every alert has a test that makes it fire;
* every container is confined, and every ConfigMap, Secret and volume that a manifest names is there or explained;
* both renderings of a CronJob differ in nothing but the version.

Run in deploy/ by tools/deploy-check.sh.
"""
import json
import pathlib
import re
import subprocess
import sys

import yaml

failures = []


def check(good, what):
    print(("ok: " if good else "FAILED: ") + what)
    if not good:
        failures.append(what)


def metrics_in(text):
    return set(re.findall(r"\blifeboat_[a-z0-9_]+", text))


def exported():
    """Names as the daemon's source registers them: units are added, and `_total` to what is a Counter."""
    source = pathlib.Path("../crates/daemon/src/metrics.rs").read_text()
    counters = set(re.findall(r"(\w+): (?:Family<\w+, )?Counter\b", source))
    unit = {"plain": "", "in_seconds": "_seconds", "in_bytes": "_bytes"}
    registered = re.findall(r'(\w+): (plain|in_seconds|in_bytes)\(\s*&mut r,\s*"(\w+)"', source)
    return {"lifeboat_" + name + unit[how] + "_total" * (field in counters) for field, how, name in registered}


def check_metrics():
    known = exported()
    rules = yaml.safe_load(pathlib.Path("prometheus/lifeboat.rules.yaml").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads(pathlib.Path("grafana/lifeboat.json").read_text())
    panels = dashboard["panels"]
    for panel in panels:
        expressions += [target["expr"] for target in panel.get("targets", [])]
    expressions += [str(variable["query"]) for variable in dashboard["templating"]["list"]]
    for name in sorted(set().union(*map(metrics_in, expressions))):
        check(name in known, f"the daemon exports {name}")
    identifiers = [panel["id"] for panel in panels]
    check(len(identifiers) == len(set(identifiers)), "every panel has an id of its own")


def check_alerts():
    rules = yaml.safe_load(pathlib.Path("prometheus/lifeboat.rules.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    tests = yaml.safe_load(pathlib.Path("prometheus/lifeboat.rules.test.yaml").read_text())
    cases = [case for test in tests["tests"] for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    for alert in sorted(alerts):
        check(alert in fires, f"a test makes {alert} fire")
        check(alert in silent, f"a test keeps {alert} silent")


def render(file, *flags):
    run = subprocess.run(["kubernetes/render.sh", file, *flags], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(run.stdout))


def check_manifest(file):
    text = file.read_text()
    documents = render(str(file), "--image", "example/lifeboat:1")
    old = render(str(file), "--image", "example/lifeboat:1", "--old")
    jobs = [document for document in documents if document["kind"] == "CronJob"]
    check(len(jobs) == 1 and jobs[0]["apiVersion"] == "batch/v1", f"{file} has a CronJob of batch/v1")
    for document in old:
        if document["kind"] == "CronJob":
            check(document["apiVersion"] == "batch/v1beta1", f"{file} has another for old clusters")
            document["apiVersion"] = "batch/v1"
    check(old == documents, f"{file}: both renderings are the same but for that")

    spec = jobs[0]["spec"]
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    check(spec["concurrencyPolicy"] == "Forbid", f"{file}: runs never overlap")
    check(pod["automountServiceAccountToken"] is False, f"{file}: no token of the API server")
    check(pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, f"{file}: seccomp")
    on_host = pod.get("hostNetwork", False)
    check(on_host or pod["securityContext"]["runAsNonRoot"], f"{file}: root only where the host's keys are")
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in pod["initContainers"] + pod["containers"]:
        name = f"{file}: {container['name']}"
        context = container["securityContext"]
        confined = context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        check(confined, f"{name} is confined")
        check(container["image"] == "example/lifeboat:1", f"{name} has the image asked for")
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        check(mounted <= volumes, f"{name} mounts what there is")
        for source in container["envFrom"]:
            check(is_there(source, documents, text), f"{name}: {source} is there or explained")
    for volume in pod["volumes"]:
        check(is_there(volume, documents, text), f"{file}: volume {volume['name']} is there or explained")


def is_there(reference, documents, text):
    """A ConfigMap or claim is in the manifest; a Secret is made by a command in its comments."""
    def made(kind, name):
        return any(d["kind"] == kind and d["metadata"]["name"] == name for d in documents)
    if "configMapRef" in reference:
        return made("ConfigMap", reference["configMapRef"]["name"])
    if "persistentVolumeClaim" in reference:
        return made("PersistentVolumeClaim", reference["persistentVolumeClaim"]["claimName"])
    secret = reference.get("secretRef", {}).get("name") or reference.get("secret", {}).get("secretName")
    if secret:
        return f"create secret generic {secret} " in text
    return "emptyDir" in reference or "hostPath" in reference


check_metrics()
check_alerts()
for manifest in sorted(pathlib.Path("kubernetes").glob("*.yaml")):
    check_manifest(manifest)
sys.exit(1 if failures else 0)
