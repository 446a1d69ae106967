"""What an import and a first use of lakelog load: heavy packages only where they are needed."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lakelog
from tests.support.requirements import need_module
from tests.support.tree import ROOT, sources

HEAVY = {"duckdb", "pyarrow", "polars", "numpy", "click", "rich", "watchdog"}
ENGINES = {"numpy", "pyarrow", "duckdb"}


def loaded_after(code: str) -> set[str]:
    """Run the code in a new interpreter and return the modules it has loaded by the end."""
    script = f"{code}\nimport sys; print('loaded', *sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def heavy_after(code: str) -> set[str]:
    """The heavy packages among them."""
    return HEAVY & loaded_after(code)


def test_import_is_light() -> None:
    """Importing lakelog loads no heavy package, and logging to files not the store."""
    assert heavy_after("import lakelog") == set()
    assert "lakelog.event" not in loaded_after("import lakelog")
    assert "lakelog.lake" not in loaded_after("from lakelog import LakeHandler, get_logger")


def test_append_is_light(tmp_path: Path) -> None:
    """Appending an event to a lake that is there loads no heavy package."""
    lake = f"lakelog.open({str(tmp_path / 'lake')!r})"
    heavy_after(f"import lakelog; {lake}")
    assert heavy_after(f"import lakelog; {lake}.append({{'type': 'PING', 'source': 't'}})") == set()


def test_rounds_of_alerts_without_a_rule_are_light(tmp_path: Path) -> None:
    """A server makes them, and takes events without an engine in its memory; also after a rollback
    of a lake that never had a rule."""
    path = str(tmp_path / "lake")
    with lakelog.open(path) as lake:
        lake.append({"type": "PING"})
        lake.tag("before")
        lake.append({"type": "PING"})
        lake.settle()
        lake.rollback("before")
    rounds = f"""import lakelog, threading
from lakelog.alerts.rounds import evaluating
with evaluating(lakelog.open({path!r}), print, threading.Event()) as evaluator:
    assert evaluator.round().rules == 0"""
    assert heavy_after(rounds) & ENGINES == set()


def test_a_program_in_a_zip_file_appends(tmp_path: Path) -> None:
    """Packages that load their modules late do so wherever they were loaded from."""
    archive = shutil.make_archive(str(tmp_path / "app"), "zip", ROOT, "lakelog")
    path = str(tmp_path / "lake")
    code = f"import lakelog; lakelog.open({path!r}).append({{'type': 'PING'}}); lakelog.LakeHandler"
    variables = {**os.environ, "PYTHONPATH": archive}
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=tmp_path, env=variables)
    assert lakelog.open(path).count() == 1


def test_a_program_without_sources_appends_and_asks(tmp_path: Path) -> None:
    """Neither does it matter whether sources are there, as in an image that holds none."""
    for name in sources("lakelog"):
        target = tmp_path / "app" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # What was compiled when this very source was imported, or is compiled now.
        source, compiled = ROOT / name, Path(importlib.util.cache_from_source(str(ROOT / name)))
        if not compiled.exists() or compiled.stat().st_mtime < source.stat().st_mtime:
            py_compile.compile(str(source))
        shutil.copy(compiled, target.with_suffix(".pyc"))
    for data in (path for path in (ROOT / "lakelog").rglob("*") if path.is_file()):
        if data.suffix not in (".py", ".pyc"):
            target = tmp_path / "app" / data.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data, target)
    code = (
        f"import lakelog; lake = lakelog.open({str(tmp_path / 'lake')!r})\n"
        "lake.append([{'type': 'PING', 'message': 'hello there'}]); lake.settle()\n"
        "assert len(lake.search('hello').fetchall()) == 1; lakelog.LakeHandler\n"
        "assert not lakelog.__file__.endswith('.py')"
    )
    variables = {**os.environ, "PYTHONPATH": str(tmp_path / "app")}
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=tmp_path, env=variables)


def test_a_first_query_over_segments_loads_the_engine_alone(tmp_path: Path) -> None:
    """Rows of published events come without Arrow, and without DuckDB's classes for relations."""
    lake = f"lake = lakelog.open({str(tmp_path / 'lake')!r})"
    heavy_after(f"import lakelog; {lake}; lake.append({{'type': 'PING'}}); lake.settle()")
    query = "lake.sql('SELECT type, count(*) FROM events GROUP BY type').fetchall()"
    loaded = loaded_after(f"import lakelog; {lake}; assert {query} == [('PING', 1)]")
    assert loaded & HEAVY == set()
    assert "_duckdb" in loaded
    assert "lakelog.views.engine" not in loaded


def test_a_first_look_for_a_subject_loads_the_engine_alone(tmp_path: Path) -> None:
    """What the name of a subject is looked up by needs no arrays."""
    lake = f"lake = lakelog.open({str(tmp_path / 'lake')!r})"
    heavy_after(
        f"import lakelog; {lake}\n"
        "lake.append([{'type': 'PING', 'subject': f'order-{n}'} for n in range(1_000)])\n"
        "lake.settle()"
    )
    query = "lake.sql('SELECT type FROM events WHERE subject = ?', ['order-7']).fetchall()"
    assert heavy_after(f"import lakelog; {lake}; assert {query} == [('PING',)]") == set()


