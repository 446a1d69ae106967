"""How many planted incidents are found in real logs, how soon, and what is found without any.

    python -m benchmarks.incidents [--worlds N] [--quiet DAYS] [--seed S] [--keep FOLDER]

Each world has a week to learn from and then four days with ten incidents; quiet worlds have a week
and then days without any. An incident counts as found if something was raised between its begin and
five minutes after it could be seen: a creep once it is half as much again as usual, a missing end
once the longest job would be over, all others at once. Its cause is right if the first finding of
the incident names the series that was changed. Nothing looks ahead: a finding counts at the time at
which it was raised.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import lakelog
from benchmarks.incident_worlds import DAY, KINDS, MINUTE, START, Planted, RealLogs, World, plan
from lakelog.anomalies import Incident, incidents
from tests.support.tree import SHARED

LEARN, WATCHED, PLANTED, QUIET = 7, 4, 10, 10
"""Days to learn from, days with incidents, incidents of a world, days without any."""
_SOON = 5 * MINUTE
_AFTER = 90 * MINUTE
"""What is found so soon after an incident is its end, and no false alarm."""
_BATCH, _QUIET_SEED = 20_000, 1_000


@dataclass
class Tally:
    """What became of incidents, by kind; which were missed, late or taken for something else, and
    what was found besides."""

    planted: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    caused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def add(self, planted: Planted, seen: list[Incident]) -> None:
        """Note whether an incident is among those that were seen."""
        self.planted[planted.incident] += 1
        raised = [
            (finding.raised_us / 1e6, incident)
            for incident in seen
            for finding in incident.findings
            if planted.start <= finding.raised_us / 1e6 <= planted.end + _AFTER
        ]
        if not raised:
            self.wrong.append(f"{_named(planted)}: not found")
            return
        moment, incident = min(raised, key=lambda found: found[0])
        if moment > planted.visible + _SOON:
            minutes = (moment - planted.visible) / MINUTE
            self.wrong.append(f"{_named(planted)}: after {minutes:.1f} minutes")
            return
        self.found[planted.incident] += 1
        cause = incident.findings[0].series
        if any(name in cause for name in planted.causes):
            self.caused[planted.incident] += 1
        else:
            self.wrong.append(f"{_named(planted)}: taken for {cause}")


def _named(planted: Planted) -> str:
    hours = (planted.start - START) % DAY / 3600
    return f"{planted.incident} of {planted.causes[0]} at {hours:04.1f} h"


def lake_of(folder: Path, logs: RealLogs, seed: int, days: int, planted: list[Planted]) -> Path:
    """Make the lake of a world, if it is not there yet."""
    path = folder / f"world-{seed}-{days}-{len(planted)}"
    if not path.exists():
        events = World(logs, seed, days, planted).events()
        with lakelog.open(path, settings={"seal": "never"}) as lake:
            for begin in range(0, len(events), _BATCH):
                lake.append(events[begin : begin + _BATCH])
            lake.settle()
    return path


def seen_in(path: Path, days: int) -> list[Incident]:
    """What was unusual in the days after those to learn from."""
    with lakelog.open(path, settings={"seal": "never"}) as lake:
        return incidents(lake, since=f"{days - LEARN}d")


def measure(folder: Path, logs: RealLogs, worlds: range, quiet: range) -> tuple[Tally, list[str]]:
    """Return what became of the incidents of some worlds, and the false alarms of quiet days."""
    tally, alarms = Tally(), list[str]()
    for seed in worlds:
        kinds = [KINDS[(seed * PLANTED + n) % len(KINDS)] for n in range(PLANTED)]
        random.Random(seed).shuffle(kinds)
        planted, days = plan(seed, LEARN, WATCHED, kinds), LEARN + WATCHED
        seen = seen_in(lake_of(folder, logs, seed, days, planted), days)
        for one in planted:
            tally.add(one, seen)
        tally.others += [_shown(i) for i in seen if not _is_of_any(i, planted)]
    for seed in quiet:
        days = LEARN + QUIET
        alarms += map(_shown, seen_in(lake_of(folder, logs, seed, days, []), days))
    return tally, alarms


def _is_of_any(incident: Incident, planted: list[Planted]) -> bool:
    start, end = incident.start_us / 1e6, incident.end_us / 1e6
    return any(start <= one.end + _AFTER and end >= one.start for one in planted)


def _shown(incident: Incident) -> str:
    finding = incident.findings[0]
    day, hour = divmod((finding.start_us / 1e6 - START) / DAY, 1)
    return (
        f"day {day:.0f} {hour * 24:04.1f} h {finding.aspect} {finding.series}:"
        f" {finding.observed:.4g}, expected {finding.expected:.4g} ({finding.deviations:.1f})"
    )


def main() -> None:
    """Print a line for each kind, and the false alarms of quiet days."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--quiet", type=int, default=30, help="days without incidents")
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    parser.add_argument("--keep", type=Path, help="where lakes stay for the next run")
    parser.add_argument("--shared", type=Path, default=SHARED, help="where the logs are")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lakelog-incidents-") as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(exist_ok=True)
        worlds = range(given.seed, given.seed + given.worlds)
        quiet = range(given.seed + _QUIET_SEED, given.seed + _QUIET_SEED + given.quiet // QUIET)
        tally, alarms = measure(folder, RealLogs(given.shared), worlds, quiet)
    print("incident      planted  found  cause right")
    for kind in KINDS:
        print(f"{kind:12} {tally.planted[kind]:8} {tally.found[kind]:6} {tally.caused[kind]:12}")
    totals = (sum(counts.values()) for counts in (tally.planted, tally.found, tally.caused))
    print("all          {:8} {:6} {:12}".format(*totals))
    print(*tally.wrong, sep="\n")
    print(f"{len(tally.others)} others in {given.worlds * WATCHED} days with incidents:")
    print(*tally.others, sep="\n")
    print(f"{len(alarms)} false alarms in {given.quiet // QUIET * QUIET} quiet days:")
    print(*alarms, sep="\n")


if __name__ == "__main__":
    main()
