"""The server's side of one query process: its start, its frames, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import sys

import orjson

from lakelog.disk import Folder
from lakelog.errors import LakelogError
from lakelog.keys import VAULT
from lakelog.paths import Paths
from lakelog.runtime import interpreter
from lakelog.server.sql import query_limits as wire
from lakelog.server.sql.query_limits import QueryLimits, QueryRefused
from lakelog.store import LakeConfig

_BUFFER = 1 << 20
"""Bytes of an answer that wait in the server; a process that is ahead of its client waits."""
_START_SECONDS = 30.0
_PASSED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SYSTEMROOT", "PYTHONPATH")
"""Of the environment, which may hold secrets, a query process gets no more."""


class WorkerProcess:
    """A process that answers one query at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process, self._spill, self._is_killed = process, "", False
        self.is_confined = False
        """Whether the kernel bounds the files that it may open."""

    @classmethod
    async def start(
        cls, root: str, branch: str, limits: QueryLimits, module: str, *, is_warm: bool = False
    ) -> WorkerProcess:
        """Start one that runs a module, and wait until it is ready; if `is_warm`, also for what is
        slow at the first time. Raises QueryRefused."""
        variables = {
            # What is allocated in advance counts against the memory limit, and threads that there
            # are before the process binds itself would stay free.
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "MALLOC_ARENA_MAX": "2",
            # No file has this name: protected fields stay sealed, though the keys be in the home of
            # the user, where they are seen but cannot be read.
            "LAKELOG_SUBJECT_KEYS": f"{root}/cache/no.subjects",
        }
        environment = interpreter.environment()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", module),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={n: environment[n] for n in _PASSED if n in environment} | variables,
                start_new_session=True,  # Ctrl-C is for the server
                limit=_BUFFER,
            )
        except OSError as error:
            raise QueryRefused("unavailable", f"no query process: {error}", status=503) from None
        worker = cls(process)
        plan = {
            "root": root,
            "branch": branch,
            "limits": dataclasses.asdict(limits),
            "is_warm": is_warm,
        }
        # By its input and not its environment, which other users of the machine may see.
        if VAULT.lakes:  # it has not the environment from which the server has them
            config = LakeConfig(Paths(root))
            with contextlib.suppress(LakelogError):
                config.open_keys(config.read_to_change())  # others may have made one since
            plan["keys"] = VAULT.secrets()
        try:
            await worker._write(orjson.dumps(plan) + b"\n")
            async with asyncio.timeout(_START_SECONDS):
                _, head = await worker.read()
        except (TimeoutError, EOFError, OSError):
            worker.kill()
            raise QueryRefused(
                "unavailable", "a query process did not start: see if the lake can be read", "", 503
            ) from None
        except asyncio.CancelledError:
            worker.kill()
            raise
        ready = orjson.loads(head)
        worker.is_confined, worker._spill = bool(ready["confined"]), str(ready["spill"])
        return worker

    @property
    def is_usable(self) -> bool:
        """Whether it has not ended, as far as is known, and was not killed."""
        return self._process.returncode is None and not self._is_killed

    async def ask(self, request: bytes) -> None:
        """Send an encoded request, whose answer is to be read. Raises OSError where the process
        ended."""
        await self._write(wire.frame(wire.ASK, request))

    async def give(self, answer: bytes) -> None:
        """Send what it needed of a bucket. Raises OSError where the process ended."""
        await self._write(wire.frame(wire.GIVEN, answer))

    async def read(self) -> tuple[bytes, bytes]:
        """Return the next frame. Raises EOFError where the process ended."""
        assert self._process.stdout is not None
        header = await self._process.stdout.readexactly(wire.HEADER.size)
        frame_type, size = wire.HEADER.unpack(header)
        return frame_type, await self._process.stdout.readexactly(size)

    async def settle(self, number: int, seconds: float) -> bool:
        """Cancel a request; return whether the process is ready for the next one within seconds.
        If not, it was killed."""
        try:
            await self._write(wire.frame(wire.CANCEL, b"%d" % number))
            async with asyncio.timeout(seconds):
                # What is left of the old answer must be read, or it would be taken for that of the
                # next query.
                while (await self.read())[0] != wire.END:
                    pass
        except (TimeoutError, EOFError, OSError):
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """End it now; whatever it does is lost."""
        self._is_killed = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """Kill it, wait until it is gone, and remove what it has spilled to disk."""
        self.kill()
        await self._process.wait()
        if self._spill:
            with contextlib.suppress(OSError):  # else gc does it, a day later
                # It holds only files of the engine, which makes no folders in it.
                await asyncio.to_thread(Folder(self._spill).remove_with_files)

    async def ending(self) -> str:
        """Wait until it has ended, and return what by."""
        code = await self._process.wait()
        if code >= 0:
            return f"it ended with code {code}"
        with contextlib.suppress(ValueError):
            return f"it was ended by {signal.Signals(-code).name}"
        return f"it was ended by signal {-code}"

    async def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        # uvloop, unlike asyncio, raises a RuntimeError for a pipe that it has closed.
        if self._process.stdin.is_closing():
            raise BrokenPipeError
        self._process.stdin.write(data)
        await self._process.stdin.drain()
