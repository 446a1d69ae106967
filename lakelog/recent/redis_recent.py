"""The newest entries of a lake in Redis, as lists: kept up to date beside a watcher, and read.

    P = lakelog:{LAKE:BRANCH}    hash: generation, version, watermark, keep, ttl, and size:G:K, how
                                 many names the index K of a generation has; size:G:n
                                 is how often it was written before its watermark
    P:generations                set: the generations of which there may be keys
    P:G:KEY                      list of generation G: entries as JSON, the newest first
    P:G:index:K                  sorted set: names of the lists of a kind by their last arrival (ms)

KEY is `a:` (all), `s:SOURCE`, `l:LEVEL`, or `p:BYTES:LEVEL:SOURCE` for both, BYTES being the length
of LEVEL; K is the first letter. Each list has the newest `keep` entries. With a TTL it expires so
many seconds after the arrival of its last entry. All keys are of one hash slot. Lists, and not
streams or sorted sets: reading a hundred entries of one takes a third of the time.

A script writes the entries of a range of seq and the watermark at once, if the version is the one
that was read; so a lost reply, a crash or a second feeder neither loses nor doubles an entry. Where
events left the lake, or Redis lost its data or evicted a list or an index, another generation is
filled beside the one that is read, and takes its place with its last entries. States are compared
as for databases (delta.py).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from lakelog.clients import RedisClient, RedisConfig
from lakelog.errors import Unreachable
from lakelog.files import FileCursor, LogName
from lakelog.lake import Lake
from lakelog.libraries import pa
from lakelog.manifest import Manifest
from lakelog.runtime.lazy import Lazy
from lakelog.runtime.tables import ModuleFiles
from lakelog.sync import Watermark
from lakelog.values import JsonObject

if TYPE_CHECKING:
    from redis.client import Pipeline
redis = Lazy("redis")

KEEP = 1000
"""Entries of each source, level and both that are kept."""
KEEP_MAX = 100_000
_DROPPED = 1000
"""Lists of an older generation that are deleted at once."""
TEXT_MAX = 8192
"""Longer contents are cut to so many characters, longer data is left out; `truncated` says so."""

WRITE = ModuleFiles(__file__).text("write.lua")
SOURCE = "coalesce(nullif(source, ''), base, '')"
_CONTENT = "coalesce(nullif(message, ''), nullif(data, ''), nullif(subject, ''), '')"


def _text(name: str, value: str) -> str:
    return f"""'"{name}":' || to_json({value})::VARCHAR"""


_IS_LONG = f"length(coalesce(data, '')) > {TEXT_MAX} OR length({_CONTENT}) > {TEXT_MAX}"
# A newline in data can only be a space between its members, and ends an entry in the script.
_DATA = f"""CASE WHEN length(data) > {TEXT_MAX} THEN NULL WHEN NOT json_valid(data)
    THEN {_text("data", "data")} ELSE '"data":' || translate(data, chr(10) || chr(13), '  ') END"""
_METADATA = ", ".join(
    [
        *(
            f"CASE WHEN {name} <> '' THEN {_text(name, name)} END"
            for name in ("type", "category", "subject", "id")
        ),
        "CASE WHEN position <> 0 THEN '\"position\":' || position END",
        f"CASE WHEN path <> '' THEN {_text('file', 'path')} END",
        f"""CASE WHEN {_IS_LONG} THEN '"truncated":true' END""",
        _DATA,  # the last, see _parse
    ]
)
ENTRY = f"""'{{"seq":' || coalesce(seq::VARCHAR, 'null') || ',"timestamp":"' ||
    strftime(make_timestamp(epoch_us(time)), '%Y-%m-%dT%H:%M:%S.%fZ') || '",' ||
    {_text("source", SOURCE)} || ',' || {_text("content", f"left({_CONTENT}, {TEXT_MAX})")} ||
    ',' || {_text("level", "coalesce(nullif(level, ''), 'INFO')")} ||
    ',"metadata":{{' || concat_ws(',', {_METADATA}) || '}}}}'"""
"""SQL of an entry as JSON: that of LogEntry, with seq."""


class RecentEntry(NamedTuple):
    """An event as an entry of a log: what it has beyond time, source, text and level is metadata.

    `seq` is None for one that is not published yet. `metadata` has, where present, type, category,
    subject, id, position, data, file, and `truncated` where a text was cut.
    """

    seq: int | None
    timestamp: datetime
    source: str
    content: str
    level: str
    metadata: JsonObject


@dataclass(frozen=True)
class RecentStatus:
    """How far Redis is: the version of what is there, and published events that it lacks."""

    version: int
    keep: int
    ttl: float
    entries_behind: int | None
    """None where Redis has nothing of this lake and branch."""


def prefix_of(lake: Lake) -> str:
    """Return what all keys of a branch of a lake begin with."""
    return f"lakelog:{{{lake.store.lake_id}:{lake.branch_name}}}"


class RecentEntries:
    """Answers look-ups from Redis; safe for threads.

    Methods raise Unreachable where it cannot answer: it is away, or has nothing of this branch.
    """

    def __init__(self, lake: Lake, client: RedisClient) -> None:
        self._lake, self._client, self._prefix = lake, client, prefix_of(lake)
        self._generation, self._ttl = "", 0

    def latest(
        self, source: str | None = None, level: str | None = None, limit: int = 100
    ) -> list[RecentEntry]:
        """Return the newest entries of a source, a level, both or all, the newest first.

        There are at most as many as are kept.
        """
        # Levels of lists are in capitals.
        return self._read([key_of(source, level and level.upper())], limit)

    def search(
        self,
        source: str | None = None,
        level: str | None = None,
        match: str | None = None,
        limit: int = 100,
    ) -> list[RecentEntry]:
        """Return the newest kept entries whose source matches a glob and whose content has a text.

        `match` is a part of the content, or a glob of all of it if it has one of `*?[`.
        """
        level = level and level.upper()
        keys = [key_of(None, level)]
        if source is not None:
            keys = [key_of(source, level)]
            if _is_glob(source):
                keys = [key_of(name, level) for name in self.sources(source)]
        if match is None and len(keys) < 2:
            return self._read(keys, limit)
        matches: list[RecentEntry] = []
        # A few at a time: that bounds what is held, and Redis answers others between.
        for start in range(0, len(keys), 16):
            # With a condition on the text all kept entries have to be looked at.
            count = limit if match is None else KEEP_MAX
            matches += filter(_matcher(match), self._read(keys[start : start + 16], count))
            matches = sorted(matches, key=lambda entry: -(entry.seq or 0))[:limit]
        return matches

    def sources(self, pattern: str = "*") -> list[str]:
        """Return the sources that match a glob, those with the newest entries first."""

        def index(base: str, pipe: Pipeline) -> None:
            pipe.hget(self._prefix, size_of(base, "s"))
            pipe.zrevrange(f"{base}:index:s", 0, -1)

        size, names = self._ask(index)
        self._require_index(size, len(names))
        # Globs are compared here: those of Redis have another syntax.
        return [name for name in names if fnmatch.fnmatchcase(name, pattern)]

    def status(self) -> RecentStatus:
        """Compare what is in Redis with the published events of the lake."""
        fields = self._client.call("HGETALL", lambda client: client.hgetall(self._prefix))
        state = self._lake.store.state(self._lake.branch_name)
        if "watermark" not in fields:
            return RecentStatus(0, 0, 0, None)
        mark = Watermark.parse(fields["watermark"], self._client.config.address)
        lag = events_behind(self._lake, mark, state)
        return RecentStatus(mark.version, int(fields["keep"]), int(fields["ttl"]) / 1000, lag)

    def _read(self, keys: list[str], limit: int) -> list[RecentEntry]:
        if limit < 1 or not keys:
            return []

        def lists(base: str, pipe: Pipeline) -> None:
            for key in keys:
                pipe.lrange(f"{base}:{key}", 0, limit - 1)

        lists_of_lines = self._ask(lists)
        # An empty list may have expired, or been thrown away.
        missing = [key for key, lines in zip(keys, lists_of_lines, strict=True) if not lines]
        if missing:
            self._require_expired(missing)
        return parse_entries([line for lines in lists_of_lines for line in lines])

    def _require_expired(self, keys: list[str]) -> None:
        """Lists that the index has are there, or expired: else Redis evicted them, or the index."""

        def scores(base: str, pipe: Pipeline) -> None:
            for key in keys:
                pipe.hget(self._prefix, size_of(base, key[0]))
                pipe.zcard(f"{base}:index:{key[0]}")
                pipe.zscore(f"{base}:index:{key[0]}", key[2:])
            pipe.time()

        *scores_of_lists, (clock, _) = self._ask(scores)
        for size, names, arrived in zip(
            scores_of_lists[::3], scores_of_lists[1::3], scores_of_lists[2::3], strict=True
        ):
            self._require_index(size, names)
            # A second more: the list may have expired between the two looks.
            if arrived and (not self._ttl or arrived + self._ttl > (clock + 1) * 1000):
                raise self._absence("all ", "it evicted some")

    def _require_index(self, size: str | None, names: int) -> None:
        """An index has as many names as were written: else Redis evicted it."""
        if int(size or 0) > names:
            raise self._absence("all ", "it evicted some")

    def _ask(self, commands: Callable[[str, Pipeline], object]) -> list[Any]:
        """Run commands on the keys of the generation that is read; return their replies."""

        def run(client: Any) -> list[Any]:
            while True:
                generation = self._generation
                pipe = client.pipeline(transaction=False)
                if generation:
                    commands(f"{self._prefix}:{generation}", pipe)
                # The last: what was read before is of the generation that this still names.
                pipe.hmget(self._prefix, "generation", "ttl")
                *replies, (current, ttl) = pipe.execute()
                if current is None:
                    raise self._absence()
                self._generation, self._ttl = current, int(ttl)
                # Another generation took its place while we read: it is read again.
                if current == generation:
                    return list(replies)

        try:
            return self._client.call("RECENT", run)
        except redis.RedisError as error:
            raise Unreachable(words_of(self._client.config, error)) from None

    def _absence(self, share: str = "", reason: str = "none were written yet") -> Unreachable:
        return Unreachable(
            f"{self._client.config.address} does not have {share}the recent entries of this branch:"
            f" {reason}; they are written by lakelog watch --redis-url"
        )


def from_lake(
    lake: Lake,
    source: str | None = None,
    level: str | None = None,
    match: str | None = None,
    limit: int = 100,
) -> list[RecentEntry]:
    """Return what `RecentEntries.search` does, from the lake: all of it, live events included."""
    state = lake.store.state(lake.branch_name)
    all_cursors = FileCursor.of_state(lake.store, state)
    names = names_table({cursor.origin: cursor.name for cursor in all_cursors})
    conditions, values = ["true"], list[object]()
    for pattern, column in ((source, SOURCE), (match, _CONTENT)):
        if pattern is None:
            continue
        values.append(pattern)
        if _is_glob(pattern):
            conditions.append(f"{column} GLOB ${len(values)}")
        elif column == _CONTENT:
            conditions.append(f"contains({column}, ${len(values)})")
        else:
            conditions.append(f"{column} = ${len(values)}")
    if level is not None:
        values.append(level.upper())
        conditions.append(f"upper(level) = ${len(values)}")
    named = "FROM events LEFT JOIN names USING (origin)"
    condition = " AND ".join(conditions)
    # Chosen by what is small: sorting their entries would write those of all events.
    query = f"""WITH newest AS MATERIALIZED (SELECT seq FROM ({named})
            WHERE {condition} ORDER BY seq DESC LIMIT {max(limit, 0)})
        SELECT {ENTRY} FROM ({named}) WHERE seq IN (FROM newest) ORDER BY seq DESC"""
    rows = lake.sql(query, values or None).fetchall()
    del names  # the query read it by this name
    return parse_entries([row[0] for row in rows])


def parse_entries(lines: list[str]) -> list[RecentEntry]:
    """Return the entries of texts in JSON."""
    try:
        records = orjson.loads(f"[{','.join(lines)}]")
    except orjson.JSONDecodeError:
        records = [_parse(line) for line in lines]
    # Not by the class: its constructor, written in Python, takes a tenth of a look-up.
    new, moment = tuple.__new__, datetime.fromisoformat
    return [
        new(
            RecentEntry,
            (
                record["seq"],
                # In this order, which is that of the class.
                moment(record["timestamp"]),
                record["source"],
                record["content"],
                record["level"],
                record["metadata"],
            ),
        )
        for record in records
    ]


def _parse(line: str) -> JsonObject:
    """Return an entry; data that the engine accepts and no JSON reader does stays text."""
    record: JsonObject
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        # No earlier string has this text in it, for its quotes would be escaped.
        head, _, data = line.partition('"data":')
        record = orjson.loads(f"{head.rstrip(',')}}}}}")
        record["metadata"]["data"] = data[:-2]
    return record


def key_of(source: str | None, level: str | None) -> str:
    """Return the name of a list without prefix and generation; levels are in capitals."""
    if level is None:
        return "a:" if source is None else f"s:{source}"
    if source is None:
        return f"l:{level}"
    # Lengths in front: sources and levels may have colons in them.
    return f"p:{len(level.encode('utf-8', 'surrogateescape'))}:{level}:{source}"


def size_of(base: str, index: str) -> str:
    """Return the field that says how many names an index of a generation has; and, for "n", how
    often that was written before its watermark."""
    return f"size:{base.rpartition(':')[2]}:{index}"


def drop(call: Callable[..., Any], prefix: str, generation: str) -> None:
    """Delete the lists of a generation, then what names them; `call` sends a command."""
    base, is_whole = f"{prefix}:{generation}", True
    for letter in "aslp":
        index = f"{base}:index:{letter}"
        is_whole &= call("ZCARD", index) >= int(call("HGET", prefix, size_of(base, letter)) or 0)
        while names := call("ZRANGE", index, 0, _DROPPED - 1):
            # UNLINK frees the memory beside the server's main thread.
            call("UNLINK", *(f"{base}:{letter}:{name}" for name in names))
            call("ZREM", index, *names)
    cursor: Any = None
    # Of an index that was evicted the lists are found among all keys.
    while not is_whole and cursor != 0:
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", base) + ":*"
        cursor, keys = call("SCAN", cursor or 0, "MATCH", pattern, "COUNT", _DROPPED)
        if keys:
            call("UNLINK", *keys)
    call("HDEL", prefix, *(size_of(base, letter) for letter in "aslpn"))
    call("SREM", f"{prefix}:generations", generation)


def _is_glob(pattern: str) -> bool:
    return any(mark in pattern for mark in "*?[")


def _matcher(match: str | None) -> Callable[[RecentEntry], bool]:
    if match is None:
        return lambda entry: True
    if not _is_glob(match):
        return lambda entry: match in entry.content
    # Compiled once for all entries.
    matches = re.compile(fnmatch.translate(match)).match
    return lambda entry: matches(entry.content) is not None


def events_behind(lake: Lake, mark: Watermark, state: Manifest) -> int:
    """Count the events of a state that a watermark does not cover."""
    if mark.events >= 0:
        return max(0, state.totals.events - mark.events)
    entries = lake.store.manifests.segments(state, "events")
    return sum(entry.events for entry in entries if entry.seq[1] >= mark.upto)


def names_table(paths: dict[str, str]) -> pa.Table:
    """Return origins of files with their paths and names, as the SQL of an entry wants them.

    Both are those of the log: a rotation that comes later changes neither.
    """
    names = [LogName(path).base for path in paths.values()]
    folders = [path.rpartition("/")[0] for path in paths.values()]
    logs = [
        f"{folder}/{name}" if folder else name for folder, name in zip(folders, names, strict=True)
    ]
    columns = [[*paths], logs, names]
    return pa.table(
        [pa.array(column, pa.string()) for column in columns], names=["origin", "path", "base"]
    )


def is_full(error: Exception) -> bool:
    """Whether a server has refused a write for want of memory."""
    # Of a script it says so in its own words.
    return isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM command" in str(error)


def words_of(config: RedisConfig, error: Exception) -> str:
    """Return in one line what the server says of a command, and what to do about it."""
    message = " ".join(str(error).split())[:200]
    if is_full(error):
        return f"{config.address} is full: raise its maxmemory, or keep fewer entries"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return (
            f"{config.address} does not let this user write recent entries: give it"
            " ~lakelog:* +@read +@write +@scripting +ping +time +select"
        )
    return f"{config.address}: {message}"
