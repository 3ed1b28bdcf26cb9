"""Three hosts with a dead cluster, for the bench: sshds on 127.0.0.1 (tools/loopback.sh), etcd as a plain command.

Everything of it is below one folder, and ends with the `with` block.
"""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = str(ROOT / "tools/loopback.sh")
NUMBERS = (1, 2, 3)
SSH_PORT, CLIENT_PORT, PEER_PORT = 19490, 19493, 19496  # and the next three of each
QUOTA_BYTES = 8 << 30


class Hosts:
    """h1 to h3, whose cluster has died."""

    def __init__(self, folder, etcd):
        self.folder = Path(folder)
        self.etcd = Path(etcd)
        self.config = self.folder / "ssh/config"
        self.spec = self.folder / "cluster.yaml"

    def __enter__(self):
        self.folder.mkdir(parents=True)
        loopback("start", self.folder, *(SSH_PORT + n for n in NUMBERS))
        try:
            for n in NUMBERS:
                self.host(n).mkdir()
                loopback("service", self.host(n) / "etcd", *self.command(n))
            self.spec.write_text(json.dumps(self.described(), indent=2))  # which is YAML too
            self.die()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.kill()
        loopback("stop", self.folder)
        shutil.rmtree(self.folder)

    def die(self):
        """A cluster lives for a moment: what it leaves is what every run begins with."""
        for n in NUMBERS:
            self.service(n, "start")
        for n in NUMBERS:
            self.wait(n)
        self.kill()
        for n in NUMBERS:
            (self.host(n) / "data").rename(self.host(n) / "dead")

    def wait(self, n):
        for _ in range(2400):
            try:
                with urllib.request.urlopen(f"{client_url(n)}/health", timeout=5) as answer:
                    if b'"true"' in answer.read():
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit(f"etcd does not become healthy:\n{(self.host(n) / 'etcd.log').read_text()[-2000:]}")

    def reset(self):
        """Dead again, and nothing of the run before is left."""
        self.kill()
        for n in NUMBERS:
            for left in self.host(n).iterdir():
                if left.name not in ("etcd", "dead"):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            shutil.copytree(self.host(n) / "dead", self.host(n) / "data")

    def kill(self):
        for n in NUMBERS:
            pid = self.host(n) / "etcd.pid"
            if pid.exists():
                subprocess.run(["kill", "-9", pid.read_text().strip()], stderr=subprocess.DEVNULL)
                while self.service(n, "running") == 0:
                    time.sleep(0.05)

    def service(self, n, verb):
        return subprocess.run([self.host(n) / "etcd", verb]).returncode

    def host(self, n):
        return self.folder / f"h{n}"

    def command(self, n):
        return [
            self.etcd / "etcd", f"--name=m{n}", f"--data-dir={self.host(n)}/data",
            f"--listen-client-urls={client_url(n)}", f"--advertise-client-urls={client_url(n)}",
            f"--listen-peer-urls={peer_url(n)}", f"--initial-advertise-peer-urls={peer_url(n)}",
            f"--initial-cluster={initial_cluster()}", f"--quota-backend-bytes={QUOTA_BYTES}",
        ]  # fmt: skip

    def described(self):
        """The cluster's file for `lifeboat recover`."""
        return {
            "cluster": "bench",
            "ssh": {"config": str(self.config), "sudo": False},
            "etcd": {"version": "3.5"},
            "hosts": [
                {
                    "host": f"h{n}",
                    "member": {"name": f"m{n}", "peer-urls": [peer_url(n)], "client-urls": [client_url(n)]},
                    "ssh": {"state-dir": f"{self.host(n)}/lifeboat"},
                    "etcd": {
                        "data-dir": f"{self.host(n)}/data",
                        "service": {
                            "command": {verb: f"{self.host(n)}/etcd {verb}" for verb in ("start", "stop", "running")}
                        },
                    },
                }
                for n in NUMBERS
            ],
        }

    def by_hand(self, how, snapshot):
        """The manual steps as a command; `how` is one, a host after the other, or all, at the same time."""
        return [str(ROOT / "tools/bench/by-hand.sh"), how, str(self.folder), str(self.etcd), str(snapshot),
                initial_cluster(), ",".join(map(client_url, NUMBERS))]  # fmt: skip


def client_url(n):
    return f"http://127.0.0.1:{CLIENT_PORT + n}"


def peer_url(n):
    return f"http://127.0.0.1:{PEER_PORT + n}"


def initial_cluster():
    return ",".join(f"m{n}={peer_url(n)}" for n in NUMBERS)


def loopback(*arguments):
    # To nowhere: sshd keeps what it was given open.
    subprocess.run([LOOPBACK, *map(str, arguments)], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
