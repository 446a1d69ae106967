"""A lake that several machines share in a bucket: `attach` makes a directory part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.remotes.shared.attached import attach as attach
    from lakelog.remotes.shared.attached import open_attachment as open_attachment
    from lakelog.remotes.shared.attached import renew_config as renew_config

__getattr__, __all__ = lazy_face(__name__)
