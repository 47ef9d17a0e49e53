"""The measurements. Each returns plain numbers; nothing here knows how they are shown."""

import json
import re
import socket
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass

from .process import LOAD_CPU, PROXY_CPU, BenchError, busy_seconds, run
from .targets import PORTS, UPSTREAM_PORT

# 64 connections load one worker fully; a megabyte each fills the buffers of the loopback with fewer.
CONNECTIONS = {"1k": 64, "64k": 64, "1m": 16}
FIXED_RATE = 2000
FIXED_RATE_CONNECTIONS = 32


@dataclass
class Spread:
    """Median and quartiles of a few rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values):
        values = sorted(values)
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(statistics.median(values), low, high, len(values))


@dataclass
class Cost:
    cpu_us: Spread
    ratio: Spread
    per_second: Spread
    # The part of the proxy's core that other programs used meanwhile: above a tenth, doubt the microseconds.
    disturbed: Spread


def interleaved(names, rounds):
    """Every target once a round, the order turned round each time, so that a slow minute falls on all alike."""
    for index in range(rounds):
        yield index, (names if index % 2 == 0 else list(reversed(names)))


def cpu_per_request(targets, names, size, rounds, seconds, progress):
    """CPU time of the proxy for a request, closed loop, and its ratio to nginx in the same round."""
    samples = {name: [] for name in names}
    with ExitStack() as stack:
        upstream = stack.enter_context(targets.start_upstream())
        proxies = [name for name in names if name != "direct"]
        servers = {name: stack.enter_context(targets.start_proxy(name)) for name in proxies}
        servers["direct"] = upstream
        for name in names:
            closed_loop(PORTS[name], f"/{size}", CONNECTIONS[size], 0.5)
        for index, order in interleaved(names, rounds):
            for name in order:
                progress(f"{size} round {index + 1}/{rounds}: {name}")
                samples[name].append(cpu_sample(servers[name], f"/{size}", CONNECTIONS[size], seconds))

    def cost(name):
        own, base = samples[name], samples["nginx"]
        ratios = [sample.cpu_us / nginx.cpu_us for sample, nginx in zip(own, base)]
        columns = ([getattr(sample, key) for sample in own] for key in ("cpu_us", "per_second", "disturbed"))
        cpu_us, per_second, disturbed = map(Spread.of, columns)
        return Cost(cpu_us, Spread.of(ratios), per_second, disturbed)

    return {name: cost(name) for name in names}


@dataclass
class CpuSample:
    cpu_us: float
    per_second: float
    disturbed: float


def cpu_sample(server, path, connections, seconds):
    own, core = server.cpu_seconds(), busy_seconds(PROXY_CPU)
    requests, taken = closed_loop(server.port, path, connections, seconds)
    own, core = server.cpu_seconds() - own, busy_seconds(PROXY_CPU) - core
    return CpuSample(own * 1e6 / requests, requests / taken, max(0.0, core - own) / taken)


def closed_loop(port, path, connections, seconds):
    """As many requests as wrk can place: their number and the time they took."""
    url = f"http://127.0.0.1:{port}{path}"
    # wrk takes whole seconds only.
    duration = max(1, round(seconds))
    text = run(["wrk", "-t1", f"-c{connections}", f"-d{duration}s", url], LOAD_CPU, duration + 20)
    if "Socket errors" in text or "Non-2xx" in text:
        raise BenchError(f"{url} did not answer every request with 200:\n{text}")
    found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", text)
    if not found or int(found[1]) == 0:
        raise BenchError(f"wrk measured nothing at {url}:\n{text}")
    return int(found[1]), float(found[2]) * {"ms": 1e-3, "s": 1, "m": 60}[found[3]]


@dataclass
class Latency:
    p50_us: Spread
    p99_us: Spread
    added_p50_us: Spread
    added_p99_us: Spread


def added_latency(targets, names, rounds, seconds, progress):
    """Open loop at a fixed rate, from the intended start; and what each proxy adds to `direct` in the same round."""
    names = ["direct", *(name for name in names if name != "direct")]
    seen = {name: [] for name in names}
    with ExitStack() as stack:
        stack.enter_context(targets.start_upstream())
        for name in names[1:]:
            stack.enter_context(targets.start_proxy(name))
        for index, order in interleaved(names, rounds):
            for name in order:
                progress(f"{FIXED_RATE}/s round {index + 1}/{rounds}: {name}")
                seen[name].append(open_loop(targets, PORTS[name], seconds))
    direct = seen["direct"]

    def spreads(name):
        def column(key):
            return [taken[key] for taken in seen[name]]

        def added(key):
            return [taken[key] - base[key] for taken, base in zip(seen[name], direct)]

        return Latency(*(Spread.of(v) for v in (column("p50_us"), column("p99_us"), added("p50_us"), added("p99_us"))))

    return {name: spreads(name) for name in names}


def open_loop(targets, port, seconds):
    command = [targets.comparator("load"), "rate", "--target", f"127.0.0.1:{port}", "--path", "/1k"]
    command += ["--rate", str(FIXED_RATE), "--connections", str(FIXED_RATE_CONNECTIONS), "--seconds", str(seconds)]
    return json.loads(run(command, LOAD_CPU, seconds + 70))


@dataclass
class Memory:
    """Resident bytes of a fresh process, with idle connections, after they left; of another with held requests."""

    fresh: int
    idle: dict  # connections -> resident bytes in all
    after_close: int
    held: int  # what `held_requests` requests without an answer add to a fresh process
    held_requests: int

    def per_idle(self, connections):
        return (self.idle[connections] - self.fresh) / connections

    def per_held(self):
        return self.held / self.held_requests


def memory(targets, name, idle_counts, held_requests, progress):
    with targets.start_hold(), targets.start_upstream():
        progress(f"memory: {name}, idle connections")
        with targets.start_proxy(name) as server:
            fresh = warm_rss(server, name)
            idle, after_close = idle_memory(server, name, idle_counts)
        # A process of its own: what idle connections left behind would be used again and hide the cost.
        progress(f"memory: {name}, held requests")
        with targets.start_proxy(name) as server:
            held = held_memory(server, name, held_requests)
    return Memory(fresh, idle, after_close, held, held_requests)


def warm_rss(server, name):
    """Resident memory after the first requests: pools, arenas and code pages that come once are there."""
    for stream in [exchange(connect(name), "/1k") for _ in range(64)]:
        stream.close()
    return settled_rss(server)


def idle_memory(server, name, counts):
    streams, idle = [], {}
    for count in counts:
        while len(streams) < count:
            streams.append(exchange(connect(name), "/1k"))
        idle[count] = settled_rss(server)
    for stream in streams:
        stream.close()
    return idle, settled_rss(server)


def held_memory(server, name, requests):
    before = warm_rss(server, name)
    streams = [send(connect(name), "/hold") for _ in range(requests)]
    held = settled_rss(server)
    answered = sum(1 for stream in streams if is_readable(stream))
    for stream in streams:
        stream.close()
    if answered:
        raise BenchError(f"{name} answered {answered} of {requests} requests that should have been held")
    return held - before


def connect(name):
    port = UPSTREAM_PORT if name == "direct" else PORTS[name]
    stream = socket.create_connection(("127.0.0.1", port), timeout=10)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def send(stream, path):
    stream.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    return stream


def exchange(stream, path):
    """One request and its whole answer; the connection stays open."""
    send(stream, path)
    received = b""
    while b"\r\n\r\n" not in received:
        received += receive(stream)
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise BenchError(f"the answer was not 200: {head.decode(errors='replace')}")
    length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
    while len(body) < length:
        body += receive(stream)
    return stream


def receive(stream):
    part = stream.recv(65536)
    if not part:
        raise BenchError("the connection was closed in the middle of an answer")
    return part


def is_readable(stream):
    stream.setblocking(False)
    try:
        stream.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return True


def settled_rss(server, seconds=4.0):
    """Resident memory once it has not moved for half a second (allocators give back with a delay), within a bound."""
    deadline = time.monotonic() + seconds
    last, since = server.rss_bytes(), time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < 0.5:
        time.sleep(0.05)
        now = server.rss_bytes()
        if abs(now - last) > 16 * 1024:
            last, since = now, time.monotonic()
    return server.rss_bytes()
