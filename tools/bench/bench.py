"""The bench; ../../bench starts it. What is measured, and against what, stands in `cases`."""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import hosts
import s3
from measure import SAMPLE_SECONDS, median, run

ROOT = Path(__file__).resolve().parents[2]
LIFEBOAT = str(Path(os.environ["LIFEBOAT_BIN"]) / "lifeboat")
TESTBED = str(Path(os.environ["LIFEBOAT_BIN"]) / "testbed")
ETCD = Path(os.environ["LIFEBOAT_ETCD_3_5"])
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lifeboat" / "bench"
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# A database of the loader's keys is this much larger than the values in it: pages are not full.
FILE_BYTES_PER_VALUE_BYTE = 1.6
CLIENT_PORT, PEER_PORT = 19479, 19480
CLUSTER = [f"m{n}=http://127.0.0.1:{29000 + n}" for n in (1, 2, 3)]
BACKUPS, BACKUPS_SMOKE = 5_000, 100
SMOKE = "--smoke" in sys.argv


# --- data: a database of real life's kind, made once and kept


class Data:
    """A server's data directory of about the wanted size, and a snapshot of it."""

    def __init__(self, size):
        self.size = size
        values = int(parse_size(size) / FILE_BYTES_PER_VALUE_BYTE)
        loader = (ROOT / "crates/testbed/src/load.rs").read_bytes() + f"{values} {etcd_version()}".encode()
        self.folder = CACHE / f"{size}-{hashlib.sha256(loader).hexdigest()[:12]}"
        self.snapshot = self.folder / "snapshot.db"
        if not self.snapshot.exists():
            self.make(values)

    def make(self, values):
        say(f"making the database of {self.size}, once")
        for outdated in CACHE.glob(f"{self.size}-*"):
            shutil.rmtree(outdated)
        self.folder.mkdir(parents=True)
        with Server(self.folder / "data") as server:
            subprocess.run(
                [TESTBED, "load", "--endpoint", server.endpoint, "--bytes", str(values)], check=True, stdout=sys.stderr
            )
            subprocess.run(etcdctl("snapshot", "save", str(self.snapshot)), check=True, stdout=sys.stderr)


class Server:
    """A running etcd of one member, without TLS."""

    endpoint = f"http://127.0.0.1:{CLIENT_PORT}"

    def __init__(self, data_dir):
        self.command = [
            str(ETCD / "etcd"),
            "--name=bench",
            f"--data-dir={data_dir}",
            f"--listen-client-urls={self.endpoint}",
            f"--advertise-client-urls={self.endpoint}",
            f"--listen-peer-urls=http://127.0.0.1:{PEER_PORT}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{PEER_PORT}",
            f"--initial-cluster=bench=http://127.0.0.1:{PEER_PORT}",
            f"--quota-backend-bytes={8 << 30}",
        ]
        self.log = open(Path(data_dir).parent / "etcd.log", "ab")

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        for _ in range(2400):
            if self.process.poll() is not None:
                raise SystemExit(f"etcd ended; see {self.log.name}")
            try:
                with urllib.request.urlopen(f"{self.endpoint}/health", timeout=5) as answer:
                    if b'"true"' in answer.read():
                        return self
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit(f"etcd does not become healthy; see {self.log.name}")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def etcdctl(*arguments):
    return [str(ETCD / "etcdctl"), f"--endpoints={Server.endpoint}", *arguments]


# --- cases


