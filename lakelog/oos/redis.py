"""The Redis manager of the older systems: checked values, a cache, and figures about itself.

Stored as                what
string                   JSON of what `set_cached` is given
hash                     `set_with_validation`: numbers, true, false and null as JSON, text as it
                         is, or quoted as in JSON where it would be taken for JSON
list, sorted set         what others store, read and added to here

With `lake`, its figures are events of type `redis.metrics` every `record_seconds`, at level WARN
where an operator should look: more than 5 % of the calls fail, 90 % of the server's memory is in
use, or its certificate expires within two weeks.

What a connection to Redis did, as figures: kept in memory of a fixed size.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from lakelog.clients import RedisClient, RedisConfig
from lakelog.errors import LakelogError, Unreachable
from lakelog.loggers import FigureRecorder
from lakelog.runtime.lazy import Lazy
from lakelog.values import JsonObject

if TYPE_CHECKING:
    from lakelog.lake import Lake

redis = Lazy("redis")
Scalar = str | int | float | bool | None
ValueSchema = Mapping[str, type | tuple[type, ...]]
_KINDS: dict[str, Callable[[Any, str], object]] = {
    "string": lambda client, key: _typed(client.get(key)),
    "hash": lambda client, key: {n: _typed(text) for n, text in client.hgetall(key).items()},
    "list": lambda client, key: client.lrange(key, 0, -1),
    "set": lambda client, key: client.smembers(key),
    "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
}
_TTL_MAX = 10**18
"""Milliseconds that Redis can still add to its clock."""
_ERROR_RATE, _MEMORY_SHARE, _EXPIRY_DAYS = 0.05, 0.9, 14


class RedisManager:
    """A pool of connections to one server with the methods of the older system.

    Safe for threads and forks. It closes at the end of the process; SIGTERM and SIGINT reach the
    handlers of the application as without it.
    """

    def __init__(
        self,
        config: RedisConfig | None = None,
        *,
        credentials: Callable[[], tuple[str, str]] | None = None,
        lake: Lake | str | os.PathLike[str] | None = None,
        record_seconds: float = 60.0,
    ) -> None:
        """Connect; without a configuration to the server that the environment names.

        Raises ConnectionError (errors.Unreachable) where nothing answers or we are refused,
        MissingPackage, InvalidSetting. `credentials` returns user and password and is asked again
        when they are refused, as a password file is.
        """
        self.config = config or RedisConfig.from_env()
        self._metrics = RedisMetrics()
        self._redis = RedisClient(self.config, credentials, self._metrics.note)
        self._recorder = FigureRecorder(lake, record_seconds, self._event, self._redis.close)

    def __repr__(self) -> str:
        return f"RedisManager({self.config.address!r})"

    def __enter__(self) -> RedisManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def client(self) -> Any:
        """The `redis.Redis` below, for every other command; its calls are not retried."""
        return self._redis.client

    def ping(self) -> bool:
        """Whether the server answers."""
        try:
            return bool(self._redis.call("PING", lambda client: client.ping()))
        except Unreachable:
            return False

    def set_cached(self, key: str, value: object, ttl: float | None = None) -> bool:
        """Store any JSON value, for `ttl` seconds or until it is invalidated.

        Raises ValueError for what JSON does not have and for a `ttl` that is not above 0, or beyond
        what Redis can count; Unreachable.
        """
        try:
            encoded = orjson.dumps(value)
            # It writes NaN and infinities as null, which would come back as None.
            if b"null" in encoded and _has_no_number(value):
                raise TypeError("NaN and infinities are not JSON serializable")
        except TypeError as error:
            raise ValueError(f"{key}: {error}") from None
        milliseconds = None if ttl is None else _milliseconds(key, ttl)
        return bool(self._on("SET", key, lambda client: client.set(key, encoded, px=milliseconds)))

    def get_cached(self, key: str) -> Any:
        """Return what `set_cached` stored; None if it is absent, expired or no JSON."""
        encoded = self._of_kind("GET", key, lambda client: client.get(key))
        value = None
        with contextlib.suppress(orjson.JSONDecodeError, UnicodeEncodeError):
            value = orjson.loads(encoded) if encoded is not None else None
        self._metrics.cached(encoded is not None)
        return value

    def invalidate(self, pattern: str) -> int:
        """Remove a key, or all that match a pattern with `*`, `?` or `[…]`; return how many."""
        if not any(mark in pattern for mark in "*?["):
            return int(self._on("UNLINK", pattern, lambda client: client.unlink(pattern)))

        def run(client: Any) -> int:
            # By cursor, a thousand at a time: KEYS would hold up the server.
            count, batch = 0, []
            for key in client.scan_iter(match=pattern, count=1000):
                batch.append(key)
                if len(batch) == 1000:
                    count, batch = count + client.unlink(*batch), []
            return int(count + (client.unlink(*batch) if batch else 0))

        return int(self._on("SCAN", pattern, run))

    def safe_lrange(self, key: str, start: int = 0, end: int = -1) -> list[str]:
        """Return the items of a list from `start` to `end`, which is included.

        Empty if the key is absent or no list. Raises Unreachable.
        """
        items = self._of_kind("LRANGE", key, lambda client: client.lrange(key, start, end))
        return list(items or [])

    def set_with_validation(
        self, key: str, value: Mapping[str, Scalar], schema: ValueSchema | None = None
    ) -> bool:
        """Replace a hash, whole. `schema` names the fields it has to have, and their types.

        Raises ValueError for anything but a dict of text to str, int, float, bool or None, for an
        empty one, and for one that the schema does not allow; then nothing is stored.
        """
        fields = _checked(key, value, schema)

        def run(client: Any) -> bool:
            with client.pipeline(transaction=True) as pipeline:
                pipeline.unlink(key)
                pipeline.hset(key, mapping=fields)
                pipeline.execute()
            return True

        return bool(self._on("HSET", key, run))

    def zadd(self, key: str, mapping: Mapping[str, float]) -> int:
        """Add members with their scores to a sorted set; return how many are new.

        Raises ValueError for an empty mapping or a score that is no number.
        """
        if not mapping or not all(map(_is_score, mapping.values())):
            raise ValueError(f"{key}: members with numbers as scores are wanted")
        return int(self._on("ZADD", key, lambda client: client.zadd(key, dict(mapping))))

    def zrange(
        self, key: str, start: int = 0, end: int = -1, withscores: bool = False
    ) -> list[Any]:
        """Return members by rank, with `withscores` as pairs (member, score).

        Empty if the key is absent or no sorted set.
        """

        def run(client: Any) -> object:
            return client.zrange(key, start, end, withscores=withscores)

        members = self._of_kind("ZRANGE", key, run) or []
        return [tuple(pair) for pair in members] if withscores else list(members)

    def get_key_with_type_detection(self, key: str) -> Any:
        """Return a string or hash with the types that were stored, a list, a set, or a sorted set
        as pairs (member, score); None if the key is absent or of another kind. Text of a string or
        of a field that is JSON is what it stands for. Raises Unreachable."""
        redis_type = self._on("TYPE", key, lambda client: client.type(key))
        reader = _KINDS.get(redis_type)
        if reader is None:
            return None
        value = self._of_kind(redis_type.upper(), key, lambda client: reader(client, key))
        return [tuple(pair) for pair in value] if redis_type == "zset" and value else value

    def rotate_credentials(self, username: str, password: str) -> None:
        """Use another user or password from now on, if the server accepts them.

        Raises Unreachable, and the old ones stay.
        """
        self._redis.rotate(username, password)

    def get_metrics(self) -> JsonObject:
        """Return the figures of `RedisMetrics`, and of the server and the pool: memory
        {used_bytes, limit_bytes or None, share or None}, pool {size, in_use, idle}, and
        certificate_expires, an ISO time in UTC, with certificate_days, or None. Of a user without
        the right to INFO, the figures of memory are None."""
        figures = self._metrics.figures()
        info: JsonObject = {}
        with contextlib.suppress(redis.exceptions.NoPermissionError):
            info = self._redis.call("INFO", lambda client: client.info("memory"))
        used, limit = info.get("used_memory"), info.get("maxmemory") or None
        share = used / limit if used and limit else None
        figures["memory"] = {"used_bytes": used, "limit_bytes": limit, "share": share}
        in_use, idle = self._redis.connections()
        figures["pool"] = {"size": self.config.pool_size, "in_use": in_use, "idle": idle}
        expires = self._redis.certificate_expiry()
        figures["certificate_expires"] = expires and expires.isoformat()
        figures["certificate_days"] = expires and (expires - datetime.now(UTC)).days
        return figures

    def close(self) -> None:
        """Record the last figures and close the connections."""
        self._recorder.close()

    def flush(self, timeout: float | None = None) -> bool:
        """Record the figures, if a lake was given; whether it has them."""
        return self._recorder.flush(timeout)

    def _event(self) -> JsonObject:
        """The figures as an event; those of a server that is away without its own part."""
        try:
            figures, level = self.get_metrics(), "INFO"
        except (LakelogError, redis.RedisError) as error:
            figures, level = self._metrics.figures() | {"error": str(error)}, "WARN"
        return {
            "time": datetime.now(UTC),
            "type": "redis.metrics",
            "source": self.config.address,
            "level": "WARN" if _needs_attention(figures) else level,
            "data": figures,
        }

    def _on(self, command: str, key: str, run: Callable[[Any], object]) -> Any:
        self._metrics.access(key)
        return self._redis.call(command, run)

    def _of_kind(self, command: str, key: str, run: Callable[[Any], Any]) -> Any:
        """Return what a command reads; None if the key holds another kind of value."""
        try:
            return self._on(command, key, run)
        except redis.ResponseError as error:
            if not RedisClient.is_of_other_type(error):
                raise
            return None


def _checked(key: str, value: object, schema: ValueSchema | None) -> dict[str, str]:
    """Return the fields of a hash as texts. Raises ValueError."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{key}: a dict with at least one field is wanted")
    if schema is not None and (odd := sorted(map(str, schema.keys() ^ value.keys()))):
        raise ValueError(f"{key}: the schema and the value differ in {', '.join(odd)}")
    fields = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise ValueError(f"{key}: the name of a field is text, not {name!r}")
        if item is not None and not isinstance(item, str | int | float | bool):
            type_name = type(item).__name__
            raise ValueError(
                f"{key}: {name} is text, a number, true, false or null, no {type_name}"
            )
        if schema is not None and not _is_of(item, schema[name]):
            raise ValueError(f"{key}: the schema allows no {type(item).__name__} as {name}")
        fields[name] = _spelled(item)
    return fields


