"""The law of the tree, checked with ast alone; every check is also shown breaches it must report.

A tree is a dict of path to source text, so a planted breach is one line. ORDER is the import law:
a module may import what stands before it in its own folder, and whatever its folder may import.
"""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.tree import (
    OWN,
    Function,
    Module,
    Sources,
    behind_face,
    dotted,
    functions,
    imported_names,
    module_of,
    nodes,
    parsed,
    sources,
)

# A folder's modules and folders, each free to import only earlier ones; `__init__` and `__main__`
# come last without being named. A new module is added here, at the place where it may stand.
ORDER = {
    "": """errors runtime workers libraries engine settings values sql arrays event keys protect
        disk document paths volume refs entries manifest store wal moves appends history erased
        database identities bloom tokenization frame_rows column_encodings typed_columns segments
        word_indexes chunks proofs ranks maintain lines files formats render pictures search
        query patterns views trace streams ingest audit export dataframes pinned subscriptions
        erasure lake dbapi sqlalchemy_dialect clients collect backup loggers pipeline analyze
        anomalies forecasts train deploy remotes state rollback sync recent consume open_tables
        replay decisions outcomes folds eventsourcing alerts top containers oos compat server cli
        notebook""",
    "eventsourcing": "recorders",
    "keys": "envelope key_file master keyring plain_file vault subject_keys",
    "protect": "sealed_payload protection sealed_blocks",
    "engine": "core messages syntax volatility catalog",
    "runtime": "progress living forks lazy interpreter closest tables locks",
    "workers": "worker_process pool",
    "values": "types exact times",
    "event": "types exported levels uniform encode arrow_rows bookkeeping",
    "entries": "entry",
    "disk": "modes regular_file disk file lock_file file_system folder",
    "paths": "file_names lake_paths",
    "document": "checksum",
    "volume": "volume move_pack replacements erased_states",
    "manifest": "manifest_text manifest manifests",
    "refs": "ref tag_refs refs branch_life",
    "store": """attachment policy signatures verified_files received_segments machine lake_config
        new_directory store hosts
        sealer_process clock""",
    "wal": "frames batching tail trimming",
    "moves": "page_tree publication",
    "appends": """receipt versioned group_commit known_keys stream_lock stream_marks
        stream_versions writer_forks writer async_append arrival_signal""",
    "history": "snapshot deletion thinning window resolving branch_history",
    "sql": "quoting",
    "arrays": "buffers",
    "database": "block_ranges engine_files parquet_files connection",
    "identities": "identity_run",
    "bloom": "filters",
    "tokenization": "tokens",
    "frame_rows": "frame_sql rows",
    "column_encodings": "trials",
    "typed_columns": "schema field_inference payload_typing field_ids",
    "segments": "segment segment_sql",
    "word_indexes": "joint_filter word_dictionary word_index word_indexing",
    "ranks": "rank_index",
    "chunks": "state_index state_files chunk_writer",
    "erased": "copies documents subject_index records row_index refusal sweep",
    "erasure": """entrance selection rewriting chosen_rows recorded derived leftovers outside
        erasing touched key_erasure repetition status receipts on_lake""",
    "maintain": """seal payloads row_order compact indexing retention row_removal reachability
        repair gc hotcopy stats upkeep""",
    "maintain/repair": """checker recover outcome erasure_files lost_moves verify orphans refs
        lost_rows lost_ids data comparison repair""",
    "lines": "inflate pieces binary columnar checksum source",
    "files": "rotation scan file_cursor cursors cursor_paths file_copies identity",
    "formats": """sqltext uniform format narrow_queries zones engine_zone local_time line_encoding
        pattern line_starts container_levels pattern_format pattern_tables date_orders leading_times
        moments jsonl dialect lakelog_json dialects winevent docker journal documents otlp oos bulk
        styles columns hash_headers grok re2 definition custom access logformat cef logfmt cri
        auditd compose zeek w3c delimited plain mixture registry""",
    "formats/uniform": """quoted_text payload_layout line_layout payload_columns uniform_lines
        typed_payloads""",
    "render": "values vectors display formats plots",
    "pictures": "charts",
    "search": "language words condition calls answers",
    "query": """session_settings sql frames tail_rows behaviour providers pruning lake_tables
        stream relation frame_scans schemas top_scans binder failures histograms ranking session
        newest""",
    "query/sql": "tree extractions payload times show analysis keys table_sql segment_map",
    "views": """params definition guard catalog layers partials lineage state_notes
        background_writer state_writer finalize ledger mapping engine builds origin_table
        pattern_tables tables contract user_views""",
    "ingest": """splits spool file_report definitions records stripes time_carry conformance
        chunk_result transform event_segments tail_keys split_worker batch cursor_commit repeats
        skip gather group ingest stream_cursor message_events messages preview quarantine audit""",
    "audit": "stored_rows file_audit absent_lines account audit",
    "export": "folder tables row_files",
    "open_tables": """published_state publishing field_columns iceberg struct_columns
        table_folder delta""",
    "dataframes": "event_scan polars_frame dask_frame ray_dataset daft_frame spark_frame",
    "clients": "connection address http_client redis_config redis_client kafka_config",
    "collect": "followed_file successors status turns watch loop",
    "backup": "copy directory delete scheduler",
    "loggers": """exits buffer queue values destination recorder figure_recorder exceptions
        handler adapters otel spans genai_fields genai_streams genai_calls genai follower logfile
        oos ai""",
    "pipeline": "fact_log standing work_queue feeds",
    "analyze": "dedupe similar",
    "forecasts": "models trend metrics",
    "anomalies": "novelty baseline series limits drifts silences alarms sequences findings",
    "train": """tables shards recipe_schema losses filters tokenizer recipe
        selection scratch tokens cluster patterns redact shapes assign manifest
        dataset staging row_splits provenance leaks report trainingset rebuild compare inspection
        sandbox""",
    "train/shapes": """parts messages schemas streams telemetry chat_exports chats
        rows conversations preferences windows shape""",
    "train/report": "quality report card",
    "proofs": "keys envelope event_tree snapshot_tree signing proof receipt",
    "deploy": "deployment program kubectl container",
    "remotes": """remote remote_volume directory object_store s3 az gs sftp ssh
        registry_connections registry oci_manifests oci_erasing oci conditions known objects
        untrusted site encryption carry signature_files erasures ancestry pushes merge_rows merge
        fetches prunes shared""",
    "remotes/shared": """bucket lease move_spans name_file mirrored_volume shared_config
        name_units names offers segment_cache segment_ranges machines bucket_erasures mending
        versions attached""",
    "state": """switch filesystems chunker origin saved_state retention fingerprint exchange
        safety_tags rewind capture contents changes extract catalog present state restore_plan
        restore""",
    "rollback": "preflight rollback",
    "sync": """column_types target databases services plan mapping rows delta
        comparison syncer sync runner""",
    "sync/databases": "adbc sql_target database_files postgres mysql",
    "sync/services": "intent elasticsearch influxdb kafka_sink",
    "recent": "redis_recent newest_entries redis_feed",
    "consume": "source redis_stream kafka_source journal_source consume",
    "trace": "tree links listing",
    "streams": "event_stream numbered",
    "replay": "pace targets replay",
    "patterns": "masks mining findings",
    "folds": "upcasting saved_states fold aggregates",
    "outcomes": "features scoring drift evaluation model training prediction",
    "decisions": """intervals estimate offpolicy challengers decision_rows recorded_answers
        comparison
        calibration logged report recommendation tuning history""",
    "server": """limits arrivals bodies tokens gate protocols request_journal intake
        ingest_endpoint sql logql conditions tail_pace tail_feed tail_hub tail loki_tail mcp
        metrics api pages openapi syslog app run""",
    "server/sql": """query_limits statement_guard confinement bucket_relay request_loop worker
        worker_process workers endpoint""",
    "alerts": """rule silence question standing judgement samples notices sinks outbox rounds
        rulebook""",
    "top": "rates machine lag feed layout",
    "alerts/sinks": "sink webhook mail known",
    "server/logql": "syntax parser line_scope result_lines statements evaluation endpoint",
    "server/mcp": "lone_reader tools protocol_server endpoint",
    "server/protocols": """protocol json_lines elastic otlp_logs otlp loki collectd
        journal_upload""",
    "server/api": """question counts events sources overview about traces history alerts patterns
        answers answer_process routes""",
    "subscriptions": """branch_access position record catch_up delivery commit members registry
        tail_memory live_pages follower group_runner subscription administration""",
    "compat": "omega packs lookups event_store persistence sqlite_import dump",
    "containers": "staged_containers container_snapshots",
    "oos": """ai_functions download log_state oos_feed oos_views database_sync podcasts oos_demo
        redis""",
    "cli": """exits signals options render app arguments keys rounds input_formats
        stdin_lines sample shell connect write serve definitions ingest audit backups recent
        consume watch tail trace stream search anomalies patterns forecast decisions predict
        replay top subscriptions alerts query views export sync signatures train stats
        schema dedupe deploy remotes state machine omega oos events follow history rewind
        refs policy maintenance shared erase seal doctor setup completion demo""",
    "cli/render": "terminal tables output results monitor",
    "cli/shell": "statements screen complete editor shell",
    "notebook": "objects complete magics live",
}
INDEPENDENT = set(
    """collect backup loggers pipeline analyze anomalies forecasts train remotes state sync
    consume""".split()
)
# May load our code by its name.
LAZY_LOADERS = {"lakelog/runtime/lazy.py", "lakelog/cli/__init__.py"}
FREE_OF_ENGINES = tuple(
    f"lakelog/{name}/"
    for name in """disk document paths volume refs entries manifest store wal moves
        appends history""".split()
)
TOP_MODULES_MAX, ENGINES = 8, {"numpy", "pyarrow", "duckdb"}

