"""A deterministic scheduler: threads as processes, exactly one of which runs.

Each actor has a thread and opens the lake for itself, so that actors share the directory alone.
At every call of a disk function, and before every file is opened, the actor may lose its turn to
another; which one is drawn from the seed. An actor may be killed at any such step: it never runs
again, and what it had open is closed. Time is virtual, and files carry it as their mtime.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import seam
from tests.support.seam import Killed, bury

HOUR = 3_600_000_000
PLACES = """wal open listing exists read link create_whole put_object finish sync_dir sync_file
    write_all unlink lock claim rename make_dir""".split()
_PATIENCE = 10.0


class Actor:
    """One process of the play."""

    def __init__(self, name: str, play: Callable[[Actor], None], weight: float) -> None:
        self.name, self.play, self.weight = name, play, weight
        self.turn = threading.Lock()
        self.turn.acquire()
        self.steps = 0
        self.kill_at = 0
        self.dead = self.done = False
        self.busy = False
        self.linking = False
        self.fds: set[int] = set()
        self.until = (0, 0)
        self.trap, self.caught = "", 0.2
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None


class Scheduler:
    """Runs actors, one step at a time, in an order that the seed decides."""

    def __init__(self, seed: int, root: str) -> None:
        self.seed, self.root = seed, root
        self.dice = random.Random(seed)
        self._names = random.Random(f"names {seed}")
        self.actors: list[Actor] = []
        self.step = 0
        self.shift = 0
        self.started = time.time_ns() // 1000
        self.on_change: Callable[[Actor, str, tuple[Any, ...], Any], None] | None = None
        self.faults: Callable[[Actor, str, tuple[Any, ...]], BaseException | None] | None = None
        self.observing = False
        self.calm = False
        self.claims_lie = self.dice.random() < 0.5
        self._running: dict[int, Actor] = {}
        self._over = threading.Lock()
        self._over.acquire()
        self._stickiness = self.dice.choice([0.0, 0.5, 0.9, 0.98])
        self.moved = 0
        self._next_stop = self.dice.choice([0, 200, 1_000_000])
        self._traps = self.dice.choice([0, 1, 2, 4])
        self._alone: Actor | None = None

    def add(self, name: str, play: Callable[[Actor], None], pace: float = 1.0) -> Actor:
        """Add an actor before `run`; how fast it is, is drawn around its pace."""
        self.actors.append(Actor(name, play, pace * self.dice.choice([0.1, 0.3, 1, 1, 3])))
        return self.actors[-1]

    def now(self) -> int:
        """Virtual microseconds: later at every step, `shift` ahead of the real clock."""
        return self.started + self.shift + self.step

    def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Play to the end. Raises AssertionError with the first actor's error, or if stuck."""
        with monkeypatch.context() as patch, seam.opens_watched(self._opening):
            seam.install(patch, self._hook)
            patch.setattr(seam.disk, "now_us", self._tick)
            patch.setattr(seam.disk, "random_hex", lambda n=16: self._names.randbytes(n).hex())
            traps = 0 if self.calm else min(self._traps, len(self.actors))
            for actor in self.dice.sample(self.actors, traps):
                actor.trap = actor.trap or self.dice.choice(PLACES)
            for actor in self.actors:
                actor.thread = threading.Thread(target=self._live, args=(actor,), daemon=True)
                actor.thread.start()
            self._next(None).turn.release()
            self._wait()
            for actor in self.actors:
                assert actor.thread is not None
                actor.thread.join()
        for actor in self.actors:
            if actor.error is not None:
                text = "".join(traceback.format_exception(actor.error))
                raise AssertionError(f"seed {self.seed}: {actor.name} failed\n{text}")

    def _wait(self) -> None:
        """Wait for the end. Raises AssertionError if nobody moves for long."""
        still, seen = 0, -1
        while not self._over.acquire(timeout=_PATIENCE):
            still, seen = still + 1 if seen == self.step else 0, self.step
            if still == 6:
                raise AssertionError(f"seed {self.seed}: nobody moves\n{self._stacks()}")

    def stop(self, actor: Actor, steps: int, moves: int = 0) -> None:
        """Let an actor stand still for steps of others, or until the branch has moved so often."""
        actor.until = (self.step + steps, self.moved + moves if moves else 1 << 30)

    def quiet(self, actor: Actor) -> None:
        """Wait until no other actor is in the middle of an operation; end it with `loud`."""
        self._alone = actor
        while any(a.busy and not a.done and not a.dead for a in self.actors if a is not actor):
            self._yield(actor)

    def between_moves(self, actor: Actor) -> None:
        """Wait until nobody is about to link a move: nobody can look and link in one step."""
        while any(a.linking and not a.done and not a.dead for a in self.actors):
            self._yield(actor)

    def loud(self) -> None:
        """Let the others begin operations again."""
        self._alone = None

    def begin(self, actor: Actor) -> None:
        """An operation starts; nobody may be in a quiet moment."""
        while self._alone is not None and self._alone is not actor:
            self._yield(actor)
        actor.busy = True

    def end(self, actor: Actor) -> None:
        """The operation is over."""
        actor.busy = False
        self._yield(actor)

    def _live(self, actor: Actor) -> None:
        actor.turn.acquire()
        self._running[threading.get_ident()] = actor
        try:
            actor.play(actor)
        except Killed:
            pass
        except BaseException as error:
            actor.error = error
        actor.done = True
        self._bury(actor)
        if self._alone is actor:
            self._alone = None
        heir = self._next(actor)
        (self._over if heir is actor else heir.turn).release()

    def _bury(self, actor: Actor) -> None:
        bury(actor.fds)

    def _next(self, actor: Actor | None) -> Actor:
        """Draw whose turn it is; `actor` itself if there is nobody else."""
        able = [a for a in self.actors if not a.done]
        if self.step >= self._next_stop and not self.calm:
            length = self.dice.randint(20, 800)
            self.stop(self.dice.choice(self.actors), length)
            self._next_stop = self.step + length + self.dice.randint(0, 400)
        able = [a for a in able if self._moves_on(a)] or able
        if not able:
            assert actor is not None
            return actor
        if actor in able and self.dice.random() < self._stickiness:
            return actor
        return self.dice.choices(able, [a.weight for a in able])[0]

    def _yield(self, actor: Actor) -> None:
        if actor.dead:
            raise Killed
        self.step += 1
        actor.steps += 1
        heir = self._next(actor)
        if heir is not actor:
            heir.turn.release()
            actor.turn.acquire()

    def _moves_on(self, actor: Actor) -> bool:
        step, moves = actor.until
        return self.step >= step or self.moved >= moves

    def _spring(self, actor: Actor, place: str) -> None:
        """Stop the actor if this is the place where the seed wants it to stand still."""
        if actor.trap == place and self.dice.random() < actor.caught:
            self.stop(actor, 3000, self.dice.randint(1, 4))

    def _opening(self, path: str) -> None:
        actor = self._running.get(threading.get_ident())
        if self.observing or actor is None or actor.done:
            return
        if path.startswith(self.root):
            self._spring(actor, "wal" if "/wal/" in path else "open")
            self._yield(actor)

    def _hook(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        actor = self._running.get(threading.get_ident())
        if name == "close":
            self._disown(args[0])
        if name == "close" or self.observing or actor is None or actor.done:
            return real(*args, **kwargs)
        if name == "create_whole":
            actor.linking = "/refs/heads/" in args[0]
        if not (name == "listing" and _is_leaf(args[0])):
            self._spring(actor, name)
            self._yield(actor)
        if name in seam.CHANGES and actor.kill_at and actor.steps >= actor.kill_at:
            actor.dead = True
            seam.tear(name, args, Killed())
            raise Killed
        if name in seam.CHANGES and self.faults is not None:
            error = self.faults(actor, name, args)
            if error is not None:
                seam.tear(name, args, error)
                raise error
        if name == "claim" and self.claims_lie:
            return contextlib.nullcontext(True)
        result = self._do(actor, name, real, args, kwargs)
        if name == "create_whole":
            actor.linking = False
        return result

    def _disown(self, fd: int) -> None:
        """A number that was closed, by whichever thread collected its writer, may be anybody's."""
        for actor in self.actors:
            actor.fds.discard(fd)

    def _do(self, actor: Actor, name: str, real: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Do it; syncing costs nothing here, but stamps the file with virtual time."""
        result = None
        if name == "sync_file":
            os.utime(args[0], ns=(self.now() * 1000, self.now() * 1000))
        elif name == "lock" and kwargs.get("wait"):
            while not (result := real(*args)):  # nobody else could move while it waits
                self._yield(actor)
        elif name != "sync_dir":
            result = real(*args, **kwargs)
        if name == "create":
            self._disown(result)
            actor.fds.add(result)
        if name == "link" and "/refs/heads/" in args[1]:
            self.moved += 1
        if self.on_change is not None and name in seam.CHANGES:
            self.on_change(actor, name, args, result)
        return result

    def _tick(self) -> int:
        self.step += 1
        return self.now()

    def _stacks(self) -> str:
        frames = sys._current_frames()
        found = []
        for actor in self.actors:
            frame = frames.get(actor.thread.ident or 0) if actor.thread else None
            if frame is not None and not actor.done:
                found.append(f"{actor.name}:\n{''.join(traceback.format_stack(frame)[-6:])}")
        return "\n".join(found)


def _is_leaf(path: str) -> bool:
    """Whether it is one of the 256 folders of a kind of objects, which gc lists all."""
    return len(os.path.basename(path)) == 2
