"""Tags that follow the branches of remotes."""

from __future__ import annotations

from lakelog.disk import Folder
from lakelog.paths import FileNames
from lakelog.store.bootstrap import Store


def remote_names(store: Store) -> list[str]:
    """Return the names of the remotes that the lake knows."""
    return sorted(FileNames(Folder(store.paths.remotes).names()).tags)


def is_tracking(store: Store, tag: str) -> bool:
    """Tell whether a tag follows the branch of a remote."""
    return tag.split("/")[0] in remote_names(store) if "/" in tag else False