LINES_MAX = {"lakelog": 500, "tests": 700, "benchmarks": 500, "data": 500}
FUNCTION_LINES_MAX = 70
FORBIDDEN_WORDS = set("manager managers helper helpers util utils common base misc".split())
# Written so that a plain search for unfinished work does not find this line.
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|X{3}|NotImplemented[E]rror)\b")

QUOTING, ENTRIES = "lakelog/sql/quoting.py", "lakelog/entries/entry.py"
ENTRY_READERS = tuple(
    f"lakelog/{name}"
    for name in """entries manifest store wal moves appends history segments maintain query views
        files ingest""".split()
)


# --- (a) the import law -----------------------------------------------------------------------


def import_breaches(tree: Sources) -> list[str]:
    """Report modules that stand in no order, and imports that do not go down."""
    found = []
    for path, text in tree.items():
        importer = module_of(path)
        if fault := unplaced(importer):
            found.append(f"{path}: {fault}")
            continue
        for node, module in own_imports(text, importer, tree):
            if fault := upward(importer, module):
                found.append(f"{path}:{node.lineno}: imports {dotted(module)}: {fault}")
    return found


def unplaced(module: Module) -> str:
    """Return which part of the module's path stands in no order, or nothing."""
    for depth, name in enumerate(module):
        folder = "/".join(module[:depth])
        if not name.startswith("__") and name not in ORDER.get(folder, "").split():
            return f"{name} stands in no order; give it a place in ORDER[{folder!r}] of {__name__}"
    return ""


