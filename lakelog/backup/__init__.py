"""Backups of watched files: made, listed, pruned by count and age, verified and restored.

A `BackupScheduler` copies what a `BackupPlan` says. `BackupDirectory` lists and verifies the
copies, `restore` brings a file back, and `covering` says which originals may be deleted.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.backup.copy import Backup, fault_of, restore
    from lakelog.backup.delete import covering
    from lakelog.backup.directory import BackupDirectory, DirectoryListing, copies_of
    from lakelog.backup.scheduler import (
        INTERVAL,
        KEEP,
        BackupPlan,
        BackupScheduler,
        backup_directories,
    )

__all__ = [
    "INTERVAL",
    "KEEP",
    "Backup",
    "BackupDirectory",
    "BackupPlan",
    "BackupScheduler",
    "DirectoryListing",
    "backup_directories",
    "copies_of",
    "covering",
    "fault_of",
    "restore",
]

__getattr__ = lazy_face(
    __name__,
    copy="Backup fault_of restore",
    delete="covering",
    directory="BackupDirectory DirectoryListing copies_of",
    scheduler="BackupPlan BackupScheduler INTERVAL KEEP backup_directories",
)
