"""Going back with all parts: events, saved directories, deployment.

`rollback` returns to a state, with the `PARTS` that are chosen, and takes that back; a `Preflight`
says beforehand what changes. `rollback.live_states` are those that were saved in each revision of a
deployment.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.rollback import rollback
    from lakelog.rollback.preflight import PARTS, Preflight

__all__ = ["PARTS", "Preflight", "rollback"]

__getattr__ = lazy_face(__name__, preflight="PARTS Preflight", rollback="")