def upward(importer: Module, imported: Module) -> str:
    """Return why the import is against the law, or nothing."""
    if importer == imported:
        return ""
    depth = next(i for i in range(len(importer)) if importer[i] != imported[i])
    mine, other = importer[depth], imported[depth]
    if depth == 0 and {mine, other} <= INDEPENDENT:
        return f"{mine} and {other} do not know each other"
    names = [*ORDER.get("/".join(importer[:depth]), "").split(), "__init__", "__main__"]
    if other not in names:
        return "it stands in no order"
    return "" if names.index(other) < names.index(mine) else f"{other} comes after {mine}"


def own_imports(text: str, importer: Module, tree: Sources) -> Iterator[tuple[ast.stmt, Module]]:
    """Yield each import statement of our own code with the module it means."""
    for node in nodes(text, ast.Import, ast.ImportFrom):
        for name in imported_names(node, importer):
            if name.split(".")[0] == OWN:
                yield node, meant(tuple(name.split(".")[1:]), tree, isinstance(node, ast.Import))


def meant(name: Module, tree: Sources, exact: bool) -> Module:
    """Return the module a dotted name means; its last part may be a name inside a module."""
    for module in (name, name if exact else name[:-1]):
        path = "/".join((OWN, *module))
        if f"{path}.py" in tree:
            return module
        if f"{path}/__init__.py" in tree or "/".join(module) in ORDER:
            return (*module, "__init__")
        if not unplaced(module):
            return module
    return module


