"""Tags that follow the branches of remotes."""

from __future__ import annotations

from lakelog.disk import Folder, disk
from lakelog.store.bootstrap import Store
from lakelog.store.paths import decode_name


def remote_names(store: Store) -> list[str]:
    """Return the names of the remotes that the lake knows."""
    files = (n for n in Folder(store.paths.remotes).names() if n.endswith(".json"))
    return sorted(decode_name(n[:-5]) for n in files if not n.startswith(disk.TEMPORARY))


def is_tracking(store: Store, tag: str) -> bool:
    """Tell whether a tag follows the branch of a remote."""
    return tag.split("/")[0] in remote_names(store) if "/" in tag else False
