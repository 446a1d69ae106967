"""Going back with all parts: events, saved directories, deployment.

`rollback` returns to a state, with the `PARTS` that are chosen, and takes that back; a `Preflight`
says beforehand what changes. `rollback.live_states` are those that were saved in each revision of a
deployment.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.rollback import rollback as rollback
    from lakelog.rollback.preflight import PARTS as PARTS
    from lakelog.rollback.preflight import Preflight as Preflight

__getattr__, __all__ = lazy_face(__name__)
