"""What was erased does not come back: rows of it are refused at every entrance.

Refused are events of an erased subject with a time before its erasure, and rows that an erasure
knows by their place (origin and position), their id or, of one by a condition, their content. What
the subject does later is stored as any other event, and so is what stands at a place that is given
again: after a rollback a stream has its versions anew, and a subscriber its positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from unicodedata import category

from lakelog import arrays
from lakelog.appends import StreamSubject
from lakelog.erased import documents
from lakelog.erased.records import NO_TIMES, ErasedRows, Erasure
from lakelog.erased.row_index import RowIndex
from lakelog.erased.subject_index import SubjectIndex
from lakelog.libraries import np, pa, pc
from lakelog.paths import Paths
from lakelog.protect import MEMBER, Protection, sealed_blocks
from lakelog.runtime.lazy import LazyProperty

_CONTENT = ("time", "type", "category", "source", "subject", "level", "message", "data", "id")
"""The columns of an event that its writer gave."""
_PLACES = ("origin", "position", "time", "ingested_at")
_WORD = re.compile(r"\w+|[^\s\w]")
_LINE_MAX, _BOUNDS_MAX = 4_096, 12
"""Characters of a quarantined line, and bounds of words of a subject, that are looked at."""
_GIVEN_AGAIN = re.compile(f"{StreamSubject.ORIGIN}|subscription:")
"""Origins whose positions other events have on another branch, or after a rollback."""


class Refusal:
    """What the erasures of a lake refuse."""

    ROWS_OF_TABLES = "sync "
    """What the origin of a quarantined line begins with that is a row which a synced table refused.
    Its position is the seq of the event, where the row has one."""

    def __init__(self, paths: Paths, key: str = "", *, by_arrival: bool = False) -> None:
        """That of all erasures, or of the one with a key. `by_arrival` refuses what has a time to
        come, too, if it was stored before: in a shared lake by a machine that did not know."""
        self._paths, self._key, self._by_arrival = paths, key, by_arrival
        self._subjects = SubjectIndex.of_key(paths, key) if key else SubjectIndex.of_lake(paths)
        self._earlier: dict[str, list[str]] = {}
        self._memories: dict[str, ErasedRows] = {}
        self.count = 0
        """How many rows were refused so far."""

    @LazyProperty
    def _rows(self) -> RowIndex:
        """Which erasures remember rows of what origin, and of what time."""
        return (
            RowIndex.of_key(self._paths, self._key) if self._key else RowIndex.of_lake(self._paths)
        )

    @property
    def content_spans(self) -> dict[str, tuple[int, int]]:
        """Between what times (us) erasures know rows by their contents, by the keys of those."""
        return self._rows.spans

    def _memories_of(self, keys: Iterable[str]) -> Iterator[ErasedRows]:
        """Yield what some erasures remember of their rows."""
        for key in keys:
            if key not in self._memories:
                self._memories[key] = ErasedRows.of_key(self._paths, key)
            yield self._memories[key]

    def note_earlier(self, origin: str, earlier: Iterable[str]) -> None:
        """Know rows of an origin by their place under others, too, which that had earlier."""
        if self._subjects.keys:
            self._earlier[origin] = list(earlier)

    @staticmethod
    def contents(salt: str, rows: pa.Table) -> list[bytes]:
        """Return the fingerprints of the contents of rows."""
        columns = [rows["time"].cast(pa.int64()).to_pylist()]
        columns += [rows[name].to_pylist() for name in _CONTENT[1:]]
        return [documents.fingerprint(salt, *values) for values in zip(*columns, strict=True)]

    def without(self, table: pa.Table, protection: Protection | None = None) -> pa.Table:
        """Return the rows of events that are not refused; with `protection` also without those from
        before a key was destroyed that would bring protected fields back."""
        if not self._subjects.keys or not len(table):
            return table
        refused = self.refused(table, protection)
        if not refused.any():
            return table
        self.count += int(refused.sum())
        return table.filter(pa.array(~refused))

    def refused(self, table: pa.Table, protection: Protection | None) -> np.ndarray:
        """Return which rows `without` leaves out, as an array of booleans."""
        refused = self.mask(table, protection)
        if protection is not None and "time" in table.column_names:
            refused |= self._reviving(table, protection)
        return refused

    def mask(self, table: pa.Table, protection: Protection | None = None) -> np.ndarray:
        """Return which rows of events are refused, as an array of booleans; with `protection` also
        those whose protected fields an erasure could not read, as their key had been destroyed."""
        refused = np.zeros(len(table), dtype=bool)
        columns = set(table.column_names)
        is_event = "time" in columns  # and no line of quarantine
        if is_event:
            refused |= self._from_before(table, of_key=False, by_arrival=self._by_arrival)
        if self._by_arrival and "line" in columns:
            refused |= self._naming(table)
        if {"origin", "position"} <= columns:
            refused |= self._in_known_places(table)
        if columns.issuperset(_CONTENT):
            refused |= self._with_known_contents(table, protection)
        return refused

    def _from_before(
        self, table: pa.Table, *, of_key: bool, by_arrival: bool = False
    ) -> np.ndarray:
        """Return which events are of subjects that were erased, or of which the key was destroyed,
        with a time before that, or stored before."""
        refused = np.zeros(len(table), dtype=bool)
        if not self._subjects.keys:
            return refused
        subjects_of: dict[int, list[str]] = {}
        for subject in filter(None, pc.unique(table["subject"]).to_pylist()):
            for erased in self._subjects.of(subject):
                if erased.is_of_key == of_key:
                    subjects_of.setdefault(erased.time, []).append(subject)
        for time_us, subjects in subjects_of.items():
            # Values of Python would load pandas, if it is there.
            is_of = pc.is_in(table["subject"], value_set=arrays.texts(subjects))
            latest = arrays.integers(np.array([time_us]))[0]
            is_older = pc.less_equal(table["time"].cast(pa.int64()), latest)
            if by_arrival:
                has_arrived = pc.less(table["ingested_at"].cast(pa.int64()), latest)
                is_older = pc.or_kleene(is_older, has_arrived)
            refused |= arrays.truths(pc.and_(is_of, is_older))
        return refused

    def _naming(self, lines: pa.Table) -> np.ndarray:
        """Return which quarantined lines were stored before an erasure of a subject that stands in
        them as a word."""
        arrivals = lines["ingested_at"].cast(pa.int64()).to_numpy()
        refused: np.ndarray = arrivals < self._subjects.newest
        before = lines.filter(pa.array(refused))
        if fields := sealed_blocks.of_lake(self._paths):
            before = fields.quarantined(before)
        texts = before["line"].to_pylist()
        pairs = zip(texts, arrivals[refused].tolist(), strict=True)
        refused[refused] = [self._names(text or "", arrived) for text, arrived in pairs]
        return refused

    def _names(self, line: str, arrived: int) -> bool:
        """Whether a subject that was erased after a line had arrived stands in it as a word."""
        subjects = (subject for word in self.words(line) for subject in self._subjects.of(word))
        return any(not subject.is_of_key and arrived < subject.time for subject in subjects)

    @staticmethod
    def words(line: str) -> set[str]:
        """What may be a subject in a quarantined line: whatever stands between two near bounds of
        its words."""
        # Marks belong to the letter before: Python's \w has none, unlike `_IN_WORD` of an erasure.
        letters = "".join("_" if category(c)[0] == "M" else c for c in line[:_LINE_MAX])
        bounds = sorted({b for match in _WORD.finditer(letters) for b in match.span()})
        return {
            line[low:high]
            for number, low in enumerate(bounds)
            for high in bounds[number + 1 : number + _BOUNDS_MAX]
        }

    def _in_known_places(self, table: pa.Table) -> np.ndarray:
        """Return which rows erasures know by their places."""
        refused = np.zeros(len(table), dtype=bool)
        table = table.select([n for n in _PLACES if n in table.column_names])
        origins = table["origin"].cast(pa.string())
        for origin in pc.unique(origins).to_pylist():
            if origin is None or _GIVEN_AGAIN.match(origin):
                continue
            names = (origin, *self._earlier.get(origin, ()))
            for salt, keys in self._rows.of_origin(names).items():
                of_origin = np.flatnonzero(
                    arrays.truths(pc.equal(origins, arrays.texts((origin,))[0]))
                )
                rows = table.take(arrays.integers(of_origin))
                # By its number no row of a table is known that arrived since: an event after a
                # rollback has it anew.
                is_dated = origin.startswith(self.ROWS_OF_TABLES)
                for joint_keys in [[key] for key in keys] if is_dated else [keys]:
                    memories = self._memories_of(joint_keys)
                    places = frozenset[bytes]().union(*(known.places for known in memories))
                    is_known = self._placed(rows, names, salt, places)
                    if is_dated:
                        is_known &= self._has_arrived(rows, joint_keys[0])
                    refused[of_origin] |= is_known
        return refused

    def _has_arrived(self, rows: pa.Table, key: str) -> np.ndarray:
        """Return which rows an erasure may have erased, by when they arrived."""
        arrivals = arrays.numbers(rows["ingested_at"].cast(pa.int64()))
        until = [max(e.time, e.arrived) for e in documents.of(self._paths, [key], Erasure.decoded)]
        return arrivals <= max(until, default=0)

    @staticmethod
    def _placed(
        rows: pa.Table, names: Sequence[str], salt: str, places: frozenset[bytes]
    ) -> np.ndarray:
        """Return which rows of an origin are in some places, by the first of its names; those that
        are known by no time or content of their own, by any of them."""
        positions = rows["position"].to_pylist()
        is_known = np.array([documents.fingerprint(salt, names[0], p) in places for p in positions])
        if names[1:]:
            timeless = arrays.arrived(rows) if "time" in rows.column_names else ~is_known
            for row in np.flatnonzero(timeless & ~is_known).tolist():
                prints = (documents.fingerprint(salt, name, positions[row]) for name in names[1:])
                is_known[row] = not places.isdisjoint(prints)
        return is_known

    def _with_known_contents(self, table: pa.Table, protection: Protection | None) -> np.ndarray:
        """Return which events erasures know by their contents."""
        refused = np.zeros(len(table), dtype=bool)
        times = arrays.numbers(table["time"].cast(pa.int64()))
        for salt, keys in self._rows.of_times(
            times.min(initial=NO_TIMES[0]), times.max(initial=NO_TIMES[1])
        ).items():
            memories = list(self._memories_of(keys))
            contents = frozenset[bytes]().union(*(rows.contents for rows in memories))
            suspects = np.zeros(len(table), dtype=bool)
            for rows in memories:
                suspects |= (times >= rows.times[0]) & (times <= rows.times[1])
            for spelling in _spellings(table.filter(pa.array(suspects)), protection):
                prints = self.contents(salt, spelling)
                refused[suspects] |= np.array([p in contents for p in prints], dtype=bool)
        return refused

    def _reviving(self, table: pa.Table, protection: Protection) -> np.ndarray:
        """Return which rows have protected fields of a subject from before its key was destroyed,
        not sealed yet."""
        refused = self._from_before(table, of_key=True)
        if refused.any():
            payloads = table["data"].to_pylist()
            mention = protection.mention
            for row in np.flatnonzero(refused).tolist():
                data = (payloads[row] or "").encode()
                # In a shared lake a machine may have sealed them with the key that is gone now.
                is_sealed = self._by_arrival and MEMBER.encode() in data
                refused[row] = bool(mention.search(data)) and not is_sealed
        return refused


def _spellings(table: pa.Table, protection: Protection | None) -> Iterator[pa.Table]:
    """Yield rows of events as they came, and without their protected fields."""
    yield table
    if protection is not None:
        types, payloads = table["type"].to_pylist(), table["data"].to_pylist()
        stays = [
            data and protection.without_fields(type_, data.encode()).decode()
            for type_, data in zip(types, payloads, strict=True)
        ]
        if stays != payloads:
            index, field = table.column_names.index("data"), table.schema.field("data")
            yield table.set_column(index, field, pa.array(stays, field.type))
