"""Whether a view reads protected fields: then its partials are kept nowhere.

What is kept on disk has no word of such a field, and what a query shows depends on the keys of its
process. So such a view is computed from the events whenever it is asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from lakelog.libraries import duckdb
from lakelog.query.sql import member_reads
from lakelog.store.paths import Paths
from lakelog.views import ledger
from lakelog.views.definition import ViewDefinition
from lakelog.views.params import Values

_KNOWN_MAX = 256


class ProtectedMaps:
    """The maps of one lake of which it was found out what they read."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._reads_fields: dict[tuple[str, tuple[str, ...]], bool] = {}

    def may_keep(
        self,
        connect: Callable[[], duckdb.DuckDBPyConnection],
        definition: ViewDefinition,
        values: Values,
        opens: bool,
    ) -> bool:
        """Whether what a view computes may be kept, of events whose fields are opened or not."""
        protection = self._paths.protection
        # The ledger, for which queries ask all the time, lists fields as they are stored. What was
        # stored before fields were protected has them in plain.
        if protection is None or not (opens or protection.since) or definition.name == ledger.VIEW:
            return True
        query, protected_fields = definition.filled("map", values), protection.fields
        reads = self._reads_fields.get((query, protected_fields))
        if reads is None:
            if len(self._reads_fields) > _KNOWN_MAX:
                self._reads_fields.clear()
            with contextlib.closing(connect()) as cursor:
                reads = member_reads.reads_members(cursor, query, protected_fields)
            self._reads_fields[query, protected_fields] = reads
        return not reads
