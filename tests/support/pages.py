"""Pages of documentation, run as a reader would run them.

A page runs from top to bottom in one empty directory. Blocks of `sh` and `python` have to succeed.
A block of `console` shows commands (`$ `, continued by `> `) and what each prints on a terminal
of 80 columns; `...` stands for any text, as a line of its own for any lines. What differs from run
to run (times, ids, sizes, rates) is compared by its form only.

    python -m tests.support.pages PAGE...      write what the commands of the pages print into them
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

from tests.support.requirements import PROGRAMS

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RUN = ("sh", "python", "console")
HOME = "/home/ada"
"""What pages show instead of the directory in which they are run."""
_COMMAND = re.compile(r"^\$ (.*\n(?:> .*\n)*)", re.MULTILINE)
_PROGRAM = re.compile(r"(?:^|[|;&(])\s*([a-z][\w.-]*)", re.MULTILINE)
"""The word of a shell command that names its program."""
_SECONDS = 120
# Each pattern is something that differs from run to run, and what stands for it in a comparison.
_VOLATILE = [
    (re.compile(r"\b(?:[0-9a-f]{2}/)?[0-9a-f]{12,64}(?::\d+)?\b"), "ID"),
    (re.compile(r"\d{8}[-_]\d{6}(?:-\d+)?"), "STAMP"),
    (re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d:\d\d(?:\.\d+)?Z?)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:\.\d+)?Z?"), "TIME"),
    (re.compile(r"[+-]?[\d,.]+ ?(?:bytes|kB|MB|GB|ms|s|/s|k/s|rows/s)(?!\w)"), "SIZE"),
    (re.compile(r"─+"), "─"),
    (re.compile(r" +"), " "),
]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return (language, text) of the page's blocks, in order."""
    return BLOCK.findall(page.read_text("utf-8"))


def programs(page: Path) -> list[str]:
    """Return the programs that a page runs and a bare machine may lack."""
    shell = "\n".join(
        "\n".join(command for command, _ in commands(text)) if language == "console" else text
        for language, text in blocks(page)
        if language in ("sh", "console")
    )
    return sorted(set(_PROGRAM.findall(shell)) & set(PROGRAMS))


def environment(directory: Path) -> dict[str, str]:
    """Return what the commands of a page find: this lakelog, a lake at ./lake, a home of theirs."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    terminal = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1", "HOME": str(directory)}
    return {**os.environ, **terminal, "PATH": path, "LAKELOG_LAKE": "lake"}


def run(page: Path, directory: Path) -> Iterator[str]:
    """Run a page's blocks in the directory; yield what is wrong with each."""
    for language, text in blocks(page):
        if language == "console":
            for command, expected in commands(text):
                printed = shown(command, directory)
                if not agree(expected, printed):
                    yield f"$ {command}\nthe page shows\n{expected}\nit prints\n{printed}"
        elif language in RUN:
            command = ["sh", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
            done = subprocess.run(
                command,
                cwd=directory,
                env=environment(directory),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
            if done.returncode:
                yield f"{text}\n{done.stdout}\n{done.stderr}"


def commands(text: str) -> list[tuple[str, str]]:
    """Return (command, output) of each command of a console block."""
    _, *parts = _COMMAND.split(text)
    given = (part.replace("\n> ", "\n").removesuffix("\n") for part in parts[::2])
    return list(zip(given, parts[1::2], strict=True))


def shown(command: str, directory: Path) -> str:
    """Run a command on a terminal of 80 columns; return what stands there."""
    reader, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        ["sh", "-uc", command],
        cwd=directory,
        env=environment(directory),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    printed = b""
    try:
        while part := os.read(reader, 65_536):
            printed += part
    except OSError:  # Linux reports that the other side was closed as an error
        pass
    finally:
        os.close(reader)
        process.wait(_SECONDS)
    text = printed.decode().replace("\r\n", "\n").replace(str(directory), HOME)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def agree(expected: str, printed: str) -> bool:
    """Whether a command printed what a page shows, but for what differs from run to run."""
    wanted, seen = (stable(text) for text in (expected, printed))
    lines = (re.escape(line).replace(re.escape("..."), r"[^\n]*") for line in wanted)
    pattern = "".join(r"(?:.*\n)*" if line == r"[^\n]*" else f"{line}\n" for line in lines)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in seen)) is not None


def stable(text: str) -> list[str]:
    """Return the lines of a text that are not blank, the form of what differs in its place."""
    for pattern, form in _VOLATILE:
        text = pattern.sub(form, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def written(page: Path, directory: Path) -> str:
    """Return the page with what its commands print now, where that differs."""

    def block(match: re.Match[str]) -> str:
        language, text = match.groups()
        if language == "console":
            text = "".join(_COMMAND.split(text)[:1])
            for command, expected in commands(match[2]):
                printed = shown(command, directory)
                lines = command.replace("\n", "\n> ")
                text += f"$ {lines}\n{expected if agree(expected, printed) else printed}"
        elif language in RUN:
            program = ["sh", "-euc"] if language == "sh" else [sys.executable, "-c"]
            subprocess.run([*program, text], cwd=directory, env=environment(directory), check=True)
        return f"```{language}\n{text}```"

    return BLOCK.sub(block, page.read_text("utf-8"))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
            Path(name).write_text(written(Path(name), Path(place)), "utf-8")
