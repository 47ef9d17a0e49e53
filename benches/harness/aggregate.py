"""One request answered from many: what it costs and what it adds to its slowest part.

Forebay, the same fan-out by hand with hyper-util, and the tutorial's aggregator in Python, all in front of one upstream.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass

from .measure import Spread, closed_loop, cpu_sample, interleaved
from .process import LOAD_CPU, run
from .targets import AGGREGATORS


@dataclass(frozen=True)
class Load:
    """A closed loop; `parts` is what its CPU time is divided by: the requests to the upstream."""

    name: str
    parts: int
    path: str
    connections: int


# The same number of requests to the upstream is in flight each time, 64 to 100.
PLAIN = Load("forebay_aggregate", 1, "/json", 64)
LOADS = [
    PLAIN,
    *(Load(name, 10, "/10/json", 8) for name in AGGREGATORS),
    *(Load(name, 100, "/100/json", 1) for name in AGGREGATORS),
]
# One source asked directly: what upstream, timer, load generator and machine take by themselves.
DIRECT = "direct"
FANOUTS = [(3, 1000), (10, 100), (100, 100), (1000, 100)]


@dataclass
class PartCost:
    cpu_us: Spread
    ratio: Spread  # to the plain request in the same round
    disturbed: Spread


@dataclass
class Added:
    """Beyond the time of the slowest source, from the client's side, and the CPU time of the whole aggregate."""

    p50_ms: Spread
    cpu_ms: Spread


def measured(targets, rounds, seconds, progress):
    with ExitStack() as stack:
        parts = stack.enter_context(targets.start_parts())
        servers = {name: stack.enter_context(targets.start_proxy(name)) for name in AGGREGATORS}
        servers[DIRECT] = parts
        return cpu_per_part(servers, rounds, seconds, progress), added_time(targets, servers, rounds, progress)


def cpu_per_part(servers, rounds, seconds, progress):
    for load in LOADS:
        closed_loop(servers[load.name].port, load.path, load.connections, 1)
    samples = {load: [] for load in LOADS}
    for index, order in interleaved(LOADS, rounds):
        for load in order:
            progress(f"round {index + 1}/{rounds}: {load.name} {load.path}")
            samples[load].append(cpu_sample(servers[load.name], load.path, load.connections, seconds))

    def cost(load):
        own = [sample.cpu_us / load.parts for sample in samples[load]]
        ratio = [mine / plain.cpu_us for mine, plain in zip(own, samples[PLAIN])]
        return PartCost(Spread.of(own), Spread.of(ratio), Spread.of([sample.disturbed for sample in samples[load]]))

    return {load: cost(load) for load in LOADS}


def added_time(targets, servers, rounds, progress):
    seen = {(name, fanout): [] for name in [DIRECT, *AGGREGATORS] for fanout in FANOUTS}
    for index, order in interleaved(list(seen), rounds):
        for name, (count, millis) in order:
            progress(f"round {index + 1}/{rounds}: {name}, {count} × {millis} ms")
            requests = max(1, 300 // millis)
            path = f"/after/{millis}" if name == DIRECT else f"/{count}/after/{millis}"
            seen[name, (count, millis)].append(slowest(targets, servers[name], path, millis, requests))
    return {key: Added(*(Spread.of(values) for values in zip(*pairs))) for key, pairs in seen.items()}


def slowest(targets, server, path, millis, requests):
    """One aggregate after the other: the median beyond `millis`, and the CPU time of one, in milliseconds."""
    command = [targets.comparator("load"), "count", "--target", f"127.0.0.1:{server.port}"]
    command += ["--path", path, "--requests", str(requests)]
    before = server.cpu_seconds()
    taken = json.loads(run(command, LOAD_CPU, 60))
    # The load generator's connection serves one request before the first that it times.
    cpu = (server.cpu_seconds() - before) / (requests + 1)
    return taken["p50_us"] / 1e3 - millis, cpu * 1e3
