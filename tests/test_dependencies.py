"""No code depends on what a dependency does not promise, but the adapters that are named here.

Such things are private names, the words of errors, and what DuckDB says of itself in SQL. Each
adapter has tests that say what it expects; they hold at both ends of the range in pyproject.toml.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

import pytest

from tests.support.tree import ROOT, Sources, nodes, sources

ADAPTERS = {
    "lakelog/engine/": "duckdb",
    "lakelog/clients/redis_client.py": "redis",
    "lakelog/loggers/genai_calls.py": "openai",
    "lakelog/loggers/otel.py": "opentelemetry",
    "lakelog/remotes/az.py": "obstore",
    "lakelog/remotes/gs.py": "obstore",
    "lakelog/remotes/object_store.py": "obstore",
    "lakelog/remotes/s3.py": "obstore",
    "lakelog/values/exact.py": "orjson",
    "lakelog/formats/re2.py": "pyarrow",
    "lakelog/cli/exits.py": "click",
}
"""Who may know more of a dependency than it promises: a folder or module, and the dependency."""
THIRD_PARTY = {
    *"duckdb pyarrow orjson numpy polars pandas click rich watchdog zstandard redis".split(),
    *"IPython prompt_toolkit pygments obstore confluent_kafka pymysql opentelemetry".split(),
}
ALIASES = {"pa": "pyarrow", "np": "numpy", "pc": "pyarrow", "pq": "pyarrow", "core": "duckdb"}
ALIASES |= {"_duckdb": "duckdb", "exceptions": "obstore"}
CATALOG = re.compile(r"json_(?:de)?serialize_sql|\bduckdb_[a-z]+\(\)|\bpragma_[a-z]+\(")
"""What DuckDB says of itself, in SQL."""
PARSED = {"extract_statements", "expected_result_type", "named_parameters"}
"""What its statements have, which says each version in its own way."""
SAID = re.compile(
    r"\bLINE |INTERRUPT|Query interrupted|(?:Conversion|Binder|Catalog|Parser|Input) Error"
    r"|with name|Referenced (?:column|table)|Candidate (?:functions|bindings)|unterminated"
    r"|Did you mean|already exists!|Cannot extract"
)
"""Words of its errors, as far as lakelog has ever looked for them."""
CUTTING = set(
    "split rsplit partition rpartition startswith endswith removeprefix find index replace".split()
)
STDLIB_PRIVATE = {*"_asdict _replace _getframe _is_owned _fields _current_exceptions".split()}
"""Private names of the standard library, whose versions are all tested."""


def adapted(path: str) -> str:
    """The dependency whose adapter a module is, "" for most."""
    return next((name for where, name in ADAPTERS.items() if path.startswith(where)), "")


def strings(text: str) -> Iterator[ast.Constant]:
    """Yield texts, those of f-strings included, without docstrings."""
    docs = {id(node.value) for node in nodes(text, ast.Expr)}
    for node in nodes(text, ast.Constant):
        if isinstance(node.value, str) and id(node) not in docs:
            yield node


def sql_breaches(path: str, text: str) -> Iterator[str]:
    """Report SQL about the engine, its words, and the fields of its statements."""
    if adapted(path) == "duckdb":
        return
    said = {}
    for node in strings(text):
        if found := CATALOG.search(node.value):
            yield f"{path}:{node.lineno}: asks the engine of itself: {found[0]}"
        if found := SAID.search(node.value):
            said[id(node)] = found[0]
    for node in nodes(text, ast.Attribute):
        if node.attr in PARSED:
            yield f"{path}:{node.lineno}: reads {node.attr} of the engine"
    for node in filter(_compares, nodes(text, ast.Compare, ast.Call) if said else ()):
        if words := next((said[id(n)] for n in ast.walk(node) if id(n) in said), None):
            yield f"{path}:{node.lineno}: looks for words of the engine: {words}"


def _compares(node: ast.AST) -> bool:
    """Whether an expression looks into a text: a pattern, `in`, or a method that cuts."""
    if isinstance(node, ast.Compare):
        return any(isinstance(op, ast.In | ast.NotIn | ast.Eq) for op in node.ops)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = node.func.value
    is_pattern = isinstance(owner, ast.Name) and owner.id == "re"
    return is_pattern or node.func.attr in CUTTING


def message_breaches(path: str, text: str) -> Iterator[str]:
    """Report handlers of a dependency's errors that look into their words."""
    for handler in nodes(text, ast.ExceptHandler):
        if handler.type is None or not handler.name:
            continue
        names = {n.id for n in ast.walk(handler.type) if isinstance(n, ast.Name)}
        caught = {ALIASES.get(name, name) for name in names} & THIRD_PARTY
        for node in ast.walk(handler) if caught - {adapted(path)} else ():
            if _reads_words(node, handler.name):
                yield f"{path}:{node.lineno}: reads the words of {', '.join(sorted(caught))}"  # type: ignore[attr-defined]


def _reads_words(node: ast.AST, error: str) -> bool:
    """Whether an expression looks into `str(error)`, other than to put it into one line."""
    texts: list[ast.AST] = []
    if isinstance(node, ast.Compare):
        texts = list(node.comparators) if isinstance(node.ops[0], ast.In | ast.NotIn) else []
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner, name = node.func.value, node.func.attr
        if isinstance(owner, ast.Name) and owner.id == "re":
            texts = list(node.args)
        elif name in CUTTING and node.args:
            texts = [owner]
        elif name in ("search", "match", "fullmatch", "findall"):
            texts = list(node.args)
    said = f"str({error})"
    return any(ast.unparse(child) == said for text in texts for child in ast.walk(text))


