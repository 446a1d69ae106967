"""Applications of the library `eventsourcing` on a lake: PERSISTENCE_MODULE=lakelog.eventsourcing.

LAKELOG_PATH is the lake's directory, LAKELOG_BRANCH its branch; ORIGINATOR_ID_TYPE is uuid or text.
It is imported at once, as the library looks for a factory among what this module holds.
"""

from lakelog.eventsourcing.recorders import Factory

__all__ = ["Factory"]
