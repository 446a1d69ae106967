"""LakeHandler: what a program logs is found again by SQL."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

import lakelog
from lakelog.loggers.handler import LineEncoder, event_of
from lakelog.loggers.values import encode_event
from tests.conftest import MakeLake
from tests.support.processes import environment

Log = Callable[..., logging.Logger]


@pytest.fixture
def log(make_lake: MakeLake) -> Iterator[Log]:
    """Make loggers with a handler on the lake of the test."""
    opened: list[tuple[logging.Logger, logging.Handler]] = []

    def make(name: str = "shop.cart", **options: Any) -> logging.Logger:
        handler = lakelog.LakeHandler(make_lake(), **options)
        logger = logging.getLogger(name)
        logger.setLevel(1)
        logger.propagate = False
        logger.addHandler(handler)
        opened.append((logger, handler))
        return logger

    yield make
    for logger, handler in opened:
        logger.removeHandler(handler)
        handler.close()


def lake_handler(logger: logging.Logger) -> lakelog.LakeHandler:
    """Our handler of a logger, which has one of the test runner too."""
    return next(h for h in logger.handlers if isinstance(h, lakelog.LakeHandler))


def rows(logger: logging.Logger, lake: lakelog.Lake) -> list[dict[str, Any]]:
    """The events of a lake once all that was logged is stored, in order."""
    lake_handler(logger).flush()
    names = ["type", "source", "level", "message", "data", "time", "id"]
    found = lake.sql(f"SELECT {', '.join(names)} FROM events ORDER BY time, seq").fetchall()
    events = [dict(zip(names, row, strict=True)) for row in found]
    return [event | {"data": orjson.loads(event["data"])} for event in events]


def test_a_record_is_found_with_its_fields(log: Log, make_lake: MakeLake) -> None:
    """Columns and payload are those of the record; `extra` becomes members of `data`."""
    logger = log()
    logger.warning("paid %s of %d", "half", 3, extra={"user": "ann", "cart": {"items": [1, 2]}})
    (event,) = rows(logger, make_lake())
    assert (event["type"], event["source"], event["level"]) == ("log", "shop.cart", "WARN")
    assert event["message"] == "paid half of 3"
    data = event["data"]
    assert (data["user"], data["cart"]) == ("ann", {"items": [1, 2]})
    assert data["code"]["file"] == __file__
    assert data["code"]["function"] == "test_a_record_is_found_with_its_fields"
    assert data["thread"] == "MainThread"


@pytest.mark.parametrize(
    ("number", "level"),
    [(10, "DEBUG"), (20, "INFO"), (30, "WARN"), (40, "ERROR"), (50, "FATAL"), (5, "TRACE")],
)
def test_levels_are_severities(number: int, level: str, log: Log, make_lake: MakeLake) -> None:
    """Python's levels under the names that every source of a lake uses."""
    logger = log()
    logger.log(number, "x")
    assert rows(logger, make_lake())[0]["level"] == level


def test_a_level_of_ones_own_keeps_its_name(log: Log, make_lake: MakeLake) -> None:
    """A name that is no severity stays, in capitals; a number without a name is rounded down."""
    logging.addLevelName(35, "Audit")
    logger = log()
    logger.log(35, "x")
    logger.log(33, "x")
    assert [e["level"] for e in rows(logger, make_lake())] == ["AUDIT", "WARN"]


def test_an_exception_is_data(log: Log, make_lake: MakeLake) -> None:
    """Type, message, frames and cause can be asked for by SQL; nothing is a text to be parsed."""
    logger = log()
    try:
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("no such cart") from error
    except ValueError:
        logger.exception("failed")
    (event,) = rows(logger, make_lake())
    error = event["data"]["exception"]
    assert (error["type"], error["message"]) == ("ValueError", "no such cart")
    assert error["frames"][-1]["code"] == 'raise ValueError("no such cart") from error'
    assert error["frames"][-1]["file"] == __file__
    assert error["cause"]["type"] == "KeyError"
    query = "SELECT data->>'$.exception.cause.message' FROM events"
    assert make_lake().sql(query).fetchall() == [("'missing'",)]


def test_arguments_that_do_not_fit_are_kept(log: Log, make_lake: MakeLake) -> None:
    """A wrong format string is the program's mistake, but not a reason to lose the record."""
    logger = log()
    given = {"msg": "%d items", "args": ("many",), "levelno": 20, "levelname": "INFO"}
    record = logging.makeLogRecord(given)
    lake_handler(logger).handle(record)  # a handler of the test's own runner would raise
    (event,) = rows(logger, make_lake())
    assert (event["message"], event["data"]["args"]) == ("%d items", ["many"])


