"""Erasing, as methods of `Lake`."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lakelog import proofs
from lakelog.errors import UnknownRef
from lakelog.event import EncodedBatch
from lakelog.maintain import LakeUpkeep
from lakelog.runtime.lazy import Lazy
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import Store

if TYPE_CHECKING:
    from lakelog.erasure import (
        entrance,
        erasing,
        key_erasure,
        receipts,
        repetition,
        status,
        touched,
    )
    from lakelog.erasure.entrance import ErasedLines
    from lakelog.erasure.status import ErasureStatus
    from lakelog.erasure.touched import ErasurePreview
    from lakelog.maintain import RepairOutcome
else:
    entrance, erasing, key_erasure, receipts, repetition, status, touched = (
        Lazy(f"lakelog.erasure.{name}")
        for name in "entrance erasing key_erasure receipts repetition status touched".split()
    )


class LakeErasure(LakeUpkeep):
    """What erases events from every state of a lake; `Lake` says how its branches are settled."""

    _erased: tuple[tuple[int, int], ErasedLines] | None = None
    """What was erased, and what the folder of erasures was when that was read."""

    @abstractmethod
    def __init__(self, store: Store, branch: str) -> None:
        """Open a branch."""

    @abstractmethod
    def close(self) -> None:
        """Finish the WAL file and close the database."""

    def _accepted(self, encoded: EncodedBatch) -> EncodedBatch:
        """Refuse events that were erased before they are stored, and seal their protected fields.
        Raises InvalidEvent, InvalidKey."""
        if erased_lines := self._erased_lines():
            erased_lines.check(encoded)
        protection = self.store.paths.protection
        if protection is not None:
            encoded = EncodedBatch(protection.seal_lines(encoded.text), encoded.ids, encoded.keyed)
        return encoded

    def without_erased(self, encoded: EncodedBatch) -> EncodedBatch:
        """Return encoded events but those that were erased, which an append refuses."""
        erased_lines = self._erased_lines()
        return erased_lines.without(encoded) if erased_lines else encoded

    def _erased_lines(self) -> ErasedLines | None:
        # One `stat` an append, which tells whether anything was erased since.
        looked = self.store.erased.looked()
        if looked[0] and (self._erased is None or self._erased[0] != looked):
            self.store.refresh_protection()
            self._erased = looked, entrance.ErasedLines(self.store, self.engine)
        return self._erased[1] if looked[0] and self._erased else None

    def _settle_branches(self) -> None:
        """Publish what is pending on each branch, and let go of what is sealed of all WALs."""
        for branch in self.store.refs.branches():
            lake = self if branch == self.branch_name else type(self)(self.store, branch)
            try:
                lake.settle()
                lake._release()
            finally:
                if lake is not self:
                    lake.close()
        self._trim_deleted()

    def exchange(self) -> tuple[int, int]:
        """Publish what is pending to the bucket, and take what other machines have published and
        erased; return how many moves came, and how many went. Raises as that of `LakeUpkeep`."""
        counts = super().exchange()
        status.confirm_here(self.store, self.engine, self._settle_branches)
        return counts

    def repair(self, copy: str | None = None) -> RepairOutcome:
        """Set damaged files aside, or restore them from the lake at `copy`; list what is lost. What
        was erased and came with the copy is erased again, also keys of an older file of them.
        Raises NotAllowed, InvalidKey."""
        outcome = super().repair(copy)
        if line := key_erasure.destroy_recorded(self.store):
            outcome.done.append(line)
        if copy is not None:
            repetition.erase_again(self)
        return outcome

    def erase(
        self,
        *,
        subject: str | Sequence[str] | None = None,
        where: str | None = None,
        why: str,
        rows: bool = False,
        progress: ProgressCallback | None = None,
    ) -> ErasureStatus:
        """Erase the events of a subject, or those for which an SQL condition holds, from every
        state of every branch and tag, for good; their bytes leave the disk now.

        In a lake with protected fields the key of the subject is destroyed, or those of several;
        their events are erased with `rows` alone. The result says what is not clean yet; of several
        subjects it is of the last, and has those of the others as `earlier`. `why` is kept, and
        must not name a subject. Raises InvalidEvent, QueryFailed, NotAllowed,
        InvalidKey, GcRefused while gc runs, Damaged, OSError.
        """
        subjects = _names(subject)
        # Before anything is erased: a reason that names the last subject must not stop it halfway.
        erasing.check_reason(why, subjects)
        keys = list[str]()
        if where is None and self.store.paths.protection is not None:
            erasure = key_erasure.destroy_keys(self.store, subjects, why)
            if not rows and self.store.attachment is None:
                return status.ErasureStatus(erasure, (), tuple(erasure.outside))
            keys.append(erasure.key)
        together = erasing.TOGETHER
        starts = range(0, 0 if keys and not rows else max(len(subjects), 1), together)
        for start in starts:
            erasures = erasing.erase(
                self.store,
                self.engine,
                self._settle_branches,
                subjects=subjects[start : start + together],
                predicate=where or "",
                why=why,
                progress=progress,
            )
            keys += (erasure.key for erasure in erasures)
        statuses = status.statuses(self.store, self.engine, self._settle_branches, keys)
        by_key = {result.erasure.key: result for result in statuses}
        *earlier, newest = (by_key[key] for key in keys)
        return dataclasses.replace(newest, earlier=tuple(earlier))

    def preview_erasure(
        self,
        *,
        subject: str | Sequence[str] | None = None,
        where: str | None = None,
        rows: bool = False,
        progress: ProgressCallback | None = None,
    ) -> ErasurePreview:
        """What `erase` would touch; publishes what is pending. Raises QueryFailed, Damaged,
        InvalidKey."""
        subjects = _names(subject)
        if where is None and not rows and self.store.paths.protection is not None:
            return key_erasure.preview(self.store, subjects)
        return touched.preview(
            self.store,
            self.engine,
            self._settle_branches,
            subjects=subjects,
            predicate=where or "",
            progress=progress,
        )

    def protect(
        self, fields: Sequence[str], *, types: Sequence[str] = (), subject: str = ""
    ) -> None:
        """Seal these fields of the payloads that are stored from now on, each under the key of its
        subject: the event's, or the field of the payload that is named. `types` are those of the
        events, by default of all. What was protected before stays so. Keys are in a file outside of
        the lake.

        Raises InvalidSetting, InvalidKey, NotAllowed, OSError.
        """
        key_erasure.protect(self.store, fields, types, subject)
        self._release()

    def erasures(self) -> list[ErasureStatus]:
        """How far each erasure of the lake is, oldest first; publishes what is pending."""
        return status.statuses(self.store, self.engine, self._settle_branches)

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


def _names(subject: str | Sequence[str] | None) -> list[str]:
    return [subject] if isinstance(subject, str) else list(dict.fromkeys(subject or ()))
