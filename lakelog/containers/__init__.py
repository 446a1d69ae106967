"""Containers with their state: saved as one snapshot, sent to a registry, started again."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.containers.container_snapshots import ContainerSnapshot as ContainerSnapshot
    from lakelog.containers.container_snapshots import find_snapshot as find_snapshot
    from lakelog.containers.container_snapshots import list_snapshots as list_snapshots
    from lakelog.containers.container_snapshots import push_snapshot as push_snapshot
    from lakelog.containers.container_snapshots import restore_snapshot as restore_snapshot
    from lakelog.containers.container_snapshots import snapshot_containers as snapshot_containers
    from lakelog.containers.container_snapshots import tag_snapshot as tag_snapshot
    from lakelog.containers.container_snapshots import verify_snapshot as verify_snapshot

__getattr__, __all__ = lazy_face(__name__)