class Case:
    """What is compared: `theirs` and `ours` are lists of commands that run one after the other.

    `around` are the servers that run meanwhile, begun in this order; `before` makes each run start from the same.
    Without `theirs`, nothing is compared, and `seconds` is what our time may be. If the work is done `elsewhere`, by
    processes that are not theirs, CPU and memory are not told.
    """

    def __init__(
        self, name, title, theirs, ours, target=None, seconds=None, heap=None, cold=False, around=(), before=None,
        elsewhere=False,
    ):  # fmt: skip
        self.name = name
        self.title = title
        self.theirs = theirs
        self.ours = ours
        self.target = target
        self.seconds = seconds
        self.heap = heap
        self.cold = cold
        self.around = around
        self.before = before
        self.elsewhere = elsewhere

    def wanted(self):
        """The targets, in words."""
        texts = [
            ("≤ {}", self.target),
            ("≤ {} s", self.seconds),
            ("heap ≤ {} MiB", self.heap),
        ]
        return ", ".join(text.format(value) for text, value in texts if value is not None)


def cases(data, work, options):
    return local_cases(data, work) + store_cases(data, work, options) + recover_cases(data, work)


def local_cases(data, work):
    """What needs nothing but files, and etcd itself."""
    file = str(data.snapshot)
    etcdutl = str(ETCD / "etcdutl")
    status = [etcdutl, "snapshot", "status", file]
    our_status = [LIFEBOAT, "snapshot", "status", file]
    one = ["--name=m1", "--initial-cluster=" + CLUSTER[0], "--initial-advertise-peer-urls=" + url(0)]

    def their_restore(n):
        return [
            etcdutl, "snapshot", "restore", file, f"--name=m{n + 1}", f"--data-dir={work}/theirs/m{n + 1}",
            "--initial-cluster=" + ",".join(CLUSTER), "--initial-advertise-peer-urls=" + url(n),
        ]  # fmt: skip

    return [
        Case(
            "save", "save, and verify",
            [etcdctl("snapshot", "save", f"{work}/theirs/saved.db")],
            [[LIFEBOAT, f"--endpoints={Server.endpoint}", "snapshot", "save", f"{work}/ours/saved.db"]],
            target=0.8, around=[lambda: Server(data.folder / "data")],
        ),
        Case("status-warm", "status, file in the page cache", [status], [our_status], target=0.35),
        Case("status-cold", "status, file not in the page cache", [status], [our_status], target=0.2, cold=True),
        Case("verify", "verify (against their status, which reads no digest)", [status],
             [[LIFEBOAT, "snapshot", "verify", file]]),
        Case(
            "restore", "restore of one member",
            [[etcdutl, "snapshot", "restore", file, f"--data-dir={work}/theirs/m1", *one]],
            [[LIFEBOAT, "snapshot", "restore", file, f"--data-dir={work}/ours/m1", *one]],
            target=0.5,
        ),
        Case(
            "restore-three", "restore of three members",
            [their_restore(n) for n in range(3)],
            [[LIFEBOAT, "snapshot", "restore", file, f"--all-members={work}/ours/all",
              "--initial-cluster=" + ",".join(CLUSTER)]],
            target=0.4,
        ),
    ]  # fmt: skip


