"""Erasing by keys: the keys of subjects are destroyed, and with them their protected fields in
every copy of the lake. No row is written again, however large the lake is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from lakelog.disk import Folder, disk
from lakelog.erased import records
from lakelog.erased.records import Erasure
from lakelog.erasure import derived, erasing, outside
from lakelog.erasure.leftovers import Leftover
from lakelog.erasure.touched import ErasurePreview
from lakelog.errors import InvalidEvent, InvalidSetting
from lakelog.keys import SubjectKeys
from lakelog.protect import Protection
from lakelog.store import Policy, Store
from lakelog.values import JsonObject

_SEALED_COPIES = ("alert", "backup", "remote")
"""Copies that have the fields as the lake has them, sealed, or never had them."""
_BEFORE = "plain until they are compacted, and in older states; --rows erases them"
_LINES = "sealed with a key that stays; --rows erases those that have the subject as a word"
_OTHERS = "also type, subject, message and all else; --rows erases the events"


def protect(
    store: Store, fields: Sequence[str], types: Sequence[str] = (), subject: str = ""
) -> Protection:
    """Seal fields of payloads from now on under the keys of subjects, whose file is made if it is
    missing; `types` are those of the events, by default of all. Raises InvalidSetting, InvalidKey,
    NotAllowed, OSError."""
    if store.attachment is not None:
        store.attachment.refresh(store)  # another machine may protect some already
    before = store.paths.protection
    if before is not None and subject not in ("", before.subject):
        raise InvalidSetting(f"fields are sealed by {before.subject}: that cannot be changed")
    protection = Protection(
        before.id if before else disk.random_hex(8),
        tuple(dict.fromkeys(fields)),
        tuple(dict.fromkeys(types)),
        subject or (before.subject if before else "subject"),
        _since(store),
        before.destroyed if before else 0,
    )
    protection.check()
    ring = store.paths.keys.ring if store.paths.keys else None
    if before is not None:
        before.require_ciphers()  # a new file would have other keys
    SubjectKeys.create(protection.id, ring.find_master() if ring else None)
    if before is not None:
        # What is sealed cannot be taken for plain again: its fields stay protected.
        protection = before.joined(protection, protection.since)
    _change(store, protection)
    return protection


def adopt_protection(store: Store, other: Protection) -> None:
    """Protect also what another lake of the same keys does, before something of it comes here.
    Raises InvalidSetting, NotAllowed, OSError."""
    before = store.paths.protection
    # Each push and pull asks: mostly nothing is new, and no branch is looked at.
    if before is not None and before.joined(other, 0) == before:
        return
    # How many keys were destroyed is for the file of keys to say, and not for another lake.
    since = _since(store)
    own = before or dataclasses.replace(other, since=max(since, other.since), destroyed=0)
    _change(store, own.joined(other, since))


def _change(store: Store, protection: Protection) -> None:
    store.change_protection(protection)
    derived.forget_answers(store)  # which may have words of the fields


def _since(store: Store) -> int:
    """From when (us) on all events have fields sealed that are protected now."""
    # A file of a WAL has a frame at least.
    has_events = any(
        store.state(branch).next_seq or Folder(store.paths.wal_dir(branch)).names()
        for branch in store.refs.branches()
    )
    return disk.now_us() if has_events else 0


def preview(store: Store, subjects: Sequence[str]) -> ErasurePreview:
    """Say what `destroy_keys` does and leaves, without a look at any event. Raises InvalidKey."""
    protection = _protection(store)
    protection.require_ciphers()
    fields = ", ".join(protection.fields)
    # All that a key does not seal stays, which a preview must not hide.
    stays = [Leftover(f"fields other than {fields}", _OTHERS)]
    states = map(store.state, store.refs.branches())
    if any(store.manifests.segments(state, "quarantine") for state in states):
        stays.append(Leftover("quarantined lines", _LINES))
    if protection.since:
        stays.append(Leftover("events from before the fields were protected", _BEFORE))
    return ErasurePreview(
        events=0,
        lines=0,
        segments=0,
        states=0,
        branches={},
        tags={},
        mentions=0,
        leftovers=tuple(stays),
        outside=tuple(copies(store)),
        keys=len(set(subjects)),
    )


def destroy_keys(store: Store, subjects: Sequence[str], why: str) -> Erasure:
    """Destroy the newest keys of subjects; return the note of it. What they do later is sealed with
    others. Raises InvalidEvent, InvalidKey, NotAllowed, OSError."""
    Policy.require(store.paths, "erase")
    if not subjects or not all(subjects):
        raise InvalidEvent("say whose keys to destroy: a subject")
    Erasure.check_reason(why, subjects)
    if store.attachment is None:
        return _destroyed(store, subjects, why)
    with erasing.alone(store):
        store.attachment.refresh(store)
        store.attachment.erasures.learn()
        return _destroyed(store, subjects, why)


def _destroyed(store: Store, subjects: Sequence[str], why: str) -> Erasure:
    protection = _protection(store)
    protection.require_ciphers()
    erasure = Erasure.begun_by_keys(store.paths, subjects, why)
    places = erasure.places or SubjectKeys.places(protection.id, dict.fromkeys(subjects))
    erasure = dataclasses.replace(erasure, outside=copies(store), places=places)
    # The note first, with the keys: whoever goes on after a kill destroys these, and no others.
    erasure.save(store.paths)
    _share(store, erasure)
    destroyed = SubjectKeys.destroy(protection.id, places)
    store.change_protection(dataclasses.replace(protection, destroyed=destroyed))
    erasure = erasure.swept()
    _share(store, erasure)  # before: what is not swept here is gone on with
    erasure.save(store.paths)
    return erasure


def destroy_adopted(store: Store, adopted: Iterable[Erasure]) -> None:
    """Destroy the keys here that erasures of another lake destroyed in its copy of their file, if
    there is one here. Raises InvalidKey, OSError."""
    with_keys = [erasure for erasure in adopted if erasure.places]
    protection = store.paths.protection
    if not with_keys or protection is None or protection.ciphers() is None:
        return
    for erasure in with_keys:
        _share(store, erasure)
    places = [place for erasure in with_keys for place in erasure.places]
    destroyed = SubjectKeys.destroy(protection.id, places)
    store.change_protection(dataclasses.replace(protection, destroyed=destroyed))


def destroy_recorded(store: Store) -> str:
    """Destroy in the file of keys what erasures destroyed, where it was restored from an older
    copy; return a line that says so, "" where nothing was to be done. Raises InvalidKey,
    DamagedRef."""
    protection = store.paths.protection
    if protection is None:
        return ""
    places = _recorded_places(store)
    if not SubjectKeys.has_some(protection.id, places):
        return ""
    SubjectKeys.destroy(protection.id, places)
    return f"{protection.path}: keys that were destroyed are destroyed in it again"


def has_destroyed_keys(store: Store) -> bool:
    """Whether the file of keys has some that erasures destroyed, or does not open. Raises
    DamagedRef."""
    protection = store.paths.protection
    return protection is not None and SubjectKeys.has_some(protection.id, _recorded_places(store))


def _recorded_places(store: Store) -> list[str]:
    return [place for record in records.listing(store.paths) for place in record.places]


def _share(store: Store, erasure: Erasure) -> None:
    """Note it in a shared lake, of which each machine destroys the keys that it has."""
    if store.attachment is not None:
        store.attachment.erasures.share(erasure)


def _protection(store: Store) -> Protection:
    protection = store.paths.protection
    if protection is None:
        raise InvalidEvent(
            f"the lake at {store.paths.root} has no protected fields: see `lakelog config protect`"
        )
    return protection


def copies(store: Store) -> list[JsonObject]:
    """Where values went that had been opened: what is sealed there needs nothing."""
    noted = outside.places(store, dict.fromkeys(store.refs.tag_names(), 1))
    return [place for place in noted if place["place"] not in _SEALED_COPIES]
