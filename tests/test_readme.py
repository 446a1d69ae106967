"""The README's tour, run as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks() -> list[tuple[str, str]]:
    """Return (language, text) of the README's blocks that can be run, in order."""
    return BLOCK.findall(README.read_text("utf-8"))


def test_every_block_of_the_tour_runs(tmp_path: Path) -> None:
    """All blocks of the README run one after another in an empty directory."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "LAKELOG_LAKE": "lake"}
    assert len(blocks()) >= 7
    for language, text in blocks():
        command = ["sh", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
