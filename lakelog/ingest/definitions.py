"""The formats that a lake defines: listing, matching to files, adding and removing.

Each is an entry of kind `format` in the manifest, so that every process that opens the lake uses
it, and every state names those in use. A rollback keeps the present ones, because they say how to
read what comes next; a file's cursor holds the definition that it was read by in full.
"""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass, replace

from lakelog.disk import disk
from lakelog.entries import Record, Removal
from lakelog.errors import AlreadyExists, InvalidSetting, UnknownRef
from lakelog.files import FileCursor, LogName
from lakelog.formats import FORMATS, FormatDefinition
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head
from lakelog.store import Store

WHAT = "format"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class LakeFormat:
    """A format definition of a lake, and the files that it is for: by a glob or by --source."""

    definition: FormatDefinition
    globs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    time: int = 0

    @property
    def name(self) -> str:
        """The name that users call it by."""
        return self.definition.name

    def entry(self) -> Record:
        """The manifest entry of the format."""
        members = self.definition.members()
        del members["name"]
        files = {"for": list(self.globs), "sources": list(self.sources), "time": self.time}
        return Record(WHAT, self.name, {**members, **files})

    @classmethod
    def from_entry(cls, record: Record) -> LakeFormat:
        """Return the format that an entry holds."""
        members = record.members
        globs, sources = (tuple(map(str, members.get(n) or ())) for n in ("for", "sources"))
        time = int(members.get("time") or 0)
        return cls(
            FormatDefinition.of_members({**members, "name": record.key}), globs, sources, time
        )

    def rank(self, path: str, label: str | None) -> int:
        """How closely the format matches a file, 0 if not at all: a source before any glob, and of
        globs the longest."""
        if label is not None and label in self.sources:
            return 1 << 20
        fitting = [len(glob) for glob in self.globs if _fits(path, glob)]
        return max(fitting, default=-1) + 1

    @classmethod
    def of_state(cls, store: Store, state: Manifest) -> Formats:
        """Return the formats that a state holds, by name. Raises DamagedManifest."""
        formats = store.manifests.read_records(state, WHAT, cls.from_entry)
        return {form.name: form for form in formats}

    @classmethod
    def present(cls, store: Store, branch: str) -> Formats:
        """Return the formats that a branch holds now."""
        return cls.of_state(store, store.state(branch))

    @staticmethod
    def find(formats: Formats, path: str, label: str | None) -> LakeFormat | None:
        """Return the format that is meant for a file of this name and --source, if one is."""
        ranked = [(form.rank(path, label), name) for name, form in formats.items()]
        # Equal ranks are decided by name, so that every process picks the same format.
        rank, name = max(ranked, default=(0, ""))
        return formats[name] if rank else None

    @classmethod
    def of_cursor(cls, formats: Formats, cursor: FileCursor) -> FormatDefinition | None:
        """Return what goes now for a file that was read: the format for its name, else the present
        one of the name that it was read by last."""
        match = cls.find(formats, cursor.name, None)
        name = cursor.forms[-1][1] if cursor.forms else ""
        if match is None and name.startswith(FormatDefinition.PREFIX):
            match = formats.get(FormatDefinition.of_name(name).name)
        return match.definition if match else None

    @staticmethod
    def resolve(spelling: str, formats: Formats) -> FormatDefinition:
        """Return what a --format says, a lake's own by its name. Raises InvalidSetting."""
        parsed = FormatDefinition.of_name(spelling)
        if not parsed.pattern and parsed.format in formats:
            parsed = parsed.over(formats[parsed.format].definition)
        FORMATS.check(parsed, tuple(formats))
        return parsed

    @staticmethod
    def named(formats: Formats, name: str) -> LakeFormat:
        """Return the format of a name. Raises UnknownRef."""
        if name in formats:
            return formats[name]
        if name in FORMATS:
            raise UnknownRef(f"{name!r} is a built-in format, not one of this lake")
        raise UnknownRef(f"this lake has no format {name!r}: see `lakelog formats list`")

    @staticmethod
    def is_gone(name: str, formats: Formats) -> bool:
        """Whether a format, as a cursor names it, is of a definition that the lake no longer
        has."""
        if not name.startswith(FormatDefinition.PREFIX):
            return False
        format_name = FormatDefinition.of_name(name).name
        return bool(format_name) and format_name not in formats

    def check_new(self) -> None:
        """Raise InvalidSetting for a format that a lake cannot define."""
        name, definition = self.name, self.definition
        if not _NAME.fullmatch(name) or name in FORMATS:
            reason = "lakelog has one of that name" if name in FORMATS else "use a-z, 0-9, - and _"
            raise InvalidSetting(f"{name!r} cannot name a format: {reason}")
        FORMATS.check(definition)
        if not (definition.pattern or definition.format or definition.zone or definition.encoding):
            raise InvalidSetting(
                f"format {name!r} says nothing: give --pattern, --format or --zone"
            )

    def add(self, store: Store, branch: str, *, overwrite: bool = False) -> Head:
        """Add a format to the lake. Raises InvalidSetting, AlreadyExists where the name is
        taken."""
        self.check_new()
        name, entry = self.name, replace(self, time=disk.now_us()).entry()

        def plan(_: Head, state: Manifest) -> Change:
            if name in self.of_state(store, state) and not overwrite:
                raise AlreadyExists(
                    f"format {name!r} exists: --replace it, or `formats remove {name}`"
                )
            return Change("format", f"add {name}", entries=(entry,))

        return _published(publish(store, branch, plan))

    @classmethod
    def remove(cls, store: Store, branch: str, name: str) -> Head:
        """Remove a format from the lake; rows that were read by it stay. Raises UnknownRef."""

        def plan(_: Head, state: Manifest) -> Change:
            cls.named(cls.of_state(store, state), name)
            return Change("format", f"remove {name}", entries=(Removal(WHAT, name),))

        return _published(publish(store, branch, plan))


Formats = dict[str, LakeFormat]


def _published(head: Head | None) -> Head:
    assert head is not None  # these plans never give up
    return head


def _fits(path: str, glob: str) -> bool:
    """Whether a file's name fits a glob, as it is or without what rotation put after it: the
    whole path if the glob has a slash, else its last part."""
    folder, name = os.path.split(os.path.abspath(path))
    if "/" not in glob:
        return any(fnmatch.fnmatchcase(stem, glob) for stem in LogName(name).stems())
    pattern = glob if glob.startswith(("/", "*")) else f"*/{glob}"
    return any(fnmatch.fnmatchcase(f"{folder}/{stem}", pattern) for stem in LogName(name).stems())