def top_breaches(tree: Sources) -> list[str]:
    """Report more modules at the top than a reader can survey: a subject gets a package."""
    names = [path for path in tree if path.startswith("lakelog/") and path.count("/") == 1]
    extra = len(names) - TOP_MODULES_MAX
    return [f"{len(names)} modules at the top, at most {TOP_MODULES_MAX}"] if extra > 0 else []


def cycle_breaches(tree: Sources) -> list[str]:
    """Report a cycle of modules; that no packages form one follows from their order."""
    needs = {
        module_of(path): {module for _, module in own_imports(text, module_of(path), tree)}
        - {module_of(path)}
        for path, text in tree.items()
    }
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        return [" imports ".join(dotted(module) for module in reversed(error.args[1]))]
    return []


def engine_breaches(tree: Sources) -> list[str]:
    """Report engines that modules of the store import, themselves or by what they import."""
    found, pending = set(), [path for path in tree if path.startswith(FREE_OF_ENGINES)]
    seen = set(pending)
    while pending:
        path = pending.pop()
        text = tree[path]
        names = {
            name
            for node in nodes(text, ast.Import, ast.ImportFrom)
            for name in imported_names(node, module_of(path))
        }
        names |= {
            call.args[0].value
            for call in nodes(text, ast.Call)
            if ast.unparse(call.func) == "Lazy" and isinstance(call.args[0], ast.Constant)
        }
        engines = ENGINES & {name.split(".")[0] for name in names}
        found |= {f"{path}: {engine} is not for the store" for engine in engines}
        behind = {module for name in names for module in behind_face(name, text, tree)}
        own = {"/".join(meant(tuple(name.split(".")[1:]), tree, False)) for name in behind}
        reached = {f"{OWN}/{name}.py" for name in own} & tree.keys() - seen
        pending += reached
        seen |= reached
    return sorted(found)


# --- (b) no own imports inside functions ------------------------------------------------------


def local_import_breaches(tree: Sources) -> list[str]:
    """Report own code imported inside a function, or by a name in a string."""
    found = set()
    for path, text in tree.items():
        for node, module in own_imports(text, module_of(path), tree):
            if any(f.lineno <= node.lineno <= (f.end_lineno or 0) for f in functions(text)):
                found.add(f"{path}:{node.lineno}: imports {dotted(module)} inside a function")
        if path not in LAZY_LOADERS:
            found |= {f"{path}:{line}: imports by name" for line in imports_by_name(text)}
    return sorted(found)


def imports_by_name(text: str) -> Iterator[int]:
    for call in nodes(text, ast.Call):
        name = ast.unparse(call.func).split(".")[-1]
        if name in ("import_module", "__import__") and call.args:
            start = ast.unparse(call.args[0]).lstrip("rf").strip("'\"")
            if start.startswith((OWN, ".", "{")):
                yield call.lineno


