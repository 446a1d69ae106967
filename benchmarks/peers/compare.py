"""Do the parts of the work on every peer, one after the other; keep every figure; print the table.

    python -m benchmarks.peers [PART...] [--peers NAMES] [--quick] [--python FILE] [--resume]
    python -m benchmarks.peers --table

Figures are kept after each part and peer, so that a run can be stopped, resumed, done part by part
or merged from several files, and the table printed anew without measuring. The peers run in an
environment of their own, whose Python is named by --python (`make bench` makes it). What is not
installed, or cannot do a part, is said and left out.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import gen, measure, report
from benchmarks.measure import ROOT, WORK, progress
from benchmarks.peers import PEERS, plots, table
from benchmarks.peers.rows import Figures

STORES = ("lakelog", "duckdb_table", "sqlite", "deltalake", "pyiceberg", "lance", "chdb")
LOADED = (*STORES[:2], "duckdb_copy", "duckdb_typed", *STORES[2:])
SERVED = ("lakelog", "sqlite", "chdb", "floor")
STREAMED = ("lakelog", "sqlite", "eventsourcing")
MINED = ("lakelog", "drain3")
SHARED = ("lakelog", "deltalake", "pyiceberg", "lance")
SEARCHED = ("lakelog", "chdb", "tantivy", "sqlite", "duckdb_copy", "ripgrep")
RESULTS = ROOT / "benchmarks" / "peers.json"
PAGE = ROOT / "benchmarks" / "PEERS.md"
PLOTS = ROOT / "benchmarks" / "plots"
GRACE = 20
"""Seconds that the last part may take longer than there is time."""


@dataclass(frozen=True)
class Size:
    """How much one run does; seconds are limits, the machine decides how much is done in them."""

    name: str = "full"
    minutes: float = 20
    events: int = 1_000_000
    many: int = 10_000_000
    asking: float = 2
    cut: float = 30
    grown: int = 2_000
    growing: float = 10
    committing: float = 1
    processes: str = "1,4,10"
    machines: str = "1,4"
    bursting: float = 2
    unsealed: int = 1_000_000
    filling: float = 8
    segments: str = "10,100,1000,10000,100000"
    moves: str = "10,100,1000,10000"
    messages: int = 300_000
    rows: int = 20_000


FULL = Size()
QUICK = Size(
    name="quick",
    minutes=3,
    events=100_000,
    many=0,
    asking=0.3,
    cut=10,
    grown=200,
    growing=2,
    committing=0.2,
    processes="1,4",
    bursting=0.5,
    unsealed=50_000,
    filling=1.5,
    segments="10,100,1000,10000",
    moves="10,100,1000",
    messages=30_000,
    rows=2_000,
)
TINY = Size(
    name="tiny",
    minutes=3,
    events=2_000,
    many=0,
    asking=0.01,
    cut=10,
    grown=40,
    growing=1,
    committing=0.02,
    processes="1,2",
    machines="2",
    bursting=0.1,
    unsealed=2_000,
    filling=1,
    segments="10,100",
    moves="10,20",
    messages=500,
    rows=200,
)


@dataclass(frozen=True)
class Part:
    """A part of the work: who does it, with which arguments, on how many events."""

    work: str
    who: tuple[str, ...]
    words: tuple[object, ...] = ()
    events: int = 0


def parts(size: Size) -> dict[str, Part]:
    """Every part by name, in the order in which they are done: what matters most first."""
    few, many = size.events, size.many
    found = {
        "load": Part(
            "bulk", (*LOADED, "floor", "zstd", "datasets"), (size.asking, size.cut, "all"), few
        ),
        "commits": Part(
            "commits", (*STORES, "floor"), (size.grown, size.growing, size.committing), few
        ),
        "killed": Part("killed", STORES, (size.unsealed, size.filling), few),
        "segments": Part("segments", ("lakelog", "deltalake"), (size.segments,), few),
        "history": Part("history", ("lakelog",), (size.moves,), few),
        "search": Part("search", SEARCHED, (size.asking,), few),
        "http": Part("http", SERVED, (size.filling,), few),
        "streams": Part("streams", STREAMED, (size.committing,), few),
        "templates": Part("templates", MINED, (size.messages,), few),
        "shared": Part("shared", SHARED, (size.machines, 10, size.bursting), few),
        "train": Part("train", ("lakelog", "datasets"), (), size.rows),
        "processes": Part(
            "processes", (*STORES, "floor"), (size.processes, 10, size.bursting), few
        ),
        "many": Part("bulk", LOADED, (size.asking / 2, size.cut, "few"), many),
    }
    return {name: part for name, part in found.items() if part.events}


@dataclass
class Run:
    """One comparison: what is done, by which Python, and where the figures are kept."""

    size: Size
    python: str
    results: Path
    seed: int = 7
    figures: Figures = field(default_factory=dict)
    load: float = 0.0
    """How many cores others kept busy when the run began."""

    def all(self, names: list[str], peers: list[str], resume: bool) -> None:
        """Do parts on peers; stop in time, and say what was not done."""
        until = time.monotonic() + self.size.minutes * 60
        self.load = round(measure.busy_cores(), 2)
        every = parts(self.size)
        # The packages of all peers are compiled when they are installed; lakelog runs from its
        # sources.
        for package in ("lakelog", "benchmarks"):
            compileall.compile_dir(ROOT / package, quiet=2)
        with tempfile.TemporaryDirectory(dir=WORK, prefix="peers-") as where:
            for name in names:
                for peer in every[name].who:
                    if peer not in peers or (resume and "error" not in self._held(name, peer)):
                        continue
                    if time.monotonic() > until:
                        # Its figures of an earlier run, perhaps of another machine, go.
                        self._note(name, every[name], peer, {"error": self._late()})
                        continue
                    self._one(name, every[name], peer, Path(where), until)

    def _held(self, name: str, peer: str) -> dict[str, Any]:
        return self.figures.get(name, {}).get(peer, {"error": "not done"})

    def _one(self, name: str, part: Part, peer: str, where: Path, until: float) -> None:
        root = where / name / peer
        root.mkdir(parents=True)
        events = self._events(part.events)
        began = time.perf_counter()
        got = self._child(part, peer, root, events, until - time.monotonic() + GRACE)
        got["took"] = round(time.perf_counter() - began, 2)
        shutil.rmtree(root, ignore_errors=True)
        self._note(name, part, peer, got)

    def _late(self) -> str:
        return f"not done when {self.size.minutes:g} minutes were over"

    def _note(self, name: str, part: Part, peer: str, got: dict[str, Any]) -> None:
        """Keep what was measured, or why nothing was."""
        progress(f"{peer}: {name} {got.get('error', 'done')} in {got.get('took', 0):.1f} s")
        machine = report.machine()
        got |= {
            "events": part.events,
            "load_before": self.load,
            "seed": self.seed,
            "commit": machine["commit"],
            "at": time.strftime("%Y-%m-%d %H:%M"),
        }
        self.figures.setdefault(name, {})[peer] = got
        save(self.results, self.size, self.figures, machine)

    def _child(
        self, part: Part, peer: str, root: Path, events: Path, span: float
    ) -> dict[str, Any]:
        python = sys.executable if peer in ("lakelog", "floor") else self.python
        words = [python, "-m", "benchmarks.peers.work", peer, part.work, root, events, *part.words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(root.parent.parent)}
        try:
            done = subprocess.run(
                [str(word) for word in words],
                capture_output=True,
                text=True,
                cwd=root.parent,
                env=environment,
                timeout=span,
            )
        except subprocess.TimeoutExpired:
            return {"error": self._late()}
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return {"error": (lines or ["it failed"])[-1].strip()[:200]}
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def _events(self, count: int) -> Path:
        """The file of so many events, kept for the next run."""
        path = WORK / "kept" / f"events-{count}-{self.seed}.jsonl"
        if not path.exists():
            progress(f"writing {count:,} events")
            path.parent.mkdir(parents=True, exist_ok=True)
            building = path.with_suffix(f".{os.getpid()}")
            gen.write(count, building, self.seed)
            building.rename(path)
        return path


def save(path: Path, size: Size, figures: Figures, machine: dict[str, Any]) -> None:
    """Write all figures, whole or not at all."""
    body = {"scale": size.name, "machine": machine, "figures": figures}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(body, indent=1) + "\n")
    fresh.rename(path)


def load(path: Path, size: Size) -> Figures:
    """Read the figures of a file; those of a run of another size are none."""
    if not path.exists():
        return {}
    body = json.loads(path.read_text())
    if body["scale"] != size.name:
        raise SystemExit(f"{path} holds figures of a {body['scale']} run: name another file")
    return dict(body["figures"])


def merged(one: Figures, other: Figures) -> Figures:
    """Figures of both; where both have one, that which was measured later."""
    both = {name: dict(held) for name, held in one.items()}
    for name, held in other.items():
        mine = both.setdefault(name, {})
        for peer, got in held.items():
            if peer not in mine or mine[peer]["at"] <= got["at"]:
                mine[peer] = got
    return both


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PART", help=", ".join(parts(FULL)))
    parser.add_argument("--peers", metavar="NAMES", help="some of " + ",".join(PEERS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the events, 3 minutes")
    parser.add_argument("--minutes", type=float, help="when to stop; 20, or 3 with --quick")
    parser.add_argument("--seed", type=int, default=7, help="of the events")
    parser.add_argument("--python", default=sys.executable, help="that of the peers' environment")
    parser.add_argument("--resume", action="store_true", help="do only what has no figures yet")
    parser.add_argument("--table", action="store_true", help="measure nothing, print")
    parser.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="take in figures of other runs",
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep the figures there")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page there")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write the plots there")
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    size = replace(size, minutes=given.minutes) if given.minutes else size
    WORK.mkdir(parents=True, exist_ok=True)
    names = given.names or list(parts(size))
    peers = given.peers.split(",") if given.peers else list(PEERS)
    for word in {*names} - parts(size).keys() | {*peers} - PEERS.keys():
        parser.error(f"there is no {word}: choose of {[*parts(size)]} and {[*PEERS]}")
    if not Path(given.python).exists():
        parser.error(f"there is no {given.python}: `make bench` makes an environment for the peers")
    quick = WORK / "peers-quick"
    results = given.results or (quick.with_suffix(".json") if given.quick else RESULTS)
    run = Run(size, os.path.abspath(given.python), results, given.seed, load(results, size))
    for path in given.merge:
        run.figures = merged(run.figures, load(path, size))
    if not given.table:
        run.all(names, peers, given.resume)
    machine = json.loads(results.read_text())["machine"] if results.exists() else report.machine()
    save(results, size, run.figures, machine)
    page = given.page or (quick.with_suffix(".md") if given.quick else PAGE)
    text = table.page(run.figures, machine, size.name)
    page.write_text(text)
    plots.write(run.figures, given.plots or (quick if given.quick else PLOTS))
    print(text)
    return 0
