"""Random histories of lakes with planted words, and a search of every byte for them.

    python -m tests.support.erasure_histories 200       # every third one encrypted

Each subject has words of its own that nobody else has: in subject, message, payload, id, source and
type. One subject is erased at the end; then none of its words may be in any file, and of all others
nothing may be missing, in any tag, branch or state of the history.
"""

from __future__ import annotations

import io
import os
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import zstandard

import lakelog
from lakelog import frame_rows
from lakelog.erasure.selection import frames_by_file
from lakelog.keys.keyring import KeyRing
from lakelog.keys.master import MasterKey
from lakelog.keys.vault import VAULT
from lakelog.lake import Lake
from lakelog.store import Store
from lakelog.wal import frames as wal

SUBJECTS = 6


def word_of(rng: random.Random) -> str:
    """A word that stands nowhere else."""
    return "w" + "".join(rng.choices("abcdefghkmnpqrstuvwxyz23456789", k=11))


class History:
    """A lake in the making, and the words of each of its subjects."""

    def __init__(self, path: Path, seed: int, *, encrypted: bool = False) -> None:
        self.rng = random.Random(seed)
        if encrypted:
            master = MasterKey(b"k" * 32, "a test")
            ring = KeyRing.generate(master)
            VAULT.unlock(str(path / "lake"), ring, master)
            Store.create(str(path / "lake"), ring=ring)
        self.lake = lakelog.open(path / "lake", settings={"seal": "never"})
        self.subjects = [word_of(self.rng) for _ in range(SUBJECTS)]
        self.words: dict[str, list[str]] = {name: [name] for name in self.subjects}
        self.path = path
        self.steps = Counter[str]()

    def word(self, subject: str) -> str:
        """A new word of a subject."""
        word = word_of(self.rng)
        self.words[subject].append(word)
        return word

    def events(self, count: int) -> list[dict[str, Any]]:
        """Events of random subjects, each with words of its subject in several places."""
        events = []
        for _ in range(count):
            subject = self.rng.choice(self.subjects)
            event: dict[str, Any] = {"type": "A", "subject": subject}
            event["message"] = f"hello {self.word(subject)}"
            if self.rng.random() < 0.4:
                event["data"] = {"n": self.rng.randrange(9), "who": self.word(subject)}
            if self.rng.random() < 0.3:
                event["id"] = self.word(subject)
            if self.rng.random() < 0.2:
                event["source"] = self.word(subject)
            if self.rng.random() < 0.1:
                event["type"] = self.word(subject)
            events.append(event)
        return events

    def step(self) -> None:
        """Do one random thing."""
        names = "append append append settle tag branch rollback compact view search file lines gc"
        name = self.rng.choice(names.split())
        self.steps[name] += 1
        getattr(self, f"_{name}")()

    def _append(self) -> None:
        self.lake.append(self.events(self.rng.randrange(1, 30)))

    def _settle(self) -> None:
        self.lake.settle()

    def _tag(self) -> None:
        self.lake.tag(f"t{self.steps['tag']}")

    def _branch(self) -> None:
        names = self.lake.branches()
        name = f"b{self.steps['branch']}"
        if len(names) > 2 or self.rng.random() < 0.5:
            name = self.rng.choice(names)
        else:
            self.lake.branch(name).close()
        self.lake.close()
        self.lake = lakelog.open(self.path / "lake", branch=name)

    def _rollback(self) -> None:
        tags = [tag.name for tag in self.lake.tags()]
        if tags:
            self.lake.rollback(self.rng.choice(tags))

    def _compact(self) -> None:
        self.lake.compact()

    def _view(self) -> None:
        self.lake.schema()
        self.lake.sql("SELECT type, count(*) FROM events GROUP BY ALL").fetchall()

    def _search(self) -> None:
        subject = self.rng.choice(self.subjects)
        self.lake.search(self.rng.choice(self.words[subject])).fetchall()

    def _file(self) -> None:
        path = self.path / f"f{self.steps['file']}.jsonl"
        lines = [orjson.dumps(event) for event in self.events(8)]
        path.write_bytes(b"\n".join(lines) + b"\n")
        self.lake.ingest(path)

    def _lines(self) -> None:
        subject = self.rng.choice(self.subjects)
        line = f"bad {subject} {self.word(subject)}"
        self.lake.quarantine([("file", self.steps["lines"], "no event", line)])

    def _gc(self) -> None:
        self.lake.gc()


