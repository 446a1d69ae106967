"""Casts of actors, each for one kind of trouble; `perform` plays one seed of one and checks it."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.scheduler import Actor, Scheduler
from tests.support.scratch import memory
from tests.support.world import World, collects, goes_on, reads, stays, works, writes

WRITING = 0.15
"""Writers take few steps; at this pace they are still writing while others seal several times."""


def sealing(stage: Scheduler, root: str) -> World:
    """Sealers of every kind race over a few writers that share some ids."""
    dice = stage.dice
    world = World(root, stage, shared_ids=dice.choice([0.0, 0.6]))
    for i in range(dice.randint(1, 3)):
        stage.add(f"writer{i}", writes(world, dice.randint(2, 6)), WRITING)
    for i in range(3):
        stage.add(f"sealer{i}", works(world, 4, "settle", "seal", "seal", "trim", "trim"))
    for i in range(2):
        stage.add(f"reader{i}", reads(world, 3))
    return world


def stopping(stage: Scheduler, root: str) -> World:
    """One process stands still, again and again at one kind of place, while the branch moves on."""
    dice = stage.dice
    world = World(root, stage, shared_ids=dice.choice([0.0, 0.5]))
    stage.calm = True
    stage.add("world", goes_on(world, 6))
    play, places = dice.choice(
        [
            (works(world, 4, "seal"), "listing wal exists finish create_whole link"),
            (works(world, 4, "trim"), "listing wal exists sync_dir unlink"),
            (works(world, 3, "compact"), "open exists put_object create_whole link"),
            (works(world, 3, "tag", "branch"), "listing exists read create_whole link"),
            (works(world, 3, "snapshot", "undo"), "listing exists read create_whole link"),
            (works(world, 2, "rollback", "undo by force"), "listing exists create_whole link"),
            (writes(world, 5), "write_all sync_file create link"),
        ]
    )
    victim = stage.add("victim", play)
    victim.trap, victim.caught = dice.choice(places.split()), dice.choice([0.1, 0.3])
    return world


def reading(stage: Scheduler, root: str) -> World:
    """A reader stands still between two looks, while writers come and go and files are dropped."""
    dice = stage.dice
    world = World(root, stage, shared_ids=dice.choice([0.0, 0.5]))
    stage.calm = True
    stage.add("world", goes_on(world, 6))
    victim = stage.add("victim", reads(world, 4))
    victim.trap, victim.caught = dice.choice("listing wal exists read".split()), 0.3
    return world


def trimming(stage: Scheduler, root: str) -> World:
    """One writer stays and fills its file slowly; who trims stands still before it does."""
    dice = stage.dice
    world = World(root, stage)
    stage.calm = True
    stage.add("world", stays(world, 8))
    victim = stage.add("victim", works(world, 6, "trim"))
    victim.trap, victim.caught = dice.choice("wal exists sync_dir unlink".split()), 0.3
    return world


def poisoning(stage: Scheduler, root: str) -> World:
    """A writer's syncs fail, and it stands still before it writes the batch again."""
    dice = stage.dice
    world = World(root, stage)
    stage.calm = True
    stage.add("world", goes_on(world, 6))
    victim = stage.add("victim", writes(world, 8))

    def fault(actor: Actor, name: str, _: tuple[Any, ...]) -> OSError | None:
        if actor is not victim or name not in ("sync_file", "sync_dir") or dice.random() < 0.6:
            return None
        stage.stop(actor, 3000, dice.randint(0, 3))
        return OSError(errno.EIO, "planted: the sync failed")

    stage.faults = fault
    return world


def users(stage: Scheduler, root: str) -> World:
    """Everything that must not change what is there: tags, branches, compaction, undo."""
    dice = stage.dice
    world = World(root, stage, shared_ids=dice.choice([0.0, 0.4]), old=dice.choice([0.0, 0.3]))
    for i in range(2):
        stage.add(f"writer{i}", writes(world, dice.randint(2, 5)), WRITING)
    stage.add("sealer", works(world, 4, "settle", "seal", "trim"))
    for i in range(2):
        stage.add(f"compactor{i}", works(world, 2, "compact"))
    stage.add("user", works(world, 4, "tag", "branch", "snapshot", "undo"))
    stage.add("other", works(world, 3, "snapshot", "undo", *(["retain"] if world.old else [])))
    stage.add("reader", reads(world, 5))
    return world


