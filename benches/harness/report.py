"""The numbers as Markdown."""

from .measure import FIXED_RATE, FIXED_RATE_CONNECTIONS
from .targets import LABELS

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
