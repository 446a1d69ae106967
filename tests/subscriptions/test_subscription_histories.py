"""Random histories of a subscription and its members, beside a plain model.

Programs append, ingest and seal; members of one group react to each event with another one, and are
killed or stopped at any moment; the branch is tagged, compacted, rolled back and branched. Once the
members have caught up, each event of the state has one reaction, and those of a subject are in its
order; so it is in every state.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.subscription_history import History

KILLS = int(os.environ.get("LAKELOG_SUBSCRIPTION_KILLS", "6"))
SEED = int(os.environ.get("LAKELOG_SUBSCRIPTION_SEED", "0"))


@pytest.mark.timeout(60 + 3 * KILLS)
@pytest.mark.parametrize("seed", [SEED])
def test_each_event_is_handled_once_in_each_state(home: Path, seed: int) -> None:
    """A group of four that is killed, stopped, rolled back and branched handles each event of every
    state exactly once, those of a subject in order."""
    history = History(home, seed)
    try:
        history.run(KILLS)
    finally:
        history.end()
        history.lake.close()
