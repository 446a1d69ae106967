"""Erasing, as methods of `Lake`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from lakelog.errors import UnknownRef
from lakelog.maintain.upkeep import LakeUpkeep
from lakelog.runtime.lazy import Lazy
from lakelog.runtime.progress import ProgressCallback
from lakelog.store.bootstrap import Store

if TYPE_CHECKING:
    from lakelog import proofs
    from lakelog.erased import refusal
    from lakelog.erasure import erasing, receipts, status, touched
    from lakelog.erasure.status import ErasureStatus
    from lakelog.erasure.touched import ErasurePreview
    from lakelog.event.encode import EncodedBatch
else:
    refusal, proofs = Lazy("lakelog.erased.refusal"), Lazy("lakelog.proofs")
    erasing, receipts, status, touched = (
        Lazy(f"lakelog.erasure.{name}") for name in "erasing receipts status touched".split()
    )


class LakeErasure(LakeUpkeep):
    """What erases events from every state of a lake; `Lake` says how its branches are settled."""

    @abstractmethod
    def __init__(self, store: Store, branch: str) -> None:
        """Open a branch."""

    @abstractmethod
    def close(self) -> None:
        """Finish the WAL file and close the database."""

    def _refuse_erased(self, encoded: EncodedBatch) -> EncodedBatch:
        """Refuse events that were erased before they are stored. Raises InvalidEvent."""
        if self.store.erased.refresh():
            refusal.Refusal(self.store.paths).check_lines(encoded.text)
        return encoded

    def _settle_branch(self, branch: str) -> None:
        """Publish what is pending on a branch, and let go of what is sealed of its WALs."""
        lake = self if branch == self.branch_name else type(self)(self.store, branch)
        try:
            lake.settle()
            lake._release()
        finally:
            if lake is not self:
                lake.close()

    def erase(
        self,
        *,
        subject: str | None = None,
        where: str | None = None,
        why: str,
        progress: ProgressCallback | None = None,
    ) -> ErasureStatus:
        """Erase the events of a subject, or those for which an SQL condition holds, from every
        state of every branch and tag, for good; their bytes leave the disk now.

        The result says what is not clean yet. `why` is kept, and must not name the subject. Raises
        InvalidEvent, QueryFailed, NotAllowed, GcRefused while gc runs, Damaged, OSError.
        """
        erasure = erasing.erase(
            self.store,
            self.engine,
            self._settle_branch,
            subject=subject or "",
            predicate=where or "",
            why=why,
            progress=progress,
        )
        return next(status_ for status_ in self.erasures() if status_.erasure.key == erasure.key)

    def preview_erasure(
        self,
        *,
        subject: str | None = None,
        where: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> ErasurePreview:
        """What `erase` would touch; publishes what is pending. Raises QueryFailed, Damaged."""
        return touched.preview(
            self.store,
            self.engine,
            self._settle_branch,
            subject=subject or "",
            predicate=where or "",
            progress=progress,
        )

    def erasures(self) -> list[ErasureStatus]:
        """How far each erasure of the lake is, oldest first; publishes what is pending."""
        return status.statuses(self.store, self.engine, self._settle_branch)

    def erasure_receipt(self, key: str, sign: str | None = None) -> bytes:
        """The receipt of the erasure whose key begins so: what was erased, why, by whom and where
        it had been, and which copies are clean; never the data. It is signed with the private key
        in the file `sign`, if that is given.

        Raises UnknownRef for no single erasure, InvalidKey, MissingPackage, Damaged, OSError.
        """
        private = proofs.PrivateKey.load(sign) if sign else None
        statuses = [s for s in self.erasures() if key and s.erasure.key.startswith(key)]
        if len(statuses) != 1:
            raise UnknownRef(f"no single erasure {key!r}: `lakelog erase list` shows them")
        return receipts.receipt(self.store, statuses[0], private)
