"""seal: the process that writers, queries and watchers start to seal and compact at low priority
(store/sealer_process.py)."""

from __future__ import annotations

import contextlib
import os

from lakelog.cli.app import App, verb
from lakelog.disk import Folder
from lakelog.errors import LakelogError
from lakelog.maintain import BackgroundWork
from lakelog.store import SealerProcess

# The lowest priority there is: nobody waits for this process.
_NICE = 19


@verb(hidden=True)
def seal(app: App) -> None:
    """Publish pending events, then merge, compact and collect what is due.

    Does nothing while another process is doing so. A failure is harmless, because any
    process may seal.
    """
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(LakelogError, OSError), app.open() as lake:
        # The share that is left on a busy machine is too little where helpers have fallen behind.
        # give_way leaves the processors to whoever else wants them, as nice 19 alone does not.
        if len(Folder(lake.store.paths.wal_dir(lake.branch_name)).names()) < SealerProcess.FILES:
            SealerProcess.give_way()
        BackgroundWork(lake).run()
