"""Clients of others that send to a server, as programs of their own: each counts from a number on.

    python -m tests.support.real_clients NAME URL FIRST

A client sends messages that hold `mark-000001`, `mark-000002`, … until it is killed, or its input
ends; then it sends what it still has. After each message it prints the number. Those of Python run
by LAKELOG_CLIENTS_PYTHON, an environment that has them; those of JavaScript find their packages in
LAKELOG_CLIENTS_NODE, a folder with `node_modules`. For daemons see `real_daemons`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.real_daemons import DAEMONS, Sender

PAUSE = 0.02
_JAVASCRIPT = """
const [first] = process.argv.slice(1).map(Number), url = process.env.URL_OF_SERVER;
let number = first, is_ended = false;
process.stdin.on("end", () => { is_ended = true; }).resume();
const sleep = (ms) => new Promise((go) => setTimeout(go, ms));
const run = async (send, finish) => {
  while (!is_ended) {
    const mark = "mark-" + String(number).padStart(6, "0");
    try { await send(mark); } catch (error) { console.error(String(error)); }
    console.log(number++);
    await sleep(20);
  }
  try { await finish(); } catch (error) { console.error(String(error)); }
  process.exit(0);
};
process.on("uncaughtException", (error) => console.error(String(error)));
"""
_OPENTELEMETRY = """
const { LoggerProvider, BatchLogRecordProcessor } = require("@opentelemetry/sdk-logs");
const { OTLPLogExporter } = require("@opentelemetry/exporter-logs-otlp-ENCODING");
const exporter = new OTLPLogExporter({ url: url + "/v1/logs" });
const options = { scheduledDelayMillis: 100, exporter };
const provider = new LoggerProvider({ processors: [new BatchLogRecordProcessor(options)] });
const logger = provider.getLogger("clients");
run(async (mark) => logger.emit({ body: mark }), () => provider.shutdown());
"""
JAVASCRIPT = {
    "@elastic/elasticsearch": """
const { Client } = require("@elastic/elasticsearch");
const client = new Client({ node: url, maxRetries: 60, retryOnTimeout: true });
const again = async (call) => { for (;;) { try { return await call(); } catch (error) {
  if (is_ended) throw error; console.error(String(error)); await sleep(200); } } };
run((mark) => again(() => client.bulk({ operations:
  [{ create: { _index: "clients", _id: mark } }, { message: mark }] })), () => client.close());
""",
    "pino-loki": """
const pino = require("pino");
const transport = pino.transport({ target: require.resolve("pino-loki"),
  options: { host: url, labels: { app: "clients" }, batching: { interval: 0.1 } } });
const logger = pino(transport);
run(async (mark) => logger.info(mark), () => sleep(2000));
""",
    "winston-loki": """
const winston = require("winston"), Loki = require("winston-loki");
const transport = new Loki({ host: url, labels: { app: "clients" }, interval: 1, timeout: 5000,
  onConnectionError: (error) => console.error(String(error)) });
