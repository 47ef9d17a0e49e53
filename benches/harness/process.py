"""Starting, measuring and ending processes: each on its own core, each known by its pid."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

PROXY_CPU = 0
LOAD_CPU = 1
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class BenchError(Exception):
    """Something that a person has to mend before the numbers mean anything."""


def on_cpu(cpu):
    """A `preexec_fn`: bind to one core, and die with the harness however that ends."""

    def prepare():
        os.sched_setaffinity(0, {cpu})
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return prepare


class Server:
    """A server process with its children, ready as soon as its port answers."""

    def __init__(self, name, command, port, cpu, log_dir, env=None, ready_seconds=20):
        self.name, self.port = name, port
        if port_is_open(port):
            raise BenchError(f"port {port}, wanted for {name}, is taken")
        self.log_path = Path(log_dir) / f"{name}.log"
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, preexec_fn=on_cpu(cpu)
            )
        self.wait_until_ready(ready_seconds)

    def wait_until_ready(self, seconds):
        deadline = time.monotonic() + seconds
        while not port_is_open(self.port):
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended at its start ({self.process.returncode}):\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise BenchError(f"{self.name} did not listen on {self.port} within {seconds} s:\n{self.log_tail()}")
            time.sleep(0.02)

    def log_tail(self):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-15:])

    def pids(self):
        """The process and everything below it."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    todo.extend(int(child) for child in children.read_text().split())
            except FileNotFoundError:
                continue
        return found

    def cpu_seconds(self):
        """Time on a core, user and kernel, of all threads: the first field of `schedstat`, in nanoseconds."""
        total = 0
        for pid in self.pids():
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    total += int(path.read_text().split()[0])
                except (FileNotFoundError, ProcessLookupError):
                    continue
        return total / 1e9

    def rss_bytes(self):
        total = 0
        for pid in self.pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except FileNotFoundError:
                continue
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        return total * 1024

    def stop(self, patience_seconds=0.5):
        """SIGTERM, then SIGKILL for what is left; only ever the pids of this tree."""
        pids = self.pids()
        deadline = time.monotonic() + patience_seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            # Again after a while: nginx under valgrind may look for the signal just before it arrives, and then sleep.
            self.process.terminate()
            try:
                self.process.wait(min(5.0, patience_seconds))
            except subprocess.TimeoutExpired:
                continue
        if self.process.poll() is None:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def busy_seconds(cpu):
    """Time that a core has not been idle since boot, whoever used it (`proc_stat(5)`: ticks by kind of work)."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{cpu} "))
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, line.split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def port_is_open(port):
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(command, cpu, timeout_seconds):
    """A helper program's standard output; its failure is a `BenchError` with what it said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_seconds, preexec_fn=on_cpu(cpu)
        )
    except FileNotFoundError as error:
        raise BenchError(f"`{command[0]}` is missing: run scripts/bench-setup.sh") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"`{' '.join(map(str, command))}` was not done after {timeout_seconds} s") from error
    if done.returncode != 0:
        raise BenchError(f"`{' '.join(map(str, command))}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
