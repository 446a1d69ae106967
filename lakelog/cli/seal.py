"""seal: what a writer starts beside itself (store/spawn.py); quiet, in nobody's way."""

from __future__ import annotations

import contextlib
import os

from lakelog.cli.app import App, verb
from lakelog.errors import LakelogError
from lakelog.store import disk

_NICE = 10


@verb(hidden=True)
def seal(app: App) -> None:
    """Publish what is pending and remove WAL files that are done with.

    Does nothing while another process does so. Failing is no matter: any process may seal.
    """
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(LakelogError, OSError), app.open() as lake:
        name = os.path.basename(lake.store.layout.head_dir(app.branch))
        with disk.claim(f"{lake.store.layout.cache}/seal-{name}.lock") as alone:
            if alone:
                lake.settle()
