"""A directory as chunks that are stored once and an index: the files, and how they are read.

A manifest names directories by `StateRecord`s, of which each names a `StateIndex` of `StateEntry`s.
`ChunkWriter` writes indices and chunks, `StateFiles` reads them, and `check` judges bytes from
anywhere.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.chunks.chunk_writer import ChunkWriter as ChunkWriter
    from lakelog.chunks.chunk_writer import PendingChunk as PendingChunk
    from lakelog.chunks.state_files import StateFiles as StateFiles
    from lakelog.chunks.state_files import StateRecord as StateRecord
    from lakelog.chunks.state_files import check as check
    from lakelog.chunks.state_files import digest_of_name as digest_of_name
    from lakelog.chunks.state_files import read_file as read_file
    from lakelog.chunks.state_files import unseal as unseal
    from lakelog.chunks.state_index import ChunkRef as ChunkRef
    from lakelog.chunks.state_index import Extent as Extent
    from lakelog.chunks.state_index import StateEntry as StateEntry
    from lakelog.chunks.state_index import StateIndex as StateIndex

__getattr__, __all__ = lazy_face(__name__)
