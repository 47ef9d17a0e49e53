"""What load generators say about servers whose latencies are known: `forebay simulate` on one core, each tool on the
other, one after another, 10 s at 1000/s over 50 connections where the tool knows connections.

Two servers, each of which tells one kind of mistake:
  stall        answers at once, but for one second in which it stands still. Requests keep coming due then, so a
               quantile q above 0.9 is 1 s − (1 − q) · 10 s, and the mean 1 s² / (2 · 10 s). A tool that waits for
               answers before it sends more does not see it (coordinated omission).
  independent  each request is slow with probability 0.5 %, by 100 ms, and holds up no other. A tool that fills in
               requests which it has not sent ("correction") invents slow ones here.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .process import LOAD_CPU, PROXY_CPU, BenchError, Server, on_cpu
from .targets import OHA

RATE, SECONDS, CONNECTIONS = 1000, 10, 50
QUANTILES = (0.5, 0.9, 0.95, 0.99)
# Nobody is heard of for longer than this: run, answers that are waited for, start.
PATIENCE = SECONDS + 30
STALL = """latency = "0s"
schedule_from = "first_request"
[[upstream.known.schedule]]
at = "4s"
for = "1s"
stall = true
"""
INDEPENDENT = """latency = { mix = [{ weight = 0.995, latency = "0s" }, { weight = 0.005, latency = "100ms" }] }
"""
WRK_SCRIPT = """done = function(summary, latency)
  io.write(string.format("RESULT %d %f %f %f %f %f %f\\n", summary.requests, latency:percentile(50),
    latency:percentile(90), latency:percentile(95), latency:percentile(99), latency.max, latency.mean))
end
"""


@dataclass
class Told:
    """What a tool says, or what is true. Times in milliseconds, in the order of QUANTILES."""

    requests: int
    quantiles: list
    maximum: float
    mean: float

    @classmethod
    def of(cls, values):
        values = sorted(values)
        if not values:
            raise BenchError("a load generator has recorded nothing")
        at = [values[min(len(values) - 1, int(q * len(values)))] for q in QUANTILES]
        return cls(len(values), at, values[-1], sum(values) / len(values))


PORT = 18095
TRUTH = {
    "stall": Told(RATE * SECONDS, [0, 0, 500, 900], 1000, 50),
    "independent": Told(RATE * SECONDS, [0, 0, 0, 0], 100, 0.5),
}
SERVERS = {"stall": STALL, "independent": INDEPENDENT}


def measured(targets, progress):
    """Server → what each tool says of it."""
    forebay, scratch = str(targets.forebay), Path(targets.scratch)
    found = {}
    for name, settings in SERVERS.items():
        config = scratch / f"{name}.toml"
        config.write_text(f'seed = 1\n[upstream.known]\naddress = "127.0.0.1:{PORT}"\n{settings}')
        found[name] = {"theory": TRUTH[name]}
        for tool, ask in TOOLS.items():
            progress(f"{tool} on {name}")
            # Anew for each: the schedule begins with its first request, and all meet the same draws.
            server = Server(f"simulate-{name}", [forebay, "simulate", "-c", str(config)], PORT, PROXY_CPU, scratch)
            try:
                found[name][tool] = ask(f"http://127.0.0.1:{PORT}/", scratch, forebay)
            finally:
                server.stop()
    return found


def run(command):
    """Output of a tool on the core for load. A void run of ours has a result, too."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, preexec_fn=on_cpu(LOAD_CPU), check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{command[0]} did not end within {PATIENCE} s") from error
    if done.returncode not in (0, 4):
        raise BenchError(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return done.stdout


def ask_forebay(url, scratch, forebay):
    result = scratch / "truth.json"
    shape = ["-r", f"{RATE}/s", "-d", f"{SECONDS}s", "--arrivals", "even", "--workers", "1"]
    run([forebay, "load", url, *shape, "--quiet", "--report-json", str(result)])
    totals = json.loads(result.read_text())["totals"]
    response = totals["response"]
    at = [response[name] / 1e6 for name in ("p50_ns", "p90_ns", "p95_ns", "p99_ns")]
    return Told(totals["sent"], at, response["max_ns"] / 1e6, response["mean_ns"] / 1e6)


def ask_wrk(url, scratch, _):
    script = scratch / "truth.lua"
    script.write_text(WRK_SCRIPT)
    text = run(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(script), url])
    line = next((line for line in text.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise BenchError(f"wrk said nothing that is understood:\n{text}")
    requests, *times = line.split()[1:]
    *at, maximum, mean = (float(time) / 1000 for time in times)
    return Told(int(requests), at, maximum, mean)


def ask_hey(url, *_):
    per_connection = RATE // CONNECTIONS
    text = run(["hey", "-z", f"{SECONDS}s", "-c", str(CONNECTIONS), "-q", str(per_connection), "-o", "csv", url])
    rows = [line.split(",") for line in text.splitlines()]
    return Told.of([float(row[0]) * 1000 for row in rows if row and row[0][:1].isdigit()])


def ask_h2load(url, scratch, _):
    log = scratch / "h2load.log"
    log.unlink(missing_ok=True)
    shape = [f"-c{CONNECTIONS}", f"-D{SECONDS}", f"--rps={RATE // CONNECTIONS}", "-t1"]
    run(["h2load", "--h1", *shape, f"--log-file={log}", url])
    return Told.of([float(line.split()[2]) / 1000 for line in log.read_text().splitlines()])


def ask_oha(url, *_):
    shape = ["-z", f"{SECONDS}s", "-c", str(CONNECTIONS), "-q", str(RATE), "--latency-correction", "--no-tui"]
    told = json.loads(run([OHA, *shape, "--worker-threads", "1", "--output-format", "json", url]))
    percentiles, summary = told["latencyPercentiles"], told["summary"]
    at = [percentiles[name] * 1000 for name in ("p50", "p90", "p95", "p99")]
    return Told(sum(told["statusCodeDistribution"].values()), at, summary["slowest"] * 1000, summary["average"] * 1000)


TOOLS = {"forebay load": ask_forebay, "wrk": ask_wrk, "hey": ask_hey, "h2load": ask_h2load, "oha": ask_oha}
