"""Every program and command of the older systems' documents, with only its import, path or address
changed. What cannot run is listed in NOT_RUN with its reason, and its effect is shown by lakelog's
own verb where there is one."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import RedisConfig
from tests.support import feed_server
from tests.support import podman as podmans
from tests.support.cluster import Cluster, cluster
from tests.support.redis_server import RedisServer, free_port, running
from tests.support.requirements import need
from tests.support.tree import ROOT, SHARED

__all__ = ["cluster"]

need("../shared")
EXAMPLES = SHARED.parent / "systems-examples.md"

OLDER_MODULES = """oos_logger ai_logger log_views podcast_processor_adapter simple_log_processor
    batch_database_sync omega_ai.utils.redis_manager app.system.event_persistence""".split()
PLACES = {
    "./scripts/run_omega_dump.sh": "lakelog dump --once",
    "python scripts/run_omega_dump.py": "lakelog dump --once",
    "python3 oos_logger.py": "lakelog oos validate",
    "python3 ai_logger.py": "lakelog oos validate",
    "python3 log_views.py": "lakelog oos views oos.log",
    "python3 oos_complete_demo.py": "lakelog oos demo",
    "python3 simple_log_processor.py": "lakelog oos process --max-batches 3",
    "python3 -c": "python3 -c",
    "python -c": "python -c",
    "python tools/alims_events.py": "lakelog events --db data/events.db",
    "./scripts/omega_snapshot.sh": "./scripts/omega_snapshot.sh",
    "./scripts/restore_state_snapshot.sh": "./scripts/restore_state_snapshot.sh",
    "/app/scripts/create_state_snapshot.sh": "./scripts/create_state_snapshot.sh",
    'sqlite3 data/events.db "PRAGMA integrity_check;"': "lakelog --lake data/events.db verify",
    'sqlite3 data/events.db "ANALYZE;"': "lakelog --lake data/events.db stats",
    'sqlite3 data/events.db "VACUUM;"': "lakelog --lake data/events.db expire --yes",
    'sqlite3 data/events.db ".indexes"': "lakelog --lake data/events.db show",
    'sqlite3 data/events.db "REINDEX;"': "lakelog --lake data/events.db compact",
    "ls -lh data/events.db": "ls -lh data/events.db",
    "python tools/alims_dashboard.py": "lakelog events --db data/events.db stats",
}
"""How a command begins, and what stands there today: the same, or the verb with its effect."""
NOT_RUN = {
    "python alims.py": "the application itself, which calls the classes that are tested here",
    "python alims_tray.py": "the application itself",
    "pkill -f alims": "ends processes of other people",
    "lsof data/events.db": "a lake may be used by any number of processes",
    "kubectl": "asks a cluster; `omega_snapshot.sh rollback` and `list-revisions` do the same",
    "STATE_DIRECTORY=": "a variable, set for the scripts below",
    "SNAPSHOT_ENABLED=": "a variable, set for the scripts below",
    "STATE_SNAPSHOT_RETENTION=": "a variable, set for the scripts below",
    "RESTORE_ENABLED=": "a variable, set for the scripts below",
    "REDIS_": "a variable, see test_environment_of_system_c",
}
STUBS = ("EventDatabase Class", "EventPersistenceManager Class")
"""Blocks of signatures without bodies: see test_signatures_of_system_e."""
PIECES = {"yaml": "a piece of a manifest", "sql": "the columns are those of omega.*"}

_DRIVER = """
import ast, asyncio, json, sys