def rows_by_state(lake: Lake, without: str) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every tag, branch and kept state, without those of a subject."""
    query = "SELECT seq, time, type, subject, message, data, id, source, origin FROM events"
    query += " WHERE subject IS DISTINCT FROM ? ORDER BY seq"
    names = [tag.name for tag in lake.tags()] + lake.branches()
    names += [entry.move.snapshot for entry in lake.log() if entry.events is not None]
    return {name: lake.at(name).sql(query, [without]).fetchall() for name in names}


def texts_of(path: str) -> list[bytes]:
    """What a file says: its bytes, and what they are once they are decrypted and unpacked."""
    data = Path(path).read_bytes()
    contents = [data, *_unpacked(data)]
    if path.endswith(".parquet"):
        with pq.ParquetFile(VAULT.file(path)) as file:
            contents.append(repr(file.read().to_pylist()).encode())
            contents.append(repr(file.metadata.to_dict()).encode())
            contents.append(repr(file.metadata.metadata).encode())
    for line in (data, *re.findall(rb"lkn1:[0-9A-Za-z+/=]+", data)):
        plaintext = VAULT.decrypt_line(VAULT.decrypt(line))
        if plaintext is not line:
            contents += [plaintext, *_unpacked(plaintext)]
    return contents


def frames_of(lake: Lake) -> list[bytes]:
    """What the frames of all write-ahead logs say, once they are decrypted."""
    contents = []
    for _, frames in frames_by_file(lake.store):
        for flag, decode in (
            (0, frame_rows.events),
            (wal.Frame.QUARANTINED, frame_rows.quarantined),
        ):
            if chosen := [f for f in frames if f.flags & wal.Frame.QUARANTINED == flag]:
                contents.append(repr(decode(lake.engine(), chosen).to_pylist()).encode())
    return contents


def _unpacked(data: bytes) -> list[bytes]:
    contents = []
    start = data.find(b"\x28\xb5\x2f\xfd")
    while start >= 0:
        try:
            reader = zstandard.ZstdDecompressor().stream_reader(
                io.BytesIO(data[start:]), read_across_frames=False
            )
            contents.append(reader.read())
        except zstandard.ZstdError:
            pass
        start = data.find(b"\x28\xb5\x2f\xfd", start + 1)
    return contents


def places_with(root: Path, words: list[str]) -> list[str]:
    """The files below a directory that have one of some words, in their names or bytes."""
    needles = [word.encode() for word in words]
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            contents = [name.encode(), *texts_of(f"{folder}/{name}")]
            if any(needle in content for content in contents for needle in needles):
                found.append(os.path.relpath(f"{folder}/{name}", root))
    return found


def check(path: Path, seed: int, steps: int = 25, *, encrypted: bool = False) -> Counter[str]:
    """Play a history, erase one of its subjects, and look everywhere. Raises AssertionError."""
    history = History(path, seed, encrypted=encrypted)
    for _ in range(steps):
        history.step()
    lake = history.lake
    for branch in lake.branches():
        with lakelog.open(path / "lake", branch=branch) as other:
            other.settle()
    erased = history.subjects[0]
    before = rows_by_state(lake, erased)
    words = [word.encode() for word in history.words[erased]]
    if encrypted:  # else the search below might find nothing because it cannot decrypt
        assert len(history.words[erased]) == 1 or places_with(path / "lake", history.words[erased])
    status = lake.erase(subject=erased, why="asked for it")
    after = rows_by_state(lake, erased)
    for name, kept_rows in before.items():
        assert kept_rows == after.get(name, kept_rows), f"seed {seed}: {name} has other rows"
    for name in after:
        query = "SELECT count(*) FROM events WHERE subject = ?"
        assert lake.at(name).sql(query, [erased]).fetchall() == [(0,)], (seed, name)
    found = places_with(path / "lake", history.words[erased])
    assert status.is_done, (seed, status)
    assert not found, (seed, found)
    assert not [word for content in frames_of(lake) for word in words if word in content], seed
    report = lake.verify()
    assert report.intact, (seed, report)
    lake.close()
    with lakelog.open(path / "lake") as again:
        again.gc()
        assert again.verify().intact, seed
    return history.steps


if __name__ == "__main__":
    import tempfile

    for seed in range(int(sys.argv[2]) if len(sys.argv) > 2 else 0, int(sys.argv[1])):
        with tempfile.TemporaryDirectory() as directory:
            steps = check(Path(directory), seed, encrypted=seed % 3 == 2)
            print(seed, dict(steps), flush=True)