def store_cases(data, work, options):
    """What goes to S3 and comes from there."""
    store = s3.Store(f"{work}/store")
    repository = ["--repo", store.url("lifeboat")]
    theirs, ours = f"{work}/theirs", f"{work}/ours"
    spool = f"--spool-dir={work}/ours"
    live = [f"--endpoints={Server.endpoint}", "backup", "--cluster=bench", *repository, spool]
    from_file = ["backup", "--cluster=bench", *repository, spool, "--from-file", str(data.snapshot)]
    one = ["--name=m1", "--initial-cluster=" + CLUSTER[0], "--initial-advertise-peer-urls=" + url(0)]
    etcd = lambda: Server(data.folder / "data")

    def their_backup(*threads):
        return [
            etcdctl("snapshot", "save", f"{theirs}/saved.db"),
            ["zstd", "-q", *threads, f"{theirs}/saved.db", "-o", f"{theirs}/saved.db.zst"],
            store.rclone("copyto", f"{theirs}/saved.db.zst", store.there("saved.db.zst")),
        ]

    @contextlib.contextmanager
    def stored():
        """The same snapshot in the store, as both keep it."""
        compressed = f"{work}/stored.zst"
        with store:
            run([LIFEBOAT, *from_file])
            run(["zstd", "-q", str(data.snapshot), "-o", compressed])
            run(store.rclone("copyto", compressed, store.there("saved.db.zst")))
            os.remove(compressed)
            yield

    @contextlib.contextmanager
    def many():
        """Thousands of small backups, made of one."""
        with store:
            run([LIFEBOAT, *from_file])
            listed = subprocess.run([LIFEBOAT, "-w", "json", "list", *repository], check=True, capture_output=True)
            manifest = json.loads(listed.stdout)["backups"][0]["manifest"]
            multiply(manifest, BACKUPS_SMOKE if SMOKE else BACKUPS, f"{work}/many")
            store.fill(f"{work}/many", "lifeboat/bench/snapshots")
            yield

    found = [
        Case(
            f"backup{suffix}", f"live member to verified, compressed object in S3{tell}",
            their_backup(*threads), [[LIFEBOAT, *live]],
            target=target, heap=128, around=[etcd, lambda: store], before=store.empty,
        )
        for suffix, threads, tell, target in [("", [], "", 0.6), ("-threads", ["-T0"], " (their zstd on all cores)", None)]
    ]  # fmt: skip
    found.append(
        Case(
            "restore-s3", "object in S3 to data directory",
            [
                store.rclone("copyto", store.there("saved.db.zst"), f"{theirs}/saved.db.zst"),
                ["zstd", "-q", "-d", f"{theirs}/saved.db.zst", "-o", f"{theirs}/saved.db"],
                [str(ETCD / "etcdutl"), "snapshot", "restore", f"{theirs}/saved.db", f"--data-dir={theirs}/m1", *one],
            ],
            [[LIFEBOAT, "restore", *repository, f"--data-dir={ours}/m1", "--bump-revision=0", *one]],
            target=0.5, around=[stored],
        )
    )  # fmt: skip
    if data.size == options.sizes[0]:
        count = BACKUPS_SMOKE if SMOKE else BACKUPS
        found.append(
            Case("list", f"list of {count:,} backups in S3", None, [[LIFEBOAT, "list", *repository]],
                 seconds=2, cold=True, around=[many])
        )  # fmt: skip
    return found


def recover_cases(data, work):
    """From a dead cluster to one that is healthy: theirs by hand, over ssh, from a snapshot here; ours from a repository here."""
    dead = hosts.Hosts(f"{work}/hosts", ETCD)
    repository = f"{work}/repository"
    snapshot = str(data.snapshot)

    @contextlib.contextmanager
    def stored():
        run([LIFEBOAT, "backup", "--cluster=bench", "--repo", repository, "--from-file", snapshot])
        yield
        shutil.rmtree(repository)

    def before():
        dead.reset()
        for file in Path(repository).rglob("*"):
            if file.is_file():
                recall(file)

    ours = [LIFEBOAT, "recover", "run", str(dead.spec), "--backup", repository, "--yes", f"--state-dir={work}/ours"]
    return [
        Case(
            name, f"cluster dead to all of three members healthy, over ssh{tell}", [dead.by_hand(how, snapshot)], [ours],
            target=target, around=[lambda: dead, stored], before=before, elsewhere=True,
        )
        for name, how, tell, target in [
            ("recover", "one", "", 0.4),
            ("recover-all", "all", " (theirs on all hosts at once)", None),
        ]
    ]  # fmt: skip


def multiply(manifest, count, folder):
    """Writes so many backups, each the one given but for its name and its time, with a snapshot of one byte."""
    begun = time.time() - count * 3600
    for number in range(count):
        second = time.gmtime(begun + number * 3600)
        revision = manifest["etcd"]["revision"] + number
        name = f"{revision:020}-{time.strftime('%Y%m%dT%H%M%SZ', second)}"
        one = json.loads(json.dumps(manifest))
        one["id"] = name
        one["started"] = one["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", second)
        one["etcd"]["revision"] = revision
        one["object"]["bytes"] = 1
        place = Path(folder) / name
        place.mkdir(parents=True)
        (place / "manifest.json").write_text(json.dumps(one, indent=2))
        (place / one["object"]["name"]).write_bytes(b"x")


