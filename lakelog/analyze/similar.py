"""Near-duplicate messages: equal but for numbers, ids, quoted values, case and space.

SQL gives each message its pattern and counts the patterns. Those that share most of their words
(Jaccard, at least `_SHARED`) are then taken together, the most frequent first; of at most
PATTERNS_MAX patterns, so that the cost stays that of one scan.
"""

from __future__ import annotations

from lakelog.lake import Lake
from lakelog.pinned import PinnedLake
from lakelog.query import EventKey
from lakelog.sql import literal
from lakelog.values import JsonObject

PATTERNS_MAX, _SHARED = 1_000, 0.8
# In this order: a UUID or a hash would otherwise be cut into numbers.
_MASKS = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uuid>"),
    (r"\b0x[0-9a-f]+\b|\b[0-9a-f]*[0-9][0-9a-f]{7,}\b", "<hex>"),
    (r'"[^"]*"', "<text>"),
    (r"[0-9]+([.,:][0-9]+)*", "<n>"),
    (r"\s+", " "),
)


def near_duplicates(
    lake: Lake | PinnedLake, field: str = "message", limit: int = 50
) -> list[JsonObject]:
    """Return groups of near-duplicates of a column or field of data, the largest first.

    Each has `pattern`, `example`, `events`, `variants` (different texts), `first` and `last`
    time, and some `sources`. Raises InvalidSetting for an unknown field.
    """
    value = EventKey.part(field)
    masked = f"lower(trim({value}))"
    for pattern, name in _MASKS:
        masked = f"regexp_replace({masked}, {literal(pattern)}, {literal(name)}, 'g')"
    # Patterns are counted in SQL, so Python sees at most PATTERNS_MAX rows however many events
    # there are.
    rows = lake.sql(f"""SELECT {masked} AS pattern, min({value}) AS example, count(*) AS events,
            approx_count_distinct({value}) AS variants, min(time) AS first, max(time) AS last,
            coalesce(list_sort(list(DISTINCT source) FILTER (source IS NOT NULL))[1:5], [])
        FROM events WHERE {value} IS NOT NULL GROUP BY 1
        ORDER BY events DESC, pattern LIMIT {PATTERNS_MAX}""").fetchall()
    names = ("pattern", "example", "events", "variants", "first", "last", "sources")
    groups = _group([dict(zip(names, row, strict=True)) for row in rows])
    several = [g for g in groups if g["events"] > 1]
    return sorted(several, key=lambda g: (-g["events"], g["pattern"]))[:limit]


def _group(patterns: list[JsonObject]) -> list[JsonObject]:
    """Put each pattern with the first group whose words it shares."""
    groups: list[tuple[set[str], JsonObject]] = []
    for pattern in patterns:
        tokens = set(pattern["pattern"].split())
        # The most frequent pattern of a group comes first and names it.
        group = next((g for w, g in groups if _jaccard(w, tokens) >= _SHARED), None)
        if group is None:
            groups.append((tokens, pattern))
            continue
        group["events"] += pattern["events"]
        group["variants"] += pattern["variants"]
        group["first"] = min(group["first"], pattern["first"])
        group["last"] = max(group["last"], pattern["last"])
        group["sources"] = sorted({*group["sources"], *pattern["sources"]})[:5]
    return [group for _, group in groups]


def _jaccard(a: set[str], b: set[str]) -> float:
    """The Jaccard index of two sets of words."""
    union = len(a | b)
    return len(a & b) / union if union else 1.0
