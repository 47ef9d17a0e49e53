"""The highest rate that load generators hold, one core each: the tool on one core, a fast server (nginx, 1 KiB from
memory) on the other.

A rate is held when at least 99 % of what was asked for was sent and answered well. Only one of the tools says whether its
times still mean something at that rate; the others count from when they came round to sending (see the truth part), so
for them this is a bound from above. CPU time for a request tells more than the rate where other programs share the cores.
Server and tools have the highest priority where that is allowed (root), which is as near to a quiet core as a busy
machine comes: the column of what others had of the core says how near.
"""

import json
import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .measure import Spread, interleaved
from .process import LOAD_CPU, PROXY_CPU, BenchError, busy_seconds, on_cpu
from .targets import OHA, UPSTREAM_PORT

CONNECTIONS = 64
SECONDS = 2
# What every tool is asked for to compare the CPU time of a request.
COMMON_RATE = 2000
# Doubled until it is not held; then halved this often, geometrically.
REFINEMENTS = 3
MOST = 1 << 18
HELD = 0.99
LATENESS_RATE, LATENESS_SECONDS = 1000, 10
PATIENCE = 40


@dataclass
class Trial:
    rate: float
    answered: int
    held: bool
    # What the tool itself says of it.
    honest: bool
    cpu_us: float
    # The part of the tool's core that other programs had meanwhile.
    disturbed: float


@dataclass
class Held:
    rate: Spread
    # Rounds in which it called some rate good, and those rates.
    honest_rounds: int
    honest: Spread | None
    cpu_us: Spread
    common_cpu_us: Spread
    disturbed: Spread


def measured(targets, rounds, progress):
    """Tool → what it holds; and the lateness of `forebay load`, spinning or not."""
    forebay, scratch = str(targets.forebay), Path(targets.scratch)
    with preferred(), targets.start_upstream(PROXY_CPU):
        url = f"http://127.0.0.1:{UPSTREAM_PORT}/1k"
        found = {name: [] for name in TOOLS}
        for index, order in interleaved(list(TOOLS), rounds):
            for name in order:
                progress(f"rate, round {index + 1}/{rounds}: {name}")
                found[name].append(search(lambda rate, ask=TOOLS[name]: ask(url, rate, scratch, forebay)))
        lateness = {kind: lateness_of(url, kind, rounds, scratch, forebay, progress) for kind in ("", "--precise")}
    return {name: summary(rounds_of) for name, rounds_of in found.items()}, lateness


def search(attempt):
    """All trials, of which the first is at the common rate."""
    trials = [attempt(COMMON_RATE)]
    if trials[0].rate == 0:
        # It knows no rate: what it does is what it can.
        return trials
    while trials[-1].held and trials[-1].rate < MOST:
        trials.append(attempt(trials[-1].rate * 2))
    low, high = trials[-1].rate / 2, trials[-1].rate
    for _ in range(REFINEMENTS):
        middle = (low * high) ** 0.5
        trials.append(attempt(middle))
        low, high = (middle, high) if trials[-1].held else (low, middle)
    return trials


def summary(rounds):
    def best(trials, which):
        return max((trial for trial in trials if which(trial)), key=lambda trial: trial.rate, default=None)

    held = [best(trials, lambda trial: trial.held) for trials in rounds]
    honest = [best(trials, lambda trial: trial.held and trial.honest) for trials in rounds]
    if not all(held):
        raise BenchError(f"a load generator does not even hold {COMMON_RATE}/s: the machine is too busy")
    of_rate = lambda trial: trial.rate or trial.answered / SECONDS  # noqa: E731
    says = [of_rate(trial) for trial in honest if trial]
    return Held(
        Spread.of([of_rate(trial) for trial in held]),
        len(says),
        Spread.of(says) if says else None,
        Spread.of([trial.cpu_us for trial in held]),
        Spread.of([trials[0].cpu_us for trials in rounds]),
        Spread.of([trial.disturbed for trial in held]),
    )


@contextmanager
def preferred():
    """This session before all others, if that is allowed: with autogroups, `nice` counts within a session only."""
    group = Path("/proc/self/autogroup")

    def set_nice(value):
        try:
            os.setpriority(os.PRIO_PROCESS, 0, value)
            group.write_text(str(value))
        except OSError:
            pass

    set_nice(-20)
    try:
        yield
    finally:
        set_nice(0)


