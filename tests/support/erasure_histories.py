"""Random histories of lakes with planted words, and a search of every byte for them.

    python -m tests.support.erasure_histories 200       # every third one encrypted

Each subject has words of its own that nobody else has: in subject, message, payload, id, source and
type. Some are erased at the end. Whatever then has one of their words, in the lake or where the
lake brought rows, must be named with what cleans it; once that was done, none may be in any file,
and of all others nothing may be missing, in any tag, branch, state, backup, remote or training set.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import re
import shlex
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
import zstandard

import lakelog
from lakelog import erasure, frame_rows, proofs, remotes, train
from lakelog.erasure import ErasureStatus
from lakelog.erasure.selection import frames_by_file
from lakelog.errors import ExportRefused, InvalidEvent, TransferRefused
from lakelog.event import EncodedBatch
from lakelog.keys.keyring import KeyRing
from lakelog.keys.master import MasterKey
from lakelog.keys.vault import VAULT
from lakelog.lake import Lake
from lakelog.loggers import LakeHandler
from lakelog.loggers.buffer import DiskBuffer
from lakelog.store import Store
from lakelog.views import LakeViews
from lakelog.wal import frames as wal
from tests.support.cli import run
from tests.support.sync_places import synced
from tests.support.trainsets import recipe, rows

SUBJECTS = 6
KEY = "6b" * 32


def word_of(rng: random.Random) -> str:
    """A word that stands nowhere else."""
    return "w" + "".join(rng.choices("abcdefghkmnpqrstuvwxyz23456789", k=11))


class History:
    """A lake in the making, and the words of each of its subjects."""

    def __init__(self, path: Path, seed: int, *, encrypted: bool = False) -> None:
        self.rng = random.Random(seed)
        if encrypted:
            master = MasterKey(bytes.fromhex(KEY), "LAKELOG_KEY")
            ring = KeyRing.generate(master)
            VAULT.unlock(str(path / "lake"), ring, master)
            Store.create(str(path / "lake"), ring=ring)
        self.lake = lakelog.open(path / "lake", settings={"seal": "never"})
        self.subjects = [word_of(self.rng) for _ in range(SUBJECTS)]
        self.erased = self.subjects[: random.Random(seed).choice([1, 1, 2, 3])]
        """Who is erased at the end."""
        self.words: dict[str, list[str]] = {name: [name] for name in self.subjects}
        self.path = path
        self.steps = Counter[str]()

    @property
    def erased_words(self) -> list[str]:
        """The words of those who are erased."""
        return [word for subject in self.erased for word in self.words[subject]]

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
            if self.rng.random() < 0.3:
                event["time"] = f"2026-01-01T00:00:{self.rng.randrange(60):02d}Z"
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
        inside = "append append append settle tag branch rollback compact view search file lines gc"
        outside = "log deliver define templates push backup export train sync"
        name = self.rng.choice(f"{inside} {outside}".split())
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
        self.lake.sql("SELECT * FROM events WHERE subject = ?", [subject]).fetchall()

    def _file(self) -> None:
        path = self.path / f"inputs/f{self.steps['file']}.jsonl"
        path.parent.mkdir(exist_ok=True)
        lines = [orjson.dumps(event) for event in self.events(8)]
        path.write_bytes(b"\n".join(lines) + b"\n")
        self.lake.ingest(path)

    def _lines(self) -> None:
        subject = self.rng.choice(self.subjects)
        line = f"bad {subject} {self.word(subject)}"
        self.lake.quarantine([("file", self.steps["lines"], "no event", line)])

    def _gc(self) -> None:
        self.lake.gc()

    def _log(self) -> None:
        """A logger's process dies before it has stored what it buffered."""
        buffer = DiskBuffer(self.lake.store.paths.buffers)
        buffer.add(EncodedBatch.of(self.events(3)).text.splitlines())
        buffer.after_fork()

    def _deliver(self) -> None:
        """A handler fails for some events, which become dead letters."""

        def handle(event: dict[str, Any]) -> None:
            if event["seq"] % 3:
                raise ValueError(f"no room for {event['subject']}")

        with self.lake.subscribe("mail") as subscription:
            subscription.run(handle, once=True, attempts=1)

    def _define(self) -> None:
        text = "-- about: Counts.\nSELECT subject, count(*) AS n FROM events GROUP BY ALL"
        LakeViews(self.lake).create("counts", text, replace=True)
        self.lake.view("counts")

    def _templates(self) -> None:
        run(self.lake.path, "patterns", "--record")

    def _push(self) -> None:
        if self.steps["push"] == 1:
            remotes.add_tested(self.lake.store, "hub", str(self.path / "hub"))
        tags = [tag.name for tag in self.lake.tags()]
        branch = self.lake.branch_name
        remotes.push(self.lake, "hub", branches=[branch], tags=tags[-2:], force=True)

    def _backup(self) -> None:
        self.lake.backup(self.path / "backup")

    def _export(self) -> None:
        kind = self.rng.choice(["csv", "jsonl", "parquet"])
        self.lake.export("events", self.path / f"export.{kind}")

    def _train(self) -> None:
        query = "SELECT * FROM events WHERE type = 'A'"
        with contextlib.suppress(ExportRefused):  # there may be no rows yet
            train.export(self.lake, recipe("text", query), self.path / f"set{self.steps['train']}")

    def _sync(self) -> None:
        synced(self.lake.path, f"sqlite:{self.path}/synced.db")


