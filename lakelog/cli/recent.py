"""recent: the newest entries from Redis; and the options of verbs that keep them there."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import click

from lakelog.cli.app import App, verb
from lakelog.cli.options import combined, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit
from lakelog.cli.render.terminal import many
from lakelog.clients import RedisClient, RedisConfig
from lakelog.errors import Unreachable
from lakelog.lake import Lake
from lakelog.recent import KEEP, RecentEntries, RecentEntry, RecentFeeder, from_lake
from lakelog.render import QueryResult, text
from lakelog.settings import span_us

_URL = option(
    "--redis-url URL",
    "redis://HOST:PORT/DB, or rediss:// with TLS. User and password from REDIS_USERNAME"
    " and REDIS_PASSWORD.",
)


@dataclass(frozen=True)
class RedisPlan:
    """What of the newest entries is kept in which Redis; `ttl` in seconds."""

    config: RedisConfig
    keep: int | None
    ttl: float | None

    def feeder(self, lake: Lake, say: Callable[[str], None]) -> RecentFeeder:
        """Return what keeps it, not started. Raises InvalidSetting."""
        return RecentFeeder(lake, self.config, keep=self.keep, ttl=self.ttl, say=say)


def _plan(
    *, redis_url: str | None, redis_keep: int | None, redis_ttl: str | None
) -> RedisPlan | None:
    if redis_url is not None:
        ttl = span_us(redis_ttl) / 1e6 if redis_ttl is not None else None
        return RedisPlan(RedisConfig.from_url(redis_url), redis_keep, ttl)
    if redis_keep is not None or redis_ttl is not None:
        raise click.UsageError("nothing is kept in Redis without --redis-url URL")
    return None


REDIS = combined(
    _plan,
    redis_url=_URL,
    redis_keep=option(
        "--redis-keep N", f"Newest entries of each source and level in Redis; {KEEP:,} by default."
    ),
    redis_ttl=option(
        "--redis-ttl SPAN", "Let a source's entries expire so long after its last one, such as 7d."
    ),
)
"""Of which a verb gets its RedisPlan, None without --redis-url."""


@verb()
def recent(
    app: App,
    source: str | None = option("--source GLOB", "Only of sources with this name, or like it."),
    level: str | None = option("--level LEVEL", "Only of this level."),
    match: str | None = option("--match TEXT", "Only with this in their content; or a glob of it."),
    count: int = option(
        "-n N",
        "Number of entries to show, the newest first.",
        type=click.IntRange(min=0),
        shown=100,
    ),
    rebuild: bool = flag("--rebuild", "Fill Redis again from the lake."),
    redis_url: str | None = _URL,
    target: OutputTarget = OUTPUT,
) -> None:
    """Show the newest entries, from Redis where `watch --redis-url` keeps them.

    Redis has the newest entries of each source and level. Without --redis-url it is
    the one that REDIS_HOST and its companions name. If it does not answer, the lake
    does, and a line says so.
    """
    config = RedisConfig.from_env() if redis_url is None else RedisConfig.from_url(redis_url)
    with app.open() as lake:
        if rebuild:
            with contextlib.closing(RecentFeeder(lake, config, say=app.say)) as feeder:
                rebuilt_entries = feeder.rebuild()
            app.say(f"{config.address}: {many(rebuilt_entries, 'entry', 'entries')} written")
            return
        records = [
            {**entry._asdict(), "timestamp": text(entry.timestamp)}
            for entry in _look_up(app, lake, config, source, level, match, count)
        ]
    columns = RecentEntry._fields
    # People read lines of a log: numbers and metadata are for programs.
    table = QueryResult.of_records([{k: r[k] for k in columns[1:5]} for r in records], columns[1:5])
    emit(records, target, table, columns)


def _look_up(
    app: App,
    lake: Lake,
    config: RedisConfig,
    source: str | None,
    level: str | None,
    match: str | None,
    count: int,
) -> list[RecentEntry]:
    # Whoever waits at a terminal has the lake at hand: no long patience with Redis.
    hasty = dataclasses.replace(config, retries=1, timeout=2.0)
    try:
        with contextlib.closing(RedisClient(hasty)) as client:
            entries = RecentEntries(lake, client)
            matches = entries.search(source, level, match, count)
            # Asked in the same session: two answers of Redis could belong to different fillings.
            lag = entries.status().entries_behind
    except Unreachable as error:
        app.say(f"{error}; these are from the lake")
        return from_lake(lake, source, level, match, count)
    if lag:
        app.say(f"Redis is {many(lag, 'event')} behind the lake")
    return matches
