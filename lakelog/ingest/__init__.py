"""Bulk ingest: files become segments at the engine's speed, each row once, in bounded memory.

An `Ingester` does a `Job`, file by file, and says so in an `IngestReport` of `FileReport`; a
`MessageBatch` does it with each `Message` of a stream behind its `StreamCursor`. A `Transformer`
makes a `ChunkResult` of lines. `LakeFormat` is a format that a lake defines, `Preview` says what a
format makes of a file, and `Quarantine` has the lines that none could read.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.ingest.batch import Job as Job
    from lakelog.ingest.chunk_result import ChunkResult as ChunkResult
    from lakelog.ingest.definitions import LakeFormat as LakeFormat
    from lakelog.ingest.file_report import FileReport as FileReport
    from lakelog.ingest.ingest import Ingester as Ingester
    from lakelog.ingest.ingest import IngestReport as IngestReport
    from lakelog.ingest.message_events import Message as Message
    from lakelog.ingest.messages import MessageBatch as MessageBatch
    from lakelog.ingest.preview import Preview as Preview
    from lakelog.ingest.quarantine import Quarantine as Quarantine
    from lakelog.ingest.stream_cursor import StreamCursor as StreamCursor
    from lakelog.ingest.transform import Transformer as Transformer

__getattr__, __all__ = lazy_face(__name__)
