"""Bugs planted in lakelog's own code, each with the row that must notice it.

An edit changes the source of one function; a protocol plant is one of test_protocol_planted.py.
"""

from __future__ import annotations
import __future__

import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import seam
from tests.support.casts import CASTS
from tests.support.histories import WAYS
from tests.support.protocol_bugs import PLANTED
from tests.torture.calls import PLAYS
from tests.torture.erasure_bugs import ERASURE_BUGS
from tests.torture.lives import ON_DISK
from tests.torture.repairs import THEMES
from tests.torture.trace import WORK
from tests.torture.viewed import FAULTS

SHORT = PLAYS.index(("append", "short once"))
STORE, MOVES = "lakelog.store", "lakelog.moves.publication"
INGEST, VIEWS = "lakelog.ingest", "lakelog.views"
FILES, MAINTAIN = "lakelog.files", "lakelog.maintain"


@dataclass(frozen=True)
class Mutant:
    """One bug: what is wrong, the row that must notice, and which of its cases to play."""

    what: str
    row: str
    plant: Callable[[pytest.MonkeyPatch], None]
    first: int = 0
    step: int = 1


def edit(patch: pytest.MonkeyPatch, where: str, old: str, new: str) -> None:
    """Give a function, `module:name` or `module:Class.name`, another source."""
    place, _, dotted = where.partition(":")
    module = importlib.import_module(place)
    owner: Any = module
    *path, name = dotted.split(".")
    for part in path:
        owner = getattr(owner, part)
    function = inspect.unwrap(getattr(owner, name))
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{where}: {old!r} is there {source.count(old)} times"
    flags = __future__.annotations.compiler_flag
    code = compile(source.replace(old, new), f"<{where}>", "exec", flags)
    made: dict[str, Any] = {}
    exec(code, module.__dict__, made)
    if owner is not module:
        patch.setattr(owner, name, made[name])
        return
    replace(patch, getattr(module, name), made[name])


