"""What a connection to Redis did, as figures: kept in memory of a fixed size."""

from __future__ import annotations

import threading
from collections import Counter, deque

from lakelog.values import JsonObject

_LATENCIES, _PREFIXES, _SEPARATOR = 1_000, 1_000, ":"
_REST = "(other)"
"""The prefix of keys that came when there were _PREFIXES others."""


class RedisMetrics:
    """Counts calls by command, latencies, errors, cache hits, and the keys that are asked for."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._latencies: dict[str, deque[float]] = {}
        self._calls: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._prefixes: Counter[str] = Counter()
        self._hits = self._misses = 0

    def note(self, command: str, seconds: float, error: Exception | None) -> None:
        """Count one attempt."""
        with self._mutex:
            self._calls[command] += 1
            if error is not None:
                self._errors[type(error).__name__] += 1
                return
            latencies = self._latencies.setdefault(command, deque(maxlen=_LATENCIES))
            latencies.append(seconds * 1000)

    def access(self, key: str) -> None:
        """Count an access by the key's prefix: what is before its last colon."""
        prefix = key.rpartition(_SEPARATOR)[0] or key
        with self._mutex:
            if prefix not in self._prefixes and len(self._prefixes) >= _PREFIXES:
                prefix = _REST
            self._prefixes[prefix] += 1

    def cached(self, is_hit: bool) -> None:
        """Count a look-up of the cache."""
        with self._mutex:
            self._hits += is_hit
            self._misses += not is_hit

    def figures(self) -> JsonObject:
        """Return calls, errors, error_rate and hit_rate (shares from 0 to 1, None before the first
        call), latency_ms {command: {count, p50, p95, p99, max}} over the last 1,000 calls of each,
        and the ten prefixes of keys that are asked for most."""
        with self._mutex:
            calls, failed = sum(self._calls.values()), sum(self._errors.values())
            lookups = self._hits + self._misses
            return {
                "calls": calls,
                "errors": dict(self._errors),
                "error_rate": failed / calls if calls else None,
                "cache": {"hits": self._hits, "misses": self._misses},
                "hit_rate": self._hits / lookups if lookups else None,
                "latency_ms": {
                    name: _summary(latencies) for name, latencies in self._latencies.items()
                },
                "access_patterns": dict(self._prefixes.most_common(10)),
            }


def _summary(latencies: deque[float]) -> dict[str, float]:
    ordered = sorted(latencies)

    def rank(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    figures = {"p50": rank(0.5), "p95": rank(0.95), "p99": rank(0.99), "max": rank(1)}
    return {"count": len(ordered), **figures}