def test_values_without_a_form_in_json_do_not_raise(log: Log, make_lake: MakeLake) -> None:
    """The rules of `values` apply to `extra` and to messages."""
    logger = log(strict=True)
    # The test runner's own handler would put the message into a report that has to be UTF-8.
    logger.handlers = [lake_handler(logger)]
    ring: dict[str, Any] = {}
    ring["self"] = ring
    logger.info("a\ud83db", extra={"nan": math.nan, "ring": ring, "raw": b"\xff", "f": object()})
    (event,) = rows(logger, make_lake())
    assert event["message"] == "a?b"
    assert event["data"]["nan"] == "NaN"
    assert event["data"]["ring"] == {"self": "<cycle>"}
    assert event["data"]["raw"] == "\\xff"


@pytest.mark.parametrize(
    ("given", "column", "stored"),
    [
        ({"pathname": "/caf\udce9/shop.py"}, "source", "n"),
        ({"name": "caf\udce9"}, "source", "caf?"),
        ({"threadName": "caf\udce9"}, "source", "n"),
        ({"created": -0.5}, "time", datetime(1969, 12, 31, 23, 59, 59, 500_000, UTC)),
        ({"created": -31e9}, "time", datetime(987, 8, 25, 16, 53, 20, tzinfo=UTC)),
    ],
)
def test_a_record_with_an_odd_place_or_time_is_stored(
    log: Log, make_lake: MakeLake, given: dict[str, Any], column: str, stored: object
) -> None:
    """A program in a directory whose name is no UTF-8, and records of other machines."""
    logger = log(strict=True)
    record = logging.makeLogRecord({"name": "n", "levelno": 20, "levelname": "INFO", **given})
    lake_handler(logger).handle(record)
    (event,) = rows(logger, make_lake())
    assert event[column] == stored


@pytest.mark.parametrize(
    "given",
    [
        {"msg": "plain"},
        {"msg": "é %s", "args": ("ü",)},
        {"msg": "extra", "user": "ann", "n": None, "x": math.nan, "big": 2**70},
        {"msg": {"a": 1}},
        {"levelno": 25, "levelname": "NOTICE", "msg": "own level"},
        {"created": 1_770_000_000.25, "msg": "\x1b[31m red \0"},
        {"threadName": 'a"b', "pathname": "C:\\x.py", "name": 'q"', "msg": "quotes"},
    ],
)
def test_both_ways_to_encode_a_record_agree(given: dict[str, Any]) -> None:
    """The quick way, which puts text together, gives the event that the full one gives."""
    record = logging.makeLogRecord({"name": "n", "levelno": 20, "levelname": "INFO", **given})
    quick = LineEncoder().line(record)
    assert quick is not None
    assert json.loads(quick) == json.loads(encode_event(event_of(record)))


def test_context_variables_are_recorded(log: Log, make_lake: MakeLake) -> None:
    """Each variable that is set is a member of `data`, by its name."""
    request: ContextVar[str] = ContextVar("request_id")
    logger = log(context=[request])
    logger.info("outside")
    request.set("r-1")
    logger.info("inside")
    outside, inside = rows(logger, make_lake())
    assert "request_id" not in outside["data"]
    assert inside["data"]["request_id"] == "r-1"


