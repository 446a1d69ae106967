"""Every disk that a power cut may leave, each opened with the real code.

The first cases take one verb each from a log of its system calls and cut before every change, and
again in the middle of the recovery. The others cut scheduled runs of many processes.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
from collections.abc import Callable, Iterator

import lakelog
from lakelog.history import thinning
from lakelog.segments import segment
from tests.support import seam
from tests.support.casts import perform
from tests.support.powercut import (
    CASTS,
    FOLDER,
    MOODS,
    SECTOR,
    Disk,
    Journal,
    apply,
    recover,
    started,
    whole_tree,
)
from tests.support.powercut import write_image as write
from tests.support.verbs import FREE, VERBS, names, prepared
from tests.support.world import World, warm_engine
from tests.torture import trace
from tests.torture.case import Case, Row

ENTRIES, BYTES, RECOVERIES, WAYS = 48, 12, 10, 7
EACH = 320
"""States of one verb that are recovered in one case; later cases choose others."""
Image = dict[str, bytes | None]


def states(case: Case) -> None:
    """Cut one verb everywhere, or a scheduled run at many places."""
    warm_engine(case.patch)
    verbs = list(trace.WORK)
    if case.number < len(verbs):
        verb_states(case, verbs[case.number])
    elif case.number % 4 == 0:
        verb_states(case, verbs[case.number // 4 % len(verbs)])
    else:
        scheduled_states(case)


def verb_states(case: Case, name: str) -> None:
    """Cut one verb before each of its changes and recover; count distinct images."""
    case.patch.setattr(thinning, "UNPACKED", 3)
    start, _ = trace.WORK[name]
    before = str(prepared(start, case.place, case.patch))
    tree = whole_tree(before)
    with lakelog.open(before, create=False) as lake:
        there = set(names(lake))
    shutil.rmtree(before)
    write(dict(tree))
    log = trace.by_strace(name, before, tree)
    case.tally.notes["verbs by strace" if log else "verbs by the seam's record"] += 1
    shutil.rmtree(before)
    write(dict(tree))
    log = log or trace.by_seam(name, before, tree, case.patch)
    assert [e for e in log if e[0] == "ack"], "the verb was not done"
    kept = there if start not in FREE else set()
    found = {
        _digest(image, acked): (step, acked, image)
        for step, acked, image in images(tree, log, case.dice)
    }
    case.tally.notes["states of verbs, before sampling"] += len(found)
    chosen = sorted(case.dice.sample(list(found), min(len(found), case.some(EACH))))
    for count, (step, acked, image) in enumerate(found[digest] for digest in chosen):
        where = f"{name}: power cut before change {step} of {len(log)}, promised {sorted(acked)}"
        adds = set(VERBS[start][2]) if "done" in acked and name == start else set()
        wanted = kept | (acked - {"done"}) | adds
        _recovered(case, before, image, wanted, where, again=count % RECOVERIES == 0)
        case.verified()


def images(
    tree: trace.Tree, log: trace.Log, dice: random.Random
) -> Iterator[tuple[int, frozenset[str], Image]]:
    """Yield (change, what was promised, image) for every boundary of a log."""
    disk, acked = started(tree), set[str]()
    for step, entry in enumerate([*log, None]):
        if entry is None or entry[0] != "ack":
            for image in _survivors(disk, dice):
                yield step, frozenset(acked), image
        if entry is not None and entry[0] == "ack":
            acked.add(entry[1])
        elif entry is not None:
            apply(disk, *entry)


def _survivors(disk: Disk, dice: random.Random) -> Iterator[Image]:
    """Yield what may be left: of each name any first few changes, of each file any end."""
    changes: dict[str, list[int | None]] = {}
    for name, inode in disk.pending:
        changes.setdefault(name, []).append(inode)
    for counts in _choices([range(len(c) + 1) for c in changes.values()], ENTRIES, dice):
        kept = dict(disk.entries)
        for (name, inodes), count in zip(changes.items(), counts, strict=True):
            if count and inodes[count - 1] is None:
                kept.pop(name, None)
            elif count:
                kept[name] = inodes[count - 1]  # type: ignore[assignment]
        loose = sorted({i for i in kept.values() if i != FOLDER and _is_loose(disk, i)})
        for ends in _choices([range(WAYS)] * len(loose), BYTES, dice):
            data = {i: _torn(disk, i, end) for i, end in zip(loose, ends, strict=True)}
            yield {
                name: None if i == FOLDER else data.get(i, disk.inodes[i].data)
                for name, i in kept.items()
            }


def _is_loose(disk: Disk, inode: int) -> bool:
    file = disk.inodes[inode]
    return file.synced != file.data


def _torn(disk: Disk, inode: int, end: int) -> bytes:
    """The bytes of a file after a cut, in one of seven ways."""
    file = disk.inodes[inode]
    old, new = len(file.synced), len(file.data)
    pairs = enumerate(zip(file.synced, file.data, strict=False))
    first = next((i for i, (a, b) in pairs if a != b), min(old, new))
    last = first + len(file.data[first:].rstrip(b"\0"))
    half, sector = (first + last) // 2, first // SECTOR
    # Nothing new; the first half; all; the new length without its bytes; the first half and zeros;
    # all but the first sector, as if only the end had been written; all but the sectors in between.
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: file.synced,
        lambda: file.data[:half] + file.synced[half:],
        lambda: file.data,
        lambda: file.torn(new, lambda _: False),
        lambda: file.data[:half] + file.synced[half:].ljust(new - half, b"\0"),
        lambda: file.torn(new, lambda nth: nth > sector),
        lambda: file.torn(new, lambda nth: nth in (sector, last // SECTOR)),
    )
    return ways[end]()


def _choices(ranges: list[range], most: int, dice: random.Random) -> Iterator[tuple[int, ...]]:
    """Yield every combination if they are few, else the least, the greatest and some others."""
    count = 1
    for one in ranges:
        count *= len(one)
    if count <= most:
        yield from itertools.product(*ranges)
        return
    yield tuple(r[0] for r in ranges)
    yield tuple(r[-1] for r in ranges)
    for _ in range(most - 2):
        yield tuple(dice.choice(r) for r in ranges)


def _digest(image: Image, acked: frozenset[str]) -> bytes:
    """What tells images apart; the folders of leaves are the same to every reader."""
    made = hashlib.sha256(repr(sorted(acked)).encode())
    for name, data in sorted(image.items()):
        made.update(f"{name}\0{data is None}\0".encode())
        made.update(hashlib.sha256(data or b"").digest())
    return made.digest()


def _recovered(
    case: Case, root: str, image: Image, wanted: set[str], where: str, again: bool
) -> None:
    """Recover from an image and require what was promised, twice; `again` cuts the recovery."""
    _put(root, image)
    try:
        if not again:
            check(root, wanted)
            return
        tree = whole_tree(root)
        recorder = trace.Recorder(root, tree)
        with case.patch.context() as inner:
            seam.install(inner, recorder)
            check(root, wanted)
        cuts = [i for _, _, i in images(tree, recorder.log, case.dice)]
        for cut in case.dice.sample(cuts, min(4, len(cuts))):
            _put(root, cut)
            check(root, wanted)
            case.tally.notes["cuts in a recovery"] += 1
            case.verified()
    except Exception as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error


def _put(root: str, image: Image) -> None:
    shutil.rmtree(root, ignore_errors=True)
    write(image)


def check(root: str, wanted: set[str]) -> None:
    """Open a lake twice; every wanted event is there once, nothing else changes it.

    The first time by a query over what is sealed and what is not, the second time by the segments.
    """
    with lakelog.open(root, create=False) as lake:
        there = sorted(n or "" for (n,) in lake.sql("SELECT subject FROM events").fetchall())
        named = [n for n in there if n != "f"]
        assert len(named) == len(set(named)), f"doubled in {named}"
        assert wanted <= set(there), f"lost {sorted(wanted - set(there))}"
        assert lake.count() == len(there)
        assert not [p for p in lake.verify().problems if p.kind == "damage"]
        lake.settle()
        moves = len(lake.log())
    with lakelog.open(root, create=False) as lake:
        assert not lake.settle().move.number - lake.log(1)[0].move.number
        assert len(lake.log()) == moves, "a second recovery moved the branch"
        assert _sealed(lake) == there, "sealing changed what is there"
        assert not [p for p in lake.verify().problems if p.kind == "damage"]


def _sealed(lake: lakelog.Lake) -> list[str]:
    """The names of all events, read from the segments."""
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    found: list[str] = []
    for entry in lake.store.manifests.segments(state):
        if entry.kind == "events":
            found += segment.Segment(lake.store.paths, entry.key).read()["subject"].to_pylist()
    return sorted(n or "" for n in found)


def scheduled_states(case: Case) -> None:
    """Cut a scheduled run of many processes at many places; count distinct images."""
    dice, journals = case.dice, list[Journal]()
    cast = dice.choice(CASTS)

    def watch(world: World) -> None:
        journals.append(Journal(world))

    perform(cast, case.start, case.patch, watch)
    [journal] = journals
    seen: set[bytes] = set()
    for _ in range(case.some(40)):
        step, mood = dice.randint(0, len(journal.log)), dice.choice(MOODS)
        root = str(case.place / "lake")
        promised = journal.image(step, dice, mood, root)
        digest = _digest(dict(whole_tree(root)), frozenset(promised.get("append", ())))
        try:
            if digest not in seen:
                recover(journal.world, root, promised)
                case.verified()
        except Exception as error:
            where = f"{cast} {case.start}, power cut before change {step}, {mood}"
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
        finally:
            seen.add(digest)
            shutil.rmtree(root)
    case.tally.notes["scheduled runs"] += 1


ROWS = [Row("states", "crash states, recovered", 5000, 50_000, 95, states)]
