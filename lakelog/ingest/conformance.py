"""Which rows of a chunk breach a contract that keeps lines in quarantine.

Payloads of equal structure breach a contract alike. So the engine groups the rows of contracted
types by the structure of their payloads, one payload of each new structure is taken apart by the
map of the schema ledger, and its fields are compared with the contract; the outcome is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping

from lakelog.libraries import duckdb, np, pa
from lakelog.protect import Protection
from lakelog.views import Breach, Contract, Ledger

_OUTCOMES_MAX = 10_000
_READ_MAX = 65_536
"""Bytes of payloads that the ledger looks into; longer ones breach nothing."""
_DEEP = "deep"
"""The structure of payloads that the engine cannot look into, which breach nothing."""
PayloadShape = tuple[str, str]
"""A type and the structure of a payload."""


class Conformance:
    """The contracts of a state that keep lines in quarantine; falsy if there are none. Safe for
    threads that each have a connection."""

    def __init__(
        self, contracts: Mapping[str, Contract], protection: Protection | None = None
    ) -> None:
        self.contracts, self._protection = contracts, protection
        self._contracts = {t: c for t, c in contracts.items() if c.on_breach == Contract.QUARANTINE}
        self._outcomes: dict[PayloadShape, str] = {}

    def __bool__(self) -> bool:
        return bool(self._contracts)

    def reasons(self, connection: duckdb.DuckDBPyConnection, table: pa.Table) -> dict[int, str]:
        """Why rows breach their contract, by their index; `table` has `type`, `time` and `data`."""
        with connection.cursor() as cursor:
            numbered = table.select(["type", "time", "data"]).append_column(
                "number", pa.array(np.arange(table.num_rows, dtype=np.int64))
            )
            cursor.register("lakelog_rows", numbered)
            rows = cursor.execute(_GROUPS, [list(self._contracts), _READ_MAX]).fetchall()
            # Not by a filter in the query: DuckDB 2.0 pushes it down and takes structures twice.
            groups = [row for row in rows if row[1] != _DEEP]
            fresh = [g for g in groups if (g[0], g[1]) not in self._outcomes]
            # Forgetting all is rare: payloads of one type have few structures.
            if len(self._outcomes) + len(fresh) > _OUTCOMES_MAX:
                self._outcomes.clear()
                fresh = groups
            outcomes = dict(self._outcomes) | self._judged(cursor, fresh)
            self._outcomes = outcomes
        return {n: reason for t, s, _, rows in groups if (reason := outcomes[t, s]) for n in rows}

    def _judged(
        self, cursor: duckdb.DuckDBPyConnection, groups: list[tuple[str, str, str, list[int]]]
    ) -> dict[PayloadShape, str]:
        """Compare a payload of each structure with the contract of its type."""
        if not groups:
            return {}
        # The map groups fields by type: here each payload is a type of its own.
        names = [str(number) for number in range(len(groups))]
        payloads = pa.table({"type": names, "data": [g[2] for g in groups]})
        cursor.register("lakelog_payloads", payloads)
        fields: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
        mapped = Ledger.map_sql()
        segment = "SELECT *, NULL::TIMESTAMPTZ AS time FROM lakelog_payloads"
        query = (
            f"WITH segment AS (SELECT * FROM ({segment})) SELECT type, path, kind FROM ({mapped})"
        )
        for name, path, json_type in cursor.execute(query).fetchall():
            fields[name].append((path, json_type))
        return {
            (group[0], group[1]): _reason(
                self._contracts[group[0]], sorted(self._told_apart(group[0], fields[name]))
            )
            for name, group in zip(names, groups, strict=True)
        }

    def _told_apart(self, type_: str, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The fields that a contract can know: protected ones are plain in a line alone."""
        protection, contract = self._protection, self._contracts[type_]
        return [
            (path, json_type)
            for path, json_type in fields
            if protection is None
            or path in contract.fields
            or not protection.covers(type_, Ledger.member_of(path))
        ]


def _reason(contract: Contract, fields: list[tuple[str, str]]) -> str:
    """Why a payload of these (path, kind) breaches a contract, "" if it does not."""
    present = {path for path, json_type in fields if json_type != "null"}
    for path in contract.required:
        if path not in present:
            return f"contract of type {contract.type}: {path} is {Breach.MISSING}"
    for path, json_type in fields:
        if breach := contract.breach(path, json_type):
            allowed = " or ".join(contract.fields.get(path, ()))
            breach_text = "a new field" if breach == Breach.NEW else f"{json_type}, not {allowed}"
            return f"contract of type {contract.type}: {path} is {breach_text}"
    return ""


_GROUPS = f"""SELECT type, shape, any_value(data), list(number) FROM (
    SELECT type, data, number, coalesce(try(json_structure(data))::VARCHAR, '{_DEEP}') AS shape
    FROM lakelog_rows WHERE list_contains($1, type) AND strlen(data) <= $2)
    GROUP BY type, shape"""
