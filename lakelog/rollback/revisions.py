"""Revisions of a deployment and the states that belong to them.

Numbers of revisions change at every rollback; the hash of their pods does not. A state that a pod
saved has it, so each revision is shown with the newest state that was saved in it.
"""

from __future__ import annotations

from lakelog.deploy import Kubectl, Revision
from lakelog.lake import Lake
from lakelog.state.listing import SavedState, list_states
from lakelog.store import policy
from lakelog.store.publish import note, with_reason


def live_states(lake: Lake, name: str, namespace: str) -> dict[str, SavedState]:
    """Return the newest state that was saved in each revision of a deployment, by the hash of its
    pods, of another machine only where this one saved none. Raises Damaged."""
    live: dict[str, SavedState] = {}
    for state in sorted(list_states(lake), key=lambda state: not state.is_own):
        for record in state.directories:
            ran = record.deployment
            if (ran.get("name"), ran.get("namespace", "default")) == (name, namespace):
                live.setdefault(ran.get("hash", ""), state)
    return live


def return_to(
    lake: Lake | None,
    cluster: Kubectl,
    name: str,
    revision: Revision,
    *,
    why: str = "",
    seconds: int = 300,
) -> None:
    """Let a deployment have a revision again, and wait for its pods. The log of the lake, if there
    is one, says so, and `why`. Raises NotAllowed, DeploymentFailed."""
    if lake is not None:
        policy.require(lake.store.paths, "deploy")
    cluster.begin_undo(name, revision)
    if lake is not None:
        message = f"{name} to revision {revision.number} ({revision.hash})"
        note(lake.store, lake.branch_name, "deploy", with_reason(message, why))
    cluster.wait(name, seconds)
