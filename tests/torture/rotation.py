"""Real logrotate, real writers and a real watcher that is killed: every line once.

A case picks a mode of logrotate, a writer and sizes. Lines that copytruncate itself cuts off, those
written between its copy and its truncate, are in no file: the lake may hold them, for the watcher
reads on meanwhile, or may not. All others must be there once. Where logrotate deletes files, it is
run only while the watcher has seen all that was written, and the watcher is not killed until it has
seen all that was written by then: what was deleted while nobody looked is lost to everybody.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lakelog
from tests.support.requirements import lacking
from tests.torture import ledger
from tests.torture.case import Case, Row
from tests.torture.daemons import NEEDS, SIGNALS, Processes, WatchProcess, Writer
from tests.torture.ledger import Holding, Stored, Written
from tests.torture.logwriters import BANNER, FORMS, LOGS, Spec, line
from tests.torture.rotators import MODES, Mode, Rotator

SAME_FILE = ("rsyslog", "offset", "nginx", "plain", "textblocks", "blocks", "bufnginx")
REOPENED = ("watched", "blocks", "rsyslog", "nginx", "textblocks", "bufnginx")
OWN = ("sized", "timed")
LARGE = 24
"""Each so many-th case has a file of 30 to 300 MB; an hour plays some of them."""
PATIENCE = 30.0
"""Seconds in which nothing new was seen, and what is missing counts as not followed."""
SHARE_LATE = (1.0, 3.0)


@dataclass(frozen=True)
class Plan:
    """What a case does, decided by its seed and number alone."""

    mode: Mode
    kind: str
    logs: int
    rate: int
    seconds: float
    before: int
    pauses: bool
    waits: bool
    actions: tuple[tuple[float, str], ...]
    seed: int

    def __str__(self) -> str:
        return (
            f"logrotate {self.mode.name}, {self.logs} x {self.kind}, {self.rate} lines/s for"
            f" {self.seconds:.1f} s, {self.before:,} lines before"
            f"{', writer paused for it' * self.pauses}{', reopening awaited' * self.waits}"
        )


def plan(case: Case) -> Plan:
    """Choose mode and writer by number, so that each mode comes up, the rest by chance."""
    dice, number = case.dice, case.number + 7 * (case.seed - 1)
    mode = MODES[number % len(MODES)]
    kinds = OWN if mode.own else SAME_FILE if mode.keeps_file else REOPENED
    kind = kinds[(number // len(MODES) + number) % len(kinds)]
    seconds, rate, size = 6.0 * case.size, 5000, int(1024 * 8192 ** dice.random())
    if case.number % 4 == 3:
        rate, size = dice.choice([2, 10, 40]), dice.choice([0, 0, 1024])
    if case.number % LARGE == LARGE - 1:
        rate, size, seconds = 5000, int(30e6 * 10 ** dice.random()), 30.0
    size = int(size * min(case.size * 2, 1))
    actions = [("rotate", n) for n in range(3)]
    times = [(seconds * (n + dice.uniform(0.3, 0.9)) / len(actions), name) for name, n in actions]
    times += [(dice.uniform(0.4, seconds), "kill") for _ in range(dice.choice([1, 2, 3]))]
    times += [(dice.uniform(0.5, seconds), name) for name in ("compact", "gc")]
    waits = mode.packs_at_once or mode.deletes or mode.name == "renamecopy" or dice.random() < 0.5
    return Plan(
        mode,
        kind,
        2 if "sharedscripts" in mode.words else 1,
        rate,
        seconds,
        size // 120,
        mode.truncates and dice.random() < 0.4,
        waits,
        tuple(sorted(times)),
        dice.randrange(1 << 30),
    )


def rotations(case: Case) -> None:
    """Write, rotate, kill; then compare the lake with the disk."""
    chosen = plan(case)
    if reason := lacking(NEEDS.get(chosen.kind, "logrotate")):
        case.tally.skipped += 1
        case.tally.notes[f"skipped, {reason}:"] += 1
        return
    with Processes(case.place) as processes:
        stage = Stage(case, chosen, processes)
        try:
            stage.play()
        except Exception as error:
            _keep(case)
            raise AssertionError(f"{stage.story()}\n{type(error).__name__}: {error}") from error
        finally:
            stage.lake.close()


def _keep(case: Case) -> None:
    """Copy what a failing case left to where TORTURE_KEEP says."""
    if folder := os.environ.get("TORTURE_KEEP"):
        name = f"{case.row}-{case.seed}-{case.number}-{int(time.time())}"
        shutil.copytree(case.place, Path(folder) / name, symlinks=True, dirs_exist_ok=True)


class Stage:
    """The processes of one case, what happened when, and the comparison at the end."""

    def __init__(self, case: Case, chosen: Plan, processes: Processes) -> None:
        self._case, self._plan, self._processes = case, chosen, processes
        self._dice = case.dice
        self._folder, self._old = case.place / "logs", case.place / "logs.old"
        for folder in (self._folder, self._old):
            folder.mkdir()
        self.lake = lakelog.open(str(case.place / "lake"))
        self._logs = [self._folder / f"app{n}.log" for n in range(chosen.logs)]
        self._written = [self._prefill(n, path) for n, path in enumerate(self._logs)]
        self._rotator = Rotator(chosen.mode, case.place, self._logs, self._old)
        self._watcher = WatchProcess(processes, [self._folder, self._old])
        self._writers: list[Writer] = []
        self._began, self._starts_again = time.time(), 0.0
        self._seen: list[tuple[float, int]] = []
        self._happened: list[str] = []
        self._others: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._rotating: subprocess.Popen[bytes] | None = None
        self._disk: dict[int, tuple[Holding, dict[str, int]]] = {}
        """What the files hold, once nobody writes to them."""

    # --- the play ---

    def play(self) -> None:
        """Run the whole case."""
        self._watcher.start()
        if self._plan.before > 100_000:
            self._await_all()
        self._writers = [self._writer(n) for n in range(self._plan.logs)]
        pids = [writer.pid for writer in self._writers]
        self._rotator.configure(pids, SIGNALS.get(self._plan.kind, "0"), wait=self._plan.waits)
        self._began = time.time()
        due = list(self._plan.actions)
        while due or self._are_writing():
            while due and due[0][0] <= time.time() - self._began:
                self._act(due.pop(0)[1])
            self._attend()
        self._finish()
        self._compare("the watcher")
        self._watcher.once()
        self._compare("watch --once after it")
        self._audit()
        self._count()

    def story(self) -> str:
        """What was played, when what happened, and what others said."""
        return "\n".join(
            [
                str(self._plan),
                f"logs {self._folder}; {'; '.join(self._happened)}",
                self._rotator.configuration,
                f"logrotate said: {self._rotator.said[-300:]}",
                f"watch said: {self._processes.said('watch')}",
            ]
        )

    def _prefill(self, number: int, path: Path) -> Written:
        """Write what a log holds before anything starts."""
        form, before = FORMS[self._plan.kind], self._plan.before
        banners = int(before > 0 and form == "text")
        with open(path, "w") as file:
            file.write(f"{BANNER}\n" * banners)
            file.writelines(f"{line(form, number * LOGS + n)}\n" for n in range(before))
        return Written(number, form, before, banners, self._case.place / f"progress{number}")

    def _writer(self, number: int) -> Writer:
        plan, written = self._plan, self._written[number]
        first = number * LOGS + plan.before
        return Writer(
            self._processes,
            Spec(
                plan.kind,
                str(self._logs[number]),
                str(written.progress),
                first,
                max(plan.rate // plan.logs, 1),
                plan.seconds,
                0,
                plan.seed + number,
            ),
        )

    def _act(self, action: str) -> None:
        if action == "kill":
            if self._watcher.up:
                self._watcher.kill()
                self._starts_again = time.time() + self._dice.uniform(0, 1.0)
                self._tell("killed")
        elif action == "rotate":
            if not self._plan.mode.own and self._are_writing():
                self._rotate()
        else:
            self._tell(action)
            self._others.append((action, self._processes.lakelog(action)))

    def _rotate(self) -> None:
        """Run logrotate beside everything, or with care where it deletes or the writer rests."""
        plan = self._plan
        self._await_rotation()
        if plan.mode.deletes:
            self._watcher.start()
            self._await_all()
        self._tell("logrotate")
        if plan.pauses:
            for writer in self._writers:
                os.kill(writer.pid, signal.SIGSTOP)
        self._rotating = self._rotator.start()
        if plan.pauses or plan.mode.deletes:
            self._await_rotation()
        if plan.pauses:
            for writer in self._writers:
                os.kill(writer.pid, signal.SIGCONT)
        if plan.mode.deletes:
            self._tell("deleted")
            self._await_all()

    def _await_rotation(self) -> None:
        """Wait until logrotate has ended, and go on looking: it waits for the writer's reopening,
        which may take seconds."""
        until = time.monotonic() + 240
        while self._rotating is not None and self._rotating.poll() is None:
            assert time.monotonic() < until, "logrotate does not end"
            self._attend()

    def _attend(self) -> None:
        """See what SQL shows, start what is down, look after what ended."""
        time.sleep(0.04)
        ((count,),) = self.lake.sql("SELECT count(*) FROM events").fetchall()
        self._seen.append((time.time(), count))
        if not self._watcher.up and time.time() >= self._starts_again:
            self._watcher.start()
            self._tell("started")
        for name, process in list(self._others):
            if process.poll() is not None:
                assert process.returncode == 0, f"{name} failed: {self._processes.said(name)}"
                self._others.remove((name, process))

    def _await_all(self) -> None:
        """Wait until all that was written by now is seen, or nothing new comes."""
        wanted = sum(sum(written.now()) for written in self._written)
        least, since = -1, time.monotonic()
        while time.monotonic() - since < PATIENCE:
            self._attend()
            count = self._seen[-1][1]
            if count >= wanted - self._cut():
                return
            if count > least:
                least, since = count, time.monotonic()

    def _finish(self) -> None:
        """End the writers, let the watcher see all, and end it."""
        for number, writer in enumerate(self._writers):
            written = self._written[number]
            writer.end(lambda written=written: self._is_written(written))
        self._await_rotation()
        self._disk = {written.log: self._files(written) for written in self._written}
        self._watcher.start()
        while self._others:
            self._attend()
        self._await_all()
        self._watcher.end()

    def _tell(self, what: str) -> None:
        self._happened.append(f"{time.time() - self._began:.2f} {what}")

    # --- the comparison ---

    def _is_written(self, written: Written) -> bool:
        """Whether the last line is in a file, as far as files are kept."""
        return self._plan.mode.deletes or bool(self._files(written)[0].counts[-1:].all())

    def _are_writing(self) -> bool:
        states = [writer.running for writer in self._writers]  # all of them: each says if it failed
        return any(states)

    def _cut(self) -> int:
        """How many lines are in no file, once that is known."""
        if not self._plan.mode.truncates:
            return 0
        return sum(int((held.counts == 0).sum()) for held, _ in self._disk.values())

    def _files(self, written: Written) -> tuple[Holding, dict[str, int]]:
        folders = [self._folder, self._old]
        return ledger.on_disk(folders, written, self._logs[written.log].name)

    def _compare(self, who: str) -> None:
        """Require of every line what its files make of it."""
        stored, wrong = Stored(self.lake), []
        whole: dict[int, Holding] = {}
        for written in self._written:
            disk, files = self._disk[written.log]
            whole[written.log] = disk
            must = disk.counts > 0
            if self._plan.mode.deletes:
                must = np.ones_like(must)
            elif not self._plan.mode.truncates:
                cut = disk.of(~must)
                assert not cut, f"logrotate itself lost {len(cut)} lines, such as {cut[:3]}"
            counts = stored.of(written).counts
            wrong += self._wrong(written, counts, must, files)
        banners = sum(written.now()[1] for written in self._written)
        if stored.banners != banners:
            wrong.append(f"{stored.banners} rows '{BANNER}', {banners} were written")
        wrong += _parts(stored, whole)
        assert not wrong, f"after {who}: " + "; ".join(wrong)

    def _wrong(self, written: Written, counts: Any, must: Any, files: dict[str, int]) -> list[str]:
        log, said = self._logs[written.log].name, []
        if len(counts) > len(must):
            said.append(f"{log}: {len(counts) - len(must)} lines were never written")
            counts = counts[: len(must)]
        lost, doubled = Holding(counts).of(must & (counts == 0)), Holding(counts).of(counts > 1)
        if lost:
            said.append(f"{log}: {len(lost):,} of {len(must):,} LOST, {_spans(lost)}")
        if doubled:
            said.append(f"{log}: {len(doubled):,} of {len(must):,} DOUBLED, {_spans(doubled)}")
        return [*said, f"files {files}"] if said else []

    def _audit(self) -> None:
        """Require that audit says the same: nothing missing, doubled or foreign."""
        words = [str(self._folder), str(self._old), "--json", "-o", str(self._case.place / "audit")]
        code = self._processes.lakelog("audit", *words).wait(240)
        rows = json.loads((self._case.place / "audit").read_text() or "[]")
        wrong = [
            (row["source"], name, row[name])
            for row in rows
            for name in ("missing", "doubled", "foreign")
            if row[name]
        ]
        assert not wrong, f"audit finds {wrong}"
        # Files that were deleted are not there to be read, and audit says so by its code.
        kept = not self._plan.mode.deletes
        assert code == 0 or not kept, f"audit ended with {code}: {self._processes.said('audit')}"

    def _count(self) -> None:
        """Count what was verified, and how late lines were seen."""
        notes = self._case.tally.notes
        lost = [self._disk[w.log][0].counts == 0 for w in self._written]
        if not self._plan.mode.truncates:
            lost = [np.zeros_like(flags) for flags in lost]
        times, lags = ledger.lags(self._written, lost, self._seen)
        notes["lines"] += sum(written.now()[0] for written in self._written)
        notes["in no file after copytruncate"] += int(sum(flags.sum() for flags in lost))
        notes["written live"] += len(lags)
        alive = lags - self._watcher.down_within(times, lags)
        for limit in SHARE_LATE:
            notes[f"seen within {limit:g} s"] += int((lags <= limit).sum())
            notes[f"seen within {limit:g} s of a running watcher"] += int((alive <= limit).sum())
        notes["not seen while it ran"] += int(np.isinf(lags).sum())
        self._case.verified(self._watcher.kills)


def _parts(stored: Stored, whole: dict[int, Holding]) -> list[str]:
    """What is in the lake, or in quarantine, and is a part of a line that a file has whole."""
    said = []
    for what, texts in (("rows", stored.others), ("lines in quarantine", stored.quarantine)):
        if parts := ledger.torn(texts, whole):
            said.append(f"{len(parts):,} {what} TORN, such as {parts[0][:150]!r}")
    return said


def _spans(serials: list[int]) -> str:
    """Serials as a few ranges."""
    breaks = np.nonzero(np.diff(serials) != 1)[0]
    starts = [serials[0], *(serials[n + 1] for n in breaks)]
    ends = [*(serials[n] for n in breaks), serials[-1]]
    spans = [f"{a}-{b}" if a != b else f"{a}" for a, b in zip(starts, ends, strict=True)]
    return ", ".join(spans[:4]) + (f" and {len(spans) - 4} more spans" if len(spans) > 4 else "")


def _lacks() -> str:
    return lacking("logrotate")


ROWS = [Row("logrotate", "rotated logs, each once", 16, 160, 60, rotations, missing=_lacks)]
