"""The life of a branch: from its creation to its deletion, so that a writer of a branch that was
deleted and created again under its name does not write to the new one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from lakelog.errors import DamagedRef, UnknownRef
from lakelog.store.refs import Refs


@dataclass(frozen=True)
class BranchLife:
    """The number of the branch's newest move and its generation; 0 and 0 if that is damaged."""

    number: int
    generation: int


def life_of(refs: Refs, branch: str) -> BranchLife | None:
    """Return where a branch stands, None where it is not there."""
    try:
        move = refs.head(branch).move
    except UnknownRef:
        return None
    except DamagedRef:
        return BranchLife(0, 0)
    return BranchLife(move.number, move.generation)


def is_same_life(refs: Refs, branch: str, life: BranchLife) -> bool:
    """Whether a branch is alive and was not deleted since, either."""
    present = life_of(refs, branch)
    if present is None:
        return False
    # It is damaged, or was not rewound: a deleted branch comes back with another generation.
    is_rewound = present.generation != life.generation
    if not present.number or not life.number or not is_rewound:
        return True
    since = itertools.takewhile(lambda m: m.number > life.number, refs.newest_first(branch))
    return all(move.op != "delete" for move in since)