# --- (c) sizes, (d) names, (e) docstrings, (i) unfinished work -----------------------------------


def size_breaches(tree: Sources) -> list[str]:
    """Report files and functions that are too long."""
    found = []
    for path, text in tree.items():
        lines, most = len(text.splitlines()), LINES_MAX[path.split("/")[0]]
        if lines > most:
            found.append(f"{path}: {lines} lines, at most {most}")
        for function in functions(text):
            length = function.end_lineno - function.lineno + 1
            if length > FUNCTION_LINES_MAX:
                found.append(f"{path}:{function.lineno}: {function.name} has {length} lines")
    return found


def name_breaches(tree: Sources) -> list[str]:
    """Report files and folders named for nothing in particular."""
    return [
        f"{path}: {', '.join(sorted(vague))} says nothing; name the file for its one noun"
        for path in tree
        if (vague := FORBIDDEN_WORDS & set(re.split(r"[/_.]", path)))
    ]


def docstring_breaches(tree: Sources) -> list[str]:
    """Report public modules, classes, functions and methods without a docstring."""
    found = []
    for path, text in tree.items():
        module = parsed(text)
        stem = Path(path).stem
        if module.body and (not stem.startswith("_") or stem.startswith("__")):
            if not ast.get_docstring(module):
                found.append(f"{path}: the module has no docstring")
            found += [f"{path}:{node.lineno}: {node.name} has none" for node in bare(module)]
    return found


def bare(scope: ast.Module | ast.ClassDef) -> Iterator[Function | ast.ClassDef]:
    for node in scope.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        marks = {ast.unparse(mark).split(".")[-1] for mark in node.decorator_list}
        if node.name.startswith("_") or marks & {"overload", "setter", "deleter"}:
            continue
        if not ast.get_docstring(node):
            yield node
        if isinstance(node, ast.ClassDef):
            yield from bare(node)


def unfinished_breaches(tree: Sources) -> list[str]:
    """Report marks of unfinished work."""
    return [
        f"{path}:{number}: {mark[0]}"
        for path, text in tree.items()
        for number, line in enumerate(text.splitlines(), 1)
        if (mark := UNFINISHED.search(line))
    ]


# --- (f) the public names, (g) light imports ------------------------------------------------------


# --- the tree keeps the law ---------------------------------------------------------------------


def shared_test_breaches(tree: Sources) -> list[str]:
    """Report tests that import another test file; what they share is in tests/support."""
    return [
        f"{path}:{node.lineno}: imports {name}"
        for path, text in tree.items()
        for node in nodes(text, ast.Import, ast.ImportFrom)
        for name in imported_names(node, ())
        if re.search(r"^tests\..*\btest_\w+", name)
    ]


def quoting_breaches(tree: Sources) -> list[str]:
    """Report texts that are quoted for SQL outside the one place for it."""
    return [
        f"{path}:{call.lineno}: quotes belong to {QUOTING}"
        for path, text in tree.items()
        if path != QUOTING and not path.startswith("lakelog/render/")  # CSV quotes as SQL does
        for call in nodes(text, ast.Call)
        if ast.unparse(call.func).endswith(".replace")
        and [ast.unparse(a) for a in call.args] in (['"\'"', "\"''\""], ["'\"'", "'\"\"'"])
    ]


def entry_breaches(tree: Sources) -> list[str]:
    """Report code that knows the JSON of manifest entries outside the one place for it."""
    return [
        f"{path}:{node.lineno}: entries are values; their JSON belongs to {ENTRIES}"
        for path, text in tree.items()
        if path != ENTRIES
        for node in nodes(text, ast.Constant)
        if node.value in ("add", "del")
    ]


