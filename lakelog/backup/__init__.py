"""Backups of watched files: made, listed, pruned by count and age, verified and restored.

A `BackupScheduler` copies what a `BackupPlan` says. `BackupDirectory` lists and verifies the
copies, `restore` brings a file back, and `covering` says which originals may be deleted.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.backup.copy import Backup as Backup
    from lakelog.backup.copy import fault_of as fault_of
    from lakelog.backup.copy import restore as restore
    from lakelog.backup.delete import covering as covering
    from lakelog.backup.directory import BackupDirectory as BackupDirectory
    from lakelog.backup.directory import DirectoryListing as DirectoryListing
    from lakelog.backup.directory import copies_of as copies_of
    from lakelog.backup.scheduler import INTERVAL as INTERVAL
    from lakelog.backup.scheduler import KEEP as KEEP
    from lakelog.backup.scheduler import BackupPlan as BackupPlan
    from lakelog.backup.scheduler import BackupScheduler as BackupScheduler
    from lakelog.backup.scheduler import backup_directories as backup_directories

__getattr__, __all__ = lazy_face(__name__)
