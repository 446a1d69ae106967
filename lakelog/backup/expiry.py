"""Which backups may go, by number and by age: a pure decision."""

from __future__ import annotations

from collections.abc import Collection

from lakelog.backup.copy import Backup


def expired(
    backups: list[Backup],
    *,
    keep: int | None,
    age_us: int | None,
    now: int,
    present: Collection[str],
) -> list[Backup]:
    """Return the backups that are let go, oldest first.

    Of each file the newest `keep` stay, by the order in which they were made, whatever the clock
    said. Those older than `age_us` go, but the newest one of a file that is `present` (by its
    path) stays however old it is.
    """
    gone = set[Backup]()
    files: dict[str, list[Backup]] = {}
    for one in sorted(backups, key=lambda b: b.number):
        files.setdefault(one.raw, []).append(one)
    for made in files.values():
        if keep is not None:
            gone.update(made[: -max(keep, 1)])
        if age_us is not None:
            last = made[-1] if made[-1].origin in present else None
            gone.update(b for b in made if now - b.made > age_us and b is not last)
    return sorted(gone, key=lambda b: b.number)
