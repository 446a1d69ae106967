"""Doctored training sets: none runs anything, reaches outside or passes as clean; and honest ones,
whose check finds nothing."""

from __future__ import annotations

import random
import shutil
from typing import Any

from lakelog import train
from lakelog.errors import ExportRefused
from tests.support import doctored, trainsets
from tests.torture.case import Case, Row


def check(case: Case) -> None:
    """Doctor four sets, each in another way, and check them by the command."""
    home = case.place
    (home / "outside").mkdir()
    (home / "outside/canary.txt").write_text("canary")
    sets = doctored.build(home)
    for set_ in sets:
        assert train.check(str(set_)).clean, f"{set_.name} was clean before"
    every = doctored.cases(sets, home / "outside")
    random.Random(case.seed).shuffle(every)  # any few of them are of every kind
    count = case.some(4)
    for turn in range(count):
        name, set_, change = every[(case.number * 4 + turn) % len(every)]
        path = home / "doctored/set"
        shutil.rmtree(path.parent, ignore_errors=True)
        shutil.copytree(set_, path)
        change(path, case.dice)
        with doctored.contained(path, home / "outside", name):
            answer = doctored.checked(path)
        assert answer.is_refused, f"{name}: {answer}"
        case.tally.notes[f"up to {-(-answer.peak // 100_000_000)}00 MB"] += 1
        case.verified()


def check_honest(case: Case) -> None:
    """Export four sets by recipes drawn at random, copy each elsewhere, and check them."""
    dice = case.dice
    events = trainsets.notes(dice.randrange(150, 500), dice.randrange(30, 120), case.start)
    with trainsets.lake_of(case.place / "lake", events) as lake:
        for turn in range(case.some(4)):
            made, path = _recipe(dice), case.place / f"copy {turn}'s" / "set"
            try:
                train.export(lake, made, str(case.place / f"out{turn}"))
            except ExportRefused as error:  # a draw may ask for splits that cannot be met
                case.tally.notes[str(error).partition(":")[0]] += 1
                continue
            shutil.copytree(case.place / f"out{turn}", path)
            leaks = train.check(str(path)).leaks
            assert leaks == (), f"{made}: {leaks}"
            case.verified()


def _recipe(dice: random.Random) -> dict[str, Any]:
    """Return a recipe of any simple shape, with any mixture of split, dedupe and redaction."""
    kind = dice.choice(["events", "text", "classification"])
    shape = {"label": dice.choice(["level", "data.tag"])} if kind == "classification" else {}
    split: dict[str, Any] = {"seed": dice.randrange(100)}
    for key, values in {
        "group": [None, "subject"],
        "before": [None, "2026-09-01T02:00:00Z"],
        "stratify": [None, "level"],
    }.items():
        if (value := dice.choice(values)) is not None:
            split[key] = value
    if split.get("stratify") == shape.get("label"):
        split.pop("stratify", None)  # the stratum would stand beside the label, and tell it
    dedupe = {"exact": dice.choice([True, False])}
    if dice.random() < 0.5 and kind != "events":
        dedupe["near"] = dice.choice([0.7, 0.9])
    redact = {"kinds": dice.choice([[], ["email", "ip"]])}
    name = dice.choice(["demo", "qu'o\"te", "ü 漢"])
    return trainsets.recipe(kind, name=name, shape=shape, split=split, dedupe=dedupe, redact=redact)


ROWS = [
    Row("forgeries", "doctored training sets", 300, 600, 150, check),
    Row("honestsets", "honest training sets", 50, 300, 20, check_honest),
]
