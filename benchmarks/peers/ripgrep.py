"""ripgrep over the file of lines: nothing is built, every question reads all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter

from benchmarks.peers import files

PROGRAM = os.path.join(os.path.dirname(sys.executable), "rg")


class Peer:
    """A file."""

    def __init__(self, root: str) -> None:
        self.root = root

    def load_texts(self, path: str) -> None:
        """Copy the file."""
        shutil.copyfile(path, f"{self.root}/events.jsonl")

    def find(self, question: str, asked: str) -> int:
        """The answer to one question. The newest are at the end: the file is read backwards by
        nobody, so all are found."""
        word = asked if question == "inside" else rf"(?-u:\b){asked}(?-u:\b|_)"
        more = ["-c"] if question in ("count", "inside") else []
        command = [PROGRAM, "-i", "--no-unicode", "-I", *more, word, f"{self.root}/events.jsonl"]
        lines = subprocess.run(command, stdout=subprocess.PIPE).stdout.splitlines()
        if more:
            return int(lines[0]) if lines else 0
        if question == "hours":
            return Counter(line[14:27] for line in lines).total()
        return len(lines[-100:])

    def text_bytes(self) -> tuple[int, int]:
        """Bytes of the file; there is no index."""
        return files.size(self.root), 0