def replace(patch: pytest.MonkeyPatch, old: Any, new: Any) -> None:
    """Put a function in the place of another wherever it was imported."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("lakelog"):
            for name, value in list(vars(module).items()):
                if value is old:
                    patch.setattr(module, name, new)
    for name, value in seam.FUNCTIONS.items():
        if value is old:
            patch.setitem(seam.FUNCTIONS, name, new)


def _edited(
    what: str, row: str, where: str, old: str, new: str, first: int = 0, step: int = 1
) -> Mutant:
    return Mutant(what, row, lambda patch: edit(patch, where, old, new), first, step)


def _give_twice(patch: pytest.MonkeyPatch) -> None:
    """Forget which cursor was given away: the index does not say, and nobody asks for it."""
    edit(patch, f"{FILES}.identity:Resolver.apply", "self.index.add(cursor)", "pass")
    edit(
        patch,
        f"{INGEST}.group:Group._read",
        "if data is None or touched & self._keys:",
        "if data is None:",
    )


def _by_way(way: str, *, on_disk: bool = False) -> tuple[int, int]:
    """The first case of the row of lives with logs of one way of rotation, and from which to which
    such cases are."""
    cycle = range(1 + 2 * WAYS.index(way), 4 * ON_DISK * len(WAYS), 2 * len(WAYS))
    wanted = [number for number in cycle if not on_disk or number % ON_DISK == ON_DISK - 1]
    return wanted[0], wanted[1] - wanted[0]


def _themed(theme: str) -> tuple[int, int]:
    """The first case of the row of repairs of one theme, and from which to which such cases are."""
    return THEMES.index(theme), len(THEMES)


def _verb(name: str) -> int:
    """The case of the row of crash states that takes one verb."""
    return list(WORK).index(name)


REPAIR = f"{MAINTAIN}.repair"
REFS = f"{REPAIR}.refs"
WRITER, DISK = "lakelog.appends.writer:Writer", "lakelog.disk.disk"
EDITS = [
    _edited(
        "a sync dropped: the frame",
        "states",
        f"{WRITER}._store_frame",
        "OpenFile(self._fd).sync()",
        "pass",
        _verb("six appends"),
    ),
    _edited(
        "acknowledged before its sync",
        "states",
        f"{WRITER}._store_frame",
        "OpenFile(self._fd).write_blocks(frame + space, zeros)\n"
        "            OpenFile(self._fd).sync()",
        "OpenFile(self._fd).sync()\n"
        "            OpenFile(self._fd).write_blocks(frame + space, zeros)",
        _verb("six appends"),
    ),
    _edited(
        "a sync dropped: the first frame",
        "states",
        f"{WRITER}._open_next",
        "OpenFile(fd).sync()",
        "pass",
        _verb("six appends"),
    ),
    _edited(
        "a sync dropped: the WAL's name",
        "states",
        f"{WRITER}._open_next",
        "folder.sync()",
        "pass",
        _verb("six appends"),
    ),
    _edited(
        "a sync dropped: objects",
        "states",
        f"{DISK}:finish",
        "sync_file(file.fd)",
        "pass",
        _verb("settle"),
    ),
    _edited(
        "a sync dropped: names of objects",
        "states",
        f"{DISK}:finish",
        "sync_dir(directory)",
        "pass",
        _verb("settle"),
    ),
    _edited(
        "a sync dropped: before a trim",
        "states",
        f"{MOVES}:link_move",
        "        store.refs.sync(move.branch, head.digest)\n        return head",
        "        return head",
        _verb("settle"),
    ),
    _edited(
        "a failed sync tried again",
        "lies",
        f"{WRITER}._store_frame",
        "except OSError:\n            pass",
        "except OSError:\n            OpenFile(self._fd).sync()\n            return",
        4,
    ),
    _edited(
        "short writes believed",
        "calls",
        f"{DISK}:write_all",
        "while count < len(data):",
        "while False:",
        SHORT,
        len(PLAYS),
    ),
    _edited(
        "`rename` for `link`",
        "publish",
        f"{DISK}:create_whole",
        "link(temporary, path)",
        "os.replace(temporary, path)",
    ),
    _edited(
        "a torn frame believed",
        "corrupt",
        "lakelog.wal.frames:frame_at",
        "if zlib.crc32(payload) != crc:",
        "if False:",
    ),
    _edited(
        "a document's checksum skipped",
        "corrupt",
        "lakelog.document.checksum:check",
        "len(data) <= TAIL or data[-TAIL:] != _ending(memoryview(data)[:-TAIL])",
        "len(data) <= TAIL",
    ),
    _edited(
        "a segment's checksum skipped",
        "corrupt",
        f"{STORE}.verified_files:VerifiedFiles.hash_file",
        'return hashlib.file_digest(file, "sha256").hexdigest()',
        "return path.rpartition('/')[2].partition('.')[0]",
    ),
    _edited(
        "a mark believed though the file changed",
        "corrupt",
        f"{STORE}.verified_files:VerifiedFiles.holds",
        "return self._load().get(digest) == _line(digest, _stamp(path))",
        "_stamp(path)\n    return digest in self._load()",
    ),
    _edited(
        "verify believes packed moves",
        "corrupt",
        "lakelog.volume.move_pack:MovePack.decode",
        "hashlib.sha256(data[:-32]).digest() != data[-32:]",
        "False",
    ),
    _edited(
        "a cursor outside its commit",
        "ingest",
        f"{INGEST}.cursor_commit:commit",
        "(*tombstones, *entries, *steps))",
        "(*tombstones, *entries))",
    ),
    _edited(
        "a cursor ahead of its rows",
        "watch",
        f"{INGEST}.cursor_commit:commit",
        "(*tombstones, *entries, *steps))",
        "tuple(steps))",
    ),
    _edited(
        "a batch that starts after a later move",
        "feed",
        f"{INGEST}.gather:Gatherer.flush",
        "Batch(job, base_now)",
        "Batch(job)",
    ),
    _edited(
        "a cursor not looked at again",
        "feed",
        f"{INGEST}.batch:Batch.publish",
        "is_rewound or not stand(state)",
        "is_rewound",
    ),
    _edited(
        "a watermark one too high",
        "sequence",
        f"{MAINTAIN}.seal:Sealer.seal",
        "w: fs[-1].sequence for",
        "w: fs[-1].sequence + 1 for",
    ),
    _edited(
        "a trim one frame too early",
        "schedule",
        "lakelog.wal.trimming:_is_sealed",
        "file.last <= mark",
        "file.last <= mark + 1",
        0,
        len(CASTS),
    ),
    _edited(
        "retention's filter inverted",
        "sequence",
        f"{MAINTAIN}.retention:_rest",
        "time) >= {before}",
        "time) < {before}",
    ),
    _edited(
        "pruning's filter inverted",
        "sequence",
        "lakelog.query.pruning:_holding",
        "entries = [e for e in entries if e.key in matches]",
        "entries = [e for e in entries if e.key not in matches]",
    ),
    _edited(
        "a given id stored twice",
        "sequence",
        "lakelog.identities.identity_run:unique_rows",
        "keep[order[_is_stored(store, runs, ordered, pending)]] = False",
        "pass",
    ),
    _edited(
        "compaction loses a row",
        "sequence",
        f"{MAINTAIN}.compact:rewrite",
        'WHERE {condition}"',
        'WHERE {condition} OFFSET 1"',
    ),
    _edited(
        "gc takes what tags name",
        "sequence",
        f"{MAINTAIN}.gc:Marker.refresh",
        "for tag in store.refs.tags()",
        "for tag in ()",
    ),
    _edited(
        "a bad line dropped",
        "fuzz",
        f"{INGEST}.transform:Transformer._exact",
        "result.bad.append(self._bad(chunk, start, error.reason, line))",
        "pass",
    ),
    _edited(
        "a file known by its inode alone",
        "watch",
        f"{FILES}.file_cursor:FileCursor.before_place",
        "length, head_digest = self.stem",
        "source.seek(max(self.bytes - Source.WINDOW, 0))\n"
        "    return source.read(min(self.bytes, Source.WINDOW))\n"
        "    length, head_digest = self.stem",
        400,
    ),
    _edited(
        "look-alikes taken for one",
        "identity",
        f"{FILES}.file_cursor:FileCursor.is_distinctive",
        "return len(lines) >= _LINES",
        "return True",
    ),
    _edited(
        "equal files side by side are one",
        "identity",
        f"{FILES}.identity:_UnknownFile._beside",
        "elif not (name.is_copy_of(",
        "elif False and not (name.is_copy_of(",
    ),
    Mutant("one cursor given to two files", "identity", _give_twice),
    _edited(
        "a copy of a growing log is read",
        "identity",
        f"{FILES}.identity:_UnknownFile._beside",
        "is_packing\n            or FileCursor.is_distinctive(head)",
        "False",
    ),
    _edited(
        "a truncation not noticed",
        "identity",
        f"{FILES}.identity:Resolver.resolve",
        "if cursor.label == self.label:\n            released.append(cursor)",
        "return KnownContent(cursor)",
    ),
    _edited(
        "a shorter copy read from its start",
        "identity",
        f"{FILES}.file_copies:last_place",
        "return place",
        "return 0",
        *_by_way("copytruncate slowly"),
    ),
    _edited(
        "a packed file is a new one",
        "identity",
        f"{FILES}.identity:_UnknownFile._instead",
        "if sure or whole:",
        "if whole:",
    ),
    _edited(
        "the half of a line stored at a rename",
        "identity",
        "lakelog.collect.followed_file:FollowedFile.mode",
        "if self.file != file:\n",
        "if False:\n",
    ),
    _edited(
        "read past the size that was scanned",
        "identity",
        "lakelog.collect.watch:Watcher._take_together",
        "limit=file.size",
        "limit=None",
        *_by_way("copytruncate meanwhile"),
    ),
    _edited(
        "files that lost their names are dropped",
        "identity",
        "lakelog.collect.watch:Watcher._finish",
        "if followed.fd >= 0:",
        "if False:",
        *_by_way("delete", on_disk=True),
    ),
    _edited(
        "what a copy alone holds is not read",
        "identity",
        f"{FILES}.identity:Resolver._copy_again",
        "return Start(continued, original, head, before, (copy,))",
        "return FileCopy(current, copy, head)",
        *_by_way("copytruncate meanwhile"),
    ),
    _edited(
        "a number used again is the same file",
        "identity",
        f"{FILES}.cursor_paths:CursorPaths.is_doubtful",
        "self._follows and not is_as_read(source, cursor)",
        "False",
        *_by_way("create", on_disk=True),
    ),
    _edited(
        "a removed file keeps its number",
        "identity",
        f"{INGEST}.gather:Gatherer.__init__",
        "if source.is_removed and",
        "if False and",
        *_by_way("delete", on_disk=True),
    ),
    _edited(
        "times of moves may go back",
        "clock",
        f"{STORE}.clock:Clock.following",
        "max(now_us, previous_us + 1)",
        "now_us",
    ),
    _edited(
        "a piece's digest not checked",
        "views",
        f"{VIEWS}.partials:Partials.load",
        "hashlib.sha256(body).hexdigest() != piece_file.digest",
        "False",
        FAULTS.index("damaged"),
        len(FAULTS),
    ),
    _edited(
        "a piece of another view believed",
        "views",
        f"{VIEWS}.partials:Partials._header",
        'header_fields["state"] != state',
        "False",
        FAULTS.index("swapped"),
        len(FAULTS),
    ),
    _edited(
        "a layer of another branch used",
        "views",
        f"{VIEWS}.state_notes:StateNote.reads",
        "surplus or not covered <= lineage.leaves(cover)",
        "surplus",
    ),
    _edited(
        "a state noted of another view believed",
        "views",
        f"{VIEWS}.state_notes:StateNotes.of",
        'fields["view"] != view',
        "False",
        FAULTS.index("swapped"),
        len(FAULTS),
    ),
    _edited(
        "a tail merged twice",
        "views",
        f"{VIEWS}.engine:Projector._with_tail",
        "over.layer, over.tail.num_rows",
        "over.layer, 0",
    ),
    _edited(
        "covered rows of a compacted segment read",
        "views",
        f"{VIEWS}.lineage:Lineage.missing",
        "tuple((a, b) for a, b in spans)",
        "()",
    ),
    _edited(
        "repair: rewinds after the state forgotten",
        "repair",
        f"{REFS}:_sealed_before",
        "limit = max([base.number, *rewinds])",
        "limit = base.number",
        *_themed("states"),
    ),
    _edited(
        "repair: watermarks of the state's move alone",
        "repair",
        f"{REFS}:_sealed_before",
        "m.number <= limit",
        "m.number == limit",
        *_themed("states"),
    ),
    _edited(
        "repair: lost commits not listed",
        "repair",
        f"{REFS}:restore_state",
        "outcome.lost.extend([*lost_numbers, *elsewhere])",
        "pass",
        *_themed("sealing"),
    ),
    _edited(
        "repair: undone moves not listed",
        "repair",
        f"{REFS}:restore_state",
        "outcome.lost.extend(_list_undone(store, branch, base.number))",
        "pass",
        *_themed("undone"),
    ),
    _edited(
        "repair: watermarks of the damaged move kept",
        "repair",
        f"{REFS}:restore_state",
        "watermarks=watermarks,",
        "watermarks=None,",
        *_themed("sealing"),
    ),
    _edited(
        "repair: ids of what was taken back forgotten",
        "repair",
        f"{REFS}:restore_state",
        "ids_add=runs,",
        "ids_add=(),",
        *_themed("states"),
    ),
    _edited(
        "repair: a lost segment not listed",
        "repair",
        f"{REPAIR}.data:drop_segments",
        "outcome.lost.extend("
        "_loss(branch, entry, counts.get(entry.key, 0)) for entry in lost_entries)",
        "pass",
        *_themed("segments"),
    ),
    _edited(
        "repair: an older state than there is",
        "repair",
        f"{REFS}:_newest_open",
        "key=lambda move: -move.number",
        "key=lambda move: move.number",
        *_themed("states"),
    ),
    _edited(
        "repair: a WAL cut back to its copy",
        "repair",
        f"{REPAIR}.comparison:continue_copy",
        "else data + ending",
        "else data",
        *_themed("copied"),
    ),
    _edited(
        "repair: a gap passed over by one too many",
        "repair",
        f"{REPAIR}.data:_pass_over",
        "sealed={writer: high}",
        "sealed={writer: high + 1}",
        *_themed("wal"),
    ),
    _edited(
        "repair: a stand-in that looks like a state",
        "repair",
        f"{REFS}:_newest_open",
        'move.op != "lost" or ',
        "True or ",
        *_themed("sealing"),
    ),
    _edited(
        "an id of the tail not looked for",
        "ids",
        f"{INGEST}.batch:Batch._new_only",
        "[*self.runs, *self._job.keys_of_tail()]",
        "[*self.runs]",
    ),
    _edited(
        "the tail not looked at before the link",
        "ids",
        f"{MOVES}:try_move",
        "is_whole and change.is_right()",
        "is_whole",
    ),
    *(_edited(f"erasure: {bug}", "erasure", *plant) for bug, *plant in ERASURE_BUGS),
    _edited("a descriptor left open", "leaks", f"{DISK}:sync_dir", "os.close(fd)", "pass"),
    _edited("a temporary file left", "leaks", f"{DISK}:create_whole", "unlink(temporary)", "pass"),
]
RULES = [
    Mutant(
        f"protocol: {plant.__name__.strip('_').replace('_', ' ')}",
        "schedule",
        plant,
        list(CASTS).index(cast),
        len(CASTS),
    )
    for cast, plant in PLANTED
]
MUTANTS = [*EDITS, *RULES]
