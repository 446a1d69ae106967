"""One part of the work on one peer, in a process of its own; the last line printed is its result.

python -m benchmarks.peers.work PEER PART DIRECTORY EVENTS [ARGUMENT...]
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from importlib.metadata import version

from benchmarks.peers import PEERS, bulk, commits, killed, texts
from benchmarks.peers.steps import Maker, peak

PARTS = {
    "bulk": bulk.bulk,
    "train": bulk.train,
    "commits": commits.commits,
    "processes": commits.processes,
    "killed": killed.killed,
    "fill": killed.fill,
    "search": texts.search,
    "http": "http",
    "streams": "streams",
    "templates": "templates",
    "shared": "shared",
    "segments": "curves",
    "history": "curves",
}
"""What a command line may name; what few peers do is its module, loaded when asked for."""


def main() -> None:
    """Do the part of the work that the command line names."""
    name, part, root, events, *words = sys.argv[1:]
    maker = Maker(name, root)
    run = PARTS[part]
    if isinstance(run, str):
        run = getattr(importlib.import_module(f"benchmarks.peers.{run}"), part)
    result = run(maker, events, *words)
    package = PEERS[name].package
    found = version(package) if package else ""
    print("\n" + json.dumps({"peak": peak(), **result, "version": found}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
