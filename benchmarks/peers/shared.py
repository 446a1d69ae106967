"""One table of several machines, by way of a directory that all of them reach.

A peer of this part may have the method

    machine(name)   the peer as one machine has it: `commit` ends when others can see the events

and is else opened by each process at the same place.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

from benchmarks.peers.commits import processes
from benchmarks.peers.steps import Machine, Maker, batches, close

TIMES = 20


def shared(make: Maker, events: str, counts: str, each: str, span: str) -> dict[str, Any]:
    """Commit by several machines at once; and by one, until another one counts the events."""
    machines = Machine(make.name, make.root)
    result = processes(machines, events, counts, each, span)["of"]
    two = replace(machines, root=f"{make.root}/two")
    writer, reader = two(name="writer"), two(name="reader")
    parts, taken, stored = batches(events, int(each)), [], 0
    for _ in range(1 + TIMES):
        began = time.perf_counter()
        writer.commit(next(parts))
        stored += int(each)
        [(found,)] = reader.ask("count")
        taken.append(time.perf_counter() - began)
        if found != stored:
            raise AssertionError(f"{stored} events were committed, the other sees {found}")
    close(writer)
    close(reader)
    return {"of": result | {"seen": statistics.median(taken[1:])}}
