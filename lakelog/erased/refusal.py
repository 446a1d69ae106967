"""What was erased does not come back: rows of it are refused at every entrance.

Refused are events of an erased subject with a time before its erasure, and rows that an erasure
knows by their place (origin and position), their id or, of one by a condition, their content. What
the subject does later is stored as any other event, and so is what stands at a place that is given
again: after a rollback a stream has its versions anew, and a subscriber its positions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from unicodedata import category

from lakelog import arrays
from lakelog.appends import StreamSubject
from lakelog.erased.records import ErasedRows, Erasure, listing
from lakelog.erased.subject_index import SubjectIndex
from lakelog.libraries import np, pa, pc
from lakelog.paths import Paths
from lakelog.protect import MEMBER, Protection, sealed_blocks
from lakelog.runtime.lazy import LazyProperty

_CONTENT = ("time", "type", "category", "source", "subject", "level", "message", "data", "id")
"""The columns of an event that its writer gave."""
_WORD = re.compile(r"\w+|[^\s\w]")
_LINE_MAX, _BOUNDS_MAX = 4_096, 12
"""Characters of a quarantined line, and bounds of words of a subject, that are looked at."""
_GIVEN_AGAIN = f"^({StreamSubject.ORIGIN}|subscription:)"
"""Origins (a pattern) whose positions other events have on another branch, or after a rollback."""


class Refusal:
    """What the erasures of a lake refuse."""

    def __init__(self, paths: Paths, key: str = "", *, by_arrival: bool = False) -> None:
        """That of all erasures, or of the one with a key. `by_arrival` refuses what has a time to
        come, too, if it was stored before: in a shared lake by a machine that did not know."""
        self._paths, self._by_arrival = paths, by_arrival
        self._erasures = [erasure for erasure in listing(paths) if key in ("", erasure.key)]
        self._subjects = SubjectIndex()
        for e in self._erasures:
            self._subjects.add(e.key, e.time, e.salt, e.subject, *e.subjects)
        self._earlier: dict[str, list[str]] = {}
        self.count = 0
        """How many rows were refused so far."""

    @LazyProperty
    def _rows(self) -> list[tuple[Erasure, ErasedRows]]:
        """What each erasure remembers of its rows."""
        return [(erasure, erasure.rows(self._paths)) for erasure in self._erasures]

    def note_earlier(self, origin: str, earlier: Iterable[str]) -> None:
        """Know rows of an origin by their place under others, too, which that had earlier."""
        if any(rows.places for _, rows in self._rows):
            self._earlier[origin] = list(earlier)

    @staticmethod
    def contents(erasure: Erasure, rows: pa.Table) -> list[bytes]:
        """Return the fingerprints of the contents of rows."""
        columns = [rows["time"].cast(pa.int64()).to_pylist()]
        columns += [rows[name].to_pylist() for name in _CONTENT[1:]]
        return [erasure.fingerprint(*values) for values in zip(*columns, strict=True)]

    def without(self, table: pa.Table, protection: Protection | None = None) -> pa.Table:
        """Return the rows of events that are not refused; with `protection` also without those from
        before a key was destroyed that would bring protected fields back."""
        if not self._erasures or not len(table):
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
        spellings = list[pa.Table]()
        if is_event:
            by_subject = [erasure for erasure in self._erasures if erasure.subject]
            refused |= self._from_before(table, by_subject, self._by_arrival)
        if self._by_arrival and "line" in columns:
            refused |= self._naming(table)
        for erasure, rows in self._rows:
            if rows.places and {"origin", "position"} <= columns:
                refused |= self._known(table, erasure, rows.places)
            if rows.contents and columns.issuperset(_CONTENT):
                spellings = spellings or list(_spellings(table, protection))
                for spelling in spellings:
                    prints = self.contents(erasure, spelling)
                    refused |= np.array([p in rows.contents for p in prints])
        return refused

    def _from_before(
        self, table: pa.Table, erasures: list[Erasure], by_arrival: bool = False
    ) -> np.ndarray:
        """Return which events are of the subjects of some erasures, with a time before that, or
        stored before."""
        subjects_of: dict[str, list[str]] = {}
        for subject in filter(None, pc.unique(table["subject"]).to_pylist() if erasures else ()):
            for erased in self._subjects.of(subject):
                subjects_of.setdefault(erased.key, []).append(subject)
        refused = np.zeros(len(table), dtype=bool)
        for erasure in erasures:
            if erasure.key not in subjects_of:
                continue
            is_of = pc.is_in(table["subject"], value_set=pa.array(subjects_of[erasure.key]))
            is_older = pc.less_equal(table["time"].cast(pa.int64()), erasure.time)
            if by_arrival:
                has_arrived = pc.less(table["ingested_at"].cast(pa.int64()), erasure.time)
                is_older = pc.or_kleene(is_older, has_arrived)
            refused |= np.asarray(pc.and_(is_of, is_older).combine_chunks())
        return refused

    def _naming(self, lines: pa.Table) -> np.ndarray:
        """Return which quarantined lines were stored before an erasure of a subject that stands in
        them as a word."""
        arrivals = lines["ingested_at"].cast(pa.int64()).to_numpy()
        newest = max((erasure.time for erasure in self._erasures if erasure.subject), default=0)
        refused: np.ndarray = arrivals < newest
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

    def _known(self, table: pa.Table, erasure: Erasure, places: frozenset[bytes]) -> np.ndarray:
        """Return which rows an erasure knows by their places."""
        origins, positions = table["origin"].to_pylist(), table["position"].to_pylist()
        pairs = zip(origins, positions, strict=True)
        is_known = np.array([erasure.fingerprint(*pair) in places for pair in pairs], dtype=bool)
        if self._earlier:
            # Others are known by their time or content, too.
            timeless = arrays.arrived(table) if "time" in table.column_names else ~is_known
            for row in np.flatnonzero(timeless & ~is_known).tolist():
                names = self._earlier.get(origins[row], ())
                is_known[row] = any(erasure.fingerprint(n, positions[row]) in places for n in names)
        reuses = pc.match_substring_regex(table["origin"].cast(pa.string()), _GIVEN_AGAIN)
        is_known &= ~arrays.truths(reuses)
        return is_known

    def _reviving(self, table: pa.Table, protection: Protection) -> np.ndarray:
        """Return which rows have protected fields of a subject from before its key was destroyed,
        not sealed yet."""
        refused = self._from_before(table, [e for e in self._erasures if e.subjects])
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
