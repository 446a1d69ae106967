"""structlog and loguru, the real packages: what they log is found with its fields."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
import pytest
import structlog
from loguru import logger as loguru_logger

import lakelog
from tests.conftest import MakeLake


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """Leave both packages as they were."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def events(lake: lakelog.Lake) -> list[dict[str, Any]]:
    """The events of a lake, in order."""
    names = ["time", "type", "source", "level", "message", "data"]
    found = lake.sql(f"SELECT {', '.join(names)} FROM events ORDER BY seq").fetchall()
    rows = [dict(zip(names, row, strict=True)) for row in found]
    return [row | {"data": orjson.loads(row["data"])} for row in rows]


class Rendered(list[Any]):
    """A renderer that keeps what it is given."""

    def __call__(self, logger: Any, method: str, event_dict: Any) -> str:
        self.append(dict(event_dict))
        return ""


def configured(lake: lakelog.Lake, *before: Any) -> tuple[lakelog.StructlogProcessor, Rendered]:
    processor, rendered = lakelog.StructlogProcessor(lake), Rendered()
    structlog.configure(processors=[*before, processor, rendered], cache_logger_on_first_use=False)
    return processor, rendered


def test_a_structlog_event_is_stored_and_passed_on(make_lake: MakeLake) -> None:
    """Bound values and those of context variables are members; the renderer sees all as before."""
    lake = make_lake()
    processor, rendered = configured(
        lake,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    )
    structlog.contextvars.bind_contextvars(request="r-1")
    structlog.get_logger().bind(user="ann").warning("paid", amount=1.5, logger="shop")
    assert processor.flush()
    (event,) = events(lake)
    assert (event["type"], event["source"], event["level"]) == ("log", "shop", "WARN")
    assert event["message"] == "paid"
    assert event["data"] == {"request": "r-1", "user": "ann", "amount": 1.5}
    assert rendered[0]["event"] == "paid"
    assert rendered[0]["level"] == "warning"
    assert event["time"] == datetime.fromisoformat(rendered[0]["timestamp"])


def test_a_structlog_exception_is_data(make_lake: MakeLake) -> None:
    """`exc_info` becomes type, message and frames, and is passed on for the renderer."""
    lake = make_lake()
    processor, rendered = configured(lake)
    try:
        raise ValueError("no")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert processor.flush()
    (event,) = events(lake)
    assert event["level"] == "ERROR"
    assert event["data"]["exception"]["type"] == "ValueError"
    assert event["data"]["exception"]["frames"][-1]["code"] == 'raise ValueError("no")'
    assert rendered[0]["exc_info"] is True


def test_structlog_in_front_of_logging(make_lake: MakeLake) -> None:
    """With the logger factory of the standard library the name of the logger is the source."""
    lake = make_lake()
    processor, _ = configured(
        lake, structlog.stdlib.add_logger_name, structlog.stdlib.add_log_level
    )
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    logging.getLogger("a.b").setLevel(logging.CRITICAL)
    structlog.get_logger("a.b").info("x")
    assert processor.flush()
    assert [e["source"] for e in events(lake)] == ["a.b"]


def test_the_formatter_of_structlog_in_front_of_a_handler(make_lake: MakeLake) -> None:
    """The set-up that structlog documents for the standard library: events come as messages of
    `logging`, beside those of other loggers. A handler stores both, and so does a processor among
    those of the formatter."""
    stdlib, shared = structlog.stdlib, [structlog.stdlib.add_log_level]
    shared += [structlog.stdlib.add_logger_name, structlog.processors.TimeStamper(fmt="iso")]
    structlog.configure(
        processors=[*shared, stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=stdlib.LoggerFactory(),
        wrapper_class=stdlib.BoundLogger,
    )
    direct, within = make_lake("direct"), make_lake("within")
    processor, stream = lakelog.StructlogProcessor(within), logging.StreamHandler(io.StringIO())
    stream.setFormatter(
        stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[processor, structlog.processors.JSONRenderer(str)]
        )
    )
    handlers = [lakelog.LakeHandler(direct), stream]
    logger = logging.getLogger("shop")
    logger.setLevel(logging.INFO)
    try:
        for handler in handlers:
            logger.addHandler(handler)
        structlog.get_logger("shop").bind(user="ann").warning("paid", name="x", amount=1.5)
        try:
            raise ValueError("no")
        except ValueError:
            structlog.get_logger("shop").exception("failed")
        logger.info("of %s", "others", extra={"n": 1})
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.flush()
    assert processor.flush()
    columns = [("shop", "WARN", "paid"), ("shop", "ERROR", "failed"), ("shop", "INFO", "of others")]
    for lake in (direct, within):
        paid, failed, _ = rows = events(lake)
        assert [(e["source"], e["level"], e["message"]) for e in rows] == columns
        wanted = {"user": "ann", "name": "x", "amount": 1.5}
        assert {name: paid["data"].get(name) for name in wanted} == wanted
        assert not {n for n in paid["data"] if n.startswith("_")} | {"event"} & paid["data"].keys()
        assert failed["data"]["exception"]["type"] == "ValueError"
    assert events(direct)[2]["data"]["n"] == 1
    assert events(direct)[0]["data"]["code"]["file"] == __file__


