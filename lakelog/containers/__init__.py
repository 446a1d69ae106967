"""Containers with their state: saved as one snapshot, sent to a registry, started again."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.containers.container_snapshots import (
        ContainerSnapshot,
        find_snapshot,
        list_snapshots,
        push_snapshot,
        restore_snapshot,
        snapshot_containers,
        tag_snapshot,
        verify_snapshot,
    )

__all__ = [
    "ContainerSnapshot",
    "find_snapshot",
    "list_snapshots",
    "push_snapshot",
    "restore_snapshot",
    "snapshot_containers",
    "tag_snapshot",
    "verify_snapshot",
]

__getattr__ = lazy_face(__name__, container_snapshots=" ".join(__all__))
