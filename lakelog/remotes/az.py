"""Azure Blob Storage as a remote: `az://CONTAINER/PREFIX`, by obstore (extra `s3`).

Credentials are those that obstore takes from the environment: AZURE_STORAGE_ACCOUNT_NAME with
AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, a service principal, or the machine's identity.
AZURE_STORAGE_ENDPOINT names another service. A name that must not be taken is sent with
If-None-Match.
"""

from __future__ import annotations

import os
from typing import Any

from lakelog.errors import TransferRefused
from lakelog.remotes.object_store import ObjectStoreRemote, checked, store

__all__ = ["REMOTE_CLASS", "AzureRemote", "checked"]


class AzureRemote(ObjectStoreRemote):
    """The objects below a prefix of a container."""

    SERVICE = "Azure"

    def _connected(self, bucket: str, prefix: str | None) -> Any:
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
        endpoint = os.environ.get("AZURE_STORAGE_ENDPOINT", "")
        if not account:
            raise TransferRefused(f"{self.url}: set AZURE_STORAGE_ACCOUNT_NAME, and credentials")
        self.deciding = "" if self._is_single else endpoint or f"Azure {account}"
        return store.AzureStore(bucket, prefix=prefix, **self._options(endpoint))

    names = ObjectStoreRemote.folders


REMOTE_CLASS = AzureRemote
