"""What a scrape of some 10,000 series costs, and what it does to the requests that run meanwhile.

Forebay on one core with enough routes for so many series, load on the other. Rounds with scrapes and rounds without take
turns, so that the machine's other load falls on all alike. Worse than in production, where a scrape has another core to
run on than the data path, and comes every 15 s.
"""

import json
import threading
import time
import urllib.request
from pathlib import Path

from .measure import Spread, interleaved
from .process import PROXY_CPU, Server
from .rate import preferred, run
from .targets import BENCHES, PORTS

ADMIN = "http://127.0.0.1:18090/metrics"
ROUTES = 62
RATE, SECONDS = 1000, 10
# Seconds between scrapes; `None` is without.
EVERY = [None, 5, 1]
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
    """Series; format → spread of milliseconds; seconds between scrapes → spread of p99 in µs, and of its ratio to none."""
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
        found = {every: [] for every in EVERY}
        for index, order in interleaved(EVERY, rounds):
            for every in order:
                progress(f"p99, scrapes every {every} s, round {index + 1}/{rounds}")
                found[every].append(p99(forebay, scratch, every))
    ratios = {every: [with_it / without for with_it, without in zip(found[every], found[None])] for every in EVERY}
    return series, times, {every: (Spread.of(found[every]), Spread.of(ratios[every])) for every in EVERY}


def scrape(accept):
    began = time.monotonic()
    with urllib.request.urlopen(urllib.request.Request(ADMIN, headers={"Accept": accept}), timeout=10) as answer:
        return time.monotonic() - began, answer.read()


def p99(forebay, scratch, every):
    """Of service times, in microseconds: how late the generator itself was does not matter here."""
    ended = threading.Event()

    def scrape_now_and_then():
        while not ended.wait(every):
            scrape(FORMATS["protobuf"])

    scraper = threading.Thread(target=scrape_now_and_then)
    if every:
        scraper.start()
    try:
        result = scratch / "scrape.json"
        shape = ["-r", f"{RATE}/s", "-d", f"{SECONDS}s", "--arrivals", "even", "--workers", "1"]
        url = f"http://127.0.0.1:{PORTS['forebay']}/1k"
        run([forebay, "load", url, *shape, "--quiet", "--report-json", result])
    finally:
        ended.set()
        if every:
            scraper.join()
    return json.loads(result.read_text())["totals"]["service"]["p99_ns"] / 1e3

