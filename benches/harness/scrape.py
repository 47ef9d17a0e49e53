"""What a scrape of some 10,000 series costs, and what scrapes and viewers of the page do to the requests that run meanwhile.

Forebay on one core with enough routes for so many series, load on the other. Rounds with and rounds without take turns, so
that the machine's other load falls on all alike. Worse than in production, where a scrape has another core to run on than
the data path, and comes every 15 s.
"""

import json
import socket
import threading
import time
import urllib.request
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from .measure import Spread, interleaved
from .process import PROXY_CPU, BenchError, Server
from .rate import preferred, run
from .targets import BENCHES, PORTS

ADMIN = ("127.0.0.1", 18090)
ROUTES = 62
RATE, SECONDS = 1000, 10
VIEWERS = 8
SCRAPES = 30
FORMATS = {
    "text": "text/plain;version=0.0.4",
    "OpenMetrics": "application/openmetrics-text;version=1.0.0",
    "protobuf": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
}
ROUTE = """
[route.r{nth}]
path          = "/r{nth}/*"
upstream      = "files"
deadline      = "15s"
max_in_flight = 4000
"""


def measured(targets, rounds, progress):
    """Series; format → spread of milliseconds; what goes on → spread of p99 in µs, and of its ratio to nothing."""
    scratch, forebay = Path(targets.scratch), str(targets.forebay)
    config = scratch / "scrape.toml"
    config.write_text((BENCHES / "forebay.toml").read_text() + "".join(ROUTE.format(nth=nth) for nth in range(ROUTES)))
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "FOREBAY_BENCH_DIR": str(scratch)}
    with preferred(), targets.start_upstream(), Server(
        "forebay", [forebay, "run", "-c", str(config)], PORTS["forebay"], PROXY_CPU, scratch, env
    ):
        text = scrape(FORMATS["text"])[1].decode()
        series = sum(1 for line in text.splitlines() if line and not line.startswith("#"))
        times = {}
        for name, accept in FORMATS.items():
            progress(f"scrapes as {name}")
            times[name] = Spread.of([scrape(accept)[0] * 1e3 for _ in range(SCRAPES)])
        found = {name: [] for name in MEANWHILE}
        for index, order in interleaved(list(MEANWHILE), rounds):
            for name in order:
                progress(f"p99, {name}, round {index + 1}/{rounds}")
                with MEANWHILE[name]():
                    found[name].append(p99(forebay, scratch))
    ratios = {name: [p99 / alone for p99, alone in zip(column, found["nothing"])] for name, column in found.items()}
    return series, times, {name: (Spread.of(column), Spread.of(ratios[name])) for name, column in found.items()}


def scrape(accept):
    began = time.monotonic()
    url = "http://{}:{}/metrics".format(*ADMIN)
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=10) as answer:
        return time.monotonic() - began, answer.read()


@contextmanager
def in_background(work):
    """`work(ended)` in a thread, until the end of the block."""
    ended, failures = threading.Event(), []

    def perform():
        try:
            work(ended)
        except Exception as error:  # Told below, in the thread that measures.
            failures.append(error)

    thread = threading.Thread(target=perform)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failures:
        raise BenchError(f"what should have gone on meanwhile did not: {failures[0]}") from failures[0]


def scrapes(seconds):
    def scrape_now_and_then(ended):
        while not ended.wait(seconds):
            scrape(FORMATS["protobuf"])

    return in_background(scrape_now_and_then)


def viewers():
    """Browsers with the overview open, live: all routes, each second."""

    def watch(ended):
        with ExitStack() as stack:
            streams = [stack.enter_context(socket.create_connection(ADMIN, timeout=10)) for _ in range(VIEWERS)]
            for stream in streams:
                stream.sendall(b"GET /events?view=overview HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while not ended.is_set():
                for stream in streams:
                    if not stream.recv(1 << 20):
                        raise BenchError("a stream of the page has ended")

    return in_background(watch)


MEANWHILE = {
    "nothing": nullcontext,
    "a scrape every 5 s": lambda: scrapes(5),
    "a scrape each second": lambda: scrapes(1),
    f"{VIEWERS} viewers of the page": viewers,
}


def p99(forebay, scratch):
    """Of service times, in microseconds: how late the generator itself was does not matter here."""
    result = scratch / "scrape.json"
    shape = ["-r", f"{RATE}/s", "-d", f"{SECONDS}s", "--arrivals", "even", "--workers", "1"]
    url = f"http://127.0.0.1:{PORTS['forebay']}/1k"
    run([forebay, "load", url, *shape, "--quiet", "--report-json", result])
    return json.loads(result.read_text())["totals"]["service"]["p99_ns"] / 1e3
