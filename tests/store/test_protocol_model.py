"""The protocol as a model: with all its rules nothing goes wrong, without any one something does.

Replay one seed: `python -c "from tests.support.protocol_model import *; print(run(SEED, ...))"`.
"""

from __future__ import annotations

import pytest

from tests.support.effort import share
from tests.support.protocol_model import RULES, Mode, run

SEEDS = share(2000)
MODES = [
    Mode(),
    Mode(shared_ids=True),
    Mode(failures=0.2),
    Mode(rollback=True),
    Mode(power=True),
    Mode(power=True, shared_ids=True, failures=0.2),
    Mode(gc=True),
    Mode(gc=True, rollback=True),
]
NEEDED = {
    "wal before head": (Mode(), {"missing"}),
    "second look": (Mode(), {"damaged"}),
    "look again": (Mode(), {"double"}),
    "tail dedupe": (Mode(shared_ids=True), {"double"}),
    "same watermark": (Mode(), {"double"}),
    "file still there": (Mode(), {"double"}),
    "ids again": (Mode(shared_ids=True), {"double"}),
    "entry outlives files": (Mode(), {"double"}),
    "drop is durable": (Mode(power=True), {"double"}),
    "trim is durable": (Mode(power=True), {"missing"}),
    "probe the hint": (Mode(), {"stuck"}),
    "carry watermarks": (Mode(rollback=True), {"resurrected"}),
    "lock until next": (Mode(), {"stuck"}),
    "carry the state": (Mode(gc=True, rollback=True), {"gone"}),
    "young before link": (Mode(gc=True), {"gone"}),
    "refuse condemned": (Mode(gc=True), {"gone"}),
    "refs again": (Mode(gc=True), {"gone"}),
}
SEARCH = 3000
"""The rarest fault shows up about once in four hundred seeds."""


@pytest.mark.rounds
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_with_all_rules_nothing_goes_wrong(mode: Mode) -> None:
    """No interleaving loses, doubles or resurrects an event, or lets a count go back."""
    bad = {seed: faults for seed in range(SEEDS) if (faults := run(seed, mode))}
    assert bad == {}, f"replay: run({min(bad)}, {mode})"


@pytest.mark.matrix
@pytest.mark.parametrize("rule", NEEDED)
def test_without_a_rule_something_goes_wrong(rule: str) -> None:
    """Switching off one rule makes some interleaving show the fault that the rule prevents."""
    mode, expected = NEEDED[rule]
    found: set[str] = set()
    for seed in range(SEARCH):
        found |= run(seed, mode, frozenset({rule}))
        if expected <= found:
            return
    raise AssertionError(f"{SEARCH} seeds without {rule!r} ({RULES[rule]}) found only {found}")


def test_every_rule_is_tried() -> None:
    """The list of rules switched off is the list of rules."""
    assert NEEDED.keys() == RULES.keys()
