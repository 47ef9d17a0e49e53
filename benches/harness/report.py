"""The numbers as Markdown."""

from .aggregate import DIRECT, FANOUTS, LOADS, PLAIN
from .measure import FIXED_RATE, FIXED_RATE_CONNECTIONS
from .targets import AGGREGATORS, LABELS
from . import rate, scrape as scrape_part
from .truth import CONNECTIONS, QUANTILES, RATE, SECONDS

KIB = 1024


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def spread(value, digits):
    return f"{value.median:.{digits}f} ({value.low:.{digits}f}–{value.high:.{digits}f})"


def cpu(size, costs):
    rows = [
        [
            LABELS[name],
            spread(cost.ratio, 2),
            spread(cost.cpu_us, 1),
            f"{cost.per_second.median:.0f}",
            f"{cost.disturbed.median:.0%}",
        ]
        for name, cost in sorted(costs.items(), key=lambda item: item[1].ratio.median)
    ]
    rounds = next(iter(costs.values())).cpu_us.rounds
    head = ["target", "÷ nginx, same round", "CPU µs per request", "requests/s", "core used by others"]
    return f"### CPU per request, {size} body ({rounds} rounds; median and quartiles)\n\n{table(head, rows)}\n"


def latency(values):
    rows = [
        [LABELS[name], *(spread(v, 0) for v in (taken.p50_us, taken.added_p50_us, taken.p99_us, taken.added_p99_us))]
        for name, taken in sorted(values.items(), key=lambda item: item[1].p50_us.median)
    ]
    head = ["target", "p50 µs", "added p50", "p99 µs", "added p99"]
    load = f"{FIXED_RATE} requests/s, 1k body, {FIXED_RATE_CONNECTIONS} connections"
    return f"### Latency at {load}, from the intended start\n\n{table(head, rows)}\n"


def memory(values):
    counts = list(next(iter(values.values())).idle)
    rows = []
    for name, taken in values.items():
        idle = [f"{taken.per_idle(count) / KIB:.1f}" for count in counts]
        after = f"{(taken.after_close - taken.fresh) / KIB / KIB:.1f}"
        rows.append([LABELS[name], f"{taken.fresh / KIB / KIB:.1f}", *idle, after, f"{taken.per_held() / KIB:.1f}"])
    head = ["target", "fresh MiB", *(f"KiB per idle, {count}" for count in counts)]
    head += ["MiB kept after close", "KiB per held request"]
    return f"### Memory (resident, of the whole process)\n\n{table(head, rows)}\n"


def counts(values):
    rows = [[LABELS[name], f"{taken.instructions:.0f}", f"{taken.allocations:.2f}"] for name, taken in values.items()]
    head = ["target", "user instructions per request", "allocator calls per request"]
    return f"### Counted by callgrind, 1k body, one connection\n\n{table(head, rows)}\n"


def part_costs(costs):
    def label(load):
        return f"a plain request through {LABELS[load.name]}" if load == PLAIN else f"{load.parts} sources, {LABELS[load.name]}"

    rows = [
        [label(load), spread(costs[load].cpu_us, 1), spread(costs[load].ratio, 2), f"{costs[load].disturbed.median:.0%}"]
        for load in LOADS
    ]
    rounds = costs[PLAIN].cpu_us.rounds
    head = ["", "CPU µs per request to the upstream", "÷ plain request, same round", "core used by others"]
    title = f"### Aggregates: CPU per sub-request, 1 KiB of JSON each ({rounds} rounds; median and quartiles)"
    note = "The whole CPU time of the aggregator, the client's own request included, divided by the requests to the upstream."
    return f"{title}\n\n{note}\n\n{table(head, rows)}\n"


def added(values):
    rows = []
    for count, millis in FANOUTS:
        taken = [values[name, (count, millis)] for name in AGGREGATORS]
        times = [spread(one.p50_ms, 1) for one in [values[DIRECT, (count, millis)], *taken]]
        rows.append([f"{count} × {millis} ms", *times, *(f"{one.cpu_ms.median:.1f}" for one in taken)])
    names = [LABELS[name] for name in AGGREGATORS]
    head = ["sources", "one source asked directly: added ms", *(f"{name}: added ms" for name in names), *(f"{name}: CPU ms" for name in names)]
    rounds = next(iter(values.values())).p50_ms.rounds
    title = f"### Aggregates: time beyond the slowest source at p50 ({rounds} rounds; median and quartiles)"
    note = (
        "Wall-clock time as the client sees it minus the sources' nominal time, so with the upstream's own work, up to "
        "1 ms of its timer and whatever else the machine does; CPU time is the aggregator's for the whole request."
    )
    return f"{title}\n\n{note}\n\n{table(head, rows)}\n"


