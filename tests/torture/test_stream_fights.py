"""Processes that fight for streams and are killed, for as long as LAKELOG_STREAM_TRIES asks.

Eight at a time make so many tries on a hundred subjects, while LAKELOG_STREAM_KILLS of them are
killed at any moment and replaced, and others seal and compact.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import lakelog
from tests.support.requirements import give_up
from tests.support.stream_fights import FIGHT, judge

TRIES = int(os.environ.get("LAKELOG_STREAM_TRIES", "0"))
KILLS = int(os.environ.get("LAKELOG_STREAM_KILLS", "50"))
SUBJECTS = int(os.environ.get("LAKELOG_STREAM_SUBJECTS", "100"))
CREW = 8


def test_a_crew_that_is_killed(tmp_path: Path) -> None:
    """No version is lost, doubled or left out."""
    if not TRIES:
        give_up("LAKELOG_STREAM_TRIES, such as 10000")
    path, dice = str(tmp_path / "lake"), random.Random(1)
    lakelog.open(path, settings={"rotate_events": 2000}).close()
    outputs, crew, kills, started = list[Path](), list[subprocess.Popen[bytes]](), KILLS, 0

    def start() -> subprocess.Popen[bytes]:
        nonlocal started
        started += 1
        outputs.append(tmp_path / f"{started}.txt")
        words = [path, str(started), str(TRIES // CREW), str(SUBJECTS)]
        with outputs[-1].open("wb") as out:
            return subprocess.Popen([sys.executable, "-c", FIGHT, *words], stdout=out)

    crew = [start() for _ in range(CREW)]
    while crew:
        time.sleep(dice.uniform(0.3, 0.9))
        if kills and crew:
            kills -= 1
            victim = dice.choice(crew)
            victim.kill()
            victim.wait()
            crew.remove(victim)
            crew.append(start())
            with lakelog.open(path, create=False) as lake:
                dice.choice([lake.settle, lake.compact, lake.count])()
        crew = [process for process in crew if process.poll() is None]
    # The last line of a process that was killed may be cut.
    texts = [output.read_text().rpartition("\n")[0] for output in outputs]
    assert judge(path, texts, SUBJECTS) > TRIES // 10
