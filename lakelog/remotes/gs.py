"""Google Cloud Storage as a remote: `gs://BUCKET/PREFIX`, by obstore (extra `s3`).

Credentials are those that obstore takes from the environment: GOOGLE_SERVICE_ACCOUNT or
GOOGLE_APPLICATION_CREDENTIALS, a file each, or the machine's identity. A name that must not be
taken is sent with a match of generation 0.
"""

from __future__ import annotations

import os
from typing import Any

import orjson

from lakelog.disk import File
from lakelog.errors import TransferRefused
from lakelog.remotes.object_store import ObjectStoreRemote, checked, store

__all__ = ["REMOTE_CLASS", "GoogleRemote", "checked"]


class GoogleRemote(ObjectStoreRemote):
    """The objects below a prefix of a bucket."""

    SERVICE = "Google"
    NAMES_VERSIONS = False

    def _connected(self, bucket: str, prefix: str | None) -> Any:
        endpoint = self._endpoint()
        self.deciding = "" if self._is_single else endpoint or "Google Cloud Storage"
        return store.GCSStore(bucket, prefix=prefix, **self._options(endpoint))

    def _endpoint(self) -> str:
        """The service that the file of a service account names, "" for Google itself."""
        path = os.environ.get("GOOGLE_SERVICE_ACCOUNT", "")
        try:
            body = orjson.loads(File(path).read()) if path else {}
        except (OSError, ValueError):
            raise TransferRefused(f"{self.url}: {path} is no file of a service account") from None
        return str(body.get("gcs_base_url", "")) if isinstance(body, dict) else ""

    names = ObjectStoreRemote.folders


REMOTE_CLASS = GoogleRemote
