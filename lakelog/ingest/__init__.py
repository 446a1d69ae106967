"""Bulk ingest: files become segments at the engine's speed, each row once, in bounded memory.

An `Ingester` does a `Job`, file by file, and says so in an `IngestReport` of `FileReport`; a
`MessageBatch` does it with each `Message` of a stream behind its `StreamCursor`. A `Transformer`
makes a `ChunkResult` of lines. `LakeFormat` is a format that a lake defines, `Preview` says what a
format makes of a file, and `Quarantine` has the lines that none could read.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.ingest.batch import Job
    from lakelog.ingest.chunk_result import ChunkResult
    from lakelog.ingest.definitions import LakeFormat
    from lakelog.ingest.file_report import FileReport
    from lakelog.ingest.ingest import Ingester, IngestReport
    from lakelog.ingest.message_events import Message
    from lakelog.ingest.messages import MessageBatch
    from lakelog.ingest.preview import Preview
    from lakelog.ingest.quarantine import Quarantine
    from lakelog.ingest.stream_cursor import StreamCursor
    from lakelog.ingest.transform import Transformer

__all__ = [
    "ChunkResult",
    "FileReport",
    "IngestReport",
    "Ingester",
    "Job",
    "LakeFormat",
    "Message",
    "MessageBatch",
    "Preview",
    "Quarantine",
    "StreamCursor",
    "Transformer",
]

__getattr__ = lazy_face(
    __name__,
    batch="Job",
    chunk_result="ChunkResult",
    definitions="LakeFormat",
    file_report="FileReport",
    ingest="IngestReport Ingester",
    message_events="Message",
    messages="MessageBatch",
    preview="Preview",
    quarantine="Quarantine",
    stream_cursor="StreamCursor",
    transform="Transformer",
)
