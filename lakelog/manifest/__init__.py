"""States as manifests with pages of entries.

`Manifests` reads and writes a `Manifest` and each `Page` of it. `fold` goes over entries as a later
one hides an earlier one, and `add_up` makes their `Totals`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.manifest.manifest import BOTTOM as BOTTOM
    from lakelog.manifest.manifest import FAN as FAN
    from lakelog.manifest.manifest import LEVEL_MAX as LEVEL_MAX
    from lakelog.manifest.manifest import Manifest as Manifest
    from lakelog.manifest.manifest import Page as Page
    from lakelog.manifest.manifest import Totals as Totals
    from lakelog.manifest.manifest import add_up as add_up
    from lakelog.manifest.manifest import empty as empty
    from lakelog.manifest.manifest import fold as fold
    from lakelog.manifest.manifest import of_json as of_json
    from lakelog.manifest.manifests import Manifests as Manifests

__getattr__, __all__ = lazy_face(__name__)