def test_rows_are_written_without_pandas(tmp_path: Path) -> None:
    """Though it is installed: JSON and CSV of rows with nulls, quotes, and times of both kinds."""
    path = str(tmp_path / "lake")
    heavy_after(
        f"import lakelog; lake = lakelog.open({path!r})\n"
        "texts = [None, 'plain', 'a \"quote\", a comma', 'two\\nlines']\n"
        "lake.append([{'type': 'PING', 'time': 1_790_000_000 + n / 2, 'message': texts[n % 4],"
        " 'data': {'n': n, 'text': texts[n % 4]}} for n in range(3_000)])"
    )
    loaded = loaded_after(
        "from lakelog.cli import cli\n"
        "for words in (['tail', '-n', '9'], ['sql', 'FROM events', '--format', 'csv'],"
        " ['sql', 'FROM events', '--format', 'json']):\n"
        f"  try: cli.main(['--lake', {path!r}, *words])\n"
        "  except SystemExit as done: assert not done.code"
    )
    assert "pandas" not in loaded
    code = (
        f"import lakelog; lake = lakelog.open({path!r}); assert lake.tail(1)[0]['type'] == 'PING'"
    )
    assert "pandas" not in loaded_after(code)


@pytest.mark.parametrize(
    "lines",
    [
        "2026-11-29 10:00:00 ERROR no\n  at a line that goes on\n",
        "2026-11-29T10:00:00Z stdout F a line\n2026-11-29T10:00:01Z stdout P half\n",
        '{"log":"a line\\n","stream":"stderr","time":"2026-11-29T10:00:00Z"}\n',
        'time,type,message\n2026-11-29,a,"two\nlines"\n',
        '[\n{"type":"a"},\n{"type":"b"}\n]\n',
    ],
    ids=["text", "cri", "docker", "csv", "document"],
)
def test_logs_are_read_shown_and_exported_without_pandas(tmp_path: Path, lines: str) -> None:
    """Though it is installed: half a second, and 40 MB of each process that follows a log."""
    (tmp_path / "app.log").write_text(lines)
    assert "pandas" not in loaded_after(
        f"import lakelog; lake = lakelog.open({str(tmp_path / 'lake')!r})\n"
        f"assert lake.ingest({str(tmp_path / 'app.log')!r}).events\n"
        "lake.append({'type': 'PING'}); lake.view('reliability')\n"
        f"lake.export('events', {str(tmp_path / 'events.parquet')!r})"
    )


def test_live_events_are_read_without_pandas(tmp_path: Path) -> None:
    """Though it is installed: its import would hold back whoever waits for an event."""
    path = str(tmp_path / "lake")
    code = (
        f"import lakelog; lake, other = lakelog.open({path!r}), lakelog.open({path!r})\n"
        "names = iter('abcdefghijklmnop')\n"
        "def more(lake, count):\n"
        "  lake.append([{'type': 'PING', 'id': next(names)} for _ in range(count)])\n"
        "  lake.append({'type': 'PING', 'subject': 'ada', 'message': 'caf\u00e9'})\n"
        "more(lake, 9)\n"
        "events = lake.follow(timeout=60)\n"
        "for each in (lake, other, lake, other):\n"
        "  more(each, 1)\n"
        "  assert [next(events)['type'] for _ in range(2)] == ['PING'] * 2\n"
    )
    assert "pandas" not in loaded_after(code)
    searches = "assert lake.search('caf\u00e9').fetchall()"
    assert "pandas" not in loaded_after(
        f"import lakelog; lake = lakelog.open({path!r}); {searches}"
    )


def test_events_of_an_erased_subject_are_refused_without_pandas(tmp_path: Path) -> None:
    path = str(tmp_path / "lake")
    lake = f"import lakelog; lake = lakelog.open({path!r})"
    heavy_after(f"{lake}; lake.append({{'type': 'PING', 'subject': 'ada'}})")
    heavy_after(f"{lake}; lake.erase(subject='ada', why='asked')")
    again = "lake.append({'type': 'PING', 'subject': 'ada'}); lake.settle()"
    assert "pandas" not in loaded_after(f"{lake}; {again}")


def test_a_heavy_import_is_reported() -> None:
    """A heavy package loaded in the new interpreter is reported, whoever loaded it."""
    assert heavy_after("import json") == set()
    assert heavy_after("import click.testing") == {"click"}


def test_what_a_name_is_loads_no_module() -> None:
    """pytest asks so of every name of a test file, and inspect of what it unwraps."""
    code = "import inspect; from lakelog.libraries import np; inspect.unwrap(np);"
    asked = " hasattr(np, '__bases__') or hasattr(np, '__test__') or hasattr(np, '_mock_name')"
    assert "numpy" not in loaded_after(code + asked)


def test_the_store_loads_without_an_engine() -> None:
    """Every module of the store, imported in a new interpreter, loads none."""
    modules = [path[:-3].replace("/", ".") for path in sources("lakelog/store")]
    modules = [module.removesuffix(".__init__") for module in modules]
    assert ENGINES & loaded_after(f"import {', '.join(modules)}") == set()


def test_a_server_starts_without_formats_and_pages() -> None:
    """The process that stores events loads formats, and what answers a page, when asked for it."""
    need_module("uvicorn")
    loaded = loaded_after("import lakelog.server.app")
    assert loaded.isdisjoint({"lakelog.formats.registry", "lakelog.server.api.history"})


def test_engines_are_declared_once() -> None:
    """DuckDB, Arrow and NumPy come from `lakelog.libraries`, which loads them when first used."""
    declared = re.compile(r"""Lazy\("(duckdb|numpy|pyarrow(\.compute|\.parquet)?)"\)""")
    found = [path for path, text in sources("lakelog").items() if declared.search(text)]
    assert found == ["lakelog/libraries/__init__.py"]
