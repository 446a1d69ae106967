"""What an application imports: handlers for logging libraries, exporters, loggers and spans.

All of them encode an event in the caller's thread and leave it in a queue, which a thread of its
own stores: see `queue` for what may be lost, and `values` for what becomes of values that JSON has
no form for. A `FigureRecorder` stores figures of a program from time to time.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.loggers.adapters import LoguruSink as LoguruSink
    from lakelog.loggers.adapters import StructlogProcessor as StructlogProcessor
    from lakelog.loggers.ai import AILogger as AILogger
    from lakelog.loggers.ai import get_ai_logger as get_ai_logger
    from lakelog.loggers.figure_recorder import FigureRecorder as FigureRecorder
    from lakelog.loggers.genai import instrument_anthropic as instrument_anthropic
    from lakelog.loggers.genai import instrument_openai as instrument_openai
    from lakelog.loggers.handler import LakeHandler as LakeHandler
    from lakelog.loggers.oos import get_logger as get_logger
    from lakelog.loggers.otel import LakeLogExporter as LakeLogExporter
    from lakelog.loggers.otel import LakeSpanExporter as LakeSpanExporter
    from lakelog.loggers.spans import span as span

__getattr__, __all__ = lazy_face(__name__)
