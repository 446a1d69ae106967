"""demo: a tour of what a lake does, with the very commands a user would type.

Every step that can be a command is one: it is shown and run as its own process. Only the part
where several processes write while another asks is driven from here.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from itertools import islice
from pathlib import Path
from typing import Any

import click

from lakelog import lake as lakes
from lakelog.cli import sample
from lakelog.cli.app import App, verb
from lakelog.cli.options import flag, option
from lakelog.cli.render.terminal import ProgressLine, has_colour, many, paint, width
from lakelog.cli.rounds import stop_at_signals
from lakelog.disk import disk
from lakelog.paths import Paths
from lakelog.runtime import interpreter
from lakelog.server import ServerPlan, require_packages, serve
from lakelog.values import from_micros

WRITERS = 4
EVENTS = 60_000
LATER = 6
"""One event in so many comes after the tag."""
_SECONDS = 2.0
_ROUNDS = 8
_BY_TYPE = "SELECT type, count(*) AS events FROM events GROUP BY 1 ORDER BY 2 DESC"
_WORST = (
    "SELECT data->>'error' AS error, count(*) AS failed, max(time) AS last FROM events"
    " WHERE type = 'FAIL' GROUP BY 1 ORDER BY 2 DESC"
)
_SOMEBODY = """SELECT subject FROM events WHERE subject IS NOT NULL
    GROUP BY 1 HAVING count(*) <= 8 ORDER BY count(*) DESC, 1 LIMIT 1"""
"""A subject whose events fit a screen."""


@verb()
def demo(
    app: App,
    path: str | None = option(
        "--sample FILE", "Use these JSON lines; by default, the demo generates 60,000 events."
    ),
    # LAKELOG_LAKE names the user's own lake, and the demo must never write into it.
    place: str | None = option(
        "--lake DIR", "Create the lake here, and keep it.", allow_from_autoenv=False
    ),
    keep: bool = flag("--keep", "Keep the lake, as ./demo-lake."),
    is_served: bool = flag("--serve", "Then show it in a browser, until Ctrl-C."),
) -> None:
    """Take a tour: collect, ask, search, go back, train, erase. It takes 20 seconds.

    It uses a lake of its own, which is removed at the end unless --keep is given.
    """
    lake_path = place or ("demo-lake" if keep else None)
    if lake_path is not None and os.path.exists(lake_path):
        raise click.UsageError(f"{lake_path} already exists: choose another directory with --lake")
    if is_served:
        require_packages()
    lines = _lines(path)
    # Each writer needs a line, and some must be left for the file that is ingested.
    if len(lines) < WRITERS * LATER:
        raise click.UsageError(f"{path} has {many(len(lines), 'line')}: the demo needs more")
    with tempfile.TemporaryDirectory(prefix="lakelog-demo-") as scratch:
        demo_path = lake_path or f"{scratch}/lake"
        Tour(app, demo_path, scratch, lines).run()
        if is_served:
            _serve(app, demo_path)
    if lake_path is not None:
        _print(f"The lake is kept: lakelog --lake {lake_path} stats")
    elif not is_served:
        _print(
            "Next: `lakelog demo --serve` shows it in a browser, `lakelog -h` lists all commands."
        )


def _serve(app: App, path: str) -> None:
    """Serve the lake on a free port, until Ctrl-C."""

    def started(url: str) -> None:
        app.say(f"open {url} in a browser; Ctrl-C ends it")

    with stop_at_signals(), lakes.open(path) as lake:
        serve(lake, ServerPlan(port=0), started)


class Tour:
    """The steps, in order. `scratch` is a directory that is deleted afterwards."""

    def __init__(self, app: App, path: str, scratch: str, lines: list[bytes]) -> None:
        self._app, self._path, self._scratch = app, path, scratch
        self._lines, self._step = lines, 0
        self._start = time.monotonic()

    def run(self) -> None:
        """Run all steps."""
        split_at = len(self._lines) - len(self._lines) // LATER
        self._title(f"{WRITERS} processes append {split_at:,} events, while another one queries")
        self._collect(self._lines[:split_at])
        self._title("Query with SQL; the newest events are included")
        self._show("sql", _BY_TYPE)
        self._show("sql", _WORST)
        self._title("Search for words, and list what was unusual on the last day")
        self._show("search", "503 level>=ERROR", "-n", "3", format="lines")
        self._show("anomalies")
        self._title("Name this state, then load a file: each row once, bad lines apart")
        self._show("tag", "before", "-m", "all is well")
        self._ingest(self._lines[split_at:])
        self._show("quarantine", "list")
        self._show("diff", "before")
        self._title("Go back, and undo it")
        self._show("rollback", "before", "--verify")
        self._show("undo")
        self._title("Prove it: each line is stored once, and one flipped bit is noticed")
        self._show("audit", "later.jsonl.gz")
        self._damage()
        # Behind the proof, which finds each line of the file: an erased one would be missing.
        self._title("Make a training set, then erase a subject from everything")
        self._train_and_erase()
        self._title("Look at the result")
        self._show("log", "-n", "5")
        self._show("stats")
        _print(f"\n{time.monotonic() - self._start:.0f} seconds.")

    def _collect(self, lines: list[bytes]) -> None:
        """Feed the writers slice by slice, and count from this process in between."""
        self._command("append < slice-N.jsonl, by each of them")
        shares = [lines[i::WRITERS] for i in range(WRITERS)]
        sizes = [-(-len(share) // _ROUNDS) for share in shares]
        # Opened before the writers start, so that they do not create the lake all at once.
        with lakes.open(self._path) as lake, contextlib.ExitStack() as stack:
            pipe, command = subprocess.PIPE, self._program("append")
            writers: list[Any] = [
                stack.enter_context(
                    subprocess.Popen(command, stdin=pipe, stderr=pipe, env=_environment())
                )
                for _ in shares
            ]
            with ProgressLine("collecting", "events", self._app.quiet) as progress:
                for turn in range(_ROUNDS):
                    for writer, share, size in zip(writers, shares, sizes, strict=True):
                        # One that has failed says why at its end.
                        with contextlib.suppress(BrokenPipeError):
                            writer.stdin.write(b"".join(share[turn * size : (turn + 1) * size]))
                            writer.stdin.flush()
                    # Spread over some seconds, or the counts in between would show no growth.
                    time.sleep(_SECONDS / _ROUNDS)
                    progress(lake.count(), len(lines))
                    if turn % 4 == 1:
                        progress.wipe()
                        self._count(lake)
            for writer in writers:
                _end(writer)
            self._count(lake)
            # What became of lines that are no new events.
            [(bad,)] = lake.sql("SELECT count(*) FROM quarantine").fetchall()
            if bad:
                _print(f"    {many(bad, 'line')} in quarantine: SELECT * FROM quarantine")
            if duplicates := len(lines) - bad - lake.count():
                _print(f"    {many(duplicates, 'line')} with an id that is stored already")

    def _count(self, lake: lakes.Lake) -> None:
        query = "SELECT count(*) FROM events"
        begin = time.perf_counter()
        [(count,)] = lake.sql(query).fetchall()
        ms = (time.perf_counter() - begin) * 1000
        _print(f"    {query}  {count:>10,}  in {ms:.0f} ms")

    def _ingest(self, lines: list[bytes]) -> None:
        """Ingest a compressed file with one bad line, and the same file again."""
        path = Path(self._scratch, "later.jsonl.gz")
        half = len(lines) // 2
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.writelines([*lines[:half], b'{"type":"FAIL","time":"yesterday"}\n', *lines[half:]])
        # Twice, for the second run shows that nothing is ingested again.
        for _ in range(2):
            self._show("ingest", path.name, fine=(0, 1), format=None)

    def _train_and_erase(self) -> None:
        """Export all events, and take one subject out of the lake and of that export."""
        self._show("train", "init", "events", "-o", "events.toml", format=None)
        self._show("train", "export", "events.toml", "-o", "set", format=None)
        with lakes.open(self._path) as lake:
            subjects = lake.sql(_SOMEBODY).fetchall()
        for (subject,) in subjects:
            self._show("search", f"subject:{json.dumps(subject)}", format="lines")
            self._show("erase", "--subject", subject, "--why", "asked on 3 May", "--yes")
            self._show("train", "rebuild", "--erased", "set")
            self._show("erase", "status")

    def _damage(self) -> None:
        """Flip a bit in the largest segment of a copy, and let verify find it."""
        copy = f"{self._scratch}/copy"
        shutil.copytree(self._path, copy)
        segments = sorted(
            Path(Paths(copy).root, "segments").rglob("*.parquet"), key=lambda p: p.stat().st_size
        )
        data = bytearray(segments[-1].read_bytes())
        # In the middle: there are rows, neither a header nor the footer.
        data[len(data) // 2] ^= 1
        segments[-1].write_bytes(data)
        _print(f"    bit 0 of byte {len(data) // 2:,} of {segments[-1].name[:12]}… is flipped")
        self._show("verify", lake=copy, display="copy", fine=(3,))

    def _show(
        self,
        *arguments: str,
        lake: str | None = None,
        display: str = "",
        fine: tuple[int, ...] = (0,),
        format: str | None = "table",
    ) -> None:
        """Show a command, run it, and show its output, in a format if it has any."""
        self._command(" ".join(map(_quoted, arguments)), display)
        formatted = ("--format", format) if format else ()
        completed = subprocess.run(
            self._program(*arguments, *formatted, lake=os.path.abspath(lake or self._path)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # In one stream, as a terminal would show them, in the order in which they were written.
            stderr=subprocess.STDOUT,
            env=_environment(),
            text=True,
            errors="replace",
            # Short names of files read better in the output.
            cwd=self._scratch,
        )
        for line in completed.stdout.splitlines():
            _print(f"    {line}".rstrip())
        if completed.returncode not in fine:
            raise click.ClickException(
                f"`lakelog {arguments[0]}` exited with {completed.returncode}"
            )

    def _program(self, *arguments: str, lake: str | None = None) -> list[str]:
        return [sys.executable, "-m", "lakelog", "--lake", lake or self._path, *arguments]

    def _title(self, title: str) -> None:
        self._step += 1
        _print("\n" + paint(f"{self._step}. {title}", sys.stdout, bold=True))

    def _command(self, command: str, lake: str = "") -> None:
        line = f"  $ lakelog {f'--lake {lake} ' if lake else ''}{command}"
        for line_part in textwrap.wrap(line, width() - 2, subsequent_indent=" " * 6):
            _print(
                paint(
                    line_part if line_part[:1] == " " else f"  {line_part}", sys.stdout, fg="cyan"
                )
            )


def _quoted(word: str) -> str:
    """Quote a word for a shell, in double quotes where these do, since SQL has single ones."""
    return f'"{word}"' if " " in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _end(writer: Any) -> None:
    """Close a writer's input and wait for it; bad lines are no failure here."""
    message = writer.communicate()[1].decode(errors="replace").strip()
    # Exit code 1 says that lines were quarantined, which is part of the tour.
    # `stored` on stderr is what append says last: a writer that died before has not said it.
    if writer.returncode not in (0, 1) or "stored" not in message:
        raise click.ClickException(f"a writer failed: {message or writer.returncode}")


def _lines(path: str | None) -> list[bytes]:
    """Return the sample's lines; a large file only as far as a tour needs."""
    if path is None:
        # Until now, or a dashboard, which begins with the last hours, would show a lake at rest.
        now = from_micros(disk.now_us()).replace(second=0, microsecond=0)
        return [line.encode() for line in sample.lines(EVENTS, 7, now)]
    with open(path, "rb") as file:
        sample_lines = [line for line in islice(file, 10 * EVENTS) if line.strip()]
    return [line if line.endswith(b"\n") else line + b"\n" for line in sample_lines]


def _environment() -> dict[str, str]:
    """Return the environment of a step: this package, none of the user's defaults, a narrower
    terminal."""
    environment = interpreter.environment()
    variables = {k: v for k, v in environment.items() if not k.startswith("LAKELOG_")}
    # The output is shown indented by four.
    variables["COLUMNS"] = str(width() - 4)
    if has_colour(sys.stdout):
        variables["FORCE_COLOR"] = "1"
    return variables


def _print(message: str) -> None:
    click.echo(message, color=has_colour(sys.stdout))
