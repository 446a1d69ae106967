"""Rank indexes: how often each event of a segment has each word, for BM25, kept by tantivy.

They are derived from segments, which never change, and stored in cache/ranks/DIGEST-VERSIONS/: in
one lake, processes may have other versions of the libraries, and each needs its own. A state is
asked by an index put together of those of its segments: links to their files, and one list of them,
in a folder that is gone again once it is open. So one index serves every state that has the
segment, and the frequencies by which events are ranked are always those of the state itself.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from lakelog import word_indexes
from lakelog.disk import File, Folder
from lakelog.engine import core
from lakelog.entries import SegmentEntry
from lakelog.errors import LakelogError, MissingPackage, SnapshotGone
from lakelog.libraries import duckdb, pa
from lakelog.paths import Paths
from lakelog.runtime.lazy import Lazy
from lakelog.word_indexes import AnyOf, WordNeed, WordPiece

if TYPE_CHECKING:
    import tantivy
else:
    tantivy = Lazy("tantivy")

SEGMENTS_MAX = 2_000
"""An index of more segments maps more files than a process may."""
_HEAP = 64_000_000
"""Bytes of words that are held until they are written."""
_WORD_MAX = 32_768
"""tantivy keeps no longer words."""
_LIST, _MARK, _TRIES = "meta.json", "lakelog", 3


class RankedRow(NamedTuple):
    """An event that was found: its score, the number of its segment, its row there, its seq."""

    score: float
    segment: int
    row: int
    seq: int


def is_installed() -> bool:
    """Whether the library that ranks is installed."""
    return find_spec("tantivy") is not None


def require_package() -> None:
    """Raise MissingPackage if it is not."""
    if not is_installed():
        raise MissingPackage("a ranked search needs tantivy: pip install 'lakelog[search]'")


def number_of(digest: str) -> int:
    """Return the number by which rows name their segment; that of rows of a tail is 0."""
    return int(digest[:15], 16) | 1


def is_missing(paths: Paths, digest: str) -> bool:
    """Whether a segment has no index that the installed libraries made."""
    try:
        mark = File(f"{paths.ranks(_folder_name(digest))}/{_MARK}").read()
        return mark.partition(b"\n")[0] != _made_by()
    except OSError:
        return True


def is_whole(paths: Paths, name: str) -> bool:
    """Whether the files of an index, the folder of a name, are as they were written."""
    try:
        checksums = _checksums(paths.ranks(name))
        return bool(checksums) and all(
            _checksum(f"{paths.ranks(name)}/{file}") == checksum
            for file, checksum in checksums.items()
        )
    except (OSError, ValueError):
        return False


def is_foreign(name: str) -> bool:
    """Whether the folder of a name has an index that other versions made; False where tantivy is
    not installed."""
    return is_installed() and name != _folder_name(name.partition("-")[0])


def drop(paths: Paths, digests: Iterable[str]) -> None:
    """Remove the indexes of segments, of whatever versions, or the folders of such names."""
    dropped, names = set(digests), list[str]()
    with contextlib.suppress(NotADirectoryError):  # a cache that cannot be written fails nothing
        names = Folder(paths.rank_indexes).names()
    for name in names:
        if not dropped.isdisjoint((name, name.partition("-")[0])):
            with contextlib.suppress(OSError):
                Folder(paths.ranks(name)).remove_with_files()


def build(paths: Paths, entry: SegmentEntry, cursor: duckdb.DuckDBPyConnection) -> None:
    """Build the index of a segment and store it; the caller has verified the segment. Raises
    OSError, LakelogError."""
    if not is_missing(paths, entry.key):
        return  # another process was faster
    target = Folder(paths.ranks(_folder_name(entry.key)))
    with contextlib.suppress(OSError):
        target.remove_with_files()  # damaged
    with _folder(paths) as folder:
        _write(folder, number_of(entry.key), word_indexes.row_words(paths, entry, cursor))
        names = sorted(name for name in Folder(folder).names() if not name.startswith("."))
        lines = [f"{_checksum(f'{folder}/{name}')} {name}" for name in names]
        File(f"{folder}/{_MARK}").replace(
            b"\n".join([_made_by(), *map(str.encode, lines)]), sync=False
        )
        with contextlib.suppress(OSError):  # another process was faster
            File(folder).rename(target.path)


class RankIndex:
    """The events of some segments and of a tail, by the words that they have."""

    def __init__(self, index: tantivy.Index) -> None:
        self._schema, self._searcher = index.schema, index.searcher()

    @classmethod
    def of(
        cls, paths: Paths, digests: Sequence[str], tail: tuple[pa.Array, list[int]] | None
    ) -> RankIndex:
        """Return the index of segments that have one each, and of a tail: its texts as `spaced`
        makes them, and the seq of each. Raises SnapshotGone where one was removed, OSError,
        LakelogError."""
        try:
            return cls._of(paths, digests, tail)
        except FileNotFoundError:
            # One without some of its files is made again.
            lacking = [key for key in digests if not is_whole(paths, _folder_name(key))]
            drop(paths, lacking)
            raise SnapshotGone("an index of a segment was removed: search again") from None

    @classmethod
    def _of(
        cls, paths: Paths, digests: Sequence[str], tail: tuple[pa.Array, list[int]] | None
    ) -> RankIndex:
        with _folder(paths) as folder:
            whole: dict[str, Any] = {}
            if tail is not None or not digests:
                _write(folder, 0, [] if tail is None else [tail])
                whole = orjson.loads(File(f"{folder}/{_LIST}").read())
            for digest in digests:
                source = paths.ranks(_folder_name(digest))
                with _sound():
                    document = orjson.loads(File(f"{source}/{_LIST}").read())
                    whole.setdefault("segments", []).extend(document["segments"])
                whole = {**document, **whole}
                with _sound():
                    # Not what is in the folder: whoever removes it may have begun.
                    names = _checksums(source).keys() - {_LIST}
                for name in names:
                    # Hard links: tantivy reads one directory, and no byte is copied.
                    File(f"{source}/{name}").link(f"{folder}/{name}")
            # The list last: tantivy takes what it names for whole.
            File(f"{folder}/{_LIST}").replace(orjson.dumps(whole), sync=False)
            with _sound():
                index = tantivy.Index.open(folder)
                # Its watcher would be a thread that looks for commits, of which there are none.
                index.config_reader("manual")
                return cls(index)

    def best(
        self, need: WordNeed | None, scored: Sequence[str], limit: int, offset: int
    ) -> list[RankedRow]:
        """Return the rows that may have what a search needs, the best first: those that have most
        of its words, above all of rare ones, and little else. Raises LakelogError."""
        with _sound():
            query = self._query(need, scored)
            hits = self._searcher.search(query, limit=limit, offset=offset, count=False).hits
            addresses = [address for _, address in hits]
            fields = (
                self._searcher.fast_field_values(name, addresses)
                for name in ("segment", "row", "seq")
            )
            return [
                RankedRow(score, *place)
                for (score, _), place in zip(hits, zip(*fields, strict=True), strict=True)
            ]

    def _query(self, need: WordNeed | None, scored: Sequence[str]) -> tantivy.Query:
        must, should = tantivy.Occur.Must, tantivy.Occur.Should
        if need is not None and self._words(need) == set(scored):
            return tantivy.Query.boolean_query([(must, self._term(word)) for word in scored])
        superset = self._superset(need) or tantivy.Query.all_query()
        return tantivy.Query.boolean_query(
            [
                (must, tantivy.Query.const_score_query(superset, 0.0)),
                *((should, self._term(word)) for word in scored if len(word) < _WORD_MAX),
            ]
        )

    def _words(self, need: WordNeed) -> set[str] | None:
        """The words that rows need to have, None where it is more than all of some words."""
        if isinstance(need, str):
            return {need} if len(need) < _WORD_MAX else None
        if isinstance(need, WordPiece | AnyOf):
            return None
        sets = [self._words(single) for single in need.needs]
        return set().union(*filter(None, sets)) if all(sets) else None

    def _superset(self, need: WordNeed | None) -> tantivy.Query | None:
        """A query for rows that may have what a search needs; None for all rows."""
        if need is None or isinstance(need, WordPiece):
            return None
        if isinstance(need, str):
            # A longer word is not in the index: it lets any row through.
            return self._term(need) if len(need) < _WORD_MAX else None
        queries = [query for inner in need.needs if (query := self._superset(inner)) is not None]
        if isinstance(need, AnyOf):
            # One alternative that no query can narrow lets any row through.
            is_certain = len(queries) == len(need.needs)
            pairs = [(tantivy.Occur.Should, query) for query in queries] if is_certain else []
        else:
            pairs = [(tantivy.Occur.Must, query) for query in queries]
        return tantivy.Query.boolean_query(pairs) if pairs else None

    def _term(self, word: str) -> tantivy.Query:
        return tantivy.Query.term_query(self._schema, "words", word, "freq")


def _write(folder: str, number: int, batches: Iterable[tuple[pa.Array, list[int]]]) -> None:
    """Write an index of texts, whose rows are of the segment of a number, to an empty folder."""
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("words", tokenizer_name="whitespace", index_option="freq")
    for name in ("segment", "row", "seq"):
        builder.add_unsigned_field(name, indexed=False, fast=True)
    with _sound():
        index = tantivy.Index(builder.build(), path=folder)
        # By one thread: several would divide its memory, and each would write files of its own.
        writer = index.writer(heap_size=_HEAP, num_threads=1)
        row = 0
        for spaced, seqs in batches:
            for row_words, seq in zip(spaced.to_pylist(), seqs, strict=True):
                document = tantivy.Document()
                document.add_text("words", row_words)
                document.add_unsigned("segment", number)
                document.add_unsigned("row", row)
                document.add_unsigned("seq", seq)
                writer.add_document(document)
                row += 1
        writer.commit()
        writer.wait_merging_threads()


@contextlib.contextmanager
def _folder(paths: Paths) -> Iterator[str]:
    """Give a folder that is removed with all that is in it, if it is still there."""
    Folder(paths.cache).make()
    Folder(paths.rank_indexes).make()
    folder = Folder(paths.rank_indexes).temporary_path()
    Folder(folder).make()
    try:
        yield folder
    finally:
        # A thread of tantivy may make a file for its lock meanwhile.
        for _ in range(_TRIES):
            with contextlib.suppress(OSError):
                Folder(folder).remove_with_files()
                break


@contextlib.contextmanager
def _sound() -> Iterator[None]:
    """Raise what damaged files make of an index as LakelogError: also where tantivy panics."""
    try:
        yield
    except OSError:
        raise
    except BaseException as error:
        is_damage = isinstance(error, ValueError | LookupError | TypeError)
        if not is_damage and type(error).__name__ != "PanicException":
            raise
        raise LakelogError(f"the index of a ranked search failed: {error}") from None


def _folder_name(digest: str) -> str:
    """The folder of a segment's index that the installed libraries made."""
    return f"{digest}-{zlib.crc32(_made_by()):08x}"


@functools.cache  # what is loaded stays so, and each segment of a search asks
def _made_by() -> bytes:
    """What the files of an index depend on: words are the engine's, the format is tantivy's."""
    return f"LKR1 {core.version()} {importlib.metadata.version('tantivy')}".encode()


def _checksums(folder: str) -> dict[str, str]:
    """The files of an index with their checksums, by its list. Raises OSError, ValueError."""
    _, *lines = File(f"{folder}/{_MARK}").read().decode().splitlines()
    pairs = (line.split(" ") for line in lines)
    return {name: checksum for checksum, name in pairs}


def _checksum(path: str) -> str:
    return f"{zlib.crc32(File(path).read()):08x}"
