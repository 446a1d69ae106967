"""What several tests use: one flipped bit anywhere in a lake."""

from __future__ import annotations

from lakelog.errors import Damaged
from tests.support import damage
from tests.support.damage import Rows


def is_allowed(found: Rows | Damaged, right: Rows, kinds: set[str]) -> bool:
    """Whether a reading is right, a named error, or lacks no more than torn frames."""
    if damage.is_right(found, right):
        return True
    assert not isinstance(found, Damaged)
    return kinds == {"torn"} and damage.were_there(found, right)
