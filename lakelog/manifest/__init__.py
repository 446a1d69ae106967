"""States as manifests with pages of entries.

`Manifests` reads and writes a `Manifest` and each `Page` of it. `fold` goes over entries as a later
one hides an earlier one, and `add_up` makes their `Totals`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.manifest.folding import fold
    from lakelog.manifest.manifest import (
        BOTTOM,
        FAN,
        LEVEL_MAX,
        Manifest,
        Page,
        Totals,
        add_up,
        empty,
        of_json,
    )
    from lakelog.manifest.manifests import Manifests

__all__ = [
    "BOTTOM",
    "FAN",
    "LEVEL_MAX",
    "Manifest",
    "Manifests",
    "Page",
    "Totals",
    "add_up",
    "empty",
    "fold",
    "of_json",
]

__getattr__ = lazy_face(
    __name__,
    folding="fold",
    manifest="BOTTOM FAN LEVEL_MAX Manifest Page Totals add_up empty of_json",
    manifests="Manifests",
)
