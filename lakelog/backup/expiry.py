"""Which backups to delete, by count and by age: a pure decision."""

from __future__ import annotations

from collections.abc import Collection

from lakelog.backup.copy import Backup


def select_expired(
    backups: list[Backup],
    *,
    keep: int | None,
    age_us: int | None,
    now_us: int,
    present: Collection[str],
) -> list[Backup]:
    """Return the backups to delete, oldest first.

    Of each file the newest `keep` stay, by the order in which they were made, whatever the clock
    said. Those older than `age_us` are deleted, except the newest one of a file that is `present`
    (by its path).
    """
    deletable = set[Backup]()
    files: dict[str, list[Backup]] = {}
    # By number and not by time: the clock may have been set back between two backups.
    for backup in sorted(backups, key=lambda b: b.number):
        files.setdefault(backup.raw, []).append(backup)
    for backups_of_file in files.values():
        if keep is not None:
            # At least one stays: a slice that ends at -0 is empty, so `keep` 0 would delete
            # nothing.
            deletable.update(backups_of_file[: -max(keep, 1)])
        if age_us is not None:
            # A file that has not changed for longer than the age gets no new backup: without its
            # last one it would have none.
            newest = backups_of_file[-1] if backups_of_file[-1].origin in present else None
            deletable.update(
                b for b in backups_of_file if now_us - b.made > age_us and b is not newest
            )
    return sorted(deletable, key=lambda b: b.number)
