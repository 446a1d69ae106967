"""Saved directories: captured, listed, compared, restored, and rolled back with the branch.

A `StateCatalog` has each `SavedState` of a lake, and prunes them by a `Retention`; `save_state`
adds one, and a `RestoreRequest` brings one back, unless a `StateSwitch` turns that off. Under both
are `Present`, what directories hold now, and a `RestorePlan` of what is exchanged. A rollback of
all parts is an `Intent` of the lake's `Rollbacks`, with a name of the `SafetyTags`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.state.catalog import StateCatalog as StateCatalog
    from lakelog.state.present import Present as Present
    from lakelog.state.restore import RestoreRequest as RestoreRequest
    from lakelog.state.restore_plan import RestorePlan as RestorePlan
    from lakelog.state.retention import Retention as Retention
    from lakelog.state.rewind import Intent as Intent
    from lakelog.state.rewind import Rollbacks as Rollbacks
    from lakelog.state.safety_tags import SafetyTags as SafetyTags
    from lakelog.state.saved_state import SavedState as SavedState
    from lakelog.state.state import SaveResult as SaveResult
    from lakelog.state.state import save_state as save_state
    from lakelog.state.switch import StateSwitch as StateSwitch

__getattr__, __all__ = lazy_face(__name__)
