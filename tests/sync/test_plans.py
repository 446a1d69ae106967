"""Several targets of one file, their figures, and units that hold no password."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lakelog.errors import InvalidSetting
from lakelog.sync.plan import SyncPlan
from tests.support.cli import lines, run


@pytest.fixture
def lake(home: Path) -> Path:
    run(home / "lake", "append", input=lines(20))
    return home / "lake"


def count(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    except sqlite3.OperationalError:  # not yet
        return -1
    finally:
        connection.close()


def config(home: Path) -> Path:
    path = home / "syncs.toml"
    path.write_text(
        f"""
        every = "50ms"

        [[sync]]
        target = "sqlite:{home}/a.db"

        [[sync]]
        target = "sqlite:{home}/missing/b.db"

        [[sync]]
        target = "sqlite:{home}/a.db"
        table = "few"
        query = "SELECT seq, type FROM events WHERE seq < 7"
        mode = "append"
        """
    )
    return path


def test_several_targets_go_on_beside_one_that_is_refused(home: Path, lake: Path) -> None:
    done = run(lake, "sync", "--config", str(config(home)), "--once", code=1)
    assert "the directory has to exist" in done.stderr
    assert (count(home / "a.db", "events"), count(home / "a.db", "few")) == (20, 7)


def test_two_syncs_of_one_table_are_refused(home: Path, lake: Path) -> None:
    """Each would fill it again whenever the other has."""
    path = config(home)
    path.write_text(path.read_text().replace('table = "few"', ""))
    done = run(lake, "sync", "--config", str(path), "--once", code=2)
    assert "a.db: two syncs write to the table events" in done.stderr
    assert count(home / "a.db", "events") == -1


def test_metrics_of_a_continuous_sync(home: Path, lake: Path) -> None:
    metrics, words = home / "lakelog.prom", ["--config", str(config(home))]
    command = [sys.executable, "-m", "lakelog", "--lake", str(lake), "sync", *words]
    with subprocess.Popen([*command, "--metrics", str(metrics)], stderr=subprocess.PIPE) as process:
        for wanted in (20, 25):
            until = time.monotonic() + 240
            row = f'lakelog_sync_rows{{target="sqlite:{home}/a.db",table="events"}} {wanted}\n'
            while not metrics.exists() or row not in metrics.read_text():
                assert time.monotonic() < until
                time.sleep(0.02)
            if wanted == 20:
                run(lake, "append", input=lines(5))
        process.send_signal(signal.SIGTERM)
        assert process.wait(240) == 0
    text = metrics.read_text()
    assert f'lakelog_sync_up{{target="sqlite:{home}/a.db",table="events"}} 1\n' in text
    assert f'lakelog_sync_up{{target="sqlite:{home}/missing/b.db",table="events"}} 0\n' in text
    assert "# TYPE lakelog_sync_rows_written_total counter\n" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "tables \\[\\[sync\\]\\]"),
        ("sync = 3", "tables"),
        ("[[sync]]", "sync 1: it needs a target"),
        ("[[sync]]\ntarget = 'sqlite:a.db'\nmod = 'append'", "no setting 'mod'.*mode"),
        ("[[sync]]\ntarget = 'sqlite:a.db'\nbatch_rows = '3'", "batch_rows is int"),
        ("every = 'soon'\n[[sync]]\ntarget = 'sqlite:a.db'", "soon"),
        ("[[sync", "syncs.toml: "),
    ],
)
def test_mistakes_of_a_file_are_named(home: Path, text: str, words: str) -> None:
    path = home / "syncs.toml"
    path.write_text(text)
    with pytest.raises(InvalidSetting, match=words):
        SyncPlan.read_all(str(path))


@pytest.mark.parametrize(
    ("url", "named", "variable"),
    [
        ("postgresql://app:pa%40ss@db:5/logs", "postgresql://app@db:5/logs", "PGPASSWORD"),
        ("postgresql://app@db/x?password=p&sslmode=require", "postgresql://app@db/x?sslmode=require",
         "PGPASSWORD"),
        ("mariadb://a:p@q@db/logs", "mariadb://a@db/logs", "MYSQL_PWD"),
        ("influxdb://h/b?org=o&token=t", "influxdb://h/b?org=o", "INFLUX_PASSWORD"),
        ("kafka://a:1,b:2/topic", "kafka://a:1,b:2/topic", "KAFKA_SASL_PASSWORD"),
    ],
)  # fmt: skip
def test_unit_keeps_the_user_and_names_the_variable(
    home: Path, lake: Path, url: str, named: str, variable: str
) -> None:
    assert SyncPlan(url).public_target() == (named, variable)
    words = ["--query", "SELECT '100%' AS a FROM events", "--on-error", "quarantine"]
    unit = run(lake, "sync", url, *words, "--every", "5m", "--print-unit").stdout
    start = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    assert named.split("?")[0] in start
    assert "100%%" in start
    assert start.endswith("--on-error quarantine --every 300s")
    assert f"{variable}=..." in unit
    assert "EnvironmentFile=-/etc/lakelog/sync.env" in unit
    assert not [secret for secret in (":p", "=p", "token") if secret in unit]


def test_unit_of_a_file(home: Path, lake: Path) -> None:
    unit = run(lake, "sync", "--config", str(config(home)), "--print-unit").stdout
    assert f"sync --config {home}/syncs.toml" in unit
    assert "EnvironmentFile" not in unit
    run(lake, "sync", "sqlite:a.db", "--config", "x.toml", code=2)
    run(lake, "sync", code=2)
