#!/usr/bin/env python3
"""`make bench`, `make bench-gate`: Forebay, everything on, beside nginx, HAProxy, bare pingora and a byte forwarder;
what an aggregate costs, beside hyper-util and Python; what load generators say about latencies that are known,
and the rate that they hold on one core; what a scrape costs and does to the requests beside it.

    benches/run.py bench [--quick] [--targets nginx,forebay] [--only cpu,latency,memory,counts]
    benches/run.py gate [--update]

One worker each, the proxy on core 0, load and upstream on core 1, rounds interleaved. What to trust: the ratio to
nginx in the same round, and callgrind's counts; both hold on a busy machine. Everything is on loopback, ends within a
bound (about 6 minutes with --quick, 20 without), and only processes started here are ended here.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from harness import aggregate, counts, measure, rate, report, scrape, truth
from harness.process import BenchError
from harness.targets import BENCHES, PORTS, PROTOTYPES, REPOSITORY, STANDARD, Targets

# For an aggregate the counts are for a sub-request.
GATED = {"forebay_aggregate": counts.AGGREGATE}
BASELINE = BENCHES / "baseline.json"
RESULTS = BENCHES / "results.md"
PARTS = ["cpu", "latency", "memory", "counts", "aggregate", "truth", "rate", "scrape"]
# HAProxy 2.6 does not start under valgrind.
COUNTED = {"forebay", "nginx", "pingora_proxy", "pingora_core", "own_codec", "forward"}


def main():
    arguments = parse_arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="forebay-bench-") as scratch:
            targets = Targets(scratch, arguments.comparators, arguments.forebay)
            return bench(arguments, targets) if arguments.command == "bench" else gate(arguments, targets)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    built = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    tools = Path(os.environ.get("CARGO_TARGET_DIR", BENCHES / "comparators" / "target"))
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--forebay", default=built / "release" / "forebay", help="the release binary")
    common.add_argument("--comparators", default=tools / "release", help="folder of the comparators' binaries")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("bench", parents=[common], help="measure and write benches/results.md")
    run.add_argument("--quick", action="store_true", help="fewer and shorter rounds, within 3 minutes")
    run.add_argument("--targets", default=",".join(STANDARD), help=f"of {', '.join([*STANDARD, *PROTOTYPES])}")
    run.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    run.add_argument("--sizes", default="1k,64k,1m", help="bodies for the CPU part")
    run.add_argument("--out", type=Path, default=RESULTS, help="the Markdown file to write")
    check = commands.add_parser("gate", parents=[common], help="compare callgrind's counts with benches/baseline.json")
    check.add_argument("--update", action="store_true", help="write the baseline instead")
    check.add_argument("--target", default="forebay,forebay_aggregate", help="one or more, with commas between them")
    return parser.parse_args()


def bench(arguments, targets):
    names, parts = listed(arguments.targets, PORTS), listed(arguments.only, PARTS)
    if "cpu" in parts and "nginx" not in names:
        raise BenchError("the CPU part needs nginx among the targets: it is the unit")
    proxies = [name for name in names if name != "direct"]
    for name in proxies if set(parts) - {"truth", "rate", "scrape"} else ():
        targets.command(name)  # A missing binary is said at once, not after ten minutes.
    rounds, seconds = (3, 2) if arguments.quick else (8, 3)
    chapters = [describe_machine(rounds)]

    def add(chapter):
        chapters.append(chapter)
        print(chapter, flush=True)

    if "cpu" in parts:
        for size in listed(arguments.sizes, measure.CONNECTIONS):
            # The larger bodies are side dishes: half the rounds.
            some = rounds if size == "1k" else max(2, rounds // 2)
            add(report.cpu(size, measure.cpu_per_request(targets, names, size, some, seconds, progress)))
    if "latency" in parts:
        add(report.latency(measure.added_latency(targets, names, max(2, rounds // 2), seconds, progress)))
    if "memory" in parts:
        sizes, held = ([1000], 500) if arguments.quick else ([1000, 5000], 1000)
        add(report.memory({name: measure.memory(targets, name, sizes, held, progress) for name in proxies}))
    if "counts" in parts:
        kind = replace(counts.PLAIN, few=200, many=700) if arguments.quick else counts.PLAIN
        counted = [name for name in names if name in COUNTED]
        add(report.counts({name: counts.per_request(targets, name, progress, kind) for name in counted}))
    if "aggregate" in parts:
        costs, added = aggregate.measured(targets, 3 if arguments.quick else 5, seconds - 1, progress)
        add(report.part_costs(costs))
        add(report.added(added))
        plain = counts.per_request(targets, "forebay", progress, replace(counts.PLAIN, few=200, many=700))
        add(report.part_counts(plain, counts.per_request(targets, "forebay_aggregate", progress, counts.AGGREGATE)))
    if "truth" in parts:
        add(report.truth(truth.measured(targets, progress)))
    if "rate" in parts:
        add(report.rates(*rate.measured(targets, 3 if arguments.quick else 5, progress)))
    if "scrape" in parts:
        add(report.scrape(*scrape.measured(targets, 4 if arguments.quick else 8, progress)))
    arguments.out.write_text("\n".join(chapters))
    progress(f"written to {arguments.out}")
    return 0


def listed(text, known):
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            raise BenchError(f"`{name}` is not one of {', '.join(known)}")
    return names


def describe_machine(rounds):
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in cpus if line.startswith("model name")), "unknown")
    when = time.strftime("%Y-%m-%d", time.gmtime())
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"# Benchmark results\n\nWritten by `benches/run.py` on {when}: {os.cpu_count()} × {model}, "
        f"Linux {platform.release()}, up to {rounds} rounds; load average at the start {load} (1, 5 and 15 minutes). "
        "Absolute times move with the machine's other load; the ratios within the same round and callgrind's counts "
        "do so much less.\n"
    )


def gate(arguments, targets):
    """Fails when a request has become dearer than the committed baseline and its tolerance."""
    names = arguments.target.split(",")
    found = {name: counts.per_request(targets, name, progress, GATED.get(name, counts.PLAIN)) for name in names}
    print(report.counts(found))
    known = json.loads(BASELINE.read_text()) if BASELINE.is_file() else {"tolerance": {}, "targets": {}}
    if arguments.update:
        for name, taken in found.items():
            entry = known["targets"].setdefault(name, {})
            entry |= {"instructions": round(taken.instructions), "allocations": round(taken.allocations, 2)}
        BASELINE.write_text(json.dumps(known, indent=2) + "\n")
        progress(f"written to {BASELINE}")
        return 0
    for name in names:
        if name not in known["targets"]:
            advice = "run `benches/run.py gate --update` and commit it"
            raise BenchError(f"{BASELINE} has no entry for {name}: {advice}")
    return max(verdict(name, known["targets"][name], known["tolerance"], found[name]) for name in names)


def verdict(target, base, tolerance, found):
    """0 when both counts are within the tolerance, 3 (a gate was missed) when one is above it."""
    # A target whose wake-ups fall together now and then, as those of an aggregate do, has a tolerance of its own.
    percent = base.get("instructions_percent", tolerance["instructions_percent"])
    limits = {
        "instructions": base["instructions"] * (1 + percent / 100),
        "allocations": base["allocations"] + tolerance["allocations"],
    }
    missed = [name for name, limit in limits.items() if getattr(found, name) > limit]
    for name in limits:
        word = "MISSED" if name in missed else "ok"
        print(f"{word}: {target}: {name} {getattr(found, name):.2f}, baseline {base[name]}, limit {limits[name]:.2f}")
    return 3 if missed else 0


def progress(text):
    print(f"  … {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