def _spelled(item: Scalar) -> str:
    """A value as text from which `_typed` makes it again: as JSON, but for text that is none."""
    if isinstance(item, str) and _typed(item) is item:
        return item
    return json.dumps(item)


def _has_no_number(value: object) -> bool:
    """Whether a float that JSON does not have is somewhere in a value."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_no_number, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_no_number, value))


def _typed(encoded: str | None) -> object:
    """Return what a text stands for as JSON; one that is no JSON as it is."""
    try:
        # Not orjson: integers of any size, NaN and infinity are written, too.
        return None if encoded is None else json.loads(encoded)
    except (ValueError, RecursionError):
        return encoded


def _is_of(item: Scalar, kinds: type | Sequence[type]) -> bool:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    # A bool is an int to Python, and not to whoever writes a schema.
    return isinstance(item, allowed) and (not isinstance(item, bool) or bool in allowed)


def _milliseconds(key: str, seconds: float) -> int:
    """Return a time to live in milliseconds. Raises ValueError."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if 0 < seconds * 1000 <= _TTL_MAX:
            return math.ceil(seconds * 1000)
    raise ValueError(f"{key}: a ttl is a number of seconds above 0, not {seconds!r}")


def _is_score(score: object) -> bool:
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    with contextlib.suppress(OverflowError):
        return is_number and not math.isnan(float(score))  # type: ignore[arg-type]
    return False  # an integer beyond what a double holds


def _needs_attention(figures: JsonObject) -> bool:
    memory = figures.get("memory", {}).get("share") or 0
    days = figures.get("certificate_days")
    is_expiring = days is not None and days < _EXPIRY_DAYS
    return (figures["error_rate"] or 0) > _ERROR_RATE or memory > _MEMORY_SHARE or is_expiring


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
