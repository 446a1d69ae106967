"""What logrotate is told to do: its modes, and a configuration for each."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.requirements import need

_OLD = 3 * 86_400
_REOPENS = """
  postrotate
    for pid in {pids}; do kill -{signal} $pid; done
{waits}
  endscript
"""
_WAIT = """    tries=0
    until readlink /proc/{pid}/fd/* | grep -qxF {log}; do
      tries=$((tries + 1)); [ $tries -lt 250 ] || break; sleep 0.02
    done"""


@dataclass(frozen=True)
class Mode:
    """One way to rotate: the words of its configuration, and what they mean for a writer."""

    name: str
    words: str = ""
    keeps_file: bool = False
    """Whether the writer goes on with the same file: nobody tells it to open its path again."""
    deletes: bool = False
    own: bool = False
    """Whether the writer rotates by itself and logrotate is not run."""

    @property
    def truncates(self) -> bool:
        """Whether lines written between copy and truncate are lost to everybody."""
        return "copytruncate" in self.words

    @property
    def packs_at_once(self) -> bool:
        """Whether a file is packed in the same run that rotates it."""
        return "compress" in self.words.split() and "delaycompress" not in self.words


ZSTD = "compress\n compresscmd /usr/bin/zstd\n compressext .zst\n compressoptions -3 -q"
XZ = "compress\n compresscmd /usr/bin/xz\n compressext .xz\n compressoptions -1"
DATED = "dateext\n dateformat -%Y%m%d-%s"
MODES = (
    Mode("create", "create"),
    Mode("copytruncate", "copytruncate", keeps_file=True),
    Mode("compress", "create\n compress"),
    Mode("copy", "copy", keeps_file=True),
    Mode("nocreate", "nocreate"),
    Mode("own", own=True),
    Mode("copytruncate compress", "copytruncate\n compress", keeps_file=True),
    Mode("delaycompress", "create\n compress\n delaycompress"),
    Mode("rotate 2", "create\n rotate 2", deletes=True),
    Mode("dateext", f"create\n {DATED}"),
    Mode("zstd", f"create\n {ZSTD}"),
    Mode("olddir", "create\n olddir {old}"),
    Mode("rotate 0", "create\n rotate 0", deletes=True),
    Mode("copytruncate dateext", f"copytruncate\n {DATED}", keeps_file=True),
    Mode("renamecopy", "renamecopy"),
    Mode("sharedscripts", "create\n sharedscripts"),
    Mode("copy compress", "copy\n compress", keeps_file=True),
    Mode("maxage", "create\n maxage 1", deletes=True),
    Mode("copytruncate zstd delaycompress", f"copytruncate\n {ZSTD}\n delaycompress", True),
    Mode("xz dateext olddir", f"create\n {XZ}\n {DATED}\n olddir {{old}}"),
)


class Rotator:
    """Runs logrotate on some logs; `pids` are the processes that write them."""

    def __init__(self, mode: Mode, place: Path, logs: list[Path], old: Path) -> None:
        self.mode, self._place, self._logs, self._old = mode, place, logs, old
        self._config = place / "logrotate.conf"

    def configure(self, pids: list[int], signal: str, *, wait: bool) -> None:
        """Write the configuration; `wait` until the writer has opened the path again."""
        names = " ".join(map(str, self._logs))
        script = ""
        if not self.mode.keeps_file:
            pairs = zip(pids, self._logs, strict=True)
            waits = "\n".join(_WAIT.format(pid=pid, log=log) for pid, log in pairs)
            numbers = " ".join(map(str, pids))
            script = _REOPENS.format(pids=numbers, signal=signal, waits=waits * wait)
        words = self.mode.words.format(old=self._old)
        count = "" if "rotate " in self.mode.words else "rotate 200"
        self._config.write_text(f"{names} {{\n {words}\n {count}\n missingok\n{script}}}\n")
        self._config.chmod(0o644)

    def start(self) -> subprocess.Popen[bytes]:
        """Rotate now."""
        if "maxage" in self.mode.words:
            self._age()
        words = [need("logrotate"), "-f", "-s", str(self._place / "logrotate.state")]
        with open(self._place / "logrotate.out", "ab") as out:
            return subprocess.Popen([*words, str(self._config)], stdout=out, stderr=out)

    @property
    def said(self) -> str:
        """What logrotate complained about."""
        path = self._place / "logrotate.out"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def configuration(self) -> str:
        """What it was told."""
        return self._config.read_text() if self._config.exists() else "none"

    def _age(self) -> None:
        for log in self._logs:
            for path in log.parent.glob(f"{log.name}.*"):
                os.utime(path, (time.time() - _OLD,) * 2)