def url(n):
    return CLUSTER[n].split("=", 1)[1]


# --- running


def measure(case, data, work, runs):
    """Their run and ours in turn, so that whatever else the machine does meets both."""
    theirs, ours = [], []
    with contextlib.ExitStack() as servers:
        for around in case.around:
            servers.enter_context(around())
        for number in range(runs):
            if case.theirs:
                theirs.append(once(case.theirs, case, data, work))
            ours.append(once(case.ours, case, data, work))
            compared = f"{theirs[-1].wall:.2f} s, " if theirs else ""
            say(f"{data.size} {case.name} {number + 1}/{runs}: {compared}ours {ours[-1].wall:.2f} s")
    return theirs, ours


def once(commands, case, data, work):
    for side in ("theirs", "ours"):
        shutil.rmtree(f"{work}/{side}", ignore_errors=True)
        os.mkdir(f"{work}/{side}")
    if case.before:
        case.before()
    os.sync()  # what the run before wrote is not written during this one
    forget(data.snapshot) if case.cold else recall(data.snapshot)
    total = None
    for command in commands:
        sample = run(command)
        total = sample if total is None else total.after(sample)
    return total


def recall(file):
    with open(file, "rb") as opened:
        while opened.read(1 << 20):
            pass


def forget(file):
    if can_drop_caches():
        Path("/proc/sys/vm/drop_caches").write_text("3")
    else:
        with open(file, "rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def can_drop_caches():
    # Not to see whether the bench works: whatever else runs on the machine would be read from the disk again.
    return not SMOKE and os.access("/proc/sys/vm/drop_caches", os.W_OK)


def bench(options):
    """Returns the rows of the table."""
    rows = []
    CACHE.mkdir(parents=True, exist_ok=True)
    for size in options.sizes:
        data = Data(size)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="work-") as work:
            wanted = [case for case in cases(data, work, options) if not options.only or case.name in options.only]
            for case in wanted:
                rows.append(Row(data, case, *measure(case, data, work, options.runs)))
    return rows


# --- telling


class Row:
    def __init__(self, data, case, theirs, ours):
        self.data = data
        self.case = case
        self.samples = [samples for samples in (theirs, ours) if samples]
        self.medians = [median(samples) for samples in self.samples]

    def ratio(self):
        if len(self.medians) < 2:
            return ""
        theirs, ours = self.medians
        return f"**{ours.wall / theirs.wall:.2f}**"

    def cells(self):
        pair = lambda name, digits: " → ".join(f"{getattr(m, name):.{digits}f}" for m in self.medians)
        times = [
            self.data.size, self.case.title, self.ratio(), self.case.wanted(), pair("wall", 2),
            " / ".join(map(spread, self.samples)),
        ]  # fmt: skip
        return times + (["", "", ""] if self.case.elsewhere else [pair("cpu", 2), pair("rss", 0), pair("heap", 0)])


def spread(samples):
    walls = [sample.wall for sample in samples]
    return f"{min(walls):.2f}–{max(walls):.2f}"


HEADINGS = ["data", "what", "ratio", "wanted", "time, s", "least–most, s", "CPU, s", "peak RSS, MiB", "heap, MiB"]


