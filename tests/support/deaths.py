"""Processes that die before a change that they would make, whatever code makes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any


def dies(run: Callable[[], object], at: int, root: str) -> bool:
    """Run in a child that dies before its `at`-th change below `root`; whether it did."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event in CHANGES and (event != "open" or int(arguments[2] or 0) & 3):
                count += 1
                if count == at:
                    os._exit(9)

        try:
            sys.addaudithook(hook)
            run()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


CHANGES = set(
    """open os.rename os.mkdir os.remove os.rmdir os.link os.symlink os.chmod os.chown os.utime
    os.setxattr os.truncate subprocess.Popen ctypes.dlopen ctypes.dlsym shutil.rmtree""".split()
)