def rows_by_state(lake: Lake, words: list[str]) -> dict[str, list[str]]:
    """The rows of every tag, branch and kept state, without those that have one of some words."""
    query = "SELECT seq, time, type, subject, message, data, id, source, origin FROM events"
    # Tags of a remote's branches go along with them.
    names = [tag.name for tag in lake.tags() if "/" not in tag.name] + lake.branches()
    names += [entry.move.snapshot for entry in lake.log() if entry.events is not None]
    states = {n: map(str, lake.at(n).sql(f"{query} ORDER BY seq").fetchall()) for n in names}
    has_word = re.compile("|".join(words)).search
    return {name: [row for row in state if not has_word(row)] for name, state in states.items()}


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
        with contextlib.suppress(ValueError):  # what only looks like a line stays as it is
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
                contents.append(repr(decode(lake.engine, chosen).to_pylist()).encode())
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


def derived_of_replaced(lake: Lake) -> list[str]:
    """What the cache has of segments that were replaced: nobody reads their words in hashes."""
    replaced, cache = lake.store.erased.segments(), Path(lake.store.paths.cache)
    return [str(path.relative_to(cache)) for path in cache.rglob("*") if path.name in replaced]


def remnants(history: History, *elsewhere: str) -> list[str]:
    """The files that have words of the erased subjects, but those that were ingested, and
    `elsewhere`."""
    found = places_with(history.path, history.erased_words)
    return [path for path in found if not path.startswith(("inputs/", *elsewhere))]


def unnamed(history: History, statuses: list[ErasureStatus]) -> list[str]:
    """The files that have words of the erased subjects, and that no status names."""
    root, names = history.path, list[str]()
    names += [f"lake/{left.place}" for status in statuses for left in status.leftovers]
    for place in (place for status in statuses for place in status.copies):
        if place["place"] == "finding":
            names += ["lake/segments", "lake/cache/words"]
        path = str(place["name"]).removeprefix("sqlite:").removeprefix(f"{root}/")
        names.append(path)  # that of a remote is its name
    return remnants(history, "clone/", *names)


def clean(history: History, status: ErasureStatus) -> None:
    """Do what a status says to do."""
    lake, key = history.path / "lake", status.erasure.key
    if status.leftovers:
        assert all("erasure again" in leftover.advice for leftover in status.leftovers), status
        with contextlib.closing(LakeHandler(lake)) as handler:
            handler.emit(logging.makeLogRecord({"msg": "stored", "levelno": 20}))
        options = [text for subject in history.erased for text in ("--subject", subject)]
        run(lake, "erase", *options, "--why", "asked", "--yes")
    for place in status.copies:
        name, words = str(place["name"]), shlex.split(place["command"])
        if place["place"] == "export":
            Path(name).unlink(missing_ok=True)  # the erasure of another subject had it, too
        elif place["place"] == "sync":
            synced(str(lake), f"sqlite:{history.path}/synced.db")
            with lakelog.open(lake) as opened:
                erasure.confirm(opened.store, key, name)
        elif place["place"] == "training set" and Path(name).exists():
            try:
                with lakelog.open(lake) as opened:
                    train.rebuild(opened, name, erased=True)
            except ExportRefused as error:
                if "delete it" not in str(error):  # as too few rows are left for its splits
                    raise
                shutil.rmtree(name)
        elif place["place"] != "training set":
            assert words[0] == "lakelog", place
            words += ["--why", "x", "--yes"] if words[1] == "erase" else []
            words += ["--force", "--yes"] if words[1] == "push" else []
            run(lake, *words[1:])


def check(path: Path, seed: int, steps: int = 25, *, encrypted: bool = False) -> Counter[str]:
    """Play a history, erase some of its subjects, and look everywhere. Raises AssertionError."""
    with pytest.MonkeyPatch.context() as patch:
        if encrypted:
            patch.setenv("LAKELOG_KEY", KEY)
        return _check(path, seed, steps, encrypted)


