"""A lake that several machines share in a bucket: `attach` makes a directory part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.remotes.shared.attached import attach, open_attachment, renew_config

__all__ = ["attach", "open_attachment", "renew_config"]

__getattr__ = lazy_face(__name__, attached="attach open_attachment renew_config")