def table(rows):
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(rows, options):
    sizes = {row.data.size: row.data.snapshot.stat().st_size / 1e6 for row in rows}
    files = ", ".join(f"{size}: a snapshot of {megabytes:,.0f} MB" for size, megabytes in sizes.items())
    how = "all caches dropped" if can_drop_caches() else "the file's pages dropped with posix_fadvise"
    return f"""# Performance

Lifeboat beside etcd's own tools: the same files on the same machine, their run and ours in turn, medians of
{options.runs} runs. Each pair reads *theirs → ours*; the ratio is our time by theirs. Made by `./bench`, which writes this
page; the loader in `crates/testbed` makes the data.

{table(rows)}

- **Machine**: {machine()}.
- **Tools**: etcd, etcdctl and etcdutl {etcd_version()}; lifeboat {lifeboat_version()}, release build.
- **Data**: {files}. Values of 1 to 3 KiB; 3 of 10 puts overwrite a key, and
  there are deletes.
- **Save**: from one running member on loopback, without TLS. etcdctl checks nothing after the stream has ended; lifeboat
  compares the digest, walks the tree, and computes hash and counts before the file gets its name.
- **S3**: SeaweedFS {s3.version()} on the same machine, its own work among the times of both. *Theirs* is `etcdctl snapshot
  save`, `zstd` ({zstd_version()}, its default level and one thread unless said otherwise) and `rclone copyto`
  ({s3.rclone_version()}, its defaults), one after the other; back again, `rclone copyto`, `zstd -d` and `etcdutl snapshot
  restore`. Lifeboat does all of it in one command, and proves what etcdctl and zstd do not look at: every page and
  record, the hashes of all members, the digests of both ends.
- **Cluster dead**: three sshds and three etcds on the same machine, so that all three hosts share its cores and its disk, and
  their work is not in the columns for CPU and memory. *Theirs* is a script of the manual steps (`tools/bench/by-hand.sh`):
  stop etcd, set the old data aside, `scp` of the snapshot, `etcdutl snapshot restore`, start, wait until every member is
  healthy; a host after the other, or all at once. *Ours* is one command, `lifeboat recover run`, from a repository on the
  same disk; it also puts itself on the hosts, checks what arrived, compares the HashKV of all members with the
  backup's, and writes, reads and removes a key.
- **List**: {BACKUPS:,} backups of one cluster, their manifests read by a new process, the machine's page cache dropped.
- **Not in the page cache**: {how} before each run.
- **CPU** is user and system time. **Peak RSS** counts mapped files, which the kernel takes back when it needs the
  memory; **heap** is anonymous memory alone (`RssAnon`). Both are read every {SAMPLE_SECONDS * 1000:.0f} ms.
"""


def machine():
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1]) / (1 << 20)
    disk = subprocess.run(["df", "--output=fstype", CACHE], capture_output=True, text=True).stdout.split()[-1]
    return (
        f"{os.cpu_count()} cores ({cpu[1] if cpu else platform.machine()}), {memory:.0f} GiB of memory, "
        f"{disk}, Linux {platform.release()}"
    )


def etcd_version():
    text = subprocess.run([ETCD / "etcd", "--version"], capture_output=True, text=True, check=True).stdout
    return text.split()[2]


def zstd_version():
    text = subprocess.run(["zstd", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"v([0-9.]+)", text)[1]


def lifeboat_version():
    text = subprocess.run([LIFEBOAT, "--version"], capture_output=True, text=True, check=True).stdout
    return text.split()[-1]


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def parse_size(text):
    return int(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else int(text)


def main():
    parser = argparse.ArgumentParser(prog="./bench")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=["100M", "2G"], metavar="SIZE,...")
    parser.add_argument("--runs", type=int, default=5, metavar="NUMBER")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="CASE,...")
    parser.add_argument("--no-write", action="store_true", help="leave docs/performance.md as it is")
    parser.add_argument("--smoke", action="store_true", help="small, once, and nothing is written")
    options = parser.parse_args()
    if SMOKE:
        options.sizes, options.runs, options.no_write = ["8M"], 1, True
    os.environ.update(s3.ENVIRONMENT)
    rows = bench(options)
    print(table(rows))
    if not options.no_write:
        (ROOT / "docs/performance.md").write_text(page(rows, options))
        say("wrote docs/performance.md")


if __name__ == "__main__":
    main()