def part_counts(plain, aggregate):
    rows = [
        ["a plain request", f"{plain.instructions:.0f}", f"{plain.allocations:.2f}"],
        ["a sub-request of ten", f"{aggregate.instructions:.0f}", f"{aggregate.allocations:.2f}"],
    ]
    head = ["Forebay", "user instructions", "allocator calls"]
    return f"### Aggregates: counted by callgrind, 1 KiB of JSON\n\n{table(head, rows)}\n"


SERVERS = {
    "stall": "One second of standing still within 10 s",
    "independent": "0.5 % of the requests slow by 100 ms, independently",
}


def truth(found):
    head = ["tool", "requests", *(f"p{q * 100:g} ms" for q in QUANTILES), "max ms", "mean ms"]
    chapters = []
    for server, told in found.items():
        rows = [
            [
                f"**{tool}**" if tool == "forebay load" else tool,
                f"{by.requests}",
                *(f"{value:.1f}" for value in [*by.quantiles, by.maximum, by.mean]),
            ]
            for tool, by in told.items()
        ]
        chapters.append(f"#### {SERVERS[server]}\n\n{table(head, rows)}\n")
    load = f"{RATE} requests/s for {SECONDS} s, {CONNECTIONS} connections; wrk knows no rate and sends what it can"
    return f"### Load generators on latencies that are known ({load})\n\n" + "\n".join(chapters)


def verdict(tool, of):
    if tool != "forebay load":
        return "says nothing"
    if of.honest is None:
        return "void each time"
    within = "" if of.honest_rounds == of.rate.rounds else f", in {of.honest_rounds} of {of.rate.rounds} rounds"
    return spread(of.honest, 0) + within


def scrape(series, times, p99s):
    rows = [[name, spread(took, 1)] for name, took in times.items()]
    late = [[name, spread(p99, 0), spread(ratio, 2)] for name, (p99, ratio) in p99s.items()]
    rounds = next(iter(p99s.values()))[0].rounds
    return (
        f"### A scrape of {series} series\n\n{table(['format', 'milliseconds'], rows)}\n\n"
        f"p99 of requests at {scrape_part.RATE}/s meanwhile, scrapes (protobuf) and viewers on the same core; {rounds} rounds of "
        f"{scrape_part.SECONDS} s:\n\n{table(['meanwhile', 'p99 µs', 'to nothing in the same round'], late)}\n"
    )


def rates(held, lateness):
    rows = [
        [
            f"**{tool}**" if tool == "forebay load" else tool,
            f"{of.rate.median:.0f} ({of.rate.low:.0f}–{of.rate.high:.0f})" if tool != "wrk" else "knows no rate",
            verdict(tool, of),
            spread(of.cpu_us, 1),
            spread(of.common_cpu_us, 1) if tool != "wrk" else "-",
            f"{of.disturbed.median:.0%}",
        ]
        for tool, of in held.items()
    ]
    rounds = next(iter(held.values())).rate.rounds
    head = ["tool", "highest rate held, 1/s", "good by its own verdict, 1/s", "CPU µs per request there"]
    head += [f"CPU µs at {rate.COMMON_RATE}/s", "core used by others"]
    late = [
        [f"`forebay load {kind}`".replace(" `", "`"), spread(p50, 0), spread(p99, 0), f"{disturbed.median:.0%}"]
        for kind, (p50, p99, disturbed) in lateness.items()
    ]
    what = f"{rate.CONNECTIONS} connections, {rate.SECONDS} s each, {rounds} rounds; median and quartiles"
    asked = f"{rate.LATENESS_RATE} requests/s for {rate.LATENESS_SECONDS} s"
    return (
        f"### The highest rate on one core ({what})\n\n"
        "Held: at least 99 % of what was asked for was answered well. wrk sends what it can, so its CPU time is that of a closed loop\n"
        f"in which one wake-up serves many connections.\n\n{table(head, rows)}\n\n"
        f"### Lateness of releases ({asked})\n\n{table(['', 'p50 µs', 'p99 µs', 'core used by others'], late)}\n"
    )
