"""The place where the files of a table lie: a directory of this machine, or a prefix of a bucket.

A file appears whole or not at all. Buckets are asked by obstore, with the options that deltalake
takes, as both are made of the same library.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lakelog.disk import File, Folder
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import obstore
    from obstore import store
else:
    obstore, store = Lazy("obstore"), Lazy("obstore.store")

_OF_CLIENTS = ("allow_http", "timeout", "connect_timeout", "proxy_url", "user_agent")
_OF_COMMITS = ("unsafe_rename", "locking_provider", "dynamo", "conditional_put")
"""In the names of options that say how deltalake commits."""


class TableFolder:
    """A folder by its path, or by an address with options of its storage."""

    def __init__(self, uri: str, options: Mapping[str, str]) -> None:
        self.uri, self._options = uri, options
        self._is_local = "://" not in uri

    def make(self) -> None:
        """Make the directory, where it is one."""
        if self._is_local:
            Folder(self.uri).make_all()

    def link(self, path: str, name: str) -> bool:
        """Give a file of this machine a second name here; return False where that cannot be."""
        if not self._is_local:
            return False
        target = f"{self.uri}/{name}"
        try:
            File(path).link(target)
        except FileExistsError:
            return os.path.samefile(path, target)
        except OSError:
            return False  # another file system, or one without links
        return True

    def put(self, name: str, data: bytes) -> None:
        """Write a file, in the place of one of its name."""
        if self._is_local:
            File(f"{self.uri}/{name}").replace(data)
        else:
            obstore.put(self._bucket, name, data)

    def sync(self) -> None:
        """Make the names of files durable."""
        if self._is_local:
            Folder(self.uri).sync()

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        if self._is_local:
            File(f"{self.uri}/{name}").remove()
            return
        # Only S3 takes it for deleted.
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._bucket, name)

    def names(self) -> set[str]:
        """The names of the files here."""
        if self._is_local:
            return {*Folder(self.uri).names()}
        objects = obstore.list_with_delimiter(self._bucket)["objects"]
        return {file["path"].rpartition("/")[2] for file in objects}

    @cached_property
    def _bucket(self) -> Any:
        plain: dict[str, Any] = {
            name.lower().removeprefix("aws_"): value for name, value in self._options.items()
        }
        client = {name: plain.pop(name) for name in _OF_CLIENTS if name in plain}
        client["allow_http"] = str(client.get("allow_http", "")).lower() == "true"
        names = [name for name in plain if not any(word in name for word in _OF_COMMITS)]
        config = {name: plain[name] for name in names}
        from_url: Any = store.from_url  # its types know the options of each kind of store
        return from_url(self.uri, config=config, client_options=client)
