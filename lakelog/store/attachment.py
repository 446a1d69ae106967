"""What opens a lake that several machines share in a bucket.

lakelog.json then names the bucket, and `requires` keeps away versions that know of none (F22.1).
The package that talks to buckets stands above this one, and is loaded for such a lake alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from lakelog.values import JsonObject

if TYPE_CHECKING:
    from lakelog.paths import Paths


class AttachmentOpener(Protocol):
    """A module that gives the attachment of a directory."""

    def open_attachment(self, paths: Paths, lake_id: str, body: JsonObject) -> Any:
        """Return it from the member of lakelog.json; no request is made. Raises DamagedLake."""

    def renew_config(self, paths: Paths, lake_id: str, body: JsonObject) -> None:
        """Bring keys here that other machines have wrapped anew. Raises InvalidKey, Unreachable."""


class AttachmentRegistry:
    """How lakelog.json says that a lake is attached, and what opens it then."""

    MEMBER = "bucket"
    """The member that names the bucket, and what such a lake requires of a reader."""
    OPENERS: ClassVar[list[AttachmentOpener]] = []
    """The module that opens attachments."""
