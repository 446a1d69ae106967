"""Units of systemd that run a verb as it was typed."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from lakelog.cli.app import App


def unit(template: str, app: App, arguments: Sequence[str], subject: str, **sections: str) -> str:
    """Return a unit that runs `lakelog` with these arguments on the lake and branch of `app`."""
    program = [sys.executable, "-m", "lakelog", "--lake", os.path.abspath(app.path)]
    program += ["--branch", app.branch] if app.branch != "main" else []
    # % begins a specifier in a systemd unit, and $ a variable.
    command = shlex.join([*program, *arguments]).replace("%", "%%").replace("$", "$$")
    return template.format(where=subject.replace("%", "%%"), command=command, **sections)
