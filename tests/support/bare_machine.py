"""The README's first commands on a machine that has Python and little else.

    python -m tests.support.bare_machine [--sample N] [--uv PROGRAM]

They run line by line as printed, in a clone of this project with nothing beside it, an empty HOME
and a PATH of PROGRAMS: no uv, no server, no compiler. Then they run again without a network. What
is served is looked at, and ended as by Ctrl-C.
`--sample N` runs one test of N, and a tenth of these again, as what is asked of the second run is
whether make wants to install something; `--uv` puts uv there, too.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.support import pages
from tests.support.requirements import find
from tests.support.tree import ROOT

PROGRAMS = (
    "sh make awk git"
    # coreutils, of which each distribution has all
    " [ arch basename cat chmod chown cksum comm cp csplit cut date dd df dir dirname du echo env"
    " expand expr factor false fmt fold groups head hostid id install join link ln logname ls"
    " md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc numfmt od paste pathchk pr printenv"
    " printf ptx pwd readlink realpath rm rmdir runcon seq sha1sum sha256sum sha512sum shred shuf"
    " sleep sort split stat stdbuf stty sum sync tac tail tee test timeout touch tr true truncate"
    " tsort tty uname unexpand uniq unlink users wc who whoami yes"
).split()
OFFLINE = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}


def fill(directory: Path, uv: str | None) -> None:
    """Make the only directory of PATH: links to programs, and to this interpreter as python3."""
    directory.mkdir()
    for program in PROGRAMS:
        place = find(program)
        if place:
            (directory / program).symlink_to(place)
    interpreter = Path(sys.executable).resolve()
    for name in ("python3", f"python3.{sys.version_info.minor}"):
        (directory / name).symlink_to(interpreter)
    if uv:
        (directory / "uv").symlink_to(Path(uv).resolve())


def commands() -> list[str]:
    """The lines of the README's first block."""
    first = next(text for language, text in pages.blocks(ROOT / "README.md") if language == "text")
    return [line.split("#")[0].strip() for line in first.splitlines() if line.strip()]


def run(command: str, project: Path, environment: dict[str, str]) -> float:
    """Run one line of the README; return its seconds. Raises CalledProcessError."""
    started = time.monotonic()
    print(f"$ {command}", flush=True)
    process = subprocess.Popen(
        ["sh", "-c", f"exec {command}"],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for text in process.stderr:
        print(text, end="", flush=True)
        if served := re.match(r"open (http\S+) in a browser", text):
            with urllib.request.urlopen(served[1]) as page:
                assert "lakelog" in page.read().decode()
            process.send_signal(signal.SIGINT)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    seconds = time.monotonic() - started
    print(f"bare machine: {command} took {seconds:.0f} s", flush=True)
    return seconds


def main() -> None:
    """Parse the arguments and run the commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=1)
    parser.add_argument("--uv")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lakelog-bare-") as scratch:
        place = Path(scratch)
        fill(place / "bin", arguments.uv)
        (place / "home").mkdir()
        project = place / "lakelog"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
        environment = {
            "PATH": str(place / "bin"),
            "HOME": str(place / "home"),
            "LAKELOG_TEST_SAMPLE": str(arguments.sample),
            "LAKELOG_TEST_PATIENCE": os.environ.get("LAKELOG_TEST_PATIENCE", "4"),
        }
        try:
            for line in commands():
                run(line, project, environment)
            if arguments.sample > 1:
                environment["LAKELOG_TEST_SAMPLE"] = str(10 * arguments.sample)
            for line in commands():
                run(line, project, environment | OFFLINE)
        except subprocess.CalledProcessError as error:
            sys.exit(f"bare machine: {error.cmd} ended with {error.returncode}")


if __name__ == "__main__":
    main()
