"""A directory as chunks that are stored once and an index: the files, and how they are read.

A manifest names directories by `StateRecord`s, of which each names a `StateIndex` of `StateEntry`s.
`ChunkWriter` writes indices and chunks, `StateFiles` reads them, and `check` judges bytes from
anywhere.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.chunks.chunk_writer import ChunkWriter, PendingChunk
    from lakelog.chunks.state_files import (
        StateFiles,
        StateRecord,
        check,
        digest_of_name,
        read_file,
        unseal,
    )
    from lakelog.chunks.state_index import ChunkRef, Extent, StateEntry, StateIndex

__all__ = [
    "ChunkRef",
    "ChunkWriter",
    "Extent",
    "PendingChunk",
    "StateEntry",
    "StateFiles",
    "StateIndex",
    "StateRecord",
    "check",
    "digest_of_name",
    "read_file",
    "unseal",
]

__getattr__ = lazy_face(
    __name__,
    chunk_writer="ChunkWriter PendingChunk",
    state_files="StateFiles StateRecord check digest_of_name read_file unseal",
    state_index="ChunkRef Extent StateEntry StateIndex",
)