LAWS: dict[str, tuple[Callable[[Sources], list[str]], tuple[str, ...]]] = {
    "imports go down": (import_breaches, ("lakelog",)),
    "few modules at the top": (top_breaches, ("lakelog",)),
    "no cycles": (cycle_breaches, ("lakelog",)),
    "no engine in the store": (engine_breaches, ("lakelog",)),
    "no own imports in functions": (local_import_breaches, ("lakelog",)),
    "sizes": (size_breaches, tuple(LINES_MAX)),
    "names": (name_breaches, tuple(LINES_MAX)),
    "docstrings": (docstring_breaches, ("lakelog",)),
    "nothing unfinished": (unfinished_breaches, ("lakelog",)),
    "no test imports a test": (shared_test_breaches, ("tests",)),
    "one place quotes for SQL": (quoting_breaches, ("lakelog",)),
    "one place has the JSON of entries": (entry_breaches, ENTRY_READERS),
}


def test_the_tree_keeps_the_laws() -> None:
    """No file breaches a law; one test for all, as each reads all files."""
    found = [
        f"{law}: {breach}"
        for law, (breaches, folders) in LAWS.items()
        for breach in breaches(sources(*folders))
    ]
    assert "\n".join(found) == ""


# --- planted breaches ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text", "reported"),
    [
        ("refs/ref.py", "from lakelog.query import session", "session: query comes after refs"),
        ("refs/ref.py", "import lakelog.query.session", "session: query comes after refs"),
        ("refs/ref.py", "from lakelog.refs import refs", "refs: refs comes after ref"),
        ("refs/ref.py", "from lakelog.refs.refs import swap", "refs: refs comes after ref"),
        ("refs/ref.py", "from . import refs", "refs: refs comes after ref"),
        ("refs/ref.py", "from ..query.session import run", "session: query comes after refs"),
        ("refs/ref.py", "from lakelog.refs import anything", "__init__ comes after ref"),
        ("refs/ref.py", "from lakelog import open", "__init__ comes after refs"),
        ("refs/ref.py", "import lakelog", "__init__ comes after refs"),
        ("errors.py", "if TYPE_CHECKING:\n    from lakelog.event import x", "event comes after"),
        ("lake.py", "from lakelog.cli import main", "cli comes after lake"),
        ("train/__init__.py", "import lakelog.collect", "train and collect do not know each other"),
        ("refs/ref.py", "from lakelog.segments import segment", "segments comes after refs"),
        ("files/scan.py", "from lakelog.formats import registry", "formats comes after files"),
        ("query/sql/tree.py", "from lakelog.query import session", "session comes after sql"),
        ("remotes/pushes.py", "from lakelog.state import state", "do not know each other"),
        ("cli/__init__.py", "import lakelog.cli.nowhere", "it stands in no order"),
        ("store/stray.py", "", "stray stands in no order; give it a place in ORDER['store']"),
        ("nowhere/wal.py", "", "nowhere stands in no order; give it a place in ORDER['']"),
    ],
)
def test_an_import_upward_is_reported(path: str, text: str, reported: str) -> None:
    """A planted import of a later module, a stranger, or an unlisted module is reported."""
    breaches = import_breaches({f"lakelog/{path}": text})
    assert len(breaches) == 1
    assert breaches[0].startswith(f"lakelog/{path}")
    assert reported in breaches[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("refs/refs.py", "import zlib, zstandard\nfrom lakelog.refs import ref"),
        ("refs/refs.py", "from lakelog.errors import DamagedWal\nfrom . import ref"),
        ("store/__init__.py", "from lakelog.refs.ref import replay"),
        ("query/session.py", "from lakelog.refs import refs\nfrom lakelog import errors, settings"),
        ("train/__init__.py", "from lakelog.lake import Lake"),
        ("__init__.py", "from lakelog.errors import LakelogError\nfrom lakelog import event"),
        ("__main__.py", "from lakelog.cli import main"),
    ],
)
def test_an_import_downward_is_allowed(path: str, text: str) -> None:
    """Imports of other packages, lower floors and earlier neighbours are not reported."""
    assert import_breaches({f"lakelog/{path}": text}) == []


