"""In a real kernel: interrupts, live cells and the images of plots."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lakelog
from tests.conftest import MakeLake
from tests.support.requirements import need_module

need_module("ipykernel")
manager = need_module("jupyter_client.manager")

SLOW = "SELECT sum(hash(a.range)) FROM range(3_000_000_000) a"


class Kernel:
    """A kernel that runs cells."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()  # a socket's path may not be long
        # Not ports: they are chosen, and taken when the kernel has started, by others too.
        self.process = manager.KernelManager(
            kernel_name="python3", transport="ipc", ip=f"{self._folder.name}/kernel"
        )
        self.process.start_kernel()
        self.client = self.process.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=240)

    def start(self, cell: str) -> str:
        """Send a cell, do not wait."""
        identity: str = self.client.execute(cell)
        return identity

    def finish(self, identity: str) -> list[Any]:
        """The messages of a cell until it has ended."""
        return self._until(identity, lambda m: m["content"].get("execution_state") == "idle")

    def until_progress(self, identity: str) -> None:
        """Wait until a cell shows for how long its query has run."""
        self._until(
            identity, lambda m: " s, " in m["content"].get("data", {}).get("text/plain", "")
        )

    def _until(self, identity: str, ends: Callable[[Any], bool]) -> list[Any]:
        """The messages of a cell before the one that ends the wait."""
        messages = []
        while True:
            message = self.client.get_iopub_msg(timeout=240)
            if message["parent_header"].get("msg_id") != identity:
                continue
            if ends(message):
                return messages
            messages.append(message)

    def run(self, cell: str) -> list[Any]:
        """Run a cell; return the messages of what it showed."""
        shown = self.finish(self.start(cell))
        assert not [m["content"] for m in shown if m["msg_type"] == "error"]
        return [m for m in shown if "data" in m["content"]]

    def close(self) -> None:
        self.client.stop_channels()
        self.process.shutdown_kernel(now=True)
        # Their threads would be there for good, and other tests fork.
        self.client.context.destroy(linger=0)
        self.process.context.destroy(linger=0)
        self._folder.cleanup()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


@pytest.fixture
def lake(make_lake: MakeLake, kernel: Kernel) -> lakelog.Lake:
    lake = make_lake()
    lake.append([{"type": "A", "data": {"n": n}} for n in range(10)])
    kernel.run(f"import lakelog\n%reload_ext lakelog\n%lakelog {lake.path}")
    return lake


@pytest.mark.parametrize("cell", [f"%sql {SLOW}", f"%%sql\n{SLOW}"])
def test_interrupt_ends_the_cell_and_the_next_works(
    kernel: Kernel, lake: lakelog.Lake, cell: str
) -> None:
    identity = kernel.start(cell)
    kernel.until_progress(identity)
    kernel.process.interrupt_kernel()
    [error] = [m for m in kernel.finish(identity) if m["msg_type"] == "error"]
    assert error["content"]["ename"] == "KeyboardInterrupt"
    [shown] = kernel.run("%sql SELECT count(*) AS n FROM events")
    assert "10" in shown["content"]["data"]["text/plain"]


def test_long_query_shows_how_far_it_is(kernel: Kernel, lake: lakelog.Lake) -> None:
    identity = kernel.start(f"%sql {SLOW}")
    kernel.until_progress(identity)
    kernel.process.interrupt_kernel()
    shown = [m["content"]["data"] for m in kernel.finish(identity) if "data" in m["content"]]
    assert shown[-1]["text/plain"] == ""


def test_live_table_follows_the_lake(kernel: Kernel, lake: lakelog.Lake) -> None:
    identity = kernel.start("seen = lakelog.live('SELECT count(*) AS n FROM events', 0.1)")
    first = next(m for m in kernel.finish(identity) if "data" in m["content"])
    assert "10" in first["content"]["data"]["text/plain"]
    place = first["content"]["transient"]["display_id"]
    lake.append({"type": "A"})
    until = time.monotonic() + 240
    while True:
        assert time.monotonic() < until
        message = kernel.client.get_iopub_msg(timeout=240)
        content = message["content"]
        if message["msg_type"] == "update_display_data" and "11" in content["data"]["text/plain"]:
            assert content["transient"]["display_id"] == place
            break
    [stopped] = kernel.run("seen.stop()\nseen")
    assert stopped["content"]["data"]["text/plain"] == "<Live, stopped>"


def test_live_cell_that_runs_again_replaces_the_first(kernel: Kernel, lake: lakelog.Lake) -> None:
    [*_, shown] = kernel.run(
        "a = lakelog.live('SELECT 1', 0.1)\nb = lakelog.live('SELECT 1', 0.1)\n"
        "was = a.is_running, b.is_running\nb.stop()\nwas"
    )
    assert shown["content"]["data"]["text/plain"] == "(False, True)"


def test_live_cell_stops_where_the_query_fails(kernel: Kernel, lake: lakelog.Lake) -> None:
    identity = kernel.start("lakelog.live('SELECT nothing FROM events')")
    [error] = [m for m in kernel.finish(identity) if m["msg_type"] == "error"]
    assert error["content"]["ename"] == "QueryFailed"


@pytest.mark.thorough
def test_plot_has_an_image(kernel: Kernel, lake: lakelog.Lake) -> None:
    need_module("altair")
    need_module("vl_convert")
    [shown] = kernel.run("answer = %sql SELECT type FROM events\nanswer.plot()")
    data = shown["content"]["data"]
    assert data["image/png"].startswith("iVBOR")
    assert any("vegalite" in kind for kind in data)
