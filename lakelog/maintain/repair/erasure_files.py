"""The files of erasures: checked, and brought back after damage (F14.5, F23).

What is read in the place of a state is a manifest with the commit of the move that made it: so it
is known again where a shard is lost. Which segments were replaced only a copy says too; a push to a
remote looks again at those that nobody here knows.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from lakelog.disk import File, Folder
from lakelog.erased import records, sweep
from lakelog.errors import Damaged, DamagedRef
from lakelog.maintain.repair import recover
from lakelog.maintain.repair.checker import Checker
from lakelog.maintain.repair.outcome import RepairOutcome
from lakelog.paths import KEYS
from lakelog.refs import Move, Tag
from lakelog.store import Store

_INDEX = "states.json"
_NOTE, _ROWS = re.compile(r"[0-9a-f]{16}\.json"), ".rows"
_HEAD = re.compile(rb'\{"format":[0-9]+,"parent":"[0-9a-f]*","commit":"([0-9a-f]{32})"')


def check(checker: Checker) -> None:
    """Check what is noted of erasures, and of the places that got rows."""
    paths = checker.store.paths
    for error in _damage(checker.store).values():
        checker.add(error.path, error.reason)
    for name in sorted(Folder(paths.erasures).names()):
        if _NOTE.fullmatch(name):
            note = checker.document(f"{paths.erasures}/{name}", {"key", "events", "lines"})
            rows = f"{paths.erasures}/{name[:16]}{_ROWS}"
            # One of keys touched no row.
            has_rows = note and (note["events"] or note["lines"]) and not note.get("subjects")
            if has_rows and not File(rows).exists():
                checker.add(rows, "it is missing")
        elif name.endswith(_ROWS):
            checker.document(f"{paths.erasures}/{name}", {"places", "keys", "contents", "leaves"})
    for name in sorted(filter(_NOTE.fullmatch, Folder(paths.copies).names())):
        checker.document(f"{paths.copies}/{name}", {"place", "name", "time"})


def mend(store: Store, outcome: RepairOutcome, copy_store: Store | None) -> set[str]:
    """Note again what is read in the place of states, with what a copy says of it. Return the paths
    of states that a copy from before an erasure may not give back."""
    damage = _damage(store)
    if not damage:
        return set()
    made_by = _made_by_commits(store)
    mapping = store.erased.strewn() if "" in damage else store.erased.legible()[0]
    for digest, stand_in in made_by.items():
        # Shards that an index named before may be there still.
        if stand_in and ("" in damage or digest not in mapping.states):
            mapping.states[digest] = stand_in
    if copy_store is not None:
        copy_mapping, _ = copy_store.erased.legible()
        for digest in made_by.keys() & copy_mapping.states.keys():
            mapping.states.setdefault(digest, copy_mapping.states[digest])
        for key, stand_in in copy_mapping.segments.items():
            # A copy that went another way may have erased from one that is in use here.
            if not File(store.paths.object("segments", key)).exists():
                mapping.segments.setdefault(key, mapping.segments.get(stand_in, stand_in))
    for error in damage.values():
        outcome.set_aside(store, error.path)
    store.erased.rewrite(mapping)
    outcome.done.append("what is read in the place of states of before an erasure: noted again")
    # A bucket has all of it.
    if store.attachment or (copy_store is not None and _notes(store) <= _notes(copy_store)):
        return set()
    outcome.lost.append(
        "which segments an erasure replaced: push to each remote, and publish each table again"
    )
    lacking = made_by.keys() - mapping.states.keys()
    return {store.paths.object("manifests", digest) for digest in lacking}


def give_up(store: Store, outcome: RepairOutcome, path: str) -> None:
    """Go on without what is noted of an erasure, or of a place that got rows."""
    name = os.path.relpath(path, store.paths.root)
    if path.endswith(_ROWS):
        outcome.replace(store, path, records.ErasedRows().encoded())
        outcome.lost.append(f"{name}: erase again what comes in again of it")
        return
    outcome.set_aside(store, path)
    outcome.lost.append(
        f"{name}: a place that got rows, which an erasure will not name"
        if path.startswith(store.paths.copies)
        else f"{name}: erase the same again, or what comes in of it is not refused"
    )


def _damage(store: Store) -> dict[str, DamagedRef]:
    """What is wrong with the note of what is read in the place of states, by the digits with which
    the digests there begin."""
    mapping, damage = store.erased.legible()
    if mapping.states or damage or not _notes(store):
        return damage
    path = f"{store.paths.erasures}/{_INDEX}"
    # A lake that never had such a state has no index.
    is_missing = not File(path).exists() and any(_made_by_commits(store).values())
    return {"": DamagedRef(path, "it is missing")} if is_missing else {}


def _notes(store: Store) -> set[str]:
    return set(filter(_NOTE.fullmatch, Folder(store.paths.erasures).names()))


def _made_by_commits(store: Store) -> dict[str, str]:
    """Of each state that a move or tag names and that is nowhere under its name, the manifest that
    has the commit, "" where not exactly one has."""
    commits, texts = dict[str, set[str]](), set[str]()
    for ref in _refs(store):
        commits.setdefault(ref.snapshot, set()).add(ref.commit)
        if ref.carried:
            texts.add(ref.snapshot)
    manifests = dict[str, set[str]]()
    for digest, encoded in sweep.manifest_texts(store):
        if digest not in commits and (head := _HEAD.match(encoded)):
            manifests.setdefault(head[1].decode(), set()).add(digest)
    absent = (
        digest
        for digest in commits.keys() - texts
        if not store.volume.exists(KEYS.object("manifests", digest))
    )
    candidates = {
        digest: set[str]().union(*(manifests.get(commit, ()) for commit in commits[digest]))
        for digest in absent
    }
    return {
        digest: min(matches) if len(matches) == 1 else "" for digest, matches in candidates.items()
    }


def _refs(store: Store) -> Iterator[Move | Tag]:
    """Yield the moves and tags that can be read."""
    for branch in store.refs.all_branches():
        for move, _ in recover.moves(store, branch)[0].values():
            yield move
    for name in store.refs.tag_names():
        with contextlib.suppress(Damaged, FileNotFoundError):
            yield store.refs.read_tag(name)[0]
