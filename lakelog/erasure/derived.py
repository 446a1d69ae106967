"""What `cache/` derived from rows, which is deleted with them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from lakelog import ranks
from lakelog.erased.sweep import sweep
from lakelog.history import lake_time
from lakelog.store import disk
from lakelog.store.bootstrap import Store

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


def clean(store: Store) -> None:
    """Delete what is left of replaced states and segments, and what the cache has of them."""
    sweep(store)
    for key in store.erased.segments():
        for path in (store.paths.bloom(key), store.paths.words(key), f"{store.paths.peaks}/{key}"):
            disk.unlink(path)
        ranks.drop(store.paths, [key])
    now_us = lake_time(store)
    for path in temporary_files(store):
        with contextlib.suppress(FileNotFoundError):
            # As gc does: whoever is about to give a younger one its name is at work.
            if now_us - os.stat(path).st_mtime_ns // 1000 >= _HOUR:
                disk.unlink(path)
    paths = store.paths
    folders = [paths.blooms, paths.word_indexes, paths.rank_indexes, paths.peaks]
    folders += forget_answers(store)
    for name in disk.listing(store.paths.rank_indexes):
        if name.startswith(disk.TEMPORARY):  # of a ranked search that runs, or was killed
            ranks.drop(store.paths, [name])
    for folder in filter(disk.exists, folders):
        disk.sync_dir(folder)
    store.refs.forget()
    store.manifests.forget()


def forget_answers(store: Store) -> list[str]:
    """Delete all cached answers of views and folds; return the folders in which they were."""
    folders = []
    for name in _ANSWERS:
        for folder, _, files in os.walk(f"{store.paths.cache}/{name}"):
            folders.append(folder)
            for file in files:
                disk.unlink(f"{folder}/{file}")
    return folders
