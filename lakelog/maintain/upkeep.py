"""The upkeep of a lake: checking, mending, copying, and making it smaller, as methods of `Lake`."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from lakelog import history
from lakelog import store as stores
from lakelog import workers as pools
from lakelog.disk import disk
from lakelog.errors import LakelogError, TransferRefused
from lakelog.refs import Head
from lakelog.runtime.lazy import Lazy
from lakelog.runtime.progress import ProgressCallback
from lakelog.settings import span_us
from lakelog.store import SealerProcess, Store
from lakelog.wal import Tail

if TYPE_CHECKING:
    from lakelog.maintain import compact, gc, hotcopy, indexing, retention, seal, stats
    from lakelog.maintain.repair import repair, verify
    from lakelog.maintain.repair.outcome import RepairOutcome
else:
    repair, verify = Lazy("lakelog.maintain.repair.repair"), Lazy("lakelog.maintain.repair.verify")
    compact, gc, hotcopy, indexing, retention, seal, stats = (
        Lazy(f"lakelog.maintain.{name}")
        for name in "compact gc hotcopy indexing retention seal stats".split()
    )


class LakeUpkeep(ABC):
    """What keeps a lake whole and small; `Lake` says how it is settled and queried."""

    store: Store
    branch_name: str

    @abstractmethod
    def settle(self) -> Head:
        """Publish everything acknowledged so far; return the head that holds it."""

    @abstractmethod
    def engine(self) -> Any:
        """This process's database."""

    @abstractmethod
    def _pending(self) -> Tail:
        """What reads the tail of the branch."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of WAL files that are sealed, and remove them."""

    def verify(
        self, ref: str | None = None, progress: ProgressCallback | None = None
    ) -> verify.Report:
        """Read every byte again and check names, chains and sums; of one state with `ref`."""
        if ref is None:
            return verify.verify(self.store, progress)
        digest = history.resolve(self.store, self.branch_name, ref)
        return verify.verify_snapshot(self.store, digest, progress)

    def repair(self, copy: str | None = None) -> RepairOutcome:
        """Set damaged files aside, or restore them from the lake at `copy`; list what is lost.
        Raises NotAllowed."""
        return repair.repair(self.store, self.engine, copy)

    def backup(
        self, to: str | os.PathLike[str], progress: ProgressCallback | None = None
    ) -> hotcopy.HotCopy:
        """Copy this lake to a directory, while it is in use; later calls copy what is new.

        Raises AlreadyExists where something else is there, Damaged, OSError.
        """
        return hotcopy.copy(self.store, os.fspath(to), progress)

    def compact(
        self,
        progress: ProgressCallback | None = None,
        *,
        smallest: bool = False,
        workers: str | None = None,
    ) -> compact.Compaction:
        """Settle, then merge small segments and sort by type and time, and common subjects.

        With `smallest`, all segments are compressed as far as zstd can: a tenth smaller, in several
        times the time, for a lake that is kept. What is so compressed is left alone the next time.

        `workers` is where segments and their word indexes are written: by "local" processes, or at
        "ray://HOST:PORT". Raises InvalidSetting, MissingPackage, Unreachable for such a place.
        """
        self.settle()
        level = compact.SMALLEST if smallest else compact.LEVEL
        with pools.WorkerPool.at(workers) as pool:
            compaction = compact.compact(self.store, self.branch_name, progress, level, pool)
            indexing.build_missing(self.store, self.branch_name, pool=pool)
        return compaction

    def retention(self, older_than: str, *, apply: bool = False) -> retention.RetentionResult:
        """Remove events older than a span such as `30d`; without `apply` only report which."""
        cutoff = max(disk.now_us() - span_us(older_than), retention.EARLIEST_US)
        if not apply:
            return retention.preview(self.store, self.branch_name, cutoff)
        stores.Policy.require(self.store.paths, "retention")
        self.settle()  # old events of the tail would otherwise stay until the next run
        connect = self.engine
        return retention.apply(self.store, self.branch_name, cutoff, connect)

    def expire(
        self, message: str = "", *, dry_run: bool = False, progress: ProgressCallback | None = None
    ) -> gc.GcResult:
        """Give up the states of the branch before the present one, and delete at once what only
        they needed: nothing before can be gone back to, but for tags. Raises GcRefused, NotAllowed.

        With `dry_run` only count what would be deleted.
        """
        if not dry_run:
            stores.Policy.require(self.store.paths, "expire")
        self.settle()
        if not dry_run:
            self._release()
        branch = self.branch_name
        return gc.expire(self.store, branch, message, dry_run=dry_run, progress=progress)

    def gc(self, *, dry_run: bool = False, progress: ProgressCallback | None = None) -> gc.GcResult:
        """Delete what no ref has reached for the grace. Raises GcRefused, NotAllowed."""
        if not dry_run:
            stores.Policy.require(self.store.paths, "gc")
        return gc.gc(self.store, dry_run=dry_run, progress=progress)

    def _trim_deleted(self) -> None:
        """Remove the WAL files that deleted branches have left."""
        gc.trim_deleted(self.store)

    def exchange(self) -> tuple[int, int]:
        """Publish what is pending to the bucket that this directory is attached to, and take what
        other machines have published; return how many moves came, and how many went.

        Raises Unreachable, TransferRefused, also where the lake is in this directory alone,
        OSError: then events wait here.
        """
        if self.store.attachment is None:
            raise TransferRefused(
                f"{self.store.paths.root} is no part of a shared lake: see `lakelog attach`"
            )
        return self.store.attachment.exchange(self.store, self.settle)

    def stats(self) -> stats.Stats:
        """Statistics of the branch."""
        return stats.Stats.measure(self.store, self.branch_name, self._pending())


class BackgroundWork:
    """What the helper process does at low priority (store/sealer_process.py): a failure is retried
    by the next one, and reported by the verbs."""

    def __init__(self, lake: LakeUpkeep) -> None:
        self._lake, self._store, self._branch = lake, lake.store, lake.branch_name

    def is_due(self) -> bool:
        """Whether there is enough to compact or to collect."""
        return self._is_scattered() or gc.is_due(self._store)

    def run(self) -> None:
        """Seal the branch and do what maintenance is due, each unless another process does."""
        # A claim of its own for each of the two: while one process compacts for minutes, another
        # can still publish.
        process = SealerProcess(self._store, self._branch)
        with process.seal_lock.claim() as has_claim:
            if has_claim:
                with contextlib.suppress(LakelogError, OSError):
                    self._lake.settle()
        with process.maintenance_lock.claim() as has_claim:
            if has_claim:
                self._maintain()

    def _is_scattered(self) -> bool:
        # The state is read here: a settle, or another process, has moved the head.
        entries = self._store.manifests.segments(self._store.state(self._branch))
        return compact.is_due(entries, self._store.settings)

    def _maintain(self) -> None:
        """Merge id runs, compact, index and collect."""
        store, branch, lake = self._store, self._branch, self._lake
        # Each step suppresses its own errors: one that fails must not keep others from being done.
        with contextlib.suppress(LakelogError, OSError):
            seal.Sealer(store, branch, lake._pending(), lake.engine).merge_ids()
        with contextlib.suppress(LakelogError, OSError):
            if self._is_scattered():
                compact.compact(store, branch)
        with contextlib.suppress(LakelogError, OSError):
            indexing.build_missing(store, branch)
        with contextlib.suppress(LakelogError, OSError):
            # Last: compaction has just made files that nothing refers to.
            if gc.is_due(store):
                gc.gc(store)