def test_redact_decides_what_is_stored(log: Log, make_lake: MakeLake) -> None:
    """The hook may change an event or drop it; one that fails refuses it, unredacted."""

    def redact(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["message"] == "drop":
            return None
        if event["message"] == "fail":
            raise RuntimeError("hook")
        event["message"] = event["message"].replace("secret", "***")
        return {"data": event["data"], **event}

    logger = log(redact=redact)
    for message in ("a secret", "drop", "fail", "plain"):
        logger.info(message)
    assert [e["message"] for e in rows(logger, make_lake())] == ["a ***", "plain"]
    assert lake_handler(logger).stats().refused == 1


@pytest.mark.parametrize(
    "broken", [{"time": "yesterday"}, {"time": 1e300}, {"type": None}, {"type": {"a": 1}}]
)
def test_what_redact_breaks_is_refused(
    log: Log, make_lake: MakeLake, broken: dict[str, Any]
) -> None:
    """An event that `lake.append` would refuse: one such line keeps all others from being read."""
    logger = log(redact=lambda event: event | broken if event["message"] == "odd" else event)
    for message in ("before", "odd", "behind"):
        logger.info(message)
    assert [e["message"] for e in rows(logger, make_lake())] == ["before", "behind"]
    assert lake_handler(logger).stats().refused == 1


def test_what_redact_adds_is_stored_as_an_append_stores_it(log: Log, make_lake: MakeLake) -> None:
    """A level as the program writes it, a member of its own, and an id, which is stored once."""
    logger = log(redact=lambda event: event | {"level": "notice", "tenant": "a", "id": "é 1"})
    logger.info("same", extra={"id": "é 1"})
    lake_handler(logger).flush()
    logger.info("same", extra={"id": "é 1"})
    (event,) = rows(logger, make_lake())
    assert (event["level"], event["id"], event["data"]["id"]) == ("INFO", "é 1", "é 1")
    assert event["data"]["tenant"] == "a"


def test_sampling_keeps_whole_traces(log: Log, make_lake: MakeLake) -> None:
    """A part of the events is stored, and those of one trace share their lot."""
    trace: ContextVar[str] = ContextVar("traceId")
    logger = log(sample=0.5, context=[trace])
    for number in range(200):
        trace.set(f"{number:032x}")
        logger.info("one")
        logger.info("two")
    kept = [e["data"]["traceId"] for e in rows(logger, make_lake())]
    assert 100 < len(kept) < 300
    assert all(kept.count(each) == 2 for each in kept)


def test_a_strict_handler_raises(log: Log) -> None:
    """Who asks for errors gets them; else they are counted."""

    def fail(event: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("hook")

    with pytest.raises(RuntimeError, match="hook"):
        log(redact=fail, strict=True).info("x")


def test_concurrent_threads_store_each_record_once(log: Log, make_lake: MakeLake) -> None:
    """Records of many threads are all there, those of each thread in its order."""
    logger = log()

    def work(number: int) -> None:
        for i in range(2_000):
            logger.info("m", extra={"n": number, "i": i})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lake_handler(logger).flush()
    query = "SELECT (data->>'n')::INT, list((data->>'i')::INT ORDER BY seq) FROM events GROUP BY 1"
    found = dict(make_lake().sql(query).fetchall())
    assert found == {n: list(range(2_000)) for n in range(4)}


def test_two_handlers_of_one_lake_share_a_queue(log: Log, make_lake: MakeLake) -> None:
    """A program with ten handlers has one writer, and closing one leaves the others working."""
    first, second = log("a"), log("b")
    first.info("1")
    lake_handler(first).close()
    second.info("2")
    assert [e["message"] for e in rows(second, make_lake())] == ["1", "2"]


def test_a_path_becomes_a_lake(home: Path) -> None:
    """One line in an existing program, and no set-up before it."""
    handler = lakelog.LakeHandler(home / "new")
    handler.handle(logging.makeLogRecord({"msg": "first", "levelno": 20, "levelname": "INFO"}))
    handler.close()
    with lakelog.open(home / "new", create=False) as lake:
        assert lake.count() == 1


def test_a_handler_that_cannot_be_made_is_none(tmp_path: Path) -> None:
    """Where no lake can be, that is the only error: logging does not flush such a handler at exit,
    which would be a second one."""
    (tmp_path / "file").touch()
    with pytest.raises((OSError, lakelog.LakelogError)):
        lakelog.LakeHandler(tmp_path / "file" / "lake")
    code = "import lakelog, sys; lakelog.LakeHandler(sys.argv[1])"
    command = [sys.executable, "-c", code, tmp_path / "file" / "lake"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.stderr.count("Traceback") == 1


def test_what_has_no_text_is_named_by_its_type(log: Log, make_lake: MakeLake) -> None:
    """A record is stored also if its message, or a note of its exception, cannot be printed."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    logger, failure = log(), ValueError("failed")
    failure.__notes__ = [Broken(), "kept"]
    # The handler of the test runner would raise.
    for record in ({"msg": Broken()}, {"msg": "noted", "exc_info": (ValueError, failure, None)}):
        lake_handler(logger).handle(logging.makeLogRecord({"levelno": 40, **record}))
    bare, noted = rows(logger, make_lake())
    assert bare["message"] == "<Broken>"
    assert noted["data"]["exception"]["notes"] == ["<Broken>", "kept"]
