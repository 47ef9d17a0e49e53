"""Instructions and allocations for one request, counted by callgrind: they do not depend on the machine's load.

Two runs that differ only in the number of requests; the difference divided by the difference of the counts leaves
out start-up. One connection, one request after the other, and an upstream that answers after 2 ms: then each request
takes the same way through the event loop, sleeping wherever it can, and the counts repeat. Allocations are the calls of the allocator's entry points, so that a Rust program's own
jemalloc counts as well as the C library's malloc (valgrind's dhat would see the latter only).

What is done once a second (a reading for the page's history, a look at the allocator) is in the difference as well, since more
requests take longer: 800 of the instructions and 0.2 of the allocations of a plain request, 1600 and 0.5 of a sub-request.
"""

import re
from contextlib import ExitStack
from dataclasses import dataclass

from .process import LOAD_CPU, BenchError, run
from .targets import PORTS, STAGGERED

FEW, MANY = 400, 2400
STARTUP_SECONDS = 120
ALLOCATORS = re.compile(
    r"^(_rjem_|je_|mi_)?(malloc|calloc|realloc|memalign|aligned_alloc|posix_memalign|mallocx|rallocx)(@.*)?('\d+)?$"
)


@dataclass
class Counts:
    instructions: float
    allocations: float


@dataclass
class Kind:
    """What is asked of a target."""

    path: str
    upstreams: tuple  # What else must run, as names of `Targets`' methods.
    few: int
    many: int
    parts: int = 1  # The counts are divided by it.


PLAIN = Kind("/late", ("start_hold", "start_upstream"), FEW, MANY)
# Its counts are for one of its sub-requests, with a tenth of the client's own request.
AGGREGATE = Kind("/staggered", ("start_parts",), 40, 240, len(STAGGERED))


def per_request(targets, name, progress, kind=PLAIN):
    totals = []
    for requests in (kind.few, kind.many):
        progress(f"callgrind: {name}, {requests} requests of {kind.path}")
        totals.append(collect(targets, name, kind, requests))
    base, more = totals
    return Counts(*((m - b) / (kind.many - kind.few) / kind.parts for m, b in zip(more, base)))


def collect(targets, name, kind, requests):
    out = targets.scratch / f"callgrind.{name}.{requests}"
    wrapper = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--compress-strings=no", "--quiet"]
    with ExitStack() as stack:
        for upstream in kind.upstreams:
            stack.enter_context(getattr(targets, upstream)())
        server = stack.enter_context(targets.start_proxy(name, wrapper, STARTUP_SECONDS))
        command = [targets.comparator("load"), "count", "--target", f"127.0.0.1:{PORTS[name]}", "--path", kind.path]
        run([*command, "--requests", str(requests)], LOAD_CPU, 120)
        server.stop(patience_seconds=20)
    if not out.is_file():
        raise BenchError(f"callgrind wrote nothing for {name}:\n{server.log_tail()}")
    return parse(out)


def parse(path):
    """Total instructions and allocator calls of a callgrind file (see valgrind's "Callgrind Format Specification")."""
    instructions, allocations, callee = None, 0, ""
    with path.open(errors="replace") as lines:
        for line in lines:
            if line.startswith("cfn="):
                callee = line[4:].strip()
            elif line.startswith("calls=") and ALLOCATORS.match(callee):
                allocations += int(line[6:].split()[0])
            elif line.startswith(("summary:", "totals:")):
                instructions = int(line.split()[1])
    if instructions is None:
        raise BenchError(f"{path} has no summary line: the program was killed before callgrind could write")
    return instructions, allocations
