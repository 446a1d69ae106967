"""What of an erased subject may still be in the lake, where nobody may delete it unasked.

Each place is looked at: WAL files that a writer holds, buffers of loggers, what a repair or a crash
set aside, state directories, definitions, messages, names. What is found is named with what to do
about it; an erasure is done only when nothing is found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import orjson
import zstandard

from lakelog import chunks, document
from lakelog.database import SPILL
from lakelog.disk import File, Folder, NotIntact
from lakelog.entries import Record
from lakelog.erased import records
from lakelog.erasure.rewriting import History
from lakelog.erasure.selection import Chooser, frames_by_file, spellings
from lakelog.errors import Damaged, LakelogError
from lakelog.keys import VAULT
from lakelog.paths import INDEX, KEYS, FileName
from lakelog.store import Store
from lakelog.values import JsonObject

_PIECE = 1 << 20
_ZSTD, _LINE = b"\xb5\x2f\xfd", re.compile(rb"lkn1:[0-9A-Za-z+/=]+")
_HASHED = (
    "bloom",
    "words",
    "merkle",
    "verified.jsonl",
    "streams",
    "clock",
    "erasures.json",
    "erased_rows.json",
)
"""What in cache/ has no text of events but of segments that are there."""
_AFTERWARDS = "then run the erasure again, as `lakelog gc` deletes them later"
_MEMBERS = ("author", "message", "name", "branch")
_ADVICE = {
    "wal": "append to it or end that process: its next file is a new one; then run status again",
    "buffer": "the next process that logs to its branch stores it; then run the erasure again",
    "cut": "delete the file: it is the end of an append that was never acknowledged",
    "spill": "a query runs, or one was killed: if none does, delete the folder",
    "damaged": "delete the file if you need nothing of it",
    "copies": "delete the file once the copy is gone whose name it has; then run the erasure again",
    "erasures": "keep it: say `--cleaned` of the copy that it names; then run the erasure again",
    "states": "delete the saved directory that has it: `lakelog state clean`, then `lakelog gc`",
}


@dataclass(frozen=True)
class Leftover:
    """A place that may still hold an erased word, and what to do about it."""

    place: str
    advice: str


def leftovers(store: Store, chooser: Chooser, history: History) -> list[Leftover]:
    """Return the places in the lake that may still hold chosen rows: WAL files by their rows, and
    where subjects are known, all else by its bytes. Raises Damaged."""
    root = store.paths.root
    findings = [
        Leftover(os.path.relpath(path, root), _ADVICE["wal"])
        for path, frames in frames_by_file(store)
        if chooser.in_frames(frames)
    ]
    findings += spilled(store)
    if not chooser.subjects:
        return findings + list(unsearched(store))
    # All at once: every file of the lake is read.
    needles = [needle for subject in chooser.subjects for needle in _needles(subject)]
    findings += _in_definitions(history, needles)
    findings += _in_moves(store, needles)
    findings += _across_chunks(store, needles)
    places = {leftover.place for leftover in findings}
    for path in _searched(store):
        place = os.path.relpath(path, root)
        if place not in places and _holds(path, needles):
            # The note of it must not name the subject itself.
            public_place = (
                place
                if not _in(FileName(place).ref, needles)
                else f"a name in {place.split('/')[0]}/"
            )
            findings.append(Leftover(public_place, _advice(place)))
    return findings


def named(findings: list[Leftover]) -> list[JsonObject]:
    """Return what is kept of leftovers with an erasure: all but WAL files, which `status` looks at
    each time."""
    return [vars(leftover) for leftover in findings if not leftover.place.startswith("wal/")]


def renew_earlier(store: Store, subjects: Collection[str], remnants: Sequence[JsonObject]) -> None:
    """Say with the earlier erasures of subjects what is left of these now: of a place that is no
    file only an erasure can tell."""
    for earlier in records.listing(store.paths):
        if earlier.is_swept and earlier.leftovers and any(map(earlier.is_of, subjects)):
            dataclasses.replace(earlier, leftovers=list(remnants)).save(store.paths)


def _needles(subject: str) -> list[re.Pattern[bytes]]:
    """A subject as it may be spelled, as it is and in JSON; not as part of a longer word."""
    needles = (spelled.encode("utf-8", "surrogatepass") for spelled in spellings(subject))
    return [
        re.compile(rb"(?<![0-9A-Za-z])" + re.escape(needle) + rb"(?![0-9A-Za-z])")
        for needle in needles
    ]


def spilled(store: Store, until_ns: int = 1 << 63) -> Iterator[Leftover]:
    """Folders with rows that had no room in the memory of a query, which spilled first by some
    time. The engine compresses them in its own way, so nobody can search them."""
    for name in Folder(store.paths.cache).names():
        if name.startswith(SPILL):
            folder = f"{store.paths.cache}/{name}"
            with contextlib.suppress(FileNotFoundError):  # the query has just ended
                facts = [os.stat(f"{folder}/{file}") for file in Folder(folder).names()]
                is_old = any(fact.st_mtime_ns <= until_ns for fact in facts)
                # Of one that gave all back an empty file stays as long as the process.
                if is_old and any(fact.st_size for fact in facts):
                    yield Leftover(f"cache/{name}", _ADVICE["spill"])


def unsearched(store: Store) -> Iterator[Leftover]:
    """Places with text of any kind, which cannot be searched for what a condition chose."""
    cache = store.paths.cache
    for name in ("buffer", "cut", "damaged", "aside"):
        for file in Folder(f"{cache}/{name}").names():
            if os.path.getsize(f"{cache}/{name}/{file}"):
                place = f"cache/{name}/{file}"
                yield Leftover(place, _advice(place))


def _searched(store: Store) -> Iterator[str]:
    """Files that may hold any text: all but segments, id runs, manifests and what is derived."""
    paths = store.paths
    excluded = {f"{paths.root}/{name}" for name in ("segments", "ids", "manifests")}
    excluded |= {f"{paths.cache}/{name}" for name in _HASHED} | {paths.heads}
    for folder, folders, names in os.walk(paths.root):
        folders[:] = [name for name in folders if f"{folder}/{name}" not in excluded]
        for name in names:
            path = f"{folder}/{name}"
            if path not in excluded and not path.startswith(f"{paths.cache}/{SPILL}"):
                yield path


def _holds(path: str, needles: list[re.Pattern[bytes]]) -> bool:
    """Whether the name or the content of a file has one of the needles."""
    name = FileName.of(path).ref.encode("utf-8", "replace")
    if any(needle.search(name) for needle in needles):
        return True
    texts = contents(path)
    return any(needle.search(content) for needle in needles for content in texts)


def contents(path: str) -> list[bytes]:
    """What a file says: its bytes, and what they are once they are decrypted and decompressed."""
    try:
        data = File(path).read()  # decrypts a cache
    except (OSError, NotIntact):
        return []
    if os.path.dirname(path).endswith(KEYS.tags):
        # A state that it carries is a manifest: its statistics name who has events there.
        data, _ = document.split(data)
    contents = [data]
    for encoded in (data, *_LINE.findall(data)) if VAULT.lakes else ():
        # One that does not open is searched as it is: `verify` names it.
        with contextlib.suppress(ValueError, LakelogError):
            contents.append(VAULT.decrypt_line(VAULT.decrypt(encoded)))
    frames = [content for content in contents if _ZSTD in content or path.endswith(".zst")]
    return contents + [_unpacked(content) for content in frames]


def _unpacked(data: bytes) -> bytes:
    """The content of all zstd frames up to the first damage."""
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
    content = bytearray()
    try:
        while data_read := reader.read(_PIECE):
            content += data_read
    except zstandard.ZstdError:
        pass
    return bytes(content)


def _advice(place: str) -> str:
    names = place.split("/")
    return next(
        (advice for name, advice in _ADVICE.items() if name in names[:2]),
        "look at it, and delete or change it if you do not need it as it is",
    )


def _in_definitions(history: History, needles: list[re.Pattern[bytes]]) -> Iterator[Leftover]:
    """Views, cursors and the like of any state, which name the subject."""
    # A state after the other has the same definition.
    definitions = {
        (entry.entry_type, entry.key, orjson.dumps(entry.members))
        for entry in history.entries()
        if isinstance(entry, Record)
    }
    names = dict[str, None]()
    for label, key, members in sorted(definitions):
        is_named = _in(key, needles)
        if is_named or any(needle.search(members) for needle in needles):
            # A name that is the subject itself must not be shown.
            names[label if is_named else f"{label} {key}"] = None
    for name in names:
        advice = (
            f"drop it, then `lakelog expire` gives up the states that still have it; {_AFTERWARDS}"
        )
        yield Leftover(f"definition: {name}", advice)
    for digest, state in history.states.items():
        if _in(f"{state.author}\0{state.message}", needles):
            yield Leftover(
                f"state {digest[:12]}", f"its message says it: `lakelog expire`; {_AFTERWARDS}"
            )


def _in(content: str, needles: list[re.Pattern[bytes]]) -> bool:
    return any(needle.search(content.encode("utf-8", "surrogatepass")) for needle in needles)


def _in_moves(store: Store, needles: list[re.Pattern[bytes]]) -> Iterator[Leftover]:
    """Moves whose message, author or branch names the subject."""
    for branch in store.refs.all_branches():
        # Names of branches are in their directory, whatever a move says.
        if _in(branch, needles):
            yield Leftover("the name of a branch", "it cannot be changed: delete the branch")
        try:
            for move in store.refs.newest_first(branch):
                if _in("\0".join(str(getattr(move, m)) for m in _MEMBERS[:2]), needles):
                    yield Leftover(
                        f"move {move.number} of {branch}", "its message says it, and stays for good"
                    )
        except Damaged:
            yield Leftover(f"the moves of {branch}", "run `lakelog verify`: some cannot be read")


def _across_chunks(store: Store, needles: list[re.Pattern[bytes]]) -> Iterator[Leftover]:
    """Saved directories in whose content one of the needles begins in a chunk and ends in the
    next."""
    files = chunks.StateFiles(store.paths)
    overlap = 2 * max(len(needle.pattern) for needle in needles)

    @functools.cache
    def edges(chunk: str) -> tuple[bytes, bytes]:
        # Most chunks are in many saves of a directory: each is read once.
        data = files.read_chunk(chunk)
        return data[:overlap], data[overlap:][-overlap:]

    for name in files.names():
        digest = chunks.digest_of_name(name) if name.endswith(INDEX) else None
        end = b""
        # Of a damaged one each chunk was searched: `verify` names it.
        with contextlib.suppress(Damaged):
            for chunk, _ in files.read_index(digest).chunks if digest else ():
                head, tail = edges(chunk)
                both = end + head
                matches = (match for needle in needles for match in needle.finditer(both))
                if any(match.start() < len(end) < match.end() for match in matches):
                    yield Leftover(name, _advice(name))
                    break
                end = (both + tail)[-overlap:]