def test_a_structlog_value_never_raises(make_lake: MakeLake) -> None:
    """Not even one whose repr fails; nor does a key that is a name of a column."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    lake = make_lake()
    processor, _ = configured(lake)
    structlog.get_logger().info("x", value=Broken(), type="other", data={"a": 1}, time=3)
    structlog.get_logger().info(Broken())
    assert processor.flush()
    event, unnamed = events(lake)
    assert unnamed["message"] == "<Broken>"
    assert event["type"] == "log"
    assert event["data"] == {"value": "<Broken>", "type": "other", "data": {"a": 1}, "time": 3}


def test_a_loguru_message_is_stored(make_lake: MakeLake) -> None:
    """`extra` of bind and contextualize are members, the module is the source."""
    lake = make_lake()
    number = loguru_logger.add(lakelog.LoguruSink(lake), format="{message}")
    with loguru_logger.contextualize(request="r-1"):
        loguru_logger.bind(user="ann").success("paid {}", 3)
    try:
        raise ValueError("no")
    except ValueError:
        loguru_logger.exception("failed")
    loguru_logger.remove(number)  # which waits until all is stored
    paid, failed = events(lake)
    assert (paid["source"], paid["level"], paid["message"]) == (__name__, "SUCCESS", "paid 3")
    assert paid["data"]["user"] == "ann"
    assert paid["data"]["request"] == "r-1"
    assert paid["data"]["code"]["function"] == "test_a_loguru_message_is_stored"
    assert failed["level"] == "ERROR"
    assert failed["data"]["exception"]["message"] == "no"


def test_loguru_in_a_thread_of_its_own(make_lake: MakeLake) -> None:
    """With `enqueue` loguru pickles its records; they arrive the same."""
    lake = make_lake()
    number = loguru_logger.add(lakelog.LoguruSink(lake), enqueue=True)
    for n in range(100):
        loguru_logger.info("m", n=n)
    loguru_logger.remove(number)
    assert [e["data"]["n"] for e in events(lake)] == list(range(100))


class _UnpicklableError(Exception):
    """An exception that does not leave its thread."""

    def __init__(self) -> None:
        super().__init__("local")
        self.callback = lambda: None


@pytest.mark.parametrize("cause", [KeyError("cart"), _UnpicklableError()], ids=repr)
def test_a_traceback_outlives_the_pickling_of_loguru(make_lake: MakeLake, cause: Exception) -> None:
    """With `enqueue` exceptions lose their frames and causes, or all but their type."""
    lake = make_lake()
    number = loguru_logger.add(lakelog.LoguruSink(lake), enqueue=True)
    try:
        raise cause from ValueError("the first")
    except Exception:
        loguru_logger.exception("failed")
    loguru_logger.remove(number)
    exception = events(lake)[0]["data"]["exception"]
    assert type(cause).__name__ in exception["type"]
    assert exception["text"].startswith("ValueError: the first")
    assert "raise cause from" in exception["text"]


def test_a_level_of_loguru_without_a_name(make_lake: MakeLake) -> None:
    """It is the nearest severity, as that of logging is."""
    lake = make_lake()
    number = loguru_logger.add(lakelog.LoguruSink(lake), level=0)
    loguru_logger.log(33, "between")
    loguru_logger.remove(number)
    assert events(lake)[0]["level"] == "WARN"


def test_an_exception_beside_a_member_of_its_name(make_lake: MakeLake) -> None:
    """What the program gave is kept under another name, by every logger."""
    lake = make_lake()
    handler, processor = lakelog.LakeHandler(lake), lakelog.StructlogProcessor(lake)
    log = logging.Logger("t")
    log.addHandler(handler)
    number = loguru_logger.add(lakelog.LoguruSink(lake))
    try:
        raise ValueError("no")
    except ValueError:
        log.exception(
            "m", extra={"exception": "mine", "exception_": 1, "stack": 2}, stack_info=True
        )
        processor(None, "error", {"event": "m", "exc_info": True, "exception": "mine"})
        loguru_logger.bind(exception="mine").exception("m")
    handler.flush()
    loguru_logger.remove(number)
    payloads = [event["data"] for event in events(lake)]
    assert [data["exception"]["message"] for data in payloads] == ["no"] * 3
    assert [data["exception_"] for data in payloads] == ["mine"] * 3
    assert (payloads[0]["exception__"], payloads[0]["stack_"]) == (1, 2)
