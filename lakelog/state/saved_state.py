"""A saved state: a tag, and the directories that were captured by its save."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lakelog.chunks import StateRecord
from lakelog.refs import Tag
from lakelog.state.origin import Origins

RESTORE_MESSAGE = "before restore of "
_SAFETY = "before-rollback-"


@dataclass(frozen=True)
class SavedState:
    """A state: its tag and the directories that were captured by its save. `machine` saved it, ""
    before there were ids; `is_own` if that is this one. `before` is BEFORE_RESTORE or
    BEFORE_ROLLBACK if nobody asked for it, and it was saved before one."""

    BEFORE_RESTORE: ClassVar = "restore"
    BEFORE_ROLLBACK: ClassVar = "rollback"

    name: str
    snapshot: str
    time: int
    author: str
    message: str
    directories: tuple[StateRecord, ...]
    machine: str = ""
    is_own: bool = True
    before: str = ""

    @property
    def place(self) -> tuple[int, int, str]:
        """Where it stands among the states of its machine."""
        return *max((record.place for record in self.directories), default=(0, 0)), self.name

    @property
    def bytes(self) -> int:
        """The bytes of all files."""
        return sum(record.bytes for record in self.directories)

    @property
    def files(self) -> int:
        """The number of files."""
        return sum(record.files for record in self.directories)

    @staticmethod
    def of(tag: Tag, records: list[StateRecord], origins: Origins, save: str) -> SavedState:
        """Return the state of a tag, whose manifest has these records and was made by this
        `save`."""
        # What only an earlier save captured is in the manifest, too, but not of this one.
        own_records = tuple(record for record in records if record.save == save)
        if not own_records:  # of an earlier version
            latest = StateRecord.newest(records)
            own_records = tuple(r for r in records if latest and r.place == latest.place)
        before = max((record.before for record in own_records), default="")
        if not any(record.machine for record in own_records) and tag.message.startswith(
            RESTORE_MESSAGE
        ):
            before = SavedState.BEFORE_RESTORE
        # A rollback that finds everything saved only gives that one more name.
        if tag.name.startswith(_SAFETY):
            before = SavedState.BEFORE_ROLLBACK
        return SavedState(
            tag.name,
            tag.snapshot,
            tag.time,
            tag.author,
            tag.message,
            own_records,
            # Of one save all records name the same machine.
            max((record.machine for record in own_records), default=""),
            bool(own_records) and all(map(origins.is_own, own_records)),
            before,
        )