const logger = winston.createLogger({ transports: [transport] });
run(async (mark) => logger.info(mark), () => transport.flush());
""",
    "opentelemetry json": _OPENTELEMETRY.replace("ENCODING", "http"),
    "opentelemetry protobuf": _OPENTELEMETRY.replace("ENCODING", "proto"),
}


def _elasticsearch(url: str) -> Sender:
    from elasticsearch import Elasticsearch, helpers

    client = Elasticsearch(url, max_retries=60, retry_on_timeout=True)
    return _persistent(lambda mark: helpers.bulk(client, [_document(mark)])), client.close


def _opensearch(url: str) -> Sender:
    from opensearchpy import OpenSearch, helpers

    client = OpenSearch(url, max_retries=60, retry_on_timeout=True)
    return _persistent(lambda mark: helpers.bulk(client, [_document(mark)])), client.close


def _document(mark: str) -> dict[str, str]:
    return {"_op_type": "create", "_index": "clients", "_id": mark, "message": mark}


def _persistent(send: Callable[[str], object]) -> Callable[[str], None]:
    """A program that keeps a document until it is taken, as those that index do."""

    def sending(mark: str) -> None:
        while True:
            try:
                send(mark)
            except Exception as error:
                print(error, file=sys.stderr)
                time.sleep(0.2)
            else:
                return

    return sending


def _loki(url: str) -> Sender:
    import logging_loki

    handler = logging_loki.LokiHandler(f"{url}/loki/api/v1/push", {"app": "clients"}, version="1")
    logger = logging.getLogger("clients")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return logger.info, lambda: None


def _opentelemetry(url: str) -> Sender:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider()
    exporter = OTLPLogExporter(f"{url}/v1/logs")
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, schedule_delay_millis=100))
    logger = logging.getLogger("clients")
    logger.addHandler(LoggingHandler(logger_provider=provider))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger.info, provider.shutdown


def _cloudevents(url: str) -> Sender:
    import requests
    from cloudevents.core.bindings.http import to_binary_event
    from cloudevents.core.v1.event import CloudEvent

    session = requests.Session()

    def send(mark: str) -> None:
        attributes = {"type": "clients", "source": "clients", "id": mark, "specversion": "1.0"}
        attributes["datacontenttype"] = "application/json"
        message = to_binary_event(CloudEvent(attributes, {"message": mark}))
        session.post(f"{url}/ingest", message.body, headers=message.headers).raise_for_status()

    return _persistent(send), session.close


PYTHON: dict[str, tuple[str, Callable[[str], Sender]]] = {
    "elasticsearch-py": ("elasticsearch", _elasticsearch),
    "opensearch-py": ("opensearchpy", _opensearch),
    "python-logging-loki": ("logging_loki", _loki),
    "opentelemetry-sdk": ("opentelemetry.exporter.otlp.proto.http", _opentelemetry),
    "cloudevents": ("cloudevents", _cloudevents),
}
"""Clients of Python: the module that has to be there, and what sends a message."""
MAY_LOSE = {
    "python-logging-loki": "it sends nothing again",
    "pino-loki": "it sends nothing again",
    "collectd": "it sends nothing again",
    "winston-loki": "what it keeps is in memory, and it ends a batch that fails",
    "opentelemetry-sdk": "it tries for ten seconds, or what OTEL_EXPORTER_OTLP_TIMEOUT says",
    "opentelemetry json": "it tries for ten seconds",
    "opentelemetry protobuf": "it tries for ten seconds",
}
"""Clients that may lose what they log while the server is away, and why."""


def is_there(name: str) -> bool:
    """Whether the program, or the module, of a client is installed where it is looked for."""
    if name in PYTHON:
        python = os.environ.get("LAKELOG_CLIENTS_PYTHON", sys.executable)
        importing = [python, "-c", f"import {PYTHON[name][0]}"]
        return subprocess.run(importing, check=False, capture_output=True).returncode == 0
    return name not in JAVASCRIPT or "LAKELOG_CLIENTS_NODE" in os.environ


def command(name: str, url: str, first: int) -> tuple[list[str], dict[str, str]]:
    """The command line of a client, and its environment."""
    environment = {**os.environ, "URL_OF_SERVER": url}
    if name in DAEMONS:
        words = [sys.executable, "-m", "tests.support.real_clients", name, url, str(first)]
        return words, environment
    if name in PYTHON:
        python = os.environ.get("LAKELOG_CLIENTS_PYTHON", sys.executable)
        return [python, "-m", "tests.support.real_clients", name, url, str(first)], environment
    return ["node", "-e", _JAVASCRIPT + JAVASCRIPT[name], str(first)], environment


class Client:
    """A client that runs, by name; it can be killed and started again."""

    def __init__(self, name: str, port: int, directory: Path) -> None:
        self._name, self._url = name, f"http://127.0.0.1:{port}"
        self._directory, self._starts = directory, 0
        self.start()

    def start(self) -> None:
        """Start it where it had come to."""
        self._starts += 1
        words, environment = command(self._name, self._url, len(self.sent()) + 1_000 * self._starts)
        with (
            open(self._directory / "sent", "ab") as sent,
            open(self._directory / "errors", "ab") as errors,
        ):
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=sent,
                stderr=errors,
                env={**environment, "LAKELOG_CLIENTS_STATE": str(self._directory / "state")},
                # Packages are found from there, also by threads that load modules of their own.
                cwd=environment["LAKELOG_CLIENTS_NODE"] if self._name in JAVASCRIPT else None,
            )

    def sent(self) -> list[bytes]:
        """The marks that it says it has sent."""
        path = self._directory / "sent"
        numbers = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [b"%06d" % int(number) for number in numbers]

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):  # what was not written is of no interest any more
            self.process.stdin.close()  # type: ignore[union-attr]

    def finish(self) -> None:
        """Let it send what it still has, and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def close(self) -> None:
        """End it, in whichever state."""
        self.kill()


def _numbers(first: int) -> Iterator[int]:
    """Count until standard input ends."""
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        yield first
        first += 1


def main() -> None:
    """Send until standard input ends."""
    name, url, first = sys.argv[1:]
    send, finish = DAEMONS[name](url) if name in DAEMONS else PYTHON[name][1](url)
    for number in _numbers(int(first)):
        try:
            send(f"mark-{number:06d}")
        except Exception as error:
            print(error, file=sys.stderr)
        print(number, flush=True)
    finish()


if __name__ == "__main__":
    main()
