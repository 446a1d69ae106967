"""Functions of the older AI logger, which name none: they write to the one that is the newest."""

from lakelog.loggers import AILogger

log_system_start = AILogger.log_newest_start
measure_operation = AILogger.measure_newest