def collecting(stage: Scheduler, root: str) -> World:
    """Days go by between operations, and gc runs beside them."""
    dice = stage.dice
    world = World(root, stage, shared_ids=dice.choice([0.0, 0.4]))
    for i in range(2):
        stage.add(f"writer{i}", writes(world, dice.randint(2, 5)), WRITING)
    for i in range(2):
        stage.add(f"sealer{i}", works(world, 3, "settle", "seal", "compact"))
    stage.add("user", works(world, 3, "tag", "branch", "snapshot", "undo"))
    stage.add("reader", reads(world, 5))
    for i in range(dice.randint(1, 2)):
        stage.add(f"collector{i}", collects(world, 3))
    world.refusals = ("collecting", "no moves")
    return world


def rewinding(stage: Scheduler, root: str) -> World:
    """The branch goes back while others write, seal, compact and read."""
    dice = stage.dice
    world = World(root, stage, shared_ids=dice.choice([0.0, 0.0, 0.6]))
    for i in range(2):
        stage.add(f"writer{i}", writes(world, dice.randint(2, 5)), WRITING)
    for i in range(2):
        stage.add(f"sealer{i}", works(world, 4, "settle", "seal", "trim", "compact"))
    stage.add("user", works(world, 2, "rollback", "rollback", "undo by force"))
    for i in range(2):
        stage.add(f"reader{i}", reads(world, 5))
    return world


def stalling(stage: Scheduler, root: str) -> World:
    """Days go by in the middle of operations, as for a stopped process or a suspended machine."""
    dice = stage.dice
    world = World(root, stage, must_raise_nothing=False)
    for i in range(2):
        stage.add(f"writer{i}", writes(world, dice.randint(2, 5)), WRITING)
    for i in range(2):
        stage.add(f"sealer{i}", works(world, 4, "settle", "seal", "compact"))
    stage.add("user", works(world, 2, "snapshot", "tag"))
    for i in range(2):
        stage.add(f"collector{i}", collects(world, 4, stalls=True))
    return world


def killed(stage: Scheduler, root: str) -> World:
    """Some actors die at some change of the disk, with what they hold half-done."""
    cast = stage.dice.choice([sealing, users, rewinding])
    world = cast(stage, root)
    world.refusals = ("no branch",)
    for actor in stage.dice.sample(stage.actors, stage.dice.randint(1, 3)):
        actor.kill_at = stage.dice.randint(5, 150)
    return world


def failing(stage: Scheduler, root: str) -> World:
    """The disk fails now and then, or is full for a while."""
    dice = stage.dice
    world = dice.choice([sealing, users, rewinding])(stage, root)
    world.must_raise_nothing = False
    rate = dice.choice([0.01, 0.03])
    full_from = dice.randint(50, 400)
    full_until = full_from + dice.choice([0, 50, 300])

    def fault(actor: Actor, name: str, __: tuple[Any, ...]) -> OSError | None:
        if full_from <= stage.step < full_until and name in ("write_all", "create", "link"):
            return OSError(errno.ENOSPC, "planted: no space left")
        if dice.random() < rate:
            stage.stop(actor, dice.choice([0, 300, 600]))
            return OSError(errno.EIO, f"planted: {name} failed")
        return None

    stage.faults = fault
    return world


CASTS: dict[str, Callable[[Scheduler, str], World]] = {
    cast.__name__: cast
    for cast in (
        sealing,
        stopping,
        reading,
        trimming,
        poisoning,
        users,
        collecting,
        rewinding,
        stalling,
        killed,
        failing,
    )
}


def perform(
    name: str,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    watch: Callable[[World], None] | None = None,
) -> World:
    """Play one seed. Raises AssertionError that says how to play it again."""
    folder = tempfile.mkdtemp(dir=memory())
    stage = Scheduler(seed, f"{folder}/lake")
    world = CASTS[name](stage, stage.root)
    if watch is not None:
        watch(world)
    try:
        stage.run(monkeypatch)
        world.check()
        return world
    except Exception as error:
        raise AssertionError(
            f"{name} {seed}: {type(error).__name__}: {error}\n"
            f"replay: LAKELOG_SEED={seed} .venv/bin/python -m pytest"
            f" tests/store/test_protocol_schedule.py -k '{name}'"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
