"""What `cache/` derived from rows, which is deleted with them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator

from lakelog import database, ranks
from lakelog.disk import File, Folder, disk
from lakelog.erased import Refusal
from lakelog.erased.sweep import sweep
from lakelog.erasure import rewriting
from lakelog.history import lake_time
from lakelog.libraries import pa
from lakelog.paths import KEYS
from lakelog.segments import Segment
from lakelog.store import Store

_HOUR = 3_600_000_000
_ANSWERS = ("views", "folds")
"""Folders of cache/ with results of queries over events: each is made again when it is asked
for."""


def temporary_files(store: Store) -> Iterator[str]:
    """Yield the paths of unfinished files that may hold rows or texts: of writers that are at work,
    or that were killed."""
    for name in ("segments", "manifests", "refs", "wal"):
        for folder, _, files in os.walk(f"{store.paths.root}/{name}"):
            for file in files:
                if file.startswith(disk.TEMPORARY):
                    yield f"{folder}/{file}"


def drop_strays(store: Store, bucket_segments: Collection[str] = ()) -> None:
    """Drop segments here, and of `bucket_segments`, that no state of a shared lake names
    and that have rows which are refused: nobody can publish them any more. Raises Unreachable."""
    named = rewriting.history_of(store).segments()
    refusal = Refusal(store.paths, by_arrival=True)
    strays = [
        key for key in {*store.paths.digests("segments"), *bucket_segments} if key not in named
    ]
    store.verified.obtain([(key, store.paths.object("segments", key)) for key in strays])
    dropped = []
    with database.shared_database(store.paths) as open_engine:
        for key in strays:
            # Gone, or damaged, which `verify` reports.
            with contextlib.suppress(OSError, pa.ArrowInvalid):
                if refusal.mask(Segment(store.paths, key).read(open_engine=open_engine)).any():
                    dropped.append(key)
    if dropped:
        store.erased.add({}, dict.fromkeys(dropped, ""))
        for key in dropped:
            store.volume.remove(KEYS.object("segments", key))


def clean(store: Store) -> None:
    """Delete what is left of replaced states and segments, and what the cache has of them."""
    # Of a shared lake the directory alone: the bucket is swept once, by the machine that erases.
    sweep(store.attachment.erasures.local if store.attachment else store)
    paths, replaced = store.paths, store.erased.segments()
    for folder in (paths.names, paths.peaks, paths.ranges, paths.blooms, paths.word_indexes):
        for key in replaced.keys() & set(Folder(folder).names()):
            File(f"{folder}/{key}").remove()
    ranks.drop(paths, replaced)
    now_us = lake_time(store)
    for path in temporary_files(store):
        with contextlib.suppress(FileNotFoundError):
            # As gc does: whoever is about to give a younger one its name is at work.
            if now_us - os.stat(path).st_mtime_ns // 1000 >= _HOUR:
                File(path).remove()
    folders = [paths.blooms, paths.word_indexes, paths.rank_indexes, paths.peaks]
    folders += forget_answers(store)
    for name in Folder(store.paths.rank_indexes).names():
        if name.startswith(disk.TEMPORARY):  # of a ranked search that runs, or was killed
            ranks.drop(store.paths, [name])
    for folder in folders:
        if File(folder).exists():
            Folder(folder).sync()
    store.refs.forget()
    store.manifests.forget()


def forget_answers(store: Store) -> list[str]:
    """Delete all cached answers of views and folds; return the folders in which they were."""
    folders = []
    for name in _ANSWERS:
        for folder, _, files in os.walk(f"{store.paths.cache}/{name}"):
            folders.append(folder)
            for file in files:
                File(f"{folder}/{file}").remove()
    return folders