def test_a_ninth_module_at_the_top_is_reported() -> None:
    """Eight are allowed, however many there are in packages."""
    tree = {f"lakelog/m{n}.py": "" for n in range(8)} | {"lakelog/refs/ref.py": ""}
    assert top_breaches(tree) == []
    assert len(top_breaches({**tree, "lakelog/m8.py": ""})) == 1


def test_a_cycle_is_reported() -> None:
    """Also one over three modules, or under TYPE_CHECKING."""
    tree = {
        "lakelog/refs/ref.py": "from lakelog.refs import refs",
        "lakelog/refs/refs.py": "if TYPE_CHECKING:\n    from lakelog.lake import Lake",
        "lakelog/lake.py": "from lakelog.refs.ref import replay",
    }
    (breach,) = cycle_breaches(tree)
    assert {"lakelog.refs.ref", "lakelog.refs.refs", "lakelog.lake"} <= {*breach.split()}
    assert cycle_breaches({**tree, "lakelog/lake.py": ""}) == []


@pytest.mark.parametrize(
    "text",
    [
        "import numpy",
        "import pyarrow.compute as pc",
        "from duckdb import connect",
        "def seal():\n    import duckdb",
        "if TYPE_CHECKING:\n    import numpy as np",
        "np = Lazy('numpy')",
        "pc = Lazy('pyarrow.compute')",
        "from lakelog.event.encode import encode",
        "encode = Lazy('lakelog.event.encode')",
    ],
)
def test_an_engine_in_the_store_is_reported(text: str) -> None:
    """Imported, lazily or not, by the store or by a module that it imports; elsewhere it may be."""
    tree = {"lakelog/refs/ref.py": text, "lakelog/event/encode.py": "import numpy"}
    assert len(engine_breaches(tree)) == 1
    assert engine_breaches({"lakelog/segments/segment.py": text}) == []
    assert engine_breaches({**tree, "lakelog/refs/ref.py": "from lakelog.event import types"}) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("from lakelog.keys import VAULT", 0),
        ("from lakelog import keys\nkeys.VAULT", 0),
        ("from lakelog.keys import sealed", 1),
        ("from lakelog import keys\nkeys.sealed", 1),
        ("keys = Lazy('lakelog.keys')", 1),
    ],
)
def test_an_engine_behind_a_face_is_reported(text: str, count: int) -> None:
    """Where the name that the store takes of a lazy face loads one, and not where another does."""
    face = "from lakelog.keys.vault import VAULT\nfrom lakelog.keys.blocks import sealed\nlazy_face"
    tree = {
        "lakelog/refs/ref.py": text,
        "lakelog/keys/__init__.py": face,
        "lakelog/keys/vault.py": "",
        "lakelog/keys/blocks.py": "import numpy",
    }
    assert len(engine_breaches(tree)) == count


@pytest.mark.parametrize(
    "text",
    [
        "def seal():\n    from lakelog.refs import ref",
        "class Lake:\n    async def seal(self):\n        import lakelog.refs.ref",
        "def seal():\n    def now():\n        from .refs import ref",
        "import importlib\nimportlib.import_module('lakelog.refs.ref')",
        "from importlib import import_module\nimport_module(f'{__package__}.wal')",
    ],
)
def test_a_local_import_is_reported(text: str) -> None:
    """A planted import of our own code in a function, or by name, is reported once."""
    assert len(local_import_breaches({"lakelog/lake.py": text})) == 1


def test_a_local_import_of_another_package_is_allowed() -> None:
    """Heavy packages may be imported where they are used, and public packages may be lazy."""
    text = "def run():\n    import duckdb\n    importlib.import_module('s3fs')"
    lazy = "def __getattr__(name):\n    return importlib.import_module('lakelog.lake')"
    tree = {"lakelog/query/session.py": text, "lakelog/runtime/lazy.py": lazy}
    assert local_import_breaches(tree) == []


