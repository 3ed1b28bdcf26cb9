"""Helm's own engine on the chart of the operator, for tests:

    PYTHONPATH=$LIFEBOAT_HELM helm.py KUBECONFIG NAMESPACE install|upgrade RELEASE [VALUES-AS-JSON]
    PYTHONPATH=$LIFEBOAT_HELM helm.py KUBECONFIG NAMESPACE uninstall RELEASE

Prints what Helm says of the release. It waits for nothing.
"""
import json
import pathlib
import sys

import helm_python as helm

CHART = pathlib.Path(__file__).parent.parent / "charts/lifeboat"

if len(sys.argv) < 5 or sys.argv[3] not in ("install", "upgrade", "uninstall"):
    sys.exit(__doc__)
kubeconfig, namespace, command, release = sys.argv[1:5]
values = json.loads(sys.argv[5]) if len(sys.argv) > 5 else {}
try:
    with helm.Config(kubeconfig_path=kubeconfig, namespace=namespace) as config:
        if command == "install":
            told = config.install(CHART, release, values, namespace=namespace, create_namespace=True)
        elif command == "upgrade":
            told = config.upgrade(CHART, release, values, namespace=namespace)
        else:
            told = config.uninstall(release)
except helm.HelmError as error:
    sys.exit(f"helm: {error}")
print(json.dumps(told, indent=1))
