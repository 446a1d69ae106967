"""The tags of a lake, and the texts of manifests that refs read lately carry."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from lakelog.disk import NotIntact
from lakelog.errors import DamagedRef, UnknownRef
from lakelog.keys import LakeKeys
from lakelog.paths import KEYS, FileNames
from lakelog.refs.ref import Move, Tag
from lakelog.runtime.closest import did_you_mean
from lakelog.volume import Volume

_TEXTS_CACHED = 64


class TagRefs:
    """Reads and links the tags of one lake."""

    def __init__(
        self,
        volume: Volume,
        decode_tag: Callable[[bytes, str], Tag],
        keys: Callable[[], LakeKeys | None],
    ) -> None:
        """`decode_tag` raises NotIntact; `keys` returns what encrypts messages, if the lake is
        encrypted."""
        self._volume, self._decode_tag, self._keys = volume, decode_tag, keys
        self._texts: dict[str, tuple[bytes, str]] = {}

    def tags(self) -> list[Tag]:
        """All tags by name. Raises DamagedRef."""
        tags = list[Tag]()
        for name in self.tag_names():
            with contextlib.suppress(UnknownRef):  # deleted since it was listed
                tags.append(self.tag(name))
        return tags

    def tag_names(self) -> list[str]:
        """Names of all tags, damaged ones included."""
        return FileNames(sorted(self._volume.names(KEYS.tags))).tags

    def tag(self, name: str) -> Tag:
        """One tag. Raises UnknownRef, DamagedRef."""
        try:
            return self.read_tag(name)[0]
        except FileNotFoundError:
            near = did_you_mean(name, self.tag_names())
            raise UnknownRef(f"no tag {name!r}: {near or 'see `lakelog tag --list`'}") from None

    def read_tag(self, name: str) -> tuple[Tag, bytes]:
        """Return a tag with the bytes of its file. Raises FileNotFoundError, DamagedRef."""
        key = KEYS.tag(name)
        try:
            data = self._volume.read(key)
            tag = self._decode_tag(data, name)
        except NotIntact as error:
            raise self._damaged(key, f"the tag is damaged: {error}") from None
        self._remember(tag, key)
        return tag, data

    def link_tag(self, tag: Tag) -> None:
        """Make a tag durably; FileExistsError if the name is taken."""
        data = tag.to_encrypt(self._keys()).encode()
        self._volume.create(KEYS.tag(tag.name), data)

    def replace_tag(self, tag: Tag) -> None:
        """Make or replace the tag of a remote's branch durably; no other tag changes (F7.10)."""
        data = tag.to_encrypt(self._keys()).encode()
        self._volume.replace(KEYS.tag(tag.name), data)

    def recent_text(self, digest: str) -> bytes | None:
        """The text of a manifest that a move or tag read lately carries."""
        cached = self._texts.get(digest)
        return cached[0] if cached else None

    def carried_text(self, digest: str) -> bytes | None:
        """The text of a manifest if a ref read lately carries it and is on disk now."""
        cached = self._texts.get(digest)
        return cached[0] if cached and self._volume.exists(cached[1]) else None

    def _remember(self, ref: Move | Tag, key: str) -> None:
        """Cache the text that a ref carries: whoever read the ref will ask for its state next."""
        if ref.carried:
            self._texts.pop(ref.snapshot, None)
            self._texts[ref.snapshot] = ref.carried, key
            for old in list(self._texts)[:-_TEXTS_CACHED]:
                self._texts.pop(old, None)

    def _damaged(self, key: str, reason: str) -> DamagedRef:
        return DamagedRef(self._volume.location(key), reason)
