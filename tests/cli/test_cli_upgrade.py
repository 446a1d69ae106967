"""What a person sees who interrupts a start, or replaces lakelog under a process that lives."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.processes import environment
from tests.support.tree import ROOT


def test_an_interrupted_start_prints_no_traceback(tmp_path: Path) -> None:
    """Ctrl-C while modules are imported ends the process by the signal, without a word."""
    # The first package of others that the command line imports: there the signal comes in time.
    (tmp_path / "click.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import lakelog.__main__"
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, env=environment(), capture_output=True, timeout=240)
    assert (run.returncode, run.stdout, run.stderr) == (-signal.SIGINT, b"", b"")


def test_an_interrupt_after_the_start_is_reported() -> None:
    """Once the command line is there, Ctrl-C raises KeyboardInterrupt as in any program."""
    script = (
        "import signal, lakelog.__main__\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True, timeout=240)


def test_an_upgrade_under_a_process_is_named(tmp_path: Path) -> None:
    """A module of another version, loaded late, fails in one line that says to start again."""
    package = tmp_path / "lakelog"
    shutil.copytree(ROOT / "lakelog", package, ignore=shutil.ignore_patterns("__pycache__"))
    # The command line is loaded; then another version, which lacks a name, takes its place.
    script = (
        "import os, sys\n"
        "from lakelog.cli import main\n"
        f"folder = {str(package)!r}\n"
        "for path in ('cli/exits.py', 'query/session.py'):\n"
        "    with open(f'{folder}/new', 'w') as file:\n"
        "        file.write('from lakelog.errors import OfAnotherVersion')\n"
        "    os.replace(f'{folder}/new', f'{folder}/{path}')\n"
        "main()\n"
    )
    lake = str(tmp_path / "lake")
    env = {**environment(), "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    for verb in (
        ["-m", "lakelog", "--lake", lake, "init"],
        ["-m", "lakelog", "--lake", lake, "append", "type=a"],
    ):
        subprocess.run([sys.executable, *verb], env=env, cwd=tmp_path, check=True, timeout=240)
    command = [sys.executable, "-c", script, "--lake", lake, "sql", "SELECT * FROM events"]
    run = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 1
    assert run.stderr.startswith("lakelog: error: lakelog was replaced while this ran: start")
    assert "OfAnotherVersion" in run.stderr
    assert run.stderr.count(os.linesep) == 1
