"""What an application imports: handlers for logging libraries, exporters, loggers and spans.

All of them encode an event in the caller's thread and leave it in a queue, which a thread of its
own stores: see `queue` for what may be lost, and `values` for what becomes of values that JSON has
no form for. A `FigureRecorder` stores figures of a program from time to time.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.loggers.adapters import LoguruSink, StructlogProcessor
    from lakelog.loggers.ai import AILogger, get_ai_logger
    from lakelog.loggers.figure_recorder import FigureRecorder
    from lakelog.loggers.genai import instrument_anthropic, instrument_openai
    from lakelog.loggers.handler import LakeHandler
    from lakelog.loggers.oos import get_logger
    from lakelog.loggers.otel import LakeLogExporter, LakeSpanExporter
    from lakelog.loggers.spans import span

__all__ = [
    "AILogger",
    "FigureRecorder",
    "LakeHandler",
    "LakeLogExporter",
    "LakeSpanExporter",
    "LoguruSink",
    "StructlogProcessor",
    "get_ai_logger",
    "get_logger",
    "instrument_anthropic",
    "instrument_openai",
    "span",
]

__getattr__ = lazy_face(
    __name__,
    adapters="LoguruSink StructlogProcessor",
    ai="AILogger get_ai_logger",
    figure_recorder="FigureRecorder",
    genai="instrument_anthropic instrument_openai",
    handler="LakeHandler",
    oos="get_logger",
    otel="LakeLogExporter LakeSpanExporter",
    spans="span",
)