def private_breaches(texts: Sources) -> Iterator[str]:
    """Report private modules that are imported, and private names that are not our own."""
    own = set(STDLIB_PRIVATE).union(*map(_defined, texts.values()))
    for path, text in texts.items():
        for node in nodes(text, ast.Import, ast.ImportFrom, ast.Call):
            if (module := _imported(node)) and _is_private(module):
                owner = module.lstrip("_").split(".")[0]
                if adapted(path) != owner:
                    yield f"{path}:{node.lineno}: imports the private {module}"
        for node in nodes(text, ast.Attribute) if not adapted(path) else ():
            if re.match("_(?!_)", node.attr) and node.attr not in own:
                yield f"{path}:{node.lineno}: reads {ast.unparse(node)}"


def _defined(text: str) -> set[str]:
    """The names that a module gives to anything."""
    made = nodes(text, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    fields = (n for n in nodes(text, ast.Attribute) if isinstance(n.ctx, ast.Store))
    names = (n for n in nodes(text, ast.Name) if isinstance(n.ctx, ast.Store))
    return {n.name for n in made} | {n.attr for n in fields} | {n.id for n in names}


def _imported(node: ast.AST) -> str:
    """The module that a node imports, at once or lazily, or the private name out of one."""
    if isinstance(node, ast.Import):
        return next((a.name for a in node.names if _is_private(a.name)), "")
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        return next(filter(_is_private, names), "")
    is_lazy = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Lazy"
    if is_lazy and isinstance(node.args[0], ast.Constant):  # type: ignore[attr-defined]
        return str(node.args[0].value)  # type: ignore[attr-defined]
    return ""


def _is_private(module: str) -> bool:
    top, *_ = module.split(".")
    is_theirs = top != "lakelog" and top not in sys.stdlib_module_names
    return is_theirs and any(name.startswith("_") for name in module.split("."))


def breaches(texts: Sources) -> list[str]:
    """Report all of these."""
    found = list(private_breaches(texts))
    for path, text in texts.items():
        found += [*sql_breaches(path, text), *message_breaches(path, text)]
    return found


def test_only_adapters_know_more_than_a_dependency_promises() -> None:
    """What lakelog needs of a dependency that may change in any release is in one place."""
    assert breaches(sources("lakelog")) == []


def test_each_adapter_is_there() -> None:
    """An adapter that is moved or gone is taken from the list."""
    assert [where for where in ADAPTERS if not (ROOT / where).exists()] == []


@pytest.mark.parametrize(
    "text",
    [
        "cursor.execute('SELECT json_serialize_sql($1)', [query])",
        "rows = f'SELECT 1 FROM duckdb_functions() WHERE stability = {flag}'",
        "cursor.extract_statements(query)",
        "kind = statement.expected_result_type",
        "import re\nNAME = re.compile('Table with name (.*) does not')",
        "words = text.split('\\n\\nLINE ')[0]",
        "cut = text in ('Query interrupted', 'INTERRUPT Error: Interrupted!')",
        "try: f()\nexcept duckdb.Error as error: found = 'lock' in str(error)",
        "try: f()\nexcept pa.ArrowInvalid as error: line = str(error).split('#')[1]",
        "try: f()\nexcept orjson.JSONDecodeError as error: m = PLACE.search(str(error))",
        "try: f()\nexcept (OSError, redis.RedisError) as e: x = str(e).lower().startswith('moved')",
        "import _duckdb",
        "from click._compat import isatty",
        "from rich.console import _null_highlighter",
        "core = Lazy('_duckdb')",
        "socket = connection._sock",
    ],
)
def test_planted_breaches_are_reported(text: str) -> None:
    """In any other module, each of these; in the adapter of its dependency, none."""
    assert len(breaches({"lakelog/query/planted.py": text})) == 1, text


@pytest.mark.parametrize(
    "text",
    [
        "try: f()\nexcept duckdb.Error as error: words = ' '.join(str(error).split())",
        "try: f()\nexcept SyncRefused as error: gone = 'no such key' in str(error)",
        "class Own:\n    _sock = None\n\ndef f(own): return own._sock",
        "def f():\n    '''Uses duckdb_functions() of the engine, as LINE 1: shows.'''",
        "import _thread",
        "print('Catalog Error: shown to a user')",
    ],
)
def test_what_is_promised_is_no_breach(text: str) -> None:
    """Words that are passed on, errors and private names of our own, the standard library."""
    assert breaches({"lakelog/query/planted.py": text}) == []


def test_an_adapter_may_know_its_own_dependency_alone() -> None:
    """The engine's adapter may read its words, and not those of Arrow."""
    engine = "try: f()\nexcept duckdb.Error as error: found = 'lock' in str(error)"
    assert breaches({"lakelog/engine/messages.py": engine}) == []
    assert len(breaches({"lakelog/engine/messages.py": engine.replace("duckdb", "pa")})) == 1
    assert len(breaches({"lakelog/loggers/otel.py": "import _duckdb"})) == 1
