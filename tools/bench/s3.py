"""SeaweedFS as the store of the bench, and what stock tools do with it.

Everything of it is on 127.0.0.1 and below one folder, and ends with the `with` block.
"""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

WEED = os.environ["LIFEBOAT_WEED"]
RCLONE = os.environ["LIFEBOAT_RCLONE"]
BUCKET = "bench"
PARTS = ["master", "volume", "filer", "s3"]
PORT = 19481  # and the next seven
KEY, SECRET, REGION = "bench-key", "bench-secret", "us-east-1"

# What every tool is told by the environment; none reads the machine's own settings.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


class Store:
    """A running SeaweedFS with one bucket."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.ports = {part: PORT + 2 * n for n, part in enumerate(PARTS)}
        self.endpoint = f"http://127.0.0.1:{self.ports['s3']}"

    def __enter__(self):
        (self.folder / "data").mkdir(parents=True)
        identity = {
            "name": "bench",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
        self.log = open(self.folder / "log", "ab")
        # Its sockets, which are named by ports, go to the folder for temporary files.
        environment = os.environ | {"TMPDIR": str(self.folder)}
        self.process = subprocess.Popen(
            self.command(), stdout=self.log, stderr=self.log, cwd=self.folder, env=environment
        )
        try:
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def command(self):
        ports = [f"-{part}.port={port}" for part, port in self.ports.items()]
        rpc = [f"-{part}.port.grpc={port + 1}" for part, port in self.ports.items()]
        return [
            WEED, "-logtostderr=true", "server", *ports, *rpc, "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", "-master.electionTimeout=300ms", "-master.heartbeatInterval=100ms",
            "-master.volumeSizeLimitMB=1024", "-volume.max=200", "-volume.minFreeSpace=0",
            "-volume.preStopSeconds=0", "-filer", "-s3", "-s3.iam=false", "-s3.port.iceberg=0",
            "-s3.port.lance=0", f"-dir={self.folder}/data", f"-s3.config={self.folder}/identities.json",
            f"-filer.localSocket={self.folder}/filer.sock", f"-s3.localSocket={self.folder}/s3.sock",
        ]  # fmt: skip

    def wait(self):
        self.until(lambda: self.answers() and self.has_bucket(), "answer")

    def until(self, done, what):
        """Longer than any machine needs."""
        for _ in range(960):
            if self.process.poll() is not None:
                raise SystemExit(f"SeaweedFS ended:\n{self.last_words()}")
            if done():
                return
            try:
                self.process.wait(0.25)
            except subprocess.TimeoutExpired:
                pass
        raise SystemExit(f"SeaweedFS does not {what}:\n{self.last_words()}")

    def last_words(self):
        return Path(self.log.name).read_text()[-2000:]

    def has_bucket(self):
        """Makes it if it is not there, and an object in it: the volumes come a moment after the port."""
        self.bucket("PUT")
        return self.bucket("PUT", "ready")

    def answers(self):
        try:
            urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=5).close()
            return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def __exit__(self, *_):
        # What it would still put in order is removed below.
        self.process.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def there(self, path=""):
        """A place in the bucket, as rclone calls it."""
        return f":s3:{BUCKET}/{path}"

    def url(self, prefix):
        """The same, as lifeboat calls it."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}&region={REGION}"

    def rclone(self, *arguments):
        return [
            RCLONE, "--config=/dev/null", "--s3-provider=SeaweedFS", "--s3-env-auth", "--s3-no-check-bucket",
            f"--s3-endpoint={self.endpoint}", *arguments,
        ]  # fmt: skip

    def empty(self):
        """A new bucket in the place of the old one, whose volumes go with it."""
        self.until(lambda: self.bucket("DELETE"), "delete the bucket")
        self.until(self.has_bucket, "make the bucket anew")

    def bucket(self, method, path=""):
        """A signed request without a body; whether it succeeds."""
        signed = ["--aws-sigv4", f"aws:amz:{REGION}:s3", "--user", f"{KEY}:{SECRET}"]
        url = f"{self.endpoint}/{BUCKET}/{path}".rstrip("/")
        request = ["curl", "--silent", "--fail", "--output", "/dev/null", *signed, "--request", method, url]
        return subprocess.run(request, capture_output=True).returncode == 0

    def fill(self, folder, prefix):
        """Copies the files of a folder into the bucket, thousands in seconds."""
        copy = self.rclone("copy", "--no-traverse", "--transfers=16", str(folder), self.there(prefix))
        subprocess.run(copy, check=True, capture_output=True)


def version():
    text = subprocess.run([WEED, "version"], capture_output=True, text=True, check=True).stdout
    return text.split()[2]


def rclone_version():
    text = subprocess.run([RCLONE, "version"], capture_output=True, text=True, check=True).stdout
    return text.split()[1]
