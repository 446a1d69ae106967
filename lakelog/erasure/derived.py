"""What `cache/` derived from rows, which is deleted with them."""

from __future__ import annotations

import os

from lakelog.erased.sweep import sweep
from lakelog.store import disk
from lakelog.store.bootstrap import Store

_ANSWERS = ("views", "folds")
"""Folders of cache/ with results of queries over events: each is made again when it is asked
for."""


def clean(store: Store) -> None:
    """Delete what is left of replaced states and segments, and what the cache has of them."""
    sweep(store)
    for key in store.erased.segments():
        for path in (store.paths.bloom(key), store.paths.words(key), f"{store.paths.peaks}/{key}"):
            disk.unlink(path)
    folders = [store.paths.blooms, store.paths.word_indexes, store.paths.peaks]
    for name in _ANSWERS:
        for folder, _, files in os.walk(f"{store.paths.cache}/{name}"):
            folders.append(folder)
            for file in files:
                disk.unlink(f"{folder}/{file}")
    for folder in filter(disk.exists, folders):
        disk.sync_dir(folder)
    store.refs.forget()
    store.manifests.forget()