def _check(path: Path, seed: int, steps: int, encrypted: bool) -> Counter[str]:
    history = History(path, seed, encrypted=encrypted)
    for _ in range(steps):
        history.step()
    for branch in history.lake.branches():
        with lakelog.open(path / "lake", branch=branch) as other:
            other.settle()
    history.lake.close()
    erased, words = history.erased, history.erased_words
    if encrypted:  # else the search below might find nothing because it cannot decrypt
        assert len(words) == len(erased) or places_with(path / "lake", words)
    if (path / "hub").exists():
        remotes.clone(str(path / "hub"), str(path / "clone"))
    lakes = [path / name for name in ("lake", "clone") if (path / name).exists()]
    before = {place: rows_of(place, words) for place in [*lakes, *path.glob("set*")]}
    with lakelog.open(path / "lake") as lake:
        signed = signed_state(lake, path / "key")
        lake.erase(subject=erased, why="asked for it")
    if (path / "clone").exists():
        _pull_again(history)
    for _ in range(4):
        with lakelog.open(path / "lake") as lake:
            statuses = [status for status in lake.erasures() if not status.is_done]
        assert not unnamed(history, statuses), (seed, unnamed(history, statuses), statuses)
        for status in statuses:
            clean(history, status)
    if (path / "clone").exists():
        run(path / "clone", "pull", "--force", "--yes")
        del before[path / "clone"]["main"]  # which went on
    lakes += [path / "backup"] if (path / "backup").exists() else []
    for place in lakes:
        with lakelog.open(place) as lake:
            if place != path / "backup":  # which has the note from before it was all done
                assert all(status.is_done for status in lake.erasures()), (seed, lake.erasures())
            assert not [f for f in frames_of(lake) for word in words if word.encode() in f], seed
            assert not derived_of_replaced(lake), (seed, derived_of_replaced(lake))
            lake.gc()
            assert lake.verify().intact, (seed, place, lake.verify())
            if place != path / "clone":
                check_signed(lake, signed, path / "key", erased)
    for place in filter(Path.exists, before):
        now = rows_of(place, words)
        for state, kept in before[place].items():
            # A state that is only in the history may be gone, and a branch has gone on.
            rows_now = now.get(state, kept if len(state) == 64 else [])
            assert kept == rows_now[: len(kept)], f"seed {seed}: {place} {state} differs"
    assert not remnants(history), (seed, remnants(history))
    _come_again(history)
    assert not remnants(history), (seed, remnants(history))
    return history.steps


def signed_state(lake: Lake, key: Path) -> proofs.Target:
    """Tag and sign the newest state of a lake with a new key."""
    proofs.PrivateKey.generate(str(key))
    target = proofs.Target("signed", lake.tag("signed").snapshot)
    proofs.sign(lake.store, "main", target, proofs.PrivateKey.load(str(key)))
    return target


def check_signed(lake: Lake, target: proofs.Target, path: Path, erased: list[str]) -> None:
    """Whether a signature holds, and proofs of some events of others do."""
    key = proofs.PrivateKey.load(str(path)).public
    assert proofs.SignatureCheck(lake.store, [key]).ref("main", "signed") == []
    for (seq,) in lake.at("signed").sql("SELECT seq FROM events LIMIT 3").fetchall():
        event = proofs.check_proof(proofs.prove(lake.store, target, seq), [key]).event
        assert event["seq"] == seq
        assert event["subject"] not in erased


def _come_again(history: History) -> None:
    """Ingest all files again, after a rollback of their cursors, and append again."""
    with lakelog.open(history.path / "lake") as lake:
        lake.rollback(lake.log()[-1].move.snapshot)
        if inputs := sorted(history.path.glob("inputs/*")):
            lake.ingest(inputs)
            run(lake.path, "audit", *map(str, inputs))
        event = {"subject": history.erased[-1], "time": "2026-01-01", "type": "A"}
        with pytest.raises(InvalidEvent, match="erased"):
            lake.append(event)
        # Of a writer that looked before the erasure.
        lake.writer().append(EncodedBatch.of([event]))
        assert all(status.is_done for status in lake.erasures())  # which trims the tail


def _pull_again(history: History) -> None:
    """A clone that does not know of the erasure pushes a row, which a pull refuses."""
    with lakelog.open(history.path / "clone") as clone:
        if "main" not in clone.branches():
            return
        clone.append({"subject": history.erased[0], "time": "2026-01-01", "type": "A"})
        remotes.push(clone, "origin", branches=["main"])
    with lakelog.open(history.path / "lake") as lake, pytest.raises(TransferRefused, match="erase"):
        remotes.pull(lake, "hub", force=True)


def rows_of(path: Path, words: list[str]) -> dict[str, list[str]]:
    """The rows of a lake by state, or of a training set by split, but those with some words."""
    if not (path / "data").exists():
        with lakelog.open(path) as lake:
            return rows_by_state(lake, words)
    has_word = re.compile("|".join(words)).search
    splits = ("train", "validation", "test")
    texts = {split: sorted(str(row) for row in rows(path, split)) for split in splits}
    return {split: [row for row in texts[split] if not has_word(row)] for split in splits}


if __name__ == "__main__":
    import tempfile

    for seed in range(int(sys.argv[2]) if len(sys.argv) > 2 else 0, int(sys.argv[1])):
        with tempfile.TemporaryDirectory() as directory:
            steps = check(Path(directory), seed, encrypted=seed % 3 == 2)
            print(seed, dict(steps), flush=True)