async def main():
    names = {}
    for text in json.load(sys.stdin):
        tree = ast.parse(text)
        if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
            names["config"] = eval(text, names)  # a literal: the configuration of what follows
            continue
        waiting = eval(compile(tree, text, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if waiting is not None:
            await waiting

asyncio.run(main())
"""


@dataclass(frozen=True)
class Block:
    """A block of code of a system's document."""

    system: str
    title: str
    language: str
    text: str


def blocks(system: str, language: str) -> list[Block]:
    """Return the blocks of a system, in the order of its document."""
    found, heading = [], ["", ""]
    pattern = re.compile(r"^## System (\w)|^### ([^\n]+)|^```(\w+)\n(.*?)^```", re.M | re.S)
    for match in pattern.finditer(EXAMPLES.read_text("utf-8")):
        if match[1]:
            heading[0] = match[1]
        elif match[2]:
            heading[1] = match[2]
        else:
            found.append(Block(heading[0], heading[1], match[3], textwrap.dedent(match[4])))
    return [block for block in found if (block.system, block.language) == (system, language)]


def commands(system: str) -> list[str]:
    """Return the commands of a system's blocks, comments left out."""
    found: list[str] = []
    for block in blocks(system, "bash"):
        command = ""
        for line in block.text.splitlines():
            command += ("\n" if command else "") + line
            if line.endswith("\\"):
                continue
            try:
                words = shlex.split(command, comments=True)
            except ValueError:  # a quotation goes on
                continue
            if words:
                is_plain = "#" in command and '"' not in command
                found.append(command.split("#")[0].strip() if is_plain else command.strip())
            command = ""
    return found


def adapted(text: str) -> str:
    """Return a program with today's import."""
    for module in OLDER_MODULES:
        text = text.replace(f"from {module} import", "from lakelog import")
    return text


class Machine:
    """A directory with `lakelog` on the PATH, in which old programs and commands run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "path").mkdir(parents=True)
        for name, words in (("lakelog", "-m lakelog"), ("python", ""), ("python3", "")):
            program = root / "path" / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            program.chmod(0o755)
        self.env = {**os.environ, "PATH": f"{root}/path:{os.environ['PATH']}"}
        self.env |= {"PYTHONPATH": str(ROOT), "LAKELOG_LAKE": str(root / "lake"), "COLUMNS": "100"}
        for name in [name for name in self.env if name.startswith("REDIS_")]:
            del self.env[name]

    def run(self, command: str, code: int = 0) -> str:
        """Run a command of a shell; return what it prints on standard output."""
        words = ["sh", "-c", command]
        done = subprocess.run(
            words, cwd=self.root, env=self.env, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == code, (command, done.stdout, done.stderr)
        return done.stdout

    def run_blocks(self, texts: list[str]) -> None:
        """Run programs one after another in one process, as a reader who types them."""
        done = subprocess.run(
            [sys.executable, "-c", _DRIVER],
            input=json.dumps(texts),
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def replaced(command: str) -> str:
    """Return what stands today in the place of an old command."""
    begin = max((b for b in PLACES if command.startswith(b)), key=len)
    return adapted(f"{PLACES[begin]}{command[len(begin) :]}")


def with_checks(system: str, checks: dict[str, str]) -> list[str]:
    """Return the programs of a system, each followed by the check of what it did."""
    texts, left = [], dict(checks)
    for block in blocks(system, "python"):
        if block.title not in STUBS:
            texts += [adapted(block.text), left.pop(block.title, "")]
    assert not left, "a program that is checked is not in the document any more"
    return [text for text in texts if text]


@pytest.mark.parametrize("system", "ABCDE")
def test_every_block_runs_or_is_listed(system: str) -> None:
    """A command has its place, or a reason why it does not run; other blocks are pieces."""
    for command in commands(system):
        places = [b for b in PLACES if command.startswith(b)]
        reasons = [b for b in NOT_RUN if command.startswith(b)]
        assert bool(places) != bool(reasons), command
    text = EXAMPLES.read_text("utf-8")
    languages = set(re.findall(r"^```(\w+)", text, re.M))
    assert languages <= {"bash", "python", "json", *PIECES}


@pytest.mark.thorough
def test_system_a_watches_with_its_old_flags(machine: Machine) -> None:
    """Both commands take in what is there and back it up, with Redis or without one."""
    (machine.root / "logs").mkdir()
    (machine.root / "logs" / "app.log").write_text("2025-09-29 02:00:19 ERROR disk is full\n")
    with running(RedisServer(machine.root / "redis")) as server:
        for command in commands("A"):
            machine.run(replaced(command).replace("localhost:6379", f"127.0.0.1:{server.port}"))
    (row,) = json.loads(machine.run("lakelog sql --json 'SELECT level, message FROM events'"))
    assert row["level"] == "ERROR"
    assert list((machine.root / "logs" / "backup").rglob("app_*.log"))


@pytest.mark.thorough
def test_system_b_runs_as_printed(machine: Machine) -> None:
    """Loggers, views read right after them, processing, and the database sync in one process."""
    checks = {
        "2. AI Logger (`ai_logger.py`)": """
            import json
            logger.flush()
            with open("ai_events.log") as file:
                lines = [json.loads(line) for line in file]
            start, operation, decision = lines
            assert (start["event_type"], start["category"]) == ("start", "system")
            assert start["details"]["action"] == "service_start"
            assert start["details"]["service"] == "my_service"
            assert operation["details"]["operation"] == "content_processing"
            assert decision["details"]["chosen"] == "accurate"
            """,
        "3. Log Views (`log_views.py`)": """
            assert status == {"discovered": 0, "processing": 0, "completed": 1, "failed": 0}
            assert throughput["total_completed"] == 1
            assert errors == {"total_failures": 0, "error_types": {}, "recent_failures": []}
            assert reliability == {"TechPodcast": {"success_rate": 1.0, "total_processed": 1}}
            assert health["recent_activity_1h"] == 3
            """,
        "4. Podcast Processor Adapter (`podcast_processor_adapter.py`)": """
            assert result is True
            assert results == {"...": False}
            """,
        "5. Simple Log Processor (`simple_log_processor.py`)": """
            assert episodes == []
            assert "feeds.toml" in processor.problems["feeds.toml"]
            assert analytics["podcast_status"]["completed"] == 2
            """,
        "6. Batch Database Sync (`batch_database_sync.py`)": """
            assert (result, stats["completed"]) == (2, 2)
            assert results["transcripts"] == 0
            """,
        "Configuration": "sync.full_sync()",
        "1. Content Processing Pipeline": 'assert status["completed"] == 1',
        "2. System Monitoring": 'assert reliability["TechCrunch"]["success_rate"] == 1.0',
    }
    with feed_server.serving() as server:
        texts = with_checks("B", {t: textwrap.dedent(c) for t, c in checks.items()})
        where = "https://feeds.simplecast.com/episode"
        assert any(where in text for text in texts)
        machine.run_blocks([text.replace(where, f"{server.base}/audio/1.mp3") for text in texts])
    assert (machine.root / "oos.db").is_file()
    assert (machine.root / "data" / "custom.db").is_file()
    machine.env["LAKELOG_LAKE"] = "commands"
    printed = [machine.run(replaced(command)) for command in commands("B")]
    assert json.loads(printed[2])["status"]["completed"] == 2
    assert json.loads((machine.root / "demo_results.json").read_text())["passed"]
    assert "'completed': 2" in printed[-3]
    lines = [json.dumps(json.loads(block.text)) for block in blocks("B", "json")]
    (machine.root / "printed.log").write_text("".join(f"{line}\n" for line in lines))
    machine.run("lakelog --lake printed ingest printed.log")
    query = "SELECT type, category, source FROM events ORDER BY seq"
    rows = json.loads(machine.run(f"lakelog --lake printed sql --json '{query}'"))
    assert [row["type"] for row in rows] == ["start", "decision"]


def test_environment_of_system_c() -> None:
    """The variables of its document give the configuration that they gave."""
    cloud, local = {}, {}
    for line in blocks("C", "bash")[0].text.splitlines():
        name, mark, value = line.partition("=")
        if mark:
            (local if name in cloud or name == "REDIS_DB" else cloud)[name] = value
    config = RedisConfig.from_env(cloud)
    assert (config.host, config.port, config.use_tls) == ("redis.example.com", 19332, True)
    assert (config.username, config.password) == ("omega", "example")
    config = RedisConfig.from_env(local)
    assert (config.host, config.port, config.db, config.use_tls) == ("localhost", 6379, 0, False)


@pytest.mark.thorough
def test_system_c_runs_as_printed(machine: Machine) -> None:
    """Values come back with the types that they had."""
    printed = next(b for b in blocks("C", "python") if b.title == "Advanced Features")
    call = ast.parse(printed.text).body[0]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    trader = ast.literal_eval(call.value.args[1])
    checks = {
        "Basic Operations": "assert (value, items) == ('divine_value', [])",
        "Advanced Features": f"""
trader_data = {trader!r}
assert scores == [("divine_trader", 42.0)]
stored = redis_manager.get_key_with_type_detection("omega:trader_data")
assert stored == trader_data
assert [type(v) for v in stored.values()] == [type(v) for v in trader_data.values()]
""",
        "Type Errors": "assert value == 'divine_value'",
    }
    with running(RedisServer(machine.root / "redis")) as server:
        machine.env |= {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(server.port)}
        machine.run_blocks(with_checks("C", checks))


@pytest.mark.parametrize("password", ["redis", "example", "localhost"])
def test_an_error_names_the_host_whatever_the_password(password: str) -> None:
    """A password that is a word of the host's name stays as unknown as any other."""
    config = RedisConfig(host="localhost", port=free_port(), password=password, retries=0)
    with pytest.raises(ConnectionError, match=r"redis://localhost:\d+/0 does not answer") as raised:
        lakelog.RedisManager(config)
    assert "***" not in str(raised.value)


@pytest.mark.thorough
def test_state_scripts_of_system_d(machine: Machine) -> None:
    """The commands of the state scripts save, list, restore and remove states."""
    state = machine.root / "data" / "state"
    state.mkdir(parents=True)
    (state / "file").write_text("first")
    machine.env |= {"STATE_DIRECTORY": str(state), "STATE_SNAPSHOT_RETENTION": "24"}
    machine.env |= {"SNAPSHOT_ENABLED": "true", "RESTORE_ENABLED": "true"}
    machine.run("lakelog state scripts scripts")
    name = json.loads(machine.run("./scripts/create_state_snapshot.sh"))["state"]
    assert re.fullmatch(r"state-\d{8}-\d{6}", name)
    count = 0
    for command in commands("D"):
        if "_state_snapshot.sh" not in command:
            continue
        count += 1
        (state / "file").write_text("overwritten")
        command = re.sub(r"state-20250403-123456|<snapshot_name>", name, replaced(command))
        printed = machine.run(command)
        is_restore = not re.search(r"sh (list|info|clean)|create_", command)
        if "sh list" in command or "sh info" in command:
            assert name in printed
        if is_restore and name in command:
            assert (state / "file").read_text() == "first", command
    assert count >= 11


@pytest.mark.thorough
def test_deployments_of_system_d(machine: Machine, cluster: Cluster) -> None:
    """omega_snapshot.sh lists revisions and rolls a deployment back."""
    machine.env["PATH"] = f"{machine.root}/path:{cluster.path.parent}:/usr/bin:/bin"
    machine.run("lakelog state scripts scripts")
    for command in commands("D"):
        if re.search(r"sh (rollback|list-revisions)", command):
            command = replaced(command).replace("<deployment_name>", "api")
            command = command.replace("[revision]", "2").replace("omega-btc-ai", "api")
            machine.run(re.sub(r"api 3$", "api 1", command))
            if "rollback" in command:
                assert cluster.current() == ("h2" if command.endswith("2") else "h1")
            cluster = Cluster(cluster.path)  # each example stands alone: 3 is the present one
    assert "usage" not in machine.run("./scripts/omega_snapshot.sh list-revisions api")
    machine.run("./scripts/omega_snapshot.sh", code=2)
    machine.run("./scripts/omega_snapshot.sh no-such-verb", code=2)


@pytest.fixture
def podman() -> Iterator[podmans.Podman]:
    # Podman refuses a path of more than 50 characters, which a folder of pytest may have.
    # What Podman starts to clean up after a container may write there for a moment longer.
    with tempfile.TemporaryDirectory(
        prefix="podman-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        started = podmans.start(Path(folder))
        yield started
        started.remove_all()


@pytest.mark.thorough
def test_containers_of_system_d(machine: Machine, podman: podmans.Podman) -> None:
    """omega_snapshot.sh saves, tags, verifies and restores a container; pushing, which needs a
    registry, is tested with one in test_container_snapshots."""
    machine.env["PATH"] = f"{machine.root}/path:{podman.path}"
    machine.run("lakelog state scripts scripts")
    options = ("--detach", "--stop-timeout", "0", "--name", "btc-live-feed")
    podman.run("run", *options, "localhost/base")
    id = json.loads(machine.run("./scripts/omega_snapshot.sh snapshot btc-live-feed"))["id"]
    assert re.fullmatch(r"\d{8}-\d{6}", id)
    for command in commands("D"):
        verb = re.search(r"sh ([a-z]+-snapshots?|snapshot)\b", command)
        is_syntax = "<" in command and "list" not in command
        if verb is None or "state_snapshot" in command or is_syntax or "push" in command:
            continue
        if command.endswith("sh snapshot btc-live-feed"):
            continue  # the one above
        if verb[1] == "tag-snapshot":  # each example stands alone, and a tag does not move
            machine.run("lakelog tag --delete zenith-42")
        machine.run(command.replace("20250403-123456", id))
    names = podman.run("ps", "--format", "{{.Names}}").split()
    assert sorted(names) == ["btc-live-feed", "btc-live-feed-restored"]


@pytest.mark.thorough
def test_system_e_runs_as_printed(machine: Machine) -> None:
    """The manager, its figures and look-ups, also after `stop`."""
    checks = {
        "Configuration": """
import time
event_dict = {"event_type": "file_op", "action": "create", "source": "chrome", "data": {"n": 1}}
event_list = [{"event_type": "file_op", "source": "s", "data": {"n": n}} for n in range(2, 5)]
""",
        "Database Statistics": """
assert (stats["total_stored"], stats["queue_size"]) == (4, 0)
assert stats["database_stats"]["database_size_mb"] > 0
""",
        "Event Retrieval": "assert len(events) == 4",
    }
    machine.run_blocks(with_checks("E", checks))
    for command in commands("E"):
        if any(command.startswith(begin) for begin in NOT_RUN):
            continue
        machine.run(replaced(command).replace("--db /path/to/events.db", ""))
    exported = json.loads((machine.root / "events_backup.json").read_text())
    assert sorted(event["event_type"] for event in exported) == ["file_op"] * 4


def test_signatures_of_system_e() -> None:
    """The classes have the methods that are printed, with those parameters first."""
    for block in blocks("E", "python"):
        if block.title not in STUBS:
            continue
        # Each signature becomes a function: its body is left out in the document.
        text = re.sub(r"\)( -> [\w\[\]]+)?$", r")\1: ...", block.text, flags=re.M)
        (printed,) = ast.parse(text).body
        assert isinstance(printed, ast.ClassDef)
        for method in printed.body:
            assert isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
            ours = inspect.signature(getattr(getattr(lakelog, printed.name), method.name))
            names = [argument.arg for argument in method.args.args]
            assert [*ours.parameters][: len(names)] == names, method.name


def test_effect_of_a_cleanup(tmp_path: Path) -> None:
    """The cure for a full disk gives the space back."""
    database: Any = lakelog.EventDatabase(db_path=tmp_path / "events.db")
    with database:
        rows = [
            {"event_type": "x", "timestamp": 1e9 + n, "data": {"text": os.urandom(2000).hex()}}
            for n in range(500)
        ]
        database.store_events_batch(rows)
        database.lake.settle()
    with lakelog.EventDatabase(tmp_path / "events.db") as database:
        before = database.get_database_stats()["database_size_mb"]
        assert before > 0.5
        assert database.cleanup_old_events(7, at_once=True) == 500
        assert database.get_database_stats()["database_size_mb"] < before / 4
