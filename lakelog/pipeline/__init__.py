"""Work that is done item by item, each outcome an event: see docs/processing.md."""

from lakelog.pipeline.standing import Item
from lakelog.pipeline.work_queue import DeadLetter, RunReport, WorkQueue

__all__ = ["DeadLetter", "Item", "RunReport", "WorkQueue"]
