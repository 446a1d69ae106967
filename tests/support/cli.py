"""What several tests use: the command line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from lakelog.cli import cli


def run(lake: Path | str, *words: str, code: int = 0, **rest: Any) -> Result:
    """Run a command line on a lake; its exit code must be `code`."""
    environment = {"LAKELOG_AUTHOR": "tester", "COLUMNS": "80", **rest.pop("env", {})}
    result = CliRunner().invoke(cli, ["--lake", str(lake), *words], env=environment, **rest)
    assert result.exit_code == code, result.output
    return result


def run_in(directory: Path, *words: str, code: int = 0) -> Result:
    """Run a command line in a directory; its exit code must be `code`."""
    with contextlib.chdir(directory):
        result = CliRunner().invoke(cli, words)
    assert result.exit_code == code, result.output
    return result


def answer(lake: Path | str, *words: str, code: int = 0, **rest: Any) -> Any:
    """Run a command line and return what it says in JSON."""
    return json.loads(run(lake, *words, "--json", code=code, **rest).stdout)


def lines(count: int, name: str = "PING", **more: Any) -> str:
    """Return events as JSON lines."""
    events = ({"type": name, "source": "t", "data": {"n": n}, **more} for n in range(count))
    return "".join(json.dumps(e) + "\n" for e in events)


def offers(line: str, shell: str = "fish", **environment: str) -> list[str]:
    """Return the values that a shell is offered for a line, as its script gets them."""
    environment |= {"COMP_LINE": line, "_LAKELOG_COMPLETE": f"{shell}_complete"}
    shown = CliRunner().invoke(cli, [], env=environment).stdout
    return [offer.split("\t")[1] for offer in shown.splitlines() if offer]


def flip(path: Path) -> None:
    """Flip two bits of a file, which repair cannot guess."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def segments(lake: Path) -> list[Path]:
    """Return the segment files of a lake."""
    return sorted(lake.glob("segments/*/*.parquet"))
