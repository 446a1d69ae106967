"""Counting tokens as a model does, by `tiktoken` or `tokenizers`; without either, 4 bytes are one.

A vocabulary is never downloaded unless the recipe says `download = true`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from lakelog.errors import ExportRefused
from lakelog.train.tables import JsonMap, require_extra


class Tokenizer:
    """Counts the tokens of texts."""

    def __init__(self, encode: Callable[[list[str]], list[Any]]) -> None:
        self._encode = encode

    def counts(self, documents: list[str | None]) -> list[int]:
        """Tokens of each text, without special ones."""
        return list(map(len, self._encode([document or "" for document in documents])))


def load(name: str, download: bool = False) -> Tokenizer:
    """Return the tokenizer `tiktoken:ENCODING` or `tokenizers:FILE.json`.

    Raises ExportRefused where the library, the vocabulary or the file is not there.
    """
    library, _, model = name.partition(":")
    require_extra(library, library, "[budget] tokenizer")
    return _tiktoken(model, download) if library == "tiktoken" else _tokenizers(model)


def words(manifest: JsonMap) -> str:
    """Return how tokens were counted, as the card says it."""
    name = manifest["recipe"]["budget"].get("tokenizer")
    if not name:
        return "of 4 bytes"
    library, _, model = name.partition(":")
    return f"`{model}` of {library} {manifest['versions'].get(library, '')}".rstrip()


def _tiktoken(name: str, download: bool) -> Tokenizer:
    import tiktoken  # an extra: only recipes with this tokenizer need it

    # Checked first: for an unknown name tiktoken's own error is a ValueError that lists plugins.
    if name not in tiktoken.list_encoding_names():
        names = ", ".join(tiktoken.list_encoding_names())
        raise ExportRefused(f"[budget] tokenizer: tiktoken has no encoding {name!r}: {names}")
    with contextlib.nullcontext() if download else _offline():
        try:
            encoding = tiktoken.get_encoding(name)
        except OSError as error:
            raise ExportRefused(f"[budget] tokenizer: the vocabulary {name}: {error}") from None
    return Tokenizer(encoding.encode_ordinary_batch)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Restrict tiktoken to vocabularies in its cache; it has no setting for that."""
    # tiktoken reads vocabularies through `load.read_file`, for paths and URLs alike; URLs are
    # refused here.
    from tiktoken import load as loading  # the module itself, to replace an attribute

    def refuse(place: str) -> bytes:
        if "://" not in place:
            return bytes(read_file(place))
        raise OSError(
            "it is not on this machine; TIKTOKEN_CACHE_DIR says where it is,"
            " `download = true` in [budget] fetches it"
        )

    read_file = loading.read_file
    loading.read_file = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        loading.read_file = read_file


def _tokenizers(path: str) -> Tokenizer:
    import tokenizers  # an extra: only recipes with this tokenizer need it

    try:
        with open(path, "rb"):  # what the library raises of a file has no class before 1.0
            tokenizer: Any = tokenizers.Tokenizer.from_file(path)
    except OSError as error:
        raise ExportRefused(
            f"[budget] tokenizer: {path}: {error.strerror}; name a tokenizer.json on this machine"
        ) from None
    except Exception as error:  # the library raises no class of its own
        raise ExportRefused(f"[budget] tokenizer: {path} is no tokenizer.json: {error}") from None

    # Files of embedding models ask to cut and to fill what a model reads: a count is of the text.
    if hasattr(tokenizer, "no_padding"):
        tokenizer.no_truncation()
        tokenizer.no_padding()
    else:  # tokenizers 1.0
        tokenizer.truncation = tokenizer.padding = None

    return Tokenizer(functools.partial(tokenizer.encode_batch, add_special_tokens=False))
