"""Revisions of a deployment and the states that belong to them.

Numbers of revisions change at every rollback; the hash of their pods does not. A state that a pod
saved has it, so each revision is shown with the newest state that was saved in it.
"""

from __future__ import annotations

from lakelog.lake import Lake
from lakelog.state.listing import SavedState, list_states


def live_states(lake: Lake, name: str, namespace: str) -> dict[str, SavedState]:
    """Return the newest state that was saved in each revision of a deployment, by the hash of its
    pods, of another machine only where this one saved none. Raises Damaged."""
    live: dict[str, SavedState] = {}
    # Own states first: setdefault keeps them.
    for state in sorted(list_states(lake), key=lambda state: not state.is_own):
        for record in state.directories:
            ran = record.deployment
            if (ran.get("name"), ran.get("namespace", "default")) == (name, namespace):
                live.setdefault(ran.get("hash", ""), state)
    return live