def run(command):
    """Output, exit code, CPU seconds of a tool on the core for load, and what others had of that core."""
    busy, began = busy_seconds(LOAD_CPU), time.monotonic()
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=on_cpu(LOAD_CPU),
    ) as process:
        try:
            text = process.stdout.read() if process.stdout else ""
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            raise
    cpu = usage.ru_utime + usage.ru_stime
    elapsed = time.monotonic() - began
    if elapsed > PATIENCE:
        raise BenchError(f"{command[0]} took {elapsed:.0f} s")
    return text, process.returncode, cpu, max(0.0, busy_seconds(LOAD_CPU) - busy - cpu) / elapsed


def trial(rate, answered, honest, cpu, disturbed):
    held = rate == 0 or answered >= HELD * rate * SECONDS
    return Trial(rate, answered, held, honest, cpu / max(1, answered) * 1e6, disturbed)


def ask_forebay(url, rate, scratch, forebay):
    result = scratch / "rate.json"
    shape = ["-r", f"{rate:.0f}/s", "-d", f"{SECONDS}s", "--arrivals", "even", "--workers", "1", "--timeout", "5s"]
    _, code, cpu, disturbed = run([forebay, "load", url, *shape, "--quiet", "--report-json", result])
    if code not in (0, 4):
        raise BenchError(f"forebay load ended with {code}")
    return trial(rate, json.loads(result.read_text())["totals"]["ok"], code == 0, cpu, disturbed)


def ask_h2load(url, rate, *_):
    shape = [f"-c{CONNECTIONS}", f"-D{SECONDS}", f"--rps={rate / CONNECTIONS:.3f}", "-t1"]
    text, _, cpu, disturbed = run(["h2load", "--h1", *shape, url])
    line = next((line for line in text.splitlines() if line.startswith("requests:")), None)
    if line is None:
        raise BenchError(f"h2load said nothing that is understood:\n{text}")
    # `requests: 9 total, 9 started, 9 done, 9 succeeded, ...`
    return trial(rate, int(line.split(" succeeded")[0].split()[-1]), False, cpu, disturbed)


def ask_hey(url, rate, *_):
    shape = ["-z", f"{SECONDS}s", "-c", str(CONNECTIONS), "-q", f"{rate / CONNECTIONS:.3f}", "-cpus", "1"]
    text, _, cpu, disturbed = run(["hey", *shape, url])
    counts = [line.split() for line in text.splitlines() if line.strip().startswith("[200]")]
    return trial(rate, sum(int(words[1]) for words in counts), False, cpu, disturbed)


def ask_oha(url, rate, *_):
    """It counts from when a request was due, and has no requests that were not sent: those answered are what it held."""
    shape = ["-z", f"{SECONDS}s", "-c", str(CONNECTIONS), "-q", f"{rate:.0f}", "--latency-correction", "--no-tui"]
    text, _, cpu, disturbed = run([OHA, *shape, "--worker-threads", "1", "--output-format", "json", url])
    return trial(rate, json.loads(text)["statusCodeDistribution"].get("200", 0), False, cpu, disturbed)


def ask_wrk(url, _, *__):
    text, _, cpu, disturbed = run(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", url])
    line = next((line for line in text.splitlines() if " requests in " in line), None)
    if line is None:
        raise BenchError(f"wrk said nothing that is understood:\n{text}")
    return trial(0, int(line.split()[0]), False, cpu, disturbed)


def lateness_of(url, kind, rounds, scratch, forebay, progress):
    """Median and 99th percentile in microseconds, by round."""
    found = []
    for index in range(rounds):
        progress(f"lateness {kind}, round {index + 1}/{rounds}")
        result = scratch / "lateness.json"
        shape = ["-r", f"{LATENESS_RATE}/s", "-d", f"{LATENESS_SECONDS}s", "--arrivals", "even", "--workers", "1"]
        more = [kind] if kind else []
        _, _, _, disturbed = run([forebay, "load", url, *shape, *more, "--quiet", "--report-json", result])
        late = json.loads(result.read_text())["totals"]["lateness"]
        found.append((late["p50_ns"] / 1e3, late["p99_ns"] / 1e3, disturbed))
    return [Spread.of(list(column)) for column in zip(*found)]


TOOLS = {"forebay load": ask_forebay, "h2load": ask_h2load, "hey": ask_hey, "oha": ask_oha, "wrk": ask_wrk}
