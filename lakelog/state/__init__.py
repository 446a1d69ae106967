"""Saved directories: captured, listed, compared, restored, and rolled back with the branch.

A `StateCatalog` has each `SavedState` of a lake, and prunes them by a `Retention`; `save_state`
adds one, and a `RestoreRequest` brings one back, unless a `StateSwitch` turns that off. Under both
are `Present`, what directories hold now, and a `RestorePlan` of what is exchanged. A rollback of
all parts is an `Intent` of the lake's `Rollbacks`, with a name of the `SafetyTags`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.state.catalog import StateCatalog
    from lakelog.state.present import Present
    from lakelog.state.restore import RestoreRequest
    from lakelog.state.restore_plan import RestorePlan
    from lakelog.state.retention import Retention
    from lakelog.state.rewind import Intent, Rollbacks
    from lakelog.state.safety_tags import SafetyTags
    from lakelog.state.saved_state import SavedState
    from lakelog.state.state import SaveResult, save_state
    from lakelog.state.switch import StateSwitch

__all__ = [
    "Intent",
    "Present",
    "RestorePlan",
    "RestoreRequest",
    "Retention",
    "Rollbacks",
    "SafetyTags",
    "SaveResult",
    "SavedState",
    "StateCatalog",
    "StateSwitch",
    "save_state",
]

__getattr__ = lazy_face(
    __name__,
    catalog="StateCatalog",
    present="Present",
    restore="RestoreRequest",
    restore_plan="RestorePlan",
    retention="Retention",
    rewind="Intent Rollbacks",
    safety_tags="SafetyTags",
    saved_state="SavedState",
    state="SaveResult save_state",
    switch="StateSwitch",
)
