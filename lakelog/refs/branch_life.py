"""The life of a branch: from its creation to its deletion, so that a writer of a branch that was
deleted and created again under its name does not write to the new one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from lakelog.errors import DamagedRef, UnknownRef
from lakelog.refs.ref import Head
from lakelog.refs.refs import Refs


@dataclass(frozen=True)
class BranchLife:
    """The number of the branch's newest move and its generation; 0 and 0 if that is damaged."""

    number: int
    generation: int

    @classmethod
    def of(cls, refs: Refs, branch: str) -> BranchLife | None:
        """Return where a branch stands, None where it is not there."""
        try:
            move = refs.head(branch).move
        except UnknownRef:
            return None
        except DamagedRef:
            return cls(0, 0)
        return cls(move.number, move.generation)

    def goes_on(self, refs: Refs, branch: str) -> bool:
        """Whether a branch is alive and was not deleted since, either."""
        present = BranchLife.of(refs, branch)
        if present is None:
            return False
        # It is damaged, or was not rewound: a deleted branch comes back with another generation.
        is_rewound = present.generation != self.generation
        if not present.number or not self.number or not is_rewound:
            return True
        since = itertools.takewhile(lambda m: m.number > self.number, refs.newest_first(branch))
        return all(move.op != "delete" for move in since)

    def require(self, refs: Refs, branch: str) -> None:
        """Refuse the first append to a branch that was deleted since it was opened, though one of
        its name may be there again. From now on the lock of the writer's file keeps it from being
        deleted.

        Raises UnknownRef.
        """
        if not self.goes_on(refs, branch):
            raise UnknownRef(
                f"branch {branch!r} was deleted since this lake was opened: nothing was stored;"
                " open the lake again"
            )


def only_grew(refs: Refs, head: Head, earlier: Head | None) -> bool:
    """Whether a branch that is at a head went on from an earlier one: it was not taken back since,
    and no other copy of the lake took the place of that one. None is no earlier one."""
    if earlier is None:
        return False
    before = earlier.move
    is_rewound = head.move.generation != before.generation
    return not is_rewound and refs.was_at(head, before.number, before.commit)
