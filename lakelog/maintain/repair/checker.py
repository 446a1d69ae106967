"""The state of a verification: problems by file, objects that were hashed, bytes read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass

from lakelog import chunks
from lakelog.disk import DOCUMENT_MAX, File, Folder, NotIntact
from lakelog.entries import SegmentEntry
from lakelog.errors import Damaged
from lakelog.maintain.reachability import lost_names
from lakelog.manifest import Manifest
from lakelog.refs import Ref
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import Store, VerifiedFiles
from lakelog.values import JsonObject


@dataclass(frozen=True)
class Problem:
    """One file that is not as it was written; `kind` is damage, torn or derived."""

    path: str
    reason: str
    kind: str = "damage"
    offset: int | None = None


@dataclass(frozen=True)
class Report:
    """The result of a verification; `cut` are torn frames of dead writers in cache/cut, `lost` the
    objects that a repair gave up, which older states still name."""

    problems: tuple[Problem, ...]
    files: int
    bytes: int
    cut: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @classmethod
    def of_damage(cls, *damage: Damaged) -> Report:
        """Return a report of files that were found damaged in another way."""
        return cls(tuple(Problem(d.path, d.reason, offset=d.offset) for d in damage), 0, 0)

    def with_faults(self, faults: Iterable[tuple[str, str]], kind: str = "damage") -> Report:
        """Return the report with further problems, by path and reason, but for those it has."""
        reported = {(p.path, p.reason) for p in self.problems}
        added = [Problem(*fault, kind) for fault in faults if fault not in reported]
        return dataclasses.replace(self, problems=(*self.problems, *added))

    @property
    def intact(self) -> bool:
        """Whether nothing is damaged or torn."""
        return not any(p.kind != "derived" for p in self.problems)

    def require(self) -> None:
        """Raise Damaged, naming the first file at fault, unless intact."""
        for problem in self.problems:
            if problem.kind != "derived":
                raise Damaged(problem.path, problem.reason, problem.offset)


class Checker:
    """Collects problems, counting files and bytes as they are read."""

    def __init__(self, store: Store, progress: ProgressCallback | None = None) -> None:
        self.store, self._progress = store, progress
        self.problems: list[Problem] = []
        self.files = self.bytes = 0
        self.total = _total_bytes(store) if progress else 0
        self.lost = lost_names(store)
        self._hashed: dict[tuple[str, str], bool] = {}
        self._state_files: dict[str, bool] = {}
        self.indices: set[str] = set()
        """Indices of state directories whose chunks were checked."""
        self._pages: tuple[str, ...] | None = None
        self._live: dict[str, SegmentEntry] = {}
        self._unread: set[str] = set()

    def add(
        self, path: str, reason: str, category: str = "damage", offset: int | None = None
    ) -> None:
        """Note a problem, once per file and reason."""
        problem = Problem(path, reason, category, offset)
        if problem not in self.problems:
            self.problems.append(problem)

    def count(self, size: int) -> None:
        """Note that a file was read."""
        self.files, self.bytes = self.files + 1, self.bytes + size
        if self._progress:
            self._progress(self.bytes, max(self.total, self.bytes))

    def document(self, path: str, members: set[str], category: str = "damage") -> JsonObject | None:
        """Read a checksummed document; None if it is gone, not intact, or another one."""
        try:
            data = File(path).read(DOCUMENT_MAX)
            self.count(len(data))
            body, _ = Ref.document_of(data)
            if body.keys() >= members:
                return body
            self.add(path, "it is another document", category)
        except FileNotFoundError:
            return None
        except NotIntact as error:
            self.add(path, str(error), category)
        return None

    def object(self, object_type: str, digest: str, is_listed: bool = False) -> bool:
        """Whether a content-addressed file is intact; hashed once. Reports one that is damaged, and
        one that is missing unless it was only `is_listed`: gc may have deleted it since."""
        if (object_type, digest) not in self._hashed:
            path = self.store.paths.object(object_type, digest)
            try:
                self.store.verified.obtain([(digest, path)])
                is_intact = VerifiedFiles.hash_file(path) == digest
                self.count(os.stat(path).st_size)
            except FileNotFoundError:
                if object_type == "manifests" and self.store.manifests.is_there(digest):
                    return True  # a move or tag carries it, and is checked itself
                if not is_listed and f"{object_type}/{digest}" not in self.lost:
                    self.add(path, "it is missing")
                return False
            if not is_intact:
                self.add(path, "the content does not match its name")
            self._hashed[object_type, digest] = is_intact
        return self._hashed[object_type, digest]

    def state_file(self, name: str, is_listed: bool = False) -> bool:
        """Whether a chunk or index, `states/<2 hex>/<name>`, is intact; read once. Reports as
        `object` does."""
        if name not in self._state_files:
            path = f"{self.store.paths.root}/{name}"
            try:
                data = chunks.read_file(path)
                self.count(len(data))
                chunks.check(data, os.path.basename(name))
            except FileNotFoundError:
                if not is_listed and name not in self.lost:
                    self.add(path, "it is missing")
                return False
            except NotIntact as error:
                self.add(path, str(error))
                self._state_files[name] = False
            else:
                self._state_files[name] = True
        return self._state_files[name]

    def paged_segments(self, state: Manifest) -> dict[str, SegmentEntry]:
        """The live segments of a state's pages."""
        # Neighbours in history mostly have the same pages: then nothing is computed again.
        pages = tuple(page.digest for page in state.pages)
        if pages != self._pages:
            self._live = self.store.manifests.paged_segments(state)
            self._pages, self._unread = pages, set(self._live)
        return self._live

    def check_paged(self, deleted: set[str]) -> None:
        """Hash the segments that the pages of the last state leave alive, except those that the
        state itself `deleted`: gc may have removed their files."""
        for key in self._unread - deleted:
            self.object("segments", key)
        self._unread &= deleted

    def report(self) -> Report:
        """Return the result."""
        cut_files = tuple(sorted(Folder(self.store.paths.cut).names()))
        return Report(
            tuple(self.problems), self.files, self.bytes, cut_files, tuple(sorted(self.lost))
        )


def _total_bytes(store: Store) -> int:
    total = 0
    for folder, _, names in os.walk(store.paths.root):
        for name in names:
            try:
                total += os.stat(f"{folder}/{name}").st_size
            except FileNotFoundError:
                continue
    return total
