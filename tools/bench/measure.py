"""Runs a command and tells what it took.

wall   from before the start to after the end
cpu    user and system time of the process and its children, as the kernel counts them
rss    peak resident set, mapped files included (VmHWM)
heap   peak of anonymous memory (RssAnon), which is what the allocator holds; mapped files are not in it

The kernel keeps no peak of RssAnon, so both are read from /proc every SAMPLE_SECONDS.
"""

import os
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

SAMPLE_SECONDS = 0.005


@dataclass
class Sample:
    """One run; times in seconds, memory in MiB."""

    wall: float
    cpu: float
    rss: float
    heap: float

    def after(self, other):
        """Two commands one after the other, as one."""
        return Sample(
            self.wall + other.wall,
            self.cpu + other.cpu,
            max(self.rss, other.rss),
            max(self.heap, other.heap),
        )


def median(samples):
    """The median of each figure by itself."""
    return Sample(
        *(statistics.median(getattr(s, name) for s in samples) for name in ("wall", "cpu", "rss", "heap"))
    )


def run(command):
    """Runs a command to its end. One that fails ends the bench."""
    # To a file: a list of thousands of lines would fill a pipe that nobody reads, and wait for ever.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        watcher = Watcher(process.pid)
        begin = time.perf_counter()
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        watcher.ended.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            text = output.read().decode(errors="replace")
            raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{text}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, watcher.rss / 1024, watcher.heap / 1024)


class Watcher(threading.Thread):
    """Reads the memory of a process until it ends; figures in KiB."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.path = f"/proc/{pid}/status"
        self.ended = threading.Event()
        self.rss = 0
        self.heap = 0

    def run(self):
        while not self.ended.wait(SAMPLE_SECONDS):
            try:
                with open(self.path, encoding="ascii", errors="replace") as status:
                    fields = dict(line.split(":", 1) for line in status)
            except OSError:
                return
            if "VmHWM" in fields:  # gone from a process that has ended and was not waited for
                self.rss = max(self.rss, int(fields["VmHWM"].split()[0]))
                self.heap = max(self.heap, int(fields["RssAnon"].split()[0]))