def test_a_long_file_or_function_is_reported() -> None:
    """One line above the limit of a file or a function is reported; the limit itself is not."""
    assert size_breaches({"lakelog/lake.py": "x = 1\n" * 500, "tests/t.py": "x = 1\n" * 700}) == []
    assert len(size_breaches({"lakelog/lake.py": "x = 1\n" * 501})) == 1
    assert len(size_breaches({"tests/test_lake.py": "x = 1\n" * 701})) == 1
    longest = "def seal():\n" + "    x = 1\n" * 69
    assert size_breaches({"lakelog/lake.py": longest}) == []
    breaches = size_breaches({"lakelog/lake.py": longest + "    x = 1\n"})
    assert breaches == ["lakelog/lake.py:1: seal has 71 lines"]


@pytest.mark.parametrize(
    "path", ["lakelog/utils.py", "lakelog/helpers/wal.py", "lakelog/io_base.py", "tests/common.py"]
)
def test_a_vague_name_is_reported(path: str) -> None:
    """A planted file or folder with a name that fits everything is reported."""
    assert len(name_breaches({path: "", "lakelog/database.py": ""})) == 1


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("x = 1", ["the module has no docstring"]),
        ('"""Doc."""\ndef seal(): ...', ["seal has none"]),
        ('"""Doc."""\nasync def seal(): ...', ["seal has none"]),
        ('"""Doc."""\nclass Wal:\n    def cut(self): ...', ["Wal has none", "cut has none"]),
    ],
)
def test_a_missing_docstring_is_reported(text: str, reported: list[str]) -> None:
    """A planted public module, function, class or method without a docstring is reported."""
    breaches = docstring_breaches({"lakelog/lake.py": text})
    assert [breach.split(": ")[1] for breach in breaches] == reported


def test_private_names_need_no_docstring() -> None:
    """Private names, nested functions, setters and an empty `__init__` are not reported."""
    text = '"""Doc."""\ndef _cut(): ...\nclass _Wal:\n    def cut(self): ...\n'
    nested = 'def seal():\n    """Doc."""\n    def now(): ...\n'
    setter = 'class Wal:\n    """Doc."""\n    @size.setter\n    def size(self, to): ...\n'
    tree = {"lakelog/lake.py": text + nested + setter, "lakelog/cli/__init__.py": ""}
    assert docstring_breaches(tree) == []


@pytest.mark.parametrize("mark", ["todo", "fixme", "xxx"])
def test_a_mark_of_unfinished_work_is_reported(mark: str) -> None:
    """A planted mark of unfinished work is reported with its line."""
    text = f"x = 1\n# {mark.upper()}: later"
    assert unfinished_breaches({"lakelog/lake.py": text}) == [f"lakelog/lake.py:2: {mark.upper()}"]
    assert unfinished_breaches({"lakelog/lake.py": f"raise {NotImplemented}Error"}) != []


def test_a_test_that_imports_a_test_is_reported() -> None:
    """By its module, or by a name in it."""
    text = "from tests.cli import test_cli\nfrom tests.cli.test_cli import run\n"
    assert len(shared_test_breaches({"tests/x.py": text})) == 2
    assert shared_test_breaches({"tests/x.py": "from tests.support.cli import run"}) == []


def test_quotes_of_ones_own_are_reported() -> None:
    """Names and texts alike."""
    text = """a.replace("'", "''")\nb.replace('"', '""')\nc.replace("'", "")"""
    assert len(quoting_breaches({"lakelog/x.py": text})) == 2


def test_a_planted_entry() -> None:
    """JSON of an entry, written or read, is reported outside entries/entry.py."""
    text = 'old = {"del": "view", "key": name}\nif "add" in old or old.get("add"):\n    add(old)\n'
    assert len(entry_breaches({"lakelog/views/x.py": text, ENTRIES: text})) == 3
