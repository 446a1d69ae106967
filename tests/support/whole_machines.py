"""What the random histories of all entrances do with other machines: a clone appends, pushes and is
pulled from, and a directory that shares the lake in a bucket exchanges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lakelog
from lakelog import remotes
from lakelog.keys import KeyRing
from lakelog.keys.master import MasterKey
from lakelog.remotes.shared import attach
from tests.support import cli
from tests.support.whole_model import Event, State

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    import pytest


class Machines:
    """Steps of a history (`whole_history`), which has what is named here."""

    if TYPE_CHECKING:
        home: Path
        path: str
        dice: Random
        lake: Any
        log: list[str]
        state: State

        def events(self, most: int = 4) -> list[Event]:
            """New events."""

        def do_push(self) -> None:
            """Push the branch, and clone what was pushed."""

        def _moved(self, target: State) -> None: ...

        def _compare(self, lake: Any, state: State, where: str) -> None: ...

    bucket = ""
    """The address of the bucket that shares the lake, if one does."""

    def _share(self, patch: pytest.MonkeyPatch, settings: dict[str, Any], key: str) -> None:
        """Create the lake in a bucket, encrypted where there is a key."""
        self.bucket = f"file://{self.home}/bucket"
        if key:
            patch.setenv("LAKELOG_KEY", key)

        def ring() -> KeyRing:
            return KeyRing.generate(MasterKey(bytes.fromhex(key), "LAKELOG_KEY"))

        attach(self.bucket, self.path, new_ring=ring if key else None)
        cli.run(
            self.path, "config", "set", *(f"{name}={value}" for name, value in settings.items())
        )

    def _machine(self) -> Any:
        """Open the directory of another machine on the branch, with all that was published."""
        path, branch = f"{self.home}/machine", self.lake.branch_name
        attach(self.bucket, path)
        with lakelog.open(path, create=False) as machine:
            machine.exchange()
        return lakelog.open(path, create=False, branch=branch)

    def _exchange_all(self) -> None:
        """Let the machines of a shared lake hear of each other."""
        if self.bucket:
            self._machine().close()
            self.lake.exchange()

    # --- steps ---

    def do_append_elsewhere(self) -> None:
        """Append on another machine, and bring here what it has appended."""
        if self.bucket:
            self._append_on_machine()
            return
        events = self.push_from_clone()
        before = self.state
        remotes.pull(self.lake, "origin")
        self._moved(before.add(*events))

    def push_from_clone(self) -> list[Event]:
        """Push events that a clone of the branch has appended, and return them."""
        self.do_push()
        branch, events = self.lake.branch_name, self.events()
        clone = str(self.home / f"clone{len(self.log)}")
        with lakelog.open(clone, create=False, branch=branch) as other:
            other.append([event.record for event in events])
            other.settle()
            remotes.push(other, "origin", branches=[branch])
        return events

    def _append_on_machine(self) -> None:
        """Append in the other directory, after or before what waits in this one."""
        events, is_later = self.events(), self.dice.random() < 0.5
        if not is_later:
            # Of two events with one id the first that is published stays.
            self.lake.exchange()
        with self._machine() as machine:
            if is_later:
                self.lake.exchange()
            machine.append([event.record for event in events])
            machine.exchange()
            self._compare(machine, self.state.add(*events), "machine")
        self.lake.exchange()
        self.state = self.state.add(*events)

    def do_exchange(self) -> None:
        """Let the machines of a shared lake have what all have."""
        if self.bucket:
            self.lake.exchange()
            with self._machine() as machine:
                self._compare(machine, self.state, "machine")
